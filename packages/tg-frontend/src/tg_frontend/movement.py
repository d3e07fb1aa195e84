"""Movement: operations that only rearrange elements. Most of them are views."""

from __future__ import annotations

__all__: list[str] = []
