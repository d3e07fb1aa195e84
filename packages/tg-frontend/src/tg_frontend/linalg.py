"""Linear algebra: factorisations, solving, determinants."""

from __future__ import annotations

__all__: list[str] = []
