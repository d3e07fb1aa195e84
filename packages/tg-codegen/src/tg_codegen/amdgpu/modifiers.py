"""Modifiers: what follows the operands, as `clamp mul:2 op_sel:[0,1] quad_perm:[3,2,1,0]`.

A modifier is a row: how one word of the text becomes a field's value, and back. `parse` gets the word and returns
None when it is not its own; `format` returns "" for the default.
Source: LLVM's "Syntax of AMDGPU instruction modifiers"; encodings from AMD's ISA manuals.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tg_codegen.amdgpu.immediates import IMMEDIATES, _integer

__all__ = ["MODIFIERS", "Modifier"]


_words = str.split


class Modifier(NamedTuple):
    parse: Callable[[str], int | None]
    format: Callable[[int], str]
    default: int = 0
    joins: bool = False  # several words make one value, or-ed (cache policy)


def _flag(name: str) -> Modifier:
    return Modifier(
        lambda word: 1 if word == name else 0 if word == "no" + name else None,
        lambda value: name if value else "",
    )


def _number(
    name: str,
    low: int,
    high: int,
    default: int = 0,
    hexadecimal: bool = False,
    show: bool = False,
    wrap: int = 0,
) -> Modifier:
    prefix = name + ":"

    def parse(word: str) -> int | None:
        if not word.startswith(prefix):
            return None
        value = _integer(word[len(prefix) :], low, high)
        return None if value is None else value % wrap if wrap else value

    def format_(value: int) -> str:
        if value == default and not show:
            return ""
        if value > high:
            if not wrap:
                return "?"
            value -= wrap
        return prefix + (f"{'-' * (value < 0)}0x{abs(value):x}" if hexadecimal else str(value))

    return Modifier(parse, format_, default)


def _enumeration(name: str, names: tuple[str, ...], default: int, show: bool = True) -> Modifier:
    prefix = name + ":"

    def parse(word: str) -> int | None:
        if not word.startswith(prefix):
            return None
        text = word[len(prefix) :]
        return names.index(text) if text in names else _integer(text, 0, len(names) - 1)

    return Modifier(
        parse,
        lambda v: "?" if v >= len(names) else prefix + names[v] if show or v != default else "",
        default,
    )


def _bound_ctrl(word: str) -> int | None:
    return 1 if word in ("bound_ctrl:0", "bound_ctrl:1") else None  # see ERRATA.md, "bound_ctrl:0"


def _omod(word: str) -> int | None:
    return {"mul:1": 0, "mul:2": 1, "mul:4": 2, "div:1": 0, "div:2": 3}.get(word)


def _list_values(word: str, prefix: str) -> list[int] | None:
    match = re.fullmatch(re.escape(prefix) + r":\[([^\]]*)\]", word)
    if not match:
        return None
    values = [_integer(t.strip(), 0, 255) for t in match[1].split(",")]
    return None if None in values else values


def _dpp8(word: str) -> int | None:
    values = _list_values(word, "dpp8")
    if values is None or len(values) != 8 or max(values) > 7:
        return None
    return sum(v << 3 * i for i, v in enumerate(values))


def _dpp8_text(value: int) -> str:
    return f"dpp8:[{','.join(str(value >> 3 * i & 7) for i in range(8))}]"


# Name -> (first control, lowest argument, highest argument); without arguments a plain word.
_DPP = {
    "gfx940": {"row_shl": (0x100, 1, 15), "row_shr": (0x110, 1, 15), "row_ror": (0x120, 1, 15),
               "row_newbcast": (0x150, 0, 15)},
    "gfx11": {"row_shl": (0x100, 1, 15), "row_shr": (0x110, 1, 15), "row_ror": (0x120, 1, 15),
              "row_share": (0x150, 0, 15), "row_xmask": (0x160, 0, 15)},
}  # fmt: skip
_DPP["gfx12"] = _DPP["gfx11"]
_DPP_WORDS = {
    "gfx940": {"wave_shl:1": 0x130, "wave_rol:1": 0x134, "wave_shr:1": 0x138, "wave_ror:1": 0x13C, "row_mirror": 0x140,
               "row_half_mirror": 0x141, "row_bcast:15": 0x142, "row_bcast:31": 0x143},
    "gfx11": {"row_mirror": 0x140, "row_half_mirror": 0x141},
}  # fmt: skip
_DPP_WORDS["gfx12"] = _DPP_WORDS["gfx11"]


def _dpp_control(generation: str, doubles: bool) -> Modifier:
    """On CDNA3, 64-bit operands take row_newbcast alone."""

    def parse(word: str) -> int | None:
        if doubles and not word.startswith("row_newbcast"):
            return None
        if word in _DPP_WORDS[generation]:
            return _DPP_WORDS[generation][word]
        if values := _list_values(word, "quad_perm"):
            return (
                sum(v << 2 * i for i, v in enumerate(values))
                if len(values) == 4 and max(values) < 4
                else None
            )
        name, _, argument = word.partition(":")
        if name not in _DPP[generation]:
            return None
        first, low, high = _DPP[generation][name]
        value = _integer(argument, low, high)
        return None if value is None else first + value

    def format_(value: int) -> str:
        if doubles and value >> 4 != 0x15:
            return "?"
        if value < 0x100:
            return f"quad_perm:[{','.join(str(value >> 2 * i & 3) for i in range(4))}]"
        for word, number in _DPP_WORDS[generation].items():
            if number == value:
                return word
        for name, (first, low, high) in _DPP[generation].items():
            if low <= value - first <= high:
                return f"{name}:{value - first}"
        return "?"

    return Modifier(parse, format_, 0xE4)


def _policy(words: dict[str, int]) -> Modifier:
    def parse(word: str) -> int | None:
        return words.get(word)

    return Modifier(parse, lambda value: " ".join(w for w, bit in words.items() if value & bit), joins=True)


_TH = ("RT", "NT", "HT", "LU", "NT_RT", "RT_NT", "NT_HT", "0x7")
_SCOPES = ("SCOPE_CU", "SCOPE_SE", "SCOPE_DEV", "SCOPE_SYS")
_TH_STORE = ("RT", "NT", "HT", "WB", "NT_RT", "RT_NT", "NT_HT", "NT_WB")
_TH_ATOMIC = ("", "RETURN", "NT", "NT_RETURN")


def _temporal_hint(word: str) -> int | None:
    text = word[3:].replace("TH_ATOMIC_0x", "0x")
    if (value := _integer(text, 0, 7)) is not None:
        return value
    for prefix, names in (("TH_LOAD_", _TH), ("TH_STORE_", _TH_STORE)):
        if text.startswith(prefix):
            rest = text[len(prefix) :]
            return names.index(rest) if rest in names else 3 if rest == "BYPASS" else None
    return {"TH_ATOMIC_RT": 0, "TH_ATOMIC_RETURN": 1, "TH_ATOMIC_RT_RETURN": 1, "TH_ATOMIC_NT": 2,
            "TH_ATOMIC_NT_RETURN": 3, "TH_ATOMIC_CASCADE_RT": 4, "TH_ATOMIC_CASCADE_NT": 6}.get(text)  # fmt: skip


def _policy12(what: str) -> Modifier:
    """RDNA4's cache policy: a temporal hint (bits 0-2) and a scope (bits 3-4)."""

    def parse(word: str) -> int | None:
        if word.startswith("th:"):
            return _temporal_hint(word)
        if word.startswith("scope:"):
            name = word[6:]
            value = _SCOPES.index(name) if name in _SCOPES else _integer(name, 0, 3)
            return None if value is None else value << 3
        return None

    def format_(value: int) -> str:
        hint, scope = value & 7, value >> 3 & 3
        words = []
        if hint:
            if what == "atomic":
                name = (
                    _TH_ATOMIC[hint]
                    if hint < 4
                    else {4: "CASCADE_RT", 6: "CASCADE_NT"}.get(hint if scope > 1 else 0)
                )
                words.append(f"th:TH_ATOMIC_{name}" if name else f"th:0x{hint:x}")
            elif hint == 7 and what == "load":
                words.append("th:0x7")
            else:
                name = "BYPASS" if hint == 3 and scope == 3 else (_TH if what == "load" else _TH_STORE)[hint]
                words.append(f"th:TH_{what.upper()}_{name}")
        if scope:
            words.append("scope:" + _SCOPES[scope])
        return "?" if value >> 5 else " ".join(words)

    return Modifier(parse, format_, joins=True)


_FORMATS_UNIFIED = _words(
    "INVALID 8_UNORM 8_SNORM 8_USCALED 8_SSCALED 8_UINT 8_SINT 16_UNORM 16_SNORM 16_USCALED 16_SSCALED "
    "16_UINT 16_SINT 16_FLOAT 8_8_UNORM 8_8_SNORM 8_8_USCALED 8_8_SSCALED 8_8_UINT 8_8_SINT 32_UINT "
    "32_SINT 32_FLOAT 16_16_UNORM 16_16_SNORM 16_16_USCALED 16_16_SSCALED 16_16_UINT 16_16_SINT "
    "16_16_FLOAT 10_11_11_FLOAT 11_11_10_FLOAT 10_10_10_2_UNORM 10_10_10_2_SNORM 10_10_10_2_UINT "
    "10_10_10_2_SINT 2_10_10_10_UNORM 2_10_10_10_SNORM 2_10_10_10_USCALED 2_10_10_10_SSCALED "
    "2_10_10_10_UINT 2_10_10_10_SINT 8_8_8_8_UNORM 8_8_8_8_SNORM 8_8_8_8_USCALED 8_8_8_8_SSCALED "
    "8_8_8_8_UINT 8_8_8_8_SINT 32_32_UINT 32_32_SINT 32_32_FLOAT 16_16_16_16_UNORM 16_16_16_16_SNORM "
    "16_16_16_16_USCALED 16_16_16_16_SSCALED 16_16_16_16_UINT 16_16_16_16_SINT 16_16_16_16_FLOAT "
    "32_32_32_UINT 32_32_32_SINT 32_32_32_FLOAT 32_32_32_32_UINT 32_32_32_32_SINT 32_32_32_32_FLOAT "
)
_DATA_FORMATS = _words(
    "INVALID 8 16 8_8 32 16_16 10_11_11 11_11_10 10_10_10_2 2_10_10_10 8_8_8_8 32_32 16_16_16_16 32_32_32 "
    "32_32_32_32 RESERVED_15 "
)
_NUMBER_FORMATS = _words("UNORM SNORM USCALED SSCALED UINT SINT RESERVED_6 FLOAT ")


def _buffer_format(generation: str) -> Modifier:
    """The data format of typed buffer instructions; names are read, numbers are written."""
    number = _number("format", 0, 127, default=1)

    def parse(word: str) -> int | None:
        match = re.fullmatch(r"format:\[([\w,\s]*)\]", word)
        if not match:
            return number.parse(word)
        names = [n.strip() for n in match[1].split(",")]
        if generation != "gfx940":
            name = names[0].removeprefix("BUF_FMT_")
            return _FORMATS_UNIFIED.index(name) if len(names) == 1 and name in _FORMATS_UNIFIED else None
        data, numbers = 1, 0
        for name in names:
            if (data_name := name.removeprefix("BUF_DATA_FORMAT_")) in _DATA_FORMATS and data_name != name:
                data = _DATA_FORMATS.index(data_name)
            elif (number_name := name.removeprefix("BUF_NUM_FORMAT_")) in _NUMBER_FORMATS:
                numbers = _NUMBER_FORMATS.index(number_name)
            else:
                return None
        return data | numbers << 4

    return Modifier(parse, number.format, 1)


def _negations(word: str) -> int | None:
    """CDNA3's f64 MFMA: BLGP negates A, B and C."""
    values = _list_values(word, "neg")
    if values is None:
        return _number("blgp", 0, 7).parse(word)
    return sum(v << i for i, v in enumerate(values)) if len(values) == 3 and max(values) < 2 else None


def _swizzle_offset(word: str) -> int | None:
    """ds_swizzle's spelled patterns."""
    match = re.fullmatch(r"offset:swizzle\(([^)]*)\)", word.replace(" ", ""))
    if not match:
        return None
    mode, *args = match[1].split(",")
    if mode == "BITMASK_PERM" and len(args) == 1 and re.fullmatch(r'"[01pi]{5}"', args[0]):
        keep = flip = set_ = 0
        for i, c in enumerate(reversed(args[0][1:-1])):
            keep |= (c in "pi") << i
            flip |= (c == "i") << i
            set_ |= (c == "1") << i
        return keep | set_ << 5 | flip << 10
    values = [_integer(a, 0, 31) for a in args]
    if None in values:
        return None
    if mode == "QUAD_PERM" and len(values) == 4 and max(values) < 4:
        return 0x8000 | sum(v << 2 * i for i, v in enumerate(values))
    if mode == "BROADCAST" and len(values) == 2 and values[0] in (2, 4, 8, 16, 32) and values[1] < values[0]:
        return (32 - values[0]) | values[1] << 5
    if mode == "SWAP" and len(values) == 1 and values[0] in (1, 2, 4, 8, 16):
        return 31 | values[0] << 10
    if mode == "REVERSE" and len(values) == 1 and values[0] in (2, 4, 8, 16, 32):
        return 31 | (values[0] - 1) << 10
    return None


def _ds_offset() -> Modifier:
    plain = _number("offset", 0, 0xFFFF)
    return plain._replace(parse=lambda word: _swizzle_offset(word) if "(" in word else plain.parse(word))


def _smem_offset(generation: str, kind: str) -> Modifier:
    immediate = IMMEDIATES[kind]

    def parse(word: str) -> int | None:
        return immediate.parse(word[7:], generation) if word.startswith("offset:") else None

    return Modifier(parse, lambda value: "offset:" + (immediate.format(value, generation) or "?"))


_SELECTS = ("BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD")


def modifier(name: str, generation: str, format_name: str, mnemonic: str, operands: str) -> Modifier:
    """The modifier of an instruction: most depend on the name alone."""
    family = format_name.split(".")[0].split("_")[0]
    if name == "offset":
        if family == "DS":
            return _ds_offset()
        if family == "SMEM":
            return _smem_offset(generation, "smem_buffer" if "s128" in operands else "smem")
        if family in ("MUBUF", "MTBUF"):
            return _number("offset", 0, (1 << 23) - 1 if generation == "gfx12" else 4095)
        if generation == "gfx12":
            return _number("offset", -(1 << 23), (1 << 23) - 1, wrap=1 << 24)
        if mnemonic.startswith("flat_"):
            return _number("offset", 0, 4095)
        return _number("offset", -4096, 4095, wrap=8192)
    if name == "cpol":
        if generation == "gfx940":
            return _policy({"glc": 1} if family == "SMEM" else {"sc0": 1, "nt": 2, "sc1": 16})
        if generation == "gfx11":
            return _policy({"glc": 1, "slc": 2, "dlc": 4})
        return _policy12("atomic" if "atomic" in mnemonic else "store" if "store" in mnemonic else "load")
    if name == "dpp_ctrl":
        return _dpp_control(generation, generation == "gfx940" and ":v64" in operands)
    if name == "format":
        return _buffer_format(generation)
    if name == "blgp" and "_f64_" in mnemonic:
        return Modifier(_negations, lambda v: f"neg:[{v & 1},{v >> 1 & 1},{v >> 2}]" if v else "")
    return MODIFIERS[name]


MODIFIERS: dict[str, Modifier] = {
    "clamp": _flag("clamp"), "gds": _flag("gds"),
    "omod": Modifier(_omod, lambda value: ("", "mul:2", "mul:4", "div:2")[value]),
    "offset0": _number("offset0", 0, 255), "offset1": _number("offset1", 0, 255),
    "row_mask": _number("row_mask", 0, 15, 15, hexadecimal=True, show=True),
    "bank_mask": _number("bank_mask", 0, 15, 15, hexadecimal=True, show=True),
    "bound_ctrl": Modifier(_bound_ctrl, lambda value: "bound_ctrl:1" if value else ""),
    "fi": _number("fi", 0, 1),
    "fi8": Modifier(lambda w: {"fi:0": 233, "fi:1": 234}.get(w), lambda v: {233: "", 234: "fi:1"}.get(v, "?"), 233),
    "dpp8": Modifier(_dpp8, _dpp8_text, 0),
    "dst_sel": _enumeration("dst_sel", _SELECTS, 6), "src0_sel": _enumeration("src0_sel", _SELECTS, 6),
    "src1_sel": _enumeration("src1_sel", _SELECTS, 6),
    "dst_unused": _enumeration("dst_unused", ("UNUSED_PAD", "UNUSED_SEXT", "UNUSED_PRESERVE"), 2),
    "cbsz": _number("cbsz", 0, 7), "abid": _number("abid", 0, 15), "blgp": _number("blgp", 0, 7),
    "byte_sel": _number("byte_sel", 0, 3), "bitop3": _number("bitop3", 0, 255, hexadecimal=True),
    "waitexp": _number("wait_exp", 0, 7),
    "index_key_8bit": _number("index_key", 0, 3), "index_key_16bit": _number("index_key", 0, 1),
}  # fmt: skip
