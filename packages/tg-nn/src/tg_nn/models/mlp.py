"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tg_frontend import Tensor
from tg_nn.layers import Linear
from tg_nn.module import Module

__all__ = ["MLP"]


class MLP(Module):
    """Linear layers with ReLU between them. Shapes: (N, ..) of sizes[0] numbers gives (N, sizes[-1])."""

    def __init__(self, sizes: Sequence[int]):
        self.layers = [Linear(wide, next_) for wide, next_ in pairwise(sizes)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)
