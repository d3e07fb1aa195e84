"""The notation of symbolic integers: Python's, with min(), max() and select(). Text reads back to the same object."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tg_ir.errors import ParseError
from tg_ir.symbolic_nodes import (
    And,
    Compare,
    Eq,
    Expr,
    FloorDiv,
    Le,
    Max,
    Min,
    Mod,
    Ne,
    Or,
    Product,
    Select,
    Sum,
    SymInt,
    accumulate,
    const_of,
    make_sum,
    multiply,
    postorder,
    terms_of,
)
from tg_ir.symbolic_rules import (
    eq,
    floordiv,
    le,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    modulo,
    ne,
    select,
)

__all__ = ["format_expr", "parse_expr"]


# --- printing


def format_expr(e: SymInt) -> str:
    """The text of e; a leaf is its name."""
    if type(e) is int:
        return str(e)
    text: dict[Expr, str] = {}
    for each in postorder(e):
        text[each] = _FORMAT[type(each)](each, text) if type(each) in _FORMAT else each.name
    return text[e]


_TIGHT = {Product, FloorDiv, Mod}  # stand beside + without parentheses
_LOOSE = {Sum, And, Or, Le, Eq, Ne}  # do not


def _write(e: SymInt, text: dict[Expr, str], parenthesised: set[type] = _TIGHT | _LOOSE) -> str:
    if type(e) is int:
        return str(e)
    return f"({text[e]})" if type(e) in parenthesised else text[e]


def _write_terms(terms: Iterable[tuple[Expr, int]], const: int, text: dict[Expr, str]) -> str:
    parts = []
    for term, by in sorted(terms, key=lambda pair: pair[1] < 0):
        factor = "" if abs(by) == 1 else f"{abs(by)}*"
        tight = type(term) is Product or (by == 1 and type(term) in _TIGHT)
        parts.append((by < 0, factor + _write(term, text, _LOOSE if tight else _TIGHT | _LOOSE)))
    if const or not parts:
        parts.insert(0 if const > 0 and parts and parts[0][0] else len(parts), (const < 0, str(abs(const))))
    first = ("-" if parts[0][0] else "") + parts[0][1]
    return first + "".join((" - " if minus else " + ") + part for minus, part in parts[1:])


def _write_compare(sign: str) -> Callable[[Any, dict[Expr, str]], str]:
    def write(e: Compare, text: dict[Expr, str]) -> str:
        left = [(term, by) for term, by in terms_of(e.expr) if by > 0]
        right = [(term, -by) for term, by in terms_of(e.expr) if by < 0]
        const = const_of(e.expr)
        on_left = const if (const > 0 and left and right) or not left else 0
        return f"{_write_terms(left, on_left, text)} {sign} {_write_terms(right, on_left - const, text)}"

    return write


def _write_call(name: str) -> Callable[[Any, dict[Expr, str]], str]:
    return lambda e, text: f"{name}({', '.join(_write(each, text, set()) for each in e.operands)})"


_FORMAT: dict[type, Callable[[Any, dict[Expr, str]], str]] = {
    Sum: lambda e, text: _write_terms(e.terms, e.const, text),
    Product: lambda e, text: "*".join(_write(factor, text) for factor in e.factors),
    FloorDiv: lambda e, text: f"{_write(e.dividend, text, _LOOSE)}//{_write(e.divisor, text)}",
    Mod: lambda e, text: f"{_write(e.dividend, text, _LOOSE)}%{_write(e.divisor, text)}",
    And: lambda e, text: " and ".join(_write(arg, text, {Or}) for arg in e.args),
    Or: lambda e, text: " or ".join(_write(arg, text, set()) for arg in e.args),
    Le: _write_compare("<="),
    Eq: _write_compare("=="),
    Ne: _write_compare("!="),
    Min: _write_call("min"),
    Max: _write_call("max"),
    Select: _write_call("select"),
}


# --- parsing

_CALLS: dict[str, Callable[..., SymInt]] = {"min": minimum, "max": maximum, "select": select}
_PRODUCTS: dict[type, Callable[[SymInt, SymInt], SymInt]] = {
    ast.Mult: multiply,
    ast.FloorDiv: floordiv,
    ast.Mod: modulo,
}
_COMPARES: dict[type, Callable[[SymInt], SymInt]] = {  # of left - right with zero
    ast.LtE: lambda e: le(e, 0),
    ast.Lt: lambda e: le(e + 1, 0),
    ast.GtE: lambda e: le(-e, 0),
    ast.Gt: lambda e: le(1 - e, 0),
    ast.Eq: lambda e: eq(e, 0),
    ast.NotEq: lambda e: ne(e, 0),
}


def parse_expr(text: str, names: Mapping[str, SymInt]) -> SymInt:
    """The expression of this text, its names looked up in `names`; parse_expr(format_expr(e), ...) is e.

    Raises: ParseError, with line and column.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ParseError(f"expression {text!r}: {error.msg}", error.lineno or 1, error.offset or 1) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ParseError(f"expression of {len(text)} characters: {error}", 1, 1) from None
    return _Reader(text, names).read(tree)


class _Reader:
    def __init__(self, text: str, names: Mapping[str, SymInt]):
        self.text, self.names = text, names

    def fail(self, tree: ast.expr, what: str) -> ParseError:
        return ParseError(f"expression {self.text!r}: {what}", tree.lineno, tree.col_offset + 1)

    def read(self, tree: ast.expr) -> SymInt:
        match tree:
            case ast.Constant(value=int() as value) if type(value) is int:
                return value
            case ast.Name(id=name):
                if name not in self.names:
                    raise self.fail(
                        tree, f"unknown name {name}, want one of {', '.join(self.names) or 'no names'}"
                    )
                return self.names[name]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return logical_not(self.read(operand))
            case ast.UnaryOp(op=ast.USub()) | ast.BinOp(op=ast.Add() | ast.Sub()):
                return self.read_sum((tree, 1))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _PRODUCTS:
                return _PRODUCTS[type(op)](self.read(left), self.read(right))
            case ast.Compare(left=left, ops=ops, comparators=right):
                return logical_and(*map(self.read_compare, [left, *right], ops, right))
            case ast.BoolOp(op=op, values=values):
                return (logical_and if isinstance(op, ast.And) else logical_or)(*map(self.read, values))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
                if len(args) != 3 and (name == "select" or not args):
                    raise self.fail(
                        tree, f"{name} got {len(args)} arguments, want {3 if name == 'select' else 'some'}"
                    )
                return _CALLS[name](*map(self.read, args))
        raise self.fail(
            tree, f"{ast.unparse(tree)} is none of + - * // % comparisons, and, or, not, min, max, select"
        )

    def read_compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> SymInt:
        if type(op) not in _COMPARES:
            raise self.fail(left, f"comparison {type(op).__name__} is none of < <= > >= == !=")
        return _COMPARES[type(op)](self.read_sum((left, 1), (right, -1)))

    def read_sum(self, *parts: tuple[ast.expr, int]) -> SymInt:
        """One sum of all terms at once: rules for sums must see what they saw when it was made."""
        terms: dict[Expr, int] = {}
        const, stack = 0, list(parts)
        while stack:
            tree, sign = stack.pop()
            match tree:
                case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                    stack += [(left, sign), (right, sign if isinstance(op, ast.Add) else -sign)]
                case ast.UnaryOp(op=ast.USub(), operand=operand):
                    stack.append((operand, -sign))
                case _:
                    const += accumulate(terms, self.read(tree), sign)
        return make_sum(terms, const)


Expr.__repr__ = format_expr
