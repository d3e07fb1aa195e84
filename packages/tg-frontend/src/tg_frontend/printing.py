"""How a tensor prints: like PyTorch, realising it."""

from __future__ import annotations

__all__: list[str] = []
