"""A small convolutional network for small images: digits, MNIST, Fashion-MNIST."""

from __future__ import annotations

from tg_frontend import Tensor
from tg_nn.layers import BatchNorm2d, Conv2d, Dropout, Linear
from tg_nn.module import Module

__all__ = ["ConvNet"]


class ConvNet(Module):
    """Stages of two 3x3 convolutions, batch normalisation and ReLU; each but the last halves the image.

    Shapes: (N, channels, H, W) gives logits (N, classes).
    """

    def __init__(
        self, classes: int = 10, channels: int = 1, widths: tuple[int, ...] = (32, 64), dropout: float = 0.25
    ):
        self.stages, before = [], channels
        for width in widths:
            first, second = (
                Conv2d(before, width, 3, padding=1, bias=False),
                Conv2d(width, width, 3, padding=1, bias=False),
            )
            self.stages.append([first, BatchNorm2d(width), second, BatchNorm2d(width)])
            before = width
        self.dropout, self.head = Dropout(dropout), Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for number, (conv1, norm1, conv2, norm2) in enumerate(self.stages):
            x = x.max_pool2d(2) if number else x
            x = norm1(conv1(x)).relu()
            x = norm2(conv2(x)).relu()
        return self.head(self.dropout(x.mean((2, 3))))
