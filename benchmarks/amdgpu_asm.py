"""How fast the AMD GPU tables load, and how fast instructions are assembled and disassembled.

    python benchmarks/amdgpu_asm.py [TARGET ...]

The text is random instructions of every encoding with random operands. "cold" is the first time that a process
sees it (every row is made, every operand parsed); the other figures are for texts whose operands have occurred
before, as nearly all have after some thousand instructions. The best of three runs counts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "packages/tg-codegen/tests"))

LOAD = """
import time, tg_codegen.amdgpu.isa as m
t = time.perf_counter(); i = m.isa({target!r}); i.rows("s_endpgm"); a = time.perf_counter() - t
t = time.perf_counter()
try: i.decode(bytes(8))
except Exception: pass
b = time.perf_counter() - t
t = time.perf_counter(); [i.rows(n) for n in i.mnemonics()]; c = time.perf_counter() - t
print(f"{{a * 1e3:.1f}} {{b * 1e3:.1f}} {{c * 1e3:.1f}}")
"""


def main(targets: list[str]) -> None:
    from amdgpu_cases import Generator

    from tg_codegen.amdgpu.assembler import assemble
    from tg_codegen.amdgpu.disassembler import decode_all
    from tg_codegen.amdgpu.isa import TARGETS, isa

    print(
        "target    load ms: mnemonics, decoder, every row   instructions"
        "   cold asm/s   assemble/s   decode/s   disassemble/s"
    )
    for target in targets or TARGETS:
        load = min(
            subprocess.check_output([sys.executable, "-c", LOAD.format(target=target)], text=True)
            for _ in range(3)
        ).split()
        instructions = isa(target)
        generator = Generator(instructions, 1)
        cases = [
            c
            for _ in range(4)
            for m in instructions.mnemonics()
            if not m.startswith("v_dual")
            for c in generator.cases(m, 2)
        ]
        generator.random.shuffle(cases)
        text, code = "\n".join(c[0] for c in cases), b"".join(c[1] for c in cases)
        best = [0.0] * 4
        for _ in range(3):
            isa.cache_clear()
            fresh = isa(target)
            start = time.perf_counter()
            assemble(text, fresh)
            t0 = time.perf_counter()
            assert assemble(text, fresh).code == code
            t1 = time.perf_counter()
            list(decode_all(code, fresh))
            t2 = time.perf_counter()
            decoded = list(decode_all(code, fresh))
            t3 = time.perf_counter()
            lines = [str(i) for _, i in decoded]
            t4 = time.perf_counter()
            assert len(lines) == len(cases)
            rates = (t0 - start, t1 - t0, t3 - t2, t3 - t2 + t4 - t3)
            best = [max(b, len(cases) / r) for b, r in zip(best, rates, strict=True)]
        rates = "".join(f"{rate:>13,.0f}" for rate in best)
        print(f"{target:8}  {load[0]:>8} {load[1]:>8} {load[2]:>8} {len(cases):>28,} {rates}")


if __name__ == "__main__":
    main(sys.argv[1:])
