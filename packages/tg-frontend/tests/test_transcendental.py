"""Exponentials, logarithms, trigonometric and hyperbolic functions against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_reference import assert_equal, check, sample

from tg_frontend import Tensor

EVERYWHERE = [
    "exp",
    "exp2",
    "expm1",
    "sin",
    "cos",
    "atan",
    "tanh",
    "erf",
    "erfc",
    "sigmoid",
    "sinc",
    "tan",
    "asinh",
]
EVERYWHERE += ["sinh", "cosh", "deg2rad", "rad2deg", "arctan", "arcsinh"]
POSITIVE = ["log", "log2", "log10", "log1p"]
UNIT = ["asin", "acos", "atanh", "logit"]
DOMAINS = dict.fromkeys(EVERYWHERE, (-4.0, 4.0)) | dict.fromkeys(POSITIVE, (0.05, 9.0))
DOMAINS |= dict.fromkeys(UNIT, (-0.95, 0.95)) | {
    "logit": (0.05, 0.95),
    "acosh": (1.1, 9.0),
    "tan": (-1.2, 1.2),
}
BINARY = ["atan2", "logaddexp", "logaddexp2", "xlogy"]
EXTREMES = [
    -np.inf,
    -1e30,
    -100,
    -89,
    -20,
    -3.5,
    -1,
    -1e-6,
    -0.0,
    0.0,
    1e-6,
    0.5,
    1,
    1.5,
    20,
    89,
    100,
    1e30,
    np.inf,
    np.nan,
]
FLOATS = ("float16", "bfloat16", "float32", "float64")


def both(name: str, *args: object) -> tuple:
    return (lambda x, *rest: getattr(x, name)(*rest, *args),) * 2


@pytest.mark.parametrize("name", DOMAINS)
def test_function_within_its_domain_is_pytorchs(name):
    low, high = DOMAINS[name]
    tolerant = {
        "float16": 4e-3,
        "bfloat16": 3e-2,
    }  # gradients of 16-bit floats are made of several rounded steps
    twice = not name.endswith(("2deg", "2rad"))
    for dtype in FLOATS:
        x = sample(3, 5, low=low, high=high)
        check(
            *both(name),
            x,
            dtypes=(dtype,),
            tolerance=tolerant.get(dtype),
            second_order=twice and dtype == "float64",
        )
    for shape in ((), (0, 3), (7, 1)):
        check(*both(name), sample(*shape, low=low, high=high))


@pytest.mark.parametrize("name", DOMAINS)
def test_function_of_integers_and_bools_is_float32(name):
    for array in (np.array([1, 0, 1], np.int32), np.array([True, False])):
        check(*both(name), array)


@pytest.mark.parametrize("name", DOMAINS)
def test_function_at_extremes_is_relatively_as_accurate_as_float32_allows(name):
    x = np.array(EXTREMES, np.float32)
    got = getattr(Tensor(x), name)().numpy().astype(np.float64)
    want = getattr(torch.tensor(x, dtype=torch.float64), name)().numpy()
    with np.errstate(over="ignore"):
        want = np.where(np.abs(want) > np.finfo(np.float32).max, np.copysign(np.inf, want), want)
    # 1 - erf(x), and the sine of a rounded multiple of pi, are absolutely accurate only
    absolute = 1e-7 if name in ("erfc", "sinc") else 1e-37
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=absolute, equal_nan=True)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "asinh", "erf", "atan", "sinh", "cosh"])
def test_gradient_at_extremes_is_pytorchs(name):
    x = np.array([value for value in EXTREMES if abs(value) != 89], np.float32)
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    getattr(ours, name)().backward(Tensor(np.ones_like(x)))
    getattr(theirs.double(), name)().to(torch.float32).backward(torch.ones(x.shape))
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-5, atol=1e-30, equal_nan=True)


@pytest.mark.parametrize("name", BINARY)
def test_function_of_two_operands_is_pytorchs(name):
    low = 0.1 if name == "xlogy" else -2.0
    a, b = sample(3, 1, seed=1, low=low), sample(5, seed=2, low=low)
    check(*both(name), a, b, dtypes=("float32", "float64"), second_order=True)
    check(*both(name), np.zeros((0, 2)), np.ones(2))
    if not name.startswith("log"):  # PyTorch has no logaddexp of integers
        check(*both(name), np.array([1, 2]), np.array([3, 0]))
    values = np.array([-np.inf, -200.0, -1.0, -0.0, 0.0, 1.0, 200.0, np.inf, np.nan])
    check(*both(name), np.repeat(values, 9), np.tile(values, 9), grad=False)


def test_second_derivative_of_sigmoid_at_zero_is_zero():
    check(*both("sigmoid"), np.array([0.0, -0.0]), second_order=True)


def test_logit_with_eps_clamps_first():
    check(*both("logit", 1e-3), np.array([0.0, 0.3, 1.0, 0.9999]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("name", ["sigmoid", "asinh", "log10", "sinh", "exp", "tan"])
def test_function_of_a_narrow_float_rounds_the_float32_result_once(name, dtype):
    x = sample(50, low=0.1, high=3)
    rounded = torch.tensor(x).to(getattr(torch, dtype))
    exact = getattr(rounded.double(), name)()
    got = getattr(Tensor(x, dtype), name)()
    assert got.dtype.name == dtype
    assert_equal(got.numpy(), exact.float().to(getattr(torch, dtype)).float().numpy(), 0, name)
