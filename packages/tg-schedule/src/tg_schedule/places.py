"""At which index, and in which loops, a kernel wants a node: what the choice of stores reasons about.

A kernel's own axes are `i0, i1, ..`, those of its reductions `r0, r1, ..` from the outside in, so that siblings that
read alike have equal places. Guards are left out: an element that a pad hides counts like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from tg_ir.graph import Node
from tg_ir.kernel import Axis
from tg_ir.symbolic import Expr, Leaf, SymInt, bounds, leaves
from tg_schedule.movement import MOVED, Indices

__all__ = ["FREE", "Place", "Places", "behind", "behind_reshape", "count", "root_axes"]

FREE = frozenset({*MOVED, "const", "buffer", "cast", "bitcast", "iota"})
"""Operations that cost nothing where they are used."""


def count(node: Node) -> int:
    """How many elements the node has at the most."""
    return prod([bounds(size)[1] for size in node.shape])


def behind(node: Node, *more: str) -> Node:
    """What movement, and the operations `more`, move."""
    while node.op.name in MOVED or node.op.name in more:
        node = node.inputs[0]
    return node


def behind_reshape(node: Node) -> Node:
    """The same elements in the same order before any reshape."""
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


@dataclass(frozen=True, slots=True)
class Place:
    """`index` into the node; `inside`: the axes that the reductions around depend on, None outside of any.

    `loop` is the innermost of them: "" none, "linear" a sum with nothing but movement since, "contraction" a sum of
    products, "online" the scores of attention, "fold" anything else.
    """

    index: Indices
    inside: frozenset[Leaf] | None = None
    loop: str = ""


def root_axes(node: Node) -> tuple[tuple[SymInt, ...], Indices]:
    """The sizes of a node that are not 1, and its index over axes of those sizes."""
    sizes = [size for size in node.shape if bounds(size)[1] != 1]
    axes = iter([Axis(f"i{number}", size).index for number, size in enumerate(sizes)])
    return tuple(sizes), tuple([0 if bounds(size)[1] == 1 else next(axes) for size in node.shape])


class Places:
    """Places of inputs from places of nodes, remembered."""

    def __init__(self) -> None:
        self.moved: dict[tuple[Node, Indices], Indices] = {}
        self.leaves: dict[SymInt, frozenset[Leaf]] = {}
        self.gathered: dict[tuple[Node, Indices], Leaf] = {}
        self.behind_leaf: dict[Leaf, frozenset[Leaf]] = {}
        self.points_of: dict[frozenset[Leaf], int] = {}
        self.contractions: dict[Node, bool] = {}

    def need(self, index: Indices) -> frozenset[Leaf]:
        """The axes that an index depends on."""
        found: frozenset[Leaf] = frozenset()
        for expr in index:
            if isinstance(expr, Expr):
                axes = self.leaves.get(expr)
                if axes is None:
                    each = [self.behind_leaf.get(leaf, frozenset({leaf})) for leaf in leaves(expr)]
                    axes = self.leaves[expr] = frozenset([x for x in frozenset().union(*each) if _is_axis(x)])
                found |= axes
        return found

    def points(self, axes: frozenset[Leaf]) -> int:
        """How many points the axes have together."""
        if axes not in self.points_of:
            self.points_of[axes] = prod([axis.high + 1 for axis in axes])
        return self.points_of[axes]

    def move(self, node: Node, index: Indices) -> Indices:
        """The index of what a movement operation moves."""
        key = (node, index)
        found = self.moved.get(key)
        if found is None:
            found = self.moved[key] = MOVED[node.op.name](node, index)
        return found

    def sources(self, node: Node, place: Place) -> Iterator[tuple[Node, Place]]:
        """Each input of a node with the place it is wanted at."""
        name, index = node.op.name, place.index
        if name in MOVED:
            yield node.inputs[0], Place(self.move(node, index), place.inside, place.loop)
            return
        if name == "reduce":
            inner = self.reduced(node, place)
            for source in _factors(node) if inner.loop == "contraction" else node.inputs:
                yield source, inner
            return
        if name == "pad":
            source, fill = node.inputs
            loop = place.loop if fill.op.name == "const" and fill["value"] == 0 else self.plain(place).loop
            inner = tuple([i - before for i, (before, _) in zip(index, node["widths"], strict=True)])
            yield source, Place(inner, place.inside, loop)
            yield fill, Place((), place.inside, loop)
            return
        place = self.plain(place)
        if name == "cat":
            axis, start = node["axis"], 0
            for source in node.inputs:
                inner = (*index[:axis], index[axis] - start, *index[axis + 1 :])
                yield source, Place(inner, place.inside, place.loop)
                start = start + source.shape[axis]
        elif name == "assign":
            base, source = node.inputs
            yield base, place
            inner = tuple([i - start for i, start in zip(index, node["offsets"], strict=True)])
            yield source, Place(inner, place.inside, place.loop)
        elif name == "gather":
            source, which = node.inputs
            axis = node["axis"]
            inner = (*index[:axis], self.loaded(node, index), *index[axis + 1 :])
            yield source, Place(inner, place.inside, place.loop)
            yield which, place
        else:
            for source in node.inputs:
                yield source, place

    def plain(self, place: Place) -> Place:
        """The place after an operation that is no movement."""
        return Place(place.index, place.inside, "fold") if place.loop == "linear" else place

    def loaded(self, node: Node, index: Indices) -> Leaf:
        """Stands for the position that a gather reads at."""
        key = (node.inputs[1], index)
        if key not in self.gathered:
            size = max(bounds(node.inputs[0].shape[node["axis"]])[1], 1)
            leaf = self.gathered[key] = Leaf("loaded", 0, size - 1, digest=len(self.gathered))
            self.behind_leaf[leaf] = self.need(index)
        return self.gathered[key]

    def reduced(self, node: Node, place: Place) -> Place:
        """The place of a reduction's elements."""
        source, reduced = node.inputs[0], node["axes"]
        around = self.need(place.index) | (place.inside or frozenset())
        depth = 1 + max([int(axis.name[1:]) for axis in around if axis.name[0] == "r"], default=-1)
        inner = list(place.index)
        for number, axis in enumerate(reduced):
            inner.insert(axis, Axis(f"r{depth + number}", source.shape[axis]).index)
        inside = self.need(place.index) if place.inside is None else place.inside
        loop = "contraction" if self.contraction(node) else "linear" if node["kind"] == "sum" else "fold"
        return Place(tuple(inner), inside, loop)

    def contraction(self, node: Node) -> bool:
        """Whether a reduction sums products of two things of which each lacks an axis that the other has."""
        if node not in self.contractions:
            self.contractions[node] = self._contraction(node)
        return self.contractions[node]

    def _contraction(self, node: Node) -> bool:
        factors = _factors(node)
        if node.op.name != "reduce" or node["kind"] != "sum" or len(factors) != 2:
            return False
        reduced = set(node["axes"])
        index = tuple(
            [Axis(f"{'r' if a in reduced else 'i'}{a}", n).index for a, n in enumerate(node.inputs[0].shape)]
        )
        needs = [self.need(self._bottom_index(factor, index)) for factor in factors]
        summed = frozenset([leaf for leaf in self.need(index) if leaf.name.startswith("r")])
        apart = [needs[0] - needs[1] - summed, needs[1] - needs[0] - summed]
        return all(apart) and all(need & summed for need in needs)

    def _bottom_index(self, node: Node, index: Indices) -> Indices:
        while node.op.name in MOVED or node.op.name in ("cast", "pad"):
            if node.op.name in MOVED:
                index = self.move(node, index)
            node = node.inputs[0]
        return index


def _factors(node: Node) -> tuple[Node, ...]:
    """What a reduction multiplies before it sums, if it does."""
    while node.inputs[0].op.name == "cast":
        node = node.inputs[0]
    return node.inputs[0].inputs if node.inputs[0].op.name == "mul" else ()


def _is_axis(leaf: Leaf) -> bool:
    return leaf.name[0] in "ir" and leaf.name[1:].isdigit()
