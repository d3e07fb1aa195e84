"""In-place forms: `x.add_(y)` and `x += y` write the result of `x.add(y)` to `x`, be it a view or not."""

from __future__ import annotations

from collections.abc import Callable

from tg_frontend.core import Tensor
from tg_ir.errors import DTypeError

__all__ = ["AUGMENTED", "NAMES", "in_place"]

NAMES = (
    "abs", "absolute", "acos", "acosh", "add", "addcdiv", "addcmul", "arccos", "arccosh", "arcsin",
    "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "celu",
    "clamp", "clamp_max", "clamp_min", "clip", "copysign", "cos", "cosh", "cumprod", "cumsum", "deg2rad",
    "div", "divide", "elu", "eq", "erf", "erfc", "exp", "exp2", "expm1", "fill", "floor",
    "floor_divide", "fmod", "frac", "ge", "greater", "greater_equal", "gt", "hardsigmoid", "hardswish",
    "hardtanh", "hypot", "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "le",
    "leaky_relu", "lerp", "less", "less_equal", "log", "log10", "log1p", "log2", "logical_and",
    "logical_not", "logical_or", "logical_xor", "logit", "lt", "masked_fill", "masked_scatter", "mish",
    "mul", "multiply", "nan_to_num", "ne", "neg", "negative", "not_equal", "pow", "put", "rad2deg",
    "reciprocal", "relu", "relu6", "remainder", "round", "rsqrt", "scatter", "scatter_add",
    "scatter_reduce", "selu", "sgn", "sigmoid", "sign", "silu", "sin", "sinc", "sinh", "sqrt", "square",
    "sub", "subtract", "tan", "tanh", "threshold", "tril", "triu", "true_divide", "trunc", "xlogy", "zero",
)  # fmt: skip
"""The methods that have an in-place form with `_` after the name."""

AUGMENTED = {
    "__iadd__": "add",
    "__isub__": "sub",
    "__imul__": "mul",
    "__itruediv__": "div",
    "__ifloordiv__": "floor_divide",
    "__imod__": "remainder",
    "__ipow__": "pow",
    "__iand__": "bitwise_and",
    "__ior__": "bitwise_or",
    "__ixor__": "bitwise_xor",
    "__ilshift__": "bitwise_left_shift",
    "__irshift__": "bitwise_right_shift",
}

_RANK = {"bool": 0, "uint": 1, "int": 1, "float": 2}
"""A result can be written to a tensor of the same rank or a higher one."""


def in_place(name: str) -> Callable[..., Tensor]:
    """The in-place form of the method `name`."""

    def method(self: Tensor, *args: object, **kwargs: object) -> Tensor:
        result = getattr(Tensor, name)(self, *args, **kwargs)
        if _RANK[result.dtype.kind] > _RANK[self.dtype.kind]:
            raise DTypeError(
                f"{name}_: the result is {result.dtype}, which a {self.dtype} tensor cannot hold; "
                f"use x = x.{name}(..) or cast first"
            )
        return self.assign(result)

    method.__name__ = method.__qualname__ = f"{name}_"
    method.__doc__ = f"`{name}`, written to this tensor."
    return method
