"""Nodes of symbolic integers: interned, immutable, with integer bounds; sums and products in normal form.

A polynomial is a `Sum` of integer multiples of terms; a term is an atom or a sorted `Product` of atoms; an atom is a
`Leaf` or any other node below. A constant is always a plain int. Every node is made by the function that knows its
rules (`make_sum`, `multiply` here, the rest in symbolic_rules.py), so two equal polynomials are the same object and
`==` is identity. Nodes live in a weak table; `low` and `high` are inclusive bounds, computed once.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable
from operator import attrgetter, index
from typing import TYPE_CHECKING, Any

from tg_ir.errors import SymbolicError
from tg_ir.interning import Interner

__all__ = [
    "And", "Compare", "Eq", "Expr", "FloorDiv", "Le", "Leaf", "Max", "Min", "Mod", "Ne", "Or", "Product", "Select",
    "Sum", "SymInt", "Var", "bounds",
]  # fmt: skip


class Expr:
    """A symbolic integer. `==` and hash are identity; bool() raises unless the bounds decide it."""

    __slots__ = ("__weakref__", "high", "low", "operands", "order", "relational")
    operands: tuple[SymInt, ...]  # what the node is made of, ints included
    low: int
    high: int
    order: tuple[int, str, int]  # rank of the class, name, structural digest: the same in every process
    relational: bool  # knows more than its bounds: a symbolic upper bound, or a node the prover can open
    rank = 0
    __array_ufunc__ = None  # NumPy scalars on the left then leave the operation to us

    def __add__(self, other: SymInt) -> SymInt:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: SymInt) -> SymInt:
        return _combine(self, other, -1)

    def __rsub__(self, other: SymInt) -> SymInt:
        return _combine(-self, other, 1)

    def __neg__(self) -> SymInt:
        return scale(self, -1)

    def __pos__(self) -> SymInt:
        return self

    def __mul__(self, other: SymInt) -> SymInt:
        if type(other) is int:
            return scale(self, other)
        other = as_operand(other)
        return other if other is NotImplemented else multiply(self, other)

    __rmul__ = __mul__

    if TYPE_CHECKING:  # symbolic_rules.py sets these (and symbolic_text.py __repr__), where their rules are

        def __floordiv__(self, other: SymInt) -> SymInt: ...
        def __rfloordiv__(self, other: SymInt) -> SymInt: ...
        def __mod__(self, other: SymInt) -> SymInt: ...
        def __rmod__(self, other: SymInt) -> SymInt: ...
        def __lt__(self, other: SymInt) -> SymInt: ...
        def __le__(self, other: SymInt) -> SymInt: ...
        def __gt__(self, other: SymInt) -> SymInt: ...
        def __ge__(self, other: SymInt) -> SymInt: ...

    def __bool__(self) -> bool:
        if self.low > 0 or self.high < 0:
            return True
        raise SymbolicError(
            f"bool: got {self!r} in {self.low}..{self.high}, which may be zero or not; "
            "bind its variables and use evaluate(), or keep the condition symbolic with select()"
        )

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: dict) -> Expr:
        return self

    def __reduce__(self) -> tuple:
        return node, (type(self), *self.operands)


SymInt = int | Expr


class Leaf(Expr):
    """A value from outside: name, inclusive bounds, and optionally a symbolic exclusive upper bound `below`.

    Other levels derive their own leaves (a gathered index, say); one that sets `operands` also has `rebuild(operands)`.
    `digest` tells leaves of one name and bounds apart when terms are sorted.
    """

    __slots__ = ("below", "name")

    def __init__(self, name: str, low: int, high: int, below: SymInt | None = None, digest: int = 0):
        if below is not None:
            high = min(high, bounds(below)[1] - 1)
            below = None if type(below) is int else below
        if low > high:
            raise SymbolicError(f"{name}: the bounds {low}..{high} are empty; want low <= high")
        self.name, self.low, self.high, self.below = name, low, high, below
        self.operands = ()
        self.relational = below is not None
        digest = hash((zlib.crc32(name.encode()), 2 * low + 1, 2 * high + 1, digest, _digest(below)))
        self.order = (0, name, digest)


class Var(Leaf):
    """A variable: equal name, bounds, `below` and `value` give the same object. `value` is its run-time binding."""

    __slots__ = ("value",)
    value: int | None

    def __new__(
        cls, name: str, low: int, high: int, below: SymInt | None = None, value: int | None = None
    ) -> Var:
        if below is not None:
            high = min(high, bounds(below)[1] - 1)
            below = None if type(below) is int else below
        key = (cls, name, low, high, below, value)
        self = _NODES.find(key)
        if self is None:
            self = object.__new__(cls)
            Leaf.__init__(self, name, low, high, below, 0 if value is None else 2 * value + 1)
            self.value = value
            self = _NODES.add(key, self)
        return self

    def __init__(self, *args: object, **keywords: object):
        pass  # __new__ did it, once for each object

    def bind(self, value: int) -> Var:
        """The same variable carrying its run-time value."""
        value = index(value)
        if not self.low <= value <= self.high:
            raise SymbolicError(f"bind: got {value} for {self.name}, want {self.low}..{self.high}")
        return Var(self.name, self.low, self.high, self.below, value)

    def __reduce__(self) -> tuple:
        return Var, (self.name, self.low, self.high, self.below, self.value)


class Sum(Expr):
    """const + the sum of coefficient * term; coefficients are not zero, terms are sorted and neither int nor Sum."""

    __slots__ = ("terms", "const")  # noqa: RUF023  the order of node()'s arguments
    rank = 9

    def _fill(self, terms: tuple[tuple[Expr, int], ...], const: int) -> None:
        self.terms, self.const, self.operands = terms, const, tuple([term for term, _ in terms])
        low = high = const
        digest = [2 * const + 1]
        relational = products = False
        for term, coefficient in terms:
            if coefficient > 0:
                low += coefficient * term.low
                high += coefficient * term.high
            else:
                low += coefficient * term.high
                high += coefficient * term.low
            digest += (term.order[2], 2 * coefficient + 1)
            relational = relational or term.relational
            products = products or type(term) is Product
        self.low, self.high, self.relational = low, high, relational
        self.order = (9, "", hash(tuple(digest)))
        if products and len(terms) > 1:
            self._tighten()

    def __reduce__(self) -> tuple:
        return node, (Sum, self.terms, self.const)

    def _tighten(self) -> None:
        # n*b - i*n is n*(b - i): taking out one factor at a time gives bounds that the separate terms cannot.
        for atom in {atom for term, _ in self.terms if type(term) is Product for atom in term.factors}:
            with_atom, without = [0, 0], [self.const, self.const]
            for term, coefficient in self.terms:
                factors = list(factors_of(term))
                target = without
                if atom in factors:
                    factors.remove(atom)
                    target = with_atom
                interval = _times(_product_bounds(factors), (coefficient, coefficient))
                target[0] += interval[0]
                target[1] += interval[1]
            interval = _times(with_atom, (atom.low, atom.high))
            self.low = max(self.low, interval[0] + without[0])
            self.high = min(self.high, interval[1] + without[1])


class Product(Expr):
    """Two or more sorted atoms multiplied."""

    __slots__ = ("factors",)
    rank = 1

    def _fill(self, *factors: Expr) -> None:
        self.factors = self.operands = factors
        self.low, self.high = _product_bounds(factors)
        self.relational = any(factor.relational for factor in factors)
        name = "*".join(factor.order[1] for factor in factors)
        self.order = (1, name, hash(tuple(factor.order[2] for factor in factors)))


class _Binary(Expr):
    __slots__ = ("dividend", "divisor")

    def _fill(self, dividend: SymInt, divisor: SymInt) -> None:
        self.dividend, self.divisor = self.operands = (dividend, divisor)
        self.low, self.high = self._bounds(bounds(dividend), bounds(divisor))
        self.relational = True
        self.order = (self.rank, "", hash((self.rank, _digest(dividend), _digest(divisor))))


class FloorDiv(_Binary):
    """dividend // divisor, with a divisor that is always positive."""

    __slots__ = ()
    rank = 2

    def _bounds(self, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        return min(a[0] // b[0], a[0] // b[1]), max(a[1] // b[0], a[1] // b[1])


class Mod(_Binary):
    """dividend % divisor, with a divisor that is always positive."""

    __slots__ = ()
    rank = 3

    def _bounds(self, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        return 0, min(b[1] - 1, a[1]) if a[0] >= 0 else b[1] - 1


class _Many(Expr):
    __slots__ = ("args",)

    def _fill(self, *args: SymInt) -> None:
        self.args = self.operands = args
        self.low, self.high = self._bounds([bounds(arg) for arg in args])
        self.relational = True
        self.order = (self.rank, "", hash((self.rank, *map(_digest, args))))

    def _bounds(self, each: list[tuple[int, int]]) -> tuple[int, int]:
        return 0, 1


class Min(_Many):
    """The least of two or more."""

    __slots__ = ()
    rank = 4

    def _bounds(self, each: list[tuple[int, int]]) -> tuple[int, int]:
        return min(low for low, _ in each), min(high for _, high in each)


class Max(_Many):
    """The greatest of two or more."""

    __slots__ = ()
    rank = 5

    def _bounds(self, each: list[tuple[int, int]]) -> tuple[int, int]:
        return max(low for low, _ in each), max(high for _, high in each)


class And(_Many):
    """1 when every argument is 1; arguments are 0 or 1."""

    __slots__ = ()
    rank = 6


class Or(_Many):
    """1 when some argument is 1; arguments are 0 or 1."""

    __slots__ = ()
    rank = 7


class Compare(Expr):
    """A comparison of `expr` with zero: 1 or 0."""

    __slots__ = ("expr",)

    def _fill(self, expr: Expr) -> None:
        self.expr, self.operands = expr, (expr,)
        self.low, self.high, self.relational = 0, 1, False
        self.order = (self.rank, "", hash((self.rank, expr.order[2])))


class Le(Compare):
    """expr <= 0"""

    __slots__ = ()
    rank = 10


class Eq(Compare):
    """expr == 0"""

    __slots__ = ()
    rank = 11


class Ne(Compare):
    """expr != 0"""

    __slots__ = ()
    rank = 12


class Select(Expr):
    """`yes` where the condition is 1, else `no`."""

    __slots__ = ("condition", "yes", "no")  # noqa: RUF023  the order of node()'s arguments
    rank = 8

    def _fill(self, condition: Expr, yes: SymInt, no: SymInt) -> None:
        self.condition, self.yes, self.no = self.operands = (condition, yes, no)
        (low, high), (other_low, other_high) = bounds(yes), bounds(no)
        self.low, self.high, self.relational = min(low, other_low), max(high, other_high), True
        self.order = (8, "", hash((8, condition.order[2], _digest(yes), _digest(no))))


# --- the table of live nodes


_NODES: Interner[Expr] = Interner()


def node(cls: type[Expr], *parts: Any) -> Expr:
    """The one node of these parts, as they are: the caller has applied the rules."""
    key = (cls, *parts)
    made = _NODES.find(key)
    if made is None:
        made = object.__new__(cls)
        made._fill(*parts)
        made = _NODES.add(key, made)
    return made


def _digest(e: SymInt | None) -> int:
    return 2 * e + 1 if type(e) is int else 0 if e is None else e.order[2]


# --- bounds


def bounds(e: SymInt) -> tuple[int, int]:
    """Inclusive (low, high)."""
    return (e, e) if type(e) is int else (e.low, e.high)


def _times(a: Any, b: Any) -> tuple[int, int]:
    if a[0] >= 0 and b[0] >= 0:
        return a[0] * b[0], a[1] * b[1]
    corners = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    return min(corners), max(corners)


def _product_bounds(factors: Any) -> tuple[int, int]:
    result, i = (1, 1), 0
    while i < len(factors):
        base, power = factors[i], 0
        while i < len(factors) and factors[i] is base:
            i, power = i + 1, power + 1
        ends = (base.low**power, base.high**power)
        if power % 2 == 0:
            ends = (0 if base.low <= 0 <= base.high else min(ends), max(ends))
        result = _times(result, ends)
    return result


# --- linear arithmetic


def as_operand(value: Any) -> Any:
    """An Expr or plain int for anything that counts as an integer, else NotImplemented."""
    if isinstance(value, Expr):
        return value
    try:
        return int(index(value))  # int() because index(True) is True
    except TypeError:
        return NotImplemented


def terms_of(e: SymInt) -> tuple[tuple[Expr, int], ...]:
    """The (term, coefficient) pairs of a polynomial."""
    return e.terms if type(e) is Sum else () if type(e) is int else ((e, 1),)


def const_of(e: SymInt) -> int:
    """The constant of a polynomial."""
    return e.const if type(e) is Sum else e if type(e) is int else 0


def factors_of(term: Expr) -> tuple[Expr, ...]:
    """The atoms of a term."""
    return term.factors if type(term) is Product else (term,)


_ORDER = attrgetter("order")


def accumulate(terms: dict[Expr, int], e: SymInt, by: int) -> int:
    """Add by * e to `terms`; gives the constant that it adds."""
    if type(e) is Sum:
        for term, coefficient in e.terms:
            terms[term] = terms.get(term, 0) + by * coefficient
        return by * e.const
    if type(e) is int:
        return by * e
    terms[e] = terms.get(e, 0) + by
    return 0


def make_sum(terms: dict[Expr, int], const: int) -> SymInt:
    """The polynomial of these terms."""
    keys = [term for term, coefficient in terms.items() if coefficient]
    if len(keys) > 1:
        keys.sort(key=_ORDER)
    elif not keys:
        return const
    elif not const and terms[keys[0]] == 1:
        return keys[0]
    return _sorted_sum(tuple([(term, terms[term]) for term in keys]), const)


def _sorted_sum(terms: tuple[tuple[Expr, int], ...], const: int) -> SymInt:
    if not const and len(terms) == 1 and terms[0][1] == 1:
        return terms[0][0]
    made = _NODES.find((Sum, terms, const))
    if made is not None:
        return made
    if len(terms) > 1:
        divided = [atom for term, _ in terms for atom in factors_of(term) if isinstance(atom, _Binary)]
        if divided and (merged := _merge(divided, terms, const)) is not None:
            return merged
    return node(Sum, terms, const)


def _combine(a: Expr, b: Any, by: int) -> Any:
    if type(b) is int:
        return _sorted_sum(terms_of(a), const_of(a) + by * b) if b else a
    b = as_operand(b)
    if b is NotImplemented:
        return b
    terms = dict(terms_of(a))
    return make_sum(terms, const_of(a) + accumulate(terms, b, by))


def scale(e: SymInt, by: int) -> SymInt:
    """e * by"""
    if type(e) is int:
        return e * by
    if by == 1:
        return e
    if by == 0:
        return 0
    return _sorted_sum(
        tuple([(term, by * coefficient) for term, coefficient in terms_of(e)]), by * const_of(e)
    )


def multiply(a: SymInt, b: SymInt) -> SymInt:
    """a * b, multiplied out."""
    if type(b) is int:
        return scale(a, b)
    if type(a) is int:
        return scale(b, a)
    return make_sum(*expand(terms_of(a), const_of(a), b))


def expand(terms: Iterable[tuple[Expr, int]], const: int, b: SymInt) -> tuple[dict[Expr, int], int]:
    """(terms + const) * b, multiplied out."""
    result = {term: coefficient * const_of(b) for term, coefficient in terms if const_of(b)}
    for term, by in terms_of(b):
        if const:
            result[term] = result.get(term, 0) + by * const
        for other, coefficient in terms:
            product = node(Product, *sorted(factors_of(term) + factors_of(other), key=_ORDER))
            result[product] = result.get(product, 0) + by * coefficient
    return result, const * const_of(b)


def split(terms: Iterable[tuple[Expr, int]], atom: Expr) -> tuple[SymInt, dict[Expr, int]]:
    """(cofactor, rest): the terms are cofactor * atom + rest, and no term of rest contains the atom."""
    inside, outside, const = {}, {}, 0
    for term, coefficient in terms:
        if term is atom:
            const = coefficient
        elif type(term) is Product and atom in term.factors:
            inside[_without(term, atom)] = coefficient
        else:
            outside[term] = coefficient
    return make_sum(inside, const), outside


def _without(product: Product, atom: Expr) -> Expr:
    at = product.factors.index(atom)
    factors = product.factors[:at] + product.factors[at + 1 :]
    return factors[0] if len(factors) == 1 else node(Product, *factors)


def size(e: SymInt) -> int:
    """How many terms, the constant included."""
    return len(terms_of(e)) + bool(const_of(e))


def split_multiples(a: SymInt, b: SymInt) -> tuple[SymInt, SymInt]:
    """(quotient, rest) with a == b * quotient + rest: polynomial division that never makes the rest longer."""
    if type(b) is int:
        const = const_of(a) // b
        whole = {term: coefficient // b for term, coefficient in terms_of(a) if coefficient % b == 0}
        if not const and not whole:
            return 0, a
        rest = {term: coefficient for term, coefficient in terms_of(a) if coefficient % b}
        return make_sum(whole, const), make_sum(rest, const_of(a) - const * b)
    lead, by = max(terms_of(b), key=lambda term: len(factors_of(term[0])))
    total: SymInt = 0
    while True:
        quotient: SymInt = 0
        for term, coefficient in terms_of(a):
            if coefficient % by == 0 and (left := _term_quotient(term, lead)) is not None:
                quotient += left * (coefficient // by)
        rest = a - b * quotient
        if quotient == 0 or size(rest) >= size(a):
            return total, a
        total, a = total + quotient, rest


def _term_quotient(term: Expr, by: Expr) -> SymInt | None:
    left: SymInt = term
    for factor in factors_of(by):
        if left is factor:
            left = 1
        elif type(left) is Product and factor in left.factors:
            left = _without(left, factor)
        else:
            return None
    return left


def exact_quotient(a: SymInt, b: SymInt) -> SymInt | None:
    """a / b where that is a polynomial, else None."""
    quotient, rest = split_multiples(a, b)
    return quotient if rest == 0 else None


def _merge(divided: list[_Binary], terms: tuple[tuple[Expr, int], ...], const: int) -> SymInt | None:
    """A shorter equal sum, where x // q and x % q (or x itself) meet in one, else None.

    q*(x//q) + x%q -> x;  x - q*(x//q) -> x%q;  x - x%q -> q*(x//q);  q*((x//q)%b) + x%q -> x%(q*b)
    """
    present = dict(terms)
    for atom in divided:
        x, q = atom.dividend, atom.divisor
        cofactor, _ = split(terms, atom)
        times = exact_quotient(cofactor, q if type(atom) is FloorDiv else 1)
        others = [other for other in divided if other is not atom and type(other) is Mod]
        if (
            not others
            and type(times) is int
            and not any(present.get(t) == -times * by for t, by in terms_of(x))
        ):
            continue
        # Each identity says that the sum of by * e over its pairs is zero; the atom's own `by` comes first.
        if type(atom) is FloorDiv:
            identities = [((q, atom), (1, x % q), (-1, x))]
        else:
            identities = [((1, atom), (q, x // q), (-1, x))]
            for other in others:
                r = other.divisor
                for part, coefficient in terms_of(x):
                    if (
                        type(part) is FloorDiv
                        and coefficient == 1
                        and part.divisor == r
                        and part.dividend % r == other
                    ):
                        merged = (r * (x - part) + part.dividend) % (r * q)
                        identities.append(((r, atom), (1, other), (-1, merged)))
        for identity in identities:
            times = exact_quotient(cofactor, identity[0][0])
            if times is None:
                continue
            shorter, constant = dict(terms), const
            for by, e in identity:
                scaled, scaled_const = expand(terms_of(times), const_of(times), by)
                scaled, scaled_const = expand(scaled.items(), scaled_const, e)
                constant -= scaled_const
                for term, coefficient in scaled.items():
                    shorter[term] = shorter.get(term, 0) - coefficient
            if sum(1 for coefficient in shorter.values() if coefficient) < len(terms):
                return make_sum(shorter, constant)
    return None


# --- walking


def postorder(e: Expr, stop: Container[Expr] = ()) -> list[Expr]:
    """Every node of e once, operands first; what is in `stop` is given but not opened."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(e, False)]
    while stack:
        each, opened = stack.pop()
        if opened:
            order.append(each)
        elif each not in seen:
            seen.add(each)
            stack.append((each, True))
            if each not in stop:
                stack += [(operand, False) for operand in each.operands if type(operand) is not int]
    return order
