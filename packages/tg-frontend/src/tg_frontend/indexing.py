"""Indexing with `x[...]`, get and set, by NumPy's rules.

An index is taken in two parts. The basic part (ints, slices, None, Ellipsis) makes a view. The advanced part (integer
arrays and masks) then names elements of that view: its axes are merged into one, the arrays into one flat index, and
there is one gather or scatter along that axis. Scalar tensors and symbolic integers index without being evaluated.

A mask is evaluated at once, because the shape of the result depends on it; `x[mask] = number` needs no such thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tg_frontend import elementwise as e
from tg_frontend.core import Scalar, Tensor, broadcast_shapes
from tg_frontend.joining import stack
from tg_frontend.movement import expand, flatten, reshape, unfold
from tg_ir import graph
from tg_ir.dtypes import bool_, int64
from tg_ir.errors import DTypeError, IndexRangeError, ShapeError, SymbolicError
from tg_ir.graph import Node, format_shape
from tg_ir.symbolic import Expr, SymInt, bounds, maximum, minimum, prod, prove_le

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "argwhere",
    "diagonal_scatter",
    "index_put",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "nonzero",
    "put",
    "select_scatter",
    "slice_scatter",
    "take",
]

Index = object
"""What may stand in brackets: ints, slices, None, Ellipsis, masks, integer arrays, and tuples of them."""


# ---- reading an index -------------------------------------------------------------------------------------------


class _Box(NamedTuple):
    """What an int or a slice takes of an axis: start:stop, every step-th of it, backwards if flipped."""

    start: SymInt
    stop: SymInt
    step: int = 1
    flipped: bool = False
    dropped: bool = False


class _Array(NamedTuple):
    """An integer array on an axis of the view, and whether its values are known to be in range."""

    axis: int
    index: Tensor
    checked: bool = True


def _as_item(item: Index, device: str) -> Index:
    """An item of an index as an int, a symbolic integer, a slice, None, Ellipsis, a bool, or a tensor."""
    if item is None or item is Ellipsis or isinstance(item, bool | int | slice | Expr | Tensor):
        return item
    if isinstance(item, list | tuple | range):
        return Tensor(list(item), device=device) if len(item) else Tensor([], int64, device)
    if hasattr(item, "__array__"):
        if not item.shape and hasattr(item, "item"):  # type: ignore[attr-defined]
            return item.item()  # type: ignore[attr-defined]
        return Tensor(item, device=device)
    raise DTypeError(
        f"index: got {type(item).__name__} {item!r}; want ints, slices, None, ..., bools, or arrays of ints or bools"
    )


def _extent(data: Index) -> tuple[int, int] | None:
    """The least and the greatest of the integers in a NumPy array or a nested sequence; None if there are none."""
    if isinstance(data, list | tuple | range):
        parts = [part for part in map(_extent, data) if part is not None]
        return (min(low for low, _ in parts), max(high for _, high in parts)) if parts else None
    size = getattr(data, "size", 1)
    return (
        (int(data.min()), int(data.max()))
        if size and hasattr(data, "min")
        else (int(data),) * 2
        if size
        else None
    )


def _array(index: Tensor, given: Index, axis: int, size: SymInt, position: int) -> _Array:
    """The indices counted from 0. Those given as numbers are looked at; a tensor's are not, nor is it evaluated."""
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"index: got a {index.dtype} array for dimension {position}, want integers or bools")
    if isinstance(given, Tensor) or isinstance(size, Expr):
        return _Array(axis, wrapped(index, size), False)
    low, high = _extent(given) or (0, -1)
    if low < -size or high >= size:
        bad = low if low < -size else high
        raise IndexRangeError(f"index: {bad} is out of range for dimension {position} of size {size}")
    return _Array(axis, index.to(int64) if low >= 0 else wrapped(index, size))


def wrapped(index: Tensor, size: SymInt) -> Tensor:
    """Indices as int64, where negative ones count from the end."""
    wide = index.to(int64)
    return wide if index.dtype.kind == "uint" else e.where(e.lt(wide, 0), e.add(wide, size), wide)


def _integer(value: object) -> SymInt | None:
    return value if value is None or isinstance(value, Expr) else value.__index__()  # type: ignore[attr-defined]


def _int_box(index: SymInt, size: SymInt, position: int) -> _Box:
    start = index + size if isinstance(index, int) and index < 0 else index
    if not (prove_le(0, start) and prove_le(start + 1, size)):
        raise IndexRangeError(f"index: {index} is out of range for dimension {position} of size {size}")
    return _Box(start, start + 1, dropped=True)


def _slice_box(item: slice, size: SymInt) -> _Box:
    start, stop, step = _integer(item.start), _integer(item.stop), _integer(item.step)
    if step is None:
        step = 1
    if not isinstance(step, int) or step == 0:
        raise ShapeError(f"index: got the step {step} of a slice, want an int other than 0")
    if all([isinstance(value, int | None) for value in (start, stop, size)]):
        low, high, _ = slice(start, stop, step).indices(size)  # type: ignore[arg-type]
        places = range(low, high, step)
        if not places:
            return _Box(0, 0)
        return _Box(min(places[0], places[-1]), max(places[0], places[-1]) + 1, abs(step), step < 0)
    if step < 0:
        if start is not None or stop is not None:
            raise SymbolicError(
                f"index: {item} of the symbolic size {size} backwards; use flip and a forward slice"
            )
        if step != -1:
            raise SymbolicError(
                f"index: {item} of the symbolic size {size}; flip it and take every {-step}th"
            )
        return _Box(0, size, 1, True)
    low = 0 if start is None else _limit(start, size)
    high = size if stop is None else _limit(stop, size)
    return _Box(low, high if prove_le(low, high) else maximum(low, high), step)


def _limit(place: SymInt, size: SymInt) -> SymInt:
    """An end of a slice counted from 0 and brought into 0..size."""
    low, high = bounds(place)
    if high < 0:
        return maximum(place + size, 0)
    if low < 0:
        raise SymbolicError(
            f"index: {place} may be negative or not (it is {low} to {high}); want one of them"
        )
    return place if prove_le(place, size) else minimum(place, size)


def _basic(self: Tensor, boxes: Sequence[_Box], shape: Sequence[SymInt]) -> Tensor:
    """The view that the boxes and then a reshape give."""
    limits = [(box.start, box.stop) for box in boxes]
    view = self.view_by(lambda node: graph.shrink(node, limits))
    for axis, box in enumerate(boxes):
        if box.step != 1 and view.shape[axis] != 0:
            view = unfold(view, axis, 1, box.step)
            view = reshape(view, view.shape[:-1])
    flipped = [axis for axis, box in enumerate(boxes) if box.flipped]
    if flipped:
        view = view.view_by(lambda node: graph.flip(node, flipped))
    return reshape(view, tuple(shape)) if tuple(shape) != view.shape else view


def _parse(self: Tensor, index: Index) -> tuple[Tensor, list[_Array], bool]:
    """The view of the basic part, the arrays on its axes, and whether their dimensions go where the first one stands.

    NumPy's rule: they do if no slice, None or Ellipsis stands between arrays (ints count as arrays here), else they
    come first.
    """
    given = index if isinstance(index, tuple) else (index,)
    items = [_as_item(item, self.device) for item in given]
    taken = [_taken(item) for item in items]
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1 or sum(taken) > self.ndim:
        what = "two Ellipsis" if len(dots) > 1 else f"{sum(taken)} indices for {self.ndim} dimensions"
        raise IndexRangeError(f"index: got {what} of a tensor of shape {format_shape(self.shape)}")
    if not dots:
        dots, items, taken = [len(items)], [*items, Ellipsis], [*taken, 0]

    boxes: list[_Box] = []  # one for each axis of self
    shape: list[SymInt] = []  # of the view
    arrays: list[_Array] = []
    groups: list[bool] = []  # for each item whether it is an array or an int
    for i, item in enumerate(items):
        axis, size = len(boxes), 1 if len(boxes) >= self.ndim else self.shape[len(boxes)]
        groups.append(isinstance(item, int | Expr | Tensor))
        if item is None:
            shape.append(1)
        elif item is Ellipsis:
            free = self.shape[axis : axis + self.ndim - sum(taken)]
            boxes += [_Box(0, n) for n in free]
            shape += free
        elif isinstance(item, bool):
            arrays.append(_Array(len(shape), Tensor([0] * item, int64, self.device)))
            shape.append(1)
        elif isinstance(item, slice):
            box = _slice_box(item, size)
            boxes.append(box)
            shape.append((box.stop - box.start - 1) // box.step + 1)
        elif isinstance(item, int | Expr):
            boxes.append(_int_box(item, size, axis))
        elif item.dtype is bool_:
            sizes = self.shape[axis : axis + item.ndim]
            if tuple(item.shape) != tuple(sizes):
                raise IndexRangeError(
                    f"index: the mask has shape {format_shape(item.shape)}, the dimensions from {axis} on "
                    f"{format_shape(sizes)}; want them equal"
                )
            arrays.append(_Array(len(shape), flat_nonzero(item)))
            boxes += [_Box(0, n) for n in sizes]
            shape.append(prod(sizes))
        else:
            arrays.append(_array(item, given[i], len(shape), size, axis))
            boxes.append(_Box(0, size))
            shape.append(size)
    first, last = (groups.index(True), len(groups) - groups[::-1].index(True)) if arrays else (0, 0)
    together = all(groups[first:last])
    return _basic(self, boxes, shape), arrays, together


def _taken(item: Index) -> int:
    """How many dimensions an item stands for."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype is bool_ else 1


def flat_nonzero(self: Tensor) -> Tensor:
    """The flat indices of what differs from 0, in order. Evaluates the tensor, for their number.

    The running count of true elements says where each of them goes; the others go to a place past the end.
    """
    true = flatten(self.to(bool_)).detach().realize()
    count = int(true.sum().item())
    place = e.where(true, e.sub(true.cumsum(0), 1), count)
    order = graph.iota(true.numel(), int64, self.device)
    slots = graph.expand(graph.const(0, int64, self.device), (count + 1,))
    return Tensor.from_node(graph.shrink(graph.scatter(slots, place.node, order, 0), [(0, count)]))


# ---- the advanced part ------------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """How to reach the named elements: permute by `order`, reshape to `merged`, gather along `axis` at `index`."""

    order: list[int]
    merged: list[SymInt]
    axis: int
    index: Node
    result: tuple[SymInt, ...]


def _plan(view: Tensor, arrays: Sequence[_Array], together: bool) -> _Plan:
    axes = [array.axis for array in arrays]
    rest = [axis for axis in range(view.ndim) if axis not in axes]
    first = axes[0] if together else 0
    order = [*rest[:first], *axes, *rest[first:]]
    before, after = [view.shape[a] for a in rest[:first]], [view.shape[a] for a in rest[first:]]
    common = broadcast_shapes("index", *[array.index.shape for array in arrays])
    flat = arrays[0].index
    for array in arrays[1:]:
        flat = e.add(e.mul(flat, view.shape[array.axis]), array.index)
    for array in arrays if len(arrays) > 1 else ():
        if not array.checked:  # out of range of one axis must not come to be in range of all of them together
            inside = e.logical_and(e.ge(array.index, 0), e.lt(array.index, view.shape[array.axis]))
            flat = e.where(inside, flat, -1)
    count, size = prod(common), prod([view.shape[axis] for axis in axes])
    vector = graph.reshape(graph.expand(flat.node, common), [*[1] * len(before), count, *[1] * len(after)])
    node = graph.expand(vector, [*before, count, *after])
    return _Plan(order, [*before, size, *after], len(before), node, (*before, *common, *after))


def get_item(self: Tensor, index: Index) -> Tensor:
    """`self[index]`: a view if the index is basic, else a copy.

    Raises:
        IndexRangeError: too many indices, an int out of range, or a mask of another shape.
    """
    view, arrays, together = _parse(self, index)
    if not arrays:
        return view
    plan = _plan(view, arrays, together)
    node = graph.reshape(graph.permute(view.node, plan.order), plan.merged)
    return Tensor.from_node(graph.reshape(graph.gather(node, plan.index, plan.axis), plan.result), self)


def _as_value(value: Tensor | Scalar | Sequence | np.ndarray, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(like.dtype, device=like.device)
    return Tensor(value, like.dtype if isinstance(value, bool | int | float) else None, like.device).to(
        like.dtype
    )


def _fitted(value: Tensor, shape: Sequence[SymInt]) -> Tensor:
    """Broadcast to the shape; leading dimensions of size 1 too many are dropped, as NumPy does."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = reshape(value, value.shape[1:])
    if value.ndim > len(shape) or broadcast_shapes("index", value.shape, tuple(shape)) != tuple(shape):
        raise ShapeError(
            f"index: a value of shape {format_shape(value.shape)} does not broadcast to {format_shape(tuple(shape))}"
        )
    return expand(value, tuple(shape))


def _covers(index: Index, self: Tensor) -> bool:
    """Whether the index is one mask over the leading dimensions, so that no indices need be known."""
    is_mask = isinstance(index, Tensor) and index.dtype is bool_ and index.ndim > 0
    return is_mask and tuple(index.shape) == tuple(self.shape[: index.ndim])


def set_item(
    self: Tensor, index: Index, value: Tensor | Scalar | Sequence | np.ndarray, kind: str = "set"
) -> None:
    """`self[index] = value`; of elements that an index names twice, the last value stays.

    With `kind` "sum", "prod", "max" or "min" the values are combined with what is there.
    """
    value = _as_value(value, self)
    if kind == "set" and value.numel() == 1 and _covers(index, self):
        self.assign(masked_fill(self, reshape(index, index.shape + (1,) * (self.ndim - index.ndim)), value))
        return
    view, arrays, together = _parse(self, index)
    if not arrays:
        value = _fitted(value, view.shape)
        if value.node is not view.node:  # as in x[0] += 1, which has written it already
            view.assign(value)
        return
    plan = _plan(view, arrays, together)
    base = graph.permute(view.node, plan.order)
    given = graph.reshape(_fitted(value, plan.result).node, plan.index.shape)
    written = graph.scatter(graph.reshape(base, plan.merged), plan.index, given, plan.axis, kind)
    back = [plan.order.index(axis) for axis in range(view.ndim)]
    view.assign(Tensor.from_node(graph.permute(graph.reshape(written, base.shape), back), self, value))


OPERATORS: dict[str, Callable[..., object]] = {"__getitem__": get_item}


def index_put(
    self: Tensor, indices: Sequence[Tensor | None], values: Tensor | Scalar, accumulate: bool = False
) -> Tensor:
    """A copy with `copy[indices] = values`, or `+=` that adds up where `accumulate`."""
    result = self.clone()
    index = tuple([slice(None) if item is None else item for item in indices])
    set_item(result, index, values, "sum" if accumulate else "set")
    return result


# ---- masks ------------------------------------------------------------------------------------------------------


def _condition(name: str, mask: Tensor) -> Tensor:
    if mask.dtype is not bool_:
        raise DTypeError(f"{name}: the mask is {mask.dtype}, want bool; compare it with 0 first")
    return mask


def masked_fill(self: Tensor, mask: Tensor, value: Tensor | Scalar) -> Tensor:
    """`value` where the mask is true, else the element."""
    value = _as_value(value, self)
    if value.numel() != 1:
        raise ShapeError(f"masked_fill: the value has shape {format_shape(value.shape)}, want one element")
    return e.where(_condition("masked_fill", mask), reshape(value, ()), self)


def masked_select(self: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is true, as a vector. Evaluates the mask."""
    shape = broadcast_shapes("masked_select", self.shape, mask.shape)
    return (
        get_item(expand(self, shape), expand(_condition("masked_select", mask), shape))
        if shape
        else get_item(reshape(self, 1), reshape(mask, 1))
    )


def masked_scatter(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The elements of `source`, one after the other, where the mask is true."""
    if source.dtype is not self.dtype:
        raise DTypeError(f"masked_scatter: source is {source.dtype}, want {self.dtype}")
    shape = broadcast_shapes("masked_scatter", self.shape, mask.shape)
    true = flatten(expand(_condition("masked_scatter", mask), shape))
    if source.numel() == 0:
        return expand(self, shape).clone()
    place = e.clamp(e.sub(true.cumsum(0), 1), 0, source.numel() - 1)
    picked = Tensor.from_node(graph.gather(flatten(source).node, place.node, 0), source)
    return e.where(reshape(true, shape), reshape(picked, shape), self)


def nonzero(self: Tensor, *, as_tuple: bool = False) -> Tensor | tuple[Tensor, ...]:
    """The indices of what differs from 0: a row each, or a vector for each dimension. Evaluates the tensor."""
    if as_tuple and not self.ndim:
        self = reshape(self, 1)
    rest = flat_nonzero(self)
    found: list[Tensor] = []
    for size in reversed(self.shape):
        found.insert(0, e.remainder(rest, size))
        rest = e.floor_divide(rest, size)
    if as_tuple:
        return tuple(found)
    return stack(found, 1) if found else reshape(rest, rest.shape[0], 1)[:, :0]


def argwhere(self: Tensor) -> Tensor:
    """The indices of what differs from 0, a row each. Evaluates the tensor."""
    return nonzero(self)


# ---- flat indices, and copies with a part replaced --------------------------------------------------------------


def take(self: Tensor, index: Tensor) -> Tensor:
    """The elements at flat indices, in the shape of the index."""
    return get_item(flatten(self), index if index.ndim else reshape(index, 1)).reshape(index.shape)


def put(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with the elements at flat indices replaced, or added to."""
    return reshape(index_put(flatten(self), [flatten(index)], flatten(source), accumulate), self.shape)


def _with(self: Tensor, view: Callable[[Tensor], Tensor], src: Tensor) -> Tensor:
    result = self.clone()
    view(result).assign(src)
    return result


def select_scatter(self: Tensor, src: Tensor, dim: int, index: SymInt) -> Tensor:
    """A copy with `select(dim, index)` replaced."""
    return _with(self, lambda copy: copy.select(dim, index), src)


def slice_scatter(
    self: Tensor,
    src: Tensor,
    dim: int = 0,
    start: SymInt | None = None,
    end: SymInt | None = None,
    step: int = 1,
) -> Tensor:
    """A copy with the slice start:end:step of `dim` replaced."""
    leading = (slice(None),) * (dim % self.ndim)
    return _with(self, lambda copy: get_item(copy, (*leading, slice(start, end, step))), src)


def diagonal_scatter(self: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with a diagonal replaced."""
    return _with(self, lambda copy: copy.diagonal(offset, dim1, dim2), src)
