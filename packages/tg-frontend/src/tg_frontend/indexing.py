"""Indexing as NumPy does it, get and set; gather, scatter and their kin."""

from __future__ import annotations

__all__: list[str] = []
