"""KFD's events: what interrupts set and clients wait for, and the data of faults.

Source: Linux 7.2, amdkfd, kfd_events.c: limits, the slots of the event page, auto reset, waits of one or all.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Event", "Events", "refuse"]

SIGNAL, HW_EXCEPTION, DEBUG, MEMORY = 0, 3, 5, 8
_SIGNAL_LIMIT = 4096
_FIRST_OTHER_ID = 0x40000000
_COMPLETE, _TIMEOUT = 0, 1
UNSIGNALED = b"\xff" * 8


def refuse(code: int) -> OSError:
    """The error with which the kernel refuses."""
    return OSError(code, os.strerror(code))


@dataclass(slots=True)
class Event:
    """One event; `data` is what a wait hands out when the event was a fault."""

    kind: int
    auto_reset: bool
    is_set: bool = False
    data: bytes = b""
    age: int = 1


class Events:
    """The events of one client. `write_slot` and `read_slot` reach the event page."""

    def __init__(self) -> None:
        self.by_id: dict[int, Event] = {}
        self.changed = threading.Condition()
        self.write_slot: Callable[[int, bytes], None] | None = None
        self.read_slot: Callable[[int], bytes] | None = None

    def create(self, kind: int, auto_reset: bool) -> int:
        """Raises: OSError ENOSPC."""
        with self.changed:
            if kind in (SIGNAL, DEBUG):
                number = next((each for each in range(1, _SIGNAL_LIMIT) if each not in self.by_id), None)
            else:
                number = (
                    max((each for each in self.by_id if each >= _FIRST_OTHER_ID), default=_FIRST_OTHER_ID - 1)
                    + 1
                )
            if number is None:
                raise refuse(errno.ENOSPC)
            self.by_id[number] = Event(kind, auto_reset)
            return number

    def find(self, number: int) -> Event:
        """Raises: OSError EINVAL."""
        if number not in self.by_id:
            raise refuse(errno.EINVAL)
        return self.by_id[number]

    def destroy(self, number: int) -> None:
        with self.changed:
            self.find(number)
            del self.by_id[number]
            self.changed.notify_all()

    def set(self, number: int, value: bool) -> None:
        """What SET_EVENT and RESET_EVENT do. Raises: OSError EINVAL for one that only hardware sets."""
        with self.changed:
            event = self.find(number)
            if event.kind not in (SIGNAL, DEBUG):
                raise refuse(errno.EINVAL)
            self._mark(event, value)

    def _mark(self, event: Event, value: bool) -> None:
        event.is_set = value
        event.age += value
        self.changed.notify_all()

    def interrupt(self, number: int) -> None:
        """What an end-of-pipe interrupt does: the event named sets, or each whose slot was written."""
        with self.changed:
            named = self.by_id.get(number)
            chosen = {number: named} if named and named.kind in (SIGNAL, DEBUG) else dict(self.by_id)
            for each, event in chosen.items():
                if each < _SIGNAL_LIMIT and self.read_slot and self.read_slot(each) != UNSIGNALED:
                    self.write_slot(each, UNSIGNALED)
                    self._mark(event, True)

    def report(self, kind: int, data: bytes) -> bool:
        """Set the events of a kind of fault, with its data; whether there was one."""
        with self.changed:
            found = [event for event in self.by_id.values() if event.kind == kind]
            for event in found:
                event.data = data
                self._mark(event, True)
            return bool(found)

    def wait(
        self, numbers: Sequence[int], ages: Sequence[int], for_all: bool, timeout_ms: int
    ) -> tuple[int, dict[int, bytes], dict[int, int]]:
        """The result, and for each place in `numbers` that was set its data and its age. Raises: OSError EINVAL."""
        end = None if timeout_ms == 0xFFFFFFFF else time.monotonic() + timeout_ms / 1000
        with self.changed:
            events = [self.find(number) for number in numbers]
            while True:
                ready = [
                    event.is_set or bool(age and event.kind == SIGNAL and age != event.age)
                    for event, age in zip(events, ages, strict=True)
                ]
                if (all if for_all else any)(ready):
                    break
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return _TIMEOUT, {}, {}
                self.changed.wait(left)
                if any(number not in self.by_id for number in numbers):
                    raise refuse(errno.EIO)
            data = {i: event.data for i, event in enumerate(events) if ready[i] and event.data}
            new_ages = {i: event.age for i, event in enumerate(events) if ready[i] and event.kind == SIGNAL}
            for event, is_ready in zip(events, ready, strict=True):
                if is_ready and event.auto_reset:
                    event.is_set = False
            return _COMPLETE, data, new_ages
