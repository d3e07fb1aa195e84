"""Reductions against PyTorch: values, gradients, dtypes, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_reference import check, sample

from tg_frontend import Tensor, Variable
from tg_ir.errors import DTypeError, ShapeError, TgError

A = sample(2, 3, 4)
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-1.0, 0.0, -1.0]])
ZEROS = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 4.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
NAN = np.array([[1.0, math.nan, 3.0, 2.0], [4.0, 2.0, 1.0, 0.0], [math.nan] * 4])
INF = np.array([[-math.inf, 1.0, 2.0], [3.0, math.inf, 2.0], [1.0, -math.inf, math.inf]])

CALLS = [
    lambda x: x.sum(),
    lambda x: x.sum(1),
    lambda x: x.sum((0, -1), keepdim=True),
    lambda x: x.sum(dim=[]),
    lambda x: x.prod(),
    lambda x: x.prod(1, keepdim=True),
    lambda x: x.mean(),
    lambda x: x.mean((0, 2)),
    lambda x: x.mean(-1, True),
    lambda x: x.var(),
    lambda x: x.var(1),
    lambda x: x.var(False),
    lambda x: x.var((0, 1), keepdim=True, correction=0),
    lambda x: x.var(1, False, True),
    lambda x: x.std(),
    lambda x: x.std(-1, correction=2),
    lambda x: x.amax(),
    lambda x: x.amax((0, 2)),
    lambda x: x.amin(1, True),
    lambda x: x.max(),
    lambda x: x.min(),
    lambda x: x.max(1),
    lambda x: x.min(-1, keepdim=True),
    lambda x: x.max(x * 0.5 + 1),
    lambda x: x.aminmax(),
    lambda x: x.aminmax(dim=1, keepdim=True),
    lambda x: x.argmax(),
    lambda x: x.argmax(1),
    lambda x: x.argmin(0, keepdim=True),
    lambda x: x.argmin(keepdim=True),
    lambda x: x.logsumexp(0),
    lambda x: x.logsumexp((0, 2), keepdim=True),
    lambda x: x.norm(),
    lambda x: x.norm(1),
    lambda x: x.norm(0, dim=1),
    lambda x: x.norm(3, dim=(0, 1), keepdim=True),
    lambda x: x.norm(1.5, 1),
    lambda x: x.norm(0.5, 1),
    lambda x: x.norm(-1, 1),
    lambda x: x.norm(math.inf),
    lambda x: x.norm(-math.inf, 1),
    lambda x: x.norm("fro", (1, 2)),
    lambda x: x.count_nonzero(),
    lambda x: x.count_nonzero((0, 1)),
    lambda x: x.median(),
    lambda x: x.median(1),
    lambda x: x.nanmedian(2, True),
    lambda x: x.nansum(),
    lambda x: x.nansum(1, True),
    lambda x: x.nanmean((0, 1)),
    lambda x: x.mode(1),
    lambda x: x.any(),
    lambda x: x.any(1),
    lambda x: x.any(dim=(0, 2), keepdim=True),
    lambda x: x.all(-1),
    lambda x: x.all(dim=()),
    lambda x: (x > 0).sum(1),
]


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_reduction_equals_torch(row):
    call = CALLS[row]
    check(call, call, A, second_order=row in (4, 9, 12, 15, 30, 32, 36))
    check(call, call, sample(3, 1, 5), dtypes=("float64",))


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_reduction_of_halves_rounds_once(row):
    if row == 37:  # norm 0.5: powers of a rounded sum, whose error is larger than a rounding
        return
    check(
        CALLS[row],
        CALLS[row],
        A + np.arange(24).reshape(2, 3, 4) / 32,
        dtypes=("float16", "bfloat16"),
        grad=False,
    )


@pytest.mark.parametrize("kind", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantile_equals_torch(kind):
    one = lambda x: x.quantile(0.37, 1, interpolation=kind)  # noqa: E731
    several = lambda x, q: x.quantile(q, 1, True, interpolation=kind)  # noqa: E731
    check(one, one, A)
    check(several, several, A, np.array([0.0, 0.3, 0.5, 1.0]), dtypes=("float64",))


def test_quantile_of_all_and_of_nan_equals_torch():
    check(lambda x: x.quantile(0.25), lambda x: x.quantile(0.25), A)
    check(lambda x: x.quantile(0.25, 1), lambda x: x.quantile(0.25, 1), NAN, grad=False)
    check(lambda x: x.nanquantile(0.6, 1), lambda x: x.nanquantile(0.6, 1), NAN, grad=False)


SPECIAL = [
    (TIES, lambda x: x.amax(1)),
    (TIES, lambda x: x.amin()),
    (TIES, lambda x: x.max()),
    (TIES, lambda x: x.min(1).values),
    (TIES, lambda x: x.max(1)),
    (TIES, lambda x: x.argmin(1)),
    (TIES, lambda x: x.median()),
    (TIES, lambda x: x.mode()),
    (TIES, lambda x: x.norm(math.inf, 1)),
    (TIES, lambda x: x.std(1)),
    (ZEROS, lambda x: x.prod(1)),
    (ZEROS, lambda x: x.prod()),
    (ZEROS, lambda x: x.norm(dim=1)),
    (ZEROS, lambda x: x.norm(3, dim=1)),
    (ZEROS, lambda x: x.norm(1.5, dim=1)),
    (ZEROS, lambda x: x.norm(1, dim=1)),
    (ZEROS, lambda x: x.count_nonzero(1)),
    (ZEROS, lambda x: x.all(1)),
    (INF, lambda x: x.logsumexp(1)),
    (INF, lambda x: x.amax(1)),
    (INF, lambda x: x.sum(1)),
    (sample(3), lambda x: x.max(0)),
    (sample(1), lambda x: x.var()),
    (sample(1), lambda x: x.var(correction=0)),
    (sample(), lambda x: x.sum(0)),
    (sample(), lambda x: x.mean()),
    (sample(), lambda x: x.max(0)),
    (sample(), lambda x: x.median(-1, True)),
    (sample(), lambda x: x.argmax(0)),
    (sample(), lambda x: x.logsumexp(0)),
    (sample(), lambda x: x.var(correction=0)),
    (sample(), lambda x: x.norm()),
    (sample(), lambda x: x.mode()),
    (sample(), lambda x: x.any()),
    (sample(0), lambda x: x.sum()),
    (sample(0), lambda x: x.prod()),
    (sample(0), lambda x: x.mean()),
    (sample(0), lambda x: x.var()),
    (sample(0), lambda x: x.any()),
    (sample(0), lambda x: x.all()),
    (sample(0), lambda x: x.norm()),
    (sample(0), lambda x: x.median()),
    (sample(0, 3), lambda x: x.sum(0)),
    (sample(0, 3), lambda x: x.amax(1)),
    (sample(0, 3), lambda x: x.logsumexp(0)),
    (sample(0, 3), lambda x: x.max(1)),
    (sample(2, 0, 3), lambda x: x.all(1)),
    (sample(2, 0, 3), lambda x: x.median(2)),
]


@pytest.mark.parametrize("row", range(len(SPECIAL)))
def test_reduction_of_a_special_case_equals_torch(row):
    array, call = SPECIAL[row]
    check(call, call, array)


NAN_CALLS = [
    lambda x: x.max(),
    lambda x: x.max(1),
    lambda x: x.amin(1),
    lambda x: x.argmax(1),
    lambda x: x.median(),
    lambda x: x.median(1).values,
    lambda x: x.nanmedian(),
    lambda x: x.nanmedian(1).values,
    lambda x: x.nansum(1),
    lambda x: x.nanmean(1),
    lambda x: x.sum(0),
    lambda x: x.any(1),
    lambda x: x.count_nonzero(1),
    lambda x: x.logsumexp(1),
    lambda x: x.norm(math.inf, 1),
]


@pytest.mark.parametrize("row", range(len(NAN_CALLS)))
def test_reduction_of_nan_equals_torch(row):
    check(NAN_CALLS[row], NAN_CALLS[row], NAN, grad=False)


INTEGERS = [
    lambda x: x.sum(),
    lambda x: x.sum(1),
    lambda x: x.prod(0),
    lambda x: x.max(1),
    lambda x: x.amin(0),
    lambda x: x.argmax(1),
    lambda x: x.median(1).values,
    lambda x: x.mode(1),
    lambda x: x.any(1),
    lambda x: x.all(),
    lambda x: x.count_nonzero(0),
    lambda x: x.logsumexp(1),
    lambda x: x.nansum(1),
]


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8"])
@pytest.mark.parametrize("row", range(len(INTEGERS)))
def test_reduction_of_integers_equals_torch(row, dtype):
    values = np.array([[3, 1, 3, 0], [100, 120, 2, 2]], dtype)
    check(INTEGERS[row], INTEGERS[row], values)


def test_reduction_of_bools_equals_torch():
    values = np.array([[True, False], [True, True], [False, False]])
    for call in (
        lambda x: x.sum(0),
        lambda x: x.prod(1),
        lambda x: x.any(1),
        lambda x: x.all(1),
        lambda x: x.max(1),
        lambda x: x.amax(),
        lambda x: x.count_nonzero(),
    ):
        check(call, call, values)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "nansum", "norm"])
def test_reduction_with_dtype_converts_first(name, dtype):
    half = Tensor(A, "float16")
    theirs = getattr(torch, name)(torch.tensor(A).half(), dtype=getattr(torch, dtype))
    ours = getattr(half, name)(dtype=dtype)
    assert ours.dtype.name == dtype
    np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-5)


def test_var_mean_and_std_mean_equal_torch():
    check(lambda x: x.var_mean(1), lambda x: torch.var_mean(x, 1), A)
    check(lambda x: x.std_mean(1, keepdim=True), lambda x: torch.std_mean(x, 1, keepdim=True), A)
    check(lambda x: x.var_mean(), lambda x: torch.var_mean(x), A)


def test_var_of_a_large_mean_keeps_its_digits():
    values = 1e4 + sample(4, 1000, seed=3)
    got = Tensor(values, "float32").var(1).numpy()
    np.testing.assert_allclose(got, values.astype("float32").astype("float64").var(1, ddof=1), rtol=1e-5)


def test_sum_of_halves_accumulates_in_float32():
    assert Tensor([1.0], "float16").expand(4096).sum().item() == 4096.0
    assert Tensor([200.0], "float16").expand(4096).mean().item() == 200.0


def test_median_and_mode_indices_point_at_their_values():
    values = np.random.default_rng(5).integers(0, 4, (5, 9)).astype("float32")
    for name in ("median", "nanmedian", "mode"):
        found, where = getattr(Tensor(values), name)(1)
        np.testing.assert_array_equal(
            np.take_along_axis(values, where.numpy()[:, None], 1)[:, 0], found.numpy()
        )


def test_reduction_over_a_symbolic_size_evaluates():
    n = Variable("n", 1, 8).bind(3)
    x = Tensor(np.arange(16.0).reshape(8, 2)).narrow(0, 0, n)
    for call in (
        lambda x: x.sum(0),
        lambda x: x.mean(),
        lambda x: x.max(0),
        lambda x: x.argmin(),
        lambda x: x.logsumexp(0),
        lambda x: x.any(0),
        lambda x: x.median(0),
        lambda x: x.var(0, correction=0),
    ):
        want = call(torch.arange(16.0).reshape(8, 2)[:3])
        got = call(x)
        for a, b in zip(*[(r if isinstance(r, tuple) else (r,)) for r in (got, want)], strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


ERRORS = [
    (lambda x: x.sum(3), ShapeError, "sum: got dim 3, want -3 to 2"),
    (lambda x: x.sum((0, 0)), ShapeError, "twice"),
    (lambda x: x.to("int32").mean(), DTypeError, "mean: got int32, want a float dtype"),
    (lambda x: x.to("int64").var(), DTypeError, "var"),
    (lambda x: x.to("int64").norm(), DTypeError, "norm"),
    (lambda x: x.norm("nuc"), TgError, "singular values"),
    (lambda x: x.narrow(0, 0, 0).max(), ShapeError, "no elements"),
    (lambda x: x.narrow(0, 0, 0).max(0), ShapeError, "no elements"),
    (lambda x: x.narrow(0, 0, 0).median(0), ShapeError, "median: no elements"),
    (lambda x: x.var(0, True, correction=1), TgError, "both unbiased and correction"),
    (lambda x: x.quantile(0.5, interpolation="cubic"), TgError, "interpolation"),
    (lambda x: x.to("float16").quantile(0.5), DTypeError, "quantile"),
]


@pytest.mark.parametrize("row", range(len(ERRORS)))
def test_reduction_that_cannot_be_done_says_why(row):
    call, kind, words = ERRORS[row]
    with pytest.raises(kind, match=words):
        call(Tensor(A))
