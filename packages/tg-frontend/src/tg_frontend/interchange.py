"""Values in and out: Python numbers and sequences, bytes, NumPy, the buffer protocol, DLPack."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tg_ir import graph
from tg_ir.dtypes import DType, dtype_of, float32, from_bits, int64, to_bits
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import Node
from tg_ir.symbolic import Expr

from tg_frontend.core import Scalar, Tensor, symbolic_scalar
from tg_frontend.engine import Device, current_engine

if TYPE_CHECKING:
    import numpy as np

__all__ = ["node_from_data", "to_list", "to_numpy"]

_FORMATS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
"""The struct module's letter of each dtype that it knows."""


def node_from_data(data: object, dtype: DType | None, device: str | None) -> Node:
    """A node with a copy of `data`."""
    device = Device.canonical(device)
    if isinstance(data, Tensor):
        return graph.copy(data.node if dtype is None else graph.cast(data.node, dtype), device)
    if isinstance(data, bool | int | float):
        return graph.const(data, dtype or dtype_of(type(data)), device)
    if isinstance(data, Expr):
        return graph.cast(symbolic_scalar(data, device), dtype or int64)
    if isinstance(data, list | tuple | range):
        return _from_sequence(data, dtype, device)
    if hasattr(data, "__array__"):
        return _from_array(data, dtype, device)
    raise DTypeError(f"Tensor: got {type(data).__name__}, want numbers, a sequence, an array or a buffer")


def _from_array(data: object, dtype: DType | None, device: str) -> Node:
    import numpy as np

    array = np.ascontiguousarray(data).reshape(np.shape(data))
    own = dtype_of(array.dtype)
    node = graph.buffer(array.shape, own, device)
    node.fill(current_engine().upload(memoryview(array.reshape(-1).view(np.uint8)), array.shape, own, device))
    return node if dtype is None else graph.cast(node, dtype)


def _from_sequence(data: list | tuple | range, dtype: DType | None, device: str) -> Node:
    shape: list[int] = []
    level: object = data
    while isinstance(level, list | tuple | range):
        shape.append(len(level))
        if not len(level):
            break
        level = level[0]
    flat: list[Scalar] = []
    _flatten(data, shape, 0, flat)
    if dtype is None:
        kinds = {type(value) for value in flat}
        dtype = float32 if float in kinds or not kinds else int64 if int in kinds else dtype_of(bool)
    packed = pack(flat, dtype)
    node = graph.buffer(tuple(shape), dtype, device)
    node.fill(current_engine().upload(memoryview(packed), tuple(shape), dtype, device))
    return node


def _flatten(data: object, shape: list[int], depth: int, into: list[Scalar]) -> None:
    if depth == len(shape):
        if isinstance(data, Tensor):
            data = data.item()
        if not isinstance(data, bool | int | float):
            raise ShapeError(f"Tensor: got {data!r} at depth {depth} of a nested sequence, want a number")
        into.append(data)
        return
    if not isinstance(data, list | tuple | range) or len(data) != shape[depth]:
        raise ShapeError(f"Tensor: the nested sequence is ragged: want {shape[depth]} items at depth {depth}")
    for item in data:
        _flatten(item, shape, depth + 1, into)


def pack(values: list[Scalar], dtype: DType) -> bytes:
    """The values as the bytes of a tensor of `dtype`."""
    letter = _FORMATS.get(dtype.name)
    if letter is None or letter == "e" or dtype.kind != "float":
        width = {1: "B", 2: "H", 4: "I", 8: "Q"}[dtype.itemsize]
        return struct.pack(f"={len(values)}{width}", *[to_bits(value, dtype) for value in values])
    return struct.pack(f"={len(values)}{letter}", *values)


def to_list(data: memoryview, shape: tuple[int, ...], dtype: DType) -> list | Scalar:
    """The bytes of a tensor as nested lists."""
    count = data.nbytes // dtype.itemsize
    letter = _FORMATS.get(dtype.name)
    if letter:
        flat: list = list(struct.unpack(f"={count}{letter}", data))
    else:
        width = {1: "B", 2: "H"}[dtype.itemsize]
        flat = [from_bits(bits, dtype) for bits in struct.unpack(f"={count}{width}", data)]
    return _nest(flat, shape) if shape else flat[0]


def _nest(flat: list, shape: tuple[int, ...]) -> list:
    if len(shape) == 1:
        return flat
    step = len(flat) // shape[0] if shape[0] else 0
    return [_nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def to_numpy(data: memoryview, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """The bytes of a tensor as a NumPy array over them."""
    import numpy as np

    from tg_ir.numpy_dtypes import decode, numpy_dtype

    return decode(np.frombuffer(data, numpy_dtype(dtype)).reshape(shape), dtype)
