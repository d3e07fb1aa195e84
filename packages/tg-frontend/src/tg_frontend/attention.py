"""Scaled dot-product attention."""

from __future__ import annotations

import math

from tg_frontend.contraction import contract, wide_dtype, widened
from tg_frontend.core import Tensor, broadcast_shapes
from tg_ir import graph
from tg_ir.dtypes import bool_, int64
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import Node, format_shape
from tg_ir.symbolic import SymInt, prove_equal

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    self: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(query @ key.T * scale + mask) @ value, computed in float32 for narrower floats.

    Args:
        attn_mask: of bools, True where a key takes part; or of floats, added to the scores. It broadcasts.
        dropout_p: the share of the probabilities that is dropped, always, as in PyTorch.
        is_causal: query i sees the keys 0 to i, counted from the first query and the first key.
        scale: 1 / sqrt(E) when not given.
        enable_gqa: each key and value head serves several query heads, one after the other.

    Shapes: query (.., H, L, E), key (.., H or H/g, S, E), value (.., H or H/g, S, V) give (.., H, L, V). S may be
        symbolic. A query that sees no key gives zeros.
    """
    name = "scaled_dot_product_attention"
    shapes = ", ".join(format_shape(tensor.shape) for tensor in (self, key, value))
    if min(self.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(f"{name}: got shapes {shapes}, want (.., length, features)")
    if is_causal and attn_mask is not None:
        raise ShapeError(f"{name}: got attn_mask and is_causal; want one, put the causal part into the mask")
    if self.shape[-1] != key.shape[-1] or not _equal(key.shape[-2], value.shape[-2]):
        raise ShapeError(f"{name}: query, key and value do not fit together, shapes {shapes}")
    if not self.dtype.is_float:
        raise DTypeError(f"{name}: got {self.dtype} tensors, want floats")
    (q, k, v), dtype = widened(name, self, key, value)
    if enable_gqa:
        if min(self.ndim, key.ndim, value.ndim) < 3 or self.shape[-3] % key.shape[-3] or key.shape[-3] != value.shape[-3]:
            raise ShapeError(f"{name}: the heads of key and value do not divide those of query, shapes {shapes}")
        groups = self.shape[-3] // key.shape[-3]
        q = graph.reshape(q, (*self.shape[:-3], key.shape[-3], groups, *self.shape[-2:]))
        k, v = [graph.reshape(each, (*each.shape[:-2], 1, *each.shape[-2:])) for each in (k, v)]
    q = graph.apply("mul", q, _full(1 / math.sqrt(max(self.shape[-1], 1)) if scale is None else scale, q))
    lead = max(len(node.shape) for node in (q, k, v)) - 2
    at = lambda node, *last: [*range(lead + 2 - len(node.shape), lead), *last]  # noqa: E731
    scores = contract(name, q, at(q, "l", "e"), k, at(k, "s", "e"), [*range(lead), "l", "s"])
    if is_causal:
        attn_mask = _causal(scores.shape[-2], scores.shape[-1], self.device)
    parents = [self, key, value]
    if attn_mask is not None:
        mask = attn_mask.node
        if broadcast_shapes(name, mask.shape, (*q.shape[: -2], *scores.shape[-2:]) if not enable_gqa else
                            (*self.shape[:-1], scores.shape[-1])) != (*self.shape[:-1], scores.shape[-1]):  # fmt: skip
            raise ShapeError(f"{name}: attn_mask {format_shape(mask.shape)} does not broadcast to the scores")
        if enable_gqa and len(mask.shape) >= 3:
            heads = (key.shape[-3], groups) if mask.shape[-3] != 1 else (1, 1)
            mask = graph.reshape(mask, (*mask.shape[:-3], *heads, *mask.shape[-2:]))
        parents.append(attn_mask)
        if mask.dtype is bool_:
            scores = graph.apply("where", graph.expand(mask, scores.shape), scores, _full(-math.inf, scores))
        elif mask.dtype.is_float:
            scores = graph.apply("add", scores, graph.expand(graph.cast(mask, scores.dtype), scores.shape))
        else:
            raise DTypeError(f"{name}: attn_mask is {mask.dtype}, want bool or a float dtype")
    weights = Tensor.from_node(_softmax(scores), *parents)
    if dropout_p:
        weights = weights.dropout(dropout_p)
    result = contract(name, weights.node, at(scores, "l", "s"), v, at(v, "s", "v"), [*range(lead), "l", "v"])
    if enable_gqa:
        result = graph.reshape(result, (*result.shape[:-4], self.shape[-3], *result.shape[-2:]))
    return Tensor.from_node(graph.cast(result, dtype), *parents)


def _equal(a: SymInt, b: SymInt) -> bool:
    return a == b or prove_equal(a, b)


def _full(value: float, like: Node) -> Node:
    return graph.expand(graph.const(value, like.dtype, like.device), like.shape)


def _causal(queries: SymInt, keys: SymInt, device: str) -> Tensor:
    row = graph.reshape(graph.iota(queries, int64, device), (queries, 1))
    shape = (queries, keys)
    return Tensor.from_node(graph.apply("le", graph.expand(graph.iota(keys, int64, device), shape), graph.expand(row, shape)))


def _softmax(scores: Node) -> Node:
    """The softmax of the last axis; zeros where every score is -inf, and where there are none."""
    axis = len(scores.shape) - 1
    if scores.shape[axis] == 0:
        return scores
    row = (*scores.shape[:-1], 1)
    highest = graph.reduce(scores, "max", [axis])
    none = graph.apply("eq", highest, _full(-math.inf, highest))
    shift = graph.apply("where", none, _full(0.0, highest), highest)
    shift = graph.expand(graph.reshape(graph.buffer(shift.shape, shift.dtype, shift.device, source=shift), row), scores.shape)
    powers = graph.apply("exp", graph.apply("sub", scores, shift))
    total = graph.reduce(powers, "sum", [axis])
    total = graph.apply("where", none, _full(1.0, total), total)
    return graph.apply("div", powers, graph.expand(graph.reshape(total, row), scores.shape))
