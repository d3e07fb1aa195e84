"""The machine IR: its interpreter, its verifier and its text, on small functions and random operands."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest

pytest.importorskip("numpy", reason="the interpreter of the machine IR needs NumPy")
import numpy as np
from machine_apply import apply, check

from tg_codegen.machine.build import Builder
from tg_codegen.machine.interpret import interpret
from tg_codegen.machine.nodes import INDEX, Address, Function, Instr, Reg
from tg_codegen.machine.text import format_function, parse_function
from tg_codegen.machine.verify import verify
from tg_ir.errors import EvaluationError, ParseError, VerifyError

SEED = int(os.environ.get("TG_SEED", "20261122"))


def row_sums(lanes: int) -> Function:
    """out[g] = the sum of row g of x, which has scalar 0 columns, for the groups; a tail is masked."""
    function = Function("row_sums", lanes, scratch_bytes=4 * lanes)
    b = Builder(function)
    x, out, columns = (
        b.emit("buffer", INDEX, attr=0),
        b.emit("buffer", INDEX, attr=1),
        b.emit("scalar", INDEX),
    )
    with b.loop(b.emit("begin", INDEX), b.emit("end", INDEX)) as row:
        start = b.emit("mul", INDEX, row, columns)
        total = b.carry(b.const("f32", 0))
        with b.loop(0, columns, lanes, carried=(total,)) as column:
            left = b.emit("sub", INDEX, columns, column)
            place = b.emit("add", INDEX, start, column)
            part = b.load("f32", "float16", Address(x, place, 2), "lanes", b.emit("mask", "bool", left))
            b.assign((total,), (b.emit("add", "f32", total, part),))
        scratch = b.emit("scratch", INDEX)
        b.store("float32", Address(scratch), "lanes", total, volatile=True)
        result = b.carry(b.const("f32", 0))
        with b.loop(0, lanes, carried=(result,)) as lane:
            one = b.load("f32", "float32", Address(scratch, lane, 4), "one", volatile=True)
            b.assign((result,), (b.emit("add", "f32", result, one),))
        with b.when(b.emit("ne", INDEX, row, b.index(1))):
            b.store("float32", Address(out, row, 4), "one", result)
    return function


def test_function_with_loops_and_masks_computes_prints_and_parses():
    function = row_sums(8)
    check(function)
    x = np.arange(5 * 13, dtype=np.float16)
    out = np.full(5, -1, np.float32)
    interpret(parse_function(format_function(function)), [x, out], [13], 0, 5)
    want = x.reshape(5, 13).astype(np.float32).sum(1)
    want[1] = -1
    assert out.tolist() == want.tolist()


def test_access_outside_of_a_buffer_raises_and_names_it():
    with pytest.raises(EvaluationError, match=r"load of float16 at bytes .* of buffer 0, which has 128"):
        interpret(row_sums(8), [np.zeros(64, np.float16), np.zeros(5, np.float32)], [13], 0, 5)


def test_scatter_with_repeated_places_keeps_the_last_lane():
    function = Function("scatter", 4)
    b = Builder(function)
    lane = b.emit("lane", "i32")
    place = b.emit("shr", "i32", lane, b.const("i32", 1))
    b.store("int8", Address(b.emit("buffer", INDEX), disp=1, each=place), "each", lane)
    check(function)
    out = np.zeros(4, np.int8)
    interpret(function, [out])
    assert out.tolist() == [0, 1, 3, 0]


def test_fma_of_random_numbers_is_rounded_once():
    rng = np.random.default_rng(SEED)
    print(f"TG_SEED={SEED}")
    for dtype, bits in ((np.float32, np.uint32), (np.float64, np.uint64)):
        a, b, c = (rng.integers(0, np.iinfo(bits).max, 3000, bits).view(dtype) for _ in range(3))
        near = rng.standard_normal((3, 3000)).astype(dtype)
        near[2] = -near[0] * near[1]  # what is left is the rounding error of the product
        for x, y, z in ((a, b, c), near):
            got = apply("fma", "f32" if dtype is np.float32 else "f64", x.copy(), y.copy(), z.copy())
            for p, q, r, result in zip(x, y, z, got, strict=True):
                if np.isfinite([p, q, r]).all():
                    exact = Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r))
                    if np.isinf(result):
                        assert abs(exact) >= Fraction(float(np.finfo(dtype).max))
                        continue
                    others = np.nextafter(result, dtype(np.inf)), np.nextafter(result, dtype(-np.inf))
                    error = abs(exact - Fraction(float(result)))
                    assert all(error <= abs(exact - Fraction(float(o))) for o in others if np.isfinite(o))
                else:
                    with np.errstate(all="ignore"):
                        assert str(p * q + r) == str(result) or (np.isinf(r) and result == r)


def test_shifts_by_the_width_give_zero_or_the_sign():
    a, by = np.array([-5, -5, 7, 7], np.int32), np.array([31, 32, -1, 1], np.int32)
    assert apply("shr", "i32", a, by).tolist() == [-1, -1, 0, 3]
    assert apply("shl", "i32", a, by).tolist() == [-(2**31), 0, 0, 14]
    assert apply("shr", "u64", np.array([2**63], np.uint64), np.array([63], np.uint64)).tolist() == [1]


def test_conversions_saturate_and_wrap():
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -1.9], np.float32)
    assert apply("convert", "i32", x).tolist() == [0, 2**31 - 1, -(2**31), 2**31 - 1, -1]
    assert apply("convert", "u32", x).tolist() == [0, 2**32 - 1, 0, 3_000_000_000, 0]
    assert apply("convert", "i32", np.array([2**32 + 5], np.int64)).tolist() == [5]
    assert apply("mulhi", "i32", np.array([-(2**31)], np.int32), np.array([3], np.int32)).tolist() == [-2]
    assert apply("mulhi", "u32", np.array([2**32 - 1], np.uint32), np.array([3], np.uint32)).tolist() == [2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%1 f32 = add %0, %0", r"the result is f32, want index"),
        ("%1 index = add %0", r"got 1 operands, want 2"),
        ("%1 index = wink %0", r"there is no operation 'wink'"),
        ("%1 f32 = load float64 lanes [%0]", r"%1 is f32, memory of float64 wants f64"),
        ("%1 f32 = load float32 each [%0]", r"an index for each lane"),
        ("%1 bool = mask %0\n%2 bool = select %1, %1, %0", r"operands are bool, index, want one type"),
        ("%1 i32 = lane\n%2 f64 = bitcast %1", r"%2 f64 = bitcast %1: the result is f64, the operand i32"),
        (
            "loop %1 from %0 to %0 step 1\n%2 i32 = lane\nend\n%3 i32 = neg %2",
            r"%2 is made in a list that has ended",
        ),
        ("%1 index = neg %0\nassign %1 index = %0", r"%1 is written by an instruction"),
        ("%0 index = neg %0", r"%0 is written a second time"),
        ("loop %1 from %0 to %0 step 0\nend", r"loop %1 from %0 to %0 step 0: the step is 0"),
        ("%1 i32 = lane\n%2 i32 = up 9 %1, %1", r"lanes move by 9, want 0 to 4"),
        ("%1 u32 = broadcast %0\n%2 f32 = decode float32 %1", r"the dtype is 'float32'"),
    ],
)
def test_verify_of_a_broken_function_names_the_statement(text: str, problem: str):
    function = parse_function(f"function broken lanes 4 scratch 0\n%0 index! = buffer 0\n{text}")
    with pytest.raises(VerifyError, match=problem) as caught:
        verify(function, "a test")
    assert "function broken: " in str(caught.value) and "comes from a test" in str(caught.value)


def test_verify_of_a_read_before_the_write_says_so():
    reg = Reg(7, "i32", False)
    with pytest.raises(VerifyError, match=r"%7 is not made yet"):
        verify(Function("early", 4, [Instr("neg", Reg(8, "i32", False), (reg,))]))


@pytest.mark.parametrize("text", ["%0 = 5", "function f lanes 4 scratch 0\nif %3\nend", "function f lanes 4"])
def test_parse_of_what_is_no_function_raises(text: str):
    with pytest.raises(ParseError):
        parse_function(text)
