"""Functions that make nodes of the tensor graph, one for each operation that has attributes.

They normalise attributes and leave out what does nothing, so that graphs of the same meaning are more often the same
graph: a reshape of a reshape is one reshape, and a permute, expand, pad, shrink, flip or cast that changes nothing is
its input.
"""

from __future__ import annotations

from collections.abc import Sequence

from tg_ir.dtypes import DType, constant, int64, to_bits
from tg_ir.graph.nodes import Node, Shape, make
from tg_ir.graph.ops import OPS
from tg_ir.symbolic import SymInt

__all__ = [
    "all_gather",
    "all_reduce",
    "apply",
    "argsort",
    "assign",
    "bitcast",
    "buffer",
    "cast",
    "cat",
    "const",
    "copy",
    "expand",
    "flip",
    "gather",
    "iota",
    "pad",
    "permute",
    "random_bits",
    "reduce",
    "reshape",
    "scan",
    "scatter",
    "shrink",
    "window",
]

_CONST, _IOTA, _BUFFER, _RANDOM_BITS = OPS["const"], OPS["iota"], OPS["buffer"], OPS["random_bits"]
_CAST, _BITCAST, _COPY = OPS["cast"], OPS["bitcast"], OPS["copy"]
_RESHAPE, _PERMUTE, _EXPAND, _PAD = OPS["reshape"], OPS["permute"], OPS["expand"], OPS["pad"]
_SHRINK, _FLIP, _WINDOW, _CAT = OPS["shrink"], OPS["flip"], OPS["window"], OPS["cat"]
_REDUCE, _SCAN, _ARGSORT = OPS["reduce"], OPS["scan"], OPS["argsort"]
_GATHER, _SCATTER, _ASSIGN = OPS["gather"], OPS["scatter"], OPS["assign"]
_ALL_REDUCE, _ALL_GATHER = OPS["all_reduce"], OPS["all_gather"]


def const(value: float | int | bool, dtype: DType, device: str) -> Node:
    """A scalar, rounded to `dtype`."""
    value = constant(value, dtype)
    return make(_CONST, (), (value, dtype, device), key=(to_bits(value, dtype), dtype, device))


def iota(length: SymInt, dtype: DType = int64, device: str = "REF") -> Node:
    """The vector 0, 1, .., length - 1."""
    return make(_IOTA, (), (length, dtype, device))


def buffer(shape: Shape, dtype: DType, device: str, *, name: str = "", source: Node | None = None) -> Node:
    """New memory, equal to no other node: to be filled by the caller (`Node.fill`), or pending on `source`."""
    return Node(_BUFFER, () if source is None else (source,), (name,), tuple(shape), dtype, device)


def random_bits(key: Node, shape: Shape) -> Node:
    """Random uint32 numbers: the same for the same key and position, on every device."""
    return make(_RANDOM_BITS, (key,), (tuple(shape),))


def apply(name: str, *inputs: Node) -> Node:
    """An elementwise operation of `tg_ir.elementwise`."""
    return make(OPS[name], inputs)


def cast(node: Node, dtype: DType) -> Node:
    """The values converted to `dtype`."""
    return node if node.dtype is dtype else make(_CAST, (node,), (dtype,))


def bitcast(node: Node, dtype: DType) -> Node:
    """The bits read as `dtype`, which is of the same size."""
    return node if node.dtype is dtype else make(_BITCAST, (node,), (dtype,))


def copy(node: Node, device: str) -> Node:
    """The tensor on `device`."""
    return node if node.device == device else make(_COPY, (node,), (device,))


def reshape(node: Node, shape: Sequence[SymInt]) -> Node:
    """The same elements in row-major order under another shape."""
    shape = tuple(shape)
    if node.op is _RESHAPE:
        node = node.inputs[0]
    return node if node.shape == shape else make(_RESHAPE, (node,), (shape,))


def permute(node: Node, order: Sequence[int]) -> Node:
    """Axes in another order: axis k of the result is axis order[k]."""
    order = tuple(order)
    if node.op is _PERMUTE and len(order) == len(node.shape):
        node, order = node.inputs[0], tuple([node.attrs[0][axis] for axis in order])
    return node if order == tuple(range(len(node.shape))) else make(_PERMUTE, (node,), (order,))


def expand(node: Node, shape: Sequence[SymInt]) -> Node:
    """Dimensions of size 1 repeated, and new dimensions put in front, as NumPy broadcasts."""
    shape = tuple(shape)
    if node.shape == shape:
        return node
    if node.op is _EXPAND:
        node = node.inputs[0]
    return make(_EXPAND, (node,), (shape,))


def pad(node: Node, widths: Sequence[tuple[SymInt, SymInt]], fill: Node | None = None) -> Node:
    """Elements of the scalar `fill` (0 when not given) added before and after each axis."""
    widths = tuple([(before, after) for before, after in widths])
    if all(before == 0 and after == 0 for before, after in widths) and len(widths) == len(node.shape):
        return node
    return make(_PAD, (node, const(0, node.dtype, node.device) if fill is None else fill), (widths,))


def shrink(node: Node, limits: Sequence[tuple[SymInt, SymInt]]) -> Node:
    """start:stop of each axis."""
    limits = tuple([(start, stop) for start, stop in limits])
    if limits == tuple([(0, size) for size in node.shape]):
        return node
    return make(_SHRINK, (node,), (limits,))


def flip(node: Node, axes: Sequence[int]) -> Node:
    """Axes reversed."""
    axes = tuple(sorted(set(axes)))
    return make(_FLIP, (node,), (axes,)) if axes else node


def window(node: Node, axis: int, size: SymInt, stride: int = 1, dilation: int = 1) -> Node:
    """Sliding windows over an axis: out[.., i, .., k] = in[.., i * stride + k * dilation, ..], k a new last axis."""
    return make(_WINDOW, (node,), (axis, size, stride, dilation))


def cat(nodes: Sequence[Node], axis: int) -> Node:
    """Tensors one after the other along `axis`."""
    return nodes[0] if len(nodes) == 1 else make(_CAT, tuple(nodes), (axis,))


def reduce(node: Node, kind: str, axes: Sequence[int]) -> Node:
    """Axes combined and dropped. Kinds: sum, prod, max, min, argmax, argmin (the last two: int64, one axis)."""
    axes = tuple(sorted(axes))
    return make(_REDUCE, (node,), (kind, axes)) if axes else node


def scan(node: Node, kind: str, axis: int) -> Node:
    """out[i] combines in[0..i] along `axis`. Kinds: sum, prod, max, min, logaddexp, argmax, argmin."""
    return make(_SCAN, (node,), (kind, axis))


def argsort(node: Node, axis: int, descending: bool = False) -> Node:
    """The stable order of the elements along `axis`, as int64 indices."""
    return make(_ARGSORT, (node,), (axis, descending))


def gather(node: Node, index: Node, axis: int) -> Node:
    """out[.., i, ..] = node[.., index[.., i, ..], ..] along `axis`; the other dimensions are equal."""
    return make(_GATHER, (node, index), (axis,))


def scatter(base: Node, index: Node, source: Node, axis: int, kind: str = "set") -> Node:
    """`base` with base[.., index[.., i, ..], ..] combined with source[.., i, ..]. Kinds: set, sum, prod, max, min."""
    return make(_SCATTER, (base, index, source), (axis, kind))


def assign(base: Node, source: Node, offsets: Sequence[SymInt] | None = None) -> Node:
    """`base` with the box of source's shape at `offsets` (the origin when not given) replaced by `source`."""
    offsets = tuple(offsets) if offsets is not None else (0,) * len(base.shape)
    return make(_ASSIGN, (base, source), (offsets,))


def all_reduce(nodes: Sequence[Node], kind: str, device: str) -> Node:
    """One tensor from each of several devices, combined elementwise, on `device`."""
    return make(_ALL_REDUCE, tuple(nodes), (kind, device))


def all_gather(nodes: Sequence[Node], axis: int, device: str) -> Node:
    """One tensor from each of several devices, concatenated along `axis`, on `device`."""
    return make(_ALL_GATHER, tuple(nodes), (axis, device))
