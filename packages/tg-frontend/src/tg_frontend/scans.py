"""Cumulative operations, and softmax with its kin."""

from __future__ import annotations

__all__: list[str] = []
