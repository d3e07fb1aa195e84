"""Rules of symbolic integers: division, comparison, min, max, logic, and the prover they rest on.

Every function takes operands in normal form and gives the normal form of the result, so an expression is simplified
as it is built. Rules are tried in order; each is written above its code as *before -> after*. All divisors are
positive by the time the rules see them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import gcd
from operator import index
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
    Select,
    Sum,
    SymInt,
    accumulate,
    as_operand,
    bounds,
    const_of,
    exact_quotient,
    factors_of,
    make_sum,
    node,
    size,
    split,
    split_multiples,
    terms_of,
)

__all__ = [
    "eq", "floordiv", "le", "logical_and", "logical_not", "logical_or", "lt", "maximum", "minimum", "modulo", "ne",
    "prove_equal", "prove_le", "prove_lt", "select",
]  # fmt: skip

_INT32 = 1 << 31


# --- proofs


def prove_le(a: SymInt, b: SymInt) -> bool:
    """True when a <= b is certain; False means not known."""
    return nonnegative(b - a)


def prove_lt(a: SymInt, b: SymInt) -> bool:
    """True when a < b is certain; False means not known."""
    return nonnegative(b - a - 1)


def prove_equal(a: SymInt, b: SymInt) -> bool:
    """True when a == b is certain; False means not known."""
    difference = a - b
    return (
        difference == 0 if type(difference) is int else nonnegative(difference) and nonnegative(-difference)
    )


def nonnegative(e: SymInt) -> bool:
    """True when e >= 0 is certain."""
    if type(e) is int:
        return e >= 0
    return e.low >= 0 or (e.high >= 0 and e.relational and _search(e))


@lru_cache(maxsize=1 << 14)
def _search(e: Expr) -> bool:
    """Replace atoms by what bounds them from the side that lowers e, until intervals decide; at most 24 tries."""
    tried: set[SymInt] = set()

    def proven(e: SymInt) -> bool:
        if type(e) is int or e.low >= 0:
            return bounds(e)[0] >= 0
        if e.high < 0 or e in tried or len(tried) >= 24 or not (e.relational or _repeated(e)):
            return False
        tried.add(e)
        for atom in _cancelling(e):
            cofactor, rest = split(terms_of(e), atom)
            low, high = bounds(cofactor)
            if (low < 0 < high) or any(atom in factors_of(term) for term, _ in terms_of(cofactor)):
                continue
            rest = make_sum(rest, const_of(e))
            for unit, ends in _relaxed(atom, high <= 0):
                if all(proven(cofactor * end + unit * rest) for end in ends):
                    return True
        return False

    return proven(e)


def _cancelling(e: Expr) -> list[Expr]:
    """The atoms whose relaxation meets another atom of e, or that stand in several terms, and choices, whose
    branches may be provable; for the others their own interval is as good."""
    atoms = dict.fromkeys(factor for term, _ in terms_of(e) for factor in factors_of(term))
    meeting = [
        atom
        for atom in atoms
        if atom.relational
        and (
            type(atom) in (Min, Max, Select)
            or any(other is not atom and other in _reach(atom, 2) for other in atoms)
        )
    ]
    return meeting + [atom for atom in _repeated(e) if atom not in meeting]


def _repeated(e: Expr) -> list[Leaf]:
    """The leaves that stand in more than one term: in i*n - 2*i the interval of each term alone says too little."""
    seen: dict[Expr, int] = {}
    for term, _ in terms_of(e):
        for factor in factors_of(term):
            seen[factor] = seen.get(factor, 0) + 1
    return [atom for atom, count in seen.items() if count > 1 and isinstance(atom, Leaf)]


@lru_cache(maxsize=1 << 14)
def _reach(atom: Expr, steps: int) -> frozenset[Expr]:
    """The atoms that can come in its place within so many relaxations."""
    ends = (
        [end for upper in (True, False) for _, ends in _relaxed(atom, upper) for end in ends] if steps else []
    )
    near = {factor for end in ends for term, _ in terms_of(end) for factor in factors_of(term)}
    return frozenset(near).union(*(_reach(each, steps - 1) for each in near if each.relational))


def _relaxed(atom: Expr, upper: bool) -> list[tuple[SymInt, list[SymInt]]]:
    """Ways to bound unit * atom from above (or below): (unit, ends), of which all ends must do."""
    kind = type(atom)
    if kind is FloorDiv:
        x, q = atom.dividend, atom.divisor
        return [(q, [x if upper else x - q + 1])]
    if kind is Mod:
        own = [(1, [atom.dividend])] if bounds(atom.dividend)[0] >= 0 else []
        return own + [(1, [atom.divisor - 1])] if upper else []
    if kind is Min or kind is Max:
        each = list(atom.args)
        return [(1, [arg]) for arg in each] if upper == (kind is Min) else [(1, each)]
    if kind is Select:
        return [(1, [atom.yes, atom.no])]
    if isinstance(atom, Leaf):
        own = [(1, [atom.high if upper else atom.low])]
        return [(1, [atom.below - 1]), *own] if upper and atom.below is not None else own
    return []


# --- division


def floordiv(a: SymInt, b: SymInt) -> SymInt:
    """a // b, rounding down."""
    if type(b) is int and type(a) is int and b:
        return a // b
    low, high = _divisor_bounds("//", a, b)
    return _floordiv(a, b) if low > 0 else _floordiv(-a, -b)


def modulo(a: SymInt, b: SymInt) -> SymInt:
    """a % b, with the sign of b."""
    if type(b) is int and type(a) is int and b:
        return a % b
    low, high = _divisor_bounds("%", a, b)
    return _modulo(a, b) if low > 0 else -_modulo(-a, -b)


def _divisor_bounds(sign: str, a: SymInt, b: SymInt) -> tuple[int, int]:
    low, high = bounds(b)
    if low <= 0 <= high:
        raise SymbolicError(
            f"{sign}: the divisor {b!r} of {a!r} is in {low}..{high}, want a range without 0; "
            "give its variables bounds that exclude it"
        )
    return low, high


def _constant_quotient(a: SymInt, b: SymInt) -> int | None:
    """k with k*b <= a < (k+1)*b, where that is certain for one k."""
    (low, high), (least, most) = bounds(a), bounds(b)
    first = min(low // least, low // most)
    if first == max(high // least, high // most):
        return first
    if type(a) is int or (type(b) is int and not (a.relational and _cancelling(a))):
        return None
    for k in {0, first}:
        if nonnegative(a - k * b) and nonnegative((k + 1) * b - a - 1):
            return k
    return None


def _slack_splits(a: SymInt, b: SymInt) -> Iterable[tuple[SymInt, SymInt, SymInt, SymInt]]:
    """(g, A, r, b/g) for divisors g of b, where a == g*A + r and 0 <= r < g."""
    divisors: dict[SymInt, None] = {}
    content = gcd(const_of(b), *(coefficient for _, coefficient in terms_of(b)))
    for _, coefficient in terms_of(a):
        divisors[gcd(content, coefficient)] = None
    if type(b) is not int and size(b) == 1:
        divisors.update(dict.fromkeys(factors_of(terms_of(b)[0][0])))
    for g in divisors:
        if g == 1 or bounds(g)[0] <= 0:
            continue
        whole, rest = split_multiples(a, g)
        if whole == 0:
            continue
        k = _constant_quotient(rest, g)
        if k is None and type(g) is int and any(not 0 <= c < g for _, c in terms_of(rest)):
            # g*q - 2*t, where 0 <= t < g: it is g*(q - t) + (g-2)*t
            rest = make_sum({term: c % g for term, c in terms_of(rest)}, const_of(rest) % g)
            whole = exact_quotient(a - rest, g)
            k = _constant_quotient(rest, g)
        if k is not None:
            yield g, whole + k, rest - k * g, exact_quotient(b, g)


@lru_cache(maxsize=1 << 14)
def _floordiv(a: SymInt, b: SymInt) -> SymInt:
    if b == 1:
        return a
    # a in k*b .. k*b + b-1: a//b -> k
    k = _constant_quotient(a, b)
    if k is not None:
        return k
    # (b*q + r)//b -> q + r//b
    whole, rest = split_multiples(a, b)
    if whole != 0:
        return whole + _floordiv(rest, b)
    # (k*(b+d) + i)//b -> k + (k*d + i)//b, when that is a constant
    if type(b) is int and any(abs(coefficient) > b for _, coefficient in terms_of(a)):
        for least in (lambda c: c % b, lambda c: c % b if c >= 0 else -(-c % b)):
            rest = make_sum({term: least(coefficient) for term, coefficient in terms_of(a)}, const_of(a))
            k = _constant_quotient(rest, b)
            if k is not None:
                return exact_quotient(a - rest, b) + k
    # (g*x + r)//(g*c) -> x//c  for 0 <= r < g
    for _, whole, _, divisor in _slack_splits(a, b):
        return _floordiv(whole, divisor)
    # (x//c + r)//b -> (x + c*r)//(b*c)
    inner = [term for term, coefficient in terms_of(a) if coefficient == 1 and type(term) is FloorDiv]
    if len(inner) == 1:
        x, c = inner[0].dividend, inner[0].divisor
        rest = a - inner[0]
        dividend = x + c * rest
        low, high = bounds(dividend)
        if type(rest) is int or (low >= -_INT32 and high < _INT32):
            return _floordiv(dividend, b * c)
    # (x % (b*c))//b -> (x//b) % c
    if type(a) is Mod and (c := exact_quotient(a.divisor, b)) is not None:
        return modulo(_floordiv(a.dividend, b), c)
    return node(FloorDiv, a, b)


@lru_cache(maxsize=1 << 14)
def _modulo(a: SymInt, b: SymInt) -> SymInt:
    # a in k*b .. k*b + b-1: a%b -> a - k*b
    k = _constant_quotient(a, b)
    if k is not None:
        return a - k * b
    # (b*q + r)%b -> r%b
    whole, rest = split_multiples(a, b)
    if type(b) is int:
        rest = make_sum({term: coefficient % b for term, coefficient in terms_of(rest)}, const_of(rest))
    # (k*(x % m))%b -> (k*x)%b  for b dividing k*m
    for term, coefficient in terms_of(rest):
        if type(term) is Mod and exact_quotient(coefficient * term.divisor, b) is not None:
            opened = {other: by for other, by in terms_of(rest) if other is not term}
            const = const_of(rest) + accumulate(opened, term.dividend, coefficient)
            return modulo(make_sum(opened, const), b)
    if rest is not a:
        return modulo(rest, b)
    # (g*x + r)%(g*c) -> g*(x%c) + r  for 0 <= r < g
    for g, whole, rest, divisor in _slack_splits(a, b):
        return g * modulo(whole, divisor) + rest
    return node(Mod, a, b)


# --- comparison


def le(a: SymInt, b: SymInt) -> SymInt:
    """1 where a <= b, else 0."""
    return _at_most_zero(a - b)


def lt(a: SymInt, b: SymInt) -> SymInt:
    """1 where a < b, else 0."""
    return _at_most_zero(a - b + 1)


def eq(a: SymInt, b: SymInt) -> SymInt:
    """1 where a == b, else 0. (`==` itself asks whether two nodes are the same.)"""
    return _is_zero(a - b)


def ne(a: SymInt, b: SymInt) -> SymInt:
    """1 where a != b, else 0."""
    return logical_not(_is_zero(a - b))


@lru_cache(maxsize=1 << 14)
def _at_most_zero(e: SymInt) -> SymInt:
    low, high = bounds(e)
    if high <= 0:
        return 1
    if low > 0:
        return 0
    # x//q + r <= 0 -> x + q*r <= q-1;  r - x//q <= 0 -> q*r <= x
    quotients = [(term, c) for term, c in terms_of(e) if type(term) is FloorDiv]
    if len(quotients) == 1 and abs(quotients[0][1]) == 1:
        ((quotient, sign),) = quotients
        x, q = quotient.dividend, quotient.divisor
        return _at_most_zero(sign * x + q * (e - sign * quotient) + (1 - q if sign > 0 else 0))
    # x%q <= 0 -> x%q == 0
    if type(e) is Mod:
        return _is_zero(e)
    # g*x + r <= 0 -> x + k <= 0  where r//g rounded up is always k
    const = const_of(e)
    for g in sorted({abs(coefficient) for _, coefficient in terms_of(e)}, reverse=True):
        if g == 1:
            break
        rest = make_sum({term: c for term, c in terms_of(e) if c % g}, const)
        low, high = bounds(rest)
        if -(-low // g) == -(-high // g):
            return _at_most_zero(
                make_sum({term: c // g for term, c in terms_of(e) if c % g == 0}, -(-low // g))
            )
    g = gcd(*(coefficient for _, coefficient in terms_of(e)))
    if g > 1:
        return _at_most_zero(make_sum({term: c // g for term, c in terms_of(e)}, -(-const // g)))
    # a condition c: c <= 0 -> not c;  1 - c <= 0 -> c
    if (condition := _lone_condition(e)) is not None:
        return condition if const else logical_not(condition)
    if e.relational:
        if nonnegative(-e):
            return 1
        if nonnegative(e - 1):
            return 0
    return node(Le, e)


@lru_cache(maxsize=1 << 14)
def _is_zero(e: SymInt) -> SymInt:
    if type(e) is int:
        return int(e == 0)
    g = gcd(*(coefficient for _, coefficient in terms_of(e)))
    const = const_of(e)
    if e.low > 0 or e.high < 0 or const % g:
        return 0
    if terms_of(e)[0][1] < 0:
        g = -g
    if g != 1:
        return _is_zero(make_sum({term: c // g for term, c in terms_of(e)}, const // g))
    # x%q == 0 -> x == 0  for -q < x < q; coefficients of x may differ by q
    if type(e) is Mod and type(e.divisor) is int:
        q = e.divisor
        for half in (q, q - 1):  # q/2 may count as -q/2
            terms = {term: c % q - q * (2 * (c % q) > half) for term, c in terms_of(e.dividend)[1:]}
            terms |= {term: c % q - q * (2 * (c % q) > q) for term, c in terms_of(e.dividend)[:1]}
            rest = make_sum(terms, const_of(e.dividend))
            rest -= q * -(-bounds(rest)[0] // q)
            if bounds(rest)[1] < q:
                return _is_zero(rest)
    if (condition := _lone_condition(e)) is not None and (const or isinstance(condition, (Compare, And, Or))):
        return condition if const else logical_not(condition)
    if e.relational and (nonnegative(e - 1) or nonnegative(-e - 1)):
        return 0
    return node(Eq, e)


def _lone_condition(e: Expr) -> Expr | None:
    """c, where e is c or 1 - c or c - 1 and c is always 0 or 1."""
    terms = terms_of(e)
    if len(terms) != 1 or abs(terms[0][1]) != 1 or bounds(terms[0][0]) != (0, 1):
        return None
    return terms[0][0] if const_of(e) in (0, -terms[0][1]) else None


# --- logic


def truth(condition: SymInt) -> SymInt:
    """The condition as 0 or 1."""
    if not isinstance(condition, Expr):
        return int(condition != 0)
    low, high = bounds(condition)
    if low < 0 or high > 1:
        return ne(condition, 0)
    if type(condition) is Sum and (negated := _lone_condition(condition)) is not None:
        return logical_not(negated)
    return condition


def logical_not(condition: SymInt) -> SymInt:
    """1 where the condition is 0, else 0."""
    if not isinstance(condition, Expr):
        return int(condition == 0)
    kind = type(condition)
    if kind is Le:
        return _at_most_zero(1 - condition.expr)
    if kind is Eq:
        return node(Ne, condition.expr) if bounds(condition.expr) != (0, 1) else condition.expr
    if kind is Ne:
        return node(Eq, condition.expr)
    if kind is Or:
        return logical_and(*map(logical_not, condition.args))
    if kind is And:
        return node(Or, *sorted(map(logical_not, condition.args), key=lambda arg: arg.order))
    return _is_zero(condition)


def logical_or(*conditions: SymInt) -> SymInt:
    """1 where some condition is not 0, else 0."""
    return logical_not(logical_and(*(logical_not(truth(condition)) for condition in conditions)))


def logical_and(*conditions: SymInt) -> SymInt:
    """1 where no condition is 0, else 0; all of them are evaluated."""
    flat: dict[Expr, None] = {}
    for condition in conditions:
        condition = truth(condition)
        if condition == 0:
            return 0
        if condition != 1:
            flat.update(dict.fromkeys(condition.args if type(condition) is And else (condition,)))
    if len(flat) < 2:
        return next(iter(flat), 1)
    return _conjunction(tuple(sorted(flat, key=lambda arg: arg.order)))


@lru_cache(maxsize=1 << 12)
def _conjunction(args: tuple[Expr, ...]) -> SymInt:
    kept: list[Expr] = []
    for arg in args:
        if any(_implies(other, arg) for other in kept):
            continue
        refuted = logical_not(arg)
        if any(_implies(other, refuted) for other in kept):
            return 0
        kept = [other for other in kept if not _implies(arg, other)] + [arg]
    for i, a in enumerate(kept):
        for j, b in enumerate(kept):
            if i != j and (both := _joined(a, b)) is not None:
                return logical_and(both, *(arg for k, arg in enumerate(kept) if k not in (i, j)))
    return kept[0] if len(kept) == 1 else node(And, *kept)


def _joined(a: Expr, b: Expr) -> SymInt | None:
    """One condition for two, or None."""
    if type(a) is Le and type(b) is Le and a.expr + b.expr == 0:
        return _is_zero(a.expr)  # e <= 0 and -e <= 0 -> e == 0
    if type(a) is Le and type(b) is Ne and (a.expr == b.expr or a.expr + b.expr == 0):
        return _at_most_zero(a.expr + 1)  # e <= 0 and e != 0 -> e < 0
    if type(b) is Or and any(_implies(a, logical_not(arg)) for arg in b.args):
        left = [arg for arg in b.args if not _implies(a, logical_not(arg))]
        return logical_and(a, logical_or(*left))  # a and (b or not a) -> a and b
    return None


def _implies(p: SymInt, q: SymInt) -> bool:
    if p is q:
        return True
    if type(p) is int or type(q) is int:
        return p == 0 or q == 1
    if type(q) is And:
        return all(_implies(p, arg) for arg in q.args)
    if type(p) is Or:
        return all(_implies(arg, q) for arg in p.args)
    if type(q) is Or:
        return any(_implies(p, arg) for arg in q.args)
    if type(p) is And:
        return any(_implies(arg, q) for arg in p.args)
    if not isinstance(p, Compare) or not isinstance(q, Compare):
        return False
    a, b = p.expr, q.expr
    if not (a.relational or b.relational) and {t for t, _ in terms_of(a)}.isdisjoint(
        t for t, _ in terms_of(b)
    ):
        return False  # of unrelated variables neither tells about the other
    signs = {Le: (1,), Eq: (1, -1), Ne: ()}[type(p)]
    if type(q) is Le:
        return any(nonnegative(sign * a - b) for sign in signs)
    if type(q) is Ne:
        return any(nonnegative(sign * a - other * b - 1) for sign in signs for other in (1, -1))
    return False


def select(condition: SymInt, yes: SymInt, no: SymInt) -> SymInt:
    """`yes` where the condition is not 0, else `no`; both are evaluated."""
    condition = truth(condition)
    if type(condition) is int:
        return yes if condition else no
    if yes == no:
        return yes
    if yes == 1 and no == 0:
        return condition
    if yes == 0 and no == 1:
        return logical_not(condition)
    return node(Select, condition, yes, no)


# --- minimum and maximum


def minimum(a: SymInt, *more: SymInt) -> SymInt:
    """The least of the arguments."""
    return _extreme(Min, (a, *more))


def maximum(a: SymInt, *more: SymInt) -> SymInt:
    """The greatest of the arguments."""
    return _extreme(Max, (a, *more))


def _extreme(kind: type[Min] | type[Max], args: Iterable[SymInt]) -> SymInt:
    ints, flat = [], {}
    for arg in args:
        for each in arg.args if type(arg) is kind else (arg,):
            if not isinstance(each, Expr):
                ints.append(index(each))
            else:
                flat[each] = None
    candidates: list[SymInt] = sorted(flat, key=lambda arg: arg.order)
    if ints:
        candidates.append((min if kind is Min else max)(ints))
    kept: list[SymInt] = []
    for arg in candidates:
        if kind is Min and any(prove_le(other, arg) for other in kept):
            continue
        if kind is Max and any(prove_le(arg, other) for other in kept):
            continue
        kept = [o for o in kept if not (prove_le(arg, o) if kind is Min else prove_le(o, arg))] + [arg]
    return kept[0] if len(kept) == 1 else node(kind, *kept)


# --- the operators whose rules are here


def _operator(apply: Any, swapped: bool = False) -> Any:
    def method(self: Expr, other: Any) -> Any:
        other = as_operand(other)
        if other is NotImplemented:
            return other
        return apply(other, self) if swapped else apply(self, other)

    return method


Expr.__floordiv__, Expr.__rfloordiv__ = _operator(floordiv), _operator(floordiv, swapped=True)
Expr.__mod__, Expr.__rmod__ = _operator(modulo), _operator(modulo, swapped=True)
Expr.__le__, Expr.__ge__ = _operator(le), _operator(le, swapped=True)
Expr.__lt__, Expr.__gt__ = _operator(lt), _operator(lt, swapped=True)
