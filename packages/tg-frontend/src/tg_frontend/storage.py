"""What a tensor's value is, and how writing through a view changes it.

A `Storage` holds the current value of a base tensor as a node of the tensor graph. Views hold the storage and the
steps that lead from the base to them, so all of them see a write at once; and since graphs are pure, whatever was
built from the old value before the write still means the old value. That is the whole of aliasing.

A leaf that requires a gradient is a pending or filled `buffer` node: those are unique, so that two parameters with
equal initial values stay two, and gradients end there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from tg_frontend.engine import current_engine
from tg_ir import graph
from tg_ir.errors import ShapeError
from tg_ir.graph import Node
from tg_ir.symbolic import prod

if TYPE_CHECKING:
    from tg_frontend.core import Tensor
    from tg_frontend.random import Generator
    from tg_ir.protocols import Buffer

__all__ = [
    "Observer",
    "Step",
    "Storage",
    "apply_steps",
    "detached",
    "leaves",
    "mode",
    "realize_storages",
    "write_through",
]

Step = Callable[[Node], Node]
"""From a view's base to the view: made of movement operations only."""


class Observer(Protocol):
    """Who captures a step learns what the step does. Nothing is evaluated meanwhile: `realize` does nothing."""

    def read(self, tensor: Tensor) -> None:
        """The value of a tensor is about to be built upon."""

    def made(self, storage: Storage) -> None:
        """A storage was made."""

    def drew(self, generator: Generator, key: Node) -> None:
        """A draw took this key: to draw again, give the buffer node another `next_key()` of the generator."""

    def asked(self) -> None:
        """Values are asked for, and there are none: raises."""


class _Mode(threading.local):
    """What holds for this thread: whether gradients are recorded, what the next evaluation computes as well, and who
    observes."""

    def __init__(self) -> None:
        self.grad_enabled = True
        self.observer: Observer | None = None
        # A dictionary for its order: steps alike give graphs alike.
        self.together: weakref.WeakKeyDictionary[Storage, None] = weakref.WeakKeyDictionary()


mode = _Mode()

leaves: weakref.WeakKeyDictionary[Node, weakref.ref[Tensor]] = weakref.WeakKeyDictionary()
"""The tensor whose `.grad` a leaf's gradient is added to."""


class Storage:
    """The value that a base tensor and all its views share.

    `owner` is the base tensor while it lives. `together` puts the storage among those that the next evaluation
    computes as well: leaves, results of writes in place, and losses after `backward`; so that effects happen in order,
    histories end, and nothing is computed twice.
    """

    __slots__ = ("__weakref__", "_alias", "leaf", "node", "owner", "requires_grad")

    def __init__(self, node: Node, requires_grad: bool = False):
        self.node, self.requires_grad, self.leaf = node, requires_grad, False
        self.owner: weakref.ref[Tensor] | None = None
        self._alias: tuple[Node, Node] | None = None
        if mode.observer is not None:
            mode.observer.made(self)

    def together(self) -> None:
        """Have the next evaluation compute this, too."""
        if self.node.value is None:
            mode.together[self] = None

    def alias(self) -> Node:
        """The value without its history."""
        if self._alias is None or self._alias[0] is not self.node:
            self._alias = (self.node, detached(self.node))
        return self._alias[1]

    def settle(self) -> None:
        """After evaluation: forget how the value was computed, unless gradients may want to know."""
        node = self.node
        if node.value is not None and not self.requires_grad and node.op.name != "buffer":
            self.node = graph.buffer(node.shape, node.dtype, node.device)
            self.node.fill(node.value)

    def hold(self, buffer: Buffer, shape: graph.Shape) -> None:
        """Take the buffer as the value, without a history."""
        self.node = graph.buffer(shape, buffer.dtype, buffer.device)
        self.node.fill(buffer)
        self._alias = None
        owner = self.owner() if self.owner else None
        if self.leaf and owner is not None:
            leaves[self.node] = weakref.ref(owner)
        self.requires_grad = self.leaf


def detached(node: Node) -> Node:
    """The same value, through which no gradient flows."""
    if node.value is not None:
        alias = graph.buffer(node.shape, node.dtype, node.device)
        alias.fill(node.value)
        return alias
    return graph.buffer(node.shape, node.dtype, node.device, source=node)


def apply_steps(node: Node, steps: Iterable[Step]) -> Node:
    """The view of `node` that the steps lead to."""
    for step in steps:
        node = step(node)
    return node


def realize_storages(nodes: list[Node]) -> None:
    """Evaluate `nodes`, and all that waits to be evaluated together with the next ones."""
    storages = list(mode.together)
    mode.together.clear()
    current_engine().realize(list(dict.fromkeys([*nodes, *[storage.node for storage in storages]])))
    for storage in storages:
        storage.settle()


def write_through(base: Node, steps: tuple[Step, ...], value: Node) -> Node:
    """`base` after its view (`steps`) was set to `value`.

    Reshapes, permutes, shrinks and flips are undone one by one, so that the write is one box; any other view finds
    where its elements come from by viewing the indices of the base, and scatters.
    """
    if not steps:
        return value
    *outer, last = steps
    before = apply_steps(base, outer)
    probe = graph.buffer(before.shape, before.dtype, before.device)
    view = last(probe)
    if view is probe:
        return write_through(base, tuple(outer), value)
    if view.op.name in _INVERSES and view.inputs == (probe,):
        return write_through(base, tuple(outer), _INVERSES[view.op.name](view, before, value))
    count = prod(base.shape)
    index = apply_steps(graph.reshape(graph.iota(count, device=base.device), base.shape), steps)
    if _repeats(index):
        raise ShapeError(
            f"write: elements of the view {tuple(view.shape)} share memory of {tuple(base.shape)}, as after expand; "
            "write to a .clone() or to the base"
        )
    written = (prod(index.shape),)
    flat = graph.reshape(base, (count,))
    flat = graph.scatter(flat, graph.reshape(index, written), graph.reshape(value, written), 0)
    return graph.reshape(flat, base.shape)


def _repeats(index: Node) -> bool:
    """Whether the view reads an element more than once: only expand and overlapping windows can do that."""
    for node in graph.toposort([index]):
        if node.op.name == "expand" and prod(node.shape) != prod(node.inputs[0].shape):
            return True
        if node.op.name == "window":
            overlap = node["stride"] < node["dilation"] * (node["size"] - 1) + 1
            if overlap and node.shape[node["axis"]] != 1:
                return True
    return False


def _unpermute(view: Node, before: Node, value: Node) -> Node:
    order = view["order"]
    return graph.permute(value, [order.index(axis) for axis in range(len(order))])


_INVERSES: dict[str, Callable[[Node, Node, Node], Node]] = {
    "reshape": lambda view, before, value: graph.reshape(value, before.shape),
    "permute": _unpermute,
    "shrink": lambda view, before, value: graph.assign(before, value, [start for start, _ in view["limits"]]),
    "flip": lambda view, before, value: graph.flip(value, view["axes"]),
}
