"""Joining tensors into one, and splitting one into several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tg_frontend.core import Tensor, resolve_axis
from tg_frontend.movement import atleast_1d, atleast_2d, atleast_3d, narrow, reshape, select, unsqueeze
from tg_ir import graph
from tg_ir.dtypes import result_type
from tg_ir.errors import ShapeError
from tg_ir.graph import format_shape
from tg_ir.symbolic import Expr, SymInt

__all__ = [
    "cat", "chunk", "column_stack", "concat", "concatenate", "dstack", "hstack", "row_stack", "split",
    "stack", "tensor_split", "unbind", "vstack",
]  # fmt: skip

# ---- joining -----------------------------------------------------------------------------------------------


def _of_sequence(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`cat([a, b], dim)`, and `a.cat(b, dim=dim)` as a method: leading tensors are the sequence."""

    @functools.wraps(function)
    def wrapped(tensors: Tensor | Sequence[Tensor], *rest: object, **options: object) -> Tensor:
        if isinstance(tensors, Tensor):
            others = [item for item in rest if isinstance(item, Tensor)]
            tensors, rest = [tensors, *others], rest[len(others) :]
        if not len(tensors):
            raise ShapeError(f"{function.__name__}: got no tensors, want one or more")
        return function(list(tensors), *rest, **options)

    return wrapped


@_of_sequence
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`, in their promoted dtype.

    Shapes:
        All alike but for `dim`. Empty vectors (0,) are left out, as in PyTorch.
    """
    if not all(tensor.ndim for tensor in tensors):
        raise ShapeError("cat: got a scalar tensor (), want at least 1 dimension; use stack")
    dtype = result_type(*[(tensor.dtype, "dim") for tensor in tensors])
    kept = [tensor for tensor in tensors if tensor.shape != (0,)] or tensors[:1]
    axis = resolve_axis("cat", dim, kept[0].ndim)
    return Tensor.from_node(graph.cat([graph.cast(tensor.node, dtype) for tensor in kept], axis), *kept)


concat = concatenate = cat


@_of_sequence
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension `dim`."""
    shape = tensors[0].shape
    for tensor in tensors:
        if tensor.shape != shape:
            raise ShapeError(
                f"stack: shapes are {format_shape(shape)} and {format_shape(tensor.shape)}, want them equal"
            )
    axis = resolve_axis("stack", dim, len(shape) + 1)
    return cat([unsqueeze(tensor, axis) for tensor in tensors], axis)


@_of_sequence
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side: along dimension 1, or 0 for vectors."""
    return cat(atleast_1d(tensors), 1 if tensors[0].ndim > 1 else 0)


@_of_sequence
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """One above the other: along dimension 0, vectors as rows."""
    return cat(atleast_2d(tensors), 0)


row_stack = vstack


@_of_sequence
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """One behind the other: along dimension 2."""
    return cat(atleast_3d(tensors), 2)


@_of_sequence
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side, vectors as columns."""
    return cat([reshape(tensor, -1, 1) if tensor.ndim < 2 else tensor for tensor in tensors], 1)


# ---- parts -------------------------------------------------------------------------------------------------


def _int_size(name: str, self: Tensor, axis: int) -> int:
    size = self.shape[axis] if self.ndim else 1
    if isinstance(size, Expr):
        raise ShapeError(
            f"{name}: the size {size} of dimension {axis} is symbolic; the number of parts depends on it"
        )
    return size


def split(self: Tensor, split_size: int | Sequence[SymInt], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `split_size` elements each along `dim` (the last may be shorter), or of the sizes given."""
    axis = resolve_axis("split", dim, self.ndim)
    if isinstance(split_size, int):
        size = _int_size("split", self, axis)
        if split_size < 0 or (split_size == 0 and size):
            raise ShapeError(f"split: got split_size {split_size}, want at least 1")
        split_size = [min(split_size, size - i) for i in range(0, size, split_size or 1)] or [0]
    if not self.ndim:
        raise ShapeError("split: got a scalar (), want at least 1 dimension")
    sizes, total = list(split_size), sum(split_size)
    if total != self.shape[axis]:
        raise ShapeError(
            f"split: sizes {sizes} add up to {total}, want {self.shape[axis]}, the size of dimension {dim}"
        )
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple([narrow(self, axis, start, size) for start, size in zip(starts, sizes, strict=True)])


def chunk(self: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal size along `dim`; the last may be shorter."""
    if chunks < 1:
        raise ShapeError(f"chunk: got {chunks} chunks, want at least 1")
    axis = resolve_axis("chunk", dim, self.ndim)
    size = _int_size("chunk", self, axis)
    return split(self, -(-size // chunks), axis) if size else split(self, [0] * chunks, axis)


def tensor_split(
    self: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0
) -> tuple[Tensor, ...]:
    """Views that are as equal as can be, or cut at the given indices."""
    axis = resolve_axis("tensor_split", dim, self.ndim)
    size = _int_size("tensor_split", self, axis)
    cuts = indices_or_sections.tolist() if isinstance(indices_or_sections, Tensor) else indices_or_sections
    if isinstance(cuts, int):
        if cuts < 1:
            raise ShapeError(f"tensor_split: got {cuts} sections, want at least 1")
        least, longer = divmod(size, cuts)
        return split(self, [least + (i < longer) for i in range(cuts)], axis)
    starts = [slice(cut, None).indices(size)[0] for cut in cuts]
    return tuple(
        [narrow(self, axis, a, max(b - a, 0)) for a, b in zip([0, *starts], [*starts, size], strict=True)]
    )


def unbind(self: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`, without that dimension."""
    axis = resolve_axis("unbind", dim, self.ndim)
    if not self.ndim:
        raise ShapeError("unbind: got a scalar (), want at least 1 dimension")
    return tuple([select(self, axis, index) for index in range(_int_size("unbind", self, axis))])
