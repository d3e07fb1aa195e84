"""Decide which nodes to store and which kernel does it. All others are computed where they are used.

One sweep from the roots down. When a node's turn comes, every place that wants it is known: which kernels, at which
index, within which reductions. It is stored if it must be (a root; what an operation that writes elsewhere reads) or
if a store and a load cost less than computing it at all those places; else its inputs are wanted there in turn.

- Kernels over the same axes that want a node at the same index become one, if neither waits for the other.
- A stored node that some kernel computes at that kernel's own index is one more output of it: the end of a chain, and
  on the way what others need.
- A reduction is computed once: not by several kernels, at several indices or for more points than it has elements, not
  in a reduction over axes that it does not depend on. A contraction is not computed within other loops at all, but for
  sums of it (the gradient of a window) and the scores of attention.

*before*: nothing but the roots is known to be stored. *after*: kernels, users after what they use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tg_ir.graph import Node, toposort
from tg_ir.symbolic import SymInt, prod
from tg_schedule import knobs
from tg_schedule.find_attention import Attention, find_attention
from tg_schedule.movement import MOVED, Indices, flat_index
from tg_schedule.places import FREE, Place, Places, behind_reshape, count, root_axes

__all__ = ["Choice", "Draft", "choose_stores"]

STORE_COST = 12
"""What a store and a load cost, in units of a simple operation; and the dearest prologue of a contraction's operand."""

FEW_ROWS, LARGE = 64, 1 << 14
"""A reduction of more than LARGE elements to fewer than FEW_ROWS is a kernel of its own: inside another it would leave
the machine idle."""

MOST_SUMMED = 128
"""Of how many contractions an element may be the sum: windows are small."""

MOST_PLACES = 4
"""How many index functions a node is computed at within one kernel, at the most: they multiply along a chain."""

MOST_STORES, MOST_BUFFERS, MOST_OPERATIONS = 16, 48, 300
"""The size of a kernel, at the most; operations as `_COSTS` counts them."""

_COSTS = {
    "exp": 8, "exp2": 6, "expm1": 12, "log": 8, "log2": 8, "log1p": 12, "sin": 10, "cos": 10, "atan": 12, "tanh": 12,
    "erf": 16, "pow": 20, "sqrt": 4, "div": 4, "floordiv": 6, "mod": 6, "gather": 4, "pad": 0.2,
}  # fmt: skip

WRITERS = frozenset({"scan", "scatter", "copy"})
"""Operations whose kernels are no plain map from index to value, and store nothing else."""


@dataclass(eq=False, slots=True)
class Draft:
    """A kernel to be: what it stores, each at an index over axes of `sizes`."""

    number: int
    sizes: tuple[SymInt, ...]
    device: str
    alone: bool = False
    box: bool = False
    outputs: dict[Node, Indices] = field(default_factory=dict)
    loads: dict[Node, None] = field(default_factory=dict)
    after: int = 0  # the numbers, as bits, of the kernels that wait for it
    waits: list[Draft] = field(default_factory=list)  # for what reads memory that it writes over
    contraction: Node | None = None
    reduces: bool = False
    operations: float = 0
    part_of: Draft | None = None  # the kernel that it has become part of

    def whole(self) -> Draft:
        """The kernel that it is part of by now."""
        draft = self
        while draft.part_of is not None:
            draft = draft.part_of
        return draft


@dataclass(frozen=True, slots=True)
class Choice:
    """Kernels, those that others wait for first; sums that are attention; inputs that roots are written over."""

    drafts: list[Draft]
    attention: dict[Node, Attention]
    over: dict[Node, Node]


def choose_stores(roots: Sequence[Node], donate: Mapping[Node, Node] | None = None) -> Choice:
    """What to store. `donate`: inputs by the root that may be written over them."""
    sweep = _Sweep(roots, donate or {})
    for node in reversed(sweep.order):
        sweep.decide(node)
    over = sweep.written_over()
    return Choice(sweep.in_order(), sweep.attention, over)


class _Sweep:
    def __init__(self, roots: Sequence[Node], donate: Mapping[Node, Node]):
        self.donate = donate
        self.order = toposort(roots)
        self.places = Places()
        self.must = set(roots)
        for node in self.order:
            if node.op.name in WRITERS:
                self.must.add(node)
            if node.op.name == "copy":
                self.must.add(node.inputs[0])
        self.counts = {node: count(node) for node in self.order}
        self.ends = self.ends_of_reductions()
        self.costs = self.element_costs()
        self.attention = find_attention(self.order, self.must) if knobs.fuse_attention() else {}
        self.drafts: dict[int, Draft] = {}
        self.wants: dict[Node, dict[Draft, dict[Place, None]]] = {}
        self.made = 0

    # ---- what is known of the graph before the sweep

    def element_costs(self) -> dict[Node, float]:
        """Operations to compute one element of each node, down to what may be stored: buffers, ends of reductions.

        What is repeated along axes counts for its share, and as half a load.
        """
        costs: dict[Node, float] = {}
        last = {reduction: end for end, reduction in self.ends.items() if self.places.contraction(reduction)}
        kept = {*self.must, *last.values()}
        for node in self.order:
            name = node.op.name
            below = sum([1 if source in kept else costs[source] for source in node.inputs])
            if name in ("const", "iota"):
                costs[node] = 0
            elif name in ("reduce", "buffer") or name in WRITERS:
                costs[node] = 1
            elif name == "expand" and below:
                costs[node] = 0.5 + below * self.counts[node.inputs[0]] / max(self.counts[node], 1)
            else:
                costs[node] = min(below + _own_cost(node), 10_000)
        return costs

    def ends_of_reductions(self) -> dict[Node, Node]:
        """The nodes of a reduction's size through which everything goes that uses it, its epilogue, with it."""
        users: dict[Node, list[Node]] = {}
        above: set[Node] = set()  # what is computed from reductions: nothing else matters here
        for node in self.order:
            if node.op.name == "reduce" or not above.isdisjoint(node.inputs):
                above.add(node)
        next_: dict[Node, Node | None] = {}  # the nearest node through which all users go
        depth: dict[Node | None, int] = {None: 0}
        for node in reversed(self.order):
            if node not in above:
                continue
            meet: Node | None = None
            if node not in self.must or node.op.name in WRITERS:
                first, *rest = users.get(node) or [None]
                meet = first
                for other in rest:
                    while meet is not other:
                        if depth[meet] >= depth[other]:
                            meet = next_[meet]
                        else:
                            other = next_[other]
            next_[node], depth[node] = meet, depth[meet] + 1
            for source in node.inputs:
                users.setdefault(source, []).append(node)
        ends: dict[Node, Node] = {}
        for node in self.order:
            if node.op.name == "reduce":
                last, end = node, next_[node]
                while end is not None and end not in ends and self.counts[end] == self.counts[node]:
                    if not (end.op.elementwise or end.op.name in FREE) or _is_reduced(last, users):
                        break
                    ends[end] = node
                    last, end = end, next_[end]
        return ends

    # ---- the sweep

    def decide(self, node: Node) -> None:
        """Store the node, or have its inputs wanted instead; all that wants it is known."""
        wants: dict[Draft, dict[Place, None]] = {}
        for draft, places in self.wants.pop(node, {}).items():
            wants.setdefault(draft.whole(), {}).update(places)
        if node not in self.must and (node.op.name == "const" or not wants):
            return
        if len(wants) > 1 and node.op.name not in MOVED and self.counts[node] > 1:
            wants = self.join(wants)
        if node.op.name == "buffer":
            for draft in wants:
                draft.loads.setdefault(node)
        elif node in self.must or (node.op.name not in FREE and self.is_costly(node, wants)):
            self.store(node, wants)
        else:
            for draft, places in wants.items():
                self.inline(node, draft, places)

    def inline(self, node: Node, draft: Draft, places: Iterable[Place]) -> None:
        """The draft computes the node: it wants its inputs."""
        draft.operations += _own_cost(node)
        attention = self.attention.get(node)
        for place in places:
            if attention is not None:
                draft.contraction = node
                inner = self.places.reduced(node, place)
                self.want(
                    attention.scores, draft, Place(attention.place(inner.index), inner.inside, "online")
                )
                self.want(attention.values, draft, inner)
                continue
            if node.op.name == "reduce":
                draft.reduces = True
                if self.places.contraction(node):
                    draft.contraction = node
            for source, inner in self.places.sources(node, place):
                self.want(source, draft, inner)

    def want(self, node: Node, draft: Draft, place: Place) -> None:
        self.wants.setdefault(node, {}).setdefault(draft, {})[place] = None

    def is_costly(self, node: Node, wants: dict[Draft, dict[Place, None]]) -> bool:
        """Whether to compute the node where it is wanted costs more than a store and a load."""
        if any(draft.operations >= MOST_OPERATIONS for draft in wants):
            return True
        if node.op.name == "reduce":
            return len(wants) > 1 or not all(self.reduces_well(node, *item) for item in wants.items())
        elements, cost, over = max(self.counts[node], 1), self.costs[node], 0.0
        for places in wants.values():
            points = 0
            if len({place.index for place in places}) > MOST_PLACES:
                return True
            for place in places:
                need = self.places.need(place.index)
                if place.loop == "contraction" and cost > STORE_COST:
                    return True
                if place.loop == "fold":
                    need |= place.inside
                points += self.places.points(need)
            over += (cost - 1) * points / elements  # a load instead would cost 1
        if node in self.ends:
            below = self.ends[node]
            if len(wants) > 1 or not all(self.reduces_well(below, *item) for item in wants.items()):
                return True
        return over - (cost - 1) > STORE_COST and cost > 1

    def reduces_well(self, node: Node, draft: Draft, places: dict[Place, None]) -> bool:
        """Whether a reduction that one kernel wants is better computed there than stored."""
        if len({place.index for place in places}) > 1:
            return False
        elements, read = self.counts[node], self.counts[node.inputs[0]]
        contraction = self.places.contraction(node) or node in self.attention
        for place in places:
            need = self.places.need(place.index)
            points = self.places.points(need)
            whole = points == self.kernel_points(draft) and place.inside is None
            if draft.alone and node["kind"] == "sum":
                return False
            if contraction and not (whole or place.loop in ("linear", "online")):
                return False
            if contraction and draft.contraction is not None and place.loop != "online":
                return False
            if place.loop == "linear":
                if node["kind"] != "sum" or points > min(
                    4 * elements, MOST_SUMMED * self.places.points(place.inside)
                ):
                    return False
            elif points > elements:
                return False
            if place.loop not in ("", "online") and not place.inside <= need:
                return False
            if read > LARGE and not whole and place.loop not in ("linear", "online"):
                rows = elements if place.inside is None else self.places.points(place.inside)
                if rows < FEW_ROWS:
                    return False
        return True

    def kernel_points(self, draft: Draft) -> int:
        return max([self.counts[node] for node in draft.outputs])

    # ---- kernels

    def store(self, node: Node, wants: dict[Draft, dict[Place, None]]) -> None:
        """Give the node memory, and a kernel that computes it."""
        after = 0
        for draft in wants:
            draft.loads.setdefault(node)
            after |= draft.after | 1 << draft.number
        draft, place = self.home(node, wants)
        if draft is None:
            draft, place = self.new_draft(node)
            draft.after = after
        else:
            del draft.loads[node]
            self.order_before(draft, after & ~(1 << draft.number))
        draft.outputs[node] = place.index
        if node.op.name == "scatter":
            for source in node.inputs:
                self.want(source, draft, Place(root_axes(source)[1]))
        elif self.is_box(node):
            self.want(node.inputs[1], draft, Place(root_axes(node.inputs[1])[1]))
        elif node.op.name == "copy":
            self.want(node.inputs[0], draft, place)
        else:
            self.inline(node, draft, [place])

    def is_box(self, node: Node) -> bool:
        """Whether the node is a box written into an input that it may write over: only the box is computed then."""
        given = self.donate.get(node)
        return node.op.name == "assign" and given is not None and behind_reshape(node.inputs[0]) is given

    def new_draft(self, node: Node) -> tuple[Draft, Place]:
        sizes, index = root_axes(node)
        box = self.is_box(node)
        draft = Draft(self.made, sizes, node.device, alone=box or node.op.name in WRITERS, box=box)
        self.drafts[self.made] = draft
        self.made += 1
        return draft, Place(index)

    def order_before(self, draft: Draft, after: int) -> None:
        """The draft, and all that it waits for, come before the drafts `after`."""
        if after & ~draft.after:
            draft.after |= after
            bit = 1 << draft.number
            for other in self.drafts.values():
                if other.after & bit:
                    other.after |= after

    def home(self, node: Node, wants: dict[Draft, dict[Place, None]]) -> tuple[Draft | None, Place]:
        """A kernel among those that want the node that has the value of each element at hand."""
        if node.op.name in WRITERS or self.is_box(node):
            return None, Place(())
        for draft, places in wants.items():
            first = next(iter(places))
            if draft.alone or len(draft.outputs) >= MOST_STORES or len({place.index for place in places}) > 1:
                continue
            others = [other for other in wants if other is not draft]
            if any(other.after >> draft.number & 1 for other in others):
                continue
            if self.is_own_index(draft, node, first.index) and self.fits(node, draft):
                return draft, Place(first.index)
        return None, Place(())

    def fits(self, node: Node, draft: Draft) -> bool:
        """Whether a kernel that stores the node would compute it there too."""
        if node.op.name != "reduce":
            return True
        return draft.contraction is None or not self.places.contraction(node)

    def is_own_index(self, draft: Draft, node: Node, index: Indices) -> bool:
        """Whether the index runs over every element of the node once, in some order of the kernel's axes."""
        if self.counts[node] != self.kernel_points(draft) or not self.counts[node]:
            return False
        sizes, own = root_axes(node)
        if len(sizes) == len(draft.sizes):
            used = [i for i in index if type(i) is not int]
            if {*used} == {i for i in own if type(i) is not int} and len(used) == len(sizes):
                return all(
                    type(i) is int or i.high + 1 == _high(n) for i, n in zip(index, node.shape, strict=True)
                )
        head, at = next(iter(draft.outputs.items()))
        return flat_index(index, node.shape) == flat_index(at, head.shape)

    def join(self, wants: dict[Draft, dict[Place, None]]) -> dict[Draft, dict[Place, None]]:
        """Make one kernel of those over the same axes that want the same element."""
        kept: dict[Draft, dict[Place, None]] = {}
        for draft, places in wants.items():
            for other in list(kept)[-MOST_STORES:]:
                if self.may_join(other, draft) and any(
                    a.index == b.index for a in kept[other] for b in places
                ):
                    self.absorb(other, draft)
                    kept[other].update(places)
                    break
            else:
                kept[draft] = places
        return kept

    def may_join(self, a: Draft, b: Draft) -> bool:
        return (
            a.sizes == b.sizes
            and a.device == b.device
            and not (a.alone or b.alone)
            and a.contraction is None
            and b.contraction is None
            and not (a.after >> b.number & 1 or b.after >> a.number & 1)
            and len(a.outputs) + len(b.outputs) <= MOST_STORES
            and len(a.loads) + len(b.loads) <= MOST_BUFFERS
        )

    def absorb(self, draft: Draft, other: Draft) -> None:
        """What `other` stores and wants is `draft`'s."""
        draft.outputs |= other.outputs
        draft.loads |= other.loads
        draft.reduces |= other.reduces
        draft.operations += other.operations
        del self.drafts[other.number]
        draft.after |= other.after
        bits = 1 << draft.number | 1 << other.number
        for each in self.drafts.values():
            if each.after & bits:
                each.after |= bits | draft.after
        other.part_of = draft

    def written_over(self) -> dict[Node, Node]:
        """The donated inputs that roots can be written over, as far as the order of kernels goes."""
        over: dict[Node, Node] = {}
        makers = {node: draft for draft in self.drafts.values() for node in draft.outputs}
        for root, given in self.donate.items():
            like = root.dtype is given.dtype and root.device == given.device
            if not like or prod(root.shape) != prod(given.shape) or root not in makers or given in self.must:
                continue
            draft = makers[root]
            readers = [each for each in self.drafts.values() if given in each.loads and each is not draft]
            if given in over.values() or any(draft.after >> each.number & 1 for each in readers):
                continue
            for each in readers:
                self.order_before(each, draft.after | 1 << draft.number)
            draft.waits += readers
            over[root] = given
        return over

    def in_order(self) -> list[Draft]:
        """The drafts, those that others wait for first."""
        return sorted(self.drafts.values(), key=lambda draft: (-bin(draft.after).count("1"), -draft.number))


def _own_cost(node: Node) -> float:
    return 0 if node.op.name in FREE else _COSTS.get(node.op.name, 1)


def _is_reduced(node: Node, users: Mapping[Node, Sequence[Node]]) -> bool:
    """Whether a reduction reads a node, which then is wanted at another index, too."""
    return any(
        user.op.name == "reduce" or (user.op.name in FREE and _is_reduced(user, users))
        for user in users.get(node, ())
    )


def _high(size: SymInt) -> int:
    return size if type(size) is int else size.high
