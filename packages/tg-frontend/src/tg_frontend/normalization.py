"""Normalisations, dropout and embedding."""

from __future__ import annotations

__all__: list[str] = []
