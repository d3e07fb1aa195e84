"""Write and differentiate tensor programs: a lazy Tensor with PyTorch's names over the tensor graph of tg-ir."""

from __future__ import annotations

from tg_frontend import methods as _methods
from tg_frontend.autograd import (
    custom_gradient,
    enable_grad,
    grad,
    is_grad_enabled,
    jvp,
    no_grad,
    value_and_grad,
)
from tg_frontend.core import Tensor
from tg_frontend.engine import Device, set_engine
from tg_frontend.vmap import vmap
from tg_ir import dtypes
from tg_ir.errors import TgError
from tg_ir.symbolic import Variable

__all__ = [
    "Device",
    "Tensor",
    "TgError",
    "Variable",
    "custom_gradient",
    "dtypes",
    "enable_grad",
    "grad",
    "is_grad_enabled",
    "jvp",
    "no_grad",
    "set_engine",
    "value_and_grad",
    "vmap",
]


def __getattr__(name: str) -> object:
    """Every operation is a function of this package as well as a method: `tg_frontend.cat([a, b])`."""
    found = _methods.function(name)
    if found is None:
        raise AttributeError(f"module 'tg_frontend' has no attribute {name!r}")
    return found
