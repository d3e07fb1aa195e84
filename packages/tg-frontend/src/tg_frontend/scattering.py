"""Gather and scatter along a dimension, by an index tensor or by a vector of indices."""

from __future__ import annotations

from collections.abc import Sequence

from tg_frontend import elementwise as e
from tg_frontend.core import Scalar, Tensor, broadcast_shapes
from tg_frontend.indexing import wrapped
from tg_frontend.movement import expand, flatten, reshape
from tg_frontend.reductions import along
from tg_ir import graph
from tg_ir.dtypes import DType, bool_, int64
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import Node, Shape, format_shape
from tg_ir.symbolic import SymInt, prove_le

__all__ = [
    "gather", "index_add", "index_copy", "index_fill", "index_reduce", "index_select", "scatter", "scatter_add",
    "scatter_reduce", "take_along_dim",
]  # fmt: skip

_KINDS = {"sum": "sum", "prod": "prod", "amax": "max", "amin": "min", "add": "sum", "multiply": "prod"}


def _corner(node: Node, shape: Sequence[SymInt]) -> Node:
    return graph.shrink(node, [(0, size) for size in shape])


def _index_node(name: str, self: Node, index: Tensor, axis: int) -> Node:
    """The index as a node of the rank of `self`, no larger than it in the other dimensions."""
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: the index is {index.dtype}, want an integer dtype")
    node = graph.reshape(index.node, index.shape or (1,))
    fits = len(node.shape) == len(self.shape) and all(
        i == axis or prove_le(a, b) for i, (a, b) in enumerate(zip(node.shape, self.shape, strict=True))
    )
    if not fits:
        raise ShapeError(
            f"{name}: the index has shape {format_shape(index.shape)}, the tensor {format_shape(self.shape)}; "
            f"want as many dimensions, none larger but for dim {axis}"
        )
    return node


def gather(self: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[.., i, ..] = self[.., index[.., i, ..], ..] along `dim`. `sparse_grad` changes nothing here."""
    node, axis = along("gather", self, dim)
    places = _index_node("gather", node, index, axis)
    node = _corner(
        node, [n if i == axis else m for i, (n, m) in enumerate(zip(node.shape, places.shape, strict=True))]
    )
    return Tensor.from_node(graph.reshape(graph.gather(node, places, axis), index.shape), self)


def _scattered(name: str, self: Tensor, dim: int, index: Tensor, src: Tensor, kind: str) -> Tensor:
    """Scatter into the corner of this tensor that the index covers."""
    base, axis = along(name, self, dim)
    places = _index_node(name, base, index, axis)
    if src.ndim != index.ndim or not all(prove_le(a, b) for a, b in zip(index.shape, src.shape, strict=True)):
        raise ShapeError(
            f"{name}: the index has shape {format_shape(index.shape)}, the source {format_shape(src.shape)}; "
            "want no dimension of the index larger"
        )
    given = graph.cast(graph.reshape(_corner(src.node, index.shape), places.shape), self.dtype)
    covered = [n if i == axis else m for i, (n, m) in enumerate(zip(base.shape, places.shape, strict=True))]
    written = graph.scatter(_corner(base, covered), places, given, axis, kind)
    if tuple(covered) != tuple(base.shape):
        written = graph.assign(base, written)
    return Tensor.from_node(graph.reshape(written, self.shape), self, src)


def _filled(value: Tensor | Scalar, dtype: DType, shape: Shape, device: str) -> Tensor:
    """A number, or a tensor with one element, expanded."""
    scalar = reshape(value, ()) if isinstance(value, Tensor) else Tensor(value, dtype, device)
    return expand(scalar, shape)


def scatter(
    self: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor | Scalar | None = None,
    *,
    value: Scalar | None = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy with copy[.., index[.., i, ..], ..] = src[.., i, ..], or a number, along `dim`.

    `reduce` "add" or "multiply" combines with what is there. Of an index that is named twice the last one stays.
    """
    given = value if src is None else src
    if given is None:
        raise TgError("scatter: got neither src nor value; give one of them")
    if reduce is not None and reduce not in ("add", "multiply"):
        raise TgError(f"scatter: got reduce {reduce!r}, want add or multiply; scatter_reduce has more")
    if not isinstance(given, Tensor):
        given = _filled(given, self.dtype, index.shape, self.device)
    return _scattered("scatter", self, dim, index, given, "set" if reduce is None else _KINDS[reduce])


def scatter_add(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with src[.., i, ..] added to copy[.., index[.., i, ..], ..] along `dim`."""
    return _scattered("scatter_add", self, dim, index, src, "sum")


def _identity(reduce: str, dtype: DType) -> Scalar:
    if reduce in ("amax", "amin"):
        least = reduce == "amax"
        return float("-inf" if least else "inf") if dtype.is_float else dtype.min if least else dtype.max
    return 1 if reduce == "prod" else 0


def scatter_reduce(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy in which all that goes to an element is combined: "sum", "prod", "mean", "amax" or "amin".

    Without `include_self` the value that an element had does not count, if anything goes to it.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise TgError(f"scatter_reduce: got reduce {reduce!r}, want sum, prod, mean, amax or amin")
    name = "scatter_reduce"
    base = self
    if not include_self:
        none = Tensor(False, bool_, self.device).expand(self.shape)
        hit = _scattered(name, none, dim, index, _filled(True, bool_, index.shape, self.device), "set")
        base = e.where(hit, Tensor(_identity(reduce, self.dtype), self.dtype, self.device), self)
    if reduce != "mean":
        return _scattered(name, base, dim, index, src, _KINDS[reduce])
    total = _scattered(name, base, dim, index, src, "sum")
    counts = Tensor(int(include_self), int64, self.device).expand(self.shape)
    counts = _scattered(name, counts, dim, index, _filled(1, int64, index.shape, self.device), "sum")
    counts = e.clamp_min(counts, 1)
    return e.div(total, counts.to(self.dtype)) if self.dtype.is_float else e.floor_divide(total, counts)


def take_along_dim(self: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """The elements at `indices` along `dim` (of the flattened tensors if None), which broadcast otherwise."""
    if dim is None:
        return take_along_dim(flatten(self), flatten(indices), 0)
    if self.ndim != indices.ndim:
        raise ShapeError(f"take_along_dim: got {indices.ndim} dimensions of indices, want {self.ndim}")
    _, axis = along("take_along_dim", self, dim)
    ones = [tensor.shape[:axis] + (1,) + tensor.shape[axis + 1 :] for tensor in (self, indices)]
    common = broadcast_shapes("take_along_dim", *ones)
    shapes = [common[:axis] + (tensor.shape[axis],) + common[axis + 1 :] for tensor in (self, indices)]
    return gather(expand(self, shapes[0]), axis, expand(wrapped(indices, self.shape[axis]), shapes[1]))


# ---- by a vector of indices -------------------------------------------------------------------------------------


def _vector(name: str, self: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int, Shape]:
    """A vector of indices along `dim`, expanded over the other dimensions; the axis; the shape that it selects."""
    node, axis = along(name, self, dim)
    if index.ndim > 1 or index.dtype.kind not in ("int", "uint"):
        raise ShapeError(
            f"{name}: the index is {index.dtype}{format_shape(index.shape)}, want a vector of integers"
        )
    count = index.numel()
    places = wrapped(index, node.shape[axis])
    aligned = reshape(places, [count if i == axis else 1 for i in range(len(node.shape))])
    shape = tuple([count if i == axis else n for i, n in enumerate(node.shape)])
    return expand(aligned, shape), axis, shape


def _atleast_vector(self: Tensor) -> Tensor:
    return self if self.ndim else reshape(self, 1)


def index_select(self: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along `dim` that the vector `index` names."""
    places, axis, shape = _vector("index_select", self, dim, index)
    found = gather(_atleast_vector(self), axis, places)
    return found if self.ndim else reshape(found, () if shape == (1,) else shape)


def _written(
    name: str, self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool = True
) -> Tensor:
    places, axis, shape = _vector(name, self, dim, index)
    source = _atleast_vector(source)
    if tuple(source.shape) != shape:
        raise ShapeError(
            f"{name}: the source has shape {format_shape(source.shape)}, want {format_shape(shape)}"
        )
    base = _atleast_vector(self)
    if reduce == "set":
        result = scatter(base, axis, places, source)
    else:
        result = scatter_reduce(base, axis, places, source, reduce, include_self=include_self)
    return reshape(result, self.shape)


def index_add(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Scalar = 1) -> Tensor:
    """A copy with `alpha` times the slices of `source` added to those that `index` names."""
    return _written("index_add", self, dim, index, source if alpha == 1 else e.mul(source, alpha), "sum")


def index_copy(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with the slices that `index` names replaced by those of `source`."""
    return _written("index_copy", self, dim, index, source, "set")


def index_fill(self: Tensor, dim: int, index: Tensor, value: Tensor | Scalar) -> Tensor:
    """A copy with the slices that `index` names filled with a number."""
    _, _, shape = _vector("index_fill", self, dim, index)
    return _written("index_fill", self, dim, index, _filled(value, self.dtype, shape, self.device), "set")


def index_reduce(
    self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy in which the slices of `source` are combined ("prod", "mean", "amax", "amin") with those of `index`."""
    return _written("index_reduce", self, dim, index, source, reduce, include_self)
