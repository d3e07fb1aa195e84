"""Movement: operations that only rearrange elements. Where PyTorch gives a view, so do these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tg_frontend.core import Scalar, Tensor, broadcast_shapes, resolve_axes, resolve_axis, resolve_shape
from tg_ir import graph
from tg_ir.dtypes import DType, dtype_of, int64
from tg_ir.errors import IndexRangeError, ShapeError
from tg_ir.graph import Node, Shape, format_shape
from tg_ir.symbolic import Expr, SymInt, bounds, maximum, minimum, prod, prove_le

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "broadcast_to", "diag", "diag_embed",
    "diagonal", "expand", "expand_as", "flatten", "flip", "fliplr", "flipud", "moveaxis", "movedim", "narrow",
    "pad", "permute", "ravel", "repeat", "repeat_interleave", "reshape", "reshape_as", "roll", "rot90",
    "select", "squeeze", "swapaxes", "swapdims", "t", "tile", "trace", "transpose", "unflatten", "unfold",
    "unsqueeze", "view", "view_as",
]  # fmt: skip

# ---- shape -------------------------------------------------------------------------------------------------


def _fill_in(name: str, sizes: Sequence[SymInt], count: SymInt) -> Shape:
    """`sizes` for `count` elements, where one of them may be -1: whatever is left."""
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = sizes[0]
    free = [position for position, size in enumerate(sizes) if isinstance(size, int) and size == -1]
    if len(free) > 1:
        raise ShapeError(
            f"{name}: {format_shape(tuple(sizes))} leaves more than one size to be found; give all but one"
        )
    known = list(resolve_shape(name, [size for position, size in enumerate(sizes) if position not in free]))
    if free:
        others = prod(known)
        if others == 0:
            raise ShapeError(
                f"{name}: the -1 in {format_shape(tuple(sizes))} could be anything, as there are no elements"
            )
        if isinstance(others, int) and isinstance(count, int) and count % others:
            raise ShapeError(f"{name}: {count} elements do not divide into {format_shape(tuple(sizes))}")
        known.insert(free[0], count // others)
    return tuple(known)


def reshape(self: Tensor, *shape: SymInt | Sequence[SymInt]) -> Tensor:
    """The same elements in row-major order under another shape; one size may be -1. Always a view."""
    sizes = _fill_in("reshape", shape, self.numel())
    return self.view_by(lambda node: graph.reshape(node, sizes))


def view(self: Tensor, *shape: SymInt | Sequence[SymInt] | DType | str) -> Tensor:
    """As `reshape`; given a dtype of the same size, the bits read as that (a copy, not a view)."""
    if len(shape) == 1 and not isinstance(shape[0], int | Expr | Tensor | list | tuple):
        return self.bitcast(dtype_of(shape[0]))
    return reshape(self, *shape)


def view_as(self: Tensor, other: Tensor) -> Tensor:
    """The same elements under the shape of `other`."""
    return reshape(self, other.shape)


reshape_as = view_as


def flatten(self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` as one."""
    first, last = resolve_axis("flatten", start_dim, self.ndim), resolve_axis("flatten", end_dim, self.ndim)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}; swap them")
    shape = self.shape
    return reshape(self, *shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])


def ravel(self: Tensor) -> Tensor:
    """All dimensions as one."""
    return flatten(self)


def unflatten(self: Tensor, dim: int, sizes: Sequence[SymInt]) -> Tensor:
    """Dimension `dim` as several of the given sizes, one of which may be -1."""
    axis, shape = resolve_axis("unflatten", dim, self.ndim), self.shape
    parts = _fill_in("unflatten", sizes, shape[axis])
    if prod(parts) != shape[axis]:
        raise ShapeError(
            f"unflatten: {format_shape(parts)} has {prod(parts)} elements, dim {dim} has {shape[axis]}"
        )
    return reshape(self, *shape[:axis], *parts, *shape[axis + 1 :])


def squeeze(self: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dimensions of size 1: all of them, or those of `dim` that are."""
    axes = range(self.ndim) if dim is None else resolve_axes("squeeze", dim, self.ndim) if dim != () else ()
    return reshape(
        self, tuple([size for axis, size in enumerate(self.shape) if axis not in axes or size != 1])
    )


def unsqueeze(self: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 put in at `dim`."""
    axis, shape = resolve_axis("unsqueeze", dim, self.ndim + 1), self.shape
    return reshape(self, *shape[:axis], 1, *shape[axis:])


def _atleast(
    count: int, axes: Callable[[int], tuple[int, int]]
) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """What gives tensors at least `count` dimensions, with `axes(ndim)` new ones before and after."""

    def function(*tensors: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
            return tuple([function(tensor) for tensor in tensors[0]])
        if len(tensors) > 1:
            return tuple([function(tensor) for tensor in tensors])
        (tensor,) = tensors
        before, after = axes(tensor.ndim) if tensor.ndim < count else (0, 0)
        return reshape(tensor, (*(1,) * before, *tensor.shape, *(1,) * after))

    function.__name__ = function.__qualname__ = f"atleast_{count}d"
    function.__doc__ = (
        f"Views with at least {count} dimension{'s' if count > 1 else ''}; several come as a tuple."
    )
    return function


atleast_1d = _atleast(1, lambda ndim: (1, 0))
atleast_2d = _atleast(2, lambda ndim: (2 - ndim, 0))
atleast_3d = _atleast(3, lambda ndim: (2 - ndim if ndim < 2 else 0, 1))

# ---- order of the dimensions -------------------------------------------------------------------------------


def permute(self: Tensor, *dims: int | Sequence[int]) -> Tensor:
    """The dimensions in the order `dims`."""
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims
    order = tuple([resolve_axis("permute", axis, self.ndim) for axis in given])
    if sorted(order) != list(range(self.ndim)):
        raise ShapeError(
            f"permute: {tuple(given)} is no order of {self.ndim} dimensions; name each of them once"
        )
    return self.view_by(lambda node: graph.permute(node, order))


def transpose(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions swapped."""
    first, second = resolve_axis("transpose", dim0, self.ndim), resolve_axis("transpose", dim1, self.ndim)
    order = list(range(self.ndim))
    if order:
        order[first], order[second] = second, first
    return permute(self, order)


swapaxes = swapdims = transpose


def t(self: Tensor) -> Tensor:
    """A matrix transposed; a vector or scalar as it is."""
    if self.ndim > 2:
        raise ShapeError(
            f"t: got {self.ndim} dimensions {format_shape(self.shape)}, want at most 2; use .mT or transpose"
        )
    return permute(self, list(range(self.ndim))[::-1])


def movedim(self: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The dimensions `source` moved to the positions `destination`; the others keep their order."""
    sources = [source] if isinstance(source, int) else source
    destinations = [destination] if isinstance(destination, int) else destination
    if len(sources) != len(destinations):
        raise ShapeError(f"movedim: {len(sources)} dimensions to {len(destinations)} places; want as many")
    where = {
        resolve_axis("movedim", to, self.ndim): resolve_axis("movedim", axis, self.ndim)
        for axis, to in zip(sources, destinations, strict=True)
    }
    if len(where) != len(sources):
        raise ShapeError(f"movedim: destination {tuple(destinations)} names a dimension twice")
    rest = iter([axis for axis in range(self.ndim) if axis not in where.values()])
    return permute(self, [where[to] if to in where else next(rest, -1) for to in range(self.ndim)])


moveaxis = movedim


def _matrix_transpose(self: Tensor) -> Tensor:
    if self.ndim < 2:
        raise ShapeError(f"mT: got shape {format_shape(self.shape)}, want at least 2 dimensions")
    return transpose(self, -2, -1)


PROPERTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "T": lambda self: permute(self, list(range(self.ndim))[::-1]),
    "mT": _matrix_transpose,
}

# ---- repetition --------------------------------------------------------------------------------------------


def expand(self: Tensor, *sizes: SymInt | Sequence[SymInt]) -> Tensor:
    """Dimensions of size 1 repeated without a copy, and new ones put in front; -1 keeps a size."""
    given = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    have, lead = self.shape, len(given) - self.ndim
    if lead < 0:
        raise ShapeError(
            f"expand: {format_shape(tuple(given))} has fewer dimensions than {format_shape(have)}"
        )
    kept = [
        have[i - lead] if isinstance(n, int) and n == -1 and i >= lead else n for i, n in enumerate(given)
    ]
    shape = resolve_shape("expand", [tuple(kept)])
    return self.view_by(lambda node: graph.expand(node, shape))


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of `other`."""
    return expand(self, other.shape)


def broadcast_to(self: Tensor, size: Sequence[SymInt]) -> Tensor:
    """Expanded to `size`."""
    return expand(self, size)


def broadcast_tensors(*tensors: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Views of the tensors, expanded to their common shape."""
    items = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    shape = broadcast_shapes("broadcast_tensors", *[tensor.shape for tensor in items])
    return tuple([expand(tensor, shape) for tensor in items])


def repeat(self: Tensor, *sizes: SymInt | Sequence[SymInt]) -> Tensor:
    """The whole tensor repeated along each dimension; more sizes than dimensions put new ones in front."""
    times = resolve_shape("repeat", sizes)
    lead = len(times) - self.ndim
    if lead < 0:
        raise ShapeError(
            f"repeat: got {len(times)} sizes {format_shape(times)} for {self.ndim} dimensions, want as many"
        )
    shape = (1,) * lead + self.shape
    pairs = list(zip(times, shape, strict=True))
    node = graph.reshape(self.node, [n for size in shape for n in (1, size)])
    node = graph.expand(node, [n for pair in pairs for n in pair])
    return Tensor.from_node(graph.reshape(node, [count * size for count, size in pairs]), self)


def tile(self: Tensor, *dims: SymInt | Sequence[SymInt]) -> Tensor:
    """As `repeat`, with 1 for the leading dimensions that `dims` leaves out."""
    times = resolve_shape("tile", dims)
    return repeat(self, (1,) * (self.ndim - len(times)) + times)


def repeat_interleave(
    self: Tensor,
    repeats: SymInt | Tensor | Sequence[int],
    dim: int | None = None,
    *,
    output_size: int | None = None,
) -> Tensor:
    """Each element along `dim` (of the flattened tensor if None) repeated, `repeats` times or its own number.

    A tensor of repeats is computed at once, as the shape depends on it, unless `output_size` is given.
    """
    if dim is None:
        self, dim = flatten(self), 0
    elif not self.ndim:
        self = reshape(self, 1)
    axis, shape = resolve_axis("repeat_interleave", dim, self.ndim), self.shape
    if not isinstance(repeats, int | Expr):
        counts = repeats if isinstance(repeats, Tensor) else Tensor(repeats, device=self.device)
        if counts.numel() != 1:
            return _repeat_each(self, axis, counts, output_size)
        repeats = int(counts.item())
    node = graph.reshape(self.node, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    node = graph.expand(
        node, [*shape[: axis + 1], *resolve_shape("repeat_interleave", (repeats,)), *shape[axis + 1 :]]
    )
    return Tensor.from_node(
        graph.reshape(node, [*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]]), self
    )


def _repeat_each(self: Tensor, axis: int, repeats: Tensor, total: int | None) -> Tensor:
    """The source of output i is the number of elements whose repetitions end at or before i."""
    if repeats.shape != (self.shape[axis],) or repeats.dtype.kind == "float":
        raise ShapeError(
            f"repeat_interleave: repeats are {repeats.dtype}{format_shape(repeats.shape)}, "
            f"want one integer for each of {self.shape[axis]} elements"
        )
    ends = graph.scan(graph.cast(repeats.node, int64), "sum", 0)
    if total is None:
        if min(repeats.tolist(), default=0) < 0:
            raise ShapeError("repeat_interleave: a repeat is negative, want all >= 0")
        total = int(sum(repeats.tolist()))
    one = graph.const(1, int64, self.device)
    marks = graph.expand(graph.const(0, int64, self.device), (total + 1,))
    marks = graph.scatter(marks, ends, graph.expand(one, ends.shape), 0, "sum")
    index = graph.scan(graph.shrink(marks, [(0, total)]), "sum", 0)
    return Tensor.from_node(take_along(self.node, index, axis), self)


def take_along(node: Node, index: Node, axis: int) -> Node:
    """The slices of `node` along `axis` that the vector `index` names."""
    shape = [index.shape[0] if i == axis else n for i, n in enumerate(node.shape)]
    aligned = graph.reshape(index, [index.shape[0] if i == axis else 1 for i in range(len(shape))])
    return graph.gather(node, graph.expand(aligned, shape), axis)


# ---- direction ---------------------------------------------------------------------------------------------


def flip(self: Tensor, *dims: int | Sequence[int]) -> Tensor:
    """The order of the elements along `dims` reversed."""
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims
    return Tensor.from_node(
        graph.flip(self.node, resolve_axes("flip", given, self.ndim) if given else ()), self
    )


def fliplr(self: Tensor) -> Tensor:
    """Flipped from left to right, along dimension 1."""
    if self.ndim < 2:
        raise ShapeError(f"fliplr: got shape {format_shape(self.shape)}, want at least 2 dimensions")
    return flip(self, 1)


def flipud(self: Tensor) -> Tensor:
    """Flipped upside down, along dimension 0."""
    if not self.ndim:
        raise ShapeError("flipud: got a scalar (), want at least 1 dimension")
    return flip(self, 0)


def roll(self: Tensor, shifts: SymInt | Sequence[SymInt], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved on by `shifts` along `dims`, around the end; without `dims`, of the flattened tensor."""
    if dims is None:
        return reshape(roll(flatten(self), shifts, 0), self.shape)
    amounts = [shifts] if isinstance(shifts, int | Expr) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(amounts) != len(axes):
        raise ShapeError(f"roll: got {len(amounts)} shifts for {len(axes)} dims, want as many")
    node = self.node
    for amount, dim in zip(amounts, axes, strict=True):
        axis = resolve_axis("roll", dim, self.ndim)
        if not node.shape or node.shape[axis] == 0:
            continue
        size = node.shape[axis]
        start = -amount % size
        node = graph.cat([_slice(node, axis, start, size), _slice(node, axis, 0, start)], axis)
    return Tensor.from_node(node, self)


def rot90(self: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotated by 90 degrees `k` times in the plane of two dimensions, from the first to the second."""
    if len(dims) != 2 or self.ndim < 2 or len(set(resolve_axes("rot90", dims, self.ndim))) != 2:
        raise ShapeError(
            f"rot90: got dims {tuple(dims)} of shape {format_shape(self.shape)}, want two dimensions"
        )
    first, second = dims
    return (
        self.clone(),
        transpose(flip(self, second), first, second),
        flip(self, first, second),
        flip(transpose(self, first, second), second),
    )[k % 4]


# ---- padding -----------------------------------------------------------------------------------------------


def _slice(node: Node, axis: int, start: SymInt, stop: SymInt) -> Node:
    return graph.shrink(node, [(start, stop) if i == axis else (0, n) for i, n in enumerate(node.shape)])


def _reflect(node: Node, axis: int, before: SymInt, after: SymInt) -> list[Node]:
    size = node.shape[axis]
    left, right = _slice(node, axis, 1, before + 1), _slice(node, axis, size - 1 - after, size - 1)
    return [graph.flip(left, [axis]), node, graph.flip(right, [axis])]


def _replicate(node: Node, axis: int, before: SymInt, after: SymInt) -> list[Node]:
    size = node.shape[axis]

    def edge(start: SymInt, count: SymInt) -> Node:
        one = _slice(node, axis, start, start + 1)
        return graph.expand(one, [count if i == axis else n for i, n in enumerate(node.shape)])

    return [edge(0, before), node, edge(size - 1, after)]


def _circular(node: Node, axis: int, before: SymInt, after: SymInt) -> list[Node]:
    size = node.shape[axis]
    return [_slice(node, axis, size - before, size), node, _slice(node, axis, 0, after)]


_BORDERS = {"reflect": (_reflect, 1), "replicate": (_replicate, None), "circular": (_circular, 0)}
"""How a mode extends an axis, and by how much less than its size it may."""


def pad(self: Tensor, pad: Sequence[SymInt], mode: str = "constant", value: Scalar | None = None) -> Tensor:
    """Elements added around the tensor; a negative width takes away.

    Args:
        pad: (before, after) of the last dimension, then of the one before it, and so on.
        mode: "constant" (`value`, by default 0), "reflect", "replicate" or "circular".

    Raises:
        ShapeError: an odd number of widths, too many, or wider than the mode can fill.
    """
    rank = self.ndim
    if len(pad) % 2 or len(pad) > 2 * rank:
        raise ShapeError(
            f"pad: got {len(pad)} widths {tuple(pad)}, want (before, after) for at most {rank} dimensions"
        )
    if mode != "constant" and mode not in _BORDERS:
        raise ShapeError(f"pad: got mode {mode!r}, want constant, {', '.join(_BORDERS)}")
    if mode != "constant" and value:
        raise ShapeError(f"pad: mode {mode} takes no value, got {value}")
    node = self.node
    widths = [(0, 0)] * rank
    for position in range(len(pad) // 2):
        widths[rank - 1 - position] = (pad[2 * position], pad[2 * position + 1])
    grown = [(maximum(a, 0), maximum(b, 0)) for a, b in widths]
    if mode == "constant":
        node = graph.shrink(node, _cropped(node, widths))
        return Tensor.from_node(
            graph.pad(node, grown, graph.const(value or 0, self.dtype, self.device)), self
        )
    extend, less = _BORDERS[mode]
    for axis, (before, after) in enumerate(grown):
        if (before, after) == (0, 0):
            continue
        size = node.shape[axis]
        limit = bounds(maximum(before, after))[1] if less is None else size - less
        if not prove_le(maximum(before, after), limit) or not prove_le(1, size):
            raise ShapeError(
                f"pad: {mode} by {(before, after)} of dimension {axis} of size {size}; want at most {limit}"
            )
        node = graph.cat(extend(node, axis, before, after), axis)
    return Tensor.from_node(graph.shrink(node, _cropped(node, widths)), self)


def _cropped(node: Node, widths: Sequence[tuple[SymInt, SymInt]]) -> list[tuple[SymInt, SymInt]]:
    return [(-minimum(a, 0), size + minimum(b, 0)) for size, (a, b) in zip(node.shape, widths, strict=True)]


# ---- parts -------------------------------------------------------------------------------------------------


def narrow(self: Tensor, dim: int, start: SymInt | Tensor, length: SymInt) -> Tensor:
    """`length` elements along `dim` from `start` on."""
    axis = resolve_axis("narrow", dim, self.ndim)
    if not self.ndim:
        raise ShapeError("narrow: got a scalar (), want at least 1 dimension")
    start = int(start) if isinstance(start, Tensor) else start
    size = self.shape[axis]
    first = start + size if isinstance(start, int) and start < 0 else start
    if not (prove_le(0, first) and prove_le(0, length) and prove_le(first + length, size)):
        raise IndexRangeError(f"narrow: {length} elements from {start} on, of dimension {dim} of size {size}")
    return self.view_by(lambda node: _slice(node, axis, first, first + length))


def select(self: Tensor, dim: int, index: SymInt) -> Tensor:
    """The slice number `index` along `dim`, without that dimension."""
    axis, shape = resolve_axis("select", dim, self.ndim), self.shape
    if not shape:
        raise IndexRangeError("select: got a scalar (), want at least 1 dimension")
    first = index + shape[axis] if isinstance(index, int) and index < 0 else index
    if not (prove_le(0, first) and prove_le(first + 1, shape[axis])):
        raise IndexRangeError(
            f"select: index {index} is out of range for dimension {dim} of size {shape[axis]}"
        )
    return reshape(narrow(self, axis, first, 1), shape[:axis] + shape[axis + 1 :])


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` elements along `dimension`, `step` apart, as a new last dimension; a view."""
    axis = resolve_axis("unfold", dimension, self.ndim)
    return self.view_by(lambda node: graph.window(node, axis, size, step))


# ---- diagonals ---------------------------------------------------------------------------------------------


def diagonal(self: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of the matrices in two dimensions, as the last dimension; a view.

    Each diagonal element is one row and one column further: in the flattened matrix, a fixed stride.
    """
    first, second = resolve_axis("diagonal", dim1, self.ndim), resolve_axis("diagonal", dim2, self.ndim)
    if first == second or self.ndim < 2:
        raise ShapeError(
            f"diagonal: got dims {dim1} and {dim2} of {format_shape(self.shape)}, want two dimensions"
        )
    rest = [axis for axis in range(self.ndim) if axis not in (first, second)]
    matrix = permute(self, [*rest, first, second])
    *lead, rows, columns = matrix.shape
    count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    if not count:
        return reshape(narrow(matrix, -1, 0, 0), *lead, rows * 0)
    start = offset if offset >= 0 else -offset * columns
    flat = narrow(flatten(matrix, -2), -1, start, (count - 1) * (columns + 1) + 1)
    return reshape(unfold(flat, -1, 1, columns + 1), *lead, count)


def diag_embed(self: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension on their diagonal and 0 elsewhere."""
    if not self.ndim:
        raise ShapeError("diag_embed: got a scalar (), want at least 1 dimension")
    first, second = (
        resolve_axis("diag_embed", dim1, self.ndim + 1),
        resolve_axis("diag_embed", dim2, self.ndim + 1),
    )
    if first == second:
        raise ShapeError(f"diag_embed: got dims {dim1} and {dim2}, want two different ones")
    *lead, count = self.shape
    size = count + abs(offset)
    stride = size + 1
    before = offset if offset >= 0 else -offset * size
    spread = flatten(pad(unsqueeze(self, -1), (0, size)), -2)  # element i at i * stride
    flat = narrow(spread, -1, 0, maximum(count * stride - size, 0)) if count != 0 else spread
    flat = pad(flat, (before, size * size - before - flat.shape[-1]))
    return movedim(reshape(flat, *lead, size, size), (-2, -1), (first, second))


def diag(self: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as the diagonal of a matrix, or a copy of the diagonal of a matrix."""
    if self.ndim not in (1, 2):
        raise ShapeError(f"diag: got shape {format_shape(self.shape)}, want 1 or 2 dimensions")
    return diag_embed(self, diagonal) if self.ndim == 1 else _diagonal(self, diagonal).clone()


_diagonal = diagonal


def trace(self: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if self.ndim != 2:
        raise ShapeError(f"trace: got shape {format_shape(self.shape)}, want a matrix")
    return diagonal(self).sum()
