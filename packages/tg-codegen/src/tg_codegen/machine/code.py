"""Selected code: instructions of a target over virtual registers, in a flat list.

What selection writes and scheduling, register allocation and emission read. A virtual register may be written more than
once only if a first write stands before every loop that reads or writes it again: it is then carried, and lives
throughout those loops. Operands are of the target's own classes; the passes need no more of them than `registers` and
`renamed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Code", "Inst", "Label", "LoopEnd", "LoopStart", "Operand", "VReg"]


class VReg:
    """A virtual register of a register file: `units` consecutive registers, the first a multiple of `align`.

    `fixed` pins it to a number; where nothing writes it, it is an argument that is there at the start, and may move.
    `hint` is a register that it would best share its place with. `remake` is an instruction without register operands
    that makes its value anywhere, instead of a reload; the one that wrote it first.
    """

    __slots__ = ("align", "file", "fixed", "hint", "number", "remake", "units")

    def __init__(self, number: int, file: str, units: int = 1, align: int = 1, fixed: int | None = None):
        self.number, self.file, self.units, self.align, self.fixed = number, file, units, align, fixed
        self.hint: VReg | None = None
        self.remake: Inst | None = None

    def __repr__(self) -> str:
        return f"{self.file[0]}{self.number}" + (f"@{self.fixed}" if self.fixed is not None else "")


class Operand(Protocol):
    """An operand that mentions registers; plain int and str mention none."""

    def registers(self) -> tuple[VReg, ...]:
        """The virtual registers in it."""

    def renamed(self, names: Mapping[VReg, VReg]) -> Operand:
        """The same with other registers."""


@dataclass(slots=True, eq=False)
class Inst:
    """One instruction: the opcode is the target's mnemonic.

    `tied[i] = j` says that defs[i] must be in the register of uses[j]. `early` says that defs must not share a register
    with any use. `memory` is "", "load", "store" or "barrier"; loads and stores of "scratch" keep their order among
    each other ("scratch load", "scratch store"). `clobbers` are fixed registers (file, number) that it destroys.
    """

    opcode: str
    operands: tuple[Operand | int | str, ...]
    defs: tuple[VReg, ...] = ()
    uses: tuple[VReg, ...] = ()
    tied: tuple[tuple[int, int], ...] = ()
    early: bool = False
    memory: str = ""
    clobbers: tuple[tuple[str, int], ...] = ()
    extra: object = None
    """What else the target's emission needs: a mask, zeroing, rounding."""


@dataclass(slots=True)
class Label:
    name: str


@dataclass(slots=True)
class LoopStart:
    """The place that the back edge of a loop comes to; its `LoopEnd` follows, properly nested."""

    name: str


@dataclass(slots=True)
class LoopEnd:
    """Just behind the branch back to the `LoopStart` of the same name."""

    name: str


@dataclass(slots=True)
class Code:
    """A function's selected code. Scheduling keeps instructions between branches and items that are no `Inst`."""

    name: str
    items: list[Inst | Label | LoopStart | LoopEnd] = field(default_factory=list)
    scratch_bytes: int = 0
