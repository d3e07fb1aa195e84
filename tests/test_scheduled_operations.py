"""What operations become: in how many kernels, with how much work, and that they equal the reference interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import tg_frontend as tg
from tg_frontend import Tensor
from tg_frontend.engine import current_engine
from tg_ir.graph import Node
from tg_ir.graph.interpret import interpret_graph
from tg_ir.kernel import Load, Reduce, roots, toposort
from tg_ir.numpy_dtypes import decode
from tg_ir.program import Launch, Program
from tg_ir.program.interpret import interpret_program
from tg_ir.reference import ReferenceEngine
from tg_ir.symbolic import Variable, bounds
from tg_schedule import Scheduled, peak_bytes, schedule


@pytest.fixture(autouse=True)
def reference_engine() -> Iterator[None]:
    """Inputs are NumPy arrays, which the interpreters take."""
    before = current_engine()
    tg.set_engine(ReferenceEngine())
    yield
    tg.set_engine(before)


def sample(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32), requires_grad=grad)


def program_of(*tensors: Tensor) -> Program:
    """The program of the tensors, verified; it equals the interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TG_VERIFY", "1")
        nodes = [tensor.node for tensor in tensors]
        scheduled = schedule(nodes)
    check(scheduled, nodes)
    return scheduled.program


def check(scheduled: Scheduled, nodes: list[Node]) -> None:
    """The program equals the interpreter."""
    given = {number: np.array(buffer.memory).reshape(-1) for number, buffer in scheduled.inputs.items()}
    results = given | interpret_program(scheduled.program, given, scheduled.scalars)
    for node, number, want in zip(nodes, scheduled.outputs, interpret_graph(nodes), strict=True):
        got = decode(results[number], node.dtype).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def work(program: Program) -> int:
    """How many values the program computes: the points of every store, times the elements of its reductions."""
    total = 0
    for step in program.steps:
        if isinstance(step, Launch):
            for store in program.kernel[step.kernel].stores:
                folds = [value for value in toposort(roots([store])) if isinstance(value, Reduce)]
                inner = sum(math.prod(bounds(axis.extent)[1] for axis in fold.axes) for fold in folds)
                total += math.prod(bounds(axis.extent)[1] for axis in store.axes) * max(inner, 1)
    return total


ONE_KERNEL: dict[str, Callable[[], Tensor]] = {
    "softmax": lambda: sample(6, 33).softmax(-1),
    "softmax of the first axis": lambda: sample(33, 6).softmax(0),
    "log-softmax": lambda: sample(6, 33).log_softmax(-1),
    "layer norm": lambda: sample(6, 33).layer_norm((33,), sample(33), sample(33)),
    "rms norm": lambda: sample(6, 33).rms_norm((33,), sample(33)),
    "group norm": lambda: sample(2, 4, 5, 5).group_norm(2),
    "cross-entropy": lambda: sample(6, 10).cross_entropy(Tensor(np.arange(6))),
    "variance": lambda: sample(6, 33).var(1),
    "logsumexp": lambda: sample(6, 33).logsumexp(1),
    "argmax": lambda: sample(6, 33).argmax(1),
    "random numbers": lambda: tg.randn(16, 16),
    "sum of dropout": lambda: sample(16, 16).dropout(0.5).square().sum(1),
    "prefix sum": lambda: sample(4, 100).cumsum(1),
    "row lookup": lambda: sample(50, 8)[Tensor(np.array([3, 0, 49]))],
    "convolution, bias, relu": lambda: (
        sample(2, 3, 9, 9).conv2d(sample(4, 3, 3, 3), sample(4), padding=1, stride=2).relu()
    ),
    "product of bfloat16": lambda: (sample(8, 16).to("bfloat16") @ sample(16, 4).to("bfloat16")).relu(),
}


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_operation_is_one_kernel_without_memory_of_its_own(name: str) -> None:
    program = program_of(ONE_KERNEL[name]())
    assert (len(program.steps), peak_bytes(program)) == (1, {})


ATTENTION: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: sample(2, 3, 8, 4).scaled_dot_product_attention(
        sample(2, 3, 9, 4, seed=1), sample(2, 3, 9, 5, seed=2)
    ),
    "causal": lambda: sample(2, 3, 8, 4).scaled_dot_product_attention(
        sample(2, 3, 8, 4, seed=1), sample(2, 3, 8, 4, seed=2), is_causal=True
    ),
    "with a mask that hides whole rows": lambda: sample(2, 3, 8, 4).scaled_dot_product_attention(
        sample(2, 3, 9, 4, seed=1), sample(2, 3, 9, 4, seed=2), sample(8, 9, seed=3) > 1.2
    ),
    "with grouped heads": lambda: sample(2, 4, 8, 4).scaled_dot_product_attention(
        sample(2, 2, 9, 4, seed=1), sample(2, 2, 9, 4, seed=2), enable_gqa=True
    ),
    "of one query": lambda: sample(2, 3, 1, 4).scaled_dot_product_attention(
        sample(2, 3, 9, 4, seed=1), sample(2, 3, 9, 4, seed=2)
    ),
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_one_kernel_if_asked_for_else_three(
    name: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TG_FUSE_ATTENTION", str(int(fused)))
    program = program_of(ATTENTION[name]())
    if fused:
        assert (len(program.steps), peak_bytes(program)) == (1, {})
    else:
        assert len(program.steps) == 3


def test_attention_with_infinite_scores_is_nan_as_softmax_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TG_FUSE_ATTENTION", "1")
    q, k = np.ones((1, 2, 4), np.float32), np.ones((1, 3, 4), np.float32)
    k[0, 1] = np.inf
    program_of(Tensor(q).scaled_dot_product_attention(Tensor(k), sample(1, 3, 4)))


def test_sort_takes_a_network_of_n_log_squared_n_exchanges() -> None:
    size, stages = 64, 6 * 7 // 2
    program = program_of(sample(3, size).argsort(1))
    assert len(program.steps) <= stages + 1
    assert work(program) <= 2 * 3 * size * (stages + 1)


def test_gathers_scatters_and_scans_cost_what_they_touch() -> None:
    table, rows = sample(1000, 8, grad=True), Tensor(np.array([3, 0, 999, 3]))
    assert work(program_of(table[rows])) == 4 * 8
    (grad,) = tg.grad(table[rows].square().sum(), [table])
    assert work(program_of(grad)) == 1000 * 8 + 4 * 8  # zeros, then the rows
    scattered = sample(100, 8).scatter_add(0, Tensor(np.zeros((5, 8), np.int64)), sample(5, 8))
    assert work(program_of(scattered)) == 100 * 8 + 5 * 8
    assert work(program_of(sample(4, 500).cumsum(1))) == 4 * 500
    assert work(program_of(sample(4, 500).logcumsumexp(1))) == 4 * 500
    assert work(program_of(tg.rand(64, 64))) == 64 * 64


def test_optimiser_step_over_a_hundred_shapes_takes_few_kernels() -> None:
    results = []
    for number in range(100):
        shape = (1 + number % 7, 3 + number)
        p, g, m, v = [sample(*shape, seed=4 * number + i) for i in range(4)]
        m = m * 0.9 + g * 0.1
        v = v.abs() * 0.999 + g * g * 0.001
        results += [m, v, p - 0.001 * m / (v.sqrt() + 1e-8)]
    program = program_of(*results)
    assert len(program.steps) == 12
    assert max(len(kernel.parameters) for kernel in program.kernels) <= 64
    assert peak_bytes(program) == {}


def test_gradient_of_a_convolution_is_one_contraction_with_a_bare_weight() -> None:
    x, w = sample(2, 3, 7, 7, grad=True), sample(4, 3, 3, 3, grad=True)
    program = program_of(*tg.grad(x.conv2d(w, padding=1).square().sum(), [x, w]))
    assert len(program.steps) == 3  # the convolution and a gradient each
    loads = [v for kernel in program.kernels for v in toposort(roots(kernel.stores)) if isinstance(v, Load)]
    weights = [load for load in loads if load.parameter.size == 4 * 3 * 9]
    assert len(weights) == 2
    assert all(load.guard == 1 for load in weights)


def test_memory_and_kernels_of_a_chain_of_layers_do_not_grow_with_its_length() -> None:
    def chain(layers: int) -> tuple[dict[str, int], int]:
        x = sample(8, 16)
        for number in range(layers):
            x = x + (x.layer_norm((16,)) @ sample(16, 16, seed=number)).gelu()
        program = program_of(x)
        assert len(program.steps) == 2 * layers
        return peak_bytes(program), len(program.kernels)

    assert chain(4) == chain(9)


def test_decoding_step_writes_its_caches_in_place_by_one_program_for_all_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TG_FUSE_ATTENTION", "1")
    length, programs = Variable("length", 1, 16), []
    for now in (1, 5, 16):
        n = length.bind(now)
        keys, values = sample(1, 2, 16, 4, seed=1), sample(1, 2, 16, 4, seed=2)
        caches = [keys.node.value, values.node.value]
        keys[:, :, n - 1 : n] = sample(1, 2, 1, 4, seed=3)
        values[:, :, n - 1 : n] = sample(1, 2, 1, 4, seed=4)
        result = sample(1, 2, 1, 4).scaled_dot_product_attention(keys[:, :, :n], values[:, :, :n])
        nodes = [result.node, keys.node, values.node]
        scheduled = schedule(nodes, donate=dict(zip(nodes[1:], caches, strict=True)))
        check(scheduled, nodes)
        programs.append(scheduled.program)
    assert programs[0] == programs[1] == programs[2]
    assert len(programs[0].steps) == 3  # a row into each cache, and attention
    assert len(programs[0].numbers("state")) == 2
    assert peak_bytes(programs[0]) == {}
