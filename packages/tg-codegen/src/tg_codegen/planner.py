"""Pick a plan for a kernel by a cost model, without running anything.

A value costs its operations times the number of points at which it is computed, the product of the axes that it
depends on, over the number of lanes where it depends on their axis. That decides which axis gets the lanes. Then, for
each nest: how many copies of the body share operands (a register tile), what is staged, and what the grid spreads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from tg_codegen.analyse import Analysis, linear_terms, nest_groups, nest_values
from tg_codegen.plan import Nest, Plan, Split, Stage
from tg_codegen.verify_plan import separates
from tg_ir.kernel import (
    Bitcast,
    Cast,
    Elementwise,
    Index,
    Kernel,
    Load,
    Reduce,
    Scan,
    Store,
    Value,
    children,
    roots,
)
from tg_ir.symbolic import SymInt, Var, bounds

__all__ = ["Machine", "plan_kernel"]

_HEAVY = {
    "exp": 12, "exp2": 12, "expm1": 20, "log": 16, "log2": 16, "log1p": 20, "sin": 25, "cos": 25, "atan": 20,
    "tanh": 20, "erf": 25, "pow": 50, "div": 5, "sqrt": 6, "floordiv": 20, "mod": 20,
}  # fmt: skip
_GUESS = 512  # what a symbolic extent is taken for


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan depends on of the target."""

    lanes: int
    registers: int
    group_cost: int = 1 << 15
    """Cycles that a workgroup should have at least."""
    most_groups: int = 64
    panel_bytes: int = 3 << 14
    """What a packed panel of an operand should fit: a part of the first-level cache."""


def plan_kernel(kernel: Kernel, machine: Machine) -> Plan:
    """A good plan."""
    return Plan(tuple([_NestPlanner(kernel, group, machine).plan() for group in nest_groups(kernel)]))


def _size(extent: SymInt) -> int:
    return extent if isinstance(extent, int) else min(bounds(extent)[1], _GUESS)


def _coefficient(index: SymInt, axis: str, analysis: Analysis) -> int | None:
    """By how much an index grows with an axis; None where it is not linear in it."""
    factor = 0
    for atom, each in linear_terms(index)[1]:
        if isinstance(atom, Var):
            factor += each if atom.name == axis else 0
        elif axis in analysis.free_expr(atom):
            return None
    return factor


class _NestPlanner:
    def __init__(self, kernel: Kernel, group: tuple[int, ...], machine: Machine):
        self.group, self.machine = group, machine
        self.stores: list[Store] = [kernel.stores[number] for number in group]
        self.axes = [axis for axis in self.stores[0].axes if bounds(axis.extent)[1] > 1]
        self.analysis = Analysis()
        self.values = nest_values(self.stores)
        self.folds = self.analysis.folds(self.values)
        self.extent: dict[str, int] = {axis.name: _size(axis.extent) for axis in self.stores[0].axes}
        for fold in self.folds:
            for axis in fold.axes if isinstance(fold, Reduce) else (fold.axis,):
                self.extent[axis.name] = _size(axis.extent)
        self.contexts: dict[Value | None, list[Value]] = {None: self.reach(roots(self.stores))}
        for fold in self.folds:
            self.contexts[fold] = self.reach(fold.args)

    def reach(self, values: Iterable[Value]) -> list[Value]:
        """The values below some values, down to folds."""
        found: dict[Value, None] = {}
        stack = list(values)
        while stack:
            value = stack.pop()
            if value not in found:
                found[value] = None
                if not isinstance(value, Reduce | Scan):
                    stack += children(value)
        return list(found)

    # ---- costs

    def cost(self, value: Value, lane: str | None) -> float:
        """Cycles to compute a value once (for all lanes)."""
        match value:
            case Load():
                return self.access_cost(value.index, lane) + (0.5 if value.guard != 1 else 0)
            case Elementwise():
                return _HEAVY.get(value.name, 0.5) * (2 if value.dtype.bits == 64 else 1)
            case Cast() | Bitcast() | Index():
                return 1.0
        return 0.0

    def access_cost(self, index: SymInt, lane: str | None) -> float:
        if lane is None:
            return 0.5
        factor = _coefficient(index, lane, self.analysis)
        if factor in (0, 1):
            return 0.5
        return float(self.machine.lanes) * (1.5 if factor is None else 1)

    def executions(self, free: Iterable[str], lane: str | None) -> float:
        """How many times something that depends on these axes is computed."""
        total = 1.0
        for axis in free:
            size = self.extent.get(axis, 1)
            total *= -(-size // self.machine.lanes) if axis == lane else size
        return total

    def context_cost(self, fold: Value | None, lane: str | None) -> float:
        return sum(
            self.cost(value, lane) * self.executions(self.analysis.free(value), lane)
            for value in self.contexts[fold]
        )

    def fold_lane(self, fold: Value) -> str | None:
        """The best axis of a reduction for lanes of its own."""
        if not isinstance(fold, Reduce):
            return None
        names = [None, *(axis.name for axis in fold.axes if self.extent[axis.name] > 1)]
        return min(names, key=lambda name: self.context_cost(fold, name))

    def total_cost(self, lane: str | None) -> float:
        """Cycles of the whole nest with lanes along one of its axes."""
        cost = self.context_cost(None, lane)
        for store in self.stores:
            free = [axis.name for axis in store.axes]
            cost += 2 * self.access_cost(store.index, lane) * self.executions(free, lane)
        for fold in self.folds:
            vertical = lane in self.analysis.free(fold)
            own = lane if vertical else self.fold_lane(fold)
            cost += self.context_cost(fold, own)
            if not vertical and own is not None:
                cost += 10 * self.executions(self.analysis.free(fold), None)
        return cost

    # ---- the plan

    def plan(self) -> Nest:
        store = self.stores[0]
        if store.combine:
            return self.plan_combining(store)
        scanned = [fold.axis.name for fold in self.folds if isinstance(fold, Scan)]
        names = [axis.name for axis in self.axes]
        lane = min([None, *names[::-1]], key=self.total_cost)
        self.lane = lane
        outer = [name for name in names if name != lane and name not in scanned]
        outer.sort(key=lambda name: not any(name in self.analysis.free(fold) for fold in self.folds))
        order = [*outer, *([lane] if lane is not None and lane not in scanned else [])]
        order += [name for name in names if name in scanned]  # what a scan has come to is kept for one point
        main = max(
            (fold for fold in self.folds if isinstance(fold, Reduce)),
            key=lambda fold: self.context_cost(fold, self.own_lane(fold)) + 1,
            default=None,
        )
        tile = self.tile(main, order, scanned)
        folds = tuple([self.fold_loops(fold) for fold in self.folds])
        lanes = (Split("lanes", lane),) if lane is not None else ()
        blocked = main and not scanned and self.blocked(main, order)
        if blocked:
            loops, stages = blocked
            return Nest(self.group, (*loops, *lanes), folds, stages)
        across = self.transposed(order) if main is None and not scanned else None
        blocks: list[Split] = []
        if across is not None:  # blocks in which every line of memory that is touched is used up
            tile[lane] = self.machine.lanes
            blocks = [Split("serial", across, self.machine.lanes)]
            order = [*[name for name in order if name not in (across, lane)], lane, across]
        serial = [
            Split("serial", name, tile.get(name, 1))
            for name in order
            if tile.get(name, 1) < self.extent[name] or name in scanned
        ]
        at = next((n for n, split in enumerate(serial) if split.axis == lane), len(serial))
        serial[at:at] = blocks
        return Nest(self.group, (*self.grid(order, scanned, tile), *serial, *lanes), folds)

    def blocked(
        self, main: Reduce, order: Sequence[str]
    ) -> tuple[tuple[Split, ...], tuple[Stage, ...]] | None:
        """Loops and stages of a large contraction: operands in packed panels, partial results in scratch memory.

        Shapes: `left` depends on the axis `row` and no lanes, `right` on the lanes and not on `row`.
        """
        arg = main.args[0]
        if main.monoid.name != "sum" or not (isinstance(arg, Elementwise) and arg.name == "mul"):
            return None
        lane, machine, tiles = self.lane, self.machine, self.tiles
        free = [self.analysis.free(factor) for factor in arg.args]
        if lane is None or (lane in free[0]) == (lane in free[1]):
            return None
        (left, right) = arg.args if lane in free[1] else arg.args[::-1]
        rows = [
            name
            for name in order
            if name in self.analysis.free(left) and name not in self.analysis.free(right)
        ]
        row = max(rows, key=lambda name: tiles.get(name, 1), default=None)
        depth = prod(self.extent[axis.name] for axis in main.axes)
        reuse = prod(self.extent[name] for name in rows)
        if row is None or depth < 16 or reuse < 2 * tiles.get(row, 1):
            return None
        reduced = [axis.name for axis in main.axes]
        if not self.irregular(right, lane, reduced):
            return None
        size, unit, panel = main.dtype.itemsize, tiles.get(row, 1), machine.panel_bytes
        columns = min(
            max(16 * machine.lanes, tiles[lane]), -(-self.extent[lane] // tiles[lane]) * tiles[lane]
        )
        outer = [name for name in order if name not in (row, lane)]
        shared = [name for name in outer if name in self.analysis.free(right)]
        inside = [name for name in outer if name not in shared]
        loops = self.grid(shared, (), tiles)
        most = self.most_copies_of(right, lane, inside, [row]) / max(prod(map(self.parts, loops)), 1)
        loops += self.grid(inside, (), tiles, most)
        per_group = {name: self.extent[name] for name in outer} | {split.axis: split.step for split in loops}
        many = max(4 * panel // (columns * size * prod(per_group[name] for name in inside)), 1)
        if depth * columns * size > 8 * panel or not outer:
            count = -(-self.extent[row] // unit)
            many = max(many // unit, 1)
            many = -(-count // -(-count // many)) * unit
            loops.append(Split("grid", row, many))
        loops.append(Split("grid", lane, columns))
        loops += [Split("serial", name, tiles.get(name, 1)) for name in shared]
        if depth * columns * size > 8 * panel:
            block = max(panel // (tiles[lane] * size * (depth // self.extent[reduced[0]])), 1)
            parts = -(-self.extent[reduced[0]] // block)
            if parts > 1:
                loops.append(Split("serial", reduced[0], -(-self.extent[reduced[0]] // parts)))
        tiled = [name for name in shared if tiles.get(name, 1) > 1]
        stages = [self.stage(right, len(loops), lane, [*tiled, *reduced])]
        loops += [Split("serial", name, tiles.get(name, 1)) for name in inside]
        if self.irregular(left, None, [row]):
            tiled = [name for name in outer if tiles.get(name, 1) > 1]
            stages.append(self.stage(left, len(loops), None, [*tiled, row, *reduced]))
        loops += [Split("serial", lane, tiles[lane]), Split("serial", row, unit)]
        return tuple(loops), tuple(stages)

    def most_copies_of(self, right: Value, lane: str, inside: Sequence[str], rows: Sequence[str]) -> float:
        """Into how many groups the axes may part that `right` does not depend on: each packs a copy for itself.

        A tenth of the time may go into that, but there are never fewer groups than keep a few threads busy.
        """
        uses = prod(self.extent[name] for name in (*inside, *rows)) / (2 * self.machine.lanes)
        loads = [value for value in self.reach([right]) if isinstance(value, Load)]
        packing = max(self.access_cost(load.index, lane) for load in loads) / self.machine.lanes + 0.1
        return max(0.1 * uses / packing, 4)

    def parts(self, split: Split) -> int:
        """How many parts of its axis a loop has."""
        return -(-self.extent[split.axis] // split.step)

    def irregular(self, value: Value, lane: str | None, others: Sequence[str]) -> bool:
        """Whether reading a value again and again costs more than reading a packed copy of it."""
        if not isinstance(value, Load) or value.guard != 1:
            return True
        if lane is not None and _coefficient(value.index, lane, self.analysis) != 1:
            return True
        if lane is not None and self.overlaps(value.index):
            return False
        strides = [_coefficient(value.index, name, self.analysis) for name in others]
        return any(stride is None or abs(stride) * value.dtype.itemsize >= 512 for stride in strides)

    def overlaps(self, index: SymInt) -> bool:
        """Whether two axes move an index alike, as those of a window do: a packed copy would hold elements twice."""
        factors = [_coefficient(index, name, self.analysis) for name in self.extent]
        moving = [factor for factor in factors if factor]
        return len(moving) > len(set(moving))

    def stage(self, value: Value, at: int, lane: str | None, others: Sequence[str]) -> Stage:
        """A packed copy whose last axis is that of the lanes, or else the one along which the source is contiguous."""
        free = self.analysis.free(value)
        axes = [name for name in others if name in free]
        if lane is None:
            loads = [load for load in self.reach([value]) if isinstance(load, Load)]
            axes.sort(
                key=lambda name: any(_coefficient(load.index, name, self.analysis) == 1 for load in loads)
            )
        else:
            axes.append(lane)
        return Stage(self.values.index(value), at, tuple(axes), self.tiles[lane] if lane is not None else 0)

    def transposed(self, order: Sequence[str]) -> str | None:
        """The axis along which a load is contiguous that is not so along the lanes."""
        for value in self.contexts[None]:
            if isinstance(value, Load) and self.lane in self.analysis.free_expr(value.index):
                if _coefficient(value.index, self.lane, self.analysis) in (0, 1, None):
                    continue
                for name in order:
                    if name != self.lane and _coefficient(value.index, name, self.analysis) == 1:
                        return name if self.extent[name] > self.machine.lanes else None
        return None

    def own_lane(self, fold: Value) -> str | None:
        return self.lane if self.lane in self.analysis.free(fold) else self.fold_lane(fold)

    def fold_loops(self, fold: Value) -> tuple[Split, ...]:
        if isinstance(fold, Scan):
            return ()
        vertical = self.lane in self.analysis.free(fold)
        lane = None if vertical else self.fold_lane(fold)
        loops = [
            Split("serial", axis.name)
            for axis in fold.axes
            if axis.name != lane and self.extent[axis.name] > 1
        ]
        if lane is not None:
            copies = 1
            results = prod(self.tiles.get(name, 1) for name in self.analysis.free(fold) if name in self.tiles)
            while copies < 4 and results * copies < 4 and self.extent[lane] > 2 * copies * self.machine.lanes:
                copies *= 2
            loops += [Split("serial", lane, copies * self.machine.lanes), Split("lanes", lane)]
        elif loops and prod(self.tiles.values()) > self.machine.lanes:
            last = loops[-1].axis
            turns = next(n for n in (4, 2, 1) if self.extent[last] % n == 0)
            if turns > 1:
                loops[-1:] = [Split("serial", last, turns), Split("chain", last)]
        return tuple(loops)

    def tile(self, main: Reduce | None, order: Sequence[str], scanned: Sequence[str]) -> dict[str, int]:
        """How many elements of each axis the innermost loops leave to copies of the body."""
        lanes, lane = self.machine.lanes, self.lane
        tiles = {lane: lanes} if lane is not None else {}
        free = [name for name in order if name not in scanned]
        if main is None:
            if lane is not None and lane not in scanned:
                weight = sum(self.cost(value, lane) for value in self.values)
                copies = 4 if weight < 20 else 2 if weight < 60 else 1
                while copies > 1 and copies * lanes > self.extent[lane]:
                    copies //= 2
                tiles[lane] = copies * lanes
            self.tiles = tiles
            return tiles
        loads = [value for value in self.contexts[main] if isinstance(value, Load)]
        needs = [self.analysis.free(load) for load in loads]
        depends = [name for name in free if name in self.analysis.free(main)]
        vertical = lane in self.analysis.free(main)
        width = 2 if main.dtype.bits == 64 else 1
        room = self.machine.registers // width
        candidates = [name for name in depends if any(name not in need for need in needs)]
        far = {
            name: max(abs(_coefficient(load.index, name, self.analysis) or 0) for load in loads)
            for name in candidates
        }
        candidates = sorted(candidates, key=lambda name: (sum(name in need for need in needs), far[name]))[:3]
        if vertical and lane not in candidates and lane not in scanned:
            candidates = [*candidates[:2], lane]
        best, best_cost = {}, float("inf")
        streamed = any(need >= {*depends, *[axis.name for axis in main.axes]} for need in needs)
        for sizes in self.tile_sizes(candidates, room, len(main.args), streamed):
            count = prod(sizes.values()) * len(main.args)
            operands = [prod(sizes[name] for name in need if name in sizes) for need in needs]
            if count + min(operands, default=0) + 1 > room - 1 and count > 1:
                continue
            waste = prod(
                -(-self.extent[name] // (n * unit)) * n * unit / self.extent[name]
                for name, n in sizes.items()
                for unit in (lanes if name == lane else 1,)
            )
            work = max(count / 2, sum(operands) / 2, 4.0)
            cost = waste * (work + 0.1 * sum(operands) + 0.3 + 0.05 * len(sizes)) / prod(sizes.values())
            if cost < best_cost - 1e-9:
                best, best_cost = sizes, cost
        for name, n in best.items():
            tiles[name] = n * (lanes if name == lane else 1)
        self.tiles = tiles
        return tiles

    def tile_sizes(self, names: Sequence[str], room: int, parts: int, streamed: bool) -> list[dict[str, int]]:
        choices: list[dict[str, int]] = [{}]
        for name in names:
            unit = self.machine.lanes if name == self.lane else 1
            most = min(-(-self.extent[name] // unit), 4 if name == self.lane or streamed else 14)
            choices = [
                {**sizes, name: n}
                for sizes in choices
                for n in range(1, most + 1)
                if prod(sizes.values()) * n * parts <= room
            ]
        return choices

    def grid(
        self, order: Sequence[str], scanned: Sequence[str], tile: dict[str, int], most: float = 1 << 30
    ) -> list[Split]:
        """The parts of axes that are spread over workgroups, `most` at most."""
        machine = self.machine
        wanted = min(self.total_cost(self.lane) / machine.group_cost, machine.most_groups, most)
        loops = []
        for name in order:
            if wanted < 2 or name in scanned:
                break
            unit = tile.get(name, 1)
            count = -(-self.extent[name] // unit)
            per_group = max(int(count // wanted), 1)
            loops.append(Split("grid", name, per_group * unit))
            wanted /= -(-count // per_group)
        return loops

    def plan_combining(self, store: Store) -> Nest:
        """Stores that may meet in one element: lanes and grid only along axes that tell elements apart."""
        self.lane, self.tiles = None, {}
        safe = [axis for axis in self.axes if separates(store, axis.name, self.analysis)]
        for axis in safe:
            if _coefficient(store.index, axis.name, self.analysis) == 1:
                self.lane = axis.name
        self.tiles = {self.lane: self.machine.lanes} if self.lane is not None else {}
        names = [axis.name for axis in safe if axis.name != self.lane]
        grid = self.grid([*names, *([self.lane] if self.lane is not None else [])], (), self.tiles)
        rest = [axis.name for axis in self.axes if axis.name != self.lane]
        order = [*rest, *([self.lane] if self.lane is not None else [])]
        serial = [
            Split("serial", name, self.tiles.get(name, 1))
            for name in order
            if self.tiles.get(name, 1) < self.extent[name]
        ]
        lanes = [Split("lanes", self.lane)] if self.lane is not None else []
        return Nest(
            self.group, (*grid, *serial, *lanes), tuple([self.fold_loops(fold) for fold in self.folds])
        )
