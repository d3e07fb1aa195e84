"""The engine: graphs in, values out, by way of the scheduler, the compiler and the runtimes.

    realize -> normalize -> (structural cache, else schedule, compile, load) -> run -> fill

`normalize` gives equal graphs the very same nodes, so the cache is a look-up by reference: a step like one before it is
neither scheduled nor compiled. Graphs on `REF` are interpreted; where a graph crosses between `REF` and another device,
both sides are evaluated one after the other.

One lock makes evaluations of several threads take turns while Python works on them; devices work on, and waiting for
values is outside of it. In the child of a fork everything works on, with threads of its own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from tg import knobs
from tg.binaries import Binaries, Compile, compile_kernel
from tg.devices import REFERENCE, Devices, Factory, kind_of
from tg.disk_cache import DiskCache
from tg.executable import Executable, read_memory
from tg_frontend import engine as frontend
from tg_ir.dtypes import DType
from tg_ir.graph.nodes import Node, toposort
from tg_ir.kernel.nodes import Kernel
from tg_ir.program.nodes import Launch, Program
from tg_ir.protocols import Buffer
from tg_ir.reference import ReferenceEngine
from tg_schedule.normalize import Normalized, normalize

if TYPE_CHECKING:
    from tg.profile import Profile

__all__ = ["TgEngine", "install", "make_engine"]

CACHED_PROGRAMS = 4096
HOST = "x86_64"

_engines: weakref.WeakSet[TgEngine] = weakref.WeakSet()


class TgEngine:
    """An `Engine` (tg_ir.protocols). Tests give it runtimes and a compiler of their own.

    Args:
        factories: what makes a runtime from a device's name, by kind of device; by default what is installed.
        compile_: what makes a binary of a kernel, a target and the text of a plan; by default tg_codegen.
        cache: binaries on disk; by default in the folder of `TG_CACHE_DIR` if the compiler is tg_codegen, else none.
    """

    def __init__(
        self,
        factories: Mapping[str, Factory] | None = None,
        compile_: Compile | None = None,
        cache: DiskCache | None = None,
    ):
        folder = knobs.cache_folder() if compile_ is None else None
        if folder is not None and cache is None:
            cache = DiskCache(folder / "binaries", knobs.cache_bytes())
        self._devices = Devices(factories)
        self._binaries = Binaries(compile_ or compile_kernel, cache, _plan_of(folder))
        self._reference = ReferenceEngine()
        self._mapped: weakref.WeakSet[Buffer] = weakref.WeakSet()  # those whose bytes the host may look at
        self._programs: OrderedDict[tuple[object, ...], Executable | None] = OrderedDict()
        self._lock = threading.RLock()
        self.scheduled = 0
        """How many graphs were scheduled."""
        self.profile: Profile | None = None
        if knobs.profile():
            self.profile = import_module("tg.profile").Profile(self._devices, self._target)
        _engines.add(self)

    @property
    def compiled(self) -> int:
        """How many kernels were compiled, not found in memory or on disk."""
        return self._binaries.compiled

    # ---- the protocol --------------------------------------------------------------------------------------

    def devices(self) -> Sequence[str]:
        """The kinds of devices that are known so far, the default first."""
        return self._devices.names()

    def knows(self, kind: str) -> bool:
        """Whether it evaluates on devices of this kind; the first unknown one makes it look for installed runtimes."""
        return self._devices.knows(kind)

    def realize(self, nodes: Sequence[Node]) -> None:
        """Fill each node with its value."""
        with self._lock:
            wanted = [node for node in nodes if node.value is None]
            if not wanted:
                return
            normal = normalize(wanted)
            executable = self.executable(normal)
            if executable is None:
                self._realize_across(wanted)
                return
            for node, buffer in zip(wanted, executable.run(normal.buffers, normal.scalars), strict=True):
                node.fill(buffer)

    def upload(self, data: memoryview, shape: tuple[int, ...], dtype: DType, device: str) -> Buffer:
        """A buffer with a copy of `data`."""
        if kind_of(device) == REFERENCE:
            return self._reference.upload(data, shape, dtype, device)
        runtime = self._devices.runtime(device)
        buffer = Buffer(shape, dtype, device, runtime.alloc(data.nbytes), runtime.free)
        if data.nbytes:
            runtime.copy(buffer.memory, data.cast("B"), data.nbytes)
        return buffer

    def share(self, data: memoryview, shape: tuple[int, ...], dtype: DType, device: str) -> Buffer:
        """A buffer over `data` where the device can and it is writable, else with a copy."""
        if kind_of(device) == REFERENCE:
            return self._reference.share(data, shape, dtype, device)
        runtime = self._devices.runtime(device)
        memory = None if data.readonly or not data.nbytes else runtime.share(data)
        if memory is None:
            return self.upload(data, shape, dtype, device)
        return Buffer(shape, dtype, device, memory, lambda memory: runtime.free(memory))  # not ours to write

    def download(self, buffer: Buffer) -> memoryview:
        """The bytes of `buffer`, the memory itself where the host can read it."""
        if kind_of(buffer.device) == REFERENCE:
            return self._reference.download(buffer)
        size = _size_bytes(buffer)
        self._mapped.add(buffer)
        return (
            read_memory(self._devices.runtime(buffer.device), buffer.memory, size)
            if size
            else memoryview(b"")
        )

    def synchronize(self, device: str, timeout_s: float | None = None) -> None:
        """Wait until the device has finished what was given to it."""
        if kind_of(device) != REFERENCE:
            self._devices.runtime(device).synchronize(timeout_s)

    # ---- programs ------------------------------------------------------------------------------------------

    def executable(self, normal: Normalized, donate: Sequence[tuple[int, int]] = ()) -> Executable | None:
        """The program of a normal form, ready to run; None for a graph that REF takes part in.

        `donate`: roots and the inputs that they may be written over; see `Executable.overwrites`.
        """
        with self._lock:
            key = (*map(_entry, normal.roots), *donate)
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
            on_reference = any(kind_of(node.device) == REFERENCE for node in toposort(normal.roots))
            made = None if on_reference else self._make(normal, donate)
            self._programs[key] = made
            if len(self._programs) > CACHED_PROGRAMS:
                self._programs.popitem(last=False)
            return made

    def may_overwrite(self, buffer: Buffer) -> bool:
        """Whether the memory is this buffer's alone, as far as the engine gave it out."""
        return buffer not in self._mapped and buffer.release == self._devices.runtime(buffer.device).free

    def copy_of(self, buffer: Buffer) -> Buffer:
        """A buffer of its own memory with the same contents."""
        runtime, size = self._devices.runtime(buffer.device), _size_bytes(buffer)
        copy = Buffer(buffer.shape, buffer.dtype, buffer.device, runtime.alloc(size), runtime.free)
        runtime.copy(copy.memory, buffer.memory, size)
        return copy

    def _make(self, normal: Normalized, donate: Sequence[tuple[int, int]]) -> Executable:
        schedule_normalized = import_module("tg_schedule.pipeline").schedule_normalized
        self.scheduled += 1
        program, inputs, outputs = schedule_normalized(normal, f"program{self.scheduled}", donate)
        if self.profile is not None:
            program = _with_own_names(program, f"p{self.scheduled}_")
        binaries = self._compile(program)
        if knobs.dumped():
            import_module("tg.dump").dump(normal.roots, program, binaries)
        shapes = [root.shape for root in normal.roots]
        note = None if self.profile is None else self.profile.note
        return Executable(self._devices, program, binaries, inputs, outputs, shapes, note)

    def _compile(self, program: Program) -> dict:
        """The binaries by device and kernel name."""
        devices: dict[str, dict[str, None]] = {}
        for step in program.steps:
            kernel = getattr(step, "kernel", None)
            if kernel is not None:
                devices.setdefault(program.buffers[step.buffers[0]].device, {})[kernel] = None
        found = {}
        for device, names in devices.items():
            found[device] = self._binaries.get([program.kernel[name] for name in names], self._target(device))
        return found

    def _target(self, device: str) -> str:
        target = self._devices.runtime(device).target
        return knobs.target() or import_module("tg_codegen.host").host_target() if target == HOST else target

    def _realize_across(self, wanted: Sequence[Node]) -> None:
        """Evaluate what crosses between REF and other devices first, then each side by itself."""
        for node in toposort(wanted, into=lambda node: node.value is None):
            if node.op.name == "copy" and node.value is None:
                (source,) = node.inputs
                if (kind_of(source.device) == REFERENCE) != (kind_of(node.device) == REFERENCE):
                    self.realize([source])
                    shape = source.value.shape
                    node.fill(self.upload(self.download(source.value), shape, node.dtype, node.device))
        interpreted = [node for node in wanted if kind_of(node.device) == REFERENCE]
        self._reference.realize(interpreted)
        self.realize([node for node in wanted if node not in set(interpreted)])

    def renew_locks(self) -> None:
        """In the child of a fork, where nobody is left to release them."""
        self._lock = threading.RLock()
        self._devices.renew_lock()


def _with_own_names(program: Program, prefix: str) -> Program:
    """The program with a prefix before the names of its kernels, so that a profile tells them from others'."""
    kernels = tuple([replace(kernel, name=prefix + kernel.name) for kernel in program.kernels])
    steps = [replace(s, kernel=prefix + s.kernel) if isinstance(s, Launch) else s for s in program.steps]
    return replace(program, kernels=kernels, steps=tuple(steps))


def _report(profile: Profile) -> None:
    table = profile.table()
    if profile.launches:
        sys.stderr.write(table)
        path = knobs.trace_path()
        if path is not None:
            profile.write_trace(path)


def _size_bytes(buffer: Buffer) -> int:
    return prod(buffer.shape) * buffer.dtype.itemsize


def _entry(root: Node) -> object:
    """What stands for a root in a key of the cache. Not the node: a graph without inputs is its own normal form, and
    the cache would keep the value that is filled in."""
    return root if root.op.name in ("const", "buffer") else (root.op, root.inputs, root.attrs)


def _plan_of(folder: Path | None) -> Callable[[Kernel, str, str], str | None]:
    """What knows of better plans than the planner's: nothing, unless there are records or TG_TUNE asks for them."""
    seconds = knobs.tune_seconds()
    if folder is None or not (seconds or (folder / "plans").is_dir()):
        return lambda kernel, key, target: None
    tuning = import_module("tg.tuning")
    records = DiskCache(folder / "plans", knobs.cache_bytes())
    return tuning.Tuner(records, tuning.neighbours, seconds).plan_of


def make_engine() -> TgEngine:
    """An engine on what is installed; with TG_PROFILE=1 it reports at exit."""
    engine = TgEngine()
    if engine.profile is not None:
        weakref.finalize(
            engine, int
        )  # finalizers end worker threads at exit: they come after what is registered now
        atexit.register(_report, engine.profile)
    return engine


def install() -> None:
    """Make an engine the one that evaluates tensors, unless there is one."""
    if frontend.installed() is None:
        frontend.offer_engine(make_engine())


def _after_fork() -> None:
    for engine in list(_engines):
        engine.renew_locks()


os.register_at_fork(after_in_child=_after_fork)
