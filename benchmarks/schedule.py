"""How long graphs take to schedule, and what comes of it: `python benchmarks/schedule.py`.

Processor time of `tg_schedule` from the normal form to the program, the best of three, with the launches, the distinct
kernels and the peak of temporaries in MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.graph import toposort
from tg_schedule import peak_bytes
from tg_schedule.normalize import normalize
from tg_schedule.pipeline import schedule_normalized


def weight(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32), requires_grad=True)


def transformer(
    layers: int, batch: int = 2, length: int = 64, width: int = 64, heads: int = 4
) -> list[Tensor]:
    """Forward and backward."""
    x, weights = weight(batch, length, width).detach(), []
    for _ in range(layers):
        w = [
            weight(3 * width, width),
            weight(width, width),
            weight(4 * width, width),
            weight(width, 4 * width),
        ]
        weights += w
        parts = x.layer_norm((width,)).linear(w[0]).reshape(batch, length, 3, heads, width // heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        a = q.scaled_dot_product_attention(k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
        x = x + a.linear(w[1])
        x = x + x.layer_norm((width,)).linear(w[2]).gelu().linear(w[3])
    loss = x.square().mean()
    return [loss, *tg.grad(loss, weights)]


def layers(count: int) -> list[Tensor]:
    """A deep network of small layers, forward and backward."""
    weights = [weight(8, 8) for _ in range(count)]
    x = weight(4, 8).detach()
    for w in weights:
        x = (x @ w).tanh() + x
    return tg.grad(x.square().mean(), weights)


def adam(count: int) -> list[Tensor]:
    """An optimiser's step over parameters of different shapes."""
    results = []
    for number in range(count):
        p, g, m, v = [weight(2 + number % 5, 3 + number).detach() for _ in range(4)]
        m, v = m * 0.9 + g * 0.1, v * 0.999 + g * g * 0.001
        results += [m, v, p - 0.001 * m / (v.sqrt() + 1e-8)]
    return results


GRAPHS: dict[str, Callable[[], list[Tensor]]] = {
    "transformer, 1 layer": lambda: transformer(1),
    "transformer, 12 layers": lambda: transformer(12),
    "400 small layers": lambda: layers(400),
    "adam over 1,000 parameters": lambda: adam(1000),
    "eigenvalues by Jacobi, 6 x 6": lambda: list(Tensor(np.eye(6, dtype=np.float32)).eigh()),
    "sort of 1,024": lambda: [weight(4, 1024).detach().sort(-1)[0]],
}


def main() -> None:
    print(f"{'graph':30} {'nodes':>7} {'launches':>9} {'kernels':>8} {'peak MB':>8} {'s':>7} {'ms/node':>8}")
    for name, build in GRAPHS.items():
        normal = normalize([tensor.node for tensor in build()])
        nodes, best = len(toposort(normal.roots)), float("inf")
        for _ in range(3):
            start = time.process_time()
            program, _, _ = schedule_normalized(normal, name)
            best = min(best, time.process_time() - start)
        peak = sum(peak_bytes(program).values()) / 1e6
        counts = f"{nodes:7,} {len(program.steps):9,} {len(program.kernels):8,} {peak:8.3f}"
        print(f"{name:30} {counts} {best:7.3f} {1e3 * best / nodes:8.3f}")


if __name__ == "__main__":
    main()
