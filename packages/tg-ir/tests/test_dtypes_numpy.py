"""The vectorised conversions against the scalar ones, which have their own tests, and NumPy's float16."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from tg_ir.dtypes import (
    DTYPES,
    bfloat16,
    bool_,
    dtype_of,
    float16,
    float32,
    float64,
    from_bits,
    int8,
    to_bits,
)
from tg_ir.errors import DTypeError
from tg_ir.numpy_dtypes import cast, compute_dtype, decode, encode, numpy_dtype, round_to, to_storage

FLOATS = [dtype for dtype in DTYPES if dtype.is_float]
BIT_FLOATS = [dtype for dtype in FLOATS if dtype.bits == 8 or dtype is bfloat16]


@pytest.fixture
def rng():
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def awkward_floats(rng, count: int) -> np.ndarray:
    """float64 of all magnitudes, with the values at which conversions go wrong."""
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e39, -1e39, 5e-324, 1e-46]
    for dtype in DTYPES:
        for limit in (float(dtype.min), float(dtype.max)):
            special += [
                limit,
                limit - 1,
                limit + 1,
                limit - 0.5,
                limit + 0.5,
                np.nextafter(limit, 0),
                limit * 1.03,
            ]
    random = rng.uniform(-2, 2, count) * 2.0 ** rng.integers(-150, 128, count)
    small = rng.uniform(-600, 600, count)
    return np.concatenate([special, random, small, np.round(small), np.round(small * 8) / 8])


def values_of(dtype, rng) -> np.ndarray:
    """A compute array of `dtype`: every value of it where there are few, else awkward ones."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.bits <= 16:
        bits = np.arange(1 << dtype.bits, dtype=f"uint{dtype.bits}")
        return decode(bits.view(numpy_dtype(dtype)), dtype)
    if dtype.is_float:
        with np.errstate(over="ignore"):
            return awkward_floats(rng, 1000).astype(compute_dtype(dtype))
    edges = [dtype.min, dtype.max, dtype.max // 3, 0, 1, dtype.max - 1, 2**24 + 1, 2**25 + 3, 2**31 - 1]
    random = rng.integers(dtype.min, dtype.max, 1000, dtype=dtype.name, endpoint=True)
    shifted = random >> rng.integers(0, dtype.bits, 1000).astype(dtype.name)
    return np.concatenate([np.array(edges, dtype=dtype.name), random, shifted])


def bits_of(array: np.ndarray, dtype) -> list[int]:
    """The bits of a compute array, NaN made canonical."""
    bits = encode(array, dtype).view(f"uint{dtype.bits}").tolist()
    if not dtype.is_float:
        return bits
    return [dtype.nan_bits if nan else code for code, nan in zip(bits, np.isnan(array).tolist(), strict=True)]


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_numpy_dtype_has_the_size_of_the_dtype(dtype):
    assert numpy_dtype(dtype).itemsize == dtype.itemsize
    assert compute_dtype(dtype) == ("float32" if dtype in BIT_FLOATS else numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", BIT_FLOATS, ids=repr)
def test_decode_every_pattern_equals_from_bits(dtype):
    bits = np.arange(1 << dtype.bits, dtype=numpy_dtype(dtype))
    want = np.array([from_bits(b, dtype) for b in bits.tolist()], dtype=np.float32)
    got = decode(bits, dtype)
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


@pytest.mark.parametrize("dtype", BIT_FLOATS, ids=repr)
def test_encode_every_value_returns_its_bits(dtype):
    bits = np.arange(1 << dtype.bits, dtype=numpy_dtype(dtype))
    values = decode(bits, dtype)
    np.testing.assert_array_equal(encode(values, dtype), np.where(np.isnan(values), dtype.nan_bits, bits))


@pytest.mark.parametrize("dtype", BIT_FLOATS, ids=repr)
def test_encode_ties_and_neighbours_round_to_nearest_even(dtype):
    codes = np.arange(dtype.max_code, dtype=np.uint32)
    storage = numpy_dtype(dtype)
    low, high = (decode((codes + i).astype(storage), dtype) for i in (0, 1))
    tie = low + (high - low) / np.float32(2)
    sign = 1 << (dtype.bits - 1)
    for values, want in (
        (tie, codes + (codes & 1)),
        (np.nextafter(tie, np.float32(0)), codes),
        (np.nextafter(tie, np.float32(np.inf)), codes + 1),
    ):
        np.testing.assert_array_equal(encode(values, dtype), want)
        negative = np.where((want != 0) | dtype.has_negative_zero, want | sign, want)
        np.testing.assert_array_equal(encode(-values, dtype), negative)


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_encode_awkward_values_equals_to_bits(dtype, rng):
    values = awkward_floats(rng, 1000)
    rounded = round_to(values, dtype)
    assert rounded.dtype == compute_dtype(dtype)
    assert bits_of(rounded, dtype) == [to_bits(v, dtype) for v in values.tolist()]


@pytest.mark.parametrize("target", DTYPES, ids=repr)
@pytest.mark.parametrize("source", DTYPES, ids=repr)
def test_cast_between_any_two_equals_the_scalar_conversion(source, target, rng):
    values = values_of(source, rng)
    if values.size > 4096:  # the scalar side is slow: the limits, and a sample
        values = np.concatenate([values[:64], values[-64:], rng.choice(values, 2000), values[32700:32840]])
    before = values.copy()
    got = cast(values, source, target)
    assert got.dtype == compute_dtype(target)
    want = [to_bits(v, target) for v in values.tolist()]
    if source is target and source.is_float:
        want = [target.nan_bits if v != v else w for v, w in zip(values.tolist(), want, strict=True)]
    assert bits_of(got, target) == want
    np.testing.assert_array_equal(values, before)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("target", DTYPES, ids=repr)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3, 5), (1, 1)])
def test_cast_keeps_any_shape_and_layout_without_warnings(target, shape):
    array = np.full(shape[::-1], np.nan, dtype=np.float64).T
    assert array.shape == shape
    got = cast(array, float64, target)
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == (shape, compute_dtype(target))
    again = decode(encode(got, target), target)
    assert isinstance(again, np.ndarray)
    assert (again.shape, again.dtype) == (shape, compute_dtype(target))


def test_cast_of_a_broadcast_array_reads_its_strides():
    array = np.broadcast_to(np.array([1.03, -300.7], dtype=np.float32), (3, 2))
    assert cast(array, float32, bfloat16).tolist() == [[1.03125, -300.0]] * 3
    assert cast(array[:, ::-1], float32, int8).tolist() == [[-128, 1]] * 3


def test_round_to_float16_equals_numpy(rng):
    values = rng.standard_normal(10000).astype(np.float32) * np.float32(2) ** rng.integers(-26, 15, 10000)
    np.testing.assert_array_equal(round_to(values, float16), values.astype(np.float16))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in BIT_FLOATS], ids=repr)
def test_dtype_of_numpy_dtypes_and_scalar_types_is_the_same(dtype):
    numpy = np.dtype(dtype.name)
    assert dtype_of(numpy) is dtype_of(numpy.type) is dtype
    assert dtype_of(numpy.newbyteorder(">")) is dtype
    if dtype.bits > 8:
        swapped, found = to_storage(np.array([1, 2]).astype(numpy.newbyteorder(">")))
        assert (found, swapped.dtype, swapped.tolist()) == (dtype, numpy, [1, 2])


def test_dtype_of_c_named_numpy_types_goes_by_their_width():
    for name in (
        "byte",
        "ubyte",
        "intc",
        "uintc",
        "longlong",
        "ulonglong",
        "int_",
        "half",
        "single",
        "double",
    ):
        numpy = np.dtype(getattr(np, name))
        assert (
            dtype_of(getattr(np, name))
            is dtype_of(numpy)
            is dtype_of(np.dtype(f"{numpy.kind}{numpy.itemsize}"))
        )


@pytest.mark.parametrize(
    "x", [np.complex64, np.dtype("complex128"), np.dtype("U4"), np.dtype("datetime64[s]"), np.add]
)
def test_dtype_of_other_numpy_types_raises(x):
    with pytest.raises(DTypeError, match="dtype: got"):
        dtype_of(x)


def test_to_storage_shares_memory():
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    storage, dtype = to_storage(array)
    assert dtype.name == "int16"
    assert np.shares_memory(storage, array)
    assert storage.shape == (3, 2)


@pytest.mark.parametrize("dtype", BIT_FLOATS, ids=repr)
def test_to_storage_of_an_ml_dtypes_array_views_its_bits(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs the package ml_dtypes, whose arrays are read")
    bits = np.arange(1 << dtype.bits, dtype=numpy_dtype(dtype))
    foreign = bits.view(getattr(ml_dtypes, dtype.name))
    storage, found = to_storage(foreign)
    assert found is dtype
    assert dtype_of(foreign.dtype.type) is dtype
    assert np.shares_memory(storage, bits)
    np.testing.assert_array_equal(decode(storage, dtype), foreign.astype(np.float32))


def test_import_of_numpy_dtypes_leaves_numpy_out():
    code = f"import sys; sys.path[:] = {sys.path!r}; import tg_ir.numpy_dtypes; print('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
