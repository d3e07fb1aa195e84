"""Reductions: one value from the elements of some dimensions, or of all.

`dim` is a dimension, several, or None (or ()) for all; `keepdim` leaves them with size 1. What takes several
steps is computed in float32 at least and rounded once. The median and its like stand in order_statistics.py.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import NamedTuple

from tg_frontend import elementwise as e
from tg_frontend.core import Scalar, Tensor, resolve_axes, resolve_axis
from tg_frontend.transcendental import exp, log
from tg_ir import graph
from tg_ir.dtypes import DType, bool_, dtype_of, float32, int64, uint8
from tg_ir.errors import DTypeError, TgError
from tg_ir.graph import Node
from tg_ir.symbolic import SymInt, bounds
from tg_ir.symbolic import prod as product

__all__ = [
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "logsumexp", "max", "mean",
    "min", "nanmean", "nansum", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean", "vector_norm",
]  # fmt: skip

Dims = int | Sequence[int] | None


class Selected(NamedTuple):
    """Elements and where they are along the dimension."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """The least and the greatest element."""

    min: Tensor
    max: Tensor


# ---- what reductions and scans share -----------------------------------------------------------------------


def kept(shape: Sequence[SymInt], axes: Sequence[int]) -> list[SymInt]:
    """The shape with size 1 for the axes."""
    return [1 if axis in axes else size for axis, size in enumerate(shape)]


def reduced(name: str, self: Tensor, kind: str, dim: Dims, keepdim: bool = False) -> Tensor:
    """The reduction of that kind over the dimensions."""
    axes = resolve_axes(name, dim, self.ndim)
    node = graph.reduce(self.node, kind, axes)
    return Tensor.from_node(graph.reshape(node, kept(self.shape, axes)) if keepdim else node, self)


def along(name: str, self: Tensor, dim: int) -> tuple[Node, int]:
    """The node and the axis of `dim`; a scalar becomes a vector of one."""
    return graph.reshape(self.node, self.shape or (1,)), resolve_axis(name, dim, self.ndim)


def accumulated(self: Tensor, dtype: DType | str | None) -> Tensor:
    """Converted to the dtype of sums and products: the one asked for, else int64 for integers and bools."""
    return self.to(dtype_of(dtype) if dtype is not None else self.dtype if self.dtype.is_float else int64)


def wide_float(name: str, self: Tensor, dtype: DType | str | None = None) -> tuple[Tensor, DType]:
    """The tensor in float32 at least, and the dtype to round the result to.

    Raises:
        DTypeError: not a float dtype.
    """
    final = self.dtype if dtype is None else dtype_of(dtype)
    if not final.is_float:
        raise DTypeError(f"{name}: got {final}, want a float dtype; cast first or pass dtype=")
    return self.to(final if final.bits >= 32 else float32), final


def unvaried(self: Tensor) -> Tensor:
    """The same values, constant to gradients, for what cancels in the result; fuses as any operation does."""
    same_size = dtype_of(f"int{self.dtype.bits}")
    return Tensor.from_node(graph.bitcast(graph.bitcast(self.node, same_size), self.dtype))


def has_elements(self: Tensor, axes: Sequence[int]) -> bool:
    """Whether there is surely something to reduce over the axes."""
    return bounds(product([self.shape[axis] for axis in axes]))[0] > 0


def _count(self: Tensor, axes: Sequence[int]) -> SymInt:
    return product([self.shape[axis] for axis in axes])


# ---- sums --------------------------------------------------------------------------------------------------


def sum(self: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | str | None = None) -> Tensor:
    """The sum; of integers and bools in int64."""
    return reduced("sum", accumulated(self, dtype), "sum", dim, keepdim)


def prod(
    self: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | str | None = None
) -> Tensor:
    """The product; of integers and bools in int64."""
    return reduced("prod", accumulated(self, dtype), "prod", dim, keepdim)


def mean(
    self: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | str | None = None
) -> Tensor:
    """The sum divided by the number of elements."""
    wide, final = wide_float("mean", self, dtype)
    axes = resolve_axes("mean", dim, self.ndim)
    return e.div(reduced("mean", wide, "sum", axes, keepdim) if axes else wide, _count(self, axes)).to(final)


def nansum(
    self: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | str | None = None
) -> Tensor:
    """The sum of what is not NaN."""
    return sum(e.where(e.isnan(self), 0, self), dim, keepdim, dtype=dtype)


def nanmean(
    self: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | str | None = None
) -> Tensor:
    """The mean of what is not NaN."""
    wide, final = wide_float("nanmean", self, dtype)
    return e.div(nansum(wide, dim, keepdim), sum(e.eq(self, self), dim, keepdim)).to(final)


def count_nonzero(self: Tensor, dim: Dims = None) -> Tensor:
    """How many elements differ from 0, in int64."""
    return sum(self.to(bool_), dim)


# ---- moments -----------------------------------------------------------------------------------------------


def _moments(
    name: str, self: Tensor, dim: Dims, unbiased: bool | None, keepdim: bool, correction: Scalar | None
) -> tuple[Tensor, Tensor, DType]:
    """The variance and the mean in two passes, which loses no digits where the mean is large."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 0 if unbiased is False else 1
    elif unbiased is not None:
        raise TgError(f"{name}: got both unbiased and correction, want one of them")
    wide, final = wide_float(name, self)
    axes = resolve_axes(name, dim, self.ndim)
    count = _count(self, axes)
    center = mean(wide, axes, True) if axes else wide
    total = sum(e.square(e.sub(wide, center)), axes, keepdim) if axes else e.square(e.sub(wide, center))
    freedom = count - correction
    if isinstance(freedom, int | float):
        freedom = builtins.max(freedom, 0)
    shape = total.shape
    return e.div(total, freedom), Tensor.from_node(graph.reshape(center.node, shape), center), final


def var(
    self: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: Scalar | None = None,
) -> Tensor:
    """The mean squared distance from the mean, over n - `correction`: 1, or 0 if not `unbiased`."""
    variance, _, final = _moments("var", self, dim, unbiased, keepdim, correction)
    return variance.to(final)


def std(
    self: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: Scalar | None = None,
) -> Tensor:
    """The square root of the variance; its gradient is 0 where it is 0."""
    variance, _, final = _moments("std", self, dim, unbiased, keepdim, correction)
    return _root(variance).to(final)


def var_mean(
    self: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: Scalar | None = None,
) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""
    variance, center, final = _moments("var_mean", self, dim, unbiased, keepdim, correction)
    return variance.to(final), center.to(final)


def std_mean(
    self: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: Scalar | None = None,
) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""
    variance, center, final = _moments("std_mean", self, dim, unbiased, keepdim, correction)
    return _root(variance).to(final), center.to(final)


def _root(self: Tensor, power: float = 0.5) -> Tensor:
    """self**power, with gradient 0 at 0."""
    zero = e.eq(self, 0)
    safe = e.where(zero, 1, self)
    return e.where(zero, 0, e.sqrt(safe) if power == 0.5 else e.pow(safe, power))


# ---- logarithms and norms ----------------------------------------------------------------------------------


def logsumexp(self: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(self))), without overflow."""
    wide, final = wide_float("logsumexp", self, None if self.dtype.is_float else float32)
    axes = resolve_axes("logsumexp", dim, self.ndim)
    if not axes:
        return self.to(final)
    if not has_elements(self, axes):
        return log(sum(exp(wide), axes, keepdim)).to(final)
    top = unvaried(amax(wide, axes, True))
    top = e.where(e.isinf(top), 0, top)
    total = log(sum(exp(e.sub(wide, top)), axes, True))
    result = e.add(total, top)
    return (result if keepdim else _dropped(result, axes)).to(final)


def _dropped(self: Tensor, axes: Sequence[int]) -> Tensor:
    """Without the axes, which have size 1."""
    shape = [size for axis, size in enumerate(self.shape) if axis not in axes]
    return Tensor.from_node(graph.reshape(self.node, shape), self)


def vector_norm(
    self: Tensor,
    ord: float = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DType | str | None = None,
) -> Tensor:
    """sum(|x|**ord)**(1/ord); the greatest or least |x| for inf and -inf, the number of nonzero for 0.

    Its gradient is 0 where the norm is 0.
    """
    wide, final = wide_float("norm", self, dtype)
    size = e.abs(wide)
    if ord == math.inf:
        result = amax(size, dim, keepdim)
    elif ord == -math.inf:
        result = amin(size, dim, keepdim)
    elif ord == 0:
        result = sum(e.ne(wide, 0), dim, keepdim)
    elif ord == 1:
        result = sum(size, dim, keepdim)
    elif ord == 2:
        result = _root(sum(e.square(wide), dim, keepdim))
    elif ord > 0:
        result = _root(sum(_root(size, ord), dim, keepdim), 1 / ord)
    else:
        result = e.pow(sum(e.pow(size, ord), dim, keepdim), 1 / ord)
    return result.to(final)


def norm(
    self: Tensor,
    p: float | str = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    dtype: DType | str | None = None,
) -> Tensor:
    """The norm of the elements as a vector (see `vector_norm`); "fro" is 2."""
    if isinstance(p, str) and p != "fro":
        raise TgError(
            f"norm: got p {p!r}, want 'fro' or a number; 'nuc' is the sum of the singular values of svd"
        )
    return vector_norm(self, 2 if p == "fro" else float(p), dim, keepdim, dtype=dtype)


# ---- extremes ----------------------------------------------------------------------------------------------


def amax(self: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The greatest element; its gradient is shared evenly by all that are as great."""
    return reduced("amax", self, "max", dim, keepdim)


def amin(self: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The least element; its gradient is shared evenly by all that are as small."""
    return reduced("amin", self, "min", dim, keepdim)


def aminmax(self: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """The least and the greatest element."""
    return MinMax(amin(self, dim, keepdim), amax(self, dim, keepdim))


def _arg(kind: str, self: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    node, axis = along(kind, self, 0 if dim is None else dim)
    if dim is None:
        node = graph.reshape(node, (self.numel(),))
    found = graph.reduce(node, kind, (axis,))
    shape = [1] * self.ndim if dim is None else kept(self.shape, (axis,))
    return Tensor.from_node(graph.reshape(found, shape if keepdim else [*_without(self.shape, axis, dim)]))


def _without(shape: Sequence[SymInt], axis: int, dim: int | None) -> Sequence[SymInt]:
    return () if dim is None else [size for i, size in enumerate(shape) if i != axis]


def argmax(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The first index of the greatest element along `dim`, or in the flattened tensor."""
    return _arg("argmax", self, dim, keepdim)


def argmin(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The first index of the least element along `dim`, or in the flattened tensor."""
    return _arg("argmin", self, dim, keepdim)


def chosen(self: Tensor, node: Node, index: Node, axis: int, keepdim: bool | None) -> Selected:
    """The elements of `node` at `index`. If `keepdim` is not None, the index has size 1 along the axis."""
    keeps = keepdim is None or keepdim
    shape = index.shape if keeps and self.ndim else [n for i, n in enumerate(index.shape) if i != axis]
    values = graph.reshape(graph.gather(node, index, axis), shape)
    return Selected(Tensor.from_node(values, self), Tensor.from_node(graph.reshape(index, shape)))


def _extreme(kind: str, self: Tensor, dim: int | Tensor | None, keepdim: bool) -> Tensor | Selected:
    if isinstance(dim, Tensor):
        return (e.maximum if kind == "max" else e.minimum)(self, dim)
    if dim is None:
        return reduced(kind, self, kind, None)
    node, axis = along(kind, self, dim)
    index = graph.reduce(node, f"arg{kind}", (axis,))
    return chosen(self, node, graph.reshape(index, kept(node.shape, (axis,))), axis, keepdim)


def max(self: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | Selected:
    """The greatest element; along `dim` with its index, which gets the gradient; with a tensor, `maximum`."""
    return _extreme("max", self, dim, keepdim)


def min(self: Tensor, dim: int | Tensor | None = None, keepdim: bool = False) -> Tensor | Selected:
    """The least element; along `dim` with its index, which gets the gradient; with a tensor, `minimum`."""
    return _extreme("min", self, dim, keepdim)


def _truth(name: str, kind: str, self: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    true, axes = self.to(bool_), () if dim == () else resolve_axes(name, dim, self.ndim)
    if not axes or has_elements(self, axes):
        result = reduced(name, true, kind, axes, keepdim) if axes else true
    elif kind == "max":
        result = e.ne(sum(true, axes, keepdim), 0)
    else:
        result = e.eq(sum(e.logical_not(true), axes, keepdim), 0)
    return result.to(uint8) if self.dtype is uint8 else result


def any(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether an element differs from 0."""
    return _truth("any", "max", self, dim, keepdim)


def all(self: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element differs from 0."""
    return _truth("all", "min", self, dim, keepdim)
