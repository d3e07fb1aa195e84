"""The program IR: what the scheduler writes and the engine runs.

A program is a list of steps over numbered buffers. Steps run in order as far as they touch the same memory. Temporary
buffers lie in one arena a device at the offsets that the memory plan chose; two of them share bytes only if the last
use of one comes before the first write of the other. Sizes and offsets may depend on the program's scalars.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tg_ir.dtypes import DType
from tg_ir.kernel.nodes import Kernel, Parameter
from tg_ir.symbolic import SymInt, Var

__all__ = [
    "COLLECTIVES",
    "ROLES",
    "BufferSlot",
    "Collective",
    "Copy",
    "Launch",
    "Program",
    "Step",
    "reads",
    "writes",
]

ROLES = ("input", "output", "state", "constant", "temporary")
"""Who fills and who keeps a buffer: the caller fills inputs and constants, and keeps outputs; a state is both, and is
changed in place; temporaries are the program's own."""

COLLECTIVES = ("sum", "prod", "max", "min", "gather")


@dataclass(frozen=True, slots=True)
class BufferSlot:
    """A numbered buffer: `size` elements of `dtype` on `device`; temporaries lie at `offset` bytes in the arena."""

    dtype: DType
    size: SymInt
    device: str
    role: str
    offset: SymInt | None = None

    @property
    def size_bytes(self) -> SymInt:
        """The size in bytes."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Launch:
    """Run a kernel of the program on buffers, one a parameter, by number."""

    kernel: str
    buffers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy a whole buffer to another of the same size, on any device."""

    target: int
    source: int


@dataclass(frozen=True, slots=True)
class Collective:
    """Combine one buffer a device elementwise, or gather them one after the other, into every target."""

    kind: str
    targets: tuple[int, ...]
    sources: tuple[int, ...]


Step = Launch | Copy | Collective


@dataclass(frozen=True)
class Program:
    """Steps over buffers. `alignment` is that of arena offsets in bytes."""

    name: str
    scalars: tuple[Var, ...]
    buffers: tuple[BufferSlot, ...]
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    alignment: int = 64

    @cached_property
    def kernel(self) -> dict[str, Kernel]:
        """Kernels by name."""
        return {kernel.name: kernel for kernel in self.kernels}

    def numbers(self, *roles: str) -> tuple[int, ...]:
        """The buffers of these roles."""
        return tuple([number for number, slot in enumerate(self.buffers) if slot.role in roles])


def _by_access(program: Program, launch: Launch, *access: str) -> tuple[int, ...]:
    parameters: tuple[Parameter, ...] = program.kernel[launch.kernel].parameters
    return tuple([n for n, p in zip(launch.buffers, parameters, strict=True) if p.access in access])


def reads(program: Program, step: Step) -> tuple[int, ...]:
    """The buffers that a step reads."""
    match step:
        case Launch():
            return _by_access(program, step, "read", "update")
        case Copy():
            return (step.source,)
        case Collective():
            return step.sources


def writes(program: Program, step: Step) -> tuple[int, ...]:
    """The buffers that a step writes."""
    match step:
        case Launch():
            return _by_access(program, step, "write", "update")
        case Copy():
            return (step.target,)
        case Collective():
            return step.targets
