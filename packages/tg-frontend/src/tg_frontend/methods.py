"""The table of what becomes a method of Tensor: the families of operations, by what their functions take first."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, ModuleType

from tg_frontend import (
    activations,
    attention,
    autograd,
    contraction,
    convolution,
    creation,
    elementwise,
    indexing,
    inplace,
    interchange,
    interpolation,
    joining,
    linalg,
    losses,
    movement,
    normalization,
    order_statistics,
    pooling,
    random,
    reductions,
    scans,
    scattering,
    sorting,
    transcendental,
)
from tg_frontend.core import Tensor

__all__ = ["FAMILIES", "function"]

INSTANCE = (
    elementwise,
    transcendental,
    activations,
    reductions,
    order_statistics,
    scans,
    movement,
    joining,
    indexing,
    scattering,
    sorting,
    contraction,
    convolution,
    pooling,
    interpolation,
    normalization,
    attention,
    losses,
    linalg,
)
"""Every name in `__all__` is a function of a tensor, and a method."""

STATIC = (creation, random, interchange)
"""Every name in `__all__` makes a tensor, and is a static method; but those in `METHODS` take a tensor first."""

FAMILIES: tuple[ModuleType, ...] = (*INSTANCE, *STATIC)


CASTS = {
    "bool": "bool", "char": "int8", "short": "int16", "int": "int32", "long": "int64", "byte": "uint8",
    "half": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64",
}  # fmt: skip
"""PyTorch's methods that convert, and the dtype that each converts to."""


def _cast(name: str) -> Callable[[Tensor], Tensor]:
    def method(self: Tensor) -> Tensor:
        return self.to(dtype=CASTS[name])

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"The values converted to {CASTS[name]}."
    return method


def _attach() -> None:
    for name in CASTS:
        setattr(Tensor, name, _cast(name))
    for family in FAMILIES:
        methods = family.__all__ if family in INSTANCE else getattr(family, "METHODS", ())
        for name in family.__all__:
            function = getattr(family, name)
            if isinstance(function, FunctionType):
                setattr(Tensor, name, function if name in methods else staticmethod(function))
        for name, operator in getattr(family, "OPERATORS", {}).items():
            setattr(Tensor, name, operator)
        for name, getter in getattr(family, "PROPERTIES", {}).items():
            setattr(Tensor, name, property(getter, doc=getter.__doc__))
    for name in inplace.NAMES:
        setattr(Tensor, f"{name}_", inplace.in_place(name))
    for name, method in inplace.AUGMENTED.items():
        setattr(Tensor, name, inplace.in_place(method))
    Tensor.backward, Tensor.gradient = autograd.backward, autograd.gradient


def function(name: str) -> object:
    """The operation of that name as a function; None if there is none."""
    return next((getattr(family, name) for family in FAMILIES if name in family.__all__), None)


_attach()
