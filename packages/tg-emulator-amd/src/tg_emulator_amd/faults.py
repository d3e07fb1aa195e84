"""Faults on request: which of the coming chances for a fault shall have it."""

from __future__ import annotations

from collections import defaultdict

from .errors import EmulatorError

__all__ = ["KINDS", "Faults"]

KINDS = {
    "allocation": "an allocation of memory is refused with ENOMEM",
    "map": "mapping memory to a GPU is refused with ENOMEM",
    "queue": "a queue is refused with ENOMEM",
    "event": "an event is refused with ENOSPC",
    "lost_interrupt": "an interrupt is lost",
    "hang": "a queue takes no packets any more",
    "page_fault": "a dispatch touches an address where nothing is mapped",
    "reset": "the GPU is reset and its memory is lost, instead of a dispatch",
    "ecc": "an uncorrectable ECC error, instead of a dispatch",
}


class Faults:
    """Faults that wait for their chance. `plan("hang", after=2)` spares two chances and takes the third."""

    def __init__(self) -> None:
        self._planned: defaultdict[str, list[int]] = defaultdict(list)

    def plan(self, kind: str, after: int = 0) -> None:
        """Raises: EmulatorError for a kind that is not in `KINDS`."""
        if kind not in KINDS:
            raise EmulatorError(f"fault: got {kind!r}, want one of {', '.join(KINDS)}")
        self._planned[kind].append(after)

    def take(self, kind: str) -> bool:
        """Whether this chance is to have the fault."""
        waiting = self._planned.get(kind)
        if not waiting:
            return False
        self._planned[kind] = [each - 1 for each in waiting if each > 0]
        return 0 in waiting
