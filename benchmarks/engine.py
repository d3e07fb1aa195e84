"""What the engine costs besides the kernels: first results, eager operations, replays, compiling many kernels.

    python benchmarks/engine.py

Figures are the best of several runs. The layers of the training step are small, so that its time is the engine's.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import tg
import tg.binaries
import tg_frontend as frontend
from tg_codegen.compiler import host_target
from tg_ir.kernel import Kernel
from tg_schedule import schedule

LAYERS, WIDTH, BATCH, KERNELS = 24, 16, 8, 100
FIRST = "import tg; print((tg.Tensor([1, 2, 3]) + 1).tolist())"


def best(function: Callable[[], object], times: int = 5, inner: int = 1) -> float:
    """Seconds of the quickest run, each of `inner` calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        for _ in range(inner):
            function()
        seconds.append((time.perf_counter() - start) / inner)
    return min(seconds)


def first_result(cache: str) -> float:
    """Seconds from the start of a process to its first result."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["TG_CACHE_DIR"] = cache
    command = [sys.executable, "-c", FIRST]
    return best(lambda: subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL), 10)


def training_step() -> Callable[[tg.Tensor], tg.Tensor]:
    """A step of a deep and narrow network with momentum."""
    weights = [(frontend.rand(WIDTH, WIDTH) - 0.5).realize().requires_grad_() for _ in range(LAYERS)]
    moments = [frontend.zeros(WIDTH, WIDTH).realize() for _ in weights]

    def step(x: tg.Tensor) -> tg.Tensor:
        for weight in weights:
            weight.grad = None
        hidden = x
        for weight in weights:
            hidden = (hidden @ weight).relu()
        loss = hidden.mean()
        loss.backward()
        with frontend.no_grad():
            for weight, moment in zip(weights, moments, strict=True):
                moment.assign(moment * 0.9 + weight.grad)
                weight.sub_(moment * 0.01)
        return loss

    return step


def distinct_kernels(count: int) -> list[Kernel]:
    """Kernels that differ in a number."""
    x = frontend.rand(64, 64).realize()
    found = []
    for number in range(count):
        node = ((x * (number + 0.5)).exp() + x[: 1 + number % 64].sum(0)).node
        found += schedule([node]).program.kernels
    return [dataclasses.replace(kernel, name=f"k{number}") for number, kernel in enumerate(found)]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        first_result(folder)
        print(f"first result of a process, binary on disk {first_result(folder) * 1e3:9.0f} ms")
        print(f"first result of a process, compiled       {first_result('0') * 1e3:9.0f} ms")
    x, y = tg.Tensor([1.0, 2.0, 3.0]).realize(), tg.Tensor([4.0, 5.0, 6.0]).realize()
    add = tg.jit(lambda a, b: a + b)
    print(
        f"x + y, eager, submitted                   {best(lambda: (x + y).realize(), 5, 200) * 1e6:9.1f} us"
    )
    print(f"x + y, eager, read                        {best(lambda: (x + y).tolist(), 5, 200) * 1e6:9.1f} us")
    print(f"x + y, replayed, submitted                {best(lambda: add(x, y), 5, 200) * 1e6:9.1f} us")
    step, batch = training_step(), frontend.rand(BATCH, WIDTH).realize()
    replayed = tg.jit(step)
    for _ in range(4):
        step(batch).realize()
        replayed(batch).realize()
    print(
        f"training step of {LAYERS} layers, eager         {best(lambda: step(batch).item(), 5) * 1e3:9.2f} ms"
    )
    print(
        f"training step of {LAYERS} layers, replayed      {best(lambda: replayed(batch).item(), 20) * 1e3:9.2f} ms"
    )
    kernels, forks = distinct_kernels(KERNELS), tg.binaries.FORK_FROM
    for title, least in (("one process", len(kernels) + 1), ("all CPUs   ", forks)):
        tg.binaries.FORK_FROM = least
        seconds = best(lambda: tg.binaries.Binaries().get(kernels, host_target()), 1)
        print(f"{len(kernels)} kernels compiled, {title}         {seconds * 1e3:9.0f} ms")


if __name__ == "__main__":
    main()
