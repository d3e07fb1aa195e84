"""The SDMA engine: copies, fills, fences and waits. Reserved bits that are set are errors.

Source: Linux 7.2, drivers/gpu/drm/amd/amdgpu, vega10_sdma_pkt_open.h (4.x), sdma_v6_0_0_pkt_open.h (6.x, 7.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .errors import PacketError
from .queues import Agent, Queue, compare, gpu_clock

__all__ = ["SdmaQueue"]

_ALL = 0xFFFFFFFF
# Opcode: name, and for each generation of packets (4, then 6 and later) which bits of each word mean something.
_PACKETS: dict[int, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    0x001: (
        "COPY_LINEAR",
        (0x0805FFFF, 0x3FFFFF, 0x3030000, _ALL, _ALL, _ALL, _ALL),
        (0x0A0DFFFF, 0x3FFFFFFF, 0x1F1F0000, _ALL, _ALL, _ALL, _ALL),
    ),
    0x004: ("INDIRECT", *[(0x800FFFFF, _ALL & ~0x1F, _ALL, 0xFFFFF, _ALL, _ALL)] * 2),
    0x005: ("FENCE", (0xFFFF, _ALL & ~3, _ALL, _ALL), (0x17DFFFFF, _ALL & ~3, _ALL, _ALL)),
    0x006: ("TRAP", *[(0xFFFF, 0xFFFFFFF)] * 2),
    0x008: ("POLL_REGMEM", *[(0xF570FFFF, _ALL & ~3, _ALL, _ALL, _ALL, 0xFFFFFFF)] * 2),
    0x009: ("COND_EXE", *[(0x1700FFFF, _ALL & ~3, _ALL, _ALL, 0x3FFF)] * 2),
    0x00A: ("ATOMIC", *[(0xFF7500FF, _ALL & ~3, _ALL, _ALL, _ALL, _ALL, _ALL, 0x1FFF)] * 2),
    0x00B: (
        "CONST_FILL",
        (0xC003FFFF, _ALL & ~3, _ALL, _ALL, 0x3FFFFF),
        (0xD703FFFF, _ALL & ~3, _ALL, _ALL, 0x3FFFFFFF),
    ),
    0x011: ("GCR_REQ", (), (0xFFFF, _ALL & ~0x7F, _ALL, 0xFFFFFF87, 0xF00FFFF)),
    0x20D: ("TIMESTAMP_GET_GLOBAL", (0xFFFF, _ALL & ~7, _ALL), (0x1700FFFF, _ALL & ~7, _ALL)),
}
_NOP, _WRITE, _ATOMIC = 0x000, 0x002, 0x00A


class SdmaQueue(Queue):
    """A ring of SDMA packets; its pointers count bytes."""

    pointer_unit = 1
    _skip = 0

    def program(self) -> Iterator[None]:
        while left := self.available():
            if left % 4:
                raise PacketError(f"SDMA: got a write pointer {left} bytes on, want a multiple of 4")
            header = int.from_bytes(self.ring_bytes_at(self.position, 4), "little")
            rest = self.ring_bytes - self.position % self.ring_bytes
            data = self.ring_bytes_at(self.position, min(left, 64, rest))
            words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
            size = packet_dwords(self.agent, header, words)
            if 4 * size > min(left, rest):
                raise PacketError(
                    f"SDMA: got {header:#010x} of {size} dwords, with {left // 4} there before its end"
                )
            if 4 * size > len(data):
                data = self.ring_bytes_at(self.position, 4 * size)
                words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
            yield from self._run(words[:size])
            self.take(4 * size)

    def _run(self, words: Sequence[int]) -> Iterator[None]:
        if self._skip > 0:
            self._skip -= len(words)
            return
        opcode = _opcode(words[0])
        if opcode == _NOP:
            return
        agent, header = self.agent, words[0]
        if opcode == _WRITE:
            agent.memory.write(
                words[1] | words[2] << 32, b"".join(each.to_bytes(4, "little") for each in words[4:])
            )
            return
        name = _PACKETS[opcode][0]
        address = words[1] | words[2] << 32 if len(words) > 2 else 0
        if name == "INDIRECT":
            yield from self._run_buffer(agent.read_dwords(address, words[3], "execute"))
        elif name == "COPY_LINEAR":
            agent.copy(words[5] | words[6] << 32, words[3] | words[4] << 32, words[1] + 1)
        elif name == "FENCE":
            agent.write_u32(address, words[3])
        elif name == "TRAP":
            agent.interrupt(words[1])
        elif name == "POLL_REGMEM":
            if not header >> 31:
                raise PacketError("SDMA POLL_REGMEM: got MEM_POLL 0, want memory")
            while not compare(header >> 28 & 7, agent.read_u32(address) & words[4], words[3]):
                yield
        elif name == "COND_EXE":
            self._skip = 0 if agent.read_u32(address) == words[3] else words[4]
        elif name == "ATOMIC":
            agent.atomic(header >> 25, address, words[3] | words[4] << 32, words[5] | words[6] << 32)
        elif name == "CONST_FILL":
            if header >> 30 != 2:
                raise PacketError(f"SDMA CONST_FILL: got FILLSIZE {header >> 30}, want 2, dwords")
            agent.fill(address, words[3].to_bytes(4, "little"), (words[4] | 3) + 1)
        elif name == "TIMESTAMP_GET_GLOBAL":
            agent.write_u64(address, gpu_clock())

    def _run_buffer(self, words: Sequence[int]) -> Iterator[None]:
        at = 0
        while at < len(words):
            size = packet_dwords(self.agent, words[at], words[at:])
            if at + size > len(words):
                raise PacketError(f"SDMA: got {words[at]:#010x} of {size} dwords with {len(words) - at} left")
            yield from self._run(words[at : at + size])
            at += size


def _opcode(header: int) -> int:
    return header & 0xFF if header & 0xFF == _ATOMIC else header & 0xFFFF


def packet_dwords(agent: Agent, header: int, words: Sequence[int]) -> int:
    """How many dwords the packet takes that starts `words`. Raises: PacketError for one that is none."""
    opcode = _opcode(header)
    if opcode == _NOP:
        return 1 + (header >> 16 & 0x3FFF)
    if opcode == _WRITE and len(words) > 3:
        return 5 + (words[3] & 0xFFFFF)
    row = _PACKETS.get(opcode)
    masks = row[1 if agent.profile.family == 9 else 2] if row else ()
    if not masks:
        raise PacketError(f"SDMA: got header {header:#010x}, which the engine does not know")
    for number, (word, mask) in enumerate(zip(words, masks, strict=False)):
        if word & ~mask:
            raise PacketError(f"SDMA {row[0]}: got {word:#010x} in word {number}, want bits of {mask:#010x}")
    return len(masks)
