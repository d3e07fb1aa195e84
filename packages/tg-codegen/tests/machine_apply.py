"""One operation of the machine IR on arrays, through buffers and the interpreter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tg_codegen.machine.build import Builder, Expansion
from tg_codegen.machine.interpret import DTYPE, interpret
from tg_codegen.machine.nodes import INDEX, Address, Function, Reg
from tg_codegen.machine.text import format_function, parse_function
from tg_codegen.machine.verify import verify
from tg_ir.numpy_dtypes import numpy_dtype

TYPE = {numpy_dtype(dtype): name for name, dtype in DTYPE.items()}


def apply(
    op: str,
    type: str,
    *operands: np.ndarray | int,
    attr: int | str = 0,
    expansions: Mapping[tuple[str, str], Expansion] | None = None,
) -> np.ndarray:
    """The operation on arrays, each as long as there are lanes; an integer is the bits of a constant of `type`."""
    lanes = next(operand.size for operand in operands if not isinstance(operand, int))
    function = build(
        op, type, lanes, [o if isinstance(o, int) else TYPE[o.dtype] for o in operands], attr, expansions
    )
    check(function)
    out = np.zeros(lanes, numpy_dtype(DTYPE[type]))
    interpret(function, [*[operand for operand in operands if not isinstance(operand, int)], out])
    return out


def build(
    op: str,
    type: str,
    lanes: int,
    operands: list[str | int],
    attr: int | str = 0,
    expansions: Mapping[tuple[str, str], Expansion] | None = None,
) -> Function:
    """A function that reads the operands of these types from buffers and writes the result behind them."""
    function = Function("apply", lanes)
    b = Builder(function, expansions)
    args: list[Reg] = []
    buffers = 0
    for operand in operands:
        if isinstance(operand, int):
            args.append(b.const(type, operand))
        else:
            base = b.emit("buffer", INDEX, attr=buffers)
            args.append(b.load(operand, DTYPE[operand].name, Address(base), "lanes"))
            buffers += 1
    result = b.emit(op, type, *args, attr=attr)
    b.store(DTYPE[type].name, Address(b.emit("buffer", INDEX, attr=buffers)), "lanes", result)
    return function


def check(function: Function) -> None:
    """It verifies, and is the same once printed and parsed."""
    verify(function)
    text = format_function(function)
    again = parse_function(text)
    verify(again, "the parser")
    assert format_function(again) == text
