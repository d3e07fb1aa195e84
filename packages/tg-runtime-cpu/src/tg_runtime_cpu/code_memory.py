"""Executable memory: regions of pages that many binaries share, never writable and executable at once.

A region is made executable again after each piece of code that is added to it. While code of the open region may be
running, it must not lose that right, so a new region is opened then. A region goes when its last user has gone.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from ctypes import memmove

from tg_runtime_cpu.libc import map_pages, protect, unmap

__all__ = ["Code", "CodeMemory"]

REGION_BYTES = 1 << 16
_ALIGNMENT = 64


class Code:
    """Code at an address; the pages stay for as long as this object lives."""

    __slots__ = ("__weakref__", "address")

    def __init__(self, address: int):
        self.address = address


class _Region:
    __slots__ = ("address", "size_bytes", "used_bytes", "users")

    def __init__(self, size_bytes: int):
        self.size_bytes = -(-size_bytes // REGION_BYTES) * REGION_BYTES
        self.address, self.used_bytes, self.users = map_pages(self.size_bytes), 0, 0


class CodeMemory:
    """Places code in regions. `mapped_bytes` is what they take."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may run in a thread that holds it
        self._open: _Region | None = None
        self.mapped_bytes = 0

    def add(self, code: bytes, running: bool) -> Code:
        """Make code executable; `running` tells whether code added before may run meanwhile."""
        with self._lock:
            region = self._open
            if region is None or running or region.used_bytes + len(code) > region.size_bytes:
                region = _Region(len(code))
                self.mapped_bytes += region.size_bytes
                closed, self._open = self._open, region
                if closed is not None:
                    self._release(closed)
            else:
                protect(region.address, region.size_bytes, mmap.PROT_READ | mmap.PROT_WRITE)
            address = region.address + region.used_bytes
            memmove(address, code, len(code))
            protect(region.address, region.size_bytes, mmap.PROT_READ | mmap.PROT_EXEC)
            region.used_bytes += -(-len(code) // _ALIGNMENT) * _ALIGNMENT
            region.users += 1
            placed = Code(address)
            weakref.finalize(placed, self._forget, region).atexit = False
            return placed

    def renew_lock(self) -> None:
        """In the child of a fork, where nobody is left to release it."""
        self._lock = threading.RLock()

    def _forget(self, region: _Region) -> None:
        with self._lock:
            region.users -= 1
            self._release(region)

    def _release(self, region: _Region) -> None:
        if region.users == 0:
            if region is self._open:
                self._open = None
            self.mapped_bytes -= region.size_bytes
            unmap(region.address, region.size_bytes)
