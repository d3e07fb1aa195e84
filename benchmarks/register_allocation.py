"""What the shared back end costs: `python benchmarks/register_allocation.py` prints microseconds an instruction,
in CPU time, the best of nine runs.

The code is the inner loop of an AVX-512 matrix product, 2 vectors wide: with 14 rows everything fits into registers,
with 16 and 20 rows 3 and 11 registers are missing. The last column counts loads and stores of spill slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tg_codegen.machine.allocate_registers import allocate_registers
from tg_codegen.machine.check_allocation import check_allocation
from tg_codegen.machine.code import Code, Inst, LoopEnd, LoopStart, VReg
from tg_codegen.machine.liveness import analyse_liveness
from tg_codegen.machine.schedule_instructions import schedule_instructions
from tg_codegen.x86_64.abi import Registers
from tg_codegen.x86_64.operands import Mem, V

LIMITS = {"gpr": 13, "vector": 32, "mask": 7}


def matrix_product(rows: int, unroll: int) -> Code:
    """A loop over k that adds `unroll` outer products to rows x 2 vectors."""
    code = Code(f"{rows}x2")
    put = code.items.append
    count = iter(range(1 << 20))

    def made(file: str, opcode: str, *rest: object, uses: tuple[VReg, ...] = (), memory: str = "") -> VReg:
        reg = VReg(next(count), file)
        kind = "q" if file == "gpr" else "z"
        put(Inst(opcode, (V(reg, kind), *rest), (reg,), uses, memory=memory))
        return reg

    a, b, out, left = (made("gpr", "mov", 0) for _ in range(4))
    sums = [[made("vector", "vpxord", 0) for _ in range(2)] for _ in range(rows)]
    put(LoopStart("k"))
    for k in range(unroll):
        right = [
            made("vector", "vmovups", Mem(b, disp=128 * k + 64 * j), uses=(b,), memory="load") for j in (0, 1)
        ]
        for i, row in enumerate(sums):
            x = made("vector", "vbroadcastss", Mem(a, disp=64 * i + 4 * k), uses=(a,), memory="load")
            for total, y in zip(row, right, strict=True):
                operands = (V(total, "z"), V(x, "z"), V(y, "z"))
                put(Inst("vfmadd231ps", operands, (total,), (total, x, y), ((0, 0),)))
    for reg, step in ((a, 4 * unroll), (b, 128 * unroll), (left, -unroll)):
        put(Inst("add", (V(reg, "q"), step), (reg,), (reg,), ((0, 0),)))
    put(Inst("branch", ("g", V(left, "q"), 0, "k"), (), (left,)))
    put(LoopEnd("k"))
    for i, row in enumerate(sums):
        for j, total in enumerate(row):
            put(
                Inst("vmovups", (Mem(out, disp=128 * i + 64 * j), V(total, "z")), (), (out, total), memory="store")
            )  # fmt: skip
    return code


def best(run: Callable[[], object], count: int) -> float:
    """Microseconds for each of `count` instructions."""
    times = []
    for _ in range(9):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e6 * min(times) / count


def latency(inst: Inst) -> int:
    return 6 if inst.memory == "load" else 4


def row(rows: int, unroll: int) -> str:
    target = Registers(True, 0)
    code = matrix_product(rows, unroll)
    count = len(code.items)
    done = allocate_registers(code, target)
    times = [
        best(lambda: analyse_liveness(code), count),
        best(lambda: allocate_registers(code, target), count),
        best(lambda: schedule_instructions(code, latency, LIMITS), count),
        best(lambda: check_allocation(code, done, target), count),
    ]
    shown = " ".join(f"{value:9.1f}" for value in times)
    return f"{f'{rows}x2x{unroll}':10} {count:6} {shown} {done.spills + done.reloads:7}"


def main() -> None:
    print(
        f"{'loop':10} {'items':>6} {'liveness':>9} {'allocate':>9} {'schedule':>9} {'check':>9} {'spills':>7}"
    )
    for rows, unroll in ((14, 1), (14, 10), (16, 10), (20, 10)):
        print(row(rows, unroll))


if __name__ == "__main__":
    main()
