"""Decide which nodes to store. All others are computed where they are used, as part of a kernel that stores.

A node is stored because it must be (a root; the result of an operation that writes elsewhere than at its own index) or
because computing it where it is used would cost more than a store and a load. To tell, every stored node's kernel is
walked as lowering will pull it, with the set of the kernel's axes that each dimension depends on:

- A reduction is repeated if its index depends on axes of more points than it has elements (a sliding window, an axis
  that it was expanded along inside another reduction), or if two kernels want it, or if it stands inside another
  reduction that runs over axes it does not depend on: then one loop nest cannot share it.
- Anything else is repeated if its cost times the repetitions exceeds that of a store and a load.

*before*: nothing but the roots is known to be stored. *after*: a set of nodes, each pulled from others of the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from tg_ir.graph import Node, toposort
from tg_ir.symbolic import SymInt, bounds
from tg_schedule.group_kernels import WRITERS, group_kernels

__all__ = ["choose_stores"]

STORE_COST = 12
"""What a store and a load cost, in units of a simple operation."""

_COSTS = {
    "exp": 8, "exp2": 6, "expm1": 12, "log": 8, "log2": 8, "log1p": 12, "sin": 10, "cos": 10, "atan": 12, "tanh": 12,
    "erf": 16, "pow": 20, "sqrt": 4, "div": 4, "floordiv": 6, "mod": 6, "gather": 4,
}  # fmt: skip
_FREE = frozenset({
    "reshape", "permute", "expand", "shrink", "flip", "window", "const", "buffer", "cast", "bitcast", "iota",
})  # fmt: skip

FEW_ROWS = 8
"""A reduction to fewer elements than this is a kernel of its own: inside another it would leave the machine idle."""

MOST_PLACES = 4
"""How many index functions a node is computed at within one kernel, at the most: they multiply along a chain."""

Deps = tuple[frozenset[int], ...]


def _high(size: SymInt) -> int:
    return bounds(size)[1]


def choose_stores(roots: Sequence[Node]) -> list[Node]:
    """The nodes to store, in the order in which they can be computed; input buffers are not among them."""
    order = toposort(roots)
    stored = {node for node in roots if node.op.name != "buffer"}
    for node in order:
        if node.op.name in WRITERS:
            stored.add(node)
        if node.op.name == "copy":
            stored.update(source for source in node.inputs if source.op.name != "buffer")
    while True:
        more = _too_costly(order, stored)
        if not more:
            return [node for node in order if node in stored]
        stored |= more


class _Walk:
    """One kernel, walked as it will be pulled."""

    def __init__(self, stored: set[Node]):
        self.stored = stored
        self.extent: list[int] = []  # of each axis
        self.visits: dict[
            Node, dict[int, frozenset[int]]
        ] = {}  # for each place that wants it, the axes there
        self.bad: set[Node] = set()
        self.places: dict[
            tuple[int, Node, int], int
        ] = {}  # a way through movement from the store: one index function

    def axes(self, shape: Iterable[SymInt]) -> Deps:
        made = []
        for size in shape:
            made.append(frozenset({len(self.extent)}) if _high(size) > 1 else frozenset())
            self.extent.append(_high(size))
        return tuple(made)

    def points(self, axes: frozenset[int]) -> int:
        return prod(self.extent[axis] for axis in axes)

    def visit(self, node: Node, deps: Deps, inside: frozenset[int] | None, place: int = 0) -> None:
        """`inside`: the axes that the reductions around depend on, None outside of any."""
        visits = self.visits.setdefault(node, {})
        if node in self.stored or node.op.name == "buffer" or place in visits or node in self.bad:
            return
        need = visits[place] = frozenset().union(*deps)
        if len(visits) > MOST_PLACES and node.op.name not in _FREE:
            self.bad.add(node)
            return
        if node.op.name == "reduce":
            elements = _high_count(node)
            moved = any(other != need for other in visits.values())
            alone = elements < FEW_ROWS and _high_count(node.inputs[0]) > 4096 and place
            apart = inside is not None and not inside <= need
            if moved or self.points(need) > elements or apart or alone:
                self.bad.add(node)
                return
            inside = need if inside is None else inside
        for position, (source, inner) in enumerate(self.sources(node, deps)):
            still = node.op.elementwise or node.op.name in ("cast", "bitcast")
            self.visit(source, inner, inside, place if still else self.place(node, position, place))

    def place(self, node: Node, position: int, before: int = 0) -> int:
        """The index function of an input of `node`, itself wanted at the index function `before`."""
        return self.places.setdefault((before, node, position), len(self.places) + 1)

    def sources(self, node: Node, deps: Deps) -> list[tuple[Node, Deps]]:
        """Each input with what its dimensions depend on."""
        name = node.op.name
        first = node.inputs[0] if node.inputs else None
        if name == "reshape":
            return [(first, _regroup(deps, node.shape, first.shape))]
        if name == "permute":
            inner: list[frozenset[int]] = [frozenset()] * len(deps)
            for axis, dep in zip(node["order"], deps, strict=True):
                inner[axis] = dep
            return [(first, tuple(inner))]
        if name == "expand":
            tail = deps[len(deps) - len(first.shape) :]
            return [
                (first, tuple([frozenset() if n == 1 else d for d, n in zip(tail, first.shape, strict=True)]))
            ]
        if name == "window":
            inner = list(deps[:-1])
            inner[node["axis"]] |= deps[-1]
            return [(first, tuple(inner))]
        if name == "pad":
            return [(first, deps), (node.inputs[1], ())]
        if name == "reduce":
            inner = list(deps)
            for axis in node["axes"]:
                inner.insert(axis, self.axes([first.shape[axis]])[0])
            return [(first, tuple(inner))]
        if name == "assign":
            return [(source, deps) for source in node.inputs]
        if name == "gather":
            everything = frozenset().union(*deps)
            inner = [everything if axis == node["axis"] else dep for axis, dep in enumerate(deps)]
            return [(first, tuple(inner)), (node.inputs[1], deps)]
        return [(source, deps) for source in node.inputs]


def _high_count(node: Node) -> int:
    return prod(_high(size) for size in node.shape)


def _regroup(deps: Deps, shape: Sequence[SymInt], inner: Sequence[SymInt]) -> Deps:
    """Dependencies through a reshape: within the smallest groups of dimensions whose products agree."""
    result: list[frozenset[int]] = []
    i = j = 0
    while j < len(inner):
        start_i, start_j = i, j
        left, right = 1, inner[j]
        j += 1
        while left != right and i < len(shape):
            left = left * shape[i]
            i += 1
            while j < len(inner) and _smaller(right, left):
                right = right * inner[j]
                j += 1
        if left != right:
            i = len(shape)
            j = len(inner)
        group = frozenset().union(*deps[start_i:i])
        result += [frozenset() if _high(size) == 1 else group for size in inner[start_j:j]]
    return tuple(result)


def _smaller(a: SymInt, b: SymInt) -> bool:
    return _high(a) < _high(b)


def _too_costly(order: Sequence[Node], stored: set[Node]) -> set[Node]:
    """Nodes that some kernel would repeat at too high a cost, or that several kernels would.

    Of a chain of them only the last: once it is stored, those before it are wanted in one place.
    """
    kernels: dict[Node, set[int]] = {}
    bad: set[Node] = set()
    within, across = _element_costs(order, stored, 1), _element_costs(order, stored, 1000)
    for number, group in enumerate(group_kernels([node for node in order if node in stored])):
        walk = _Walk(stored - set(group))
        _walk_group(walk, group)
        bad |= walk.bad
        for used, places in walk.visits.items():
            if used in stored or used.op.name == "buffer":
                continue
            kernels.setdefault(used, set()).add(number)
            times = sum(map(walk.points, places.values())) / max(1, _high_count(used))
            if used.op.name != "reduce" and times > 1 and within[used] * (times - 1) > STORE_COST:
                bad.add(used)
    for used, users in kernels.items():
        if len(users) > 1 and across[used] * (len(users) - 1) > STORE_COST:
            bad.add(used)
    bad -= stored
    last = {source for node in order if node not in bad for source in node.inputs if source in bad}
    for found in (last, {_behind(node) for node in last}, bad):
        more = {node for node in found if node.op.name not in _FREE} - stored
        if more:
            return more
    return set()


def _behind(node: Node) -> Node:
    """What movement and casts of one input move."""
    while node.op.name in _FREE and node.inputs:
        node = node.inputs[0]
    return node


def _walk_group(walk: _Walk, group: Sequence[Node]) -> None:
    """Walk the kernel that stores these nodes, from each of them down."""
    head = group[0]
    if head.op.name == "scatter":
        for part in head.inputs:
            walk.visit(part, walk.axes(part.shape), None, walk.place(head, head.inputs.index(part)))
        return
    if head.op.name == "copy":
        return
    deps = walk.axes(head.shape)
    for node in group:
        walk.visit(node, deps, None)


def _element_costs(order: Sequence[Node], stored: set[Node], reduction: int) -> dict[Node, int]:
    """Operations to compute one element of each node, down to what is stored, with `reduction` for a reduction.

    Within a kernel a reduction is kept for the points that share it; another kernel would compute it again.
    """
    costs: dict[Node, int] = {}
    for node in order:
        own = 0 if node.op.name in _FREE else _COSTS.get(node.op.name, 1)
        below = sum(
            1 if source in stored or source.op.name == "buffer" else costs[source] for source in node.inputs
        )
        own, below = (reduction, 0) if node.op.name == "reduce" else (own, below)
        costs[node] = min(own + below, 10_000)
    return costs
