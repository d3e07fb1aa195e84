"""The registers of many waves at once, and the group of them that executes together.

Shapes: a vector register is an array [wave, lane], a scalar register one of [wave], both of 32-bit words. A group
selects waves by a slice (all of them: views) or by indices (copies).
"""

from __future__ import annotations

import numpy as np

__all__ = ["EXEC", "Group", "Waves", "from_mask", "to_mask"]

EXEC, VCC = 126, 106
U32, U64 = np.uint32, np.uint64


def to_mask(lanes: np.ndarray) -> np.ndarray:
    """[wave, lane] of booleans as 64-bit masks."""
    packed = np.packbits(lanes, axis=1, bitorder="little")
    if lanes.shape[1] == 32:
        return packed.view(U32)[:, 0].astype(U64)
    return packed.view(U64)[:, 0]


def from_mask(bits: np.ndarray, lanes: int) -> np.ndarray:
    """64-bit masks as [wave, lane] of booleans."""
    octets = np.ascontiguousarray(bits, U64).view(np.uint8).reshape(-1, 8)
    return np.unpackbits(octets, axis=1, bitorder="little", count=lanes).view(bool)


class Waves:
    """The state of the waves of some workgroups. `workgroup` is each wave's workgroup, counted from 0."""

    def __init__(self, generation: str, workgroup: np.ndarray, lanes: int, vgprs: int, accumulators: int):
        count = len(workgroup)
        self.generation, self.count, self.lanes = generation, count, lanes
        self.accumulators = accumulators  # index of a0 in v
        self.null, self.m0 = (-1, 124) if generation == "gfx940" else (124, 125)
        self.mask_words = lanes // 32
        self.v = list(np.zeros((vgprs, count, lanes), U32))
        self.s = np.zeros((128, count), U32)
        self.scc = np.zeros(count, bool)
        self.pc = np.zeros(count, np.int64)
        self.mode = np.zeros(count, U32)
        self.exec = np.zeros((count, lanes), bool)
        self.workgroup = workgroup
        self.identity = np.zeros((count, 4), np.int64)  # workgroup id x, y, z and the wave's number in it
        self.scratch = np.zeros((count, lanes, 0), np.uint8)


class Group:
    """Waves at one pc, with the modes of the first."""

    __slots__ = (
        "all",
        "denormals",
        "event",
        "full",
        "mask",
        "n",
        "op",
        "overflow16",
        "pc",
        "round",
        "target",
        "w",
        "waves",
    )

    def __init__(self, waves: Waves, members: np.ndarray):
        self.waves, self.n = waves, len(members)
        self.all = len(members) == waves.count
        self.w = slice(None) if self.all else members
        self.target: np.ndarray | int | None = None  # where a branch goes
        self.pc, self.op, self.event = 0, None, ""
        self.refresh()

    def refresh(self) -> None:
        """After a change of exec or mode."""
        self.mask = self.waves.exec[self.w]
        self.full = bool(self.mask.all())
        mode = int(self.waves.mode[self.w][0])
        single, double = mode & 3, mode >> 2 & 3
        self.round = {4: single, 8: double, 2: double}
        single, double = mode >> 4 & 3, mode >> 6 & 3
        self.denormals = {4: single, 8: double, 2: double}  # bit 0: of sources, bit 1: of results
        self.overflow16 = bool(mode >> 23 & 1)

    def vgpr(self, r: int) -> np.ndarray:
        return self.waves.v[r][self.w]

    def set_vgpr(self, r: int, value: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Write the active lanes (or those of a mask)."""
        array = self.waves.v[r]
        if mask is None and self.full:
            array[self.w] = value
            return
        mask = self.mask if mask is None else mask
        if self.all:
            np.copyto(array, value, where=mask)
        else:
            array[self.w] = np.where(mask, value, array[self.w])

    def sgpr(self, r: int) -> np.ndarray:
        return self.waves.s[r][self.w]

    def sgpr64(self, r: int) -> np.ndarray:
        s = self.waves.s
        return s[r][self.w].astype(U64) | s[r + 1][self.w].astype(U64) << U64(32)

    def set_sgpr(self, r: int, value: np.ndarray) -> None:
        if r == self.waves.null:
            return
        self.waves.s[r][self.w] = value
        if r in (EXEC, EXEC + 1):
            self._exec_changed()

    def set_sgpr64(self, r: int, value: np.ndarray) -> None:
        if r == self.waves.null:
            return
        value = np.asarray(value).astype(U64, copy=False)
        self.waves.s[r][self.w] = (value & U64(0xFFFFFFFF)).astype(U32)
        self.waves.s[r + 1][self.w] = (value >> U64(32)).astype(U32)
        if r == EXEC:
            self._exec_changed()

    def _exec_changed(self) -> None:
        self.waves.exec[self.w] = from_mask(self.sgpr64(EXEC), self.waves.lanes)
        self.mask = self.waves.exec[self.w]
        self.full = bool(self.mask.all())

    def lanes(self, r: int) -> np.ndarray:
        """A lane mask in scalar registers as booleans."""
        bits = self.sgpr64(r) if self.waves.mask_words == 2 else self.sgpr(r).astype(U64)
        return from_mask(bits, self.waves.lanes)

    def set_lanes(self, r: int, lanes: np.ndarray) -> None:
        """Booleans into a lane mask; inactive lanes must be False already."""
        bits = to_mask(np.broadcast_to(lanes, (self.n, self.waves.lanes)))
        if self.waves.mask_words == 2:
            self.set_sgpr64(r, bits)
        else:
            self.set_sgpr(r, bits.astype(U32))

    @property
    def scc(self) -> np.ndarray:
        return self.waves.scc[self.w]

    @scc.setter
    def scc(self, value: np.ndarray) -> None:
        self.waves.scc[self.w] = value
