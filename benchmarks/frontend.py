"""How fast the frontend is: imports, nodes of the tensor graph, and the graph of a transformer's training step.

    python benchmarks/frontend.py

Nothing is evaluated. Figures are the best of several runs; imports are timed in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir import graph
from tg_ir.dtypes import float32

LAYERS, BATCH, LENGTH, WIDTH, HEADS, VOCABULARY = 12, 8, 1024, 768, 12, 50257


def best(function: Callable[[], object], times: int = 5) -> float:
    """Seconds of the quickest run."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def import_time(statement: str) -> float:
    """Milliseconds of an import in a fresh process, that of the bare interpreter taken off."""
    bytecode = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> float:
        return best(lambda: subprocess.run([sys.executable, "-c", code], check=True, env=bytecode), 10)

    return (run(statement) - run("pass")) * 1e3


def build_nodes(count: int) -> graph.Node:
    """A graph of about `count` nodes, none of them equal: adds, multiplications, reshapes and permutes in turn."""
    node = graph.buffer((4, 6), float32, "REF")
    for _ in range(count // 4):
        node = graph.apply("add", node, node)
        node = graph.permute(node, (1, 0))
        node = graph.apply("mul", node, node)
        node = graph.reshape(node, (4, 6))
    return node


def parameter(*shape: int) -> Tensor:
    """An empty weight: nothing of it is ever computed here."""
    node = graph.buffer(shape, float32, "REF")
    return Tensor.from_node(node).requires_grad_()


def transformer() -> tuple[Tensor, list[Tensor]]:
    """The loss of a GPT-2 of 124 million parameters, and its weights."""
    weights: list[Tensor] = []

    def weight(*shape: int) -> Tensor:
        weights.append(parameter(*shape))
        return weights[-1]

    tokens = Tensor.from_node(graph.buffer((BATCH, LENGTH), tg.dtypes.int64, "REF"))
    targets = Tensor.from_node(graph.buffer((BATCH, LENGTH), tg.dtypes.int64, "REF"))
    table = weight(VOCABULARY, WIDTH)
    x = tokens.embedding(table) + weight(LENGTH, WIDTH)
    for _ in range(LAYERS):
        h = x.layer_norm((WIDTH,), weight(WIDTH), weight(WIDTH))
        qkv = h.linear(weight(3 * WIDTH, WIDTH), weight(3 * WIDTH))
        q, k, v = qkv.reshape(BATCH, LENGTH, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        a = q.scaled_dot_product_attention(k, v, is_causal=True)
        a = a.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH)
        x = x + a.linear(weight(WIDTH, WIDTH), weight(WIDTH))
        h = x.layer_norm((WIDTH,), weight(WIDTH), weight(WIDTH))
        h = h.linear(weight(4 * WIDTH, WIDTH), weight(4 * WIDTH)).gelu(approximate="tanh")
        x = x + h.linear(weight(WIDTH, 4 * WIDTH), weight(WIDTH))
    logits = x.layer_norm((WIDTH,), weight(WIDTH), weight(WIDTH)).linear(table)
    return logits.reshape(-1, VOCABULARY).cross_entropy(targets.reshape(-1)), weights


def main() -> None:
    """Print the table."""
    rows: list[tuple[str, float, str]] = [
        ("import tg_ir.graph", import_time("import tg_ir.graph"), "ms"),
        ("import tg_frontend (limit 80)", import_time("import tg_frontend"), "ms"),
    ]
    count = 100_000
    rows.append((f"build {count:,} nodes", best(lambda: build_nodes(count)) * 1e3, "ms"))
    node = build_nodes(count)
    rows.append((f"build {count:,} nodes that exist", best(lambda: build_nodes(count)) * 1e3, "ms"))
    rows.append((f"walk {count:,} nodes", best(lambda: graph.toposort([node])) * 1e3, "ms"))
    rows.append((f"hash {count:,} nodes", best(lambda: len(set(graph.toposort([node])))) * 1e3, "ms"))

    rows.append((f"forward graph, {LAYERS} layers", best(lambda: transformer()) * 1e3, "ms"))
    loss, weights = transformer()
    forward = len(graph.toposort([loss.node]))
    rows.append((f"backward graph, {LAYERS} layers", best(lambda: tg.grad(loss, weights)) * 1e3, "ms"))
    both = len(graph.toposort([loss.node, *[g.node for g in tg.grad(loss, weights)]]))
    rows += [("nodes forward", forward, ""), ("nodes forward and backward", both, "")]
    for name, value, unit in rows:
        print(f"{name:40} {value:12,.1f} {unit}")


if __name__ == "__main__":
    main()
