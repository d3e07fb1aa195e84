"""Pooling over windows, and its inverse."""

from __future__ import annotations

__all__: list[str] = []
