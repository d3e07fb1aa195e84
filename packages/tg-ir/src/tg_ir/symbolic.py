"""Symbolic integers: dimensions, indices and guards, simplified as they are built.

    j = Var("j", 0, 63, below=n)        # an axis of symbolic extent n
    (i * n + j) // n is i               # equal expressions are one object; a constant is a plain int

`//` rounds down and `%` has the sign of the divisor, as in Python. A divisor whose bounds admit zero is refused.
Read symbolic_nodes.py for the normal form, symbolic_rules.py for the rules, symbolic_text.py for the notation;
this file has what walks expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, reduce
from typing import Any

from tg_ir.errors import SymbolicError
from tg_ir.symbolic_nodes import (
    And,
    Compare,
    Eq,
    Expr,
    FloorDiv,
    Le,
    Leaf,
    Max,
    Min,
    Mod,
    Ne,
    Or,
    Product,
    Select,
    Sum,
    SymInt,
    Var,
    accumulate,
    bounds,
    const_of,
    make_sum,
    postorder,
    terms_of,
)
from tg_ir.symbolic_rules import (
    eq,
    le,
    logical_and,
    logical_not,
    logical_or,
    lt,
    maximum,
    minimum,
    ne,
    prove_equal,
    prove_le,
    prove_lt,
    select,
)
from tg_ir.symbolic_text import format_expr, parse_expr

__all__ = [
    "And", "Compare", "Eq", "Expr", "FloorDiv", "Le", "Leaf", "Max", "Min", "Mod", "Ne", "Or", "Product", "Select",
    "Sum", "SymInt", "Var", "Variable", "bounds", "ceildiv", "eq", "evaluate", "format_expr", "le", "leaves",
    "logical_and", "logical_not", "logical_or", "lt", "maximum", "minimum", "ne", "parse_expr", "prod", "prove_equal",
    "prove_le", "prove_lt", "select", "simplify", "substitute", "variables",
]  # fmt: skip


def Variable(name: str, low: int, high: int) -> Var:
    """A symbolic dimension: low <= name <= high."""
    return Var(name, low, high)


def prod(factors: Iterable[SymInt]) -> SymInt:
    """The product; 1 of nothing."""
    return reduce(lambda a, b: a * b, factors, 1)


def ceildiv(a: SymInt, b: SymInt) -> SymInt:
    """a / b rounded up."""
    return -(-a // b)


def leaves(e: SymInt) -> tuple[Leaf, ...]:
    """The leaves that e is made of, in order of name."""
    return _leaves(e) if isinstance(e, Expr) else ()


@lru_cache(maxsize=1 << 14)
def _leaves(e: Expr) -> tuple[Leaf, ...]:
    found = [each for each in postorder(e) if isinstance(each, Leaf)]
    return tuple(sorted(found, key=lambda leaf: leaf.order[1:]))


def variables(e: SymInt) -> tuple[Var, ...]:
    """The variables that e is made of, in order of name."""
    return tuple(leaf for leaf in leaves(e) if isinstance(leaf, Var))


# --- substitution and evaluation


_REBUILD: dict[type[Expr], Callable[..., SymInt]] = {
    Product: lambda e, *factors: prod(factors),
    FloorDiv: lambda e, a, b: a // b,
    Mod: lambda e, a, b: a % b,
    Min: lambda e, *args: minimum(*args),
    Max: lambda e, *args: maximum(*args),
    And: lambda e, *args: logical_and(*args),
    Or: lambda e, *args: logical_or(*args),
    Le: lambda e, a: le(a, 0),
    Eq: lambda e, a: eq(a, 0),
    Ne: lambda e, a: ne(a, 0),
    Select: lambda e, *parts: select(*parts),
}


def substitute(e: SymInt, mapping: Mapping[Expr, SymInt], memo: dict[Expr, SymInt] | None = None) -> SymInt:
    """e with every key replaced by its value, simplified again. Pass one `memo` to share work between expressions."""
    if type(e) is int:
        return e
    memo = {} if memo is None else memo
    if not memo:
        memo.update(mapping)
    found = memo.get(e)
    if found is not None:
        return found
    for each in postorder(e, memo):
        if each not in memo:
            memo[each] = _rebuilt(each, memo)
    return memo[e]


def _rebuilt(e: Expr, values: Mapping[Expr, SymInt]) -> SymInt:
    if type(e) is Sum:
        for term, _ in e.terms:
            if values[term] is not term:
                break
        else:
            return e
        terms: dict[Expr, int] = {}
        const = e.const
        for term, coefficient in e.terms:
            const += accumulate(terms, values[term], coefficient)
        return make_sum(terms, const)
    old = e.operands
    if not old:
        return e
    new = tuple([each if type(each) is int else values[each] for each in old])
    if all(a is b for a, b in zip(old, new, strict=True)):
        return e
    return _REBUILD[type(e)](e, *new) if type(e) in _REBUILD else e.rebuild(new)


def _choose(condition: Any, yes: Any, no: Any) -> Any:
    chosen = (condition != 0) * 1  # arithmetic, so that arrays choose elementwise
    return yes * chosen + no * (1 - chosen)


_COMPUTE: dict[type[Expr], Callable[..., Any]] = {
    Product: lambda e, *factors: reduce(lambda a, b: a * b, factors),
    FloorDiv: lambda e, a, b: a // b,
    Mod: lambda e, a, b: a % b,
    Min: lambda e, *args: reduce(lambda a, b: _choose(a <= b, a, b), args),
    Max: lambda e, *args: reduce(lambda a, b: _choose(a >= b, a, b), args),
    And: lambda e, *args: reduce(lambda a, b: a * b, ((arg != 0) * 1 for arg in args)),
    Or: lambda e, *args: 1 - reduce(lambda a, b: a * b, ((arg == 0) * 1 for arg in args)),
    Le: lambda e, a: (a <= 0) * 1,
    Eq: lambda e, a: (a == 0) * 1,
    Ne: lambda e, a: (a != 0) * 1,
    Select: lambda e, *parts: _choose(*parts),
    Sum: lambda e, *values: reduce(
        lambda total, pair: total + pair[0] * pair[1][1], zip(values, e.terms, strict=True), e.const
    ),
}


def evaluate(e: SymInt, values: Mapping[Expr | str, Any]) -> Any:
    """The value of e; `values` gives ints or integer arrays by leaf or by name, bound variables know their own.

    Raises: SymbolicError for a variable with no value, or an int outside its bounds.
    """
    if type(e) is int:
        return e
    done: dict[Expr, Any] = {}
    for each in postorder(e, values):
        if isinstance(each, Leaf) or each in values:
            done[each] = _value_of(each, values)
        else:
            done[each] = _COMPUTE[type(each)](
                each, *[x if type(x) is int else done[x] for x in each.operands]
            )
    return done[e]


def _value_of(leaf: Expr, values: Mapping[Expr | str, Any]) -> Any:
    value = values.get(leaf)
    if value is None and isinstance(leaf, Leaf):
        value = values.get(leaf.name, getattr(leaf, "value", None))
    if value is None:
        raise SymbolicError(
            f"evaluate: {leaf.name} ({leaf.low}..{leaf.high}) has no value; give one by name, or bind() the variable"
        )
    if type(value) is int and not leaf.low <= value <= leaf.high:
        raise SymbolicError(f"evaluate: got {value} for {leaf.name}, want {leaf.low}..{leaf.high}")
    return value


# --- simplification under a guard


def simplify(e: SymInt, assuming: SymInt = 1) -> SymInt:
    """e, simplified where the condition holds: equal to e there, anything elsewhere.

    (i + 7) % 8 assuming 1 <= i and i <= 8 -> i - 1. Terms and sums that the guard narrows are replaced by leaves that
    know their narrower bounds, e is built again over the leaves, and they are replaced back.
    """
    if not isinstance(assuming, Expr) or not isinstance(e, Expr) or (facts := _facts(assuming)) is None:
        return e
    known, lines, original = dict(facts[0]), facts[1], facts[2]
    for each in postorder(e, known):
        if each not in known:
            known[each] = _folded(_rebuilt(each, known), lines)
    return substitute(known[e], original)


_Facts = tuple[dict[Expr, SymInt], list[tuple[SymInt, SymInt]], dict[Expr, SymInt]]


@lru_cache(maxsize=256)
def _facts(assuming: Expr) -> _Facts | None:
    """(leaf of a term, leaf of a sum, what each leaf stands for) under a guard; None when it can never hold."""
    guards = assuming.args if type(assuming) is And else (assuming,)
    ranges = _narrowed(guards)
    if any(low > high for low, high in ranges.values()):
        return None
    original: dict[Expr, SymInt] = {}

    def stand_in(old: Expr, low: int, high: int, below: SymInt | None = None) -> SymInt:
        leaf = Leaf(f"known_{len(original)}", low, high, below, digest=1 + len(original))
        original[leaf] = original.get(old, old)
        return leaf

    known: dict[Expr, SymInt] = {}
    for old, (low, high) in ranges.items():
        if type(old) is not Sum:
            known[old] = low if low == high else stand_in(old, low, high, getattr(old, "below", None))
    lines: list[tuple[SymInt, SymInt]] = []
    for old, (low, high) in ranges.items():
        line = substitute(old, known)
        if type(old) is Sum and type(line) is Sum and (low > line.low or high < line.high):
            low, high = max(low, line.low), min(high, line.high)
            if low > high:
                return None
            lines.append((line, stand_in(old, low, high)))
    # A guard x + r <= 0 over a leaf x also gives it the symbolic upper bound 1 - r.
    bounded: dict[Expr, SymInt] = {}
    for guard in guards:
        expr = substitute(guard.expr, known) if type(guard) is Le else 0
        expr = _folded(expr, [line for line in lines if len(terms_of(line[0])) < len(terms_of(expr))])
        for leaf, coefficient in terms_of(expr):
            below = 1 - (expr - leaf)
            if coefficient != 1 or not isinstance(leaf, Leaf) or leaf.below is not None or leaf in bounded:
                continue
            if isinstance(below, Expr) and leaf not in leaves(below) and below.high > leaf.low:
                bounded[leaf] = stand_in(leaf, leaf.low, leaf.high, below)
    known = bounded | {old: bounded.get(new, new) for old, new in known.items()}
    lines = [
        (new, bounded.get(leaf, leaf)) for line, leaf in lines if terms_of(new := substitute(line, bounded))
    ]
    for guard in guards:
        known[guard], known[logical_not(guard)] = 1, 0
    return known, lines, original


def _narrowed(guards: Iterable[Expr]) -> dict[Expr, tuple[int, int]]:
    """Inclusive bounds under the guards of terms, and of sums without their constant, where narrower than their own."""
    ranges: dict[Expr, tuple[int, int]] = {}

    def limit(e: Expr, by: int, room: int) -> None:  # by * e <= room
        low, high = ranges.get(e) or bounds(e)
        narrower = (low, min(high, room // by)) if by > 0 else (max(low, -(room // -by)), high)
        if narrower != (low, high):
            ranges[e] = narrower

    for _ in range(2):  # what one guard tells about a term narrows what another tells
        for guard in guards:
            if type(guard) not in (Le, Eq):
                continue
            for e in (guard.expr, -guard.expr)[: 1 + (type(guard) is Eq)]:
                least = {}
                for term, by in terms_of(e):
                    low, high = ranges.get(term) or bounds(term)
                    least[term] = by * (low if by > 0 else high)
                room = -const_of(e) - sum(least.values())
                for term, by in terms_of(e):
                    limit(term, by, room + least[term])
                if len(least) > 1:
                    line = e - const_of(e)
                    sign = 1 if terms_of(line)[0][1] > 0 else -1
                    limit(sign * line, sign, -const_of(e))
    return ranges


def _folded(e: SymInt, lines: list[tuple[SymInt, SymInt]]) -> SymInt:
    """e, where a sum contains a multiple of a line, over the line's leaf.

    24*i - 23*j is 23*(i - j) + i, where i - j is a line.
    """
    for line, leaf in lines:
        terms = dict(terms_of(e))
        each = [terms.get(term, 0) / by for term, by in terms_of(line)]
        least = min(each, key=abs)
        if abs(least) >= 1 and (min(each) > 0 or max(each) < 0):
            e = e + int(least) * (leaf - line)
    return e
