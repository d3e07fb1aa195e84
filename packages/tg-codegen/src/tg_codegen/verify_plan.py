"""What makes a plan valid for a kernel: every rule, with an error that names the loop that breaks it."""

from __future__ import annotations

from math import prod

from tg_codegen.analyse import Analysis, linear_terms, nest_values
from tg_codegen.errors import PlanError
from tg_codegen.plan import Nest, Plan, Split, Stage
from tg_ir.kernel import Kernel, Reduce, Scan, Store, toposort
from tg_ir.symbolic import Var, bounds

__all__ = ["MOST_COPIES", "separates", "verify_plan"]

MOST_COPIES = 256


def verify_plan(kernel: Kernel, plan: Plan, lanes: int) -> None:
    """Check a plan against a kernel (after merge_axes). Raises: PlanError."""
    numbers = sorted(number for nest in plan.nests for number in nest.stores)
    _want(
        numbers == list(range(len(kernel.stores))),
        f"nests: stores {numbers}, want each of {len(kernel.stores)} once",
    )
    for nest in plan.nests:
        _verify_nest(kernel, nest, lanes)


def _want(condition: bool, message: str) -> None:
    if not condition:
        raise PlanError(f"plan: {message}")


def separates(store: Store, axis: str, analysis: Analysis) -> bool:
    """Whether points of a store that differ along an axis never write the same element."""
    extent = next(a.extent for a in store.axes if a.name == axis)
    factor, others = 0, []
    for atom, each in linear_terms(store.index)[1]:
        if isinstance(atom, Var) and atom.name == axis:
            factor = each
        elif axis in analysis.free_expr(atom):
            return False
        else:
            others.append(each)
    return bool(factor) and isinstance(extent, int) and all(each % (factor * extent) == 0 for each in others)


def _verify_nest(kernel: Kernel, nest: Nest, lanes: int) -> None:
    stores = [kernel.stores[number] for number in nest.stores]
    first, analysis = stores[0], Analysis()
    _want(
        all((s.axes, s.combine) == (first.axes, first.combine) for s in stores),
        "a nest's stores share their axes",
    )
    extents = {axis.name: bounds(axis.extent)[1] for axis in first.axes}
    values = nest_values(stores)
    folds = analysis.folds(values)
    _want(len(folds) == len(nest.folds), f"{len(nest.folds)} fold lines, want {len(folds)}")
    lane = [split.axis for split in nest.loops if split.kind == "lanes"]
    _want(
        len(lane) <= 1 and all(axis in extents for axis in lane),
        f"lanes {lane}: want at most one axis of the stores",
    )
    grids = [split.axis for split in nest.loops if split.kind == "grid"]
    heads = [split.axis for split in nest.loops[: len(grids)]]
    _want(heads == grids and len(set(grids)) == len(grids), "grid loops come first, one an axis")
    for split in nest.loops:
        own = [
            axis
            for fold in folds
            if isinstance(fold, Reduce)
            for axis in fold.axes
            if axis.name == split.axis
        ]
        known = split.kind != "chain" and (split.axis in extents or (split.kind == "serial" and own))
        _want(split.step > 0 and bool(known), f"{split}: want a positive step and an axis of the stores")
    _want(
        _copies(nest.loops, extents, lane, lanes) <= MOST_COPIES,
        f"more than {MOST_COPIES} copies of the body",
    )
    before: dict[str, int] = {}
    for split in nest.loops:
        if split.kind != "lanes":
            most = before.get(split.axis, split.step)
            _want(split.step <= most, f"{split}: is inside a part of {most}; want a smaller step")
            before[split.axis] = split.step
        if split.axis in lane and split.kind != "lanes":
            whole = split.step % lanes == 0 or split.step >= extents[split.axis]
            _want(whole, f"{split}: want steps of whole vectors of {lanes} along the lanes")
    if first.combine:
        shared = [a for a in extents if extents[a] > 1 and not all(separates(s, a, analysis) for s in stores)]
        _want(not set(shared) & {*grids, *lane}, f"{shared}: stores meet along these; want serial loops")
        order = [split.axis for split in nest.loops if split.axis in shared]
        parts = [split for split in nest.loops if split.axis in shared]
        _want(
            order == shared and all(p.step == 1 for p in parts),
            f"{shared}: want serial loops of step 1, in order",
        )
    for fold, loops in zip(folds, nest.folds, strict=True):
        if isinstance(fold, Scan):
            _verify_scan(fold, nest, analysis, lane, lanes)
        else:
            _verify_reduce(fold, loops, analysis, lane, lanes)
    outer = [split.axis for split in nest.loops if split.axis not in extents]
    around = [fold for fold in folds if isinstance(fold, Reduce) and {a.name for a in fold.axes} & set(outer)]
    if outer:
        inner = {value for fold in folds for value in toposort(fold.args)}
        _want(len(around) == 1 and around[0] not in inner, "one reduction alone may be taken in blocks")
        _want(not any(isinstance(fold, Scan) for fold in folds), "no scan beside a reduction in blocks")
    for stage in nest.stages:
        _want(
            stage.value < len(values) and stage.at <= len(nest.loops),
            f"stage {stage.value}: no such value or loop",
        )
        value = values[stage.value]
        fixed = {axis for axis, size in _left(nest.loops[: stage.at], extents).items() if size <= 1}
        free = analysis.free(value) - fixed
        free -= {var.name for var in kernel.scalars}
        _want(
            bool(stage.layout) and set(stage.layout) >= free,
            f"stage {stage.value}: want {sorted(free)} in the layout",
        )
        _want(
            set(stage.layout) <= analysis.free(value),
            f"stage {stage.value}: depends on {sorted(analysis.free(value))}",
        )
        _want(
            not analysis.folds(toposort([value])),
            f"stage {stage.value}: a value with a reduction is not staged",
        )
        _want(value.dtype.kind != "bool", f"stage {stage.value}: truths are not staged")
        if stage.tile:
            _verify_tiles(stage, nest, extents, lanes)


def _verify_tiles(stage: Stage, nest: Nest, extents: dict[str, int], lanes: int) -> None:
    """Whoever reads tiles stands at the beginning of one, and sees no more than that one."""
    axis = stage.layout[-1]
    before = [split.step for split in nest.loops[: stage.at] if split.axis == axis and split.kind != "lanes"]
    after = [split.step for split in nest.loops[stage.at :] if split.axis == axis and split.kind != "lanes"]
    whole = all(step % stage.tile == 0 for step in before) and stage.tile % lanes == 0
    _want(
        axis in extents and whole and bool(after) and after[0] == stage.tile == after[-1],
        f"stage {stage.value}: tiles of {stage.tile}; want loops over {axis} that step by multiples of it, then by it",
    )


def _copies(loops: tuple[Split, ...], extents: dict[str, int], lane: list[str], lanes: int) -> int:
    left = _left(loops, extents)
    return prod(-(-size // lanes) if axis in lane else size for axis, size in left.items() if size)


def _left(loops: tuple[Split, ...], extents: dict[str, int]) -> dict[str, int]:
    """How many elements of each axis the loops leave to what is inside."""
    left = dict(extents)
    for split in loops:
        if split.kind in ("grid", "serial") and split.axis in left:
            left[split.axis] = min(split.step, left[split.axis])
    return left


def _verify_scan(fold: Scan, nest: Nest, analysis: Analysis, lane: list[str], lanes: int) -> None:
    name = fold.axis.name
    parts = [n for n, split in enumerate(nest.loops) if split.axis == name and split.kind != "lanes"]
    step = lanes if name in lane else 1
    _want(
        len(parts) == 1 and nest.loops[parts[0]].kind == "serial" and nest.loops[parts[0]].step == step,
        f"{name}: a scan runs along it; want one serial loop of step {step}",
    )
    later = {split.axis for split in nest.loops[parts[0] + 1 :] if split.kind != "lanes"}
    _want(not later & analysis.free(fold), f"{name}: loops inside a scan's are of axes it depends on")


def _verify_reduce(
    fold: Reduce, loops: tuple[Split, ...], analysis: Analysis, lane: list[str], lanes: int
) -> None:
    extents = {axis.name: bounds(axis.extent)[1] for axis in fold.axes}
    own = [split.axis for split in loops if split.kind == "lanes"]
    _want(
        all(split.axis in extents and split.kind != "grid" for split in loops),
        f"fold: {loops}, want its own axes",
    )
    _want(all(split.step > 0 for split in loops), "fold: want positive steps")
    _want(len(own) <= (not set(lane) & analysis.free(fold)), "fold: has the lanes of the stores already")
    _want(_copies(loops, extents, own, lanes) <= MOST_COPIES, f"fold: more than {MOST_COPIES} copies")
