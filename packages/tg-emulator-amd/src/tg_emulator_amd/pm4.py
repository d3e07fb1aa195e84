"""The command processor's PM4 side: packets of a compute queue, of indirect buffers, and of AQL's jumps to them.

`_BITS` says for each opcode which bits of each word mean anything; any other bit set is an error here, where hardware
would take no notice. What a packet must be followed by (a dispatch by its end, a write by its confirmation) is in order
by itself: a dispatch is over when its packet is.
Source: Linux 7.2, drivers/gpu/drm/amd/amdgpu, soc15d.h and nvd.h; asic_reg/gc (compute registers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .errors import PacketError
from .interface import Dispatch
from .queues import Agent, Queue, compare, gpu_clock

__all__ = ["Pm4Processor", "Pm4Queue"]

_ALL = 0xFFFFFFFF
_LO4, _LO8 = _ALL & ~3, _ALL & ~7
_ADDRESS = (_LO4, _ALL)
_COMMON = {
    0x15: (_ALL, _ALL, _ALL, 0xEC6F),
    0x16: (*_ADDRESS, 0xEC6F),
    0x1E: (0x6000F7F, *_ADDRESS, _ALL, _ALL, _ALL, _ALL, 0x1FFF),
    0x22: (*_ADDRESS, 0, 0x3FFF),
    0x3C: (0x6000177 | 0xC0, *_ADDRESS, _ALL, _ALL, 0xFFFF),
    0x3F: (*_ADDRESS, 0xBFBFFFFF),
    0x40: (0x6116F0F, _ALL, _ALL, _ALL, _ALL),
    0x46: (0xF3F,),
    0x50: (0xE6306001, _ALL, _ALL, _ALL, _ALL, 0x43FFFFFF),
}
_GFX9 = {
    0x1E: (0x6000F3F, *_ADDRESS, _ALL, _ALL, _ALL, _ALL, 0x1FFF),
    0x49: (0x102BBF3F, 0xE7030000, *_ADDRESS, _ALL, _ALL, 0xFFFFFFF),
    0x58: (0xF8C48038, _ALL, 0xFF, _ALL, 0xFFFFFF, 0xFFFF),
}
_GFX10 = {
    0x49: (0x16FFFF3F, 0xE7030000, *_ADDRESS, _ALL, _ALL, 0xFFFFFFF),
    0x58: (0x80000000, _ALL, 0xFF, _ALL, 0xFFFFFF, 0xFFFF, 0x3FFFF),
}
_BITS: dict[int, dict[int, tuple[int, ...]]] = {
    9: _COMMON | _GFX9,
    11: _COMMON | _GFX10,
    12: _COMMON | _GFX10,
}
_SH_FIRST, _SH_LAST = 0x200, 0x250
# Offsets of the compute registers that a dispatch reads.
_START, _THREADS, _PROGRAM, _SCRATCH, _RSRC1, _TMPRING, _USER_DATA = (
    0x204,
    0x207,
    0x20C,
    0x210,
    0x212,
    0x218,
    0x240,
)
_RSRC3 = {9: 0x22D, 11: 0x228, 12: 0x228}
_SHADER_ENABLE, _THREAD_DIMENSIONS, _WAVE32 = 1 << 0, 1 << 5, 1 << 15
_EVENT_CS_PARTIAL_FLUSH = 0x07
_END_OF_PIPE_EVENTS = (0x14, 0x28, 0x2F)  # flush and invalidate, bottom of pipe, compute done


class Pm4Processor:
    """Runs PM4 packets for a queue; keeps the queue's compute registers."""

    def __init__(self, agent: Agent):
        self.agent, self.major = agent, agent.profile.family
        self.registers: dict[int, int] = {}
        self._skip = 0
        self._handlers: dict[int, Callable[[Sequence[int]], Iterator[None] | None]] = {
            0x10: lambda words: None,
            0x15: self._dispatch_direct,
            0x16: self._dispatch_indirect,
            0x1E: self._atomic,
            0x22: self._conditional,
            0x37: self._write_data,
            0x3C: self._wait,
            0x3F: self._indirect_buffer,
            0x40: self._copy_data,
            0x46: self._event,
            0x49: self._release,
            0x50: self._dma,
            0x58: self._acquire,
            0x76: self._set_registers,
            0x79: lambda words: None,
        }

    def run(self, dwords: Sequence[int]) -> Iterator[None]:
        """Run the packets of a buffer. Raises: PacketError."""
        at = 0
        while at < len(dwords):
            size = self.packet_dwords(dwords[at])
            if at + size > len(dwords):
                raise PacketError(
                    f"PM4: got {dwords[at]:#010x} of {size} dwords with {len(dwords) - at} left"
                )
            yield from self.run_packet(dwords[at : at + size])
            at += size

    @staticmethod
    def packet_dwords(header: int) -> int:
        """How many dwords a packet takes. Raises: PacketError for a header that is none."""
        if header >> 30 == 2 or header == 0xFFFF1000:
            return 1
        if header >> 30 != 3:
            raise PacketError(f"PM4: got header {header:#010x}, want one of type 3")
        return (header >> 16 & 0x3FFF) + 2

    def run_packet(self, packet: Sequence[int]) -> Iterator[None]:
        """Run one packet."""
        if self._skip > 0:
            self._skip -= len(packet)
            return
        if len(packet) == 1:
            return
        opcode, words = packet[0] >> 8 & 0xFF, packet[1:]
        if opcode not in self._handlers:
            raise PacketError(f"PM4: got opcode {opcode:#04x}, which the command processor does not know")
        masks = _BITS[self.major].get(opcode)
        if masks is not None:
            if len(words) != len(masks):
                raise PacketError(f"PM4 {opcode:#04x}: got {len(words)} words, want {len(masks)}")
            for number, (word, mask) in enumerate(zip(words, masks, strict=True), 1):
                if word & ~mask:
                    raise PacketError(
                        f"PM4 {opcode:#04x}: got {word:#010x} in word {number}, want bits of {mask:#010x}"
                    )
        result = self._handlers[opcode](words)
        if result is not None:
            yield from result

    # Dispatches.

    def _set_registers(self, words: Sequence[int]) -> None:
        first = words[0] & 0xFFFF
        if words[0] >> 16 or first < _SH_FIRST or first + len(words) - 1 > _SH_LAST:
            raise PacketError(f"SET_SH_REG: got offset {words[0]:#x}, want compute registers")
        self.registers.update(enumerate(words[1:], first))

    def _register(self, offset: int) -> int:
        if offset not in self.registers:
            raise PacketError(f"dispatch: got no value for register SH+{offset:#x}, want it set before")
        return self.registers[offset]

    def _dispatch_indirect(self, words: Sequence[int]) -> None:
        sizes = self.agent.read_dwords(words[0] | words[1] << 32, 3)
        self._dispatch_direct([*sizes, words[2]])

    def _dispatch_direct(self, words: Sequence[int]) -> None:
        *sizes, initiator = words
        if not initiator & _SHADER_ENABLE:
            raise PacketError("DISPATCH_DIRECT: got COMPUTE_SHADER_EN 0, want 1")
        if any(self._register(_START + axis) for axis in range(3)):
            raise PacketError("DISPATCH_DIRECT: got a start that is not 0, which is not supported")
        workgroup = tuple(self._register(_THREADS + axis) & 0xFFFF for axis in range(3))
        if not all(workgroup) or not all(sizes):
            raise PacketError(
                f"DISPATCH_DIRECT: got grid {sizes} of workgroups {workgroup}, want sizes of 1 and more"
            )
        if not initiator & _THREAD_DIMENSIONS:
            sizes = [count * each for count, each in zip(sizes, workgroup, strict=True)]
        rsrc1, rsrc2 = self._register(_RSRC1), self._register(_RSRC1 + 1)
        wave_size = 32 if initiator & _WAVE32 else 64
        scratch = 0
        if rsrc2 & 1:
            scratch = (self._register(_TMPRING) >> 12) * (1024 if self.major == 9 else 256) // wave_size
        granule = 1280 if self.agent.profile.target == "gfx950" else 512
        self.agent.launch(
            Dispatch(
                target=self.agent.profile.target,
                entry=(self._register(_PROGRAM) | self._register(_PROGRAM + 1) << 32) << 8,
                grid=(sizes[0], sizes[1], sizes[2]),
                workgroup=workgroup,
                rsrc1=rsrc1,
                rsrc2=rsrc2,
                rsrc3=self._register(_RSRC3[self.major]),
                user_sgprs=[self.registers.get(_USER_DATA + i, 0) for i in range(rsrc2 >> 1 & 0x1F)],
                lds_bytes=(rsrc2 >> 15 & 0x1FF) * granule,
                scratch_bytes_per_lane=scratch,
                scratch_base=(self._register(_SCRATCH) | self._register(_SCRATCH + 1) << 32) << 8
                if scratch
                else 0,
                wave_size=wave_size,
            )
        )

    # Memory and events.

    def _event(self, words: Sequence[int]) -> None:
        if words[0] & 0x3F == _EVENT_CS_PARTIAL_FLUSH and words[0] >> 8 != 4:
            raise PacketError(f"EVENT_WRITE: got index {words[0] >> 8} for CS_PARTIAL_FLUSH, want 4")

    def _acquire(self, words: Sequence[int]) -> None:
        self.agent.caches.acquire()

    def _release(self, words: Sequence[int]) -> None:
        if words[0] & 0x3F not in _END_OF_PIPE_EVENTS or words[0] >> 8 & 0xF not in (5, 6):
            raise PacketError(
                f"RELEASE_MEM: got event {words[0] & 0xFFF:#x}, want one of the end of the pipe"
            )
        address, data = words[2] | words[3] << 32, words[4] | words[5] << 32
        select = words[1] >> 29
        self.agent.caches.release()
        if select == 1:
            self.agent.write_u32(address, data)
        elif select in (2, 3, 4):
            self.agent.write_u64(address, data if select == 2 else gpu_clock())
        elif select:
            raise PacketError(f"RELEASE_MEM: got DATA_SEL {select}, want 0 to 4")
        if words[1] >> 24 & 7:
            self.agent.interrupt(words[6])

    def _write_data(self, words: Sequence[int]) -> None:
        if len(words) < 4 or words[0] >> 8 & 0xF not in (2, 5) or words[1] & 3:
            raise PacketError(
                f"WRITE_DATA: got control {words[0]:#010x}, want dwords to memory (DST_SEL 2 or 5)"
            )
        address, step = words[1] | words[2] << 32, 0 if words[0] >> 16 & 1 else 4
        for number, word in enumerate(words[3:]):
            self.agent.write_u32(address + number * step, word)

    def _copy_data(self, words: Sequence[int]) -> None:
        source, destination = words[1] | words[2] << 32, words[3] | words[4] << 32
        is_64 = bool(words[0] >> 16 & 1)
        select = words[0] & 0xF
        if select in (1, 2):
            value = self.agent.read_u64(source) if is_64 else self.agent.read_u32(source)
        elif select == 5:
            value = source
        elif select in (9, 10):
            value = gpu_clock()
        else:
            raise PacketError(f"COPY_DATA: got SRC_SEL {select}, want memory, a constant or a clock")
        if words[0] >> 8 & 0xF not in (1, 2, 5):
            raise PacketError(f"COPY_DATA: got DST_SEL {words[0] >> 8 & 0xF}, want memory")
        (self.agent.write_u64 if is_64 else self.agent.write_u32)(destination, value)

    def _dma(self, words: Sequence[int]) -> None:
        destination, size = words[3] | words[4] << 32, words[5] & 0x3FFFFFF
        if words[0] >> 29 & 3 == 2:
            if size % 4:
                raise PacketError(f"DMA_DATA: got {size} bytes to fill, want a multiple of 4")
            self.agent.fill(destination, words[1].to_bytes(4, "little"), size)
        else:
            self.agent.copy(destination, words[1] | words[2] << 32, size)

    def _atomic(self, words: Sequence[int]) -> None:
        operands = (words[index] | words[index + 1] << 32 for index in (1, 3, 5))
        self.agent.atomic(words[0] & 0x7F, *operands)

    def _wait(self, words: Sequence[int]) -> Iterator[None]:
        if words[0] >> 4 & 3 != 1:
            raise PacketError("WAIT_REG_MEM: got MEM_SPACE 0, want memory")
        address = words[1] | words[2] << 32
        while not compare(words[0] & 7, self.agent.read_u32(address) & words[4], words[3]):
            yield

    def _conditional(self, words: Sequence[int]) -> None:
        if not self.agent.read_u32(words[0] | words[1] << 32):
            self._skip = words[3]

    def _indirect_buffer(self, words: Sequence[int]) -> Iterator[None]:
        size = words[2] & 0xFFFFF
        if not size or not words[2] >> 23 & 1:
            raise PacketError(
                f"INDIRECT_BUFFER: got {size} dwords, VALID {words[2] >> 23 & 1}; want both above 0"
            )
        return self.run(self.agent.read_dwords(words[0] | words[1] << 32, size, "execute"))


class Pm4Queue(Queue):
    """A ring of PM4 packets; its pointers count dwords."""

    def program(self) -> Iterator[None]:
        processor = self.__dict__.setdefault("_processor", Pm4Processor(self.agent))
        while left := self.available():
            header = int.from_bytes(self.ring_bytes_at(4 * self.position, 4), "little")
            size = processor.packet_dwords(header)
            if size > left:
                raise PacketError(
                    f"PM4: got {header:#010x} of {size} dwords, with {left} before the write pointer"
                )
            data = self.ring_bytes_at(4 * self.position, 4 * size)
            words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
            yield from processor.run_packet(words)
            self.take(size)
