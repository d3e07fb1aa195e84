"""Reductions and scans: their loops, accumulators, and how copies and lanes come together at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tg_codegen.lower_points import Point, Points, Scope, choices
from tg_codegen.lower_values import cast, constant, elementwise
from tg_codegen.machine.nodes import Reg
from tg_codegen.plan import Split
from tg_ir.kernel import (
    Argument,
    Cast,
    Const,
    Elementwise,
    Monoid,
    Reduce,
    Scan,
    Value,
    toposort,
)

__all__ = ["Accumulators", "Folds"]


@dataclass(slots=True)
class Accumulators:
    """A register for each component of each copy of each result, in order; `carried` once a loop is around."""

    keys: list[tuple[Reduce, Point, Point]]
    current: list[list[Reg]]
    carried: bool = False

    def registers(self) -> list[Reg]:
        return [reg for parts in self.current for reg in parts]


class Folds(Points):
    """Computes folds ahead of the values that need them."""

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

    def visible(self, value: Value) -> Iterator[Scope]:
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
                made = Accumulators([(f, p, ()) for f, ps in results for p in ps], [])
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
        return choices(several)

    def accumulate(
        self,
        results: list[tuple[Reduce, list[Point]]],
        head: Reduce,
        initial: list[list[Reg]] | None,
    ) -> Accumulators:
        """Run the loops of some reductions; gives their accumulators."""
        keys = [
            (fold, point, copy) for fold, points in results for point in points for copy in self.copies(head)
        ]
        if initial is None:
            initial = [self.identity(fold.monoid) for fold, _, _ in keys]
        made = Accumulators(keys, initial)
        serial = [split for split in self.splits[head] if split.kind == "serial"]
        self.reduce_loops(made, serial, [fold for fold, _ in results])
        return made

    def identity(self, monoid: Monoid) -> list[Reg]:
        return [constant(self.b, const.value, const.dtype) for const in monoid.identity]

    def reduce_loops(self, made: Accumulators, serial: list[Split], folds: list[Reduce]) -> None:
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

    def reduce_points(self, made: Accumulators) -> list[list[Reg]]:
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

    def finish(self, made: Accumulators) -> Iterator[tuple[tuple[Reduce, Point], list[Reg]]]:
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

    @abstractmethod
    def finish_partial(self, fold: Reduce) -> None:
        """The results at hand of a reduction in blocks."""
