"""The C library's calls that the runtime makes, with their types."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

__all__ = ["call", "map_pages", "new_thread", "protect", "unmap"]

_libc = ctypes.CDLL(None, use_errno=True)
_pointer, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "mmap": (_pointer, (_pointer, _size, _int, _int, _int, ctypes.c_long)),
    "munmap": (_int, (_pointer, _size)),
    "mprotect": (_int, (_pointer, _size, _int)),
    "madvise": (_int, (_pointer, _size, _int)),
    "pthread_create": (_int, (_pointer, _pointer, _pointer, _pointer)),
    "pthread_join": (_int, (ctypes.c_ulong, _pointer)),
    "pthread_sigqueue": (_int, (ctypes.c_ulong, _int, _pointer)),
    "sigaction": (_int, (_int, _pointer, _pointer)),
    "syscall": (ctypes.c_long, (ctypes.c_long, ctypes.c_long, ctypes.c_long)),
}


def call(name: str) -> Callable[..., int | None]:
    """A function of the C library; the interpreter runs other threads meanwhile."""
    function = getattr(_libc, name)
    function.restype, function.argtypes = _SIGNATURES[name]
    return function


def map_pages(size_bytes: int) -> int:
    """Address of fresh private pages, readable and writable, that nothing unmaps by itself. Raises: OSError."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = call("mmap")(None, size_bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address is None or address == _pointer(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return address


def unmap(address: int, size_bytes: int) -> None:
    """Give pages back."""
    assert call("munmap")(address, size_bytes) == 0, "munmap refuses pages that map_pages gave"


def protect(address: int, size_bytes: int, protection: int) -> None:
    """Change what pages may be used for. Raises: OSError."""
    if call("mprotect")(address, size_bytes, protection):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def new_thread(code: int, argument: int) -> int:
    """A native thread that calls the code at an address. Raises: OSError."""
    thread = ctypes.c_ulong()
    error = call("pthread_create")(ctypes.addressof(thread), None, code, argument)
    if error:
        raise OSError(error, os.strerror(error))
    return thread.value
