"""The functions of the semantics tables that are more than one expression: division, scaling, medians, dot products.

Source: RDNA3 ISA manual, V_DIV_SCALE to V_DIV_FIXUP. Two of its cases contradict the algorithm they serve and are
taken as that needs them: a denominator whose reciprocal and quotient are denormal is scaled down, and V_DIV_FMAS scales
by 2**64 (2**128) up or down as the estimate's exponent says.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np

from . import floats

__all__ = [
    "div_fixup",
    "div_fmas",
    "div_scale",
    "dot2",
    "dot4_float",
    "float_med3",
    "lerp",
    "nonzero",
    "over",
    "revolve",
    "sat_pk",
    "scale",
    "trig_preop",
]

F32, F64 = np.float32, np.float64
_LIMITS = {np.dtype(F32): (64, 96, 23 - 126, 126), np.dtype(F64): (128, 768, 53 - 1022, 1022)}


def scale(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.ldexp(x, np.clip(np.asarray(n).astype(np.int32), -5000, 5000)).astype(x.dtype)


def _exponent(x: np.ndarray) -> np.ndarray:
    return np.frexp(x)[1] - 1


def div_scale(
    value: np.ndarray, denominator: np.ndarray, numerator: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    steps, far, tiny, top = _LIMITS[value.dtype]
    smallest = value.dtype.type(2.0**-top)
    value, d, n = np.broadcast_arrays(value, denominator, numerator)
    de, ne = _exponent(d), _exponent(n)
    reciprocal_small = np.isfinite(d) & (np.abs(d) > 2.0**top)
    quotient = np.abs(np.ldexp(n / np.ldexp(d, -de), np.maximum(-de, -5000)))
    quotient_small = (quotient < smallest) & np.isfinite(d) & (n != 0)
    is_d, is_n = value == d, value == n
    up, down = np.ldexp(value, steps), np.ldexp(value, -steps)
    cases = [
        ((n == 0) | (d == 0), value.dtype.type(np.nan), False),
        (np.isfinite(n) & np.isfinite(d) & (ne - de >= far), np.where(is_d, up, value), True),
        (np.abs(d) < smallest, up, False),
        (reciprocal_small & quotient_small, np.where(is_d, down, value), True),
        (reciprocal_small, down, False),
        (quotient_small, np.where(is_n, up, value), True),
        (np.isfinite(n) & (ne <= tiny), up, False),
    ]
    result = np.select([c for c, _, _ in cases], [np.broadcast_to(v, d.shape) for _, v, _ in cases], value)
    flag = np.select([c for c, _, _ in cases], [np.full(d.shape, f) for _, _, f in cases], False)
    return result.astype(value.dtype), flag


def div_fmas(a: np.ndarray, b: np.ndarray, c: np.ndarray, scaled: np.ndarray, mode: int) -> np.ndarray:
    steps = _LIMITS[c.dtype][0]
    up = np.broadcast_to(_exponent(c) > 0, np.shape(scaled))
    plain = floats.fma(a, b, c, mode)
    power = np.where(up, steps, -steps)
    moved = np.ldexp(plain, power)
    # One rounding alone: where scaling makes the result denormal, round the exact one.
    again = scaled & (np.abs(moved) < np.finfo(c.dtype).tiny) & (plain != 0) & np.isfinite(plain)
    for i in zip(*np.nonzero(again), strict=True):
        x, y, z = (Fraction(float(np.broadcast_to(part, moved.shape)[i])) for part in (a, b, c))
        moved[i] = floats.round_fraction((x * y + z) * Fraction(2) ** int(power[i]), c.dtype, mode)
    return np.where(scaled, moved, plain)


def div_fixup(quotient: np.ndarray, denominator: np.ndarray, numerator: np.ndarray) -> np.ndarray:
    t = quotient.dtype.type
    q, d, n = np.broadcast_arrays(quotient, denominator, numerator)
    sign = np.signbit(n) ^ np.signbit(d)
    infinity, zero = np.where(sign, t(-np.inf), t(np.inf)), np.where(sign, t(-0.0), t(0.0))
    size = np.where(sign, -np.abs(q), np.abs(q))
    if t is not np.float16:
        far = np.frexp(n)[1] - np.frexp(d)[1]
        limit = 150 if t is F32 else 1075
        size = np.where(far < -limit, zero, np.where(np.isnan(q), infinity, size))
    nan = t(np.nan)
    return np.select(
        [np.isnan(n), np.isnan(d), (n == 0) & (d == 0), np.isinf(n) & np.isinf(d), (d == 0) | np.isinf(n),
         np.isinf(d) | (n == 0)],
        [n, d, np.full(n.shape, nan), np.full(n.shape, nan), infinity, zero], size,
    ).astype(t)  # fmt: skip


@cache
def _two_over_pi() -> int:
    """1201 bits of 2 / pi behind the point."""
    bits = 1300

    def arctan(n: int) -> int:
        total = term = (1 << bits) // n
        k, square = 3, n * n
        while term:
            term //= -square
            total += term // k
            k += 2
        return total

    pi = 4 * (4 * arctan(5) - arctan(239))
    return (1 << (2 * bits + 1)) // pi >> (bits - 1201)


def trig_preop(x: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """53 bits of 2 / pi from where a large argument needs them."""
    x, segment = np.broadcast_arrays(x, segment)
    biased = (x.view(np.uint64) >> np.uint64(52) & np.uint64(0x7FF)).astype(np.int64)
    shift = (segment & 0x1F).astype(np.int64) * 53 + np.where(biased > 1077, biased - 1077, 0)
    out = np.empty(x.shape, F64)
    for i in np.ndindex(x.shape):
        s = int(shift[i])
        field = _two_over_pi() << s >> (1201 - 53) & ((1 << 53) - 1)
        out[i] = np.ldexp(float(field), -53 - s + (128 if biased[i] >= 1968 else 0))
    return out


def float_med3(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    low, high = floats.fmin(floats.fmin(a, b), c), floats.fmax(a, b)
    middle = floats.fmax(floats.fmin(a, b), floats.fmin(high, c))
    return floats.canonical(np.where(np.isnan(a) | np.isnan(b) | np.isnan(c), low, middle))


def revolve(function: np.ufunc, x: np.ndarray) -> np.ndarray:
    """Sine and cosine of an angle in turns."""
    wide = x.astype(F64)
    return function(2 * np.pi * (wide - np.rint(wide))).astype(x.dtype)


def dot2(a: tuple, b: tuple, c: np.ndarray) -> np.ndarray:
    exact = a[0].astype(F64) * b[0] + a[1].astype(F64) * b[1]
    return (exact + c.astype(F64)).astype(F32)


def dot4_float(a: np.ndarray, b: np.ndarray, c: np.ndarray, a_format: str, b_format: str) -> np.ndarray:
    total = c.astype(F64)
    for shift in (0, 8, 16, 24):
        x, y = floats.decode(a >> shift & 0xFF, a_format), floats.decode(b >> shift & 0xFF, b_format)
        total = total + x.astype(F64) * y
    return total.astype(F32)


def lerp(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Means of bytes, rounded up where the byte of c is odd."""
    out = np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b), np.shape(c)), np.uint32)
    for shift in (0, 8, 16, 24):
        out |= (((a >> shift & 0xFF) + (b >> shift & 0xFF) + (c >> shift & 1)) >> 1) << shift
    return out


def sat_pk(x: np.ndarray) -> np.ndarray:
    low, high = (np.clip(part.view(np.int16), 0, 255).astype(np.uint16)
                 for part in (x.astype(np.uint16), (x >> 16).astype(np.uint16)))  # fmt: skip
    return low | high << np.uint16(8)


def nonzero(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A scalar result and SCC as it mostly is."""
    return x, x != 0


def over(x: np.ndarray) -> np.ndarray:
    """Whether a wide sum leaves 32 signed bits."""
    return (x < -(1 << 31)) | (x >= 1 << 31)
