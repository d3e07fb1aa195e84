"""The operations of the tensor graph: one row each, with the rule that gives shape, dtype and device of its result."""

from __future__ import annotations

from tg_ir import symbolic
from tg_ir.dtypes import DType, bool_, int64, uint32
from tg_ir.elementwise import ELEMENTWISE, result_dtype
from tg_ir.errors import DeviceError, DTypeError, ShapeError
from tg_ir.graph.nodes import Attr, Node, Op, Rule, Type, format_shape

__all__ = ["BUFFER", "OPS", "REDUCE_KINDS", "SCAN_KINDS", "SCATTER_KINDS"]

REDUCE_KINDS = ("sum", "prod", "max", "min", "argmax", "argmin")
SCAN_KINDS = ("sum", "prod", "max", "min", "logaddexp", "argmax", "argmin")
SCATTER_KINDS = ("set", "sum", "prod", "max", "min")


def _one_device(name: str, inputs: tuple[Node, ...]) -> str:
    device = inputs[0].device
    for other in inputs:
        if other.device != device:
            raise DeviceError(
                f"{name}: operands are on {device} and {other.device}, want one device; move one with .to(device)"
            )
    return device


def _same_dtype(name: str, inputs: tuple[Node, ...]) -> DType:
    dtype = inputs[0].dtype
    for other in inputs:
        if other.dtype is not dtype:
            raise DTypeError(f"{name}: operands are {dtype} and {other.dtype}, want one dtype; cast first")
    return dtype


def _axis(name: str, node: Node, axis: int) -> int:
    if not 0 <= axis < len(node.shape):
        raise ShapeError(
            f"{name}: axis {axis} of a {len(node.shape)}-dimensional tensor {format_shape(node.shape)}"
        )
    return axis


def _same_but(name: str, axis: int, first: Node, second: Node) -> None:
    """The shapes of both agree, `axis` aside."""
    a, b = first.shape, second.shape
    if len(a) != len(b) or any(i != axis and x != y for i, (x, y) in enumerate(zip(a, b, strict=True))):
        raise ShapeError(
            f"{name}: shapes are {format_shape(a)} and {format_shape(b)}, want them equal but for axis {axis}"
        )


def _elementwise_rule(name: str) -> Rule:
    row = ELEMENTWISE[name]
    dtypes: dict[tuple[DType, ...], DType] = {}

    def rule(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
        kinds = tuple([node.dtype for node in inputs])
        dtype = dtypes.get(kinds)
        if dtype is None:
            dtype = dtypes[kinds] = result_dtype(row, kinds)
        first = inputs[0]
        for other in inputs[1:]:
            if other.shape != first.shape:
                raise ShapeError(
                    f"{name}: shapes are {format_shape(first.shape)} and {format_shape(other.shape)}, "
                    "want one shape; expand first"
                )
            if other.device != first.device:
                _one_device(name, inputs)
        return first.shape, dtype, first.device

    return rule


def _const(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    _, dtype, device = attrs
    return (), dtype, device


def _iota(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    length, dtype, device = attrs
    if dtype.kind not in ("int", "uint"):
        raise DTypeError(f"iota: got {dtype}, want an integer dtype; cast the result")
    if symbolic.bounds(length)[0] < 0:
        raise ShapeError(f"iota: length {length} may be negative")
    return (length,), dtype, device


def _buffer(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    raise AssertionError("a buffer's type is given, not derived")


def _random_bits(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (key,) = inputs
    if key.dtype is not uint32 or key.shape != (2,):
        raise ShapeError(f"random_bits: the key is {key.dtype}{list(key.shape)}, want uint32[2]")
    return attrs[0], uint32, key.device


def _reshape(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (shape,) = inputs, attrs
    have, want = symbolic.prod(node.shape), symbolic.prod(shape)
    if have != want and not symbolic.prove_equal(have, want):
        raise ShapeError(
            f"reshape: {format_shape(node.shape)} has {have} elements and {format_shape(shape)} has {want}"
        )
    return shape, node.dtype, node.device


def _permute(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (order,) = inputs, attrs
    shape = node.shape
    if sorted(order) != list(range(len(shape))):
        raise ShapeError(f"permute: {order} is no order of the axes of {format_shape(shape)}")
    return tuple([shape[axis] for axis in order]), node.dtype, node.device


def _expand(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (shape,) = inputs, attrs
    old = node.shape
    lead = len(shape) - len(old)
    if lead < 0 or any(a != b and a != 1 for a, b in zip(old, shape[lead:], strict=True)):
        raise ShapeError(
            f"expand: {format_shape(old)} to {format_shape(shape)}; only dimensions of size 1 and new leading "
            "dimensions can be expanded"
        )
    return shape, node.dtype, node.device


def _pad(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node, fill), (widths,) = inputs, attrs
    if fill.shape != ():
        raise ShapeError(f"pad: the fill has shape {format_shape(fill.shape)}, want a scalar ()")
    dtype, device = _same_dtype("pad", inputs), _one_device("pad", inputs)
    if len(widths) != len(node.shape) or any(symbolic.bounds(w)[0] < 0 for pair in widths for w in pair):
        raise ShapeError(
            f"pad: widths {widths} for {format_shape(node.shape)}; want one (before, after) >= 0 an axis"
        )
    return tuple([a + n + b for n, (a, b) in zip(node.shape, widths, strict=True)]), dtype, device


def _shrink(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (limits,) = inputs, attrs
    if len(limits) != len(node.shape):
        raise ShapeError(
            f"shrink: {len(limits)} limits for {format_shape(node.shape)}; want one (start, stop) an axis"
        )
    for (start, stop), size in zip(limits, node.shape, strict=True):
        if not (
            symbolic.prove_le(0, start) and symbolic.prove_le(start, stop) and symbolic.prove_le(stop, size)
        ):
            raise ShapeError(
                f"shrink: {start}:{stop} of a dimension of size {size}; want 0 <= start <= stop <= size, "
                "for every value of a symbolic integer"
            )
    return tuple([stop - start for start, stop in limits]), node.dtype, node.device


def _flip(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (axes,) = inputs, attrs
    for axis in axes:
        _axis("flip", node, axis)
    return node.shape, node.dtype, node.device


def _window(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (axis, size, stride, dilation) = inputs, attrs
    _axis("window", node, axis)
    if min(symbolic.bounds(size)[0], stride, dilation) < 1:
        raise ShapeError(
            f"window: size {size}, stride {stride}, dilation {dilation}; want each of them at least 1"
        )
    reach = dilation * (size - 1) + 1
    if not symbolic.prove_le(reach, node.shape[axis]):
        raise ShapeError(
            f"window: {size} elements {dilation} apart reach over {reach}, "
            f"but axis {axis} of {format_shape(node.shape)} has {node.shape[axis]}"
        )
    count = (node.shape[axis] - reach) // stride + 1
    return node.shape[:axis] + (count,) + node.shape[axis + 1 :] + (size,), node.dtype, node.device


def _cat(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    first, (axis,) = inputs[0], attrs
    _axis("cat", first, axis)
    for other in inputs[1:]:
        _same_but("cat", axis, first, other)
    size = sum((node.shape[axis] for node in inputs[1:]), first.shape[axis])
    shape = first.shape[:axis] + (size,) + first.shape[axis + 1 :]
    return shape, _same_dtype("cat", inputs), _one_device("cat", inputs)


def _reduce(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (kind, axes) = inputs, attrs
    if kind not in REDUCE_KINDS:
        raise ShapeError(f"reduce: got kind {kind!r}, want one of {', '.join(REDUCE_KINDS)}")
    if len(set(axes)) != len(axes) or tuple(sorted(axes)) != axes:
        raise ShapeError(f"reduce: axes {axes}; want each axis once, in ascending order")
    for axis in axes:
        _axis("reduce", node, axis)
    index = kind.startswith("arg")
    if index and len(axes) != 1:
        raise ShapeError(f"reduce: {kind} goes over one axis, got {axes}; flatten first")
    if kind not in ("sum", "prod") and any(symbolic.bounds(node.shape[axis])[0] < 1 for axis in axes):
        raise ShapeError(f"{kind}: no elements to choose from over axes {axes} of {format_shape(node.shape)}")
    if kind in ("sum", "prod") and node.dtype is bool_:
        raise DTypeError(f"reduce: {kind} of bool; cast to an integer first")
    shape = tuple([size for axis, size in enumerate(node.shape) if axis not in axes])
    return shape, int64 if index else node.dtype, node.device


def _scan(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (kind, axis) = inputs, attrs
    if kind not in SCAN_KINDS:
        raise ShapeError(f"scan: got kind {kind!r}, want one of {', '.join(SCAN_KINDS)}")
    if kind in ("sum", "prod") and node.dtype is bool_:
        raise DTypeError(f"scan: {kind} of bool; cast to an integer first")
    if kind == "logaddexp" and node.dtype.kind != "float":
        raise DTypeError(f"scan: logaddexp of {node.dtype}; cast to a float dtype first")
    _axis("scan", node, axis)
    return node.shape, int64 if kind.startswith("arg") else node.dtype, node.device


def _argsort(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    _axis("argsort", inputs[0], attrs[0])
    return inputs[0].shape, int64, inputs[0].device


def _integer_index(name: str, index: Node) -> None:
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name}: the index is {index.dtype}, want an integer dtype")


def _gather(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node, index), (axis,) = inputs, attrs
    _axis("gather", node, axis)
    _integer_index("gather", index)
    _same_but("gather", axis, node, index)
    return index.shape, node.dtype, _one_device("gather", inputs)


def _scatter(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (base, index, source), (axis, kind) = inputs, attrs
    if kind not in SCATTER_KINDS:
        raise ShapeError(f"scatter: got kind {kind!r}, want one of {', '.join(SCATTER_KINDS)}")
    _axis("scatter", base, axis)
    _integer_index("scatter", index)
    _same_but("scatter", axis, base, index)
    if index.shape != source.shape:
        raise ShapeError(
            f"scatter: index {format_shape(index.shape)} and source {format_shape(source.shape)}, want one shape"
        )
    if base.dtype is not source.dtype:
        raise DTypeError(
            f"scatter: base is {base.dtype} and source {source.dtype}, want one dtype; cast first"
        )
    return base.shape, base.dtype, _one_device("scatter", inputs)


def _cast(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    return inputs[0].shape, attrs[0], inputs[0].device


def _bitcast(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (node,), (dtype,) = inputs, attrs
    if dtype.itemsize != node.dtype.itemsize or bool_ in (dtype, node.dtype):
        raise DTypeError(
            f"bitcast: {node.dtype} to {dtype}; want two dtypes of one size, neither of them bool"
        )
    return node.shape, dtype, node.device


def _copy(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    return inputs[0].shape, inputs[0].dtype, attrs[0]


def _assign(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    (base, source), (offsets,) = inputs, attrs
    fits = len(base.shape) == len(source.shape) == len(offsets) and all(
        symbolic.prove_le(0, start) and symbolic.prove_le(start + size, limit)
        for start, size, limit in zip(offsets, source.shape, base.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"assign: a box {format_shape(source.shape)} at {format_shape(offsets)} does not fit in "
            f"{format_shape(base.shape)}"
        )
    return base.shape, _same_dtype("assign", inputs), _one_device("assign", inputs)


def _all_reduce(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    kind, device = attrs
    if kind not in ("sum", "prod", "max", "min"):
        raise ShapeError(f"all_reduce: got kind {kind!r}, want sum, prod, max or min")
    for other in inputs[1:]:
        _same_but("all_reduce", -1, inputs[0], other)
    return inputs[0].shape, _same_dtype("all_reduce", inputs), device


def _all_gather(inputs: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Type:
    first, (axis, device) = inputs[0], attrs
    _axis("all_gather", first, axis)
    for other in inputs[1:]:
        _same_but("all_gather", axis, first, other)
    size = sum((node.shape[axis] for node in inputs[1:]), first.shape[axis])
    return first.shape[:axis] + (size,) + first.shape[axis + 1 :], _same_dtype("all_gather", inputs), device


OPS: dict[str, Op] = {
    name: Op(name, row.arity, (), _elementwise_rule(name), row.meaning) for name, row in ELEMENTWISE.items()
}
OPS |= {
    row[0]: Op(*row)
    for row in (
        # leaves
        ("const", 0, ("value", "dtype", "device"), _const, "a scalar"),
        ("iota", 0, ("length", "dtype", "device"), _iota, "0, 1, .., length - 1"),
        ("buffer", -1, ("name",), _buffer, "memory: filled, or pending with the graph of its contents as input"),
        ("random_bits", 1, ("shape",), _random_bits,
         "Threefry 2x32 of the flat index under key uint32[2]; both words xored"),
        # type and place
        ("cast", 1, ("dtype",), _cast, "the value converted, as tg_ir.dtypes says"),
        ("bitcast", 1, ("dtype",), _bitcast, "the same bits read as another dtype"),
        ("copy", 1, ("device",), _copy, "the tensor on another device"),
        # movement: out[i] = in[an affine function of i]
        ("reshape", 1, ("shape",), _reshape, "the same elements in row-major order"),
        ("permute", 1, ("order",), _permute, "out axis k is in axis order[k]"),
        ("expand", 1, ("shape",), _expand, "dimensions of size 1 and new leading dimensions repeated"),
        ("pad", 2, ("widths",), _pad, "(before, after) elements of the scalar fill added to each axis"),
        ("shrink", 1, ("limits",), _shrink, "start:stop of each axis"),
        ("flip", 1, ("axes",), _flip, "axes reversed"),
        ("window", 1, ("axis", "size", "stride", "dilation"), _window,
         "out[.., i, .., k] = in[.., i * stride + k * dilation, ..]; k is a new last axis"),
        ("cat", -1, ("axis",), _cat, "tensors one after the other along an axis"),
        # many to one
        ("reduce", 1, ("kind", "axes"), _reduce, "axes combined and dropped; argmax gives the first index as int64"),
        ("scan", 1, ("kind", "axis"), _scan, "out[i] combines in[0..i]; argmax gives the last index of ties as int64"),
        ("argsort", 1, ("axis", "descending"), _argsort, "the stable order as int64 indices; NaN is the greatest"),
        # data-dependent indices
        ("gather", 2, ("axis",), _gather, "out[.., i, ..] = in[.., index[.., i, ..], ..]"),
        ("scatter", 3, ("axis", "kind"), _scatter,
         "base with base[.., index[.., i, ..], ..] combined with source[.., i, ..]; 'set' keeps the last"),
        ("assign", 2, ("offsets",), _assign, "base with the box at offsets replaced by source"),
        # several devices
        ("all_reduce", -1, ("kind", "device"), _all_reduce, "one tensor a device, combined elementwise, on `device`"),
        ("all_gather", -1, ("axis", "device"), _all_gather, "one tensor a device, concatenated, on `device`"),
    )
}  # fmt: skip
BUFFER = OPS["buffer"]
