"""Tensors made from numbers: zeros, arange, eye and the like. Static methods of Tensor."""

from __future__ import annotations

__all__: list[str] = []
