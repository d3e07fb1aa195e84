"""The device `CPU`: its memory, its queue, and the programs recorded for it."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence

from tg_ir.errors import DeviceError
from tg_ir.program.nodes import Program
from tg_ir.protocols import Binary
from tg_runtime_cpu import knobs
from tg_runtime_cpu.abi import LoadedBinary
from tg_runtime_cpu.code_memory import CodeMemory
from tg_runtime_cpu.errors import OutOfMemoryError, WorkTimeoutError
from tg_runtime_cpu.libc import call
from tg_runtime_cpu.memory import Allocator, Arena, CpuMemory, share
from tg_runtime_cpu.recording import COPY_ARGUMENT_BYTES, CpuRecording, write_copy
from tg_runtime_cpu.workers import Job, WorkerPool, clock

__all__ = ["CpuRuntime"]

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18
_numbers = itertools.count()
_runtimes: weakref.WeakSet[CpuRuntime] = weakref.WeakSet()


class CpuRuntime:
    """One CPU device with its own memory, queue and worker threads. All calls may come from any thread.

    Work runs in the order of the calls, beside Python; whoever reads memory on the host calls `synchronize` first.
    Worker threads start with the first work. In the child of a fork they start anew and memory is a copy; work that was
    unfinished at the fork is an error there.
    """

    target = "x86_64"

    def __init__(
        self, name: str | None = None, threads: int | None = None, memory_limit_bytes: int | None = None
    ):
        self.name = name or f"CPU:{next(_numbers)}"
        self.threads = threads or knobs.threads()
        self._profile = knobs.profile()
        self._allocator = Allocator(self.name, memory_limit_bytes)
        self._code = CodeMemory()
        self._lock = threading.Lock()
        self._pool: WorkerPool | None = None
        self._lost_in_fork = False
        self._arena: Arena | None = None
        self._times: list[tuple[str, int, int]] = []
        self._clock = (clock(), time.monotonic_ns())
        _runtimes.add(self)

    def alloc(self, size_bytes: int) -> CpuMemory:
        """Uninitialised memory, aligned to 64 bytes. Raises: OutOfMemoryError."""
        if size_bytes < 0:
            raise DeviceError(f"{self.name}: alloc: got {size_bytes} bytes, want 0 or more")
        try:
            memory = self._allocator.alloc(size_bytes)
        except OutOfMemoryError:
            if not self._allocator.waiting:
                raise
            self.synchronize()
            memory = self._allocator.alloc(size_bytes)
        memory.born = self._latest()
        return memory

    def free(self, memory: CpuMemory) -> None:
        """Give memory back; it is used again once submitted work is done and no view of it is left."""
        pool = self._pool
        if pool is None or pool.is_done(ticket := pool.posted):
            self._allocator.free(memory, lambda: True)
        else:
            self._allocator.free(memory, lambda: pool.is_done(ticket))

    def arena(self, size_bytes: int) -> Arena:
        """Memory for temporaries of at least this size, the same for all: what one queue runs does not overlap."""
        if self._arena is None or self._arena.memory.size_bytes < size_bytes:
            self._arena = Arena(self.alloc(size_bytes), self.free)
        return self._arena

    def map(self, memory: CpuMemory) -> memoryview:
        """The bytes, once the work submitted before is done; see `synchronize`."""
        self.synchronize()
        return memory.view

    def share(self, data: memoryview) -> CpuMemory:
        """Memory over a writable contiguous buffer of the host, without a copy; it keeps the buffer alive.

        Raises: DeviceError for a buffer that is read-only or not contiguous: `alloc` and `copy` take those.
        """
        if data.readonly or not data.c_contiguous:
            raise DeviceError(
                f"{self.name}: share: got a read-only or strided buffer, want a writable contiguous one"
            )
        return share(data)

    def copy(self, target: CpuMemory | memoryview, source: CpuMemory | memoryview, size_bytes: int) -> None:
        """Copy in the order of the queue; a copy from or to a host view is done on return. Raises: DeviceError."""
        for what, end in (("target", target), ("source", source)):
            have = end.size_bytes if isinstance(end, CpuMemory) else end.nbytes
            if not 0 <= size_bytes <= have:
                raise DeviceError(
                    f"{self.name}: copy: got {size_bytes} bytes, want 0 to {have}, the size of the {what}"
                )
        if not size_bytes:
            return
        if isinstance(target, CpuMemory) and isinstance(source, CpuMemory):
            job = Job(["copy"], COPY_ARGUMENT_BYTES, keep=(target, source))
            write_copy(job, 0, 0, target.address, source.address, size_bytes, self.threads)
            self._post(job)
            return
        if not isinstance(target, CpuMemory) or target.born != self._latest():  # else no work can know it
            self.synchronize()
        read = source.view if isinstance(source, CpuMemory) else source.cast("B")
        write = target.view if isinstance(target, CpuMemory) else target.cast("B")
        write[:size_bytes] = read[:size_bytes]

    def load(self, binary: Binary) -> LoadedBinary:
        """Make a binary's code executable. Raises: DeviceError for a target that is not x86-64, or AMX without it."""
        target = binary.target.partition(":")
        if target[0] != "x86_64":
            raise DeviceError(f"{self.name}: load {binary.entry}: got target {binary.target}, want x86_64")
        if "amx" in target[2] and call("syscall")(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA):
            raise DeviceError(f"{self.name}: load {binary.entry}: Linux grants no AMX tiles to this process")
        with self._lock:  # so that no pool is made meanwhile
            if self._pool is None:
                return LoadedBinary(binary, self._code.add(binary.code, running=False))
            with self._pool.standstill() as still:
                return LoadedBinary(binary, self._code.add(binary.code, running=not still))

    def launch(self, loaded: LoadedBinary, buffers: Sequence[CpuMemory], scalars: Mapping[str, int]) -> None:
        """Run a binary once, in the order of the queue. Raises: DeviceError."""
        size = loaded.binary.arguments.size_bytes
        job = Job([loaded.binary.entry], size, keep=(loaded, buffers))
        address, block = job.arguments(0, size)
        loaded.write_arguments(block, [memory.address for memory in buffers], scalars)
        job.set_step(0, loaded.code.address, address, loaded.groups(scalars), self.threads)
        self._post(job)

    def record(self, program: Program, loaded: Mapping[str, LoadedBinary]) -> CpuRecording:
        """Turn a program into one job; `patch` gives its memory and scalars. Raises: DeviceError."""
        return CpuRecording(self, program, loaded)

    def submit(self, recording: CpuRecording) -> None:
        """Replay a recording: one native call. Raises: DeviceError."""
        job = recording.prepare()
        if not recording.empty:
            recording.ticket = self._post(job)

    def wait_for(self, recording: CpuRecording) -> None:
        """Wait until no submitted replay of a recording is left."""
        if recording.ticket is not None:
            pool, ticket = recording.ticket
            if not pool.ended:
                pool.wait(ticket, None)
            recording.ticket = None

    def synchronize(self, timeout_s: float | None = None) -> None:
        """Wait for all that was submitted; interruptible within 0.1 s, and the work goes on then.

        Raises: WorkTimeoutError: the worker threads were ended in the midst of their work, all that was submitted and
        not done is dropped, and memory that it writes holds anything. The device is as good as new.
        """
        self._check_fork()
        pool = self._pool
        if pool is None:
            return
        if pool.wait(pool.posted, timeout_s):
            pool.drop_done()
            return
        with self._lock:
            doing = pool.running()
            if self._pool is pool:
                self._pool = None
            pool.end()
        raise WorkTimeoutError(
            f"{self.name}: kernel {doing} not done after {timeout_s} s; it was ended, and the work behind it dropped"
        )

    def timestamps(self) -> list[tuple[str, int, int]]:
        """Name, start and end (ns of time.monotonic_ns) of launches since the last call; empty unless TG_PROFILE=1."""
        times, self._times = self._times, []
        counts, now = clock(), time.monotonic_ns()
        rate = (now - self._clock[1]) / (counts - self._clock[0])
        return [
            (name, now - int((counts - start) * rate), now - int((counts - end) * rate))
            for name, start, end in times
        ]

    def _latest(self) -> tuple[WorkerPool | None, int]:
        """The last work submitted."""
        return self._pool, self._pool.posted if self._pool else 0

    def _post(self, job: Job) -> tuple[WorkerPool, int]:
        self._check_fork()
        with self._lock:
            pool = self._pool = self._pool or WorkerPool(self.name, self.threads)
        ticket = pool.post(job)
        if self._profile:
            pool.wait(ticket, None)
            self._times += job.times()
        return pool, ticket

    def _check_fork(self) -> None:
        if self._lost_in_fork:
            self._lost_in_fork = False
            raise DeviceError(
                f"{self.name}: work was unfinished when this process was forked; synchronize before a fork"
            )

    def _after_fork(self) -> None:
        pool, self._pool, self._lock = self._pool, None, threading.Lock()
        self._lost_in_fork = pool is not None and not pool.is_done(pool.posted)
        if pool is not None:
            pool.forget_threads()
        self._allocator.renew_lock()
        self._code.renew_lock()


def _after_fork() -> None:
    for runtime in list(_runtimes):
        runtime._after_fork()


os.register_at_fork(after_in_child=_after_fork)
