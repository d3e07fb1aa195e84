"""From bits to the rows that they may be: a decision tree, split where a search first comes."""

from __future__ import annotations

from collections.abc import Callable

from tg_codegen.amdgpu.instruction import Row

__all__ = ["Node", "Stub"]

Stub = tuple[int, int, str, int]  # mask, base, mnemonic, place among the mnemonic's rows
_NONE: list = []


class Node:
    """A decision tree over encodings, split where a search first comes: `mask` picks bits, `children` go by them."""

    __slots__ = ("children", "mask", "rows", "stubs")

    def __init__(self, stubs: list[Stub], tested: int):
        common = 0xFFFFFFFF & ~tested
        for stub in stubs:
            common &= stub[0]
        self.stubs, self.rows, self.children = stubs, None, None
        if not tested:
            common = 0xFC000000
        self.mask = common
        if common and (len(stubs) > 3 or not tested):
            self.children = children = {}
            for stub in stubs:
                for extra in _subsets(common & ~stub[0]) if common & ~stub[0] else (0,):
                    children.setdefault(stub[1] & common | extra, []).append(stub)
            self.mask = common

    def find(self, bits: int, row_of: Callable[[str, int], Row | None]) -> list[Row]:
        node, tested = self, 0
        while node.children is not None:
            tested |= node.mask
            key = bits & node.mask
            child = node.children.get(key, _NONE)
            if child.__class__ is list:
                child = node.children[key] = Node(child, tested) if child else _NONE
            if child is _NONE:
                return []
            node = child
        if node.rows is None:
            rows = [row_of(mnemonic, index) for _, _, mnemonic, index in node.stubs]
            node.rows = sorted(filter(None, rows), key=lambda r: -r.mask.bit_count())
        return node.rows


def _subsets(mask: int) -> list[int]:
    """All values whose bits lie in a mask."""
    values = [0]
    while mask:
        low = mask & -mask
        values += [v | low for v in values]
        mask ^= low
    return values
