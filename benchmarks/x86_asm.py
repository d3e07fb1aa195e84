"""What assembling for x86-64 costs: `python benchmarks/x86_asm.py` prints rows of microseconds, the best of five runs.

Loading is measured in fresh processes. "Compiler's mix" is the inner loop of an AVX-512 matrix product with its
address arithmetic; each instruction is built through the builder with fresh memory operands.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable

from tg_codegen.x86_64.assembler import Program, assemble
from tg_codegen.x86_64.decode import decode
from tg_codegen.x86_64.disassembler import decode_all, disassemble
from tg_codegen.x86_64.encode import isa
from tg_codegen.x86_64.opcodes import all_forms
from tg_codegen.x86_64.registers import gpr, k, mem, xmm, zmm

X86 = isa("x86_64:avx512")
RAX, RCX, RDX, RBX = gpr[64][:4]
LOAD = """
import time
start = time.perf_counter()
from tg_codegen.x86_64.encode import isa
from tg_codegen.x86_64.registers import gpr, zmm
imported = time.perf_counter()
isa("x86_64:avx512").vaddps(zmm[0], zmm[1], zmm[2])
first = time.perf_counter()
from tg_codegen.x86_64.decode import decode
decode(bytes.fromhex("62f1744858c2"))
print(1e3 * (imported - start), 1e3 * (first - imported), 1e3 * (time.perf_counter() - first))
"""


def best(run: Callable[[], int]) -> float:
    """Microseconds for each of what a run says it did."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        count = run()
        times.append((time.perf_counter() - start) / count * 1e6)
    return min(times)


def registers_only() -> int:
    build = X86.vfmadd231ps
    for i in range(20_000):
        build(zmm[i & 31], zmm[i + 7 & 31], zmm[i + 13 & 31])
    return 20_000


def with_memory() -> int:
    build = X86.vaddps
    for i in range(20_000):
        build(zmm[i & 31], zmm[i + 7 & 31], mem(RAX, RCX, 4, 64 * (i & 255)))
    return 20_000


def masked() -> int:
    build = X86.vaddps
    for i in range(20_000):
        build(zmm[i & 31], zmm[i + 7 & 31], zmm[i & 31], mask=k[1], zeroing=True)
    return 20_000


def integers() -> int:
    build = X86.add
    for i in range(20_000):
        build(RAX, i)
    return 20_000


def compilers_mix() -> int:
    program = Program()
    count = 0
    for step in range(300):
        program.label(f"loop{step}")
        for row in range(4):
            program.emit(X86.vbroadcastss(zmm[24 + row], mem(RAX, disp=4 * row)))
            for column in range(6):
                program.emit(
                    X86.vfmadd231ps(zmm[6 * row + column], zmm[24 + row], mem(RDX, disp=64 * column))
                )
            count += 7
        program.emit(X86.add(RAX, 16))
        program.emit(X86.add(RDX, 384))
        program.emit(X86.cmp(RDX, RBX))
        program.emit(X86.jb(f"loop{step}"))
        count += 4
    program.finish()
    return count


def main() -> None:
    loads = [
        subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    rows = [min(times) for times in zip(*(map(float, done.stdout.split()) for done in loads), strict=True)]
    for name, value in zip(
        ("import", "tables, first instruction", "decoder, first instruction"), rows, strict=True
    ):
        print(f"{name:40} {value:8.2f} ms")
    for run in (registers_only, with_memory, masked, integers, compilers_mix):
        each = best(run)
        print(
            f"{'build: ' + run.__name__.replace('_', ' '):40} {each:8.2f} us  {1e6 / each:10,.0f} instructions/s"
        )
    program = Program()
    choose = random.Random(0)
    for _ in range(5000):
        program.emit(
            X86.vaddps(zmm[choose.randrange(32)], zmm[1], mem(RAX, RCX, 4, 64 * choose.randrange(99)))
        )
        program.emit(X86.vpaddd(xmm[1], xmm[2], xmm[choose.randrange(32)]))
        program.emit(X86.add(RAX, choose.randrange(1000)))
    code = program.finish().code
    text = "\n".join(str(instruction) for _, instruction in decode_all(code))
    print(f"{'decode':40} {best(lambda: sum(1 for _ in decode_all(code))):8.2f} us")
    print(f"{'decode and print':40} {best(lambda: len([str(i) for _, i in decode_all(code)])):8.2f} us")
    print(f"{'disassemble (checked)':40} {best(lambda: len(disassemble(code))):8.2f} us")
    assemble(text)
    print(f"{'assemble text':40} {best(lambda: len(assemble(text).code) and 15000):8.2f} us")
    start = time.perf_counter()
    count = len(all_forms())
    print(f"{f'all {count} forms at once':40} {1e3 * (time.perf_counter() - start):8.2f} ms")
    assert decode(code).code


if __name__ == "__main__":
    main()
