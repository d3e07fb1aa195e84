"""Random kernels by random plans, and by the planner's: the machine IR interpreted equals the kernel interpreted."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
from random_kernels import random_kernel, random_plan

from tg_codegen.analyse import nest_values
from tg_codegen.lower import lower
from tg_codegen.machine.interpret import interpret
from tg_codegen.machine.verify import verify
from tg_codegen.merge_axes import merge_axes
from tg_codegen.plan import format_plan, parse_plan
from tg_codegen.planner import Machine, plan_kernel
from tg_codegen.verify_plan import verify_plan
from tg_ir.kernel import Kernel, format_kernel
from tg_ir.kernel.interpret import interpret_kernel
from tg_ir.numpy_dtypes import decode, encode, numpy_dtype

SEED = int(os.environ.get("TG_SEED", "20261122"))
CASES = int(os.environ.get("TG_LOWER_CASES", "60"))


def random_buffers(kernel: Kernel, rng: np.random.Generator) -> list[np.ndarray]:
    made = []
    for parameter in kernel.parameters:
        size, dtype = parameter.size, parameter.dtype
        if dtype.is_float:
            made.append(
                encode(
                    rng.standard_normal(size).astype(np.float64 if dtype.bits == 64 else np.float32), dtype
                )
            )
        else:
            made.append(rng.integers(0, 2 if dtype.kind == "bool" else 9, size).astype(numpy_dtype(dtype)))
    return made


def assert_same(kernel: Kernel, got: list[np.ndarray], want: list[np.ndarray], about: str) -> None:
    values = nest_values(kernel.stores)  # narrow floats may stay unrounded in between
    bits = min([value.dtype.mantissa_bits for value in values if value.dtype.is_float], default=17)
    bits = min(bits, 17)
    for parameter, x, y in zip(kernel.parameters, got, want, strict=True):
        x, y = decode(x, parameter.dtype), decode(y, parameter.dtype)
        if parameter.dtype.is_float:
            scale = np.abs(y[np.isfinite(y)]).max(initial=1.0)
            np.testing.assert_allclose(
                x, y, rtol=2.0 ** -(bits - 1), atol=scale * 2.0 ** -(bits - 1), err_msg=about
            )
        else:
            np.testing.assert_array_equal(x, y, err_msg=about)


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("planned", [False, True])
def test_lower_random_kernels_equal_the_interpreter(lanes: int, planned: bool) -> None:
    for case in range(CASES):
        seed = f"{SEED}-{lanes}-{planned}-{case}"
        rng = random.Random(seed)
        kernel = merge_axes(original := random_kernel(rng))
        plan = plan_kernel(kernel, Machine(lanes, 2 * lanes)) if planned else random_plan(kernel, lanes, rng)
        verify_plan(kernel, plan, lanes)
        assert parse_plan(format_plan(plan)) == plan
        about = f"seed {seed}\n{format_kernel(kernel)}\n{plan}"
        function, groups = lower(kernel, plan, lanes, {})
        verify(function)
        given = random_buffers(kernel, np.random.default_rng(case))
        want = [array.copy() for array in given]
        with np.errstate(all="ignore"):
            interpret_kernel(original, dict(zip([p.name for p in kernel.parameters], want, strict=True)))
            try:
                interpret(function, given, (), 0, groups)
            except Exception as error:
                raise AssertionError(about) from error
        assert_same(kernel, given, want, about)
