"""Named networks through the scheduler: their programs equal the reference interpreter, in how many kernels and bytes.

The counts are what the scheduler makes today: lower is welcome, higher is to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.graph.interpret import interpret_graph
from tg_ir.numpy_dtypes import decode
from tg_ir.program.interpret import interpret_program
from tg_schedule import peak_bytes, schedule


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


NETWORKS: dict[str, tuple[Callable[[], list[Tensor]], int, int]] = {
    "mlp": (mlp, 13, 8832),
    "residual block": (residual_block, 18, 15840),
    "transformer block": (transformer_block, 28, 21888),
    "adam over 100 parameters": (adam, 12, 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_equals_the_interpreter_in_so_many_kernels_and_bytes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TG_VERIFY", "1")
    build, kernels, peak = NETWORKS[name]
    nodes = [tensor.node for tensor in build()]
    scheduled = schedule(nodes)
    given = {number: np.array(buffer.memory).reshape(-1) for number, buffer in scheduled.inputs.items()}
    results = given | interpret_program(scheduled.program, given, scheduled.scalars)
    for node, number, want in zip(nodes, scheduled.outputs, interpret_graph(nodes), strict=True):
        got = decode(results[number], node.dtype).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    assert (len(scheduled.program.kernels), sum(peak_bytes(scheduled.program).values())) == (kernels, peak)
