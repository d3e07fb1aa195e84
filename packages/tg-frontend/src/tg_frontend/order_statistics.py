"""Order statistics: the median, quantiles and the mode, by sorting."""

from __future__ import annotations

import math

from tg_frontend import elementwise as e
from tg_frontend.core import Scalar, Tensor
from tg_frontend.reductions import Selected, along, amax, chosen, has_elements, kept, unvaried
from tg_ir import graph
from tg_ir.dtypes import int64
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import Node
from tg_ir.symbolic import bounds

__all__ = ["median", "mode", "nanmedian", "nanquantile", "quantile"]


def _const(value: Scalar, like: Node) -> Node:
    return graph.expand(graph.const(value, like.dtype, like.device), like.shape)


def _nan_count(node: Node, axis: int) -> Node:
    """How many NaN there are along the axis, which keeps size 1."""
    count = graph.reduce(graph.cast(graph.apply("ne", node, node), int64), "sum", (axis,))
    return graph.reshape(count, kept(node.shape, (axis,)))


def _median(name: str, self: Tensor, dim: int | None, keepdim: bool, skip_nan: bool) -> Tensor | Selected:
    """The lower of the two middle elements; NaN stand last in the order."""
    if dim is None:
        return _median_of_all(name, self, skip_nan)
    node, axis = along(name, self, dim)
    size = node.shape[axis]
    if bounds(size)[0] < 1:
        raise ShapeError(f"{name}: no elements to choose from over dim {dim} of size {size}")
    order = graph.argsort(node, axis)
    nans = Tensor.from_node(_nan_count(node, axis))
    valid = e.sub(size, nans)
    place = e.clamp_min(e.floor_divide(valid - 1, 2), 0)
    if not skip_nan:
        place = e.where(e.eq(nans, 0), place, valid)
    return chosen(self, node, graph.gather(order, place.node, axis), axis, keepdim)


def _median_of_all(name: str, self: Tensor, skip_nan: bool) -> Tensor:
    flat = Tensor.from_node(graph.reshape(self.node, (self.numel(),)), self)
    if not has_elements(flat, (0,)):
        return Tensor.from_node(graph.const(math.nan if self.dtype.is_float else 0, self.dtype, self.device))
    found = _median(name, flat, 0, False, skip_nan).values
    if not self.dtype.is_float:
        return found
    middle = unvaried(found)
    return amax(e.where(e.ne(flat, middle), -math.inf, flat)) if self.requires_grad else found


def median(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Selected:
    """The middle element, the lower of two; NaN where there is one. Along `dim` with its index."""
    return _median("median", self, dim, keepdim, False)


def nanmedian(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | Selected:
    """The middle of the elements that are not NaN, the lower of two. Along `dim` with its index."""
    return _median("nanmedian", self, dim, keepdim, True)


def mode(self: Tensor, dim: int = -1, keepdim: bool = False) -> Selected:
    """The most frequent element along `dim`, the least of several, with its last index.

    Sorted, equal elements stand together: the longest run wins, measured by a running maximum of the starts.
    """
    node, axis = along("mode", self, dim)
    order = graph.argsort(node, axis)
    ranked = graph.gather(node, order, axis)
    size = node.shape[axis]
    limits = [(0, n) for n in node.shape]
    before, after = list(limits), list(limits)
    before[axis], after[axis] = (0, size - 1), (1, size)
    changes = graph.apply("ne", graph.shrink(ranked, before), graph.shrink(ranked, after))
    changes = graph.pad(changes, [(1, 0) if i == axis else (0, 0) for i in range(len(limits))])
    iota = graph.iota(size, int64, node.device)
    place = graph.expand(
        graph.reshape(iota, [size if i == axis else 1 for i in range(len(limits))]), node.shape
    )
    start = graph.scan(graph.apply("where", changes, place, _const(0, place)), "max", axis)
    longest = graph.reduce(graph.apply("sub", place, start), "argmax", (axis,))
    longest = graph.reshape(longest, kept(node.shape, (axis,)))
    return chosen(self, node, graph.gather(order, longest, axis), axis, keepdim)


_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(
    name: str,
    self: Tensor,
    q: float | Tensor,
    dim: int | None,
    keepdim: bool,
    interpolation: str,
    skip_nan: bool,
) -> Tensor:
    if interpolation not in _INTERPOLATIONS:
        raise TgError(
            f"{name}: got interpolation {interpolation!r}, want one of {', '.join(_INTERPOLATIONS)}"
        )
    if self.dtype.name not in ("float32", "float64"):
        raise DTypeError(f"{name}: got {self.dtype}, want float32 or float64; cast first")
    fractions = q if isinstance(q, Tensor) else Tensor(q, self.dtype, self.device)
    if fractions.ndim > 1:
        raise ShapeError(f"{name}: got q of shape {fractions.shape}, want a number or a vector")
    node, axis = along(name, self, 0 if dim is None else dim)
    if dim is None:
        node = graph.reshape(node, (self.numel(),))
    size, rank = node.shape[axis], len(node.shape)
    if bounds(size)[0] < 1:
        raise ShapeError(f"{name}: no elements to choose from in {self.shape}")
    ordered = Tensor.from_node(graph.gather(node, graph.argsort(node, axis), axis), self)
    nans = Tensor.from_node(_nan_count(node, axis))
    count = fractions.numel()
    along_axis = [count if i == axis else 1 for i in range(rank)]
    place = Tensor.from_node(graph.reshape(fractions.to(self.dtype).node, along_axis))
    last = e.sub(size - 1, nans) if skip_nan else size - 1
    place = e.clamp_min(e.mul(place, last), 0)
    if not skip_nan:
        place = e.where(e.eq(nans, 0), place, last)
    if interpolation == "nearest":
        place = e.round(place)
    lower, upper = e.floor(place), e.ceil(place)
    low, high = [
        Tensor.from_node(graph.gather(ordered.node, at.to(int64).node, axis), self) for at in (lower, upper)
    ]
    weight = {"linear": place - lower, "midpoint": 0.5, "higher": 1.0}.get(interpolation, 0.0)
    result = e.lerp(low, high, weight)
    shape = kept(self.shape, range(self.ndim) if dim is None else (axis,))
    if not keepdim:
        shape = [] if dim is None else [n for i, n in enumerate(self.shape) if i != axis]
    moved = graph.permute(result.node, [axis, *[i for i in range(rank) if i != axis]])
    return Tensor.from_node(graph.reshape(moved, [*fractions.shape, *shape]), self)


def quantile(
    self: Tensor,
    q: float | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The value below which the fraction `q` lies; several q give a first dimension. NaN if there is one."""
    return _quantile("quantile", self, q, dim, keepdim, interpolation, False)


def nanquantile(
    self: Tensor,
    q: float | Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The quantile of what is not NaN."""
    return _quantile("nanquantile", self, q, dim, keepdim, interpolation, True)
