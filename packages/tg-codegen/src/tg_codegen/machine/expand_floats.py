"""Bits of the narrow floats from and to f32: to nearest, ties to even; overflow and NaN as tg_ir.dtypes has them."""

from __future__ import annotations

from tg_codegen.machine.terms import Term, number_bits, select
from tg_ir.dtypes import dtype_of

__all__ = ["NARROW", "decode", "encode"]

NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_SIGN = 1 << 31


def decode(bits: Term, name: str) -> Term:
    """The value of the low bits. Shifted to the place of f32's fields, all that is wrong is the exponent's bias."""
    dtype = dtype_of(name)
    place = 23 - dtype.mantissa_bits
    sign_bit = 1 << (dtype.bits - 1)
    if dtype.bits == 16 and dtype.exponent_bits == 8:
        return (bits << 16).bits("f32")
    code = bits & (sign_bit - 1)
    magnitude = (code << place).bits("f32") * 2.0 ** (127 - dtype.bias)  # makes subnormals right too
    sign = (bits << (32 - dtype.bits)) & _SIGN
    value = magnitude.bits("u32") | sign
    if not dtype.has_negative_zero:  # whose place NaN has
        return select((bits & (2 * sign_bit - 1)) == dtype.nan_bits, float("nan"), value.bits("f32"))
    if dtype.has_inf:  # with an exponent of ones, as in f32
        special = code.bits("i32") >= dtype.overflow_code
        return (value | select(special, bits.const(0xFF << 23), 0)).bits("f32")
    return select(code == dtype.nan_bits, float("nan"), value.bits("f32"))


def encode(x: Term, name: str) -> Term:
    """The bits of the value, rounded."""
    dtype = dtype_of(name)
    dropped = 23 - dtype.mantissa_bits
    bits = x.bits("i32")
    if dtype.exponent_bits == 8:  # f32's own exponent: rounding carries into it and to infinity
        code = _round(bits.bits("u32"), dropped)
        return select(x == x, code, dtype.nan_bits)
    size = bits & (_SIGN - 1)
    code = _round(size, dropped) - ((127 - dtype.bias) << dtype.mantissa_bits)
    least = 2.0 ** (1 - dtype.bias)
    power = 2.0 ** (24 - dtype.bias - dtype.mantissa_bits)  # whose last place is that of a subnormal
    subnormal = (size.bits("f32") + power).bits("i32") - number_bits(power, "f32")
    code = select(size < number_bits(least, "f32"), subnormal, code)
    code = select(code > dtype.max_code, dtype.overflow_code, code).bits("u32")
    sign = (bits.bits("u32") & _SIGN) >> (32 - dtype.bits)
    code = code | sign if dtype.has_negative_zero else select(code == 0, code, code | sign)
    return select(x == x, code, dtype.nan_bits)


def _round(bits: Term, dropped: int) -> Term:
    """The bits without the low ones, to nearest, ties to even."""
    return (bits + ((bits >> dropped) & 1) + ((1 << (dropped - 1)) - 1)) >> dropped
