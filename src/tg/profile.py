"""Where time goes: a table of kernels, and a Chrome trace of their launches (chrome://tracing, ui.perfetto.dev).

With TG_PROFILE=1 runtimes keep the times of launches, and every program's kernels get names of their own. The table
comes at exit, or from `Profile.table`. FLOP are those of the algorithm: each value once for each point of the axes that
it depends on. Bytes are those of the buffers, each once (twice if updated). The ceilings are measured when the table is
made: fused multiply-adds in float32, and copies; a kernel's share is that of the one it is nearer to. Matrix units may
exceed the first, and buffers in the caches the second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from math import prod
from pathlib import Path

from tg.devices import Devices
from tg_ir.kernel.nodes import (
    Axis,
    Elementwise,
    Index,
    Kernel,
    Load,
    Loaded,
    Reduce,
    Scan,
    Value,
    children,
    roots,
    toposort,
)
from tg_ir.program.nodes import Program
from tg_ir.protocols import ArgumentLayout, Binary, Runtime
from tg_ir.symbolic import SymInt, evaluate, leaves

__all__ = ["Profile", "compute_ceiling", "kernel_cost", "memory_ceiling"]

Launch = tuple[str, str, int, int]
"""Device, kernel, start and end in ns."""


def kernel_cost(kernel: Kernel, scalars: Mapping[str, int]) -> tuple[int, int]:
    """FLOP and bytes of one launch."""
    sizes = [
        int(evaluate(p.size, scalars)) * p.dtype.itemsize * (1 + (p.access == "update"))
        for p in kernel.parameters
    ]
    return sum(_store_flop(store.axes, list(roots([store])), scalars) for store in kernel.stores), sum(sizes)


def _store_flop(axes: tuple[Axis, ...], values: list[Value], scalars: Mapping[str, int]) -> int:
    order = toposort(values)
    extents = {axis.name: axis.extent for axis in axes}
    for value in order:
        for axis in _own_axes(value):
            extents[axis.name] = axis.extent
    known: dict[Value, frozenset[str]] = {}
    flop = 0
    for value in order:
        inner = frozenset().union(*[known[child] for child in children(value)])
        inner |= {
            leaf.name for expr in _exprs(value) for leaf in leaves(expr) if not isinstance(leaf, Loaded)
        }
        inner &= extents.keys()
        own = {axis.name for axis in _own_axes(value)}
        points = prod(int(evaluate(extents[name], scalars)) for name in inner | own)
        if isinstance(value, Elementwise) and value.dtype.is_float:
            flop += points
        elif isinstance(value, Reduce | Scan):
            flop += points * sum(arg.dtype.is_float for arg in value.args)
        known[value] = inner - own if isinstance(value, Reduce) else inner | own
    return flop


def _own_axes(value: Value) -> tuple[Axis, ...]:
    return value.axes if isinstance(value, Reduce) else (value.axis,) if isinstance(value, Scan) else ()


def _exprs(value: Value) -> tuple[SymInt, ...]:
    if isinstance(value, Load):
        return value.index, value.guard
    return (value.expr,) if isinstance(value, Index) else ()


def memory_ceiling(runtime: Runtime, size_bytes: int = 1 << 26) -> float:
    """Bytes a second that a large copy within the device moves, read and written."""
    blocks = [runtime.alloc(size_bytes) for _ in range(2)]
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        runtime.copy(blocks[0], blocks[1], size_bytes)
        runtime.synchronize()
        best = min(best, time.perf_counter() - start)
    for block in blocks:
        runtime.free(block)
    return 2 * size_bytes / best


def compute_ceiling(runtime: Runtime, target: str) -> float:
    """Float32 operations a second of fused multiply-adds on all threads, without memory; 0 where we cannot tell."""
    if not target.startswith("x86_64"):
        return 0.0
    assembler = import_module("tg_codegen.x86_64.assembler")
    register, lanes = ("ymm", 8) if target.endswith("avx2") else ("zmm", 16)
    chains, rounds, slices = 12, 200_000, 64
    body = [f"vfmadd231ps {register}{n}, {register}14, {register}15" for n in range(chains)]
    clear = [f"vxorps xmm{n}, xmm{n}, xmm{n}" for n in range(16)]
    groups = [
        "group:",
        f"mov ecx, {rounds}",
        "again:",
        *body,
        "dec ecx",
        "jnz again",
        "inc rsi",
        "cmp rsi, rdx",
        "jl group",
    ]
    text = [*clear, *groups, "vzeroupper", "ret"]
    code = assembler.assemble("\n".join(text)).code
    loaded = runtime.load(Binary(target, "fma", code, ArgumentLayout(8, (), ()), (slices, 1, 1), (1, 1, 1)))
    start = time.perf_counter()
    runtime.launch(loaded, [], {})
    runtime.synchronize()
    return 2 * lanes * chains * rounds * slices / (time.perf_counter() - start)


class Profile:
    """The launches of an engine's devices since it began. `target_of` says what a device's kernels are compiled for."""

    def __init__(self, devices: Devices, target_of: Callable[[str], str]):
        self._devices, self._target_of = devices, target_of
        self._kernels: dict[str, tuple[Kernel, Mapping[str, int]]] = {}
        self.launches: list[Launch] = []

    def note(self, program: Program, scalars: Mapping[str, int]) -> None:
        """Remember what the kernels of a program are, and with which sizes they run."""
        for kernel in program.kernels:
            self._kernels[kernel.name] = (kernel, scalars)

    def collect(self) -> list[Launch]:
        """All launches so far."""
        for device, runtime in self._devices.running().items():
            self.launches += [(device, *times) for times in runtime.timestamps()]
        return self.launches

    def _ceilings(self) -> dict[str, tuple[float, float]]:
        """FLOP and bytes a second, by device."""
        found = {}
        for device, runtime in self._devices.running().items():
            found[device] = compute_ceiling(runtime, self._target_of(device)), memory_ceiling(runtime)
            runtime.timestamps()  # lets go of those of the measurement
        return found

    def table(self) -> str:
        """One line a kernel, the one that took longest first."""
        spent: dict[tuple[str, str], list[int]] = {}
        for device, name, start, end in self.collect():
            spent.setdefault((device, name), []).append(end - start)
        ceilings = self._ceilings()
        total = sum(map(sum, spent.values())) or 1
        heads = ("calls", 6), ("ms", 10), ("share", 6), ("GFLOP/s", 9), ("GB/s", 8), ("of ceiling", 10)
        lines = [f"{'kernel':40} {'device':8} " + " ".join([f"{head:>{width}}" for head, width in heads])]
        for (device, name), times in sorted(spent.items(), key=lambda item: -sum(item[1])):
            seconds = max(sum(times), 1) / 1e9
            row = f"{name[:40]:40} {device:8} {len(times):6} {seconds * 1e3:10.3f} {sum(times) / total:6.1%}"
            if name in self._kernels:
                rates = [count * len(times) / seconds for count in kernel_cost(*self._kernels[name])]
                shares = [rate / top for rate, top in zip(rates, ceilings[device], strict=True) if top]
                row += f" {rates[0] / 1e9:9.2f} {rates[1] / 1e9:8.2f} {max(shares):10.1%}"
            lines.append(row)
        for device, (flop, size) in ceilings.items():
            lines.append(
                f"{device}: {total / 1e6:.3f} ms in kernels; ceilings measured now: {flop / 1e9:.0f} GFLOP/s in "
                f"float32, copies at {size / 1e9:.1f} GB/s"
            )
        return "\n".join(lines) + "\n"

    def write_trace(self, path: Path) -> None:
        """The launches in Chrome's format."""
        devices = sorted({device for device, *_ in self.collect()})
        events: list[dict[str, object]] = [
            {"name": "process_name", "ph": "M", "pid": number, "args": {"name": device}}
            for number, device in enumerate(devices)
        ]
        for device, name, start, end in self.launches:
            times = {"ts": start / 1e3, "dur": (end - start) / 1e3}
            events.append({"name": name, "ph": "X", "pid": devices.index(device), "tid": 0, **times})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"traceEvents": events}))
