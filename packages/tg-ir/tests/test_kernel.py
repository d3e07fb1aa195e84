"""The kernel IR: its interpreter against NumPy, its text, its verifier."""

from __future__ import annotations

import itertools
import math
import pickle
import random

import numpy as np
import pytest

from tg_ir.dtypes import bool_, float32, float64, int32, int64
from tg_ir.errors import EvaluationError, ParseError, VerifyError
from tg_ir.kernel import (
    MONOIDS,
    Argument,
    Axis,
    Cast,
    Const,
    Elementwise,
    Index,
    Kernel,
    Load,
    Loaded,
    Monoid,
    Parameter,
    Part,
    Reduce,
    Scan,
    Store,
    Value,
    format_kernel,
    parse_kernel,
    verify_kernel,
)
from tg_ir.kernel.interpret import interpret_kernel
from tg_ir.symbolic import Variable, evaluate, logical_and, lt


def e(name: str, *args: Value) -> Value:
    return Elementwise(name, args)


def run(kernel: Kernel, scalars: dict[str, int] | None = None, **arrays: np.ndarray) -> None:
    verify_kernel(kernel)
    text = format_kernel(kernel)
    assert parse_kernel(text) == kernel
    assert format_kernel(parse_kernel(text)) == text
    interpret_kernel(kernel, arrays, scalars)


def rows_kernel(monoid: str, dtype=float32, columns: int = 5) -> tuple[Kernel, Axis, Axis]:
    i, k = Axis("i", 3), Axis("k", columns)
    x, y = Parameter("x", dtype, 3 * columns), Parameter("y", dtype, 3, "write")
    fold = Reduce(MONOIDS[monoid](dtype), (k,), (Load.of(x, i.index * columns + k.index),))
    return Kernel("rows", (x, y), (), (Store(y, i.index, Part(fold, 0), (i,)),)), i, k


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
def test_reduce_single_component_equals_numpy(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    y = np.zeros(3, np.float32)
    run(rows_kernel(name)[0], x=x.reshape(-1), y=y)
    np.testing.assert_allclose(y, getattr(np, name)(x, axis=1), rtol=1e-6)


def test_reduce_without_elements_gives_identity() -> None:
    y = np.ones(3, np.float32)
    run(rows_kernel("max", columns=0)[0], x=np.zeros(0, np.float32), y=y)
    assert (y == -np.inf).all()


def test_softmax_as_one_kernel_equals_numpy_for_every_bound_value() -> None:
    n = Variable("n", 1, 9)
    i, j, k = Axis("i", n), Axis("j", 7), Axis("k", 7)
    x, y = Parameter("x", float32, n * 7), Parameter("y", float32, n * 7, "write")
    one = Const.of(1, float32)
    fold = Reduce(MONOIDS["logsumexp"](float32), (k,), (Load.of(x, i.index * 7 + k.index), one))
    value = e("div", e("exp", e("sub", Load.of(x, i.index * 7 + j.index), Part(fold, 0))), Part(fold, 1))
    kernel = Kernel("softmax", (x, y), (n,), (Store(y, i.index * 7 + j.index, value, (i, j)),))
    for rows in (1, 4, 9):
        data = np.random.default_rng(rows).normal(size=(rows, 7)).astype(np.float32) * 20
        out = np.zeros(rows * 7, np.float32)
        run(kernel, {"n": rows}, x=data.reshape(-1), y=out)
        want = np.exp(data - data.max(1, keepdims=True))
        np.testing.assert_allclose(out.reshape(rows, 7), want / want.sum(1, keepdims=True), rtol=1e-5)


def test_online_softmax_monoid_equals_attention() -> None:
    i, d, k = Axis("i", 4), Axis("d", 3), Axis("k", 6)
    s, v = Parameter("s", float64, 24), Parameter("v", float64, 18)
    y = Parameter("y", float64, 12, "write")
    element = (Load.of(s, i.index * 6 + k.index), Const.of(1, float64), Load.of(v, k.index * 3 + d.index))
    fold = Reduce(MONOIDS["online_softmax"](float64), (k,), element)
    store = Store(y, i.index * 3 + d.index, e("div", Part(fold, 2), Part(fold, 1)), (i, d))
    rng = np.random.default_rng(1)
    scores, values, out = rng.normal(size=(4, 6)), rng.normal(size=(6, 3)), np.zeros(12)
    scores[1, 2] = -np.inf
    run(Kernel("attention", (s, v, y), (), (store,)), s=scores.reshape(-1), v=values.reshape(-1), y=out)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(
        out.reshape(4, 3), weights / weights.sum(1, keepdims=True) @ values, rtol=1e-12
    )


def test_welford_monoid_equals_variance() -> None:
    k = Axis("k", 11)
    x, y = Parameter("x", float64, 11), Parameter("y", float64, 1, "write")
    fold = Reduce(
        MONOIDS["welford"](float64), (k,), (Const.of(1, float64), Load.of(x, k.index), Const.of(0, float64))
    )
    data, out = np.random.default_rng(2).normal(size=11) + 1e6, np.zeros(1)
    run(Kernel("variance", (x, y), (), (Store(y, 0, Part(fold, 2), ()),)), x=data, y=out)
    np.testing.assert_allclose(out[0] / 11, data.var(), rtol=1e-9)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_arg_extreme_takes_the_first_of_equals_and_nan_first(name: str) -> None:
    rows = np.array([[1, 3, 3, 0, 0], [2, np.nan, 9, np.nan, -9], [-np.inf] * 5], np.float32)
    i, k = Axis("i", 3), Axis("k", 5)
    x, y = Parameter("x", float32, 15), Parameter("y", int64, 3, "write")
    fold = Reduce(MONOIDS[name](float32), (k,), (Load.of(x, i.index * 5 + k.index), Index(k.index, int64)))
    out = np.zeros(3, np.int64)
    run(Kernel(name, (x, y), (), (Store(y, i.index, Part(fold, 1), (i,)),)), x=rows.reshape(-1), y=out)
    np.testing.assert_array_equal(out, getattr(np, name)(rows, axis=1))


def test_custom_monoid_keeps_its_definition_in_text() -> None:
    a, b = Argument("left", 0, float32), Argument("right", 0, float32)
    largest = Monoid("norm", (Const.of(0, float32),), (e("sqrt", e("add", e("mul", a, a), e("mul", b, b))),))
    k = Axis("k", 4)
    x, y = Parameter("x", float32, 4), Parameter("y", float32, 1, "write")
    kernel = Kernel(
        "norm", (x, y), (), (Store(y, 0, Part(Reduce(largest, (k,), (Load.of(x, k.index),)), 0), ()),)
    )
    out = np.zeros(1, np.float32)
    run(kernel, x=np.array([1, 2, 2, 4], np.float32), y=out)
    assert out[0] == 5


def test_scan_gives_prefixes_in_order() -> None:
    i, j = Axis("i", 2), Axis("j", 5)
    x, y = Parameter("x", int64, 10), Parameter("y", int64, 10, "write")
    index = i.index * 5 + j.index
    store = Store(y, index, Part(Scan(MONOIDS["sum"](int64), j, (Load.of(x, index),)), 0), (i, j))
    out = np.zeros(10, np.int64)
    run(Kernel("cumsum", (x, y), (), (store,)), x=np.arange(10), y=out)
    np.testing.assert_array_equal(out.reshape(2, 5), np.arange(10).reshape(2, 5).cumsum(1))


def test_loaded_index_gathers_and_scatters() -> None:
    i, d = Axis("i", 4), Axis("d", 2)
    table, index = Parameter("table", float32, 10), Parameter("index", int32, 4)
    out = Parameter("out", float32, 8, "write")
    row = Loaded(Load.of(index, i.index), 0, 4)
    gather = Store(out, i.index * 2 + d.index, Load.of(table, row * 2 + d.index), (i, d))
    rows, picks, result = (
        np.arange(10, dtype=np.float32),
        np.array([3, 0, 4, 3], np.int32),
        np.zeros(8, np.float32),
    )
    run(Kernel("gather", (table, index, out), (), (gather,)), table=rows, index=picks, out=result)
    np.testing.assert_array_equal(result.reshape(4, 2), rows.reshape(5, 2)[picks])
    total = Parameter("total", float32, 10, "update")
    source = Parameter("source", float32, 8)
    add = Store(total, row * 2 + d.index, Load.of(source, i.index * 2 + d.index), (i, d), combine="sum")
    sums = np.ones(10, np.float32)
    run(Kernel("scatter", (total, index, source), (), (add,)), total=sums, index=picks, source=result)
    want = np.ones((5, 2), np.float32)
    np.add.at(want, picks, result.reshape(4, 2))
    np.testing.assert_array_equal(sums.reshape(5, 2), want)


def test_guarded_load_reads_other_outside() -> None:
    i = Axis("i", 6)
    x, y = Parameter("x", float32, 4), Parameter("y", float32, 6, "write")
    guard = logical_and(i.index >= 1, i.index <= 4)
    kernel = Kernel("pad", (x, y), (), (Store(y, i.index, Load.of(x, i.index - 1, guard, -1), (i,)),))
    out = np.zeros(6, np.float32)
    run(kernel, x=np.arange(4, dtype=np.float32), y=out)
    np.testing.assert_array_equal(out, [-1, 0, 1, 2, 3, -1])


def test_update_in_place_reads_what_was_there() -> None:
    i = Axis("i", 3)
    x = Parameter("x", float32, 3, "update")
    kernel = Kernel(
        "twice", (x,), (), (Store(x, i.index, e("add", Load.of(x, i.index), Load.of(x, i.index)), (i,)),)
    )
    data = np.array([1, 2, 3], np.float32)
    run(kernel, x=data)
    np.testing.assert_array_equal(data, [2, 4, 6])


def test_values_equal_are_one_object_also_after_pickling() -> None:
    x = Parameter("x", float32, 4)
    i = Axis("i", 4)
    value = e("add", Load.of(x, i.index), Const.of(-0.0, float32))
    assert e("add", Load.of(x, i.index), Const.of(-0.0, float32)) is value
    assert e("add", Load.of(x, i.index), Const.of(0.0, float32)) is not value
    assert Const.of(math.nan, float32) is Const.of(math.nan, float32)
    assert pickle.loads(pickle.dumps(value)) is value
    kernel, _, _ = rows_kernel("max")
    assert pickle.loads(pickle.dumps(kernel)) == kernel


Z = Parameter("z", float32, 4, "update")
I, X, Y = Axis("i", 4), Parameter("x", float32, 4), Parameter("y", float32, 4, "write")
LOAD = Load.of(X, I.index)

BROKEN = {
    "not known to be within": Kernel("k", (X, Y), (), (Store(Y, I.index + 1, LOAD, (I,)),)),
    "neither an axis in scope": Kernel("k", (X, Y), (), (Store(Y, 0, LOAD, ()),)),
    "cast it": Kernel("k", (X, Y), (), (Store(Y, I.index, Index(I.index, int64), (I,)),)),
    "no parameter that may be written": Kernel("k", (X, Y), (), (Store(X, I.index, LOAD, (I,)),)),
    "no parameter that may be read": Kernel("k", (Y,), (), (Store(Y, I.index, Load.of(Y, I.index), (I,)),)),
    "two are called x": Kernel("k", (X, X, Y), (), (Store(Y, I.index, LOAD, (I,)),)),
    "hides another": Kernel(
        "k", (X, Y), (), (Store(Y, I.index, Part(Reduce(MONOIDS["sum"](float32), (I,), (LOAD,)), 0), (I,)),)
    ),
    "no axis of the store": Kernel(
        "k", (X, Y), (), (Store(Y, 0, Part(Scan(MONOIDS["sum"](float32), I, (LOAD,)), 0), ()),)
    ),
    "not where a store over the same axes writes it": Kernel(
        "k", (Z,), (), (Store(Z, I.index, Load.of(Z, 3 - I.index), (I,)),)
    ),
    "want one of '', 'set'": Kernel("k", (X, Y), (), (Store(Y, I.index, LOAD, (I,), combine="xor"),)),
}  # fmt: skip


@pytest.mark.parametrize("message", BROKEN)
def test_verifier_names_the_fault(message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_kernel(BROKEN[message], "a test")


def test_interpreter_refuses_wrong_buffers_and_double_writes() -> None:
    kernel, _, _ = rows_kernel("sum")
    with pytest.raises(EvaluationError, match="want flat float32"):
        interpret_kernel(kernel, {"x": np.zeros(3, np.float32), "y": np.zeros(3, np.float32)})
    double = Kernel("k", (X, Y), (), (Store(Y, I.index // 2, LOAD, (I,)),))
    with pytest.raises(EvaluationError, match="several points"):
        interpret_kernel(double, {"x": np.zeros(4, np.float32), "y": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    "text",
    ["%0 = load", "kernel k\n%0 = frob(%1) : float32", "store y[0] = %0", "%0 = const 1 : float99", "axis i"],
)
def test_parser_says_where_text_is_wrong(text: str) -> None:
    with pytest.raises(ParseError, match="line "):
        parse_kernel(text)


def random_kernel(rng: random.Random) -> Kernel:
    """Elementwise trees over guarded, permuted loads with reductions and scans among them."""
    extents = [rng.randint(1, 4) for _ in range(3)]
    axes = tuple([Axis(f"a{n}", extent) for n, extent in enumerate(extents)])
    size = math.prod(extents)
    inputs = tuple([Parameter(f"x{n}", float64, size) for n in range(2)])
    out = Parameter("y", float64, size, "write")

    def flat(order: list[Axis]) -> object:
        index = 0
        for axis in order:
            index = index * axis.extent + axis.index
        return index

    count = 0

    def value(depth: int, scope: list[Axis]) -> Value:
        nonlocal count
        kind = rng.choice(
            ["load", "guard", "index", "unary", "binary", "where", "reduce", "scan"] if depth else ["load"]
        )
        if kind == "load":
            return Load.of(
                rng.choice(inputs),
                flat(rng.sample(scope, 3)) % size if len(scope) > 3 else flat(rng.sample(scope, 3)),
            )
        if kind == "guard":
            axis = rng.choice(scope)
            return Load.of(
                rng.choice(inputs), axis.index, lt(axis.index, size), rng.choice([0, -1, math.inf])
            )
        if kind == "index":
            return Cast(Index(rng.choice(scope).index * 3 - 1, int32), float64)
        if kind == "unary":
            return e(rng.choice(["neg", "abs", "floor", "tanh"]), value(depth - 1, scope))
        if kind == "binary":
            return e(
                rng.choice(["add", "sub", "mul", "maximum"]), value(depth - 1, scope), value(depth - 1, scope)
            )
        if kind == "where":
            condition = e("lt", value(depth - 1, scope), value(depth - 1, scope))
            assert condition.dtype is bool_
            return e("where", condition, value(depth - 1, scope), value(depth - 1, scope))
        if kind == "scan":
            return Part(Scan(MONOIDS["max"](float64), axes[0], (value(depth - 1, scope),)), 0)
        count += 1
        axis = Axis(f"r{count}", rng.randint(1, 3))
        return Part(
            Reduce(
                MONOIDS[rng.choice(["sum", "min"])](float64), (axis,), (value(depth - 1, [*scope, axis]),)
            ),
            0,
        )

    return Kernel("random", (*inputs, out), (), (Store(out, flat(list(axes)), value(4, list(axes)), axes),))


@pytest.mark.parametrize("seed", range(60))
def test_random_kernels_keep_meaning_through_text_and_a_point_by_point_evaluation(seed: int) -> None:
    kernel = random_kernel(random.Random(seed))
    size = kernel.parameters[0].size
    assert isinstance(size, int)
    rng = np.random.default_rng(seed)
    arrays = {p.name: rng.normal(size=size) for p in kernel.parameters}
    run(kernel, **arrays)
    want = np.zeros(size)
    (store,) = kernel.stores
    for point in itertools.product(*[range(axis.extent) for axis in store.axes]):
        env = {axis.name: place for axis, place in zip(store.axes, point, strict=True)}
        want[at(store.index, env)] = scalar(store.value, env, arrays)
    np.testing.assert_allclose(arrays["y"], want, rtol=1e-12, atol=1e-12, err_msg=format_kernel(kernel))


def at(expr: object, env: dict[str, int]) -> int:
    return int(evaluate(expr, env))


def scalar(value: Value, env: dict[str, int], arrays: dict[str, np.ndarray]) -> float:
    """One value at one point, in plain Python: an evaluator that shares nothing with the interpreter."""
    match value:
        case Const():
            return value.value
        case Index():
            return at(value.expr, env)
        case Cast():
            return float(scalar(value.arg, env, arrays))
        case Load():
            return (
                arrays[value.parameter.name][at(value.index, env)]
                if at(value.guard, env)
                else value.other.value
            )
        case Part():
            fold = value.fold
            axes = fold.axes if isinstance(fold, Reduce) else (fold.axis,)
            stop = axes[0].extent if isinstance(fold, Reduce) else env[axes[0].name] + 1
            items = [scalar(fold.args[0], {**env, axes[0].name: place}, arrays) for place in range(stop)]
            return {"sum": sum, "max": max, "min": min}[fold.monoid.name](items)
        case Elementwise():
            args = [scalar(arg, env, arrays) for arg in value.args]
            return {
                "neg": lambda a: -a, "abs": abs, "floor": lambda a: math.floor(a) if math.isfinite(a) else a,
                "tanh": math.tanh, "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
                "maximum": lambda a, b: math.nan if a != a or b != b else max(a, b), "lt": lambda a, b: a < b,
                "where": lambda a, b, c: b if a else c,
            }[value.name](*args)  # fmt: skip
    raise AssertionError(value)
