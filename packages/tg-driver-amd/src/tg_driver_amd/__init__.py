"""A driver for AMD GPUs in pure Python: KFD, memory, PM4, AQL and SDMA queues, code objects, launches, signals."""

from __future__ import annotations

from .device import Device, LoadedKernel, Module, open_device
from .errors import (
    CodeObjectError,
    DriverError,
    ForkedError,
    GpuFaultError,
    KernelCallError,
    NoDeviceError,
    OutOfMemoryError,
    PacketError,
    UnsupportedError,
    WaitTimeoutError,
)
from .memory import Allocation
from .signals import Signal

open = open_device

__all__ = [
    "Allocation",
    "CodeObjectError",
    "Device",
    "DriverError",
    "ForkedError",
    "GpuFaultError",
    "KernelCallError",
    "LoadedKernel",
    "Module",
    "NoDeviceError",
    "OutOfMemoryError",
    "PacketError",
    "Signal",
    "UnsupportedError",
    "WaitTimeoutError",
    "open",
    "open_device",
]
