"""The text of tensors is PyTorch's, but for the names of dtypes and of gradient functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tg_frontend as tg
from tg_frontend import Tensor

RANDOM = np.random.default_rng(0)
VALUES = {
    "fractions": np.array([1.5, -2.25, 3.0]),
    "whole floats": np.array([1.0, 20.0, -300.0]),
    "scientific by ratio": np.array([1e-3, 1.5, 20.0]),
    "scientific by size": np.array([1.5e9, 1e9]),
    "scientific whole": np.array([1.0, 2000.0]),
    "small": np.array([1e-5, 2e-5]),
    "just not small": np.array([1e-4, 2e-2]),
    "special": np.array([np.nan, np.inf, -np.inf, 0.0, 1.5]),
    "special only": np.array([np.nan, np.inf, -np.inf]),
    "special whole": np.array([np.nan, np.inf, -np.inf, 3.0]),
    "zeros": np.zeros(3),
    "negative zero": np.array([-0.0, 1.0, 0.5]),
    "scalar": np.array(2.5),
    "scalar whole": np.array(7.0),
    "scalar nan": np.array(np.nan),
    "integers": np.array([1, -20, 300]),
    "integer scalar": np.array(-5),
    "bools": np.array([[True, False], [False, False]]),
    "bool scalar": np.array(True),
    "matrix": RANDOM.normal(size=(3, 4)),
    "wide": RANDOM.normal(size=(2, 30)),
    "wide integers": RANDOM.integers(-1000, 1000, 60),
    "cube": RANDOM.normal(size=(2, 3, 4)),
    "four": RANDOM.integers(0, 9, (2, 2, 2, 2)),
    "thousand": np.arange(1000),
    "long vector": np.arange(1001),
    "long floats": RANDOM.normal(size=2000) * 100,
    "large matrix": RANDOM.normal(size=(100, 100)),
    "tall matrix": RANDOM.normal(size=(1000, 2)),
    "flat matrix": RANDOM.normal(size=(2, 1000)),
    "large cube": RANDOM.normal(size=(10, 20, 30)),
    "large cube of few": RANDOM.normal(size=(2, 3, 400)),
    "empty vector": np.zeros(0),
    "empty matrix": np.zeros((0, 3)),
    "empty integers": np.zeros((2, 0), np.int64),
    "empty vector of bools": np.zeros(0, bool),
}
DTYPES = [None, "float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VALUES)
def test_repr_is_pytorchs(name, dtype):
    array = VALUES[name]
    if array.dtype.kind == "f" and dtype not in (None, "float16", "bfloat16", "float32", "float64"):
        array = np.nan_to_num(array, posinf=9, neginf=-9) % 100
    array = array.astype(np.float32) if dtype is None and array.dtype.kind == "f" else array
    theirs = torch.tensor(array, dtype=None if dtype is None else getattr(torch, dtype))
    ours = Tensor(array, dtype)
    if dtype in ("int8", "uint8", "bool"):  # conversions out of range are not this test's subject
        ours = Tensor(theirs)
    expected = repr(theirs)
    # "torch." in front of a dtype may be what breaks PyTorch's line; ours has none
    if "dtype=torch." in expected and expected.splitlines()[-1].strip().startswith("dtype="):
        last = expected.splitlines()[-2]
        if len(last) + 3 + len(f"dtype={ours.dtype}") <= 80:
            expected = expected.replace(",\n       dtype=", ", dtype=")
    assert repr(ours) == expected.replace("torch.", "")


def test_repr_of_what_requires_a_gradient_says_so():
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 4.], grad_fn=<mul>)"
    assert repr((x * 2).detach()) == "tensor([2., 4.])"


def test_repr_of_another_device_names_it():
    assert (
        repr(tg.ones(2, device=f"{tg.Device.default}:1"))
        == f"tensor([1., 1.], device='{tg.Device.default}:1')"
    )


def test_format_with_a_specification_formats_the_number():
    assert f"{Tensor(2.5):.2f}" == "2.50"
    assert f"{Tensor([1, 2])}" == "tensor([1, 2])"


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"])
def test_repr_of_other_dtypes_is_pytorchs(dtype):
    theirs = torch.tensor([1.0, 2.0, 3.0]).to(getattr(torch, dtype))
    assert repr(Tensor([1.0, 2.0, 3.0], dtype)) == repr(theirs).replace("torch.", "")
