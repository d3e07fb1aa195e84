"""The whole stack under one name: `tg.Tensor`, `tg.jit`, `tg.Device`, `tg.dtypes`, `tg.Variable`, `tg.nn`.

A name is looked up in the package that owns it when it is first used, so `import tg` costs next to nothing. The first
name of the frontend that is used makes this package's engine the one that evaluates tensors, unless there is one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tg.capture import jit
    from tg_frontend import Device, Tensor, Variable, dtypes

__all__ = ["Device", "Tensor", "Variable", "dtypes", "jit", "nn"]

_OWNERS = {"jit": "tg.capture", "nn": "tg_nn"}
_MODULES = ("nn",)


def __getattr__(name: str) -> object:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'tg' has no attribute {name!r}")
    module = import_module(_OWNERS.get(name, "tg_frontend"))
    import_module("tg.engine").install()
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
