"""The errors that a user of the code generator can cause.

TgError
├── AssemblerError   an instruction that does not exist or an operand that it does not take
│                    (text gets a `tg_ir.errors.ParseError` with line and column around the same words)
├── DecodeError      bytes that are no instruction; carries the offset
└── PlanError        a plan that does not suit its kernel, or a target that does not exist
"""

from __future__ import annotations

from tg_ir.errors import TgError

__all__ = ["AssemblerError", "DecodeError", "PlanError"]


class AssemblerError(TgError, ValueError):
    """An instruction that does not exist, or an operand that it does not take; `operand` counts from 0."""

    def __init__(self, message: str, operand: int | None = None):
        super().__init__(message)
        self.operand = operand


class DecodeError(TgError, ValueError):
    """Bytes that are no instruction of the target; `offset` is where they start."""

    def __init__(self, message: str, offset: int = 0):
        super().__init__(f"offset 0x{offset:x}: {message}")
        self.offset = offset


class PlanError(TgError, ValueError):
    """A plan that does not suit its kernel, or a target that does not exist."""
