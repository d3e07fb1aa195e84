"""Dtypes against PyTorch: promotion of every pair, and conversion of every 16-bit pattern."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest
import torch

from tg_ir.dtypes import (
    DTYPES,
    bfloat16,
    bool_,
    constant,
    dtype_of,
    float8_e5m2fnuz,
    float16,
    float32,
    float64,
    from_bits,
    int64,
    promote_types,
    result_type,
    uint16,
    uint32,
    uint64,
)
from tg_ir.errors import DTypeError
from tg_ir.numpy_dtypes import cast, compute_dtype, decode, encode

FLOATS = [dtype for dtype in DTYPES if dtype.is_float]
BIT_FLOATS = [dtype for dtype in FLOATS if dtype.bits == 8 or dtype is bfloat16]
PYTHON_NUMBERS = {bool_: True, int64: 3, float32: 1.5}


def torch_dtype(dtype) -> torch.dtype:
    return getattr(torch, dtype.name)


def assert_same(got: np.ndarray, want: torch.Tensor) -> None:
    """Equal bit for bit, except that any NaN is any other."""
    want = want.to(torch.float64).numpy()
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])


def operand(dtype, category: str):
    if category == "python":
        return PYTHON_NUMBERS[dtype]
    return torch.zeros((2,) if category == "dim" else (), dtype=torch_dtype(dtype))


def extends_pytorch(*dtypes) -> bool:
    """Whether we have a rule of our own: a wide unsigned dtype with bool or another integer."""
    wide = {uint16, uint32, uint64} & set(dtypes)
    return bool(wide) and not any(dtype.is_float for dtype in dtypes)


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_dtype_of_torch_dtype_and_limits_agree(dtype):
    theirs = torch_dtype(dtype)
    assert dtype_of(theirs) is dtype
    assert (dtype.itemsize, dtype.is_float) == (theirs.itemsize, theirs.is_floating_point)
    if dtype.is_float:
        info = torch.finfo(theirs)
        assert (info.min, info.max, info.tiny) == (dtype.min, dtype.max, dtype.tiny)
        if dtype is float8_e5m2fnuz:  # PyTorch says 1/8, but two mantissa bits cannot tell 1.125 from 1
            assert torch.tensor(1 + info.eps).to(theirs).item() == 1.0
            assert torch.tensor(1 + dtype.eps).to(theirs).item() == 1 + dtype.eps
        else:
            assert info.eps == dtype.eps
    elif dtype is not bool_:
        info = torch.iinfo(theirs)
        assert (info.min, info.max, theirs.is_signed) == (dtype.min, dtype.max, dtype.is_signed)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_dtype_of_torch_complex_raises(dtype):
    with pytest.raises(DTypeError, match="complex numbers are not supported"):
        dtype_of(dtype)


def test_promote_types_every_pair_equals_torch():
    for a, b in itertools.product(DTYPES, repeat=2):
        try:
            want = dtype_of(torch.promote_types(torch_dtype(a), torch_dtype(b)))
        except RuntimeError:
            if not extends_pytorch(a, b):
                with pytest.raises(DTypeError):
                    promote_types(a, b)
        else:
            assert promote_types(a, b) is want, (a, b)


def test_result_type_every_pair_and_category_equals_torch():
    operands = [(d, c) for d in DTYPES for c in ("dim", "zero_dim")] + [(d, "python") for d in PYTHON_NUMBERS]
    for a, b in itertools.product(operands, repeat=2):
        try:
            want = dtype_of(torch.result_type(operand(*a), operand(*b)))
        except RuntimeError:
            if not extends_pytorch(a[0], b[0]):
                with pytest.raises(DTypeError):
                    result_type(a, b)
        else:
            assert result_type(a, b) is want, (a, b)


def test_result_type_of_three_operands_equals_torch_arithmetic():
    # addcmul takes three tensors through one type promotion; bool and float8 have no kernel.
    some = [
        d for d in DTYPES if d.name in ("uint8", "int8", "int64", "float16", "bfloat16", "float32", "float64")
    ]
    operands = [(d, c) for d in some for c in ("dim", "zero_dim")]
    for a, b, c in itertools.product(operands, repeat=3):
        if a[0].is_float or b[0].is_float or c[0].is_float:
            want = torch.addcmul(operand(*a), operand(*b), operand(*c)).dtype
            assert result_type(a, b, c) is dtype_of(want), (a, b, c)


@pytest.mark.parametrize("dtype", BIT_FLOATS, ids=repr)
def test_decode_every_pattern_equals_torch(dtype):
    bits = np.arange(1 << dtype.bits).astype(f"uint{dtype.bits}")
    want = torch.from_numpy(bits.view(f"int{dtype.bits}")).view(torch_dtype(dtype))
    assert_same(decode(bits, dtype), want)
    assert_same(np.array([from_bits(b, dtype) for b in bits.tolist()]), want)


@pytest.mark.parametrize("target", FLOATS, ids=repr)
@pytest.mark.parametrize("source", [bfloat16, float16], ids=repr)
def test_cast_every_16_bit_pattern_equals_torch(source, target):
    bits = np.arange(1 << 16).astype(np.uint16)
    theirs = torch.from_numpy(bits.view(np.int16)).view(torch_dtype(source))
    values = decode(bits.view(np.float16) if source is float16 else bits, source)
    got, want = cast(values, source, target), theirs.to(torch_dtype(target))
    assert_same(got, want)
    if target.bits == 8:  # NaN too, as there are few
        np.testing.assert_array_equal(
            encode(got, target) & 0x7F if target.has_negative_zero else encode(got, target),
            want.view(torch.uint8).numpy() & (0x7F if target.has_negative_zero else 0xFF),
        )


@pytest.mark.parametrize("target", FLOATS, ids=repr)
@pytest.mark.parametrize("source", [float32, float64, int64], ids=repr)
def test_cast_wide_values_equals_torch(source, target):
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    if source is int64:
        values = rng.integers(int64.min, int64.max, 50_000) >> rng.integers(0, 63, 50_000)
    else:
        bits = rng.integers(
            0, 2**32, 50_000, dtype=np.uint32
        )  # every exponent, infinities and NaN among them
        nearby = np.repeat(np.arange(1 << 16, dtype=np.uint32) << 16, 3)
        nearby += np.tile(np.array([0x7FFF, 0x8000, 0x8001], dtype=np.uint32), 1 << 16)
        with np.errstate(invalid="ignore"):  # signalling NaN
            values = np.concatenate([bits, nearby]).view(np.float32).astype(source.name)
        if source is float64:
            values = np.concatenate([values, values * (1 + 2.0**-40), values * 1e30])
    assert_same(cast(values, source, target), torch.from_numpy(values).to(torch_dtype(target)))


@pytest.mark.parametrize("target", [d for d in DTYPES if d.is_int], ids=repr)
@pytest.mark.parametrize("source", DTYPES, ids=repr)
def test_cast_to_integers_in_range_equals_torch(source, target):
    rng = np.random.default_rng(0)
    if source.is_float:
        limits = max(target.min, source.min), min(target.max, source.max)
        values = cast(
            np.append(rng.uniform(*map(float, limits), 5000), rng.uniform(-3, 3, 500)), float64, source
        )
        exact = values.astype(np.float64)
        # Below the limit truncation applies; beyond it PyTorch leaves the result undefined.
        values = values[(exact > target.min - 1) & (exact < target.max + 1)]
    elif source is bool_:
        values = np.array([False, True])
    else:
        values = rng.integers(source.min, source.max, 5000, dtype=source.name, endpoint=True)
    theirs = torch.from_numpy(values).to(torch_dtype(source)).to(torch_dtype(target))
    got = cast(values, source, target)
    assert got.dtype == compute_dtype(target)
    np.testing.assert_array_equal(got, theirs.numpy())


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_constant_equals_torch_tensor(dtype):
    for value in (
        0.1,
        -0.0,
        1 / 3,
        1 + 2**-8 + 2**-40,
        450.0,
        1e-5,
        -70000.0,
        2**24 + 1,
        math.inf,
        True,
        1e-40,
    ):
        want = torch.tensor(value, dtype=torch_dtype(dtype))
        assert_same(np.array([constant(value, dtype)]), want.reshape(1))
