"""GGUF: typed metadata, a table of tensors, and their data; quantised ones are kept packed.

Source: docs/gguf.md of ggml (layout of versions 2 and 3, numbers of types).
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass

from tg_frontend import dtypes, frombuffer
from tg_nn.errors import StateFileError
from tg_nn.state.mapped import Entry, StateFile, aligned, check_shape, fail, map_file
from tg_nn.state.quantized import KINDS, PackedTensor

__all__ = ["open_gguf"]

_PLAIN = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16",
}  # fmt: skip
_PACKED = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
    15: "Q8_K", 20: "IQ4_NL", 39: "MXFP4",
}  # fmt: skip
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class _PackedEntry(Entry):
    """A quantised tensor; `dtype` names its kind."""

    def load(self) -> PackedTensor:
        kind, data = KINDS[self.dtype], self.read()
        return PackedTensor(
            self.dtype,
            self.shape,
            frombuffer(data, dtype="uint8", shape=(len(data) // kind.bytes, kind.bytes)),
        )


class _Cursor:
    """Reads values one after the other, never beyond the end."""

    def __init__(self, path: os.PathLike | str, data: mmap.mmap):
        self.path, self.data, self.at = path, data, 4

    def scalar(self, code: str) -> int | float | bool:
        size = struct.calcsize(code)
        self.require(size)
        value = struct.unpack_from(code, self.data, self.at)[0]
        self.at += size
        return value

    def require(self, size: int) -> None:
        if size > len(self.data) - self.at:
            fail(self.path, f"the file ends in its header: want {size} bytes more at byte {self.at}")

    def string(self) -> str:
        size = self.scalar("<Q")
        self.require(size)
        raw = self.data[self.at : self.at + size]
        self.at += size
        return raw.decode("utf-8", "surrogateescape")

    def value(self, kind: int, depth: int = 0) -> object:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth > 4:
            fail(self.path, f"metadata of type {kind}, which does not exist")
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind in _SCALARS:
            code = f"<{count}{_SCALARS[kind][1]}"
            self.require(count * struct.calcsize(_SCALARS[kind]))
            values = list(struct.unpack_from(code, self.data, self.at))
            self.at += struct.calcsize(code)
            return values
        self.require(count)  # each takes a byte at least
        return [self.value(kind, depth + 1) for _ in range(count)]


def open_gguf(path: os.PathLike | str) -> StateFile:
    """The tensors of a GGUF file (quantised ones as PackedTensor), with its metadata.

    Shapes: row-major, as everywhere here: the reverse of what the file says.

    Raises:
        StateFileError: the file is malformed or cut off, or holds a type that is not read here.
    """
    cursor = _Cursor(path, map_file(path))
    if cursor.data[:4] != b"GGUF" or cursor.scalar("<I") not in (2, 3):
        fail(path, "not a GGUF file of version 2 or 3")
    tensors, pairs = cursor.scalar("<Q"), cursor.scalar("<Q")
    cursor.require(tensors + pairs)
    metadata = {}
    for _ in range(pairs):
        name = cursor.string()
        metadata[name] = cursor.value(cursor.scalar("<I"))
    rows = []
    for _ in range(tensors):
        name, rank = cursor.string(), cursor.scalar("<I")
        cursor.require(rank * 8)
        rows.append(
            (name, [cursor.scalar("<Q") for _ in range(rank)], cursor.scalar("<I"), cursor.scalar("<Q"))
        )
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**20:
        fail(path, f"an alignment of {alignment!r}")
    base = -(-cursor.at // alignment) * alignment
    data = memoryview(cursor.data)
    entries = {}
    for name, sizes, kind, offset in rows:
        if name in entries:
            fail(path, f"tensor {name!r} stands twice")
        entries[name] = _entry(path, data, name, sizes, kind, base + offset)
    return StateFile(path, entries, metadata)


def _entry(
    path: os.PathLike | str, data: memoryview, name: str, sizes: list[int], kind: int, start: int
) -> Entry:
    shape = check_shape(path, name, sizes[::-1])
    count = math.prod(shape)
    if kind in _PLAIN:
        make, dtype, size = Entry, _PLAIN[kind], count * dtypes.dtype_of(_PLAIN[kind]).itemsize
    elif kind in _PACKED:
        make, dtype, block = _PackedEntry, _PACKED[kind], KINDS[_PACKED[kind]]
        if not shape or shape[-1] % block.numbers:
            fail(path, f"tensor {name!r} of shape {shape} is not whole blocks of {block.numbers}")
        size = count // block.numbers * block.bytes
    else:
        known = ", ".join([*_PLAIN.values(), *KINDS])
        raise StateFileError(f"{path}: tensor {name!r} is of GGUF type {kind}; want one of {known}")
    if start + size > len(data):
        fail(path, f"tensor {name!r} of {size} bytes is cut off")
    return make(dtype, shape, lambda: aligned(data, start, size))
