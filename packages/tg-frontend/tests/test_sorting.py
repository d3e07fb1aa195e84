"""Sorting, unique elements, binary search and counts against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor, Variable
from tg_ir import graph
from tg_ir.errors import DTypeError, ShapeError, TgError

A = sample(3, 4, 5)
NAN = np.array([3.0, 1.0, math.nan, 2.0, math.nan, math.inf, -math.inf])
REPEATED = np.random.default_rng(2).integers(0, 4, (6, 7))

CALLS = [
    lambda x: x.sort(),
    lambda x: x.sort(0, descending=True),
    lambda x: x.sort(dim=1, stable=True),
    lambda x: x.argsort(),
    lambda x: x.argsort(0, True),
    lambda x: x.msort(),
    lambda x: x.topk(2),
    lambda x: x.topk(3, 0),
    lambda x: x.topk(1, 1, largest=False),
    lambda x: x.topk(0),
    lambda x: x.kthvalue(2),
    lambda x: x.kthvalue(1, 0, keepdim=True),
]


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_sort_equals_torch(row):
    check(CALLS[row], CALLS[row], A)
    if row in (0, 6, 10):
        square = lambda x: CALLS[row](x * x).values  # noqa: E731
        check(square, square, A, second_order=True)


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_sort_of_integers_equals_torch(row):
    values = np.random.default_rng(1).permutation(60).reshape(3, 4, 5)
    for dtype in ("int64", "int8", "uint8"):
        check(CALLS[row], CALLS[row], values.astype(dtype))


def test_sort_of_special_cases_equals_torch():
    for call in (
        lambda x: x.sort(stable=True),
        lambda x: x.sort(stable=True, descending=True),
        lambda x: x.topk(3).values,
        lambda x: x.topk(7, largest=False).values,
        lambda x: x.kthvalue(7).values,
    ):
        check(call, call, NAN, grad=False)
    for call in (lambda x: x.sort(), lambda x: x.topk(1), lambda x: x.kthvalue(1), lambda x: x.argsort(0)):
        check(call, call, sample())
    check(lambda x: x.sort(0), lambda x: x.sort(0), sample(0, 3))
    stable = lambda x: x.sort(stable=True)  # noqa: E731
    check(stable, stable, REPEATED)
    check(stable, stable, REPEATED > 1)


OPTIONS = [
    {},
    {"return_inverse": True},
    {"return_counts": True},
    {"return_inverse": True, "return_counts": True},
]


@pytest.mark.parametrize("name", ["unique", "unique_consecutive"])
@pytest.mark.parametrize("row", range(len(OPTIONS)))
def test_unique_equals_torch(row, name):
    for values in (
        REPEATED,
        NAN,
        np.zeros(0),
        np.zeros((1, 2)),
        np.array(3),
        REPEATED > 1,
        REPEATED[:, :2] % 2,
    ):
        call = lambda x: getattr(x, name)(**OPTIONS[row])  # noqa: E731
        check(call, call, values, grad=False)
    for dim in (0, 1):
        for values in (REPEATED[:, :2] % 2, np.array([[[1, 2], [1, 2]], [[0, 2], [1, 2]]])):
            along = lambda x, d: getattr(x, name)(dim=d, **OPTIONS[row])  # noqa: E731
            check(lambda x, d=dim: along(x, d), lambda x, d=dim: along(x, d), values)


def test_unique_has_the_gradient_of_the_first():
    x = Tensor([2.0, 1.0, 2.0, 3.0], requires_grad=True)
    (x.unique() * Tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [10.0, 1.0, 0.0, 100.0]


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted_equals_torch(right):
    rng = np.random.default_rng(3)
    for size in (0, 1, 2, 3, 7, 8, 9, 100):
        sequence = np.sort(rng.integers(0, 20, size)).astype("float32")
        values = np.append(rng.integers(-2, 23, 11), [0]).astype("float32").reshape(3, 4)
        want = torch.searchsorted(torch.tensor(sequence), torch.tensor(values), right=right)
        got = Tensor(sequence).searchsorted(Tensor(values), right=right)
        assert (got.tolist(), got.dtype.name) == (want.tolist(), "int64")
        side = tg.searchsorted(
            Tensor(sequence), Tensor(values), side="right" if right else "left", out_int32=True
        )
        assert (side.tolist(), side.dtype.name) == (want.tolist(), "int32")
        assert Tensor(values).bucketize(Tensor(sequence), right=right).tolist() == want.tolist()
    rows, wanted = np.sort(rng.integers(0, 9, (2, 3, 6)), -1), rng.integers(0, 9, (2, 3, 4))
    want = torch.searchsorted(torch.tensor(rows), torch.tensor(wanted), right=right)
    assert Tensor(rows).searchsorted(Tensor(wanted), right=right).tolist() == want.tolist()
    shuffled = rng.random(9).astype("float32")
    want = torch.searchsorted(
        torch.tensor(shuffled), 0.4, right=right, sorter=torch.tensor(shuffled).argsort()
    )
    assert (
        Tensor(shuffled).searchsorted(0.4, right=right, sorter=Tensor(shuffled).argsort()).item()
        == want.item()
    )
    assert Tensor([1.0, math.nan]).searchsorted(Tensor([0.0, 1.0, 2.0]), right=right).tolist() == [
        0,
        int(right),
        1,
    ]
    nan = Tensor([1.0, 2.0]).searchsorted(Tensor([math.nan, math.inf]), right=right)
    assert nan.tolist() == [2, 2]


def test_searchsorted_takes_a_gather_for_each_bit():
    found = Tensor(np.arange(1000.0)).searchsorted(Tensor(np.arange(50.0)))
    nodes = graph.toposort([found.node])
    assert sum(node.op.name == "gather" for node in nodes) == 10
    assert max(node.shape[0] for node in nodes if node.shape and node.op.name != "buffer") == 50


def test_searchsorted_in_a_symbolic_size_evaluates():
    n = Variable("n", 1, 8).bind(3)
    sequence = Tensor([1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0])[:n]
    assert sequence.searchsorted(Tensor([0.0, 3.0, 20.0])).tolist() == [0, 1, 3]
    assert sequence.topk(1).values.tolist() == [5.0]


def test_isin_equals_torch():
    for tests in (np.array([1, 3]), np.array([[3], [9]]), np.zeros(0, "int64")):
        for invert in (False, True):
            call = lambda x, t: (tg if isinstance(x, Tensor) else torch).isin(x, t, invert=invert)  # noqa: E731
            check(call, call, REPEATED, tests)
    assert Tensor([1.0, math.nan]).isin(Tensor([math.nan, 1.0])).tolist() == [True, False]
    assert Tensor([1, 2]).isin(2).tolist() == [False, True]


def test_bincount_equals_torch():
    for values in (np.array([1, 2, 1, 5]), np.zeros(0, "int64")):
        for size in (0, 4, 9):
            call = lambda x: x.bincount(minlength=size)  # noqa: E731
            check(call, call, values)
    weighted = lambda x, w: x.bincount(w)  # noqa: E731
    check(weighted, weighted, np.array([1, 2, 1, 5]), np.array([1, 2, 3, 4]))
    got = Tensor([1, 2, 1]).bincount(Tensor([0.5, 1.0, 2.0]))
    assert (got.tolist(), got.dtype.name) == ([0.0, 2.5, 1.0], "float32")


def test_histc_equals_torch():
    for options in (
        {"bins": 4},
        {"bins": 5, "min": -1, "max": 1},
        {"bins": 3, "min": 0, "max": 2},
        {"min": 1, "max": 1},
    ):
        call = lambda x: x.histc(**options)  # noqa: E731
        check(call, call, A, grad=False)
    check(lambda x: x.histc(4), lambda x: x.histc(4), np.full(3, 2.0), grad=False)
    check(lambda x: x.histc(4), lambda x: x.histc(4), np.zeros(0), grad=False)


ERRORS = [
    (lambda x: x.sort(3), ShapeError, "sort: got dim 3"),
    (lambda x: x.topk(6), ShapeError, "topk: got k 6, want 0 to 5"),
    (lambda x: x.kthvalue(0), ShapeError, "kthvalue: got k 0, want 1 to 5"),
    (lambda x: x.searchsorted(Tensor([1.0])), ShapeError, "leading dimensions"),
    (lambda x: x[0, 0].searchsorted(1.0, side="up"), TgError, "'left' or 'right'"),
    (lambda x: x.bucketize(x), ShapeError, "want a vector"),
    (lambda x: x[0, 0].bincount(), ShapeError, "vector of integers"),
    (lambda x: Tensor([-1, 2]).bincount(), ShapeError, "negative"),
    (lambda x: Tensor([1, 2]).histc(), DTypeError, "float dtype"),
]


@pytest.mark.parametrize("row", range(len(ERRORS)))
def test_sort_that_cannot_be_done_says_why(row):
    call, kind, words = ERRORS[row]
    with pytest.raises(kind, match=words):
        call(Tensor(A))
