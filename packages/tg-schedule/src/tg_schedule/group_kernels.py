"""Put stored nodes of one shape that do not need one another into one kernel: siblings share loads and loops.

*before*: stored nodes in an order in which they can be computed, each a kernel.
*after*: groups of them in such an order; a node joins the latest group of its shape and device that comes after all
that it needs. What it needs element by element may be in that very group: the value is at hand there.
"""

from __future__ import annotations

from collections.abc import Sequence

from tg_ir.graph import Node, toposort

__all__ = ["group_kernels"]

WRITERS = frozenset({"scan", "scatter", "copy"})
"""Operations whose kernels are no plain map from index to value."""

MOST_STORES = 16


def group_kernels(stored: Sequence[Node]) -> list[list[Node]]:
    """The groups, in order."""
    among = set(stored)
    groups: list[list[Node]] = []
    place: dict[Node, int] = {}
    for node in stored:
        needed = _needs(node, among)
        earliest = max([place[other] + (not aligned) for other, aligned in needed.items()], default=0)
        for number in range(len(groups) - 1, earliest - 1, -1):
            if len(groups[number]) < MOST_STORES and _share_loops(groups[number][0], node):
                groups[number].append(node)
                place[node] = number
                break
        else:
            place[node] = len(groups)
            groups.append([node])
    return groups


def _share_loops(a: Node, b: Node) -> bool:
    """Whether two stored nodes run over the same points, reductions over the same axes of the same shape."""
    if a.op.name in WRITERS or b.op.name in WRITERS or a.shape != b.shape or a.device != b.device:
        return False
    if "reduce" not in (a.op.name, b.op.name):
        return True
    both = a.op.name == b.op.name == "reduce"
    return both and a["axes"] == b["axes"] and a.inputs[0].shape == b.inputs[0].shape


def _needs(node: Node, stored: set[Node]) -> dict[Node, bool]:
    """The stored nodes that a stored node is computed from: True where it wants just the element of its own index."""
    reached = toposort([node], into=lambda other: other is node or other not in stored)
    aligned = {node} if _elementwise(node) else set()
    for part in reversed(reached):
        if part in aligned and (part is node or part not in stored) and _elementwise(part):
            aligned.update(part.inputs)
    moved = {
        source
        for part in reached
        if part is node or part not in stored
        for source in part.inputs
        if part not in aligned or not _elementwise(part)
    }
    return {
        other: other in aligned and other not in moved
        for other in reached
        if other in stored and other is not node
    }


def _elementwise(node: Node) -> bool:
    return node.op.elementwise or node.op.name in ("cast", "bitcast")
