"""The elementwise operations, one row each: the tensor graph and the kernel IR share this table.

All operands of an operation have one dtype (after the condition of `where`, which is bool); nothing promotes here.
A row says which kinds of dtype it takes, what it returns, and the one-line meaning that every evaluator follows:

- Integer arithmetic wraps modulo 2**bits. `floordiv` and `mod` are Python's (floor, sign of the divisor) on integers
  and floats; an integer divided by zero gives 0, and so does its remainder.
- `maximum` and `minimum` return NaN where either operand is NaN. Comparisons with NaN are false (`ne` is `not eq`).
- `round` is to nearest, ties to even. `shl` and `shr` by the width or more give 0 (`shr` of a negative number: -1).
- A float16, bfloat16 or float8 operation computes as if in float32 and rounds once; a compiler may keep the
  unrounded value between the operations of one kernel.
"""

from __future__ import annotations

from tg_ir.dtypes import DType, bool_
from tg_ir.errors import DTypeError

__all__ = ["ELEMENTWISE", "Elementwise", "result_dtype"]


class Elementwise:
    """One elementwise operation: how many operands, which dtype kinds it takes, and what it returns."""

    __slots__ = ("arity", "compares", "kinds", "meaning", "name")

    def __init__(self, name: str, arity: int, kinds: frozenset[str], compares: bool, meaning: str):
        self.name, self.arity, self.kinds, self.compares, self.meaning = name, arity, kinds, compares, meaning

    def __repr__(self) -> str:
        return self.name


_FLOAT = frozenset({"float"})
_NUMBER = frozenset({"float", "int", "uint"})
_BITS = frozenset({"int", "uint", "bool"})
_INTEGER = frozenset({"int", "uint"})
_ANY = frozenset({"float", "int", "uint", "bool"})

ELEMENTWISE: dict[str, Elementwise] = {
    row[0]: Elementwise(*row)
    for row in (
        # name       arity kinds    compares meaning
        ("neg", 1, _NUMBER, False, "-a"),
        ("abs", 1, _NUMBER, False, "|a|; the most negative integer stays"),
        ("invert", 1, _BITS, False, "each bit flipped; logical not of a bool"),
        ("floor", 1, _FLOAT, False, "the greatest whole number <= a"),
        ("ceil", 1, _FLOAT, False, "the least whole number >= a"),
        ("trunc", 1, _FLOAT, False, "a without its fraction"),
        ("round", 1, _FLOAT, False, "the nearest whole number, ties to even"),
        ("sqrt", 1, _FLOAT, False, "square root"),
        ("exp", 1, _FLOAT, False, "e**a"),
        ("exp2", 1, _FLOAT, False, "2**a"),
        ("expm1", 1, _FLOAT, False, "e**a - 1, accurate near 0"),
        ("log", 1, _FLOAT, False, "natural logarithm"),
        ("log2", 1, _FLOAT, False, "logarithm to base 2"),
        ("log1p", 1, _FLOAT, False, "log(1 + a), accurate near 0"),
        ("sin", 1, _FLOAT, False, "sine of radians"),
        ("cos", 1, _FLOAT, False, "cosine of radians"),
        ("atan", 1, _FLOAT, False, "arc tangent, in (-pi/2, pi/2)"),
        ("tanh", 1, _FLOAT, False, "hyperbolic tangent"),
        ("erf", 1, _FLOAT, False, "the error function"),
        ("add", 2, _NUMBER, False, "a + b"),
        ("sub", 2, _NUMBER, False, "a - b"),
        ("mul", 2, _NUMBER, False, "a * b"),
        ("div", 2, _FLOAT, False, "a / b"),
        ("floordiv", 2, _NUMBER, False, "floor(a / b)"),
        ("mod", 2, _NUMBER, False, "a - b * floor(a / b)"),
        (
            "pow",
            2,
            _NUMBER,
            False,
            "a**b; an integer to a negative power is 0, but 1 and -1 keep to the rule",
        ),
        ("maximum", 2, _ANY, False, "the greater"),
        ("minimum", 2, _ANY, False, "the lesser"),
        ("lt", 2, _ANY, True, "a < b"),
        ("le", 2, _ANY, True, "a <= b"),
        ("eq", 2, _ANY, True, "a == b"),
        ("ne", 2, _ANY, True, "a != b"),
        ("and", 2, _BITS, False, "bitwise and"),
        ("or", 2, _BITS, False, "bitwise or"),
        ("xor", 2, _BITS, False, "bitwise exclusive or"),
        ("shl", 2, _INTEGER, False, "a << b"),
        ("shr", 2, _INTEGER, False, "a >> b, arithmetic where signed"),
        ("where", 3, _ANY, False, "b where a, else c; a is bool"),
    )
}


def result_dtype(row: Elementwise, dtypes: tuple[DType, ...]) -> DType:
    """The dtype of `row` applied to operands of `dtypes`.

    Raises:
        DTypeError: the operands differ, or are of a kind that the operation does not take.
    """
    if len(dtypes) != row.arity:
        raise DTypeError(f"{row.name}: got {len(dtypes)} operands, want {row.arity}")
    values = dtypes[1:] if row.name == "where" else dtypes
    first = values[0]
    if first.kind not in row.kinds:
        raise DTypeError(
            f"{row.name}: got {first}, want one of kind {', '.join(sorted(row.kinds))}; cast first"
        )
    for other in values:
        if other is not first:
            raise DTypeError(f"{row.name}: operands are {first} and {other}, want one dtype; cast first")
    if row.name == "where" and dtypes[0] is not bool_:
        raise DTypeError(f"where: the condition is {dtypes[0]}, want bool; compare with `ne` first")
    return bool_ if row.compares else first
