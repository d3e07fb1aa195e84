"""Rules between the operands of one instruction, as LLVM's assembler and the hardware have them.

A check gets the row, the bits and the operands' texts, and raises AssemblerError.
"""

from __future__ import annotations

from tg_codegen.amdgpu.instruction import Row
from tg_codegen.amdgpu.operands import VGPR
from tg_codegen.amdgpu.slots import RegisterSlot, SizedSlot, Slot
from tg_codegen.errors import AssemblerError

__all__ = ["check_dual", "check_lane", "check_null", "check_overlap", "check_sizes"]


def check_sizes(row: Row, bits: int, operands: list[str]) -> None:
    for index, slot in enumerate(row.operands):
        if isinstance(slot, SizedSlot) and (want := slot.text(bits)) != operands[index]:
            raise AssemblerError(
                f"{row.mnemonic}: {slot.name}: got {operands[index]}, want {want or 'formats 0..4'}, by cbsz or blgp",
                index,
            )


def check_overlap(row: Row, bits: int, operands: list[str]) -> None:
    """A matrix instruction's C is D or apart from it (small ones may overlap)."""
    d, c = (next(s for s in row.operands if s.name == name) for name in ("vdst", "src2"))
    distance = abs(d.number(bits) - c.number(bits))
    if d.kind.dwords > 4 and c.number(bits) >= VGPR and 0 < distance < d.kind.dwords:
        raise AssemblerError(
            f"{row.mnemonic}: src2: {c.text(bits)} partially overlaps vdst {d.text(bits)}",
            row.operands.index(c),
        )


def check_lane(row: Row, bits: int, operands: list[str]) -> None:
    """GFX9's writelane reads one scalar register, and besides it m0 as the lane."""
    scalars = {
        scalar
        for slot, text in zip(row.operands[1:], operands[1:], strict=True)
        if (scalar := slot.encode(text)[1])
    }
    if len(scalars) > 1 and operands[2] != "m0":
        raise AssemblerError(f"{row.mnemonic}: reads more than 1 scalar registers and literals")


def check_null(row: Row, bits: int, operands: list[str]) -> None:
    if operands[0] != "null":
        raise AssemblerError(f"{row.mnemonic}: sdst: got {operands[0]}, want null", 0)


def check_dual(row: Row, bits: int, operands: list[str]) -> None:
    """One destination is even and the other odd; sources of the same place come from different banks."""
    if row.operands[row.dual].text(bits) != operands[row.dual]:
        raise AssemblerError(
            f"{row.mnemonic}: vdstY: got {operands[row.dual]}, want the other parity than vdstX; register bank",
            row.dual,
        )
    if row.banks is None:
        return
    places: list[list[Slot | None]] = []
    for half in (row.operands[: row.dual], row.operands[row.dual :]):
        sources = [*half[1:], *([half[0]] if half[0].reads else [])]
        places.append([s if isinstance(s, RegisterSlot) else None for s in sources])
    for index, (x, y) in enumerate(zip(*places, strict=False)):
        if x is None or y is None:
            continue
        a, b = x.number(bits), y.number(bits)
        mask = 1 if index == 2 else 3
        if a >= VGPR and b >= VGPR and (a ^ b) & mask == 0:
            raise AssemblerError(
                f"{row.mnemonic}: source {index}: got {x.text(bits)} and {y.text(bits)}, "
                f"want numbers that differ modulo {mask + 1}; register bank"
            )
