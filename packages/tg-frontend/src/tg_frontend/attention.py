"""Scaled dot-product attention."""

from __future__ import annotations

import math

from tg_frontend.contraction import contract, widened
from tg_frontend.core import Tensor, broadcast_shapes
from tg_frontend.elementwise import where
from tg_ir import graph
from tg_ir.dtypes import bool_, int64
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import format_shape
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
    groups = 1
    if enable_gqa:
        if (
            min(self.ndim, key.ndim, value.ndim) < 3
            or self.shape[-3] % key.shape[-3]
            or key.shape[-3] != value.shape[-3]
        ):
            raise ShapeError(
                f"{name}: the heads of key and value do not divide those of query, shapes {shapes}"
            )
        groups = self.shape[-3] // key.shape[-3]
    if groups > 1:
        q = graph.reshape(q, (*self.shape[:-3], key.shape[-3], groups, *self.shape[-2:]))
        k, v = [graph.reshape(each, (*each.shape[:-2], 1, *each.shape[-2:])) for each in (k, v)]
    factor = 1 / math.sqrt(max(self.shape[-1], 1)) if scale is None else scale
    q = graph.apply("mul", q, graph.expand(graph.const(factor, q.dtype, q.device), q.shape))
    lead = max(len(node.shape) for node in (q, k, v)) - 2
    at = lambda node, *last: [*range(lead + 2 - len(node.shape), lead), *last]  # noqa: E731
    scores = contract(name, q, at(q, "l", "e"), k, at(k, "s", "e"), [*range(lead), "l", "s"])
    weights = Tensor.from_node(scores, self, key)
    if is_causal:
        weights = where(_causal(*scores.shape[-2:], self.device), weights, -math.inf)
    if attn_mask is not None:
        weights = _masked(name, weights, attn_mask, groups)
    if not is_zero(scores.shape[-1]):
        weights = _safe_softmax(weights) if attn_mask is not None else weights.softmax(-1)
    if dropout_p:
        weights = weights.dropout(dropout_p)
    result = contract(name, weights.node, at(scores, "l", "s"), v, at(v, "s", "v"), [*range(lead), "l", "v"])
    if groups > 1:
        result = graph.reshape(result, (*result.shape[:-4], self.shape[-3], *result.shape[-2:]))
    return Tensor.from_node(graph.cast(result, dtype), weights, value)


def is_zero(size: SymInt) -> bool:
    """Whether a size is known to be 0."""
    return isinstance(size, int) and size == 0


def _equal(a: SymInt, b: SymInt) -> bool:
    return a == b or prove_equal(a, b)


def _causal(queries: SymInt, keys: SymInt, device: str) -> Tensor:
    row = graph.expand(graph.reshape(graph.iota(queries, int64, device), (queries, 1)), (queries, keys))
    return Tensor.from_node(graph.apply("le", graph.expand(graph.iota(keys, int64, device), row.shape), row))


def _masked(name: str, scores: Tensor, mask: Tensor, groups: int) -> Tensor:
    """The scores with a mask of bools or floats applied; with groups, scores are (.., H/g, g, L, S)."""
    if groups > 1 and mask.ndim > 2:
        heads = (1, 1) if mask.shape[-3] == 1 else (scores.shape[-4], groups)
        mask = mask.reshape(*mask.shape[:-3], *heads, *mask.shape[-2:])
    if broadcast_shapes(name, mask.shape, scores.shape) != scores.shape:
        raise ShapeError(
            f"{name}: attn_mask {format_shape(mask.shape)} for scores {format_shape(scores.shape)}"
        )
    if mask.dtype is bool_:
        return where(mask, scores, -math.inf)
    if not mask.dtype.is_float:
        raise DTypeError(f"{name}: attn_mask is {mask.dtype}, want bool or a float dtype")
    return scores + mask.to(scores.dtype)


def _safe_softmax(scores: Tensor) -> Tensor:
    """The softmax of the last axis; zeros where every score is -inf."""
    none = scores.detach().amax(-1, True) == -math.inf
    return where(none, 0.0, where(none, 0.0, scores).softmax(-1))
