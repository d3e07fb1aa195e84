"""What all GPUs of a process share: the open /dev/kfd, the topology, events, and the faults that KFD reports.

KFD knows one context per process, so there is one `System` per kernel interface, and it keeps what KFD would not give
twice: the address space of each GPU and the page of event slots.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import NoDeviceError, UnsupportedError, WaitTimeoutError
from .interface import KernelInterface, LinuxInterface
from .ioctls import STRUCTS, EventType, KfdFile
from .knobs import spin_us
from .topology import TARGETS, Node, read_topology

if TYPE_CHECKING:
    from .device import Device
    from .memory import Allocation

__all__ = ["System", "find_system"]

EVENT_PAGE_BYTES = 4096 * 8
_UNSIGNALED = b"\xff"
_WAIT_COMPLETE = 0
_SLICE_MS = 100  # how long a wait may miss an interrupt that was lost
_OLDEST_MINOR = 1


class System:
    """The AMD GPUs behind one kernel interface."""

    def __init__(self, interface: KernelInterface):
        self.interface = interface
        self.is_process_wide = isinstance(interface, LinuxInterface)
        self._is_closed = False
        self.kfd = KfdFile(interface)
        if self.kfd.minor_version < _OLDEST_MINOR:
            got = f"1.{self.kfd.minor_version}"
            raise UnsupportedError(
                f"KFD: got version {got}, want 1.{_OLDEST_MINOR} or later; update the kernel"
            )
        self.nodes = read_topology(interface)
        self.gpus = [node for node in self.nodes if node.gpu_id]
        self.devices: weakref.WeakSet[Device] = weakref.WeakSet()
        self.event_page: Allocation | None = None
        self.fault_events: dict[EventType, int] = {}
        self._render_files: dict[int, int] = {}
        self.apertures = self._read_apertures()
        self.lock = threading.RLock()

    def node(self, number: int) -> Node:
        """The GPU of that number, counted as KFD lists them. Raises: NoDeviceError, UnsupportedError."""
        if not 0 <= number < len(self.gpus):
            names = ", ".join(f"{i} ({gpu.target})" for i, gpu in enumerate(self.gpus)) or "none"
            raise NoDeviceError(f"device: got {number}, want one of these: {names}")
        node = self.gpus[number]
        if node.target not in TARGETS:
            raise UnsupportedError(
                f"device {number}: got {node.target} ({node.name}), want one of {', '.join(TARGETS)}"
            )
        return node

    def acquire(self, node: Node) -> int:
        """The render node's descriptor, whose address space KFD uses for this process from the first call on."""
        if node.gpu_id not in self._render_files:
            try:
                descriptor = self.interface.open(node.render_path)
            except OSError as error:
                raise NoDeviceError(
                    f"{node.render_path}: got {error.strerror}; join the group render: "
                    "`sudo usermod -aG render $USER`, then log in anew"
                ) from error
            try:
                self.kfd.call("acquire_vm", drm_fd=descriptor, gpu_id=node.gpu_id)
            except BaseException:
                self.interface.close(descriptor)
                raise
            self._render_files[node.gpu_id] = descriptor
        return self._render_files[node.gpu_id]

    def _read_apertures(self) -> dict[int, ctypes.Structure]:
        rows = (STRUCTS["process_device_apertures"] * max(1, len(self.gpus)))()
        address = ctypes.addressof(rows)
        done = self.kfd.call(
            "get_process_apertures_new", kfd_process_device_apertures_ptr=address, num_of_nodes=len(rows)
        )
        return {row.gpu_id: row for row in rows[: done.num_of_nodes]}

    def set_xnack(self, enabled: bool) -> None:
        """Whether GPUs retry accesses that fault, so that memory may migrate. Raises: KernelCallError."""
        self.kfd.call("set_xnack_mode", xnack_enabled=int(enabled))

    # Events and faults.

    def start_events(self, page: Allocation) -> None:
        """Give KFD the page of event slots, once, and ask for faults to be reported."""
        page.view[:] = _UNSIGNALED * len(page.view)
        self.event_page = page
        for kind in (EventType.HW_EXCEPTION, EventType.MEMORY):
            handle = page.handle if not self.fault_events else 0
            self.fault_events[kind] = self.create_event(kind, event_page_offset=handle)

    def create_event(self, kind: EventType, event_page_offset: int = 0) -> int:
        """The id of a new event that resets when a wait has seen it."""
        return self.kfd.call(
            "create_event", event_type=kind, auto_reset=1, event_page_offset=event_page_offset
        ).event_id

    def mailbox(self, event_id: int) -> int:
        """The address of an event's slot, where a GPU writes the id before it interrupts."""
        assert self.event_page is not None, "events before the first device"
        return self.event_page.address + 8 * event_id

    def wait(
        self,
        done: Callable[[], bool],
        device: Device,
        event_id: int,
        timeout_s: float | None,
        what: Callable[[], str],
    ) -> None:
        """Until `done`: a while by looking, then by sleeping until an interrupt.

        Raises: GpuFaultError when the device stopped, WaitTimeoutError naming `what`.
        """
        self.kfd.check_process()
        if done():
            return
        start = time.monotonic()
        end = None if timeout_s is None else start + timeout_s
        spin_end = start + spin_us() * 1e-6
        while True:
            now = time.monotonic()
            device.check()
            if done():
                return
            if end is not None and now >= end:
                raise WaitTimeoutError(f"wait: got no end of {what()} in {timeout_s} s, want it done")
            if now < spin_end:
                time.sleep(0)  # lets other threads of the interpreter run
                continue
            left_ms = _SLICE_MS if end is None else min(_SLICE_MS, max(1, int((end - now) * 1000)))
            self.wait_events(event_id, left_ms)

    def wait_events(self, event_id: int, timeout_ms: int) -> None:
        """Sleep until an event or a fault; a fault marks the device that had it."""
        ids = [*self.fault_events.values(), *([event_id] if event_id else [])]
        events = (STRUCTS["event_data"] * len(ids))()
        for event, number in zip(events, ids, strict=True):
            event.event_id = number
        result = self.kfd.call(
            "wait_events", events_ptr=ctypes.addressof(events), num_events=len(ids), timeout=timeout_ms
        )
        if result.wait_result == _WAIT_COMPLETE:
            for kind, event in zip(self.fault_events, events, strict=False):
                self._note_fault(kind, event.payload)

    def _note_fault(self, kind: EventType, payload: ctypes.Array) -> None:
        is_memory = kind == EventType.MEMORY
        fault = STRUCTS["memory_exception_data" if is_memory else "hw_exception_data"].from_buffer(payload)
        for device in list(self.devices):
            if device.node.gpu_id == fault.gpu_id and device.fault is None:
                text, address = _describe_memory(fault) if is_memory else _describe_hardware(fault)
                device.stop(text, address)

    def close(self) -> None:
        """Give everything back; for interfaces that end with their process's work."""
        if self._is_closed:
            return
        self._is_closed = True
        for device in list(self.devices):
            device.close()
        for event in self.fault_events.values():
            self.kfd.call("destroy_event", event_id=event)
        self.fault_events.clear()
        if self.event_page is not None:
            self.event_page.unmap_host()  # KFD keeps its memory until the process has no more use of KFD
            self.event_page = None
        for descriptor in self._render_files.values():
            self.interface.close(descriptor)
        self._render_files.clear()
        self.interface.close(self.kfd.descriptor)
        _SYSTEMS.pop(id(self.interface), None)


def _describe_memory(fault: ctypes.Structure) -> tuple[str, int]:
    reasons = {
        "NotPresent": "nothing is mapped there",
        "ReadOnly": "a write to read-only memory",
        "NoExecute": "execution of memory that is not code",
    }
    names = [text for name, text in reasons.items() if getattr(fault, name)]
    errors = {1: "an uncorrectable ECC error", 2: "poisoned data was read", 3: "the GPU hangs"}
    cause = errors.get(fault.ErrorType) or " and ".join(names) or "no reason given"
    exact = " or near it" if fault.imprecise else ""
    return f"memory fault at {fault.va:#x}{exact}: {cause}", fault.va


def _describe_hardware(fault: ctypes.Structure) -> tuple[str, None]:
    cause = {0: "a hang", 1: "an ECC error"}.get(fault.reset_cause, f"cause {fault.reset_cause}")
    scope = {0: "the whole GPU", 1: "one engine"}.get(fault.reset_type, f"type {fault.reset_type}")
    lost = ", its memory is lost" if fault.memory_lost else ""
    return f"the kernel reset {scope} after {cause}{lost}", None


_SYSTEMS: dict[int, System] = {}
_SYSTEMS_LOCK = threading.Lock()


def find_system(interface: KernelInterface) -> System:
    """The one `System` of an interface; all `LinuxInterface`s are the same kernel."""
    key = 0 if isinstance(interface, LinuxInterface) else id(interface)
    with _SYSTEMS_LOCK:
        if key not in _SYSTEMS:
            _SYSTEMS[key] = System(interface)
        return _SYSTEMS[key]
