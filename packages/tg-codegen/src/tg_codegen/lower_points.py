"""Where lowering stands: ranges of axes, copies of the body, and values that are known while loops are open.

The base of a nest's lowering. `value` gives the register of a value at a point, built once in each scope.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

from tg_codegen.analyse import Analysis, nest_values
from tg_codegen.lower_index import Indexer
from tg_codegen.lower_values import bitcast, cast, constant, elementwise, machine_type
from tg_codegen.machine.build import Builder
from tg_codegen.machine.nodes import INDEX, MEMORY_BYTES, Address, Reg
from tg_codegen.plan import Nest, Split
from tg_ir.dtypes import DType
from tg_ir.kernel import (
    Bitcast,
    Cast,
    Const,
    Elementwise,
    Index,
    Kernel,
    Load,
    Part,
    Reduce,
    Scan,
    Value,
)
from tg_ir.symbolic import SymInt, bounds

__all__ = ["Point", "Points", "Range", "Scope", "Scratch", "choices"]

Point = tuple[tuple[str, int], ...]
"""Offsets along the axes where they are not 0."""


@dataclass(slots=True)
class Range:
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
class Scope:
    """What is known while some loops are open; `binds` are the axes that the innermost of them opened."""

    binds: frozenset[str]
    values: dict[tuple[Value, Point], Reg] = field(default_factory=dict)
    folds: dict[tuple[Value, Point], tuple[Reg, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Scratch:
    """An array in scratch memory. A position is where a loop stands and an offset; each has a stride, in bytes.

    They differ along an axis in tiles, whose loop steps from tile to tile. The base counts from position 0.
    """

    base: Reg
    strides: dict[str, tuple[int, int]]
    memory: str


class Points(ABC):
    """The state of a nest's lowering."""

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
        self.ranges: dict[str, Range] = {}
        self.open: set[str] = set(self.scalars)  # names whose loops are all open
        self.scopes = [Scope(frozenset())]
        self.scans: dict[tuple[Value, Point], list[Reg]] = {}
        self.staged: dict[Value, Scratch] = {}
        self.phase = ""
        self.blocked: Reduce | None = None  # the reduction whose partial results are in scratch memory
        self.block_axes: set[str] = set()
        self.partial: list[Scratch] = []

    # ---- ranges

    def whole_range(self, extent: SymInt) -> Range:
        stop = self.indexer.index(extent, ())
        return Range(self.b.index(0), stop, self.b.value_of(stop), bounds(extent)[1])

    def enter(self, split: Split, counter: Reg) -> None:
        """Narrow the range of an axis to one step."""
        b, range_, step = self.b, self.ranges[split.axis], split.step
        stop = b.emit("add", INDEX, counter, b.index(step))
        if range_.whole(step):
            self.ranges[split.axis] = Range(counter, stop, step, step)
        else:
            self.ranges[split.axis] = Range(
                counter, b.emit("min", INDEX, stop, range_.stop), None, min(step, range_.most)
            )

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
                parts = [Range(whole.start, middle, size, size), Range(middle, whole.stop, rest, rest)]
            else:
                length = b.emit("sub", INDEX, whole.stop, whole.start)
                length = b.emit("sub", INDEX, length, b.emit("mod", INDEX, length, b.index(step)))
                middle = b.emit("add", INDEX, whole.start, length)
                parts = [
                    Range(whole.start, middle, None, whole.most, step),
                    Range(middle, whole.stop, None, step),
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
        self.scopes.append(Scope(frozenset(binds)))
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
        return choices([(axis, self.offsets(axis)) for axis in axes])

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

    # ---- what the classes on top of this one add

    @abstractmethod
    def fold(self, fold: Reduce | Scan, point: Point) -> tuple[Reg, ...]:
        """The components of a fold's result."""

    @abstractmethod
    def load_scratch(self, scratch: Scratch, value: Value, point: Point) -> Reg:
        """A value that was staged."""


def choices(several: list[tuple[str, range]]) -> list[Point]:
    """Every choice of one offset along each axis."""
    names = [axis for axis, _ in several]
    each = [offsets or (0,) for _, offsets in several]
    return [tuple([pair for pair in zip(names, choice, strict=True) if pair[1]]) for choice in product(*each)]
