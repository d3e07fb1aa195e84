"""Symbolic integers against brute force: random expressions over every point of small ranges."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tg_ir.symbolic import (
    Expr,
    Var,
    Variable,
    bounds,
    eq,
    evaluate,
    format_expr,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    ne,
    parse_expr,
    prove_equal,
    prove_le,
    prove_lt,
    select,
    simplify,
    substitute,
)

SEED = int(os.environ.get("TG_SEED", "20261122"))
ROUNDS = int(os.environ.get("TG_ROUNDS", "400"))

N, M = Variable("n", 1, 4), Variable("m", 2, 3)
I, J = Var("i", 0, 3, below=N), Var("j", 0, 2, below=M)
X, Y, Z = Var("x", 0, 5), Var("y", -2, 3), Var("b", 0, 1)
NAMES = {v.name: v for v in (N, M, I, J, X, Y, Z)}
POINTS = [
    dict(zip("nmijxyb", point, strict=True))
    for point in itertools.product(range(1, 5), (2, 3), range(4), range(3), range(6), range(-2, 4), (0, 1))
    if point[2] < point[0] and point[3] < point[1]
]

# A random expression is a pair: the Expr, and the function of a point that it must equal.
Pair = tuple[Any, Callable[[dict[str, int]], int]]


def leaf(rng: random.Random) -> Pair:
    if rng.random() < 0.2:
        value = rng.choice([-3, -1, 0, 1, 2, 3, 4, 6, 8, 12])
        return value, lambda point: value
    var = rng.choice([N, M, I, J, X, X, Y, Y, Z])
    return var, lambda point: point[var.name]


def divisor(rng: random.Random) -> Pair:
    kind = rng.randrange(8)
    if kind == 0:
        return N, lambda point: point["n"]
    if kind == 1:
        return M * N, lambda point: point["m"] * point["n"]
    if kind == 2:
        return -M, lambda point: -point["m"]
    if kind == 3:
        return N + 1, lambda point: point["n"] + 1
    value = rng.choice([1, 2, 3, 4, 6, 8, 12, -2, -3])
    return value, lambda point: value


def tree(rng: random.Random, depth: int) -> Pair:
    if depth == 0:
        return leaf(rng)
    kind = rng.choice(
        ["+", "+", "-", "linear", "linear", "*c", "*", "//", "//", "%", "%", "min", "max", "select", "c"]
    )
    if kind == "c":
        return condition(rng, depth - 1)
    if kind == "select":
        (c, cf), (a, af), (b, bf) = condition(rng, depth - 1), tree(rng, depth - 1), tree(rng, depth - 1)
        return select(c, a, b), lambda p: af(p) if cf(p) else bf(p)
    if kind in ("//", "%"):
        (a, af), (b, bf) = tree(rng, depth - 1), divisor(rng)
        return (a // b, lambda p: af(p) // bf(p)) if kind == "//" else (a % b, lambda p: af(p) % bf(p))
    (a, af), (b, bf) = tree(rng, depth - 1), tree(rng, rng.randrange(depth))
    if kind == "linear":
        by = rng.choice([-4, -3, 2, 3, 4, 6, 12])
        return a * by + b, lambda p: af(p) * by + bf(p)
    if kind == "*c":
        by = rng.choice([-2, -1, 2, 3, 4])
        return by * a, lambda p: by * af(p)
    return {
        "+": lambda: (a + b, lambda p: af(p) + bf(p)),
        "-": lambda: (a - b, lambda p: af(p) - bf(p)),
        "*": lambda: (a * b, lambda p: af(p) * bf(p)),
        "min": lambda: (minimum(a, b), lambda p: min(af(p), bf(p))),
        "max": lambda: (maximum(a, b), lambda p: max(af(p), bf(p))),
    }[kind]()


def condition(rng: random.Random, depth: int) -> Pair:
    kind = rng.choice(
        ["<", "<=", ">", ">=", "==", "!=", "and", "or", "not"] if depth > 0 else ["<", ">=", "=="]
    )
    if kind in ("and", "or"):
        parts = [condition(rng, depth - 1) for _ in range(rng.randint(2, 3))]
        joined = logical_and if kind == "and" else logical_or
        decide = all if kind == "and" else any
        return joined(*(c for c, _ in parts)), lambda p: int(decide(f(p) for _, f in parts))
    if kind == "not":
        c, cf = condition(rng, depth - 1)
        return logical_not(c), lambda p: 1 - cf(p)
    (a, af), (b, bf) = tree(rng, max(depth - 1, 0)), tree(rng, rng.randrange(max(depth, 1)))
    return {
        "<": lambda: (int(a < b) if type(a) is type(b) is int else a < b, lambda p: int(af(p) < bf(p))),
        "<=": lambda: (int(a <= b) if type(a) is type(b) is int else a <= b, lambda p: int(af(p) <= bf(p))),
        ">": lambda: (int(a > b) if type(a) is type(b) is int else a > b, lambda p: int(af(p) > bf(p))),
        ">=": lambda: (int(a >= b) if type(a) is type(b) is int else a >= b, lambda p: int(af(p) >= bf(p))),
        "==": lambda: (eq(a, b), lambda p: int(af(p) == bf(p))),
        "!=": lambda: (ne(a, b), lambda p: int(af(p) != bf(p))),
    }[kind]()


def sample(rng: random.Random) -> list[dict[str, int]]:
    return rng.sample(POINTS, 150)


def rounds(what: str, share: float = 1.0) -> Iterator[tuple[int, random.Random]]:
    print(f"{what}: TG_SEED={SEED}")
    for number in range(int(ROUNDS * share)):
        yield number, random.Random(f"{SEED} {what} {number}")


def test_expression_random_equals_python_within_its_bounds():
    for number, rng in rounds("values"):
        e, reference = tree(rng, rng.randint(1, 4))
        low, high = bounds(e)
        for point in sample(rng):
            want = reference(point)
            assert evaluate(e, point) == want, f"round {number}: {e!r} at {point}"
            assert low <= want <= high, f"round {number}: {e!r} is {want} at {point}, bounds {low}..{high}"


def test_expression_random_text_reads_back_to_itself():
    for number, rng in rounds("text"):
        e, _ = tree(rng, rng.randint(1, 4))
        back = parse_expr(format_expr(e), NAMES)
        assert back == e, f"round {number}: {e!r} came back as {back!r}"  # == of expressions is identity


def test_substitute_random_equals_python():
    for number, rng in rounds("substitute"):
        e, reference = tree(rng, rng.randint(1, 4))
        by, by_reference = tree(rng, rng.randint(0, 2))
        # x must stay inside its own bounds, as any index that is substituted for another
        by = minimum(maximum(by, X.low), X.high)
        new = substitute(e, {X: by})
        for point in sample(rng):
            moved = point | {"x": min(max(by_reference(point), X.low), X.high)}
            assert evaluate(new, point) == reference(moved), (
                f"round {number}: {e!r} with x = {by!r} at {point}"
            )


def test_substitute_random_int_folds_to_int():
    for number, rng in rounds("fold", 0.25):
        e, reference = tree(rng, rng.randint(1, 4))
        point = rng.choice(POINTS)
        assert substitute(e, {NAMES[name]: value for name, value in point.items()}) == reference(point), (
            f"round {number}: {e!r}"
        )


def test_proofs_random_are_never_wrong():
    proven = 0
    for number, rng in rounds("proofs"):
        (a, af), (b, bf) = tree(rng, rng.randint(1, 3)), tree(rng, rng.randint(0, 3))
        claims = [(prove_le, int.__le__), (prove_lt, int.__lt__), (prove_equal, int.__eq__)]
        for prove, holds in claims:
            if prove(a, b):
                proven += 1
                for point in sample(rng):
                    assert holds(af(point), bf(point)), (
                        f"round {number}: {prove.__name__}({a!r}, {b!r}) at {point}"
                    )
    assert proven


def test_simplify_random_guard_keeps_the_value_where_it_holds():
    for number, rng in rounds("guards"):
        e, reference = tree(rng, rng.randint(1, 4))
        guard, holds = condition(rng, rng.randint(1, 3))
        new = simplify(e, assuming=guard)
        for point in sample(rng):
            if holds(point):
                assert evaluate(new, point) == reference(point), (
                    f"round {number}: {e!r} -> {new!r} under {guard!r} at {point}"
                )


def test_evaluate_arrays_equals_points():
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    for number, rng in rounds("arrays", 0.25):
        e, reference = tree(rng, rng.randint(1, 4))
        points = sample(rng)
        got = evaluate(e, {name: numpy.array([point[name] for point in points]) for name in NAMES})
        want = [reference(point) for point in points]
        assert numpy.broadcast_to(got, len(points)).tolist() == want, f"round {number}: {e!r}"


def test_expression_random_pieces_are_canonical():
    for number, rng in rounds("canonical"):
        (a, _), (b, _), (c, _) = (tree(rng, rng.randint(0, 3)) for _ in range(3))
        by = rng.choice([-3, -1, 2, 5])
        assert prove_equal(a + b - b, a), f"round {number}: {a!r}, {b!r}"
        assert (a + b) - (b + a) == 0, f"round {number}: {a!r}, {b!r}"
        if all(
            isinstance(each, Expr) and "//" not in str(each) and "%" not in str(each) for each in (a, b, c)
        ):
            assert a + b - b == a, f"round {number}: {a!r}, {b!r}"
            assert (a + b) + c == a + (b + c), f"round {number}: {a!r}, {b!r}, {c!r}"
            assert by * (a + b) == by * a + by * b, f"round {number}: {a!r}, {b!r}"
