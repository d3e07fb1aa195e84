"""The verifier of the tensor graph: every node is what the rule of its operation says."""

from __future__ import annotations

from collections.abc import Sequence

from tg_ir.dtypes import DType
from tg_ir.errors import TgError, VerifyError
from tg_ir.graph.nodes import ATTRIBUTES, Attr, Node, toposort
from tg_ir.graph.ops import BUFFER, OPS
from tg_ir.symbolic import Expr

__all__ = ["verify_graph"]


def _is_dim(value: Attr) -> bool:
    return isinstance(value, Expr) or type(value) is int


_TYPES = {
    "bool": lambda value: type(value) is bool,
    "dim": _is_dim,
    "dims": lambda value: type(value) is tuple and all(map(_is_dim, value)),
    "dtype": lambda value: isinstance(value, DType),
    "int": lambda value: type(value) is int,
    "ints": lambda value: type(value) is tuple and all(type(item) is int for item in value),
    "pairs": lambda value: (
        type(value) is tuple and all(len(pair) == 2 and all(map(_is_dim, pair)) for pair in value)
    ),
    "scalar": lambda value: type(value) in (bool, int, float),
    "str": lambda value: type(value) is str,
}


def verify_graph(roots: Sequence[Node], made_by: str = "the caller") -> None:
    """Check every node that `roots` reach.

    Raises:
        VerifyError: it names the node by its number in `format_graph`, what is wrong, and `made_by`, the last pass.
    """
    for number, node in enumerate(toposort(roots)):
        problem = _problem(node)
        if problem:
            raise VerifyError(f"%{number} = {node.op.name}: {problem}; the graph comes from {made_by}")


def _problem(node: Node) -> str | None:
    op = node.op
    if OPS.get(op.name) is not op:
        return "no operation of the tensor graph"
    if op.arity not in (-1, len(node.inputs)):
        return f"{len(node.inputs)} inputs, want {op.arity}"
    if len(node.attrs) != len(op.attrs):
        return f"{len(node.attrs)} attributes, want {len(op.attrs)}: {', '.join(op.attrs)}"
    for name, attr in zip(op.attrs, node.attrs, strict=True):
        if not _TYPES[ATTRIBUTES[name]](attr):
            return f"attribute {name} is {attr!r}, want a value of kind {ATTRIBUTES[name]!r}"
    if not _TYPES["dims"](node.shape) or any(type(dim) is int and dim < 0 for dim in node.shape):
        return f"shape {node.shape!r}, want a tuple of integers >= 0 or symbolic integers"
    have = (node.shape, node.dtype, node.device)
    if node.value is not None and (node.value.dtype, node.value.device) != (node.dtype, node.device):
        return f"its value is {node.value!r}, want {node!r}"
    if op is BUFFER:
        if len(node.inputs) > 1 or (node.inputs and node.value is not None):
            return "a buffer is either filled or has the one graph of its contents"
        want = [(source.shape, source.dtype, source.device) for source in node.inputs]
        return f"it is {node!r} and its contents {node.inputs[0]!r}" if want and want[0] != have else None
    if op.arity == -1 and not node.inputs:
        return "no inputs, want one or more"
    try:
        want = op.rule(node.inputs, node.attrs)
    except TgError as error:
        return str(error)
    return None if want == have else f"its type is {have}, the rule of the operation gives {want}"
