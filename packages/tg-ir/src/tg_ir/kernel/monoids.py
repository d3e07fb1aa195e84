"""Monoids on tuples: how a reduction or scan combines two partial results.

A monoid is data: the dtypes of its components, its identity, and for each component a value of `left` and `right`
arguments. All of those here are associative up to rounding; commutative ones may be reduced in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tg_ir.dtypes import DType, int64
from tg_ir.kernel.nodes import Argument, Const, Elementwise, Value

__all__ = [
    "MONOIDS",
    "Monoid",
    "arg_extreme",
    "combiner",
    "log_add_exp",
    "log_sum_exp",
    "online_softmax",
    "welford",
]


@dataclass(frozen=True, slots=True)
class Monoid:
    """(left, right) -> result, componentwise values of `Argument("left" | "right", position, dtype)`."""

    name: str
    identity: tuple[Const, ...]
    result: tuple[Value, ...]
    commutative: bool = True

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """The dtype of each component."""
        return tuple([const.dtype for const in self.identity])


def _e(name: str, *args: Value) -> Value:
    return Elementwise(name, args)


def _sides(*dtypes: DType) -> tuple[list[Argument], list[Argument]]:
    left, right = [[Argument(side, i, dtype) for i, dtype in enumerate(dtypes)] for side in ("left", "right")]
    return left, right


def _lowest(dtype: DType) -> float | int | bool:
    return -math.inf if dtype.is_float else dtype.min


def _highest(dtype: DType) -> float | int | bool:
    return math.inf if dtype.is_float else dtype.max


_COMBINERS: dict[str, tuple[str, Callable[[DType], float | int | bool]]] = {
    "sum": ("add", lambda dtype: 0),
    "prod": ("mul", lambda dtype: 1),
    "max": ("maximum", _lowest),
    "min": ("minimum", _highest),
}


def combiner(name: str, dtype: DType) -> Monoid:
    """sum, prod, max or min of one component."""
    operation, identity = _COMBINERS[name]
    (a,), (b,) = _sides(dtype)
    return Monoid(name, (Const.of(identity(dtype), dtype),), (_e(operation, a, b),))


def arg_extreme(name: str, dtype: DType) -> Monoid:
    """argmax or argmin of (value, index): NaN counts as the extreme, and of equal values the first index is taken."""
    (a, i), (b, j) = _sides(dtype, int64)
    ahead = _e("lt", b, a) if name == "argmax" else _e("lt", a, b)
    same = _e("eq", a, b)
    if dtype.is_float:
        a_nan, b_nan = _e("ne", a, a), _e("ne", b, b)
        ahead = _e("or", ahead, _e("and", a_nan, _e("invert", b_nan)))
        same = _e("or", same, _e("and", a_nan, b_nan))
    left = _e("or", ahead, _e("and", same, _e("le", i, j)))
    worst = _lowest(dtype) if name == "argmax" else _highest(dtype)
    return Monoid(
        name,
        (Const.of(worst, dtype), Const.of(int64.max, int64)),
        (_e("where", left, a, b), _e("where", left, i, j)),
    )


def _scaled(own: Value, top: Value) -> Value:
    """exp(own - top), which is 1 for equal infinities."""
    one = Const.of(1, own.dtype)
    return _e("where", _e("eq", own, top), one, _e("exp", _e("sub", own, top)))


def log_sum_exp(dtype: DType) -> Monoid:
    """(maximum, sum of exp(x - maximum)); an element is (x, 1)."""
    (m, s), (n, t) = _sides(dtype, dtype)
    top = _e("maximum", m, n)
    total = _e("add", _e("mul", s, _scaled(m, top)), _e("mul", t, _scaled(n, top)))
    return Monoid("logsumexp", (Const.of(-math.inf, dtype), Const.of(0, dtype)), (top, total))


def log_add_exp(dtype: DType) -> Monoid:
    """log(exp(a) + exp(b)) of one component."""
    (a,), (b,) = _sides(dtype)
    top, low = _e("maximum", a, b), _e("minimum", a, b)
    total = _e("add", top, _e("log1p", _e("exp", _e("sub", low, top))))
    return Monoid(
        "logaddexp", (Const.of(-math.inf, dtype),), (_e("where", _e("eq", a, b), _plus_log2(a), total),)
    )


def _plus_log2(a: Value) -> Value:
    return _e("add", a, Const.of(math.log(2), a.dtype))


def welford(dtype: DType) -> Monoid:
    """(count, mean, sum of squared deviations); an element is (1, x, 0)."""
    (n, x, p), (m, y, q) = _sides(dtype, dtype, dtype)
    zero, one = Const.of(0, dtype), Const.of(1, dtype)
    count = _e("add", n, m)
    share = _e("div", m, _e("where", _e("eq", count, zero), one, count))
    delta = _e("sub", y, x)
    mean = _e("add", x, _e("mul", delta, share))
    squares = _e("add", _e("add", p, q), _e("mul", _e("mul", _e("mul", delta, delta), n), share))
    return Monoid("welford", (zero, zero, zero), (count, mean, squares))


def online_softmax(dtype: DType) -> Monoid:
    """(maximum, sum of weights, weighted sum) of softmax-weighted values; an element is (score, 1, value)."""
    (m, s, v), (n, t, w) = _sides(dtype, dtype, dtype)
    top = _e("maximum", m, n)
    a, b = _scaled(m, top), _scaled(n, top)
    total = _e("add", _e("mul", s, a), _e("mul", t, b))
    value = _e("add", _e("mul", v, a), _e("mul", w, b))
    zero = Const.of(0, dtype)
    return Monoid("online_softmax", (Const.of(-math.inf, dtype), zero, zero), (top, total, value))


MONOIDS: dict[str, Callable[[DType], Monoid]] = {
    **{name: lambda dtype, name=name: combiner(name, dtype) for name in _COMBINERS},
    "argmax": lambda dtype: arg_extreme("argmax", dtype),
    "argmin": lambda dtype: arg_extreme("argmin", dtype),
    "logsumexp": log_sum_exp,
    "logaddexp": log_add_exp,
    "welford": welford,
    "online_softmax": online_softmax,
}
"""The monoids that have a name: each is made for the dtype of its values."""
