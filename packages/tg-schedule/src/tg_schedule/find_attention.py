"""Find softmax-weighted sums that nothing else looks into: one reduction with the online softmax monoid computes them.

    sum over s of (exp(x - max x) / sum exp(x - max x))[l, s] * v[s, e]
      -> part 2 / part 1 of online_softmax over s of (x[l, s], 1, v[s, e])

Also with zeros where all of a row of x is -inf, which is how a mask that hides every key is treated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tg_ir.graph import Node
from tg_ir.kernel import Axis
from tg_ir.symbolic import leaves
from tg_schedule.movement import MOVED, Indices
from tg_schedule.places import behind

__all__ = ["Attention", "find_attention"]


@dataclass(frozen=True, slots=True)
class Attention:
    """Scores and values of a weighted sum; `chain` moves its elements' index to that of the scores."""

    scores: Node
    values: Node
    chain: tuple[Node, ...]
    zero_if_hidden: bool

    def place(self, index: Indices) -> Indices:
        """The index of the scores for an index of the products that are summed."""
        for node in self.chain:
            index = MOVED[node.op.name](node, index)
        return index


def find_attention(order: Sequence[Node], must: set[Node]) -> dict[Node, Attention]:
    """The sums of products that are attention."""
    users = Counter([source for node in order for source in dict.fromkeys(node.inputs)])
    found: dict[Node, Attention] = {}
    for node in order:
        if node.op.name == "reduce" and node["kind"] == "sum" and node.inputs[0].op.name == "mul":
            for weights, values in (node.inputs[0].inputs, node.inputs[0].inputs[::-1]):
                attention = _match(node, weights, values, users, must)
                if attention is not None:
                    found[node] = attention
    return found


def _match(
    node: Node, weights: Node, values: Node, users: Counter[Node], must: set[Node]
) -> Attention | None:
    def private(*nodes: Node, by: int = 1) -> bool:
        return all(users[each] == by and each not in must for each in nodes)

    chain = []
    while weights.op.name in MOVED:
        chain.append(weights)
        weights = weights.inputs[0]
    hidden = None
    if weights.op.name == "where" and _is_constant(weights.inputs[1], 0):
        chosen, hidden, weights = weights, weights.inputs[0], weights.inputs[2]
        if not private(chosen):
            return None
    if weights.op.name != "div" or weights.inputs[0].op.name != "exp":
        return None
    powers = weights.inputs[0]
    below = powers.inputs[0]
    if (
        below.op.name != "sub"
        or not private(node.inputs[0], weights, below, *chain)
        or not private(powers, by=2)
    ):
        return None
    scores = below.inputs[0]
    total, top = behind(weights.inputs[1]), behind(below.inputs[1])
    axes = total.attrs[1] if total.op.name == "reduce" else ()
    if len(axes) != 1 or len(node["axes"]) != 1:
        return None
    (axis,) = axes
    if not _is_row(weights.inputs[1], total, powers, "sum", axis):
        return None
    if not _is_row(below.inputs[1], top, scores, "max", axis):
        return None
    if hidden is not None:
        if (
            scores.op.name != "where"
            or scores.inputs[0] is not hidden
            or not _is_constant(scores.inputs[1], 0)
        ):
            return None
        scores = scores.inputs[2]
        none = behind(hidden)
        if none.op.name != "eq" or not _is_constant(none.inputs[1], -math.inf):
            return None
        if not _is_row(hidden, behind(none.inputs[0]), scores, "max", axis, through=none):
            return None
    attention = Attention(scores, values, tuple(chain), hidden is not None)
    index = _axes(node.inputs[0])
    inner = attention.place(index)
    summed = index[node["axes"][0]]
    others = inner[:axis] + inner[axis + 1 :]
    if type(summed) is int or inner[axis] is not summed or any(summed in leaves(other) for other in others):
        return None
    return attention


def _axes(node: Node) -> Indices:
    return tuple([Axis(f"a{number}", size).index for number, size in enumerate(node.shape)])


def _is_constant(node: Node, value: float) -> bool:
    node = behind(node)
    return node.op.name == "const" and node["value"] == value


def _is_row(node: Node, row: Node, source: Node, kind: str, axis: int, through: Node | None = None) -> bool:
    """Whether `node` is the reduction `row` of `source` along `axis`, repeated along it."""
    if row.op.name != "reduce" or row.inputs[0] is not source or row.attrs != (kind, (axis,)):
        return False
    index = _axes(source)
    if node.shape != source.shape:
        return False
    want = index[:axis] + index[axis + 1 :]
    while node is not row:
        if node is through:
            node = node.inputs[0]
            continue
        index = MOVED[node.op.name](node, index)
        node = node.inputs[0]
    return index == want
