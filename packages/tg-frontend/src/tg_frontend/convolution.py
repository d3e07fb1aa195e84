"""Convolutions in any number of dimensions: windows of the input times the weight, summed.

    window each spatial axis -> (N, G, C/G, *out, *k), times (G, O/G, C/G, *k), summed over C/G and *k

A transposed convolution is a convolution of the input, spread to the stride, with the flipped weight.
Shapes letters: N batch, G groups, C and O channels in and out, k the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from tg_frontend.contraction import widened
from tg_frontend.core import Tensor
from tg_ir import graph
from tg_ir.errors import ShapeError
from tg_ir.graph import Node, format_shape
from tg_ir.symbolic import SymInt, prod, prove_le

__all__ = [
    "col2im", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "im2col",
]  # fmt: skip

Sizes = int | Sequence[int]


def per_axis(name: str, what: str, value: Sizes, axes: int, least: int) -> tuple[int, ...]:
    """One number for each spatial axis.

    Raises:
        ShapeError: the wrong number of them, or one below `least`.
    """
    given = (value,) if isinstance(value, int) else tuple(value)
    sizes = given * axes if len(given) == 1 else given
    if len(sizes) != axes or any(not isinstance(size, int) or size < least for size in sizes):
        raise ShapeError(f"{name}: got {what} {value!r}, want one or {axes} integers >= {least}")
    return sizes


def fit(node: Node, widths: Sequence[tuple[SymInt, SymInt]]) -> Node:
    """Pad the last axes with zeros where a width is positive, and cut them where it is negative."""
    lead = len(node.shape) - len(widths)
    at_least_zero = [tuple([max(w, 0) if isinstance(w, int) else w for w in pair]) for pair in widths]
    node = graph.pad(node, [(0, 0)] * lead + at_least_zero)
    cut = [tuple([max(-w, 0) if isinstance(w, int) else 0 for w in pair]) for pair in widths]
    limits = [(a, n - b) for n, (a, b) in zip(node.shape[lead:], cut, strict=True)]
    return graph.shrink(node, [(0, n) for n in node.shape[:lead]] + limits)


def windows(node: Node, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Node:
    """Windows over the last axes: (.., *spatial) to (.., *out, *kernel)."""
    lead = len(node.shape) - len(kernel)
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True), lead):
        node = graph.window(node, axis, size, step, spread)
    return node


def _convolve(x: Node, weight: Node, stride: Sequence[int], dilation: Sequence[int], groups: int) -> Node:
    """x (N, C, *spatial), padded already, with weight (O, C/G, *k), to (N, O, *out)."""
    kernel = weight.shape[2:]
    axes = len(kernel)
    view = windows(x, kernel, stride, dilation)
    n, c, *out = view.shape[: 2 + axes]
    o, per_group = weight.shape[:2]
    view = graph.reshape(view, (n, groups, 1, per_group, *out, *kernel))
    order = [0, 1, 2, *range(4, 4 + axes), 3, *range(4 + axes, 4 + 2 * axes)]
    view = graph.permute(view, order)  # (N, G, 1, *out, C/G, *k)
    factor = graph.reshape(weight, (1, groups, o // groups, *([1] * axes), per_group, *kernel))
    shape = (n, groups, o // groups, *out, per_group, *kernel)
    product = graph.apply("mul", graph.expand(view, shape), graph.expand(factor, shape))
    total = graph.reduce(product, "sum", range(3 + axes, len(shape)))
    return graph.reshape(total, (n, o, *out))


def _prepare(
    name: str, axes: int, transposed: bool, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> None:
    """Raise a ShapeError where the operands do not fit one another."""
    if x.ndim not in (axes + 1, axes + 2) or weight.ndim != axes + 2:
        raise ShapeError(
            f"{name}: got input {format_shape(x.shape)} and weight {format_shape(weight.shape)}, "
            f"want {axes + 2} dimensions (or {axes + 1} for an input without a batch)"
        )
    if groups < 1 or weight.shape[0] % groups:
        raise ShapeError(
            f"{name}: groups {groups} do not divide the {weight.shape[0]} channels of the weight"
        )
    channels, out = x.shape[-axes - 1], weight.shape[0]
    want = weight.shape[0] if transposed else weight.shape[1] * groups
    if channels != want:
        raise ShapeError(
            f"{name}: the input has {channels} channels, the weight {format_shape(weight.shape)} with {groups} groups "
            f"wants {want}"
        )
    out = weight.shape[1] * groups if transposed else weight.shape[0]
    if bias is not None and bias.shape != (out,):
        raise ShapeError(f"{name}: got bias {format_shape(bias.shape)}, want ({out},)")


def _finish(result: Node, bias: Node | None, axes: int, batched: bool) -> Node:
    if bias is not None:
        column = graph.reshape(bias, (1, bias.shape[0], *([1] * axes)))
        result = graph.apply("add", result, graph.expand(column, result.shape))
    return result if batched else graph.reshape(result, result.shape[1:])


def check_reach(name: str, padded: Sequence[SymInt], kernel: Sequence[int], dilation: Sequence[int]) -> None:
    """Raise a ShapeError where a window is larger than the padded input."""
    for size, k, d in zip(padded, kernel, dilation, strict=True):
        if k < 1 or not prove_le(d * (k - 1) + 1, size):
            raise ShapeError(
                f"{name}: a kernel of {format_shape(tuple(kernel))} with dilation {tuple(dilation)} does not fit in "
                f"the padded input of {format_shape(tuple(padded))}"
            )


def _conv(
    name: str, axes: int, self: Tensor, weight: Tensor, bias: Tensor | None,
    stride: Sizes, padding: Sizes | str, dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    _prepare(name, axes, False, self, weight, bias, groups)
    stride = per_axis(name, "stride", stride, axes, 1)
    dilation = per_axis(name, "dilation", dilation, axes, 1)
    kernel = weight.shape[2:]
    if padding == "same":
        if set(stride) != {1}:
            raise ShapeError(f"{name}: padding 'same' with stride {stride}; it wants stride 1")
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        widths = [(total // 2, total - total // 2) for total in reach]
    elif isinstance(padding, str):
        if padding != "valid":
            raise ShapeError(f"{name}: got padding {padding!r}, want integers, 'same' or 'valid'")
        widths = [(0, 0)] * axes
    else:
        widths = [(p, p) for p in per_axis(name, "padding", padding, axes, 0)]
    given = [self, weight] if bias is None else [self, weight, bias]
    nodes, dtype = widened(name, *given)
    batched = self.ndim == axes + 2
    x = fit(nodes[0] if batched else graph.reshape(nodes[0], (1, *self.shape)), widths)
    check_reach(name, x.shape[2:], kernel, dilation)
    result = _convolve(x, nodes[1], stride, dilation, groups)
    result = _finish(result, nodes[2] if bias is not None else None, axes, batched)
    return Tensor.from_node(graph.cast(result, dtype), *given)


def _spread(node: Node, stride: Sequence[int]) -> Node:
    """stride - 1 zeros between the elements of the last axes."""
    lead = len(node.shape) - len(stride)
    for axis, step in enumerate(stride, lead):
        if step == 1:
            continue
        shape = node.shape
        rows = graph.reshape(node, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        widths = [(0, 0)] * len(rows.shape)
        widths[axis + 1] = (0, step - 1)
        node = graph.reshape(graph.pad(rows, widths), (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
        limits = [(0, n) for n in node.shape]
        limits[axis] = (0, node.shape[axis] - (step - 1))
        node = graph.shrink(node, limits)
    return node


def _conv_transpose(
    name: str, axes: int, self: Tensor, weight: Tensor, bias: Tensor | None,
    stride: Sizes, padding: Sizes, output_padding: Sizes, groups: int, dilation: Sizes,
) -> Tensor:  # fmt: skip
    _prepare(name, axes, True, self, weight, bias, groups)
    stride = per_axis(name, "stride", stride, axes, 1)
    dilation = per_axis(name, "dilation", dilation, axes, 1)
    padding = per_axis(name, "padding", padding, axes, 0)
    extra = per_axis(name, "output_padding", output_padding, axes, 0)
    kernel = weight.shape[2:]
    for e, s, d in zip(extra, stride, dilation, strict=True):
        if e >= max(s, d):
            raise ShapeError(
                f"{name}: output_padding {extra} is not smaller than stride {stride} or dilation {dilation}"
            )
    given = [self, weight] if bias is None else [self, weight, bias]
    nodes, dtype = widened(name, *given)
    batched = self.ndim == axes + 2
    x = _spread(nodes[0] if batched else graph.reshape(nodes[0], (1, *self.shape)), stride)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    out = [n + r - 2 * p + e for n, r, p, e in zip(x.shape[2:], reach, padding, extra, strict=True)]
    if not all(prove_le(1, size) for size in out):
        raise ShapeError(
            f"{name}: the result would be {format_shape(tuple(out))}; input {format_shape(self.shape)} is too small"
        )
    x = fit(x, [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)])
    c, per_group = weight.shape[:2]
    factor = graph.flip(nodes[1], range(2, 2 + axes))
    factor = graph.reshape(factor, (groups, c // groups, per_group, *kernel))
    factor = graph.permute(factor, [0, 2, 1, *range(3, 3 + axes)])
    factor = graph.reshape(factor, (groups * per_group, c // groups, *kernel))
    result = _convolve(x, factor, (1,) * axes, dilation, groups)
    result = _finish(result, nodes[2] if bias is not None else None, axes, batched)
    return Tensor.from_node(graph.cast(result, dtype), *given)


def conv1d(
    self: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution (cross-correlation) over one axis.

    Shapes: (N, C, L) or (C, L) with weight (O, C/groups, k) gives (N, O, L'); padding may be "same" or "valid".
    """
    return _conv("conv1d", 1, self, weight, bias, stride, padding, dilation, groups)


def conv2d(
    self: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution (cross-correlation) over two axes.

    Shapes: (N, C, H, W) or (C, H, W) with weight (O, C/groups, kH, kW) gives (N, O, H', W').
    """
    return _conv("conv2d", 2, self, weight, bias, stride, padding, dilation, groups)


def conv3d(
    self: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution (cross-correlation) over three axes."""
    return _conv("conv3d", 3, self, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    self: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transposed convolution over one axis.

    Shapes: (N, C, L) with weight (C, O/groups, k) gives (N, O, (L - 1) s - 2 p + d (k - 1) + output_padding + 1).
    """
    return _conv_transpose(
        "conv_transpose1d", 1, self, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    self: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transposed convolution over two axes."""
    return _conv_transpose(
        "conv_transpose2d", 2, self, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    self: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The transposed convolution over three axes."""
    return _conv_transpose(
        "conv_transpose3d", 3, self, weight, bias, stride, padding, output_padding, groups, dilation
    )


def im2col(
    self: Tensor, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Tensor:
    """The patches under a sliding kernel, one a column (torch.nn.functional.unfold).

    Shapes: (N, C, H, W) or (C, H, W) gives (N, C * kH * kW, patches).
    """
    name = "im2col"
    if self.ndim not in (3, 4):
        raise ShapeError(f"{name}: got {format_shape(self.shape)}, want (N, C, H, W) or (C, H, W)")
    kernel, stride = per_axis(name, "kernel_size", kernel_size, 2, 1), per_axis(name, "stride", stride, 2, 1)
    dilation = per_axis(name, "dilation", dilation, 2, 1)
    x = fit(self.node, [(p, p) for p in per_axis(name, "padding", padding, 2, 0)])
    check_reach(name, x.shape[-2:], kernel, dilation)
    view = windows(x, kernel, stride, dilation)
    *batch, c, h, w = view.shape[:-2]
    lead = len(batch)
    view = graph.permute(view, [*range(lead + 1), lead + 3, lead + 4, lead + 1, lead + 2])
    return Tensor.from_node(graph.reshape(view, (*batch, c * prod(kernel), h * w)), self)


def col2im(
    self: Tensor,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """Patches added up where they came from (torch.nn.functional.fold): the transpose of `im2col`.

    Shapes: (N, C * kH * kW, patches) or (C * kH * kW, patches) gives (N, C, *output_size).
    """
    name = "col2im"
    size, kernel = (
        per_axis(name, "output_size", output_size, 2, 1),
        per_axis(name, "kernel_size", kernel_size, 2, 1),
    )
    stride, dilation = per_axis(name, "stride", stride, 2, 1), per_axis(name, "dilation", dilation, 2, 1)
    padding = per_axis(name, "padding", padding, 2, 0)
    count = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    if self.ndim not in (2, 3) or self.shape[-2] % prod(kernel) or self.shape[-1] != prod(count):
        raise ShapeError(
            f"{name}: got {format_shape(self.shape)}, want (.., a multiple of {prod(kernel)}, {prod(count)}) "
            f"for an output of {size}"
        )
    # A transposed convolution of each offset in the kernel, as a channel, with a weight that is 1 at that offset.
    batch, channels = self.shape[:-2], self.shape[-2] // prod(kernel)
    (node,), dtype = widened(name, self)
    x = _spread(graph.reshape(node, (prod(batch) * channels, prod(kernel), *count)), stride)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    ends = [n + r - 2 * p for n, r, p in zip(x.shape[2:], reach, padding, strict=True)]
    x = fit(x, [(r - p, r - p + n - e) for r, p, n, e in zip(reach, padding, size, ends, strict=True)])
    area = prod(kernel)
    index = graph.iota(area, device=self.device)
    ones = graph.apply(
        "eq", graph.expand(graph.reshape(index, (area, 1)), (area, area)), graph.expand(index, (area, area))
    )
    weight = graph.flip(graph.reshape(graph.cast(ones, node.dtype), (1, area, *kernel)), [2, 3])
    result = graph.reshape(_convolve(x, weight, (1, 1), dilation, 1), (*batch, channels, *size))
    return Tensor.from_node(graph.cast(result, dtype), self)
