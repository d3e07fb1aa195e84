"""What the layers above tg-ir offer one another: compiler, runtime, engine; and what passes through them.

    frontend --nodes--> Engine --kernel--> Compiler --Binary--> Runtime

Engines register under the entry point group `tg.engines`, runtimes under `tg.runtimes`, targets of the compiler under
`tg.targets`; the name of an entry is the device or target name, its object is a function that returns the
implementation. That of a runtime takes the name of the device, such as `CPU` or `CPU:1`; the others take nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tg_ir.dtypes import DType
from tg_ir.symbolic import SymInt

if TYPE_CHECKING:
    from tg_ir.graph.nodes import Node
    from tg_ir.kernel.nodes import Kernel
    from tg_ir.program.nodes import Program

__all__ = ["ArgumentLayout", "Binary", "Buffer", "Compiler", "Engine", "Memory", "Recording", "Runtime"]

Memory = object
"""A runtime's own handle of an allocation: nobody else looks inside."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Buffer:
    """Contiguous row-major memory that holds a tensor. It is never written to once a node has it as its value.

    `release` is called once, when nobody refers to the buffer any more.
    """

    shape: tuple[int, ...]
    dtype: DType
    device: str
    memory: Memory
    release: Callable[[Memory], None] | None = None

    def __del__(self) -> None:
        if self.release is not None:
            self.release(self.memory)

    def __repr__(self) -> str:
        return f"<buffer {self.dtype}[{', '.join(map(str, self.shape))}] on {self.device}>"


@runtime_checkable
class Engine(Protocol):
    """What evaluates tensor graphs. The frontend needs nothing else."""

    def devices(self) -> Sequence[str]:
        """Names of the devices it evaluates on, the default first; `knows` may know more."""

    def knows(self, kind: str) -> bool:
        """Whether it evaluates on devices of this kind: `CPU` is the kind of `CPU` and `CPU:1`."""

    def realize(self, nodes: Sequence[Node]) -> None:
        """Compute the values of `nodes` and `fill` each with its buffer; those that have a value stay as they are."""

    def upload(self, data: memoryview, shape: tuple[int, ...], dtype: DType, device: str) -> Buffer:
        """A buffer with a copy of `data`, the row-major bytes of a tensor."""

    def share(self, data: memoryview, shape: tuple[int, ...], dtype: DType, device: str) -> Buffer:
        """A buffer over `data` itself where the device can, else a copy; it keeps `data` alive."""

    def download(self, buffer: Buffer) -> memoryview:
        """The row-major bytes of `buffer`: the memory itself where the host can read it, else a copy."""

    def synchronize(self, device: str, timeout_s: float | None = None) -> None:
        """Wait until the device has finished what was given to it."""


@dataclass(frozen=True, slots=True)
class ArgumentLayout:
    """Where a binary expects its arguments: byte offsets into one block."""

    size_bytes: int
    buffers: tuple[int, ...]
    """The offset of each buffer parameter's address."""
    scalars: tuple[tuple[str, int, str], ...]
    """Name, offset and dtype name of each scalar parameter."""


@dataclass(frozen=True, slots=True)
class Binary:
    """Machine code for one kernel on one target."""

    target: str
    """For example `x86_64:avx512` or `gfx942`."""
    entry: str
    code: bytes
    arguments: ArgumentLayout
    grid: tuple[SymInt, SymInt, SymInt]
    """How many workgroups (on the CPU: slices of work) in x, y and z, from the scalar parameters."""
    workgroup: tuple[int, int, int]
    resources: Mapping[str, int] = field(default_factory=dict)
    """Registers by class, `lds_bytes`, `scratch_bytes`."""


class Compiler(Protocol):
    """Kernels to machine code."""

    def targets(self) -> Sequence[str]:
        """Names of the targets it compiles for."""

    def compile(self, kernel: Kernel, target: str) -> Binary:
        """Plan, lower, select, allocate and encode one kernel."""


class Recording(Protocol):
    """A program made ready on a device: replaying it costs one call."""

    def patch(self, buffers: Mapping[int, Memory], scalars: Mapping[str, int]) -> None:
        """Replace the memory of numbered buffers and the values of scalars for the replays that follow."""


class Runtime(Protocol):
    """One device: memory, queues, programs.

    `target` names what it runs binaries of, such as `gfx942`; `x86_64` leaves the choice of features to the compiler.
    """

    target: str

    def alloc(self, size_bytes: int) -> Memory:
        """Uninitialised memory; errors name the largest allocations when there is none left."""

    def free(self, memory: Memory) -> None:
        """Give memory back once the work that uses it is done."""

    def copy(self, target: Memory | memoryview, source: Memory | memoryview, size_bytes: int) -> None:
        """Copy between host and device, or within the device, in the order of the queue."""

    def share(self, data: memoryview) -> Memory | None:
        """Memory over `data` itself, which it keeps alive, where the device can read it; else None."""

    def map(self, memory: Memory) -> memoryview | None:
        """The bytes themselves, once the work submitted before is done, where the host can read them; else None."""

    def load(self, binary: Binary) -> object:
        """Make a binary ready to launch."""

    def launch(self, loaded: object, buffers: Sequence[Memory], scalars: Mapping[str, int]) -> None:
        """Run a loaded binary once."""

    def record(self, program: Program, loaded: Mapping[str, object]) -> Recording:
        """Turn a program into one replayable submission; `loaded` gives a binary for each kernel name."""

    def submit(self, recording: Recording) -> None:
        """Replay a recording."""

    def synchronize(self, timeout_s: float | None = None) -> None:
        """Wait for all that was submitted; a timeout or a device fault raises."""

    def timestamps(self) -> Sequence[tuple[str, int, int]]:
        """Kernel name, start and end in nanoseconds, of the launches since the last call, when profiling is on."""
