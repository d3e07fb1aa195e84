"""A program made ready to run: on one device one recording, on several devices parts with copies between them.

A recording is used by one run at a time, and its memory can be replaced only when its last run is done. So there are
two of each from the second run on, which take turns: Python prepares one while the device works on the other.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tg.devices import Devices
from tg_ir.errors import DeviceError, SymbolicError
from tg_ir.program.nodes import Collective, Copy, Launch, Program, Step, writes
from tg_ir.protocols import Binary, Buffer, Memory, Recording, Runtime
from tg_ir.symbolic import SymInt, evaluate

__all__ = ["Executable", "Part", "Transfer", "read_memory", "split_by_device"]

RECORDINGS = 2


@dataclass(frozen=True, slots=True)
class Part:
    """The steps of one device as a program, and the whole program's numbers of its buffers (-1: its own)."""

    device: str
    program: Program
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A copy from one device to another."""

    target: int
    source: int


def _used(step: Step) -> tuple[int, ...]:
    return step.buffers if isinstance(step, Launch) else (step.target, step.source)


def split_by_device(program: Program) -> list[Part | Transfer]:
    """Parts in an order that is right if what is between two copies of a device runs in order.

    A temporary that two parts use, or that is copied, becomes memory of its own: arenas belong to parts.
    """
    if len({slot.device for slot in program.buffers}) == 1:
        numbers = [-1 if slot.role == "temporary" else n for n, slot in enumerate(program.buffers)]
        return [Part(program.buffers[0].device, program, tuple(numbers))]
    groups: list[tuple[str, list[Step]] | Transfer] = []
    open_: dict[str, list[Step]] = {}
    for step in program.steps:
        if isinstance(step, Collective):
            raise DeviceError(f"program {program.name}: collective {step.kind}: want copies and kernels")
        device = program.buffers[writes(program, step)[0]].device
        if isinstance(step, Copy) and program.buffers[step.source].device != device:
            for name in (device, program.buffers[step.source].device):
                if name in open_:
                    groups.append((name, open_.pop(name)))
            groups.append(Transfer(step.target, step.source))
        else:
            open_.setdefault(device, []).append(step)
    groups += open_.items()
    users: dict[int, set[int]] = {}
    for place, group in enumerate(groups):
        steps = [Copy(group.target, group.source)] if isinstance(group, Transfer) else group[1]
        for step in steps:
            for number in _used(step):
                users.setdefault(number, set()).add(place)
    own = {
        number
        for number, places in users.items()
        if program.buffers[number].role == "temporary"
        and len(places) == 1
        and not isinstance(groups[min(places)], Transfer)
    }
    return [group if isinstance(group, Transfer) else _part(program, *group, own) for group in groups]


def _part(program: Program, device: str, steps: Sequence[Step], own: set[int]) -> Part:
    numbers = sorted({number for step in steps for number in _used(step)})
    local = {number: place for place, number in enumerate(numbers)}
    slots = []
    for number in numbers:
        slot = program.buffers[number]
        kept = slot.role != "temporary" or number in own
        slots.append(slot if kept else dataclasses.replace(slot, role="state", offset=None))
    moved: list[Step] = [
        Launch(step.kernel, tuple([local[number] for number in step.buffers]))
        if isinstance(step, Launch)
        else Copy(local[step.target], local[step.source])
        for step in steps
    ]
    kernels = [
        program.kernel[name] for name in dict.fromkeys(s.kernel for s in steps if isinstance(s, Launch))
    ]
    part = dataclasses.replace(program, buffers=tuple(slots), kernels=tuple(kernels), steps=tuple(moved))
    return Part(device, part, tuple([-1 if number in own else number for number in numbers]))


@dataclass(slots=True)
class _Ready:
    """A part with its binaries loaded, and the recordings that are free."""

    part: Part
    runtime: Runtime
    loaded: dict[str, object]
    free: deque[Recording] = field(default_factory=deque)
    made: int = 0

    def run(self, memory: Mapping[int, Memory], scalars: Mapping[str, int]) -> None:
        given = {place: memory[number] for place, number in enumerate(self.part.numbers) if number >= 0}
        if self.made < RECORDINGS or not self.free:
            self.made += 1
            recording = self.runtime.record(self.part.program, self.loaded)
        else:
            recording = self.free.popleft()
        recording.patch(given, scalars)
        self.runtime.submit(recording)
        self.free.append(recording)


class Executable:
    """A program with its binaries. `inputs` and `outputs` are numbers of buffers, in the order of `run`'s.

    `shapes` are those of the outputs. One thread at a time may run it.
    """

    def __init__(
        self,
        devices: Devices,
        program: Program,
        binaries: Mapping[str, Mapping[str, Binary]],
        inputs: Sequence[int],
        outputs: Sequence[int],
        shapes: Sequence[tuple[SymInt, ...]],
        note: Callable[[Program, Mapping[str, int]], None] | None = None,
    ):
        """`binaries` by device and kernel name; `note` is told of every run."""
        self._note = note
        self.program, self._devices = program, devices
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._shapes = tuple(shapes)
        self._names = tuple([var.name for var in program.scalars])
        self._parts: list[_Ready | Transfer] = []
        crossing: set[int] = set()
        for part in split_by_device(program):
            if isinstance(part, Transfer):
                crossing |= {part.target, part.source}
                self._parts.append(part)
                continue
            crossing |= {number for number in part.numbers if number >= 0}
            runtime = devices.runtime(part.device)
            loaded = {
                kernel.name: runtime.load(binaries[part.device][kernel.name])
                for kernel in part.program.kernels
            }
            self._parts.append(_Ready(part, runtime, loaded))
        given = set(self._inputs)
        self._made = tuple(sorted((crossing | set(self._outputs)) - given))

    def run(self, buffers: Sequence[Buffer], scalars: Mapping[str, int]) -> list[Buffer]:
        """Submit the program on these inputs; gives the outputs, whose values come with the work."""
        missing = [name for name in self._names if name not in scalars]
        if missing:
            raise SymbolicError(
                f"variable {missing[0]!r}: got no value, want one; bind it: {missing[0]}.bind(..)"
            )
        values = {name: scalars[name] for name in self._names}
        if self._note is not None:
            self._note(self.program, values)
        held = dict(zip(self._inputs, buffers, strict=True))
        for number in self._made:
            slot = self.program.buffers[number]
            runtime = self._devices.runtime(slot.device)
            memory = runtime.alloc(_value(slot.size_bytes, values))
            held[number] = Buffer((_value(slot.size, values),), slot.dtype, slot.device, memory, runtime.free)
        memory = {number: buffer.memory for number, buffer in held.items()}
        for part in self._parts:
            if isinstance(part, Transfer):
                self._transfer(part, memory, values)
            else:
                part.run(memory, values)
        shapes = [tuple([_value(size, scalars) for size in shape]) for shape in self._shapes]
        return [_shaped(held[number], shape) for number, shape in zip(self._outputs, shapes, strict=True)]

    def _transfer(self, part: Transfer, memory: Mapping[int, Memory], scalars: Mapping[str, int]) -> None:
        source, target = [self.program.buffers[number] for number in (part.source, part.target)]
        size = _value(source.size_bytes, scalars)
        data = read_memory(self._devices.runtime(source.device), memory[part.source], size)
        self._devices.runtime(target.device).copy(memory[part.target], data, size)


def _shaped(buffer: Buffer, shape: tuple[int, ...]) -> Buffer:
    """The buffer, or another over its memory where the shape differs, which keeps it."""
    if buffer.shape == shape:
        return buffer
    return Buffer(shape, buffer.dtype, buffer.device, buffer.memory, lambda memory, kept=buffer: None)


def read_memory(runtime: Runtime, memory: Memory, size_bytes: int) -> memoryview:
    """The bytes of a device's memory, the memory itself where the host can read it."""
    view = runtime.map(memory)
    if view is None:
        view = memoryview(bytearray(size_bytes))
        runtime.copy(view, memory, size_bytes)
        runtime.synchronize()
    return view[:size_bytes]


def _value(size: SymInt, scalars: Mapping[str, int]) -> int:
    return size if type(size) is int else int(evaluate(size, scalars))
