"""Assembly text to bytes: statements, labels, directives, and what `.amdhsa_kernel` says.

One pass over the lines; what names a label not yet seen is patched at the end. The result is the code with its
labels, kernels and metadata as plain structures, from which `python -m tg_codegen.assemble` makes a code object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tg_codegen.amdgpu.expressions import evaluate, symbols_of
from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.isa import Isa
from tg_codegen.amdgpu.metadata_text import parse_metadata
from tg_codegen.amdgpu.slots import ImmediateSlot
from tg_codegen.amdgpu.statements import split_operands
from tg_codegen.errors import AssemblerError
from tg_ir.errors import ParseError, TgError

__all__ = ["AssembledKernel", "Assembly", "assemble"]


@dataclass(slots=True)
class AssembledKernel:
    """What an .amdhsa_kernel block says; `directives` are its .amdhsa_ names without the prefix."""

    name: str
    directives: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Assembly:
    """Code with what the text says about it. `labels` are offsets into the code."""

    code: bytes
    labels: dict[str, int]
    symbols: dict[str, int]
    kernels: list[AssembledKernel]
    metadata: Any
    target: str | None
    version: int | None


_words = str.split
_IGNORED = frozenset(
    _words(
        ".globl .global .type .size .weak .hidden .protected .local .ident .file .loc .addrsig .addrsig_sym "
        ".amdgcn_target_id .internal .cfi_sections .cfi_startproc .cfi_endproc .cfi_escape .cfi_undefined "
        ".cfi_def_cfa .cfi_offset .hsa_code_object_version .altmacro .amdgpu_hsa_kernel .comm "
    )
)
_DATA = {
    ".byte": 1,
    ".short": 2,
    ".2byte": 2,
    ".hword": 2,
    ".long": 4,
    ".int": 4,
    ".4byte": 4,
    ".word": 4,
    ".quad": 8,
    ".8byte": 8,
}
_LABEL = re.compile(r"([A-Za-z_.$][\w.$@]*|\d+):(?!:)\s*")
_ASSIGNMENT = re.compile(r"([A-Za-z_.$][\w.$]*)\s*=(?!=)\s*(.+)$")
_COMMENT = re.compile(r'//.*|;.*|/\*.*?\*/|"(?:[^"\\]|\\.)*"')
_NOP = b"\x00\x00\x80\xbf"


class _Assembler:
    def __init__(self, isa: Isa):
        self.isa = isa
        self.code = bytearray()
        self.labels: dict[str, int] = {}
        self.symbols: dict[str, int] = {}
        self.fixups: list[tuple[int, Instruction, int, str, int, str]] = []
        self.kernels: list[AssembledKernel] = []
        self.pending: list[tuple[AssembledKernel, str, str, int]] = []
        self.kernel: AssembledKernel | None = None
        self.metadata: Any = None
        self.target: str | None = None
        self.version: int | None = None
        self.in_text, self.line = True, 0

    def run(self, text: str) -> Assembly:
        lines = text.split("\n")
        assemble_line, code = self.isa.assemble_line, self.code
        number = 0
        while number < len(lines):
            line = lines[number]
            number += 1
            if ";" in line or "/" in line:
                line = _COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else " ", line)
            statement = line.strip()
            if not statement:
                continue
            self.line = number
            try:
                if statement[0] not in ".vsdbgft" or ":" in statement or "=" in statement:
                    statement = self.take_labels(statement)
                    if not statement:
                        continue
                if statement[0] == ".":
                    if statement.startswith(".amdgpu_metadata"):
                        number = self.take_metadata(lines, number)
                    else:
                        self.directive(statement)
                    continue
                if not self.in_text:
                    raise AssemblerError(f"{statement.split()[0]}: an instruction outside .text")
                try:
                    instruction = assemble_line(statement)
                except AssemblerError as error:
                    instruction = self.symbolic(statement, error)
                code += (instruction.bits & ((1 << instruction.size_bytes * 8) - 1)).to_bytes(
                    instruction.size_bytes, "little"
                )
            except ParseError:
                raise
            except TgError as error:
                raise ParseError(
                    str(error), number, self.column(lines[number - 1], statement, error)
                ) from error
        self.finish(lines)
        return Assembly(
            bytes(code), self.labels, self.symbols, self.kernels, self.metadata, self.target, self.version
        )

    @staticmethod
    def column(line: str, statement: str, error: TgError) -> int:
        """Where the operand stands that an error is about."""
        start = max(line.find(statement), 0)
        operand = getattr(error, "operand", None)
        if operand is None:
            return start + 1
        mnemonic, _, rest = statement.partition(" ")
        operands, modifiers = split_operands(rest.strip())
        if operand >= len(operands):
            return start + 1 + (statement.rfind(modifiers) if modifiers else len(mnemonic))
        at = len(mnemonic)
        for text in operands[: operand + 1]:
            at = statement.find(text, at)
        return start + at + 1

    def take_labels(self, statement: str) -> str:
        while match := _LABEL.match(statement):
            if match[1] in self.labels and not match[1].isdigit():
                raise AssemblerError(f"{match[1]}: this label is already defined")
            if self.in_text:
                self.labels[match[1]] = len(self.code)
            statement = statement[match.end() :]
        if match := _ASSIGNMENT.match(statement):
            self.symbols[match[1]] = self.value(match[2])
            return ""
        return statement

    def value(self, text: str) -> int:
        return evaluate(text, {**self.labels, **self.symbols, ".": len(self.code)})

    def symbolic(self, statement: str, error: AssemblerError) -> Instruction:
        """An instruction with symbols: known ones are replaced, a label becomes a fixup."""
        mnemonic, _, rest = statement.partition(" ")
        rest = re.sub(r"\s*(<<|>>|[-+*/&^])\s*(?=[\w.$(])(?<!,)", r"\1", rest)
        rows = self.isa.rows(mnemonic)
        operands, modifiers = split_operands(rest.strip())
        known = {**self.symbols}
        for index, text in enumerate(operands):
            symbols = symbols_of(text)
            if not symbols or not rows or index >= len(rows[0].operands):
                continue
            slot = next((r.operands[index] for r in rows if len(r.operands) == len(operands)), None)
            branch = isinstance(slot, ImmediateSlot) and slot.kind == "branch"
            if all(s in known for s in symbols) and not branch:
                operands[index] = str(evaluate(text, known))
            elif branch or (
                getattr(slot, "literal_shift", 0)
                and all(
                    s in self.labels or s == "." or s in known or "." in s or s[0] == "L" for s in symbols
                )
            ):
                placed = operands.copy()
                placed[index] = "0" if branch else "0x12345678"
                instruction = self.isa.assemble_line(f"{mnemonic} {', '.join(placed)} {modifiers}".strip())
                self.fixups.append((len(self.code), instruction, index, text, self.line, statement))
                return instruction
        again = re.sub(
            r"(?<=:)[A-Za-z_.$][\w.$]*", lambda m: str(known[m[0]]) if m[0] in known else m[0], modifiers
        )
        changed = f"{mnemonic} {', '.join(operands)} {again}".strip()
        if changed == statement:
            raise error
        return self.isa.assemble_line(changed)

    def finish(self, lines: list[str]) -> None:
        for offset, instruction, index, text, line, statement in self.fixups:
            try:
                slot = instruction.row.operands[index]
                value = evaluate(text, {**self.labels, **self.symbols, ".": offset})
                if isinstance(slot, ImmediateSlot):
                    distance = value - offset - 4
                    if distance % 4 or not -0x8000 <= distance // 4 < 0x8000:
                        raise AssemblerError(
                            f"{instruction.row.name}: {text} is {distance} bytes away, want at most 131072, by 4",
                            index,
                        )
                    self.code[offset : offset + 2] = (distance // 4 & 0xFFFF).to_bytes(2, "little")
                else:
                    self.code[offset + instruction.size_bytes - 4 : offset + instruction.size_bytes] = (
                        value & 0xFFFFFFFF
                    ).to_bytes(4, "little")
            except AssemblerError as error:
                error.operand = index
                raise ParseError(str(error), line, self.column(lines[line - 1], statement, error)) from error
        for kernel, name, text, line in self.pending:
            try:
                kernel.directives[name] = evaluate(text, {**self.labels, **self.symbols})
            except AssemblerError as error:
                raise ParseError(f".amdhsa_{name}: {error}", line, 1) from error

    def take_metadata(self, lines: list[str], start: int) -> int:
        for end in range(start, len(lines)):
            if lines[end].strip() == ".end_amdgpu_metadata":
                self.metadata = parse_metadata(lines[start:end], start + 1)
                return end + 1
        raise AssemblerError(".amdgpu_metadata: no .end_amdgpu_metadata follows")

    def directive(self, statement: str) -> None:
        name, *rest = statement.split(None, 1)
        arguments = rest[0].strip() if rest else ""
        if self.kernel is not None:
            if name == ".end_amdhsa_kernel":
                self.kernel = None
            elif name.startswith(".amdhsa_"):
                self.pending.append((self.kernel, name[8:], arguments, self.line))
            elif name != ".p2align":
                raise AssemblerError(f"{name}: inside .amdhsa_kernel only .amdhsa_ directives stand")
        elif name == ".amdhsa_kernel":
            self.kernel = AssembledKernel(arguments)
            self.kernels.append(self.kernel)
        elif name == ".amdgcn_target":
            self.target = arguments.strip('"')
        elif name == ".amdhsa_code_object_version":
            self.version = self.value(arguments)
        elif name == ".text":
            self.in_text = True
        elif name in (".section", ".rodata", ".data", ".bss"):
            self.in_text = name == ".section" and arguments.split(",")[0].strip().startswith(".text")
        elif name in (".set", ".equ", ".equiv"):
            symbol, _, expression = arguments.partition(",")
            if not expression:
                raise AssemblerError(f"{name}: want a symbol and a value")
            self.symbols[symbol.strip()] = self.value(expression)
        elif name in (".p2align", ".align", ".balign"):
            self.align(name, arguments)
        elif not self.in_text and (
            name in _DATA or name in (".fill", ".zero", ".skip", ".ascii", ".asciz", ".string")
        ):
            pass
        elif name in _DATA:
            for text in arguments.split(","):
                self.code += (self.value(text) & ((1 << 8 * _DATA[name]) - 1)).to_bytes(_DATA[name], "little")
        elif name in (".fill", ".zero", ".skip", ".space"):
            values = [self.value(t) for t in arguments.split(",")]
            count, size, fill = (
                (values + [1, 0])[:3] if name == ".fill" and len(values) < 3 else (values + [0, 0])[:3]
            )
            size, fill = (size, fill) if name == ".fill" else (1, size)
            if not 0 <= count * size <= 1 << 24 or not 0 <= size <= 8:
                raise AssemblerError(
                    f"{name}: got {count} units of {size} bytes, want at most 16 MiB of units up to 8"
                )
            self.code += (fill & ((1 << 8 * size) - 1)).to_bytes(size, "little") * count
        elif name not in _IGNORED and not name.startswith((".cfi_", ".debug")):
            raise AssemblerError(f"{name}: no such directive")

    def align(self, name: str, arguments: str) -> None:
        parts = [p.strip() for p in arguments.split(",")]
        value = self.value(parts[0])
        if not 0 <= value <= (16 if name == ".p2align" else 1 << 16):
            raise AssemblerError(f"{name}: got {value}, want an alignment up to 65536 bytes")
        size = 1 << value if name == ".p2align" else max(value, 1)
        missing = -len(self.code) % size if self.in_text else 0
        if len(parts) > 1 and parts[1]:
            self.code += bytes([self.value(parts[1]) & 255]) * missing
        else:
            self.code += bytes(missing % 4) + _NOP * (missing // 4)


def assemble(text: str, isa: Isa) -> Assembly:
    """Assemble a text. Raises: ParseError with line and column."""
    return _Assembler(isa).run(text)
