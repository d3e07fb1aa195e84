"""KFD's ioctls as rows: name, number, direction, the minor version that brought it, and the fields of its arguments.

A field is `name:type` with C's types by width; C's natural alignment gives the offsets. `KfdFile.call` fills in the
arguments by name, makes the call and gives the struct back.
Source: Linux 7.2, include/uapi/linux/kfd_ioctl.h, version 1.23.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from .errors import ForkedError, KernelCallError, NoDeviceError, OutOfMemoryError, UnsupportedError
from .interface import KernelInterface

__all__ = [
    "IOCTLS",
    "STRUCTS",
    "EventType",
    "Ioctl",
    "KfdFile",
    "MemoryFlag",
    "QueueType",
    "SvmFlag",
    "make_struct",
    "request_number",
]

_TYPES = {"u64": ctypes.c_uint64, "u32": ctypes.c_uint32, "s32": ctypes.c_int32, "s64": ctypes.c_int64}

# Structs that arguments point to or end with.
_STRUCTS = """
process_device_apertures lds_base:u64 lds_limit:u64 scratch_base:u64 scratch_limit:u64 gpuvm_base:u64 gpuvm_limit:u64 gpu_id:u32 pad:u32
memory_exception_data NotPresent:u32 ReadOnly:u32 NoExecute:u32 imprecise:u32 va:u64 gpu_id:u32 ErrorType:u32
hw_exception_data reset_type:u32 reset_cause:u32 memory_lost:u32 gpu_id:u32
event_data payload:u64*4 kfd_event_data_ext:u64 event_id:u32 pad:u32
svm_attribute type:u32 value:u32
context_save_area_header control_stack_offset:u32 control_stack_size:u32 wave_state_offset:u32 wave_state_size:u32 debug_offset:u32 debug_size:u32 err_payload_addr:u64 err_event_id:u32 reserved1:u32
"""  # noqa: E501 (one row a line)
_IOCTLS = """
get_version 0x01 R 0 major_version:u32 minor_version:u32
create_queue 0x02 RW 0 ring_base_address:u64 write_pointer_address:u64 read_pointer_address:u64 doorbell_offset:u64 ring_size:u32 gpu_id:u32 queue_type:u32 queue_percentage:u32 queue_priority:u32 queue_id:u32 eop_buffer_address:u64 eop_buffer_size:u64 ctx_save_restore_address:u64 ctx_save_restore_size:u32 ctl_stack_size:u32 sdma_engine_id:u32 metadata_ring_size:u32
destroy_queue 0x03 RW 0 queue_id:u32 pad:u32
set_memory_policy 0x04 W 0 alternate_aperture_base:u64 alternate_aperture_size:u64 gpu_id:u32 default_policy:u32 alternate_policy:u32 misc_process_flag:u32
get_clock_counters 0x05 RW 0 gpu_clock_counter:u64 cpu_clock_counter:u64 system_clock_counter:u64 system_clock_freq:u64 gpu_id:u32 pad:u32
update_queue 0x07 W 0 ring_base_address:u64 queue_id:u32 ring_size:u32 queue_percentage:u32 queue_priority:u32
create_event 0x08 RW 0 event_page_offset:u64 event_trigger_data:u32 event_type:u32 auto_reset:u32 node_id:u32 event_id:u32 event_slot_index:u32
destroy_event 0x09 W 0 event_id:u32 pad:u32
set_event 0x0a W 0 event_id:u32 pad:u32
reset_event 0x0b W 0 event_id:u32 pad:u32
wait_events 0x0c RW 0 events_ptr:u64 num_events:u32 wait_for_all:u32 timeout:u32 wait_result:u32
set_scratch_backing_va 0x11 RW 0 va_addr:u64 gpu_id:u32 pad:u32
set_trap_handler 0x13 W 0 tba_addr:u64 tma_addr:u64 gpu_id:u32 pad:u32
get_process_apertures_new 0x14 RW 0 kfd_process_device_apertures_ptr:u64 num_of_nodes:u32 pad:u32
acquire_vm 0x15 W 0 drm_fd:u32 gpu_id:u32
alloc_memory_of_gpu 0x16 RW 0 va_addr:u64 size:u64 handle:u64 mmap_offset:u64 gpu_id:u32 flags:u32
free_memory_of_gpu 0x17 W 0 handle:u64
map_memory_to_gpu 0x18 RW 0 handle:u64 device_ids_array_ptr:u64 n_devices:u32 n_success:u32
unmap_memory_from_gpu 0x19 RW 0 handle:u64 device_ids_array_ptr:u64 n_devices:u32 n_success:u32
set_cu_mask 0x1a W 0 queue_id:u32 num_cu_mask:u32 cu_mask_ptr:u64
get_queue_wave_state 0x1b RW 0 ctl_stack_address:u64 ctl_stack_used_size:u32 save_area_used_size:u32 queue_id:u32 pad:u32
get_dmabuf_info 0x1c RW 0 size:u64 metadata_ptr:u64 metadata_size:u32 gpu_id:u32 flags:u32 dmabuf_fd:u32
import_dmabuf 0x1d RW 0 va_addr:u64 handle:u64 gpu_id:u32 dmabuf_fd:u32
alloc_queue_gws 0x1e RW 1 queue_id:u32 num_gws:u32 first_gws:u32 pad:u32
smi_events 0x1f RW 2 gpuid:u32 anon_fd:u32
svm 0x20 RW 5 start_addr:u64 size:u64 op:u32 nattr:u32
set_xnack_mode 0x21 RW 6 xnack_enabled:s32
get_available_memory 0x23 RW 9 available:u64 gpu_id:u32 pad:u32
export_dmabuf 0x24 RW 12 handle:u64 flags:u32 dmabuf_fd:u32
runtime_enable 0x25 RW 13 r_debug:u64 mode_mask:u32 capabilities_mask:u32
"""  # noqa: E501 (one row a line)


class QueueType(IntEnum):
    COMPUTE = 0
    SDMA = 1
    COMPUTE_AQL = 2
    SDMA_XGMI = 3
    SDMA_BY_ENGINE = 4


class EventType(IntEnum):
    SIGNAL = 0
    HW_EXCEPTION = 3
    MEMORY = 8


class MemoryFlag(IntFlag):
    """KFD_IOC_ALLOC_MEM_FLAGS."""

    VRAM = 1 << 0
    GTT = 1 << 1
    USERPTR = 1 << 2
    DOORBELL = 1 << 3
    MMIO_REMAP = 1 << 4
    CONTIGUOUS = 1 << 23
    EXT_COHERENT = 1 << 24
    UNCACHED = 1 << 25
    COHERENT = 1 << 26
    AQL_QUEUE_MEM = 1 << 27
    NO_SUBSTITUTE = 1 << 28
    PUBLIC = 1 << 29
    EXECUTABLE = 1 << 30
    WRITABLE = 1 << 31


class SvmFlag(IntFlag):
    """KFD_IOCTL_SVM_FLAG."""

    HOST_ACCESS = 1 << 0
    COHERENT = 1 << 1
    GPU_EXEC = 1 << 4
    GPU_ALWAYS_MAPPED = 1 << 6


class SvmAttribute(IntEnum):
    """KFD_IOCTL_SVM_ATTR."""

    PREFERRED_LOCATION = 0
    PREFETCH_LOCATION = 1
    ACCESS = 2
    ACCESS_IN_PLACE = 3
    NO_ACCESS = 4
    SET_FLAGS = 5
    CLEAR_FLAGS = 6
    GRANULARITY = 7


@dataclass(frozen=True, slots=True)
class Ioctl:
    """One row; `since_minor` is the interface version 1.x that brought it."""

    name: str
    request: int
    since_minor: int
    arguments: type[ctypes.Structure]


def request_number(number: int, direction: str, size: int) -> int:
    """Linux's _IOC: bits of direction, size, the type 'K' and the number."""
    bits = {"W": 1, "R": 2, "RW": 3}[direction]
    return bits << 30 | size << 16 | ord("K") << 8 | number


def make_struct(name: str, fields: str) -> type[ctypes.Structure]:
    """A struct of `name:type` fields, `name:type*n` for an array, laid out as C does."""
    rows = []
    for each in fields.split():
        field, _, kind = each.partition(":")
        kind, _, count = kind.partition("*")
        rows.append((field, _TYPES[kind] * int(count) if count else _TYPES[kind]))
    return type(name, (ctypes.Structure,), {"_fields_": rows})


def _make_ioctl(line: str) -> Ioctl:
    name, number, direction, since, fields = line.split(maxsplit=4)
    arguments = make_struct(name, fields)
    return Ioctl(
        name, request_number(int(number, 0), direction, ctypes.sizeof(arguments)), int(since), arguments
    )


IOCTLS: dict[str, Ioctl] = {row.name: row for row in map(_make_ioctl, _IOCTLS.strip().splitlines())}
STRUCTS: dict[str, type[ctypes.Structure]] = {
    line.split()[0]: make_struct(*line.split(maxsplit=1)) for line in _STRUCTS.strip().splitlines()
}

_KFD = "/dev/kfd"
_HINTS = {
    errno.ENOENT: "the amdgpu kernel module is not loaded; `modprobe amdgpu`, or there is no AMD GPU here",
    errno.EACCES: "no permission; join the group that owns it: `sudo usermod -aG render,video $USER`, then log in anew",
    errno.EPERM: "no permission; in a container, pass --device=/dev/kfd --device=/dev/dri",
    errno.ENODEV: "amdgpu is loaded but found no GPU that it computes on",
}


class KfdFile:
    """An open /dev/kfd. Calls are made through `interface`, and never by a child after a fork."""

    def __init__(self, interface: KernelInterface):
        self.interface, self._process = interface, os.getpid()
        try:
            self.descriptor = interface.open(_KFD)
        except OSError as error:
            hint = _HINTS.get(error.errno, "see `dmesg`")
            raise NoDeviceError(f"{_KFD}: got {error.strerror}; {hint}") from error
        self.minor_version = 0
        version = self.call("get_version")
        if version.major_version != 1:
            raise UnsupportedError(f"{_KFD}: got interface version {version.major_version}, want 1")
        self.minor_version = version.minor_version

    def call(self, name: str, **values: int) -> ctypes.Structure:
        """Make a call and give its arguments back as the kernel left them. Raises: KernelCallError."""
        arguments = IOCTLS[name].arguments(**values)
        self.call_at(name, arguments)
        return arguments

    def call_at(self, name: str, arguments: ctypes.Structure | ctypes.Array) -> None:
        """As `call`, with arguments that may be longer than the row's."""
        self.check_process()
        row = IOCTLS[name]
        if row.since_minor > self.minor_version:
            need = f"1.{row.since_minor}"
            raise UnsupportedError(
                f"{name}: got KFD 1.{self.minor_version}, want {need} or later; update the kernel"
            )
        size = ctypes.sizeof(arguments)
        request = row.request & ~(0x3FFF << 16) | size << 16
        while True:
            try:
                return self.interface.ioctl(self.descriptor, request, ctypes.addressof(arguments))
            except InterruptedError:
                continue
            except OSError as error:
                raise _refusal(name, row, arguments, error) from error

    @property
    def is_foreign(self) -> bool:
        """Whether this is a child of the process that opened it."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raises: ForkedError in a child of the process that opened this."""
        if self.is_foreign:
            raise ForkedError(
                f"fork: got process {os.getpid()}, want {self._process}, which opened the GPU; open it after forking"
            )


def _refusal(name: str, row: Ioctl, arguments: ctypes.Structure | ctypes.Array, error: OSError) -> Exception:
    fields = row.arguments.from_buffer(arguments)
    shown = ", ".join(
        f"{each[0]}={getattr(fields, each[0]):#x}" for each in row.arguments._fields_ if each[0] != "pad"
    )
    code = errno.errorcode.get(error.errno, str(error.errno))
    message = f"KFD {name}: got {code} ({os.strerror(error.errno)}); with {shown}"
    if error.errno == errno.ENOMEM:
        return OutOfMemoryError(message)
    return KernelCallError(message, error.errno)
