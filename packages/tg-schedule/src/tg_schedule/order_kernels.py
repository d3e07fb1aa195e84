"""Put kernels into an order that needs little memory, and small independent ones together.

Two orders are tried: that of the graph, and greedily whichever kernel that may run now leaves least memory in use. The
one whose live temporaries take less at their worst is kept. Kernels without reductions that read only inputs and
write only outputs take no part in that; as many as their buffers allow are launched as one.

*before*: drafts in any order in which they can run. *after*: groups of drafts, each group a launch, in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tg_ir.graph import Node
from tg_schedule.choose_stores import Draft
from tg_schedule.places import count

__all__ = ["order_kernels"]

MOST_BUFFERS = 64
"""Of a launch."""

MOST_COMPARED = 64
"""Of the kernels that may run, so that time stays linear."""


def order_kernels(drafts: Sequence[Draft], order: Sequence[Node], roots: Iterable[Node]) -> list[list[Draft]]:
    """The launches; `order` is the graph's."""
    kept = set(roots)
    position = {node: number for number, node in enumerate(order)}
    sizes = {
        node: 0 if node in kept else count(node) * node.dtype.itemsize
        for draft in drafts
        for node in draft.outputs
    }
    ways = [_as_drawn(drafts, position), _greedy(drafts, sizes)]
    best = min(ways, key=lambda way: _peak(way, sizes))
    small = [draft for draft in best if _is_small(draft, sizes, kept)]
    joined = dict(_joined(small))
    return [joined.get(draft, [draft]) for draft in best if draft in joined or draft not in small]


def _is_small(draft: Draft, made: dict[Node, int], kept: set[Node]) -> bool:
    return not (
        draft.reduces or draft.alone or draft.waits or any(node in made for node in draft.loads)
    ) and all(node in kept for node in draft.outputs)


def _joined(small: Iterable[Draft]) -> Iterable[tuple[Draft, list[Draft]]]:
    """Runs of kernels that together have few enough buffers, each with its first."""
    runs: dict[str, list[Draft]] = {}
    buffers: dict[str, int] = {}
    for draft in small:
        more = len(draft.loads) + len(draft.outputs)
        run = runs.get(draft.device)
        if run is None or buffers[draft.device] + more > MOST_BUFFERS:
            run = runs[draft.device] = [draft]
            buffers[draft.device] = more
            yield draft, run
        else:
            run.append(draft)
            buffers[draft.device] += more


def _needed(draft: Draft, makers: dict[Node, Draft]) -> dict[Draft, None]:
    """The kernels that come before one."""
    return dict.fromkeys([*[makers[node] for node in draft.loads if node in makers], *draft.waits])


def _as_drawn(drafts: Sequence[Draft], position: dict[Node, int]) -> list[Draft]:
    """As soon as the last node of each comes up in the graph's order, after all that it reads."""
    makers = {node: draft for draft in drafts for node in draft.outputs}
    done: dict[Draft, None] = {}
    for draft in sorted(drafts, key=lambda draft: max(position[node] for node in draft.outputs)):
        stack = [draft]
        while stack:
            missing = [maker for maker in _needed(stack[-1], makers) if maker not in done]
            assert len(stack) <= len(drafts), "kernels wait for one another in a circle"
            if missing:
                stack.append(missing[0])
            else:
                done.setdefault(stack.pop())
    return list(done)


def _greedy(drafts: Sequence[Draft], sizes: dict[Node, int]) -> list[Draft]:
    """Always what leaves least in use, of what may run."""
    makers = {node: draft for draft in drafts for node in draft.outputs}
    left = Counter([node for draft in drafts for node in draft.loads])
    users: dict[Draft, list[Draft]] = {}
    missing: dict[Draft, int] = {}
    for draft in drafts:
        needed = _needed(draft, makers)
        missing[draft] = len(needed)
        for maker in needed:
            users.setdefault(maker, []).append(draft)
    ready = [draft for draft in drafts if not missing[draft]]
    result: list[Draft] = []

    def grows(draft: Draft) -> int:
        freed = sum([sizes.get(node, 0) for node in draft.loads if left[node] == 1])
        return sum([sizes[node] for node in draft.outputs]) - freed

    while ready:
        draft = min(ready[:MOST_COMPARED], key=grows)
        ready.remove(draft)
        result.append(draft)
        left.subtract(draft.loads.keys())
        for user in users.get(draft, ()):
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    return result


def _peak(drafts: Sequence[Draft], sizes: dict[Node, int]) -> int:
    """The most bytes that are live at once."""
    left = Counter([node for draft in drafts for node in draft.loads])
    live = peak = 0
    for draft in drafts:
        live += sum([sizes[node] for node in draft.outputs])
        peak = max(peak, live)
        for node in draft.loads:
            left[node] -= 1
            if not left[node]:
                live -= sizes.get(node, 0)
        live -= sum([sizes[node] for node in draft.outputs if not left[node]])
    return peak
