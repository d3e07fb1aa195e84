"""Random numbers from a counter-based generator: the same on every device. Static methods of Tensor."""

from __future__ import annotations

__all__: list[str] = []
