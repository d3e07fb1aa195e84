"""Normalization, dropout and embeddings.

Statistics are computed in float32 for narrower floats, and the result is rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

from tg_frontend.contraction import wide_dtype
from tg_frontend.core import Tensor, resolve_axis
from tg_frontend.elementwise import where
from tg_frontend.random import keep_mask
from tg_frontend.storage import detached
from tg_ir import graph
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import format_shape
from tg_ir.symbolic import SymInt, prod

__all__ = [
    "alpha_dropout", "batch_norm", "dropout", "dropout1d", "dropout2d", "dropout3d", "embedding", "embedding_bag",
    "feature_dropout", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "normalize", "rms_norm",
]  # fmt: skip


def _wide(name: str, self: Tensor) -> Tensor:
    if not self.dtype.is_float:
        raise DTypeError(f"{name}: got a {self.dtype} tensor, want floats; cast first")
    return self.to(wide_dtype(self.dtype))


def _channels(name: str, what: str, tensor: Tensor | None, count: SymInt) -> None:
    if tensor is not None and tensor.shape != (count,):
        raise ShapeError(f"{name}: got {what} {format_shape(tensor.shape)}, want ({count},), one a channel")


def _standardized(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return (x - mean) * (var + eps).rsqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[SymInt]) -> Tensor:
    if weight is not None:
        x = x * weight.to(x.dtype).reshape(*shape)
    return x if bias is None else x + bias.to(x.dtype).reshape(*shape)


def batch_norm(
    self: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel with its mean taken away, divided by its standard deviation, scaled and shifted.

    In training the statistics are those of the batch, and the running ones are moved towards them in place (the
    variance with n - 1 in its denominator); else the running ones are used.

    Shapes: (N, C, ..); statistics, weight and bias (C,).
    """
    name = "batch_norm"
    if self.ndim < 2:
        raise ShapeError(f"{name}: got {format_shape(self.shape)}, want (N, C, ..)")
    channels = self.shape[1]
    parameters = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for what, tensor in parameters.items():
        _channels(name, what, tensor, channels)
    x, column = _wide(name, self), (1, channels, *([1] * (self.ndim - 2)))
    if training:
        axes = (0, *range(2, self.ndim))
        count = prod([self.shape[axis] for axis in axes])
        if isinstance(count, int) and count == 1:
            raise ShapeError(
                f"{name}: got {format_shape(self.shape)} in training, want more than one value a channel"
            )
        mean = x.mean(axes)
        var = (x - mean.reshape(*column)).square().mean(axes)
        _move(running_mean, mean, momentum)
        _move(running_var, var * count / (count - 1), momentum)
    elif running_mean is None or running_var is None:
        raise TgError(f"{name}: want running_mean and running_var unless training")
    else:
        mean, var = running_mean.to(x.dtype), running_var.to(x.dtype)
    x = _standardized(x, mean.reshape(*column), var.reshape(*column), eps)
    return _scaled(x, weight, bias, column).to(self.dtype)


def _move(running: Tensor | None, value: Tensor, momentum: float) -> None:
    """running += momentum * (value - running), outside of any gradient."""
    if running is not None:
        value = value.detach().to(running.dtype)
        running.detach().assign(running.detach() * (1 - momentum) + value * momentum)


def instance_norm(
    self: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """`batch_norm` of each sample by itself; the running statistics move towards the mean over the samples."""
    name = "instance_norm"
    if self.ndim < 3:
        raise ShapeError(f"{name}: got {format_shape(self.shape)}, want (N, C, spatial..)")
    if not use_input_stats:
        return batch_norm(self, running_mean, running_var, weight, bias, False, momentum, eps)
    channels, axes = self.shape[1], range(2, self.ndim)
    for what, tensor in (
        ("weight", weight),
        ("bias", bias),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        _channels(name, what, tensor, channels)
    count = prod(self.shape[2:])
    if isinstance(count, int) and count == 1:
        raise ShapeError(f"{name}: got {format_shape(self.shape)}, want more than one spatial element")
    x = _wide(name, self)
    mean = x.mean(tuple(axes), True)
    var = (x - mean).square().mean(tuple(axes), True)
    _move(running_mean, mean.mean(0).reshape(channels), momentum)
    _move(running_var, (var * count / (count - 1)).mean(0).reshape(channels), momentum)
    return _scaled(_standardized(x, mean, var, eps), weight, bias, (1, channels, *[1 for _ in axes])).to(
        self.dtype
    )


def _normalized_axes(
    name: str, self: Tensor, shape: int | Sequence[int], *tensors: Tensor | None
) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not shape or self.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name}: got normalized_shape {shape}, but the input is {format_shape(self.shape)}")
    for tensor in tensors:
        if tensor is not None and tensor.shape != shape:
            raise ShapeError(
                f"{name}: got weight or bias {format_shape(tensor.shape)}, want {format_shape(shape)}"
            )
    return tuple(range(self.ndim - len(shape), self.ndim))


def layer_norm(
    self: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """The last axes, those of `normalized_shape`, brought to mean 0 and variance 1, scaled and shifted."""
    axes = _normalized_axes("layer_norm", self, normalized_shape, weight, bias)
    x = _wide("layer_norm", self)
    centered = x - x.mean(axes, True)
    x = centered * (centered.square().mean(axes, True) + eps).rsqrt()
    shape = self.shape[axes[0] :]
    return _scaled(x, weight, bias, shape).to(self.dtype)


def rms_norm(
    self: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """The last axes divided by their root mean square, and scaled; `eps` is the dtype's by default."""
    axes = _normalized_axes("rms_norm", self, normalized_shape, weight)
    x = _wide("rms_norm", self)
    x = x * (x.square().mean(axes, True) + (x.dtype.eps if eps is None else eps)).rsqrt()
    return _scaled(x, weight, None, self.shape[axes[0] :]).to(self.dtype)


def group_norm(
    self: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Each group of channels brought to mean 0 and variance 1, each channel scaled and shifted.

    Shapes: (N, C, ..); weight and bias (C,).
    """
    name = "group_norm"
    if self.ndim < 2 or num_groups < 1 or self.shape[1] % num_groups:
        raise ShapeError(
            f"{name}: {num_groups} groups do not divide the channels of {format_shape(self.shape)}"
        )
    n, channels = self.shape[:2]
    _channels(name, "weight", weight, channels)
    _channels(name, "bias", bias, channels)
    size = prod(self.shape[1:])
    x = layer_norm(
        _wide(name, self).reshape(n, num_groups, size // num_groups), (size // num_groups,), None, None, eps
    )
    return _scaled(x.reshape(*self.shape), weight, bias, (1, channels, *([1] * (self.ndim - 2)))).to(
        self.dtype
    )


def local_response_norm(
    self: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Each element divided by (k + alpha * mean of the squares of `size` channels around it) ** beta."""
    if self.ndim < 3:
        raise ShapeError(f"local_response_norm: got {format_shape(self.shape)}, want (N, C, ..)")
    x = _wide("local_response_norm", self)
    widths = [(0, 0)] * self.ndim
    widths[1] = (size // 2, (size - 1) // 2)
    squares = graph.window(graph.pad(x.square().node, widths), 1, size)
    mean = Tensor.from_node(graph.reduce(squares, "sum", [self.ndim]), self) / size
    return (x / (mean * alpha + k) ** beta).to(self.dtype)


def normalize(self: Tensor, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Tensor:
    """self divided by its p-norm along `dim`, or by eps where that is smaller."""
    return self / self.norm(p, dim, True).clamp_min(eps)


# ---- dropout -------------------------------------------------------------------------------------------------


def _dropped(name: str, self: Tensor, p: float, training: bool, mask_shape: Sequence[SymInt]) -> Tensor:
    if not 0 <= p <= 1:
        raise TgError(f"{name}: got probability {p}, want 0 to 1")
    if not training or p == 0:
        return self
    if not self.dtype.is_float:
        raise DTypeError(f"{name}: got a {self.dtype} tensor, want floats; cast first")
    if p == 1:
        return self * 0.0
    return self * (keep_mask(tuple(mask_shape), 1 - p, self.device).to(self.dtype) * (1 / (1 - p)))


def dropout(self: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Each element dropped with probability p, the others scaled by 1 / (1 - p)."""
    return _dropped("dropout", self, p, training, self.shape)


def feature_dropout(self: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout` of whole channels. Shapes: (N, C, ..)."""
    if self.ndim < 2:
        raise ShapeError(f"feature_dropout: got {format_shape(self.shape)}, want (N, C, ..)")
    return _dropped("feature_dropout", self, p, training, (*self.shape[:2], *([1] * (self.ndim - 2))))


def _dropout_nd(axes: int):
    def dropout_nd(self: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
        if self.ndim not in (axes + 1, axes + 2):
            raise ShapeError(
                f"dropout{axes}d: got {format_shape(self.shape)}, want (N, C, ..) with {axes} more axes"
            )
        shape = (*self.shape[: self.ndim - axes], *([1] * axes))
        return _dropped(f"dropout{axes}d", self, p, training, shape)

    dropout_nd.__name__ = dropout_nd.__qualname__ = f"dropout{axes}d"
    dropout_nd.__doc__ = f"`dropout` of whole channels of a tensor with {axes} spatial axes."
    return dropout_nd


dropout1d, dropout2d, dropout3d = map(_dropout_nd, (1, 2, 3))


def alpha_dropout(self: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """Dropout that keeps the mean and the variance of SELU's outputs: dropped elements become SELU's lower limit.

    Source: Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    """
    if not 0 <= p <= 1:
        raise TgError(f"alpha_dropout: got probability {p}, want 0 to 1")
    if not training or p == 0:
        return self
    if p == 1:
        return self * 0.0
    limit = -1.7580993408473766
    scale = ((1 - p) * (1 + p * limit * limit)) ** -0.5
    kept = keep_mask(self.shape, 1 - p, self.device)
    return where(kept, self, limit) * scale - scale * limit * p


# ---- embeddings ----------------------------------------------------------------------------------------------


def embedding(
    self: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of `weight` that the integers of self name; no gradient goes to row `padding_idx`.

    Shapes: self (..), weight (V, E) give (.., E).
    Raises:
        TgError: options that would change the weight (max_norm) or how its gradient is kept are asked for.
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise TgError("embedding: max_norm, scale_grad_by_freq and sparse are not supported; leave them out")
    if not self.dtype.is_int or weight.ndim != 2:
        raise DTypeError(
            f"embedding: got indices {self.dtype} and weight {format_shape(weight.shape)}, want integers and (V, E)"
        )
    rows, features = weight.shape
    node = weight.node
    if padding_idx is not None:
        row = resolve_axis("embedding: padding_idx", padding_idx, rows)
        is_padding = Tensor.from_node(graph.iota(rows, device=weight.device)).reshape(rows, 1) == row
        weight = where(is_padding, Tensor.from_node(detached(node)), weight)
        node = weight.node
    count = self.numel()
    index = graph.expand(graph.reshape(self.node, (count, 1)), (count, features))
    return Tensor.from_node(graph.reshape(graph.gather(node, index, 0), (*self.shape, features)), weight)


def embedding_bag(
    self: Tensor, weight: Tensor, mode: str = "mean", per_sample_weights: Tensor | None = None,
    padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the embeddings in each row of self.

    Shapes: self (B, L), weight (V, E) give (B, E).
    """
    if mode not in ("sum", "mean", "max") or self.ndim != 2:
        raise ShapeError(
            f"embedding_bag: got mode {mode!r} and {format_shape(self.shape)}, want sum, mean or max of (B, L)"
        )
    if per_sample_weights is not None and mode != "sum":
        raise TgError(f"embedding_bag: per_sample_weights go with mode 'sum', not {mode!r}")
    found = embedding(self, weight, padding_idx)
    if per_sample_weights is not None:
        found = found * per_sample_weights.unsqueeze(-1)
    if padding_idx is None:
        return getattr(found, {"max": "amax"}.get(mode, mode))(1)
    kept = (self != padding_idx % weight.shape[0]).unsqueeze(-1)
    if mode == "max":
        return where(kept.any(1), where(kept, found, found.dtype.lowest).amax(1), 0)
    total = where(kept, found, 0).sum(1)
    return total if mode == "sum" else total / kept.sum(1).clamp_min(1).to(total.dtype)
