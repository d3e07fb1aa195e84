"""Kernels to machine code: the passes in order, and the targets that this package compiles for.

| pass | takes | gives |
|---|---|---|
| merge_axes | a kernel | the same with fewer axes |
| plan_kernel | | a plan |
| lower | kernel and plan | machine IR |
| backend | machine IR | instructions, scheduled and allocated, as bytes |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tg_codegen.host import host_target
from tg_codegen.lower import lower
from tg_codegen.machine.nodes import Function
from tg_codegen.merge_axes import merge_axes
from tg_codegen.neighbours import neighbours
from tg_codegen.plan import Plan
from tg_codegen.planner import Machine, plan_kernel
from tg_ir.errors import TgError
from tg_ir.kernel import Kernel
from tg_ir.protocols import ArgumentLayout, Binary
from tg_ir.symbolic import SymInt

__all__ = ["X86Compiler", "compile_kernel", "host_target", "lower_kernel", "plans_near"]

_MACHINES = {
    "x86_64:avx2": Machine(lanes=8, registers=16, panel_bytes=1 << 14),
    "x86_64:avx512": Machine(lanes=16, registers=32),
    "x86_64:amx": Machine(lanes=16, registers=32),
}


def _machine(target: str) -> Machine:
    if target not in _MACHINES:
        raise TgError(f"target: got {target!r}, want one of {', '.join(_MACHINES)}")
    return _MACHINES[target]


def plans_near(kernel: Kernel, target: str, plan: Plan | None = None) -> Iterator[Plan]:
    """The neighbours of a plan, by default of the planner's choice. Raises: TgError for an unknown target."""
    machine, kernel = _machine(target), merge_axes(kernel)
    return neighbours(kernel, plan or plan_kernel(kernel, machine), machine.lanes)


def lower_kernel(kernel: Kernel, target: str, plan: Plan | None = None) -> tuple[Plan, Function, SymInt]:
    """Plan, machine IR, and number of workgroups. Raises: TgError for a target that there is none for."""
    from tg_codegen.x86_64.backend import expansions

    machine = _machine(target)
    kernel = merge_axes(kernel)
    plan = plan or plan_kernel(kernel, machine)
    return plan, *lower(kernel, plan, machine.lanes, expansions(target.partition(":")[2]))


def compile_kernel(kernel: Kernel, target: str, plan: Plan | None = None) -> Binary:
    """Machine code of a kernel. Raises: TgError for a target that there is none for."""
    from tg_codegen.x86_64.backend import compile_function

    _, function, groups = lower_kernel(kernel, target, plan)
    count = len(kernel.parameters)
    code, resources = compile_function(function, target.partition(":")[2], count)
    layout = ArgumentLayout(
        8 * (count + len(kernel.scalars)),
        tuple(range(0, 8 * count, 8)),
        tuple([(var.name, 8 * (count + n), "int64") for n, var in enumerate(kernel.scalars)]),
    )
    return Binary(target, kernel.name, code, layout, (groups, 1, 1), (1, 1, 1), resources)


class X86Compiler:
    """The `tg_ir.protocols.Compiler` for x86-64."""

    def targets(self) -> Sequence[str]:
        return tuple(_MACHINES)

    def compile(self, kernel: Kernel, target: str) -> Binary:
        return compile_kernel(kernel, target)
