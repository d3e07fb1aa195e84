"""Elementary functions from arithmetic: no branches, no tables, the same formulas for f32 and f64.

Each follows one plan: bring the argument into a small interval, evaluate a polynomial there (polynomials.py), and put
the result together. Powers of two are made by adding a large constant, whose last place is 1, so that the sum's low
bits are the rounded integer. NaN goes in and comes out; infinities, zeros' signs and subnormals are right.

Greatest errors found, in units in the last place of the exact result; of f32 over all 2**32 arguments (sin and cos from
2**48 on every 61st, pow 400,000 random ones; benchmarks/ulp.py), of f64 over tens of thousands against mpmath:

|     | exp  | exp2 | expm1 | log  | log2 | log1p | sin  | cos  | atan | tanh | erf  | pow  |
|-----|------|------|-------|------|------|-------|------|------|------|------|------|------|
| f32 | 0.93 | 0.88 | 1.44  | 0.88 | 0.98 | 0.98  | 1.49 | 1.49 | 1.38 | 1.37 | 1.10 | 0.55 |
| f64 | 0.85 | 0.75 | 1.75  | 0.77 | 0.91 | 0.83  | 1.38 | 1.41 | 1.38 | 1.31 | 1.74 | 0.95 |

sin and cos of f32 are right for every argument; of f64 up to 2**48, and NaN beyond.
Source: Cody, Waite, "Software manual for the elementary functions", 1980, for the reductions with split constants;
Muller et al., "Handbook of floating-point arithmetic", 2nd ed., for error-free sums and products.
"""

from __future__ import annotations

from dataclasses import dataclass

from tg_codegen.machine.polynomials import POLYNOMIALS
from tg_codegen.machine.terms import Term, fma, horner, number_bits, select

__all__ = ["MATH"]


@dataclass(frozen=True, slots=True)
class _Format:
    """What the formulas need to know of a float type; thresholds are where a result stops to change."""

    bits: str  # the unsigned type of the same size
    mantissa: int  # bits of it
    bias: int
    exp_range: tuple[float, float]  # beyond it e**x is 0 or infinite
    exp2_range: tuple[float, float]
    expm1_low: float  # under it e**x - 1 is -1
    tiny: float  # under it e**x - 1 is x
    tanh_high: float  # over it tanh(x / 2) is 1
    erf_end: float  # over it erf(x) is 1; the end of the polynomial
    ln2: tuple[float, float]  # their sum is log(2)
    inv_ln2: tuple[float, float]
    half_pi: tuple[float, float]

    @property
    def magic(self) -> float:
        """In what is added to it the last place counts 1."""
        return 1.5 * 2.0**self.mantissa

    @property
    def sign(self) -> int:
        return 1 << (self.mantissa + self.bias.bit_length() + 1)


_FORMATS = {
    "f32": _Format(
        "u32", 23, 127, (-104.0, 89.0), (-151.0, 129.0), -18.0, 2.0**-25, 20.0, 4.0,
        (0.6931471824645996, -1.9046542121259336e-09),
        (1.4426950216293335, 1.925963033500011e-08),
        (1.5707963705062866, -4.371138828673793e-08),
    ),
    "f64": _Format(
        "u64", 52, 1023, (-746.0, 710.0), (-1076.0, 1025.0), -38.0, 2.0**-54, 40.0, 6.0,
        (0.6931471805599453, 2.3190468138462996e-17),
        (1.4426950408889634, 2.0355273740931033e-17),
        (1.5707963267948966, 6.123233995736766e-17),
    ),
}  # fmt: skip
_HALF_PI_3 = -1.4973849048591698e-33  # what the two parts of pi / 2 in f64 leave, rounded

_INF = float("inf")
_NAN = float("nan")


def _clamp(x: Term, low: float, high: float) -> Term:
    """x brought between the limits; a NaN stays."""
    return x.emit("maximum", low).emit("minimum", high)


def _signed_like(magnitude: Term, x: Term) -> Term:
    """The magnitude with the sign of x."""
    form = _FORMATS[x.type]
    return (magnitude.bits(form.bits) | (x.bits(form.bits) & form.sign)).bits(x.type)


# ---- exponentials ------------------------------------------------------------------------------------------


def _nearest_power(x: Term, offset: int) -> tuple[Term, Term, Term]:
    """k, integer bits that end in k + offset, and r, where x = k * log(2) + r."""
    form = _FORMATS[x.type]
    t = fma(x, form.inv_ln2[0], form.magic + offset)
    k = t - (form.magic + offset)
    return k, t.bits(form.bits), fma(k, -form.ln2[1], fma(k, -form.ln2[0], x))


def _scale(p: Term, k_bits: Term) -> Term:
    """p * 2**k, rounded once: by two powers, since one alone may not be normal. `k_bits` ends in k + 2 * bias."""
    form = _FORMATS[p.type]
    half = (k_bits << (form.mantissa - 1)) & (-1 << form.mantissa)
    rest = (k_bits << form.mantissa) - half
    return p * half.bits(p.type) * rest.bits(p.type)


def exp(x: Term) -> Term:
    form = _FORMATS[x.type]
    _, k_bits, r = _nearest_power(_clamp(x, *form.exp_range), 2 * form.bias)
    return _scale(horner(r, (1.0, 1.0, *POLYNOMIALS["exp", x.type])), k_bits)


def exp2(x: Term) -> Term:
    form = _FORMATS[x.type]
    x = _clamp(x, *form.exp2_range)
    t = x + (form.magic + 2 * form.bias)
    r = x - (t - (form.magic + 2 * form.bias))
    return _scale(horner(r, (1.0, *POLYNOMIALS["exp2", x.type])), t.bits(form.bits))


def expm1(x: Term) -> Term:
    form = _FORMATS[x.type]
    # Half of the result, as 2**k may be too large: e**x = 2**k * (1 + q).
    _, k_bits, r = _nearest_power(_clamp(x, form.expm1_low, form.exp_range[1]), form.bias - 1)
    q = fma(r * r, horner(r, POLYNOMIALS["expm1", x.type]), r)
    power = (k_bits << form.mantissa).bits(x.type)
    half = fma(q, power, power - 0.5)
    return select(abs(x) < form.tiny, x, half + half)


def tanh(x: Term) -> Term:
    form = _FORMATS[x.type]
    a = abs(x)
    _, k_bits, r = _nearest_power((a + a).emit("minimum", form.tanh_high), form.bias)
    p = horner(r, (1.0, 1.0, *POLYNOMIALS["exp", x.type]))
    large = 1.0 - 2.0 / fma(p, (k_bits << form.mantissa).bits(x.type), 1.0)
    x2 = x * x
    small = fma(x * x2, horner(x2, POLYNOMIALS["tanh", x.type]), x)
    return _signed_like(select(a < 0.625, small, large), x)


# ---- logarithms --------------------------------------------------------------------------------------------


def _split(x: Term) -> tuple[Term, Term]:
    """Bits whose part from the mantissa on is k + bias, and f, where x = 2**k * (1 + f), |f| <= sqrt(2) - 1."""
    form = _FORMATS[x.type]
    middle = number_bits(0.5**0.5, x.type)
    u = x.bits(form.bits) + (number_bits(1.0, x.type) - middle)
    m = (u & ((1 << form.mantissa) - 1)) + middle
    return u >> form.mantissa, m.bits(x.type) - 1.0


def _whole(e: Term, type: str, bias: Term | float) -> Term:
    """An unsigned integer of less than the mantissa's size as a float, less 2**mantissa + bias."""
    return (e | number_bits(2.0 ** _FORMATS[type].mantissa, type)).bits(type) - bias


def _normal_split(x: Term) -> tuple[Term, Term]:
    """k and f as above for any positive x."""
    form = _FORMATS[x.type]
    small = x < 2.0 ** (1 - form.bias)
    shift = form.mantissa + 1
    e, f = _split(select(small, x * 2.0**shift, x))
    bias = 2.0**form.mantissa + form.bias
    return _whole(e, x.type, select(small, x.const(bias + shift), bias)), f


def _log_edges(x: Term, zero: float, result: Term) -> Term:
    """The result, but at `zero` and under it, at infinity and NaN."""
    edge = select(x == zero, x.const(-_INF), _NAN)
    return select(x < _INF, select(x > zero, result, edge), x)


def _log_sum(k: Term, f: Term, low: Term) -> Term:
    """k * log(2) + log(1 + f) + low."""
    w = fma(f, horner(f, POLYNOMIALS["log", f.type]), -0.5)
    return fma(k, _FORMATS[f.type].ln2[0], f + fma(f * f, w, low))


def log(x: Term) -> Term:
    k, f = _normal_split(x)
    return _log_edges(x, 0.0, _log_sum(k, f, k * _FORMATS[x.type].ln2[1]))


def log2(x: Term) -> Term:
    form = _FORMATS[x.type]
    k, f = _normal_split(x)
    y = fma(f * f, horner(f, POLYNOMIALS["log2", x.type]), f * form.inv_ln2[1])
    return _log_edges(x, 0.0, k + fma(f, form.inv_ln2[0], y))


def log1p(x: Term) -> Term:
    form = _FORMATS[x.type]
    u = x + 1.0
    e, f = _split(u)
    # What 1 + x lost, scaled like u. Where u has no power of two below it, it has lost nothing.
    lost = x - (u - 1.0)
    scale = (2 * form.bias - e.emit("min", 2 * form.bias)) << form.mantissa
    whole_f = fma(lost, scale.bits(x.type), f)
    low = fma(lost, scale.bits(x.type), f - whole_f)
    k = _whole(e, x.type, 2.0**form.mantissa + form.bias)
    total = _log_sum(k, whole_f, fma(k, form.ln2[1], low))
    return _log_edges(x, -1.0, _signed_like(abs(total), x))


# ---- trigonometry ------------------------------------------------------------------------------------------

_TURNS = (
    (2.0**50, -6.471318202182568e-09, -6.719920029166771e-26),
    (2.0**77, 1.1257103882530948e-16, -1.2973430002442905e-33),
    (2.0**102, -8.535996435571086e-25, 2.669766300473185e-41),
)
"""A number not under the first, times the sum of the others, has lost whole turns alone and is less than 2**50.

They are w / 2**n for n = 27, 54, 79, of whose 2**n every such f32 is a multiple; w is 2**n less whole turns.
"""


def _reduce_f32(x: Term) -> tuple[Term, Term]:
    """r and integer bits that end in k, where x = k * pi / 2 + r up to whole turns; right for every f32."""
    form = _FORMATS["f64"]
    wide, size = x.to("f64"), abs(x)
    high, low = wide.const(1.0), wide.const(0.0)
    for least, *parts in _TURNS:
        beyond = size >= least
        high, low = select(beyond, parts[0], high), select(beyond, parts[1], low)
    p = wide * high
    lost = fma(-wide, low, fma(-wide, high, p))  # to be subtracted, so that -0 stays
    t = fma(p, 1 / form.half_pi[0], form.magic)
    k = t - form.magic
    r = fma(k, -form.half_pi[0], p) - fma(k, form.half_pi[1], lost)
    return r.to("f32"), t.bits("i64").to("i32").bits("u32")


def _reduce_f64(x: Term) -> tuple[Term, Term]:
    """The same in f64, with pi / 2 in three parts, 159 bits. Beyond 2**48, where k loses its precision, r is NaN."""
    form = _FORMATS["f64"]
    x = select(abs(x) <= 2.0**48, x, _NAN)
    t = fma(x, 1 / form.half_pi[0], form.magic)
    k = t - form.magic
    second = k * form.half_pi[1]
    lost = fma(k, form.half_pi[1], -second)
    return (fma(k, -form.half_pi[0], x) - second) - fma(k, _HALF_PI_3, lost), t.bits("u64")


def _sin_quadrant(x: Term, quadrants: int) -> Term:
    """sin(x + quadrants * pi / 2)."""
    form = _FORMATS[x.type]
    r, k = (_reduce_f32 if x.type == "f32" else _reduce_f64)(x)
    k = k + quadrants if quadrants else k
    r2 = r * r
    sine = select(r == 0.0, r, fma(r * r2, horner(r2, POLYNOMIALS["sin", x.type]), r))
    cosine = horner(r2, (1.0, -0.5, *POLYNOMIALS["cos", x.type]))
    value = select((k & 1) == 0, sine, cosine)
    return (value.bits(form.bits) ^ ((k << (form.sign.bit_length() - 2)) & form.sign)).bits(x.type)


def sin(x: Term) -> Term:
    return _sin_quadrant(x, 0)


def cos(x: Term) -> Term:
    return _sin_quadrant(x, 1)


def atan(x: Term) -> Term:
    form = _FORMATS[x.type]
    a = abs(x)
    large = a > 1.0
    y = select(large, 1.0 / a, a)
    y2 = y * y
    p = fma(y * y2, horner(y2, POLYNOMIALS["atan", x.type]), y)
    return _signed_like(select(large, form.half_pi[0] - (p - form.half_pi[1]), p), x)


def erf(x: Term) -> Term:
    form = _FORMATS[x.type]
    a = abs(x)
    small = fma(x, horner(x * x, POLYNOMIALS["erf", x.type]), x)
    y = a.emit("minimum", form.erf_end) - (form.erf_end + 1) / 2
    return select(a < 1.0, small, _signed_like(1.0 - horner(y, POLYNOMIALS["erf_tail", x.type]), x))


# ---- powers ------------------------------------------------------------------------------------------------


def _power_edges(x: Term, y: Term, magnitude: Term) -> Term:
    """|x|**y with its sign, and what is no power of |x|."""
    form = _FORMATS[x.type]
    whole = y.emit("trunc") == y
    half = y * 0.5
    odd = whole & (half.emit("trunc") != half)
    sign = select(odd, x.bits(form.bits) & form.sign, 0)
    result = (magnitude.bits(form.bits) | sign).bits(x.type)
    result = select((x < 0.0) & (x > -_INF) & ~whole, _NAN, result)
    return select((x == 1.0) | (y == 0.0), 1.0, result)


def _pow_f32(x: Term, y: Term) -> Term:
    """In f64, where the product y * log2(x) is exact enough and every f32 is normal."""
    form = _FORMATS["f64"]
    wide = abs(x).to("f64")
    e, f = _split(wide)
    k = _whole(e, "f64", 2.0**form.mantissa + form.bias)
    log = fma(f, horner(f, POLYNOMIALS["pow_log2", "f64"]), k)
    log = select(wide == 0.0, -_INF, select(wide < _INF, log, wide))
    limit = 2.0**127  # for y, so that 1 to the power of infinity is 1
    z = _clamp(_clamp(y, -limit, limit).to("f64") * log, -200.0, 200.0)
    t = z + (form.magic + form.bias)
    p = horner(z - (t - (form.magic + form.bias)), (1.0, *POLYNOMIALS["pow_exp2", "f64"]))
    return _power_edges(x, y, (p * (t.bits("u64") << form.mantissa).bits("f64")).to("f32"))


def _sum(a: Term, b: Term) -> tuple[Term, Term]:
    """a + b and what it lost, where a is the greater or 0."""
    total = a + b
    return total, (a - total) + b


def _product(a: Term, b: Term) -> tuple[Term, Term]:
    """a * b and what it lost."""
    p = a * b
    return p, fma(a, b, -p)


def _log_pair(x: Term) -> tuple[Term, Term]:
    """log(x) of a positive f64 in two parts, right to about 2**-65, by 2 * atanh(f / (2 + f))."""
    k, f = _normal_split(x)
    d, d_low = _sum(f.const(2.0), f)
    inverse = 1.0 / d
    s = f * inverse
    s_low = (fma(-s, d, f) - s * d_low) * inverse
    s2, s2_low = _product(s, s)
    s2_low = fma(s + s, s_low, s2_low)
    s3, s3_low = _product(s2, s)
    s3_low = fma(s2, s_low, fma(s2_low, s, s3_low))
    c, c_low = _sum(f.const(2 / 3), s2 * horner(s2, POLYNOMIALS["pow_log", "f64"]))
    t, t_low = _product(s3, c)
    t_low = fma(s3, c_low + _TWO_THIRDS_LOW, fma(s3_low, c, t_low))
    log, log_low = _sum(s + s, t)
    ln2, ln2_low = _FORMATS["f64"].ln2
    power, power_low = _product(k, k.const(ln2))
    total, total_low = _sum(power, log)
    return total, total_low + (fma(k, ln2_low, power_low) + (log_low + (t_low + (s_low + s_low))))


_TWO_THIRDS_LOW = 3.700743415417188e-17


def _pow_f64(x: Term, y: Term) -> Term:
    form = _FORMATS["f64"]
    a = abs(x)
    log, log_low = _log_pair(a)
    log = select(a == 0.0, -_INF, select(a < _INF, log, a))
    limit = 2.0**990  # for y, so that 1 to the power of infinity is 1
    y_near = _clamp(y, -limit, limit)
    z, z_low = _product(y_near, log)
    z_low = select(abs(z) < 1000.0, fma(y_near, log_low, z_low), 0.0)
    _, k_bits, r = _nearest_power(_clamp(z, *form.exp_range), 2 * form.bias)
    magnitude = _scale(horner(r + z_low, (1.0, 1.0, *POLYNOMIALS["exp", "f64"])), k_bits)
    return _power_edges(x, y, magnitude)


def pow(x: Term, y: Term) -> Term:
    return (_pow_f32 if x.type == "f32" else _pow_f64)(x, y)


MATH = {
    function.__name__: function
    for function in (exp, exp2, expm1, log, log2, log1p, sin, cos, atan, tanh, erf, pow)
}
"""The formulas by the name of the operation they replace, for f32 and f64."""
