"""One GPU: memory, copies, code, launches, time.

with open("0") as gpu:
    data = gpu.alloc(4096)
    kernel = gpu.load(file)["scale"]
    gpu.dispatch(kernel, grid=1024, workgroup=64, args=[data, 2.0]).wait(timeout_s=10)
    print(gpu.read(data))
"""

from __future__ import annotations

import atexit
import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from . import aql, pm4, sdma
from .code_object import CodeObject, Kernel, read_code_object
from .dispatch import Launch, Value, aql_packet, check_workgroup, pack_arguments, pm4_packets, triple
from .errors import DriverError, GpuFaultError, KernelCallError, PacketError
from .interface import KernelInterface, find_interface
from .ioctls import EventType, MemoryFlag
from .knobs import device as default_device
from .memory import Allocation, allocate, import_dmabuf, register_host, share_host_pages
from .queues import QUEUES, AqlQueue, Pm4Queue, Queue, SdmaQueue
from .signals import Signal, SignalPool
from .system import EVENT_PAGE_BYTES, System, find_system
from .topology import TARGETS

__all__ = ["Device", "LoadedKernel", "Module", "open_device"]

_DOORBELL_BYTES = 8192
_KERNARG_BYTES = 1 << 20
_STAGING_BYTES = 1 << 22
_CLOCK_SAMPLE_S = 0.01
_DYNAMIC_STACK_BYTES = 1024  # for calls whose depth the compiler does not know
_PAGE_BYTES = 4096
_ALL_SMI_EVENTS = (1 << 13) - 1  # KFD_SMI_EVENT_VMFAULT to KFD_SMI_EVENT_PROCESS_END
AnyQueue = TypeVar("AnyQueue", bound=Queue)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Private memory for all waves that fit the GPU, `lane_bytes` for each lane."""

    memory: Allocation
    lane_bytes: int
    tmpring_size: int


@dataclass(frozen=True, slots=True)
class LoadedKernel:
    """A kernel in a GPU's memory."""

    kernel: Kernel
    module: Module

    @property
    def name(self) -> str:
        return self.kernel.name


class Module:
    """A code object in a GPU's memory; `module["name"]` is a kernel."""

    def __init__(self, code: CodeObject, memory: Allocation, file: bytes):
        self.code, self.memory, self.file = code, memory, file

    def __getitem__(self, name: str) -> LoadedKernel:
        if name not in self.code.kernels:
            raise DriverError(f"kernel: got {name!r}, want one of {', '.join(self.code.kernels) or 'none'}")
        return LoadedKernel(self.code.kernels[name], self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.code.kernels)


class Device:
    """An open GPU. Calls of one device are not to be made by two threads at once."""

    def __init__(self, system: System, number: int):
        self.system, self.number = system, number
        self.node = system.node(number)
        self.target, self.major = self.node.target, TARGETS[self.node.target]
        self.fault: GpuFaultError | None = None
        self.allocations: dict[int, Allocation] = {}
        self.queues: dict[str, Queue] = {}
        self.scratch: Scratch | None = None
        self.signals = SignalPool(self)
        self._doorbells = self._hdp = self._kernarg_used = 0
        self._kernarg: Allocation | None = None
        self._staging: Allocation | None = None
        self._new_code = self.is_closed = False
        self._code_packets: Allocation | None = None
        self._other_queues: list[Queue] = []
        self._smi_file: int | None = None
        self._clock_hz = 0.0
        self.event_id = 0
        with system.lock:
            self.render_file = system.acquire(self.node)
            system.devices.add(self)
            try:
                if system.event_page is None:
                    page = self.alloc(EVENT_PAGE_BYTES, "uncached")
                    self.allocations.pop(page.address)  # it is the system's
                    system.start_events(page)
                elif self.node.gpu_id not in system.event_page._mapped:
                    system.event_page.map_to(self)
                self.event_id = system.create_event(EventType.SIGNAL)
                self._clock_start = self._clocks()
            except BaseException:
                self.close()
                raise
        atexit.register(self.close)

    # Memory.

    def alloc(self, size_bytes: int, kind: str = "vram", *, executable: bool = False) -> Allocation:
        """Memory: "vram", "host" (the host's, cached there) or "uncached". Raises: OutOfMemoryError."""
        self._check_open()
        return allocate(self, size_bytes, kind, executable=executable)

    def register(self, address: int, size_bytes: int) -> Allocation:
        """Let the GPU see whole pages of the host. `free` ends it."""
        return register_host(self, address, size_bytes)

    def share(self, address: int, size_bytes: int) -> None:
        """Let the GPU use whole pages of the host as shared virtual memory, migrated by the kernel as it sees fit."""
        share_host_pages(self, address, size_bytes)

    def import_dmabuf(self, descriptor: int) -> Allocation:
        """Memory that `Allocation.export` gave, here or in another process."""
        return import_dmabuf(self, descriptor)

    def available_bytes(self) -> int:
        """VRAM that is free."""
        return self.system.kfd.call("get_available_memory", gpu_id=self.node.gpu_id).available

    def write(self, memory: Allocation, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Copy from the host, and wait for it."""
        source = memoryview(data).cast("B")
        _check_range(memory, offset, source.nbytes)
        if memory.is_host_visible:
            memory.view[offset : offset + source.nbytes] = source
            self.flush_host_writes()
            return
        for at, size, staging in self._stage(source.nbytes):
            staging.view[:size] = source[at : at + size]
            self.copy_address(memory.address + offset + at, staging.address, size).wait()

    def read(self, memory: Allocation, size_bytes: int | None = None, offset: int = 0) -> bytes:
        """Copy to the host."""
        size = memory.size_bytes - offset if size_bytes is None else size_bytes
        _check_range(memory, offset, size)
        if memory.is_host_visible:
            return bytes(memory.view[offset : offset + size])
        parts = []
        for at, part, staging in self._stage(size):
            self.copy_address(staging.address, memory.address + offset + at, part).wait()
            parts.append(bytes(staging.view[:part]))
        return b"".join(parts)

    def _stage(self, size: int) -> Iterator[tuple[int, int, Allocation]]:
        if self._staging is None:
            self._staging = self.alloc(_STAGING_BYTES, "host")
        for at in range(0, size, _STAGING_BYTES):
            yield at, min(_STAGING_BYTES, size - at), self._staging

    def copy(self, destination: Allocation, source: Allocation, size_bytes: int | None = None) -> Signal:
        """Copy by an SDMA engine; the signal tells when it is done."""
        size = min(destination.size_bytes, source.size_bytes) if size_bytes is None else size_bytes
        _check_range(destination, 0, size)
        _check_range(source, 0, size)
        return self.copy_address(destination.address, source.address, size)

    def copy_address(self, destination: int, source: int, size: int) -> Signal:
        """As `copy`, between addresses."""
        packets = sdma.copy(sdma.version_of(self.major), destination, source, size)
        return self.queue(SdmaQueue).submit_packets(packets, self.signals.new(f"copy of {size} bytes"))

    def fill(self, memory: Allocation, value: int) -> Signal:
        """Fill with a dword by an SDMA engine."""
        packets = sdma.fill(sdma.version_of(self.major), memory.address, value, memory.size_bytes)
        return self.queue(SdmaQueue).submit_packets(
            packets, self.signals.new(f"fill of {memory.size_bytes} bytes")
        )

    def flush_host_writes(self) -> None:
        """Make what the host wrote to VRAM reach it: the host's writes pass a buffer of the host data path."""
        if not self._hdp:
            self._hdp = self._map_registers()
        if self._hdp > 0:
            register = ctypes.c_uint32.from_address(self._hdp)  # KFD_MMIO_REMAP_HDP_MEM_FLUSH_CNTL, at 0
            register.value = 1
            _ = register.value  # reading it waits for the flush

    def _map_registers(self) -> int:
        """The host's address of the page of remapped registers; -1 where the GPU has none."""
        flags = MemoryFlag.MMIO_REMAP | MemoryFlag.WRITABLE
        gpu_id, call = self.node.gpu_id, self.system.kfd.call
        try:
            done = call("alloc_memory_of_gpu", size=_PAGE_BYTES, gpu_id=gpu_id, flags=flags, va_addr=0)
        except (KernelCallError, MemoryError):
            return -1
        self._hdp_handle = done.handle
        return self._map_kfd(_PAGE_BYTES, done.mmap_offset)

    def _map_kfd(self, size: int, offset: int) -> int:
        read_write, shared = 3, 1
        return self.system.interface.mmap(0, size, read_write, shared, self.system.kfd.descriptor, offset)

    # Queues.

    def queue(self, kind: type[AnyQueue]) -> AnyQueue:
        """The device's own queue of a kind, made when first asked for."""
        if kind.name not in self.queues:
            self._check_open()
            self.check()
            self.queues[kind.name] = kind(self)
        return self.queues[kind.name]

    def new_queue(self, kind: str, priority: int = 7, **arguments: int) -> Queue:
        """One more queue: "aql", "pm4", "sdma" or "xgmi"; `close` it, or closing the device does."""
        if kind not in QUEUES:
            raise DriverError(f"queue: got {kind!r}, want one of {', '.join(QUEUES)}")
        queue = QUEUES[kind](self, priority=priority, **arguments)
        self._other_queues.append(queue)
        return queue

    def doorbell(self, offset: int) -> int:
        """The host's address of the doorbell that KFD names by an mmap offset."""
        if not self._doorbells:
            self._doorbells = self._map_kfd(_DOORBELL_BYTES, offset & ~(_DOORBELL_BYTES - 1))
        return self._doorbells + offset % _DOORBELL_BYTES

    # Code and launches.

    def load(self, file: bytes) -> Module:
        """Put a code object into memory. Raises: CodeObjectError."""
        code = read_code_object(file, self.target)
        visible = self.node.has_host_visible_vram
        memory = allocate(
            self, len(code.image), "vram", executable=True, writable=code.is_writable or not visible
        )
        for offset, addend in code.relocations:
            code.image[offset : offset + 8] = (memory.address + addend & (1 << 64) - 1).to_bytes(8, "little")
        self.write(memory, code.image)
        self._new_code = True
        return Module(code, memory, file)

    def dispatch(
        self,
        kernel: LoadedKernel,
        grid: int | Sequence[int],
        workgroup: int | Sequence[int],
        args: Sequence[Value] = (),
        *,
        lds_bytes: int = 0,
        stack_bytes: int = 0,
        queue: str = "aql",
        after: Sequence[Signal] = (),
    ) -> Signal:
        """Launch `grid` work-items in groups of `workgroup`; the signal tells when it is done.

        `lds_bytes` is dynamic LDS beyond the kernel's own, `stack_bytes` private memory per lane in place
        of what the kernel asks for; `queue` is "aql" or "pm4"; the launch waits for the signals in `after`.
        Raises: PacketError for a launch that cannot be.
        """
        row, module = kernel.kernel, kernel.module
        sizes, groups = triple("grid", grid), triple("workgroup", workgroup)
        group_bytes = row.descriptor.group_bytes + lds_bytes
        check_workgroup(self, row, groups, group_bytes)
        own_stack = row.descriptor.private_bytes + (_DYNAMIC_STACK_BYTES if row.uses_dynamic_stack else 0)
        private = max(row.descriptor.private_bytes, stack_bytes or own_stack)
        self._need_scratch(private)
        compute = self._compute_queue(queue)
        hidden = {
            "hidden_private_base": self._apertures.scratch_base >> 32,
            "hidden_shared_base": self._apertures.lds_base >> 32,
            "hidden_queue_ptr": ctypes.addressof(compute.words),
        }
        kernargs = pack_arguments(row, args, sizes, groups, lds_bytes, hidden)
        address = self._place_kernargs(kernargs, compute)
        launch = Launch(row, module.memory.address, sizes, groups, group_bytes, private, address)
        signal = self.signals.new(f"kernel {row.name!r}")
        signal.after = tuple(after)
        if isinstance(compute, AqlQueue):
            packets = self._barriers(after) + self._code_barrier()
            return compute.submit(packets + aql_packet(launch, signal.address), signal)
        for each in after:
            each.wait()
        packet = self._place_kernargs(aql_packet(launch, 0), compute)
        return compute.submit_packets(pm4_packets(self, launch, packet, hidden["hidden_queue_ptr"]), signal)

    def _compute_queue(self, kind: str) -> AqlQueue | Pm4Queue:
        if kind not in ("aql", "pm4"):
            raise DriverError(f"dispatch: got queue {kind!r}, want aql or pm4")
        return self.queue(AqlQueue if kind == "aql" else Pm4Queue)

    @property
    def _apertures(self) -> ctypes.Structure:
        return self.system.apertures[self.node.gpu_id]

    @staticmethod
    def _barriers(after: Sequence[Signal]) -> bytes:
        packets = b""
        for start in range(0, len(after), 5):
            signals = after[start : start + 5]
            packets += aql.build("BARRIER_AND", **{f"dep{i}": each.address for i, each in enumerate(signals)})
        return packets

    def _code_barrier(self) -> bytes:
        """New code: let the instruction caches forget what was at its address."""
        if not self._new_code:
            return b""
        self._new_code = False
        packets = pm4.acquire(self.major, code=True)
        if self._code_packets is None:
            self._code_packets = self.alloc(_PAGE_BYTES, "uncached", executable=True)
            self._code_packets.view[: 4 * len(packets)] = memoryview(
                (ctypes.c_uint32 * len(packets))(*packets)
            ).cast("B")
        return aql.pm4_jump(self.major, self._code_packets.address, len(packets))

    def _place_kernargs(self, data: bytes, queue: Queue) -> int:
        """Put arguments where the GPU reads them; the space is used again once all before is done."""
        if self._kernarg is None:
            self._kernarg = self.alloc(_KERNARG_BYTES, "host")
        if len(data) > _KERNARG_BYTES:
            raise PacketError(f"arguments: got {len(data)} bytes, want at most {_KERNARG_BYTES}")
        if self._kernarg_used + len(data) > _KERNARG_BYTES:
            self.synchronize()
            self._kernarg_used = 0
        at = self._kernarg_used
        self._kernarg.view[at : at + len(data)] = data
        self._kernarg_used = -(-(at + len(data)) // 256) * 256
        return self._kernarg.address + at

    def _need_scratch(self, lane_bytes: int) -> None:
        """Have private memory for kernels of `lane_bytes`. Queues know theirs from the start, so they are remade."""
        if lane_bytes <= (self.scratch.lane_bytes if self.scratch else 0):
            return
        self.synchronize()
        node = self.node
        slots = node["max_slots_scratch_cu"] * node.compute_units
        granule = 1024 if self.major == 9 else 256  # of TMPRING_SIZE.WAVESIZE
        wave_bytes = -(-lane_bytes * 64 // granule) * granule
        # From gfx11 on, WAVES counts those of one shader engine; on several XCCs, those of one.
        engines = node["array_count"] // max(1, node["simd_arrays_per_engine"])
        waves = slots // (node.xccs if self.major == 9 else max(1, engines))
        memory = self.alloc(slots * wave_bytes, "vram")
        old, self.scratch = (
            self.scratch,
            Scratch(memory, wave_bytes // 64, min(waves, 0xFFF) | wave_bytes // granule << 12),
        )
        for kind in (AqlQueue, Pm4Queue):
            if kind.name in self.queues:
                self.queues.pop(kind.name).close()
        if old:
            old.memory.free()

    def synchronize(self, timeout_s: float | None = None) -> None:
        """Until all that was submitted is done. Raises: WaitTimeoutError, GpuFaultError."""
        for queue in [*self.queues.values(), *self._other_queues]:
            queue.synchronize(timeout_s)

    # State.

    def check(self) -> None:
        """Raises: GpuFaultError when the GPU has stopped."""
        if self.fault is not None:
            raise self.fault
        for queue in self.queues.values():
            if text := queue.error():
                raise self.stop(text)

    def stop(self, reason: str, address: int | None = None) -> GpuFaultError:
        """Take note that the GPU has stopped; the error that all later calls raise."""
        log = "".join(f"; the kernel's log: {line}" for line in self.system.interface.log())
        self.fault = GpuFaultError(f"{self}: {reason}; {self.work_in_flight()}{log}", address)
        return self.fault

    def work_in_flight(self) -> str:
        """What the queues have not finished, for messages."""
        found = []
        for queue in [*self.queues.values(), *self._other_queues]:
            queue.forget_done()
            if queue.pending:
                more = f" and {len(queue.pending) - 1} more" if len(queue.pending) > 1 else ""
                found.append(f"{queue} was at {queue.pending[0].work}{more}")
        return "; ".join(found) or "no work was in flight"

    def kernel_events(self, timeout_ms: int = 0) -> list[str]:
        """Lines that KFD has for this GPU since the first call: number of the event (KFD_SMI_EVENT), then its words."""
        interface = self.system.interface
        if self._smi_file is None:
            self._smi_file = self.system.kfd.call("smi_events", gpuid=self.node.gpu_id).anon_fd
            interface.write(self._smi_file, _ALL_SMI_EVENTS.to_bytes(8, "little"))
        return (
            interface.read(self._smi_file).decode().splitlines()
            if interface.poll(self._smi_file, timeout_ms)
            else []
        )

    def _clocks(self) -> tuple[int, float]:
        counters = self.system.kfd.call("get_clock_counters", gpu_id=self.node.gpu_id)
        return counters.gpu_clock_counter, counters.system_clock_counter / counters.system_clock_freq

    @property
    def clock_hz(self) -> float:
        """Ticks of the GPU's clock a second, measured against the host's."""
        if not self._clock_hz:
            ticks, seconds = self._clocks()
            while seconds - self._clock_start[1] < _CLOCK_SAMPLE_S:
                time.sleep(_CLOCK_SAMPLE_S)
                ticks, seconds = self._clocks()
            self._clock_hz = (ticks - self._clock_start[0]) / (seconds - self._clock_start[1])
        return self._clock_hz

    def _check_open(self) -> None:
        if self.is_closed:
            raise DriverError(f"{self}: got a call after close, want an open device")

    def close(self) -> None:
        """Give back all queues, memory and events; work that still runs is ended."""
        if self.is_closed:
            return
        self.is_closed = True
        atexit.unregister(self.close)
        if self.system.kfd.is_foreign:  # a forked child: all of it is the parent's
            return
        with ExitStack() as stack:  # runs in reverse order, all of it, also when a call is refused
            stack.callback(self._leave_system)
            if self.event_id:
                stack.callback(self.system.kfd.call, "destroy_event", event_id=self.event_id)
            if self._smi_file is not None:
                stack.callback(self.system.interface.close, self._smi_file)
            if self._hdp > 0:
                stack.callback(self.system.kfd.call, "free_memory_of_gpu", handle=self._hdp_handle)
            for address, size in ((self._doorbells, _DOORBELL_BYTES), (self._hdp, _PAGE_BYTES)):
                if address > 0:
                    stack.callback(self.system.interface.munmap, address, size)
            for memory in self.allocations.values():
                stack.callback(memory.free)
            for queue in [*self.queues.values(), *self._other_queues]:
                stack.callback(queue.close)

    def _leave_system(self) -> None:
        self.system.devices.discard(self)
        if not self.system.devices and not self.system.is_process_wide:
            self.system.close()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"GPU {self.number} ({self.target})"


def _check_range(memory: Allocation, offset: int, size: int) -> None:
    if offset < 0 or size < 0 or offset + size > memory.size_bytes:
        raise DriverError(
            f"{memory!r}: got bytes {offset} to {offset + size}, want some of 0 to {memory.size_bytes}"
        )


def open_device(device: str | int | None = None, interface: KernelInterface | None = None) -> Device:
    """Open a GPU: a number, "virtual:gfx942" where tg-emulator-amd is installed, or what `TG_AMD_DEVICE` says.

    Raises: NoDeviceError and UnsupportedError, which say what to do.
    """
    if interface is not None:
        return Device(find_system(interface), int(device or 0))
    found, number = find_interface(str(default_device() if device is None else device))
    return Device(find_system(found), number)
