"""The same models in PyTorch, under the same names of weights."""

from __future__ import annotations

import torch
from torch import nn


class ConvNet(nn.Module):
    """tg_nn.models.ConvNet."""

    def __init__(self, channels: int, widths: tuple[int, ...], classes: int):
        super().__init__()
        self.stages, before = nn.ModuleList(), channels
        for width in widths:
            convs = [nn.Conv2d(a, width, 3, padding=1, bias=False) for a in (before, width)]
            stage = nn.ModuleList([convs[0], nn.BatchNorm2d(width), convs[1], nn.BatchNorm2d(width)])
            self.stages.append(stage)
            before = width
        self.head = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, (conv1, norm1, conv2, norm2) in enumerate(self.stages):
            x = nn.functional.max_pool2d(x, 2) if number else x
            x = norm2(conv2(norm1(conv1(x)).relu())).relu()
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    """A block of a ResNet: (kernel, stride) of its convolutions, each followed by normalisation."""

    def __init__(self, inner: int, widths: list[int], shapes: list[tuple[int, int]]):
        super().__init__()
        self.count, before, stride = len(shapes), inner, max(stride for _, stride in shapes)
        for number, (width, (kernel, step)) in enumerate(zip(widths, shapes, strict=True), 1):
            conv = nn.Conv2d(before, width, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2d(width))
            before = width
        if stride != 1 or inner != before:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, before, 1, stride, bias=False), nn.BatchNorm2d(before)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = y.relu() if number < self.count else y
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class ResNet(nn.Module):
    """tg_nn.models.resnet18 and resnet50."""

    def __init__(self, counts: tuple[int, ...], bottleneck: bool, classes: int, width: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        inner = width
        for number, count in enumerate(counts):
            stage, wide = nn.Sequential(), width << number
            for position in range(count):
                stride = 2 if number and not position else 1
                widths = [wide, wide, 4 * wide] if bottleneck else [wide, wide]
                shapes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
                stage.append(Residual(inner, widths, shapes))
                inner = widths[-1]
            setattr(self, f"layer{number + 1}", stage)
        self.fc = nn.Linear(inner, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
