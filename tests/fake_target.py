"""A target that is none: its binaries are the kernel's text, and its runtime interprets them.

It stands between the engine and tg-ir's interpreters alone, so what passes with it owes nothing to a code generator or
to a machine. Memory is poisoned when given out and when given back, and host and device share nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tg.disk_cache import DiskCache
from tg.engine import TgEngine
from tg_ir.kernel import Kernel, format_kernel, parse_kernel
from tg_ir.numpy_dtypes import numpy_dtype
from tg_ir.program.interpret import interpret_program
from tg_ir.program.nodes import Program
from tg_ir.protocols import ArgumentLayout, Binary
from tg_ir.symbolic import evaluate

__all__ = ["FakeRuntime", "compile_text", "fake_engine"]


def compile_text(kernel: Kernel, target: str, plan: str | None) -> Binary:
    """The kernel's text as its machine code."""
    offsets = tuple(range(0, 8 * len(kernel.parameters), 8))
    scalars = tuple([(var.name, 8 * len(offsets) + 8 * n, "int64") for n, var in enumerate(kernel.scalars)])
    layout = ArgumentLayout(8 * (len(offsets) + len(scalars)), offsets, scalars)
    code = format_kernel(kernel).encode()
    return Binary(target, kernel.name, code, layout, (1, 1, 1), (1, 1, 1), {"plan": len(plan or "")})


class FakeMemory:
    """Bytes of a device."""

    def __init__(self, size_bytes: int):
        self.data = np.full(size_bytes, 0xA5, np.uint8)
        self.freed = False


class FakeRecording:
    """A program and what it runs on."""

    def __init__(self, program: Program, loaded: Mapping[str, Kernel]):
        kernels = [dataclasses.replace(loaded[kernel.name], name=kernel.name) for kernel in program.kernels]
        self.program = dataclasses.replace(program, kernels=tuple(kernels))
        self.memory: dict[int, FakeMemory] = {}
        self.scalars: dict[str, int] = {}

    def patch(self, buffers: Mapping[int, FakeMemory], scalars: Mapping[str, int]) -> None:
        self.memory |= buffers
        self.scalars |= scalars


class FakeRuntime:
    """Device `FAKE`."""

    target = "fake"

    def __init__(self, name: str):
        self.name, self.live, self.submitted, self.loads, self.recorded = name, 0, 0, 0, 0

    def alloc(self, size_bytes: int) -> FakeMemory:
        self.live += 1
        return FakeMemory(size_bytes)

    def free(self, memory: FakeMemory) -> None:
        assert not memory.freed, "memory is freed twice"
        memory.freed, self.live = True, self.live - 1
        memory.data[:] = 0x5A

    def share(self, data: memoryview) -> None:
        return None

    def map(self, memory: FakeMemory) -> None:
        return None

    def copy(self, target: FakeMemory | memoryview, source: FakeMemory | memoryview, size_bytes: int) -> None:
        ends = [
            end.data if isinstance(end, FakeMemory) else np.frombuffer(end, np.uint8)
            for end in (target, source)
        ]
        ends[0][:size_bytes] = ends[1][:size_bytes]

    def load(self, binary: Binary) -> Kernel:
        assert binary.target == "fake"
        self.loads += 1
        return parse_kernel(binary.code.decode())

    def record(self, program: Program, loaded: Mapping[str, Kernel]) -> FakeRecording:
        assert {slot.device for slot in program.buffers} == {self.name}
        self.recorded += 1
        return FakeRecording(program, loaded)

    def submit(self, recording: FakeRecording) -> None:
        self.submitted += 1
        program, scalars = recording.program, recording.scalars
        views = {}
        for number, memory in recording.memory.items():
            slot = program.buffers[number]
            assert not memory.freed, f"buffer {number} was freed before the work that uses it"
            size = int(evaluate(slot.size_bytes, scalars))
            views[number] = memory.data[:size].view(numpy_dtype(slot.dtype))
        for number, result in interpret_program(program, views, scalars).items():
            views[number][...] = result

    def synchronize(self, timeout_s: float | None = None) -> None:
        pass

    def timestamps(self) -> Sequence[tuple[str, int, int]]:
        return []


def fake_engine(cache: DiskCache | None = None) -> TgEngine:
    """An engine with the one kind of device `FAKE`, besides `REF`."""
    return TgEngine({"FAKE": FakeRuntime}, compile_text, cache)
