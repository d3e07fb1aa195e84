"""DLPack: tensors exchanged with other libraries in one process, without a copy.

A capsule carries a pointer to a managed tensor: where the elements are, and whom to tell when they are no longer
needed. What we write stays alive until the other side's deleter call; what we read is deleted when the last view of
its memory is gone. ctypes is loaded at the first exchange.

Source: dlpack.h 1.1 (structures, codes of types and devices); the Python specification of DLPack (capsule names).
"""

from __future__ import annotations

import weakref
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING

from tg_ir.dtypes import DType, dtype_of
from tg_ir.errors import DeviceError, DTypeError, ShapeError

if TYPE_CHECKING:
    import ctypes

__all__ = ["CPU", "read", "write"]

CPU = 1
_HOST_READABLE = {CPU: "CPU", 3: "CUDA host memory", 11: "ROCm host memory"}
_READ_ONLY = 1
_LEGACY, _VERSIONED = b"dltensor", b"dltensor_versioned"
_USED = {_LEGACY: b"used_dltensor", _VERSIONED: b"used_dltensor_versioned"}
"""Names of capsules, which keep pointers to them: they must live as long as the process."""

_CODES = {"int": 0, "uint": 1, "float": 2, "bool": 6}
_CODES_OF_NAMES = {
    "bfloat16": 4,
    "float8_e4m3fn": 10,
    "float8_e4m3fnuz": 11,
    "float8_e5m2": 12,
    "float8_e5m2fnuz": 13,
}
_NAMES_OF_CODES = {code: name for name, code in _CODES_OF_NAMES.items()}
_KINDS_OF_CODES = {code: kind for kind, code in _CODES.items()}

_exported: dict[int, tuple] = {}
"""What each managed tensor that we wrote keeps alive, by its address."""


@cache
def _structures() -> SimpleNamespace:
    """dlpack.h's structures, CPython's buffer, and the callbacks, in ctypes."""
    import ctypes as c

    class Device(c.Structure):
        _fields_ = (("type", c.c_int32), ("id", c.c_int32))

    class Type(c.Structure):
        _fields_ = (("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16))

    class Array(c.Structure):
        _fields_ = (
            ("data", c.c_void_p),
            ("device", Device),
            ("ndim", c.c_int32),
            ("dtype", Type),
            ("shape", c.POINTER(c.c_int64)),
            ("strides", c.POINTER(c.c_int64)),
            ("byte_offset", c.c_uint64),
        )

    deleter = c.CFUNCTYPE(None, c.c_void_p)

    class Legacy(c.Structure):
        _fields_ = (("array", Array), ("context", c.c_void_p), ("deleter", deleter))

    class Versioned(c.Structure):
        _fields_ = (
            ("major", c.c_uint32),
            ("minor", c.c_uint32),
            ("context", c.c_void_p),
            ("deleter", deleter),
            ("flags", c.c_uint64),
            ("array", Array),
        )

    class Buffer(c.Structure):
        _fields_ = (
            ("buf", c.c_void_p),
            ("obj", c.c_void_p),
            ("len", c.c_ssize_t),
            ("itemsize", c.c_ssize_t),
            ("readonly", c.c_int),
            ("ndim", c.c_int),
            *[(name, c.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")],
        )

    def function(name: str, result: object, *arguments: object) -> object:
        return c.PYFUNCTYPE(result, *arguments)((name, c.pythonapi))

    capsule_name = function("PyCapsule_GetName", c.c_char_p, c.c_void_p)
    capsule_pointer = function("PyCapsule_GetPointer", c.c_void_p, c.c_void_p, c.c_char_p)

    def forget(address: int) -> None:
        _exported.pop(address, None)

    def drop_capsule(capsule: int) -> None:
        name = capsule_name(capsule)
        if name in (_LEGACY, _VERSIONED):  # nobody took it
            forget(capsule_pointer(capsule, name))

    return SimpleNamespace(
        c=c,
        Legacy=Legacy,
        Versioned=Versioned,
        Buffer=Buffer,
        forget=deleter(forget),
        drop_capsule=deleter(drop_capsule),
        new_capsule=function("PyCapsule_New", c.py_object, c.c_void_p, c.c_char_p, deleter),
        capsule_name=function("PyCapsule_GetName", c.c_char_p, c.py_object),
        capsule_pointer=function("PyCapsule_GetPointer", c.c_void_p, c.py_object, c.c_char_p),
        rename=function("PyCapsule_SetName", c.c_int, c.py_object, c.c_char_p),
        get_buffer=function("PyObject_GetBuffer", c.c_int, c.py_object, c.POINTER(Buffer), c.c_int),
        release_buffer=function("PyBuffer_Release", None, c.POINTER(Buffer)),
    )


class _Address:
    """Where the bytes of a memoryview are, held until this object is gone."""

    def __init__(self, data: memoryview):
        s = _structures()
        self.buffer = s.Buffer()
        s.get_buffer(data, self.buffer, 0)
        self.value, self.readonly = self.buffer.buf, bool(self.buffer.readonly)

    def __del__(self) -> None:
        _structures().release_buffer(self.buffer)


def write(data: memoryview, shape: tuple[int, ...], dtype: DType, versioned: bool) -> object:
    """A capsule over the row-major bytes `data`. Only a versioned capsule can say that they are read-only.

    Raises:
        BufferError: they are read-only, and the capsule is not versioned.
    """
    s = _structures()
    c = s.c
    address = _Address(data)
    if address.readonly and not versioned:
        raise BufferError(
            "__dlpack__: the memory is read-only, which a capsule of DLPack 0 cannot say; copy first"
        )
    managed = (s.Versioned if versioned else s.Legacy)()
    dims, steps = (c.c_int64 * len(shape))(*shape), (c.c_int64 * len(shape))(*_row_major(shape))
    array = managed.array
    array.data, array.ndim, array.device.type = address.value, len(shape), CPU
    array.shape, array.strides = c.cast(dims, type(array.shape)), c.cast(steps, type(array.strides))
    array.dtype.code = _CODES_OF_NAMES.get(dtype.name, _CODES[dtype.kind])
    array.dtype.bits, array.dtype.lanes = dtype.bits, 1
    managed.deleter = s.forget
    if versioned:
        managed.major, managed.minor, managed.flags = 1, 1, _READ_ONLY * address.readonly
    pointer = c.addressof(managed)
    _exported[pointer] = (managed, dims, steps, address)
    return s.new_capsule(pointer, _VERSIONED if versioned else _LEGACY, s.drop_capsule)


def read(source: object, copy: bool | None = None) -> tuple[memoryview, tuple[int, ...], DType]:
    """The row-major bytes, shape and dtype of anything with `__dlpack__`, or of a capsule.

    Raises:
        DeviceError, DTypeError: it is not in the host's memory, or of no dtype of ours.
        ShapeError: it is not contiguous, and `copy` is False.
    """
    s = _structures()
    c = s.c
    capsule = _capsule(source)
    name = s.capsule_name(capsule)
    if name not in (_LEGACY, _VERSIONED):
        raise DTypeError(
            f"from_dlpack: got a capsule named {name!r}, which is spent or not DLPack's; ask for a new one"
        )
    pointer = s.capsule_pointer(capsule, name)
    managed = c.cast(pointer, c.POINTER(s.Versioned if name == _VERSIONED else s.Legacy)).contents
    if name == _VERSIONED and managed.major != 1:
        raise DTypeError(f"from_dlpack: got DLPack {managed.major}.{managed.minor}, want version 1")
    array = managed.array
    if array.device.type not in _HOST_READABLE:
        raise DeviceError(
            f"from_dlpack: the memory is on a device of type {array.device.type}; move it to the CPU first"
        )
    dtype = _dtype(array.dtype)
    shape = tuple(array.shape[: array.ndim])
    s.rename(capsule, _USED[name])
    size = 1
    for dim in shape:
        size *= dim
    if not size:
        _delete(managed, pointer)
        return memoryview(b""), shape, dtype
    strides = tuple(array.strides[: array.ndim]) if array.strides else _row_major(shape)
    reach = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
    before = -sum(step for step in reach if step < 0)
    count = 1 + before + sum(step for step in reach if step > 0)
    start = array.data + array.byte_offset - before * dtype.itemsize
    memory = (c.c_ubyte * (count * dtype.itemsize)).from_address(start)
    weakref.finalize(memory, _delete, managed, pointer)
    view = memoryview(memory).cast("B")
    if name == _VERSIONED and managed.flags & _READ_ONLY:
        view = view.toreadonly()
    if all(n == 1 or step == want for n, step, want in zip(shape, strides, _row_major(shape), strict=True)):
        return view, shape, dtype
    if copy is False:
        raise ShapeError(
            f"from_dlpack: strides {strides} of {shape} are not contiguous; without copy=False it is copied"
        )
    return _gathered(view, before, shape, strides, dtype), shape, dtype


def _capsule(source: object) -> object:
    if not hasattr(source, "__dlpack__"):
        return source
    kind, _ = source.__dlpack_device__()
    if kind not in _HOST_READABLE:
        raise DeviceError(f"from_dlpack: the memory is on a device of type {kind}; move it to the CPU first")
    try:
        return source.__dlpack__(max_version=(1, 1))
    except TypeError:  # a library from before version 1
        return source.__dlpack__()


def _delete(managed: ctypes.Structure, pointer: int) -> None:
    if managed.deleter:
        managed.deleter(pointer)


def _dtype(found: ctypes.Structure) -> DType:
    kind = _KINDS_OF_CODES.get(found.code, "")
    name = _NAMES_OF_CODES.get(found.code) or ("bool" if kind == "bool" else f"{kind}{found.bits}")
    if found.lanes != 1 or (not kind and found.code not in _NAMES_OF_CODES):
        raise DTypeError(
            f"from_dlpack: type code {found.code} of {found.lanes} lanes has no dtype here; cast it first"
        )
    return dtype_of(name)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides[: len(shape)])


def _gathered(
    data: memoryview, start: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType
) -> memoryview:
    """The strided elements copied into row-major order."""
    import numpy as np

    from tg_ir.numpy_dtypes import numpy_dtype

    flat = np.frombuffer(data, numpy_dtype(dtype))[start:]
    steps = [step * dtype.itemsize for step in strides]
    array = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, steps))
    return memoryview(array.reshape(-1).view(np.uint8))
