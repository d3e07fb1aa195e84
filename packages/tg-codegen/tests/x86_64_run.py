"""Runs x86-64 code in this process, for the tests: writable, then executable, never both."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_PAGE = mmap.PAGESIZE
_NEEDS = {
    "avx2": {"avx2", "fma", "f16c", "bmi2"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_fp16", "avx512_bf16"},
}


@cache
def missing(level: str) -> str:
    """What this CPU lacks for a level, "" if nothing."""
    with open("/proc/cpuinfo") as file:
        line = next(line for line in file if line.startswith("flags"))
    return " ".join(sorted(_NEEDS[level] - set(line.split())))


LEVELS = [
    pytest.param(
        level, marks=pytest.mark.skipif(bool(missing(level)), reason=f"this CPU lacks {missing(level)}")
    )
    for level in _NEEDS
]
"""Parameters of a test that runs code of each level."""


def _pages(size_bytes: int) -> int:
    address = _libc.mmap(
        None, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    assert address not in (None, ctypes.c_void_p(-1).value), "mmap failed"
    return address


class Guarded:
    """A copy of an array that ends where a page begins which nobody may touch."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.size = -(-max(array.nbytes, 1) // _PAGE) * _PAGE + 2 * _PAGE
        self.start = _pages(self.size)
        self.address = self.start + self.size - _PAGE - array.nbytes
        _libc.mprotect(self.start + self.size - _PAGE, _PAGE, 0)
        _libc.mprotect(self.start, _PAGE, 0)
        ctypes.memmove(self.address, array.ctypes.data, array.nbytes)

    def back(self) -> None:
        ctypes.memmove(self.array.ctypes.data, self.address, self.array.nbytes)
        _libc.munmap(self.start, self.size)


def run(
    code: bytes, buffers: Sequence[np.ndarray], scalars: Sequence[int] = (), begin: int = 0, end: int = 1
) -> None:
    """Call a kernel on arrays, which are changed in place."""
    size = -(-len(code) // _PAGE) * _PAGE
    address = _pages(size)
    ctypes.memmove(address, code, len(code))
    assert _libc.mprotect(address, size, mmap.PROT_READ | mmap.PROT_EXEC) == 0
    guarded = [Guarded(buffer) for buffer in buffers]
    block = struct.pack(f"<{len(buffers)}Q{len(scalars)}q", *[g.address for g in guarded], *scalars)
    ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)(address)(block, begin, end)
    _libc.munmap(address, size)
    for g in guarded:
        g.back()
