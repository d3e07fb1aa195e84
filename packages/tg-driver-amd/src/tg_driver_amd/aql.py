"""AQL packets: 64 bytes each, what HSA queues hold; built from and decoded into named fields.

Source: HSA Platform System Architecture 1.2, 2.9 "Architected Queuing Language"; the vendor packet that jumps to PM4
as AMD's ROCr defines it (amd_aql_pm4_ib), and the queue and signal as its amd_hsa_queue.h and amd_hsa_signal.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

from . import pm4
from .errors import PacketError
from .packets import Format, parse_formats

__all__ = ["FORMATS", "PACKET_BYTES", "Fence", "PacketType", "build", "decode", "decode_one", "pm4_jump"]

PACKET_BYTES = 64
_VENDOR_PM4_IB = 1
_DWORDS_AFTER_JUMP = 10


class PacketType(IntEnum):
    VENDOR = 0
    INVALID = 1
    KERNEL_DISPATCH = 2
    BARRIER_AND = 3
    AGENT_DISPATCH = 4
    BARRIER_OR = 5


class Fence(IntEnum):
    """Who shall see what was written before (release), or whose writes shall be seen (acquire)."""

    NONE = 0
    AGENT = 1
    SYSTEM = 2


_TABLE = """
KERNEL_DISPATCH 2: type:0-7 barrier:8 acquire:9-10 release:11-12 dimensions:16-17; workgroup_x:0-15 workgroup_y:16-31;
  workgroup_z:0-15; grid_x; grid_y; grid_z; private_segment_bytes; group_segment_bytes; kernel_object/lo;
  kernel_object/hi; kernarg_address/lo; kernarg_address/hi; -; -; completion_signal/lo; completion_signal/hi
BARRIER_AND 3: type:0-7 barrier:8 acquire:9-10 release:11-12; -; dep0/lo; dep0/hi; dep1/lo; dep1/hi; dep2/lo; dep2/hi;
  dep3/lo; dep3/hi; dep4/lo; dep4/hi; -; -; completion_signal/lo; completion_signal/hi
BARRIER_OR 5: type:0-7 barrier:8 acquire:9-10 release:11-12; -; dep0/lo; dep0/hi; dep1/lo; dep1/hi; dep2/lo; dep2/hi;
  dep3/lo; dep3/hi; dep4/lo; dep4/hi; -; -; completion_signal/lo; completion_signal/hi
PM4_IB 0: type:0-7 barrier:8 acquire:9-10 release:11-12 vendor_format:16-31; jump0; jump1; jump2; jump3; dwords_after;
  -; -; -; -; -; -; -; -; completion_signal/lo; completion_signal/hi
"""
FORMATS: dict[str, Format] = {each.name: each for each in parse_formats(_TABLE)}
_BY_TYPE = {each.opcode: each for each in FORMATS.values()}


def build(name: str, **fields: int) -> bytes:
    """The 64 bytes of a packet; it waits for all before it (`barrier`) and fences for the system, if not told else."""
    row = FORMATS[name]
    defaults = {"type": row.opcode, "barrier": 1, "acquire": Fence.SYSTEM, "release": Fence.SYSTEM}
    if name == "PM4_IB":
        defaults |= {"vendor_format": _VENDOR_PM4_IB, "dwords_after": _DWORDS_AFTER_JUMP}
    words = row.build(defaults | fields)
    assert len(words) * 4 == PACKET_BYTES, name
    return struct.pack("<16I", *words)


def pm4_jump(major: int, address: int, size_dwords: int, completion_signal: int = 0) -> bytes:
    """Run PM4 packets that lie at `address`."""
    jump = pm4.build(major, "INDIRECT_BUFFER", address=address, ib_size=size_dwords, valid=1)
    words = {f"jump{i}": word for i, word in enumerate(jump)}
    return build("PM4_IB", completion_signal=completion_signal, **words)


def decode_one(packet: bytes) -> tuple[str, dict[str, int]]:
    """Name and fields of one packet. Raises: PacketError when it is not 64 bytes."""
    if len(packet) != PACKET_BYTES:
        raise PacketError(f"AQL packet: got {len(packet)} bytes, want {PACKET_BYTES}")
    words = struct.unpack("<16I", packet)
    kind = words[0] & 0xFF
    if kind == PacketType.INVALID:
        return "INVALID", {}
    row = _BY_TYPE.get(kind)
    return (row.name, row.decode(words)) if row else (f"TYPE_{kind}", {"header": words[0]})


def decode(dwords: Sequence[int]) -> list[tuple[int, str, dict[str, object]]]:
    """Index, name and fields of each packet in a ring; what is left of less than a packet is CUT."""
    rows: list[tuple[int, str, dict[str, object]]] = []
    for at in range(0, len(dwords), PACKET_BYTES // 4):
        words = dwords[at : at + PACKET_BYTES // 4]
        if len(words) < PACKET_BYTES // 4:
            rows.append((at, "CUT", {"header": words[0]}))
        else:
            rows.append((at, *decode_one(struct.pack("<16I", *words))))
    return rows
