"""Compile what moves data between lanes: readlane, permlane, swaps, LDS permutes and swizzles, indexed registers.

Source: RDNA3, RDNA4 and CDNA4 ISA manuals, the instructions named; "DS_SWIZZLE_B32" for its patterns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.operands import VGPR

from .operands import Operands, field, registers
from .waves import Group

__all__ = ["compile_lanes"]

U32, U64 = np.uint32, np.uint64
Run = Callable[[Group], None]


def compile_lanes(inst: Instruction, ops: Operands) -> Run | None:
    build = _BUILDERS.get(inst.row.mnemonic)
    return build(inst, ops) if build else None


def _index(inst: Instruction, ops: Operands, k: int) -> int:
    return registers(inst, inst.row.operands[k], ops.accumulators)[0] - VGPR


def _lane_of(g: Group, x: np.ndarray) -> np.ndarray:
    """A lane number for each wave."""
    return np.broadcast_to(np.asarray(x).reshape(-1) & (g.waves.lanes - 1), (g.n,)).astype(np.int64)


def _read_lane(inst: Instruction, ops: Operands) -> Run:
    target, source = inst.row.operands[0].number(inst.bits), _index(inst, ops, 1)
    first = inst.row.mnemonic == "v_readfirstlane_b32"
    select = None if first else ops.word(inst.row.operands[2])

    def run(g: Group) -> None:
        value = g.vgpr(source)
        lane = g.mask.argmax(axis=1) if first else _lane_of(g, select(g))
        g.set_sgpr(target, value[np.arange(g.n), lane])

    return run


def _write_lane(inst: Instruction, ops: Operands) -> Run:
    target = _index(inst, ops, 0)
    value, select = ops.word(inst.row.operands[1]), ops.word(inst.row.operands[2])

    def run(g: Group) -> None:
        members = np.arange(g.waves.count) if g.all else g.w
        g.waves.v[target][members, _lane_of(g, select(g))] = np.asarray(value(g)).reshape(-1)

    return run


def _permlane(inst: Instruction, ops: Operands) -> Run:
    """Any permutation within rows of 16, by a pattern or (var) each lane's own number; x: the other row's."""
    name, target, source = inst.row.mnemonic, _index(inst, ops, 0), _index(inst, ops, 1)
    cross, variable = "permlanex" in name, "var" in name
    selects = [ops.word(slot) for slot in inst.row.operands[2:]]
    inactive, bound = field(inst, "sel0"), field(inst, "sel1")
    lane = np.arange(ops.lanes)
    row = (lane & ~15) ^ (16 if cross else 0)

    def run(g: Group) -> None:
        if variable:
            within = selects[0](g) & U32(15)
        else:
            both = selects[0](g).astype(U64) | selects[1](g).astype(U64) << U64(32)
            within = both >> (4 * (lane & 15)).astype(U64) & U64(15)
        place = np.broadcast_to(row + within.astype(np.int64), g.mask.shape)
        value = np.take_along_axis(g.vgpr(source), place, axis=1)
        there = np.take_along_axis(g.mask, place, axis=1) | bool(inactive)
        value = np.where(there, value, U32(0))
        g.set_vgpr(target, value, g.mask if bound else g.mask & there)

    return run


def _halves(inst: Instruction, ops: Operands) -> Run:
    target, source = _index(inst, ops, 0), _index(inst, ops, 1)
    return lambda g: g.set_vgpr(target, np.roll(g.vgpr(source), 32, axis=1))


def _row_swap(inst: Instruction, ops: Operands) -> Run:
    """Odd rows (halves) of the first register change places with even ones of the second."""
    first, second = _index(inst, ops, 0), _index(inst, ops, 1)
    width = 16 if "16" in inst.row.mnemonic else 32
    lane = np.arange(64)
    odd = lane[(lane // width) % 2 == 1]

    def run(g: Group) -> None:
        x, y = g.vgpr(first).copy(), g.vgpr(second).copy()
        x[:, odd], y[:, odd - width] = y[:, odd - width], x[:, odd].copy()
        g.set_vgpr(first, x)
        g.set_vgpr(second, y)

    return run


def _swap(inst: Instruction, ops: Operands) -> Run:
    kind = inst.row.mnemonic[-3:].replace("b", "u")
    reads = [ops.source(slot, kind) for slot in inst.row.operands]
    writes = [ops.result(slot, kind) for slot in inst.row.operands]

    def run(g: Group) -> None:
        x, y = (np.array(read(g)) for read in reads)
        writes[0](g, y, None)
        writes[1](g, x, None)

    return run


def _indexed(inst: Instruction, ops: Operands) -> Run:
    """v_movrels, v_movreld, v_movrelsd: M0 is added to a register's number."""
    name, target = inst.row.mnemonic, _index(inst, ops, 0)
    from_vgpr = registers(inst, inst.row.operands[1], ops.accumulators)
    value = ops.word(inst.row.operands[1])
    add_source, add_target = "movrels" in name, "movreld" in name or "movrelsd" in name

    def run(g: Group) -> None:
        waves = g.waves
        members = np.arange(waves.count) if g.all else g.w
        for step in np.unique(waves.s[waves.m0][members]):
            low, high = (
                (int(step) & 0x3FF, int(step) >> 16 & 0x3FF) if "_2_" in name else (int(step), int(step))
            )
            chosen = (waves.s[waves.m0][g.w] == step)[:, None] & g.mask
            x = waves.v[from_vgpr[0] - VGPR + low][g.w] if add_source else value(g)
            g.set_vgpr(target + (high if add_target else 0), x, chosen)

    return run


def _bpermute(inst: Instruction, ops: Operands) -> Run:
    """Every lane names the lane it reads from."""
    slots = {s.name: s for s in inst.row.operands}
    target, address, data = (
        registers(inst, slots[n], ops.accumulators)[0] - VGPR for n in ("vdst", "addr", "data0")
    )
    offset, inactive = U32(field(inst, "offset")), "_fi_" in inst.row.mnemonic
    within = 31 if ops.generation != "gfx940" else ops.lanes - 1
    half = np.arange(ops.lanes) & ~within

    def run(g: Group) -> None:
        place = ((g.vgpr(address) + offset) >> U32(2)).astype(np.int64) & within | half
        value = np.take_along_axis(g.vgpr(data), place, axis=1)
        there = np.take_along_axis(g.mask, place, axis=1) | inactive
        g.set_vgpr(target, np.where(there, value, U32(0)))

    return run


def _permute(inst: Instruction, ops: Operands) -> Run:
    """Every lane names the lane it sends to; the highest wins."""
    slots = {s.name: s for s in inst.row.operands}
    target, address, data = (
        registers(inst, slots[n], ops.accumulators)[0] - VGPR for n in ("vdst", "addr", "data0")
    )
    offset = U32(field(inst, "offset"))
    within = 31 if ops.generation != "gfx940" else ops.lanes - 1
    half = np.arange(ops.lanes) & ~within

    def run(g: Group) -> None:
        place = ((g.vgpr(address) + offset) >> U32(2)).astype(np.int64) & within | half
        out = np.zeros(g.mask.shape, U32)
        row, lane = np.nonzero(g.mask)
        out[row, place[row, lane]] = g.vgpr(data)[row, lane]
        g.set_vgpr(target, out)

    return run


def _swizzle(inst: Instruction, ops: Operands) -> Run | None:
    slots = {s.name: s for s in inst.row.operands}
    target, source = (registers(inst, slots[n], ops.accumulators)[0] - VGPR for n in ("vdst", "addr"))
    pattern, lane = field(inst, "offset"), np.arange(ops.lanes)
    if pattern >= 0xE000:
        return None
    if pattern >= 0xC000:
        turn = (pattern >> 5 & 31) * (-1 if pattern >> 10 & 1 else 1)
        keep = pattern & 31
        place = lane & ~31 | (lane & keep) | ((lane + turn) & 31 & ~keep)
    elif pattern & 0x8000:
        place = lane & ~3 | pattern >> 2 * (lane & 3) & 3
    else:
        place = lane & ~31 | ((lane & pattern & 31) | pattern >> 5 & 31) ^ (pattern >> 10 & 31)

    def run(g: Group) -> None:
        g.set_vgpr(target, np.where(g.mask[:, place], g.vgpr(source)[:, place], U32(0)))

    return run


_BUILDERS: dict[str, Callable[[Instruction, Operands], Run | None]] = {
    "v_readfirstlane_b32": _read_lane, "v_readlane_b32": _read_lane, "v_writelane_b32": _write_lane,
    "v_permlane16_b32": _permlane, "v_permlanex16_b32": _permlane, "v_permlane16_var_b32": _permlane,
    "v_permlanex16_var_b32": _permlane, "v_permlane64_b32": _halves, "v_permlane16_swap_b32": _row_swap,
    "v_permlane32_swap_b32": _row_swap, "v_swap_b32": _swap, "v_swap_b16": _swap, "v_movrels_b32": _indexed,
    "v_movreld_b32": _indexed, "v_movrelsd_b32": _indexed, "v_movrelsd_2_b32": _indexed,
    "ds_bpermute_b32": _bpermute, "ds_bpermute_fi_b32": _bpermute, "ds_permute_b32": _permute,
    "ds_swizzle_b32": _swizzle,
}  # fmt: skip
