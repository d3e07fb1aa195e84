"""The errors of this package.

TgError (tg_ir.errors)
├── StateError       a state dict that does not fit a module or an optimiser
├── StateFileError   a state file that is malformed, truncated, hostile, or of a kind that is not read here
└── DataError        a data set that is not there, not what it claims to be, or not readable
"""

from __future__ import annotations

from tg_frontend import TgError

__all__ = ["DataError", "StateError", "StateFileError", "TgError"]


class StateError(TgError, ValueError):
    """A state dict that does not fit what it is loaded into."""


class StateFileError(TgError, ValueError):
    """A file that does not hold tensors as it says."""


class DataError(TgError, ValueError):
    """Data that cannot be found or read."""
