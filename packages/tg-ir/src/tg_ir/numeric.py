"""What each elementwise operation computes, on NumPy arrays: the meaning shared by the interpreters of all levels.

Arrays are in compute form (`tg_ir.numpy_dtypes`): bfloat16 and float8 values stand in float32 arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tg_ir.dtypes import DType, bool_
from tg_ir.numpy_dtypes import compute_dtype, round_to

__all__ = ["evaluate_elementwise", "threefry2x32"]

_erf = np.frompyfunc(math.erf, 1, 1)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "i":
        return np.power(a, b)
    result = np.power(a, np.maximum(b, 0))
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0)).astype(a.dtype)
    return np.where(b < 0, inverse, result)


def _shift_left(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bits = a.dtype.itemsize * 8
    fits = (b >= 0) & (b < bits)
    return np.where(fits, np.left_shift(a, np.where(fits, b, 0).astype(a.dtype)), 0).astype(a.dtype)


def _shift_right(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bits = a.dtype.itemsize * 8
    fits = (b >= 0) & (b < bits)
    sign = np.where(a < 0, -1, 0).astype(a.dtype)  # of a's dtype: uint64 and int64 would meet in float64
    return np.where(fits, np.right_shift(a, np.where(fits, b, 0).astype(a.dtype)), sign)


def _wide(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A float16 transcendental computed in float32; NumPy's own loops do so for arithmetic already."""
    return lambda a: function(a.astype(np.float32)).astype(a.dtype) if a.dtype == np.float16 else function(a)


_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "neg": np.negative,
    "abs": np.abs,
    "invert": np.invert,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "sqrt": np.sqrt,
    "exp": _wide(np.exp),
    "exp2": _wide(np.exp2),
    "expm1": _wide(np.expm1),
    "log": _wide(np.log),
    "log2": _wide(np.log2),
    "log1p": _wide(np.log1p),
    "sin": _wide(np.sin),
    "cos": _wide(np.cos),
    "atan": _wide(np.arctan),
    "tanh": _wide(np.tanh),
    "erf": lambda a: np.asarray(_erf(a), dtype=a.dtype),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "pow": _power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": _shift_left,
    "shr": _shift_right,
    "where": np.where,
}


def evaluate_elementwise(name: str, arrays: list[np.ndarray], dtype: DType) -> np.ndarray:
    """The operation on arrays in compute form; `dtype` is its result's."""
    with np.errstate(all="ignore"):
        result = np.asarray(_FUNCTIONS[name](*arrays))
    if dtype is bool_ or result.dtype.kind in "iu":
        return result.astype(compute_dtype(dtype), copy=False)
    return round_to(result, dtype)


def threefry2x32(
    key: tuple[np.ndarray, np.ndarray], counter: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Threefry 2x32 with 20 rounds, on uint32 arrays.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    with np.errstate(over="ignore"):
        x, y = counter[0] + keys[0], counter[1] + keys[1]
        for group in range(5):
            for rotation in rotations[group % 2]:
                x = x + y
                y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
            x = x + keys[(group + 1) % 3]
            y = y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y
