"""The tensor graph: what the frontend writes and the scheduler reads.

A node is an operation applied to nodes: immutable, slotted, and interned, so that equal expressions are one object and
comparing two graphs is comparing two references. Its shape is a tuple of ints and symbolic integers, and with its
dtype and device it follows from the inputs by the one rule that stands beside the operation's name in ops.py.

A `buffer` node alone has an identity of its own (it is never interned): it stands for memory. It is either filled
(`value` is set) or *pending*: its one input is the graph that computes its contents. Once those are computed, `fill`
sets the value and drops the input, so that history does not pile up. Any other node may have its `value` set too, as a
cache of its result: that never changes what the node means, only spares computing it again.

Graphs are pure: nothing ever writes to a buffer. `assign` is the value of a tensor after a box of it was replaced;
whether that happens in place is for the scheduler and the engine to find out.

Indices outside [0, n) of `gather` and `scatter` are a broken contract: interpreters raise, compiled code reads 0 and
drops the write, and never touches memory out of bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tg_ir.dtypes import DType
from tg_ir.elementwise import ELEMENTWISE
from tg_ir.interning import Interner
from tg_ir.symbolic import SymInt

if TYPE_CHECKING:
    from tg_ir.protocols import Buffer

__all__ = [
    "ATTRIBUTES",
    "Attr",
    "Node",
    "Op",
    "Rule",
    "Shape",
    "Type",
    "format_shape",
    "make",
    "toposort",
]

Shape = tuple[SymInt, ...]
Attr = SymInt | float | bool | str | DType | tuple[SymInt, ...] | tuple[tuple[SymInt, SymInt], ...]

ATTRIBUTES = {
    "axes": "ints",
    "axis": "int",
    "descending": "bool",
    "device": "str",
    "dilation": "int",
    "dtype": "dtype",
    "kind": "str",
    "length": "dim",
    "limits": "pairs",
    "name": "str",
    "offsets": "dims",
    "order": "ints",
    "shape": "dims",
    "size": "dim",
    "stride": "int",
    "value": "scalar",
    "widths": "pairs",
}
"""The type of each attribute by its name: it has one meaning in every operation. A dim is an int or symbolic."""


class Op:
    """An operation: its name, number of inputs (-1: one or more), attribute names, and the rule for its type."""

    __slots__ = ("arity", "attrs", "doc", "elementwise", "name", "positions", "rule")

    def __init__(self, name: str, arity: int, attrs: tuple[str, ...], rule: Rule, doc: str = ""):
        self.name, self.arity, self.attrs, self.rule, self.doc = name, arity, attrs, rule, doc
        self.positions = {attr: position for position, attr in enumerate(attrs)}
        self.elementwise = name in ELEMENTWISE

    def __repr__(self) -> str:
        return self.name


class Node:
    """One operation applied to nodes. Make it with the functions of `tg_ir.graph`, which intern."""

    __slots__ = ("__weakref__", "attrs", "device", "dtype", "inputs", "op", "shape", "value")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Node, ...],
        attrs: tuple[Attr, ...],
        shape: Shape,
        dtype: DType,
        device: str,
    ):
        self.op, self.inputs, self.attrs = op, inputs, attrs
        self.shape, self.dtype, self.device = shape, dtype, device
        self.value: Buffer | None = None

    def __getitem__(self, attr: str) -> Attr:
        """The attribute of that name."""
        return self.attrs[self.op.positions[attr]]

    def __repr__(self) -> str:
        dims = ", ".join(map(str, self.shape))
        return f"<{self.op.name} {self.dtype}[{dims}] on {self.device}>"

    def fill(self, value: Buffer) -> None:
        """Record the buffer that holds this node's result; a pending buffer lets go of its history."""
        self.value = value
        if self.op.name == "buffer":
            self.inputs = ()


_interned: Interner[Node] = Interner()

Type = tuple[Shape, DType, str]
Rule = Callable[[tuple[Node, ...], tuple[Attr, ...]], Type]


def make(
    op: Op, inputs: tuple[Node, ...], attrs: tuple[Attr, ...] = (), key: tuple[Attr, ...] | None = None
) -> Node:
    """The node `op(inputs){attrs}`: the one that exists, or a new one whose type follows from the operation's rule.

    `key` stands in for `attrs` where those do not compare as they should (-0.0 == 0.0, NaN != NaN).

    Raises:
        ShapeError, DTypeError, DeviceError: the rule of the operation does not hold.
    """
    entry = (op, inputs, attrs if key is None else key)
    node = _interned.find(entry)
    if node is None:
        node = _interned.add(entry, Node(op, inputs, attrs, *op.rule(inputs, attrs)))
    return node


def toposort(roots: Iterable[Node], into: Callable[[Node], bool] | None = None) -> list[Node]:
    """All nodes that the roots reach, inputs before users; `into(node)` False keeps out of a node's inputs."""
    order: list[Node] = []
    done: set[Node] = set()
    stack: list[tuple[Node, Iterator[Node]]] = []
    for root in roots:
        if root in done:
            continue
        done.add(root)
        stack.append((root, iter(root.inputs if into is None or into(root) else ())))
        while stack:
            node, rest = stack[-1]
            for child in rest:
                if child not in done:
                    done.add(child)
                    stack.append((child, iter(child.inputs if into is None or into(child) else ())))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def format_shape(shape: Sequence[SymInt]) -> str:
    """The shape as Python writes a tuple."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
