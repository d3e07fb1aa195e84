"""Resizing: each spatial axis in turn, as a weighted sum of gathered elements.

A mode is, for one axis, which elements each output takes (`index`, shape (out, taps)) and their weights. Positions and
weights are computed in float32 (float64 for float64 tensors), as PyTorch computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tg_frontend.contraction import wide_dtype
from tg_frontend.core import Tensor
from tg_frontend.elementwise import where
from tg_ir import graph
from tg_ir.dtypes import DType, float32, int64
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import Node, format_shape

__all__ = ["affine_grid", "grid_sample", "interpolate", "pixel_shuffle", "pixel_unshuffle", "upsample"]

_SPATIAL_AXES = {"linear": (1,), "bilinear": (2,), "trilinear": (3,), "bicubic": (2,)}
_ANY_AXES = ("nearest", "nearest-exact", "area")


def interpolate(
    self: Tensor, size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """The spatial axes resized to `size`, or by `scale_factor`.

    Modes: nearest, nearest-exact, area (1 to 3 axes), linear (1), bilinear and bicubic (2), trilinear (3).
    Shapes: (N, C, *spatial) gives (N, C, *size).
    Raises:
        ShapeError: not exactly one of size and scale_factor, or a mode that does not fit the shape.
    """
    axes = self.ndim - 2
    if mode not in _SPATIAL_AXES and mode not in _ANY_AXES:
        raise ShapeError(f"interpolate: got mode {mode!r}, want {', '.join([*_ANY_AXES, *_SPATIAL_AXES])}")
    if axes not in _SPATIAL_AXES.get(mode, (1, 2, 3)):
        raise ShapeError(f"interpolate: mode {mode!r} does not resize a tensor of {format_shape(self.shape)}")
    if align_corners is not None and mode in _ANY_AXES:
        raise ShapeError(f"interpolate: align_corners goes with linear and cubic modes, not {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ShapeError(f"interpolate: antialias goes with bilinear and bicubic, not {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ShapeError("interpolate: want size or scale_factor, and not both")
    spatial = self.shape[2:]
    if size is not None:
        sizes, scales = _per_axis("size", size, axes), [None] * axes
    else:
        factors = [float(factor) for factor in _per_axis("scale_factor", scale_factor, axes)]
        sizes = [int(n * factor) for n, factor in zip(spatial, factors, strict=True)]
        scales = [None if recompute_scale_factor else factor for factor in factors]
    if size is not None and recompute_scale_factor:
        raise ShapeError("interpolate: recompute_scale_factor goes with scale_factor, not with size")
    if any(out < 1 for out in sizes) or 0 in spatial:
        raise ShapeError(f"interpolate: {format_shape(spatial)} to {tuple(sizes)}; want sizes >= 1")
    if mode == "area":
        return getattr(self, f"adaptive_avg_pool{axes}d")(sizes)
    if not self.dtype.is_float and not mode.startswith("nearest"):
        raise DTypeError(f"interpolate: got a {self.dtype} tensor, mode {mode!r} wants floats; cast first")
    node = graph.cast(self.node, wide_dtype(self.dtype))
    for axis, (n, out, factor) in enumerate(zip(spatial, sizes, scales, strict=True), 2):
        line = _Line(n, out, factor, node, bool(align_corners))
        if mode.startswith("nearest"):
            node = _take(node, line.nearest(mode == "nearest-exact"), None, axis)
        elif antialias:
            node = _take(node, *line.antialiased(*_FILTERS[mode]), axis)
        else:
            node = _take(node, *(line.cubic() if mode == "bicubic" else line.linear()), axis)
    return Tensor.from_node(graph.cast(node, self.dtype), self)


def upsample(
    self: Tensor, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The older name of `interpolate`."""
    return interpolate(self, size, scale_factor, mode, align_corners)


def _per_axis(what: str, value: object, axes: int) -> list:
    given = list(value) if isinstance(value, list | tuple) else [value] * axes
    if len(given) != axes:
        raise ShapeError(f"interpolate: got {what} {value!r}, want one or {axes} numbers")
    return given


# ---- one axis ------------------------------------------------------------------------------------------------


class _Line:
    """Where the outputs of one axis lie among its n inputs, as tensors of shape (out, 1).

    They are plain tensors without gradients, so that formulas read as formulas.
    """

    def __init__(self, n: int, out: int, factor: float | None, like: Node, align_corners: bool):
        self.n, self.out, self.factor, self.device, self.align_corners = (
            n,
            out,
            factor,
            like.device,
            align_corners,
        )
        self.dtype: DType = like.dtype if like.dtype.is_float else float32
        self.scale = n / out if not factor else 1.0 / factor
        if align_corners:
            self.scale = (n - 1) / (out - 1) if out > 1 else 0.0
        self.position = self.count(out).reshape(out, 1)

    def count(self, length: int) -> Tensor:
        return Tensor.from_node(graph.cast(graph.iota(length, int64, self.device), self.dtype))

    def number(self, value: float) -> Tensor:
        return Tensor.from_node(graph.const(value, self.dtype, self.device))

    def center(self) -> Tensor:
        return self.position * self.number(self.scale) if self.align_corners else (
            (self.position + 0.5) * self.number(self.scale) - 0.5
        )  # fmt: skip

    def nearest(self, exact: bool) -> Tensor:
        position = self.position.to(float32) + (0.5 if exact else 0.0)
        scale = graph.const(self.scale, float32, self.device)
        return (position * Tensor.from_node(scale)).floor().clamp_max(self.n - 1).to(int64)

    def linear(self) -> tuple[Tensor, Tensor]:
        source = self.center().clamp_min(0)
        low = source.floor().clamp_max(self.n - 1)
        tap = self.count(2)
        weight = (1 - tap - (source - low)).abs()
        return (low + tap).clamp_max(self.n - 1).to(int64), weight

    def cubic(self) -> tuple[Tensor, Tensor]:
        source = self.center()
        low = source.floor()
        offset = self.count(4) - 1
        return (low + offset).clamp(0, self.n - 1).to(int64), _cubic(source - low - offset, -0.75)

    def antialiased(self, weigh: Callable[[Tensor], Tensor], reach: float) -> tuple[Tensor, Tensor]:
        """The filter widened by the scale, over the inputs that it covers, normalised to a sum of 1."""
        scale = max(self.scale, 1.0)
        support = reach * scale
        center = (self.position + 0.5) * self.number(self.scale)
        first = (center - (support - 0.5)).trunc().clamp_min(0)
        last = (center + (support + 0.5)).trunc().clamp_max(self.n)
        index = first + self.count(int(2 * support) + 2)
        weight = weigh((index - center + 0.5) * self.number(1.0 / scale))
        weight = where(index < last, weight, 0.0)
        total = Tensor.from_node(graph.reduce(weight.node, "sum", [1])).reshape(self.out, 1)
        return index.clamp_max(self.n - 1).to(int64), weight / total


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel.

    Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return where(d <= 1, near, where(d < 2, far, 0.0))


_FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "bilinear": (lambda d: (1 - d.abs()).clamp_min(0), 1.0),
    "bicubic": (lambda d: _cubic(d, -0.5), 2.0),
}
"""The filter of each antialiased mode, and how far from its center it is not 0."""


def _take(node: Node, index: Tensor, weight: Tensor | None, axis: int) -> Node:
    """For each output of an axis the sum of its taps times their weights; index and weight have shape (out, taps)."""
    out, taps = index.shape
    lead, tail = node.shape[:axis], node.shape[axis + 1 :]
    column = graph.reshape(index.node, (out * taps, *([1] * len(tail))))
    taken = graph.gather(node, graph.expand(column, (*lead, out * taps, *tail)), axis)
    if weight is None:
        return taken
    taken = graph.reshape(taken, (*lead, out, taps, *tail))
    factor = graph.expand(graph.reshape(weight.node, (out, taps, *([1] * len(tail)))), taken.shape)
    return graph.reduce(graph.apply("mul", taken, factor), "sum", [axis + 1])


# ---- channels to pixels --------------------------------------------------------------------------------------


def pixel_shuffle(self: Tensor, upscale_factor: int) -> Tensor:
    """(.., C * r * r, H, W) to (.., C, H * r, W * r)."""
    r = upscale_factor
    if self.ndim < 3 or r < 1 or self.shape[-3] % (r * r):
        raise ShapeError(
            f"pixel_shuffle: got {format_shape(self.shape)}, want (.., a multiple of {r * r}, H, W)"
        )
    *lead, c, h, w = self.shape
    x = self.reshape(*lead, c // (r * r), r, r, h, w)
    k = len(lead)
    return x.permute(*range(k), k, k + 3, k + 1, k + 4, k + 2).reshape(*lead, c // (r * r), h * r, w * r)


def pixel_unshuffle(self: Tensor, downscale_factor: int) -> Tensor:
    """(.., C, H * r, W * r) to (.., C * r * r, H, W)."""
    r = downscale_factor
    if self.ndim < 3 or r < 1 or self.shape[-1] % r or self.shape[-2] % r:
        raise ShapeError(f"pixel_unshuffle: got {format_shape(self.shape)}, want (.., C, multiples of {r})")
    *lead, c, h, w = self.shape
    x = self.reshape(*lead, c, h // r, r, w // r, r)
    k = len(lead)
    return x.permute(*range(k), k, k + 2, k + 4, k + 1, k + 3).reshape(*lead, c * r * r, h // r, w // r)


# ---- sampling at given places -----------------------------------------------------------------------------------


def affine_grid(self: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """The places that an affine map of the output lattice gives, for `grid_sample`.

    Shapes: theta (N, 2, 3) with size (N, C, H, W) gives (N, H, W, 2); (N, 3, 4) with (N, C, D, H, W) in 3-D.
    """
    axes = len(size) - 2
    if axes not in (2, 3) or self.shape != (size[0], axes, axes + 1):
        raise ShapeError(f"affine_grid: got theta {format_shape(self.shape)} for size {tuple(size)}")
    result = self.select(2, axes).reshape(size[0], *([1] * axes), axes)
    for axis, n in enumerate(size[2:]):
        line = Tensor.from_node(graph.cast(graph.iota(n, int64, self.device), self.dtype))
        line = line * (2 / max(n - 1, 1)) - (1 if n > 1 else 0) if align_corners else (line * 2 + 1) / n - 1
        line = line.reshape(*[n if i == axis else 1 for i in range(axes)], 1)
        result = result + line * self.select(2, axes - 1 - axis).reshape(size[0], *([1] * axes), axes)
    return result


def grid_sample(
    self: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """The input read at the places of `grid`: x, y (and z) in [-1, 1].

    Shapes: (N, C, H, W) with grid (N, oH, oW, 2) gives (N, C, oH, oW); with (N, oD, oH, oW, 3) in 3-D.
    Modes: bilinear, nearest. Padding: zeros, border, reflection.
    """
    axes = self.ndim - 2
    if (
        axes not in (2, 3)
        or grid.ndim != self.ndim
        or grid.shape[-1] != axes
        or grid.shape[0] != self.shape[0]
    ):
        raise ShapeError(
            f"grid_sample: got input {format_shape(self.shape)} and grid {format_shape(grid.shape)}"
        )
    if mode not in ("bilinear", "nearest") or padding_mode not in ("zeros", "border", "reflection"):
        raise ShapeError(f"grid_sample: got mode {mode!r} and padding_mode {padding_mode!r}")
    spatial, (n, c) = self.shape[2:], self.shape[:2]
    flat = self.reshape(n, c, -1)
    places = []
    for axis, length in enumerate(spatial):
        place = grid.select(-1, axes - 1 - axis)
        place = (place + 1) * ((length - 1) / 2) if align_corners else ((place + 1) * length - 1) / 2
        if padding_mode == "reflection":
            low, high = (0, length - 1) if align_corners else (-0.5, length - 0.5)
            span = high - low
            folded = (place - low).abs().remainder(2 * span) if span else place * 0
            place = where(folded > span, 2 * span - folded, folded) + low
        places.append(place if padding_mode == "zeros" else place.clamp(0, length - 1))
    result = None
    for corner in range(2**axes if mode == "bilinear" else 1):
        weight, index, inside = None, None, None
        for axis, (length, place) in enumerate(zip(spatial, places, strict=True)):
            low = (place.floor() if mode == "bilinear" else place.round()).detach() + (corner >> axis & 1)
            near = 1 - (place - low).abs() if mode == "bilinear" else place * 0 + 1
            ok = (low >= 0) & (low <= length - 1)
            step = low.nan_to_num().clamp(0, length - 1).to(int64)
            weight = near if weight is None else weight * near
            index = step if index is None else index * length + step
            inside = ok if inside is None else inside & ok
        out = index.shape[1:]
        taken = flat.gather(2, index.reshape(n, 1, -1).expand(n, c, -1)).reshape(n, c, *out)
        part = where(inside, weight, 0.0).reshape(n, 1, *out) * taken
        result = part if result is None else result + part
    return result
