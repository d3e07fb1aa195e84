"""`tg bench`: what this machine can move, and what kernels of the default device reach.

Each kernel runs as a replayed program where there is something to replay; times are the best of several, and the first
run, which compiles, stands apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

from tg.capture import jit
from tg.engine import install
from tg_frontend import Device, Tensor, randn
from tg_frontend.engine import current_engine

__all__ = ["KERNELS", "Kernel", "run"]

_SECONDS = 0.5
_COPY_BYTES = 1 << 27


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is measured: the shapes of its inputs, and the flops and bytes of one run."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    function: Callable[..., Tensor]
    flops: float
    moved_bytes: float


def _kernels(size: int) -> list[Kernel]:
    area, cube = size * size, float(size) ** 3
    square = (size, size)
    image, filters = (4, 32, size // 16, size // 16), (32, 32, 3, 3)
    pixels = 4 * 32 * (size // 16) ** 2
    return [
        Kernel(f"x + x, {size}x{size}", (square,), lambda x: x + x, area, 8 * area),
        Kernel(f"sum of rows, {size}x{size}", (square,), lambda x: x.sum(1), area, 4 * area),
        Kernel(f"softmax of rows, {size}x{size}", (square,), lambda x: x.softmax(-1), 5 * area, 8 * area),
        Kernel(f"matrix product, {size}", (square, square), lambda x, y: x @ y, 2 * cube, 12 * area),
        Kernel(
            f"3x3 convolution, 32 channels, {size // 16}x{size // 16}",
            (image, filters),
            lambda x, w: x.conv2d(w, padding=1),
            2 * pixels * 32 * 9,
            8 * pixels,
        ),
    ]


KERNELS = {"REF": 256, "": 1024}
"""The size of the matrices by kind of device."""


def run(options: argparse.Namespace) -> int:
    """Print a table."""
    install()
    device = Device.default
    print(f"copying within the host's memory: {_copy_speed():.1f} GB/s, read and written\n")
    print(f"{'on ' + device + ', float32':<42}{'first ms':>10}{'best ms':>10}{'GFLOP/s':>10}{'GB/s':>8}")
    for kernel in _kernels(KERNELS.get(device.partition(":")[0], KERNELS[""])):
        first, best = _measure(kernel, device)
        print(
            f"{kernel.name:<42}{first * 1e3:>10.1f}{best * 1e3:>10.3f}"
            f"{kernel.flops / best / 1e9:>10.1f}{kernel.moved_bytes / best / 1e9:>8.1f}"
        )
    return 0


def _measure(kernel: Kernel, device: str) -> tuple[float, float]:
    """Seconds of the first run and of the best."""
    inputs = [randn(*shape).realize() for shape in kernel.shapes]
    step = kernel.function if device.startswith("REF") else jit(kernel.function)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - started < _SECONDS:
        before = time.perf_counter()
        step(*inputs).realize()
        current_engine().synchronize(device)
        times.append(time.perf_counter() - before)
    return times[0], min(times[1:])


def _copy_speed() -> float:
    """GB/s of a copy between two buffers of the host."""
    source, target = bytearray(_COPY_BYTES), bytearray(_COPY_BYTES)
    view, best = memoryview(target), float("inf")
    for _ in range(5):
        before = time.perf_counter()
        view[:] = source
        best = min(best, time.perf_counter() - before)
    return 2 * _COPY_BYTES / best / 1e9
