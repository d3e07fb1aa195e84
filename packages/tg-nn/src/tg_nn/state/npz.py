"""npz: a zip archive of .npy files, each a short text header and the bytes.

Source: NumPy's format description (NEP 1).
"""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile
from collections.abc import Mapping

from tg_frontend import Tensor, dtypes
from tg_nn.state.mapped import (
    Entry,
    StateFile,
    ZipMember,
    atomic_write,
    check_shape,
    fail,
    open_zip,
    realized,
)

__all__ = ["open_npz", "save_npz"]

_KINDS = {"f": "float", "i": "int", "u": "uint"}
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>|=])(\w)(\d{1,2})',\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(((?:\d{1,18},?\s*)*)\),?\s*\}\s*"
)


def open_npz(path: os.PathLike | str, members: dict[str, ZipMember] | None = None) -> StateFile:
    """The arrays of an npz file by name."""
    members = open_zip(path) if members is None else members
    arrays = {name.removesuffix(".npy"): member for name, member in members.items() if name.endswith(".npy")}
    return StateFile(path, {name: _entry(path, name, member) for name, member in arrays.items()})


def _entry(path: os.PathLike | str, name: str, member: ZipMember) -> Entry:
    raw = member.read()
    head = bytes(raw[:12])
    width, letter = (2, "<H") if head[6:7] == b"\x01" else (4, "<I")
    if head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3) or len(head) < 12:
        fail(path, f"array {name!r} is no .npy file")
    start = 8 + width + struct.unpack(letter, head[8 : 8 + width])[0]
    match = _HEADER.fullmatch(bytes(raw[8 + width : min(start, 8 + width + 10_000)]).decode("latin-1"))
    if match is None:
        fail(path, f"array {name!r} has a header of no kind that is read here")
    order, kind, size, fortran, sizes = match.groups()
    dtype = "bool" if (kind, size) == ("b", "1") else f"{_KINDS.get(kind, kind)}{int(size) * 8}"
    if order == ">" or not hasattr(dtypes, dtype):
        fail(path, f"array {name!r} has the dtype {order}{kind}{size}; want numbers in little-endian order")
    shape = check_shape(path, name, [int(part) for part in sizes.replace(",", " ").split()])
    if start + math.prod(shape) * dtypes.dtype_of(dtype).itemsize != member.size:
        fail(path, f"array {name!r} of shape {shape} and {dtype} does not fit its {member.size} bytes")
    strides = tuple([math.prod(shape[:axis]) for axis in range(len(shape))]) if fortran == "True" else None
    # A stored member is read again, in place; a deflated one is unpacked again rather than kept.
    return Entry(dtype, shape, lambda: member.read()[start:], strides)


def save_npz(path: os.PathLike | str, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors as NumPy's `savez` does, all or nothing; bfloat16 and float8 as float32."""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in realized(tensors).items():
            kind = tensor.dtype.kind
            narrow = kind == "float" and tensor.dtype.name not in ("float16", "float32", "float64")
            tensor = tensor.float() if narrow else tensor
            descr = (
                "|b1"
                if kind == "bool"
                else f"{'|' if tensor.itemsize == 1 else '<'}{kind[0]}{tensor.itemsize}"
            )
            shape = tuple(map(int, tensor.shape))
            text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
            text += " " * (-(len(text) + 11) % 64) + "\n"
            head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
            archive.writestr(f"{name}.npy", head + tensor.tobytes())
