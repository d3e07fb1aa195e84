"""The errors that a user of the driver can cause or meet.

DriverError
├── NoDeviceError        no amdgpu, no permission, or no such device; the message says what to do
├── UnsupportedError     a GPU or kernel that is too new, too old, or not what the request needs
├── KernelCallError      an ioctl that the kernel refused; is an OSError's message with the request's arguments
├── OutOfMemoryError     an allocation that does not fit; is a MemoryError too
├── CodeObjectError      a file that is not a code object for this device; is a ValueError too
├── PacketError          a packet with a field that does not fit, or a launch that cannot be; is a ValueError too
├── WaitTimeoutError     work that was not done in time; is a TimeoutError too
├── GpuFaultError        the GPU stopped: page fault, hang, reset or ECC error; names queue, kernel and address
└── ForkedError          a driver opened before a fork and used in the child
"""

from __future__ import annotations

__all__ = [
    "CodeObjectError",
    "DriverError",
    "ForkedError",
    "GpuFaultError",
    "KernelCallError",
    "NoDeviceError",
    "OutOfMemoryError",
    "PacketError",
    "UnsupportedError",
    "WaitTimeoutError",
]


class DriverError(Exception):
    """Anything that a user of the driver can cause or meet."""


class NoDeviceError(DriverError):
    """No amdgpu, no permission, or no such device."""


class UnsupportedError(DriverError):
    """A GPU or kernel that is too new, too old, or not what the request needs."""


class KernelCallError(DriverError):
    """An ioctl that the kernel refused; `errno` is the kernel's."""

    def __init__(self, message: str, errno: int = 0):
        super().__init__(message)
        self.errno = errno


class OutOfMemoryError(DriverError, MemoryError):
    """An allocation that does not fit."""


class CodeObjectError(DriverError, ValueError):
    """A file that is not a code object for this device."""


class PacketError(DriverError, ValueError):
    """A packet with a field that does not fit, or a launch that cannot be."""


class WaitTimeoutError(DriverError, TimeoutError):
    """Work that was not done in time."""


class GpuFaultError(DriverError):
    """The GPU stopped. `address` is where it faulted, or None when the cause was no access."""

    def __init__(self, message: str, address: int | None = None):
        super().__init__(message)
        self.address = address


class ForkedError(DriverError):
    """A driver opened before a fork and used in the child."""
