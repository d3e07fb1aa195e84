"""Random kernels and random plans for them."""

from __future__ import annotations

import random
from math import prod

from tg_codegen.analyse import Analysis, nest_groups, nest_values
from tg_codegen.errors import PlanError
from tg_codegen.plan import Nest, Plan, Split, Stage
from tg_codegen.planner import Machine, plan_kernel
from tg_codegen.verify_plan import verify_plan
from tg_ir.dtypes import DType, bool_, dtype_of, float32
from tg_ir.errors import TgError
from tg_ir.kernel import (
    Axis,
    Cast,
    Const,
    Elementwise,
    Index,
    Kernel,
    Load,
    Loaded,
    Parameter,
    Part,
    Reduce,
    Scan,
    Store,
    Value,
    verify_kernel,
)
from tg_ir.kernel.monoids import arg_extreme, combiner, log_sum_exp, welford
from tg_ir.symbolic import SymInt, bounds, le, logical_and, lt

__all__ = ["random_kernel", "random_plan"]

_UNARY = ("neg", "abs", "exp", "tanh", "sqrt", "floor", "invert")
_BINARY = ("add", "sub", "mul", "maximum", "minimum", "div", "and", "xor")
_DTYPES = (
    "float32",
    "float32",
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int32",
    "int64",
    "int8",
    "uint8",
    "uint16",
    "bool",
)


class _Maker:
    def __init__(self, rng: random.Random):
        self.rng = rng
        self.parameters: list[Parameter] = []
        self.axes_made = 0
        self.scans = True  # stores that combine run in an order that a scan may not like

    def axis(self, prefix: str, most: int = 40) -> Axis:
        self.axes_made += 1
        return Axis(f"{prefix}{self.axes_made}", self.rng.choice((1, 2, 3, 5, 8, 16, 17, 33, most)))

    def index(self, axes: list[Axis]) -> tuple[SymInt, int]:
        """A row-major index of some of the axes, perhaps strided or shifted, and how many elements it needs."""
        rng = self.rng
        chosen = [axis for axis in axes if rng.random() < 0.8]
        if rng.random() < 0.25:
            rng.shuffle(chosen)
        index: SymInt = 0
        for axis in chosen:
            index = index * axis.extent + axis.index
        if chosen and rng.random() < 0.15:
            index = index * 2 + 1
        if chosen and rng.random() < 0.15:
            index = (index + 3) // 2
        return index, bounds(index)[1] + 1

    def load(self, dtype: DType, axes: list[Axis]) -> Value:
        rng = self.rng
        index, size = self.index(axes)
        guard: SymInt = 1
        other: float = 0
        if axes and rng.random() < 0.3:
            axis = rng.choice(axes)
            shift = rng.randrange(1, 4)
            guard = logical_and(le(shift, axis.index), lt(axis.index, max(shift + 1, axis.extent - 1)))
            if bounds(axis.index)[1] >= shift and rng.random() < 0.5:
                other = 1
        parameter = Parameter(f"x{len(self.parameters)}", dtype, size)
        self.parameters.append(parameter)
        return Load.of(parameter, index, guard, other)

    def gather(self, dtype: DType, axes: list[Axis]) -> Value:
        table = Parameter(f"x{len(self.parameters)}", dtype, 7)
        self.parameters.append(table)
        source = self.load(dtype_of("int32"), axes)
        index = Loaded(source, -(2**31), 2**31 - 1)
        return Load.of(table, index, logical_and(le(0, index), lt(index, 7)))

    def value(self, dtype: DType, axes: list[Axis], depth: int) -> Value:
        rng = self.rng
        roll = rng.random()
        if depth == 0 or roll < 0.15:
            return self.gather(dtype, axes) if rng.random() < 0.1 else self.load(dtype, axes)
        if roll < 0.2 and dtype.kind in ("int", "uint"):
            return Index(self.index(axes)[0], dtype)
        if roll < 0.3:
            other = dtype_of(rng.choice(_DTYPES))
            if not (other.is_float and not dtype.is_float):
                return Cast(self.value(other, axes, depth - 1), dtype)
        if roll < 0.35:
            return Elementwise(
                "where", (self.compare(axes, depth - 1), *self.values(dtype, axes, depth - 1, 2))
            )
        if roll < 0.55 and dtype.name in ("float32", "float64", "int32", "int64"):
            return self.reduce(dtype, axes, depth - 1)
        if roll < 0.7:
            name = rng.choice(_UNARY)
            if name in ("neg", "abs") and dtype is not bool_:
                return Elementwise(name, (self.value(dtype, axes, depth - 1),))
            if name == "invert" and not dtype.is_float:
                return Elementwise(name, (self.value(dtype, axes, depth - 1),))
            if dtype.is_float and name in ("tanh", "floor"):
                exact = 0 if name == "floor" else depth - 1
                return Elementwise(name, (self.value(dtype, axes, exact),))
        name = rng.choice(_BINARY)
        if dtype is bool_ and name not in ("and", "xor", "maximum", "minimum"):
            return self.compare(axes, depth - 1)
        if (dtype.is_float and name in ("and", "xor")) or (not dtype.is_float and name == "div"):
            name = "maximum"
        if name == "div":
            low = Const.of(2, dtype)
            return Elementwise("div", (self.value(dtype, axes, depth - 1), low))
        return Elementwise(name, tuple(self.values(dtype, axes, depth - 1, 2)))

    def values(self, dtype: DType, axes: list[Axis], depth: int, count: int) -> list[Value]:
        return [self.value(dtype, axes, depth) for _ in range(count)]

    def compare(self, axes: list[Axis], depth: int) -> Value:
        dtype = dtype_of(self.rng.choice(("float32", "int32", "int64", "uint8")))
        return Elementwise(
            self.rng.choice(("lt", "le", "eq", "ne")), tuple(self.values(dtype, axes, depth, 2))
        )

    def reduce(self, dtype: DType, axes: list[Axis], depth: int) -> Value:
        rng = self.rng
        own = [self.axis("r", 20) for _ in range(rng.randrange(1, 3))]
        args = [self.value(dtype, [*axes, *own], depth)]
        name = rng.choice(("sum", "sum", "max", "min", "logsumexp", "argmax", "welford", "scan"))
        if (
            name == "scan" and self.scans and axes and axes[-1].name[0] == "i"
        ):  # the scheduler puts none into a reduction
            axis = axes[0]  # two that cross cannot run in one nest
            if bounds(axis.extent)[1] > 1:
                return Part(Scan(combiner("sum", dtype), axis, (self.value(dtype, axes, depth),)), 0)
        if not dtype.is_float or name == "scan":
            name = "max"
        match name:
            case "logsumexp":
                return Part(
                    Reduce(log_sum_exp(dtype), tuple(own), (args[0], Const.of(1, dtype))), rng.randrange(2)
                )
            case "argmax":
                position = Cast(Index(self.index(own)[0], dtype_of("int64")), dtype_of("int64"))
                fold = Reduce(arg_extreme("argmax", dtype), tuple(own), (args[0], position))
                return Part(fold, 0)
            case "welford":
                one, zero = Const.of(1, dtype), Const.of(0, dtype)
                return Part(Reduce(welford(dtype), tuple(own), (one, args[0], zero)), rng.randrange(3))
        if name == "sum" and rng.random() < 0.7:
            args = [Elementwise("mul", (args[0], self.value(dtype, [*axes, *own], 0)))]
        return Part(Reduce(combiner(name, dtype), tuple(own), tuple(args)), 0)


def random_kernel(rng: random.Random) -> Kernel:
    """A valid kernel of a few stores."""
    while True:
        maker = _Maker(rng)
        axes = [maker.axis("i") for _ in range(rng.randrange(1, 4))]
        if prod(axis.extent for axis in axes) > 4000:
            continue
        stores = []
        for n in range(rng.choice((1, 1, 2))):
            dtype = dtype_of(rng.choice(_DTYPES))
            index: SymInt = 0
            order = list(axes)
            if rng.random() < 0.2:
                rng.shuffle(order)
            for axis in order:
                index = index * axis.extent + axis.index
            guard: SymInt = 1
            if rng.random() < 0.15:
                guard = lt(axes[-1].index, max(1, axes[-1].extent - 2))
            combine, maker.scans = "", True
            target = Parameter(f"y{n}", dtype, max(1, prod(axis.extent for axis in axes)), "write")
            if rng.random() < 0.1 and dtype in (float32, dtype_of("int32")):
                combine, maker.scans = rng.choice(("sum", "max")), False
                source = maker.load(dtype_of("int32"), [axes[0]])
                loaded = Loaded(source, -(2**31), 2**31 - 1)
                guard = logical_and(le(0, loaded), lt(loaded, 3))
                inner: SymInt = 0
                for axis in axes[1:]:
                    inner = inner * axis.extent + axis.index
                width = prod(axis.extent for axis in axes[1:])
                index = loaded * width + inner
                target = Parameter(f"y{n}", dtype, 3 * width, "update")
            stores.append(Store(target, index, maker.value(dtype, axes, 3), tuple(axes), guard, combine))
        parameters = (*[store.parameter for store in stores], *maker.parameters)
        kernel = Kernel("random", parameters, (), tuple(stores))
        try:
            verify_kernel(kernel, "random_kernel")
        except TgError:  # a kernel that cannot be proved is not one
            continue
        if _points(kernel) <= 8000:
            return kernel


def _points(kernel: Kernel) -> int:
    """At how many points the reduction with the most of them has an argument."""
    analysis, most = Analysis(), 0
    for store in kernel.stores:
        for fold in analysis.folds(nest_values([store])):
            extents = {axis.name: axis.extent for axis in store.axes}
            for other in analysis.folds(nest_values([store])):
                extents |= {axis.name: axis.extent for axis in getattr(other, "axes", ())}
            free = set().union(*[analysis.free(arg) for arg in fold.args])
            most = max(most, prod(extents.get(name, 1) for name in free))
    return most


def _splits(
    rng: random.Random, axis: str, extent: int, lanes: int, kinds: tuple[str, ...], whole: bool = False
) -> list[Split]:
    """Parts of an axis, from the outermost."""
    parts, left = [], extent
    for kind in kinds:
        step = rng.choice((lanes, 2 * lanes, left) if whole else (1, 2, 3, lanes, 2 * lanes, left))
        if step <= left:
            parts.append(Split(kind, axis, step))
            left = min(left, step)
    if left > 2 * lanes:
        parts.append(Split("serial", axis, lanes if whole else rng.choice((1, 2, lanes))))
    return parts


def random_plan(kernel: Kernel, lanes: int, rng: random.Random) -> Plan:
    """A valid plan: the first of some that `verify_plan` accepts, or else that of the planner."""
    for _ in range(100):
        nests = []
        for group in nest_groups(kernel):
            stores = [kernel.stores[number] for number in group]
            values, analysis = nest_values(stores), Analysis()
            folds = analysis.folds(values)
            axes = {axis.name: bounds(axis.extent)[1] for axis in stores[0].axes}
            lane = rng.choice([None, *axes])
            grid, serial = [], []
            for name, extent in axes.items():
                kinds = rng.choice((("serial",), ("grid",), ("grid", "serial"), ("serial", "serial"), ()))
                if any(isinstance(f, Scan) and f.axis.name == name for f in folds) or (
                    stores[0].combine and rng.random() < 0.8
                ):
                    serial.append(Split("serial", name, lanes if lane == name else 1))
                    continue
                for split in _splits(rng, name, extent, lanes, kinds, name == lane):
                    (grid if split.kind == "grid" else serial).append(split)
            if rng.random() < 0.5:
                rng.shuffle(serial)
            reduces = [fold for fold in folds if isinstance(fold, Reduce) and fold.axes]
            if reduces and rng.random() < 0.3:
                axis = rng.choice(rng.choice(reduces).axes)
                serial.insert(
                    rng.randrange(len(serial) + 1), Split("serial", axis.name, rng.choice((1, 3, 8)))
                )
            loops = (*grid, *serial, *([Split("lanes", lane)] if lane is not None else []))
            fold_loops = []
            for fold in folds:
                if isinstance(fold, Scan):
                    fold_loops.append(())
                    continue
                own = fold.axes and lane not in analysis.free(fold) and rng.random() < 0.6
                parts = [
                    part
                    for a in fold.axes
                    for part in _splits(rng, a.name, bounds(a.extent)[1], lanes, ("serial",))
                ]
                fold_loops.append((*parts, *([Split("lanes", rng.choice(fold.axes).name)] if own else [])))
            stages = []
            if rng.random() < 0.4:
                number, at = rng.randrange(len(values)), rng.randrange(len(grid), len(loops) + 1)
                later = {split.axis for split in loops[at:]}
                layout = sorted(a for a in analysis.free(values[number]) if a in later or rng.random() < 0.8)
                rng.shuffle(layout)
                if layout:
                    stages = [Stage(number, at, tuple(layout))]
            nests.append(Nest(group, loops, tuple(fold_loops), tuple(stages)))
        plan = Plan(tuple(nests))
        try:
            verify_plan(kernel, plan, lanes)
        except PlanError:
            continue
        return plan
    return plan_kernel(kernel, Machine(lanes, 2 * lanes))
