"""Bytes to assembly text that gives the same bytes again."""

from __future__ import annotations

from collections.abc import Iterator

from tg_codegen.amdgpu.isa import Instruction, Isa
from tg_codegen.errors import AssemblerError, DecodeError

__all__ = ["decode_all", "disassemble"]


def decode_all(code: bytes, isa: Isa) -> Iterator[tuple[int, Instruction | None]]:
    """(offset, instruction) from first to last; None stands for four bytes that are no instruction."""
    offset, end, decode = 0, len(code), isa.decode
    while offset < end:
        try:
            instruction = decode(code, offset)
        except DecodeError:
            yield offset, None
            offset += 4
            continue
        yield offset, instruction
        offset += instruction.size_bytes


def disassemble(code: bytes, isa: Isa) -> list[str]:
    """One line an instruction. What no text says (undefined words, bits that mean nothing) is written as data."""
    lines = []
    for offset, instruction in decode_all(code, isa):
        if instruction is None:
            word = code[offset : offset + 4]
            lines.append(
                f".long 0x{int.from_bytes(word, 'little'):x}"
                if len(word) == 4
                else ".byte " + ", ".join(map(str, word))
            )
            continue
        text = str(instruction)
        try:
            same = isa.assemble_line(text).bits == instruction.bits
        except AssemblerError:
            same = False
        if not same:
            raw = code[offset : offset + instruction.size_bytes]
            words = (int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4))
            text = ".long " + ", ".join(f"0x{w:x}" for w in words) + "  ; " + text
        lines.append(text)
    return lines
