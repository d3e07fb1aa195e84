"""What one line of the tables says: the layout of the bytes and the operands, as the manual notates them.

An encoding is `VEX.256.66.0F38.W0 B8 /r ib`, `EVEX...`, or for the older layout `66 REX.W 0F BA /4 ib`. Operands
are `ymm{k}{z}, ymm, ymm/m256/b32{er}`; see `Operand`. opcodes.py replaces the letters that stand for several
lengths before anything comes here.
Source: Intel SDM volume 2, 3.1.1 "Instruction Format".
"""

from __future__ import annotations

import re
from functools import cache

from tg_codegen.x86_64.registers import IMPLIED, REGISTERS

__all__ = ["EVEX", "LEGACY", "VEX", "Encoding", "Operand", "place_operands"]

LEGACY, VEX, EVEX = "legacy", "vex", "evex"
_PREFIXES = {"NP": 0, "66": 1, "F3": 2, "F2": 3}
_MAPS = {"0F": 1, "0F38": 2, "0F3A": 3, "MAP5": 5, "MAP6": 6}
_LENGTHS = {"128": 0, "256": 1, "512": 2, "LZ": 0, "LIG": None}
_IMMEDIATE_BYTES = {"ib": 1, "iw": 2, "id": 4, "iq": 8, "cb": 1, "cd": 4, "/is4": 1}


class Encoding:
    """The bytes of a form.

    `prefix` is 0 (none), 1 (66), 2 (F3) or 3 (F2); `both` says that 66 goes before F2.
    `w` and `length` are None where they are ignored. `reg_field` is the digit of `/digit`, -1 for `/r`, None
    without ModRM; `fixed_modrm` is a ModRM byte that belongs to the opcode.
    """

    __slots__ = (
        "both", "disp_unit", "fixed_modrm", "immediate_bytes", "layout", "length", "map", "opcode", "opcode_register",
        "order", "prefix", "reg_field", "w",
    )  # fmt: skip

    def __init__(self, notation: str):
        words = notation.split()
        self.layout, self.prefix, self.map, self.w, self.length = LEGACY, 0, 0, 0, None
        self.reg_field: int | None = None
        self.fixed_modrm: int | None = None
        self.immediate_bytes, self.disp_unit, self.order = 0, 0, ""
        self.opcode, self.opcode_register, self.both = -1, False, False
        if words[0].startswith(("VEX.", "EVEX.")):
            layout, length, prefix, map_, w = words.pop(0).split(".")
            self.layout = layout.lower()
            self.length, self.prefix, self.map = _LENGTHS[length], _PREFIXES[prefix], _MAPS[map_]
            self.w = {"W0": 0, "W1": 1, "WIG": None}[w]
        else:
            while words[0] in _PREFIXES or words[0] == "REX.W":
                word = words.pop(0)
                if word == "REX.W":
                    self.w = 1
                else:
                    self.both = self.prefix == 1
                    self.prefix = _PREFIXES[word]
            if words[0] == "0F":
                words.pop(0)
                self.map = 1
                if words[0] in ("38", "3A"):
                    self.map = _MAPS["0F" + words.pop(0)]
        for word in words:
            if word in _IMMEDIATE_BYTES:
                self.immediate_bytes += _IMMEDIATE_BYTES[word]
            elif word == "/r":
                self.reg_field = -1
            elif word[0] == "/":
                self.reg_field = int(word[1:])
            elif word[0] == "N":
                self.disp_unit = int(word[1:])
            elif word in ("RMV", "MVR", "R"):
                self.order = word
            elif self.opcode < 0:
                self.opcode_register = word.endswith("+r")
                self.opcode = int(word.removesuffix("+r"), 16)
            else:
                self.fixed_modrm = int(word, 16)


_WIDTHS = {"xmm": 128, "ymm": 256, "zmm": 512, "k": 64, "tmm": 8192}
_ALSO = {"r8": ("al", "cl"), "r16": ("ax",), "r32": ("eax",), "r64": ("rax",)}
_OPERAND = re.compile(r"([<>]*)([^{]+)((?:\{.*?\})*)")
_RANGES = {  # what an immediate takes; text shows u8, imm16 and imm32 without a sign
    "u8": (-128, 255),
    "imm8": (-128, 255),
    "imm16": (-0x8000, 0xFFFF),
    "imm16s": (-0x8000, 0xFFFF),
    "imm32": (-0x80000000, 0xFFFFFFFF),
    "imm64": (-(1 << 63), (1 << 64) - 1),
    "imm8s": (-128, 127),
    "imm32s": (-0x80000000, 0x7FFFFFFF),
    "rel8": (-128, 127),
    "rel32": (-0x80000000, 0x7FFFFFFF),
}
_MEMORY_NAMES = ("m", "m8", "m16", "m32", "m64", "m128", "m256", "m512")


class Operand:
    """One operand of a form: what it accepts, where its bits go, and whether it is read and written.

    `accepts` holds the kinds of registers.py, "i" for a number and "l" for a label.
    `register` is the kind of register (r32, zmm, k, tmm, eax) or "", `width` its bits. `memory_bytes` is None when
    memory is not accepted and 0 when the size has no name. `broadcast_bytes` is the repeated element's size.
    `vector_index` is x, y or z for gathers. `immediate` gives name and inclusive range. `masking` is "", "k", "kz"
    or "k!" (a mask that must be given and is cleared); `rounding` is "", "er" or "sae".
    `place`: reg, rm, vvvv, is4, opcode, imm, or "" for an implied register.
    """

    __slots__ = (
        "accepts", "broadcast_bytes", "force_sib", "immediate", "masking", "memory_bytes", "place", "reads",
        "register", "rounding", "text", "vector_index", "width", "writes",
    )  # fmt: skip

    def __init__(self, spec: str, first: bool, layout: str):
        match = _OPERAND.fullmatch(spec)
        assert match, f"operand {spec!r} in the tables"
        role, body, marks = match.groups()
        self.text = body
        role = role or (">" if first else "<")
        self.reads, self.writes = "<" in role, ">" in role
        self.masking = {"": "", "{k}": "k", "{k}{z}": "kz", "{k!}": "k!"}[
            marks.replace("{er}", "").replace("{sae}", "")
        ]
        self.rounding = "er" if "{er}" in marks else "sae" if "{sae}" in marks else ""
        self.register, self.width, self.memory_bytes, self.broadcast_bytes = "", 0, None, 0
        self.vector_index, self.immediate, self.force_sib, self.place = "", None, False, ""
        accepts: list[str] = []
        for part in body.split("/"):
            if part in _RANGES or part == "1":
                low, high = _RANGES.get(part, (1, 1))
                self.immediate, self.place = (part, low, high), "imm" if part != "1" else ""
                accepts += ["i", "l"] if part.startswith("rel") else ["i"]
            elif part in IMPLIED:
                self.register, self.width = part, REGISTERS[part].width
                accepts.append(part)
            elif part in ("m", "sibmem"):
                self.memory_bytes, self.force_sib = 0, part == "sibmem"
                accepts += _MEMORY_NAMES
            elif part.startswith("vm"):
                self.vector_index = part[4]
            elif part[0] == "m":
                self.memory_bytes = int(part[1:]) // 8
                accepts += ["m", part]
            elif part[0] == "b":
                self.broadcast_bytes = int(part[1:]) // 8
            else:
                self.register, self.width = part, _WIDTHS.get(part) or int(part[1:])
                accepts += [part, *_ALSO.get(part, ())]
                if layout == EVEX and part in ("xmm", "ymm", "zmm"):
                    accepts.append(part + "+")
        if self.vector_index:
            size = f"{8 * self.memory_bytes}"
            accepts = [
                f"v{self.vector_index}{hi}{s}" for hi in ("", "+")[: 1 + (layout == EVEX)] for s in ("", size)
            ]
        self.accepts = frozenset(accepts)

    def describe(self) -> str:
        """What the operand takes, in words for an error."""
        if self.immediate:
            name, low, high = self.immediate
            return f"{low}..{high}" if low != high else str(low)
        parts = [self.register] if self.register else []
        if self.memory_bytes is not None:
            index = f" with {self.vector_index}mm index" if self.vector_index else ""
            parts.append(f"{8 * self.memory_bytes or 'any'}-bit memory{index}")
        if self.broadcast_bytes:
            parts.append(f"{8 * self.broadcast_bytes}-bit broadcast")
        return " or ".join(parts)


@cache
def _operand(spec: str, first: bool, layout: str, place: str) -> Operand:
    """The shared operand of a spec and place."""
    made = Operand(spec, first, layout)
    made.place = place
    return made


def place_operands(specs: tuple[str, ...], encoding: Encoding) -> tuple[Operand, ...]:
    """Operands with the places that the manual's column "Op/En" would give.

    ModRM.rm holds the operand that may be memory, or else the last register; of the others the first is in
    ModRM.reg and the second in VEX.vvvv, but a store (rm first) has them the other way round, and `/digit` leaves
    only vvvv. A fourth register is in the immediate. `RMV`, `MVR` and `R` in the encoding say otherwise.
    """
    plain = [Operand(spec, i == 0, encoding.layout) for i, spec in enumerate(specs)]
    free = [i for i, o in enumerate(plain) if not o.immediate and o.text not in IMPLIED]
    places = [o.place for o in plain]
    if encoding.opcode_register:
        places[free[0]] = "opcode"
    elif encoding.reg_field is not None:
        four = len(free) == 4
        rm = next((i for i in free if plain[i].memory_bytes is not None), -1)
        if encoding.order:
            rm = {"RMV": 1, "MVR": 0, "R": -1}[encoding.order]
        elif rm < 0 and free:
            rm = free[-1 - four]
        others = [i for i in free if i != rm]
        if rm >= 0:
            places[rm] = "rm"
        names = ["vvvv"] if encoding.reg_field >= 0 else ["reg", "vvvv", "is4"]
        if rm == 0 and len(others) == 2:
            names = ["vvvv", "reg"]
        for i, name in zip(others, names, strict=False):
            places[i] = name
    return tuple(
        _operand(spec, i == 0, encoding.layout, place)
        for i, (spec, place) in enumerate(zip(specs, places, strict=True))
    )
