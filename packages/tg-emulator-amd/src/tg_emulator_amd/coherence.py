"""Whether what a kernel reads can be stale: lines in a GPU's caches that others have written since.

Hardware returns old data now and then; here it is an error always. A line is in a GPU's caches from the first dispatch
that reads it until an acquire. Whoever writes the line after that makes it stale there: another dispatch, whose compute
units' caches are not those that hold it, a copy, another GPU. What a dispatch wrote is in memory for copies and other
GPUs once a release has followed. Sizes are those of the level 2 cache's lines.
Source: LLVM 22, AMDGPUUsage, "Memory Model gfx942" and "Memory Model gfx10-gfx11"; HSA Platform System Architecture
1.2, 2.9.1, acquire and release fences of packets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import ProgramError
from .memory import AddressSpace, Store

__all__ = ["Caches", "ShaderMemory"]

_LINE_SHIFT = 7
_SOURCE = "LLVM, AMDGPUUsage, memory model; HSA, fences of packets"


class Caches:
    """The caches of one GPU; `peers` are those of all GPUs of the client, this one among them."""

    def __init__(self, store: Store):
        self.store, self.peers = store, [self]
        # Each line's last state of a kind, by the number of the period in which it came about; a period ends with an
        # acquire, a release or a dispatch, and takes the states of its kind with it.
        self._cached, self._stale, self._dirty, self._written = (np.zeros(0, np.int32) for _ in range(4))
        self._acquires = self._releases = self._dispatches = 1
        self._new_lines: list[np.ndarray] = []  # that this dispatch wrote

    def _grow(self) -> None:
        needed = (self.store.used >> _LINE_SHIFT) + 1
        if needed > len(self._cached):
            for name in ("_cached", "_stale", "_dirty", "_written"):
                grown = np.zeros(2 * needed, np.int32)
                old = getattr(self, name)
                grown[: len(old)] = old
                setattr(self, name, grown)

    def read(self, offsets: np.ndarray, size: int) -> None:
        """A dispatch reads. Raises: ProgramError for a stale line."""
        self._grow()
        for lines in _lines(offsets, size):
            is_stale = self._stale[lines] == self._acquires
            if is_stale.any():
                where = int(lines[is_stale].flat[0]) << _LINE_SHIFT
                raise ProgramError(
                    "stale cache",
                    f"the line at offset {where:#x} of the memory was written since this GPU's caches took it, and no "
                    "acquire came between",
                    source=_SOURCE,
                )
            self._cached[lines] = self._acquires

    def write(self, offsets: np.ndarray, size: int) -> None:
        """A dispatch writes."""
        self._grow()
        for lines in _lines(offsets, size):
            new = lines[self._written[lines] != self._dispatches]
            if new.size:
                self._written[new] = self._dispatches
                self._new_lines.append(new)

    def acquire(self) -> None:
        """The caches forget all."""
        self._acquires += 1

    def end_dispatch(self) -> None:
        """What the dispatch wrote is stale in the caches, and not yet in memory."""
        for lines in self._new_lines:
            self._dirty[lines] = self._releases
            self._publish(lines)
        self._new_lines.clear()
        self._dispatches += 1

    def release(self) -> None:
        """What was written is in memory."""
        self._releases += 1

    def _publish(self, lines: np.ndarray) -> None:
        for peer in self.peers:
            peer._grow()
            peer._stale[lines[peer._cached[lines] == peer._acquires]] = peer._acquires

    def copied(self, parts: Sequence[tuple[int, int]], to: bool) -> None:
        """An engine beside the compute units wrote (`to`) or read parts of the store, each an offset and a size.

        Raises: ProgramError for a line that a dispatch wrote and nothing has released.
        """
        for offset, size in parts:
            lines = np.arange(offset >> _LINE_SHIFT, (offset + size - 1 >> _LINE_SHIFT) + 1)
            if to:
                self._publish(lines)
                continue
            for peer in self.peers:
                peer._grow()
                if (peer._dirty[lines] == peer._releases).any():
                    detail = f"an engine copies from offset {offset:#x} of the memory what a dispatch wrote, and no "
                    raise ProgramError("stale memory", detail + "release came between", source=_SOURCE)


def _lines(offsets: np.ndarray, size: int) -> list[np.ndarray]:
    """The lines of accesses of `size` bytes: the first ones, perhaps ones between, and the last ones."""
    first, last = offsets >> _LINE_SHIFT, offsets + (size - 1) >> _LINE_SHIFT
    if (first == last).all():
        return [first]
    return [
        first,
        *(offsets + at >> _LINE_SHIFT for at in range(1 << _LINE_SHIFT, size, 1 << _LINE_SHIFT)),
        last,
    ]


class ShaderMemory:
    """A GPU's memory as a dispatch sees it: what it reads and writes is noted. Implements `interface.Memory`."""

    def __init__(self, memory: AddressSpace, caches: Caches):
        self.memory, self.caches = memory, caches
        self.check = memory.check

    @property
    def backing(self) -> np.ndarray:
        return self.memory.backing

    def _note(self, address: int, size: int, access: str) -> None:
        for offset, part in self.memory.parts(address, size):
            (self.caches.write if access == "write" else self.caches.read)(np.array([offset]), part)

    def read(self, address: int, size: int, access: str = "read") -> bytes:
        data = self.memory.read(address, size, access)
        self._note(address, size, access)
        return data

    def write(self, address: int, data: bytes) -> None:
        self.memory.write(address, data)
        self._note(address, len(data), "write")

    def array(self, address: int, size: int, access: str = "read") -> np.ndarray | None:
        found = self.memory.array(address, size, access)
        self._note(address, size, access)
        return found

    def translate(self, addresses: np.ndarray, size: int, access: str) -> np.ndarray:
        offsets = self.memory.translate(addresses, size, access)
        if access != "execute":
            (self.caches.write if access == "write" else self.caches.read)(offsets, size)
        return offsets
