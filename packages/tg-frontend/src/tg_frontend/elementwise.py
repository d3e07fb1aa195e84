"""Elementwise arithmetic, comparison, logic, bits, rounding and selection.

Operands are tensors and Python numbers; they broadcast and promote as in PyTorch. Exponentials, logarithms and
trigonometry stand in transcendental.py.
"""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable

from tg_ir import dtypes as types
from tg_ir import graph
from tg_ir.dtypes import DType, bool_, float32, int64
from tg_ir.errors import DTypeError, ShapeError, TgError

from tg_frontend.core import Scalar, Tensor, broadcast_shapes, combine, elementwise, promote

__all__ = [
    "abs", "absolute", "add", "addcdiv", "addcmul", "allclose", "bitwise_and", "bitwise_left_shift", "bitwise_not",
    "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "copysign",
    "div", "divide", "eq", "equal", "floor", "floor_divide", "fmax", "fmin", "fmod", "frac", "ge", "greater",
    "greater_equal", "gt", "hypot", "isclose", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "le", "lerp", "less",
    "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "maximum", "minimum", "mul",
    "multiply", "nan_to_num", "ne", "neg", "negative", "not_equal", "positive", "pow", "reciprocal", "remainder", "round",
    "rsqrt", "sgn", "sign", "signbit", "sqrt", "square", "sub", "subtract", "tril", "triu", "true_divide", "trunc",
    "where",
]  # fmt: skip

Operand = Tensor | Scalar


# ---- what the families of elementwise operations share -----------------------------------------------------------------


def float_dtype(dtype: DType) -> DType:
    """The dtype in which an operation on floats takes `dtype`: integers and bools become float32."""
    return dtype if dtype.is_float else float32


def unary_float(name: str, self: Tensor) -> Tensor:
    """An operation on floats; integers and bools become float32 first."""
    return combine(name, [self], float_dtype(self.dtype), name)


def float_method(name: str, doc: str) -> Callable[[Tensor], Tensor]:
    """The operation `name` of tg_ir on floats as a method."""

    def method(self: Tensor) -> Tensor:
        return unary_float(name, self)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = doc
    return method


def in_float32(count: int = 1) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """For functions of several steps: the first `count` arguments are promoted to one float dtype, the steps are
    done in float32 at least, and the result is rounded once."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        names = function.__code__.co_varnames[:count]

        @functools.wraps(function)
        def wrapped(*args: object, **options: object) -> Tensor:
            given = [*args[:count], *[options.pop(name) for name in names[len(args) :]]]
            tensors, promoted = promote(function.__name__, *given)
            dtype = float_dtype(promoted)
            wide = dtype if dtype.bits >= 32 else float32
            return function(*[tensor.to(wide) for tensor in tensors], *args[count:], **options).to(dtype)

        return wrapped

    return decorate


def _rounded(name: str) -> Callable[[Tensor], Tensor]:
    def method(self: Tensor) -> Tensor:
        return elementwise(name, self) if self.dtype.is_float else self.clone()

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"{name} to a whole number; integers stay as they are."
    return method


# ---- arithmetic --------------------------------------------------------------------------------------------------------


def add(self: Operand, other: Operand, *, alpha: Scalar = 1) -> Tensor:
    """self + alpha * other; `or` of bools."""
    (a, b), dtype = promote("add", self, other if alpha == 1 else mul(other, alpha))
    return combine("or" if dtype is bool_ else "add", [a, b], dtype, "add")


def sub(self: Operand, other: Operand, *, alpha: Scalar = 1) -> Tensor:
    """self - alpha * other.

    Raises:
        DTypeError: both are bools; use `^` or `logical_xor`.
    """
    (a, b), dtype = promote("sub", self, other if alpha == 1 else mul(other, alpha))
    if dtype is bool_:
        raise DTypeError("sub: got two bool tensors, want numbers; use ^ or logical_xor")
    return combine("sub", [a, b], dtype, "sub")


def mul(self: Operand, other: Operand) -> Tensor:
    """self * other; `and` of bools."""
    (a, b), dtype = promote("mul", self, other)
    return combine("and" if dtype is bool_ else "mul", [a, b], dtype, "mul")


def div(self: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """self / other in floats. `rounding_mode` "floor" or "trunc" rounds the quotient, and integers stay integers."""
    if rounding_mode == "floor":
        return floor_divide(self, other)
    (a, b), dtype = promote("div", self, other)
    if rounding_mode is None:
        return combine("div", [a, b], float_dtype(dtype), "div")
    if rounding_mode != "trunc":
        raise TgError(f"div: got rounding_mode {rounding_mode!r}, want None, 'floor' or 'trunc'")
    if dtype.is_float:
        return trunc(combine("div", [a, b], dtype, "div"))
    quotient = combine("floordiv", [_magnitude(a), _magnitude(b)], dtype, "div")
    return where(lt(a, 0) ^ lt(b, 0), -quotient, quotient) if dtype.is_signed else quotient


def _magnitude(a: Tensor) -> Tensor:
    """|a|, with the derivative 1 at 0."""
    return where(lt(a, 0), -a, a) if a.dtype.is_signed else a


def floor_divide(self: Operand, other: Operand) -> Tensor:
    """floor(self / other); an integer divided by 0 gives 0."""
    return elementwise("floordiv", self, other, label="floor_divide")


def remainder(self: Operand, other: Operand) -> Tensor:
    """self - other * floor(self / other): the sign is other's, as with Python's %."""
    return elementwise("mod", self, other, label="remainder")


def fmod(self: Operand, other: Operand) -> Tensor:
    """self - other * trunc(self / other): the sign is self's, as with C's fmod."""
    (a, b), dtype = promote("fmod", self, other)
    rest = combine("mod", [_magnitude(a), _magnitude(b)], dtype, "fmod")
    return where(lt(a, 0), -rest, rest) if dtype.is_signed else rest


def pow(self: Operand, exponent: Operand) -> Tensor:
    """self to the power of `exponent`; integers stay integers.

    Raises:
        DTypeError: an integer tensor to a negative number; cast to a float first.
    """
    if isinstance(exponent, int | float) and isinstance(self, Tensor):
        if self.dtype.is_float or (isinstance(exponent, int) and self.dtype is not bool_):
            if exponent < 0 and not self.dtype.is_float:
                raise DTypeError(f"pow: a {self.dtype} tensor to the power {exponent}; cast it to a float first")
            if exponent in _POWERS:
                return _POWERS[exponent](self)
    if isinstance(self, int | float) and self == 2 and exponent.dtype.is_float:  # type: ignore[union-attr]
        return elementwise("exp2", exponent)
    return elementwise("pow", self, exponent)


def neg(self: Tensor) -> Tensor:
    """-self."""
    return elementwise("neg", self)


sqrt = float_method("sqrt", "The square root.")


def abs(self: Tensor) -> Tensor:
    """The absolute value."""
    return elementwise("abs", self)


def positive(self: Tensor) -> Tensor:
    """+self: this tensor."""
    return self


def square(self: Tensor) -> Tensor:
    """self * self."""
    return mul(self, self)


def reciprocal(self: Tensor) -> Tensor:
    """1 / self."""
    return div(1, self)


@in_float32()
def rsqrt(self: Tensor) -> Tensor:
    """1 / sqrt(self)."""
    return div(1, sqrt(self))


_POWERS: dict[Scalar, Callable[[Tensor], Tensor]] = {
    0.5: sqrt,
    1: Tensor.clone,
    2: square,
    3: lambda self: mul(mul(self, self), self),
    -1: reciprocal,
    -0.5: rsqrt,
}
"""Powers with a cheaper and more exact form."""


def addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Scalar = 1) -> Tensor:
    """self + value * tensor1 * tensor2."""
    return add(self, mul(tensor1, tensor2), alpha=value)


def addcdiv(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Scalar = 1) -> Tensor:
    """self + value * tensor1 / tensor2."""
    return add(self, div(tensor1, tensor2), alpha=value)


@in_float32(2)
def hypot(self: Tensor, other: Tensor) -> Tensor:
    """sqrt(self**2 + other**2), without overflow on the way."""
    large, small = maximum(abs(self), abs(other)), minimum(abs(self), abs(other))
    ratio = div(small, where(eq(large, 0) | isinf(large), 1.0, large))
    return mul(large, sqrt(add(square(ratio), 1)))


def lerp(self: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """self + weight * (end - self), exact at both ends."""
    step = sub(end, self)
    if not isinstance(weight, Tensor):
        return add(self, mul(step, weight)) if weight < 0.5 else sub(end, mul(step, 1 - weight))
    return where(lt(weight, 0.5), add(self, mul(step, weight)), sub(end, mul(step, sub(1, weight))))


# ---- comparison --------------------------------------------------------------------------------------------------------


def eq(self: Operand, other: Operand) -> Tensor:
    """self == other."""
    return elementwise("eq", self, other)


def ne(self: Operand, other: Operand) -> Tensor:
    """self != other."""
    return elementwise("ne", self, other)


def lt(self: Operand, other: Operand) -> Tensor:
    """self < other."""
    return elementwise("lt", self, other)


def le(self: Operand, other: Operand) -> Tensor:
    """self <= other."""
    return elementwise("le", self, other)


def gt(self: Operand, other: Operand) -> Tensor:
    """self > other."""
    return elementwise("lt", other, self, label="gt")


def ge(self: Operand, other: Operand) -> Tensor:
    """self >= other."""
    return elementwise("le", other, self, label="ge")


def maximum(self: Operand, other: Operand) -> Tensor:
    """The greater, NaN where either is. A gradient is halved between equal operands."""
    return elementwise("maximum", self, other)


def minimum(self: Operand, other: Operand) -> Tensor:
    """The lesser, NaN where either is. A gradient is halved between equal operands."""
    return elementwise("minimum", self, other)


def fmax(self: Operand, other: Operand) -> Tensor:
    """The greater, or the one that is no NaN."""
    return where(ge(self, other) | _isnan(other), self, other)


def fmin(self: Operand, other: Operand) -> Tensor:
    """The lesser, or the one that is no NaN."""
    return where(le(self, other) | _isnan(other), self, other)


def _isnan(value: Operand) -> Tensor | bool:
    return isnan(value) if isinstance(value, Tensor) else value != value


def isnan(self: Tensor) -> Tensor:
    """Whether each element is NaN."""
    return ne(self, self)


def isinf(self: Tensor) -> Tensor:
    """Whether each element is infinite."""
    return eq(abs(self), math.inf) if self.dtype.has_inf else lt(self, self)


def isposinf(self: Tensor) -> Tensor:
    """Whether each element is positive infinity."""
    return eq(self, math.inf) if self.dtype.has_inf else lt(self, self)


def isneginf(self: Tensor) -> Tensor:
    """Whether each element is negative infinity."""
    return eq(self, -math.inf) if self.dtype.has_inf else lt(self, self)


def isfinite(self: Tensor) -> Tensor:
    """Whether each element is neither infinite nor NaN."""
    return lt(abs(self), math.inf) if self.dtype.has_inf else eq(self, self)


def isclose(self: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """Whether |self - other| <= atol + rtol * |other|; equal infinities are close."""
    difference = abs(sub(self, other).to(float_dtype(self.dtype)))
    close = eq(self, other) | (isfinite(difference) & le(difference, add(mul(abs(other), rtol), atol)))
    return close | (isnan(self) & isnan(other)) if equal_nan else close


def _every(condition: Tensor) -> bool:
    """Whether a bool tensor, possibly empty, is true throughout."""
    failures = graph.cast(graph.apply("invert", condition.node), int64)
    return Tensor.from_node(graph.reduce(failures, "sum", range(condition.ndim))).item() == 0


def allclose(self: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (see `isclose`), as a Python bool."""
    return _every(isclose(self, other, rtol, atol, equal_nan))


def equal(self: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same values, as a Python bool."""
    return self.shape == other.shape and _every(eq(self, other))


# ---- logic and bits ----------------------------------------------------------------------------------------------------


def _truth(value: Operand) -> Tensor | bool:
    return value.to(bool_) if isinstance(value, Tensor) else builtins.bool(value)


def logical_not(self: Tensor) -> Tensor:
    """Whether each element is 0."""
    return elementwise("invert", self.to(bool_))


def logical_and(self: Tensor, other: Operand) -> Tensor:
    """Whether both differ from 0."""
    return elementwise("and", _truth(self), _truth(other), label="logical_and")


def logical_or(self: Tensor, other: Operand) -> Tensor:
    """Whether either differs from 0."""
    return elementwise("or", _truth(self), _truth(other), label="logical_or")


def logical_xor(self: Tensor, other: Operand) -> Tensor:
    """Whether exactly one differs from 0."""
    return elementwise("xor", _truth(self), _truth(other), label="logical_xor")


def bitwise_not(self: Tensor) -> Tensor:
    """Each bit flipped; the logical not of bools."""
    return elementwise("invert", self)


def bitwise_and(self: Operand, other: Operand) -> Tensor:
    """self & other, of integers or bools."""
    return elementwise("and", self, other, label="bitwise_and")


def bitwise_or(self: Operand, other: Operand) -> Tensor:
    """self | other, of integers or bools."""
    return elementwise("or", self, other, label="bitwise_or")


def bitwise_xor(self: Operand, other: Operand) -> Tensor:
    """self ^ other, of integers or bools."""
    return elementwise("xor", self, other, label="bitwise_xor")


def bitwise_left_shift(self: Operand, other: Operand) -> Tensor:
    """self << other; 0 when shifted by the width or more."""
    return elementwise("shl", self, other, label="bitwise_left_shift")


def bitwise_right_shift(self: Operand, other: Operand) -> Tensor:
    """self >> other, arithmetic where signed."""
    return elementwise("shr", self, other, label="bitwise_right_shift")


# ---- rounding and signs ------------------------------------------------------------------------------------------------

floor, ceil, trunc, _nearest = [_rounded(name) for name in ("floor", "ceil", "trunc", "round")]


def round(self: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest whole number, ties to even; or the nearest multiple of 10**-decimals."""
    if not decimals or not self.dtype.is_float:
        return _nearest(self)
    scale = 10.0 ** builtins.abs(decimals)
    return div(_nearest(mul(self, scale)), scale) if decimals > 0 else mul(_nearest(div(self, scale)), scale)


def frac(self: Tensor) -> Tensor:
    """self - trunc(self)."""
    return sub(self, trunc(self))


def sign(self: Tensor) -> Tensor:
    """-1, 0 or 1."""
    if not self.dtype.is_signed:
        return ne(self, 0).to(self.dtype)
    return sub(gt(self, 0).to(self.dtype), lt(self, 0).to(self.dtype))


def signbit(self: Tensor) -> Tensor:
    """Whether the sign bit is set; so of -0.0, too."""
    if not self.dtype.is_float:
        return lt(self, 0) if self.dtype.is_signed else lt(self, self)
    bits = getattr(types, f"uint{self.dtype.bits}")
    return ge(self.bitcast(bits), 1 << (self.dtype.bits - 1))


def copysign(self: Operand, other: Operand) -> Tensor:
    """|self| with the sign of `other`."""
    (a, b), dtype = promote("copysign", self, other)
    size = abs(a.to(float_dtype(dtype)))
    return where(signbit(b), -size, size)


# ---- selection ---------------------------------------------------------------------------------------------------------


def where(condition: Tensor | bool, input: Operand | None = None, other: Operand | None = None) -> Tensor:
    """`input` where the condition is true, else `other`. As a method: `x.where(condition, other)`.

    With the condition alone: the indices where it is true, one tensor a dimension.
    """
    if input is None or other is None:
        return condition.nonzero(as_tuple=True)  # type: ignore[union-attr, attr-defined]
    home = next((item.device for item in (condition, input, other) if isinstance(item, Tensor)), None)
    if not isinstance(condition, Tensor):
        condition = Tensor(condition, bool_, home)
    if condition.dtype is not bool_:
        raise DTypeError(f"where: the condition is {condition.dtype}, want bool; compare it with 0 first")
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        input = Tensor(input, device=home)
    values, dtype = promote("where", input, other)
    shape = broadcast_shapes("where", condition.shape, values[0].shape, values[1].shape)
    nodes = [condition.node, *[graph.cast(value.node, dtype) for value in values]]
    return Tensor.from_node(graph.apply("where", *[graph.expand(node, shape) for node in nodes]), *values)


def clamp(self: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Values limited to [min, max], which are numbers or tensors; `max` wins where they cross.

    The gradient passes where the value is within the limits or on them.
    """
    if min is None and max is None:
        raise TgError("clamp: got neither min nor max; give one of them")
    result = self
    if min is not None:
        result = where(lt(result, min), min, result)
    return result if max is None else where(gt(result, max), max, result)


def clamp_min(self: Tensor, min: Operand) -> Tensor:
    """Values no less than `min`."""
    return clamp(self, min)


def clamp_max(self: Tensor, max: Operand) -> Tensor:
    """Values no greater than `max`."""
    return clamp(self, None, max)


def nan_to_num(self: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN and infinities replaced; by default 0 and the dtype's greatest and least finite values."""
    if not self.dtype.is_float:
        return self.clone()
    result = where(isnan(self), nan, self)
    if not self.dtype.has_inf:
        return result
    result = where(isposinf(self), self.dtype.max if posinf is None else posinf, result)
    return where(isneginf(self), self.dtype.min if neginf is None else neginf, result)


def _below(self: Tensor, name: str, diagonal: int) -> Tensor:
    """The mask of elements on or below a diagonal."""
    if self.ndim < 2:
        raise ShapeError(f"{name}: got {self.ndim} dimensions, want at least 2")
    rows, columns = [Tensor.from_node(graph.iota(size, int64, self.device)) for size in self.shape[-2:]]
    rows = Tensor.from_node(graph.reshape(rows.node, (self.shape[-2], 1)))
    return le(columns, add(rows, diagonal))


def tril(self: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two dimensions, up to `diagonal`; the rest is 0."""
    return where(_below(self, "tril", diagonal), self, 0)


def triu(self: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two dimensions, from `diagonal` on; the rest is 0."""
    return where(_below(self, "triu", diagonal - 1), 0, self)


# ---- other names and operators -----------------------------------------------------------------------------------------

absolute, negative, subtract, multiply, divide, true_divide = abs, neg, sub, mul, div, div
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
clip, sgn = clamp, sign


def _reflected(function: Callable[..., Tensor]) -> Callable[[Tensor, Operand], Tensor]:
    return lambda self, other: function(other, self)


_BINARY = {
    "add": add, "sub": sub, "mul": mul, "truediv": div, "floordiv": floor_divide, "mod": remainder, "pow": pow,
    "and": bitwise_and, "or": bitwise_or, "xor": bitwise_xor, "lshift": bitwise_left_shift, "rshift": bitwise_right_shift,
    "divmod": lambda self, other: (floor_divide(self, other), remainder(self, other)),
}  # fmt: skip

OPERATORS: dict[str, object] = {
    **{f"__{name}__": function for name, function in _BINARY.items()},
    **{f"__r{name}__": _reflected(function) for name, function in _BINARY.items()},
    **{f"__{function.__name__}__": function for function in (eq, ne, lt, le, gt, ge)},
    "__neg__": neg,
    "__pos__": positive,
    "__abs__": abs,
    "__invert__": bitwise_not,
    "__array_priority__": 1000,  # NumPy's operators leave mixed expressions to ours
    "where": lambda self, condition, other: where(condition, self, other),
}
