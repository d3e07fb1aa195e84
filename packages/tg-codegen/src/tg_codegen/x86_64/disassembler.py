"""Bytes to assembly text that gives the same bytes again."""

from __future__ import annotations

from collections.abc import Iterator

from tg_codegen.errors import AssemblerError, DecodeError
from tg_codegen.x86_64.decode import decode
from tg_codegen.x86_64.encode import Instruction, Isa, isa
from tg_codegen.x86_64.text import parse_instruction

__all__ = ["decode_all", "disassemble"]


def decode_all(code: bytes) -> Iterator[tuple[int, Instruction | None]]:
    """(offset, instruction) from first to last; None stands for one byte that starts no instruction."""
    offset = 0
    while offset < len(code):
        try:
            instruction = decode(code, offset)
        except DecodeError:
            yield offset, None
            offset += 1
            continue
        yield offset, instruction
        offset += instruction.size_bytes


def disassemble(code: bytes, instructions: Isa | None = None) -> list[str]:
    """One line an instruction or label. What no text would assemble to is written as data, with what it means."""
    instructions = instructions or isa()
    decoded = list(decode_all(code))
    starts = {offset for offset, _ in decoded} | {len(code)}
    targets = {}
    for offset, instruction in decoded:
        if (target := _branch_target(offset, instruction)) in starts:
            targets[target] = f".L{target:x}"
    lines = []
    for offset, instruction in decoded:
        if offset in targets:
            lines.append(targets[offset] + ":")
        if instruction is None:
            lines.append(f".byte 0x{code[offset]:02x}")
            continue
        text = str(instruction)
        if not _assembles_to(text, instruction, instructions):
            text = ".byte " + ", ".join(f"0x{byte:02x}" for byte in instruction.code) + f"  # {text}"
        elif (target := _branch_target(offset, instruction)) in targets:
            text = f"{instruction.form.mnemonic} {targets[target]}"
        lines.append(text)
    if len(code) in targets:
        lines.append(targets[len(code)] + ":")
    return lines


def _branch_target(offset: int, instruction: Instruction | None) -> int:
    if (
        instruction is None
        or not instruction.form.operands
        or not instruction.form.operands[0].text.startswith("rel")
    ):
        return -1
    return offset + instruction.size_bytes + instruction.operands[0]


def _assembles_to(text: str, instruction: Instruction, instructions: Isa) -> bool:
    try:
        return parse_instruction(text, instructions).code == instruction.code
    except AssemblerError:
        return False
