"""Packets as rows of text: every dword names its bit fields, and one row both builds and decodes.

A row is `NAME opcode: word; word; ...`. A word is fields apart by spaces: `name:low-high` or `name:bit`, `name` for
all 32 bits, `name/lo` and `name/hi` for the halves of a 64-bit value, `-` for a reserved word. A last word of `data*`
stands for any number of dwords. What is not named in a word is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from .errors import PacketError

__all__ = ["AtomicOp", "Compare", "Field", "Format", "parse_formats"]


class Compare(IntEnum):
    """The functions of PM4's WAIT_REG_MEM and SDMA's POLL_REGMEM."""

    ALWAYS = 0
    LESS = 1
    LESS_EQUAL = 2
    EQUAL = 3
    NOT_EQUAL = 4
    GREATER_EQUAL = 5
    GREATER = 6


class AtomicOp(IntEnum):
    """Operations of PM4's ATOMIC_MEM and SDMA's ATOMIC that return what was there (TC_OP in Linux, soc15_enum.h)."""

    SWAP_32 = 0x07
    ADD_32 = 0x0F
    SUB_32 = 0x10
    SWAP_64 = 0x27
    ADD_64 = 0x2F
    SUB_64 = 0x30


@dataclass(frozen=True, slots=True)
class Field:
    """Bits `low` to `high` of a dword hold the bits of a value from `value_bit` on."""

    name: str
    low: int
    high: int
    value_bit: int = 0

    @property
    def mask(self) -> int:
        return (1 << self.high - self.low + 1) - 1


@dataclass(frozen=True, slots=True)
class Format:
    """One packet: name, opcode, and the fields of each dword after the header; `has_data` when data follows."""

    name: str
    opcode: int
    words: tuple[tuple[Field, ...], ...]
    has_data: bool

    def build(self, values: Mapping[str, int | Sequence[int]]) -> list[int]:
        """The dwords. Raises: PacketError for an unknown field or a value that does not fit."""
        widths = self.widths()
        for name, value in values.items():
            if name == "data" and self.has_data:
                continue
            if name not in widths:
                raise PacketError(f"{self.name}: got field {name!r}, want one of {', '.join(widths)}")
            if not isinstance(value, int) or not 0 <= value < 1 << widths[name]:
                raise PacketError(
                    f"{self.name}.{name}: got {value!r}, want 0 to {(1 << widths[name]) - 1:#x}"
                )
        dwords = []
        for word in self.words:
            bits = 0
            for field in word:
                bits |= (values.get(field.name, 0) >> field.value_bit & field.mask) << field.low
            dwords.append(bits)
        return dwords + list(values.get("data", ())) if self.has_data else dwords

    def decode(self, dwords: Sequence[int]) -> dict[str, int | list[int]]:
        """The fields by name; of a packet cut short, those that are there."""
        values: dict[str, int | list[int]] = {}
        for word, bits in zip(self.words, dwords, strict=False):
            for field in word:
                part = (bits >> field.low & field.mask) << field.value_bit
                values[field.name] = values.get(field.name, 0) | part
        if self.has_data:
            values["data"] = list(dwords[len(self.words) :])
        return values

    def widths(self) -> dict[str, int]:
        """Bits of each field."""
        result: dict[str, int] = {}
        for word in self.words:
            for field in word:
                end = field.value_bit + field.high - field.low + 1
                result[field.name] = max(result.get(field.name, 0), end)
        return result


def parse_formats(text: str) -> Iterator[Format]:
    """The formats in a table, in order; lines that continue a row are indented."""
    for line in text.strip().replace("\n  ", " ").splitlines():
        head, _, body = line.partition(": ")
        name, opcode = head.split()
        words = [word.split() for word in body.split(";")]
        has_data = words[-1] == ["data*"]
        parsed = tuple(
            tuple(_parse_field(each) for each in word if each != "-")
            for word in words[: -1 if has_data else None]
        )
        yield Format(name, int(opcode, 0), parsed, has_data)


def _parse_field(text: str) -> Field:
    if text.endswith(("/lo", "/hi")):
        return Field(text[:-3], 0, 31, 0 if text.endswith("/lo") else 32)
    name, colon, bits = text.partition(":")
    low, _, high = bits.partition("-")
    return Field(name, int(low), int(high or low)) if colon else Field(name, 0, 31)
