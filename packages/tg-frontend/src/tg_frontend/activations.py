"""Activation functions, with PyTorch's values at the kinks and gradients that stay finite at the extremes.

Selections put the operand itself, or a harmless one, where a branch is not taken: a NaN or an infinity there would
come back through the gradient. `sigmoid` and `tanh` stand in transcendental.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tg_frontend.autograd import custom_gradient
from tg_frontend.core import Scalar, Tensor, resolve_axis
from tg_frontend.elementwise import in_float32, where
from tg_frontend.transcendental import erf, exp, expm1, log1p, sigmoid, tanh
from tg_ir import graph
from tg_ir.errors import ShapeError, TgError

__all__ = [
    "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "logsigmoid", "mish", "prelu", "quick_gelu", "relu", "relu6", "selu", "silu", "softplus", "softshrink",
    "softsign", "swiglu", "swish", "tanhshrink", "threshold",
]  # fmt: skip

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Source: Klambauer et al., "Self-Normalizing Neural Networks", 2017."""


def relu(self: Tensor) -> Tensor:
    """max(self, 0), whose gradient at 0 is 0."""
    return where(self <= 0, 0, self)


def threshold(self: Tensor, threshold: Scalar, value: Scalar) -> Tensor:
    """self above `threshold`, else `value`."""
    return where(self <= threshold, value, self)


def hardtanh(self: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """self limited to [min_val, max_val]; the gradient on the limits is 0."""
    return where(self <= min_val, min_val, where(self >= max_val, max_val, self))


def relu6(self: Tensor) -> Tensor:
    """self limited to [0, 6]; the gradient on the limits is 0."""
    return hardtanh(self, 0, 6)


def leaky_relu(self: Tensor, negative_slope: float = 0.01) -> Tensor:
    """self where it is positive, else self * negative_slope."""
    return where(self > 0, self, self * negative_slope)


def prelu(self: Tensor, weight: Tensor) -> Tensor:
    """self where it is positive, else self * weight.

    Shapes: self (N, C, ..); weight with C elements, or one for all channels.
    """
    count, channels = weight.numel(), self.shape[1] if self.ndim > 1 else 1
    if weight.ndim > 1 or (count != 1 and count != channels):
        raise ShapeError(f"prelu: weight has shape {tuple(weight.shape)}, want ({channels},) or one element")
    if count != 1:
        shape = [channels if axis == 1 else 1 for axis in range(self.ndim)]
        weight = Tensor.from_node(graph.reshape(weight.node, shape), weight)
    elif weight.ndim > self.ndim:
        weight = Tensor.from_node(graph.reshape(weight.node, ()), weight)
    return where(self > 0, self, self * weight)


@in_float32()
def elu(self: Tensor, alpha: float = 1.0) -> Tensor:
    """self where it is positive, else alpha * (e**self - 1)."""
    return where(self > 0, self, alpha * expm1(where(self > 0, 0.0, self)))


@in_float32()
def celu(self: Tensor, alpha: float = 1.0) -> Tensor:
    """self where it is positive, else alpha * (e**(self / alpha) - 1)."""
    return where(self > 0, self, alpha * expm1(where(self > 0, 0.0, self / alpha)))


@in_float32()
def selu(self: Tensor) -> Tensor:
    """The scaled elu that keeps mean 0 and variance 1."""
    return _SELU_SCALE * elu(self, _SELU_ALPHA)


@in_float32()
def gelu(self: Tensor, approximate: str = "none") -> Tensor:
    """self times the normal distribution's cumulative probability; `approximate="tanh"` takes it from a tanh."""
    if approximate == "none":
        return self * (0.5 + 0.5 * erf(self * math.sqrt(0.5)))
    if approximate != "tanh":
        raise TgError(f"gelu: got approximate {approximate!r}, want 'none' or 'tanh'")
    inner = math.sqrt(2 / math.pi) * (self + 0.044715 * self * self * self)
    return 0.5 * self * (1 + tanh(inner))


@in_float32()
def quick_gelu(self: Tensor) -> Tensor:
    """self * sigmoid(1.702 * self), CLIP's approximation of gelu."""
    return self * sigmoid(1.702 * self)


@in_float32()
def silu(self: Tensor) -> Tensor:
    """self * sigmoid(self)."""
    return self * sigmoid(self)


@in_float32()
def mish(self: Tensor) -> Tensor:
    """self * tanh(softplus(self))."""
    return self * tanh(softplus(self))


@in_float32()
def softplus(self: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e**(beta * self)) / beta; self where beta * self is above `threshold`."""
    scaled = self * beta
    linear = scaled > threshold
    return where(linear, self, log1p(exp(where(linear, 0.0, scaled))) / beta)


@in_float32()
def logsigmoid(self: Tensor) -> Tensor:
    """log(sigmoid(self)), without underflow on the way."""
    negative = self < 0
    return where(negative, self, 0.0) - log1p(exp(where(negative, self, -self)))


@in_float32()
def hardsigmoid(self: Tensor) -> Tensor:
    """self / 6 + 1 / 2 limited to [0, 1]."""
    return hardtanh(self + 3, 0, 6) / 6


@in_float32()
def hardswish(self: Tensor) -> Tensor:
    """self * hardsigmoid(self)."""
    return where(self <= -3, 0.0, where(self >= 3, self, self * (self + 3) / 6))


@custom_gradient
def _softsign(x: Tensor) -> tuple[Tensor, Callable]:
    size = 1 + x.abs()
    return x / size, lambda gradient: gradient / (size * size)


@in_float32()
def softsign(self: Tensor) -> Tensor:
    """self / (1 + |self|)."""
    return _softsign(self)


@in_float32()
def tanhshrink(self: Tensor) -> Tensor:
    """self - tanh(self)."""
    return self - tanh(self)


def softshrink(self: Tensor, lambd: float = 0.5) -> Tensor:
    """self moved towards 0 by `lambd`, and 0 within it."""
    if lambd < 0:
        raise TgError(f"softshrink: got lambd {lambd}, want a number >= 0")
    return where(self > lambd, self - lambd, where(self < -lambd, self + lambd, self * 0))


def hardshrink(self: Tensor, lambd: float = 0.5) -> Tensor:
    """self outside of [-lambd, lambd], else 0."""
    return where((self >= -lambd) & (self <= lambd), 0.0, self)


def _halves(name: str, self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    axis = resolve_axis(name, dim, self.ndim)
    size = self.shape[axis] if self.ndim else 1
    if size % 2 != 0:
        raise ShapeError(
            f"{name}: dimension {dim} of {tuple(self.shape)} has {size} elements, want an even number"
        )

    def half(start: object, stop: object) -> Tensor:
        limits = [(start, stop) if i == axis else (0, n) for i, n in enumerate(self.shape)]
        return Tensor.from_node(graph.shrink(self.node, limits), self)

    return half(0, size // 2), half(size // 2, size)


def glu(self: Tensor, dim: int = -1) -> Tensor:
    """The first half along `dim` times the sigmoid of the second."""
    value, gate = _halves("glu", self, dim)
    return value * sigmoid(gate)


def swiglu(self: Tensor, value: Tensor | None = None, dim: int = -1) -> Tensor:
    """silu(self) * value; without `value`, silu of the first half along `dim` times the second half."""
    gate, value = _halves("swiglu", self, dim) if value is None else (self, value)
    return silu(gate) * value


swish = silu
