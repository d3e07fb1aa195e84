"""Put stored nodes of one shape that do not need one another into one kernel: siblings share loads and loops.

*before*: stored nodes in an order in which they can be computed, each a kernel.
*after*: groups of them in such an order; a node joins the latest group of its shape and device that comes after all
that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from tg_ir.graph import Node, toposort

from tg_schedule.choose_stores import WRITERS

__all__ = ["group_kernels"]

MOST_STORES = 16


def group_kernels(stored: Sequence[Node]) -> list[list[Node]]:
    """The groups, in order."""
    among = set(stored)
    groups: list[list[Node]] = []
    place: dict[Node, int] = {}
    for node in stored:
        needed = [place[other] for other in _needs(node, among)]
        earliest = max(needed, default=-1) + 1
        for number in range(len(groups) - 1, earliest - 1, -1):
            head = groups[number][0]
            if (
                node.op.name not in WRITERS | {"reduce"}
                and head.op.name not in WRITERS | {"reduce"}
                or node.op.name == head.op.name == "reduce"
                and node["axes"] == head["axes"]
                and node.inputs[0].shape == head.inputs[0].shape
            ):
                if head.shape == node.shape and head.device == node.device and len(groups[number]) < MOST_STORES:
                    groups[number].append(node)
                    place[node] = number
                    break
        else:
            place[node] = len(groups)
            groups.append([node])
    return groups


def _needs(node: Node, stored: set[Node]) -> list[Node]:
    """The stored nodes that a stored node is computed from."""
    reached = toposort([node], into=lambda other: other is node or other not in stored)
    return [other for other in reached if other in stored and other is not node]
