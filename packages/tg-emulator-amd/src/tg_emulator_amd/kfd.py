"""The virtual kernel driver: one client's view of /dev/kfd and the render nodes, with the kernel's checks and errors.

Source: Linux 7.2: include/uapi/linux/kfd_ioctl.h (numbers and structs), amdkfd/kfd_chardev.c, kfd_queue.c, kfd_events.c
and amdgpu_amdkfd_gpuvm.c (checks, errno values).
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from .allocations import DOORBELL_BYTES, GPUVM, GTT, MMAP_GPU_SHIFT, MMIO, Allocations, Binding, Buffer
from .aql import AqlError, AqlQueue
from .coherence import Caches
from .errors import DeviceFault, EmulatorError, MemoryFault
from .events import HW_EXCEPTION, MEMORY, UNSIGNALED, Events, refuse
from .faults import Faults
from .interface import Figures
from .memory import PAGE_BYTES, AddressSpace, HostMemory, Store
from .pm4 import Pm4Queue
from .queues import NOT_RUNG, Agent, Queue, Shaders, gpu_clock
from .sdma import SdmaQueue
from .sysfs import Gpu, save_area_bytes

__all__ = ["IOCTLS", "Client"]

_LOG = logging.getLogger("tg_emulator_amd")
KFD_VERSION = (1, 23)
EVENT_PAGE_BYTES = 4096 * 8
MMAP_DOORBELL, MMAP_EVENTS = 3 << 62, 2 << 62
_GPU_ID_BITS = 0xFFFF
_APERTURES = (1 << 48, (1 << 48) + (1 << 32) - 1, 2 << 48, (2 << 48) + (1 << 32) - 1)
_COMPUTE, _SDMA, _COMPUTE_AQL, _SDMA_XGMI, _SDMA_ENGINE = range(5)
_QUEUES: dict[int, type[Queue]] = {
    _COMPUTE: Pm4Queue, _SDMA: SdmaQueue, _COMPUTE_AQL: AqlQueue, _SDMA_XGMI: SdmaQueue, _SDMA_ENGINE: SdmaQueue,
}  # fmt: skip
_MIN_RING_BYTES, _MAX_QUEUES, _MAX_PRIORITY, _MAX_PERCENT = 1024, 1024, 15, 100
_IDLE_S = (
    0.00002,
    0.002,
)  # how long the device sleeps between looks at its doorbells: just after work, and at most

# Number: name, struct format, fields. Formats list each field, so that offsets are those of C's natural alignment.
_ROWS = """
01 get_version II major minor
02 create_queue QQQQIIIIIIQQQIIII ring write_pointer read_pointer doorbell_offset ring_bytes gpu_id type percentage
  priority queue_id eop eop_bytes save save_bytes stack_bytes engine metadata_bytes
03 destroy_queue II queue_id pad
04 set_memory_policy QQIIII base size gpu_id default alternate flags
05 get_clock_counters QQQQII gpu cpu system frequency gpu_id pad
07 update_queue QIIII ring queue_id ring_bytes percentage priority
08 create_event QIIIIII page trigger type auto_reset node event_id slot
09 destroy_event II event_id pad
0a set_event II event_id pad
0b reset_event II event_id pad
0c wait_events QIIII events count for_all timeout result
11 set_scratch_backing_va QII va gpu_id pad
13 set_trap_handler QQII tba tma gpu_id pad
14 get_process_apertures_new QII rows count pad
15 acquire_vm II drm_fd gpu_id
16 alloc_memory_of_gpu QQQQII va size handle offset gpu_id flags
17 free_memory_of_gpu Q handle
18 map_memory_to_gpu QQII handle ids count done
19 unmap_memory_from_gpu QQII handle ids count done
1a set_cu_mask IIQ queue_id count mask
1c get_dmabuf_info QQIIII size metadata metadata_bytes gpu_id flags dmabuf_fd
1d import_dmabuf QQII va handle gpu_id dmabuf_fd
1f smi_events II gpu_id anon_fd
20 svm QQII start size op count
21 set_xnack_mode i enabled
23 get_available_memory QII available gpu_id pad
24 export_dmabuf QII handle flags dmabuf_fd
25 runtime_enable QII r_debug mode capabilities
"""


def _parse_row(line: str) -> tuple[int, tuple[str, struct.Struct, list[str]]]:
    number, name, layout, *names = line.split()
    return int(number, 16), (name, struct.Struct("<" + layout), names)


IOCTLS = dict(map(_parse_row, _ROWS.strip().replace("\n  ", " ").splitlines()))


class Client(Allocations):
    """One process that opened /dev/kfd."""

    def __init__(self, gpus: Sequence[Gpu], store: Store, host: HostMemory, shaders: Shaders, faults: Faults):
        super().__init__(store, host, faults)
        self.events = Events()
        self.figures: list[Figures] = []
        self.reports: list[EmulatorError] = []
        self.queues: dict[int, Queue] = {}
        self.kept: dict[int, list[Buffer]] = {}  # what each queue stands on
        self.smi: dict[int, tuple[int, int]] = {}  # read end -> GPU id, write end
        self.lock = threading.RLock()
        for gpu in gpus:
            agent = Agent(
                gpu, AddressSpace(store), Caches(store), shaders, self._interrupt, self.figures, faults.take
            )
            doorbells = store.take(DOORBELL_BYTES)
            self.bindings[gpu.gpu_id] = Binding(agent, doorbells)
            os.pwrite(store.descriptor, b"\xff" * DOORBELL_BYTES, doorbells)
        caches = [binding.agent.caches for binding in self.bindings.values()]
        for each in caches:
            each.peers = caches
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    # The device's own life.

    def _run(self) -> None:
        """Step all queues; sleep the longer the longer nothing happened; end with the last queue."""
        idle = _IDLE_S[0]
        while True:
            with self.lock:
                if not self.queues:
                    self._thread = None
                    return
                queues = list(self.queues.values())
            worked = False
            for queue in queues:
                was_stopped = queue.is_stopped
                worked |= queue.step()
                if queue.error is not None and not was_stopped:
                    self._report(queue)
            idle = _IDLE_S[0] if worked else min(2 * idle, _IDLE_S[1])
            self._wake.wait(0 if worked else idle)
            self._wake.clear()

    def _interrupt(self, number: int) -> None:
        if not self.faults.take("lost_interrupt"):
            self.events.interrupt(number)

    def _report(self, queue: Queue) -> None:
        """Tell the client of an error in a queue, as KFD would, and the user in words."""
        error, gpu_id = queue.error, queue.agent.gpu.gpu_id
        self.reports.append(error)
        _LOG.info("queue %d of GPU %d: %s", queue.queue_id, gpu_id, error)
        if isinstance(error, AqlError):
            return  # the queue's inactive signal tells it
        fault = error if isinstance(error, MemoryFault) else error.__cause__
        if isinstance(fault, MemoryFault):
            self.raise_memory_fault(gpu_id, fault.address, fault.access, fault.reason)
        elif isinstance(error, DeviceFault):
            self.raise_hardware_exception(gpu_id, reset_type=0, cause=int(error.is_ecc), memory_lost=True)
        else:
            self.raise_hardware_exception(gpu_id, reset_type=1, cause=0)

    def raise_memory_fault(
        self, gpu_id: int, address: int, access: str, reason: str, error_type: int = 0
    ) -> None:
        """Report a page fault or a memory error."""
        is_present = "mapped" not in reason
        flags = (not is_present, is_present and access == "write", is_present and access == "execute", False)
        self._stop(gpu_id)
        self._tell_smi(gpu_id, f"1 {self.host.process:x}:client\n")
        self.events.report(MEMORY, struct.pack("<4IQII", *flags, address & ~0xFFF, gpu_id, error_type))

    def raise_hardware_exception(
        self, gpu_id: int, reset_type: int, cause: int, memory_lost: bool = False
    ) -> None:
        """Report a reset: of the whole GPU (0) or an engine (1), after a hang (0) or an ECC error (1)."""
        self._stop(gpu_id)
        self._tell_smi(gpu_id, "3 1 virtual\n")
        self.events.report(HW_EXCEPTION, struct.pack("<4I16x", reset_type, cause, memory_lost, gpu_id))

    def _stop(self, gpu_id: int) -> None:
        self.bindings[gpu_id].is_lost = True
        for queue in list(self.queues.values()):
            if queue.agent.gpu.gpu_id == gpu_id:
                queue.is_stopped = True

    def _tell_smi(self, gpu_id: int, text: str) -> None:
        for watched, write_end in self.smi.values():
            if watched == gpu_id:
                os.write(write_end, text.encode())

    # Calls.

    def ioctl(self, request: int, address: int) -> None:
        """Do a request whose arguments lie at `address` of the client. Raises: OSError."""
        number, size = request & 0xFF, request >> 16 & 0x3FFF
        row = IOCTLS.get(number)
        if row is None or request >> 8 & 0xFF != ord("K"):
            raise refuse(errno.ENOTTY)
        name, layout, fields = row
        raw = self.host.read(address, min(size, layout.size)).ljust(layout.size, b"\0")
        arguments = SimpleNamespace(**dict(zip(fields, layout.unpack(raw), strict=True)), at=address)
        handler: Callable[[SimpleNamespace], None] = getattr(self, f"_{name}")
        if name == "wait_events":  # sleeps, so it must not hold the lock
            handler(arguments)
        else:
            with self.lock:
                handler(arguments)
        packed = layout.pack(*(getattr(arguments, each) for each in fields))
        self.host.write(address, packed[:size])

    def _get_version(self, arguments: SimpleNamespace) -> None:
        arguments.major, arguments.minor = KFD_VERSION

    def _get_process_apertures_new(self, arguments: SimpleNamespace) -> None:
        rows = [
            struct.pack("<6QII", *_APERTURES, *GPUVM, gpu_id, 0)
            for gpu_id in list(self.bindings)[: arguments.count]
        ]
        if arguments.count:
            self.host.write(arguments.rows, b"".join(rows))
        arguments.count = len(rows) if arguments.count else len(self.bindings)

    def _acquire_vm(self, arguments: SimpleNamespace) -> None:
        binding = self._binding(arguments.gpu_id)
        if self.render_gpu(arguments.drm_fd) != arguments.gpu_id:
            raise refuse(errno.EINVAL)
        if binding.drm_file is not None and binding.drm_file != arguments.drm_fd:
            raise refuse(errno.EBUSY)
        binding.drm_file = arguments.drm_fd

    def render_gpu(self, descriptor: int) -> int | None:
        """The GPU id behind a render node's descriptor; set by who opens files."""
        return None

    def _get_clock_counters(self, arguments: SimpleNamespace) -> None:
        self._binding(arguments.gpu_id)
        now = time.monotonic_ns()
        arguments.gpu, arguments.cpu, arguments.system, arguments.frequency = gpu_clock(), now, now, 10**9

    def _set_memory_policy(self, arguments: SimpleNamespace) -> None:
        self._binding(arguments.gpu_id)
        if arguments.default > 1 or arguments.alternate > 1:
            raise refuse(errno.EINVAL)

    def _set_scratch_backing_va(self, arguments: SimpleNamespace) -> None:
        self._bound(arguments.gpu_id)

    _set_trap_handler = _set_scratch_backing_va

    def _set_xnack_mode(self, arguments: SimpleNamespace) -> None:
        if arguments.enabled > 0:  # none of the virtual GPUs retries
            raise refuse(errno.EPERM)
        arguments.enabled = 0

    def _runtime_enable(self, arguments: SimpleNamespace) -> None:
        arguments.capabilities = 0

    def _get_available_memory(self, arguments: SimpleNamespace) -> None:
        binding = self._binding(arguments.gpu_id)
        arguments.available = binding.agent.gpu.vram_bytes - binding.vram_used

    # Queues.

    def _create_queue(self, arguments: SimpleNamespace) -> None:
        if arguments.percentage & 0xFF > _MAX_PERCENT or arguments.priority > _MAX_PRIORITY:
            raise refuse(errno.EINVAL)
        if arguments.ring_bytes & arguments.ring_bytes - 1:
            raise refuse(errno.EINVAL)
        if arguments.metadata_bytes & arguments.metadata_bytes - 1:
            raise refuse(errno.EINVAL)
        arguments.ring_bytes = max(arguments.ring_bytes, _MIN_RING_BYTES)
        if arguments.type not in _QUEUES:
            raise refuse(errno.EOPNOTSUPP)
        binding = self._binding(arguments.gpu_id)
        if binding.drm_file is None:
            raise refuse(errno.ESRCH)
        engines = binding.agent.profile.sdma_engines + binding.agent.profile.xgmi_engines
        if arguments.type == _SDMA_ENGINE and arguments.engine >= engines:
            raise refuse(errno.EINVAL)
        if arguments.type == _SDMA_XGMI and not binding.agent.profile.xgmi_engines:
            raise refuse(errno.ENOMEM)
        buffers = self._queue_buffers(arguments, binding)
        if binding.is_lost:
            raise refuse(errno.EIO)
        free = (each for each in range(_MAX_QUEUES) if each not in self.queues)
        number = next(free, None)
        if number is None or self.faults.take("queue"):
            raise refuse(errno.ENOMEM)
        doorbell = binding.doorbells + 8 * number
        os.pwrite(self.store.descriptor, struct.pack("<Q", NOT_RUNG), doorbell)
        cell = self.store.bytes[doorbell : doorbell + 8].view("<u8")
        agent, pointers = binding.agent, (arguments.read_pointer, arguments.write_pointer)
        kind = _QUEUES[arguments.type]
        queue = kind(agent, number, arguments.ring, arguments.ring_bytes, *pointers, lambda: int(cell[0]))
        queue.is_enabled = bool(arguments.percentage & 0xFF)
        for buffer in buffers:
            buffer.in_use += 1
        self.kept[number] = buffers
        self.queues[number] = queue
        arguments.queue_id = number
        arguments.doorbell_offset = MMAP_DOORBELL | arguments.gpu_id << MMAP_GPU_SHIFT | 8 * number
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="virtual-amdgpu", daemon=True)
            self._thread.start()

    def _queue_buffers(self, arguments: SimpleNamespace, binding: Binding) -> list[Buffer]:
        """The buffers that a queue stands on, whose sizes the kernel checks. Raises: OSError EINVAL."""
        page = ~(PAGE_BYTES - 1)
        ring = arguments.ring_bytes + (arguments.metadata_bytes if arguments.type == _COMPUTE_AQL else 0)
        wanted = [
            (arguments.write_pointer & page, PAGE_BYTES),
            (arguments.read_pointer & page, PAGE_BYTES),
            (arguments.ring, -(-ring // PAGE_BYTES) * PAGE_BYTES),
        ]
        if arguments.type in (_COMPUTE, _COMPUTE_AQL):
            stack, context, debug = save_area_bytes(binding.agent.gpu)
            if arguments.eop:
                if arguments.eop_bytes < PAGE_BYTES:
                    raise refuse(errno.EINVAL)
                wanted.append((arguments.eop, arguments.eop_bytes))
            if arguments.stack_bytes != stack or arguments.save_bytes < context:
                raise refuse(errno.EINVAL)
            total = (arguments.save_bytes + debug) * binding.agent.gpu.xccs
            total = -(-total // PAGE_BYTES) * PAGE_BYTES
            if self.svm.get(arguments.save, (0, 0))[1] < total:  # shared virtual memory will do, too
                wanted.append((arguments.save, total))
        found = []
        for address, size in wanted:
            match = next(
                (
                    each
                    for each in self.buffers.values()
                    if each.address == address and each.size == size and arguments.gpu_id in each.mapped
                ),
                None,
            )
            if match is None:
                raise refuse(errno.EINVAL)
            found.append(match)
        return found

    def _queue(self, number: int) -> Queue:
        if number not in self.queues:
            raise refuse(errno.EINVAL)
        return self.queues[number]

    def _destroy_queue(self, arguments: SimpleNamespace) -> None:
        self._queue(arguments.queue_id).stop()
        del self.queues[arguments.queue_id]
        for buffer in self.kept.pop(arguments.queue_id):
            buffer.in_use -= 1
        self._wake.set()

    def _update_queue(self, arguments: SimpleNamespace) -> None:
        queue = self._queue(arguments.queue_id)
        if arguments.percentage & 0xFF > _MAX_PERCENT or arguments.priority > _MAX_PRIORITY:
            raise refuse(errno.EINVAL)
        if arguments.ring_bytes & arguments.ring_bytes - 1:
            raise refuse(errno.EINVAL)
        queue.is_enabled = bool(arguments.percentage & 0xFF and arguments.ring)

    def _set_cu_mask(self, arguments: SimpleNamespace) -> None:
        self._queue(arguments.queue_id)
        if arguments.count % 32 or not arguments.count:
            raise refuse(errno.EINVAL)
        self.host.read(arguments.mask, min(arguments.count, 1024) // 8)

    # Events.

    def _create_event(self, arguments: SimpleNamespace) -> None:
        if arguments.page:
            buffer = self._buffer(arguments.page)
            if self.event_page is not None or buffer.size < EVENT_PAGE_BYTES:
                raise refuse(errno.EINVAL)
            self._set_event_page(buffer)
        if self.event_page is None and arguments.type == 0:
            offset = self.store.take(EVENT_PAGE_BYTES)
            self._set_event_page(Buffer(0, 0, EVENT_PAGE_BYTES, GTT, offset))
        if self.faults.take("event"):
            raise refuse(errno.ENOSPC)
        arguments.event_id = self.events.create(arguments.type, bool(arguments.auto_reset))
        is_signal = arguments.type in (0, 5)
        arguments.page = MMAP_EVENTS if is_signal else 0
        arguments.slot = arguments.event_id if is_signal else 0
        arguments.trigger = arguments.event_id

    def _set_event_page(self, buffer: Buffer) -> None:
        self.event_page = buffer
        file, base = self.store.descriptor, buffer.offset
        os.pwrite(file, UNSIGNALED * (EVENT_PAGE_BYTES // 8), base)
        self.events.write_slot = lambda number, data: os.pwrite(file, data, base + 8 * number)
        self.events.read_slot = lambda number: os.pread(file, 8, base + 8 * number)

    def _destroy_event(self, arguments: SimpleNamespace) -> None:
        self.events.destroy(arguments.event_id)

    def _set_event(self, arguments: SimpleNamespace) -> None:
        self.events.set(arguments.event_id, True)

    def _reset_event(self, arguments: SimpleNamespace) -> None:
        self.events.set(arguments.event_id, False)

    def _wait_events(self, arguments: SimpleNamespace) -> None:
        if arguments.count > 4096:
            raise refuse(errno.ENOMEM)
        raw = self.host.read(arguments.events, 48 * arguments.count) if arguments.count else b""
        numbers = [struct.unpack_from("<I", raw, 48 * i + 40)[0] for i in range(arguments.count)]
        ages = [struct.unpack_from("<Q", raw, 48 * i)[0] for i in range(arguments.count)]
        arguments.result, data, new_ages = self.events.wait(
            numbers, ages, bool(arguments.for_all), arguments.timeout
        )
        for place, payload in data.items():
            self.host.write(arguments.events + 48 * place, payload)
        for place, age in new_ages.items():
            if ages[place]:
                self.host.write(arguments.events + 48 * place, struct.pack("<Q", age))

    def _smi_events(self, arguments: SimpleNamespace) -> None:
        self._binding(arguments.gpu_id)
        read_end, write_end = os.pipe()
        self.smi[read_end] = (arguments.gpu_id, write_end)
        arguments.anon_fd = read_end

    # Files.

    def locate(self, offset: int, size: int) -> int:
        """Where in the store lies what KFD shows at an mmap offset. Raises: OSError."""
        gpu_id, kind = offset >> MMAP_GPU_SHIFT & _GPU_ID_BITS, offset >> 62
        if kind == 3:
            if size != DOORBELL_BYTES:
                raise refuse(errno.EINVAL)
            return self._binding(gpu_id).doorbells
        if kind == 2:
            if self.event_page is None or size > EVENT_PAGE_BYTES:
                raise refuse(errno.EINVAL)
            return self.event_page.offset
        for buffer in self.buffers.values():
            if buffer.flags & MMIO and buffer.gpu_id == gpu_id and size == PAGE_BYTES:
                return buffer.offset
        raise refuse(errno.EINVAL)

    def close(self) -> None:
        """The client is gone: nothing of it stays."""
        with self.lock:
            for queue in self.queues.values():
                queue.is_stopped = True
            self.queues.clear()
            thread = self._thread
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for read_end, (_gpu_id, write_end) in self.smi.items():
            os.close(write_end)
            try:
                os.close(read_end)
            except OSError as error:  # the client closed it
                assert error.errno == errno.EBADF, error
        self.smi.clear()
        for descriptor in self.dmabufs:
            try:
                os.close(descriptor)
            except OSError as error:  # likewise
                assert error.errno == errno.EBADF, error
        self.dmabufs.clear()
        for address, (offset, size) in self.svm.items():
            self.store.release(self.host, address, offset, size)
        for handle in list(self.buffers):
            self._drop(handle)
        self.host.close()
        del self.event_page

    def count(self) -> dict[str, int]:
        """What the client holds, for tests that look for leaks."""
        page = 1 if self.event_page is not None else 0
        mapped = sum(len(binding.agent.memory.ranges) for binding in self.bindings.values())
        return {"buffers": len(self.buffers) - page, "queues": len(self.queues), "events": len(self.events.by_id),
                "ranges": mapped - page}  # fmt: skip
