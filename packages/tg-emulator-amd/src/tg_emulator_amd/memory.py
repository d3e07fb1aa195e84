"""Memory of the virtual machine: a store that stands behind all VRAM and GTT, and each GPU's page tables over it.

The store is a file in memory, mapped here and, at the addresses that a client asks for, in the client. The client's
own pages that a GPU shall see (userptr, SVM) become pages of the store, in place. So `backing` is the store as far as
it has been given out, and translation is one addition.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import mmap
import os
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from .errors import MemoryFault

__all__ = ["AddressSpace", "HostMemory", "PageRange", "Store"]

PAGE_BYTES = 4096
_STORE_BYTES = 1 << 40
_MAP_FIXED = 0x10
_FALLOC_PUNCH_HOLE, _FALLOC_KEEP_SIZE = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_int64)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def map_pages(address: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
    """mmap of the C library. Raises: OSError."""
    mapped = _libc.mmap(address, size, protection, flags, descriptor, offset)
    if mapped is None or mapped == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return mapped


def unmap_pages(address: int, size: int) -> None:
    """munmap of the C library. Raises: OSError."""
    if _libc.munmap(address, size):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Store:
    """Sparse memory from which ranges are taken; a range given back is empty when it is taken again."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("tg-emulator-amd", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, _STORE_BYTES)
        self.base = map_pages(
            0, _STORE_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, self.descriptor, 0
        )
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * _STORE_BYTES).from_address(self.base))
        self.used = PAGE_BYTES  # offset 0 stays free: an mmap offset of 0 means nothing
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, size: int) -> int:
        """The offset of `size` bytes, whole pages, all 0."""
        if self._free[size]:
            return self._free[size].pop()
        if self.used + size > _STORE_BYTES:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self.used += size
        return self.used - size

    def adopt(self, host: HostMemory, address: int, size: int) -> int:
        """Make pages of this process pages of the store, with their contents; their offset. Raises: OSError EFAULT."""
        data = host.read(address, size)
        offset = self.take(size)
        os.pwrite(self.descriptor, data, offset)
        flags = mmap.MAP_SHARED | _MAP_FIXED
        map_pages(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, self.descriptor, offset)
        return offset

    def release(self, host: HostMemory, address: int, offset: int, size: int) -> None:
        """Make adopted pages the process's own again, unless it has given them up."""
        if self._still_maps(address, offset):
            data = os.pread(self.descriptor, size, offset)
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
            map_pages(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
            host.write(address, data)
        self.give_back(offset, size)

    @staticmethod
    def _still_maps(address: int, offset: int) -> bool:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                span, _access, start, *rest = line.split()
                low, high = (int(each, 16) for each in span.split("-"))
                if low <= address < high:
                    return "tg-emulator-amd" in rest[-1] and int(start, 16) + address - low == offset
        return False

    def give_back(self, offset: int, size: int) -> None:
        _libc.fallocate(self.descriptor, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, size)
        self._free[size].append(offset)

    def close(self) -> None:
        unmap_pages(self.base, _STORE_BYTES)
        os.close(self.descriptor)


class HostMemory:
    """A client's memory, read and written through /proc, so that a bad pointer is an error and no crash."""

    def __init__(self, process: int):
        self.process = process
        self._file = os.open(f"/proc/{process}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """Raises: OSError EFAULT."""
        try:
            data = os.pread(self._file, size, address) if 0 < address < 1 << 63 else b""
        except (OSError, OverflowError):
            data = b""
        if len(data) != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def write(self, address: int, data: bytes) -> None:
        """Raises: OSError EFAULT."""
        try:
            done = os.pwrite(self._file, data, address) if 0 < address < 1 << 63 else 0
        except (OSError, OverflowError):
            done = 0
        if done != len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class PageRange:
    """Pages of a GPU's address space, and where their bytes lie in the store."""

    start: int
    size: int
    offset: int
    writable: bool
    executable: bool


class AddressSpace:
    """A GPU's page tables; implements `interface.Memory`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ranges: list[PageRange] = []
        self._rebuild()

    def _rebuild(self) -> None:
        self._starts_list = [each.start for each in self.ranges]
        self._starts = np.array(self._starts_list, np.uint64)
        self._ends = np.array([each.start + each.size for each in self.ranges], np.uint64)
        # What turns an address into an offset, modulo 2**64.
        deltas = [(each.offset - each.start) % (1 << 64) for each in self.ranges]
        self._deltas = np.array(deltas, np.uint64)
        self._allowed = {
            "read": np.ones(len(self.ranges), bool),
            "write": np.array([each.writable for each in self.ranges], bool),
            "execute": np.array([each.executable for each in self.ranges], bool),
        }

    @property
    def backing(self) -> np.ndarray:
        return self.store.bytes[: self.store.used]

    def map(self, pages: PageRange) -> None:
        """Add pages. Raises: OSError EINVAL where some are mapped already."""
        at = bisect.bisect_left(self._starts_list, pages.start)
        before, after = self.ranges[at - 1 : at], self.ranges[at : at + 1]
        if (before and before[0].start + before[0].size > pages.start) or (
            after and pages.start + pages.size > after[0].start
        ):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.ranges.insert(at, pages)
        self._rebuild()

    def unmap(self, start: int) -> None:
        self.ranges = [each for each in self.ranges if each.start != start]
        self._rebuild()

    def find(self, address: int) -> PageRange | None:
        """The pages that an address is in."""
        at = bisect.bisect_right(self._starts_list, address) - 1
        if at >= 0 and address < self.ranges[at].start + self.ranges[at].size:
            return self.ranges[at]
        return None

    def check(self, address: int, size: int, access: str) -> None:
        at, end = address, address + size
        while at < end:
            pages = self.find(at)
            if pages is None:
                raise MemoryFault(at, size, access, "nothing is mapped there")
            if access == "write" and not pages.writable:
                raise MemoryFault(at, size, access, "the page is read-only")
            if access == "execute" and not pages.executable:
                raise MemoryFault(at, size, access, "the page is not executable")
            at = pages.start + pages.size

    def array(self, address: int, size: int, access: str = "read") -> np.ndarray | None:
        self.check(address, size, access)
        pages = self.find(address)
        if pages is None or address + size > pages.start + pages.size:
            return None
        offset = address - pages.start + pages.offset
        return self.store.bytes[offset : offset + size]

    def parts(self, address: int, size: int) -> list[tuple[int, int]]:
        """The bytes as offsets into the store and sizes, in order; they must be mapped."""
        found, end = [], address + size
        while address < end:
            pages = self.find(address)
            assert pages is not None, "not checked before"
            part = min(end, pages.start + pages.size) - address
            found.append((address - pages.start + pages.offset, part))
            address += part
        return found

    def read(self, address: int, size: int, access: str = "read") -> bytes:
        self.check(address, size, access)
        return b"".join(self.store.bytes[at : at + part].tobytes() for at, part in self.parts(address, size))

    def write(self, address: int, data: bytes) -> None:
        self.check(address, len(data), "write")
        source, done = np.frombuffer(data, np.uint8), 0
        for at, part in self.parts(address, len(data)):
            self.store.bytes[at : at + part] = source[done : done + part]
            done += part

    def translate(self, addresses: np.ndarray, size: int, access: str) -> np.ndarray:
        if not addresses.size:
            return addresses.astype(np.int64)
        if not self.ranges:
            raise MemoryFault(int(addresses.flat[0]), size, access, "nothing is mapped there")
        pages = self.find(int(addresses.min()))
        if pages is not None and int(addresses.max()) + size <= pages.start + pages.size:  # all in one range
            self.check(int(addresses.min()), 1, access)
            return addresses.astype(np.int64) + (pages.offset - pages.start)
        index = np.searchsorted(self._starts, addresses, "right") - 1
        bad = (index < 0) | ~self._allowed[access][index]
        bad |= addresses + np.uint64(size) > self._ends[index]
        if bad.any():
            first = int(addresses[bad].flat[0])
            self.check(first, size, access)
            if self.find(first) is self.find(first + size - 1):
                raise MemoryFault(first, size, access, "nothing is mapped there")
            # Whole in two neighbouring ranges: their bytes are not contiguous, and no instruction needs that.
            raise MemoryFault(first, size, access, "the access crosses from one allocation into another")
        return (addresses + self._deltas[index]).astype(np.int64)
