"""Dtypes in NumPy: how each is stored, how the interpreter computes with it, and casts between them.

NumPy has no bfloat16 and no float8. Their bits are stored as unsigned integers and computed with as float32;
every other dtype is stored and computed with as itself. Conversions follow the rules of `tg_ir.dtypes`.
Importing this module does not import NumPy; its functions do.
"""

from __future__ import annotations

import math
from functools import cache

from tg_ir.dtypes import DType, bfloat16, dtype_of, from_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import numpy as np

__all__ = ["cast", "compute_dtype", "decode", "encode", "numpy_dtype", "round_to", "to_storage"]


def _is_stored_as_bits(dtype: DType) -> bool:
    return dtype is bfloat16 or (dtype.kind == "float" and dtype.bits == 8)


@cache
def numpy_dtype(dtype: DType) -> np.dtype:
    """The NumPy dtype that stores `dtype`: uint16 for bfloat16, uint8 for float8, else of the same name."""
    import numpy as np

    return np.dtype(f"uint{dtype.bits}" if _is_stored_as_bits(dtype) else dtype.name)


@cache
def compute_dtype(dtype: DType) -> np.dtype:
    """The NumPy dtype that holds values of `dtype` to compute with: float32 for bfloat16 and float8."""
    import numpy as np

    return np.dtype("float32" if _is_stored_as_bits(dtype) else dtype.name)


def to_storage(array: np.ndarray) -> tuple[np.ndarray, DType]:
    """A user's array as a storage array, and its dtype. An array of ml_dtypes is viewed as its bits.

    Copies only what is not in the machine's byte order.

    Raises:
        DTypeError: there is no such dtype here.
    """
    dtype = dtype_of(array.dtype)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array.view(numpy_dtype(dtype)), dtype


def decode(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """The compute array of a storage array."""
    import numpy as np

    if dtype is bfloat16:
        return np.asarray(np.left_shift(bits, np.uint32(16), dtype=np.uint32)).view(np.float32)
    if _is_stored_as_bits(dtype):
        return np.asarray(_float8_values(dtype)[bits])
    return bits


@cache
def _float8_values(dtype: DType) -> np.ndarray:
    import numpy as np

    return np.array([from_bits(bits, dtype) for bits in range(256)], dtype=np.float32)


def encode(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The storage array of a compute array, rounded. For a float `dtype`, any array of numbers will do."""
    import numpy as np

    array = np.asarray(array)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.kind == "float" and dtype.bits < 32:  # through float32
            array = array.astype(np.float32, copy=False)
        if not _is_stored_as_bits(dtype):
            return array.astype(numpy_dtype(dtype), copy=False)
        values = np.ascontiguousarray(array)  # of one dimension at least: NumPy warns when a scalar wraps
        bits = _bfloat16_bits(values) if dtype is bfloat16 else _float8_bits(values, dtype)
    return bits.reshape(array.shape)


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    import numpy as np

    bits = values.view(np.uint32)
    rounded = (_rounding(bits, 16) >> np.uint32(16)).astype(np.uint16)
    rounded[np.isnan(values)] = bfloat16.nan_bits
    return rounded


def _float8_bits(values: np.ndarray, dtype: DType) -> np.ndarray:
    import numpy as np

    bits = values.view(np.uint32)
    magnitude_bits = bits & np.uint32(0x7FFF_FFFF)
    magnitude = magnitude_bits.view(np.float32)
    # A normal number: round the mantissa, with the carry into the exponent, and change the bias.
    dropped = 23 - dtype.mantissa_bits
    rebias = (127 - dtype.bias) << dtype.mantissa_bits
    code = (_rounding(magnitude_bits, dropped) >> np.uint32(dropped)) - np.uint32(rebias)
    # A subnormal: adding the power of two whose last place is the format's makes the addition round.
    power = np.float32(math.ldexp(dtype.smallest_subnormal, 23))
    subnormal = (magnitude + power).view(np.uint32) - power.view(np.uint32)
    np.copyto(code, subnormal, where=magnitude < np.float32(dtype.tiny))
    code[code > dtype.max_code] = dtype.overflow_code
    sign = (bits >> np.uint32(24)) & np.uint32(0x80)
    if not dtype.has_negative_zero:
        sign[code == 0] = 0
    result = (code | sign).astype(np.uint8)
    result[np.isnan(values)] = dtype.nan_bits
    return result


def _rounding(bits: np.ndarray, dropped: int) -> np.ndarray:
    """`bits` plus what makes cutting off the low `dropped` bits round to nearest, ties to even."""
    import numpy as np

    return bits + (((bits >> np.uint32(dropped)) & np.uint32(1)) + np.uint32((1 << (dropped - 1)) - 1))


def round_to(array: np.ndarray, dtype: DType) -> np.ndarray:
    """An array rounded to `dtype`, as a compute array."""
    return decode(encode(array, dtype), dtype)


def cast(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    """A compute array of `source` converted to a compute array of `target`."""
    import numpy as np

    if target is source:
        return array
    if target.kind == "float":
        return round_to(array, target)
    if target.kind == "bool":
        return np.asarray(array != 0)
    if source.kind == "float":
        return _truncate(array, target)
    return array.astype(numpy_dtype(target))


def _truncate(values: np.ndarray, target: DType) -> np.ndarray:
    import numpy as np

    integer = numpy_dtype(target)
    if values.dtype == np.float16:  # whose range ends before the integers'
        values = values.astype(np.float32)
    # The limits of an integer are powers of two, which floats hold; its maximum, one less, they may not.
    least, beyond = values.dtype.type(target.min), values.dtype.type(target.max + 1)
    in_range = (values > least) & (values < beyond)
    result = np.where(in_range, values, values.dtype.type(0)).astype(integer)
    result[values <= least] = target.min
    result[values >= beyond] = target.max
    return result
