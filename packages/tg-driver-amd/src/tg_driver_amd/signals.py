"""Signals: 64 bytes that a GPU counts down when work is done, and on which the host waits.

Source: AMD's ROCr, amd_hsa_signal.h (`amd_signal_t`): kind, value, mailbox, event id, timestamps.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from .errors import DriverError
from .ioctls import make_struct
from .memory import Allocation

if TYPE_CHECKING:
    from .device import Device

__all__ = ["Signal", "SignalPool", "SignalWords"]

SIGNAL_BYTES = 64
_PAGE_BYTES = 1 << 16
_KIND_USER = 1


SignalWords = make_struct(
    "SignalWords",
    "kind:s64 value:s64 event_mailbox:u64 event_id:u32 reserved1:u32 start:u64 end:u64 queue:u64 reserved2:u64",
)


class Signal:
    """The end of one piece of work."""

    __slots__ = ("_pool", "after", "device", "words", "work")

    def __init__(self, pool: SignalPool, words: ctypes.Structure, work: str):
        self._pool, self.device, self.words, self.work = pool, pool.device, words, work
        self.after: tuple[Signal, ...] = ()  # what the GPU still looks at for this work

    @property
    def address(self) -> int:
        return ctypes.addressof(self.words)

    @property
    def is_done(self) -> bool:
        if self.device.is_closed:
            raise DriverError(f"{self.work}: got a look at its signal after {self.device} was closed")
        return self.words.value <= 0

    def wait(self, timeout_s: float | None = None) -> None:
        """Until the work is done. Raises: WaitTimeoutError, GpuFaultError."""
        device = self.device
        device.system.wait(lambda: self.is_done, device, device.event_id, timeout_s, lambda: self.work)

    @property
    def seconds(self) -> float:
        """How long the GPU worked on it, by its own clock."""
        return (self.words.end - self.words.start) / self.device.clock_hz

    def __del__(self) -> None:
        # Work that is not done keeps its signal alive in its queue, so nothing can count this one down any more.
        self._pool.take_back(self.words)


class SignalPool:
    """The signals of one device."""

    def __init__(self, device: Device):
        self.device = device
        self._pages: list[Allocation] = []
        self._free: list[ctypes.Structure] = []

    def new(self, work: str, value: int = 1) -> Signal:
        """A signal that waits for `value` to be counted down."""
        words = self._free.pop() if self._free else self._grow()
        ctypes.memset(ctypes.addressof(words), 0, SIGNAL_BYTES)
        words.kind, words.value = _KIND_USER, value
        words.event_id = self.device.event_id
        words.event_mailbox = self.device.system.mailbox(self.device.event_id)
        return Signal(self, words, work)

    def _grow(self) -> ctypes.Structure:
        page = self.device.alloc(_PAGE_BYTES, "uncached")
        self._pages.append(page)
        starts = range(page.address, page.address + _PAGE_BYTES, SIGNAL_BYTES)
        self._free += [SignalWords.from_address(each) for each in starts]
        return self._free.pop()

    def take_back(self, words: ctypes.Structure) -> None:
        self._free.append(words)
