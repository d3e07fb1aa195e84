"""Symbolic integers: what simplifies to what, errors, text, and the life of nodes."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys

import pytest

from tg_ir.errors import ParseError, SymbolicError
from tg_ir.symbolic import (
    Leaf,
    Select,
    Var,
    Variable,
    bounds,
    ceildiv,
    eq,
    evaluate,
    format_expr,
    leaves,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    ne,
    parse_expr,
    prod,
    prove_equal,
    prove_le,
    prove_lt,
    select,
    simplify,
    substitute,
    variables,
)

N, B, T = Variable("n", 1, 64), Variable("m", 1, 16), Variable("t", 0, 1000)
NAMES = {
    "n": N,
    "m": B,
    "i": Var("i", 0, 63, below=N),
    "j": Var("j", 0, 63, below=N),
    "b": Var("b", 0, 15, below=B),
    "t": T,
    "q": Var("q", 0, 7),
    "y": Var("y", 0, 2),
    "z": Var("z", 0, 3),
    "p": Var("p", 0, 3),
    "tail": Var("tail", 0, 3, below=minimum(4, N - 4 * Var("block", 0, 15))),
    "block": Var("block", 0, 15),
}


def read(text: str):
    return parse_expr(text, NAMES)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        # polynomials
        ("t - t", "0"),
        ("(q*4 + z)*2 - 8*q", "2*z"),
        ("(n + 1)*(n - 1) - n*n", "-1"),
        ("i*(n + 2) - n*i", "2*i"),
        # division by what divides
        ("(4*t + 2*y + 1)//2", "2*t + y"),
        ("(4*t + 2*y + 1)%2", "1"),
        ("(4*t + z)//4", "t"),
        ("(4*t + z)%4", "z"),
        ("(4*t + z)//8", "t//2"),
        ("(4*t + z)%8", "4*(t%2) + z"),
        ("(-t)//(-3)", "t//3"),
        ("t%(-3)", "-((-t)%3)"),
        ("(7 - q)%8", "7 - q"),
        ("(7 - q)//8", "0"),
        # nested
        ("t//3//4", "t//12"),
        ("(t//3 + 2*q)//4", "(t + 6*q)//12"),
        ("t%12%4", "t%4"),
        ("t%12//4", "t//4%3"),
        ("(3*(t%4))%4", "(3*t)%4"),
        # quotient and remainder meet
        ("t//5*5 + t%5", "t"),
        ("3*(t//5*5) + 3*(t%5)", "3*t"),
        ("t - t//5*5", "t%5"),
        ("t - t%5", "5*(t//5)"),
        ("t//4%3*4 + t%4", "t%12"),
        ("(t + q)//4*4 + (t + q)%4 - q", "t"),
        # reshape of a permute of a reshape: (8, 3, 4) flattened, split by other factors
        ("(q*12 + y*4 + z)//12", "q"),
        ("(q*12 + y*4 + z)%12//4", "y"),
        ("(q*12 + y*4 + z)%4", "z"),
        ("(q*12 + y*4 + z)//4%3", "y"),
        ("(q*12 + y*4 + z)//4", "3*q + y"),
        ("(q*12 + y*4 + z)//6", "2*q + (4*y + z)//6"),
        ("(t*6 + z)//3%2", "z//3"),
        ("((q*3 + y)*4 + z)//4//3", "q"),
        ("((q*3 + y)*4 + z)//2%2", "z//2"),
        # flattened windows: k*(n + d) + i over n
        ("(y*(16 + 2) + z)%16", "2*y + z"),
        ("(y*(16 + 2) + z)//16", "y"),
        ("(y*(n + 1) + z)%n", "(y + z)%n"),
        ("(t*18 + y)//18", "t"),
        # symbolic extents
        ("(i*n + j)//n", "i"),
        ("(i*n + j)%n", "j"),
        ("(b*n*4 + j*4 + z)//(4*n)", "b"),
        ("(b*n*4 + j*4 + z)%(4*n)", "4*j + z"),
        ("(b*n*4 + j*4 + z)//4%n", "j"),
        ("(i*(n + 1) + j)//(n + 1)", "i"),
        ("((b*n + i)*n + j)//(n*n)", "b"),
        ("((b*n + i)*n + j)//n%n", "i"),
        ("(n - 1 - j)%n", "n - 1 - j"),
        ("t//n//m", "t//(m*n)"),
        ("t%(n*m)//n", "t//n%m"),
        ("t%(n*m)%n", "t%n"),
        ("t//n*n + t%n", "t"),
        ("t - n*(t//n)", "t%n"),
        ("t//n%m*n + t%n", "t%(m*n)"),
        ("n*4//n", "4"),
        ("(n*m + n)//n", "m + 1"),
        # comparisons
        ("0 <= t", "1"),
        ("t < 0", "0"),
        ("0 <= t + 1 - 1", "1"),
        ("t + q < q + 5", "t <= 4"),
        ("2*t < 7", "t <= 3"),
        ("4*t + z <= 11", "t <= 2"),
        ("t//4 < 3", "t <= 11"),
        ("t//4 >= 3", "12 <= t"),
        ("4*t == 6", "0"),
        ("6 == 2*t", "t == 3"),
        ("not t < 5", "5 <= t"),
        ("not t == 5", "t != 5"),
        ("i < n", "1"),
        ("n <= i", "0"),
        ("i*n + j < n*n", "1"),
        ("b*n + i < m*n", "1"),
        ("t//n*n <= t", "1"),
        ("4*block + tail < n", "1"),
        # minimum and maximum
        ("min(t, 1000)", "t"),
        ("min(t, t + q, 30)", "min(t, 30)"),
        ("max(min(t, 5), t)", "t"),
        ("min(max(q, 0), 7)", "q"),
        ("min(i, n)", "i"),
        ("max(t + 1, t) - t", "1"),
        # logic
        ("t < 10 and 3 <= t and t < 8", "3 <= t and t <= 7"),
        ("t < 5 and t >= 5", "0"),
        ("t <= 5 and t >= 5", "t == 5"),
        ("t < 5 and t != 4", "t <= 3"),
        ("t < 5 or t >= 3", "1"),
        ("t < 5 or t < 3", "t < 5"),
        ("t < 5 and (t < 5 or q < 3)", "t < 5"),
        ("t < 5 and (t >= 5 or q < 3)", "q <= 2 and t <= 4"),
        ("t < 5 or t < 5 and q < 3", "t < 5"),
        ("t == 3 and t < 5", "t == 3"),
        ("t == 3 and t > 5", "0"),
        ("0 <= q and q < 8", "1"),
        ("select(t < 5, q, q)", "q"),
        ("select(t < 5, 1, 0)", "t < 5"),
        ("select(0 <= q, t, z)", "t"),
    ],
)
def test_expression_simplifies_to(text, want):
    assert read(text) == read(want)  # identity, for expressions


@pytest.mark.parametrize(
    ("text", "guard", "want"),
    [
        ("(q + 7)%8", "1 <= q", "q - 1"),
        ("(q + y + 7)%8", "1 <= q + y and q + y <= 8", "q + y - 1"),
        ("(8*t + q + y - 1)//8", "1 <= q + y and q + y <= 8", "t"),
        ("t%n", "t < n", "t"),
        ("(t*n + i + y - 1)//n", "1 <= i + y and i + y <= n", "t"),
        ("select(t < 5, q, z)", "t < 3", "q"),
        ("select(t < 5, q, z)", "t >= 5", "z"),
        ("t*q", "q == 3", "3*t"),
        ("min(t, 9) + max(q, 4)", "t <= 8 and q >= 4", "t + q"),
        ("t < 5 or q < 3", "t < 5 or q < 3", "1"),
        ("t", "1", "t"),
    ],
)
def test_simplify_under_a_guard_gives(text, guard, want):
    assert simplify(read(text), assuming=read(guard)) == read(want)


def test_expression_of_equal_parts_is_one_object():
    x, y = Var("x", 0, 9), Var("y", 0, 9)
    assert x + y is y + x
    assert Var("x", 0, 9) is x and Var("x", 0, 8) is not x
    assert Var("x", 0, 99, below=10) is x
    assert hash(x + 1) == hash(1 + x) and {x + 1: 5}[1 + x] == 5
    assert copy.deepcopy(x + y) is x + y


def test_expression_pickled_comes_back_as_itself():
    for text in ("(t + q)//7%n*4 - 3", "min(t, 5)", "t < 5 and q != 3 or z == 1", "select(t < 5, q*i, z)"):
        assert pickle.loads(pickle.dumps(read(text))) is read(text)


def test_expression_unused_leaves_the_table():
    from tg_ir import symbolic_nodes

    gc.collect()
    before = len(symbolic_nodes._NODES._refs)
    kept = [Var("gone", 0, 9) + constant for constant in range(100)]
    assert len(symbolic_nodes._NODES._refs) >= before + 100
    del kept
    gc.collect()
    assert len(symbolic_nodes._NODES._refs) == before


def test_expression_deep_chain_needs_no_deep_recursion():
    x = e = Var("x", 0, 5)
    for step in range(3000):
        e = minimum((e * 3 + x) // 2 % 1009, 1000 - step % 7)
    value = 5
    for step in range(3000):
        value = min((value * 3 + 5) // 2 % 1009, 1000 - step % 7)
    assert evaluate(e, {"x": 5}) == value
    assert substitute(e, {x: 5}) == value
    assert variables(e) == (x,)


def test_expression_order_of_terms_does_not_depend_on_the_process():
    program = (
        "from tg_ir.symbolic import *\n"
        "x, y, z = Var('x', 0, 99), Var('y', 0, 99), Var('z', 0, 99)\n"
        "print(z//3 + y%7 + x*z*2 + minimum(x, y//2) + select(eq(z, 3), x//5, y//9) + x)"
    )
    texts = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(texts) == 1


def test_bool_decided_by_bounds_else_raises():
    assert bool(Var("x", 1, 9)) and bool(Var("x", -3, -1))
    with pytest.raises(SymbolicError, match=r"x - 3 in -3\.\.6"):
        bool(Var("x", 0, 9) - 3)
    with pytest.raises(SymbolicError):
        _ = 1 if Var("x", 0, 9) < 5 else 2


@pytest.mark.parametrize(
    "build", [lambda x: 5 // x, lambda x: x % (x - 3), lambda x: x // 0, lambda x: x % 0]
)
def test_division_by_what_may_be_zero_raises(build):
    with pytest.raises(SymbolicError, match="want a range without 0"):
        build(Var("x", 0, 9))


def test_operators_with_what_is_no_integer_raise():
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError):
            _ = T + wrong
        with pytest.raises(TypeError):
            _ = T // wrong
    assert T + True == T + 1


def test_variable_bound_knows_its_value():
    n = Variable("n", 1, 64)
    bound = n.bind(5)
    assert evaluate(bound * 2 + T, {"t": 1}) == 11
    assert bound.bind(5) is bound and n.bind(6) is not bound
    assert evaluate(bound, {"n": 7}) == 7  # what is given here goes before
    with pytest.raises(SymbolicError, match=r"bind: got 65 for n, want 1\.\.64"):
        n.bind(65)
    with pytest.raises(SymbolicError, match=r"n .* has no value"):
        evaluate(n + 1, {})
    with pytest.raises(SymbolicError, match="got 0 for n"):
        evaluate(n + 1, {"n": 0})
    with pytest.raises(SymbolicError, match="empty"):
        Variable("n", 3, 2)


def test_bounds_of_products_take_out_factors():
    n, m, i = Variable("n", 1, 8), Variable("m", 1, 8), Var("i", 0, 3)
    assert bounds((n - 1) * (m + 1) + n) >= (1, 0)
    assert (n * m - n).low == 0
    assert (i * i).low == 0 and ((i - 2) * (i - 2)).high >= 4


def test_helpers_follow_python():
    assert prod([]) == 1 and prod([2, T, 3]) == 6 * T
    assert ceildiv(7, 2) == 4 and ceildiv(4 * T, 4) == T and evaluate(ceildiv(T, 3), {"t": 7}) == 3
    assert select(True, T, 0) == T and logical_and(3 < 4, T < 5) == (T < 5)
    assert minimum(3, 5) == 3 and maximum(3, 5, 4) == 5
    assert logical_not(7) == 0 and logical_or(0, 0) == 0 and eq(3, 3) == 1 and ne(3, 3) == 0
    assert prove_le(3, 3) and not prove_lt(3, 3) and prove_equal(T + 1, 1 + T)
    assert not prove_le(T, 5) and not prove_le(5, T)


def test_leaf_of_another_level_takes_part():
    class Load(Leaf):
        __slots__ = ()

        def __init__(self, name, index, high):
            super().__init__(name, 0, high, digest=hash(index.order))
            self.operands = (index,)

        def rebuild(self, operands):
            return Load(self.name, operands[0], self.high)

    load = Load("row", T + 1, 7)
    e = (load * 16 + NAMES["q"]) // 16
    assert e is load
    assert (load % 8) is load and variables(load * 2) == (T,) and set(leaves(load * 2)) == {load, T}
    moved = substitute(load * 2, {T: NAMES["q"]})
    assert [leaf.name for leaf in leaves(moved)] == ["q", "row"] and moved is not load * 2
    assert evaluate(load + 1, {load: 3}) == 4


def test_substitute_shares_a_memo_between_expressions():
    memo = {}
    mapping = {T: 4 * NAMES["q"]}
    assert substitute(T // 4, mapping, memo) == NAMES["q"]
    assert substitute(T // 4 + T, mapping, memo) == 5 * NAMES["q"] and T // 4 in memo


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("t + )", (1, 5)),
        ("t + w", (1, 5)),
        ("t / 2", (1, 1)),
        ("t + select(1, 2)", (1, 5)),
        ("1.5", (1, 1)),
        ("t in q", (1, 1)),
    ],
)
def test_parse_wrong_text_raises_with_place(text, where):
    with pytest.raises(ParseError) as caught:
        read(text)
    assert (caught.value.line, caught.value.column) == where


@pytest.mark.parametrize(
    "text",
    ["7 - q", "-q - 1", "4*(t//3) + t%n", "(q + t)//7%n", "t <= 5", "q + 3 <= t", "3*j + i*n", "select(t <= 4, q, n)",
     "(q <= 2 or t <= 4) and z == 1", "min(q, t//4, 3)", "2*(t//3 <= n)"],
)  # fmt: skip
def test_format_is_readable_and_exact(text):
    e = read(text)
    assert read(format_expr(e)) is e
    if "<= n)" not in text:
        assert format_expr(e) == text


def test_select_keeps_an_undecided_condition():
    e = select(T < 5, NAMES["q"], N)
    assert isinstance(e, Select) and bounds(e) == (0, 64)
