"""In-place forms: `x.add_(y)` and `x += y` write the result of `x.add(y)` to `x`, whatever `x` is a view of."""

from __future__ import annotations

from collections.abc import Callable

from tg_ir.errors import DTypeError

from tg_frontend.core import Tensor

__all__ = ["AUGMENTED", "NAMES", "in_place"]

NAMES = ("add", "sub", "mul", "div")
"""The methods that have an in-place form with `_` after the name."""

AUGMENTED = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div"}

_ORDER = ("bool", "uint", "int", "float")


def in_place(name: str) -> Callable[..., Tensor]:
    """The in-place form of the method `name`."""

    def method(self: Tensor, *args: object, **kwargs: object) -> Tensor:
        result = getattr(Tensor, name)(self, *args, **kwargs)
        if _ORDER.index(result.dtype.kind) > _ORDER.index(self.dtype.kind):
            raise DTypeError(
                f"{name}_: the result is {result.dtype}, which a {self.dtype} tensor cannot hold; "
                f"use x = x.{name}(..) or cast first"
            )
        return self.assign(result)

    method.__name__ = method.__qualname__ = f"{name}_"
    method.__doc__ = f"`{name}`, written to this tensor."
    return method
