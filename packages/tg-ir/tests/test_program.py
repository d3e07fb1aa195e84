"""The program IR: its interpreter on a real arena, its text, its verifier."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tg_ir.dtypes import float32, int32
from tg_ir.errors import EvaluationError, ParseError, VerifyError
from tg_ir.kernel import Axis, Const, Elementwise, Kernel, Load, Parameter, Store
from tg_ir.program import (
    BufferSlot,
    Collective,
    Copy,
    Launch,
    Program,
    format_program,
    live_ranges,
    parse_program,
    reads,
    verify_program,
    writes,
)
from tg_ir.program.interpret import arena_bytes, interpret_program
from tg_ir.symbolic import Variable

N = Variable("n", 1, 16)


def scale_kernel(name: str, factor: float) -> Kernel:
    """y = factor * x, for n elements."""
    i = Axis("i", N)
    x, y = Parameter("x", float32, N), Parameter("y", float32, N, "write")
    value = Elementwise("mul", (Load.of(x, i.index), Const.of(factor, float32)))
    return Kernel(name, (x, y), (N,), (Store(y, i.index, value, (i,)),))


def add_kernel() -> Kernel:
    """x += y, in place."""
    i = Axis("i", N)
    x, y = Parameter("x", float32, N, "update"), Parameter("y", float32, N)
    value = Elementwise("add", (Load.of(x, i.index), Load.of(y, i.index)))
    return Kernel("add", (x, y), (N,), (Store(x, i.index, value, (i,)),))


def slot(role: str, offset: int | None = None, device: str = "CPU") -> BufferSlot:
    return BufferSlot(float32, N, device, role, offset)


def chain() -> Program:
    """out = 24 * in through temporaries that reuse bytes; state += 24 * in; and the two devices' states summed."""
    buffers = (
        slot("input"), slot("temporary", 0), slot("temporary", 64), slot("temporary", 0), slot("output"),
        slot("state"), slot("state", device="CPU:1"), slot("output"), slot("output", device="CPU:1"),
    )  # fmt: skip
    steps = (
        Launch("two", (0, 1)),
        Launch("three", (1, 2)),
        Launch("four", (2, 3)),
        Copy(4, 3),
        Launch("add", (5, 4)),
        Collective("sum", (7, 8), (5, 6)),
    )
    kernels = (scale_kernel("two", 2), scale_kernel("three", 3), scale_kernel("four", 4), add_kernel())
    return Program("chain", (N,), buffers, kernels, steps)


@pytest.mark.parametrize("n", [1, 7, 16])
def test_program_runs_on_its_arena(n: int) -> None:
    program = chain()
    verify_program(program)
    x = np.arange(1, n + 1, dtype=np.float32)
    state, other = np.ones(n, np.float32), np.full(n, 5, np.float32)
    result = interpret_program(program, {0: x, 5: state, 6: other}, {"n": n})
    np.testing.assert_array_equal(result[4], 24 * x)
    np.testing.assert_array_equal(state, 1 + 24 * x)
    np.testing.assert_array_equal(result[7], 6 + 24 * x)
    np.testing.assert_array_equal(result[8], result[7])


def test_program_text_parses_back_to_the_same() -> None:
    program = chain()
    text = format_program(program)
    assert parse_program(text) == program
    assert format_program(parse_program(text)) == text


def test_reads_writes_and_live_ranges_follow_access() -> None:
    program = chain()
    assert reads(program, program.steps[4]) == (5, 4)
    assert writes(program, program.steps[4]) == (5,)
    assert live_ranges(program) == {1: (0, 1), 2: (1, 2), 3: (2, 3)}
    assert arena_bytes(program, {"n": 16}) == {"CPU": 128}


def changed(**fields: object) -> Program:
    return dataclasses.replace(chain(), **fields)


def buffers_with(number: int, slot: BufferSlot) -> tuple[BufferSlot, ...]:
    return tuple([slot if i == number else old for i, old in enumerate(chain().buffers)])


BROKEN = {
    "shares bytes with buffer 2": changed(buffers=buffers_with(1, slot("temporary", 64))),
    "not a multiple of 64": changed(buffers=buffers_with(2, slot("temporary", 68))),
    "temporaries have one": changed(buffers=buffers_with(1, slot("temporary"))),
    "which nothing has written": changed(steps=chain().steps[1:]),
    "an output that nothing writes": changed(steps=chain().steps[:3]),
    "writes buffer 0, an input": changed(steps=(*chain().steps, Copy(0, 4))),
    "no kernel of that form": changed(steps=(Launch("five", (0, 1)),)),
    "there are 9": changed(steps=(Launch("two", (0, 99)),)),
    "is no scalar of the program": changed(
        buffers=buffers_with(4, BufferSlot(float32, Variable("m", 1, 3), "CPU", "output"))
    ),
    "wants float32": changed(buffers=buffers_with(1, BufferSlot(int32, N, "CPU", "temporary", 0))),
    "buffers on several devices": changed(buffers=buffers_with(1, slot("temporary", 0, "CPU:1"))),
    "two have one name": changed(kernels=(*chain().kernels, scale_kernel("two", 5))),
    "written and given twice": changed(steps=(Launch("add", (5, 5)), *chain().steps)),
    "of another size or dtype": changed(buffers=buffers_with(4, BufferSlot(float32, 3, "CPU", "output"))),
    "collective 'mean'": changed(steps=(*chain().steps, Collective("mean", (7,), (5,)))),
}


@pytest.mark.parametrize("message", BROKEN)
def test_verifier_names_the_fault(message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify_program(BROKEN[message], "a test")


def test_interpreter_refuses_missing_input() -> None:
    with pytest.raises(EvaluationError, match=r"buffer 0 \(input\) is nothing"):
        interpret_program(chain(), {}, {"n": 2})


@pytest.mark.parametrize("text", ["program p\nfrobnicate", "buffer 0 = input float9[3] @ CPU", "launch k(a)"])
def test_parser_says_where_text_is_wrong(text: str) -> None:
    with pytest.raises(ParseError, match="line "):
        parse_program(text)
