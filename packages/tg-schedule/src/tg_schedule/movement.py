"""Movement as substitution: at which index a movement operation reads its input, for an index of its own.

permute, order (1, 0): out[i, j] = in[j, i]        reshape (2, 3) to (6,): out[i] = in[i // 3, i % 3]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tg_ir.graph import Node, Shape
from tg_ir.symbolic import SymInt, bounds, maximum, prod

__all__ = ["MOVED", "Indices", "flat_index", "unflatten"]

Indices = tuple[SymInt, ...]


def flat_index(index: Sequence[SymInt], shape: Shape) -> SymInt:
    """The position of an index in row-major order."""
    flat: SymInt = 0
    for position, size in zip(index, shape, strict=True):
        flat = flat * size + position
    return flat


def unflatten(flat: SymInt, shape: Shape) -> Indices:
    """The index of a position in row-major order."""
    index: list[SymInt] = []
    for axis, size in enumerate(shape):
        inner = prod(shape[axis + 1 :])
        if bounds(size)[1] <= 1 or bounds(inner)[1] == 0:
            index.append(0)
        else:
            # a size that may be 0 divides nothing: there are no elements then
            outer = flat // _positive(inner)
            index.append(outer % _positive(size) if any(bounds(n)[1] > 1 for n in shape[:axis]) else outer)
    return tuple(index)


def _positive(size: SymInt) -> SymInt:
    return size if bounds(size)[0] > 0 else maximum(size, 1)


def _groups(have: Shape, want: Shape) -> Iterator[tuple[slice, slice]]:
    """The smallest runs of dimensions of both shapes that hold equally many elements."""
    i = j = 0
    while i < len(have) or j < len(want):
        start, left, right = (i, j), 1, 1
        while (i, j) == start or left != right:
            if i < len(have) and (j == len(want) or bounds(left)[1] <= bounds(right)[1]):
                left, i = left * have[i], i + 1
            elif j < len(want):
                right, j = right * want[j], j + 1
            else:
                break
        yield slice(start[0], i), slice(start[1], j)


def _reshape(node: Node, index: Indices) -> Indices:
    inner: list[SymInt] = []
    source = node.inputs[0].shape
    for outside, inside in _groups(node.shape, source):
        have, want = node.shape[outside], source[inside]
        inner += index[outside] if have == want else unflatten(flat_index(index[outside], have), want)
    return tuple(inner)


def _permute(node: Node, index: Indices) -> Indices:
    inner: list[SymInt] = [0] * len(index)
    for axis, position in zip(node["order"], index, strict=True):
        inner[axis] = position
    return tuple(inner)


def _expand(node: Node, index: Indices) -> Indices:
    shape = node.inputs[0].shape
    tail = index[len(index) - len(shape) :]
    return tuple([0 if size == 1 else i for i, size in zip(tail, shape, strict=True)])


def _shrink(node: Node, index: Indices) -> Indices:
    return tuple([i + start for i, (start, _) in zip(index, node["limits"], strict=True)])


def _flip(node: Node, index: Indices) -> Indices:
    return tuple([node.shape[a] - 1 - i if a in node["axes"] else i for a, i in enumerate(index)])


def _window(node: Node, index: Indices) -> Indices:
    axis, _, stride, dilation = node.attrs
    *inner, offset = index
    inner[axis] = inner[axis] * stride + offset * dilation
    return tuple(inner)


MOVED: dict[str, Callable[[Node, Indices], Indices]] = {
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "shrink": _shrink,
    "flip": _flip,
    "window": _window,
}
