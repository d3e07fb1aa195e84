"""The whole stack under one name: `tg.Tensor`, `tg.dtypes`, `tg.Variable`.

A name is looked up in the package that owns it when it is first used, so `import tg` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tg_frontend import Tensor, Variable, dtypes

__all__ = ["Tensor", "Variable", "dtypes"]

_OWNERS = {"Tensor": "tg_frontend", "Variable": "tg_frontend", "dtypes": "tg_frontend"}


def __getattr__(name: str) -> object:
    if name not in _OWNERS:
        raise AttributeError(f"module 'tg' has no attribute {name!r}")
    value = getattr(import_module(_OWNERS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
