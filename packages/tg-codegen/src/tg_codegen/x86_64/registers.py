"""Registers and memory operands, with the bits that each contributes to an instruction.

A template (encode.py) ORs these contributions into its constant, so a register or an address is turned into bits
once, not once an instruction. Positions, counted from the first byte of the part that varies:

    legacy   byte 0: 0100WRXB (0x80: no REX allowed)      byte 1: ModRM
    VEX      C4, ~R~X~B mmmmm, W ~vvvv L pp, opcode       byte 4: ModRM
    EVEX     62, ~R~X~B~R' 0mmm, W ~vvvv 1pp, zL'Lb~V'aaa, opcode     byte 5: ModRM

Source: Intel SDM volume 2, 2.1 to 2.7.
"""

from __future__ import annotations

from tg_codegen.errors import AssemblerError

__all__ = [
    "IMPLIED", "REGISTERS", "SEGMENTS", "SIZE_NAMES", "Memory", "Register",
    "gpr", "k", "mem", "rip", "tmm", "xmm", "ymm", "zmm",
]  # fmt: skip

SIZE_NAMES = {
    1: "byte",
    2: "word",
    4: "dword",
    8: "qword",
    16: "xmmword",
    32: "ymmword",
    64: "zmmword",
}
_FORBIDS_REX = 0x80
_NEEDS_REX = 0x40
IMPLIED = ("al", "cl", "ax", "eax", "rax")  # registers that some form has no field for


class Register:
    """A register. `unit` is the class and number that it shares with its narrower and wider names.

    `kind` is what operand lists match on: the class and width, the name of a register that some form implies, or
    a vector register that only EVEX can name.
    """

    __slots__ = (
        "evex_reg", "evex_rm", "evex_vvvv", "is_vector", "kind", "legacy_opcode", "legacy_reg", "legacy_rm",
        "name", "number", "unit", "vex_reg", "vex_rm", "vex_vvvv", "width",
    )  # fmt: skip

    def __init__(self, name: str, group: str, number: int, width: int):
        self.name, self.number, self.width = name, number, width
        self.unit = (group, number)
        self.is_vector = group == "vector"
        high_byte = name in ("ah", "ch", "dh", "bh")
        self.kind = (
            name if name in IMPLIED else {"gpr": f"r{width}", "mask": "k", "tile": "tmm"}.get(group, "")
        )
        if self.is_vector:
            self.kind = name.rstrip("0123456789") + ("+" if number > 15 else "")
        n = number
        if high_byte:
            self.unit = (group, n - 4)
        extra = _FORBIDS_REX if high_byte else _NEEDS_REX if name in ("spl", "bpl", "sil", "dil") else 0
        self.legacy_reg = (n & 8) >> 1 | (n & 7) << 11 | extra
        self.legacy_rm = self.legacy_opcode = (n & 8) >> 3 | (n & 7) << 8 | extra
        self.vex_reg = (~n & 8) << 12 | (n & 7) << 35
        self.vex_rm = (~n & 8) << 10 | 1 << 14 | (n & 7) << 32
        self.vex_vvvv = (~n & 15) << 19
        self.evex_reg = (~n & 8) << 12 | (~n & 16) << 8 | (n & 7) << 43
        self.evex_rm = (~n & 8) << 10 | (~n & 16) << 10 | (n & 7) << 40
        self.evex_vvvv = (~n & 15) << 19 | (~n & 16) << 23

    def __repr__(self) -> str:
        return self.name


_LOW = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
REGISTERS: dict[str, Register] = {}


def _define(group: str, width: int, names: list[str], first: int = 0) -> tuple[Register, ...]:
    made = tuple(Register(name, group, first + i, width) for i, name in enumerate(names))
    REGISTERS.update((register.name, register) for register in made)
    return made


_numbered = range(8, 16)
gpr = {
    64: _define("gpr", 64, [f"r{n}" for n in _LOW] + [f"r{i}" for i in _numbered]),
    32: _define("gpr", 32, [f"e{n}" for n in _LOW] + [f"r{i}d" for i in _numbered]),
    16: _define("gpr", 16, [*_LOW] + [f"r{i}w" for i in _numbered]),
    8: _define(
        "gpr", 8, ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"] + [f"r{i}b" for i in _numbered]
    ),
}
_define("gpr", 8, ["ah", "ch", "dh", "bh"], first=4)
xmm = _define("vector", 128, [f"xmm{i}" for i in range(32)])
ymm = _define("vector", 256, [f"ymm{i}" for i in range(32)])
zmm = _define("vector", 512, [f"zmm{i}" for i in range(32)])
k = _define("mask", 64, [f"k{i}" for i in range(8)])
tmm = _define("tile", 8192, [f"tmm{i}" for i in range(8)])
rip = Register("rip", "rip", 0, 64)

_SCALE_BITS = {1: 0, 2: 0x40, 4: 0x80, 8: 0xC0}
SEGMENTS = {"es": b"\x26", "cs": b"\x2e", "ss": b"\x36", "ds": b"\x3e", "fs": b"\x64", "gs": b"\x65"}


class Memory:
    """base + scale * index + displacement. An index of vector registers makes a gather's or scatter's address.

    `broadcast` repeats one element: True, or the count that text gave. `label` is resolved rip-relative by the
    assembler. `size_bytes` may be left out where the instruction tells it.
    """

    __slots__ = (
        "base", "broadcast", "disp", "evex_rm", "index", "kind", "label", "legacy_rm", "scale", "segment",
        "size_bytes", "vex_rm", "vsib_rm",
    )  # fmt: skip

    def __init__(
        self,
        base: Register | None,
        index: Register | None,
        scale: int,
        disp: int,
        size_bytes: int = 0,
        broadcast: bool | int = False,
        segment: str = "",
        label: str = "",
    ):
        self.base, self.index, self.scale, self.disp = base, index, scale, disp
        self.size_bytes, self.broadcast, self.segment, self.label = size_bytes, broadcast, segment, label
        b = base.number if base is not None else 0
        self.kind = _KINDS.get(size_bytes, "")
        if index is None:
            self.legacy_rm = b >> 3
            self.vex_rm = self.evex_rm = (~b & 8) << 10 | 1 << 14
            self.vsib_rm = 0
        else:
            i = index.number
            self.legacy_rm = b >> 3 | (i & 8) >> 2
            self.vex_rm = self.evex_rm = (~b & 8) << 10 | (~i & 8) << 11
            self.vsib_rm = self.vex_rm | (~i & 16) << 23
            if index.is_vector:
                self.kind = "v" + index.kind[0] + index.kind[3:] + self.kind[1:]
            elif index.number == 4 or index.width != 64:
                raise AssemblerError(f"memory: index: got {index}, want a 64-bit register but rsp")
            if scale not in _SCALE_BITS:
                raise AssemblerError(f"memory: scale: got {scale}, want 1, 2, 4 or 8")
        if segment and segment not in SEGMENTS:
            raise AssemblerError(f"memory: segment: got {segment!r}, want one of {', '.join(SEGMENTS)}")
        if size_bytes not in _KINDS:
            raise AssemblerError(
                f"memory: size_bytes: got {size_bytes}, want {', '.join(map(str, SIZE_NAMES))}"
            )
        if base is not None and (base.width != 64 or base.unit[0] not in ("gpr", "rip")):
            raise AssemblerError(f"memory: base: got {base}, want a 64-bit register")
        if not -0x80000000 <= disp < 0x80000000:
            raise AssemblerError(f"memory: displacement: got {disp}, want -2147483648..2147483647")
        if broadcast:
            self.kind = "b" + self.kind[1:] + ("" if broadcast is True else f"x{broadcast}")

    def tail(self, disp_unit: int, force_sib: bool = False) -> tuple[int, int]:
        """ModRM (its reg field empty), SIB and displacement as one integer, and their size in bytes."""
        base, index, disp = self.base, self.index, self.disp
        if base is None:
            sib = 0x25 if index is None else _SCALE_BITS[self.scale] | (index.number & 7) << 3 | 5
            if self.label and index is None:
                return 5 | (disp & 0xFFFFFFFF) << 8, 5
            return 4 | sib << 8 | (disp & 0xFFFFFFFF) << 16, 6
        if base is rip:
            return 5 | (disp & 0xFFFFFFFF) << 8, 5
        low = base.number & 7
        if index is not None:
            head, size = 4 | (_SCALE_BITS[self.scale] | (index.number & 7) << 3 | low) << 8, 2
        elif low == 4 or force_sib:
            head, size = 4 | (0x20 | low) << 8, 2
        else:
            head, size = low, 1
        if disp == 0 and low != 5:
            return head, size
        units, rest = divmod(disp, disp_unit)
        if not rest and -128 <= units <= 127:
            return head | 0x40 | (units & 0xFF) << 8 * size, size + 1
        return head | 0x80 | (disp & 0xFFFFFFFF) << 8 * size, size + 4

    def registers(self) -> tuple[Register, ...]:
        """The registers that the address reads."""
        return tuple(r for r in (self.base, self.index) if r is not None and r is not rip)

    def address_text(self) -> str:
        """The address in brackets: `[rax + 4*rcx - 8]`."""
        parts = [self.base.name] if self.base is not None else ["rip"] if self.label else []
        if self.index is not None:
            plain = self.scale == 1 and parts  # alone and unscaled it would read as a base
            parts.append(self.index.name if plain else f"{self.scale}*{self.index.name}")
        if self.label:
            parts.append(self.label)
        text = " + ".join(parts)
        if self.disp and text:
            text += f" {'-' if self.disp < 0 else '+'} {abs(self.disp)}"
        return (self.segment and self.segment + ":") + f"[{text or self.disp}]"

    def __repr__(self) -> str:
        size = f"{SIZE_NAMES[self.size_bytes]} ptr " if self.size_bytes in SIZE_NAMES else ""
        count = "" if self.broadcast is True else self.broadcast
        return size + self.address_text() + (f"{{1to{count}}}" if self.broadcast else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Memory) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


_KINDS = {0: "m"} | {size: f"m{8 * size}" for size in SIZE_NAMES}


def mem(
    base: Register | None = None,
    index: Register | None = None,
    scale: int = 1,
    disp: int = 0,
    *,
    size_bytes: int = 0,
    broadcast: bool | int = False,
    segment: str = "",
    label: str = "",
) -> Memory:
    """A memory operand: `mem(rax, rcx, 4, 64)`, `mem(rax, disp=8, size_bytes=4)`, `mem(label="table")`."""
    return Memory(base, index, scale, disp, size_bytes, broadcast, segment, label)
