"""Named networks through the scheduler: their programs equal the reference interpreter, in how many launches and bytes.

The counts are what the scheduler makes today: lower is welcome, higher is to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import tg_frontend as tg
from tg_frontend import Tensor
from tg_frontend.engine import current_engine
from tg_ir.graph.interpret import interpret_graph
from tg_ir.kernel import Elementwise, Load, Reduce, Value, roots, toposort
from tg_ir.numpy_dtypes import decode
from tg_ir.program import Program
from tg_ir.program.interpret import interpret_program
from tg_ir.reference import ReferenceEngine
from tg_ir.symbolic import Expr, FloorDiv, Mod, leaves
from tg_ir.symbolic_nodes import postorder
from tg_schedule import peak_bytes, schedule


@pytest.fixture(autouse=True)
def reference_engine() -> Iterator[None]:
    """Inputs are NumPy arrays, which the interpreters take."""
    before = current_engine()
    tg.set_engine(ReferenceEngine())
    yield
    tg.set_engine(before)


def weight(*shape: int, seed: int = 0) -> Tensor:
    """A leaf that requires a gradient."""
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 0.3, requires_grad=True)


def with_gradients(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """The loss and the gradients of its weights."""
    return [loss, *tg.grad(loss, weights)]


def mlp() -> list[Tensor]:
    w = [weight(32, 64), weight(64), weight(64, 10), weight(10)]
    x, y = Tensor(weight(16, 32, seed=9).detach().numpy()), Tensor(np.arange(16) % 10)
    return with_gradients(((x @ w[0] + w[1]).relu() @ w[2] + w[3]).cross_entropy(y), w)


def residual_block() -> list[Tensor]:
    w = [weight(8, 8, 3, 3), weight(8), weight(8, 8, 3, 3, seed=1), weight(8)]
    x = Tensor(weight(2, 8, 6, 6, seed=9).detach().numpy())
    h = x.conv2d(w[0], padding=1).batch_norm(None, None, w[1], None, training=True).relu()
    h = h.conv2d(w[2], padding=1).batch_norm(None, None, w[3], None, training=True)
    return with_gradients((h + x).relu().square().mean(), w)


def transformer_block() -> list[Tensor]:
    width, heads = 16, 2
    w = [weight(3 * width, width), weight(width, width), weight(4 * width, width), weight(width, 4 * width)]
    x = Tensor(weight(2, 8, width, seed=9).detach().numpy())
    q, k, v = (
        x.layer_norm((width,))
        .linear(w[0])
        .reshape(2, 8, 3, heads, width // heads)
        .permute(2, 0, 3, 1, 4)
        .unbind(0)
    )
    a = q.scaled_dot_product_attention(k, v, is_causal=True).transpose(1, 2).reshape(2, 8, width)
    x = x + a.linear(w[1])
    x = x + x.layer_norm((width,)).linear(w[2]).gelu().linear(w[3])
    return with_gradients(x.square().mean(), w)


def adam() -> list[Tensor]:
    results = []
    for number in range(100):
        p, g, m, v = [Tensor(weight(6, 4, seed=4 * number + i).detach().numpy()) for i in range(4)]
        m = m * 0.9 + g * 0.1
        v = v.abs() * 0.999 + g * g * 0.001
        results += [m, v, p - 0.001 * m / (v.sqrt() + 1e-8)]
    return results


def convnet() -> list[Tensor]:
    """The training step of benchmarks/cpu.py at batch 8: loss, and Adam's moments and weights."""
    size = 8
    x = Tensor(weight(size, 1, 28, 28, seed=9).detach().numpy())
    w = [
        weight(32, 1, 5, 5),
        weight(32, 32, 5, 5),
        weight(64, 32, 3, 3),
        weight(64, 64, 3, 3),
        weight(10, 576),
    ]
    w += [weight(channels, seed=i) for i, channels in enumerate((32, 32, 64, 64))]
    h = x.conv2d(w[0]).relu().conv2d(w[1]).relu().batch_norm(None, None, w[5], w[6], training=True)
    h = h.max_pool2d(2).conv2d(w[2]).relu().conv2d(w[3]).relu()
    h = h.batch_norm(None, None, w[7], w[8], training=True).max_pool2d(2)
    loss, *gradients = with_gradients(h.flatten(1).linear(w[4]).cross_entropy(Tensor(np.arange(size))), w)
    results = [loss]
    for p, g in zip(w, gradients, strict=True):
        m = Tensor(np.zeros(p.shape, np.float32)) * 0.9 + g * 0.1
        v = Tensor(np.zeros(p.shape, np.float32)) * 0.999 + g * g * 0.001
        results += [m, v, p.detach() - 0.001 * m / (v.sqrt() + 1e-8)]
    return results


NETWORKS: dict[str, tuple[Callable[[], list[Tensor]], int, int]] = {
    "mlp": (mlp, 12, 8832),
    "residual block": (residual_block, 16, 15968),
    "transformer block": (transformer_block, 25, 19904),
    "adam over 100 parameters": (adam, 12, 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_equals_the_interpreter_in_so_many_launches_and_bytes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TG_VERIFY", "1")
    build, launches, peak = NETWORKS[name]
    nodes = [tensor.node for tensor in build()]
    scheduled = schedule(nodes)
    given = {number: np.array(buffer.memory).reshape(-1) for number, buffer in scheduled.inputs.items()}
    results = given | interpret_program(scheduled.program, given, scheduled.scalars)
    for node, number, want in zip(nodes, scheduled.outputs, interpret_graph(nodes), strict=True):
        got = decode(results[number], node.dtype).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    assert (len(scheduled.program.steps), sum(peak_bytes(scheduled.program).values())) == (launches, peak)


def axes(value: Value) -> set[str]:
    """The axes that a value's loads depend on."""
    loads = [each for each in toposort([value]) if isinstance(each, Load)]
    return {leaf.name for load in loads for expr in (load.index, load.guard) for leaf in leaves(expr)}


def contractions(program: Program) -> list[Reduce]:
    """Sums of products of two things of which each lacks an axis of the other."""
    found = []
    for value in [value for kernel in program.kernels for value in toposort(roots(kernel.stores))]:
        if isinstance(value, Reduce) and value.monoid.name == "sum":
            (arg,) = value.args
            if isinstance(arg, Elementwise) and arg.name == "mul":
                a, b = map(axes, arg.args)
                if a - b and b - a:
                    found.append(value)
    return found


@pytest.mark.parametrize(
    ("build", "launches", "peak", "products"),
    [(convnet, 39, 3105536, 14), (transformer_block, 25, 19904, 17)],
    ids=["convnet", "transformer block"],
)
def test_contractions_of_a_training_step_have_affine_indices(
    build: Callable[[], list[Tensor]], launches: int, peak: int, products: int
) -> None:
    """Not so for strides: the gradient of a strided convolution reads only where the stride divides."""
    program = schedule([tensor.node for tensor in build()]).program
    assert (len(program.steps), sum(peak_bytes(program).values())) == (launches, peak)
    assert len(contractions(program)) == products
    values = [value for kernel in program.kernels for value in toposort(roots(kernel.stores))]
    indices = [value.index for value in values if isinstance(value, Load)]
    indices += [store.index for kernel in program.kernels for store in kernel.stores]
    parts = {part for index in indices if isinstance(index, Expr) for part in postorder(index)}
    assert not [part for part in parts if isinstance(part, FloorDiv | Mod)]
