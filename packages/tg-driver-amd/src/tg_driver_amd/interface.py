"""The kernel interface: the few calls through which the driver reaches Linux, and their implementation by libc.

Another implementation of `KernelInterface` stands in for the kernel; the driver above does not know the difference.
Files are reached by `open` and `close`, `ioctl`, `mmap` and `munmap`, `poll`, `read` and `write` (which only SMI events
need); `log` is for the words of errors. Every call raises OSError.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
from importlib.metadata import entry_points
from typing import Protocol

from .errors import NoDeviceError

__all__ = ["KernelInterface", "LinuxInterface", "find_interface", "reserve_addresses"]

_ENTRY_POINTS = "tg_driver_amd.kernel_interfaces"
_LOG_LINES = 3
_MAP_FAILED = ctypes.c_void_p(-1).value
_PROT_NONE, _MAP_NORESERVE = 0, 0x4000


class KernelInterface(Protocol):
    """What the driver needs of Linux."""

    def open(self, path: str) -> int:
        """A descriptor of a device, for reading and writing."""

    def close(self, descriptor: int) -> None: ...

    def ioctl(self, descriptor: int, request: int, address: int) -> None:
        """Make a request whose arguments lie at `address` of this process."""

    def mmap(
        self, address: int, size: int, protection: int, flags: int, descriptor: int, offset: int
    ) -> int: ...

    def munmap(self, address: int, size: int) -> None: ...

    def poll(self, descriptor: int, timeout_ms: int) -> bool:
        """Whether the descriptor became readable in time."""

    def read(self, source: str | int) -> bytes:
        """A sysfs file, or what a descriptor has to give."""

    def write(self, descriptor: int, data: bytes) -> None: ...

    def log(self) -> list[str]:
        """The last lines that the kernel wrote about its GPUs; none where they may not be read."""


class LinuxInterface:
    """The kernel of this machine."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self._ioctl, self._mmap, self._munmap = libc.ioctl, libc.mmap, libc.munmap
        self._ioctl.argtypes = (number, ctypes.c_ulong, pointer)
        self._mmap.argtypes = (pointer, size, number, number, number, ctypes.c_uint64)
        self._mmap.restype = pointer
        self._munmap.argtypes = (pointer, size)

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def ioctl(self, descriptor: int, request: int, address: int) -> None:
        if self._ioctl(descriptor, request, address) < 0:
            raise _last_error()

    def mmap(self, address: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
        mapped = self._mmap(address, size, protection, flags, descriptor, offset)
        if mapped is None or mapped == _MAP_FAILED:
            raise _last_error()
        return mapped

    def munmap(self, address: int, size: int) -> None:
        if self._munmap(address, size) < 0:
            raise _last_error()

    def poll(self, descriptor: int, timeout_ms: int) -> bool:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(timeout_ms))

    def read(self, source: str | int) -> bytes:
        if isinstance(source, int):
            return os.read(source, 1 << 16)
        with open(source, "rb") as file:
            return file.read()

    def write(self, descriptor: int, data: bytes) -> None:
        os.write(descriptor, data)

    def log(self) -> list[str]:
        try:
            descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # only root may read it on most systems; the fault is reported without it
            return []
        lines: list[str] = []
        try:
            while record := os.read(descriptor, 1 << 13).decode(errors="replace"):
                if "amdgpu" in record or "kfd" in record:
                    lines.append(record.partition(";")[2].splitlines()[0])
        except BlockingIOError:
            return lines[-_LOG_LINES:]
        finally:
            os.close(descriptor)
        return lines[-_LOG_LINES:]


def _last_error() -> OSError:
    return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def reserve_addresses(interface: KernelInterface, size: int) -> int:
    """Addresses that nothing else gets, without memory behind them, for memory that the GPU shall see there."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return interface.mmap(0, size, _PROT_NONE, flags, -1, 0)


def find_interface(name: str) -> tuple[KernelInterface, int]:
    """The interface and the number of the GPU that a device's name stands for: "1", or "virtual:gfx942".

    What stands before a colon is an entry point of the group `tg_driver_amd.kernel_interfaces`, called with the rest up
    to an "@"; the number of the GPU follows that.
    """
    kind, colon, rest = name.partition(":")
    if not colon and name.isdecimal():
        return LinuxInterface(), int(name)
    found = entry_points(group=_ENTRY_POINTS, name=kind) if colon else ()
    rest, _, number = rest.partition("@")
    for entry in found:
        return entry.load()(rest), int(number or 0)
    hint = "install tg-emulator-amd" if kind == "virtual" else "want a number, or virtual:<target>"
    raise NoDeviceError(f"device: got {name!r}, which nothing provides; {hint}")
