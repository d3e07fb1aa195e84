"""What register allocation asks of a target, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tg_codegen.machine.code import Code, Inst, VReg

__all__ = ["Allocation", "Inserted", "RegisterFile", "Target"]


class RegisterFile(NamedTuple):
    """The registers that may be given away, the best first, and the bytes of one.

    Tuples need numbers in ascending order without gaps.
    """

    numbers: tuple[int, ...]
    unit_bytes: int


class Target(Protocol):
    """What register allocation asks of a target. What it makes leaves flags alone, as does every `VReg.remake`."""

    files: Mapping[str, RegisterFile]

    def copy(self, dst: VReg, src: VReg) -> Inst:
        """`dst` becomes `src`."""

    def is_copy(self, inst: Inst) -> bool:
        """Whether an instruction with one definition and one use, no memory access, makes the one the other."""

    def spill(self, reg: VReg, slot: int) -> Inst:
        """Store a register at a byte offset within the spill area, a multiple of the size's largest power of two."""

    def reload(self, reg: VReg, slot: int) -> Inst:
        """Load it from there."""


class Inserted(NamedTuple):
    """What an instruction that allocation inserted does: `kind` is "spill", "reload", "remake" or "copy"."""

    kind: str
    before: int
    """The item of the code before that it stands in front of."""
    reg: VReg
    source: VReg | None = None
    """What a copy copies; the register of the code before that a remake makes."""
    slot: int = -1


@dataclass(slots=True)
class Allocation:
    """Code whose every register has a number, and what it cost.

    `origin[i]` says for item i of the code which item of the code before it was, or what was inserted.
    """

    code: Code
    numbers: dict[VReg, int]
    origin: list[int | Inserted]
    slot_bytes: int = 0
    spills: int = 0
    reloads: int = 0
    remakes: int = 0
    copies: int = 0
    """Copies inserted for tied operands."""
