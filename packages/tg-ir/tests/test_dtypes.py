"""Dtypes against exact rational arithmetic written from the formats' definitions."""

from __future__ import annotations

import copy
import math
import os
import pickle
import random
import struct
import subprocess
import sys
from fractions import Fraction

import pytest

from tg_ir import dtypes
from tg_ir.dtypes import (
    DTYPES,
    DType,
    bfloat16,
    bool_,
    constant,
    dtype_of,
    float8_e4m3fn,
    float8_e4m3fnuz,
    float8_e5m2,
    float8_e5m2fnuz,
    float16,
    float32,
    float64,
    from_bits,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    result_type,
    to_bits,
    uint8,
    uint16,
    uint32,
    uint64,
)
from tg_ir.errors import DTypeError

FLOATS = [dtype for dtype in DTYPES if dtype.is_float]
FLOAT8 = [dtype for dtype in FLOATS if dtype.bits == 8]
SMALL_FLOATS = [dtype for dtype in FLOATS if dtype.bits <= 16]
INTEGERS = [dtype for dtype in DTYPES if dtype.is_int]


def same(a: float, b: float) -> bool:
    """Equal, telling -0 from 0 and taking NaN for NaN."""
    return (a != a and b != b) or (a == b and math.copysign(1, a) == math.copysign(1, b))


def definition(bits: int, exponent_bits: int, mantissa_bits: int, bias: int) -> Fraction:
    """The finite value of a float's bits, by the formula of every standard."""
    sign = -1 if bits >> (exponent_bits + mantissa_bits) else 1
    exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fraction = Fraction(bits & ((1 << mantissa_bits) - 1), 1 << mantissa_bits)
    if exponent == 0:
        return sign * fraction * Fraction(2) ** (1 - bias)
    return sign * (1 + fraction) * Fraction(2) ** (exponent - bias)


@pytest.mark.parametrize(
    ("dtype", "exponent_bits", "mantissa_bits", "bias", "infinity", "nans"),
    [
        (float8_e4m3fn, 4, 3, 7, None, {0x7F, 0xFF}),
        (float8_e5m2, 5, 2, 15, 0x7C, {0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}),
        (float8_e4m3fnuz, 4, 3, 8, None, {0x80}),
        (float8_e5m2fnuz, 5, 2, 16, None, {0x80}),
    ],
)
def test_from_bits_every_float8_follows_the_format(dtype, exponent_bits, mantissa_bits, bias, infinity, nans):
    for bits in range(256):
        value = from_bits(bits, dtype)
        if bits in nans:
            assert math.isnan(value)
        elif bits & 0x7F == infinity:
            assert value == (-math.inf if bits & 0x80 else math.inf)
        else:
            want = float(definition(bits, exponent_bits, mantissa_bits, bias))
            assert same(value, -0.0 if bits == 0x80 else want)


@pytest.mark.parametrize(
    ("dtype", "unpack"),
    [
        (float16, lambda bits: struct.unpack("<e", struct.pack("<H", bits))[0]),
        (bfloat16, lambda bits: struct.unpack("<f", struct.pack("<I", bits << 16))[0]),
    ],
)
def test_from_bits_every_16_bit_float_equals_struct(dtype, unpack):
    for bits in range(1 << 16):
        assert same(from_bits(bits, dtype), unpack(bits)), hex(bits)


@pytest.mark.parametrize(("dtype", "formats"), [(float32, "<f<I"), (float64, "<d<Q")])
def test_bits_of_wide_floats_equal_struct(dtype, formats):
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(2000):
        bits = rng.getrandbits(dtype.bits)
        (value,) = struct.unpack(formats[:2], struct.pack(formats[2:], bits))
        assert same(from_bits(bits, dtype), value)
        assert to_bits(value, dtype) == (bits if value == value else dtype.nan_bits)
    for _ in range(2000):
        value = rng.uniform(-4, 4) * 2.0 ** rng.randint(-160, 126)
        (want,) = struct.unpack(formats[2:], struct.pack(formats[:2], value))
        assert to_bits(value, dtype) == want


@pytest.mark.parametrize("dtype", SMALL_FLOATS, ids=repr)
def test_to_bits_of_every_value_returns_its_bits(dtype):
    for bits in range(1 << dtype.bits):
        value = from_bits(bits, dtype)
        if math.isnan(value):
            assert to_bits(value, dtype) == dtype.nan_bits
        elif math.isinf(value) or value == value:
            assert to_bits(value, dtype) == bits


@pytest.mark.parametrize("dtype", SMALL_FLOATS, ids=repr)
def test_to_bits_between_neighbours_rounds_to_nearest_even(dtype):
    sign_bit = 1 << (dtype.bits - 1)
    for code in range(dtype.max_code):
        low, high = from_bits(code, dtype), from_bits(code + 1, dtype)
        tie = float((Fraction(low) + Fraction(high)) / 2)  # exact in float32, as are its neighbours
        step = (high - low) / 8
        even = code + (code & 1)
        for value, want in ((tie, even), (tie - step, code), (tie + step, code + 1)):
            assert to_bits(value, dtype) == want, (code, value)
            if want or dtype.has_negative_zero:
                assert to_bits(-value, dtype) == want | sign_bit
            else:
                assert to_bits(-value, dtype) == 0


@pytest.mark.parametrize(
    ("dtype", "last_that_rounds_down", "overflow"),
    [
        (float8_e4m3fn, 1e30, 448.0),
        (float8_e5m2, math.nextafter(61440.0 * (1 - 2**-20), 0), math.inf),
        (float8_e4m3fnuz, 248.0 * (1 - 2**-20), math.nan),
        (float8_e5m2fnuz, 61440.0 * (1 - 2**-20), math.nan),
        (float16, 65520.0 * (1 - 2**-20), math.inf),
        (bfloat16, 2.0**128 * (1 - 2**-9 - 2**-20), math.inf),
        (float32, math.nextafter(2.0**128 * (1 - 2**-25), 0), math.inf),
    ],
)
def test_to_bits_beyond_the_limits_overflows_as_the_format_does(dtype, last_that_rounds_down, overflow):
    assert constant(last_that_rounds_down, dtype) == dtype.max
    assert constant(-last_that_rounds_down, dtype) == dtype.min
    for value in (2.0**129, 10**400, math.inf, 1e300):
        assert same(constant(value, dtype), overflow)
        assert constant(-value, dtype) == -overflow or math.isnan(overflow)
    assert math.isnan(constant(math.nan, dtype))


def test_to_bits_narrow_float_goes_through_float32():
    just_above_a_tie = 1 + 2**-8 + 2**-40
    assert constant(just_above_a_tie, bfloat16) == 1.0
    assert constant(1 + 2**-8 + 2**-20, bfloat16) == 1 + 2**-7
    assert constant(2**24 + 1, float32) == 2**24
    assert (
        constant(2**60 + 2**36 + 1, float32) == 2.0**60 + 2.0**37
    )  # an int rounds once, not through a double


@pytest.mark.parametrize("dtype", INTEGERS, ids=repr)
def test_to_bits_integer_from_int_wraps(dtype):
    for value in (0, 1, -1, 300, -300, dtype.min, dtype.max, dtype.min - 1, dtype.max + 1, 10**30, -(10**30)):
        assert (constant(value, dtype) - value) % 2**dtype.bits == 0
        assert dtype.min <= constant(value, dtype) <= dtype.max
        assert from_bits(to_bits(value, dtype), dtype) == constant(value, dtype)
    assert constant(True, dtype) == 1
    assert type(constant(True, dtype)) is int


@pytest.mark.parametrize("dtype", INTEGERS, ids=repr)
def test_to_bits_integer_from_float_truncates_and_saturates(dtype):
    assert constant(3.99, dtype) == 3
    assert constant(-0.99, dtype) == 0
    assert constant(-3.99, dtype) == (-3 if dtype.is_signed else 0)
    assert constant(math.nan, dtype) == 0
    for huge in (1e30, math.inf, float(dtype.max) + 2.0 * float(dtype.max)):
        assert constant(huge, dtype) == dtype.max
        assert constant(-huge, dtype) == dtype.min


def test_constant_has_the_python_type_of_its_kind():
    assert constant(2.0, bool_) is True
    assert constant(math.nan, bool_) is True
    assert constant(-0.0, bool_) is False
    for dtype in FLOATS:
        assert same(constant(0, dtype), 0.0)
    assert type(constant(True, float16)) is float
    assert type(constant(7.0, int64)) is int
    assert same(constant(-0.0, float32), -0.0)
    assert same(constant(-0.0, float8_e4m3fnuz), 0.0)


def test_to_bits_not_a_number_raises():
    with pytest.raises(DTypeError, match=r"float32: got a str, want"):
        to_bits("1", float32)
    with pytest.raises(DTypeError, match="complex"):
        constant(1j, float32)


@pytest.mark.parametrize(
    ("dtype", "greatest", "eps", "tiny", "smallest"),
    [
        (float8_e4m3fn, 448.0, 2.0**-3, 2.0**-6, 2.0**-9),
        (float8_e4m3fnuz, 240.0, 2.0**-3, 2.0**-7, 2.0**-10),
        (float8_e5m2, 57344.0, 2.0**-2, 2.0**-14, 2.0**-16),
        (float8_e5m2fnuz, 57344.0, 2.0**-2, 2.0**-15, 2.0**-17),
        (float16, 65504.0, 2.0**-10, 2.0**-14, 2.0**-24),
        (bfloat16, (2 - 2.0**-7) * 2.0**127, 2.0**-7, 2.0**-126, 2.0**-133),
        (float32, (2 - 2.0**-23) * 2.0**127, 2.0**-23, 2.0**-126, 2.0**-149),
        (float64, sys.float_info.max, sys.float_info.epsilon, sys.float_info.min, 5e-324),
    ],
)
def test_limits_of_floats_are_those_of_the_standards(dtype, greatest, eps, tiny, smallest):
    assert (dtype.max, dtype.min) == (greatest, -greatest)
    assert (dtype.eps, dtype.tiny, dtype.smallest_subnormal) == (eps, tiny, smallest)
    assert dtype.highest == (math.inf if dtype.has_inf else greatest)
    assert dtype.lowest == -dtype.highest
    assert math.isinf(from_bits(dtype.max_code + 1, dtype)) == dtype.has_inf
    assert not math.isfinite(from_bits(dtype.max_code + 1, dtype))


def test_limits_of_integers_are_those_of_their_width():
    assert (int8.min, int8.max, uint8.min, uint8.max) == (-128, 127, 0, 255)
    assert (int64.min, int64.max, uint64.max) == (-(2**63), 2**63 - 1, 2**64 - 1)
    assert (bool_.min, bool_.max, bool_.itemsize) == (False, True, 1)
    assert (int16.lowest, int16.highest) == (int16.min, int16.max)
    with pytest.raises(DTypeError, match="eps: got int32, want a float dtype"):
        int32.eps  # noqa: B018


def test_dtype_kinds_are_disjoint():
    assert [d.name for d in DTYPES if not (d.is_float or d.is_int)] == ["bool"]
    assert not any(d.is_float and d.is_int for d in DTYPES)
    assert [d for d in DTYPES if not d.is_signed] == [bool_, uint8, uint16, uint32, uint64]


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_dtype_copied_or_pickled_is_the_same_object(dtype):
    assert copy.copy(dtype) is dtype
    assert copy.deepcopy([dtype])[0] is dtype
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(dtype, protocol)) is dtype


def test_dtype_assigned_or_deleted_raises():
    with pytest.raises(AttributeError, match="float32: a dtype's bits cannot be changed"):
        float32.bits = 16
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del float32.bits
    with pytest.raises(AttributeError):
        float32.extra = 1
    assert repr(float32) == f"{float32}" == "float32"


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_dtype_of_its_names_is_itself(dtype):
    assert dtype_of(dtype) is dtype_of(dtype.name) is dtype_of(f"torch.{dtype.name}") is dtype
    assert isinstance(getattr(dtypes, dtype.name), DType)


def test_dtype_of_aliases_and_python_types_are_pytorchs():
    assert [dtypes.half, dtypes.float, dtypes.double] == [float16, float32, float64]
    assert [dtypes.short, dtypes.int, dtypes.long, dtypes.bool] == [int16, int32, int64, bool_]
    assert [dtype_of(t) for t in (bool, int, float)] == [bool_, int64, float32]
    assert dtype_of("torch.half") is float16
    with pytest.raises(AttributeError, match="no attribute 'float128'"):
        dtypes.float128  # noqa: B018


@pytest.mark.parametrize(
    "x", ["float128", "f32", "", None, 3, str, object(), ["float32"], type("float32", (), {})]
)
def test_dtype_of_something_else_raises(x):
    with pytest.raises(DTypeError, match=r"dtype: got .*, want one of bool, uint8, .*, float64"):
        dtype_of(x)


@pytest.mark.parametrize("x", [complex, "complex64", "torch.complex128"])
def test_dtype_of_complex_says_it_is_unsupported(x):
    with pytest.raises(DTypeError, match="complex numbers are not supported"):
        dtype_of(x)


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (bool_, bool_, bool_),
        (bool_, uint8, uint8),
        (uint8, int8, int16),
        (uint8, int64, int64),
        (int8, int32, int32),
        (int64, float16, float16),
        (float16, bfloat16, float32),
        (bfloat16, float32, float32),
        (float32, float64, float64),
        (uint16, uint32, uint32),
        (uint16, int16, int32),
        (uint32, int8, int64),
        (bool_, uint64, uint64),
        (float8_e5m2, float8_e5m2, float8_e5m2),
    ],
)
def test_promote_types_of_a_pair_is_symmetric_and_as_pytorch(a, b, want):
    assert promote_types(a, b) is promote_types(b, a) is want


def test_promote_types_holds_both_or_is_a_float():
    for a in DTYPES:
        for b in DTYPES:
            try:
                meeting = promote_types(a, b)
            except DTypeError:
                assert a in FLOAT8 or b in FLOAT8 or uint64 in (a, b)
                continue
            assert meeting.is_float or (meeting.min <= min(a.min, b.min) and meeting.max >= max(a.max, b.max))


def test_promote_types_without_a_meeting_says_to_cast():
    with pytest.raises(DTypeError, match=r"float8_e5m2 and float32 do not mix.*cast"):
        promote_types(float8_e5m2, float32)
    with pytest.raises(DTypeError, match="no integer dtype holds both int8 and uint64; cast"):
        promote_types(int8, uint64)


@pytest.mark.parametrize(
    ("operands", "want"),
    [
        ([(float16, "dim"), (float32, "python")], float16),
        ([(float16, "dim"), (float64, "zero_dim")], float16),
        ([(int8, "dim"), (int64, "python")], int8),
        ([(int8, "dim"), (float32, "python")], float32),
        ([(int8, "dim"), (float16, "zero_dim"), (float32, "python")], float16),
        ([(bool_, "dim"), (int64, "python")], int64),
        ([(int32, "zero_dim"), (int64, "python")], int32),
        ([(uint8, "dim"), (int8, "dim"), (int64, "zero_dim")], int16),
        ([(float64, "python")], float32),
        ([(bool_, "python"), (bool_, "dim")], bool_),
        ([(float8_e5m2, "dim"), (float32, "python")], float8_e5m2),
    ],
)
def test_result_type_weighs_categories_as_pytorch(operands, want):
    assert result_type(*operands) is want
    assert result_type(*reversed(operands)) is want


def test_result_type_of_nothing_raises():
    with pytest.raises(DTypeError, match="got no operands"):
        result_type()


def test_import_of_dtypes_pulls_in_nothing_heavy():
    code = (
        "import sys, tg_ir.dtypes, tg_ir.numpy_dtypes; print('numpy' in sys.modules, 'typing' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
                            capture_output=True, text=True, check=True)  # fmt: skip
    assert result.stdout.split() == ["False", "False"]
