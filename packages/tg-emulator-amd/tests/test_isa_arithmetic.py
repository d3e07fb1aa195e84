"""Arithmetic of every OpenCL type, compiled by clang for every target, equals NumPy's; special values included."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from isa_machine import TARGETS, compile_opencl, launch

from tg_emulator_amd.isa import floats

SEED = int(os.environ.get("TG_SEED", "1"))
ITEMS = 256
INTEGERS = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "long": "i8",
    "ulong": "u8",
}
FLOATS = {"half": "f2", "float": "f4", "double": "f8"}
TYPES = INTEGERS | FLOATS
E = "__builtin_elementwise_"

# Operation -> (expression on x and y, reference, units in the last place that OpenCL's own division may be off).
INTEGER_ROWS: dict[str, tuple[str, Callable]] = {
    "add": ("x+y", lambda a, b: a + b),
    "sub": ("x-y", lambda a, b: a - b),
    "mul": ("x*y+(x>>1)", lambda a, b: a * b + (a >> a.dtype.type(1))),
    "bits": ("(x&y)|(~x^y)", lambda a, b: (a & b) | (~a ^ b)),
    "shl": ("x<<(y&W)", lambda a, b: a << (b & b.dtype.type(8 * b.itemsize - 1))),
    "shr": ("x>>(y&W)", lambda a, b: a >> (b & b.dtype.type(8 * b.itemsize - 1))),
    "min": ("x<y?x:y", np.minimum),
    "max": ("x>y?x:y", np.maximum),
    "cmp": ("(x<y)+2*(x==y)+4*(x>=y)", lambda a, b: (a < b) + 2 * (a == b) + 4 * (a >= b)),
    "div": ("y==0?x:x/y", lambda a, b: _divide(a, b)[0]),
    "rem": ("y==0?x:x%y", lambda a, b: _divide(a, b)[1]),
    "pop": ("__builtin_popcountg((UT)x)", lambda a, b: np.bitwise_count(a.view(f"u{a.itemsize}"))),
    "clz": ("__builtin_clzg((UT)(x|1))", lambda a, b: _leading_zeros(a)),
}  # fmt: skip
FLOAT_ROWS: dict[str, tuple[str, Callable]] = {
    "add": ("x+y", lambda a, b: a + b),
    "sub": ("x-y", lambda a, b: a - b),
    "mul": ("x*y", lambda a, b: a * b),
    "div": ("x/y", lambda a, b: a / b),
    "fma": (f"{E}fma(x,y,x)", lambda a, b: _exact_fma(a, b)),
    "min": (f"{E}min(x,y)", np.fmin),
    "max": (f"{E}max(x,y)", np.fmax),
    "neg": (f"-x*{E}abs(y)", lambda a, b: -a * np.abs(b)),
    "floor": (f"{E}floor(x)+{E}ceil(y)", lambda a, b: np.floor(a) + np.ceil(b)),
    "round": (f"{E}roundeven(x)+{E}trunc(y)", lambda a, b: np.rint(a) + np.trunc(b)),
    "sqrt": (f"{E}sqrt({E}abs(x))", lambda a, b: np.sqrt(np.abs(a))),
    "cmp": ("(x<y)+2*(x==y)+4*(x>=y)+8*(x!=x)", lambda a, b: (a < b) + 2 * (a == b) + 4 * (a >= b) + 8 * (a != a)),
}  # fmt: skip
# OpenCL asks for single-precision division within 2.5 and square root within 3 units in the last place.
LOOSE = {("div", "float"): 2.5, ("sqrt", "float"): 3.0}


def _leading_zeros(a: np.ndarray) -> list[int]:
    return [8 * x.itemsize - int(x.view(f"u{x.itemsize}") | 1).bit_length() for x in a]


def _divide(a: np.ndarray, b: np.ndarray) -> tuple[list[int], list[int]]:
    """Truncating division of exact integers, wrapped; x where the divisor is 0."""
    quotients, remainders = [], []
    for x, y in zip(map(int, a), map(int, b), strict=True):
        sign = 1 if (x < 0) == (y < 0) else -1
        quotients.append(x if y == 0 else sign * (abs(x) // abs(y)))
        remainders.append(x if y == 0 else x - y * quotients[-1])
    return quotients, remainders


def _exact_fma(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = a * b + a
    for i in np.nonzero(np.isfinite(a) & np.isfinite(b) & (a != 0) & (b != 0))[0]:
        x, y = Fraction(float(a[i])), Fraction(float(b[i]))
        out[i] = floats.round_fraction(x * y + x, a.dtype, 0)
    return out


def random_values(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Values of all sizes, with small ones, limits and what is special among them."""
    if kind[0] != "f":
        info = np.iinfo(kind)
        x = rng.integers(info.min, info.max, ITEMS, dtype=kind, endpoint=True)
        some = rng.integers(0, ITEMS, ITEMS // 3)
        x[some] = rng.integers(-5 if kind[0] == "i" else 0, 5, len(some))
        return x
    info = np.finfo(kind)
    x = (rng.standard_normal(ITEMS) * np.exp2(rng.integers(-12, 12, ITEMS))).astype(kind)
    special = [
        0,
        -0.0,
        1,
        -1,
        np.inf,
        -np.inf,
        np.nan,
        info.tiny,
        info.smallest_subnormal,
        info.max,
        -info.max,
        info.tiny * 0.75,
    ]
    some = rng.integers(0, ITEMS, ITEMS // 4)
    x[some] = rng.choice(np.array(special, kind), len(some))
    some = rng.integers(0, ITEMS, ITEMS // 8)
    low, high = int(info.minexp) - int(info.nmant), int(info.maxexp) - 1
    x[some] = (np.ldexp(1.0, rng.integers(low, high, len(some))) * rng.uniform(1, 2, len(some))).astype(kind)
    return x


def wrapped(values: object, dtype: np.dtype) -> np.ndarray:
    """Integers of any size, reduced to a type's bits."""
    if dtype.kind == "f":
        return np.asarray(values, dtype)
    ones = (1 << 8 * dtype.itemsize) - 1
    return np.array([int(v) & ones for v in values], f"u{dtype.itemsize}").view(dtype)


def rows() -> list[tuple[str, str, str, str, Callable, float]]:
    """(kernel, type, result type, expression, reference, tolerance in ulp)."""
    out = []
    for name, kind in TYPES.items():
        for op, (expression, reference) in (INTEGER_ROWS if kind[0] != "f" else FLOAT_ROWS).items():
            unsigned = name if name[0] == "u" else "u" + name
            text = expression.replace("W", str(8 * int(kind[1]) - 1)).replace("UT", unsigned)
            result = "int" if op in ("cmp", "pop", "clz") else name
            out.append((f"{op}_{name}", name, result, text, reference, LOOSE.get((op, name), 0.0)))
        for other, to in TYPES.items():
            if kind[0] == "f" and to != kind:
                low, limit = (-100 if to[0] == "i" else 0), 100
                inside = f"({other}){E}min({E}max(x,({name}){low}),({name}){limit})"
                text = f"({other})x" if to[0] == "f" else inside
                out.append((f"cvt_{name}_{other}", name, other, text, _conversion(to, low, limit), 0.0))
            if kind[0] != "f" and to[0] == "f":
                out.append((f"cvt_{name}_{other}", name, other, f"({other})x", _conversion(to, 0, 0), 0.0))
    return out


def _conversion(to: str, low: int, limit: int) -> Callable:
    if to[0] == "f":
        return lambda a, b: a.astype(to)
    return lambda a, b: np.trunc(np.fmin(np.fmax(a.astype(float), low), limit))


@pytest.mark.parametrize("target", TARGETS)
def test_arithmetic_of_every_type_equals_numpy(target: str) -> None:
    print(f"TG_SEED={SEED}")
    rng = np.random.default_rng(SEED)
    table = rows()
    source = "\n".join(
        f"kernel void {name}(global const {t}* a, global const {t}* b, global {result}* c)"
        f"{{ int i = GID(x); {t} x = a[i], y = b[i]; c[i] = ({text}); }}"
        for name, t, result, text, _, _ in table
    )
    code = compile_opencl(source, target)
    wrong = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name, kind, result, _, reference, tolerance in table:
            a, b = random_values(TYPES[kind], rng), random_values(TYPES[kind], rng)
            (_, _, got), _ = launch(
                code, name, target, (ITEMS,), (128,), a, b, np.zeros(ITEMS, TYPES[result])
            )
            want = wrapped(reference(a, b), got.dtype)
            equal = (got == want) | (got != got) & (want != want)
            if tolerance:
                equal |= np.abs(got - want) <= tolerance * np.spacing(np.abs(want))
            if not equal.all():
                k = int(np.nonzero(~equal)[0][0])
                wrong.append(
                    f"{name}: {np.count_nonzero(~equal)} differ, x={a[k]!r} y={b[k]!r} got {got[k]!r} want {want[k]!r}"
                )
    assert not wrong, "\n".join(wrong)
