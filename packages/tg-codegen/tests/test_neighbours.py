"""Neighbours of a plan are plans: each differs from it, verifies, and reads back from its text."""

from __future__ import annotations

import os
import random

import pytest
from random_kernels import random_kernel

from tg_codegen.compiler import plans_near
from tg_codegen.merge_axes import merge_axes
from tg_codegen.neighbours import neighbours
from tg_codegen.plan import parse_plan
from tg_codegen.planner import Machine, plan_kernel
from tg_codegen.verify_plan import verify_plan
from tg_ir.errors import TgError
from tg_ir.kernel import parse_kernel

SEED = int(os.environ.get("TG_SEED", "5"))

PRODUCT = """
kernel product
read a : float32[64*96]
read b : float32[96*80]
write c : float32[64*80]
axis i : 64
axis j : 80
axis k : 96
%0 = load a[96*i + k] : float32
%1 = load b[80*k + j] : float32
%2 = mul(%0, %1) : float32
%3 = reduce sum(%2) over k : float32
%4 = part %3 0 : float32
store c[80*i + j] = %4 over i, j
"""


def test_neighbours_of_random_kernels_are_valid_plans_of_them():
    print(f"seed {SEED}")
    rng, machine, count = random.Random(SEED), Machine(lanes=16, registers=32), 0
    for _ in range(30):
        kernel = merge_axes(random_kernel(rng))
        plan = plan_kernel(kernel, machine)
        near = list(neighbours(kernel, plan, machine.lanes))
        count += len(near)
        assert plan not in near and len(set(near)) == len(near)
        for each in near:
            verify_plan(kernel, each, machine.lanes)
            assert parse_plan(str(each)) == each
    assert count > 30


def test_neighbours_of_a_matrix_product_have_other_tiles():
    kernel = parse_kernel(PRODUCT)
    near = list(plans_near(kernel, "x86_64:avx512"))
    steps = {tuple([split.step for nest in plan.nests for split in nest.loops]) for plan in near}
    assert len(near) > 8 and len(steps) > 4
    further = {other for plan in near[:3] for other in plans_near(kernel, "x86_64:avx512", plan)}
    assert further - set(near)


def test_neighbours_for_an_unknown_target_raise():
    with pytest.raises(TgError, match="got 'z80'"):
        plans_near(parse_kernel(PRODUCT), "z80")
