"""Bytes to instructions, by the same forms that encode them.

Strict where the processor is lenient: fields that a form leaves unused must hold what the assembler writes there,
so that nearly every decoded instruction assembles to its own bytes again. Left over are longer ways to write the
same (a VEX prefix of three bytes, a displacement of four), which the disassembler shows as data.
"""

from __future__ import annotations

from functools import lru_cache

from tg_codegen.errors import DecodeError
from tg_codegen.x86_64.encode import ROUNDINGS, Instruction
from tg_codegen.x86_64.formats import EVEX, LEGACY, VEX, Operand
from tg_codegen.x86_64.opcodes import Form, forms_at
from tg_codegen.x86_64.registers import REGISTERS, SEGMENTS, Memory, Register, gpr, k, rip, tmm, xmm, ymm, zmm

__all__ = ["decode"]

_FILES: dict[str, tuple[Register, ...]] = {"xmm": xmm, "ymm": ymm, "zmm": zmm, "k": k, "tmm": tmm}
_FILES |= {f"r{width}": file for width, file in gpr.items()}
_HIGH_BYTES = tuple(REGISTERS[name] for name in ("ah", "ch", "dh", "bh"))
_SEGMENTS = {byte[0]: name for name, byte in SEGMENTS.items()}
_ROUNDING_NAMES = [*ROUNDINGS]
_UNSIGNED = ("u8", "imm16", "imm32")
_LONGEST = 15


class _Mismatch(Exception):
    """The bytes are no instance of the form at hand."""


class _Fields:
    """The fields of the prefixes, already with the sense that a set bit adds to a register's number."""

    __slots__ = (
        "b", "broadcast", "data", "length", "lock", "mask", "operand_16", "r", "repeat", "rex", "segment", "vvvv",
        "w", "x", "x4", "zeroing",
    )  # fmt: skip

    def __init__(self, data: bytes):
        self.data = data
        self.r = self.x = self.b = self.w = self.x4 = self.vvvv = self.mask = 0
        self.operand_16 = self.repeat = self.length = 0
        self.lock = self.rex = self.broadcast = self.zeroing = False
        self.segment = ""


def decode(data: bytes, offset: int = 0) -> Instruction:
    """The instruction at an offset. Raises: DecodeError."""
    window = bytes(data[offset : offset + _LONGEST])
    try:
        return _decode(window)
    except IndexError:
        found = f"{window.hex(' ')} is cut short" if window else "no bytes are left"
        raise DecodeError(found, offset) from None
    except _Mismatch:
        raise DecodeError(
            f"{window[:8].hex(' ')} is no instruction of x86-64 that the tables know", offset
        ) from None


def _decode(data: bytes) -> Instruction:
    fields = _Fields(data)
    at = 0
    while True:
        byte = data[at]
        if byte == 0x66:
            fields.operand_16 += 1
        elif byte in (0xF2, 0xF3):
            if fields.repeat:
                raise _Mismatch
            fields.repeat = 2 if byte == 0xF3 else 3
        elif byte == 0xF0:
            if fields.lock:
                raise _Mismatch
            fields.lock = True
        elif byte in _SEGMENTS:
            if fields.segment:
                raise _Mismatch
            fields.segment = _SEGMENTS[byte]
        else:
            break
        at += 1
    if byte in (0xC4, 0xC5, 0x62):
        if fields.operand_16 or fields.repeat or fields.lock:
            raise _Mismatch
        if byte == 0x62:
            return _decode_evex(data, at + 1, fields)
        return _decode_vex(data, at + 1, byte == 0xC5, fields)
    if byte & 0xF0 == 0x40:
        fields.rex = True
        fields.w, fields.r, fields.x, fields.b = (
            byte >> 3 & 1,
            (byte & 4) << 1,
            (byte & 2) << 2,
            (byte & 1) << 3,
        )
        at += 1
        byte = data[at]
    map_ = 0
    if byte == 0x0F:
        map_, byte = 1, data[at + 1]
        at += 1
        if byte in (0x38, 0x3A):
            map_, byte = (2 if byte == 0x38 else 3), data[at + 1]
            at += 1
    forms = _legacy_forms(map_, byte, min(fields.operand_16, 1), fields.repeat, fields.w)
    return _first_match(forms, data, at + 1, byte, fields)


def _decode_vex(data: bytes, at: int, short: bool, fields: _Fields) -> Instruction:
    first = data[at]
    fields.r = (~first & 0x80) >> 4
    map_ = 1
    if not short:
        fields.x, fields.b, map_ = (~first & 0x40) >> 3, (~first & 0x20) >> 2, first & 31
        at += 1
    last = data[at]
    fields.w = 0 if short else last >> 7
    fields.vvvv = ~last >> 3 & 15
    opcode = data[at + 1]
    forms = _vector_forms(VEX, map_, opcode, last & 3, fields.w, last >> 2 & 1)
    return _first_match(forms, data, at + 2, opcode, fields)


def _decode_evex(data: bytes, at: int, fields: _Fields) -> Instruction:
    first, second, third, opcode, modrm = data[at], data[at + 1], data[at + 2], data[at + 3], data[at + 4]
    if first & 8 or not second & 4:
        raise _Mismatch
    fields.r = (~first & 0x80) >> 4 | ~first & 0x10
    fields.x, fields.b = (~first & 0x40) >> 3, (~first & 0x20) >> 2
    fields.w, fields.vvvv = second >> 7, ~second >> 3 & 15
    fields.x4 = (~third & 8) << 1
    fields.mask, fields.zeroing, fields.broadcast = third & 7, bool(third & 0x80), bool(third & 0x10)
    fields.length = third >> 5 & 3
    rounds = fields.broadcast and modrm >= 0xC0
    forms = _vector_forms(EVEX, first & 7, opcode, second & 3, fields.w, 4 if rounds else fields.length)
    return _first_match(forms, data, at + 4, opcode, fields)


@lru_cache(4096)
def _legacy_forms(map_: int, opcode: int, operand_16: int, repeat: int, w: int) -> tuple[Form, ...]:
    def fits(form: Form) -> bool:
        encoding = form.encoding
        if encoding.w != w:
            return False
        if encoding.prefix > 1:
            return encoding.prefix == repeat and encoding.both == operand_16
        if repeat and not (repeat == 2 and "rep" in form.traits):
            return False
        return encoding.prefix == operand_16

    return tuple(form for form in forms_at(LEGACY, map_, opcode) if fits(form))


@lru_cache(4096)
def _vector_forms(layout: str, map_: int, opcode: int, prefix: int, w: int, length: int) -> tuple[Form, ...]:
    """The forms with these prefix fields; length 4 stands for any that takes rounding instead."""
    return tuple(
        form
        for form in forms_at(layout, map_, opcode)
        if form.encoding.prefix == prefix
        and form.encoding.w in (None, w)
        and (form.rounding if length == 4 else form.encoding.length in (None, length))
    )


def _first_match(forms: tuple[Form, ...], data: bytes, at: int, opcode: int, fields: _Fields) -> Instruction:
    for form in forms:
        try:
            return _match(form, data, at, opcode, fields)
        except _Mismatch:
            continue
    raise _Mismatch


def _match(form: Form, data: bytes, at: int, opcode: int, fields: _Fields) -> Instruction:
    encoding = form.encoding
    modrm = -1
    if encoding.fixed_modrm is not None:
        if data[at] != encoding.fixed_modrm:
            raise _Mismatch
        at += 1
    elif encoding.reg_field is not None:
        modrm = data[at]
        at += 1
        if encoding.reg_field >= 0 and (modrm >> 3 & 7) != encoding.reg_field:
            raise _Mismatch
        if form.rm < 0 and modrm & 0xC7 != 0xC0:
            raise _Mismatch
    in_memory = 0 <= modrm < 0xC0
    memory, operands = None, []
    used_vvvv = used_b = used_r = False
    if in_memory:
        if form.rm < 0 or form.operands[form.rm].memory_bytes is None:
            raise _Mismatch
        memory, at = _memory(form, form.operands[form.rm], data, at, modrm, fields)
    for operand in form.operands:
        place = operand.place
        if place == "rm":
            if memory is not None:
                operands.append(memory)
                continue
            extra = (
                (fields.x << 1 if operand.register in ("xmm", "ymm", "zmm") else 0)
                if encoding.layout == EVEX
                else 0
            )
            operands.append(_register(operand, (modrm & 7) + fields.b + extra, fields))
            used_b = True
        elif place == "reg":
            operands.append(_register(operand, (modrm >> 3 & 7) + fields.r, fields))
            used_r = True
        elif place == "vvvv":
            operands.append(_register(operand, fields.vvvv + fields.x4, fields))
            used_vvvv = True
        elif place == "opcode":
            number = (opcode & 7) + fields.b
            if "not_eax" in form.traits and number == 0:
                raise _Mismatch
            operands.append(_register(operand, number, fields))
            used_b = True
        elif place == "is4":
            if data[at] & 15:
                raise _Mismatch
            operands.append(_register(operand, data[at] >> 4, fields))
        elif place == "imm":
            size = encoding.immediate_bytes
            if at + size > len(data):
                raise IndexError
            signed = operand.immediate[0] not in _UNSIGNED
            operands.append(int.from_bytes(data[at : at + size], "little", signed=signed))
        elif operand.register:
            operands.append(REGISTERS[operand.register])
        else:
            operands.append(1)
    at += encoding.immediate_bytes
    if (fields.vvvv and not used_vvvv) or (
        fields.x4 and not used_vvvv and (memory is None or memory.index is None)
    ):
        raise _Mismatch
    if (not used_r and fields.r) or (not in_memory and (fields.b and not used_b)):
        raise _Mismatch
    if fields.x and not in_memory and encoding.layout != EVEX:
        raise _Mismatch
    if not in_memory and encoding.layout == EVEX and fields.x and _is_scalar_register(form.operands[form.rm]):
        raise _Mismatch
    prefixes = _prefixes(form, in_memory, fields)
    mask, zeroing, rounding = _decorations(form, in_memory, fields)
    return Instruction(form, tuple(operands), data[:at], mask, zeroing, rounding, prefixes)


def _is_scalar_register(operand: Operand) -> bool:
    return operand.register not in ("xmm", "ymm", "zmm")


def _register(operand: Operand, number: int, fields: _Fields) -> Register:
    kind = operand.register
    if not kind:
        raise _Mismatch
    if kind == "r8" and not fields.rex and 4 <= number < 8:
        return _HIGH_BYTES[number - 4]
    file = _FILES[kind]
    if number >= len(file):
        raise _Mismatch
    return file[number]


def _prefixes(form: Form, in_memory: bool, fields: _Fields) -> tuple[str, ...]:
    prefixes: tuple[str, ...] = ()
    if fields.lock:
        if "lock" not in form.traits or not in_memory or form.rm != 0:
            raise _Mismatch
        prefixes = ("lock",)
    if fields.repeat and form.encoding.prefix < 2:
        prefixes += ("rep",)
    needed = form.encoding.both or form.encoding.prefix == 1
    if form.encoding.layout == LEGACY and fields.operand_16 > needed:
        if form.mnemonic != "nop":
            raise _Mismatch
        prefixes += ("data16",) * (fields.operand_16 - needed)
    if fields.segment and not in_memory:
        raise _Mismatch
    return prefixes


def _decorations(form: Form, in_memory: bool, fields: _Fields) -> tuple[Register | None, bool, str]:
    if form.encoding.layout != EVEX:
        return None, False, ""
    mask = k[fields.mask] if fields.mask else None
    if (mask is not None and not form.masking) or (mask is None and (fields.zeroing or form.masking == "k!")):
        raise _Mismatch
    if fields.zeroing and (form.masking != "kz" or (in_memory and form.rm == 0)):
        raise _Mismatch
    rounding = ""
    if fields.broadcast and not in_memory:
        rounding = "sae" if form.rounding == "sae" else _ROUNDING_NAMES[fields.length]
        if form.rounding == "sae" and fields.length:
            raise _Mismatch
    return mask, fields.zeroing, rounding


def _memory(
    form: Form, operand: Operand, data: bytes, at: int, modrm: int, fields: _Fields
) -> tuple[Memory, int]:
    """The operand in memory, and where the bytes after its displacement start."""
    mode, low = modrm >> 6, modrm & 7
    base: Register | None = None
    index: Register | None = None
    scale = 1
    size = 0 if mode == 0 else 1 if mode == 1 else 4
    if low == 4:
        sib = data[at]
        at += 1
        scale = 1 << (sib >> 6)
        number = (sib >> 3 & 7) + fields.x
        if operand.vector_index:
            index = _FILES[operand.vector_index + "mm"][number + fields.x4]
        elif number != 4:
            index = gpr[64][number]
        elif scale != 1:
            raise _Mismatch
        low = sib & 7
        if low == 5 and mode == 0:
            size = 4
        else:
            base = gpr[64][low + fields.b]
    elif operand.vector_index or operand.force_sib:
        raise _Mismatch
    elif low == 5 and mode == 0:
        base, size = rip, 4
    else:
        base = gpr[64][low + fields.b]
    if at + size > len(data):
        raise IndexError
    disp = int.from_bytes(data[at : at + size], "little", signed=True)
    size_bytes, broadcast = operand.memory_bytes, False
    unit = 1
    if form.encoding.layout == EVEX:
        unit = form.encoding.disp_unit or size_bytes
        if fields.broadcast:
            unit = operand.broadcast_bytes
            if not unit:
                raise _Mismatch
            broadcast, size_bytes = size_bytes // unit, unit
    if size == 1:
        disp *= unit
    return Memory(base, index, scale, disp, size_bytes, broadcast, fields.segment), at + size
