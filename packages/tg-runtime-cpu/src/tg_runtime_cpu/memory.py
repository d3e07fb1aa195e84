"""Memory of the CPU device: aligned blocks, pooled by size class.

Freed blocks wait until the work that was submitted before is done, and until no memoryview of them is left. Small ones
are cut from larger pages; large ones have pages of their own, which go back to the system when memory is short.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable

from tg_ir.errors import DeviceError
from tg_runtime_cpu.errors import OutOfMemoryError
from tg_runtime_cpu.libc import call, map_pages, unmap

__all__ = ["ALIGNMENT", "Allocator", "Arena", "CpuMemory"]

ALIGNMENT = 64
_SMALL_BYTES = 1 << 17
_CHUNK_BYTES = 1 << 20
_HUGE_PAGE_BYTES = 1 << 21
_MADV_HUGEPAGE = 14

Done = Callable[[], bool]


class CpuMemory:
    """A block of memory. `address` and `view` are for whoever works on the host; the bytes are the memory itself."""

    __slots__ = ("__weakref__", "_array", "_keep", "address", "born", "size_bytes")

    def __init__(self, address: int, size_bytes: int, keep: object = None):
        self.address, self.size_bytes, self._keep = address, size_bytes, keep
        self._array: ctypes.Array[ctypes.c_ubyte] | None = None
        self.born: object = None
        """The work that was submitted last when this block was given out."""

    @property
    def view(self) -> memoryview:
        """The bytes, writable. The block is not given out again before this view has gone."""
        if self._array is None:
            self._array = (ctypes.c_ubyte * self.size_bytes).from_address(self.address)
        return memoryview(self._array).cast("B")

    def __repr__(self) -> str:
        return f"<{self.size_bytes} bytes of CPU memory at 0x{self.address:x}>"


class Arena:
    """Memory that is given back when nobody refers to it any more."""

    def __init__(self, memory: CpuMemory, free: Callable[[CpuMemory], None]):
        self.memory, self._free = memory, free

    def __del__(self) -> None:
        self._free(self.memory)


def share(data: memoryview) -> CpuMemory:
    """Memory over a writable contiguous buffer of the host, which it keeps alive."""
    array = (ctypes.c_ubyte * data.nbytes).from_buffer(data)
    memory = CpuMemory(ctypes.addressof(array), data.nbytes, keep=array)
    memory._array = array  # so that a view keeps the buffer alive as well
    return memory


def class_bytes(size_bytes: int) -> int:
    """The size of the blocks that serve a size: four classes between powers of two, and a multiple of 64."""
    size_bytes = max(size_bytes, 1)
    step = max(ALIGNMENT, 1 << max(0, (size_bytes - 1).bit_length() - 3))
    return -(-size_bytes // step) * step


class Allocator:
    """The memory of one device, at most `limit_bytes` of it in use."""

    def __init__(self, name: str, limit_bytes: int | None = None):
        self.name = name
        self.limit_bytes = limit_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.used_bytes = 0
        self._lock = threading.RLock()
        self._sizes: dict[int, int] = {}  # of blocks in use, by address
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._returned: deque[tuple[int, Done]] = deque()  # freed, and still in use by submitted work
        self._shared: deque[tuple[object, Done]] = deque()  # buffers of the host, likewise
        self._chunk, self._chunk_left = 0, 0

    def alloc(self, size_bytes: int) -> CpuMemory:
        """An uninitialised block. Raises: OutOfMemoryError."""
        size = class_bytes(size_bytes)
        with self._lock:
            self._collect()
            if self.used_bytes + size > self.limit_bytes:
                raise self._error(size_bytes)
            free = self._free[size]
            try:
                address = free.pop() if free else self._carve(size)
            except OSError:
                self.trim()
                try:
                    address = self._carve(size)
                except OSError:
                    raise self._error(size_bytes) from None
            self._sizes[address] = size
            self.used_bytes += size
            return CpuMemory(address, size_bytes)

    def free(self, memory: CpuMemory, done: Done) -> None:
        """Take a block back, for use when `done` says so. Raises: DeviceError for one that is not in use."""
        if memory._keep is not None:
            if not done():
                self._shared.append((memory._keep, done))
            memory._keep = memory._array = None
            return
        if self._sizes.get(memory.address) is None or memory.size_bytes < 0:
            raise DeviceError(f"{self.name}: free: got {memory!r}, want memory in use on this device, once")
        array, memory._array, memory.size_bytes = memory._array, None, -1
        if array is None:
            self._returned.append((memory.address, done))
        else:  # a view keeps the array alive, and with it the block; deque.append needs no lock
            weakref.finalize(array, self._returned.append, (memory.address, done)).atexit = False

    def trim(self) -> None:
        """Give unused large blocks back to the system."""
        with self._lock:
            self._collect()
            for size, free in self._free.items():
                while size > _SMALL_BYTES and free:
                    unmap(free.pop(), size)

    def renew_lock(self) -> None:
        """In the child of a fork, where nobody is left to release it."""
        self._lock = threading.RLock()

    @property
    def waiting(self) -> bool:
        """Whether freed blocks wait for work to be done."""
        return bool(self._returned)

    def _collect(self) -> None:
        while self._returned and self._returned[0][1]():
            address, _ = self._returned.popleft()
            size = self._sizes.pop(address)
            self.used_bytes -= size
            self._free[size].append(address)
        while self._shared and self._shared[0][1]():
            self._shared.popleft()

    def _carve(self, size: int) -> int:
        if size > _SMALL_BYTES:
            address = map_pages(size)
            if size >= _HUGE_PAGE_BYTES:
                call("madvise")(address, size, _MADV_HUGEPAGE)  # a hint: the kernel may have none
            return address
        if size > self._chunk_left:
            self._chunk, self._chunk_left = map_pages(_CHUNK_BYTES), _CHUNK_BYTES
        address = self._chunk
        self._chunk, self._chunk_left = address + size, self._chunk_left - size
        return address

    def _error(self, size_bytes: int) -> OutOfMemoryError:
        largest = sorted(self._sizes.items(), key=lambda item: -item[1])[:5]
        named = ", ".join(f"{size:,} bytes at 0x{address:x}" for address, size in largest) or "none"
        return OutOfMemoryError(
            f"{self.name}: out of memory: got a request for {size_bytes:,} bytes, with {self.used_bytes:,} of "
            f"{self.limit_bytes:,} bytes in use by {len(self._sizes)} allocations; the largest: {named}"
        )
