"""How many lane-operations a second the AMD instruction interpreter executes, all checks on, on one core.

    python benchmarks/amd_emulator.py [TARGET ...]

A loop of eight vector instructions (integer, f32, fma) and three scalar ones, over dispatches of 64 to 1,024 waves in
workgroups of 256 work-items. A lane-operation is one vector instruction for one lane. Processor time counts, the best
of three.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "packages/tg-emulator-amd/tests"))

import numpy as np  # noqa: E402
from isa_machine import assemble_kernel, launch  # noqa: E402

LOOPS = 200
BODY = """
v_cvt_f32_u32 v2, v0
v_mov_b32 v3, 0.5
v_mov_b32 v4, 1
v_mov_b32 v5, 2
s_mov_b32 s6, {loops}
loop:
v_mul_f32 v3, 0.5, v3
v_add_f32 v3, v3, v2
v_fma_f32 v3, v3, 0.5, v2
v_{add} v4, v4, v5
v_xor_b32 v5, v4, v5
v_lshlrev_b32 v5, 1, v5
v_and_b32 v5, 0xffff, v5
v_max_f32 v2, v2, v3
s_sub_{scalar} s6, s6, 1
s_cmp_lg_u32 s6, 0
s_cbranch_scc1 loop
s_endpgm
"""
RDNA4 = {"v_max_f32": "v_max_num_f32", "s_sub_u32": "s_sub_co_u32"}


def measure(target: str, waves: int) -> tuple[float, float]:
    """(million lane-operations, thousand wave-instructions) a second."""
    text = BODY.format(
        loops=LOOPS, add="add_u32" if target.startswith("gfx9") else "add_nc_u32", scalar="u32"
    )
    for old, new in RDNA4.items() if target == "gfx1201" else ():
        text = text.replace(old, new)
    code = assemble_kernel(text, target)
    lanes = 64 if target.startswith("gfx9") else 32
    best = 1e9
    for _ in range(3):
        start = time.process_time()
        _, figures = launch(code, "k", target, (waves * lanes,), (256,), np.zeros(64, np.int32))
        best = min(best, time.process_time() - start)
    return figures.instructions["valu"] * lanes / best / 1e6, sum(figures.instructions.values()) / best / 1e3


def main(targets: list[str]) -> None:
    print("target    waves   M lane-operations/s   k wave-instructions/s")
    for target in targets or ("gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"):
        for waves in (64, 256, 1024):
            lane_operations, instructions = measure(target, waves)
            print(f"{target:8} {waves:6} {lane_operations:21.0f} {instructions:23.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
