"""Programs equal the graphs they come from; how many kernels named graphs take, and how much memory."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tg_ir import graph
from tg_ir.dtypes import bool_, dtype_of, float16, float32, float64
from tg_ir.errors import EvaluationError
from tg_ir.graph import Node
from tg_ir.graph.interpret import interpret_graph
from tg_ir.numpy_dtypes import compute_dtype, decode, encode
from tg_ir.program import format_program, parse_program
from tg_ir.program.interpret import interpret_program
from tg_ir.protocols import Buffer
from tg_ir.symbolic import Variable
from tg_schedule import Scheduled, choose_stores, peak_bytes, schedule


@pytest.fixture(autouse=True)
def verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TG_VERIFY", "1")


def filled(array: np.ndarray, dtype: object = None) -> Node:
    dtype = dtype or dtype_of(array.dtype)
    node = graph.buffer(array.shape, dtype, "REF")
    node.fill(Buffer(array.shape, dtype, "REF", encode(array.astype(compute_dtype(dtype)), dtype)))
    return node


def sample(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def run(scheduled: Scheduled, roots: list[Node], tolerance: float = 1e-9) -> None:
    """The program's outputs equal the graph's values."""
    given = {number: np.array(buffer.memory).reshape(-1) for number, buffer in scheduled.inputs.items()}
    got = interpret_program(scheduled.program, given, scheduled.scalars)
    for root, number, want in zip(roots, scheduled.outputs, interpret_graph(roots), strict=True):
        bits = got[number] if number in got else given[number]
        np.testing.assert_allclose(decode(bits, root.dtype).reshape(want.shape), want, tolerance, tolerance)


def check(*roots: Node, tolerance: float = 1e-9) -> Scheduled:
    scheduled = schedule(roots)
    assert parse_program(format_program(scheduled.program)) == scheduled.program
    run(scheduled, list(roots), tolerance)
    return scheduled


def e(name: str, *inputs: Node) -> Node:
    return graph.apply(name, *inputs)


def rows(node: Node, kind: str) -> Node:
    """A reduction of the last axis, repeated along it."""
    axis = len(node.shape) - 1
    kept = graph.reduce(node, kind, (axis,))
    return graph.expand(graph.reshape(kept, (*kept.shape, 1)), node.shape)


def matmul(a: Node, b: Node) -> Node:
    (m, n), (_, p) = a.shape, b.shape
    left = graph.expand(graph.reshape(a, (m, 1, n)), (m, p, n))
    right = graph.expand(graph.reshape(graph.permute(b, (1, 0)), (1, p, n)), (m, p, n))
    return graph.reduce(e("mul", left, right), "sum", (2,))


def softmax(x: Node) -> Node:
    weights = e("exp", e("sub", x, rows(x, "max")))
    return e("div", weights, rows(weights, "sum"))


def layer_norm(x: Node) -> Node:
    size = graph.expand(graph.const(x.shape[-1], x.dtype, "REF"), x.shape)
    centred = e("sub", x, e("div", rows(x, "sum"), size))
    variance = e("div", rows(e("mul", centred, centred), "sum"), size)
    return e("div", centred, e("sqrt", variance))


def conv(x: Node, w: Node) -> Node:
    """(c, h, w) with (o, c, kh, kw)."""
    out, channels, kh, kw = w.shape
    windows = graph.window(graph.window(x, 1, kh), 2, kw)  # (c, oh, ow, kh, kw)
    oh, ow = windows.shape[1:3]
    shape = (out, oh, ow, channels, kh, kw)
    left = graph.expand(graph.permute(windows, (1, 2, 0, 3, 4)), shape)
    right = graph.expand(graph.reshape(w, (out, 1, 1, channels, kh, kw)), shape)
    return graph.reduce(e("mul", left, right), "sum", (3, 4, 5))


X = sample(16, 12)


KERNELS = {
    "elementwise chain": (1, lambda: e("tanh", e("add", filled(X), e("mul", filled(X), filled(X))))),
    "movement only": (1, lambda: graph.flip(graph.permute(graph.pad(filled(X), [(1, 2), (0, 3)]), (1, 0)), [0])),
    "softmax": (1, lambda: softmax(filled(X))),
    "layer norm": (1, lambda: layer_norm(filled(X))),
    "matmul with epilogue": (1, lambda: e("tanh", e("neg", matmul(filled(X), filled(X.T))))),
    "matmul with cast prologue": (
        1,
        lambda: matmul(graph.cast(filled(X, float16), float32), graph.cast(filled(X.T, float16), float32)),
    ),
    "two matmuls": (2, lambda: matmul(matmul(filled(X), filled(X.T)), filled(X))),
    "layer norm and matmul": (2, lambda: matmul(layer_norm(filled(X)), filled(X.T))),
    "convolution with epilogue": (1, lambda: e("abs", conv(filled(sample(3, 8, 8)), filled(sample(4, 3, 3, 3))))),
    "prefix sum": (1, lambda: graph.scan(e("neg", filled(X)), "sum", 1)),
    "gather with epilogue": (
        1,
        lambda: e("neg", graph.gather(filled(X), filled(np.array([[3, 1, 15]] * 12).T.copy()), 0)),
    ),
    "scatter": (2, lambda: graph.scatter(filled(X), filled(np.zeros((2, 12), np.int64)), filled(X[:2]), 0, "sum")),
    "random bits": (1, lambda: graph.random_bits(filled(np.array([1, 2], np.uint32)), (5, 3))),
    "assign": (1, lambda: graph.assign(filled(X), filled(sample(3, 4)), (2, 5))),
    "cat": (1, lambda: graph.cat([filled(X), filled(X[:3]), filled(X)], 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_named_graph_takes_this_many_kernels_and_equals_the_interpreter(name: str) -> None:
    count, build = KERNELS[name]
    scheduled = check(build(), tolerance=1e-5 if "cast" in name else 1e-9)
    assert len(scheduled.program.steps) == count


def test_sibling_reductions_share_one_kernel() -> None:
    x = filled(X)
    scheduled = check(
        graph.reduce(x, "sum", (1,)), graph.reduce(e("mul", x, x), "sum", (1,)), graph.reduce(x, "max", (1,))
    )
    assert len(scheduled.program.steps) == 1
    (kernel,) = scheduled.program.kernels
    assert len(kernel.stores) == 3


def test_optimiser_step_over_equal_shapes_is_one_kernel() -> None:
    roots = []
    for number in range(8):
        w, g, m = [filled(sample(6, 4, seed=3 * number + i)) for i in range(3)]
        momentum = e("add", e("mul", m, m), g)
        roots += [momentum, e("sub", w, momentum)]
    assert len(check(*roots).program.steps) == 1


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 13])
def test_sorting_network_is_stable_and_places_nan(size: int, descending: bool) -> None:
    values = np.round(sample(2, size) * 2)
    values[0, size // 2] = np.nan
    values[1, 0] = -0.0
    check(graph.argsort(filled(values), 1, descending))
    check(graph.argsort(filled(values > 0), 1, descending))
    check(graph.argsort(filled(np.nan_to_num(values).astype(np.int64)), 1, descending))


def test_temporaries_share_memory() -> None:
    node = filled(sample(32, 32))
    for _ in range(6):
        node = matmul(node, node)
    scheduled = schedule([node])
    assert (len(scheduled.program.steps), len(scheduled.program.kernels)) == (6, 1)
    assert peak_bytes(scheduled.program) == {"REF": 2 * 32 * 32 * 8}


def test_one_program_serves_all_values_of_a_variable() -> None:
    n = Variable("n", 1, 16)
    x = filled(X)

    def build(dim: object) -> Node:
        return matmul(softmax(graph.shrink(x, [(0, dim), (0, 12)])), filled(X.T))

    programs = [schedule([build(n.bind(value))]) for value in (1, 7, 16)]
    assert len({format_program(scheduled.program) for scheduled in programs}) == 1
    for value, scheduled in zip((1, 7, 16), programs, strict=True):
        assert scheduled.scalars == {"n": value}
        run(scheduled, [build(n.bind(value))])


def test_equal_steps_on_other_buffers_are_the_same_graph() -> None:
    from tg_schedule.normalize import normalize

    first, second = (normalize([softmax(filled(sample(4, 4, seed=seed)))]) for seed in (0, 1))
    assert first.roots == second.roots
    assert first.buffers != second.buffers


def test_two_values_of_one_variable_become_two_scalars() -> None:
    n = Variable("n", 1, 16)
    x = filled(X)
    parts = [graph.reduce(graph.shrink(x, [(0, n.bind(v)), (0, 12)]), "sum", (0,)) for v in (3, 9)]
    scheduled = check(*parts)
    assert sorted(scheduled.scalars.values()) == [3, 9]


def test_pending_buffers_copies_and_collectives() -> None:
    x = filled(X)
    pending = graph.buffer(x.shape, float64, "REF", source=e("neg", x))
    other = graph.copy(e("abs", pending), "REF:1")
    check(graph.all_reduce([pending, other], "sum", "REF"), graph.all_gather([pending, other], 1, "REF"))
    with pytest.raises(EvaluationError, match="never filled"):
        schedule([graph.buffer((3,), float32, "REF")])


def test_empty_and_scalar_graphs() -> None:
    empty = filled(np.zeros((0, 3)))
    check(e("neg", empty), graph.reduce(empty, "sum", (0,)), graph.cat([empty, filled(X[:, :3])], 0))
    check(graph.const(2.0, float32, "REF"), graph.reduce(filled(X), "prod", (0, 1)))
    x = filled(X)
    assert check(x, e("neg", x)).outputs[0] in schedule([x, e("neg", x)]).inputs


def test_narrow_floats_accumulate_in_float32() -> None:
    check(
        graph.reduce(filled(np.ones(4096), float16), "sum", (0,)),
        graph.scan(filled(np.ones(64), float16), "sum", 0),
    )


@pytest.mark.parametrize("kind", ["max", "min", "prod", "logaddexp", "argmax", "argmin"])
def test_scans_of_every_kind(kind: str) -> None:
    values = np.round(sample(3, 9))
    check(graph.scan(filled(values), kind, 1))


KINDS = [
    "permute", "reshape", "pad", "shrink", "flip", "unary", "unary", "binary", "binary", "rows", "sum", "expand",
    "window", "cat", "where", "scan", "gather", "matmul", "softmax",
]  # fmt: skip


def random_graph(rng: random.Random, arrays: list[np.ndarray]) -> list[Node]:
    """Random operations over random earlier results; the last few are the roots."""
    nodes = [filled(array) for array in arrays]
    for _ in range(rng.randint(4, 18)):
        node = rng.choice(nodes)
        shape, rank = node.shape, len(node.shape)
        size = int(np.prod(shape))
        kind = rng.choice(KINDS)
        if kind == "permute":
            nodes.append(graph.permute(node, rng.sample(range(rank), rank)))
        elif kind == "reshape":
            nodes.append(graph.reshape(node, rng.choice([(size,), (*shape, 1), (1, *shape)])))
        elif kind == "pad" and size < 200:
            nodes.append(graph.pad(node, [(rng.randint(0, 2), rng.randint(0, 2)) for _ in shape]))
        elif kind == "shrink":
            limits = [(a := rng.randint(0, max(n - 1, 0)), rng.randint(min(a + 1, n), n)) for n in shape]
            nodes.append(graph.shrink(node, limits))
        elif kind == "flip" and rank:
            nodes.append(graph.flip(node, [rng.randrange(rank)]))
        elif kind == "unary":
            nodes.append(e(rng.choice(["neg", "tanh", "abs", "floor", "sin"]), node))
        elif kind == "binary":
            other = rng.choice([n for n in nodes if n.shape == shape])
            nodes.append(e(rng.choice(["add", "mul", "maximum", "sub"]), node, other))
        elif kind == "rows" and rank and size:
            nodes.append(e("sub", node, rows(node, rng.choice(["max", "sum"]))))
        elif kind == "sum" and rank and size:
            nodes.append(graph.reduce(node, rng.choice(["sum", "min"]), [rng.randrange(rank)]))
        elif kind == "expand" and size < 200:
            nodes.append(graph.expand(node, (rng.randint(1, 3), *shape)))
        elif kind == "window" and rank and shape[-1] > 1 and size < 200:
            nodes.append(graph.window(node, rank - 1, 2, rng.randint(1, 2)))
        elif kind == "cat" and rank and size < 200:
            nodes.append(graph.cat([node, node, graph.flip(node, [0])], rng.randrange(rank)))
        elif kind == "where":
            condition = e("lt", node, e("neg", node))
            assert condition.dtype is bool_
            nodes.append(e("where", condition, node, e("neg", node)))
        elif kind == "scan" and rank and size:
            nodes.append(graph.scan(node, rng.choice(["sum", "max"]), rng.randrange(rank)))
        elif kind == "matmul" and rank == 2 and 0 < size < 200:
            other = rng.choice([n for n in nodes if n.shape == shape])
            nodes.append(matmul(node, graph.permute(other, (1, 0))))
        elif kind == "softmax" and rank and size:
            nodes.append(softmax(node))
        elif kind == "gather" and rank and shape[0]:
            index = np.array([rng.randrange(shape[0]) for _ in range(3 * size // shape[0])], np.int64)
            nodes.append(graph.gather(node, filled(index.reshape(3, *shape[1:])), 0))
    return list(dict.fromkeys(rng.sample(nodes, min(2, len(nodes))) + [nodes[-1]]))


@pytest.mark.parametrize("seed", range(150))
def test_random_graph_equals_the_interpreter_whatever_costs(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    for name, values in {
        "STORE_COST": (0, 12, 999),
        "LARGE": (4, 1 << 14),
        "MOST_OPERATIONS": (5, 400),
    }.items():
        monkeypatch.setattr(choose_stores, name, rng.choice(values))
    roots = random_graph(rng, [sample(2, 3, 4, seed=seed), sample(3, 4, seed=seed + 1)])
    check(*roots, tolerance=1e-7)
    inputs = [node for node in graph.toposort(roots) if node.value is not None]
    donate = {root: rng.choice(inputs).value for root in roots if root not in inputs}
    run(schedule(roots, donate=donate), roots, 1e-7)


def donated(root: Node, buffer_of: Node, *more: Node) -> Scheduled:
    """The program of roots, of which the first may be written over a buffer; it equals the interpreter."""
    scheduled = schedule([root, *more], donate={root: buffer_of.value})
    run(scheduled, [root, *more])
    return scheduled


def states(scheduled: Scheduled) -> int:
    return len(scheduled.program.numbers("state"))


def test_donated_input_read_at_the_same_element_is_written_over() -> None:
    p, g, m = (filled(sample(6, 4, seed=seed)) for seed in range(3))
    scheduled = donated(e("sub", p, e("mul", g, m)), p)
    assert states(scheduled) == 1
    assert scheduled.outputs[0] in scheduled.inputs
    (kernel,) = scheduled.program.kernels
    assert sorted(parameter.access for parameter in kernel.parameters) == ["read", "read", "update"]


def test_optimiser_state_is_updated_in_one_kernel_that_reads_it_twice() -> None:
    p, g, m = (filled(sample(6, 4, seed=seed)) for seed in range(3))
    momentum = e("add", e("mul", m, m), g)
    roots = [momentum, e("sub", p, momentum)]
    scheduled = schedule(roots, donate={roots[0]: m.value, roots[1]: p.value})
    run(scheduled, roots)
    assert (states(scheduled), len(scheduled.program.steps)) == (2, 1)


def test_donated_input_read_elsewhere_is_kept() -> None:
    x = filled(X)
    assert states(donated(graph.flip(x, [0]), x)) == 0
    assert states(donated(softmax(x), x)) == 0
    assert states(donated(e("neg", x), x, x)) == 0


def test_donated_input_is_written_over_after_its_last_reader() -> None:
    x = filled(X)
    total = matmul(x, graph.permute(x, (1, 0)))
    scheduled = donated(e("neg", x), x, total)
    assert states(scheduled) == 1
    assert scheduled.program.steps[-1].buffers[0] == scheduled.outputs[0]


def test_box_written_into_a_donated_input_touches_nothing_else() -> None:
    cache, row = filled(X), filled(sample(1, 12))
    position = Variable("position", 0, 15).bind(5)
    written = graph.assign(cache, row, (position, 0))
    scheduled = donated(written, cache, e("neg", written))
    assert states(scheduled) == 1
    (kernel, _) = scheduled.program.kernels
    assert [axis.extent for axis in kernel.stores[0].axes] == [12]
    x = filled(X)
    assert states(donated(graph.assign(x, e("neg", graph.shrink(x, [(2, 5), (0, 12)])), (2, 0)), x)) == 1
    x = filled(X)
    assert states(donated(graph.assign(x, graph.shrink(x, [(0, 3), (0, 12)]), (2, 0)), x)) == 0


def test_scatter_into_a_donated_input_leaves_its_base_alone() -> None:
    base = filled(X)
    index = filled(np.array([[3] * 12, [3] * 12]))
    scheduled = donated(graph.scatter(base, index, filled(sample(2, 12)), 0, "sum"), base)
    assert (states(scheduled), len(scheduled.program.steps)) == (1, 1)
