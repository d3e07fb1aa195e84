"""Elementwise exponentials, logarithms, trigonometric and hyperbolic functions.

What tg_ir lacks is composed here in float32 at least, so that 16-bit and 8-bit floats round once. Functions whose
composition differentiates badly carry their derivative.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from tg_ir import graph

from tg_frontend.autograd import custom_gradient
from tg_frontend.core import Tensor, broadcast_shapes
from tg_frontend.elementwise import float_method, in_float32, isinf, maximum, minimum, rsqrt, signbit, where

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan",
    "atan2", "atanh", "cos", "cosh", "deg2rad", "erf", "erfc", "exp", "exp2", "expm1", "log", "log10", "log1p", "log2",
    "logaddexp", "logaddexp2", "logit", "rad2deg", "sigmoid", "sin", "sinc", "sinh", "tan", "tanh", "xlogy",
]  # fmt: skip

exp = float_method("exp", "e to the power of self.")
exp2 = float_method("exp2", "2 to the power of self.")
expm1 = float_method("expm1", "e to the power of self, minus 1; accurate near 0.")
log = float_method("log", "The natural logarithm.")
log2 = float_method("log2", "The logarithm to base 2.")
log1p = float_method("log1p", "The natural logarithm of 1 + self; accurate near 0.")
sin = float_method("sin", "The sine of radians.")
cos = float_method("cos", "The cosine of radians.")
atan = float_method("atan", "The arc tangent, between -pi/2 and pi/2.")
tanh = float_method("tanh", "The hyperbolic tangent.")
erf = float_method("erf", "The error function.")

_LARGE = 2.0**30
"""From here on sqrt(x**2 + 1) is x, in float64 too."""


def _with_derivative(derivative: Callable[[Tensor], Tensor]) -> Callable[[Callable], Callable[[Tensor], Tensor]]:
    """The function of one tensor with this derivative of its argument."""

    def decorate(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        @functools.wraps(function)
        def wrapped(self: Tensor) -> Tensor:
            return differentiable(self)

        differentiable = custom_gradient(lambda x: (function(x), lambda gradient: gradient * derivative(x)))
        return wrapped

    return decorate


# ---- exponentials and logarithms ---------------------------------------------------------------------------------------


@in_float32()
def log10(self: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return log(self) / math.log(10)


def _log_sum(self: Tensor, other: Tensor, power: Callable, scale: float) -> Tensor:
    """max + log(1 + base**-|difference|) for the base that `power` raises; `scale` is its natural logarithm."""
    difference = where(self == other, 0.0, self - other)  # of equal infinities it is NaN
    return maximum(self, other) + log1p(power(-abs(difference))) / scale


@in_float32(2)
def logaddexp(self: Tensor, other: Tensor) -> Tensor:
    """log(e**self + e**other), without overflow on the way."""
    return _log_sum(self, other, exp, 1.0)


@in_float32(2)
def logaddexp2(self: Tensor, other: Tensor) -> Tensor:
    """log2(2**self + 2**other), without overflow on the way."""
    return _log_sum(self, other, exp2, math.log(2))


@in_float32(2)
def xlogy(self: Tensor, other: Tensor) -> Tensor:
    """self * log(other), and 0 where self is 0 unless `other` is NaN."""
    nothing = (self == 0) & ((other <= 0) | (other == math.inf))
    return self * log(where(nothing, 1.0, other))


def erfc(self: Tensor) -> Tensor:
    """1 - erf(self). Its error is that of a number near 1: what is left of large values (from 3.9 in float32) is 0."""
    return 1 - erf(self)


@in_float32()
def sigmoid(self: Tensor) -> Tensor:
    """1 / (1 + e**-self), of which neither value nor gradient overflows."""
    small = exp(where(self < 0, self, -self))
    return where(self < 0, small, 1.0) / (1 + small)


@in_float32()
def logit(self: Tensor, eps: float | None = None) -> Tensor:
    """log(self / (1 - self)); `eps` clamps to [eps, 1 - eps] first."""
    x = self if eps is None else self.clamp(eps, 1 - eps)
    return log(x) - log1p(-x)


# ---- trigonometric -----------------------------------------------------------------------------------------------------


@in_float32()
def tan(self: Tensor) -> Tensor:
    """The tangent of radians."""
    return sin(self) / cos(self)


@in_float32()
@_with_derivative(lambda x: rsqrt((1 - x) * (1 + x)))
def asin(self: Tensor) -> Tensor:
    """The arc sine, between -pi/2 and pi/2."""
    return atan(self * rsqrt((1 - self) * (1 + self)))


@in_float32()
@_with_derivative(lambda x: -rsqrt((1 - x) * (1 + x)))
def acos(self: Tensor) -> Tensor:
    """The arc cosine, between 0 and pi."""
    return 2 * atan(((1 - self) / (1 + self)).sqrt())


@custom_gradient
def _atan2(y: Tensor, x: Tensor) -> tuple[Tensor, Callable]:
    high, width = abs(y), abs(x)
    large = maximum(high, width)
    ratio = minimum(high, width) / where(large == 0, 1.0, large)
    angle = atan(where(isinf(y) & isinf(x), 1.0, ratio))
    angle = where(high > width, math.pi / 2 - angle, angle)
    angle = where(signbit(x), math.pi - angle, angle)

    def rule(gradient: Tensor) -> tuple[Tensor, Tensor]:
        per_square = gradient / (y * y + x * x)
        return x * per_square, -y * per_square

    return angle.copysign(y), rule


@in_float32(2)
def atan2(self: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, self), between -pi and pi."""
    shape = broadcast_shapes("atan2", self.shape, other.shape)
    return _atan2(*[Tensor.from_node(graph.expand(item.node, shape), item) for item in (self, other)])


@in_float32()
def sinc(self: Tensor) -> Tensor:
    """sin(pi * self) / (pi * self), 1 at 0."""
    angle = where(self == 0, 1.0, self) * math.pi
    return where(self == 0, 1.0, sin(angle) / angle)


@in_float32()
def deg2rad(self: Tensor) -> Tensor:
    """Degrees to radians."""
    return self * (math.pi / 180)


@in_float32()
def rad2deg(self: Tensor) -> Tensor:
    """Radians to degrees."""
    return self * (180 / math.pi)


# ---- hyperbolic --------------------------------------------------------------------------------------------------------


@in_float32()
def sinh(self: Tensor) -> Tensor:
    """The hyperbolic sine: from expm1 near 0, and from two halves where e**self would overflow too early."""
    near = abs(self) < 1
    less = expm1(where(near, self, 0.0))
    rising, falling = exp(self / 2), exp(-self / 2)
    return where(near, (less + less / (less + 1)) / 2, rising * (rising / 2) - falling * (falling / 2))


@in_float32()
def cosh(self: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    rising, falling = exp(self / 2), exp(-self / 2)
    return rising * (rising / 2) + falling * (falling / 2)


@in_float32()
@_with_derivative(lambda x: rsqrt(x * x + 1))
def asinh(self: Tensor) -> Tensor:
    """The inverse of the hyperbolic sine, accurate near 0 and without overflow."""
    size = abs(self)
    large = size > _LARGE
    x = where(large, 1.0, size)
    near = log1p(x + x * x / (1 + (x * x + 1).sqrt()))
    return where(large, log(size) + math.log(2), near).copysign(self)


@in_float32()
@_with_derivative(lambda x: rsqrt(x - 1) * rsqrt(x + 1))
def acosh(self: Tensor) -> Tensor:
    """The inverse of the hyperbolic cosine, accurate near 1 and without overflow."""
    large = self > _LARGE
    above = where(large, 1.0, self) - 1
    return where(large, log(self) + math.log(2), log1p(above + (above * (above + 2)).sqrt()))


@in_float32()
def atanh(self: Tensor) -> Tensor:
    """The inverse of the hyperbolic tangent, accurate near 0."""
    return (log1p(self) - log1p(-self)) / 2


arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh = acos, acosh, asin, asinh, atan, atan2, atanh
