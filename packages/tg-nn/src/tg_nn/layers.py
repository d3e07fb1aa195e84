"""Layers with PyTorch's arguments, names and layouts: affine maps, convolutions, embeddings, normalisations.

What has no parameters is a table at the end: a module that calls one function of tg_frontend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tg_frontend as tg
from tg_frontend import Tensor, ones, uniform, zeros
from tg_nn.module import Module

__all__ = [
    "ELU", "GELU", "GLU", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool1d", "AvgPool2d",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
    "ConvTranspose3d", "Dropout", "Dropout2d", "Embedding", "Flatten", "GroupNorm", "Hardswish", "Identity",
    "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax",
    "MaxPool1d", "MaxPool2d", "Mish", "RMSNorm", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
    "Unflatten", "Upsample",
]  # fmt: skip

Sizes = int | Sequence[int]


def _spread(*shape: int, fan_in: int) -> Tensor:
    """A parameter, uniform within 1 / sqrt(fan_in): PyTorch's default for weights and biases."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return uniform(*shape, low=-bound, high=bound, requires_grad=True)


class Linear(Module):
    """x @ weight.T + bias. Shapes: (.., in_features) gives (.., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        self.in_features, self.out_features = in_features, out_features
        self.weight = _spread(out_features, in_features, fan_in=in_features)
        self.bias = _spread(out_features, fan_in=in_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The affine map, in the dtype of the weight."""
        return x.to(self.weight.dtype).linear(self.weight, self.bias)


class Embedding(Module):
    """A row of `weight` for each integer. Shapes: (..) gives (.., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None):
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        weight = tg.randn(num_embeddings, embedding_dim)
        if padding_idx is not None:
            weight[padding_idx] = 0.0
        self.weight = weight.requires_grad_()

    def forward(self, index: Tensor) -> Tensor:
        """The rows; no gradient goes to row `padding_idx`."""
        return index.embedding(self.weight, self.padding_idx)


# ---- convolutions ----------------------------------------------------------------------------------------------------


class _Convolution(Module):
    axes: int
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, output_padding: Sizes = 0,
    ):  # fmt: skip
        kernel = (kernel_size,) * self.axes if isinstance(kernel_size, int) else tuple(kernel_size)
        self.kernel_size, self.stride, self.padding = kernel, stride, padding
        self.dilation, self.groups, self._output_padding = dilation, groups, output_padding
        outer, inner = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        fan_in = inner // groups * math.prod(kernel)
        self.weight = _spread(outer, inner // groups, *kernel, fan_in=fan_in)
        self.bias = _spread(out_channels, fan_in=fan_in) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The convolution (cross-correlation), in the dtype of the weight."""
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        if self.transposed:
            options["output_padding"] = self._output_padding
        name = f"conv_transpose{self.axes}d" if self.transposed else f"conv{self.axes}d"
        x = x.to(self.weight.dtype)
        return getattr(x, name)(self.weight, self.bias, groups=self.groups, **options)


class Conv1d(_Convolution):
    """Shapes: (N, C, L)."""

    axes = 1


class Conv2d(_Convolution):
    """Shapes: (N, C, H, W); weight (out, in / groups, kh, kw)."""

    axes = 2


class Conv3d(_Convolution):
    """Shapes: (N, C, D, H, W)."""

    axes = 3


class ConvTranspose1d(Conv1d):
    """The gradient of Conv1d for its input; weight (in, out / groups, k)."""

    transposed = True


class ConvTranspose2d(Conv2d):
    """The gradient of Conv2d for its input; weight (in, out / groups, kh, kw)."""

    transposed = True


class ConvTranspose3d(Conv3d):
    """The gradient of Conv3d for its input; weight (in, out / groups, kd, kh, kw)."""

    transposed = True


# ---- normalisations --------------------------------------------------------------------------------------------------


class _ChannelNorm(Module):
    """Weight and bias for each channel, and running statistics that training moves."""

    function: str
    counts = True

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True,
    ):  # fmt: skip
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = ones(num_features, requires_grad=True) if affine else None
        self.bias = zeros(num_features, requires_grad=True) if affine else None
        # Memory of their own, not formulas: a training step then is the same graph from the first time on.
        self.running_mean = Tensor([0.0] * num_features) if track_running_stats else None
        self.running_var = Tensor([1.0] * num_features) if track_running_stats else None
        counter = tg.frombuffer(bytearray(8), dtype="int64", shape=())
        self.num_batches_tracked = counter if track_running_stats else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised input; by the batch's statistics in training, and by the running ones afterwards."""
        momentum = self.momentum
        by_batch = self.training or self.running_mean is None
        if self.training and self.counts and self.num_batches_tracked is not None:
            self.num_batches_tracked.assign(self.num_batches_tracked + 1)
            if momentum is None:  # the mean over all batches so far
                momentum = 1 / self.num_batches_tracked.float()
        statistics = (self.running_mean, self.running_var) if self.training or not by_batch else (None, None)
        function = getattr(x, self.function)
        return function(*statistics, self.weight, self.bias, by_batch, momentum, self.eps)


class BatchNorm1d(_ChannelNorm):
    """Shapes: (N, C) or (N, C, L)."""

    function = "batch_norm"


class BatchNorm2d(BatchNorm1d):
    """Shapes: (N, C, H, W)."""


class BatchNorm3d(BatchNorm1d):
    """Shapes: (N, C, D, H, W)."""


class InstanceNorm1d(_ChannelNorm):
    """Each channel of each sample brought to mean 0 and variance 1. Shapes: (N, C, L)."""

    function = "instance_norm"
    counts = False  # nor does PyTorch

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats)


class InstanceNorm2d(InstanceNorm1d):
    """Shapes: (N, C, H, W)."""


class InstanceNorm3d(InstanceNorm1d):
    """Shapes: (N, C, D, H, W)."""


class LayerNorm(Module):
    """The last axes brought to mean 0 and variance 1, scaled and shifted."""

    def __init__(self, normalized_shape: Sizes, eps: float = 1e-5, bias: bool = True):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = ones(*shape, requires_grad=True)
        self.bias = zeros(*shape, requires_grad=True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised input."""
        return x.layer_norm(self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """The last axes divided by their root mean square, and scaled; `eps` is the dtype's by default."""

    def __init__(self, normalized_shape: Sizes, eps: float | None = None):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = ones(*shape, requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised input."""
        return x.rms_norm(self.normalized_shape, self.weight, self.eps)


class GroupNorm(Module):
    """Each group of channels brought to mean 0 and variance 1. Shapes: (N, C, ..)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = ones(num_channels, requires_grad=True) if affine else None
        self.bias = zeros(num_channels, requires_grad=True) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised input."""
        return x.group_norm(self.num_groups, self.weight, self.bias, self.eps)


# ---- without parameters ----------------------------------------------------------------------------------------------


class Dropout(Module):
    """In training, each element dropped with probability p and the others scaled by 1 / (1 - p)."""

    function = "dropout"

    def __init__(self, p: float = 0.5):
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The input with some elements dropped."""
        return getattr(x, self.function)(self.p, self.training)


class Dropout2d(Dropout):
    """Dropout of whole channels. Shapes: (N, C, H, W)."""

    function = "dropout2d"


class Identity(Module):
    """Its input."""

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        return x


def _of_function(name: str, function: str, *first: object) -> type[Module]:
    """A module that calls a method of Tensor with the arguments it was made with, `first` by default."""

    def initialize(self: Module, *arguments: object, **options: object) -> None:
        self._arguments, self._options = arguments or first, options

    def describe(self: Module) -> str:
        return ", ".join([*map(repr, self._arguments), *[f"{k}={v!r}" for k, v in self._options.items()]])

    def forward(self: Module, x: Tensor) -> Tensor:
        return getattr(x, function)(*self._arguments, **self._options)

    members = {"__init__": initialize, "describe": describe, "forward": forward, "__module__": __name__}
    return type(
        name, (Module,), members | {"__doc__": f"`Tensor.{function}` as a module, with its arguments."}
    )


ELU = _of_function("ELU", "elu")
GELU = _of_function("GELU", "gelu")
GLU = _of_function("GLU", "glu")
Hardswish = _of_function("Hardswish", "hardswish")
LeakyReLU = _of_function("LeakyReLU", "leaky_relu")
LogSoftmax = _of_function("LogSoftmax", "log_softmax", -1)
Mish = _of_function("Mish", "mish")
ReLU = _of_function("ReLU", "relu")
ReLU6 = _of_function("ReLU6", "relu6")
SiLU = _of_function("SiLU", "silu")
Sigmoid = _of_function("Sigmoid", "sigmoid")
Softmax = _of_function("Softmax", "softmax", -1)
Softplus = _of_function("Softplus", "softplus")
Tanh = _of_function("Tanh", "tanh")
AdaptiveAvgPool1d = _of_function("AdaptiveAvgPool1d", "adaptive_avg_pool1d")
AdaptiveAvgPool2d = _of_function("AdaptiveAvgPool2d", "adaptive_avg_pool2d")
AdaptiveMaxPool2d = _of_function("AdaptiveMaxPool2d", "adaptive_max_pool2d")
AvgPool1d = _of_function("AvgPool1d", "avg_pool1d")
AvgPool2d = _of_function("AvgPool2d", "avg_pool2d")
MaxPool1d = _of_function("MaxPool1d", "max_pool1d")
MaxPool2d = _of_function("MaxPool2d", "max_pool2d")
Flatten = _of_function("Flatten", "flatten", 1)
Unflatten = _of_function("Unflatten", "unflatten")
Upsample = _of_function("Upsample", "interpolate")
