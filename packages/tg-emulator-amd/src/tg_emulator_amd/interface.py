"""The seam between the device side and the instruction interpreter.

The packet processors make a `Dispatch` of a dispatch packet or of the compute registers; `isa.run_dispatch` runs it
over a `Memory` for a `Profile` and gives its `Figures`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Dispatch", "Figures", "Memory"]


@dataclass(slots=True)
class Dispatch:
    """One launch, as the command processor hands it to the shaders.

    `grid` counts work-items and need not be a multiple of `workgroup`. `user_sgprs` are the values of s0 and on, as
    the packet processor sets them, preloaded kernel arguments included; system SGPRs follow as `rsrc2` enables them.
    Scratch of the wave in slot i starts at `scratch_base + i * wave_size * scratch_bytes_per_lane`, lanes interleaved
    by 4 bytes. `shared_aperture` and `private_aperture` are the bases of the flat apertures.
    """

    target: str
    entry: int
    grid: tuple[int, int, int]
    workgroup: tuple[int, int, int]
    rsrc1: int
    rsrc2: int
    rsrc3: int
    user_sgprs: list[int]
    lds_bytes: int
    scratch_bytes_per_lane: int
    scratch_base: int
    wave_size: int
    kernel_name: str = ""
    shared_aperture: int = 0x1000000000000
    private_aperture: int = 0x2000000000000
    dispatch_id: int = 0


class Memory(Protocol):
    """The GPU's virtual memory. `access` is "read", "write" or "execute".

    Raises: MemoryFault, from every method, for what the page tables refuse.
    """

    backing: np.ndarray
    """uint8; what `translate` gives offsets into."""

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...

    def array(self, address: int, size: int, access: str = "read") -> np.ndarray | None:
        """The bytes as a uint8 view of `backing`, or None where they are not contiguous in it."""

    def check(self, address: int, size: int, access: str) -> None:
        """Raises MemoryFault unless every byte may be accessed so."""

    def translate(self, addresses: np.ndarray, size: int, access: str) -> np.ndarray:
        """Offsets (int64) into `backing` of the accesses of `size` bytes at `addresses` (uint64, any shape)."""


@dataclass(slots=True)
class Figures:
    """What one dispatch did, counted. Units: cycles are issue cycles of one SIMD, summed over waves."""

    waves: int = 0
    instructions: dict[str, int] = field(default_factory=dict)
    """Executed wave-instructions by class: salu, valu, matrix, smem, vmem, lds, branch, other."""
    issue_cycles: int = 0
    matrix_cycles: int = 0
    lds_bank_conflicts: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    memory_segments: int = 0
    """64-byte segments that vector memory instructions touched; the fewest possible are bytes / 64."""
    occupancy_waves: int = 0
    """Waves that fit a SIMD at a time."""
    occupancy_limit: str = ""
    """What limits it: waves, vgprs, lds or workgroup."""
