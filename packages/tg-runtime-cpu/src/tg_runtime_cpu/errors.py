"""The errors that a user of the CPU runtime can cause.

DeviceError
├── OutOfMemoryError   an allocation that does not fit; is a MemoryError too
└── WorkTimeoutError   work that took longer than the caller allowed, and was ended; is a TimeoutError too
"""

from __future__ import annotations

from tg_ir.errors import DeviceError

__all__ = ["OutOfMemoryError", "WorkTimeoutError"]


class OutOfMemoryError(DeviceError, MemoryError):
    """An allocation that does not fit."""


class WorkTimeoutError(DeviceError, TimeoutError):
    """Work that took longer than the caller allowed."""
