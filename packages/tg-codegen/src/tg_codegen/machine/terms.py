"""Machine IR written as formulas: a `Term` is a register whose operators emit operations; numbers become constants."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tg_codegen.machine.build import Builder
from tg_codegen.machine.nodes import Reg

__all__ = ["BITS", "Term", "expansion", "fma", "horner", "number_bits", "select"]

BITS = {"i32": 32, "u32": 32, "f32": 32, "i64": 64, "u64": 64, "f64": 64}
"""How wide a lane of each type is."""


def number_bits(value: float | int, type: str) -> int:
    """The bits of a number in a type; a float is rounded, an integer wraps."""
    if type == "f32":
        return struct.unpack("<I", struct.pack("<f", value))[0]
    if type == "f64":
        return struct.unpack("<Q", struct.pack("<d", value))[0]
    return int(value) & ((1 << BITS[type]) - 1)


def _operator(op: str, type: str = "") -> Callable[..., Term]:
    """A method for Python's operator."""
    return lambda self, *others: self.emit(op, *others, type=type)


class Term:
    """A register of a builder. Comparisons give bool terms; `==` does not compare identities."""

    __slots__ = ("b", "reg")
    __hash__ = None

    def __init__(self, b: Builder, reg: Reg):
        self.b, self.reg = b, reg

    @property
    def type(self) -> str:
        return self.reg.type

    def const(self, value: float | int) -> Term:
        """A constant of this term's type."""
        return Term(self.b, self.b.const(self.type, number_bits(value, self.type)))

    def emit(self, op: str, *others: Term | float, type: str = "", attr: int | str = 0) -> Term:
        """An operation on this term and others, which are of its type."""
        regs = [other.reg if isinstance(other, Term) else self.const(other).reg for other in others]
        return Term(self.b, self.b.emit(op, type or self.type, self.reg, *regs, attr=attr))

    def bits(self, type: str) -> Term:
        """The same bits as another type."""
        return self if type == self.type else self.emit("bitcast", type=type)

    def to(self, type: str) -> Term:
        """Converted to another type."""
        return self if type == self.type else self.emit("convert", type=type)

    def __gt__(self, other: Term | float) -> Term:
        return (other if isinstance(other, Term) else self.const(other)) < self

    def __ge__(self, other: Term | float) -> Term:
        return (other if isinstance(other, Term) else self.const(other)) <= self

    def __rsub__(self, other: float) -> Term:
        return self.const(other) - self

    def __rtruediv__(self, other: float) -> Term:
        return self.const(other) / self

    __add__, __sub__, __mul__, __truediv__ = map(_operator, ("add", "sub", "mul", "div"))
    __and__, __or__, __xor__, __lshift__, __rshift__ = map(_operator, ("and", "or", "xor", "shl", "shr"))
    __lt__, __le__, __eq__, __ne__ = (_operator(op, "bool") for op in ("lt", "le", "eq", "ne"))
    __neg__, __abs__, __invert__ = map(_operator, ("neg", "abs", "not"))


def fma(a: Term, b: Term | float, c: Term | float) -> Term:
    """a * b + c, rounded once."""
    return a.emit("fma", b, c)


def select(condition: Term, yes: Term | float, no: Term | float) -> Term:
    """`yes` where the condition holds, else `no`; one of them is a term."""
    like = yes if isinstance(yes, Term) else no
    assert isinstance(like, Term), "select between two numbers has no type"
    yes, no = (value if isinstance(value, Term) else like.const(value) for value in (yes, no))
    return condition.emit("select", yes, no, type=like.type)


def horner(x: Term, coefficients: Sequence[float]) -> Term:
    """c[0] + c[1] * x + ..., one fused multiply-add a coefficient."""
    *rest, last = coefficients
    if not rest:
        return x.const(last)
    result = fma(x, last, rest.pop())
    for coefficient in reversed(rest):
        result = fma(result, x, coefficient)
    return result


def expansion(formula: Callable[..., Term]) -> Callable[..., Reg]:
    """A formula over terms as an `Expansion` of the builder."""
    return lambda b, *args: formula(*[Term(b, arg) if isinstance(arg, Reg) else arg for arg in args]).reg
