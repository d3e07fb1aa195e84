"""Machine IR compiled for x86-64 and run, against its interpreter, for every level that this CPU has."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("numpy", reason="the interpreter of the machine IR needs NumPy")
import numpy as np
from x86_64_run import LEVELS, run

from tg_codegen.machine.build import Builder
from tg_codegen.machine.expand import EXPANSIONS
from tg_codegen.machine.interpret import DTYPE, interpret
from tg_codegen.machine.nodes import DATA, FLOATS, INDEX, INTEGERS, MEMORY_BYTES, OPS, Address, Function, Reg
from tg_codegen.x86_64.backend import compile_function, expansions, lanes
from tg_ir.dtypes import dtype_of
from tg_ir.numpy_dtypes import numpy_dtype

SEED = int(os.environ.get("TG_SEED", "20261122"))
ROUNDS = 6
NUMBER = {type: numpy_dtype(DTYPE[type]) for type in DATA}
SPECIAL = {
    "f": [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 0.5, 1.5, 2.5, -0.5, -2.5, 1e-42, 3e38, 2.0**31, 2.0**32,
          -(2.0**31), 2.0**63, 2.0**64, -(2.0**63), 2147483647.0, 4294967295.5, -0.99, -1.5, 9007199254740993.0],
    "i": [0, 1, -1, 2, 31, 32, 33, 63, 64, 65, 127, 255, 1 << 31, (1 << 31) - 1, 1 << 63, (1 << 63) - 1, 1 << 53,
          (1 << 53) + 1, (1 << 54) + 3, (1 << 40) + 1, 0x7FFFFFBFFFFFFFFF],
}  # fmt: skip


def random_data(rng: np.random.Generator, type: str, count: int) -> np.ndarray:
    """Bits at random, small numbers, and special values."""
    dtype = NUMBER[type]
    if type == "bool":
        return rng.random(count) < 0.5
    unsigned = np.dtype(f"u{dtype.itemsize}")
    data = rng.integers(0, np.iinfo(unsigned).max, count, unsigned, endpoint=True).view(dtype)
    if type in FLOATS:
        near, special = (
            (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 12, count)),
            np.array(SPECIAL["f"]),
        )
    else:
        mask = (1 << 8 * dtype.itemsize) - 1
        near = rng.integers(-100, 100, count)
        special = np.array([x & mask for x in SPECIAL["i"]], unsigned).view(dtype)
    pick = rng.integers(0, 3, count)
    with np.errstate(all="ignore"):
        return np.where(
            pick == 0, data, np.where(pick == 1, near.astype(dtype), rng.choice(special, count).astype(dtype))
        )


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function and its registers' allocation are verified as they are compiled."""
    monkeypatch.setenv("TG_VERIFY", "1")


def compiled(function: Function, level: str) -> bytes:
    return compile_function(function, level)[0]


def builder(name: str, level: str, scratch_bytes: int = 0) -> tuple[Function, Builder]:
    function = Function(name, lanes(level), scratch_bytes=scratch_bytes)
    return function, Builder(function, expansions(level))


def buffer(b: Builder, number: int) -> Reg:
    return b.emit("buffer", INDEX, attr=number)


def same(got: list[np.ndarray], want: list[np.ndarray], ulps: int = 0) -> None:
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if g.dtype.kind == "f":
            assert np.array_equal(g, w, equal_nan=True), (i, g[g != w], w[g != w])
        else:
            assert np.array_equal(g, w), (i, np.flatnonzero(g != w), g[g != w], w[g != w])


def both(
    function: Function, level: str, buffers: list[np.ndarray], scalars=(), begin: int = 0, end: int = 1
) -> None:
    """Run native and interpreted code on copies; the results are the same."""
    want = [x.copy() for x in buffers]
    interpret(function, want, scalars, begin, end)
    got = [x.copy() for x in buffers]
    run(compiled(function, level), got, scalars, begin, end)
    same(got, want)


def operation_rows() -> list[tuple[str, str, tuple[str, ...]]]:
    """(operation, type of the result, types of the operands), expanded or not."""
    rows = []
    number, data = (*INTEGERS, *FLOATS), DATA
    for op, types in {
        "neg": number, "abs": number, "not": ("bool", *INTEGERS), "sqrt": FLOATS, "floor": FLOATS, "ceil": FLOATS,
        "trunc": FLOATS, "round": FLOATS, "splat": data,
    }.items():  # fmt: skip
        rows += [(op, type, (type,)) for type in types]
    for op, types in {
        "add": number, "sub": number, "mul": number, "div": FLOATS, "minimum": FLOATS, "maximum": FLOATS,
        "min": INTEGERS, "max": INTEGERS, "mulhi": INTEGERS[:2], "and": ("bool", *INTEGERS), "or": ("bool", *INTEGERS),
        "xor": ("bool", *INTEGERS), "shl": INTEGERS, "shr": INTEGERS,
    }.items():  # fmt: skip
        rows += [(op, type, (type, type)) for type in types]
    rows += [(op, "bool", (type, type)) for op in ("lt", "le", "eq", "ne") for type in number]
    rows += [("select", type, ("bool", type, type)) for type in data]
    rows += [("fma", type, (type,) * 3) for type in FLOATS]
    rows += [("convert", to, (type,)) for type in number for to in number if to != type]
    rows += [(op, type, (type,) * OPS[op].arity) for op, type in EXPANSIONS if " " not in op]
    rows += [("bitcast", to, (type,)) for type in number for to in number if to[1:] == type[1:]]
    return list(dict.fromkeys(rows))


def load(b: Builder, type: str, number: int, at: Reg) -> Reg:
    dtype = DTYPE[type]
    return b.load(
        type,
        dtype.name,
        Address(buffer(b, number), at, 1 if type == "bool" else NUMBER[type].itemsize),
        "lanes",
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("op", "type", "operands"), operation_rows(), ids=lambda x: str(x))
def test_operation_on_random_and_special_values_is_as_interpreted(op, type, operands, level):
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    n = lanes(level)
    inputs = [random_data(rng, t, ROUNDS * n) for t in operands]
    constants = [data[0] for data in inputs]
    function, b = builder(op, level)
    outputs = []
    with b.loop(0, ROUNDS * n, n) as at:
        args = [load(b, t, i, at) for i, t in enumerate(operands)]
        variants = [args]
        for i, t in enumerate(operands):  # each operand as a constant
            if t != "bool":
                bits = int(constants[i].view(f"u{NUMBER[t].itemsize}"))
                variants.append([*args[:i], b.const(t, bits), *args[i + 1 :]])
        for which, variant in enumerate(variants):
            result = b.emit(op, type, *variant)
            place = Address(
                buffer(b, len(inputs) + which), at, 1 if type == "bool" else NUMBER[type].itemsize
            )
            b.store(DTYPE[type].name, place, "lanes", result)
            outputs.append(np.zeros(ROUNDS * n, NUMBER[type]))
    both(function, level, [*inputs, *outputs])


MEMORY = {
    "bool": ("bool",), "i32": ("int8", "int16", "int32"), "u32": ("uint8", "uint16", "uint32"), "i64": ("int64",),
    "u64": ("uint64",), "f32": ("float32", "float16", "bfloat16", "float8_e4m3fn"), "f64": ("float64",),
}  # fmt: skip


def elements(rng: np.random.Generator, memory: str, count: int) -> np.ndarray:
    if memory == "bool":
        return rng.random(count) < 0.5
    if memory.startswith(("float8", "bfloat16")):
        bits = rng.integers(0, 256, count * MEMORY_BYTES[memory], np.uint8)
        return bits.view(numpy_dtype(dtype_of(memory)))
    if memory.startswith("float"):
        return rng.standard_normal(count).astype(memory)
    return rng.integers(0, 256, count * np.dtype(memory).itemsize, np.uint8).view(memory)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("type", "memory"), [(t, m) for t, names in MEMORY.items() for m in names])
def test_masked_access_at_the_end_of_a_page_is_as_interpreted(type, memory, level):
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    n = lanes(level)
    for count in (0, 1, n - 1, n):  # lanes beyond would touch the guard page
        for access in ("lanes", "one"):
            for with_other in (False, True):
                function, b = builder("masked", level)
                x, other, out = (
                    elements(rng, memory, max(count, 1)),
                    random_data(rng, type, n),
                    elements(rng, memory, max(count, 1)),
                )
                mask = b.emit("mask", "bool", b.emit("scalar", INDEX))
                if access == "one":
                    mask = b.emit("all", "bool", b.emit("scalar", INDEX))
                held = load(b, type, 1, b.index(0)) if with_other else None
                value = b.load(type, memory, Address(buffer(b, 0)), access, mask, held)
                b.store(DTYPE[type].name, Address(buffer(b, 3)), "lanes", value)
                b.store(memory, Address(buffer(b, 2)), access, value, mask)
                both(function, level, [x[: max(count, 1)], other, out, np.zeros(n, NUMBER[type])], [count])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("type", "memory"), [(t, m) for t, names in MEMORY.items() for m in names])
@pytest.mark.parametrize("each", INTEGERS)
def test_gather_and_scatter_are_as_interpreted(type, memory, each, level):
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    n, size = lanes(level), 40
    for masked in (False, True):
        function, b = builder("gather", level)
        x, out = elements(rng, memory, size), elements(rng, memory, size)
        places = rng.integers(0, size - 3, n).astype(NUMBER[each])
        allowed = rng.random(n) < 0.6
        if masked:
            places[~allowed] = 1 << 30  # would fault
        index = load(b, each, 1, b.index(0))
        mask = load(b, "bool", 3, b.index(0)) if masked else None
        start = b.emit("scalar", INDEX)
        width = x.itemsize
        value = b.load(type, memory, Address(buffer(b, 0), start, width, width, index), "each", mask)
        b.store(memory, Address(buffer(b, 2), start, width, 0, index), "each", value, mask)
        b.store(DTYPE[type].name, Address(buffer(b, 4)), "lanes", value)
        both(function, level, [x, places, out, allowed, np.zeros(n, NUMBER[type])], [2])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("type", DATA)
def test_lanes_moved_down_and_up_are_as_interpreted(type, level):
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    n = lanes(level)
    function, b = builder("lanes", level)
    inputs = [random_data(rng, type, n) for _ in range(2)]
    x, y = (load(b, type, i, b.index(0)) for i in range(2))
    outputs = []
    for by in range(n + 1):
        moved = [b.emit("up", type, x, y, attr=by)]
        down = b.emit("down", type, x, attr=by)
        if by < n:
            moved.append(b.emit("up", type, down, y, attr=by))  # the lanes that hold anything are not seen
            if by:
                moved[-1] = b.emit(
                    "up", type, b.emit("down", type, b.emit("up", type, x, y, attr=by), attr=by), y, attr=by
                )
        for value in moved:
            b.store(DTYPE[type].name, Address(buffer(b, 2 + len(outputs))), "lanes", value)
            outputs.append(np.zeros(n, NUMBER[type]))
    both(function, level, [*inputs, *outputs])


@pytest.mark.parametrize("level", LEVELS)
def test_lane_broadcast_first_mask_and_all_are_as_interpreted(level):
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    n = lanes(level)
    for number in (0, 1, 3, n, n + 5, -4, 1 << 33, (1 << 63) - 1, -(1 << 63)):
        function, b = builder("lanes", level)
        x = [random_data(rng, type, n) for type in INTEGERS]
        outputs = []

        def keep(value: Reg) -> None:
            b.store(DTYPE[value.type].name, Address(buffer(b, 4 + len(outputs))), "lanes", value)
            outputs.append(np.zeros(n, NUMBER[value.type]))

        index = b.emit("scalar", INDEX)
        keep(b.emit("lane", "i32"))
        keep(b.emit("mask", "bool", index))
        keep(b.emit("all", "bool", index))
        for i, type in enumerate(INTEGERS):
            keep(b.emit("broadcast", type, index))
            keep(b.emit("broadcast", "i64", b.emit("first", INDEX, load(b, type, i, b.index(0)))))
        for bits in (1, 7, 8, 16, 31, 32):
            for i, type in enumerate(INTEGERS[:2]):
                keep(b.emit("extend", type, load(b, type, i, b.index(0)), attr=bits))
        both(function, level, [*x, *outputs], [number])


INDEX_ROWS = ("add", "sub", "mul", "floordiv", "mod", "min", "max", "lt", "le", "eq", "ne")
DIVISORS = (1, 2, 3, 5, 6, 7, 8, 10, 12, 641, 1 << 20, 1 << 31, (1 << 31) - 1, (1 << 33) + 7, -1, -3, -8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("op", INDEX_ROWS)
def test_index_operation_is_as_interpreted(op, level):
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    n = lanes(level)
    big = [int(x) for x in rng.integers(-(1 << 63), (1 << 63) - 1, 2)]
    numbers = [0, -1, 7, -8, (1 << 63) - 1, -(1 << 63), *big]
    for a in numbers:
        function, b = builder("index", level)
        x = b.emit("scalar", INDEX)
        y = b.emit("scalar", INDEX, attr=1)
        results = [b.emit(op, INDEX, x, y), b.emit(op, INDEX, x, x)]
        results += [b.emit(op, INDEX, x, b.index(d)) for d in DIVISORS]
        results += [b.emit(op, INDEX, b.index(d), y) for d in DIVISORS[:6]]
        condition = b.emit("or", INDEX, b.emit("lt", INDEX, x, y), b.emit("eq", INDEX, y, b.index(7)))
        results += [b.emit("select", INDEX, condition, x, y), b.emit("neg", INDEX, x), condition]
        results += [b.emit("select", INDEX, b.emit("le", INDEX, x, b.index(3)), y, x)]
        for i, result in enumerate(results):
            wide = b.emit("broadcast", "i64", result)
            b.store("int64", Address(buffer(b, 0), disp=8 * n * i), "lanes", wide)
        code, out, want = (
            compiled(function, level),
            np.zeros(n * len(results), np.int64),
            np.zeros(n * len(results), np.int64),
        )
        for second in numbers:
            interpret(function, [want], [a, second])
            run(code, [out], [a, second])
            assert np.array_equal(out, want), (a, second, np.flatnonzero(out != want) // n)


# ---- whole functions


def random_graph(rng: np.random.Generator, b: Builder, values: dict[str, list[Reg]], count: int) -> None:
    """More values, of random operations on what there is."""
    number = (*INTEGERS, *FLOATS)
    for _ in range(count):
        type = str(rng.choice(number))

        def pick(type: str) -> Reg:
            return values[type][int(rng.integers(len(values[type])))]

        match int(rng.integers(8)):
            case 0 | 1 | 2:
                op = str(rng.choice(["add", "sub", "mul"]))
                made = b.emit(op, type, pick(type), pick(type))
            case 3 if type in FLOATS:
                made = b.emit("fma", type, pick(type), pick(type), pick(type))
            case 3 | 4:
                made = b.emit(
                    str(rng.choice(["maximum", "minimum"] if type in FLOATS else ["max", "min", "xor"])),
                    type,
                    pick(type),
                    pick(type),
                )
            case 5:
                made = b.emit(str(rng.choice(["lt", "le", "eq", "ne"])), "bool", pick(type), pick(type))
            case 6:
                made = b.emit("select", type, pick("bool"), pick(type), pick(type))
            case _:
                made = b.emit(str(rng.choice(["and", "or", "xor"])), "bool", pick("bool"), pick("bool"))
        values[made.type].append(made)


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("which", range(6))
def test_random_graph_with_many_live_values_is_as_interpreted(which, level):
    rng = np.random.default_rng(SEED + which)
    print(f"TG_SEED={SEED}, graph {which}")
    n, rounds = lanes(level), 3
    function, b = builder("graph", level)
    inputs = [random_data(rng, type, rounds * n) for type in DATA for _ in range(3)]
    outputs = []
    with b.loop(0, rounds * n, n) as at:
        values: dict[str, list[Reg]] = {type: [] for type in DATA}
        for i, x in enumerate(inputs):
            type = next(t for t in DATA if NUMBER[t] == x.dtype)
            values[type].append(load(b, type, i, at))
        random_graph(rng, b, values, 120)
        for type in DATA:  # all are live until here
            for value in values[type]:
                place = Address(buffer(b, len(inputs) + len(outputs)), at, NUMBER[type].itemsize)
                b.store(DTYPE[type].name, place, "lanes", value)
                outputs.append(np.zeros(rounds * n, NUMBER[type]))
    both(function, level, [*inputs, *outputs])


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("which", range(6))
def test_nested_loops_that_carry_and_exchange_values_are_as_interpreted(which, level):
    rng = np.random.default_rng(SEED + 100 + which)
    print(f"TG_SEED={SEED}, program {which}")
    n = lanes(level)
    function, b = builder("loops", level)
    x = random_data(rng, "f32", 16 * n)
    y = random_data(rng, "i64", 16 * n)
    outer = [b.carry(b.const("f32", 0x3F800000 + i)) for i in range(3)] + [
        b.carry(b.const("i64", i)) for i in range(3)
    ]
    count = b.carry(b.index(5))
    rows, columns = b.emit("scalar", INDEX), b.emit("scalar", INDEX, attr=1)
    with b.loop(0, rows, 1, carried=(*outer, count)) as row:
        inner = [b.carry(value) for value in (outer[0], outer[3])]
        with b.loop(row, columns, 2, carried=inner) as column:
            place = b.emit("mod", INDEX, b.emit("add", INDEX, row, column), b.index(15))
            f = b.load(
                "f32", "float32", Address(buffer(b, 0), b.emit("mul", INDEX, place, b.index(n)), 4), "lanes"
            )
            i = b.load(
                "i64", "int64", Address(buffer(b, 1), b.emit("mul", INDEX, place, b.index(n)), 8), "lanes"
            )
            a = b.emit("fma", "f32", f, outer[1], inner[0])
            again = b.emit("fma", "f32", f, a, a) if which % 2 else a
            c = b.emit("add", "i64", b.emit("xor", "i64", i, inner[1]), outer[4])
            b.assign(tuple(inner), (again, c))
            with b.when(
                b.emit(
                    "and",
                    INDEX,
                    b.emit("lt", INDEX, column, b.index(9)),
                    b.emit("ne", INDEX, row, b.index(2)),
                )
            ):
                b.store(
                    "float32", Address(buffer(b, 2), b.emit("mul", INDEX, place, b.index(n)), 4), "lanes", a
                )
        following = b.emit("add", INDEX, count, row)
        if which % 3 == 0:
            b.assign(tuple(outer), (outer[1], outer[2], inner[0], outer[5], inner[1], outer[3]))
        else:
            b.assign(
                (outer[0], outer[3]),
                (b.emit("add", "f32", inner[0], outer[1]), b.emit("sub", "i64", outer[3], inner[1])),
            )
            b.assign((outer[1], outer[0]), (outer[0], outer[1]))
        b.assign((count,), (following,))
    for k, value in enumerate((*outer, b.emit("broadcast", "i64", count))):
        b.store(DTYPE[value.type].name, Address(buffer(b, 3 + k)), "lanes", value)
    outputs = [np.zeros(16 * n, np.float32)] + [np.zeros(n, t) for t in [np.float32] * 3 + [np.int64] * 4]
    for rows_, columns_ in ((0, 3), (1, 1), (7, 12)):
        both(function, level, [x, y, *outputs], [rows_, columns_])


@pytest.mark.usefixtures("verified")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("which", range(4))
def test_random_indices_with_many_live_values_are_as_interpreted(which, level):
    rng = np.random.default_rng(SEED + 200 + which)
    print(f"TG_SEED={SEED}, program {which}")
    n = lanes(level)
    function, b = builder("indices", level)
    live = [b.emit("scalar", INDEX, attr=i) for i in range(6)] + [b.index(3), b.index(1 << 40)]
    kept: list[Reg] = []

    def grow(count: int) -> None:
        for _ in range(count):
            op = str(rng.choice(["add", "sub", "mul", "min", "max", "floordiv", "mod", "select", "neg"]))
            x, y, z = (live[int(i)] for i in rng.integers(0, len(live), 3))
            if op in ("floordiv", "mod"):
                live.append(
                    b.emit(
                        op, INDEX, x, b.index(int(rng.choice([3, 7, 8, 10, -5]))) if rng.random() < 0.7 else y
                    )
                )
            elif op == "select":
                condition = b.emit(str(rng.choice(["lt", "le", "eq", "ne"])), INDEX, x, y)
                if rng.random() < 0.5:
                    condition = b.emit(
                        str(rng.choice(["and", "or"])), INDEX, condition, b.emit("lt", INDEX, y, z)
                    )
                live.append(b.emit("select", INDEX, condition, y, z))
            else:
                live.append(b.emit(op, INDEX, x) if op == "neg" else b.emit(op, INDEX, x, y))

    def keep(values: list[Reg]) -> None:
        for value in values:
            b.store(
                "int64", Address(buffer(b, 0), disp=8 * len(kept)), "one", b.emit("broadcast", "i64", value)
            )
            kept.append(value)

    grow(16)
    carried = [b.carry(value) for value in live[-4:]]
    with b.loop(0, b.emit("mod", INDEX, live[0], b.index(4)), carried=carried) as i:
        with b.loop(i, b.index(6), 2) as j:
            live += [i, j, *carried]
            before = len(live)
            grow(16)
            inner = live[before:]
            with (
                b.when(b.emit("lt", INDEX, j, inner[0])),
                b.when(
                    b.emit("and", INDEX, b.emit("le", INDEX, i, j), b.emit("ne", INDEX, inner[1], inner[2]))
                ),
            ):
                keep(inner[3:])
            del live[before - len(carried) - 2 :]
        b.assign(tuple(carried), (carried[1], b.emit("add", INDEX, carried[0], i), carried[3], carried[2]))
    keep([*live, *carried])
    numbers = [int(x) for x in rng.integers(-1000, 1000, 6)]
    both(function, level, [np.zeros(len(kept) + n, np.int64)], numbers)


@pytest.mark.parametrize("level", LEVELS)
def test_scratch_memory_is_read_after_it_is_written(level):
    n = lanes(level)
    function, b = builder("scratch", level, scratch_bytes=8 * n)
    x = np.arange(2 * n, dtype=np.float32)
    first = b.emit("scratch", INDEX)
    second = b.emit("add", INDEX, first, b.index(4 * n))
    zero = b.const("f32", 0)
    b.store("float32", Address(first), "lanes", zero, volatile=True)
    b.store("float32", Address(second), "lanes", zero, volatile=True)
    with b.loop(0, 2 * n, n) as at:
        part = b.load("f32", "float32", Address(buffer(b, 0), at, 4), "lanes")
        old = b.load("f32", "float32", Address(first), "lanes", volatile=True)
        b.store("float32", Address(first), "lanes", part, volatile=True)
        new = b.load("f32", "float32", Address(first), "lanes", volatile=True)
        total = b.load("f32", "float32", Address(second), "lanes", volatile=True)
        b.store(
            "float32",
            Address(second),
            "lanes",
            b.emit("add", "f32", total, b.emit("sub", "f32", new, old)),
            volatile=True,
        )
    b.store(
        "float32",
        Address(buffer(b, 1)),
        "lanes",
        b.load("f32", "float32", Address(second), "lanes", volatile=True),
    )
    both(function, level, [x, np.zeros(n, np.float32)])


def test_amx_level_computes_as_avx512_does():
    made = []
    for level in ("avx512", "amx"):
        function, b = builder("copy", level)
        b.store(
            "float32", Address(buffer(b, 1)), "lanes", b.emit("exp", "f32", load(b, "f32", 0, b.index(0)))
        )
        made.append(compiled(function, level))
    assert made[0] == made[1]
