"""The memories a wave can reach: global memory, LDS and scratch, as offsets into byte arrays; and atomics on them.

A flat access may reach all three, so every access is split into parts that each lie in one array.
Source: RDNA3 ISA manual, "Flat memory instructions", "Memory apertures"; CDNA3, "LDS".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import MemoryFault
from . import floats
from .waves import Group

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["ATOMICS", "Lanes", "Part", "Spaces", "apply_atomic", "gather", "scatter"]

U32, U64 = np.uint32, np.uint64
READ, WRITE, ATOMIC = "read", "write", "atomic"


class Lanes(NamedTuple):
    """The active lanes of a group, flat: their waves, lane numbers, and the mask (None: all)."""

    wave: np.ndarray
    lane: np.ndarray
    mask: np.ndarray | None

    @staticmethod
    def of(g: Group, extra: np.ndarray | None = None) -> Lanes:
        mask = g.mask if extra is None else g.mask & extra
        if extra is None and g.full:
            members = np.arange(g.waves.count) if g.all else g.w
            wave = np.repeat(members, g.waves.lanes)
            return Lanes(wave, np.tile(np.arange(g.waves.lanes), g.n), None)
        row, lane = np.nonzero(mask)
        return Lanes(row if g.all else g.w[row], lane, mask)

    def take(self, x: np.ndarray) -> np.ndarray:
        """[wave, lane] as flat values."""
        return np.ascontiguousarray(x).ravel() if self.mask is None else x[self.mask]

    def put(self, g: Group, r: int, values: np.ndarray, where: np.ndarray | slice = slice(None)) -> None:
        """Write flat values of some of the lanes into a vector register."""
        array = g.waves.v[r]
        array[self.wave[where], self.lane[where]] = values


class Part(NamedTuple):
    """The accesses that lie in one array. `where` selects them among the flat lanes."""

    where: np.ndarray | slice
    backing: np.ndarray
    offsets: np.ndarray
    space: str
    doubts: tuple[np.ndarray, np.ndarray] | None = (
        None  # writes that met others': earlier ones, and of this instruction
    )


class Spaces:
    """Global memory, the LDS of every workgroup of a batch, and the scratch of every lane."""

    def __init__(
        self, memory: Any, groups: int, lds_bytes: int, apertures: tuple[int, int], monitor: Monitor
    ):
        self.memory, self.monitor = memory, monitor
        self.lds_bytes, self.stride = lds_bytes, (lds_bytes + 19) // 16 * 16
        self.lds = np.zeros(max(groups * self.stride, 16), np.uint8)
        self.shared, self.private = apertures

    def parts(
        self, g: Group, kind: str, at: Lanes, address: np.ndarray, size: int, access: str
    ) -> Iterator[Part]:
        if kind == "flat":
            window = address >> U64(32)
            for name, base in (("lds", self.shared), ("scratch", self.private)):
                inside = window == U64(base >> 32)
                if inside.any():
                    where = np.nonzero(inside)[0]
                    low = (address[where] & U64(0xFFFFFFFF)).astype(np.int64)
                    yield self._part(g, name, at, where, low, size, access)
            where = np.nonzero((window != U64(self.shared >> 32)) & (window != U64(self.private >> 32)))[0]
            if len(where) == len(address):
                yield self._part(g, "global", at, slice(None), address, size, access)
            elif len(where):
                yield self._part(g, "global", at, where, address[where], size, access)
        else:
            yield self._part(g, kind, at, slice(None), address, size, access)

    def _part(
        self,
        g: Group,
        kind: str,
        at: Lanes,
        where: np.ndarray | slice,
        address: np.ndarray,
        size: int,
        access: str,
    ) -> Part:
        monitor, wave, lane = self.monitor, at.wave[where], at.lane[where]
        if access == ATOMIC:
            monitor.aligned(g, address, min(size, 8), wave, lane, "atomics are aligned to their size")
        if kind == "global":
            rights = "read" if access == READ else "write"
            try:
                offsets = self.memory.translate(address.astype(U64, copy=False), size, rights)
            except MemoryFault as fault:
                raise monitor.fault(g, fault, address, size, wave, lane) from fault
            doubts = monitor.global_access(g, access, wave, lane, offsets, size)
            return Part(where, self.memory.backing, offsets, kind, doubts)
        limit = self.lds_bytes if kind == "lds" else g.waves.scratch.shape[2]
        address = address.astype(np.int64, copy=False)
        monitor.bounds(g, kind, address, size, limit, wave, lane)
        if kind == "lds":
            offsets = g.waves.workgroup[wave] * self.stride + address
            doubts = monitor.lds_access(g, access, wave, lane, offsets, size, self.lds)
            return Part(where, self.lds, offsets, kind, doubts)
        offsets = (wave.astype(np.int64) * g.waves.lanes + lane) * limit + address
        return Part(where, g.waves.scratch.reshape(-1), offsets, kind)


def gather(backing: np.ndarray, offsets: np.ndarray, size: int, signed: bool = False) -> list[np.ndarray]:
    """The values at offsets as 32-bit words; one or two bytes are extended."""
    if size == 1:
        value = backing[offsets]
        return [value.view(np.int8).astype(np.int32).view(U32) if signed else value.astype(U32)]
    unit = 2 if size == 2 else 4
    if not (offsets & (unit - 1)).any():
        whole = backing[: len(backing) // unit * unit].view(np.uint16 if unit == 2 else U32)
        base = offsets >> (unit >> 1)
        if unit == 2:
            value = whole[base]
            return [value.view(np.int16).astype(np.int32).view(U32) if signed else value.astype(U32)]
        return [whole[base + k] if k else whole[base] for k in range(size // 4)]
    octets = backing[offsets[:, None] + np.arange(size)]
    if size == 2:
        value = np.ascontiguousarray(octets).view(np.uint16)[:, 0]
        return [value.view(np.int16).astype(np.int32).view(U32) if signed else value.astype(U32)]
    return list(np.ascontiguousarray(octets).view(U32).T)


def scatter(backing: np.ndarray, offsets: np.ndarray, words: list[np.ndarray], size: int) -> None:
    """Store 32-bit words, or the low one or two bytes of one. Of lanes at one place the last wins."""
    if size == 1:
        backing[offsets] = words[0].astype(np.uint8)
        return
    unit = 2 if size == 2 else 4
    if not (offsets & (unit - 1)).any():
        whole = backing[: len(backing) // unit * unit].view(np.uint16 if unit == 2 else U32)
        base = offsets >> (unit >> 1)
        for k, word in enumerate(words):
            whole[base + k] = word.astype(whole.dtype, copy=False)
        return
    octets = np.stack(words, axis=1).view(np.uint8)[:, :size]
    backing[offsets[:, None] + np.arange(size)] = octets


def _pk_add_bf16(old: np.ndarray, x: np.ndarray) -> np.ndarray:
    value = floats.bf16_value(old.view(np.uint16)) + floats.bf16_value(x.view(np.uint16))
    return floats.bf16_bits(value).view(U32)


# Name -> new value from the old one, the data and (compare) what is compared with.
ATOMICS = {
    "swap": lambda o, x, c: x,
    "cmpswap": lambda o, x, c: np.where(o == c, x, o),
    "add": lambda o, x, c: o + x,
    "sub": lambda o, x, c: o - x,
    "rsub": lambda o, x, c: x - o,
    "min": lambda o, x, c: floats.fmin(o, x) if o.dtype.kind == "f" else np.minimum(o, x),
    "max": lambda o, x, c: floats.fmax(o, x) if o.dtype.kind == "f" else np.maximum(o, x),
    "and": lambda o, x, c: o & x,
    "or": lambda o, x, c: o | x,
    "xor": lambda o, x, c: o ^ x,
    "inc": lambda o, x, c: np.where(o >= x, o.dtype.type(0), o + o.dtype.type(1)),
    "dec": lambda o, x, c: np.where((o == 0) | (o > x), x, o - o.dtype.type(1)),
    "csub": lambda o, x, c: np.where(o < x, o.dtype.type(0), o - x),
    "cond_sub": lambda o, x, c: np.where(o < x, o, o - x),
    "mskor": lambda o, x, c: o & ~x | c,
    "pk_add_f16": lambda o, x, c: (o.view(np.float16) + x.view(np.float16)).view(U32),
    "pk_add_bf16": lambda o, x, c: _pk_add_bf16(o, x),
}


def apply_atomic(
    backing: np.ndarray,
    offsets: np.ndarray,
    dtype: np.dtype,
    name: str,
    data: np.ndarray,
    other: np.ndarray | None,
) -> np.ndarray:
    """Do an atomic for every lane, one after the other where lanes meet; the values before."""
    view = backing[: len(backing) // dtype.itemsize * dtype.itemsize].view(dtype)
    index = offsets // dtype.itemsize
    function = ATOMICS[name]
    old = np.empty(len(index), dtype)
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = np.maximum.accumulate(np.where(starts, np.arange(len(ordered)), 0))
    rank = np.arange(len(ordered)) - first
    turns = np.argsort(rank, kind="stable")
    counts = np.bincount(rank)
    position = 0
    for count in counts:
        lanes = order[turns[position : position + count]]
        position += count
        place = index[lanes]
        before = view[place]
        old[lanes] = before
        view[place] = function(before, data[lanes], None if other is None else other[lanes])
    return old
