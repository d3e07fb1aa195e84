"""A row of the instruction set, and an instruction as a row with its bits."""

from __future__ import annotations

from tg_codegen.amdgpu.formats import Format
from tg_codegen.amdgpu.operands import LITERAL, Register
from tg_codegen.amdgpu.slots import LITERAL_SCALAR, ModifierSlot, Slot

__all__ = ["Instruction", "Row"]


class Row:
    """One encoding of a mnemonic: everything that assembler, verifier, allocator and emulator need to know.

    `operands` are the slots in the order of the text; `writes` and `reads` the implicit registers; `flags` letters:
    l loads, s stores, v/k/e vector-memory, LDS-or-scalar-memory and export counters, r/n atomic with/without return,
    b branch, t ends a block, j no way past it, x other effects, q transcendental. `latency` is LLVM's class.
    """

    __slots__ = (
        "banks", "base", "bus_limit", "checks", "dual", "flags", "format", "free", "imm", "latency",
        "literals", "mask", "mnemonic", "modifiers", "name", "opcode", "operands", "reads", "scalars",
        "size_bytes", "text_spec", "wave", "whole", "writes",
    )  # fmt: skip

    mnemonic: str
    name: str
    format: Format
    operands: tuple[Slot, ...]
    modifiers: ModifierSlot | None
    mask: int
    base: int

    def encode(self, operands: list[str], modifiers: str) -> tuple[int, int] | int:
        """(bits, size in bytes), or the index of the first operand that does not fit (-1: the modifiers)."""
        bits, literal, scalars = self.free, 0, [*self.scalars]
        for slot, text in zip(self.operands, operands, strict=True):
            found = slot.encode(text)
            if found is None:
                return self.operands.index(slot)
            value, scalar = found
            bits |= value
            if scalar:
                if scalar >= LITERAL_SCALAR:
                    if literal and (literal ^ scalar) & 0xFFFFFFFF:
                        return self.operands.index(slot)
                    literal = scalar
                scalars.append(scalar)
        if self.modifiers is not None:
            found = self.modifiers.encode(modifiers)
            if found is None:
                return -1
            bits |= found[0]
        elif modifiers:
            return -1
        if bits & self.mask != self.base:
            return -1
        if len(scalars) > self.bus_limit and len(set(scalars)) > self.bus_limit:
            return len(operands)
        for check in self.checks:
            check(self, bits, operands)
        return bits, self.size_bytes + (4 if literal and not self.imm else 0)

    def accepts(self, bits: int) -> int:
        """The size in bytes when the bits are a valid instance of this row, else 0."""
        size = self.size_bytes
        for slot in self.literals:
            if slot.field.extract(bits) == LITERAL:
                size = self.size_bytes + (0 if self.imm else 4)
                break
        for slot in self.operands:
            if slot.text(bits) is None:
                return 0
        if self.modifiers is not None and self.modifiers.text(bits) is None:
            return 0
        return size

    def text(self, bits: int) -> str:
        texts = [slot.text(bits) for slot in self.operands]
        if self.dual:
            x, _, y = self.name.partition(" :: ")
            return f"{x} {', '.join(texts[: self.dual])} :: {y} {', '.join(texts[self.dual :])}"
        if self.mnemonic == "s_endpgm" and texts == ["0"]:
            return self.name
        name = f"{self.name} {', '.join(texts)}" if texts else self.name
        return name + self.modifiers.text(bits) if self.modifiers is not None else name


class Instruction:
    """A row and its bits. The text is `str(instruction)`."""

    __slots__ = ("bits", "row", "size_bytes")

    def __init__(self, row: Row, bits: int, size_bytes: int):
        self.row, self.bits, self.size_bytes = row, bits, size_bytes

    def __bytes__(self) -> bytes:
        return (self.bits & ((1 << self.size_bytes * 8) - 1)).to_bytes(self.size_bytes, "little")

    encode = __bytes__

    def __str__(self) -> str:
        return self.row.text(self.bits)

    def __repr__(self) -> str:
        return f"<{self} : {bytes(self).hex()}>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Instruction)
            and bytes(self) == bytes(other)
            and self.row.mnemonic == other.row.mnemonic
        )

    def __hash__(self) -> int:
        return hash(self.bits)

    def __getattr__(self, name: str) -> Register | int | str:
        for slot in self.row.operands:
            if slot.name == name:
                return slot.value(self.bits)
        raise AttributeError(f"{self.row.name} has no operand {name}")
