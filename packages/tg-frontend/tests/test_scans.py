"""Scans and softmax against PyTorch: values, gradients, dtypes, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_reference import check, sample

from tg_frontend import Tensor, Variable
from tg_ir.errors import DTypeError, ShapeError

A = sample(2, 3, 4)
ZEROS = np.array([[0.0, 2.0, 3.0, 0.0], [1.0, 0.0, 4.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
INF = np.array([[-math.inf, -math.inf, -math.inf], [3.0, -math.inf, 2.0], [-math.inf, 1.0, 2.0]])
LARGE = np.array([[1000.0, 1001.0, 999.0], [-1000.0, -1003.0, -1001.0], [0.0, 500.0, -500.0]])

CALLS = [
    lambda x: x.cumsum(0),
    lambda x: x.cumsum(-1),
    lambda x: x.cumprod(1),
    lambda x: x.cummax(1),
    lambda x: x.cummin(-1),
    lambda x: x.logcumsumexp(0),
    lambda x: x.softmax(0),
    lambda x: x.softmax(-1),
    lambda x: x.log_softmax(1),
    lambda x: torch.nn.functional.softmin(x, 1) if isinstance(x, torch.Tensor) else x.softmin(1),
    lambda x: x.diff(),
    lambda x: x.diff(2, 0),
    lambda x: x.diff(prepend=x, append=x),
]
SHAPES = [(2, 3, 4), (3, 1, 5), (4, 7), (3, 0), (0, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("row", range(len(CALLS)))
def test_scan_equals_torch(row, shape):
    check(
        CALLS[row],
        CALLS[row],
        sample(*shape, seed=row),
        second_order=row in (2, 3, 5, 7, 8) and shape == (4, 7),
    )


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_scan_of_halves_rounds_once(row):
    values = np.round(A * 8) / 8
    check(CALLS[row], CALLS[row], values, dtypes=("float16", "bfloat16"), grad=False)


SPECIAL = [
    (ZEROS, lambda x: x.cumprod(1)),
    (ZEROS, lambda x: x.cumprod(0)),
    (np.array([1.0, 3.0, 3.0, 2.0, 3.0]), lambda x: x.cummax(0)),
    (np.array([1.0, 0.0, 0.0, 2.0, 0.0]), lambda x: x.cummin(0)),
    (INF, lambda x: x.softmax(0)),
    (INF, lambda x: x.softmax(1)),
    (INF, lambda x: x.log_softmax(0)),
    (INF, lambda x: x.logcumsumexp(1)),
    (LARGE, lambda x: x.softmax(1)),
    (LARGE, lambda x: x.log_softmax(1)),
    (LARGE, lambda x: x.logcumsumexp(1)),
    (np.array([1.0, math.nan, 0.0, 3.0]), lambda x: x.cummax(0)),
    (np.array([1.0, math.nan, 0.0, 3.0]), lambda x: x.cumsum(0)),
    (np.array([1.0, math.inf, 0.0, 3.0]), lambda x: x.softmax(0)),
    (sample(), lambda x: x.cumsum(0)),
    (sample(), lambda x: x.cummax(-1)),
    (sample(), lambda x: x.logcumsumexp(0)),
    (sample(), lambda x: x.softmax(0)),
    (sample(), lambda x: x.log_softmax(-1)),
    (sample(1), lambda x: x.cumprod(0)),
    (sample(2), lambda x: x.diff(5)),
]


@pytest.mark.parametrize("row", range(len(SPECIAL)))
def test_scan_of_a_special_case_equals_torch(row):
    array, call = SPECIAL[row]
    check(call, call, array, grad=bool(np.isfinite(array).all()))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64"])
def test_scan_of_integers_equals_torch(dtype):
    values = np.array([[1, 0, 3], [2, 2, 0]]).astype(dtype)
    for call in (
        lambda x: x.cumsum(1),
        lambda x: x.cumprod(0),
        lambda x: x.cummax(1),
        lambda x: x.cummin(1),
        lambda x: x.diff(),
    ):
        check(call, call, values)


def test_scan_with_dtype_converts_first():
    x = Tensor([[1, 2, 3]])
    assert x.softmax(1, dtype="float32").dtype.name == "float32"
    assert x.cumsum(1, dtype="int8").tolist() == [[1, 3, 6]]
    assert x.cumsum(1, dtype="int8").dtype.name == "int8"
    half = Tensor(A, "float16")
    want = torch.tensor(A).half().log_softmax(1, dtype=torch.float32)
    np.testing.assert_allclose(half.log_softmax(1, "float32").numpy(), want.numpy(), rtol=1e-5)


def test_softmax_over_a_symbolic_size_evaluates():
    n = Variable("n", 1, 8).bind(3)
    x = Tensor(sample(4, 8), "float64")
    np.testing.assert_allclose(x.narrow(1, 0, n).softmax(1).numpy(), x.narrow(1, 0, 3).softmax(1).numpy())
    np.testing.assert_allclose(x.narrow(1, 0, n).cumsum(1).numpy(), np.cumsum(sample(4, 8)[:, :3], 1))


ERRORS = [
    (lambda x: x.softmax(3), ShapeError, "softmax: got dim 3"),
    (lambda x: x.to("int32").softmax(1), DTypeError, "softmax: got int32, want a float dtype"),
    (lambda x: x.to("int32").logcumsumexp(1), DTypeError, "logcumsumexp"),
    (lambda x: x.cumsum(4), ShapeError, "cumsum"),
    (lambda x: x.sum().diff(), ShapeError, "diff"),
]


@pytest.mark.parametrize("row", range(len(ERRORS)))
def test_scan_that_cannot_be_done_says_why(row):
    call, kind, words = ERRORS[row]
    with pytest.raises(kind, match=words):
        call(Tensor(A))
