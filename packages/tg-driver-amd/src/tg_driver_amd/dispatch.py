"""A launch: arguments packed as the kernel's metadata lays them out, then an AQL packet or PM4 registers.

Source: LLVM 22, AMDGPUUsage, "Code Object V5 Metadata" (hidden arguments), "Kernel Descriptor" (properties),
"Initial Kernel Execution State" (order of user SGPRs); Linux 7.2, asic_reg/gc (fields of the compute registers).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import aql, pm4
from .code_object import Argument, Descriptor, Kernel
from .errors import PacketError
from .memory import Allocation

if TYPE_CHECKING:
    from .device import Device

__all__ = ["Launch", "aql_packet", "pack_arguments", "pm4_packets"]

Value = int | float | bytes | Allocation
Triple = tuple[int, int, int]

# kernel_code_properties: bit, and how many user SGPRs it enables, in the order of the registers.
_PRIVATE_SEGMENT_BUFFER, _DISPATCH_PTR, _QUEUE_PTR, _KERNARG_PTR, _DISPATCH_ID = (
    1 << 0,
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 4,
)
_FLAT_SCRATCH_INIT, _PRIVATE_SEGMENT_SIZE, _WAVE32 = 1 << 5, 1 << 6, 1 << 10
_LDS_GRANULE_BYTES = {"gfx950": 1280}
_LDS_SIZE_SHIFT, _LDS_SIZE_MASK = 15, 0x1FF
_MAX_WORKGROUP = 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel whose code object lies at `image_address`. `grid` counts work-items."""

    kernel: Kernel
    image_address: int
    grid: Triple
    workgroup: Triple
    group_bytes: int
    private_bytes: int
    kernarg_address: int

    @property
    def descriptor_address(self) -> int:
        return self.image_address + self.kernel.descriptor_offset


def triple(name: str, value: int | Sequence[int]) -> Triple:
    """Three sizes of at least 1. Raises: PacketError."""
    sizes = (value,) if isinstance(value, int) else tuple(value)
    if not 1 <= len(sizes) <= 3 or not all(isinstance(each, int) and 1 <= each < 1 << 32 for each in sizes):
        raise PacketError(f"{name}: got {value}, want one to three sizes of 1 to {(1 << 32) - 1}")
    return (*sizes, 1, 1)[:3]


def check_workgroup(device: Device, kernel: Kernel, workgroup: Triple, group_bytes: int) -> None:
    """Raises: PacketError for a workgroup or LDS that the kernel or the GPU does not take."""
    size, limit = workgroup[0] * workgroup[1] * workgroup[2], min(kernel.max_workgroup, _MAX_WORKGROUP)
    if size > limit:
        raise PacketError(f"{kernel.name}: got a workgroup of {size} work-items, want at most {limit}")
    lds = device.node["lds_size_in_kb"] << 10
    if group_bytes > lds:
        raise PacketError(
            f"{kernel.name}: got {group_bytes} bytes of LDS, want at most {lds} on {device.target}"
        )


def pack_arguments(
    kernel: Kernel,
    values: Sequence[Value],
    grid: Triple,
    workgroup: Triple,
    lds_bytes: int,
    hidden: dict[str, int],
) -> bytes:
    """The kernarg segment. `hidden` gives more hidden arguments by their value_kind; the rest of them are 0.

    Raises: PacketError for too many, too few or unfit values.
    """
    data = bytearray(max(kernel.kernarg_bytes, 1))
    own = [each for each in kernel.arguments if not each.kind.startswith("hidden_")]
    if len(values) != len(own):
        names = ", ".join(each.name or each.kind for each in own) or "none"
        raise PacketError(f"{kernel.name}: got {len(values)} arguments, want {len(own)}: {names}")
    for number, (argument, value) in enumerate(zip(own, values, strict=True)):
        packed = _pack(f"{kernel.name}: argument {number} {argument.name}".rstrip(), argument, value)
        data[argument.offset : argument.offset + argument.size] = packed
    counts = [size // group for size, group in zip(grid, workgroup, strict=True)]
    rests = [size % group for size, group in zip(grid, workgroup, strict=True)]
    known = dict(hidden, hidden_dynamic_lds_size=lds_bytes)
    for axis, name in enumerate("xyz"):
        known[f"hidden_block_count_{name}"] = counts[axis]
        known[f"hidden_group_size_{name}"] = workgroup[axis]
        known[f"hidden_remainder_{name}"] = rests[axis]
    known["hidden_grid_dims"] = dimensions(grid, workgroup)
    for argument in kernel.arguments:
        if argument.kind in known:
            packed = known[argument.kind].to_bytes(8, "little")[: argument.size]
            data[argument.offset : argument.offset + argument.size] = packed
    return bytes(data)


def _pack(name: str, argument: Argument, value: Value) -> bytes:
    size = argument.size
    if isinstance(value, Allocation):
        value = value.address
    if isinstance(value, float):
        formats = {2: "<e", 4: "<f", 8: "<d"}
        if size in formats:
            return struct.pack(formats[size], value)
    elif isinstance(value, int):
        if -(1 << 8 * size - 1) <= value < 1 << 8 * size:
            return (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    elif isinstance(value, bytes | bytearray | memoryview) and len(value) == size:
        return bytes(value)
    raise PacketError(f"{name}: got {value!r}, want {argument.kind} of {size} bytes")


def dimensions(grid: Triple, workgroup: Triple) -> int:
    return max(axis for axis in (1, 2, 3) if axis == 1 or max(grid[axis - 1], workgroup[axis - 1]) > 1)


def aql_packet(launch: Launch, signal_address: int, *, barrier: bool = True) -> bytes:
    """The dispatch packet; the command processor does the rest."""
    (x, y, z), (grid_x, grid_y, grid_z) = launch.workgroup, launch.grid
    return aql.build(
        "KERNEL_DISPATCH",
        barrier=int(barrier),
        dimensions=dimensions(launch.grid, launch.workgroup),
        workgroup_x=x,
        workgroup_y=y,
        workgroup_z=z,
        grid_x=grid_x,
        grid_y=grid_y,
        grid_z=grid_z,
        private_segment_bytes=launch.private_bytes,
        group_segment_bytes=launch.group_bytes,
        kernel_object=launch.descriptor_address,
        kernarg_address=launch.kernarg_address,
        completion_signal=signal_address,
    )


def user_sgprs(descriptor: Descriptor, launch: Launch, packet_address: int, queue_address: int) -> list[int]:
    """What the command processor would put into the first SGPRs; preloaded arguments are left to the kernel."""

    def halves(value: int) -> list[int]:
        return [value & 0xFFFFFFFF, value >> 32]

    rows = (
        (_PRIVATE_SEGMENT_BUFFER, [0, 0, 0, 0]),
        (_DISPATCH_PTR, halves(packet_address)),
        (_QUEUE_PTR, halves(queue_address)),
        (_KERNARG_PTR, halves(launch.kernarg_address)),
        (_DISPATCH_ID, [0, 0]),
        (_FLAT_SCRATCH_INIT, [0, 0]),
        (_PRIVATE_SEGMENT_SIZE, [launch.private_bytes]),
    )
    return [word for bit, words in rows if descriptor.properties & bit for word in words]


def pm4_packets(device: Device, launch: Launch, packet_address: int, queue_address: int) -> list[int]:
    """The same launch as register writes: caches invalidated before, the kernel's end awaited after."""
    major, descriptor = device.major, launch.kernel.descriptor
    entry = launch.descriptor_address + descriptor.entry_offset
    granule = _LDS_GRANULE_BYTES.get(device.target, 512)
    lds = -(-launch.group_bytes // granule)
    rsrc2 = descriptor.rsrc2 & ~(_LDS_SIZE_MASK << _LDS_SIZE_SHIFT) | lds << _LDS_SIZE_SHIFT
    scratch = device.scratch
    base = scratch.memory.address >> 8 if scratch and launch.private_bytes else 0
    sgprs = user_sgprs(descriptor, launch, packet_address, queue_address)
    is_wave32 = bool(descriptor.properties & _WAVE32) and major > 9

    def registers(first: str, *values: int) -> list[int]:
        return pm4.set_registers(major, first, values)

    return [
        *pm4.acquire(major, code=True),
        *registers("COMPUTE_PGM_LO", entry >> 8 & 0xFFFFFFFF, entry >> 40),
        *registers("COMPUTE_PGM_RSRC1", descriptor.rsrc1, rsrc2),
        *registers("COMPUTE_PGM_RSRC3", descriptor.rsrc3),
        *registers("COMPUTE_TMPRING_SIZE", scratch.tmpring_size if base else 0),
        *registers("COMPUTE_DISPATCH_SCRATCH_BASE_LO", base & 0xFFFFFFFF, base >> 32),
        *registers("COMPUTE_RESTART_X", 0, 0, 0),
        *registers("COMPUTE_RESOURCE_LIMITS", 0),
        *(registers("COMPUTE_USER_DATA_0", *sgprs) if sgprs else []),
        *registers("COMPUTE_START_X", 0, 0, 0, *launch.workgroup),
        *pm4.build(
            major,
            "DISPATCH_DIRECT",
            dim_x=launch.grid[0],
            dim_y=launch.grid[1],
            dim_z=launch.grid[2],
            compute_shader_en=1,
            force_start_at_000=1,
            use_thread_dimensions=1,
            cs_w32_en=int(is_wave32),
        ),
        *pm4.build(
            major,
            "EVENT_WRITE",
            event_type=pm4.Event.CS_PARTIAL_FLUSH,
            event_index=pm4.EventIndex.CS_PARTIAL_FLUSH,
        ),
    ]
