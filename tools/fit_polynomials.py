"""Fit the polynomials of packages/tg-codegen/src/tg_codegen/machine/polynomials.py. Needs mpmath.

    python tools/fit_polynomials.py            write the file
    python tools/fit_polynomials.py exp erf    only print these rows

A row approximates f(x) by a sum of c[i] * x**i where w(x) * |f(x) - sum| is least at its worst (Remez's exchange).
Coefficients are rounded to the type of the row from c[0] on; what is left of f is fitted again after each.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import mpmath
from mpmath import mp, mpf

OUTPUT = Path(__file__).parent.parent / "packages/tg-codegen/src/tg_codegen/machine/polynomials.py"
Real = Callable[[mpf], mpf]

HALF_LN2 = mpmath.log(2) / 2 * mpf("1.0001")
LOW, HIGH = 1 / mpmath.sqrt(2) - 1 - mpf("1e-6"), mpmath.sqrt(2) - 1 + mpf("1e-6")
QUADRANT = {"f32": mpf("0.9") ** 2, "f64": (mpmath.pi / 4 * mpf("1.0001")) ** 2}
TANH_SPLIT = mpf("0.625")
SERIES = ((mpmath.sqrt(2) - 1) / (mpmath.sqrt(2) + 1) * mpf("1.001")) ** 2
INV_LN2 = 1 / mpmath.log(2)
ERF_SPLIT = 1


def _erf_tail(end: float) -> tuple[Real, Real, mpf, mpf]:
    """erfc around the middle of what is left up to `end`, and the interval."""
    middle = (mpf(end) + ERF_SPLIT) / 2
    return (lambda y: mpmath.erfc(middle + y)), (lambda y: mpf(1)), ERF_SPLIT - middle, end - middle


def _even(f: Callable[[mpf], mpf], weight: Callable[[mpf], mpf]) -> tuple[Real, Real]:
    """Functions of x as functions of u = x**2."""
    return (lambda u: f(mpmath.sqrt(u))), (lambda u: weight(mpmath.sqrt(u)))


EXP = (lambda r: (mpmath.expm1(r) - r) / r**2, lambda r: r**2 / mpmath.expm1(r))
EXP2 = (lambda r: (2**r - 1) / r, lambda r: r / 2**r)
LOG = (lambda f: (mpmath.log1p(f) - f + f**2 / 2) / f**3, lambda f: f**3 / mpmath.log1p(f))
LOG2 = (lambda f: (mpmath.log1p(f) / f - 1) / f * INV_LN2, lambda f: f**2 / mpmath.log1p(f) / INV_LN2)
POW_LOG2 = (lambda f: mpmath.log1p(f) / f * INV_LN2, lambda f: f / mpmath.log1p(f) / INV_LN2)
SIN = _even(lambda r: (mpmath.sin(r) - r) / r**3, lambda r: r**3 / mpmath.sin(r))
COS = _even(lambda r: (mpmath.cos(r) - 1 + r**2 / 2) / r**4, lambda r: r**4 / mpmath.cos(r))
ATAN = _even(lambda y: (mpmath.atan(y) - y) / y**3, lambda y: y**3 / mpmath.atan(y))
TANH = _even(lambda x: (mpmath.tanh(x) - x) / x**3, lambda x: x**3 / mpmath.tanh(x))
ERF = _even(lambda x: (mpmath.erf(x) - x) / x, lambda x: x / mpmath.erf(x))
POW_LOG = _even(
    lambda s: (2 * mpmath.atanh(s) - 2 * s - 2 * s**3 / 3) / s**5, lambda s: s**4
)  # against 2 * atanh(s) / s

# name, type, f and w, from, to, coefficients
ROWS = (
    ("exp", "f32", EXP, -HALF_LN2, HALF_LN2, 5),
    ("exp", "f64", EXP, -HALF_LN2, HALF_LN2, 10),
    ("expm1", "f32", EXP, -HALF_LN2, HALF_LN2, 6),
    ("expm1", "f64", EXP, -HALF_LN2, HALF_LN2, 11),
    ("exp2", "f32", EXP2, mpf(-0.5), mpf(0.5), 6),
    ("exp2", "f64", EXP2, mpf(-0.5), mpf(0.5), 12),
    ("log", "f32", LOG, LOW, HIGH, 8),
    ("log", "f64", LOG, LOW, HIGH, 19),
    ("log2", "f32", LOG2, LOW, HIGH, 9),
    ("log2", "f64", LOG2, LOW, HIGH, 20),
    ("sin", "f32", SIN, mpf(0), QUADRANT["f32"], 4),
    ("sin", "f64", SIN, mpf(0), QUADRANT["f64"], 6),
    ("cos", "f32", COS, mpf(0), QUADRANT["f32"], 3),
    ("cos", "f64", COS, mpf(0), QUADRANT["f64"], 6),
    ("atan", "f32", ATAN, mpf(0), mpf(1), 9),
    ("atan", "f64", ATAN, mpf(0), mpf(1), 21),
    ("tanh", "f32", TANH, mpf(0), TANH_SPLIT**2, 5),
    ("tanh", "f64", TANH, mpf(0), TANH_SPLIT**2, 12),
    ("erf", "f32", ERF, mpf(0), mpf(ERF_SPLIT**2), 7),
    ("erf", "f64", ERF, mpf(0), mpf(ERF_SPLIT**2), 13),
    ("erf_tail", "f32", _erf_tail(4)[:2], *_erf_tail(4)[2:], 18),
    ("erf_tail", "f64", _erf_tail(6)[:2], *_erf_tail(6)[2:], 40),
    ("pow_log2", "f64", POW_LOG2, LOW, HIGH, 13),
    ("pow_exp2", "f64", EXP2, mpf(-0.5), mpf(0.5), 6),
    ("pow_log", "f64", POW_LOG, mpf(0), SERIES, 9),
)


def main(names: Sequence[str]) -> None:
    """Fit what is asked for; all of it goes to the file."""
    mp.dps = 50
    lines = []
    for name, type, (f, weight), low, high, count in ROWS:
        if not names or name in names:
            coefficients, error = fit(f, weight, low, high, count, type)
            lines.append(f"    # {name} {type}: 2**{float(mpmath.log(error, 2)):.1f}\n")
            lines.append(f'    ("{name}", "{type}"): ({", ".join(map(repr, coefficients))},),\n')
            print("".join(lines[-2:]), end="", flush=True)
    if not names:
        OUTPUT.write_text(HEAD + "".join(lines) + "}\n")


HEAD = '''"""Polynomials of the elementary functions, c[0] + c[1] * x + ...; made by tools/fit_polynomials.py, which says of what.

Above each row is the greatest relative error of the function that it leaves, in exact arithmetic (`erf_tail`: absolute).
"""

# fmt: off
# ruff: noqa: E501
POLYNOMIALS: dict[tuple[str, str], tuple[float, ...]] = {
'''


def fit(f: Real, weight: Real, low: mpf, high: mpf, count: int, type: str) -> tuple[list[float], mpf]:
    """Coefficients rounded to the type, and the greatest weighted error that they leave."""
    points = [_nudge((low + high) / 2 - (high - low) / 2 * mpmath.cos(mpmath.pi * i / 400)) for i in range(401)]
    samples = [(x, f(x), abs(weight(x))) for x in points]
    rounded: list[float] = []
    while len(rounded) < count:
        left = [
            ((y - mpmath.polyval(rounded[::-1] or [0], x)) / x ** len(rounded), w * abs(x) ** len(rounded))
            for x, y, w in samples
        ]
        free = remez(points, left, count - len(rounded))
        take = 1 if len(rounded) < 4 else len(free)
        rounded += [_round(c, type) for c in free[:take]]
    return rounded, max(abs(w * (y - mpmath.polyval(rounded[::-1], x))) for x, y, w in samples)


def remez(points: list[mpf], samples: list[tuple[mpf, mpf]], count: int) -> list[mpf]:
    """The coefficients whose weighted error on the points alternates between extremes of one size."""
    step = (len(points) - 1) / (count + 2)
    chosen = [round(step * (i + 0.5 + i / (count + 1) * 1)) for i in range(count + 1)]
    for _ in range(30):
        rows = [[points[i] ** n for n in range(count)] + [(-1) ** k / samples[i][1]] for k, i in enumerate(chosen)]
        *free, level = mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([samples[i][0] for i in chosen]))
        errors = [w * (y - mpmath.polyval(free[::-1], x)) for x, (y, w) in zip(points, samples, strict=True)]
        runs: list[int] = []  # the point of greatest error in each run of errors of one sign
        for i, error in enumerate(errors):
            if runs and (errors[runs[-1]] > 0) == (error > 0):
                runs[-1] = max(runs[-1], i, key=lambda j: abs(errors[j]))
            else:
                runs.append(i)
        while len(runs) > count + 1:  # drop the least, and what keeps the signs alternating
            least = min(range(len(runs)), key=lambda k: abs(errors[runs[k]]))
            if len(runs) == count + 2:
                least = min(0, len(runs) - 1, key=lambda k: abs(errors[runs[k]]))
            other = 1 if least in (0, len(runs) - 1) else 2
            if other == 2:
                beside = min(least - 1, least + 1, key=lambda k: abs(errors[runs[k]]))
                least = min(least, beside)
            del runs[least : least + other]
        if len(runs) <= count or runs == chosen:
            break
        chosen = runs
    return free


def _nudge(x: mpf) -> mpf:
    """A point that is not 0, where most of the functions are quotients 0 / 0."""
    return x if abs(x) > mpf("1e-9") else mpf("1e-9")


def _round(x: mpf, type: str) -> float:
    return float(x) if type == "f64" else struct.unpack("f", struct.pack("f", float(x)))[0]


if __name__ == "__main__":
    main(sys.argv[1:])
