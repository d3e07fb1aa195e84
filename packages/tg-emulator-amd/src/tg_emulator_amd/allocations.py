"""A client's memory: allocations, their mapping to GPUs, shared virtual memory, dmabufs; with the kernel's checks.

Source: Linux 7.2, amdkfd/kfd_chardev.c, kfd_svm.c and amdgpu_amdkfd_gpuvm.c; include/uapi/linux/kfd_ioctl.h (flags).
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace

from .events import refuse
from .faults import Faults
from .memory import PAGE_BYTES, HostMemory, PageRange, Store
from .queues import Agent

__all__ = ["DOORBELL_BYTES", "GPUVM", "GTT", "MMAP_GPU_SHIFT", "MMIO", "Allocations", "Binding", "Buffer"]

DOORBELL_BYTES = 8192
GPUVM = (0x10000, (1 << 47) - 1)
MMAP_GPU_SHIFT, _MMAP_MMIO = 46, 0
(VRAM, GTT, USERPTR, DOORBELL, MMIO) = (1 << bit for bit in range(5))
_PUBLIC, _EXECUTABLE, _WRITABLE = 1 << 29, 1 << 30, 1 << 31
_KNOWN_FLAGS = 0x1F | 0xFF800000
_MAX_BYTES = 1 << 39


@dataclass(slots=True)
class Buffer:
    """An allocation: its bytes lie at `offset` of the store."""

    gpu_id: int
    address: int
    size: int
    flags: int
    offset: int
    mapped: set[int] = field(default_factory=set)
    in_use: int = 0  # queues that stand on it


@dataclass(slots=True)
class Binding:
    """A client's share of one GPU."""

    agent: Agent
    doorbells: int  # offset in the store
    drm_file: int | None = None
    vram_used: int = 0
    is_lost: bool = False


class Allocations:
    """What a client holds of memory, and the requests about it; `kfd.Client` has the others."""

    def __init__(self, store: Store, host: HostMemory, faults: Faults):
        self.store, self.host, self.faults = store, host, faults
        self.bindings: dict[int, Binding] = {}
        self.buffers: dict[int, Buffer] = {}
        self.dmabufs: dict[int, int] = {}
        self.svm: dict[int, tuple[int, int]] = {}  # address -> offset, size
        self.event_page: Buffer | None = None
        self._next_handle = 1

    def _binding(self, gpu_id: int) -> Binding:
        if gpu_id not in self.bindings:
            raise refuse(errno.EINVAL)
        return self.bindings[gpu_id]

    def _bound(self, gpu_id: int) -> Binding:
        """A GPU whose address space the client has acquired."""
        binding = self._binding(gpu_id)
        if binding.drm_file is None:
            raise refuse(errno.ENODEV)
        return binding

    def _alloc_memory_of_gpu(self, arguments: SimpleNamespace) -> None:
        if not arguments.size:
            raise refuse(errno.EINVAL)
        binding, flags = self._bound(arguments.gpu_id), arguments.flags
        gpu, size = binding.agent.gpu, -(-arguments.size // PAGE_BYTES) * PAGE_BYTES
        if flags & _PUBLIC and flags & VRAM and not gpu.host_visible:
            raise refuse(errno.EINVAL)
        kinds = [bit for bit in (VRAM, GTT, USERPTR, DOORBELL, MMIO) if flags & bit]
        fixed = {DOORBELL: DOORBELL_BYTES, MMIO: PAGE_BYTES}
        if len(kinds) != 1 or flags & ~_KNOWN_FLAGS or fixed.get(kinds[0], arguments.size) != arguments.size:
            raise refuse(errno.EINVAL)
        if arguments.va % PAGE_BYTES or arguments.va + size > GPUVM[1]:
            raise refuse(errno.EINVAL)
        vram = size if flags & VRAM else 0
        if self.faults.take("allocation") or binding.vram_used + vram > gpu.vram_bytes or size > _MAX_BYTES:
            raise refuse(errno.ENOMEM)
        if flags & USERPTR:
            offset = self._adopt(arguments.offset, size)
        else:
            offset = binding.doorbells if flags & DOORBELL else self.store.take(size)
        binding.vram_used += vram
        handle = arguments.gpu_id << 32 | self._next_handle
        self._next_handle += 1
        self.buffers[handle] = Buffer(arguments.gpu_id, arguments.va, size, flags, offset)
        arguments.handle = handle
        if not flags & USERPTR:
            arguments.offset = offset
        if flags & MMIO:
            arguments.offset = _MMAP_MMIO | arguments.gpu_id << MMAP_GPU_SHIFT

    def _adopt(self, address: int, size: int) -> int:
        """The offset of pages of the client, which the store takes over. Raises: OSError."""
        if address % PAGE_BYTES or self.host.process != os.getpid():
            raise refuse(errno.EINVAL)
        return self.store.adopt(self.host, address, size)

    def _buffer(self, handle: int, code: int = errno.EINVAL) -> Buffer:
        self._binding(handle >> 32)
        if handle not in self.buffers:
            raise refuse(code)
        return self.buffers[handle]

    def _free_memory_of_gpu(self, arguments: SimpleNamespace) -> None:
        buffer = self._buffer(arguments.handle)
        if buffer is self.event_page:
            raise refuse(errno.EPERM)
        if buffer.mapped or buffer.in_use:
            raise refuse(errno.EBUSY)
        self._drop(arguments.handle)

    def _drop(self, handle: int) -> None:
        buffer = self.buffers.pop(handle)
        if buffer.flags & VRAM:
            self.bindings[buffer.gpu_id].vram_used -= buffer.size
        if buffer.flags & USERPTR:
            self.store.release(self.host, buffer.address, buffer.offset, buffer.size)
        shared = any(each.offset == buffer.offset for each in self.buffers.values())
        if (
            not buffer.flags & (USERPTR | DOORBELL)
            and not shared
            and buffer.offset not in self.dmabufs.values()
        ):
            self.store.give_back(buffer.offset, buffer.size)

    def _device_ids(self, arguments: SimpleNamespace) -> list[int]:
        if not arguments.count or arguments.done > arguments.count or arguments.count > 1024:
            raise refuse(errno.EINVAL)
        raw = self.host.read(arguments.ids, 4 * arguments.count)
        return list(struct.unpack(f"<{arguments.count}I", raw))

    def _map_memory_to_gpu(self, arguments: SimpleNamespace) -> None:
        ids, buffer = self._device_ids(arguments), self._buffer(arguments.handle, errno.ENOMEM)
        for number in range(arguments.done, len(ids)):
            memory = self._bound(ids[number]).agent.memory
            if self.faults.take("map"):
                raise refuse(errno.ENOMEM)
            if ids[number] not in buffer.mapped:
                writable, executable = bool(buffer.flags & _WRITABLE), bool(buffer.flags & _EXECUTABLE)
                memory.map(PageRange(buffer.address, buffer.size, buffer.offset, writable, executable))
                buffer.mapped.add(ids[number])
            arguments.done = number + 1

    def _unmap_memory_from_gpu(self, arguments: SimpleNamespace) -> None:
        ids, buffer = self._device_ids(arguments), self._buffer(arguments.handle)
        if buffer.in_use:
            raise refuse(errno.EBUSY)
        for number in range(arguments.done, len(ids)):
            memory = self._bound(ids[number]).agent.memory
            if ids[number] in buffer.mapped:
                memory.unmap(buffer.address)
                buffer.mapped.discard(ids[number])
            arguments.done = number + 1

    def _svm(self, arguments: SimpleNamespace) -> None:
        """Pages of the client for GPUs to use at their address; only granting and withdrawing access is done."""
        if (
            arguments.start % PAGE_BYTES
            or arguments.size % PAGE_BYTES
            or not arguments.size
            or arguments.count > 64
        ):
            raise refuse(errno.EINVAL)
        if arguments.op or arguments.start in (each.address for each in self.buffers.values()):
            raise refuse(errno.EINVAL if arguments.op else errno.EADDRINUSE)
        pairs = list(struct.iter_unpack("<II", self.host.read(arguments.at + 24, 8 * arguments.count)))
        spaces = [(kind, self._bound(value).agent.memory) for kind, value in pairs if kind in (2, 3, 4)]
        if arguments.start not in self.svm:
            self.svm[arguments.start] = (self._adopt(arguments.start, arguments.size), arguments.size)
        offset, size = self.svm[arguments.start]
        flags = next((value for kind, value in pairs if kind == 5), 0)
        for kind, memory in spaces:
            memory.unmap(arguments.start)
            if kind != 4:
                memory.map(PageRange(arguments.start, size, offset, not flags & 8, bool(flags & 16)))

    def _export_dmabuf(self, arguments: SimpleNamespace) -> None:
        self._buffer(arguments.handle)
        arguments.dmabuf_fd = os.dup(self.store.descriptor)
        self.dmabufs[arguments.dmabuf_fd] = arguments.handle

    def _exported(self, descriptor: int) -> Buffer:
        handle = self.dmabufs.get(descriptor)
        if handle not in self.buffers:
            raise refuse(errno.EINVAL)
        return self.buffers[handle]

    def _get_dmabuf_info(self, arguments: SimpleNamespace) -> None:
        buffer = self._exported(arguments.dmabuf_fd)
        arguments.size, arguments.gpu_id, arguments.flags = buffer.size, buffer.gpu_id, buffer.flags
        arguments.metadata_bytes = 0

    def _import_dmabuf(self, arguments: SimpleNamespace) -> None:
        self._bound(arguments.gpu_id)
        source = self._exported(arguments.dmabuf_fd)
        handle = arguments.gpu_id << 32 | self._next_handle
        self._next_handle += 1
        flags = source.flags & ~VRAM | GTT | _WRITABLE
        self.buffers[handle] = Buffer(arguments.gpu_id, arguments.va, source.size, flags, source.offset)
        arguments.handle = handle
