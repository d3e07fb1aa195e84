"""Register allocation and its validator, on made-up instructions and few registers."""

from __future__ import annotations

import os

import pytest
from toy_target import Machine, Programs, Toy

from tg_codegen.machine.allocate_registers import allocate_registers
from tg_codegen.machine.check_allocation import check_allocation

SEED = int(os.environ.get("TG_SEED", "1"))
CASES = int(os.environ.get("TG_REGALLOC_CASES", "150"))


@pytest.mark.parametrize("general,tuples", [(5, 12), (6, 24), (7, 32)])
def test_allocation_of_random_programs_runs_as_before(general, tuples):
    for seed in range(SEED, SEED + CASES):
        target = Toy(general, tuples)
        program = Programs(seed, target)
        try:
            want = Machine(program.code, seed).run()
            after = allocate_registers(program.code, target)
            check_allocation(program.code, after, target)
            assert Machine(after.code, seed, after).run() == want
        except Exception:
            print(f"TG_SEED={seed} general={general} tuples={tuples}")
            raise
