"""Bring a graph into the form that is scheduled and cached: only what matters to the program is left in it.

*before*: filled buffers anywhere in the graph, pending buffers, variables that carry values.
*after*: numbered input buffers, no pending ones, variables without values.

The numbered inputs come from a pool, so that two graphs of one form become the very same nodes: the program for a
second identical step is found by comparing references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tg_ir import graph
from tg_ir.errors import EvaluationError, SymbolicError
from tg_ir.graph import Node
from tg_ir.graph.nodes import Attr
from tg_ir.protocols import Buffer
from tg_ir.symbolic import Expr, SymInt, Var, substitute, variables

__all__ = ["Normalized", "normalize"]

_pool: dict[tuple[object, ...], Node] = {}


@dataclass(frozen=True, slots=True)
class Normalized:
    """The graph, the buffers that its inputs stand for, and the values of its variables."""

    roots: tuple[Node, ...]
    inputs: tuple[Node, ...]
    buffers: tuple[Buffer, ...]
    scalars: dict[str, int]


def _input(number: int, shape: graph.Shape, node: Node) -> Node:
    key = (number, shape, node.dtype, node.device)
    if key not in _pool:
        _pool[key] = graph.buffer(shape, node.dtype, node.device, name=f"in{number}")
    return _pool[key]


class _Variables:
    """Variables without their values: one name for each name and value."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.plain: dict[Expr, SymInt] = {}

    def strip(self, expr: SymInt) -> SymInt:
        if type(expr) is int:
            return expr
        for var in variables(expr):
            if var not in self.plain:
                self.plain[var] = self._plain(var)
        return substitute(expr, self.plain)

    def _plain(self, var: Var) -> Var:
        name, count = var.name, 0
        if var.value is None:
            return var
        while self.values.get(name, var.value) != var.value:
            count += 1
            name = f"{var.name}_{count}"
        self.values[name] = var.value
        return Var(name, var.low, var.high)

    def attr(self, attr: Attr) -> Attr:
        if isinstance(attr, Expr):
            return self.strip(attr)
        return tuple([self.attr(item) for item in attr]) if isinstance(attr, tuple) else attr


def normalize(roots: Sequence[Node]) -> Normalized:
    """The normal form of the graph that `roots` reach.

    Raises:
        EvaluationError: a buffer was never filled.
        SymbolicError: two variables of one name have different bounds.
    """
    names = _Variables()
    inputs: dict[int, Node] = {}
    buffers: list[Buffer] = []
    new: dict[Node, Node] = {}
    for node in graph.toposort(roots, into=lambda node: node.value is None):
        if node.value is not None:
            key = id(node.value)
            if key not in inputs:
                shape = tuple([names.strip(dim) for dim in node.shape])
                inputs[key] = _input(len(buffers), shape, node)
                buffers.append(node.value)
            new[node] = graph.reshape(inputs[key], tuple([names.strip(dim) for dim in node.shape]))
        elif node.op.name == "buffer":
            if not node.inputs:
                raise EvaluationError(
                    f"buffer {node['name']!r}: {node!r} was never filled; give it a value first"
                )
            new[node] = new[node.inputs[0]]
        elif node.op.name == "const":
            new[node] = node
        else:
            attrs = tuple([names.attr(attr) for attr in node.attrs])
            new[node] = graph.make(node.op, tuple([new[source] for source in node.inputs]), attrs)
    bounds: dict[str, Var] = {}
    for var in names.plain.values():
        if isinstance(var, Var) and bounds.setdefault(var.name, var) is not var:
            raise SymbolicError(f"variable {var.name!r}: two of that name with different bounds; rename one")
    return Normalized(
        tuple([new[root] for root in roots]), tuple(inputs.values()), tuple(buffers), names.values
    )
