"""What the formats share: mapped files, tensors that are read when asked for, writes that are all or nothing.

A reader checks everything that its header says against the size of the file before it makes an entry, so that reading
a tensor cannot go wrong later, and takes nothing from the file but numbers, names and bytes.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from tg_frontend import Tensor, arange, dtypes, frombuffer
from tg_nn.errors import StateFileError

__all__ = ["Entry", "StateFile", "ZipMember", "atomic_write", "check_shape", "fail", "map_file", "open_zip"]

MAX_DIMENSIONS = 64
_MAP_NORESERVE = 0x4000  # Linux: a file may be larger than memory
_DEFLATE_LIMIT = 1032  # deflate cannot shrink anything further


def fail(path: os.PathLike | str, what: str) -> NoReturn:
    """Raise the one error that a bad file gives."""
    raise StateFileError(f"{path}: {what}; get the file again, or save it anew")


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file: its bytes are read by `load`."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], memoryview | bytes]
    strides: tuple[int, ...] | None = None
    """In elements; None is row-major."""

    def load(self) -> Tensor:
        """The tensor, over the mapped file itself where it is aligned there."""
        data, itemsize = self.read(), dtypes.dtype_of(self.dtype).itemsize
        if self.strides is None or 0 in self.shape:
            return frombuffer(data, dtype=self.dtype, shape=self.shape)
        order = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])
        inner, steps = 1, {}
        for axis in reversed(order):
            steps[axis], inner = inner, inner * self.shape[axis]
        if all(self.strides[axis] == steps[axis] or self.shape[axis] == 1 for axis in order):
            outer_first = frombuffer(data, dtype=self.dtype, shape=tuple(self.shape[axis] for axis in order))
            return outer_first.permute(*[order.index(axis) for axis in range(len(order))])
        flat = frombuffer(data, dtype=self.dtype, shape=(len(data) // itemsize,))
        index = arange(1).reshape(*[1] * len(self.shape))
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            index = (
                index
                + arange(size).reshape(*[-1 if i == axis else 1 for i in range(len(self.shape))]) * stride
            )
        return flat[index]


class StateFile(Mapping[str, Tensor]):
    """The tensors of a file by name; each is read when it is asked for."""

    def __init__(self, path: os.PathLike | str, entries: dict[str, Entry], metadata: dict | None = None):
        self.path, self.metadata, self._entries = Path(path), metadata or {}, entries

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read."""
        return self._entries[name].shape

    def __repr__(self) -> str:
        return f"<{len(self)} tensors in {self.path}>"


def map_file(path: os.PathLike | str) -> mmap.mmap:
    """The file's bytes, read as they are touched. Writable, so that devices share them without a copy; what is written
    stays in this process."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            fail(path, "the file is empty")
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | _MAP_NORESERVE, protection)


def check_shape(path: os.PathLike | str, name: str, shape: object) -> tuple[int, ...]:
    """The shape as a tuple of sizes."""
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        fail(path, f"tensor {name!r} has no valid shape")
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**63:
            fail(path, f"tensor {name!r} has a size {size!r}")
    if math.prod(shape) >= 2**63:
        fail(path, f"tensor {name!r} has {math.prod(shape)} elements")
    return tuple(shape)


def aligned(data: memoryview, start: int, size_bytes: int) -> memoryview | bytes:
    """A slice of mapped bytes; a copy where its start is not a multiple of 8."""
    part = data[start : start + size_bytes]
    return part if start % 8 == 0 else bytes(part)


# ---- archives --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A file in an archive: `size` bytes when it is read."""

    size: int
    read: Callable[[], memoryview | bytes]


def open_zip(path: os.PathLike | str) -> dict[str, ZipMember]:
    """The members of a zip archive; stored ones are read in place, deflated ones unpacked to the size they state."""
    data = memoryview(map_file(path))
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        EOFError,
        struct.error,
        OverflowError,
    ) as error:
        raise StateFileError(f"{path}: not a whole zip archive ({error}); get the file again") from error
    return {info.filename: _member(path, data, info) for info in found if not info.filename.endswith("/")}


def _member(path: os.PathLike | str, data: memoryview, info: zipfile.ZipInfo) -> ZipMember:
    at = info.header_offset
    if at < 0 or at + 30 > len(data) or bytes(data[at : at + 4]) != b"PK\x03\x04" or info.flag_bits & 1:
        fail(path, f"member {info.filename!r} is not where the archive says, or encrypted")
    start = at + 30 + sum(struct.unpack("<HH", data[at + 26 : at + 30]))
    if start + info.compress_size > len(data):
        fail(path, f"member {info.filename!r} is cut off")
    if info.compress_type == zipfile.ZIP_STORED:
        if info.file_size != info.compress_size:
            fail(path, f"member {info.filename!r} states two sizes")
        return ZipMember(info.file_size, lambda: aligned(data, start, info.file_size))
    if (
        info.compress_type != zipfile.ZIP_DEFLATED
        or info.file_size > (info.compress_size + 1) * _DEFLATE_LIMIT
    ):
        fail(path, f"member {info.filename!r} is packed in a way that is not read here")

    def unpack() -> bytes:
        packed = zlib.decompressobj(-15)
        try:
            raw = packed.decompress(data[start : start + info.compress_size], info.file_size + 1)
        except zlib.error as error:
            raise StateFileError(f"{path}: member {info.filename!r} does not unpack ({error})") from error
        if len(raw) != info.file_size or zlib.crc32(raw) != info.CRC:
            fail(path, f"member {info.filename!r} is damaged")
        return raw

    return ZipMember(info.file_size, unpack)


# ---- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: os.PathLike | str) -> Iterator[IO[bytes]]:
    """`with atomic_write(path) as file:` the file appears whole and on disk when the block ends, or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def realized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without history, computed together."""
    made = {name: tensor.detach() for name, tensor in tensors.items()}
    if made:
        first, *rest = made.values()
        first.realize(*rest)
    return made
