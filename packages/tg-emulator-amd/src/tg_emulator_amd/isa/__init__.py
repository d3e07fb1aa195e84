"""The instruction interpreter: runs a dispatch's workgroups and checks what hardware does not.

Files in reading order: waves (registers of many waves), operands (sources and results), scalar and vector (semantics,
as tables) with integers, floats and division, arithmetic (rows to functions), control, lanes, spaces and access
(memory), matrix and scaled, program (an instruction to an op), hazards, monitor (checks and figures), schedule.
"""

from __future__ import annotations

import numpy as np

from ..errors import EmulatorError
from ..interface import Dispatch, Figures, Memory
from ..profiles import Profile
from .monitor import Monitor
from .schedule import Code, run_waves
from .spaces import Spaces
from .waves import Waves

__all__ = ["run_dispatch"]

_GENERATIONS = {9: "gfx940", 11: "gfx11", 12: "gfx12"}
_BATCH_WAVES, _BATCH_BYTES = 1024, 256 << 20
_CLASSES = ("salu", "valu", "matrix", "smem", "vmem", "lds", "branch", "other")


def run_dispatch(
    dispatch: Dispatch, memory: Memory, profile: Profile, *, watchdog_instructions: int = 10_000_000
) -> Figures:
    """Run all workgroups of a dispatch; a wave may execute `watchdog_instructions`.

    Raises: ProgramError for a rule that the program breaks, MemoryFault for code that cannot be fetched,
    UnsupportedError for an instruction that is not implemented.
    """
    figures = Figures(instructions=dict.fromkeys(_CLASSES, 0))
    monitor = Monitor(dispatch, figures)
    generation = _GENERATIONS[profile.family]
    lanes, sizes = dispatch.wave_size, dispatch.workgroup
    items = sizes[0] * sizes[1] * sizes[2]
    if not 0 < items <= 1024 or lanes not in profile.wave_sizes:
        raise EmulatorError(f"{dispatch.kernel_name}: got workgroup {sizes} and waves of {lanes}, want 1 to 1024 "
                            f"work-items and waves of {profile.wave_sizes}")  # fmt: skip
    waves_per_group = -(-items // lanes)
    vgprs, accumulators = _vector_registers(dispatch, generation)
    _occupancy(figures, dispatch, profile, vgprs, waves_per_group)
    counts = tuple(-(-n // size) for n, size in zip(dispatch.grid, sizes, strict=True))
    total = counts[0] * counts[1] * counts[2]
    figures.waves = total * waves_per_group
    per_wave = vgprs * lanes * 4 + lanes * dispatch.scratch_bytes_per_lane
    batch = max(1, min(_BATCH_WAVES, _BATCH_BYTES // per_wave) // waves_per_group)
    code = Code(memory, dispatch.target, lanes, accumulators, vgprs)
    with np.errstate(all="ignore"):
        for first in range(0, total, batch):
            number = np.arange(first, min(first + batch, total))
            waves, initial, exists = _launch(
                dispatch, generation, number, counts, waves_per_group, vgprs, accumulators
            )
            apertures = (dispatch.shared_aperture, dispatch.private_aperture)
            waves.spaces = Spaces(memory, len(number), dispatch.lds_bytes, apertures, monitor)
            monitor.begin(waves, exists, initial, len(number), first)
            run_waves(waves, code, monitor, watchdog_instructions)
    return figures


def _vector_registers(dispatch: Dispatch, generation: str) -> tuple[int, int]:
    """(vector registers of a wave, index of a0). Source: LLVM, AMDGPUUsage, compute_pgm_rsrc1 and 3."""
    blocks = dispatch.rsrc1 & 63
    if generation == "gfx940":
        return (blocks + 1) * 8, ((dispatch.rsrc3 & 63) + 1) * 4
    return (blocks + 1) * {32: 8, 64: 4}[dispatch.wave_size], 0


def _occupancy(
    figures: Figures, dispatch: Dispatch, profile: Profile, vgprs: int, waves_per_group: int
) -> None:
    """How many waves a SIMD holds, and what limits that."""
    lanes = 2 if dispatch.wave_size == 64 and profile.family != 9 else 1
    compute_units = 2 if profile.family != 9 and dispatch.rsrc1 >> 29 & 1 else 1  # a pair shares its LDS
    simds = profile.simds_per_cu * compute_units
    limits = {"waves": profile.waves_per_simd, "vgprs": profile.vgprs_per_simd // (vgprs * lanes)}
    if dispatch.lds_bytes:
        groups = profile.lds_bytes * compute_units // dispatch.lds_bytes
        limits["lds"] = groups * waves_per_group / simds
    figures.occupancy_limit = min(limits, key=lambda name: limits[name])
    figures.occupancy_waves = max(1, int(limits[figures.occupancy_limit]))


def _launch(
    dispatch: Dispatch,
    generation: str,
    groups: np.ndarray,
    counts: tuple,
    waves_per_group: int,
    vgprs: int,
    accumulators: int,
) -> tuple[Waves, set[int], np.ndarray]:
    """The waves of some workgroups as the hardware starts them; which registers are set; which lanes exist.

    Source: LLVM, AMDGPUUsage, "Initial kernel execution state".
    """
    lanes, sizes = dispatch.wave_size, dispatch.workgroup
    waves = Waves(generation, np.repeat(np.arange(len(groups)), waves_per_group), lanes, vgprs, accumulators)
    number = np.tile(np.arange(waves_per_group), len(groups))
    ids = np.stack(np.unravel_index(np.repeat(groups, waves_per_group), counts[::-1])[::-1])
    item = number[:, None] * lanes + np.arange(lanes)
    local = (item % sizes[0], item // sizes[0] % sizes[1], item // (sizes[0] * sizes[1]))
    exists = item < sizes[0] * sizes[1] * sizes[2]
    for axis in range(3):
        exists &= ids[axis][:, None] * sizes[axis] + local[axis] < dispatch.grid[axis]
    waves.identity = np.stack([*ids, number], axis=1)
    waves.v[0][:] = local[0] | local[1] << 10 | local[2] << 20
    waves.exec[:] = exists
    waves.scratch = np.zeros((waves.count, lanes, dispatch.scratch_bytes_per_lane), np.uint8)
    waves.pc[:] = dispatch.entry
    waves.mode[:] = dispatch.rsrc1 >> 12 & 0xFF | (dispatch.rsrc1 >> 26 & 1) << 23
    masks = np.packbits(exists, axis=1, bitorder="little").view(np.uint32)
    waves.s[126 : 126 + lanes // 32] = masks.T
    for k, value in enumerate(dispatch.user_sgprs):
        waves.s[k] = value
    initial = {*range(len(dispatch.user_sgprs)), *range(108, 124), 126, 127, 256}
    if generation == "gfx12":
        waves.s[108 + 9] = ids[0]
        waves.s[108 + 8] = number << 25
        waves.s[108 + 7] = ids[1] & 0xFFFF | ids[2] << 16
    else:
        at = dispatch.rsrc2 >> 1 & 31  # RDNA3 leaves a gap behind the user's
        for axis in range(3):
            if dispatch.rsrc2 >> (7 + axis) & 1:
                waves.s[at] = ids[axis]
                initial.add(at)
                at += 1
    return waves, initial, exists
