"""Values in and out: Python numbers and sequences, bytes, NumPy, the buffer protocol; DLPack stands in dlpack.py."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from tg_frontend import dlpack
from tg_frontend.core import Scalar, Tensor, symbolic_scalar
from tg_frontend.engine import Device, current_engine
from tg_ir import graph
from tg_ir.dtypes import DType, dtype_of, float32, from_bits, int64, promote_types, to_bits, uint8
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import Node
from tg_ir.symbolic import Expr

if TYPE_CHECKING:
    import numpy as np

__all__ = ["as_tensor", "from_dlpack", "from_numpy", "frombuffer", "tensor", "tobytes"]

METHODS = ("tobytes",)
"""Those that take a tensor first, and are methods."""

_LETTERS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
"""The struct module's letter of each dtype that it knows."""

_KINDS = {
    letter: kind
    for letters, kind in (("bhilqn", "int"), ("BHILQNc", "uint"), ("efd", "float"))
    for letter in letters
}
"""What the letters of the buffer protocol mean; the item's size says the rest."""


# ---- the constructors --------------------------------------------------------------------------------------


def tensor(
    data: object, *, dtype: DType | str | None = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor with a copy of `data`: the same as `Tensor(data, ..)`."""
    return Tensor(data, dtype, device, requires_grad)


def as_tensor(data: object, dtype: DType | str | None = None, device: str | None = None) -> Tensor:
    """`data` itself if it is a tensor of that dtype and device, else a tensor made from it."""
    return data.to(dtype=dtype, device=device) if isinstance(data, Tensor) else Tensor(data, dtype, device)


def from_numpy(array: np.ndarray, device: str | None = None) -> Tensor:
    """A tensor over the memory of `array`, without a copy where the device can read it; a later write shows.

    Raises:
        ShapeError: the array is not contiguous; `Tensor(array)` copies it.
        DTypeError: its dtype, or its byte order, is not one of ours.
    """
    from tg_ir.numpy_dtypes import to_storage

    if not array.flags.c_contiguous:
        raise ShapeError(
            "from_numpy: the array is not contiguous and cannot be shared; Tensor(array) copies it"
        )
    if not array.dtype.isnative:
        raise DTypeError(
            f"from_numpy: {array.dtype} is not in this machine's byte order; Tensor(array) copies it"
        )
    bits, dtype = to_storage(array)
    return Tensor.from_node(
        _filled(_bytes_of(bits), array.shape, dtype, Device.canonical(device), share=True)
    )


def from_dlpack(source: object, device: str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of anything with `__dlpack__`, which lives on as long as the tensor needs it.

    It is copied where `copy` is true, where it is not contiguous, and where our device cannot read it.

    Raises:
        DeviceError: it is not in the memory of the host.
        ShapeError: it is not contiguous, and `copy` is False.
    """
    data, shape, dtype = dlpack.read(source, copy)
    return Tensor.from_node(_filled(data, shape, dtype, Device.canonical(device), share=not copy))


def frombuffer(
    buffer: object,
    *,
    dtype: DType | str,
    shape: tuple[int, ...] | None = None,
    offset: int = 0,
    device: str | None = None,
) -> Tensor:
    """A tensor over the bytes of a buffer from `offset` on, such as a memory-mapped file, which it keeps alive.

    Without `shape` it is a vector of all that is there.

    Raises:
        ShapeError: the buffer does not hold that many elements.
    """
    data, dtype = memoryview(buffer).cast("B"), dtype_of(dtype)
    if shape is None:
        shape = ((len(data) - offset) // dtype.itemsize,)
    size = math.prod(shape) * dtype.itemsize
    if offset < 0 or offset + size > len(data):
        raise ShapeError(
            f"frombuffer: got {len(data)} bytes, want {size} from offset {offset} on for {shape}"
        )
    data = data[offset : offset + size]
    return Tensor.from_node(_filled(data, tuple(shape), dtype, Device.canonical(device), share=True))


def _filled(
    data: memoryview | bytes, shape: tuple[int, ...], dtype: DType, device: str, share: bool = False
) -> Node:
    node = graph.buffer(shape, dtype, device)
    engine = current_engine()
    node.fill((engine.share if share else engine.upload)(memoryview(data), shape, dtype, device))
    return node


def node_from_data(data: object, dtype: DType | None, device: str | None) -> Node:
    """A node with a copy of `data`."""
    device = Device.canonical(device)
    if isinstance(data, Tensor):
        return graph.copy(data.node if dtype is None else graph.cast(data.node, dtype), device)
    if isinstance(data, Expr):
        return graph.cast(symbolic_scalar(data, device), dtype or int64)
    if type(data) in (bool, int, float):
        _check_range([data] if dtype is None else [], int64)
        return graph.const(data, dtype or dtype_of(type(data)), device)
    if isinstance(data, list | tuple | range):
        return _from_sequence(data, dtype, device)
    if isinstance(data, bytes | bytearray):
        size = (dtype or uint8).itemsize
        if len(data) % size:
            raise ShapeError(f"Tensor: got {len(data)} bytes, want a multiple of {size} for {dtype}")
        return _filled(data, (len(data) // size,), dtype or uint8, device)
    if hasattr(data, "__array_interface__") or (
        hasattr(data, "__array__") and not hasattr(data, "__dlpack__")
    ):
        node = _filled(*_from_array(data), device)
    elif hasattr(data, "__dlpack__"):
        detach = getattr(data, "detach", None)  # PyTorch does not export what requires a gradient
        node = _filled(*dlpack.read(detach() if detach else data), device)
    elif isinstance(data, bool | int | float):
        return node_from_data(data.__index__() if isinstance(data, int) else float(data), dtype, device)
    else:
        try:
            view = memoryview(data)  # type: ignore[arg-type]
        except TypeError:
            raise DTypeError(
                f"Tensor: got {type(data).__name__}, want numbers, a sequence, an array or a buffer"
            ) from None
        node = _from_buffer(view, dtype, device)
    return node if dtype is None else graph.cast(node, dtype)


def _from_array(data: object) -> tuple[memoryview, tuple[int, ...], DType]:
    import numpy as np

    from tg_ir.numpy_dtypes import to_storage

    bits, dtype = to_storage(np.asarray(data))
    return _bytes_of(np.ascontiguousarray(bits)), bits.shape, dtype


def _bytes_of(array: np.ndarray) -> memoryview:
    import numpy as np

    return memoryview(array.reshape(-1).view(np.uint8))


def _from_buffer(view: memoryview, dtype: DType | None, device: str) -> Node:
    """A buffer's items are of the dtype that it says; plain bytes are those of the dtype asked for."""
    letter = view.format.lstrip("@=" if struct.pack("=h", 1) == struct.pack(">h", 1) else "@=<")
    if letter == "B" and view.ndim == 1 and dtype is not None:
        return node_from_data(view.tobytes(), dtype, device)
    name = "bool" if letter == "?" else f"{_KINDS[letter]}{8 * view.itemsize}" if letter in _KINDS else ""
    if not name:
        raise DTypeError(f"Tensor: a buffer of items {view.format!r} has no dtype here; convert it first")
    return _filled(view.tobytes(), tuple(view.shape), dtype_of(name), device)


# ---- sequences ---------------------------------------------------------------------------------------------


def _from_sequence(data: list | tuple | range, dtype: DType | None, device: str) -> Node:
    found: dict[DType, None] = {}
    shape: list[int] = []
    level: object = data
    while isinstance(level, list | tuple | range):
        shape.append(len(level))
        if not len(level):
            break
        level = _plain(level[0], found)
    found.clear()
    flat: list[Scalar] = []
    _flatten(data, shape, 0, flat, found)
    if dtype is None:
        kinds = {dtype_of(kind) for kind in set(map(type, flat)) if not found} or set(found) or {float32}
        dtype = kinds.pop()
        for other in kinds:
            dtype = promote_types(dtype, other)
        _check_range(flat, dtype)
    return _filled(pack(flat, dtype), tuple(shape), dtype, device)


def _plain(item: object, found: dict[DType, None]) -> object:
    """A tensor, array or NumPy scalar as Python numbers, its dtype noted."""
    if hasattr(item, "tolist") and hasattr(item, "dtype"):
        found[dtype_of(item.dtype)] = None
        return item.tolist()
    return item


def _flatten(
    data: object, shape: list[int], depth: int, into: list[Scalar], found: dict[DType, None]
) -> None:
    data = _plain(data, found)
    if depth == len(shape):
        if not isinstance(data, bool | int | float):
            raise ShapeError(f"Tensor: got {data!r} at depth {depth} of a nested sequence, want a number")
        into.append(data)
        return
    if not isinstance(data, list | tuple | range) or len(data) != shape[depth]:
        raise ShapeError(f"Tensor: the nested sequence is ragged: want {shape[depth]} items at depth {depth}")
    if depth == len(shape) - 1 and set(map(type, data)) <= {bool, int, float}:
        into.extend(data)
        return
    for item in data:
        _flatten(item, shape, depth + 1, into, found)


def _check_range(values: list[Scalar], dtype: DType) -> None:
    if dtype is int64 and any([type(value) is int and not -(2**63) <= value < 2**63 for value in values]):
        raise DTypeError("Tensor: an int is beyond int64; give a dtype such as float64 or uint64")


def pack(values: list[Scalar], dtype: DType) -> bytes:
    """The values as the bytes of a tensor of `dtype`."""
    letter = _LETTERS.get(dtype.name, "e")
    if letter != "e":  # struct rounds float16 once, where tg_ir goes through float32
        try:
            return struct.pack(f"={len(values)}{letter}", *values)
        except (struct.error, OverflowError):
            pass  # numbers beyond the dtype: converted one by one, by tg_ir's rules
    width = {1: "B", 2: "H", 4: "I", 8: "Q"}[dtype.itemsize]
    return struct.pack(f"={len(values)}{width}", *[to_bits(value, dtype) for value in values])


# ---- out ---------------------------------------------------------------------------------------------------


def to_list(data: memoryview, shape: tuple[int, ...], dtype: DType) -> list | Scalar:
    """The bytes of a tensor as nested lists."""
    count = data.nbytes // dtype.itemsize
    letter = _LETTERS.get(dtype.name)
    if letter:
        flat: list = list(struct.unpack(f"={count}{letter}", data))
    else:
        width = {1: "B", 2: "H"}[dtype.itemsize]
        flat = [from_bits(bits, dtype) for bits in struct.unpack(f"={count}{width}", data)]
    return _nest(flat, shape) if shape else flat[0]


def tobytes(self: Tensor) -> bytes:
    """The values as row-major bytes, in this machine's byte order."""
    return bytes(self._bytes())


def _nest(flat: list, shape: tuple[int, ...]) -> list:
    if len(shape) == 1:
        return flat
    step = len(flat) // shape[0] if shape[0] else 0
    return [_nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def to_numpy(data: memoryview, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """The bytes of a tensor as a read-only NumPy array over them."""
    import numpy as np

    from tg_ir.numpy_dtypes import decode, numpy_dtype

    bits = np.frombuffer(data, numpy_dtype(dtype)).reshape(shape)
    bits.flags.writeable = False
    return decode(bits, dtype)


def _buffer(self: Tensor, flags: int) -> memoryview:
    """The buffer protocol of Python 3.12 and later: the values, read-only. Before, use `numpy()` or DLPack."""
    if self.dtype.name not in _LETTERS:
        raise BufferError(
            f"buffer: {self.dtype} has no format in the buffer protocol; use .bitcast(..) or DLPack"
        )
    data, shape = self._bytes().toreadonly(), self._concrete_shape()
    return (
        data.cast(_LETTERS[self.dtype.name], shape)
        if shape and 0 not in shape
        else data.cast(_LETTERS[self.dtype.name])
    )


def _to_dlpack(
    self: Tensor,
    *,
    stream: object = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> object:
    """A DLPack capsule over the values, without a copy where they are in the memory of the host."""
    if self.requires_grad:
        raise BufferError("__dlpack__: this tensor requires a gradient, which would be lost; use .detach()")
    data = self._bytes()
    data = memoryview(bytes(data)) if copy else data
    return dlpack.write(
        data, self._concrete_shape(), self.dtype, versioned=bool(max_version and max_version[0] >= 1)
    )


OPERATORS: dict[str, object] = {
    "__buffer__": _buffer,
    "__dlpack__": _to_dlpack,
    "__dlpack_device__": lambda self: (dlpack.CPU, 0),
}
