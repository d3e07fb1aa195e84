"""PyTorch's .pt and .pth: a pickle of names and shapes, and the bytes of storages beside it.

Zip archives (since PyTorch 1.6) are read and written; the older stream of pickles and storages is read.
Source: the layout of what torch.save writes, and the signatures of torch._utils._rebuild_*.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

from tg_frontend import Tensor, dtypes
from tg_nn.errors import StateFileError
from tg_nn.state.mapped import (
    Entry,
    StateFile,
    ZipMember,
    aligned,
    atomic_write,
    check_shape,
    fail,
    map_file,
    open_zip,
    realized,
)
from tg_nn.state.pickles import Global, Persistent, read_pickle, write_pickle

__all__ = ["load_torch", "open_torch", "save_torch"]

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
}  # fmt: skip
_NAMES = {name: storage for storage, name in _STORAGES.items() if storage != "UntypedStorage"}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_DEPTH = 64


@dataclass(slots=True)
class _Storage:
    dtype: str
    elements: int
    read: Callable[[], memoryview | bytes] | None = None


def load_torch(path: os.PathLike | str) -> object:
    """What torch.save wrote: dicts, lists, tuples, numbers and texts, with tensors over the mapped file.

    Raises:
        StateFileError: the file is damaged, or holds anything but tensors and plain data; nothing of it was run.
    """
    return _load_leaves(path, _read(path), 0)


def _load_leaves(path: os.PathLike | str, value: object, depth: int) -> object:
    if depth > MAX_DEPTH:
        fail(path, f"values are nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        return {key: _load_leaves(path, item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_load_leaves(path, item, depth + 1) for item in value])
    return value.load() if isinstance(value, Entry) else value


def open_torch(path: os.PathLike | str, members: dict[str, ZipMember] | None = None) -> StateFile:
    """The tensors in the dicts of a PyTorch file, named by their keys joined with dots."""
    entries = dict(_named(path, _read(path, members), "", 0))
    if not entries:
        fail(path, "no dict of tensors in it (load_torch gives what there is)")
    return StateFile(path, entries)


def _named(path: os.PathLike | str, value: object, name: str, depth: int) -> Iterator[tuple[str, Entry]]:
    if depth > MAX_DEPTH:
        fail(path, f"values are nested deeper than {MAX_DEPTH}")
    if isinstance(value, Entry) and name:
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _named(path, item, f"{name}.{key}" if name else str(key), depth + 1)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(path: os.PathLike | str, members: dict[str, ZipMember] | None = None) -> object:
    if members is None and bytes(map_file(path)[:4]) == b"PK\x03\x04":
        members = open_zip(path)
    try:
        return _read_stream(path) if members is None else _read_archive(path, members)
    except StateFileError as error:
        if str(error).startswith(str(path)):
            raise
        raise StateFileError(f"{path}: not a PyTorch file of tensors: {error}") from error


def _read_archive(path: os.PathLike | str, members: dict[str, ZipMember]) -> object:
    pickled = next((name for name in members if name.endswith("/data.pkl")), None)
    if pickled is None:
        fail(path, "an archive without data.pkl")
    folder = pickled.removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order is not None and bytes(order.read()).strip() not in (b"little", b""):
        fail(path, "numbers in big-endian order")

    def storage(reference: object) -> _Storage:
        found, key = _described(reference)
        member = members.get(f"{folder}data/{key}")
        size = found.elements * dtypes.dtype_of(found.dtype).itemsize
        if member is None or member.size < size:
            fail(path, f"storage {key!r} of {size} bytes is missing or cut off")
        found.read = lambda: member.read()[:size]
        return found

    data = bytes(members[pickled].read())
    return read_pickle(BytesIO(data), _calls(path), _is_known, storage)


def _read_stream(path: os.PathLike | str) -> object:
    file = map_file(path)
    data, storages = memoryview(file), {}

    def storage(reference: object) -> _Storage:
        found, key = _described(reference)
        if len(reference) > 5 and reference[5] is not None:
            raise StateFileError("it has views of storages; save it with a newer PyTorch")
        return storages.setdefault(key, found)

    def refuse(reference: object) -> object:
        raise StateFileError(f"it refers to {reference!r} too early")

    def read(persistent: Callable = refuse) -> object:
        return read_pickle(file, _calls(path), _is_known, persistent)

    if read() != _LEGACY_MAGIC or read() != 1001 or not isinstance(read(), dict):
        raise StateFileError("it does not begin as torch.save begins")
    value, keys = read(storage), read()
    if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
        raise StateFileError("its list of storages does not fit")
    at = file.tell()
    for key in map(str, keys):
        found = storages[key]
        size = found.elements * dtypes.dtype_of(found.dtype).itemsize
        if at + 8 > len(data) or at + 8 + size > len(data):
            fail(path, f"storage {key!r} of {size} bytes is cut off")
        if struct.unpack("<q", data[at : at + 8])[0] != found.elements:
            fail(path, f"storage {key!r} states two sizes")
        found.read = lambda start=at + 8, size=size: aligned(data, start, size)
        at += 8 + size
    return value


def _described(reference: object) -> tuple[_Storage, str]:
    """What a persistent id says: ("storage", type, key, location, elements, ..)."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise StateFileError(f"it refers to {reference!r}")
    kind, elements = reference[1], reference[4]
    if not isinstance(kind, Global) or kind.name not in _STORAGES:
        raise StateFileError(f"a storage is of type {kind}")
    if type(elements) is not int or not 0 <= elements < 2**63:
        raise StateFileError(f"a storage has {elements!r} elements")
    return _Storage(_STORAGES[kind.name], elements), str(reference[2])


def _is_known(name: Global) -> bool:
    """Storage types, dtypes and the like, which stand in pickles as arguments."""
    return (name.module in ("torch", "torch.storage") and name.name in _STORAGES) or (
        name.module == "torch" and hasattr(dtypes, name.name)
    )


def _calls(path: os.PathLike | str) -> dict[str, Callable]:
    def tensor(
        storage: object,
        offset: object,
        size: object,
        strides: object,
        *rest: object,
        dtype: str | None = None,
    ) -> Entry:
        if not isinstance(storage, _Storage):
            raise StateFileError("a tensor has no storage")
        shape = check_shape(path, "in a pickle", size)
        strides = check_shape(path, "in a pickle", strides)
        dtype = dtype or storage.dtype
        itemsize = dtypes.dtype_of(dtype).itemsize
        elements = storage.elements * dtypes.dtype_of(storage.dtype).itemsize // itemsize
        count = math.prod(shape)
        last = (
            sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) if count else -1
        )
        if (
            type(offset) is not int
            or offset < 0
            or offset + last >= elements + (not count)
            or count > elements
        ):
            raise StateFileError(
                f"a tensor of shape {shape}, strides {strides} and offset {offset!r} is beyond its "
                f"storage of {elements} elements, or repeats them"
            )
        row_major = tuple([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
        span = slice(offset * itemsize, (offset + last + 1) * itemsize)
        return Entry(dtype, shape, lambda: storage.read()[span], None if strides == row_major else strides)

    def tensor_of_dtype(
        storage: object, offset: object, size: object, strides: object, grad: object, hooks: object, dtype: object,
        *rest: object,
    ) -> Entry:  # fmt: skip
        if not isinstance(dtype, Global) or not hasattr(dtypes, dtype.name):
            raise StateFileError(f"a tensor is of dtype {dtype}")
        return tensor(storage, offset, size, strides, dtype=dtypes.dtype_of(dtype.name).name)

    def parameter(data: object, *rest: object) -> Entry:
        if not isinstance(data, Entry):
            raise StateFileError("a parameter is no tensor")
        return data

    return {
        "collections.OrderedDict": lambda *pairs: dict(*pairs),
        "torch.Size": lambda sizes: tuple(sizes),
        "torch.device": lambda *parts: ":".join(map(str, parts)),
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_of_dtype,
        "torch._utils._rebuild_parameter": parameter,
    }


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_torch(path: os.PathLike | str, value: object) -> None:
    """Write dicts, lists, tuples, numbers, texts and tensors so that torch.load reads them, all or nothing."""
    found: list[Tensor] = []

    def describe(item: object) -> tuple[Global, tuple] | None:
        if not isinstance(item, Tensor):
            return None
        name = "bool" if item.dtype.kind == "bool" else item.dtype.name
        if name not in _NAMES:
            raise StateFileError(f"save_torch: {path}: PyTorch has no storage of {name}; cast it first")
        shape = tuple(map(int, item.shape))
        reference = ("storage", Global("torch", _NAMES[name]), str(len(found)), "cpu", math.prod(shape))
        found.append(item)
        strides = tuple([math.prod(shape[axis + 1 :]) for axis in range(len(shape))])
        arguments = (Persistent(reference), 0, shape, strides, False, {})
        return Global("torch._utils", "_rebuild_tensor_v2"), arguments

    pickled = write_pickle(value, describe)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for name, tensor in realized({str(number): tensor for number, tensor in enumerate(found)}).items():
            archive.writestr(f"archive/data/{name}", tensor.tobytes())
        archive.writestr("archive/version", "3\n")
