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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

from tg_codegen.analyse import Analysis, nest_values
from tg_codegen.lower_index import Indexer, LinearSum
from tg_codegen.lower_values import bitcast, cast, constant, elementwise, machine_type
from tg_codegen.machine.build import Builder, Expansion
from tg_codegen.machine.nodes import INDEX, MEMORY_BYTES, Address, Function, Reg
from tg_codegen.plan import Nest, Plan, Split, Stage
from tg_ir.dtypes import DType
from tg_ir.kernel import (
    Argument,
    Bitcast,
    Cast,
    Const,
    Elementwise,
    Index,
    Kernel,
    Load,
    Monoid,
    Part,
    Reduce,
    Scan,
    Store,
    Value,
    roots,
    toposort,
)
from tg_ir.symbolic import SymInt, bounds, ceildiv, minimum

__all__ = ["lower"]

Point = tuple[tuple[str, int], ...]
"""Offsets along the axes where they are not 0."""

_COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}
_SCRATCH = {
    "f32": "float32",
    "f64": "float64",
    "i32": "int32",
    "u32": "uint32",
    "i64": "int64",
    "u64": "uint64",
}


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


@dataclass(slots=True)
class _Range:
    """Where an axis still runs, start <= position < stop: at most `most` elements, a multiple of `multiple`."""

    start: Reg
    stop: Reg
    size: int | None
    most: int
    multiple: int = 1

    def whole(self, step: int) -> bool:
        """Whether steps divide it."""
        return (self.multiple if self.size is None else self.size) % step == 0


@dataclass(slots=True)
class _Scope:
    """What is known while some loops are open; `binds` are the axes that the innermost of them opened."""

    binds: frozenset[str]
    values: dict[tuple[Value, Point], Reg] = field(default_factory=dict)
    folds: dict[tuple[Value, Point], tuple[Reg, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Scratch:
    """An array in scratch memory. A position is where a loop stands and an offset; each has a stride, in bytes.

    They differ along an axis in tiles, whose loop steps from tile to tile. The base counts from position 0.
    """

    base: Reg
    strides: dict[str, tuple[int, int]]
    memory: str


@dataclass(slots=True)
class _Accumulators:
    """A register for each component of each copy of each result, in order; `carried` once a loop is around."""

    keys: list[tuple[Reduce, Point, Point]]
    current: list[list[Reg]]
    carried: bool = False

    def registers(self) -> list[Reg]:
        return [reg for parts in self.current for reg in parts]


class _NestLowering:
    def __init__(self, kernel: Kernel, nest: Nest, b: Builder):
        self.kernel, self.nest, self.b = kernel, nest, b
        self.lanes = b.function.lanes
        self.stores = [kernel.stores[number] for number in nest.stores]
        self.analysis = Analysis()
        self.indexer = Indexer(b, self.analysis, self.position, self.scalar, self.value)
        self.values = nest_values(self.stores)
        folds = self.analysis.folds(self.values)
        self.splits: dict[Value, tuple[Split, ...]] = dict(zip(folds, nest.folds, strict=True))
        self.numbers = {parameter.name: n for n, parameter in enumerate(kernel.parameters)}
        self.scalars = {var.name: n for n, var in enumerate(kernel.scalars)}
        self.lane_axis = next((split.axis for split in nest.loops if split.kind == "lanes"), None)
        self.indexer.lane_axis = self.lane_axis
        self.ranges: dict[str, _Range] = {}
        self.open: set[str] = set(self.scalars)  # names whose loops are all open
        self.scopes = [_Scope(frozenset())]
        self.scans: dict[tuple[Value, Point], list[Reg]] = {}
        self.staged: dict[Value, _Scratch] = {}
        self.phase = ""
        self.blocked: Reduce | None = None  # the reduction whose partial results are in scratch memory
        self.block_axes: set[str] = set()
        self.partial: list[_Scratch] = []

    # ---- loops over the stores

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

    def whole_range(self, extent: SymInt) -> _Range:
        stop = self.indexer.index(extent, ())
        return _Range(self.b.index(0), stop, self.b.value_of(stop), bounds(extent)[1])

    def enter(self, split: Split, counter: Reg) -> None:
        """Narrow the range of an axis to one step."""
        b, range_, step = self.b, self.ranges[split.axis], split.step
        stop = b.emit("add", INDEX, counter, b.index(step))
        if range_.whole(step):
            self.ranges[split.axis] = _Range(counter, stop, step, step)
        else:
            self.ranges[split.axis] = _Range(
                counter, b.emit("min", INDEX, stop, range_.stop), None, min(step, range_.most)
            )

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

    def steps(self, split: Split, peel: bool, carried: Sequence[Reg] = ()) -> Iterator[None]:
        """Let the caller build the inside of the loop of a part of an axis at each `yield`: once, or twice to peel."""
        b, axis, step = self.b, split.axis, split.step
        whole, was_open = self.ranges[axis], self.open
        parts = [whole]
        if peel and step > 1 and not whole.whole(step) and not (whole.size is not None and whole.size < step):
            if whole.size is not None:
                size = whole.size // step * step
                middle = b.emit("add", INDEX, whole.start, b.index(size))
                rest = whole.size - size
                parts = [_Range(whole.start, middle, size, size), _Range(middle, whole.stop, rest, rest)]
            else:
                length = b.emit("sub", INDEX, whole.stop, whole.start)
                length = b.emit("sub", INDEX, length, b.emit("mod", INDEX, length, b.index(step)))
                middle = b.emit("add", INDEX, whole.start, length)
                parts = [
                    _Range(whole.start, middle, None, whole.most, step),
                    _Range(middle, whole.stop, None, step),
                ]
        for part in parts:
            self.ranges[axis] = part
            if part.size is not None and part.size <= step:
                with self.scope({axis}):
                    yield
            else:
                with b.loop(part.start, part.stop, step, carried) as counter, self.scope({axis}):
                    self.enter(split, counter)
                    yield
        self.ranges[axis], self.open = whole, was_open

    @contextmanager
    def scope(self, binds: Iterable[str]) -> Iterator[None]:
        self.scopes.append(_Scope(frozenset(binds)))
        staged = dict(self.staged)
        yield
        self.staged = staged  # what was staged inside is an array of that place alone
        self.scopes.pop()

    # ---- points

    def offsets(self, axis: str) -> range:
        """Where the copies along an axis begin, those behind a known end left out."""
        range_ = self.ranges[axis]
        step = self.lanes if axis == self.indexer.lane_axis else 1
        return range(0, range_.most if range_.size is None else range_.size, step)

    def points(self, axes: Iterable[str]) -> list[Point]:
        """All copies along some axes."""
        return _choices([(axis, self.offsets(axis)) for axis in axes])

    def within(self, value: Value, point: Point) -> Point:
        """The part of a point that a value depends on."""
        free = self.analysis.free(value)
        return tuple([pair for pair in point if pair[0] in free])

    def position(self, axis: str, point: Point) -> tuple[Reg, int] | None:
        """Where an axis stands, as a register and a constant; None for what is no open axis."""
        range_ = self.ranges.get(axis)
        if range_ is None:
            return None
        offset = 0
        for name, distance in point:
            if name == axis:
                offset = distance
        if (
            range_.size is None
            and offset
            and axis != self.indexer.lane_axis
            and not range_.whole(range_.most)
        ):
            b = self.b
            last = b.emit("sub", INDEX, range_.stop, b.index(1))
            return b.emit("min", INDEX, b.emit("add", INDEX, range_.start, b.index(offset)), last), 0
        return range_.start, offset

    def tail(self, axes: Iterable[str], point: Point) -> tuple[Reg | None, Reg | None]:
        """Whether the copy at a point lies inside the ranges of axes: an index for whole copies, a mask for lanes."""
        b, offsets = self.b, dict(point)
        shared = mask = None
        for axis in axes:
            range_, offset = self.ranges[axis], offsets.get(axis, 0)
            if axis == self.indexer.lane_axis:
                if range_.whole(self.lanes):
                    continue
                if range_.size is not None:
                    left = range_.size - offset
                    mask = b.emit("mask", "bool", b.index(left)) if left < self.lanes else mask
                else:
                    position = b.emit("add", INDEX, range_.start, b.index(offset))
                    mask = b.emit("mask", "bool", b.emit("sub", INDEX, range_.stop, position))
            elif range_.size is None and offset and not range_.whole(range_.most):
                position = b.emit("add", INDEX, range_.start, b.index(offset))
                inside = b.emit("lt", INDEX, position, range_.stop)
                shared = inside if shared is None else b.emit("and", INDEX, shared, inside)
        return shared, mask

    def both(self, *conditions: tuple[Reg | None, Reg | None]) -> Reg | None:
        """Conditions of both kinds as one mask."""
        shared = mask = None
        for own_shared, own_mask in conditions:
            if own_shared is not None:
                shared = own_shared if shared is None else self.b.emit("and", INDEX, shared, own_shared)
            if own_mask is not None:
                mask = own_mask if mask is None else self.b.emit("and", "bool", mask, own_mask)
        if shared is None:
            return mask
        every = self.b.emit("all", "bool", shared)
        return every if mask is None else self.b.emit("and", "bool", every, mask)

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

    # ---- values

    def scalar(self, name: str) -> Reg:
        return self.b.emit("scalar", INDEX, attr=self.scalars[name])

    def address(self, name: str, index: SymInt, point: Point) -> tuple[Address, str]:
        parameter = self.kernel.parameters[self.numbers[name]]
        base = self.b.emit("buffer", INDEX, attr=self.numbers[name])
        return self.indexer.address(base, index, point, MEMORY_BYTES[parameter.dtype.name])

    def value(self, value: Value, point: Point) -> Reg:
        """The register of a value at a point."""
        key = (value, self.within(value, point))
        free = self.analysis.free(value)
        for scope in reversed(self.scopes):
            found = scope.values.get(key)
            if found is not None:
                return found
            if not scope.binds.isdisjoint(free):
                break
        scratch = self.staged.get(value)
        reg = self.compute(value, key[1]) if scratch is None else self.load_scratch(scratch, value, key[1])
        self.scopes[-1].values[key] = reg
        return reg

    def compute(self, value: Value, point: Point) -> Reg:
        b = self.b
        match value:
            case Const():
                return constant(b, value.value, value.dtype)
            case Index():
                if value.dtype.kind == "bool":
                    return self.indexer.mask(value.expr, point)
                reg = self.indexer.wide_data(value.expr, point, machine_type(value.dtype))
                return self.extended(reg, value.dtype)
            case Load():
                return self.load(value, point)
            case Elementwise():
                args = [self.value(arg, point) for arg in value.args]
                return elementwise(b, value.name, args, value.args[-1].dtype)
            case Cast():
                return cast(b, self.value(value.arg, point), value.arg.dtype, value.dtype)
            case Bitcast():
                return bitcast(b, self.value(value.arg, point), value.arg.dtype, value.dtype)
            case Part():
                return self.fold(value.fold, point)[value.position]
            case _:
                return self.fold(value, point)[0]

    def extended(self, reg: Reg, dtype: DType) -> Reg:
        return self.b.emit("extend", reg.type, reg, attr=dtype.bits) if dtype.bits < 32 else reg

    def load(self, load: Load, point: Point) -> Reg:
        address, access = self.address(load.parameter.name, load.index, point)
        conditions = [self.indexer.conditions(load.guard, point)]
        lane = self.indexer.lane_axis
        if access != "one" or conditions[0][1] is not None:
            conditions.append((None, self.tail([lane], point)[1]))
        mask = self.both(*conditions)
        other = None
        if mask is not None and not (isinstance(load.other, Const) and load.other.bits == 0):
            other = self.value(load.other, point)
        dtype = load.dtype
        return self.b.load(machine_type(dtype), dtype.name, address, access, mask, other)

    # ---- folds

    def fold(self, fold: Reduce | Scan, point: Point) -> tuple[Reg, ...]:
        """The components of a fold's result, computed by `prepare` before."""
        key = (fold, self.within(fold, point))
        for scope in reversed(self.scopes):
            found = scope.folds.get(key)
            if found is not None:
                return found
        raise AssertionError(f"a {fold.monoid.name} over {fold} is used before its axes are open")

    def known_fold(self, fold: Value) -> bool:
        return any(key[0] is fold for scope in self.visible(fold) for key in scope.folds)

    def visible(self, value: Value) -> Iterator[_Scope]:
        free = self.analysis.free(value)
        for scope in reversed(self.scopes):
            yield scope
            if not scope.binds.isdisjoint(free):
                return

    def prepare(self, values: Iterable[Value]) -> None:
        """Compute the folds under some values whose axes are all open; those with the same loops together."""
        waiting = [
            value
            for value in toposort(values)
            if value in self.splits and self.analysis.free(value) <= self.open and not self.known_fold(value)
        ]
        while waiting:
            head, pending = waiting[0], set(waiting)
            if head is self.blocked:
                group = [head]
                self.finish_partial(head)
            elif isinstance(head, Scan):
                group = [head]
                self.scan(head)
            else:
                group = [
                    fold
                    for fold in waiting
                    if isinstance(fold, Reduce)
                    and fold.axes == head.axes
                    and self.splits[fold] == self.splits[head]
                    and self.vertical(fold) == self.vertical(head)
                    and pending.isdisjoint(toposort(fold.args))
                ]
                self.reduce(group)
            waiting = [fold for fold in waiting if fold not in group]

    def vertical(self, fold: Value) -> bool:
        """Whether each lane has a result of its own."""
        return self.indexer.lane_axis in self.analysis.free(fold)

    def result_points(self, fold: Value) -> list[Point]:
        return self.points(axis for axis in self.ranges if axis in self.analysis.free(fold))

    def reduce(self, group: list[Reduce]) -> None:
        """Reductions over the same axes, in the same loops."""
        head = group[0]
        results = [(fold, self.result_points(fold)) for fold in group]
        with self.own_lanes(head):
            if any(self.ranges[axis.name].most == 0 for axis in head.axes):
                made = _Accumulators([(f, p, ()) for f, ps in results for p in ps], [])
                made.current = [self.identity(fold.monoid) for fold, _, _ in made.keys]
            else:
                made = self.accumulate(results, head, None)
            for key, parts in self.finish(made):
                self.scopes[-1].folds[key] = tuple(parts)

    @contextmanager
    def own_lanes(self, fold: Reduce) -> Iterator[None]:
        """The axes of a reduction, and its lanes where it has them, while the block runs."""
        saved = dict(self.ranges), self.open, self.indexer.lane_axis
        if not self.vertical(fold):
            self.indexer.lane_axis = next((s.axis for s in self.splits[fold] if s.kind == "lanes"), None)
        for axis in fold.axes:
            if axis.name not in self.block_axes or self.phase != "add":
                self.ranges[axis.name] = self.whole_range(axis.extent)
        yield
        self.ranges, self.open, self.indexer.lane_axis = saved

    def copies(self, fold: Reduce) -> list[Point]:
        """The copies along a reduction's own axes, each with accumulators of its own."""
        steps = {split.axis: split.step for split in self.splits[fold] if split.kind == "serial"}
        chained = self.chained(fold)
        several = []
        for axis in fold.axes:
            if axis.name in chained:
                continue
            most = min(steps.get(axis.name, self.ranges[axis.name].most), max(self.ranges[axis.name].most, 1))
            step = self.lanes if axis.name == self.indexer.lane_axis else 1
            several.append((axis.name, range(0, most, step)))
        return _choices(several)

    def accumulate(
        self,
        results: list[tuple[Reduce, list[Point]]],
        head: Reduce,
        initial: list[list[Reg]] | None,
    ) -> _Accumulators:
        """Run the loops of some reductions; gives their accumulators."""
        keys = [
            (fold, point, copy) for fold, points in results for point in points for copy in self.copies(head)
        ]
        if initial is None:
            initial = [self.identity(fold.monoid) for fold, _, _ in keys]
        made = _Accumulators(keys, initial)
        serial = [split for split in self.splits[head] if split.kind == "serial"]
        self.reduce_loops(made, serial, [fold for fold, _ in results])
        return made

    def identity(self, monoid: Monoid) -> list[Reg]:
        return [constant(self.b, const.value, const.dtype) for const in monoid.identity]

    def reduce_loops(self, made: _Accumulators, serial: list[Split], folds: list[Reduce]) -> None:
        b = self.b
        if not serial:
            self.open = self.open | {axis.name for axis in folds[0].axes}
            with self.scope({axis.name for axis in folds[0].axes}):
                self.prepare([arg for fold in folds for arg in fold.args])
                new = self.reduce_points(made)
            if made.carried:
                b.assign(tuple(made.registers()), tuple([reg for parts in new for reg in parts]))
            else:
                made.current = new
            return
        split = serial[0]
        range_ = self.ranges[split.axis]
        if not made.carried and not (range_.size is not None and range_.size <= split.step):
            made.current = [[b.carry(reg) for reg in parts] for parts in made.current]
            made.carried = True
        peel = all(other.axis != split.axis for other in serial[1:])
        carried = made.registers() if made.carried else []
        for _ in self.steps(split, peel, [*carried, *self.open_scans(split.axis)]):
            self.reduce_loops(made, serial[1:], folds)

    def chained(self, fold: Reduce) -> list[str]:
        """The axes whose copies take turns with one accumulator."""
        return [split.axis for split in self.splits[fold] if split.kind == "chain"]

    def reduce_points(self, made: _Accumulators) -> list[list[Reg]]:
        """Every accumulator combined with its elements; copies behind the end keep theirs."""
        current = list(made.current)
        names = [axis.name for axis in made.keys[0][0].axes]
        for turn in self.points(self.chained(made.keys[0][0])):
            for n, (fold, point, copy) in enumerate(made.keys):
                own = dict((*copy, *turn))
                if any(own.get(name, 0) not in self.offsets(name) for name in names):
                    continue
                where = (*point, *copy, *turn)
                elements = [self.value(arg, where) for arg in fold.args]
                mask = self.both(self.tail(names, where))
                if mask is not None:
                    neutral = self.identity(fold.monoid)
                    elements = [self.choose(mask, x, y) for x, y in zip(elements, neutral, strict=True)]
                current[n] = self.combine(fold.monoid, current[n], elements, fold.args, where)
        return current

    def choose(self, mask: Reg, yes: Reg, no: Reg) -> Reg:
        if yes.type == "bool":
            b = self.b
            other = b.emit("and", "bool", b.emit("not", "bool", mask), no)
            return b.emit("or", "bool", b.emit("and", "bool", mask, yes), other)
        return self.b.emit("select", yes.type, mask, yes, no)

    def combine(
        self,
        monoid: Monoid,
        left: Sequence[Reg],
        right: Sequence[Reg],
        args: tuple[Value, ...] = (),
        point: Point = (),
    ) -> list[Reg]:
        """Two partial results as one. A sum of products is a fused multiply-add."""
        b = self.b
        if monoid.name == "sum" and args and right[0].type in ("f32", "f64"):
            arg = args[0]
            if isinstance(arg, Elementwise) and arg.name == "mul" and right[0] is self.value(arg, point):
                x, y = [self.value(factor, point) for factor in arg.args]
                return [b.emit("fma", right[0].type, x, y, left[0])]
        known: dict[Value, Reg] = {}

        def build(value: Value) -> Reg:
            if value not in known:
                match value:
                    case Argument():
                        known[value] = (left if value.side == "left" else right)[value.position]
                    case Const():
                        known[value] = constant(b, value.value, value.dtype)
                    case Elementwise():
                        operands = [build(arg) for arg in value.args]
                        known[value] = elementwise(b, value.name, operands, value.args[-1].dtype)
                    case Cast():
                        known[value] = cast(b, build(value.arg), value.arg.dtype, value.dtype)
                    case _:
                        raise AssertionError(f"{monoid.name}: a monoid cannot combine with {value!r}")
            return known[value]

        return [build(value) for value in monoid.result]

    def finish(self, made: _Accumulators) -> Iterator[tuple[tuple[Reduce, Point], list[Reg]]]:
        """The results: copies combined in pairs, then lanes."""
        b = self.b
        copies: dict[tuple[Reduce, Point], list[list[Reg]]] = {}
        for (fold, point, _), parts in zip(made.keys, made.current, strict=True):
            copies.setdefault((fold, point), []).append(parts)
        for (fold, point), each in copies.items():
            while len(each) > 1:
                pairs = [self.combine(fold.monoid, x, y) for x, y in zip(each[::2], each[1::2], strict=False)]
                each = [*pairs, *each[len(each) // 2 * 2 :]]
            parts = each[0]
            if not self.vertical(fold) and self.indexer.lane_axis is not None:
                distance = self.lanes // 2
                while distance:
                    shifted = [b.emit("down", reg.type, reg, attr=distance) for reg in parts]
                    parts = self.combine(fold.monoid, parts, shifted)
                    distance //= 2
                parts = [b.emit("splat", reg.type, reg) for reg in parts]
            yield (fold, point), parts

    # ---- scans

    def open_scans(self, axis: str) -> list[Reg]:
        """Registers for what scans along an axis have come to, made in front of its loop."""
        made = []
        for fold in self.splits:
            if isinstance(fold, Scan) and fold.axis.name == axis and not self.known_fold(fold):
                for point in self.points(
                    a for a in self.ranges if a in self.analysis.free(fold) and a != axis
                ):
                    self.scans[fold, point] = [self.b.carry(reg) for reg in self.identity(fold.monoid)]
                    made += self.scans[fold, point]
        return made

    def scan(self, scan: Scan) -> None:
        """The next result of a scan, or a vector of them where its axis is that of the lanes."""
        b, axis, monoid = self.b, scan.axis.name, scan.monoid
        for point in self.result_points(scan):
            before = self.scans[scan, tuple(pair for pair in point if pair[0] != axis)]
            parts = [self.value(arg, point) for arg in scan.args]
            if axis == self.indexer.lane_axis:
                neutral = self.identity(monoid)
                mask = self.both(self.tail([axis], point))
                if mask is not None:
                    parts = [self.choose(mask, x, y) for x, y in zip(parts, neutral, strict=True)]
                distance = 1
                while distance < self.lanes:
                    shifted = [
                        b.emit("up", x.type, x, y, attr=distance) for x, y in zip(parts, neutral, strict=True)
                    ]
                    parts = self.combine(monoid, shifted, parts)
                    distance *= 2
                after = self.combine(monoid, before, parts)
                last = [
                    b.emit("splat", x.type, b.emit("down", x.type, x, attr=self.lanes - 1)) for x in after
                ]
            else:
                last = after = self.combine(monoid, before, parts)
            b.assign(tuple(before), tuple(last))
            self.scopes[-1].folds[scan, point] = tuple(after)

    # ---- scratch memory

    def allocate(self, size_bytes: int) -> Reg:
        """So many bytes of scratch memory, aligned to 64."""
        b, function = self.b, self.b.function
        offset = function.scratch_bytes
        function.scratch_bytes += -(-size_bytes // 64) * 64
        return b.emit("add", INDEX, b.emit("scratch", INDEX), b.index(offset))

    def array(self, axes: Sequence[str], element: str, inner: int, tile: int = 0) -> _Scratch:
        """An array over what is left of some axes, the last in tiles; its elements are `inner` bytes apart."""
        b, stride = self.b, inner
        strides: dict[str, tuple[int, int]] = {}
        for n, axis in enumerate(reversed(axes)):
            most = tile if tile and n == 0 else self.reach(axis)
            strides[axis] = stride, stride
            stride *= -(-most // self.lanes) * self.lanes if n == 0 else most
            if n == 0 and stride % 512 == 0 and len(axes) > 1:
                stride += 64  # rows a power of two apart would fall into the same cache set
        if tile:
            count = -(-self.ranges[axes[-1]].most // tile)
            strides[axes[-1]] = stride // tile, inner
            stride *= count
        base = self.allocate(stride)
        for axis in axes:
            start = b.emit("mul", INDEX, self.ranges[axis].start, b.index(strides[axis][0]))
            base = b.emit("sub", INDEX, base, start)
        return _Scratch(base, strides, element)

    def reach(self, axis: str) -> int:
        """How many elements of an axis are touched from its start on: the last steps may go behind its end."""
        reach = block = self.ranges[axis].most
        for split in self.nest.loops:
            if split.axis == axis and split.kind == "serial" and split.step < block:
                reach, block = reach + -block % split.step, split.step
        return reach

    def scratch_address(
        self, scratch: _Scratch, point: Point, extra: int | None = None
    ) -> tuple[Address, str]:
        """Where the element at a point lies; with `extra`, so many bytes further, a vector."""
        terms: list[tuple[Reg, int]] = []
        lane, const, offsets = 0, extra or 0, dict(point)
        size = MEMORY_BYTES[scratch.memory]
        for axis, (far, near) in scratch.strides.items():
            start = self.ranges[axis].start
            known = self.b.value_of(start)
            const += near * offsets.get(axis, 0) + far * (known or 0)
            if known is None:
                terms.append((start, far))
            if axis == self.indexer.lane_axis and extra is None:
                lane = near // size
        return self.indexer.place(scratch.base, LinearSum(const, terms, lane), 1, "i32")

    def load_scratch(self, scratch: _Scratch, value: Value, point: Point) -> Reg:
        address, access = self.scratch_address(scratch, point)
        lane, mask = self.indexer.lane_axis, None
        if lane in scratch.strides and (
            lane != self.lane_axis or access == "each"
        ):  # may reach behind the array
            mask = self.both(self.tail([lane], point))
        type = machine_type(value.dtype)
        return self.b.load(type, scratch.memory, address, access, mask, volatile=True)

    def stage(self, stage: Stage) -> None:
        """Compute a value for all that is left of its axes, into scratch memory."""
        b, value = self.b, self.values[stage.value]
        saved = dict(self.ranges), self.open, self.indexer.lane_axis
        extents = {axis.name: axis.extent for fold in self.splits for axis in getattr(fold, "axes", ())}
        for axis in stage.layout:
            if axis not in self.ranges:
                self.ranges[axis] = self.whole_range(extents[axis])
        memory = _SCRATCH[machine_type(value.dtype)]
        scratch = self.array(stage.layout, memory, MEMORY_BYTES[memory], stage.tile)
        self.indexer.lane_axis = stage.layout[-1]

        def fill(axes: tuple[str, ...]) -> None:
            if axes:
                step = (stage.tile or self.lanes) if len(axes) == 1 else 1
                for _ in self.steps(Split("serial", axes[0], step), True):
                    fill(axes[1:])
                return
            self.open = self.open | set(stage.layout)
            self.prepare([value])
            for point in self.points(stage.layout):
                address, access = self.scratch_address(scratch, point)
                b.store(memory, address, access, self.value(value, point), volatile=True)

        fill(stage.layout)
        self.ranges, self.open, self.indexer.lane_axis = saved
        self.staged[value] = scratch

    # ---- reductions in blocks

    def in_blocks(self, level: int, axis: str) -> None:
        """Loops over parts of a reduction's axes outside of loops over stores: the results wait in scratch memory."""
        fold = next(f for f in self.splits if isinstance(f, Reduce) and any(a.name == axis for a in f.axes))
        saved = dict(self.ranges), dict(self.staged)
        self.blocked = fold
        self.block_axes = {a.name for a in fold.axes} & {split.axis for split in self.nest.loops[level:]}
        with self.own_lanes(fold):
            copies = len(self.copies(fold))
        axes = [a for a in self.ranges if a in self.analysis.free(fold) and a != self.lane_axis]
        for const in fold.monoid.identity:
            memory = _SCRATCH[machine_type(const.dtype)]
            vector = self.lanes * MEMORY_BYTES[memory] * copies
            if self.vertical(fold):
                array = self.array([*axes, self.lane_axis], memory, MEMORY_BYTES[memory] * copies)
            else:
                array = self.array(axes, memory, vector)
            self.partial.append(array)
        for self.phase in ("clear", "add", "finish"):
            if self.phase == "add":
                for each in fold.axes:
                    if each.name in self.block_axes:
                        self.ranges[each.name] = self.whole_range(each.extent)
            self.loops(level)
            self.ranges, self.staged = dict(saved[0]), dict(saved[1])
        self.phase, self.blocked, self.block_axes, self.partial = "", None, set(), []

    def partial_results(self, fold: Reduce, add: bool) -> None:
        """Clear what is in scratch memory for the results at hand, or add a block to it."""
        b = self.b
        points = self.result_points(fold)
        with self.own_lanes(fold):
            keys = [(fold, point, copy) for point in points for copy in self.copies(fold)]
            if add:
                made = self.accumulate([(fold, points)], fold, self.load_partial(keys))
                values = made.current
            else:
                values = [self.identity(fold.monoid) for _ in keys]
            for (_, point, copy), parts in zip(keys, values, strict=True):
                for array, address, reg in zip(
                    self.partial, self.partial_addresses(fold, point, copy), parts, strict=True
                ):
                    b.store(array.memory, address, "lanes", reg, volatile=True)

    def load_partial(self, keys: list[tuple[Reduce, Point, Point]]) -> list[list[Reg]]:
        return [
            [
                self.b.load(machine_type(const.dtype), array.memory, address, "lanes", volatile=True)
                for const, array, address in zip(
                    fold.monoid.identity, self.partial, self.partial_addresses(fold, point, copy), strict=True
                )
            ]
            for fold, point, copy in keys
        ]

    def partial_addresses(self, fold: Reduce, point: Point, copy: Point) -> list[Address]:
        number = self.copies(fold).index(copy)
        found = []
        for array in self.partial:
            vector = self.lanes * MEMORY_BYTES[array.memory]
            found.append(self.scratch_address(array, point, number * vector)[0])
        return found

    def finish_partial(self, fold: Reduce) -> None:
        """The results at hand, from scratch memory."""
        points = self.result_points(fold)
        with self.own_lanes(fold):
            keys = [(fold, point, copy) for point in points for copy in self.copies(fold)]
            made = _Accumulators(keys, self.load_partial(keys))
            for key, parts in self.finish(made):
                self.scopes[-1].folds[key] = tuple(parts)


def _choices(several: list[tuple[str, range]]) -> list[Point]:
    """Every choice of one offset along each axis."""
    names = [axis for axis, _ in several]
    each = [offsets or (0,) for _, offsets in several]
    return [tuple([pair for pair in zip(names, choice, strict=True) if pair[1]]) for choice in product(*each)]
