"""Split axes where a reshape named their factors, so that indices stay affine.

    over r : 64, load a[16 * i + 1024 * (r // 16) + r % 16]  ->  over r, r_ : 4, 16, load a[16 * i + 1024 * r + r_]

A sum over windows of which just one contains the element then picks that one:

    sum over r of (a[i - r] if r == i_ else 0)  ->  a[i - i_]

*before*: stores. *after*: the same with fewer quotients and remainders, and fewer sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tg_ir.kernel import Axis, Load, Loaded, Part, Reduce, Scan, Store, Value, roots, toposort
from tg_ir.kernel import nodes as kernel_nodes
from tg_ir.symbolic import (
    And,
    Eq,
    Expr,
    FloorDiv,
    Mod,
    SymInt,
    le,
    leaves,
    logical_and,
    lt,
    prove_le,
    simplify,
    substitute,
)
from tg_ir.symbolic_nodes import postorder, terms_of
from tg_schedule.lower import vanishes

__all__ = ["expressions", "split_axes"]


def expressions(stores: Sequence[Store], values: Sequence[Value]) -> Iterator[SymInt]:
    """Every index, guard and extent of the stores and of the values that they need."""
    for store in stores:
        yield from (store.index, store.guard, *[axis.extent for axis in store.axes])
    for value in values:
        match value:
            case Load():
                yield from (value.index, value.guard)
            case kernel_nodes.Index():
                yield value.expr
            case Reduce():
                yield from [axis.extent for axis in value.axes]


def split_axes(stores: Sequence[Store]) -> Sequence[Store]:
    """The stores over split axes."""
    while True:
        values = toposort(roots(stores))
        axes = {axis.index: axis for store in stores for axis in store.axes}
        axes |= {axis.index: axis for value in values if isinstance(value, Reduce) for axis in value.axes}
        for value in values:
            if isinstance(value, Scan):
                axes.pop(value.axis.index, None)
        names = {axis.name for axis in axes.values()}
        splits: dict[Axis, tuple[Axis, Axis]] = {}
        for axis, divisor in _divided(expressions(stores, values), axes).items():
            name = axis.name + "_"
            while name in names:
                name += "_"
            splits[axis] = (Axis(axis.name, axis.extent // divisor), Axis(name, divisor))
        if not splits:
            return stores
        variables = {
            axis.index: outer.index * inner.extent + inner.index for axis, (outer, inner) in splits.items()
        }
        split = _Rewrite(values, variables, splits).stores(stores)
        if not all(map(_is_proved, [value for value in toposort(roots(split)) if isinstance(value, Load)])):
            return stores
        stores = split


def _is_proved(load: Load) -> bool:
    """Whether a load is known to be inside its buffer."""
    inside = logical_and(le(0, load.index), lt(load.index, load.parameter.size))
    return load.guard == 0 or simplify(inside, assuming=load.guard) == 1


def _divided(exprs: Iterator[SymInt], axes: dict[SymInt, Axis]) -> dict[Axis, int]:
    """The least number that an index divides each axis by, of those that divide its extent."""
    least: dict[Axis, int] = {}
    seen: set[Expr] = set()
    for expr in exprs:
        if isinstance(expr, Expr) and expr not in seen:
            seen.add(expr)
            for part in postorder(expr):
                if isinstance(part, FloorDiv | Mod) and type(part.divisor) is int:
                    for term, by in terms_of(part.dividend):
                        axis, divisor = axes.get(term) if by == 1 else None, part.divisor
                        if axis is None or type(axis.extent) is not int or axis.extent % divisor:
                            continue
                        if axis.extent > divisor or part.dividend is term:
                            least[axis] = min(divisor, least.get(axis, divisor))
    return least


class _Rewrite:
    def __init__(
        self,
        values: Sequence[Value],
        variables: Mapping[Expr, SymInt],
        splits: Mapping[Axis, tuple[Axis, Axis]] | None = None,
    ):
        self.variables, self.splits = variables, splits or {}
        self.new: dict[Value, Value] = {}
        for value in values:
            self.new[value] = self.rebuilt(value)

    def rebuilt(self, value: Value) -> Value:
        new = type(value)(*[self.field(getattr(value, name)) for name in value.fields])
        if isinstance(new, Load) and new.guard != 1:
            new = Load(new.parameter, simplify(new.index, assuming=new.guard), new.guard, new.other)
        if isinstance(new, Part) and isinstance(new.fold, Reduce) and new.fold.monoid.name == "sum":
            return _picked(new)
        return new

    def field(self, field: object) -> object:
        if isinstance(field, Value):
            return self.new.get(field, field)
        if isinstance(field, Expr):
            return self.expr(field)
        if isinstance(field, tuple):
            if field and isinstance(field[0], Axis):
                return self.axes(field)
            return tuple([self.field(item) for item in field])
        return field

    def axes(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        parts = [part for axis in axes for part in self.splits.get(axis, (axis,))]
        return tuple([part for part in parts if part.extent != 1])

    def expr(self, expr: SymInt) -> SymInt:
        if not isinstance(expr, Expr):
            return expr
        loaded = {
            leaf: Loaded(self.new[leaf.source], leaf.low, leaf.high)
            for leaf in leaves(expr)
            if isinstance(leaf, Loaded)
        }
        return substitute(expr, {**self.variables, **loaded})

    def stores(self, stores: Sequence[Store]) -> list[Store]:
        return [
            Store(
                store.parameter,
                self.expr(store.index),
                self.new[store.value],
                self.axes(store.axes),
                self.expr(store.guard),
                store.combine,
            )
            for store in stores
        ]


def _picked(part: Part) -> Value:
    """A sum without the axes of which only one point counts."""
    (arg,), axes = part.fold.args, list(part.fold.axes)
    guards = [value.guard for value in toposort([arg]) if isinstance(value, Load)]
    conditions = {each for guard in guards for each in (guard.args if isinstance(guard, And) else (guard,))}
    for condition in conditions:
        for axis in part.fold.axes if isinstance(condition, Eq) and vanishes(arg, condition) else ():
            by = dict(terms_of(condition.expr)).get(axis.index, 0)
            point = axis.index - by * condition.expr
            if abs(by) == 1 and axis in axes and prove_le(0, point) and prove_le(point, axis.extent - 1):
                arg = _Rewrite(toposort([arg]), {axis.index: point}).new[arg]
                axes.remove(axis)
    if len(axes) == len(part.fold.axes):
        return part
    return Part(Reduce(part.fold.monoid, tuple(axes), (arg,)), 0) if axes else arg
