"""Pooling: windows over the spatial axes, reduced.

A `View` brings (.., *spatial) to (.., *out, *kernel), with a fill where a window reaches over the edge: sliding
windows, or the uneven windows of adaptive pooling. The same view of the numbers 0, 1, .. tells where an element came
from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tg_frontend.autograd import custom_gradient
from tg_frontend.contraction import wide_dtype
from tg_frontend.convolution import Sizes, check_reach, per_axis, windows
from tg_frontend.core import Tensor
from tg_ir import graph
from tg_ir.dtypes import int64
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import Node, format_shape
from tg_ir.symbolic import SymInt, prod

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d",
    "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "max_unpool1d", "max_unpool2d",
    "max_unpool3d",
]  # fmt: skip

View = Callable[[Node, Node], Node]
"""From a tensor and a scalar fill to windows."""

AdaptiveSizes = int | Sequence[int | None] | None


def _scalar(value: float, like: Node) -> Node:
    return graph.const(value, like.dtype, like.device)


def _full(value: float, like: Node) -> Node:
    return graph.expand(_scalar(value, like), like.shape)


def _spatial(name: str, self: Tensor, axes: int) -> tuple[SymInt, ...]:
    if self.ndim not in (axes + 1, axes + 2):
        raise ShapeError(
            f"{name}: got {format_shape(self.shape)}, want {axes + 2} dimensions, or {axes + 1} without a batch"
        )
    return self.shape[-axes:]


class _Sliding:
    """Sliding windows over the spatial axes of a tensor: padded by `padding` on both sides and `extra` at the end."""

    def __init__(
        self, name: str, tensor: Tensor, axes: int, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
        dilation: Sizes = 1, ceil_mode: bool = False,
    ):  # fmt: skip
        self.spatial = _spatial(name, tensor, axes)
        self.kernel = per_axis(name, "kernel_size", kernel_size, axes, 1)
        self.stride = (
            self.kernel if stride is None or stride == () else per_axis(name, "stride", stride, axes, 1)
        )
        self.padding = per_axis(name, "padding", padding, axes, 0)
        self.dilation = per_axis(name, "dilation", dilation, axes, 1)
        self.extra = [0] * axes
        padded = [n + 2 * p for n, p in zip(self.spatial, self.padding, strict=True)]
        for axis, (n, k, s, p, d) in enumerate(
            zip(padded, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        ):
            reach = d * (k - 1) + 1
            if p > reach // 2:
                raise ShapeError(f"{name}: padding {p} is more than half of the kernel's reach {reach}")
            if ceil_mode:
                count = -(-(n - reach) // s) + 1
                count -= (count - 1) * s >= n - p  # the last window must start inside
                self.extra[axis] = max(0, (count - 1) * s + reach - n)
        check_reach(
            name, [n + e for n, e in zip(padded, self.extra, strict=True)], self.kernel, self.dilation
        )

    def __call__(self, node: Node, fill: Node, outer: Node | None = None) -> Node:
        """The windows; `outer` is the fill of what ceil_mode adds, where it is another."""
        lead = [(0, 0)] * (len(node.shape) - len(self.kernel))
        node = graph.pad(node, [*lead, *[(p, p) for p in self.padding]], fill)
        node = graph.pad(node, [*lead, *[(0, e) for e in self.extra]], fill if outer is None else outer)
        return windows(node, self.kernel, self.stride, self.dilation)


# ---- maxima --------------------------------------------------------------------------------------------------


def _source_index(node: Node, values: Node, view: View, axes: int) -> Node:
    """The flat spatial index that each maximum came from: the first of equals; the last NaN, as in PyTorch."""
    spatial = node.shape[-axes:]
    count = prod(spatial)
    position = view(
        graph.reshape(graph.iota(count, int64, node.device), spatial), graph.const(count, int64, node.device)
    )
    window = view(node, _scalar(node.dtype.lowest, node))
    position = graph.expand(position, window.shape)
    kept = tuple(range(len(window.shape) - axes, len(window.shape)))
    spread = graph.expand(graph.reshape(values, (*values.shape, *([1] * axes))), window.shape)
    is_max = graph.apply("eq", window, spread)
    index = graph.reduce(graph.apply("where", is_max, position, _full(count, position)), "min", kept)
    if not node.dtype.is_float:
        return index
    nans = graph.apply("where", graph.apply("ne", window, window), position, _full(-1, position))
    return graph.apply("where", graph.apply("ne", values, values), graph.reduce(nans, "max", kept), index)


def _to_sources(values: Node, index: Node, spatial: Sequence[SymInt], axes: int, kind: str) -> Node:
    """Values scattered to flat spatial indices, zeros elsewhere."""
    lead, flat = values.shape[:-axes], prod(values.shape[-axes:])
    base = graph.expand(_scalar(0, values), (*lead, prod(spatial)))
    rows = [graph.reshape(each, (*lead, flat)) for each in (index, values)]
    return graph.reshape(graph.scatter(base, *rows, len(lead), kind), (*lead, *spatial))


def _max(self: Tensor, view: View, axes: int, return_indices: bool) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each window; its gradient goes to the one element that `return_indices` names."""
    node = self.node
    window = view(node, _scalar(node.dtype.lowest, node))
    values = graph.reduce(window, "max", range(len(window.shape) - axes, len(window.shape)))

    def rule(gradient: Tensor) -> Tensor:
        index = _source_index(node, values, view, axes)
        return Tensor.from_node(_to_sources(gradient.node, index, node.shape[-axes:], axes, "sum"), gradient)

    result = Tensor.from_node(values)
    if self.requires_grad:
        result = custom_gradient(lambda source: (result, rule))(self)
    return (result, Tensor.from_node(_source_index(node, values, view, axes))) if return_indices else result


def _max_pool(axes: int) -> Callable[..., Tensor | tuple[Tensor, Tensor]]:
    name = f"max_pool{axes}d"

    def pool(
        self: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        view = _Sliding(name, self, axes, kernel_size, stride, padding, dilation, ceil_mode)
        return _max(self, view, axes, return_indices)

    return _named(
        pool,
        name,
        f"The maximum of each window over {axes} axes; with `return_indices` its flat index as well.",
    )


def _max_unpool(axes: int) -> Callable[..., Tensor]:
    name = f"max_unpool{axes}d"

    def unpool(
        self: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:  # fmt: skip
        spatial = _spatial(name, self, axes)
        if indices.shape != self.shape or indices.dtype is not int64:
            raise ShapeError(
                f"{name}: got indices {indices.dtype} {format_shape(indices.shape)}, "
                f"want int64 {format_shape(self.shape)}"
            )
        kernel = per_axis(name, "kernel_size", kernel_size, axes, 1)
        steps = kernel if stride is None else per_axis(name, "stride", stride, axes, 1)
        edges = per_axis(name, "padding", padding, axes, 0)
        size = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(spatial, steps, edges, kernel, strict=True)]
        if output_size is not None:
            wanted = list(output_size)[-axes:]
            if len(wanted) != axes or any(
                not n - s < w < n + s for n, s, w in zip(size, steps, wanted, strict=True)
            ):
                raise ShapeError(
                    f"{name}: got output_size {tuple(output_size)}, want less than {steps} away from {size}"
                )
            size = wanted
        return Tensor.from_node(_to_sources(self.node, indices.node, size, axes, "set"), self)

    return _named(unpool, name, f"Values put where `max_pool{axes}d` took them from, zeros elsewhere.")


# ---- means ---------------------------------------------------------------------------------------------------


def _mean(self: Tensor, view: View, divisor: Node | int, axes: int) -> Tensor:
    """The sum of each window divided by a number, or by a tensor of the spatial shape of the result."""
    if not self.dtype.is_float:
        raise DTypeError(f"pooling: got a {self.dtype} tensor, want floats to take means of; cast first")
    node = graph.cast(self.node, wide_dtype(self.dtype))
    window = view(node, _scalar(0, node))
    total = graph.reduce(window, "sum", range(len(window.shape) - axes, len(window.shape)))
    by = _scalar(divisor, node) if isinstance(divisor, int) else graph.cast(divisor, node.dtype)
    return Tensor.from_node(
        graph.cast(graph.apply("div", total, graph.expand(by, total.shape)), self.dtype), self
    )


def _counts(self: Tensor, view: Callable[..., Node], axes: int, *fills: int) -> Node:
    """How many elements each window has, where `fills` says whether padding and what is beyond it count."""
    ones = graph.expand(graph.const(1, int64, self.device), self.shape[-axes:])
    return graph.reduce(
        view(ones, *[graph.const(fill, int64, self.device) for fill in fills]), "sum", range(axes, 2 * axes)
    )


def _avg_pool(axes: int) -> Callable[..., Tensor]:
    name = f"avg_pool{axes}d"

    def pool(
        self: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        if divisor_override == 0:
            raise ShapeError(f"{name}: got divisor_override 0, want another number")
        view = _Sliding(name, self, axes, kernel_size, stride, padding, 1, ceil_mode)
        even = not any(view.extra) and (count_include_pad or not any(view.padding))
        area = prod(view.kernel) if divisor_override is None else divisor_override
        return _mean(
            self,
            view,
            area if even or divisor_override is not None else _counts(self, view, axes, count_include_pad, 0),
            axes,
        )

    return _named(pool, name, f"The mean of each window over {axes} axes.")


def _lp_pool(axes: int) -> Callable[..., Tensor]:
    name = f"lp_pool{axes}d"

    def pool(
        self: Tensor,
        norm_type: float,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        ceil_mode: bool = False,
    ) -> Tensor:
        area = prod(per_axis(name, "kernel_size", kernel_size, axes, 1))
        mean = _avg_pool(axes)(self**norm_type, kernel_size, stride, 0, ceil_mode)
        return (mean.sign() * mean.abs().relu() * area) ** (1.0 / norm_type)

    return _named(
        pool,
        name,
        f"The power mean times the kernel's size of each window over {axes} axes: the `norm_type` norm.",
    )


# ---- adaptive ------------------------------------------------------------------------------------------------


def _adaptive(name: str, self: Tensor, axes: int, output_size: AdaptiveSizes) -> tuple[View, bool]:
    """Windows from floor(i n / out) to ceil((i + 1) n / out); and whether all of them are of one size."""
    spatial = _spatial(name, self, axes)
    given = list(output_size) if isinstance(output_size, list | tuple) else [output_size] * axes
    if len(given) != axes or not all(isinstance(n, int) for n in spatial):
        raise ShapeError(
            f"{name}: got output_size {output_size!r} for {format_shape(spatial)}, want {axes} sizes"
        )
    sizes = [n if size is None else size for n, size in zip(spatial, given, strict=True)]
    if any(not isinstance(size, int) or size < 1 for size in sizes) or 0 in spatial:
        raise ShapeError(
            f"{name}: got output_size {output_size!r} for {format_shape(spatial)}, want sizes >= 1"
        )

    def view(node: Node, fill: Node) -> Node:
        lead = len(node.shape) - axes
        for axis, (n, out) in enumerate(zip(spatial, sizes, strict=True), lead):
            node = (
                graph.window(node, axis, n // out, n // out)
                if n % out == 0
                else _uneven(node, fill, axis, n, out)
            )
        return node

    return view, all(n % out == 0 for n, out in zip(spatial, sizes, strict=True))


def _uneven(node: Node, fill: Node, axis: int, n: int, out: int) -> Node:
    """Windows of the largest size by gathering, with the fill after the end of the shorter ones."""
    width = max(-(-(i + 1) * n // out) - i * n // out for i in range(out))
    number = lambda value: graph.expand(graph.const(value, int64, node.device), (out, width))  # noqa: E731
    row = graph.expand(graph.reshape(graph.iota(out, device=node.device), (out, 1)), (out, width))
    start = graph.apply("floordiv", graph.apply("mul", row, number(n)), number(out))
    end = graph.apply("add", graph.apply("mul", row, number(n)), number(n + out - 1))
    end = graph.apply("floordiv", end, number(out))
    index = graph.apply("add", start, graph.expand(graph.iota(width, device=node.device), (out, width)))
    lead, tail = node.shape[:axis], node.shape[axis + 1 :]
    flat = graph.reshape(graph.apply("minimum", index, number(n - 1)), (out * width, *([1] * len(tail))))
    taken = graph.gather(node, graph.expand(flat, (*lead, out * width, *tail)), axis)
    taken = graph.reshape(taken, (*lead, out, width, *tail))
    inside = graph.reshape(graph.apply("lt", index, end), (out, width, *([1] * len(tail))))
    taken = graph.apply("where", graph.expand(inside, taken.shape), taken, graph.expand(fill, taken.shape))
    rank = len(taken.shape)
    return graph.permute(taken, [*range(axis + 1), *range(axis + 2, rank), axis + 1])


def _adaptive_max_pool(axes: int) -> Callable[..., Tensor | tuple[Tensor, Tensor]]:
    name = f"adaptive_max_pool{axes}d"

    def pool(
        self: Tensor, output_size: AdaptiveSizes, return_indices: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        return _max(self, _adaptive(name, self, axes, output_size)[0], axes, return_indices)

    return _named(
        pool, name, f"The maxima of windows that divide {axes} axes as evenly as they can into `output_size`."
    )


def _adaptive_avg_pool(axes: int) -> Callable[..., Tensor]:
    name = f"adaptive_avg_pool{axes}d"

    def pool(self: Tensor, output_size: AdaptiveSizes) -> Tensor:
        view, even = _adaptive(name, self, axes, output_size)
        window = view(self.node, _scalar(0, self.node))
        return _mean(self, view, prod(window.shape[-axes:]) if even else _counts(self, view, axes, 0), axes)

    return _named(
        pool, name, f"The means of windows that divide {axes} axes as evenly as they can into `output_size`."
    )


def _named(function: Callable, name: str, doc: str) -> Callable:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        doc + "\n\nShapes: (N, C, *spatial) or (C, *spatial) gives the same with other spatial sizes."
    )
    return function


max_pool1d, max_pool2d, max_pool3d = map(_max_pool, (1, 2, 3))
max_unpool1d, max_unpool2d, max_unpool3d = map(_max_unpool, (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = map(_avg_pool, (1, 2, 3))
lp_pool1d, lp_pool2d, lp_pool3d = map(_lp_pool, (1, 2, 3))
adaptive_max_pool1d, adaptive_max_pool2d, adaptive_max_pool3d = map(_adaptive_max_pool, (1, 2, 3))
adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d = map(_adaptive_avg_pool, (1, 2, 3))
