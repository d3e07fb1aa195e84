"""The errors of the meta-package.

TgError
└── JitError   a step that cannot be captured
"""

from __future__ import annotations

from tg_ir.errors import TgError

__all__ = ["JitError"]


class JitError(TgError):
    """A step that cannot be captured; the message names the line."""
