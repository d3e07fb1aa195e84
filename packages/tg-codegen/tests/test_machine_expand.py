"""What `EXPANSIONS` makes of operations that a target lacks, against NumPy, Python's integers and tg_ir.dtypes."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("numpy", reason="the interpreter of the machine IR needs NumPy")
import numpy as np
from machine_apply import MACHINES, apply, build, check

from tg_codegen.machine.build import Builder
from tg_codegen.machine.expand import EXPANSIONS
from tg_codegen.machine.interpret import interpret
from tg_codegen.machine.nodes import INDEX, Address, Function, Instr, Loop
from tg_ir.dtypes import dtype_of
from tg_ir.numeric import evaluate_elementwise
from tg_ir.numpy_dtypes import decode, encode, numpy_dtype

SEED = int(os.environ.get("TG_SEED", "20261122"))
WITH_WIDE_MUL = {key: made for key, made in EXPANSIONS.items() if key[0] != "mul"}
WITH_MULHI = {key: made for key, made in EXPANSIONS.items() if key[0] != "mulhi"}

INTEGERS = {"i32": "int32", "u32": "uint32", "i64": "int64", "u64": "uint64"}
FLOATS = {"f32": "float32", "f64": "float64"}
NARROW = [key[0].split()[1] for key in EXPANSIONS if key[0].startswith("encode ")]


def rng() -> np.random.Generator:
    print(f"TG_SEED={SEED}")
    return np.random.default_rng(SEED)


def operations(function: Function) -> set[str]:
    """The names of all operations in a function."""

    def walk(body: list) -> set[str]:
        names = {s.op for s in body if isinstance(s, Instr)}
        return names.union(*[walk(s.body) for s in body if isinstance(s, Loop)])

    return walk(function.body)


def integers(type: str, count: int) -> np.ndarray:
    """Random integers of all sizes, and the edges of the type."""
    dtype, random = np.dtype(INTEGERS[type]), rng()
    limits = np.iinfo(dtype)
    edges = [
        0,
        1,
        2,
        3,
        limits.max,
        limits.max - 1,
        limits.min,
        limits.min + 1,
        limits.max // 2,
        limits.max // 2 + 1,
    ]
    edges += [limits.max - n for n in (2, 3, 4)] + ([-1, -2, -3] if limits.min else [])
    bits = random.integers(0, 1 << 63, count, np.uint64) * np.uint64(2) + random.integers(
        0, 2, count, np.uint64
    )
    bits >>= random.integers(0, 8 * dtype.itemsize, count, np.uint64) + np.uint64(64 - 8 * dtype.itemsize)
    values = bits.astype(dtype)
    if limits.min:
        values = np.where(random.random(count) < 0.5, -values, values)
    return np.concatenate([np.array(edges, dtype), values.astype(dtype)])


def pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first with the first 20, and all in pairs by chance."""
    first, second = (side.ravel() for side in np.meshgrid(values[:20], values[:20]))
    random = np.random.default_rng(SEED)
    return np.concatenate([first, values]), np.concatenate([second, random.permutation(values)])


@pytest.mark.parametrize("machine", ["mulhi", *MACHINES])
@pytest.mark.parametrize("type", INTEGERS)
@pytest.mark.parametrize("op", ["floordiv", "mod", "mul", "pow"])
def test_integer_operation_is_that_of_tg_ir(op: str, type: str, machine: str):
    x, y = pairs(integers(type, 2000))
    if op == "pow":
        y = np.where(np.arange(y.size) % 3 == 0, y, y % y.dtype.type(70)).astype(y.dtype)
    want = evaluate_elementwise(op, [x, y], dtype_of(INTEGERS[type]))
    if machine == "mulhi":
        got = apply(op, type, x, y, expansions=WITH_MULHI)
    else:
        got = apply(op, type, x, y, expansions=WITH_WIDE_MUL, machine=machine)
    wrong = np.flatnonzero(got != want)
    assert not wrong.size, [(x[i], y[i], got[i], want[i]) for i in wrong[:5]]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("type", INTEGERS)
def test_integer_division_by_a_constant_is_exact(type: str, machine: str):
    dtype, bits = np.dtype(INTEGERS[type]), int(type[1:])
    limits = np.iinfo(dtype)
    x = integers(type, 300)
    divisors = {*range(13), 25, 60, 64, 100, 125, 641, 1000, 1 << 20, 12345678, *map(int, integers(type, 30))}
    for divisor in sorted(divisors):
        near = [divisor * k + e for k in range(-6, 6) for e in (-1, 0, 1)]
        near += [limits.max - limits.max % divisor + e for e in (-1, 0)] if divisor else []
        values = np.concatenate([x, np.array([n for n in near if limits.min <= n <= limits.max], dtype)])
        for op in ("floordiv", "mod"):
            got = apply(
                op, type, values, divisor & ((1 << bits) - 1), expansions=WITH_WIDE_MUL, machine=machine
            )
            want = evaluate_elementwise(op, [values, np.full_like(values, divisor)], dtype_of(INTEGERS[type]))
            wrong = np.flatnonzero(got != want)
            assert not wrong.size, [(op, values[i], divisor, got[i], want[i]) for i in wrong[:5]]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("type", ["i32", "u32"])
def test_mulhi_from_wide_products_is_exact(type: str, machine: str):
    x, y = pairs(integers(type, 500))
    want = [(int(p) * int(q)) >> 32 for p, q in zip(x, y, strict=True)]
    assert apply("mulhi", type, x, y, expansions=WITH_WIDE_MUL, machine=machine).tolist() == want


@pytest.mark.parametrize("type", INTEGERS)
def test_integer_power_with_a_constant_has_no_loop(type: str):
    x = integers(type, 100)
    expansions = WITH_WIDE_MUL
    for exponent in (0, 1, 2, 3, 10, 31):
        want = evaluate_elementwise("pow", [x, np.full_like(x, exponent)], dtype_of(INTEGERS[type]))
        assert apply("pow", type, x, exponent, expansions=expansions).tolist() == want.tolist()
        function = build("pow", type, 4, [type, exponent], 0, expansions)
        (groups,) = [s for s in function.body if isinstance(s, Loop)]
        assert not any(isinstance(s, Loop) for s in groups.body)


def test_expansion_with_a_loop_is_made_again_where_it_does_not_reach():
    function = Function("powers", 4)
    b = Builder(function, WITH_WIDE_MUL)
    x = b.load("i32", "int32", Address(b.emit("buffer", INDEX, attr=0)), "lanes")
    for number in (1, 2):
        with b.loop(0, 2) as i:
            target = Address(b.emit("buffer", INDEX, attr=number), i, 16)
            b.store("int32", target, "lanes", b.emit("pow", "i32", x, x))
    check(function)
    arrays = np.array([1, 2, 3, -3], np.int32), np.zeros(8, np.int32), np.zeros(8, np.int32)
    interpret(function, arrays)
    assert arrays[1].tolist() == arrays[2].tolist() == 2 * [1, 4, 27, 0]


def float_pairs(type: str) -> tuple[np.ndarray, np.ndarray]:
    """Special values against each other, random bits, and quotients near whole numbers."""
    dtype, random = np.dtype(FLOATS[type]), rng()
    tiny, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    special = [
        0,
        1,
        2,
        3,
        0.5,
        1 / 3,
        7.5,
        1e-30,
        1e30,
        np.inf,
        np.nan,
        tiny,
        5 * tiny,
        np.finfo(dtype).tiny,
        most,
    ]
    values = np.array([sign * value for value in special for sign in (1, -1)], dtype)
    x, y = (side.ravel() for side in np.meshgrid(values, values))
    bits = random.integers(0, 1 << (8 * dtype.itemsize - 1), (2, 4000), np.uint64)
    a, b = bits.astype(f"u{dtype.itemsize}").view(dtype)
    near = random.standard_normal(2000).astype(dtype)
    times = near * random.integers(-1000, 1000, 2000).astype(dtype)
    return np.concatenate([x, a, b, times]), np.concatenate([y, b, -a, near])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("type", FLOATS)
@pytest.mark.parametrize("op", ["floordiv", "mod"])
def test_float_division_is_that_of_numpy(op: str, type: str, machine: str):
    x, y = float_pairs(type)
    want = evaluate_elementwise(op, [x, y], dtype_of(FLOATS[type]))
    got = apply(op, type, x, y, expansions=EXPANSIONS, machine=machine)
    wrong = np.flatnonzero(
        ~((got == want) & (np.signbit(got) == np.signbit(want)) | (np.isnan(got) & np.isnan(want)))
    )
    assert not wrong.size, [(x[i], y[i], got[i], want[i]) for i in wrong[:5]]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("type", FLOATS)
@pytest.mark.parametrize("op", ["minimum", "maximum"])
def test_minimum_and_maximum_keep_nan(op: str, type: str, machine: str):
    x, y = float_pairs(type)
    got = apply(op, type, x, y, expansions=EXPANSIONS, machine=machine)
    assert np.array_equal(got, getattr(np, op)(x, y), equal_nan=True)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NARROW)
def test_decode_of_all_bits_is_that_of_tg_ir(name: str, machine: str):
    dtype = dtype_of(name)
    bits = np.arange(1 << dtype.bits, dtype=np.uint32)
    got = apply("decode", "f32", bits, attr=name, expansions=EXPANSIONS, machine=machine)
    want = decode(bits.astype(f"u{dtype.itemsize}").view(numpy_dtype(dtype)), dtype).astype(np.float32)
    assert np.array_equal(got.view(np.uint32)[~np.isnan(want)], want.view(np.uint32)[~np.isnan(want)])
    assert np.isnan(got[np.isnan(want)]).all()
    garbage = bits | np.uint32(0xABCD << dtype.bits & 0xFFFFFFFF)
    again = apply("decode", "f32", garbage, attr=name, expansions=EXPANSIONS, machine=machine)
    assert np.array_equal(got, again, equal_nan=True)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NARROW)
def test_encode_rounds_to_nearest_even_as_tg_ir(name: str, machine: str):
    dtype = dtype_of(name)
    codes = np.arange(1 << dtype.bits, dtype=np.uint32).astype(f"u{dtype.itemsize}")
    values = decode(codes.view(numpy_dtype(dtype)), dtype).astype(np.float32)
    values = np.unique(values[np.isfinite(values)])
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    with np.errstate(over="ignore"):
        largest = np.float32(dtype.max) * np.array(
            [0.9, 1, 1 + 2.0**-12, 1.01, 1.05, 1.1, 1.5, 2], np.float32
        )
    edges = np.array([np.inf, np.nan, 0, 1e-45, 1e-38, 3.4e38], np.float32)
    x = np.concatenate(
        [values, middles, np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, -middles)]
    )
    sampled = np.arange(0, 1 << 32, 40009, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, sampled, largest, -largest, edges, -edges])
    want = encode(x, dtype)
    want = want.view(f"u{dtype.itemsize}")
    got = apply("encode", "u32", x, attr=name, expansions=EXPANSIONS, machine=machine)
    if name == "float16":  # NumPy and x86-64 keep signs and payloads of NaN
        assert ((got[np.isnan(x)] & 0x7FFF) > dtype.overflow_code).all()
        x, got, want = x[~np.isnan(x)], got[~np.isnan(x)], want[~np.isnan(x)]
    wrong = np.flatnonzero(got != want)
    assert not wrong.size, [(x[i], hex(got[i]), hex(want[i])) for i in wrong[:5]]


def test_expansions_leave_nothing_that_has_to_be_expanded():
    for op, type in EXPANSIONS:
        name, _, dtype = op.partition(" ")
        operand = {"encode": "f32", "decode": "u32"}.get(name, type)
        count = (
            1 if dtype or name not in ("floordiv", "mod", "pow", "minimum", "maximum", "mulhi", "mul") else 2
        )
        for expansions in (WITH_WIDE_MUL, WITH_MULHI):
            function = build(name, type, 4, [operand] * count, dtype or 0, expansions)
            left = {op for op, _ in expansions} - {"mul"}
            assert not operations(function) & left, (op, type)
