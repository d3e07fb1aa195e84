"""Text or built instructions to code: labels, data, alignment, and branches of the shortest form.

A branch starts short and grows when its label is out of reach; growing moves labels apart only, so repeating this
until nothing grows ends, and an alignment between can only make a branch longer than it had to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from tg_codegen.errors import AssemblerError
from tg_codegen.x86_64.encode import Instruction, Isa, Template, isa
from tg_codegen.x86_64.opcodes import forms
from tg_codegen.x86_64.registers import Memory
from tg_codegen.x86_64.text import parse_instruction
from tg_ir.errors import ParseError, TgError

__all__ = ["Assembly", "Program", "assemble", "long_nops"]

# Source: Intel SDM volume 2, NOP, "Recommended Multi-Byte Sequence of NOP Instruction".
_NOPS = tuple(
    bytes.fromhex(text)
    for text in (
        "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000",
        "0f1f840000000000", "660f1f840000000000",
    )
)  # fmt: skip
_DATA_BYTES = {".byte": 1, ".short": 2, ".word": 2, ".value": 2, ".long": 4, ".int": 4, ".quad": 8}
_IGNORED = (".text", ".globl", ".global", ".intel_syntax", ".type", ".size")


def long_nops(size_bytes: int) -> bytes:
    """As few instructions as fill this many bytes and do nothing."""
    whole, rest = divmod(size_bytes, len(_NOPS))
    return _NOPS[-1] * whole + (_NOPS[rest - 1] if rest else b"")


@dataclass(slots=True)
class Assembly:
    """Code and where its labels are."""

    code: bytes
    labels: dict[str, int]


@dataclass(slots=True)
class _Align:
    size_bytes: int


@dataclass(slots=True)
class _Branch:
    label: str
    sizes: list[tuple[bytes, int]]  # opcode and bytes of distance, the shortest first
    chosen: int = 0


@dataclass(slots=True)
class _Address:
    """Code with a rip-relative displacement at `place`, still without its label's distance."""

    code: bytes
    place: int
    label: str
    addend: int


@dataclass(slots=True)
class Program:
    """Code under construction. `labels` hold the place of an item until `finish` turns that into an offset."""

    items: list[bytes | _Align | _Branch | _Address] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        """Name the place that comes next. Raises: AssemblerError."""
        if name in self.labels:
            raise AssemblerError(f"label {name}: defined twice")
        self.labels[name] = len(self.items)

    def align(self, size_bytes: int) -> None:
        """Fill with long nops up to a multiple of a power of two. Raises: AssemblerError."""
        if size_bytes < 1 or size_bytes & size_bytes - 1:
            raise AssemblerError(f"align: got {size_bytes}, want a power of two")
        self.items.append(_Align(size_bytes))

    def data(self, data: bytes) -> None:
        self.items.append(data)

    def emit(self, instruction: Instruction) -> None:
        for operand in instruction.operands:
            if isinstance(operand, str):
                self.items.append(_Branch(operand, _branch_forms(instruction.form.mnemonic)))
                return
            if isinstance(operand, Memory) and operand.label:
                place = len(instruction.code) - instruction.form.encoding.immediate_bytes - 4
                self.items.append(_Address(instruction.code, place, operand.label, operand.disp))
                return
        self.items.append(instruction.code)

    def finish(self) -> Assembly:
        """The code, with every label resolved. Raises: AssemblerError."""
        for item in self.items:
            if isinstance(item, (_Branch, _Address)) and item.label not in self.labels:
                raise AssemblerError(f"label {item.label}: used but not defined")
        offsets = self._lay_out()
        while self._grow(offsets):
            offsets = self._lay_out()
        code = b"".join(self._bytes(i, item, offsets) for i, item in enumerate(self.items))
        return Assembly(code, {name: offsets[place] for name, place in self.labels.items()})

    def _lay_out(self) -> list[int]:
        at, offsets = 0, []
        for item in self.items:
            offsets.append(at)
            if isinstance(item, _Branch):
                opcode, distance = item.sizes[item.chosen]
                at += len(opcode) + distance
            elif isinstance(item, _Align):
                at += -at % item.size_bytes
            else:
                at += len(item.code if isinstance(item, _Address) else item)
        return [*offsets, at]

    def _grow(self, offsets: list[int]) -> bool:
        grown = False
        for i, item in enumerate(self.items):
            if isinstance(item, _Branch):
                distance = offsets[self.labels[item.label]] - offsets[i + 1]
                reach = 1 << 8 * item.sizes[item.chosen][1] - 1
                if not -reach <= distance < reach:
                    if item.chosen + 1 == len(item.sizes):
                        raise AssemblerError(
                            f"label {item.label}: {distance} bytes away, want {-reach}..{reach - 1}"
                        )
                    item.chosen += 1
                    grown = True
        return grown

    def _bytes(self, i: int, item: bytes | _Align | _Branch | _Address, offsets: list[int]) -> bytes:
        if isinstance(item, bytes):
            return item
        if isinstance(item, _Align):
            return long_nops(offsets[i + 1] - offsets[i])
        distance = offsets[self.labels[item.label]] - offsets[i + 1]
        if isinstance(item, _Branch):
            opcode, size = item.sizes[item.chosen]
            return opcode + distance.to_bytes(size, "little", signed=True)
        code, place = item.code, item.place
        return code[:place] + (distance + item.addend).to_bytes(4, "little", signed=True) + code[place + 4 :]


@cache
def _branch_forms(mnemonic: str) -> list[tuple[bytes, int]]:
    found = []
    for form in forms(mnemonic):
        if form.operands and form.operands[0].text in ("rel8", "rel32"):
            size = form.encoding.immediate_bytes
            found.append((Template(form, ("l",), ("imm",)).encode((mnemonic,))[:-size], size))
    return found


def assemble(text: str, instructions: Isa | None = None) -> Assembly:
    """Code of assembly text. Raises: tg_ir.errors.ParseError with the line."""
    instructions = instructions or isa()
    program = Program()
    for number, line in enumerate(text.split("\n"), 1):
        statement = line.partition("#")[0].strip()
        while (
            ":" in statement
            and (name := statement.partition(":")[0]).replace(".", "").replace("_", "").isalnum()
        ):
            if " " in name or "[" in statement.partition(":")[0]:
                break
            try:
                program.label(name)
            except TgError as error:
                raise ParseError(str(error), number, 1) from None
            statement = statement.partition(":")[2].strip()
        if not statement:
            continue
        statement = " ".join(statement.split())
        try:
            if statement[0] == ".":
                _directive(statement, program)
            else:
                program.emit(parse_instruction(statement, instructions))
        except TgError as error:
            raise ParseError(str(error), number, len(line) - len(line.lstrip()) + 1) from None
    return program.finish()


def _directive(statement: str, program: Program) -> None:
    name, _, rest = statement.partition(" ")
    words = [word.strip() for word in rest.split(",")]
    if name in _IGNORED:
        return
    try:
        numbers = [int(word, 0) for word in words]
    except ValueError:
        raise AssemblerError(f"{name}: got {rest!r}, want numbers") from None
    if name in _DATA_BYTES:
        size = _DATA_BYTES[name]
        for value in numbers:
            if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
                raise AssemblerError(f"{name}: got {value}, want a number of {size} bytes")
            program.data((value & (1 << 8 * size) - 1).to_bytes(size, "little"))
    elif name in (".align", ".balign"):
        program.align(numbers[0])
    elif name == ".p2align":
        program.align(1 << numbers[0])
    elif name in (".zero", ".skip", ".space"):
        program.data(bytes(numbers[0]))
    else:
        raise AssemblerError(
            f"{name}: no such directive, want {', '.join(_DATA_BYTES)}, .align, .p2align or .zero"
        )
