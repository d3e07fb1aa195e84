"""Immediates that stand between commas: numbers, wait counts, hardware registers, messages, delays.

A kind is a pair of functions, `parse(text, generation) -> int or None` and `format(value, generation) -> text`.
Source: "Program control", S_WAITCNT, S_DELAY_ALU, S_SETREG and S_SENDMSG in AMD's RDNA3, RDNA4 and CDNA3 ISA
manuals; the spelling is LLVM's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import NamedTuple

from tg_codegen.amdgpu.operands import float_bits, parse_number

__all__ = ["IMMEDIATES", "WAIT_FIELDS", "Immediate", "pack_waits", "unpack_waits"]


_words = str.split


class Immediate(NamedTuple):
    parse: Callable[[str, str], int | None]
    format: Callable[[int, str], str]
    whole: bool = False  # the text may hold spaces and commas


def _integer(text: str, low: int, high: int) -> int | None:
    value = parse_number(text)
    return value if isinstance(value, int) and low <= value <= high else None


def _ranged(bits: int, signed: bool, format_: Callable[[int], str]) -> Immediate:
    low = -(1 << (bits - 1)) if signed else 0

    def parse(text: str, generation: str) -> int | None:
        value = _integer(text, low, (1 << bits) - 1)
        return None if value is None else value & ((1 << bits) - 1)

    return Immediate(parse, lambda value, generation: format_(value))


def _branch_text(value: int) -> str:
    return str(value - 0x10000 if value >= 0x8000 else value)


# Counter -> segments (shift, bits, place in the count).
WAIT_FIELDS = {
    "gfx940": {"vmcnt": ((0, 4, 0), (14, 2, 4)), "expcnt": ((4, 3, 0),), "lgkmcnt": ((8, 4, 0),)},
    "gfx11": {"vmcnt": ((10, 6, 0),), "expcnt": ((0, 3, 0),), "lgkmcnt": ((4, 6, 0),)},
}
WAIT_FIELDS["gfx12"] = WAIT_FIELDS["gfx11"]


def pack_waits(generation: str, **counts: int) -> int:
    """The immediate of s_waitcnt; a counter not named is not waited for. Raises ValueError out of range."""
    value = 0
    for name, segments in WAIT_FIELDS[generation].items():
        limit = (1 << sum(bits for _, bits, _ in segments)) - 1
        count = counts.pop(name, limit)
        if not 0 <= count <= limit:
            raise ValueError(f"{name}: got {count}, want 0..{limit}")
        for shift, bits, place in segments:
            value |= (count >> place & ((1 << bits) - 1)) << shift
    if counts:
        raise ValueError(f"s_waitcnt: got {', '.join(counts)}, want {', '.join(WAIT_FIELDS[generation])}")
    return value


def unpack_waits(generation: str, value: int) -> dict[str, int]:
    return {
        name: sum((value >> shift & ((1 << bits) - 1)) << place for shift, bits, place in segments)
        for name, segments in WAIT_FIELDS[generation].items()
    }


def _parse_waits(text: str, generation: str) -> int | None:
    if (value := _integer(text, -0x8000, 0xFFFF)) is not None:
        return value & 0xFFFF
    if not re.fullmatch(r"\w+\([^()]*\)([\s&,]+\w+\([^()]*\))*", text):
        return None
    counts = {}
    for name, count in re.findall(r"(\w+)\(([^()]*)\)", text):
        base = name.removesuffix("_sat")
        limit = (1 << sum(bits for _, bits, _ in WAIT_FIELDS[generation].get(base, ()))) - 1
        value = _integer(count.strip(), 0, 1 << 30)
        if value is None or limit <= 0 or (value > limit and base == name):
            return None
        counts[base] = min(value, limit)
    return pack_waits(generation, **counts)


def _format_waits(value: int, generation: str) -> str:
    counts = unpack_waits(generation, value)
    if pack_waits(generation, **counts) != value:
        return str(value)  # bits that belong to no counter
    limits = unpack_waits(generation, 0xFFFF)
    shown = [f"{n}({c})" for n, c in counts.items() if c != limits[n]]
    return " ".join(shown) or " ".join(f"{n}({c})" for n, c in counts.items())


_HWREG = {
    "gfx940": "1 MODE STATUS TRAPSTS HW_ID GPR_ALLOC LDS_ALLOC IB_STS 15 SH_MEM_BASES TBA_LO TBA_HI TMA_LO "
    "TMA_HI XCC_ID SQ_PERF_SNAPSHOT_DATA SQ_PERF_SNAPSHOT_DATA1 SQ_PERF_SNAPSHOT_PC_LO "
    "SQ_PERF_SNAPSHOT_PC_HI",
    "gfx11": "1 MODE STATUS TRAPSTS 5 GPR_ALLOC LDS_ALLOC IB_STS 15 SH_MEM_BASES 18 PERF_SNAPSHOT_PC_LO "
    "PERF_SNAPSHOT_PC_HI FLAT_SCR_LO FLAT_SCR_HI 23 HW_ID1 HW_ID2 27 PERF_SNAPSHOT_DATA 29 "
    "SHADER_CYCLES",
    "gfx12": "1 WAVE_MODE WAVE_STATUS 4 WAVE_STATE_PRIV WAVE_GPR_ALLOC WAVE_LDS_ALLOC IB_STS 10 "
    "PERF_SNAPSHOT_DATA PERF_SNAPSHOT_PC_LO PERF_SNAPSHOT_PC_HI 15 PERF_SNAPSHOT_DATA1 "
    "PERF_SNAPSHOT_DATA2 WAVE_EXCP_FLAG_PRIV WAVE_EXCP_FLAG_USER WAVE_TRAP_CTRL WAVE_SCRATCH_BASE_LO "
    "WAVE_SCRATCH_BASE_HI 23 WAVE_HW_ID1 WAVE_HW_ID2 26 WAVE_SCHED_MODE 29 SHADER_CYCLES_LO "
    "SHADER_CYCLES_HI WAVE_DVGPR_ALLOC_LO WAVE_DVGPR_ALLOC_HI",
}
_MESSAGES = {
    "gfx940": "1 MSG_INTERRUPT MSG_GS MSG_GS_DONE MSG_SAVEWAVE MSG_STALL_WAVE_GEN MSG_HALT_WAVES "
    "MSG_ORDERED_PS_DONE MSG_EARLY_PRIM_DEALLOC MSG_GS_ALLOC_REQ MSG_GET_DOORBELL 15 MSG_SYSMSG",
    "gfx11": "1 MSG_INTERRUPT MSG_HS_TESSFACTOR MSG_DEALLOC_VGPRS 5 MSG_STALL_WAVE_GEN MSG_HALT_WAVES 9 "
    "MSG_GS_ALLOC_REQ 128 MSG_RTN_GET_DOORBELL MSG_RTN_GET_DDID MSG_RTN_GET_TMA MSG_RTN_GET_REALTIME "
    "MSG_RTN_SAVE_WAVE MSG_RTN_GET_TBA MSG_RTN_GET_TBA_TO_PC",
    "gfx12": "1 MSG_INTERRUPT MSG_HS_TESSFACTOR MSG_DEALLOC_VGPRS 9 MSG_GS_ALLOC_REQ 128 MSG_RTN_GET_DOORBELL "
    "MSG_RTN_GET_DDID MSG_RTN_GET_TMA MSG_RTN_GET_REALTIME MSG_RTN_SAVE_WAVE MSG_RTN_GET_TBA "
    "MSG_RTN_GET_TBA_TO_PC MSG_RTN_GET_SE_AID_ID",
}
_GS_OPS = ("GS_OP_NOP", "GS_OP_CUT", "GS_OP_EMIT", "GS_OP_EMIT_CUT")
_SYSMSG_OPS = {"SYSMSG_OP_ECC_ERR_INTERRUPT": 1, "SYSMSG_OP_REG_RD": 2, "SYSMSG_OP_TTRACE_PC": 4}


def _numbered(text: str) -> dict[int, str]:
    """'1 A B 5 C' -> {1: A, 2: B, 5: C}."""
    names, number = {}, 0
    for word in text.split():
        if word.isdigit():
            number = int(word)
        else:
            names[number] = word
            number += 1
    return names


HWREG = {g: {n: "HW_REG_" + name for n, name in _numbered(t).items()} for g, t in _HWREG.items()}
MESSAGES = {g: _numbered(t) for g, t in _MESSAGES.items()}


def _lookup(names: dict[int, str], text: str, limit: int) -> int | None:
    return (
        next((n for n, name in names.items() if name == text), None)
        if text[:1].isalpha()
        else _integer(text, 0, limit)
    )


def _arguments(text: str, function: str) -> list[str] | None:
    if not (text.startswith(function + "(") and text.endswith(")")):
        return None
    return [t.strip() for t in text[len(function) + 1 : -1].split(",")]


def _parse_hwreg(text: str, generation: str) -> int | None:
    if (args := _arguments(text, "hwreg")) is None:
        value = _integer(text, -0x8000, 0xFFFF)
        return None if value is None else value & 0xFFFF
    if len(args) not in (1, 3):
        return None
    offset, size = (_integer(args[1], 0, 31), _integer(args[2], 1, 32)) if len(args) == 3 else (0, 32)
    number = _lookup(HWREG[generation], args[0], 63)
    return None if None in (number, offset, size) else number | offset << 6 | (size - 1) << 11


def _format_hwreg(value: int, generation: str) -> str:
    number, offset, size = value & 63, value >> 6 & 31, (value >> 11) + 1
    name = HWREG[generation].get(number, str(number))
    return f"hwreg({name})" if (offset, size) == (0, 32) else f"hwreg({name}, {offset}, {size})"


def _operations(message: int) -> dict[str, int]:
    return (
        {name: i for i, name in enumerate(_GS_OPS)}
        if message in (2, 3)
        else _SYSMSG_OPS
        if message == 15
        else {}
    )


def _parse_message(text: str, generation: str) -> int | None:
    if (args := _arguments(text, "sendmsg")) is None:
        value = _integer(text, -0x8000, 0xFFFF)
        return None if value is None else value & 0xFFFF
    wide = generation != "gfx940"
    message = _lookup(MESSAGES[generation], args[0], 255 if wide else 15)
    if message is None or len(args) > 3:
        return None
    operation = stream = 0
    if len(args) > 1:
        names = {} if wide else _operations(message)
        operation = names.get(args[1], _integer(args[1], 0, 0 if wide else 7))
    if len(args) > 2:
        stream = _integer(args[2], 0, 0 if wide else 3)
    return None if None in (operation, stream) else message | operation << 4 | stream << 8


def _format_message(value: int, generation: str) -> str:
    if generation != "gfx940":
        name = MESSAGES[generation].get(value)
        return f"sendmsg({name})" if name else str(value)
    message, operation, stream = value & 15, value >> 4 & 7, value >> 8 & 3
    name, names = MESSAGES[generation].get(message), {v: k for k, v in _operations(message).items()}
    if name and value == message and (not names or message == 3):
        return f"sendmsg({name})" if not names else f"sendmsg({name}, {names[0]})"
    if name and operation in names and operation and value == message | operation << 4 | stream << 8:
        if message == 15:
            return f"sendmsg({name}, {names[operation]})" if not stream else str(value)
        return f"sendmsg({name}, {names[operation]}, {stream})"
    return str(value)


_DELAYS = _words(
    "NO_DEP VALU_DEP_1 VALU_DEP_2 VALU_DEP_3 VALU_DEP_4 TRANS32_DEP_1 TRANS32_DEP_2 TRANS32_DEP_3 "
    "FMA_ACCUM_CYCLE_1 SALU_CYCLE_1 SALU_CYCLE_2 SALU_CYCLE_3 "
)
_SKIPS = _words("SAME NEXT SKIP_1 SKIP_2 SKIP_3 SKIP_4 ")
_DELAY_FIELDS = {"instid0": (0, _DELAYS), "instskip": (4, _SKIPS), "instid1": (7, _DELAYS)}


def _parse_delay(text: str, generation: str) -> int | None:
    if (number := _integer(text, 0, 0xFFFF)) is not None:
        return number
    value = 0
    for part in text.split("|"):
        match = re.fullmatch(r"\s*(\w+)\((\w+)\)\s*", part)
        if not match or match[1] not in _DELAY_FIELDS or match[2] not in _DELAY_FIELDS[match[1]][1]:
            return None
        shift, names = _DELAY_FIELDS[match[1]]
        value |= names.index(match[2]) << shift
    return value


def _format_delay(value: int, generation: str) -> str:
    parts = [
        (name, value >> shift & (7 if name == "instskip" else 15), names)
        for name, (shift, names) in _DELAY_FIELDS.items()
    ]
    if value >> 11 or any(number >= len(names) for _, number, names in parts):
        return f"0x{value:x}"
    return " | ".join(f"{name}({names[number]})" for name, number, names in parts if number) or "0"


# Counter -> (shift, bits, default); what a text leaves out has the default.
_DEPCTR = {"depctr_hold_cnt": (7, 1), "depctr_sa_sdst": (0, 1), "depctr_va_vdst": (12, 4), "depctr_va_sdst": (9, 3),
           "depctr_va_ssrc": (8, 1), "depctr_va_vcc": (1, 1), "depctr_vm_vsrc": (2, 3)}  # fmt: skip
_DEPCTR_DEFAULT = {"gfx11": 0x0F9F | 0xF000, "gfx12": 0xFF9F}


def _parse_depctr(text: str, generation: str) -> int | None:
    if (number := _integer(text, -0x8000, 0xFFFF)) is not None:
        return number & 0xFFFF
    value = _DEPCTR_DEFAULT[generation]
    for part in re.split(r"[\s&,]+", text):
        match = re.fullmatch(r"(\w+)\((\w+)\)", part)
        if not match or match[1] not in _DEPCTR:
            return None
        shift, bits = _DEPCTR[match[1]]
        count = _integer(match[2], 0, (1 << bits) - 1)
        if count is None:
            return None
        value = value & ~(((1 << bits) - 1) << shift) | count << shift
    return value


def _format_depctr(value: int, generation: str) -> str:
    rest, parts = _DEPCTR_DEFAULT[generation], []
    for name, (shift, bits) in _DEPCTR.items():
        mask = ((1 << bits) - 1) << shift
        if (value ^ rest) & mask and name != "depctr_hold_cnt":
            parts.append(f"{name}({(value & mask) >> shift})")
            rest = rest & ~mask | value & mask
    return " ".join(parts) if parts and rest == value else f"0x{value:x}"


_GPR_INDEX = ("SRC0", "SRC1", "SRC2", "DST")


def _parse_gpr_index(text: str, generation: str) -> int | None:
    if (args := _arguments(text, "gpr_idx")) is None:
        return _integer(text, 0, 15)
    args = [a for a in args if a]
    return (
        sum(1 << _GPR_INDEX.index(a) for a in args)
        if set(args) <= set(_GPR_INDEX) and len(set(args)) == len(args)
        else None
    )


def _format_gpr_index(value: int, generation: str) -> str:
    if value > 15:
        return ""
    return f"gpr_idx({','.join(n for i, n in enumerate(_GPR_INDEX) if value >> i & 1)})"


_VERSIONS = {"UC_VERSION_GFX7": 0, "UC_VERSION_GFX10": 4, "UC_VERSION_GFX11": 6, "UC_VERSION_GFX12": 9,
             "UC_VERSION_W64_BIT": 0x2000, "UC_VERSION_W32_BIT": 0x4000, "UC_VERSION_MDP_BIT": 0x8000}  # fmt: skip


def _parse_version(text: str, generation: str) -> int | None:
    parts = [_VERSIONS.get(p.strip(" ()"), _integer(p.strip(" ()"), 0, 0xFFFF)) for p in text.split("|")]
    return None if None in parts else reduce(or_, parts)


def _constant(type_: str, mask: int) -> Immediate:
    """The mandatory literal of fmaak and fmamk."""

    def parse(text: str, generation: str) -> int | None:
        value = parse_number(text)
        if isinstance(value, float):
            return float_bits(value, type_)
        return value & mask if value is not None and -(mask + 1) // 2 <= value <= mask else None

    return Immediate(parse, lambda value, generation: f"0x{value:x}" if value <= mask else "")


def _smem(signed: bool) -> Immediate:
    """Offsets of scalar loads; those of buffers are unsigned."""

    def parse(text: str, generation: str) -> int | None:
        bits = 24 if generation == "gfx12" else 21
        value = _integer(text, -(1 << (bits - 1)) if signed else 0, (1 << (bits - 1)) - 1)
        return None if value is None else value & ((1 << bits) - 1)

    def format_(value: int, generation: str) -> str:
        bits = 24 if generation == "gfx12" else 21
        value -= value >> (bits - 1) << bits
        if value < 0 and not signed:
            return ""
        return f"-0x{-value:x}" if value < 0 else f"0x{value:x}"

    return Immediate(parse, format_)


def _parse_barrier(text: str, generation: str) -> int | None:
    value = _integer(text, -16, 64)
    return None if value is None else 128 + value if value >= 0 else 192 - value


def _format_barrier(value: int, generation: str) -> str:
    return (
        "" if value < 128 else str(value - 128) if value <= 192 else str(192 - value) if value <= 208 else ""
    )


IMMEDIATES: dict[str, Immediate] = {
    "simm16": _ranged(16, True, lambda v: f"0x{v:x}"),
    "uimm16": _ranged(16, False, str),
    "imm16": _ranged(16, True, _branch_text),
    "imm8": _ranged(8, False, lambda v: str(v) if v <= 64 else f"0x{v:x}"),
    "imm32": _ranged(32, True, lambda v: f"0x{v:x}"),
    "branch": _ranged(16, True, _branch_text),
    "k32": _constant("f32", 0xFFFFFFFF),
    "k16": _constant("f16", 0xFFFF),
    "smem": _smem(True),
    "smem_buffer": _smem(False),
    "endpgm": _ranged(16, False, str),
    "barrier": Immediate(_parse_barrier, _format_barrier),
    "hwreg": Immediate(_parse_hwreg, _format_hwreg),
    "sendmsg": Immediate(_parse_message, _format_message),
    "waitcnt": Immediate(_parse_waits, _format_waits, True),
    "delay": Immediate(_parse_delay, _format_delay, True),
    "depctr": Immediate(_parse_depctr, _format_depctr, True),
    "gpridx": Immediate(_parse_gpr_index, _format_gpr_index),
    "version": Immediate(_parse_version, lambda v, generation: f"0x{v:x}", True),
}
