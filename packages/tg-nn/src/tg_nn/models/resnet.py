"""ResNet-18 and -50, with torchvision's names of weights.

Source: He et al., "Deep Residual Learning for Image Recognition", 2016; stride on the 3x3 convolution of a bottleneck.
"""

from __future__ import annotations

from tg_frontend import Tensor
from tg_nn.initialize import kaiming_normal_
from tg_nn.layers import BatchNorm2d, Conv2d, Linear
from tg_nn.module import Module, Sequential

__all__ = ["ResNet", "resnet18", "resnet50"]


def _conv(inner: int, outer: int, kernel: int, stride: int = 1) -> Conv2d:
    conv = Conv2d(inner, outer, kernel, stride, padding=kernel // 2, bias=False)
    kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class _Block(Module):
    """What a residual block adds to its input, or to a projection of it where shapes differ."""

    expansion: int

    def __init__(self, inner: int, width: int, stride: int):
        outer = width * self.expansion
        self.layers(inner, width, outer, stride)
        if stride != 1 or inner != outer:
            self.downsample = Sequential(_conv(inner, outer, 1, stride), BatchNorm2d(outer))

    def layers(self, inner: int, width: int, outer: int, stride: int) -> None:
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """relu(residual + input)."""
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return (self.residual(x) + shortcut).relu()


class _Basic(_Block):
    expansion = 1

    def layers(self, inner: int, width: int, outer: int, stride: int) -> None:
        self.conv1, self.bn1 = _conv(inner, width, 3, stride), BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, outer, 3), BatchNorm2d(outer)

    def residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))


class _Bottleneck(_Block):
    expansion = 4

    def layers(self, inner: int, width: int, outer: int, stride: int) -> None:
        self.conv1, self.bn1 = _conv(inner, width, 1), BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outer, 1), BatchNorm2d(outer)

    def residual(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.bn3(self.conv3(x))


class ResNet(Module):
    """Four stages of residual blocks. Shapes: (N, 3, H, W) gives logits (N, classes).

    Args:
        width: channels of the first stage; each stage doubles them. Small ones make small tests.
    """

    def __init__(self, block: type[_Block], counts: tuple[int, ...], classes: int = 1000, width: int = 64):
        self.conv1, self.bn1 = _conv(3, width, 7, 2), BatchNorm2d(width)
        inner = width
        for number, count in enumerate(counts):
            stage = []
            for position in range(count):
                stage.append(block(inner, width << number, 2 if number and not position else 1))
                inner = (width << number) * block.expansion
            setattr(self, f"layer{number + 1}", stage)
        self.fc = Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.bn1(self.conv1(x)).relu().max_pool2d(3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return self.fc(x.mean((2, 3)))


def resnet18(classes: int = 1000, width: int = 64) -> ResNet:
    """11.7 million parameters."""
    return ResNet(_Basic, (2, 2, 2, 2), classes, width)


def resnet50(classes: int = 1000, width: int = 64) -> ResNet:
    """25.6 million parameters."""
    return ResNet(_Bottleneck, (3, 4, 6, 3), classes, width)
