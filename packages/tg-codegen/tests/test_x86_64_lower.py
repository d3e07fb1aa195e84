"""Random kernels by random plans: what is compiled for x86-64 computes what the machine IR's interpreter computes."""

from __future__ import annotations

import os
import random

import pytest

pytest.importorskip("numpy", reason="the interpreter of the machine IR needs NumPy")
import numpy as np
from random_kernels import random_kernel, random_plan
from test_lower import random_buffers
from x86_64_run import LEVELS, run

from tg_codegen.lower import lower
from tg_codegen.machine.interpret import interpret
from tg_codegen.merge_axes import merge_axes
from tg_codegen.planner import Machine, plan_kernel
from tg_codegen.x86_64.backend import compile_function, expansions, lanes
from tg_ir.kernel import format_kernel

SEED = int(os.environ.get("TG_SEED", "20261122"))
CASES = int(os.environ.get("TG_LOWER_CASES", "25"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("planned", [False, True])
def test_compiled_random_kernels_equal_the_interpreter(planned: bool, level: str) -> None:
    count = lanes(level)
    for case in range(CASES):
        seed = f"{SEED}-{count}-{planned}-{case}"
        rng = random.Random(seed)
        kernel = merge_axes(random_kernel(rng))
        plan = plan_kernel(kernel, Machine(count, 2 * count)) if planned else random_plan(kernel, count, rng)
        about = f"seed {seed}\n{format_kernel(kernel)}\n{plan}"
        function, groups = lower(kernel, plan, count, expansions(level))
        given = random_buffers(kernel, np.random.default_rng(case))
        want = [array.copy() for array in given]
        try:
            interpret(function, want, (), 0, groups)
            code, _ = compile_function(function, level, len(given))
        except Exception as error:
            raise AssertionError(about) from error
        run(code, given, (), 0, groups)
        for x, y in zip(given, want, strict=True):
            assert x.tobytes() == y.tobytes() or np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), about
