"""A virtual AMD GPU behind the kernel's interface, stricter than the real one."""

from __future__ import annotations

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
    "profile",
]
