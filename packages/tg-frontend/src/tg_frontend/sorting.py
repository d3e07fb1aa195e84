"""Sorting, and what it makes cheap: order, unique elements, binary search, counts.

NaN counts as the greatest. All sorts are stable, whether asked to be or not.
"""

from __future__ import annotations

from tg_frontend import elementwise as e
from tg_frontend.core import Scalar, Tensor, promote
from tg_frontend.indexing import flat_nonzero, get_item
from tg_frontend.joining import cat
from tg_frontend.movement import flatten, movedim, reshape
from tg_frontend.reductions import Selected, along, amax, amin, any, chosen
from tg_ir import graph
from tg_ir.dtypes import bool_, float64, int32, int64
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import Node, format_shape
from tg_ir.symbolic import SymInt, bounds, prove_le

__all__ = [
    "argsort", "bincount", "bucketize", "histc", "isin", "kthvalue", "msort", "searchsorted", "sort", "topk",
    "unique", "unique_consecutive",
]  # fmt: skip


# ---- order ------------------------------------------------------------------------------------------------------


def _slice(node: Node, axis: int, start: SymInt, stop: SymInt) -> Node:
    return graph.shrink(node, [(start, stop) if i == axis else (0, n) for i, n in enumerate(node.shape)])


def sort(self: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Selected:
    """The elements in order along `dim`, and where each of them was."""
    node, axis = along("sort", self, dim)
    return chosen(self, node, graph.argsort(node, axis, descending), axis, None)


def argsort(self: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along `dim`."""
    node, axis = along("argsort", self, dim)
    return Tensor.from_node(graph.reshape(graph.argsort(node, axis, descending), self.shape))


def msort(self: Tensor) -> Tensor:
    """The elements in order along dimension 0."""
    return sort(self, 0).values


def topk(self: Tensor, k: SymInt, dim: int = -1, largest: bool = True, sorted: bool = True) -> Selected:
    """The `k` greatest (or least) elements along `dim` in order, and where they are."""
    node, axis = along("topk", self, dim)
    size = node.shape[axis]
    if not (prove_le(0, k) and prove_le(k, size)):
        raise ShapeError(f"topk: got k {k}, want 0 to {size}, the size of dimension {dim}")
    if not self.ndim and k != 1:
        raise ShapeError(f"topk: got k {k} of a scalar (), want 1")
    order = graph.argsort(node, axis, largest)
    return chosen(self, node, _slice(order, axis, 0, k), axis, None)


def kthvalue(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Selected:
    """The `k`-th least element along `dim`, counted from 1, and where it is."""
    node, axis = along("kthvalue", self, dim)
    size = node.shape[axis]
    if not (prove_le(1, k) and prove_le(k, size)):
        raise ShapeError(f"kthvalue: got k {k}, want 1 to {size}, the size of dimension {dim}")
    return chosen(self, node, _slice(graph.argsort(node, axis), axis, k - 1, k), axis, keepdim)


# ---- unique elements --------------------------------------------------------------------------------------------


def _lexical_order(rows: Tensor) -> Tensor:
    """The order of the rows: a stable sort by each column, the first one last."""
    order: Tensor | None = None
    for column in reversed(range(int(rows.shape[1]))):
        key = rows[:, column] if order is None else rows[:, column][order]
        by_key = argsort(key, 0)
        order = by_key if order is None else order[by_key]
    return Tensor.from_node(graph.iota(rows.shape[0], int64, rows.device)) if order is None else order


def _runs(
    name: str, self: Tensor, in_order: bool, return_inverse: bool, return_counts: bool, dim: int | None
) -> Tensor | tuple[Tensor, ...]:
    """What stands at the start of each run of equal rows, after sorting them unless they are `in_order` already."""
    axis = 0 if dim is None else along(name, self, dim)[1]
    slices = flatten(self) if dim is None else movedim(self, axis, 0)
    count = slices.shape[0]
    rows = reshape(slices, count, slices.numel() // count if count != 0 else 0)
    order = None if in_order else _lexical_order(rows)
    ranked = rows if order is None else rows[order]
    starts = any(e.ne(ranked[1:], ranked[:-1]), 1)
    starts = cat([Tensor(True, bool_, self.device).expand(min(count, 1)), starts]) if count != 0 else starts
    first = flat_nonzero(starts)
    picked = slices[first if order is None else order[first]]
    results = [picked if dim is None else movedim(picked, 0, axis)]
    if return_inverse:
        group = e.sub(starts.cumsum(0), 1)
        if order is not None:
            group = Tensor.from_node(graph.scatter(order.node, order.node, group.node, 0))
        results.append(reshape(group, self.shape) if dim is None else group)
    if return_counts:
        ends = cat([first[1:], Tensor([count], int64, self.device)]) if count != 0 else first
        results.append(e.sub(ends, first))
    return results[0] if len(results) == 1 else tuple(results)


def unique(
    self: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """The different elements in order, where each element is among them, and how often they occur.

    With `dim`, of the slices along it; the graph grows with the number of elements in a slice. Evaluates the tensor.
    """
    return _runs("unique", self, False, return_inverse, return_counts, dim)


def unique_consecutive(
    self: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Tensor | tuple[Tensor, ...]:
    """Runs of equal elements as one each, the run of each element, and how long they are. Evaluates the tensor."""
    return _runs("unique_consecutive", self, True, return_inverse, return_counts, dim)


# ---- binary search ----------------------------------------------------------------------------------------------


def searchsorted(
    self: Tensor,
    values: Tensor | Scalar,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each value goes in this sorted sequence: before equal elements, or after them if `right`.

    Shapes:
        A vector and values of any shape; or (.., n) and (.., m) with equal leading dimensions, row by row.

    The place is found bit by bit, from the highest: each step is one gather.
    """
    if side not in (None, "left", "right"):
        raise TgError(f"searchsorted: got side {side!r}, want 'left' or 'right'")
    if not self.ndim:
        raise ShapeError("searchsorted: the sequence is a scalar (), want at least 1 dimension")
    right = right or side == "right"
    sequence = self if sorter is None else self.gather(-1, sorter)
    (sequence, wanted), dtype = promote("searchsorted", sequence, values)
    shape = wanted.shape
    if self.ndim == 1:
        wanted = flatten(wanted)
    elif wanted.shape[:-1] != sequence.shape[:-1]:
        raise ShapeError(
            f"searchsorted: the sequence has shape {format_shape(self.shape)}, the values {format_shape(shape)}; "
            "want equal leading dimensions, or a vector"
        )
    sequence, wanted = sequence.to(dtype), wanted.to(dtype)
    axis, size = sequence.ndim - 1, sequence.shape[-1]
    place = Tensor(0, int64, self.device).expand(wanted.shape)
    for bit in reversed(range(int(bounds(size)[1]).bit_length())):
        further = e.add(place, 1 << bit)
        inside = e.minimum(further, size) - 1
        passed = Tensor.from_node(graph.gather(sequence.node, inside.node, axis))
        stays = e.lt(wanted, passed) if right else e.le(wanted, passed)
        if dtype.is_float:
            stays = e.logical_or(
                stays, e.logical_and(e.isnan(passed), e.eq(wanted, wanted) if right else True)
            )
        place = e.where(e.logical_or(stays, e.gt(further, size)), place, further)
    return reshape(place, shape).to(int32 if out_int32 else int64)


def bucketize(
    self: Tensor | Scalar, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The number of the interval between `boundaries` that each element falls in; see `searchsorted`."""
    if boundaries.ndim != 1:
        raise ShapeError(
            f"bucketize: the boundaries have shape {format_shape(boundaries.shape)}, want a vector"
        )
    return searchsorted(boundaries, self, out_int32=out_int32, right=right)


def isin(
    self: Tensor, test_elements: Tensor | Scalar, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each element is among `test_elements`."""
    (elements, tests), dtype = promote("isin", self, test_elements)
    elements, known = elements.to(dtype), sort(flatten(tests.to(dtype)), 0).values
    if known.shape[0] == 0:
        return Tensor(invert, bool_, elements.device).expand(elements.shape).clone()
    place = e.minimum(searchsorted(known, elements), known.shape[0] - 1)
    return (e.ne if invert else e.eq)(get_item(known, place), elements)


# ---- counts -----------------------------------------------------------------------------------------------------


def bincount(self: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, .. occurs in a vector, or the sum of the weights where it does. Evaluates the vector."""
    if self.ndim != 1 or self.dtype.kind not in ("int", "uint"):
        raise ShapeError(f"bincount: got {self.dtype}{format_shape(self.shape)}, want a vector of integers")
    if weights is not None and weights.shape != self.shape:
        raise ShapeError(
            f"bincount: the weights have shape {format_shape(weights.shape)}, want {format_shape(self.shape)}"
        )
    size = minlength
    if self.shape[0] != 0:
        if int(amin(self).item()) < 0:
            raise ShapeError(f"bincount: got {amin(self).item()}, want no negative numbers")
        size = max(size, int(amax(self).item()) + 1)
    dtype = int64 if weights is None else weights.dtype if weights.dtype.is_float else float64
    counted = Tensor(1, int64, self.device).expand(self.shape) if weights is None else weights.to(dtype)
    base = Tensor(0, dtype, self.device).expand(size)
    return Tensor.from_node(graph.scatter(base.node, self.node, counted.node, 0, "sum"), counted)


def histc(self: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall in each of `bins` equal intervals from `min` to `max` (of the data if both are equal)."""
    if not self.dtype.is_float:
        raise DTypeError(f"histc: got {self.dtype}, want a float dtype; cast first")
    if bins < 1 or max < min:
        raise ShapeError(f"histc: got {bins} bins from {min} to {max}, want at least one and min <= max")
    flat = flatten(self).detach()
    low, high = [Tensor(value, self.dtype, self.device) for value in (min, max)]
    if min == max and flat.shape[0] != 0:
        low, high = amin(flat), amax(flat)
    point = e.eq(low, high)
    low, high = e.where(point, low - 1, low), e.where(point, high + 1, high)
    place = e.floor_divide((flat - low) * bins, high - low)
    place = e.where(e.eq(flat, high), bins - 1, place)
    inside = e.logical_and(e.ge(flat, low), e.le(flat, high))
    place = e.where(inside, place, bins).to(int64)
    slots = Tensor(0, self.dtype, self.device).expand(bins + 1)
    ones = Tensor(1, self.dtype, self.device).expand(flat.shape)
    return Tensor.from_node(graph.scatter(slots.node, place.node, ones.node, 0, "sum"))[:bins]
