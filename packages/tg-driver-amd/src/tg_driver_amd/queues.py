"""Hardware queues: a ring, its pointers, a doorbell, and the areas that KFD asks for; one class per packet language.

What a queue has been given and not finished is in `pending`, so that a fault can be told by the kernel's name.
Source: Linux 7.2, amdkfd, kfd_queue.c (sizes) and kfd_mqd_manager_v9.c (what the pointers count); AMD's ROCr,
amd_hsa_queue.h (`amd_queue_t`) and the error codes of an AQL queue's inactive signal.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from . import aql, pm4, sdma
from .errors import KernelCallError, PacketError, WaitTimeoutError
from .ioctls import STRUCTS, QueueType, make_struct
from .memory import Allocation
from .signals import Signal
from .topology import PAGE_BYTES

if TYPE_CHECKING:
    from .device import Device

__all__ = ["AmdQueue", "AqlQueue", "Pm4Queue", "Queue", "SdmaQueue"]

_RING_BYTES = 1 << 16
_FULL_TIMEOUT_S = 30.0


# `amd_queue_t`: what the command processor reads and writes of an AQL queue; of the others, the pointers only.
AmdQueue = make_struct(
    "AmdQueue",
    "type:u32 features:u32 base_address:u64 doorbell_signal:u64 size:u32 reserved0:u32 id:u64 reserved1:u32*4 "
    "write_dispatch_id:u64 group_aperture_base_hi:u32 private_aperture_base_hi:u32 max_cu_id:u32 max_wave_id:u32 "
    "max_legacy_doorbell:u64 legacy_doorbell_lock:u32 reserved2:u32*9 read_dispatch_id:u64 "
    "read_dispatch_id_offset:u32 tmpring_size:u32 scratch_resource_descriptor:u32*4 scratch_address:u64 "
    "scratch_bytes:u64 scratch_lane_bytes:u32 properties:u32 reserved3:u32*2 inactive_signal:u64 reserved4:u32*14",
)
_PROPERTY_PTR64, _PROPERTY_PROFILING = 1 << 1, 1 << 3


class Queue:
    """A ring that `write` appends to. Sizes and positions are in bytes; subclasses say what the pointers count."""

    kind: ClassVar[QueueType]
    pointer_unit: ClassVar[int]
    name: ClassVar[str]

    def __init__(self, device: Device, ring_bytes: int = _RING_BYTES, priority: int = 7, **arguments: int):
        self.device, self.ring_bytes = device, ring_bytes
        self.pending: deque[Signal] = deque()
        self.written = 0  # bytes since the start
        self._memory: list[Allocation] = []
        self.queue_id: int | None = None
        try:
            self._create(priority, arguments)
        except BaseException:
            self.close()
            raise

    def _create(self, priority: int, arguments: dict[str, int]) -> None:
        device = self.device
        self.ring = self._take(self.ring_bytes, "uncached", executable=True)
        self.words = AmdQueue.from_address(self._take(PAGE_BYTES, "uncached").address)
        pointers = ctypes.addressof(self.words)
        self._prepare()
        if self.kind in (QueueType.COMPUTE, QueueType.COMPUTE_AQL):
            area = device.node.save_area
            save = self._take(area.total, "host")
            self._write_save_headers(save, area.context, area.debug)
            arguments |= {
                "eop_buffer_address": self._take(area.eop, "vram").address,
                "eop_buffer_size": area.eop,
                "ctx_save_restore_address": save.address,
                "ctx_save_restore_size": area.context,
                "ctl_stack_size": area.control_stack,
            }
        try:
            done = device.system.kfd.call(
                "create_queue",
                ring_base_address=self.ring.address,
                ring_size=self.ring_bytes,
                write_pointer_address=pointers + AmdQueue.write_dispatch_id.offset,
                read_pointer_address=pointers + AmdQueue.read_dispatch_id.offset,
                gpu_id=device.node.gpu_id,
                queue_type=self.kind,
                queue_percentage=100,
                queue_priority=priority,
                **arguments,
            )
        except KernelCallError:
            device.system.wait_events(
                device.event_id, 0
            )  # the reason may be a fault that nobody has heard of yet
            device.check()
            raise
        self.queue_id = done.queue_id
        self._doorbell = ctypes.c_uint64.from_address(device.doorbell(done.doorbell_offset))

    def _prepare(self) -> None:
        """Fill in what must stand before the queue is created."""

    def _take(self, size: int, kind: str, *, executable: bool = False) -> Allocation:
        memory = self.device.alloc(size, kind, executable=executable)
        self._memory.append(memory)
        if kind != "vram" and size <= _RING_BYTES:
            memory.view[:] = bytes(size)
        return memory

    def _write_save_headers(self, save: Allocation, context_bytes: int, debug_bytes: int) -> None:
        xccs = self.device.node.xccs
        for xcc in range(xccs):
            header = STRUCTS["context_save_area_header"].from_address(save.address + xcc * context_bytes)
            header.debug_offset = (xccs - xcc) * context_bytes
            header.debug_size = debug_bytes * xccs

    @property
    def read(self) -> int:
        """Bytes that the GPU has taken since the start."""
        return self.words.read_dispatch_id * self.pointer_unit

    def reserve(self, size: int) -> None:
        """Wait until `size` more bytes fit. Raises: WaitTimeoutError, GpuFaultError."""
        if size > self.ring_bytes:
            raise PacketError(f"{self}: got packets of {size} bytes, want at most {self.ring_bytes}")
        end = time.monotonic() + _FULL_TIMEOUT_S
        while self.written + size - self.read > self.ring_bytes:
            self.device.system.wait_events(self.device.event_id, 1)
            self.device.check()
            if time.monotonic() > end:
                raise WaitTimeoutError(f"{self}: got no space in the ring in {_FULL_TIMEOUT_S} s")

    def write(self, data: bytes) -> None:
        """Append packets. They are not seen before `ring_doorbell`."""
        self.device.system.kfd.check_process()
        self.reserve(len(data))
        at = self.written % self.ring_bytes
        head = min(len(data), self.ring_bytes - at)
        ctypes.memmove(self.ring.address + at, data[:head], head)
        ctypes.memmove(self.ring.address, data[head:], len(data) - head)
        self.written += len(data)

    def ring_doorbell(self) -> None:
        """Tell the GPU that packets were written."""
        self.words.write_dispatch_id = self.written // self.pointer_unit
        self._doorbell.value = self.doorbell_value()

    def doorbell_value(self) -> int:
        return self.written // self.pointer_unit

    def submit(self, data: bytes, signal: Signal) -> Signal:
        """Append packets whose end `signal` tells, and start them."""
        self.device.check()
        self.write(data)
        self.forget_done()
        self.pending.append(signal)
        self.ring_doorbell()
        return signal

    def forget_done(self) -> None:
        while self.pending and self.pending[0].is_done:
            self.pending.popleft()

    def synchronize(self, timeout_s: float | None = None) -> None:
        """Until all that was submitted is done. Raises: WaitTimeoutError, GpuFaultError."""
        while self.pending:
            self.pending[0].wait(timeout_s)
            self.forget_done()

    def error(self) -> str | None:
        """What the command processor says is wrong with the queue, if it says so."""
        return None

    def set_cu_mask(self, mask: Sequence[int]) -> None:
        """Let the queue use only the compute units whose bits are set, 32 in a word."""
        words = (ctypes.c_uint32 * len(mask))(*mask)
        address = ctypes.addressof(words)
        self.device.system.kfd.call(
            "set_cu_mask", queue_id=self.queue_id, num_cu_mask=32 * len(mask), cu_mask_ptr=address
        )

    def update(self, percentage: int = 100, priority: int = 7) -> None:
        """Change the share and the priority (0 to 15); a share of 0 stops the queue."""
        self.device.system.kfd.call(
            "update_queue",
            queue_id=self.queue_id,
            ring_base_address=self.ring.address,
            ring_size=self.ring_bytes,
            queue_percentage=percentage,
            queue_priority=priority,
        )

    def close(self) -> None:
        """Take the queue off the GPU and give its memory back; what still ran on it is lost."""
        if self.queue_id is not None:
            self.device.system.kfd.call("destroy_queue", queue_id=self.queue_id)
            self.queue_id = None
        for memory in self._memory:
            memory.free()
        self._memory.clear()
        self.pending.clear()

    def __str__(self) -> str:
        return f"{self.name} queue {self.queue_id}"


class AqlQueue(Queue):
    """Holds 64-byte packets that the command processor understands with all they ask for; runs on every XCC."""

    kind, pointer_unit, name = QueueType.COMPUTE_AQL, aql.PACKET_BYTES, "AQL"
    _ERRORS: ClassVar = {
        0x1: "scratch is too small",
        0x2: "grid or workgroup dimensions are not valid",
        0x4: "the group segment is larger than the LDS",
        0x8: "there is no valid kernel descriptor",
        0x20: "the packet's type is not valid",
        0x40: "the workgroup is too large",
        0x80: "the kernel wants more registers than there are",
        0x100: "the vendor's packet is not supported",
        0x400: "scratch is too small for waves of 32",
    }

    def _prepare(self) -> None:
        device, words = self.device, self.words
        apertures = device.system.apertures[device.node.gpu_id]
        words.base_address, words.size = self.ring.address, self.ring_bytes // aql.PACKET_BYTES
        words.group_aperture_base_hi = apertures.lds_base >> 32
        words.private_aperture_base_hi = apertures.scratch_base >> 32
        words.max_cu_id = device.node.compute_units - 1
        words.max_wave_id = device.node["max_waves_per_simd"] * device.node["simd_per_cu"] - 1
        words.read_dispatch_id_offset = AmdQueue.read_dispatch_id.offset
        words.properties = _PROPERTY_PTR64 | _PROPERTY_PROFILING
        scratch = device.scratch
        if scratch is not None:
            words.tmpring_size, words.scratch_lane_bytes = scratch.tmpring_size, scratch.lane_bytes
            words.scratch_address, words.scratch_bytes = scratch.memory.address, scratch.memory.size_bytes
        self._inactive = device.signals.new(f"{self} error", value=0)
        words.inactive_signal = self._inactive.address
        invalid = struct.pack("<H", aql.PacketType.INVALID)
        for at in range(0, self.ring_bytes, aql.PACKET_BYTES):
            self.ring.view[at : at + 2] = invalid

    def doorbell_value(self) -> int:
        return self.written // aql.PACKET_BYTES - 1

    def write(self, data: bytes) -> None:
        """Append packets; each becomes valid with its header, which is written last."""
        self.device.system.kfd.check_process()
        for start in range(0, len(data), aql.PACKET_BYTES):
            packet = data[start : start + aql.PACKET_BYTES]
            self.reserve(aql.PACKET_BYTES)
            at = self.ring.address + self.written % self.ring_bytes
            ctypes.memmove(at + 4, packet[4:], aql.PACKET_BYTES - 4)
            ctypes.c_uint32.from_address(at).value = struct.unpack_from("<I", packet)[0]
            self.written += aql.PACKET_BYTES

    def error(self) -> str | None:
        code = self._inactive.words.value
        if not code:
            return None
        names = [text for bit, text in self._ERRORS.items() if code & bit]
        return f"{self}: the command processor stopped: {' and '.join(names) or f'error {code:#x}'}"


class Pm4Queue(Queue):
    """Holds PM4 packets; on a GPU of several XCCs it runs on one of them."""

    kind, pointer_unit, name = QueueType.COMPUTE, 4, "PM4"

    def submit_packets(self, packets: Sequence[int], signal: Signal) -> Signal:
        """Run packets; then count `signal` down, with its times, and interrupt."""
        major, words = self.device.major, signal.words
        start = signal.address + type(words).start.offset
        end = signal.address + type(words).end.offset
        dwords = [
            *pm4.release(major, start, 0, pm4.DataSel.GPU_CLOCK),
            *packets,
            *pm4.release(major, end, 0, pm4.DataSel.GPU_CLOCK),
            *pm4.release(major, signal.address + type(words).value.offset, 0),
            *pm4.release(major, words.event_mailbox, words.event_id, event_id=words.event_id),
        ]
        return self.submit(struct.pack(f"<{len(dwords)}I", *dwords), signal)


class SdmaQueue(Queue):
    """Holds SDMA packets: copies and fills beside the compute units."""

    kind, pointer_unit, name = QueueType.SDMA, 1, "SDMA"

    def submit_packets(self, packets: Sequence[int], signal: Signal) -> Signal:
        """Run packets; then count `signal` down, with its times, and interrupt."""
        version, words = sdma.version_of(self.device.major), signal.words
        start = signal.address + type(words).start.offset
        end = signal.address + type(words).end.offset
        dwords = [
            *sdma.build(version, "TIMESTAMP_GET_GLOBAL", address=start),
            *packets,
            *sdma.build(version, "TIMESTAMP_GET_GLOBAL", address=end),
            *sdma.fence(version, signal.address + type(words).value.offset, 0),
            *sdma.fence(version, words.event_mailbox, words.event_id),
            *sdma.build(version, "TRAP", int_context=words.event_id),
        ]
        # A packet must not wrap around the end of the ring: fill it up with NOPs, one dword each.
        size, at = 4 * len(dwords), self.written % self.ring_bytes
        if at + size > self.ring_bytes:
            self.write(bytes(self.ring_bytes - at))
        return self.submit(struct.pack(f"<{len(dwords)}I", *dwords), signal)


class XgmiQueue(SdmaQueue):
    """An SDMA queue on an engine that serves the links to other GPUs."""

    kind, name = QueueType.SDMA_XGMI, "XGMI SDMA"


QUEUES: dict[str, type[Queue]] = {"aql": AqlQueue, "pm4": Pm4Queue, "sdma": SdmaQueue, "xgmi": XgmiQueue}
