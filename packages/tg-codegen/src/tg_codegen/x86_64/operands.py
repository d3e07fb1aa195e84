"""Operands of selected x86-64 code: registers before they have numbers, addresses, constants, masks.

Register files: "gpr", "vector" and "mask". An operand's `kind` is the part of a register that an instruction names: q,
d, w, b of a general one, z, y, x of a vector, k. An address may start at "stack" (rsp: scratch memory and the frame,
see abi.py) or "arguments" (rdi, which is reserved) instead of a register.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tg_codegen.machine.code import VReg

__all__ = ["FILE_OF", "Mask", "Mem", "Pool", "Source", "V"]

FILE_OF = dict.fromkeys("qdwb", "gpr") | dict.fromkeys("zyx", "vector") | {"k": "mask"}


class V:
    """A register, as an instruction names it."""

    __slots__ = ("kind", "reg")

    def __init__(self, reg: VReg, kind: str):
        self.reg, self.kind = reg, kind

    def registers(self) -> tuple[VReg, ...]:
        return (self.reg,)

    def renamed(self, names: Mapping[VReg, VReg]) -> V:
        return V(names.get(self.reg, self.reg), self.kind)

    def __repr__(self) -> str:
        return f"{self.reg}.{self.kind}"


class Mask:
    """The mask of an EVEX instruction, the last of its operands."""

    __slots__ = ("reg", "zeroing")

    def __init__(self, reg: VReg, zeroing: bool = False):
        self.reg, self.zeroing = reg, zeroing

    def registers(self) -> tuple[VReg, ...]:
        return (self.reg,)

    def renamed(self, names: Mapping[VReg, VReg]) -> Mask:
        return Mask(names.get(self.reg, self.reg), self.zeroing)

    def __repr__(self) -> str:
        return f"{{{self.reg}}}" + "{z}" * self.zeroing


@dataclass(frozen=True, slots=True)
class Mem:
    """An address: base + scale * index + disp. `each` is the kind of a vector index, `ordered` marks scratch memory."""

    base: VReg | str
    index: VReg | None = None
    scale: int = 1
    disp: int = 0
    size: int = 0
    broadcast: bool = False
    each: str = ""
    ordered: bool = False

    def registers(self) -> tuple[VReg, ...]:
        return tuple([reg for reg in (self.base, self.index) if reg.__class__ is VReg])

    def renamed(self, names: Mapping[VReg, VReg]) -> Mem:
        return self.at(base=names.get(self.base, self.base), index=names.get(self.index, self.index))

    def at(self, further: int = 0, **changes: object) -> Mem:
        """The address `further` bytes on, or with other fields."""
        fields = {name: getattr(self, name) for name in self.__slots__} | changes
        fields["disp"] += further
        return Mem(**fields)


@dataclass(frozen=True, slots=True)
class Pool:
    """A constant behind the code."""

    data: bytes
    broadcast: bool = False

    def registers(self) -> tuple[VReg, ...]:
        return ()

    def renamed(self, names: Mapping[VReg, VReg]) -> Pool:
        return self


Source = VReg | V | Mem | Pool | int
"""What an instruction reads."""
