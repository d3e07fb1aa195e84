"""Kernels and a training step on the CPU beside PyTorch, in one run: `python benchmarks/cpu.py [NAME ...]`.

Every row is measured with 1 and 2 threads, ours and PyTorch's turn by turn, in processes of their own; a figure is
the best of the turns. A call of ours is a captured step (`tg.jit`), whose result stays on the device; PyTorch's is the
eager call. The ceilings are this machine's: fused multiply-adds in float32 without memory, and copies, read and
written.

The last rows are a convnet's training step (batch 512: conv 5x5 32 twice, batch norm, pool, conv 3x3 64 twice, batch
norm, pool, linear; Adam), its first step with no cache on disk, and the first result of a fresh process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TURNS = 9
SIZE = 4096


def turns(
    ours: Callable[[], object], theirs: Callable[[], object], count: int = TURNS
) -> tuple[float, float]:
    """The best times of both, in seconds."""
    best = [float("inf"), float("inf")]
    for _ in range(2):
        ours(), theirs()  # what is captured and compiled
    for _ in range(count):
        for n, run in enumerate((ours, theirs)):
            start = time.perf_counter()
            run()
            best[n] = min(best[n], time.perf_counter() - start)
    return best[0], best[1]


def measure(names: list[str], threads: int) -> list[dict[str, object]]:
    """The rows, with so many threads."""
    import torch

    import tg
    from tg.profile import compute_ceiling, memory_ceiling
    from tg_codegen.host import host_target
    from tg_frontend.engine import current_engine
    from tg_runtime_cpu import CpuRuntime

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    runtime = CpuRuntime()
    flop_ceiling, byte_ceiling = compute_ceiling(runtime, host_target()), memory_ceiling(runtime)
    del runtime  # its threads would be in the way
    tg.Tensor([0.0]).realize()
    engine = current_engine()
    rows: list[dict[str, object]] = []

    def row(
        name: str,
        flop: float,
        size: float,
        function: Callable,
        theirs: Callable,
        *shapes: tuple[int, ...],
        dtype: str = "float32",
    ) -> None:
        if names and not any(name.startswith(each) for each in names):
            return
        given = [torch.randn(*shape) for shape in shapes]
        tensors = [tg.Tensor(each.numpy()).to(dtype).realize() for each in given]
        arguments = [each.to(getattr(torch, dtype)) for each in given]
        step = tg.jit(function)

        def ours() -> None:
            step(*tensors)
            engine.synchronize("CPU")

        ours_s, theirs_s = turns(ours, lambda: theirs(*arguments))
        ceiling = max(flop / flop_ceiling, size / byte_ceiling)
        rows.append(
            {
                "name": name,
                "ours": ours_s,
                "torch": theirs_s,
                "flop": flop,
                "bytes": size,
                "share": ceiling / ours_s,
            }
        )

    f = torch.nn.functional
    for n in (512, 1024, 2048):
        row(f"matmul {n} f32", 2 * n**3, 12 * n * n, lambda a, b: a @ b, torch.matmul, (n, n), (n, n))
    row(
        "matmul 1024 transposed",
        2 * 1024**3,
        0,
        lambda a, b: a @ b.T,
        lambda a, b: a @ b.T,
        (1024, 1024),
        (1024, 1024),
    )
    row(
        "matmul 1024 bf16",
        2 * 1024**3,
        0,
        lambda a, b: a @ b,
        torch.matmul,
        (1024, 1024),
        (1024, 1024),
        dtype="bfloat16",
    )
    row("matrix-vector 4096", 2 * SIZE**2, 4 * SIZE**2, lambda a, b: a @ b, torch.mv, (SIZE, SIZE), (SIZE,))
    area, moved = (SIZE, SIZE), 8 * SIZE**2
    row("add", 0, 1.5 * moved, lambda a, b: a + b, torch.add, area, area)
    row("gelu", 0, moved, lambda a: a.gelu(), f.gelu, area)
    row("softmax", 0, moved, lambda a: a.softmax(-1), lambda a: a.softmax(-1), area)
    row("layer norm", 0, moved, lambda a: a.layer_norm((SIZE,)), lambda a: f.layer_norm(a, (SIZE,)), area)
    row("sum of rows", 0, moved / 2, lambda a: a.sum(1), lambda a: a.sum(1), area)
    row("transpose", 0, moved, lambda a: a.T.contiguous(), lambda a: a.T.contiguous(), area)
    row(
        "conv 64 3x3 56",
        2 * 8 * 64 * 56 * 56 * 64 * 9,
        0,
        lambda x, w: x.conv2d(w, padding=1),
        lambda x, w: f.conv2d(x, w, padding=1),
        (8, 64, 56, 56),
        (64, 64, 3, 3),
    )
    row(
        "conv 32 5x5 24",
        2 * 128 * 32 * 20 * 20 * 32 * 25,
        0,
        lambda x, w: x.conv2d(w),
        f.conv2d,
        (128, 32, 24, 24),
        (32, 32, 5, 5),
    )
    if not names or any("convnet".startswith(each) for each in names):
        rows.append(training_step())
    rows.append({"name": "ceilings", "flop": flop_ceiling, "bytes": byte_ceiling})
    return rows


def training_step() -> dict[str, object]:
    """The convnet's step, ours and PyTorch's."""
    import torch

    import tg
    from tg_nn.layers import BatchNorm2d, Conv2d, Linear
    from tg_nn.module import Module
    from tg_nn.optimizers import Adam

    class Net(Module):
        def __init__(self) -> None:
            self.conv1, self.conv2, self.norm1 = (
                Conv2d(1, 32, 5),
                Conv2d(32, 32, 5, bias=False),
                BatchNorm2d(32),
            )
            self.conv3, self.conv4, self.norm2 = (
                Conv2d(32, 64, 3),
                Conv2d(64, 64, 3, bias=False),
                BatchNorm2d(64),
            )
            self.head = Linear(576, 10)

        def forward(self, x: tg.Tensor) -> tg.Tensor:
            x = self.norm1(self.conv2(self.conv1(x).relu()).relu()).max_pool2d(2)
            return self.head(self.norm2(self.conv4(self.conv3(x).relu()).relu()).max_pool2d(2).flatten(1))

    nn = torch.nn
    first = [nn.Conv2d(1, 32, 5), nn.ReLU(), nn.Conv2d(32, 32, 5, bias=False), nn.ReLU(), nn.BatchNorm2d(32)]
    second = [
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, bias=False),
        nn.ReLU(),
        nn.BatchNorm2d(64),
    ]
    last = [nn.Flatten(), nn.Linear(576, 10)]
    theirs = nn.Sequential(*first, nn.MaxPool2d(2), *second, nn.MaxPool2d(2), *last)
    images, labels = torch.randn(512, 1, 28, 28), torch.randint(0, 10, (512,))
    x, y = tg.Tensor(images.numpy()), tg.Tensor(labels.numpy())
    net, adam = Net(), torch.optim.Adam(theirs.parameters(), lr=1e-3)
    optimizer = Adam(net.parameters(), lr=1e-3)

    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        optimizer.zero_grad()
        loss = net(x).cross_entropy(y)
        loss.backward()
        optimizer.step()
        return loss

    def torch_step() -> None:
        adam.zero_grad()
        nn.functional.cross_entropy(theirs(images), labels).backward()
        adam.step()

    captured = tg.jit(step)
    start = time.perf_counter()
    captured(x, y).item()
    first_s = time.perf_counter() - start
    ours_s, theirs_s = turns(lambda: captured(x, y).item(), torch_step, 4)
    return {"name": "convnet step", "ours": ours_s, "torch": theirs_s, "first": first_s}


def first_result() -> float:
    """Seconds until a fresh process has its first result, the best of five; the binary is on disk by then."""
    code = "import tg; print((tg.Tensor([1, 2, 3]) + 1).tolist())"
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        print(json.dumps(measure(sys.argv[3:], int(sys.argv[2]))))
        return
    for threads in (1, 2):
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--child", str(threads), *sys.argv[1:]]
            environment = os.environ | {"TG_THREADS": str(threads), "TG_CACHE_DIR": str(Path(cache))}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        rows = json.loads(done.stdout.splitlines()[-1])
        ceilings = rows.pop()
        print(
            f"\n{threads} threads; ceilings {ceilings['flop'] / 1e9:.0f} GFLOP/s, {ceilings['bytes'] / 1e9:.1f} GB/s"
        )
        print(
            f"{'':24}{'ours ms':>10}{'torch ms':>10}{'ratio':>7}{'GFLOP/s':>9}{'GB/s':>7}{'of ceiling':>11}"
        )
        for row in rows:
            ours, theirs = row["ours"], row["torch"]
            text = f"{row['name']:24}{ours * 1e3:10.2f}{theirs * 1e3:10.2f}{theirs / ours:7.2f}"
            if row.get("flop"):
                text += f"{row['flop'] / ours / 1e9:9.0f}"
            elif row.get("bytes"):
                text += f"{'':9}{row['bytes'] / ours / 1e9:7.1f}"
            if "share" in row:
                text = f"{text:71}{row['share']:9.0%}"
            if "first" in row:
                text += f"   first step {row['first']:.2f} s"
            print(text)
    print(f"\nfirst result of a fresh process: {first_result():.2f} s")


if __name__ == "__main__":
    main()
