"""Formats: where each field of an encoding stands.

A field is a list of segments (high bit, low bit, first bit of the value), as `54:52+51:50@3` in the tables:
bits 54..52 hold the value's bits 0..2, bits 51..50 its bits 3..4.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

__all__ = ["Field", "Format"]


class Field(NamedTuple):
    """Bits of an encoding that hold one value. `values` are the bits of the value that have a place."""

    segments: tuple[tuple[int, int, int], ...]
    mask: int
    values: int

    @staticmethod
    @cache
    def parse(text: str) -> Field:
        segments, mask, values = [], 0, 0
        for part in text.split("+"):
            place, _, first = part.partition("@")
            high, _, low = place.partition(":")
            low, high, first = int(low or high), int(high), int(first or 0)
            ones = (2 << (high - low)) - 1
            segments.append((low, ones, first))
            mask |= ones << low
            values |= ones << first
        return Field(tuple(segments), mask, values)

    def place(self, value: int) -> int:
        """The encoding's bits for a value; bits of the value without a place are dropped."""
        return sum((value >> first & ones) << low for low, ones, first in self.segments)

    def extract(self, bits: int) -> int:
        return sum((bits >> low & ones) << first for low, ones, first in self.segments)


class Format(NamedTuple):
    name: str
    size_bytes: int
    opcode: Field
    fields: dict[str, Field]

    @staticmethod
    def parse(words: list[str]) -> Format:
        name, size, opcode, *fields = words
        named = (f.split("=") for f in fields)
        return Format(name, int(size), Field.parse(opcode[3:]), {n: Field.parse(t) for n, t in named})
