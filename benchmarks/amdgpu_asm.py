"""How fast the AMD GPU tables load, and how fast instructions are assembled and disassembled.

    python benchmarks/amdgpu_asm.py [TARGET | TARGET=FILE ...]

The text is random instructions of every encoding with random operands. "cold" is the first such text of a process
(every row is made, every operand parsed); "assemble", "decode" and "disassemble" are a second text, of other random
instructions; "again" is that text once more. The best of three runs counts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "packages/tg-codegen/tests"))

LOAD = """
import time, tg_codegen.amdgpu.isa as m
from tg_codegen.errors import DecodeError
t = time.perf_counter(); i = m.isa({target!r}); i.rows("s_endpgm"); a = time.perf_counter() - t
t = time.perf_counter()
try: i.decode(bytes(8))
except DecodeError: pass
b = time.perf_counter() - t
t = time.perf_counter(); [i.rows(n) for n in i.mnemonics()]; c = time.perf_counter() - t
print(f"{{a * 1e3:.1f}} {{b * 1e3:.1f}} {{c * 1e3:.1f}}")
"""


def random_text(generator) -> tuple[str, bytes]:
    """Two instances of every encoding, four times, shuffled."""
    names = [m for m in generator.isa.mnemonics() if not m.startswith("v_dual")]
    cases = [case for _ in range(4) for name in names for case in generator.cases(name, 2)]
    generator.random.shuffle(cases)
    return "\n".join(c[0] for c in cases), b"".join(c[1] for c in cases)


def measure_file(target: str, path: str) -> None:
    from tg_codegen.amdgpu.assembler import assemble
    from tg_codegen.amdgpu.disassembler import decode_all
    from tg_codegen.amdgpu.elf import SHF_EXECINSTR, ElfFile
    from tg_codegen.amdgpu.isa import isa

    elf = ElfFile(Path(path).read_bytes())
    code = b"".join(elf.section_bytes(s) for s in elf.sections if s.flags & SHF_EXECINSTR)
    times = [time.perf_counter()]
    lines = [str(i) for _, i in decode_all(code, isa(target))]
    times.append(time.perf_counter())
    isa.cache_clear()
    for _ in range(2):
        assemble("\n".join(lines), isa(target))
        times.append(time.perf_counter())
    cold, first, again = (len(lines) / (t1 - t0) for t0, t1 in pairwise(times))
    print(f"{target} {Path(path).name}: {len(lines):,} instructions; disassemble cold {cold:,.0f}/s, "
          f"assemble cold {first:,.0f}/s, again {again:,.0f}/s")  # fmt: skip


def main(targets: list[str]) -> None:
    from amdgpu_cases import Generator

    from tg_codegen.amdgpu.assembler import assemble
    from tg_codegen.amdgpu.disassembler import decode_all
    from tg_codegen.amdgpu.isa import TARGETS, isa

    print(
        "target    load ms: mnemonics, decoder, every row   instructions"
        "   cold asm/s   assemble/s      again/s  disassem./s     decode/s"
    )
    for target in targets or TARGETS:
        if "=" in target:
            measure_file(*target.split("="))
            continue
        load = min(
            subprocess.check_output([sys.executable, "-c", LOAD.format(target=target)], text=True)
            for _ in range(3)
        ).split()
        instructions = isa(target)
        (first, _), (text, code) = (random_text(Generator(instructions, seed)) for seed in (1, 2))
        count = text.count("\n") + 1
        best = [0.0] * 5
        for _ in range(3):
            isa.cache_clear()
            fresh = isa(target)
            times = [time.perf_counter()]
            for step in (
                lambda: assemble(first, fresh),  # noqa: B023
                lambda: assemble(text, fresh),  # noqa: B023
                lambda: assemble(text, fresh),  # noqa: B023
                lambda: [str(i) for _, i in decode_all(code, fresh)],  # noqa: B023
                lambda: list(decode_all(code, fresh)),  # noqa: B023
            ):
                step()
                times.append(time.perf_counter())
            assert assemble(text, fresh).code == code
            best = [max(b, count / (t1 - t0)) for b, (t0, t1) in zip(best, pairwise(times), strict=True)]
        rates = "".join(f"{rate:>13,.0f}" for rate in best)
        print(f"{target:8}  {load[0]:>8} {load[1]:>8} {load[2]:>8} {count:>28,} {rates}")


if __name__ == "__main__":
    main(sys.argv[1:])
