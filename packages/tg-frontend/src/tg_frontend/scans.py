"""Scans and what normalises along a dimension: results as long as the input, each of many elements."""

from __future__ import annotations

from tg_frontend import elementwise as e
from tg_frontend.core import Tensor, resolve_axes, resolve_axis
from tg_frontend.joining import cat
from tg_frontend.movement import narrow
from tg_frontend.reductions import Selected, accumulated, along, amax, has_elements, sum, unvaried, wide_float
from tg_frontend.transcendental import exp, log
from tg_ir import graph
from tg_ir.dtypes import DType, bool_
from tg_ir.errors import ShapeError

__all__ = [
    "cummax", "cummin", "cumprod", "cumsum", "diff", "log_softmax", "logcumsumexp", "softmax", "softmin",
]  # fmt: skip


def _scanned(name: str, self: Tensor, kind: str, dim: int) -> Tensor:
    node, axis = along(name, self, dim)
    return Tensor.from_node(graph.reshape(graph.scan(node, kind, axis), self.shape), self)


def cumsum(self: Tensor, dim: int, *, dtype: DType | str | None = None) -> Tensor:
    """The sums of the elements up to each along `dim`; of integers and bools in int64."""
    return _scanned("cumsum", accumulated(self, dtype), "sum", dim)


def cumprod(self: Tensor, dim: int, *, dtype: DType | str | None = None) -> Tensor:
    """The products of the elements up to each along `dim`; of integers and bools in int64."""
    return _scanned("cumprod", accumulated(self, dtype), "prod", dim)


def cummax(self: Tensor, dim: int) -> Selected:
    """The greatest of the elements up to each along `dim`, and its index, the last of several."""
    return Selected(_scanned("cummax", self, "max", dim), _scanned("cummax", self, "argmax", dim))


def cummin(self: Tensor, dim: int) -> Selected:
    """The least of the elements up to each along `dim`, and its index, the last of several."""
    return Selected(_scanned("cummin", self, "min", dim), _scanned("cummin", self, "argmin", dim))


def logcumsumexp(self: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(self))) along `dim`, without overflow."""
    wide, final = wide_float("logcumsumexp", self)
    return _scanned("logcumsumexp", wide, "logaddexp", dim).to(final)


def diff(
    self: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Each element minus the one before it along `dim`, `n` times; of bools whether they differ."""
    if not self.ndim:
        raise ShapeError("diff: got a scalar (), want at least 1 dimension")
    if n < 0:
        raise ShapeError(f"diff: got n {n}, want at least 0")
    axis = resolve_axis("diff", dim, self.ndim)
    parts = [part for part in (prepend, self, append) if part is not None]
    result = cat(parts, axis) if len(parts) > 1 else self.clone()
    for _ in range(n):
        size = result.shape[axis]
        if size == 0:
            break
        after, before = narrow(result, axis, 1, size - 1), narrow(result, axis, 0, size - 1)
        result = e.ne(after, before) if result.dtype is bool_ else e.sub(after, before)
    return result


def _from_the_top(name: str, self: Tensor, dim: int, dtype: DType | str | None) -> tuple[Tensor, DType, int]:
    """The elements less the greatest along `dim`, which changes no ratio of exponentials."""
    wide, final = wide_float(name, self, dtype)
    axis = resolve_axis(name, dim, self.ndim)
    axes = resolve_axes(name, dim, self.ndim)
    top = unvaried(amax(wide, axes, True) if axes else wide) if has_elements(self, axes) else 0.0
    return e.sub(wide, top), final, axis


def softmax(self: Tensor, dim: int, dtype: DType | str | None = None) -> Tensor:
    """exp(self) divided by its sum along `dim`."""
    below, final, axis = _from_the_top("softmax", self, dim, dtype)
    powers = exp(below)
    return e.div(powers, sum(powers, axis, True)).to(final)


def log_softmax(self: Tensor, dim: int, dtype: DType | str | None = None) -> Tensor:
    """The logarithm of `softmax`, computed without leaving logarithms."""
    below, final, axis = _from_the_top("log_softmax", self, dim, dtype)
    return e.sub(below, log(sum(exp(below), axis, True))).to(final)


def softmin(self: Tensor, dim: int, dtype: DType | str | None = None) -> Tensor:
    """`softmax` of the negated elements."""
    return softmax(e.neg(self), dim, dtype)
