"""The elementary functions that `EXPANSIONS` makes from arithmetic, in units in the last place of the exact result.

f32 against NumPy's f64 over every 1009th bit pattern (the interpreter: every 9001st); benchmarks/ulp.py measures all
of them. f64 against mpmath.
"""

from __future__ import annotations

import math
import os
import runpy
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="the interpreter of the machine IR needs NumPy")
import numpy as np
from machine_apply import MACHINES, apply

from tg_codegen.machine import polynomials
from tg_codegen.machine.expand import EXPANSIONS

ROOT = Path(__file__).parents[3]
SEED = int(os.environ.get("TG_SEED", "20261122"))

# The greatest error found: of f32 over all arguments by benchmarks/ulp.py, rounded up; of f64 what is promised.
ULP_F32 = {
    "exp": 0.93, "exp2": 0.88, "expm1": 1.44, "log": 0.88, "log2": 0.98, "log1p": 0.98, "sin": 1.49, "cos": 1.49,
    "atan": 1.38, "tanh": 1.37, "erf": 1.1, "pow": 0.6,
}  # fmt: skip
ULP_F64 = 2.0
UNARY = [name for name in ULP_F32 if name != "pow"]
NUMPY = {"atan": np.arctan, "erf": np.frompyfunc(math.erf, 1, 1)}

EDGES = [
    0.0,
    1e-45,
    1.17549435e-38,
    1.1754942e-38,
    1.0,
    0.5,
    2.0,
    88.72284,
    88.72283,
    103.97,
    87.3,
    3.4028235e38,
]
EDGES += [
    math.inf,
    math.nan,
    0.625,
    0.70710677,
    0.70710678,
    1.4142135,
    1.5707964,
    3.1415927,
    1e30,
    4.0,
    9.01,
    1e-8,
]


def exact_f32(name: str, *operands: np.ndarray) -> np.ndarray:
    """The result in f64, far more exact than an f32."""
    with np.errstate(all="ignore"):
        function = NUMPY.get(name) or getattr(np, name)
        return np.asarray(function(*[x.astype(np.float64) for x in operands]), np.float64)


def errors(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """In ulps of the f32 result; infinite where one is NaN, infinite or of another sign and the other is not."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        exponent = np.clip(np.frexp(exact)[1], -125, 128)
        error = np.abs(got.astype(np.float64) - exact) / np.ldexp(1.0, exponent - 24)
        at_most = np.isfinite(got) & np.isfinite(rounded) & (np.signbit(got) == np.signbit(rounded))
        # A result that the exact one overflows to by less than its error is as good as the greatest number.
        beyond = np.abs(exact) > np.finfo(np.float32).max * (1 - 2.0**-24)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        return np.where(
            at_most | (beyond & np.isinf(got)), np.where(np.isinf(got), 0, error), np.where(same, 0, np.inf)
        )


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", UNARY)
def test_f32_function_of_sampled_arguments_is_within_its_bound(name: str, machine: str):
    print(f"TG_SEED={SEED}")
    edges = np.array(EDGES, np.float32)
    with np.errstate(over="ignore"):
        edges = np.concatenate(
            [edges, np.nextafter(edges, -edges), np.nextafter(edges, np.float32(math.inf))]
        )
    step = 9001 if machine == "interpreter" else 1009
    patterns = np.arange(SEED % step, 1 << 32, step, dtype=np.uint32).view(np.float32)
    x = np.concatenate([edges, -edges, patterns])
    worst = 0.0
    for part in np.array_split(x, x.size >> 16):
        got = apply(name, "f32", part, expansions=EXPANSIONS, machine=machine)
        error = errors(got, exact_f32(name, part))
        at = int(error.argmax())
        assert error[at] <= ULP_F32[name], (part[at], got[at], error[at])
        worst = max(worst, error[at])
    assert worst > 0.5, "an error that small is none that this would notice"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("type", ["f32", "f64"])
@pytest.mark.parametrize("name", UNARY)
def test_function_of_zeros_infinities_and_subnormals_is_that_of_numpy(name: str, type: str, machine: str):
    dtype = np.dtype("float32" if type == "f32" else "float64")
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0, tiny, 3 * tiny, np.finfo(dtype).tiny, 1, 2, np.finfo(dtype).max, np.inf, np.nan], dtype)
    x = np.concatenate([x, -x])
    if type == "f64" and name in ("sin", "cos"):
        x = x[np.abs(x) != np.finfo(dtype).max]  # beyond what is promised
    got = apply(name, type, x, expansions=EXPANSIONS, machine=machine)
    with np.errstate(all="ignore"):
        want = (NUMPY.get(name) or getattr(np, name))(x).astype(dtype)
    close = np.isclose(got, want, rtol=2 * float(np.finfo(dtype).eps), atol=0, equal_nan=True)
    wrong = np.flatnonzero(~close | (np.isfinite(want) & (np.signbit(got) != np.signbit(want))))
    assert not wrong.size, [(x[i], got[i], want[i]) for i in wrong]


def test_f64_trigonometry_beyond_its_range_is_nan():
    x = np.array([2.0**48, np.nextafter(2.0**48, np.inf), -1e300])
    assert np.isnan(apply("sin", "f64", x, expansions=EXPANSIONS)).tolist() == [False, True, True]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("type", ["f32", "f64"])
def test_pow_of_special_values_is_that_of_numpy(type: str, machine: str):
    dtype = np.dtype("float32" if type == "f32" else "float64")
    most, tiny = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    values = [
        0.0,
        math.inf,
        math.nan,
        1,
        2,
        3,
        0.5,
        2.5,
        1 - 2.0**-20,
        1 + 2.0**-20,
        33554431,
        2.0**24,
        most,
        tiny,
    ]
    values = np.array([sign * value for value in values for sign in (1, -1)], dtype)
    x, y = (side.ravel() for side in np.meshgrid(values, values))
    got = apply("pow", type, x, y, expansions=EXPANSIONS, machine=machine)
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    close = np.isclose(got, want, rtol=2 * float(np.finfo(dtype).eps), atol=0, equal_nan=True)
    wrong = np.flatnonzero(~close | (~np.isnan(want) & (np.signbit(got) != np.signbit(want))))
    assert not wrong.size, [(x[i], y[i], got[i], want[i]) for i in wrong[:5]]


def power_operands(count: int, dtype: np.dtype, log_most: float) -> tuple[np.ndarray, np.ndarray]:
    """Positive numbers, of all sizes and near 1, to powers that just fit."""
    print(f"TG_SEED={SEED}")
    random = np.random.default_rng(SEED)
    x = np.exp(random.uniform(-log_most, log_most, count))
    x[: count // 3] = 1 + random.uniform(-0.1, 0.1, count // 3)
    x = x.astype(dtype)
    return x, (random.uniform(-1, 1, count) * log_most / np.abs(np.log(x.astype(np.float64)))).astype(dtype)


@pytest.mark.parametrize("machine", MACHINES)
def test_f32_pow_of_random_operands_is_within_its_bound(machine: str):
    x, y = power_operands(100_000, np.dtype(np.float32), 88.0)
    error = errors(
        apply("pow", "f32", x, y, expansions=EXPANSIONS, machine=machine), exact_f32("power", x, y)
    )
    at = int(error.argmax())
    assert error[at] <= ULP_F32["pow"], (x[at], y[at], error[at])


def f64_arguments(name: str, count: int) -> np.ndarray:
    """Where the function is neither constant nor the identity, and near where it is hard."""
    print(f"TG_SEED={SEED}")
    random = np.random.default_rng(SEED)
    span = {
        "exp": (-745, 709), "exp2": (-1074, 1023), "expm1": (-40, 709), "log": (0.5, 2), "log2": (0.5, 2),
        "log1p": (-0.999, 2), "sin": (-(2**48), 2**48), "cos": (-(2**48), 2**48), "atan": (-3, 3),
        "tanh": (-20, 20), "erf": (-6, 6),
    }[name]  # fmt: skip
    near = random.uniform(-1, 1, count)
    sizes = np.exp(random.uniform(-30, 30, count)) * (1 if "log" in name else np.sign(near))
    turns = np.round(near * 1e6) * np.pi / 2
    small = 1 + near * 1e-3 if name in ("log", "log2") else near * 0.99
    x = [random.uniform(*span, count), small, turns if name in ("sin", "cos") else sizes]
    return np.concatenate(x)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", [*UNARY, "pow"])
def test_f64_function_of_random_arguments_is_within_two_ulps(name: str, machine: str):
    mpmath = pytest.importorskip("mpmath", reason="mpmath is the witness for f64")
    operands = (
        (f64_arguments(name, 250),) if name != "pow" else power_operands(600, np.dtype(np.float64), 708.0)
    )
    special = {"atan": mpmath.atan, "exp2": lambda x: mpmath.mpf(2) ** x, "log2": lambda x: mpmath.log(x, 2)}
    function = special.get(name) or getattr(mpmath, "power" if name == "pow" else name)
    got = apply(name, "f64", *operands, expansions=EXPANSIONS, machine=machine)
    with mpmath.workprec(250):
        for *args, result in zip(*operands, got, strict=True):
            exact = function(*[mpmath.mpf(float(x)) for x in args])
            rounded = float(exact)
            if math.isinf(rounded) or math.isinf(result):
                assert rounded == result, args
                continue
            unit = mpmath.ldexp(1, max(math.frexp(rounded)[1] - 53, -1074))
            assert abs(mpmath.mpf(float(result)) - exact) <= ULP_F64 * unit, (args, result, rounded)


def test_polynomials_fitted_again_are_the_same():
    pytest.importorskip("mpmath", reason="mpmath fits the polynomials")
    tool = runpy.run_path(str(ROOT / "tools/fit_polynomials.py"))
    text = Path(polynomials.__file__).read_text()
    assert text.startswith(tool["HEAD"]) and text.count("(") >= len(tool["ROWS"])
    for row in tool["make_rows"](["exp", "sin", "pow_log2"]):
        assert row in text
