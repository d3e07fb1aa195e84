"""Pooling against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import TgError

SPATIAL = {1: (11,), 2: (7, 10), 3: (5, 6, 4)}
BOTH = (("max",), ("avg",))


def _pools(name: str, axes: int, *args, **options):
    return (
        lambda x: getattr(x, f"{name}_pool{axes}d")(*args, **options),
        lambda x: getattr(F, f"{name}_pool{axes}d")(x, *args, **options),
    )


@pytest.mark.parametrize("axes", (1, 2, 3))
@pytest.mark.parametrize("name", ("max", "avg"))
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (2, {}),
        (3, {"stride": 1}),
        (3, {"stride": 2, "padding": 1}),
        (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
        (2, {"stride": 3, "ceil_mode": True}),
        (4, {"stride": 3, "padding": 2, "ceil_mode": True}),
    ],
)
def test_pool_of_any_window_equals_torch(axes, name, kernel, options):
    check(*_pools(name, axes, kernel, **options), sample(2, 3, *SPATIAL[axes]))


@pytest.mark.parametrize("name", ("max", "avg"))
def test_pool_of_unequal_kernels_without_batch_equals_torch(name):
    check(
        *_pools(name, 2, (3, 2), stride=(1, 2), padding=(1, 0)),
        sample(3, 7, 8),
        dtypes=("float32", "float64", "float16", "bfloat16"),
    )
    check(*_pools(name, 2, 2), sample(0, 3, 4, 4))
    check(*_pools(name, 2, 3, stride=1, padding=1), sample(1, 2, 4, 3), second_order=True)


@pytest.mark.parametrize("ceil_mode", (False, True))
@pytest.mark.parametrize("stride", (1, 2))
def test_max_pool_with_dilation_and_indices_equals_torch(stride, ceil_mode):
    options = {"stride": stride, "padding": 1, "dilation": 2, "ceil_mode": ceil_mode, "return_indices": True}
    for axes in (1, 2, 3):
        check(*_pools("max", axes, 2, **options), sample(2, 2, *SPATIAL[axes]))


def test_max_pool_of_ties_nan_and_infinity_takes_torchs_elements():
    x = np.array([[0.0, 0, 0, np.nan, 1, np.nan, -np.inf, -np.inf, -np.inf, 5, np.inf, np.inf]])
    for padding in (0, 1):
        check(*_pools("max", 1, 3, stride=2, padding=padding, return_indices=True), x)
    check(*_pools("max", 2, 2, stride=1, return_indices=True), np.zeros((1, 4, 5)))
    ints = np.arange(12).reshape(1, 3, 4) - 20
    check(*_pools("max", 2, 2, padding=1, return_indices=True), ints)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1, "count_include_pad": False},
        {"padding": 1, "count_include_pad": False, "ceil_mode": True},
        {"padding": 1, "divisor_override": 3},
        {"divisor_override": -2, "ceil_mode": True},
    ],
)
def test_avg_pool_with_other_divisors_equals_torch(options):
    for axes in (2, 3):
        check(*_pools("avg", axes, 3, stride=2, **options), sample(1, 2, *SPATIAL[axes]))


@pytest.mark.parametrize("power", (1, 2.0, 3.0))
def test_lp_pool_equals_torch(power):
    for axes in (1, 2, 3):
        check(*_pools("lp", axes, power, 2, stride=2, ceil_mode=True), sample(2, 3, *SPATIAL[axes], low=0.1))


@pytest.mark.parametrize("name", ("adaptive_max", "adaptive_avg"))
@pytest.mark.parametrize("size", (1, 2, 3, 5, 9))
def test_adaptive_pool_equals_torch(name, size):
    for axes in (1, 2, 3):
        check(*_pools(name, axes, size), sample(2, 2, *SPATIAL[axes]))


def test_adaptive_pool_with_indices_and_open_sizes_equals_torch():
    check(*_pools("adaptive_max", 2, (3, 4), return_indices=True), sample(2, 2, 7, 10))
    check(*_pools("adaptive_avg", 2, (None, 3)), sample(2, 7, 10), dtypes=("float32", "bfloat16"))


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_max_unpool_equals_torch(axes):
    def both(x, pool, unpool, **options):
        values, indices = pool(x, 2, return_indices=True)
        return unpool(values, indices, 2, **options)

    of = lambda library, name: getattr(library, f"{name}{axes}d")  # noqa: E731
    for options in ({}, {"output_size": SPATIAL[axes]}):
        check(
            lambda x, o=options: both(x, of(tg, "max_pool"), of(tg, "max_unpool"), **o),
            lambda x, o=options: both(x, of(F, "max_pool"), of(F, "max_unpool"), **o),
            sample(2, 2, *SPATIAL[axes]),
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.max_pool2d(3, padding=2), "padding 2 is more than half"),
        (lambda x: x.max_pool2d(9), "does not fit in the padded input"),
        (lambda x: x.max_pool2d(2, stride=0), "stride 0, want one or 2 integers >= 1"),
        (lambda x: x.max_pool3d((2, 2)), "want one or 3 integers"),
        (lambda x: x.max_pool1d(2), "want 3 dimensions, or 2"),
        (lambda x: x.avg_pool2d(2, divisor_override=0), "divisor_override 0"),
        (lambda x: x.adaptive_avg_pool2d((1, 2, 3)), "want 2 sizes"),
    ],
)
def test_pool_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(Tensor(sample(1, 2, 5, 6)))


def test_avg_pool_of_integers_raises():
    with pytest.raises(TgError, match="want floats"):
        Tensor([[[1, 2, 3]]]).avg_pool1d(2)


def test_max_pool_without_gradients_keeps_indices_out_of_the_graph():
    x = Tensor(sample(1, 1, 4, 4), dtype="float32")
    with tg.no_grad():
        got = x.max_pool2d(2)
    np.testing.assert_allclose(got.numpy(), F.max_pool2d(torch.tensor(x.numpy()), 2).numpy())
