"""Matrix products and other contractions."""

from __future__ import annotations

__all__: list[str] = []
