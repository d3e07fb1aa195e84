"""The errors a user can cause.

    TgError
    ├── DTypeError      a dtype that does not exist, does not fit, or does not promote
    ├── ShapeError      shapes or axes that do not go together
    ├── IndexRangeError an index outside of a dimension
    ├── SymbolicError   a symbolic integer out of bounds, unbound, or undecidable where a decision is needed
    ├── VerifyError     a graph, kernel or program that breaks a rule of its level
    ├── ParseError      text of an IR that does not parse; carries line and column
    ├── DeviceError     a device that is unknown, unsupported, or holds the other operand
    └── EvaluationError a value that cannot be computed here

A message reads: subject: got X, want Y; where; what to do. Packages above derive their own from these.
`DTypeError` is a TypeError, `ShapeError` a ValueError and `IndexRangeError` an IndexError too, because that is what
NumPy and PyTorch users catch.
"""

from __future__ import annotations

__all__ = [
    "DTypeError",
    "DeviceError",
    "EvaluationError",
    "IndexRangeError",
    "ParseError",
    "ShapeError",
    "SymbolicError",
    "TgError",
    "VerifyError",
]


class TgError(Exception):
    """Any error that the user of the stack can cause."""


class DTypeError(TgError, TypeError):
    """A dtype that does not exist, does not fit, or does not promote."""


class ShapeError(TgError, ValueError):
    """Shapes or axes that do not go together."""


class IndexRangeError(TgError, IndexError):
    """An index outside of a dimension, or more indices than dimensions."""


class SymbolicError(TgError, ValueError):
    """A symbolic integer that is out of bounds, unbound, or undecidable where a decision is needed."""


class VerifyError(TgError):
    """A graph, kernel or program that breaks a rule of its level."""


class ParseError(TgError, ValueError):
    """Text that does not parse; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 0, column: int = 0):
        super().__init__(f"line {line}, column {column}: {message}" if line else message)
        self.line, self.column = line, column


class DeviceError(TgError, RuntimeError):
    """A device that is unknown, unsupported, or not the one that holds the other operand."""


class EvaluationError(TgError, RuntimeError):
    """A value that cannot be computed here."""
