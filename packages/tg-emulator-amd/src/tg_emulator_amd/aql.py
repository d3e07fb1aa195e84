"""The command processor's AQL side: dispatches, barriers, and AMD's jump to PM4.

A packet that cannot be executed stops the queue and puts an error code into the queue's inactive signal.
Source: HSA Platform System Architecture 1.2, 2.9; LLVM 22, AMDGPUUsage, "Kernel Descriptor" and "Initial Kernel
Execution State"; AMD's ROCr, amd_hsa_queue.h, amd_hsa_signal.h and the codes it knows of an inactive signal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .errors import PacketError
from .interface import Dispatch
from .pm4 import Pm4Processor
from .queues import NOT_RUNG, Queue, gpu_clock

__all__ = ["AqlError", "AqlQueue"]

_PACKET_BYTES = 64
_VENDOR, _INVALID, _KERNEL, _BARRIER_AND, _BARRIER_OR = 0, 1, 2, 3, 5
# Offsets in amd_queue_t, from the read pointer on, which is at 128; and in amd_signal_t.
_QUEUE_TMPRING, _QUEUE_SCRATCH, _QUEUE_LANE_BYTES, _QUEUE_PROPERTIES, _QUEUE_INACTIVE = 12, 32, 48, 52, 64
_READ_POINTER_OFFSET, _PROFILING = 128, 1 << 3
_SIGNAL_VALUE, _SIGNAL_MAILBOX, _SIGNAL_EVENT, _SIGNAL_START, _SIGNAL_END = 8, 16, 24, 32, 40
_BAD_DIMENSIONS, _BAD_GROUP, _BAD_CODE, _BAD_PACKET, _BAD_WORKGROUP, _BAD_VENDOR = (
    0x2,
    0x4,
    0x8,
    0x20,
    0x40,
    0x100,
)
_NO_SCRATCH = 0x1
_MAX_WORKGROUP = 1024
_PRELOAD_PROLOGUE_BYTES = 256
# kernel_code_properties, in the order of the user SGPRs.
_PRIVATE_BUFFER, _DISPATCH_PTR, _QUEUE_PTR, _KERNARG_PTR, _DISPATCH_ID, _FLAT_SCRATCH, _PRIVATE_SIZE = (
    1 << bit for bit in range(7)
)
_PROPERTY_WAVE32 = 1 << 10


class AqlError(PacketError):
    """A packet that stops its queue; `code` goes into the inactive signal."""

    def __init__(self, code: int, message: str):
        super().__init__(f"AQL: {message}")
        self.code = code


class AqlQueue(Queue):
    """A ring of 64-byte packets; its pointers count packets."""

    pointer_unit = _PACKET_BYTES

    def available(self) -> int:
        rung = self.doorbell_value()
        if rung == NOT_RUNG:
            return 0
        # The doorbell says the last packet, the write pointer the next free one: both must cover a packet.
        return max(0, min(rung + 1, self.agent.read_u64(self.write_pointer)) - self.position)

    def program(self) -> Iterator[None]:
        processor = self.__dict__.setdefault("_processor", Pm4Processor(self.agent))
        while self.available():
            address = self.ring + self.position * _PACKET_BYTES % self.ring_bytes
            words = self.agent.read_dwords(address, 16)
            kind, completion = words[0] & 0xFF, words[14] | words[15] << 32
            if kind == _INVALID:  # its writer is not done with it
                yield
                continue
            start = gpu_clock()
            try:
                if kind == _KERNEL:
                    self._check_signal(completion)
                    dispatch = self._dispatch(address, words)
                    if words[0] >> 9 & 3:
                        self.agent.caches.acquire()
                    self.agent.launch(dispatch)
                elif kind in (_BARRIER_AND, _BARRIER_OR):
                    yield from self._barrier(kind, words)
                elif kind == _VENDOR and words[0] >> 16 == 1 and words[5] == 10:
                    yield from processor.run(words[1:5])
                elif kind == _VENDOR:
                    raise AqlError(_BAD_VENDOR, f"got vendor packet {words[0]:#010x}, want a jump to PM4")
                else:
                    raise AqlError(_BAD_PACKET, f"got packet type {kind}, want 0, 2, 3 or 5")
            except AqlError as error:
                self._report(error.code)
                raise
            if words[0] >> 11 & 3:
                self.agent.caches.release()
            self.agent.memory.write(address, struct.pack("<H", _INVALID))
            self.take(1)
            if completion:
                self._complete(completion, start)

    def _barrier(self, kind: int, words: tuple[int, ...]) -> Iterator[None]:
        signals = [words[at] | words[at + 1] << 32 for at in range(2, 12, 2)]
        signals = [each for each in signals if each]
        for each in signals:
            self._check_signal(each)
        combine = all if kind == _BARRIER_AND else any
        while signals and not combine(self.agent.read_u64(each + _SIGNAL_VALUE) == 0 for each in signals):
            yield

    def _check_signal(self, address: int) -> None:
        if address % 64:
            raise AqlError(_BAD_PACKET, f"got a signal at {address:#x}, want a multiple of 64")
        if address:
            self.agent.memory.check(address, 64, "write")

    def _complete(self, signal: int, start: int) -> None:
        agent = self.agent
        if agent.read_u32(self.read_pointer + _QUEUE_PROPERTIES) & _PROFILING:
            agent.write_u64(signal + _SIGNAL_START, start)
            agent.write_u64(signal + _SIGNAL_END, gpu_clock())
        agent.write_u64(signal + _SIGNAL_VALUE, agent.read_u64(signal + _SIGNAL_VALUE) - 1)
        self._notify(signal)

    def _notify(self, signal: int) -> None:
        mailbox, event = (
            self.agent.read_u64(signal + _SIGNAL_MAILBOX),
            self.agent.read_u32(signal + _SIGNAL_EVENT),
        )
        if mailbox:
            self.agent.write_u64(mailbox, event)
            self.agent.interrupt(event)

    def _report(self, code: int) -> None:
        signal = self.agent.read_u64(self.read_pointer + _QUEUE_INACTIVE)
        if signal:
            self.agent.write_u64(signal + _SIGNAL_VALUE, code)
            self._notify(signal)

    def _dispatch(self, packet: int, words: tuple[int, ...]) -> Dispatch:
        profile, agent = self.agent.profile, self.agent
        dimensions = words[0] >> 16 & 3
        workgroup = (words[1] & 0xFFFF, words[1] >> 16, words[2] & 0xFFFF)
        grid = (words[3], words[4], words[5])
        private, group, code = words[6], words[7], words[8] | words[9] << 32
        kernarg = words[10] | words[11] << 32
        if not dimensions or not all(workgroup) or not all(grid):
            raise AqlError(
                _BAD_DIMENSIONS, f"got {dimensions} dimensions, grid {grid}, workgroup {workgroup}"
            )
        if any(each != 1 for each in (*grid[dimensions:], *workgroup[dimensions:])):
            raise AqlError(
                _BAD_DIMENSIONS,
                f"got grid {grid}, workgroup {workgroup}, want 1 past {dimensions} dimensions",
            )
        if workgroup[0] * workgroup[1] * workgroup[2] > _MAX_WORKGROUP:
            raise AqlError(
                _BAD_WORKGROUP, f"got workgroup {workgroup}, want at most {_MAX_WORKGROUP} work-items"
            )
        if group > profile.lds_bytes:
            raise AqlError(_BAD_GROUP, f"got {group} bytes of LDS, want at most {profile.lds_bytes}")
        if not code or code % 64:
            raise AqlError(_BAD_CODE, f"got a kernel object at {code:#x}, want a descriptor, aligned to 64")
        descriptor = agent.memory.read(code, 64)
        fixed_group, fixed_private, _kernarg_bytes, entry = struct.unpack_from("<III4xq", descriptor)
        rsrc3, rsrc1, rsrc2, properties, preload = struct.unpack_from("<IIIHH", descriptor, 44)
        if group < fixed_group or private < fixed_private:
            raise AqlError(
                _BAD_GROUP,
                f"got {group} bytes of LDS and {private} of scratch, want {fixed_group} and {fixed_private}",
            )
        wave_size = 32 if properties & _PROPERTY_WAVE32 and profile.family > 9 else 64
        lane_bytes, base = self._scratch(private)
        entry += code
        sgprs = self._user_sgprs(properties, packet, kernarg, private)
        if count := preload & 0x7F:
            offset = 4 * (preload >> 7)
            sgprs += agent.read_dwords(kernarg + offset, count)
            entry += _PRELOAD_PROLOGUE_BYTES
        agent.memory.check(entry, 4, "execute")
        return Dispatch(
            profile.target, entry, grid, workgroup, rsrc1, rsrc2, rsrc3, sgprs, group, lane_bytes, base, wave_size,
            dispatch_id=self.position,
        )  # fmt: skip

    def _scratch(self, private: int) -> tuple[int, int]:
        """Bytes of each lane, and where the first wave's start."""
        if not private:
            return 0, 0
        lane_bytes = self.agent.read_u32(self.read_pointer + _QUEUE_LANE_BYTES)
        tmpring = self.agent.read_u32(self.read_pointer + _QUEUE_TMPRING)
        if lane_bytes < private or not tmpring:
            raise AqlError(
                _NO_SCRATCH, f"got {private} bytes of scratch for each lane, want at most {lane_bytes}"
            )
        return lane_bytes, self.agent.read_u64(self.read_pointer + _QUEUE_SCRATCH)

    def _user_sgprs(self, properties: int, packet: int, kernarg: int, private: int) -> list[int]:
        def halves(value: int) -> list[int]:
            return [value & 0xFFFFFFFF, value >> 32]

        rows = (
            (_PRIVATE_BUFFER, [0, 0, 0, 0]),
            (_DISPATCH_PTR, halves(packet)),
            (_QUEUE_PTR, halves(self.read_pointer - _READ_POINTER_OFFSET)),
            (_KERNARG_PTR, halves(kernarg)),
            (_DISPATCH_ID, halves(self.position)),
            (_FLAT_SCRATCH, [0, 0]),
            (_PRIVATE_SIZE, [private]),
        )
        return [word for bit, values in rows if properties & bit for word in values]
