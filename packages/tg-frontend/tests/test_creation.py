"""Creation of tensors against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.symbolic import Variable

DTYPES = [None, "bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def torch_type(dtype: str | None) -> dict:
    return {} if dtype is None else {"dtype": getattr(torch, dtype)}


def assert_same(got: Tensor, want: torch.Tensor, tolerance: float = 0) -> None:
    assert f"torch.{got.dtype}" == str(want.dtype)
    assert got.shape == tuple(want.shape)
    want = want.double() if want.dtype == torch.bfloat16 else want
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)], ids=str)
def test_constants_are_pytorchs(shape, dtype):
    assert_same(
        tg.zeros(*shape, dtype=dtype),
        torch.zeros(*shape, **torch_type(dtype)) if shape else torch.zeros((), **torch_type(dtype)),
    )
    assert_same(Tensor.ones(shape, dtype=dtype), torch.ones(shape, **torch_type(dtype)))
    assert_same(tg.full(shape, 1, dtype=dtype), torch.full(shape, 1, **torch_type(dtype)))
    assert tg.empty(*shape, dtype=dtype).shape == shape


@pytest.mark.parametrize("value", [True, 3, -2.5, float("inf")])
def test_full_takes_the_dtype_of_its_value(value):
    assert_same(tg.full((2, 2), value), torch.full((2, 2), value))
    assert_same(tg.full((2,), Tensor(7, "int32")), torch.full((2,), 7, dtype=torch.int32))


def test_likes_and_news_keep_dtype_and_shape():
    ours, theirs = Tensor([[1, 2]], dtype="int16"), torch.tensor([[1, 2]], dtype=torch.int16)
    for name in ("zeros_like", "ones_like"):
        assert_same(getattr(tg, name)(ours), getattr(torch, name)(theirs))
        assert_same(
            getattr(tg, name)(ours, dtype="float32"), getattr(torch, name)(theirs, dtype=torch.float32)
        )
    assert_same(tg.full_like(ours, 5), torch.full_like(theirs, 5))
    assert_same(ours.new_zeros(2, 2), theirs.new_zeros(2, 2))
    assert_same(ours.new_ones((3,), dtype="bool"), theirs.new_ones((3,), dtype=torch.bool))
    assert_same(ours.new_full((2,), 9), theirs.new_full((2,), 9))
    assert_same(ours.new_tensor([1, 2]), theirs.new_tensor([1, 2]))


def test_created_tensor_that_requires_a_gradient_is_a_leaf_of_its_own():
    a, b = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    (a * b * a).backward(tg.ones(2))
    assert a.is_leaf and a.grad.tolist() == [2.0, 2.0] and b.grad.tolist() == [1.0, 1.0]


RANGES = [
    (5,),
    (0,),
    (2, 7),
    (2, 8, 3),
    (7, 2, -2),
    (2.5,),
    (0, 1, 0.1),
    (1, 0, -0.25),
    (-1.5, 3, 0.3),
    (3, 3),
    (5, 0, -1),
]


@pytest.mark.parametrize("limits", RANGES, ids=str)
@pytest.mark.parametrize("dtype", [None, "int32", "float16", "float32", "float64"])
def test_arange_is_pytorchs(limits, dtype):
    if dtype == "int32":  # of fractions PyTorch truncates the limits first, which nobody wants
        limits = [int(number) if int(number) == number else int(number * 4) or 1 for number in limits]
    tolerance = 1e-3 if dtype == "float16" else 1e-6
    assert_same(tg.arange(*limits, dtype=dtype), torch.arange(*limits, **torch_type(dtype)), tolerance)


@pytest.mark.parametrize(
    ("start", "end", "steps"), [(0, 1, 5), (-3.5, 2, 7), (1, 1, 3), (0, 1, 1), (0, 1, 0), (5, -5, 4)]
)
@pytest.mark.parametrize("dtype", [None, "float64", "float16"])
def test_linspace_and_logspace_are_pytorchs(start, end, steps, dtype):
    tolerance = 2e-3 if dtype == "float16" else 1e-6
    assert_same(
        tg.linspace(start, end, steps, dtype=dtype),
        torch.linspace(start, end, steps, **torch_type(dtype)),
        tolerance,
    )
    if dtype != "float16":
        kind = torch_type(dtype)
        assert_same(
            tg.logspace(start / 2, end / 2, steps, dtype=dtype),
            torch.logspace(start / 2, end / 2, steps, **kind),
            1e-5,
        )
        assert_same(
            tg.logspace(start, end, steps, 2, dtype=dtype), torch.logspace(start, end, steps, 2, **kind), 1e-5
        )


def test_linspace_is_exact_at_both_ends():
    values = tg.linspace(0.1, 0.7, 1001).tolist()
    assert (values[0], values[-1]) == (np.float32(0.1), np.float32(0.7))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (4, 2), (0, 3), (1, 1)], ids=str)
def test_eye_is_pytorchs(shape):
    assert_same(tg.eye(*shape), torch.eye(*shape))
    assert_same(tg.eye(*shape, dtype="int64"), torch.eye(*shape, dtype=torch.int64))


@pytest.mark.parametrize("indexing", ["ij", "xy"])
@pytest.mark.parametrize("sizes", [(3,), (3, 2), (2, 3, 4)], ids=str)
def test_meshgrid_is_pytorchs(sizes, indexing):
    vectors = [np.arange(size) * 1.5 for size in sizes]
    ours = tg.meshgrid(*[Tensor(vector) for vector in vectors], indexing=indexing)
    for got, want in zip(
        ours, torch.meshgrid(*[torch.tensor(v) for v in vectors], indexing=indexing), strict=True
    ):
        assert_same(got, want)


def test_one_hot_is_pytorchs():
    for data in ([0, 2, 1], [[1, 1], [0, 3]], 2):
        assert_same(Tensor(data).one_hot(), F.one_hot(torch.tensor(data)))
        assert_same(Tensor(data).one_hot(5), F.one_hot(torch.tensor(data), 5))
        assert_same(tg.one_hot(Tensor(data), num_classes=5), F.one_hot(torch.tensor(data), 5))
    assert tg.zeros(0, dtype="int64").one_hot(3).shape == (0, 3)


def test_symbolic_sizes_stay_symbolic():
    n = Variable("n", 1, 10)
    assert tg.zeros(n, 3).shape == (n, 3)
    assert tg.ones((2, n)).shape == (2, n)
    assert tg.arange(n).shape == (n,)
    assert tg.eye(n).shape == (n, n)
    assert tg.arange(2, n + 2).shape == (n,)


ERRORS = [
    (lambda: tg.arange(0, 5, 0), TgError, "arange: got step 0"),
    (lambda: tg.arange(5, 0), ShapeError, "goes the wrong way"),
    (lambda: tg.zeros(-1), ShapeError, r"zeros: got size -1 in \(-1,\)"),
    (lambda: tg.full((2,), tg.ones(2)), ShapeError, r"full: the value has shape \(2,\), want a scalar"),
    (lambda: tg.meshgrid(tg.ones(2, 2)), ShapeError, "meshgrid: got shape"),
    (lambda: tg.meshgrid(tg.ones(2), indexing="yx"), TgError, "meshgrid: got indexing 'yx'"),
    (lambda: tg.ones(2).one_hot(3), DTypeError, "one_hot: got float32"),
    (lambda: tg.zeros(0, dtype="int64").one_hot(), ShapeError, "one_hot: cannot tell"),
    (lambda: tg.linspace(0, 1, -1), ShapeError, "linspace: got -1 steps"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_creation_with_a_wrong_argument_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_conversion_methods_have_pytorchs_names_and_dtypes() -> None:
    from tg_frontend.methods import CASTS

    for name in CASTS:
        assert str(getattr(torch.ones(2), name)().dtype) == f"torch.{getattr(Tensor.ones(2), name)().dtype}"
