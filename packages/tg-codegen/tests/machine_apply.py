"""One operation of the machine IR on arrays, through buffers: by the interpreter or by machine code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from x86_64_run import missing, run

from tg_codegen.machine.build import Builder, Expansion
from tg_codegen.machine.interpret import DTYPE, interpret
from tg_codegen.machine.nodes import INDEX, Address, Function, Reg
from tg_codegen.machine.text import format_function, parse_function
from tg_codegen.machine.verify import verify
from tg_codegen.x86_64 import backend
from tg_ir.numpy_dtypes import numpy_dtype

TYPE = {numpy_dtype(dtype): name for name, dtype in DTYPE.items()}


MACHINES = [
    "interpreter",
    *[
        pytest.param(
            name, marks=pytest.mark.skipif(bool(missing(name)), reason=f"this CPU lacks {missing(name)}")
        )
        for name in ("avx2", "avx512")
    ],
]
"""What can run an operation: the interpreter, or code for a level of x86-64."""


def apply(
    op: str,
    type: str,
    *operands: np.ndarray | int,
    attr: int | str = 0,
    expansions: Mapping[tuple[str, str], Expansion] | None = None,
    machine: str = "interpreter",
) -> np.ndarray:
    """The operation on arrays of one size; an integer is the bits of a constant of `type`.

    A machine of x86-64 has its own `expansions`.
    """
    arrays = [operand for operand in operands if not isinstance(operand, int)]
    size = arrays[0].size
    lanes = size if machine == "interpreter" else backend.lanes(machine)
    groups = -(-size // lanes)
    if machine != "interpreter":
        expansions = backend.expansions(machine)
    given = [o if isinstance(o, int) else TYPE[o.dtype] for o in operands]
    function = build(op, type, lanes, given, attr, expansions)
    check(function)
    out = np.zeros(groups * lanes, numpy_dtype(DTYPE[type]))
    buffers = [*[np.resize(array, groups * lanes) for array in arrays], out]
    if machine == "interpreter":
        interpret(function, buffers, (), 0, groups)
    else:
        run(backend.compile_function(function, machine)[0], buffers, (), 0, groups)
    return out[:size]


def build(
    op: str,
    type: str,
    lanes: int,
    operands: list[str | int],
    attr: int | str = 0,
    expansions: Mapping[tuple[str, str], Expansion] | None = None,
) -> Function:
    """A function that reads the operands of these types from buffers and writes the result behind them, by groups."""
    function = Function("apply", lanes)
    b = Builder(function, expansions)
    args: list[Reg] = []
    count = sum(isinstance(operand, str) for operand in operands)
    bases = [b.emit("buffer", INDEX, attr=number) for number in range(count + 1)]
    with b.loop(b.emit("begin", INDEX), b.emit("end", INDEX)) as group:
        first = b.emit("mul", INDEX, group, b.index(lanes))
        free = iter(bases)
        for operand in operands:
            if isinstance(operand, int):
                args.append(b.const(type, operand))
            else:
                dtype = DTYPE[operand]
                address = Address(next(free), first, dtype.itemsize)
                args.append(b.load(operand, dtype.name, address, "lanes"))
        result = b.emit(op, type, *args, attr=attr)
        b.store(DTYPE[type].name, Address(next(free), first, DTYPE[type].itemsize), "lanes", result)
    return function


def check(function: Function) -> None:
    """It verifies, and is the same once printed and parsed."""
    verify(function)
    text = format_function(function)
    again = parse_function(text)
    verify(again, "the parser")
    assert format_function(again) == text
