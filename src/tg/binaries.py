"""Binaries of kernels: from memory, from disk, or compiled, by several processes when there are many.

The key of a binary is all that it depends on: the kernel's text without its names, the target, the plan, and the
sources of the compiler.

Many kernels are compiled by forks of this process, one a CPU: they begin at once with everything imported, where a new
interpreter takes longer than a dozen kernels. Threads would take turns. A process with several Python threads does not
fork, because a lock of another thread would stay closed in the child.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tg.disk_cache import DiskCache
from tg_ir.kernel.nodes import Kernel
from tg_ir.kernel.text import format_kernel
from tg_ir.protocols import ArgumentLayout, Binary
from tg_ir.symbolic import format_expr, parse_expr

__all__ = ["Binaries", "compiler_version", "kernel_key", "pack_binary", "unpack_binary"]

Compile = Callable[[Kernel, str, str | None], Binary]
"""Kernel, target, and the text of a plan or None for the planner's choice."""

FORK_FROM = 8
"""So many kernels of a program make a fork worth its 10 ms."""

_FORMAT = 1


@cache
def compiler_version() -> str:
    """A digest of the sources that a binary depends on besides its kernel."""
    digest = hashlib.sha256(str(_FORMAT).encode())
    for package in ("tg_ir", "tg_codegen"):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def kernel_key(kernel: Kernel) -> str:
    """The kernel's text with its own and its parameters' names left out."""
    names = {parameter.name: f"p{number}" for number, parameter in enumerate(kernel.parameters)}
    _, _, body = format_kernel(kernel).partition("\n")
    if not names or any(re.fullmatch(r"p\d+", var.name) or var.name in names for var in kernel.scalars):
        return body
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<!%)\b({pattern})\b", lambda match: names[match[1]], body)


def pack_binary(binary: Binary) -> bytes:
    """The binary as a line of JSON and its code."""
    head = {
        "target": binary.target,
        "entry": binary.entry,
        "size_bytes": binary.arguments.size_bytes,
        "buffers": binary.arguments.buffers,
        "scalars": binary.arguments.scalars,
        "grid": [format_expr(extent) for extent in binary.grid],
        "workgroup": binary.workgroup,
        "resources": dict(binary.resources),
    }
    return json.dumps(head).encode() + b"\n" + binary.code


def unpack_binary(data: bytes, kernel: Kernel) -> Binary:
    """The binary of this kernel that was packed."""
    line, _, code = data.partition(b"\n")
    head = json.loads(line)
    names = {var.name: var for var in kernel.scalars}
    layout = ArgumentLayout(
        head["size_bytes"], tuple(head["buffers"]), tuple([tuple(row) for row in head["scalars"]])
    )
    x, y, z = [parse_expr(text, names) for text in head["grid"]]
    return Binary(
        head["target"], kernel.name, code, layout, (x, y, z), tuple(head["workgroup"]), head["resources"]
    )


def compile_kernel(kernel: Kernel, target: str, plan: str | None) -> Binary:
    """What tg_codegen makes of it."""
    compiler = import_module("tg_codegen.compiler")
    parsed = None if plan is None else import_module("tg_codegen.plan").parse_plan(plan)
    return compiler.compile_kernel(kernel, target, parsed)


class Binaries:
    """Binaries by content. `plan_of(kernel, key, target)` gives the plan that tuning found best, as text, or None."""

    def __init__(
        self,
        compile_: Compile = compile_kernel,
        disk: DiskCache | None = None,
        plan_of: Callable[[Kernel, str, str], str | None] = lambda kernel, key, target: None,
    ):
        self._compile, self._disk, self._plan_of = compile_, disk, plan_of
        self._known: dict[str, Binary] = {}
        self.compiled = 0
        """How many kernels this process had to compile."""

    def get(self, kernels: Sequence[Kernel], target: str) -> dict[str, Binary]:
        """The binary of each kernel by name. Raises: whatever the compiler does."""
        found: dict[str, Binary] = {}
        missing: dict[str, tuple[Kernel, str | None]] = {}
        keys = {}
        for kernel in kernels:
            text = kernel_key(kernel)
            plan = self._plan_of(kernel, text, target)
            whole = "\0".join((text, target, plan or "", compiler_version()))
            key = keys[kernel.name] = hashlib.sha256(whole.encode()).hexdigest()
            if key not in self._known and key not in missing:
                data = self._disk.get(key) if self._disk else None
                if data is None:
                    missing[key] = (kernel, plan)
                else:
                    self._known[key] = unpack_binary(data, kernel)
        self._known |= self._make(missing, target)
        for kernel in kernels:
            binary = self._known[keys[kernel.name]]
            found[kernel.name] = binary if binary.entry == kernel.name else replace(binary, entry=kernel.name)
        return found

    def _make(self, missing: dict[str, tuple[Kernel, str | None]], target: str) -> dict[str, Binary]:
        self.compiled += len(missing)
        made: dict[str, Binary] = {}
        processes = len(os.sched_getaffinity(0))
        if len(missing) >= FORK_FROM and processes > 1 and threading.active_count() == 1:
            made = self._fork(missing, target, processes)
        for key, (kernel, plan) in missing.items():
            if key not in made:
                made[key] = self._compile(kernel, target, plan)
            if self._disk:
                self._disk.put(key, pack_binary(made[key]))
        return made

    def _fork(
        self, missing: dict[str, tuple[Kernel, str | None]], target: str, processes: int
    ) -> dict[str, Binary]:
        """Deal the kernels out, the largest first; what a child fails at is left to the caller."""
        # Modules for the rare case: a first result does not wait for them.
        pickle, tempfile = import_module("pickle"), import_module("tempfile")
        by_size = sorted(missing.items(), key=lambda item: -len(format_kernel(item[1][0])))
        shares = [by_size[number::processes] for number in range(processes)]
        children = []
        for share in shares[1:]:
            file = tempfile.TemporaryFile()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of native threads, which hold no locks
                child = os.fork()
            if child == 0:
                self._compile_and_exit(share, target, file.fileno())
            children.append((child, file))
        made, packed = {}, {}
        try:
            made = {key: self._compile(kernel, target, plan) for key, (kernel, plan) in shares[0]}
        finally:
            for child, file in children:
                os.waitpid(child, 0)
                with file:
                    file.seek(0)
                    data = file.read()
                packed |= pickle.loads(data) if data else {}
        return made | {key: unpack_binary(data, missing[key][0]) for key, data in packed.items()}

    def _compile_and_exit(
        self, share: Sequence[tuple[str, tuple[Kernel, str | None]]], target: str, file: int
    ) -> None:
        try:
            made = {key: pack_binary(self._compile(kernel, target, plan)) for key, (kernel, plan) in share}
            os.write(file, import_module("pickle").dumps(made))
        finally:
            os._exit(0)
