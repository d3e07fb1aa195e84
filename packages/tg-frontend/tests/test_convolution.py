"""Convolutions against PyTorch, and the gradient of windows that they rest on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir import graph
from tg_ir.errors import TgError

SPATIAL = {1: (9,), 2: (7, 8), 3: (5, 6, 4)}
KERNEL = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}


def _both(name: str, **options):
    return (
        lambda *args: getattr(tg, name)(*args, **options),
        lambda *args: getattr(F, name)(*args, **options),
    )


def _arrays(
    axes: int, channels: int = 4, out: int = 6, groups: int = 1, transposed: bool = False
) -> list[np.ndarray]:
    weight = (channels, out // groups) if transposed else (out, channels // groups)
    return [sample(2, channels, *SPATIAL[axes]), sample(*weight, *KERNEL[axes], seed=1), sample(out, seed=2)]


OPTIONS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"dilation": 2, "padding": 2},
    {"stride": 3, "padding": 2, "dilation": 2},
    {"stride": 2, "padding": 1, "groups": 2},
]


@pytest.mark.parametrize("axes", (1, 2, 3))
@pytest.mark.parametrize("options", OPTIONS)
def test_conv_equals_torch(axes, options):
    check(*_both(f"conv{axes}d", **options), *_arrays(axes, groups=options.get("groups", 1)))


@pytest.mark.parametrize("axes", (1, 2, 3))
@pytest.mark.parametrize(
    "options", [*OPTIONS, {"stride": 3, "output_padding": 2, "padding": 2}, {"padding": 2, "stride": 2}]
)
def test_conv_transpose_equals_torch(axes, options):
    check(
        *_both(f"conv_transpose{axes}d", **options),
        *_arrays(axes, groups=options.get("groups", 1), transposed=True),
    )


@pytest.mark.parametrize("padding", ("same", "valid"))
@pytest.mark.parametrize("dilation", (1, 2))
def test_conv_with_named_padding_equals_torch(padding, dilation):
    for axes in (1, 2, 3):
        x, w, b = _arrays(axes)
        w = np.concatenate([w, w], axis=2)[:, :, :4] if dilation == 1 else w  # an even kernel, too
        check(*_both(f"conv{axes}d", padding=padding, dilation=dilation), x, w, b)


def test_conv_of_unequal_options_and_dtypes_equals_torch():
    options = {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 3), "groups": 4}
    check(*_both("conv2d", **options), *_arrays(2, 4, 8, 4), dtypes=("float32", "float64"), second_order=True)
    check(*_both("conv2d"), *_arrays(2)[:2], dtypes=("float16", "bfloat16"))
    options = {"stride": (2, 3), "padding": (1, 2), "dilation": (1, 2), "output_padding": (1, 2), "groups": 2}
    check(*_both("conv_transpose2d", **options), *_arrays(2, 4, 6, 2, True), second_order=True)


@pytest.mark.parametrize("name", ("conv2d", "conv_transpose2d"))
def test_conv_without_batch_or_with_an_empty_one_equals_torch(name):
    x, w, b = _arrays(2, 4, 4)
    check(*_both(name), x[0], w, b)
    check(*_both(name), x[:0], w, b)
    check(*_both(name), x[:, :, :3, :2], w)
    check(*_both(name, stride=2), sample(1, 1, 3, 3), sample(1, 1, 1, 1, seed=1))


def test_conv_of_integers_equals_torch():
    x, w = [np.random.default_rng(i).integers(-4, 5, shape) for i, shape in enumerate(((1, 2, 5), (3, 2, 2)))]
    np.testing.assert_array_equal(
        Tensor(x).conv1d(Tensor(w)).numpy(), F.conv1d(torch.tensor(x), torch.tensor(w)).numpy()
    )


def test_depthwise_conv_with_multiplier_equals_torch():
    check(*_both("conv2d", groups=4, padding=1), *_arrays(2, 4, 8, 4))


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "stride": (1, 3)}])
def test_im2col_and_col2im_equal_torch(options):
    check(lambda x: x.im2col((2, 3), **options), lambda x: F.unfold(x, (2, 3), **options), sample(2, 3, 7, 8))
    patches = F.unfold(torch.zeros(1, 2, 7, 8), (2, 3), **options).shape[1:]
    check(
        lambda x: x.col2im((7, 8), (2, 3), **options),
        lambda x: F.fold(x, (7, 8), (2, 3), **options),
        sample(2, *patches),
        dtypes=("float32", "float64"),
    )


def _gathered(x: torch.Tensor, axis: int, size: int, stride: int = 1, dilation: int = 1) -> torch.Tensor:
    """What graph.window means, by gathering."""
    count = (x.shape[axis] - dilation * (size - 1) - 1) // stride + 1
    index = torch.arange(count)[:, None] * stride + torch.arange(size) * dilation
    return x.movedim(axis, -1)[..., index].movedim(-2, axis)


def _check_windows(x: np.ndarray, *steps: tuple[int, ...]) -> None:
    def ours(x):
        node = x.node
        for step in steps:
            node = graph.window(node, *step)
        return Tensor.from_node(node, x) ** 3

    def theirs(x):
        for step in steps:
            x = _gathered(x, *step)
        return x**3

    check(ours, theirs, x, dtypes=("float64",), second_order=True)


@pytest.mark.parametrize("size", (1, 2, 3))
@pytest.mark.parametrize("stride", (1, 2, 4))
@pytest.mark.parametrize("dilation", (1, 2, 3))
def test_gradient_of_windows_equals_that_of_a_gather(size, stride, dilation):
    for length, axis in itertools.product((7, 8, 11), (0, 1, 2)):
        shape = [length if i == axis else i + 2 for i in range(3)]
        _check_windows(sample(*shape), (axis, size, stride, dilation))


def test_gradient_of_several_axes_windowed_in_turn_equals_that_of_gathers():
    _check_windows(sample(7, 8), (1, 3, 2, 1), (0, 2, 1, 2))
    _check_windows(sample(7, 8), (1, 3, 2, 1), (0, 2, 1, 2), (2, 2, 1, 2))  # over the first window's offsets
    _check_windows(sample(12), (0, 4, 3, 1), (0, 2, 1, 1), (1, 2, 2, 1))
    _check_windows(sample(6), (0, 6, 1, 1))  # one window
    _check_windows(sample(6), (0, 1, 7, 1))  # a stride longer than the axis


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: x.conv2d(w, padding=-1), "padding -1, want one or 2 integers >= 0"),
        (lambda x, w: x.conv2d(w, stride=(1, 2, 3)), "want one or 2 integers >= 1"),
        (lambda x, w: x.conv2d(w, stride=2, padding="same"), "wants stride 1"),
        (lambda x, w: x.conv2d(w, padding="full"), "'same' or 'valid'"),
        (lambda x, w: x.conv2d(w, groups=3), "groups 3 do not divide"),
        (lambda x, w: x.conv2d(w, groups=2), "the input has 4 channels"),
        (lambda x, w: x.conv2d(w, dilation=4), "does not fit in the padded input"),
        (lambda x, w: x.conv1d(w), "want 3 dimensions"),
        (lambda x, w: x.conv2d(w, Tensor(np.zeros(3))), "got bias"),
        (lambda x, w: x.conv2d(w.to("float32")), "operands are float64 and float32"),
        (lambda x, w: x.conv_transpose2d(w, output_padding=1), "output_padding"),
        (lambda x, w: x.conv_transpose2d(w, padding=5), "too small"),
        (lambda x, w: x.im2col(9), "does not fit"),
        (lambda x, w: x.col2im((4, 4), 2), "multiple of 4"),
    ],
)
def test_conv_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(Tensor(sample(1, 4, 5, 5)), Tensor(sample(4, 4, 3, 3)))
