"""Plans near a plan, for tuning: one step doubled or halved, two loops exchanged, a loop on the grid or off, no stage.

*before*: a valid plan. *after*: other valid plans of the same kernel, each different from it in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tg_codegen.errors import PlanError
from tg_codegen.plan import Nest, Plan, Split
from tg_codegen.verify_plan import verify_plan
from tg_ir.kernel import Kernel

__all__ = ["neighbours"]

_OTHER_KIND = {"grid": "serial", "serial": "grid"}


def neighbours(kernel: Kernel, plan: Plan, lanes: int) -> Iterator[Plan]:
    """The neighbours of a plan of a kernel (after merge_axes)."""
    seen = {plan}
    for number, nest in enumerate(plan.nests):
        for other in _of_nest(nest):
            candidate = Plan((*plan.nests[:number], other, *plan.nests[number + 1 :]))
            if candidate in seen:
                continue
            seen.add(candidate)
            try:
                verify_plan(kernel, candidate, lanes)
            except PlanError:  # most changes of a plan are no plan
                continue
            yield candidate


def _of_nest(nest: Nest) -> Iterator[Nest]:
    for loops in _of_loops(nest.loops):
        yield replace(nest, loops=loops)
    for number, fold in enumerate(nest.folds):
        for loops in _of_loops(fold):
            yield replace(nest, folds=(*nest.folds[:number], loops, *nest.folds[number + 1 :]))
    for number in range(len(nest.stages)):
        yield replace(nest, stages=(*nest.stages[:number], *nest.stages[number + 1 :]))


def _of_loops(loops: tuple[Split, ...]) -> Iterator[tuple[Split, ...]]:
    for number, split in enumerate(loops):
        before, after = loops[:number], loops[number + 1 :]
        for step in (split.step * 2, split.step // 2, split.step + 2, split.step - 2):
            other = replace(split, step=step)
            if step > 0 and str(other) != str(split):  # some kinds have no step of their own
                yield (*before, other, *after)
        if split.kind in _OTHER_KIND:
            yield (*before, replace(split, kind=_OTHER_KIND[split.kind]), *after)
        if after:
            yield (*before, after[0], split, *after[1:])
