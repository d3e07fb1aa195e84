"""The tensor graph: interning, rules, text, verifier, and the interpreter against NumPy."""

from __future__ import annotations

import gc
import math
import random
import threading

import numpy as np
import pytest

from tg_ir import graph
from tg_ir.dtypes import (
    DTYPES,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)
from tg_ir.elementwise import ELEMENTWISE
from tg_ir.errors import (
    DeviceError,
    DTypeError,
    EvaluationError,
    ParseError,
    ShapeError,
    TgError,
    VerifyError,
)
from tg_ir.graph import Node
from tg_ir.graph.interpret import interpret_graph
from tg_ir.graph.nodes import _interned
from tg_ir.numpy_dtypes import compute_dtype, decode, encode, numpy_dtype
from tg_ir.protocols import Buffer
from tg_ir.reference import ReferenceEngine
from tg_ir.symbolic import Variable


def filled(array: np.ndarray, dtype: object = None) -> Node:
    dtype = dtype or {"f": float64, "i": int64, "b": bool_, "u": uint32}[array.dtype.kind]
    node = graph.buffer(array.shape, dtype, "REF")
    node.fill(Buffer(array.shape, dtype, "REF", encode(array.astype(compute_dtype(dtype)), dtype)))
    return node


def value(node: Node, **env: int) -> np.ndarray:
    graph.verify_graph([node])
    return interpret_graph([node], env)[0]


def empty(*shape: int, dtype: object = float32) -> Node:
    return graph.buffer(shape, dtype, "REF")


# ---- nodes -------------------------------------------------------------------------------------------------


def test_equal_expressions_are_one_node() -> None:
    a, b = empty(2, 3), empty(2, 3)
    assert graph.apply("add", a, b) is graph.apply("add", a, b)
    assert graph.apply("add", a, b) is not graph.apply("add", b, a)
    assert graph.reduce(a, "sum", (1, 0)) is graph.reduce(a, "sum", [0, 1])
    assert a is not empty(2, 3)


def test_constants_are_told_apart_by_their_bits() -> None:
    assert graph.const(0.0, float32, "REF") is not graph.const(-0.0, float32, "REF")
    assert graph.const(math.nan, float32, "REF") is graph.const(math.nan, float32, "REF")
    assert graph.const(1, int32, "REF") is not graph.const(True, bool_, "REF")
    assert graph.const(0.1, float32, "REF")["value"] == np.float32(0.1)


def test_nodes_are_forgotten_with_their_last_user() -> None:
    gc.collect()
    before = len(_interned._refs)
    node = empty(4)
    for _ in range(100):
        node = graph.apply("sin", node)
    assert len(_interned._refs) >= before + 100
    del node
    gc.collect()
    assert len(_interned._refs) == before


def test_chains_of_a_hundred_thousand_nodes_need_no_stack() -> None:
    node = empty(1)
    for _ in range(100_000):
        node = graph.apply("neg", node)
    assert len(graph.toposort([node])) == 100_001


def test_interning_from_many_threads_gives_one_node() -> None:
    source = empty(3)
    results: list[list[Node]] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def work(into: list[Node]) -> None:
        start.wait()
        into.extend(graph.reshape(graph.expand(source, (n, 3)), (3 * n,)) for n in range(2, 500))

    threads = [threading.Thread(target=work, args=(into,)) for into in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a is b for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_builders_leave_out_what_does_nothing() -> None:
    a = empty(2, 3)
    assert graph.reshape(graph.reshape(a, (6,)), (2, 3)) is a
    assert graph.permute(graph.permute(a, (1, 0)), (1, 0)) is a
    assert graph.expand(a, (2, 3)) is a
    assert graph.pad(a, [(0, 0), (0, 0)]) is a
    assert graph.shrink(a, [(0, 2), (0, 3)]) is a
    assert graph.flip(a, []) is a
    assert graph.cast(a, float32) is a
    assert graph.copy(a, "REF") is a
    assert graph.reduce(a, "sum", ()) is a


def test_filling_a_pending_buffer_drops_its_history() -> None:
    a = filled(np.arange(3.0))
    pending = graph.buffer((3,), float64, "REF", source=graph.apply("neg", a))
    ReferenceEngine().realize([pending])
    assert pending.inputs == ()
    np.testing.assert_array_equal(value(graph.apply("neg", pending)), np.arange(3.0))


# ---- rules -------------------------------------------------------------------------------------------------


def test_rules_name_what_does_not_fit() -> None:
    a, b, i = empty(2, 3), empty(3, 2), empty(2, 3, dtype=int64)
    n = Variable("n", 1, 8)
    cases = [
        (lambda: graph.apply("add", a, b), ShapeError, r"\(2, 3\) and \(3, 2\)"),
        (lambda: graph.apply("add", a, i), DTypeError, "float32 and int64"),
        (lambda: graph.apply("and", a, a), DTypeError, "got float32"),
        (lambda: graph.apply("where", a, a, a), DTypeError, "want bool"),
        (lambda: graph.apply("add", a, graph.copy(a, "CPU")), DeviceError, "REF and CPU"),
        (lambda: graph.reshape(a, (4,)), ShapeError, "6 elements"),
        (lambda: graph.permute(a, (0, 0)), ShapeError, "no order"),
        (lambda: graph.expand(a, (4, 3)), ShapeError, "only dimensions of size 1"),
        (lambda: graph.pad(a, [(0, -1), (0, 0)]), ShapeError, "want one"),
        (lambda: graph.shrink(a, [(0, 3), (0, 3)]), ShapeError, "size 2"),
        (lambda: graph.flip(a, [2]), ShapeError, "axis 2"),
        (lambda: graph.window(a, 1, 4), ShapeError, "reach over 4"),
        (lambda: graph.cat([a, b], 0), ShapeError, "equal but for axis 0"),
        (lambda: graph.reduce(a, "mean", (0,)), ShapeError, "want one of"),
        (lambda: graph.reduce(a, "argmax", (0, 1)), ShapeError, "one axis"),
        (lambda: graph.reduce(empty(0), "max", (0,)), ShapeError, "no elements"),
        (lambda: graph.reduce(empty(2, dtype=bool_), "sum", (0,)), DTypeError, "cast to an integer"),
        (lambda: graph.gather(a, a, 0), DTypeError, "want an integer"),
        (lambda: graph.scatter(a, i, b, 0), ShapeError, "one shape"),
        (lambda: graph.assign(a, empty(1, 3), (2, 0)), ShapeError, "does not fit"),
        (lambda: graph.bitcast(a, float16), DTypeError, "one size"),
        (lambda: graph.random_bits(a, (3,)), ShapeError, r"uint32\[2\]"),
        (lambda: graph.shrink(empty(8), [(0, n + 1)]), ShapeError, "every value"),
        (lambda: graph.iota(n - 4), ShapeError, "may be negative"),
    ]
    for build, error, message in cases:
        with pytest.raises(error, match=message):
            build()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_takes_the_kinds_of_its_row_and_no_others(name: str) -> None:
    row = ELEMENTWISE[name]
    for dtype in DTYPES:
        inputs = [empty(2, dtype=dtype) for _ in range(row.arity)]
        if name == "where":
            inputs[0] = empty(2, dtype=bool_)
        if dtype.kind in row.kinds:
            assert graph.apply(name, *inputs).dtype is (bool_ if row.compares else dtype)
        else:
            with pytest.raises(DTypeError):
                graph.apply(name, *inputs)


# ---- text and verifier -------------------------------------------------------------------------------------


def test_text_of_symbolic_graph_parses_back_to_the_same_node() -> None:
    n = Variable("n", 1, 64)
    x = graph.buffer((n, 4), float32, "CPU", name="x")
    y = graph.reshape(graph.permute(graph.reshape(x, (n, 2, 2)), (1, 0, 2)), (2 * n, 2))
    z = graph.apply(
        "where", graph.apply("lt", y, y), y, graph.expand(graph.const(-math.inf, float32, "CPU"), y.shape)
    )
    roots = [graph.reduce(z, "max", (1,)), graph.shrink(x, [(n - 1, n), (0, 4)])]
    text = graph.format_graph(roots)
    assert graph.parse_graph(text, {graph.toposort(roots).index(x): x}) == roots
    assert graph.format_graph(graph.parse_graph(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%0 = frob() : float32[] @ CPU\nreturn %0", "unknown operation"),
        ("%0 = const() {value=1.0} : float99[] @ CPU\nreturn %0", "float99"),
        ("%0 = const() {value=1.0} : float32[3] @ CPU\nreturn %0", "the operation gives"),
        ("%0 = neg(%1) : float32[] @ CPU\nreturn %0", "unknown name"),
        ("%0 = const() {value=1.0} : float32[] @ CPU\n%1 = add(%0) : float32[] @ CPU\nreturn %1", "want 2"),
        ("hello", "got no node"),
        ("%0 = const() {value=1.0} : float32[] @ CPU", "without a 'return'"),
    ],
)
def test_parser_says_what_is_wrong_and_where(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        graph.parse_graph(text)
    assert caught.value.line > 0


def test_verifier_finds_nodes_that_break_their_rule() -> None:
    a = empty(2, 3)
    good = graph.apply("neg", a)
    broken = [
        (Node(good.op, (a,), (), (3, 2), float32, "REF"), "the rule of the operation gives"),
        (Node(good.op, (a, a), (), (2, 3), float32, "REF"), "2 inputs, want 1"),
        (Node(graph.OPS["flip"], (a,), (([0],),), (2, 3), float32, "REF"), "attribute axes"),
        (Node(graph.OPS["reshape"], (a,), (), (6,), float32, "REF"), "0 attributes"),
        (Node(graph.OPS["buffer"], (a,), ("",), (6,), float32, "REF"), "its contents"),
        (Node(graph.OPS["cat"], (), (0,), (6,), float32, "REF"), "no inputs"),
        (Node(good.op, (a,), (), (-2, 3), float32, "REF"), "want a tuple of integers"),
    ]
    for node, message in broken:
        with pytest.raises(VerifyError, match=message):
            graph.verify_graph([node], "a test")


# ---- interpreter -------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(3, 4, 5))


def test_movement_equals_numpy() -> None:
    x = filled(X)
    np.testing.assert_array_equal(value(graph.reshape(x, (12, 5))), X.reshape(12, 5))
    np.testing.assert_array_equal(value(graph.permute(x, (2, 0, 1))), X.transpose(2, 0, 1))
    np.testing.assert_array_equal(value(graph.expand(x, (2, 3, 4, 5))), np.broadcast_to(X, (2, 3, 4, 5)))
    np.testing.assert_array_equal(value(graph.shrink(x, [(1, 3), (0, 0), (2, 5)])), X[1:3, 0:0, 2:5])
    np.testing.assert_array_equal(value(graph.flip(x, (0, 2))), X[::-1, :, ::-1])
    fill = graph.const(7.0, float64, "REF")
    padded = np.pad(X, [(1, 0), (0, 2), (0, 0)], constant_values=7)
    np.testing.assert_array_equal(value(graph.pad(x, [(1, 0), (0, 2), (0, 0)], fill)), padded)
    np.testing.assert_array_equal(
        value(graph.cat([x, graph.flip(x, (1,))], 1)), np.concatenate([X, X[:, ::-1]], 1)
    )


@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 1, 3), (3, 2, 2)]
)
def test_window_takes_elements_by_stride_and_dilation(size: int, stride: int, dilation: int) -> None:
    got = value(graph.window(filled(X), 2, size, stride, dilation))
    count = (5 - dilation * (size - 1) - 1) // stride + 1
    want = np.stack(
        [X[:, :, i * stride : i * stride + dilation * size : dilation][:, :, :size] for i in range(count)], 2
    )
    np.testing.assert_array_equal(got, want)


def test_reductions_and_scans_equal_numpy() -> None:
    x = filled(X)
    for kind in ("sum", "prod", "max", "min"):
        np.testing.assert_allclose(value(graph.reduce(x, kind, (0, 2))), getattr(X, kind)(axis=(0, 2)))
    for kind in ("argmax", "argmin"):
        np.testing.assert_array_equal(value(graph.reduce(x, kind, (1,))), getattr(X, kind)(axis=1))
    np.testing.assert_allclose(value(graph.scan(x, "sum", 1)), X.cumsum(1))
    np.testing.assert_allclose(value(graph.scan(x, "prod", 1)), X.cumprod(1))
    np.testing.assert_array_equal(value(graph.scan(x, "max", 0)), np.maximum.accumulate(X, 0))
    np.testing.assert_allclose(value(graph.scan(x, "logaddexp", 2)), np.log(np.exp(X).cumsum(2)))
    ties = filled(np.array([1, 3, 3, 2, np.nan, 5, np.nan]))
    np.testing.assert_array_equal(value(graph.scan(ties, "argmax", 0)), [0, 1, 2, 2, 4, 4, 6])


def test_narrow_floats_accumulate_in_float32() -> None:
    ones = np.ones(4096)
    for dtype in (float16, bfloat16):
        assert value(graph.reduce(filled(ones, dtype), "sum", (0,))) == 4096
        assert value(graph.scan(filled(ones, dtype), "sum", 0))[-1] == 4096


def test_argsort_is_stable_both_ways_and_puts_nan_last_or_first() -> None:
    x = np.array([2.0, np.nan, 1.0, 2.0, -np.inf, np.nan])
    np.testing.assert_array_equal(value(graph.argsort(filled(x), 0)), [4, 2, 0, 3, 1, 5])
    np.testing.assert_array_equal(value(graph.argsort(filled(x), 0, True)), [1, 5, 0, 3, 2, 4])


def test_gather_scatter_and_assign_equal_numpy() -> None:
    x, index = filled(X), np.random.default_rng(1).integers(0, 4, (3, 6, 5))
    np.testing.assert_array_equal(value(graph.gather(x, filled(index), 1)), np.take_along_axis(X, index, 1))
    source = np.random.default_rng(2).normal(size=index.shape)
    for kind, ufunc in (("sum", np.add), ("prod", np.multiply), ("max", np.maximum), ("min", np.minimum)):
        want = X.copy()
        ufunc.at(want, (np.arange(3)[:, None, None], index, np.arange(5)), source)
        np.testing.assert_allclose(value(graph.scatter(x, filled(index), filled(source), 1, kind)), want)
    want = X.copy()
    want[1:3, 2:3, :] = source[:2, :1]
    assigned = graph.assign(x, graph.shrink(filled(source), [(0, 2), (0, 1), (0, 5)]), (1, 2, 0))
    np.testing.assert_array_equal(value(assigned), want)


def test_scatter_set_keeps_the_last_of_duplicates() -> None:
    index, source = filled(np.array([1, 1, 0, 1])), filled(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(value(graph.scatter(filled(np.zeros(3)), index, source, 0)), [3, 4, 0])


def test_index_out_of_range_is_an_error() -> None:
    for index in (-1, 4):
        with pytest.raises(EvaluationError, match=f"index {index} is out of range for a dimension of size 4"):
            value(graph.gather(filled(np.zeros(4)), filled(np.array([index])), 0))


def test_contraction_equals_einsum_whatever_is_expanded() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5))
    left = graph.expand(graph.reshape(filled(a), (2, 3, 4, 1)), (2, 3, 4, 5))
    right = graph.expand(filled(b), (2, 3, 4, 5))
    product = graph.apply("mul", left, right)
    for axes, spec in (
        ((2,), "ijk,kl->ijl"),
        ((0, 2), "ijk,kl->jl"),
        ((1, 2, 3), "ijk,kl->i"),
        ((3,), "ijk,kl->ijk"),
    ):
        np.testing.assert_allclose(value(graph.reduce(product, "sum", axes)), np.einsum(spec, a, b))
    twice = graph.apply("mul", graph.expand(filled(b), (3, 4, 5)), graph.expand(filled(b), (3, 4, 5)))
    np.testing.assert_allclose(value(graph.reduce(twice, "sum", (0, 1))), 3 * (b * b).sum(0))


def test_products_read_by_others_than_sums_are_kept() -> None:
    x = filled(X)
    product = graph.apply("mul", x, x)
    total = graph.reduce(product, "sum", (0, 1, 2))
    got, kept = interpret_graph([total, graph.apply("neg", product)])
    np.testing.assert_allclose(got, (X * X).sum())
    np.testing.assert_allclose(kept, -X * X)


def test_symbolic_shapes_are_evaluated_with_their_values() -> None:
    n = Variable("n", 1, 5)
    x = graph.shrink(filled(np.arange(10.0).reshape(5, 2)), [(0, n), (0, 2)])
    total = graph.reduce(x, "sum", (0,))
    for rows in (1, 3, 5):
        np.testing.assert_array_equal(value(total, n=rows), np.arange(10.0).reshape(5, 2)[:rows].sum(0))
    bound = graph.shrink(filled(np.arange(5.0)), [(0, n.bind(2))])
    np.testing.assert_array_equal(value(bound), [0, 1])
    with pytest.raises(TgError, match="n"):
        value(total)


def test_bitcast_reads_the_bits() -> None:
    x = np.array([1.0, -0.0, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(value(graph.bitcast(filled(x, float32), int32)), x.view(np.int32))
    half = graph.bitcast(filled(np.array([1.0, -2.0]), bfloat16), graph.const(0, float16, "REF").dtype)
    np.testing.assert_array_equal(value(half), np.array([0x3F80, 0xC000], np.uint16).view(np.float16))


def test_integer_edge_cases_follow_the_table() -> None:
    a = np.array([-7, 7, -128, 5, 3], np.int64)
    b = np.array([2, -2, -1, 0, 200], np.int64)
    x, y = filled(a, int8), filled(b.astype(np.int8).astype(np.int64), int8)
    b8 = b.astype(np.int8)
    np.testing.assert_array_equal(value(graph.apply("floordiv", x, y)), [-4, -4, -128, 0, -1])
    np.testing.assert_array_equal(value(graph.apply("mod", x, y))[:4], [1, -1, 0, 0])
    np.testing.assert_array_equal(value(graph.apply("add", x, y)), a.astype(np.int8) + b8)
    shifts = filled(np.array([0, 1, 7, 8, 200]), uint8)
    ones = filled(np.full(5, 129), uint8)
    np.testing.assert_array_equal(value(graph.apply("shl", ones, shifts)), [129, 2, 128, 0, 0])
    np.testing.assert_array_equal(value(graph.apply("shr", ones, shifts)), [129, 64, 1, 0, 0])
    negative = filled(np.full(3, -3), int8)
    np.testing.assert_array_equal(
        value(graph.apply("shr", negative, filled(np.array([1, 8, 100]), int8))), [-2, -1, -1]
    )
    large = filled(np.array([2**64 - 1, 2**63 + 1], np.uint64), uint64)
    ones = filled(np.ones(2, np.uint64), uint64)
    assert value(graph.apply("shr", large, ones)).tolist() == [2**63 - 1, 2**62]  # not through float64
    base = filled(np.array([2, -1, -1, 1, 0, 3]), int32)
    np.testing.assert_array_equal(
        value(graph.apply("pow", base, filled(np.array([-1, -1, -2, -5, -1, 4]), int32))),
        [0, -1, 1, 1, 0, 81],
    )


def test_random_bits_follow_from_key_and_flat_position() -> None:
    key = filled(np.array([0x13198A2E, 0x03707344], np.uint32))
    assert value(graph.random_bits(key, (0, 3))).shape == (0, 3)
    known = value(graph.random_bits(key, (6,)))
    assert known.dtype == np.uint32 and len(set(known.tolist())) == 6
    np.testing.assert_array_equal(value(graph.random_bits(key, (2, 3))), known.reshape(2, 3))


def test_threefry_gives_the_published_vectors() -> None:
    """Source: Random123 known-answer tests, threefry2x32 with 20 rounds."""
    from tg_ir.numeric import threefry2x32

    ones = 0xFFFFFFFF
    for counter, key, want in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ):
        words = [np.array([word], np.uint32) for word in (*key, *counter)]
        got = threefry2x32((words[0], words[1]), (words[2], words[3]))
        assert (int(got[0][0]), int(got[1][0])) == want


def test_collectives_combine_and_gather() -> None:
    parts = [graph.copy(filled(X + i), f"REF:{i}") for i in range(3)]
    np.testing.assert_allclose(value(graph.all_reduce(parts, "sum", "REF")), 3 * X + 3)
    np.testing.assert_array_equal(
        value(graph.all_gather(parts, 1, "REF")), np.concatenate([X, X + 1, X + 2], 1)
    )


def test_reference_engine_moves_bytes_both_ways() -> None:
    engine = ReferenceEngine()
    data = np.arange(6, dtype=np.float32)
    buffer = engine.upload(memoryview(data.view(np.uint8)), (2, 3), float32, "REF")
    data[0] = 99
    assert np.frombuffer(engine.download(buffer), np.float32)[0] == 0
    with pytest.raises(DeviceError, match="CPU"):
        engine.upload(memoryview(b"1234"), (1,), float32, "CPU")


def random_graph(rng: random.Random, arrays: list[np.ndarray]) -> tuple[Node, np.ndarray]:
    """A random graph beside the NumPy array that it must equal."""
    nodes = [(filled(array), array) for array in arrays]
    for _ in range(rng.randint(3, 12)):
        node, array = rng.choice(nodes)
        rank = array.ndim
        kind = rng.choice(
            ["permute", "reshape", "pad", "shrink", "flip", "unary", "binary", "reduce", "window", "expand"]
        )
        if kind == "permute":
            order = rng.sample(range(rank), rank)
            nodes.append((graph.permute(node, order), array.transpose(order)))
        elif kind == "reshape":
            nodes.append((graph.reshape(node, (array.size,)), array.reshape(-1)))
        elif kind == "pad" and rank and array.size < 500:
            widths = [(rng.randint(0, 2), rng.randint(0, 2)) for _ in range(rank)]
            nodes.append((graph.pad(node, widths), np.pad(array, widths)))
        elif kind == "shrink":
            limits = [(a := rng.randint(0, n), rng.randint(a, n)) for n in array.shape]
            nodes.append((graph.shrink(node, limits), array[tuple(slice(*pair) for pair in limits)]))
        elif kind == "flip" and rank:
            axis = rng.randrange(rank)
            nodes.append((graph.flip(node, [axis]), np.flip(array, axis)))
        elif kind == "unary":
            name, function = rng.choice([("neg", np.negative), ("tanh", np.tanh), ("floor", np.floor)])
            nodes.append((graph.apply(name, node), function(array)))
        elif kind == "binary":
            other, theirs = rng.choice([pair for pair in nodes if pair[1].shape == array.shape])
            name, function = rng.choice([("add", np.add), ("mul", np.multiply), ("maximum", np.maximum)])
            nodes.append((graph.apply(name, node, other), function(array, theirs)))
        elif kind == "reduce" and rank:
            axis = rng.randrange(rank)
            nodes.append((graph.reduce(node, "sum", [axis]), array.sum(axis)))
        elif kind == "window" and rank and array.shape[-1] > 1 and array.size < 500:
            windows = np.lib.stride_tricks.sliding_window_view(array, 2, axis=rank - 1)
            nodes.append((graph.window(node, rank - 1, 2), windows))
        elif kind == "expand" and array.size < 500:
            nodes.append((graph.expand(node, (2, *array.shape)), np.broadcast_to(array, (2, *array.shape))))
    return nodes[-1]


@pytest.mark.parametrize("seed", range(200))
def test_random_graphs_equal_numpy_and_survive_text(seed: int) -> None:
    rng = random.Random(seed)
    arrays = [np.random.default_rng(seed + i).normal(size=(2, 3, 4)) for i in range(2)]
    node, want = random_graph(rng, arrays)
    np.testing.assert_allclose(value(node), want, rtol=1e-12, atol=1e-12, err_msg=f"seed {seed}")
    text = graph.format_graph([node])
    buffers = {i: n for i, n in enumerate(graph.toposort([node])) if n.op.name == "buffer"}
    assert graph.parse_graph(text, buffers) == [node]


def test_storage_forms_round_trip() -> None:
    for dtype in DTYPES:
        array = np.array([0, 1, 1], compute_dtype(dtype))
        assert encode(array, dtype).dtype == numpy_dtype(dtype)
        np.testing.assert_array_equal(decode(encode(array, dtype), dtype), array)
