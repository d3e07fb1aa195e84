"""Resizing against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import TgError

SPATIAL = {1: (7,), 2: (5, 8), 3: (3, 4, 5)}
MODES = [
    (mode, axes)
    for axes, modes in {
        1: ("nearest", "nearest-exact", "linear", "area"),
        2: ("nearest", "nearest-exact", "bilinear", "bicubic", "area"),
        3: ("nearest", "nearest-exact", "trilinear", "area"),
    }.items()
    for mode in modes
]


def _both(**options):
    return (lambda x: x.interpolate(**options), lambda x: F.interpolate(x, **options))


@pytest.mark.parametrize(("mode", "axes"), MODES)
@pytest.mark.parametrize("size", (1, 3, 4, 13))
def test_interpolate_to_a_size_equals_torch(mode, axes, size):
    corners = (None,) if mode in ("nearest", "nearest-exact", "area") else (None, True)
    for align_corners in corners:
        options = {"size": size, "mode": mode, "align_corners": align_corners}
        check(*_both(**options), sample(2, 2, *SPATIAL[axes]), tolerance=1e-5)


@pytest.mark.parametrize(("mode", "axes"), MODES)
@pytest.mark.parametrize("recompute", (None, True))
def test_interpolate_by_a_factor_equals_torch(mode, axes, recompute):
    for factor in (2, 0.6, 1.7):
        options = {"scale_factor": factor, "mode": mode, "recompute_scale_factor": recompute}
        check(*_both(**options), sample(1, 2, *SPATIAL[axes]), tolerance=1e-5)


@pytest.mark.parametrize("mode", ("bilinear", "bicubic"))
@pytest.mark.parametrize(
    "size", ((2, 3), (5, 8), (9, 11), (1, 20), (3, 2))
)  # not (3, 1): for that PyTorch 2.13 repeats the first row
@pytest.mark.parametrize("align_corners", (False, True))
def test_interpolate_antialiased_equals_torch(mode, size, align_corners):
    options = {"size": size, "mode": mode, "antialias": True, "align_corners": align_corners}
    check(*_both(**options), sample(2, 2, 5, 8), tolerance=1e-5)
    check(*_both(**options), sample(1, 1, 17, 13), tolerance=1e-5)


def test_interpolate_of_other_dtypes_and_shapes_equals_torch():
    check(
        *_both(scale_factor=(2, 1.5), mode="bilinear"),
        sample(2, 2, 4, 6),
        dtypes=("float64", "float16", "bfloat16"),
    )
    check(*_both(size=(3, 9), mode="bicubic"), sample(0, 2, 4, 6))
    check(lambda x: x.upsample(size=5), lambda x: F.interpolate(x, size=5), sample(1, 2, 3))
    got = Tensor(np.arange(6, dtype=np.uint8).reshape(1, 1, 6)).interpolate(size=4).numpy()
    np.testing.assert_array_equal(
        got, F.interpolate(torch.arange(6, dtype=torch.uint8).reshape(1, 1, 6), size=4).numpy()
    )


def test_pixel_shuffle_equals_torch():
    check(lambda x: x.pixel_shuffle(2), lambda x: F.pixel_shuffle(x, 2), sample(2, 8, 3, 4))
    check(lambda x: x.pixel_unshuffle(3), lambda x: F.pixel_unshuffle(x, 3), sample(2, 3, 6))
    with pytest.raises(TgError, match="a multiple of 9"):
        Tensor(sample(2, 8, 3, 4)).pixel_shuffle(3)


@pytest.mark.parametrize("align_corners", (False, True))
@pytest.mark.parametrize("padding", ("zeros", "border", "reflection"))
@pytest.mark.parametrize("mode", ("bilinear", "nearest"))
def test_grid_sample_equals_torch(mode, padding, align_corners):
    options = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
    both = (lambda x, g: tg.grid_sample(x, g, **options), lambda x, g: F.grid_sample(x, g, **options))
    check(*both, sample(2, 3, 5, 4), sample(2, 3, 6, 2, low=-1.4, high=1.4), dtypes=("float64",))
    check(*both, sample(1, 2, 3, 4, 2), sample(1, 2, 3, 2, 3, low=-1.4, high=1.4), dtypes=("float64",))


@pytest.mark.parametrize("align_corners", (False, True))
def test_affine_grid_equals_torch(align_corners):
    for size, theta in (((2, 3, 4, 5), (2, 2, 3)), ((2, 1, 3, 1, 5), (2, 3, 4))):
        check(
            lambda x, s=size: x.affine_grid(s, align_corners),
            lambda x, s=size: F.affine_grid(x, s, align_corners),
            sample(*theta),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3, "mode": "cubic"}, "got mode 'cubic'"),
        ({"size": 3, "mode": "linear"}, "does not resize"),
        ({"size": 3, "scale_factor": 2}, "not both"),
        ({}, "not both"),
        ({"size": (1, 2, 3)}, "want one or 2 numbers"),
        ({"size": 0}, "want sizes >= 1"),
        ({"size": 3, "align_corners": True}, "align_corners"),
        ({"size": 3, "antialias": True}, "antialias"),
    ],
)
def test_interpolate_that_does_not_fit_raises(options, message):
    with pytest.raises(TgError, match=message):
        Tensor(sample(1, 1, 4, 4)).interpolate(**options)
