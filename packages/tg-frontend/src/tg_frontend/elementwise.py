"""Elementwise arithmetic, comparison, bitwise, rounding, trigonometric, exponential and selecting operations."""

from __future__ import annotations

from collections.abc import Callable

from tg_ir.dtypes import DType, float32
from tg_ir.errors import DTypeError

from tg_frontend.core import Scalar, Tensor, combine, elementwise, promote

__all__ = [
    "abs",
    "add",
    "div",
    "eq",
    "exp",
    "log",
    "mul",
    "neg",
    "sqrt",
    "sub",
    "where",
]

Operand = Tensor | Scalar


def float_dtype(dtype: DType) -> DType:
    """The dtype in which an operation on floats takes `dtype`: integers and bools become float32."""
    return dtype if dtype.is_float else float32


def unary_float(name: str, self: Tensor) -> Tensor:
    """An operation on floats; integers and bools become float32 first."""
    return combine(name, [self], float_dtype(self.dtype), name)


def add(self: Operand, other: Operand, *, alpha: Scalar = 1) -> Tensor:
    """self + alpha * other; `or` of bools."""
    (a, b), dtype = promote("add", self, other if alpha == 1 else mul(other, alpha))
    return combine("or" if dtype.kind == "bool" else "add", [a, b], dtype, "add")


def sub(self: Operand, other: Operand, *, alpha: Scalar = 1) -> Tensor:
    """self - alpha * other.

    Raises:
        DTypeError: both are bools; use `^` or `logical_xor`.
    """
    (a, b), dtype = promote("sub", self, other if alpha == 1 else mul(other, alpha))
    if dtype.kind == "bool":
        raise DTypeError("sub: got two bool tensors, want numbers; use ^ or logical_xor")
    return combine("sub", [a, b], dtype, "sub")


def mul(self: Operand, other: Operand) -> Tensor:
    """self * other; `and` of bools."""
    (a, b), dtype = promote("mul", self, other)
    return combine("and" if dtype.kind == "bool" else "mul", [a, b], dtype, "mul")


def div(self: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """self / other, in floats; with `rounding_mode` "floor" or "trunc", rounded, and integers stay integers."""
    (a, b), dtype = promote("div", self, other)
    if rounding_mode is None:
        return combine("div", [a, b], float_dtype(dtype), "div")
    raise DTypeError(rounding_mode)


def neg(self: Tensor) -> Tensor:
    """-self."""
    return elementwise("neg", self)


def abs(self: Tensor) -> Tensor:
    """The absolute value."""
    return elementwise("abs", self)


def sqrt(self: Tensor) -> Tensor:
    """The square root."""
    return unary_float("sqrt", self)


def exp(self: Tensor) -> Tensor:
    """e to the power of self."""
    return unary_float("exp", self)


def log(self: Tensor) -> Tensor:
    """The natural logarithm."""
    return unary_float("log", self)


def eq(self: Operand, other: Operand) -> Tensor:
    """self == other, elementwise."""
    return elementwise("eq", self, other)


def where(self: Tensor, input: Operand, other: Operand) -> Tensor:
    """`input` where this condition is true, else `other`."""
    raise NotImplementedError


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "__add__": add,
    "__radd__": lambda self, other: add(other, self),
    "__sub__": sub,
    "__rsub__": lambda self, other: sub(other, self),
    "__mul__": mul,
    "__rmul__": lambda self, other: mul(other, self),
    "__truediv__": div,
    "__rtruediv__": lambda self, other: div(other, self),
    "__neg__": neg,
    "__eq__": eq,
}
