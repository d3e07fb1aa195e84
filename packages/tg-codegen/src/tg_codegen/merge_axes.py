"""Merge neighbouring axes that every index takes together, and drop those of extent 1.

    store y[64*i + j] = load x[64*i + j] over i, j    with j < 64  ->  store y[i_j] = load x[i_j] over i_j

Loops over the merged axis are longer and fewer. Axes of scans stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tg_codegen.analyse import Analysis, linear_terms
from tg_ir.kernel import (
    Axis,
    Index,
    Kernel,
    Load,
    Loaded,
    Reduce,
    Scan,
    Store,
    Value,
    children,
    roots,
    toposort,
)
from tg_ir.symbolic import Expr, SymInt, Var, bounds, leaves, substitute

__all__ = ["merge_axes"]


def merge_axes(kernel: Kernel) -> Kernel:
    """The same kernel with as few axes as its indices allow."""
    stores = [_merge_store(_rewrite_store(store, _Rewrite({}))) for store in kernel.stores]
    return Kernel(kernel.name, kernel.parameters, kernel.scalars, tuple(stores))


def _merge_store(store: Store) -> Store:
    exprs = [store.index, store.guard, *_exprs(roots([store]))]
    scanned = {value.axis.name for value in toposort(roots([store])) if isinstance(value, Scan)}
    axes, mapping = _merge(store.axes, exprs, scanned)
    store = Store(store.parameter, store.index, store.value, axes, store.guard, store.combine)
    return _rewrite_store(store, _Rewrite(mapping)) if mapping else store


def _rewrite_store(store: Store, rewrite: _Rewrite) -> Store:
    index, guard = rewrite.expr(store.index), rewrite.expr(store.guard)
    return Store(store.parameter, index, rewrite.value(store.value), store.axes, guard, store.combine)


def _exprs(values: Iterable[Value]) -> list[SymInt]:
    found: list[SymInt] = []
    for value in toposort(values):
        if isinstance(value, Load):
            found += (value.index, value.guard)
        elif isinstance(value, Index):
            found.append(value.expr)
    return found


def _merge(
    axes: Sequence[Axis], exprs: Iterable[SymInt], fixed: set[str]
) -> tuple[tuple[Axis, ...], dict[Expr, SymInt]]:
    """The merged axes, and what the variables of those merged away become."""
    analysis = Analysis()
    distinct = list(dict.fromkeys(exprs))
    merged: list[Axis] = []
    mapping: dict[Expr, SymInt] = {}
    for axis in axes:
        if axis.extent == 1:
            continue
        last = merged[-1] if merged else None
        if last is not None and _together(last, axis, distinct, fixed, analysis):
            merged[-1] = Axis(f"{last.name}_{axis.name}", last.extent * axis.extent)
            now = {last.index: 0, axis.index: merged[-1].index}
            distinct = [substitute(expr, now) for expr in distinct]
            mapping = {old: substitute(new, now) for old, new in mapping.items()} | now
        else:
            merged.append(axis)
    return tuple(merged), mapping


def _together(outer: Axis, inner: Axis, exprs: Iterable[SymInt], fixed: set[str], analysis: Analysis) -> bool:
    """Whether every expression takes two axes as one: outer * extent of inner + inner."""
    if not isinstance(inner.extent, int) or bounds(outer.extent)[1] <= 1 or {outer.name, inner.name} & fixed:
        return False
    for expr in exprs:
        factors = {outer.name: 0, inner.name: 0}
        for atom, factor in linear_terms(expr)[1]:
            if isinstance(atom, Var) and atom.name in factors:
                factors[atom.name] += factor
            elif not analysis.free_expr(atom).isdisjoint(factors):
                return False
        if factors[outer.name] != factors[inner.name] * inner.extent:
            return False
    return True


class _Rewrite:
    """Values with other variables in their indices; reductions inside have their own axes merged."""

    def __init__(self, mapping: Mapping[Expr, SymInt]):
        self.mapping = mapping
        self.known: dict[Value, Value] = {}

    def expr(self, expr: SymInt) -> SymInt:
        if isinstance(expr, int):
            return expr
        mapping = dict(self.mapping)
        for leaf in leaves(expr):
            if isinstance(leaf, Loaded):
                mapping[leaf] = Loaded(self.value(leaf.source), leaf.low, leaf.high)
        return substitute(expr, mapping) if mapping else expr

    def value(self, root: Value) -> Value:
        for value in toposort([root]):
            if value not in self.known:
                self.known[value] = self.rebuild(value)
        return self.known[root]

    def rebuild(self, value: Value) -> Value:
        match value:
            case Load():
                other = self.known[value.other]
                return Load(value.parameter, self.expr(value.index), self.expr(value.guard), other)
            case Index():
                return Index(self.expr(value.expr), value.type)
            case Reduce():
                args = tuple([self.known[arg] for arg in value.args])
                axes, mapping = _merge(value.axes, _exprs(args), _scanned(args))
                if mapping:
                    inner = _Rewrite(mapping)
                    args = tuple([inner.value(arg) for arg in args])
                return Reduce(value.monoid, axes, args)
        if not children(value):
            return value
        fields = []
        for name in value.fields:
            field = getattr(value, name)
            if isinstance(field, Value):
                field = self.known[field]
            elif name == "args":
                field = tuple([self.known[arg] for arg in field])
            fields.append(field)
        return type(value)(*fields)


def _scanned(args: Iterable[Value]) -> set[str]:
    return {value.axis.name for value in toposort(args) if isinstance(value, Scan)}
