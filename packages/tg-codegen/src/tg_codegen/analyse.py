"""What planner and lowering ask about a kernel: free axes of values, their folds, linear forms of indices."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from tg_ir.kernel import Kernel, Load, Loaded, Reduce, Scan, Store, Value, children, roots, toposort
from tg_ir.kernel.nodes import Index
from tg_ir.symbolic import Expr, SymInt, leaves
from tg_ir.symbolic_nodes import Sum

__all__ = ["Analysis", "linear_terms", "nest_groups", "nest_values"]


@lru_cache(maxsize=4096)
def linear_terms(expr: SymInt) -> tuple[int, tuple[tuple[Expr, int], ...]]:
    """The constant and the (atom, coefficient) pairs that sum up to an expression."""
    if isinstance(expr, int):
        return expr, ()
    if isinstance(expr, Sum):
        return expr.const, expr.terms
    return 0, ((expr, 1),)


def nest_groups(kernel: Kernel) -> list[tuple[int, ...]]:
    """The stores by number, those with the same axes together."""
    groups: dict[tuple, list[int]] = {}
    for number, store in enumerate(kernel.stores):
        groups.setdefault((store.axes, store.combine), []).append(number)
    return [tuple(group) for group in groups.values()]


def nest_values(stores: Iterable[Store]) -> list[Value]:
    """The values of some stores, numbered: those that a value needs come before it."""
    return toposort(roots(stores))


class Analysis:
    """Free axes of the values and expressions of one kernel, by name."""

    def __init__(self) -> None:
        self._free: dict[Value, frozenset[str]] = {}
        self._free_expr: dict[Expr, frozenset[str]] = {}

    def free(self, value: Value) -> frozenset[str]:
        """The axes (and scalar parameters) that a value depends on."""
        found = self._free.get(value)
        if found is None:
            for each in toposort([value]):
                if each not in self._free:
                    self._free[each] = self._own(each)
            found = self._free[value]
        return found

    def _own(self, value: Value) -> frozenset[str]:
        free: set[str] = set()
        for child in children(value):
            free |= self._free[child]
        match value:
            case Load():
                free |= self.free_expr(value.index) | self.free_expr(value.guard)
            case Index():
                free |= self.free_expr(value.expr)
            case Reduce():
                return frozenset(free - {axis.name for axis in value.axes})
            case Scan():
                free.add(value.axis.name)
        return frozenset(free)

    def free_expr(self, expr: SymInt) -> frozenset[str]:
        """The axes (and scalar parameters) that an index depends on, also through loaded values."""
        if isinstance(expr, int):
            return frozenset()
        found = self._free_expr.get(expr)
        if found is None:
            names: set[str] = set()
            for leaf in leaves(expr):
                if isinstance(leaf, Loaded):
                    names |= self.free(leaf.source)
                else:
                    names.add(leaf.name)
            found = self._free_expr[expr] = frozenset(names)
        return found

    def folds(self, values: Iterable[Value]) -> list[Reduce | Scan]:
        """The reductions and scans among some values, in their order."""
        return [value for value in values if isinstance(value, Reduce | Scan)]
