"""Every operation that other operations can make, so that a target may lack it: a target takes what it needs.

What all targets have is arithmetic, comparisons, select, shifts, logic, conversions and memory. `min` and `max` become
`minimum` and `maximum` that keep NaN; a target that does so in one instruction, also only beside a constant, should.
"""

from __future__ import annotations

from functools import partial

from tg_codegen.machine.build import Expansion
from tg_codegen.machine.expand_floats import NARROW, decode, encode
from tg_codegen.machine.expand_integers import FLOAT_DIVISION, INTEGER_DIVISION, PRODUCTS, power
from tg_codegen.machine.expand_math import MATH
from tg_codegen.machine.nodes import FLOATS, INTEGERS
from tg_codegen.machine.terms import Term, expansion, select

__all__ = ["EXPANSIONS"]


def _keep_nan(op: str, x: Term, y: Term) -> Term:
    """The lesser or greater of two, or their NaN."""
    least = select(y == y, x.emit(op, y), y)
    return select(x == x, least, x) if x.b.bits_of(x.reg) is None else least


EXPANSIONS: dict[tuple[str, str], Expansion] = {
    **{(name, type): expansion(formula) for name, formula in MATH.items() for type in FLOATS},
    **{(name, type): expansion(formula) for name, formula in INTEGER_DIVISION.items() for type in INTEGERS},
    **{(name, type): expansion(formula) for name, formula in FLOAT_DIVISION.items() for type in FLOATS},
    **{key: expansion(formula) for key, formula in PRODUCTS.items()},
    **{("pow", type): expansion(power) for type in INTEGERS},
    **{(op + "imum", type): expansion(partial(_keep_nan, op)) for op in ("min", "max") for type in FLOATS},
    **{(f"encode {name}", "u32"): expansion(encode) for name in NARROW},
    **{(f"decode {name}", "f32"): expansion(decode) for name in NARROW},
}
"""(operation, type of the result) -> what replaces it; of `encode` and `decode` each dtype on its own."""
