"""A program made ready on the CPU: one job whose steps are the program's launches and copies."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tg_ir.errors import DeviceError
from tg_ir.program.nodes import Collective, Copy, Launch, Program
from tg_ir.symbolic import SymInt, evaluate
from tg_runtime_cpu.abi import LoadedBinary
from tg_runtime_cpu.memory import Arena, CpuMemory
from tg_runtime_cpu.native_code import COPY_CHUNK_BYTES
from tg_runtime_cpu.workers import Job, copy_code

if TYPE_CHECKING:
    from tg_runtime_cpu.runtime import CpuRuntime

__all__ = ["COPY_ARGUMENT_BYTES", "CpuRecording", "write_copy"]

COPY_ARGUMENT_BYTES = 64


def write_copy(
    job: Job, step: int, offset: int, target: int, source: int, size_bytes: int, workers: int
) -> None:
    """Make a step of a job a copy."""
    address, block = job.arguments(offset, 24)
    struct.pack_into("<3Q", block, 0, target, source, size_bytes)
    job.set_step(step, copy_code, address, -(-size_bytes // COPY_CHUNK_BYTES), workers)


class CpuRecording:
    """Replayable steps. It keeps the memory that `patch` named alive; one thread at a time may use it."""

    def __init__(self, runtime: CpuRuntime, program: Program, loaded: Mapping[str, LoadedBinary]):
        """Raises: DeviceError."""
        self.program, self._runtime, self._loaded = program, runtime, dict(loaded)
        self._memory: dict[int, CpuMemory] = {}
        self._scalars: dict[str, int] = {}
        self._arena: Arena | None = None
        self._dirty = True
        self._changed: set[int] = set()
        self._sizes: list[int] = []
        self.ticket: object = None
        """What the runtime waits for before it changes this recording."""
        self._steps: list[tuple[Launch, LoadedBinary] | tuple[int, int]] = []
        names = []
        for step in program.steps:
            match step:
                case Launch():
                    if step.kernel not in loaded:
                        raise DeviceError(f"program {program.name}: got no binary for kernel {step.kernel}")
                    self._steps.append((step, loaded[step.kernel]))
                    names.append(step.kernel)
                case Copy():
                    self._steps.append((step.target, step.source))
                    names.append("copy")
                case Collective():
                    raise DeviceError(
                        f"program {program.name}: collective {step.kind}: not a step that the CPU runs; "
                        "decompose collectives into copies and kernels when scheduling"
                    )
        self._offsets, total = [], 0
        for step in self._steps:
            self._offsets.append(total)
            size = (
                step[1].binary.arguments.size_bytes
                if isinstance(step[1], LoadedBinary)
                else COPY_ARGUMENT_BYTES
            )
            total += -(-size // 64) * 64
        self.job = Job(names, total, keep=(self._loaded, self._memory))
        self._addresses: defaultdict[int, list[int]] = defaultdict(list)  # where in the arguments they stand
        for (what, how), offset in zip(self._steps, self._offsets, strict=True):
            if isinstance(how, LoadedBinary):
                for number, place in zip(what.buffers, how.binary.arguments.buffers, strict=True):
                    self._addresses[number].append(offset + place)
            else:
                self._addresses[what].append(offset)
                self._addresses[how].append(offset + 8)
        self._argument_bytes = total
        self.empty = not names

    def patch(self, buffers: Mapping[int, CpuMemory], scalars: Mapping[str, int]) -> None:
        """Replace memory and scalars for the next replays, once those submitted are done. Raises: DeviceError."""
        known = {var.name for var in self.program.scalars}
        for number in buffers:
            if (
                not 0 <= number < len(self.program.buffers)
                or self.program.buffers[number].role == "temporary"
            ):
                raise DeviceError(
                    f"program {self.program.name}: patch: got buffer {number}, want one that the caller keeps"
                )
        if unknown := sorted(set(scalars) - known):
            raise DeviceError(
                f"program {self.program.name}: patch: got scalar {unknown[0]}, want one of {sorted(known)}"
            )
        self._runtime.wait_for(self)
        self._memory.update(buffers)
        self._changed.update(buffers)
        self._dirty |= any([self._scalars.get(name) != value for name, value in scalars.items()])
        self._scalars.update(scalars)

    def prepare(self) -> Job:
        """The job, its records up to date. Raises: DeviceError."""
        if self._dirty or not self._sizes or self._arena is not self._runtime.arena(0):
            self._runtime.wait_for(self)
            self._write()
            self._dirty = False
        elif self._changed:
            _, arguments = self.job.arguments(0, self._argument_bytes)
            for number in self._changed:
                address = self._address(number)
                for place in self._addresses[number]:
                    struct.pack_into("<Q", arguments, place, address)
        self._changed.clear()
        return self.job

    def _address(self, number: int) -> int:
        """Of a buffer that the caller keeps. Raises: DeviceError."""
        memory, size = self._memory.get(number), self._sizes[number]
        if memory is None or memory.size_bytes < size:
            got = "nothing" if memory is None else f"{memory.size_bytes} bytes"
            raise DeviceError(
                f"program {self.program.name}: buffer {number} ({self.program.buffers[number].role}): got {got}, "
                f"want {size} bytes; patch it"
            )
        return memory.address

    def _value(self, size: SymInt) -> int:
        return size if isinstance(size, int) else int(evaluate(size, self._scalars))

    def _write(self) -> None:
        program, workers = self.program, self._runtime.threads
        missing = [var.name for var in program.scalars if var.name not in self._scalars]
        if missing:
            raise DeviceError(
                f"program {program.name}: got no value for scalar {', '.join(missing)}; patch it"
            )
        sizes = self._sizes = [self._value(slot.size_bytes) for slot in program.buffers]
        offsets, arena_bytes = self._place_arenas(sizes)
        self._arena = self._runtime.arena(arena_bytes)
        start = self._arena.memory.address
        addresses = [
            start + offsets[number] if number in offsets else self._address(number)
            for number in range(len(program.buffers))
        ]
        for index, (step, offset) in enumerate(zip(self._steps, self._offsets, strict=True)):
            if isinstance(step[1], LoadedBinary):
                launch, binary = step
                address, block = self.job.arguments(offset, binary.binary.arguments.size_bytes)
                binary.write_arguments(block, [addresses[n] for n in launch.buffers], self._scalars)
                groups = binary.groups(self._scalars)
                self.job.set_step(index, binary.code.address, address, groups, workers)
            else:
                target, source = step
                size = sizes[source]
                write_copy(self.job, index, offset, addresses[target], addresses[source], size, workers)

    def _place_arenas(self, sizes: list[int]) -> tuple[dict[int, int], int]:
        """The arenas of all devices of the program one after the other: offsets of temporaries, and the sum."""
        by_device: dict[str, dict[int, int]] = {}
        for number, slot in enumerate(self.program.buffers):
            if slot.offset is not None:
                by_device.setdefault(slot.device, {})[number] = self._value(slot.offset)
        offsets, total = {}, 0
        for placed in by_device.values():
            offsets.update({number: total + offset for number, offset in placed.items()})
            total += max(offset + sizes[number] for number, offset in placed.items())
            total += -total % max(64, self.program.alignment)
        return offsets, total
