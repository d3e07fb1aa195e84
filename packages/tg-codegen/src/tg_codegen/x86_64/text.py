"""Instructions as text, in Intel syntax as LLVM writes it, and back.

`vaddps zmm0 {k1} {z}, zmm1, dword ptr [rax + 4*rcx - 64]{1to16}`, `lock xadd dword ptr [rax], ecx`. A prefix
`{vex}` or `{evex}` asks for a layout. A branch takes a label or, as LLVM prints it, the distance from its end.
"""

from __future__ import annotations

import re
from functools import cache

from tg_codegen.errors import AssemblerError
from tg_codegen.x86_64.encode import ROUNDINGS, AnyOperand, Instruction, Isa
from tg_codegen.x86_64.formats import EVEX, VEX
from tg_codegen.x86_64.opcodes import forms
from tg_codegen.x86_64.registers import REGISTERS, SIZE_NAMES, Memory, Register, rip

__all__ = ["instruction_text", "parse_instruction"]

_NAMES = (
    "eq lt le unord neq nlt nle ord eq_uq nge ngt false neq_oq ge gt true "
    "eq_os lt_oq le_oq unord_s neq_us nlt_uq nle_uq ord_s eq_us nge_uq ngt_uq false_os neq_os ge_oq gt_oq true_us"
)
_FLOAT_PREDICATES = _NAMES.split()
_INTEGER_PREDICATES = ("eq", "lt", "le", "", "neq", "nlt", "nle", "")
_SAME_CONDITION = "z:e nz:ne c:b nc:ae nae:b nb:ae na:be nbe:a pe:p po:np nge:l nl:ge ng:le nle:g"
_CONDITION_ALIASES = dict(pair.split(":") for pair in _SAME_CONDITION.split())
_COMPARISON = re.compile(r"v(p?)cmp([a-z_]+?)(ps|pd|ph|ss|sd|sh|u?[bwdq])")
_SIZES = {name: size for size, name in SIZE_NAMES.items()}
_MARK = re.compile(r"\s*\{\s*([\w-]+)\s*\}")
_TERM = re.compile(r"\s*([+-]?)\s*(?:(\d+)\s*\*\s*(\w+)|(\w+)\s*\*\s*(\d+)|([\w.$]+))\s*")
_LABEL = re.compile(r"[A-Za-z_.$][\w.$]*")


def instruction_text(instruction: Instruction) -> str:
    """The text of an instruction, which assembles to the same bytes unless these are a longer way to write it."""
    form = instruction.form
    words = [*instruction.prefixes]
    if "explicit" in form.traits or (form.encoding.layout == EVEX and _needs_evex(instruction)):
        words.append(f"{{{form.encoding.layout}}}")
    mnemonic = form.mnemonic
    parts = []
    for operand, value in zip(form.operands, instruction.operands, strict=True):
        if operand.immediate:
            if value.__class__ is int:
                if operand.text == "1":
                    continue
                value = _shown(operand.immediate[0], value, form.width)
            if "compare" in form.traits and (name := _compare_name(mnemonic, value)):
                mnemonic = name
                continue
            text = str(value)
        elif isinstance(value, Memory):
            text = _memory_text(value, operand.memory_bytes, operand.broadcast_bytes)
        else:
            text = value.name
        if operand.masking and instruction.mask is not None:
            text += f" {{{instruction.mask}}}" + " {z}" * instruction.zeroing
        parts.append(text)
        if operand.rounding and instruction.rounding:
            parts.append(f"{{{instruction.rounding}}}")
    words.append(mnemonic)
    return " ".join(words) + (" " + ", ".join(parts) if parts else "")


def _memory_text(value: Memory, memory_bytes: int, broadcast_bytes: int) -> str:
    size = broadcast_bytes if value.broadcast else memory_bytes
    text = f"{SIZE_NAMES[size]} ptr " if size else ""
    text += value.address_text()
    return text + (f"{{1to{memory_bytes // broadcast_bytes}}}" if value.broadcast else "")


def _shown(kind: str, value: int, width: int) -> int:
    if kind == "u8":
        return value & 0xFF
    if kind in ("imm16", "imm32"):
        return value & (0xFFFF if kind == "imm16" else 0xFFFFFFFF)
    bits = {"imm8": 8, "imm16s": 16, "imm64": 64}.get(kind, width)
    return value - (1 << bits) if bits and value >= 1 << bits - 1 else value


def _needs_evex(instruction: Instruction) -> bool:
    """Whether the assembler would take a VEX form for this text."""
    if instruction.mask is not None or instruction.rounding:
        return False
    if any(isinstance(value, Memory) and value.broadcast for value in instruction.operands):
        return False
    kinds = tuple("i" if v.__class__ is int else v.kind for v in instruction.operands)
    return _has_vex(instruction.form.mnemonic, kinds)


@cache
def _has_vex(mnemonic: str, kinds: tuple[str, ...]) -> bool:
    return any(
        form.encoding.layout == VEX
        and "explicit" not in form.traits
        and len(form.operands) == len(kinds)
        and all(kind in operand.accepts for operand, kind in zip(form.operands, kinds, strict=True))
        for form in forms(mnemonic)
    )


def _compare_name(mnemonic: str, predicate: int) -> str:
    """vcmpps with 1 -> vcmpltps; empty where there is no name, or where it is a mnemonic of its own."""
    integer = mnemonic.startswith("vpcmp")
    stem, kind = ("vpcmp", mnemonic[5:]) if integer else ("vcmp", mnemonic[4:])
    names = _INTEGER_PREDICATES if integer else _FLOAT_PREDICATES
    name = names[predicate] if predicate < len(names) else ""
    made = f"{stem}{name}{kind}"
    return made if name and not forms(made) else ""


# Parsing


def parse_instruction(text: str, isa: Isa) -> Instruction:
    """The instruction that one line of text means, without label or comment. Raises: AssemblerError."""
    prefix = encoding = ""
    rest = text.strip()
    while True:
        word, _, after = rest.partition(" ")
        if word in ("lock", "rep"):
            prefix, rest = word, after.strip()
        elif word in ("{vex}", "{evex}"):
            encoding, rest = word[1:-1], after.strip()
        elif word == "data16":
            return _with_data16(parse_instruction(after, isa))
        else:
            break
    mnemonic = word
    mask: Register | None = None
    zeroing, rounding = False, ""
    operands: list[AnyOperand] = []
    for piece in after.split(",") if after.strip() else ():
        piece = piece.strip()
        marks = _MARK.findall(piece)
        broadcast = 0
        for mark in marks:
            if mark == "z":
                zeroing = True
            elif mark.startswith("1to") and mark[3:].isdigit():
                broadcast = int(mark[3:])
            elif mark in ROUNDINGS:
                rounding = mark
            elif mark in REGISTERS:
                mask = REGISTERS[mark]
            else:
                raise AssemblerError(
                    f"{mnemonic}: got {{{mark}}}, want a mask, {{z}}, {{1toN}} or a rounding mode"
                )
        body = _MARK.sub("", piece).strip() if marks else piece
        if body:
            operands.append(_parse_operand(body, broadcast))
        elif rounding == "":
            raise AssemblerError(f"{mnemonic}: operand {len(operands)} is empty")
    mnemonic, extra = _resolve_alias(mnemonic, len(operands))
    operands += extra
    special = {"mask": mask, "zeroing": zeroing, "rounding": rounding, "encoding": encoding, "prefix": prefix}
    return isa.build(mnemonic, *operands, **{name: value for name, value in special.items() if value})


def _with_data16(inner: Instruction) -> Instruction:
    if inner.form.mnemonic != "nop":
        raise AssemblerError(f"data16: got {inner.form.mnemonic}, want nop")
    return Instruction(inner.form, inner.operands, b"\x66" + inner.code, prefixes=("data16", *inner.prefixes))


@cache
def _resolve_alias(mnemonic: str, count: int) -> tuple[str, tuple[int, ...]]:
    """The mnemonic of the tables that a name means, and operands to add to it."""
    known = forms(mnemonic)
    if known:
        # `shl eax` shifts by one
        shifts = count == 1 and known[0].operands and known[0].operands[-1].text == "1"
        return mnemonic, (1,) if shifts else ()
    for stem in ("j", "set", "cmov"):
        condition = _CONDITION_ALIASES.get(mnemonic.removeprefix(stem))
        if mnemonic.startswith(stem) and condition:
            return stem + condition, ()
    if match := _COMPARISON.fullmatch(mnemonic):
        integer, name, kind = match.groups()
        names = list(_INTEGER_PREDICATES if integer else _FLOAT_PREDICATES)
        if name in names and forms(f"v{integer}cmp{kind}"):
            return f"v{integer}cmp{kind}", (names.index(name),)
    return ("shl" if mnemonic == "sal" else mnemonic), ()


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _parse_operand(text: str, broadcast: int) -> AnyOperand:
    if register := REGISTERS.get(text):
        return register
    number = _number(text)
    if number is not None:
        return number
    if text.endswith("]"):
        head, _, address = text.partition("[")
        size_name, _, tail = head.partition(" ptr")
        segment = (tail if tail else "" if " ptr" in head else head).strip().removesuffix(":")
        size_name = size_name.strip() if " ptr" in head else ""
        if size_name and size_name not in _SIZES:
            raise AssemblerError(f"memory: got {size_name} ptr, want one of {', '.join(_SIZES)}")
        return _parse_address(address[:-1], _SIZES.get(size_name, 0), broadcast, segment)
    if _LABEL.fullmatch(text):
        return text
    raise AssemblerError(f"operand: got {text!r}, want a register, a number, a label or memory in brackets")


def _parse_address(text: str, size_bytes: int, broadcast: int, segment: str) -> Memory:
    base: Register | None = None
    index: Register | None = None
    scale, disp, label, at = 1, 0, "", 0
    while at < len(text):
        match = _TERM.match(text, at)
        if not match or (at and not match[1]):
            raise AssemblerError(
                f"memory: got {text[at:]!r} in [{text}], want + or - and a register or number"
            )
        at = match.end()
        sign, before, scaled, scaled_first, factor, plain = match.groups()
        name = scaled or scaled_first or plain
        register = rip if name == "rip" else REGISTERS.get(name)
        number = _number(name) if register is None else None
        if register is not None and sign == "-":
            raise AssemblerError(f"memory: got -{name} in [{text}], want a register added")
        if not plain:
            if register is None or index is not None:
                raise AssemblerError(f"memory: got {name} in [{text}], want one scaled index register")
            index, scale = register, int(before or factor)
        elif number is not None:
            disp += -number if sign == "-" else number
        elif register is None:
            label = name
        elif base is None and not register.is_vector:
            base = register
        elif index is None:
            index = register
        else:
            raise AssemblerError(f"memory: got a third register {name} in [{text}]")
    if label and base is rip:
        base = None
    return Memory(base, index, scale, disp, size_bytes, broadcast, segment, label)
