"""Split axes where a reshape named their factors, so that indices stay affine.

    over r : 64, load a[16 * i + 1024 * (r // 16) + r % 16]  ->  over r, r_ : 4, 16, load a[16 * i + 1024 * r + r_]

*before*: stores. *after*: the same with fewer quotients and remainders of single axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tg_ir.kernel import Axis, Load, Loaded, Reduce, Scan, Store, Value, roots, toposort
from tg_ir.kernel import nodes as kernel_nodes
from tg_ir.symbolic import Expr, FloorDiv, Mod, SymInt, leaves, substitute
from tg_ir.symbolic_nodes import postorder

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
        stores = _Rewrite(splits, values).stores(stores)


def _divided(exprs: Iterator[SymInt], axes: dict[SymInt, Axis]) -> dict[Axis, int]:
    """The least number that an index divides each axis by, of those that divide its extent."""
    least: dict[Axis, int] = {}
    seen: set[Expr] = set()
    for expr in exprs:
        if isinstance(expr, Expr) and expr not in seen:
            seen.add(expr)
            for part in postorder(expr):
                if isinstance(part, FloorDiv | Mod) and part.dividend in axes and type(part.divisor) is int:
                    axis, by = axes[part.dividend], part.divisor
                    if type(axis.extent) is int and axis.extent % by == 0:
                        least[axis] = min(by, least.get(axis, by))
    return least


class _Rewrite:
    def __init__(self, splits: dict[Axis, tuple[Axis, Axis]], values: Sequence[Value]):
        self.splits = splits
        self.vars: dict[Expr, SymInt] = {
            axis.index: outer.index * inner.extent + inner.index for axis, (outer, inner) in splits.items()
        }
        self.new: dict[Value, Value] = {}
        for value in values:
            self.new[value] = type(value)(*[self.field(getattr(value, name)) for name in value.fields])

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
        return substitute(expr, self.vars | loaded)

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
