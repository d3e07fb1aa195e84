"""The verifier of the kernel IR: scopes, dtypes, memory access, and that every index is provably within its buffer."""

from __future__ import annotations

from collections.abc import Iterator

from tg_ir.errors import VerifyError
from tg_ir.kernel.nodes import (
    ACCESS,
    COMBINES,
    Axis,
    Const,
    Index,
    Kernel,
    Load,
    Loaded,
    Parameter,
    Reduce,
    Scan,
    Store,
    Value,
    children,
    toposort,
)
from tg_ir.symbolic import SymInt, Var, format_expr, le, leaves, logical_and, lt, simplify

__all__ = ["verify_kernel"]


def verify_kernel(kernel: Kernel, made_by: str = "the caller") -> None:
    """Check a kernel against the rules on top of kernel/nodes.py.

    Raises:
        VerifyError: it names the kernel, the store, what is wrong, and `made_by`, the last pass.
    """
    for where, problem in _problems(kernel):
        raise VerifyError(f"kernel {kernel.name}: {where}: {problem}; the kernel comes from {made_by}")


def _problems(kernel: Kernel) -> Iterator[tuple[str, str]]:
    names = [item.name for item in (*kernel.parameters, *kernel.scalars)]
    for name in names:
        if names.count(name) > 1:
            yield "parameters", f"two are called {name}"
    for parameter in kernel.parameters:
        if parameter.access not in ACCESS:
            yield (
                f"parameter {parameter.name}",
                f"access is {parameter.access!r}, want one of {', '.join(ACCESS)}",
            )
        yield from _foreign(f"parameter {parameter.name}", parameter.size, {}, kernel)
    for number, store in enumerate(kernel.stores):
        yield from _store_problems(f"store {number} to {store.parameter.name}", store, kernel)


def _store_problems(where: str, store: Store, kernel: Kernel) -> Iterator[tuple[str, str]]:
    if store.parameter not in kernel.parameters or store.parameter.access == "read":
        yield where, "the buffer is no parameter that may be written"
    if store.value.dtype is not store.parameter.dtype:
        yield where, f"the value is {store.value.dtype}, the buffer {store.parameter.dtype}; cast it"
    if store.combine not in COMBINES:
        yield where, f"combine is {store.combine!r}, want one of {', '.join(map(repr, COMBINES))}"
    scope: dict[str, Axis] = {}
    yield from _enter(where, store.axes, scope, kernel)
    for expr in (store.index, store.guard):
        yield from _foreign(where, expr, scope, kernel)
    yield from _bounds(where, store.parameter, store.index, store.guard, scope)
    seen: set[tuple[Value, tuple[str, ...]]] = set()
    roots = [
        leaf.source
        for expr in (store.index, store.guard)
        for leaf in leaves(expr)
        if isinstance(leaf, Loaded)
    ]
    stack = [(value, scope) for value in (*roots, store.value)]
    while stack:
        value, around = stack.pop()
        key = (value, tuple(around))
        if key in seen:
            continue
        seen.add(key)
        inner = around
        match value:
            case Load():
                yield from _load_problems(where, value, store, around, kernel)
            case Index():
                yield from _foreign(where, value.expr, around, kernel)
            case Reduce():
                inner = dict(around)
                again = [
                    axis for axis in value.axes if inner.get(axis.name) == axis and axis not in store.axes
                ]
                yield from _enter(where, [axis for axis in value.axes if axis not in again], inner, kernel)
                yield from _monoid_problems(where, value)
            case Scan():
                if around.get(value.axis.name) != value.axis or value.axis not in store.axes:
                    yield where, f"a scan along {value.axis.name}, which is no axis of the store"
                yield from _monoid_problems(where, value)
        stack += [(child, inner) for child in children(value)]


def _enter(
    where: str, axes: tuple[Axis, ...], scope: dict[str, Axis], kernel: Kernel
) -> Iterator[tuple[str, str]]:
    for axis in axes:
        if axis.name in scope or any(axis.name == var.name for var in kernel.scalars):
            yield where, f"axis {axis.name} hides another of that name"
        yield from _foreign(where, axis.extent, scope, kernel)
        scope[axis.name] = axis


def _foreign(where: str, expr: SymInt, scope: dict[str, Axis], kernel: Kernel) -> Iterator[tuple[str, str]]:
    """Variables that are neither an axis in scope nor a scalar parameter."""
    for leaf in leaves(expr):
        if isinstance(leaf, Var) and leaf not in kernel.scalars:
            axis = scope.get(leaf.name)
            if axis is None or axis.index is not leaf:
                yield where, f"{leaf.name} in {format_expr(expr)} is neither an axis in scope nor a scalar"


def _bounds(
    where: str, parameter: Parameter, index: SymInt, guard: SymInt, scope: dict[str, Axis]
) -> Iterator[tuple[str, str]]:
    if guard == 0 or any(axis.extent == 0 for axis in scope.values()):
        return
    inside = logical_and(le(0, index), lt(index, parameter.size))
    if inside != 1 and simplify(inside, assuming=guard) != 1:
        yield (
            where,
            (
                f"index {format_expr(index)} is not known to be within 0 <= index < {format_expr(parameter.size)} of "
                f"{parameter.name} where {format_expr(guard)}; guard it"
            ),
        )


def _load_problems(
    where: str, load: Load, store: Store, scope: dict[str, Axis], kernel: Kernel
) -> Iterator[tuple[str, str]]:
    parameter = load.parameter
    if parameter not in kernel.parameters or parameter.access == "write":
        yield where, f"loads from {parameter.name}, which is no parameter that may be read"
    if parameter.access == "update" and not any(
        parameter == other.parameter
        and (load.index, store.axes, store.combine) == (other.index, other.axes, other.combine)
        for other in kernel.stores
    ):
        yield (
            where,
            f"loads {parameter.name} at {format_expr(load.index)}, not where a store over the same axes writes it",
        )
    if not isinstance(load.other, Const):
        yield where, f"a load of {parameter.name} gives a computed value outside its guard, want a constant"
    for expr in (load.index, load.guard):
        yield from _foreign(where, expr, scope, kernel)
    yield from _bounds(where, parameter, load.index, load.guard, scope)


def _monoid_problems(where: str, fold: Reduce | Scan) -> Iterator[tuple[str, str]]:
    monoid = fold.monoid
    for position, (value, dtype) in enumerate(zip(monoid.result, monoid.dtypes, strict=True)):
        if value.dtype is not dtype:
            yield where, f"monoid {monoid.name}: component {position} is {value.dtype}, its identity {dtype}"
    for value in toposort(monoid.result):
        if isinstance(value, Load | Index | Reduce | Scan):
            yield (
                where,
                f"monoid {monoid.name}: combines with {value!r}, want its arguments and constants only",
            )
