"""Memory that GPUs see: allocated, mapped for the host and for GPUs, shared as dmabufs, registered from the host.

An allocation has one address, the same for the host and for every GPU that it is mapped to.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

from .errors import DriverError
from .interface import reserve_addresses
from .ioctls import MemoryFlag, SvmAttribute, SvmFlag

if TYPE_CHECKING:
    from .device import Device

__all__ = ["KINDS", "Allocation", "allocate", "import_dmabuf", "register_host", "share_host_pages"]

_PAGE_BYTES = mmap.PAGESIZE
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
KINDS = {
    "vram": MemoryFlag.VRAM | MemoryFlag.NO_SUBSTITUTE,
    "host": MemoryFlag.GTT | MemoryFlag.NO_SUBSTITUTE | MemoryFlag.COHERENT,
    "uncached": MemoryFlag.GTT | MemoryFlag.NO_SUBSTITUTE | MemoryFlag.COHERENT | MemoryFlag.UNCACHED,
}


class Allocation:
    """`size_bytes` at `address`. `view` is the bytes for the host, where it sees them (`is_host_visible`)."""

    __slots__ = (
        "_mapped",
        "_owns_addresses",
        "address",
        "device",
        "handle",
        "is_host_visible",
        "kind",
        "size_bytes",
    )

    def __init__(
        self, device: Device, kind: str, address: int, size_bytes: int, handle: int, owns_addresses: bool
    ):
        self.device, self.kind, self.address, self.size_bytes, self.handle = (
            device,
            kind,
            address,
            size_bytes,
            handle,
        )
        self.is_host_visible, self._owns_addresses = False, owns_addresses
        self._mapped: list[int] = []

    @property
    def view(self) -> memoryview:
        """The bytes, writable, until `free`. What is written to VRAM this way needs `Device.flush_host_writes`."""
        if not self.is_host_visible:
            raise DriverError(
                f"{self!r}: got a view, want memory that the host sees; use Device.read and Device.write"
            )
        return memoryview((ctypes.c_ubyte * self.size_bytes).from_address(self.address)).cast("B")

    def map_to(self, *devices: Device) -> None:
        """Let GPUs see it. Raises: KernelCallError."""
        ids = (ctypes.c_uint32 * len(devices))(*(each.node.gpu_id for each in devices))
        self.device.system.kfd.call(
            "map_memory_to_gpu",
            handle=self.handle,
            device_ids_array_ptr=ctypes.addressof(ids),
            n_devices=len(ids),
        )
        self._mapped += [each for each in ids if each not in self._mapped]

    def map_host(self, offset: int) -> None:
        """Show the host what lies at `offset` of the render node, at `address`."""
        interface, descriptor = self.device.system.interface, self.device.render_file
        flags = mmap.MAP_SHARED | _MAP_FIXED
        interface.mmap(self.address, _round_up(self.size_bytes), _READ_WRITE, flags, descriptor, offset)
        self.is_host_visible = True

    def unmap_host(self) -> None:
        if self._owns_addresses:
            self.device.system.interface.munmap(self.address, _round_up(self.size_bytes))
            self._owns_addresses = self.is_host_visible = False

    def export(self) -> int:
        """A dmabuf's descriptor, which another process or driver may import."""
        done = self.device.system.kfd.call("export_dmabuf", handle=self.handle, flags=mmap.PROT_READ)
        return done.dmabuf_fd

    def free(self) -> None:
        """Give it back; nothing may use it any more."""
        if not self.handle:
            return
        kfd = self.device.system.kfd
        if self._mapped:
            ids = (ctypes.c_uint32 * len(self._mapped))(*self._mapped)
            kfd.call(
                "unmap_memory_from_gpu",
                handle=self.handle,
                device_ids_array_ptr=ctypes.addressof(ids),
                n_devices=len(ids),
            )
            self._mapped.clear()
        kfd.call("free_memory_of_gpu", handle=self.handle)
        self.handle = 0
        self.unmap_host()
        self.device.allocations.pop(self.address, None)

    def __repr__(self) -> str:
        return f"<{self.size_bytes} bytes of {self.kind} at {self.address:#x} on {self.device}>"


def _round_up(size: int) -> int:
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES


def allocate(
    device: Device,
    size_bytes: int,
    kind: str,
    *,
    executable: bool = False,
    writable: bool = True,
    host: bool = True,
) -> Allocation:
    """Memory of a kind of `KINDS`, mapped to `device`. Raises: OutOfMemoryError, KernelCallError."""
    if kind not in KINDS or size_bytes <= 0:
        raise DriverError(f"alloc: got {size_bytes} bytes of {kind!r}, want 1 or more of {', '.join(KINDS)}")
    flags = KINDS[kind]
    flags |= MemoryFlag.EXECUTABLE if executable else 0
    flags |= MemoryFlag.WRITABLE if writable else 0
    is_visible = host and (kind != "vram" or device.node.has_host_visible_vram)
    flags |= MemoryFlag.PUBLIC if is_visible and kind == "vram" else 0
    size = _round_up(size_bytes)
    interface = device.system.interface
    address = reserve_addresses(interface, size)
    try:
        done = device.system.kfd.call(
            "alloc_memory_of_gpu", va_addr=address, size=size, gpu_id=device.node.gpu_id, flags=flags
        )
    except BaseException:
        interface.munmap(address, size)
        raise
    result = Allocation(device, kind, address, size_bytes, done.handle, owns_addresses=True)
    return _finish(result, done.mmap_offset if is_visible else None)


def _finish(allocation: Allocation, host_offset: int | None = None) -> Allocation:
    """Map a new allocation; free it again when that fails."""
    try:
        if host_offset is not None:
            allocation.map_host(host_offset)
        allocation.map_to(allocation.device)
    except BaseException:
        allocation.free()
        raise
    allocation.device.allocations[allocation.address] = allocation
    return allocation


def register_host(device: Device, address: int, size_bytes: int) -> Allocation:
    """Let a GPU see pages that the host has already. `address` and `size_bytes` are whole pages."""
    if address % _PAGE_BYTES or size_bytes % _PAGE_BYTES or size_bytes <= 0:
        raise DriverError(
            f"register: got {size_bytes} bytes at {address:#x}, want whole pages of {_PAGE_BYTES}"
        )
    done = device.system.kfd.call(
        "alloc_memory_of_gpu",
        va_addr=address,
        size=size_bytes,
        mmap_offset=address,
        gpu_id=device.node.gpu_id,
        flags=MemoryFlag.USERPTR | MemoryFlag.WRITABLE | MemoryFlag.COHERENT,
    )
    result = Allocation(device, "userptr", address, size_bytes, done.handle, owns_addresses=False)
    result.is_host_visible = True
    return _finish(result)


def import_dmabuf(device: Device, descriptor: int) -> Allocation:
    """Memory that another device, driver or process exported; the host does not see it through this."""
    kfd, interface = device.system.kfd, device.system.interface
    info = kfd.call("get_dmabuf_info", dmabuf_fd=descriptor)
    address = reserve_addresses(interface, _round_up(info.size))
    try:
        done = kfd.call("import_dmabuf", va_addr=address, gpu_id=device.node.gpu_id, dmabuf_fd=descriptor)
    except BaseException:
        interface.munmap(address, _round_up(info.size))
        raise
    return _finish(Allocation(device, "dmabuf", address, info.size, done.handle, owns_addresses=True))


def share_host_pages(device: Device, address: int, size_bytes: int, *, executable: bool = False) -> None:
    """Make pages of the host shared virtual memory that the GPU may use at their address (SVM)."""
    flags = SvmFlag.HOST_ACCESS | SvmFlag.COHERENT | SvmFlag.GPU_ALWAYS_MAPPED
    attributes = [
        (SvmAttribute.ACCESS_IN_PLACE, device.node.gpu_id),
        (SvmAttribute.SET_FLAGS, flags | (SvmFlag.GPU_EXEC if executable else 0)),
    ]
    words = (ctypes.c_uint32 * (6 + 2 * len(attributes)))()
    header = (ctypes.c_uint64 * 2).from_buffer(words)
    header[0], header[1] = address, size_bytes
    words[4], words[5] = 0, len(attributes)  # op SET_ATTR
    for number, (kind, value) in enumerate(attributes):
        words[6 + 2 * number], words[7 + 2 * number] = kind, value
    device.system.kfd.call_at("svm", words)
