"""Registers and constants: how an operand is written, and its number in the source encoding.

Every register and inline constant has one number: 0-127 scalar registers, 128-255 constants (255: a literal
follows), 256-511 vector registers, 768-1023 accumulation registers. Formats with narrower fields keep the low bits.

A *kind* says what an operand takes: `<banks><bits>[.<type>][/<flags>]`, for example `vsil32.f32`.
Banks: v VGPR, a AGPR, s scalar, i inline constant, l literal, d LDS direct. Bits may be `wave` (a lane mask).
Flags: h a 16-bit half; 7 only the first 128 registers; n no null; x no exec; m no m0.
Source: the "Scalar ALU operands" tables of AMD's RDNA3, RDNA4 and CDNA3 ISA manuals.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from typing import NamedTuple

__all__ = ["Kind", "Register", "RegisterBank", "a", "exec_", "m0", "null", "off", "s", "scc", "v", "vcc"]

LITERAL = 255
VGPR, AGPR = 256, 768


class Register(NamedTuple):
    """A register or an aligned run of them. `number` is that of the source encoding; `half` is "", "l" or "h"."""

    number: int
    dwords: int = 1
    name: str = ""
    half: str = ""
    prefix: str = ""

    @property
    def bank(self) -> str:
        return (
            "s"
            if self.number < 128
            else "special"
            if self.number < VGPR
            else "v"
            if self.number < AGPR
            else "a"
        )

    @property
    def index(self) -> int:
        """Place in its bank."""
        return self.number & 0xFF if self.number >= VGPR else self.number

    def __str__(self) -> str:
        half = "." + self.half if self.half else ""
        return {"": "{}", "-": "-{}", "|": "|{}|", "-|": "-|{}|"}[self.prefix].format(self.name + half)

    def __neg__(self) -> Register:
        return self._replace(prefix="-" + self.prefix)

    def __abs__(self) -> Register:
        return self._replace(prefix="|")

    @property
    def l(self) -> Register:  # noqa: E743
        """The low 16 bits."""
        return self._replace(half="l")

    @property
    def h(self) -> Register:
        """The high 16 bits."""
        return self._replace(half="h")


class RegisterBank:
    """`v[3]` is one register, `v[0:3]` the four from 0 to 3, inclusive as in assembly text."""

    def __init__(self, letter: str, first: int):
        self.letter, self.first = letter, first

    def __getitem__(self, index: int | slice) -> Register:
        if isinstance(index, slice):
            low, high = index.start or 0, index.stop
            return Register(self.first + low, high - low + 1, f"{self.letter}[{low}:{high}]")
        return Register(self.first + index, 1, f"{self.letter}{index}")


v, s, a = RegisterBank("v", VGPR), RegisterBank("s", 0), RegisterBank("a", AGPR)
vcc, exec_, m0, null = (
    Register(n, d, t) for n, d, t in ((106, 2, "vcc"), (126, 2, "exec"), (125, 1, "m0"), (124, 1, "null"))
)
scc, off = Register(253, 1, "src_scc"), Register(-1, 1, "off")

_APERTURES = {
    235: "src_shared_base",
    236: "src_shared_limit",
    237: "src_private_base",
    238: "src_private_limit",
}
_FLAGS = {253: "src_scc"}
_GFX9_FLAGS = {239: "src_pops_exiting_wave_id", 251: "src_vccz", 252: "src_execz"}
_PAIRS = {106: "vcc", 126: "exec"}


@cache
def special_names(generation: str, dwords: int) -> dict[int, str]:
    """Number -> name of the scalar registers that are not plainly numbered."""
    pairs = _PAIRS | ({102: "flat_scratch", 104: "xnack_mask"} if generation == "gfx940" else {})
    names = dict(_APERTURES | _FLAGS)
    if generation == "gfx940":
        names |= _GFX9_FLAGS
    if dwords == 1:
        for low, name in pairs.items():
            names |= {low: name + "_lo", low + 1: name + "_hi"}
        names |= {124: "m0"} if generation == "gfx940" else {124: "null", 125: "m0"}
    elif dwords == 2:
        names |= pairs
    else:
        names = {}
    if generation != "gfx940" and dwords > 1:
        names[124] = "null"
    return names


@cache
def scalar_limit(generation: str) -> int:
    return 102 if generation == "gfx940" else 106


FLOATS = (0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0)
_FLOAT_PACK = {"f32": ("<f", "<I"), "f16": ("<e", "<H"), "f64": ("<d", "<Q")}


def float_bits(value: float, type_: str) -> int:
    """Bit pattern of a float in a type, rounded to nearest even (bf16 included)."""
    if type_ == "bf16":
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    as_float, as_int = _FLOAT_PACK[type_]
    try:
        return struct.unpack(as_int, struct.pack(as_float, value))[0]
    except OverflowError:
        return {"f32": 0x7F800000, "f16": 0x7C00, "f64": 0}[type_] | (value < 0) << {
            "f32": 31,
            "f16": 15,
            "f64": 63,
        }[type_]


_INVERSE_2PI = {"f32": 0x3E22F983, "f16": 0x3118, "bf16": 0x3E22, "f64": 0x3FC45F306DC9C882}
# In which type the float constants of an operand type are patterns, and how wide its integers are.
_PATTERN = {
    "f32": ("f32", 32), "b32": ("f32", 32), "f64": ("f64", 64), "b64": ("f64", 64), "f16": ("f16", 16),
    "b16": ("f16", 16),
    "bf16": ("bf16", 16), "v2f16": ("f16", 32), "v2b16": ("f32", 32), "v2bf16": ("bf16", 32),
    "v2f32": ("f32", 32), "v2b32": ("f32", 32),
}  # fmt: skip


@cache
def float_patterns(type_: str) -> dict[int, int]:
    """Bit pattern -> number of the inline float constants."""
    pattern = _PATTERN[type_][0]
    return {float_bits(f, pattern): 240 + i for i, f in enumerate(FLOATS)} | {_INVERSE_2PI[pattern]: 248}


def inline_text(number: int, type_: str) -> str | None:
    """The text of an inline constant."""
    if number < 193:
        return str(number - 128)
    if number < 209:
        return str(192 - number)
    if 240 <= number <= 247:
        return str(FLOATS[number - 240])
    if number == 248:
        return "0.15915494309189532" if type_ in ("f64", "b64") else "0.15915494"
    return None


def parse_number(text: str) -> int | float | None:
    """An integer or float as assembly text writes it."""
    try:
        return int(text, 0)
    except ValueError:
        pass
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return None
    return float(text)


def encode_number(value: int | float, type_: str, literal: bool) -> tuple[int, int | None] | None:
    """(number, literal) of a constant in an operand of a type, or None when it does not fit."""
    pattern, width = _PATTERN[type_]
    if isinstance(value, float):
        if type_ == "b16" and value != 0.0 and float_bits(value, "f16") not in float_patterns(type_):
            return None
        bits = float_bits(value, pattern)
        if value in (0.15915494, 0.15915494309189532):
            return 248, None
        if type_ in ("f64", "b64"):
            found = float_patterns(type_).get(bits, 128 if bits == 0 else None)
            if type_ == "f64":
                return (found, None) if found else (LITERAL, bits >> 32) if literal else None
            return (found, None) if found else None
        if bits == 0 or value in FLOATS or bits == _INVERSE_2PI[pattern]:
            return (float_patterns(type_)[bits] if bits else 128), None
        return (LITERAL, bits) if literal else None
    limit = 1 << width
    if not -limit // 2 <= value < limit:
        return None
    small = value - limit if value >= limit // 2 else value
    if -16 <= small <= 64:
        return (128 + small if small >= 0 else 192 - small), None
    if type_ != "b16" and (value & (limit - 1)) in float_patterns(type_):
        return float_patterns(type_)[value & (limit - 1)], None
    if width == 64 and not -(1 << 31) <= value < 1 << 32:
        return None
    return (LITERAL, value & (min(limit, 1 << 32) - 1)) if literal else None


_REGISTER = re.compile(r"(v|s|a|ttmp|acc)(\d+|\[(\d+)(?::(\d+))?\])(\.[lh])?$")


class Kind:
    """What an operand takes; `parse` and `format` go between text and (number, literal)."""

    __slots__ = (
        "banks",
        "bits",
        "dwords",
        "flags",
        "generation",
        "limit",
        "literal_bits",
        "parsed",
        "specials",
        "type",
        "wave",
    )

    def __init__(self, spec: str, generation: str, wave: int):
        spec, _, self.flags = spec.partition("/")
        spec, _, self.type = spec.partition(".")
        self.banks, bits = re.fullmatch(r"([vasild]*?)(\d+|wave|f8f6f4)", spec).groups()
        if generation != "gfx940":
            self.banks = self.banks.replace("va", "v")  # accumulation registers are CDNA's
        self.generation, self.wave = generation, wave
        self.parsed: dict[str, tuple[int, int | None] | None] = {}
        self.bits = wave if bits == "wave" else 0 if bits == "f8f6f4" else int(bits)
        self.literal_bits = max(32, self.bits)
        self.dwords = max(1, self.bits // 32)
        self.limit = scalar_limit(generation)
        self.specials = special_names(generation, self.dwords)

    def aligned(self, number: int) -> bool:
        """Tuples: SGPRs to their size up to four, VGPRs to two where the generation asks for it."""
        if number < VGPR:
            start = number - 108 if 108 <= number < 124 else number
            return self.dwords == 1 or start % min(4, 1 << (self.dwords - 1).bit_length()) == 0
        return self.generation != "gfx940" or self.dwords == 1 or "u" in self.flags or number % 2 == 0

    def forbidden(self, number: int) -> bool:
        f = self.flags
        return bool(f) and (
            ("n" in f and number == 124 and self.generation != "gfx940")
            or ("x" in f and number in (126, 127))
            or ("m" in f and number == (124 if self.generation == "gfx940" else 125))
        )

    def register_text(self, number: int) -> str | None:
        """The name of a register of this kind, or None."""
        n = self.dwords
        if number >= VGPR:
            bank, index = ("a", number - AGPR) if number >= AGPR else ("v", number - VGPR)
            if bank not in self.banks or not 0 <= index <= 256 - n or not self.aligned(number):
                return None
            return f"{bank}{index}" if n == 1 else f"{bank}[{index}:{index + n - 1}]"
        if "s" not in self.banks or self.forbidden(number):
            return "src_lds_direct" if number == 254 and "d" in self.banks and 254 in self.specials else None
        if number in self.specials:
            return self.specials[number] if number < 235 or "i" in self.banks else None
        first, last, prefix = (108, 124, "ttmp") if number >= 108 else (0, self.limit, "s")
        if number + n > last or (n == 3 and prefix == "ttmp") or not self.aligned(number):
            return None
        return (
            f"{prefix}{number - first}" if n == 1 else f"{prefix}[{number - first}:{number - first + n - 1}]"
        )

    def format(self, number: int, literal: int | None) -> str | None:
        if 128 <= number <= 248 and "i" in self.banks and (text := inline_text(number, self.type)):
            return text
        if number == LITERAL and "l" in self.banks:
            assert literal is not None, "a literal operand without its literal"
            text = f"0x{literal:x}"
            return text if encode_number(literal, self.type, True) == (LITERAL, literal) else f"lit({text})"
        return self.register_text(number)

    def parse(self, text: str) -> tuple[int, int | None] | None:
        """(number, literal) of an operand's text, remembered for all slots of the kind."""
        try:
            return self.parsed[text]
        except KeyError:
            if len(self.parsed) > 1 << 16:
                self.parsed.clear()
            result = self.parsed[text] = self._parse(text)
            return result

    def _parse(self, text: str) -> tuple[int, int | None] | None:
        if match := _REGISTER.match(text):
            number = self.parse_register(match)
            return None if number is None or self.register_text(number) is None else (number, None)
        for number, name in self.specials.items():
            if name == text and self.register_text(number) == text:
                return number, None
        if "i" not in self.banks:
            return None
        if text.startswith("lit(") and text.endswith(")"):
            value = parse_number(text[4:-1])
            return (LITERAL, value & 0xFFFFFFFF) if isinstance(value, int) and "l" in self.banks else None
        value = parse_number(text)
        return None if value is None else encode_number(value, self.type, "l" in self.banks)

    def parse_register(self, match: re.Match) -> int | None:
        bank, single, low, high, half = match.groups()
        low = int(low if low is not None else single)
        high = int(high) if high is not None else low
        if high - low + 1 != self.dwords or (half and "h" not in self.flags):
            return None
        bank = "a" if bank == "acc" else bank
        first = {"v": VGPR, "s": 0, "a": AGPR, "ttmp": 108}[bank]
        if low > 255 or (bank == "s" and high >= self.limit) or (bank == "ttmp" and high > 15):
            return None
        return first + low

    def describe(self) -> str:
        """In words, for messages."""
        words = {
            "v": "VGPR",
            "a": "AGPR",
            "s": "SGPR",
            "i": "inline constant",
            "l": "literal",
            "d": "src_lds_direct",
        }
        size = f" of {self.dwords} dwords" if self.dwords > 1 else ""
        return " or ".join(words[b] for b in self.banks) + size
