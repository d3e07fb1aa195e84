"""Lower a kernel and its plan to machine IR.

The loops of a nest are opened from the outermost to the innermost. As soon as all axes are open that a reduction or
scan (a fold) depends on, its own loops are built in front of the remaining ones; so it is computed once for each of its
results. What a loop leaves of an axis are points: a value is built once for each point of the axes that it depends on,
and folds of all points share their loops. What is loaded or computed twice is built once (machine/build.py), and what
does not change in a loop moves out by itself.

Where a range is no multiple of its step, lanes behind its end are masked, loads of copies behind it repeat the last
element, and stores of these are skipped; innermost loops without folds inside first run unmasked up to the last whole
step.
"""

from __future__ import annotations

from collections.abc import Mapping

from tg_codegen.lower_points import Point
from tg_codegen.lower_scratch import ScratchMemory
from tg_codegen.lower_values import elementwise
from tg_codegen.machine.build import Builder, Expansion
from tg_codegen.machine.nodes import INDEX, Function, Reg
from tg_codegen.plan import Plan
from tg_ir.kernel import (
    Kernel,
    Store,
    roots,
)
from tg_ir.symbolic import SymInt, bounds, ceildiv, minimum

__all__ = ["lower"]

_COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def lower(
    kernel: Kernel, plan: Plan, lanes: int, expansions: Mapping[tuple[str, str], Expansion]
) -> tuple[Function, SymInt]:
    """The function of a kernel, and how many workgroups it has."""
    function = Function(kernel.name, lanes)
    b = Builder(function, expansions)
    groups: SymInt = 0
    for nest in plan.nests:
        groups = _NestLowering(kernel, nest, b).run(groups, len(plan.nests) == 1)
    return function, groups


class _NestLowering(ScratchMemory):
    """The loops of one nest, and its stores."""

    def run(self, before: SymInt, alone: bool) -> SymInt:
        """Build the nest for its workgroups, which come behind `before` others; gives the number of both."""
        b, axes = self.b, self.stores[0].axes
        for axis in axes:
            self.ranges[axis.name] = self.whole_range(axis.extent)
        grids = [split for split in self.nest.loops if split.kind == "grid"]
        extents = {axis.name: axis.extent for axis in axes}
        counts = [ceildiv(extents[split.axis], split.step) for split in grids]
        after: SymInt = 1
        for extent in extents.values():
            if bounds(extent)[0] <= 0:  # an axis without points needs no workgroup
                after = after * minimum(extent, 1)
        for count in counts:
            after = after * count
        if bounds(after)[1] <= 0:
            return before
        after = before + after
        begin, end = b.emit("begin", INDEX), b.emit("end", INDEX)
        if not alone:
            begin = b.emit("max", INDEX, begin, self.indexer.index(before, ()))
            end = b.emit("min", INDEX, end, self.indexer.index(after, ()))
        with b.loop(begin, end) as group, self.scope({split.axis for split in grids}):
            rest = b.emit("sub", INDEX, group, self.indexer.index(before, ()))
            for n in reversed(range(len(grids))):
                count = self.indexer.index(counts[n], ())
                number = b.emit("mod", INDEX, rest, count) if n else rest
                rest = b.emit("floordiv", INDEX, rest, count) if n else rest
                self.enter(grids[n], b.emit("mul", INDEX, number, b.index(grids[n].step)))
            self.loops(len(grids))
        return after

    def loops(self, level: int) -> None:
        """Open the loops from number `level` on, and build what is inside.

        Where the loops of a reduction stand outside those of stores, this runs three times: to "clear" the partial
        results, to "add" to them block by block, and to "finish" and store.
        """
        inside = [split for split in self.nest.loops[level:] if split.kind == "serial"]
        axes = {split.axis for split in inside}
        self.open = {*self.scalars, *(axis for axis in self.ranges if axis not in axes)} - self.block_axes
        if self.phase in ("", "add"):
            for stage in self.nest.stages:
                if stage.at == level:
                    self.stage(stage)
        if self.phase in ("clear", "add"):
            free = self.analysis.free(self.blocked)
            inside = [split for split in inside if split.axis in free or split.axis in self.block_axes]
        if self.phase in ("clear", "finish"):
            inside = [split for split in inside if split.axis not in self.block_axes]
        if self.phase == "add":
            self.prepare(self.blocked.args)
        elif self.phase != "clear":
            self.prepare(roots(self.stores))
        if not inside:
            if self.phase in ("clear", "add"):
                self.partial_results(self.blocked, add=self.phase == "add")
            else:
                self.store_points()
            return
        split = inside[0]
        level = self.nest.loops.index(split, level)
        if split.axis not in self.ranges:
            self.in_blocks(level, split.axis)
            return
        last = all(other.axis != split.axis for other in inside[1:])
        peel = last and not self.phase and all(map(self.known_fold, self.splits))
        for _ in self.steps(split, peel, self.open_scans(split.axis)):
            self.loops(level + 1)

    # ---- stores

    def store_points(self) -> None:
        """Store everything at each point; all values are read before any is written, since one may be in place."""
        axes = [axis.name for axis in self.stores[0].axes]
        for point in self.points(axes):
            values = [self.value(store.value, point) for store in self.stores]
            for store, value in zip(self.stores, values, strict=True):
                self.store(store, value, axes, point)

    def store(self, store: Store, value: Reg, axes: list[str], point: Point) -> None:
        b, memory = self.b, store.parameter.dtype.name
        address, access = self.address(store.parameter.name, store.index, point)
        shared, mask = self.tail(axes, point)
        own_shared, own_mask = self.indexer.conditions(store.guard, point)
        if own_shared is not None:
            shared = own_shared if shared is None else b.emit("and", INDEX, shared, own_shared)
        if own_mask is not None:
            mask = own_mask if mask is None else b.emit("and", "bool", mask, own_mask)

        def write() -> None:
            written = value
            if store.combine in _COMBINE:
                held = b.load(value.type, memory, address, access, mask, volatile=True)
                written = elementwise(b, _COMBINE[store.combine], (held, value), store.parameter.dtype)
            b.store(memory, address, access, written, mask, volatile=bool(store.combine))

        known = b.value_of(shared) if shared is not None else 1
        if known is None:
            with b.when(shared):
                write()
        elif known:
            write()
