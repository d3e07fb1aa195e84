"""What symbolic integers cost: `python benchmarks/symbolic.py` prints microseconds for each row, the best of five runs.

Fresh: every expression is new to the process (other constants). Again: it is alive already.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from tg_ir.symbolic import (
    Var,
    Variable,
    evaluate,
    format_expr,
    logical_and,
    parse_expr,
    prove_lt,
    simplify,
    substitute,
)

N = Variable("n", 1, 4096)
I, J, K = Var("i", 0, 4095, below=N), Var("j", 0, 63), Var("k", 0, 15)
Y, X, R, S = Var("y", 0, 55), Var("x", 0, 55), Var("r", 0, 2), Var("s", 0, 2)
FLAT = (I * 64 + J) * 16 + K
WINDOW = logical_and(Y + R >= 1, Y + R <= 56, X + S >= 1, X + S <= 56)


def reshape_permute_reshape(c: int) -> Any:
    flat = (J * 16 + K) * (56 + c) + Y
    return flat // ((56 + c) * 16), flat // (56 + c) % 16, flat % (56 + c)


def chain(depth: int) -> Any:
    e = X
    for step in range(depth):
        e = (e * 3 + (Y if step % 2 else J)) // 2 % 1000003
    return e


# name: how many expressions one call makes, and the call
ROWS: dict[str, tuple[int, Callable[[int], Any]]] = {
    "i + c": (1, lambda c: I + c),
    "i*64 + j": (2, lambda c: I * (64 + c) + J),
    "((i*64 + j)*16 + k) + c": (5, lambda c: (I * 64 + J) * 16 + K + c),
    "flat//1024, flat//16%64, flat%16": (5, lambda c: ((f := FLAT + c) // 1024, f // 16 % 64, f % 16)),
    "reshape of a permute of a reshape": (8, reshape_permute_reshape),
    "(5*x + c)//7, irreducible": (3, lambda c: (X * 5 + c) // 7),
    "y + 3*r <= c": (3, lambda c: Y + R * 3 - c % 50 <= 0),
    "padded window guard, 4 conditions": (
        13,
        lambda c: logical_and(Y + R * (2 + c) >= 1, Y + R <= 56, X + S >= 1, X + S <= 56),
    ),
    "(i*n + j)//n, (i*n + j)%n, symbolic": (5, lambda c: ((f := (I + c) * N + I) // N, f % N)),
    "prove i*c < n*c + 1": (3, lambda c: prove_lt(I * c, N * c + 1)),
    "substitute three axes of a flat index": (
        1,
        lambda c: substitute(FLAT, {I: J + c, J: K * 4 + R, K: J % 16}),
    ),
    "simplify under a window guard": (1, lambda c: simplify((Y + R + 55) % 56 + c, assuming=WINDOW)),
    "evaluate": (1, lambda c: evaluate(FLAT, {"i": c % 4096, "j": 3, "k": 5})),
    "format": (1, lambda c: format_expr(FLAT + c)),
    "parse": (1, lambda c: parse_expr("1024*i + 16*j + k", {"i": I, "j": J, "k": K})),
}


def main() -> None:
    print(f"{'microseconds an expression':40} {'fresh':>8} {'again':>8}")
    for name, (expressions, build) in ROWS.items():
        fresh = again = float("inf")
        constants = itertools.count(1)
        for _ in range(5):
            values = list(itertools.islice(constants, 400))
            start = time.perf_counter()
            alive = [build(value) for value in values]
            middle = time.perf_counter()
            alive += [build(value) for value in values]
            end = time.perf_counter()
            fresh, again = min(fresh, middle - start), min(again, end - middle)
        print(f"{name:40} {fresh / 400 / expressions * 1e6:8.2f} {again / 400 / expressions * 1e6:8.2f}")
    start = time.perf_counter()
    deep = chain(20_000)
    built = time.perf_counter()
    evaluate(deep, {"x": 5, "y": 6, "j": 7})
    print(
        f"chain of 20,000 steps: built in {built - start:.3f} s, evaluated in {time.perf_counter() - built:.3f} s"
    )


if __name__ == "__main__":
    main()
