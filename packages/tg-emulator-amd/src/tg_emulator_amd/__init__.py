"""A virtual AMD GPU behind the kernel's interface, stricter than the real one."""

from __future__ import annotations

from .device import VirtualKernel, make_gpus, open_virtual
from .errors import EmulatorError, MemoryFault, PacketError, ProgramError, UnsupportedError
from .interface import Dispatch, Figures, Memory
from .profiles import PROFILES, Profile, profile

__all__ = [
    "PROFILES",
    "Dispatch",
    "EmulatorError",
    "Figures",
    "Memory",
    "MemoryFault",
    "PacketError",
    "Profile",
    "ProgramError",
    "UnsupportedError",
    "VirtualKernel",
    "make_gpus",
    "open_virtual",
    "profile",
]
