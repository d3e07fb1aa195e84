"""Division, remainder and power: of integers by constants and by registers, and of floats as NumPy has them.

A quotient of integers is rounded down, a remainder has the divisor's sign, and a divisor of 0 gives 0 for both.
Source: Granlund, Montgomery, "Division by invariant integers using multiplication", PLDI 1994, for constant divisors.
"""

from __future__ import annotations

from tg_codegen.machine.terms import BITS, Term, fma, select

__all__ = ["FLOAT_DIVISION", "INTEGER_DIVISION", "PRODUCTS", "power"]

_UNSIGNED = {"i32": "u32", "u32": "u32", "i64": "u64", "u64": "u64"}


def _constant(x: Term) -> int | None:
    """The integer, where x is a constant."""
    bits = x.b.bits_of(x.reg)
    if bits is not None and x.type in ("i32", "i64") and bits >> (BITS[x.type] - 1):
        bits -= 1 << BITS[x.type]
    return bits


# ---- products ----------------------------------------------------------------------------------------------


def mulhi(x: Term, y: Term) -> Term:
    """The upper half of a product of 32-bit integers, from a product of 64."""
    wide = "i64" if x.type == "i32" else "u64"
    return ((x.to(wide) * y.to(wide)).bits("u64") >> 32).to("u32").bits(x.type)


def mul(x: Term, y: Term) -> Term:
    """A product of 64-bit integers from products of 32, where the target has `mulhi` of those."""
    (x_low, x_high), (y_low, y_high) = _halves(x), _halves(y)
    high = x_low.emit("mulhi", y_low) + x_low * y_high + x_high * y_low
    return ((high.to("u64") << 32) | (x_low * y_low).to("u64")).bits(x.type)


def _halves(x: Term) -> tuple[Term, Term]:
    bits = x.bits("u64")
    return bits.to("u32"), (bits >> 32).to("u32")


def _high_product(x: Term, factor: int) -> Term:
    """The upper half of x times a constant, both unsigned."""
    if x.type == "u32":
        return x.emit("mulhi", factor)
    low, high, mask = x & 0xFFFFFFFF, x >> 32, 0xFFFFFFFF
    factor_low, factor_high = factor & mask, factor >> 32
    middle = high * factor_low + ((low * factor_low) >> 32)
    return high * factor_high + (middle >> 32) + ((low * factor_high + (middle & mask)) >> 32)


# ---- quotients of integers ---------------------------------------------------------------------------------


def _over_constant(x: Term, divisor: int, bits: int) -> Term:
    """x over a positive constant, for an unsigned x of so many bits."""
    width = BITS[x.type]
    if divisor & (divisor - 1) == 0:
        return x >> (divisor.bit_length() - 1)
    shift = (divisor - 1).bit_length()
    factor = -(
        -(1 << (bits + shift)) // divisor
    )  # of bits + 1 bits: its error is less than one part in 2**bits
    shift += bits - width
    while factor % 2 == 0 and shift:
        factor, shift = factor // 2, shift - 1
    if factor < 1 << width:
        return _high_product(x, factor) >> shift
    high = _high_product(x, factor - (1 << width))
    return (((x - high) >> 1) + high) >> (shift - 1)


def _over_register_32(x: Term, y: Term) -> Term:
    """The quotient in f64, which is exact enough: it is a whole number or at least 2**-32 of itself away from one."""
    quotient = (x.to("f64") / y.to("f64")).emit("floor")
    low = (quotient + 1.5 * 2.0**52).bits("i64").to(x.type if x.type == "i32" else "u32")
    return select(y == 0, 0, low)


def _over_register_64(x: Term, y: Term) -> Term:
    """u64 by u64: two quotients in f64, each a little too small, leave less than two divisors."""
    inverse = 1.0 / y.to("f64") * (1 - 2.0**-50)
    quotient, left = x.const(0), x
    for _ in range(2):
        part = (left.to("f64") * inverse).to("u64")
        quotient, left = quotient + part, left - part * y
    for _ in range(2):
        more = left >= y
        quotient, left = select(more, quotient + 1, quotient), select(more, left - y, left)
    return select(y == 0, 0, quotient)


def floordiv(x: Term, y: Term) -> Term:
    type, divisor, width = x.type, _constant(y), BITS[x.type]
    if divisor is None:
        if width == 32:
            return _over_register_32(x, y)
        if type == "u64":
            return _over_register_64(x, y)
        quotient = _over_register_64(abs(x).bits("u64"), abs(y).bits("u64")).bits(type)
        down = select(quotient * y.emit("abs") == abs(x), -quotient, ~quotient)  # rounded away from 0
        return select(y == 0, 0, select((x ^ y) < 0, down, quotient))
    if divisor == 0:
        return x.const(0)
    if type != _UNSIGNED[type]:
        sign = x >> (width - 1)  # a negative x is the complement of one that is not
        quotient = (
            _over_constant((x ^ sign).bits(_UNSIGNED[type]), abs(divisor), width - 1).bits(type)
        ) ^ sign
        if divisor > 0:
            return quotient
        return select(quotient * abs(divisor) == x, -quotient, ~quotient)
    return _over_constant(x, divisor, width)


def mod(x: Term, y: Term) -> Term:
    divisor = _constant(y)
    if divisor == 0:
        return x.const(0)
    if divisor is not None and divisor > 0 and divisor & (divisor - 1) == 0:
        return x & (divisor - 1)
    left = x - x.emit("floordiv", y) * y
    return select(y == 0, 0, left) if divisor is None else left


def power(x: Term, y: Term) -> Term:
    """x**y, wrapping. A negative power is 0, but for 1 and -1."""
    width, known = BITS[x.type], _constant(y)
    if known is not None and known >= 0:
        result, square = x.const(1), x
        while known:
            result = result * square if known & 1 else result
            known >>= 1
            square = square * square if known else square
        return result
    b = x.b
    start = (x.const(1), x, y.bits(_UNSIGNED[y.type]))
    result, square, left = (Term(b, b.carry(term.reg)) for term in start)
    carried = (result.reg, square.reg, left.reg)
    with b.loop(0, width, carried=carried):
        product = select((left & 1) == 0, result, result * square)
        b.assign(carried, (product.reg, (square * square).reg, (left >> 1).reg))
    if x.type == _UNSIGNED[x.type]:
        return result
    return select((y >= 0) | (x == 1) | (x == -1), result, 0)  # of -1 the bits of y that count are the same


# ---- floats ------------------------------------------------------------------------------------------------

_LAYOUT = {"f32": ("u32", "i32", 23, 127), "f64": ("u64", "i64", 52, 1023)}


def _mantissa(x: Term) -> tuple[Term, Term]:
    """The exponent, as an integer, and the mantissa in [1, 2) of a positive number, subnormal ones too."""
    unsigned, signed, mantissa, bias = _LAYOUT[x.type]
    small = x < 2.0 ** (1 - bias)
    bits = select(small, x * 2.0 ** (mantissa + 1), x).bits(unsigned)
    exponent = (bits >> mantissa).bits(signed) - select(
        small, (bits.bits(signed)).const(mantissa + 1 + bias), bias
    )
    return exponent, ((bits & ((1 << mantissa) - 1)) | (bias << mantissa)).bits(x.type)


def _power_of_two(exponent: Term, type: str) -> Term:
    _, _, mantissa, bias = _LAYOUT[type]
    return ((exponent + bias) << mantissa).bits(type)


def _remainder(x: Term, y: Term) -> Term:
    """|x| - |y| * trunc(|x| / |y|), exactly, of finite numbers, y not 0.

    Long division with digits of `step` bits: of mantissas below 2, a * 2**step has a quotient that is a whole number of
    the format, and a - quotient * b, which fma does not round, is less than b in size.
    """
    _, _, mantissa, bias = _LAYOUT[x.type]
    step = mantissa - 2
    (x_exponent, a), (y_exponent, divisor) = _mantissa(abs(x)), _mantissa(abs(y))
    start, b = (x_exponent - y_exponent, a), x.b
    digits, left = (Term(b, b.carry(term.reg)) for term in start)
    carried = (digits.reg, left.reg)
    with b.loop(0, -(-2 * (bias + mantissa) // step), carried=carried):
        now = select(digits < step, digits, step)
        now = select(now < 0, 0, now)
        grown = left * _power_of_two(now, x.type)
        rest = fma(-(grown / divisor).emit("trunc"), divisor, grown)
        b.assign(carried, ((digits - now).reg, select(rest < 0.0, rest + divisor, rest).reg))
    half = y_exponent >> 1  # y's power of two in two parts, as one alone may not be normal
    scaled = left * _power_of_two(half, x.type) * _power_of_two(y_exponent - half, x.type)
    return select(abs(x) < abs(y), abs(x), scaled)


def _float_remainder(x: Term, y: Term) -> Term:
    """C's fmod."""
    inf = float("inf")
    fraction = select((abs(x) < inf) & (y != 0.0) & (y == y), _remainder(x, y), float("nan"))
    return _with_sign(select(abs(y) == inf, select(abs(x) < inf, abs(x), float("nan")), fraction), x)


def _with_sign(magnitude: Term, x: Term) -> Term:
    unsigned, _, mantissa, bias = _LAYOUT[x.type]
    sign = 1 << (BITS[x.type] - 1)
    return ((magnitude.bits(unsigned) & (sign - 1)) | (x.bits(unsigned) & sign)).bits(x.type)


def float_mod(x: Term, y: Term) -> Term:
    """As NumPy: the sign of y, of a zero too."""
    left = _float_remainder(x, y)
    adjusted = select((y < 0.0) ^ (left < 0.0), left + y, left)
    return select(left == 0.0, _with_sign(left, y), adjusted)


def float_floordiv(x: Term, y: Term) -> Term:
    """As NumPy: from the remainder, so that it fits `float_mod`."""
    left = _float_remainder(x, y)
    ratio = x / y
    whole = (x - left) / y
    whole = select((left != 0.0) & ((y < 0.0) ^ (left < 0.0)), whole - 1.0, whole)
    floor = whole.emit("floor")
    floor = select(whole - floor > 0.5, floor + 1.0, floor)
    return select(y == 0.0, ratio, select(whole == 0.0, _with_sign(whole, ratio), floor))


INTEGER_DIVISION = {"floordiv": floordiv, "mod": mod}
FLOAT_DIVISION = {"floordiv": float_floordiv, "mod": float_mod}
PRODUCTS = {("mulhi", "i32"): mulhi, ("mulhi", "u32"): mulhi, ("mul", "i64"): mul, ("mul", "u64"): mul}
