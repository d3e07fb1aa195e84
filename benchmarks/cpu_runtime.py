"""What a launch costs on the CPU: `python benchmarks/cpu_runtime.py`, microseconds a launch, the best of seven runs.

The kernel does next to nothing, in one workgroup or in 64. "replayed": one recording of 1,000 launches, submitted and
waited for. "from Python": 1,000 calls of `launch`, then one wait. "alone": one `launch` and its wait at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tg_codegen.x86_64.assembler import assemble
from tg_ir.dtypes import int64
from tg_ir.program.nodes import BufferSlot, Launch, Program
from tg_ir.protocols import ArgumentLayout, Binary
from tg_runtime_cpu import CpuRuntime
from tg_runtime_cpu.workers import clock

LAUNCHES = 1000
COUNT = """
    mov rax, qword ptr [rdi]
next:
    inc qword ptr [rax + 8*rsi]
    inc rsi
    cmp rsi, rdx
    jl next
    ret
"""


def best(run: Callable[[], None], launches: int = LAUNCHES) -> float:
    """Microseconds for one of the launches that a run makes."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / launches * 1e6)
    return min(times)


def measure(threads: int, groups: int) -> tuple[float, float, float]:
    """Replayed, from Python, alone."""
    runtime = CpuRuntime(threads=threads)
    binary = Binary(
        "x86_64", "count", assemble(COUNT).code, ArgumentLayout(8, (0,), ()), (groups, 1, 1), (1, 1, 1)
    )
    kernel, counts = runtime.load(binary), runtime.alloc(8 * groups)
    counts.view[:] = bytes(8 * groups)
    program = Program(
        "chain", (), (BufferSlot(int64, groups, "CPU", "state"),), (), (Launch("count", (0,)),) * LAUNCHES
    )
    recording = runtime.record(program, {"count": kernel})
    recording.patch({0: counts}, {})

    def replay() -> None:
        runtime.submit(recording)
        runtime.synchronize()

    def launch() -> None:
        for _ in range(LAUNCHES):
            runtime.launch(kernel, [counts], {})
        runtime.synchronize()

    def alone() -> None:
        for _ in range(LAUNCHES):
            runtime.launch(kernel, [counts], {})
            runtime.synchronize()

    replay()
    done = best(replay), best(launch), best(alone)
    assert counts.view.cast("q").tolist() == [22 * LAUNCHES] * groups
    return done


def main() -> None:
    print(
        f"{'threads':>8}{'groups':>8}{'replayed':>12}{'from Python':>14}{'alone':>10}{'Python / replayed':>20}"
    )
    for threads in (1, 2):
        for groups in (1, 64):
            replayed, launched, alone = measure(threads, groups)
            print(
                f"{threads:8}{groups:8}{replayed:12.3f}{launched:14.2f}{alone:10.2f}{launched / replayed:20.1f}"
            )
    print(f"{'an empty native call':40}{best(lambda: [clock() for _ in range(LAUNCHES)] and None):10.2f}")


if __name__ == "__main__":
    main()
