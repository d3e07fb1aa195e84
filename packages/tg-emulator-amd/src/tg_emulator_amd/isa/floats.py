"""Floating-point arithmetic as the hardware does it, on NumPy arrays: rounding modes, exact fma, small formats.

Sums and products are first made exact as an unevaluated pair of doubles, then rounded once. Rounding a double whose
last bit is sticky ("to odd") to a format of at most 25 bits is rounding once (Boldo and Melquiond, 2008).
Source: CDNA3 and RDNA3 ISA manuals, "Floating-point support"; OCP 8-bit and microscaling formats 1.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np

__all__ = [
    "FNUZ",
    "OCP",
    "SMALL",
    "add",
    "bf16_bits",
    "bf16_value",
    "canonical",
    "decode",
    "encode",
    "flush",
    "fma",
    "fmax",
    "fmin",
    "maximum",
    "minimum",
    "mul",
    "narrow",
    "round_fraction",
    "stochastic",
    "to_int",
]

F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
_SMALLEST = {F16: F16.type(2**-14), F32: F32.type(2.0**-126), F64: F64.type(2.0**-1022)}
NEAREST, UP, DOWN, ZERO = range(4)
U64 = np.uint64


def flush(x: np.ndarray) -> np.ndarray:
    """Denormals become zeros of their sign."""
    small = np.abs(x) < _SMALLEST[x.dtype]
    return np.where(small, np.copysign(x.dtype.type(0), x), x) if small.any() else x


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded sum and its error, exactly (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded product and its error, exactly where no part over- or underflows (Veltkamp, Dekker)."""
    p = a * b
    a, b = np.asarray(a, F64), np.asarray(b, F64)
    ah, bh = a * 134217729.0, b * 134217729.0
    ah, bh = ah - (ah - a), bh - (bh - b)
    al, bl = a - ah, b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def odd(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """high + low rounded to a double whose last bit is set when anything was lost."""
    bits = np.asarray(high, F64).view(U64)
    inexact = (low != 0) & np.isfinite(low) & (bits & U64(1) == 0)
    if not inexact.any():
        return high
    toward_zero = (low < 0) != (high < 0)
    step = np.where(toward_zero, U64(0xFFFFFFFFFFFFFFFF), U64(1))
    return np.where(inexact & (high != 0), bits + step, bits).view(F64)


def narrow(high: np.ndarray, low: np.ndarray | float, dtype: np.dtype, mode: int) -> np.ndarray:
    """high + low, exactly, rounded once to a type in a mode."""
    dtype = np.dtype(dtype)
    low = np.broadcast_to(np.float64(low), np.shape(high))
    result = high if dtype == F64 else odd(high, low).astype(dtype)
    if mode == NEAREST:
        return result
    wide = result.astype(F64)
    error = np.where(wide == high, low, high - wide)  # finite results only
    error = np.where(np.isinf(wide) & np.isfinite(high), -wide, error)
    lift = {UP: error > 0, DOWN: error < 0, ZERO: (error < 0) & (wide > 0) | (error > 0) & (wide < 0)}[mode]
    away = np.where((error > 0), dtype.type(np.inf), dtype.type(-np.inf))
    return np.where(lift & np.isfinite(high), np.nextafter(result, away), result)


def add(a: np.ndarray, b: np.ndarray, mode: int = NEAREST) -> np.ndarray:
    if mode == NEAREST:
        return a + b
    result = narrow(*two_sum(a.astype(F64), b.astype(F64)), a.dtype, mode)
    return _at_limits(result, lambda x, y: x + y, a, b, mode)


def mul(a: np.ndarray, b: np.ndarray, mode: int = NEAREST) -> np.ndarray:
    if mode == NEAREST:
        return a * b
    result = narrow(*two_product(a.astype(F64), b.astype(F64)), a.dtype, mode)
    return _at_limits(result, lambda x, y: x * y, a, b, mode)


def _at_limits(result: np.ndarray, exact: Callable, a: np.ndarray, b: np.ndarray, mode: int) -> np.ndarray:
    """Doubles whose error term over- or underflowed, again with exact numbers."""
    if result.dtype != F64:
        return result
    a, b = np.broadcast_arrays(a, b)
    doubtful = np.isfinite(a) & np.isfinite(b) & (a != 0) & (b != 0)
    sizes = [np.abs(x) for x in (result, a, b)]
    doubtful &= ~np.logical_and.reduce([(size > 2.0**-960) & (size < 2.0**990) for size in sizes])
    for i in zip(*np.nonzero(doubtful), strict=True):
        result[i] = round_fraction(exact(Fraction(float(a[i])), Fraction(float(b[i]))), F64, mode)
    return result


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray, mode: int = NEAREST) -> np.ndarray:
    """a * b + c with one rounding; f16, f32 and f64."""
    a, b, c = np.asarray(a), np.asarray(b), np.asarray(c)
    dtype = a.dtype
    if dtype == F64:
        return _fma64(a, b, c, mode)
    p, c = a.astype(F64) * b, c.astype(F64)  # the product is exact
    if dtype == F32 and mode == NEAREST:
        s = p + c
        result = s.astype(F32)
        # Rounding twice differs only where the sum looks like half way, or where the result is denormal.
        doubtful = (s.view(U64) & U64(0x1FFFFFFF)) == U64(0x10000000)
        doubtful |= np.abs(s) < 2.0**-126
        if not doubtful.any():
            return result
        p, c = np.broadcast_arrays(p, c)
        result[doubtful] = narrow(*two_sum(p[doubtful], c[doubtful]), F32, mode)
        return result
    return narrow(*two_sum(p, c), dtype, mode)


def _fma64(a: np.ndarray, b: np.ndarray, c: np.ndarray, mode: int) -> np.ndarray:
    a, b, c = (x.copy() for x in np.broadcast_arrays(a, b, c))
    p, pe = two_product(a, b)
    uh, ul = two_sum(c, pe)
    th, tl = two_sum(p, uh)
    v = odd(*two_sum(tl, ul))
    result = th + v
    if mode != NEAREST:
        high, low = two_sum(th, v)
        result = narrow(high, low, F64, mode)
    plain = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c)) | (a == 0) | (b == 0)
    result = np.where(plain, a * b + c, result)
    size = np.abs(p)
    risky = ~plain & (~((size > 2.0**-900) & (size < 2.0**1000)) | (np.abs(c) > 2.0**1000))
    risky |= ~plain & ((np.abs(a) > 2.0**990) | (np.abs(b) > 2.0**990) | (c != 0) & (np.abs(c) < 2.0**-900))
    for i in zip(*np.nonzero(risky), strict=True):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        result[i] = round_fraction(exact, F64, mode)
    return result


def round_fraction(exact: Fraction, dtype: np.dtype, mode: int) -> float:
    """A number rounded once to a type in a mode."""
    if exact == 0:
        return 0.0 if mode != DOWN else -0.0
    info = np.finfo(dtype)
    size, negative = abs(exact), exact < 0
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    ulp = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    steps, rest = divmod(size, ulp)
    half = ulp / 2
    if {
        NEAREST: rest > half or (rest == half and steps % 2),
        UP: rest and not negative,
        DOWN: rest and negative,
    }.get(mode):
        steps += 1
    value = steps * ulp
    if value > Fraction(float(info.max)):
        inward = mode == ZERO or (mode == UP and negative) or (mode == DOWN and not negative)
        return math.copysign(float(info.max) if inward else math.inf, -1 if negative else 1)
    return math.copysign(float(value), -1 if negative else 1)


def canonical(x: np.ndarray) -> np.ndarray:
    """Signalling NaNs become quiet."""
    return x * x.dtype.type(1)


def fmin(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IEEE 754-2008 minNum with -0 below +0."""
    return np.where((a < b) | (a == b) & np.signbit(a) | np.isnan(b), a, b)


def fmax(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a > b) | (a == b) & ~np.signbit(a) | np.isnan(b), a, b)


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IEEE 754-2019 minimum: a NaN wins."""
    return np.where(np.isnan(a) | np.isnan(b), a + b, fmin(a, b))


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(a) | np.isnan(b), a + b, fmax(a, b))


def to_int(x: np.ndarray, dtype: type) -> np.ndarray:
    """Truncated and saturated; NaN gives 0."""
    info = np.iinfo(dtype)
    x = np.trunc(np.where(np.isnan(x), 0, x).astype(F64))
    inside = np.clip(x, info.min, float(info.max) if info.bits < 64 else 2.0**62)
    return np.where(x > info.max, info.max, inside.astype(np.int64)).astype(dtype)


def bf16_value(bits: np.ndarray) -> np.ndarray:
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(F32)


def bf16_bits(x: np.ndarray) -> np.ndarray:
    """Nearest even; NaNs stay NaNs."""
    bits = np.asarray(x, F32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)


# Name -> (bits, mantissa bits, bias, kind); kinds: i has infinities and NaNs (IEEE), n one NaN and no infinity, z only
# the NaN at minus zero (FNUZ), f finite values alone.
SMALL = {
    "fp8": (8, 3, 7, "n"), "bf8": (8, 2, 15, "i"), "fp8_fnuz": (8, 3, 8, "z"), "bf8_fnuz": (8, 2, 16, "z"),
    "fp6": (6, 3, 1, "f"), "bf6": (6, 2, 3, "f"), "fp4": (4, 1, 1, "f"),
}  # fmt: skip
OCP, FNUZ = {"fp8": "fp8", "bf8": "bf8"}, {"fp8": "fp8_fnuz", "bf8": "bf8_fnuz"}


@cache
def _values(name: str) -> np.ndarray:
    """The value of every pattern."""
    bits, mantissa_bits, bias, kind = SMALL[name]
    codes = np.arange(1 << (bits - 1))
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    value = np.ldexp(mantissa + np.where(exponent > 0, 1 << mantissa_bits, 0).astype(float),
                     np.maximum(exponent, 1) - bias - mantissa_bits)  # fmt: skip
    if kind == "i":
        top = exponent == exponent.max()
        value = np.where(top, np.where(mantissa == 0, np.inf, np.nan), value)
    elif kind == "n":
        value[-1] = np.nan
    both = np.concatenate([value, -value])
    if kind == "z":
        both[len(value)] = np.nan
    return both.astype(F32)


def decode(codes: np.ndarray, name: str) -> np.ndarray:
    return _values(name)[codes]


def encode(x: np.ndarray, name: str, saturate: bool = False) -> np.ndarray:
    """Nearest even. What is too large becomes the largest when saturating or where the format is finite."""
    bits, _, _, kind = SMALL[name]
    half = 1 << (bits - 1)
    positive = _values(name)[:half].astype(F64)
    finite = positive[np.isfinite(positive)]
    size = np.abs(np.asarray(x, F64))
    # One step beyond the largest, so that what rounds past it is seen.
    steps = np.append(finite, 2 * finite[-1] - finite[-2])
    code = np.searchsorted(steps, size)  # the first that is not below
    below = np.maximum(code - 1, 0)
    above = np.minimum(code, len(steps) - 1)
    middle = (steps[below] + steps[above]) / 2
    code = np.where((size < middle) | (size == middle) & (below % 2 == 0), below, above)
    return _finish(code, np.asarray(x), name, saturate, len(finite), half, kind)


def stochastic(x: np.ndarray, random: np.ndarray, name: str, saturate: bool = False) -> np.ndarray:
    """Rounded up with the chance that the 32 random bits give: what is cut off plus the random bits carries."""
    bits, mantissa_bits, bias, kind = SMALL[name]
    half = 1 << (bits - 1)
    finite = int(np.isfinite(_values(name)[:half]).sum())
    size = np.abs(np.asarray(x, F64))
    size = np.where(np.isfinite(size), size, 0)
    exponent = np.maximum(np.frexp(size)[1] - 1, 1 - bias)
    ulp = np.ldexp(1.0, exponent - mantissa_bits)
    steps = np.floor(size / ulp + np.asarray(random, F64) / 2.0**32)
    code = (steps + (exponent + bias - 1) * (1 << mantissa_bits)).astype(np.int64)
    return _finish(code, np.asarray(x), name, saturate, finite, half, kind)


def _finish(
    code: np.ndarray, x: np.ndarray, name: str, saturate: bool, finite: int, half: int, kind: str
) -> np.ndarray:
    """Overflow, NaN and sign of a magnitude's code."""
    nan = half if kind == "z" else half - 1
    over = (code >= finite) | np.isinf(x)
    largest = finite - 1 if saturate or kind == "f" else nan if kind in "nz" else finite
    code = np.where(over, largest, code)
    sign = np.where(np.signbit(x), half, 0)
    if kind == "z":
        sign = np.where((code == 0) | (code == nan), 0, sign)
    code = np.where(np.isnan(x), nan if kind != "f" else finite - 1, code)
    return (code | sign).astype(np.uint8)
