"""SDMA packets (4.4 on gfx94x/950, 6 on gfx11, 7 on gfx12): built from and decoded into named fields.

Each packet starts with a word that holds `op` and `sub_op`; a row's opcode is `op | sub_op << 8`. Versions differ in
how much one packet copies and in the cache policy bits.
Source: Linux 7.2, drivers/gpu/drm/amd/amdgpu: vega10_sdma_pkt_open.h (4.x), sdma_v6_0_0_pkt_open.h (6.x
and 7.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .errors import PacketError
from .packets import Format, parse_formats

__all__ = ["FORMATS", "build", "copy", "decode", "fill", "version_of"]


_COMMON = """
NOP 0x000: op:0-7 sub_op:8-15 count:16-29; data*
INDIRECT 0x004: op:0-7 sub_op:8-15 vmid:16-19; address/lo; address/hi; ib_size:0-19; csa/lo; csa/hi
TRAP 0x006: op:0-7 sub_op:8-15; int_context:0-27
POLL_REGMEM 0x008: op:0-7 sub_op:8-15 hdp_flush:26 func:28-30 mem_poll:31; address/lo; address/hi; value; mask;
  interval:0-15 retry_count:16-27
COND_EXE 0x009: op:0-7 sub_op:8-15; address/lo; address/hi; reference; exec_count:0-13
ATOMIC 0x00a: op:0-7 loop:16 tmz:18 atomic_op:25-31; address/lo; address/hi; source/lo; source/hi; compare/lo;
  compare/hi; loop_interval:0-12
TIMESTAMP_GET_GLOBAL 0x20d: op:0-7 sub_op:8-15; address/lo; address/hi
WRITE_LINEAR 0x002: op:0-7 sub_op:8-15 encrypt:16 tmz:18; address/lo; address/hi; count:0-19 sw:24-25; data*
"""
_V4 = """
COPY_LINEAR 0x001: op:0-7 sub_op:8-15 encrypt:16 tmz:18 broadcast:27; count:0-21; dst_sw:16-17 src_sw:24-25;
  source/lo; source/hi; destination/lo; destination/hi
CONST_FILL 0x00b: op:0-7 sub_op:8-15 sw:16-17 fillsize:30-31; address/lo; address/hi; value; count:0-21
FENCE 0x005: op:0-7 sub_op:8-15; address/lo; address/hi; value
"""
_V6 = """
COPY_LINEAR 0x001: op:0-7 sub_op:8-15 encrypt:16 tmz:18 cpv:19 backwards:25 broadcast:27; count:0-29;
  dst_sw:16-17 dst_cache_policy:18-20 src_sw:24-25 src_cache_policy:26-28; source/lo; source/hi; destination/lo;
  destination/hi
CONST_FILL 0x00b: op:0-7 sub_op:8-15 sw:16-17 cache_policy:24-26 cpv:28 fillsize:30-31; address/lo; address/hi; value;
  count:0-29
FENCE 0x005: op:0-7 sub_op:8-15 mtype:16-18 gcc:19 sys:20 snp:22 gpa:23 l2_policy:24-25 llc_policy:26 cpv:28;
  address/lo; address/hi; value
GCR_REQ 0x011: op:0-7 sub_op:8-15; base_va_lo:7-31; base_va_hi:0-15 gcr_control:16-31; gcr_control_hi:0-2
  limit_va_lo:7-31; limit_va_hi:0-15 vmid:24-27
"""
# Formats by version of SDMA, then by name.
FORMATS: dict[int, dict[str, Format]] = {
    version: {each.name: each for each in parse_formats(_COMMON.strip() + "\n" + own.strip())}
    for version, own in ((4, _V4), (6, _V6), (7, _V6))
}
_BY_OPCODE = {version: {each.opcode: each for each in rows.values()} for version, rows in FORMATS.items()}
_MTYPE_UNCACHED = 3
_FILL_DWORDS = 2
MAX_COPY_BYTES = {4: 1 << 22, 6: 1 << 30, 7: 1 << 30}


def version_of(major: int) -> int:
    """The SDMA version of gfx`major`."""
    return {9: 4, 11: 6, 12: 7}[major]


def build(version: int, name: str, **fields: int | Sequence[int]) -> list[int]:
    """The dwords of a packet. Raises: PacketError for a name or value that does not exist."""
    if version not in FORMATS or name not in FORMATS[version]:
        raise PacketError(f"SDMA: got {name} of {version}, want one of {', '.join(FORMATS.get(version, ()))}")
    row = FORMATS[version][name]
    sub_op = {"sub_op": row.opcode >> 8} if "sub_op" in row.widths() else {}
    return row.build({"op": row.opcode & 0xFF, **sub_op, **fields})


def copy(version: int, destination: int, source: int, size: int) -> list[int]:
    """Copy `size` bytes, in as many packets as it takes."""
    dwords, step = [], MAX_COPY_BYTES[version]
    for at in range(0, size, step):
        count = min(step, size - at) - 1
        dwords += build(version, "COPY_LINEAR", count=count, source=source + at, destination=destination + at)
    return dwords


def fill(version: int, address: int, value: int, size: int) -> list[int]:
    """Fill `size` bytes, a multiple of 4, with a dword."""
    if size % 4 or address % 4:
        raise PacketError(f"fill: got {size} bytes at {address:#x}, want multiples of 4")
    dwords, step = [], MAX_COPY_BYTES[version] - 4
    for at in range(0, size, step):
        count = min(step, size - at) - 4  # the last dword's first byte, as the kernel's own fills count
        dwords += build(
            version, "CONST_FILL", address=address + at, value=value, count=count, fillsize=_FILL_DWORDS
        )
    return dwords


def fence(version: int, address: int, value: int) -> list[int]:
    """When all before is done, write a dword to `address`."""
    mtype = {"mtype": _MTYPE_UNCACHED} if "mtype" in FORMATS[version]["FENCE"].widths() else {}
    return build(version, "FENCE", address=address, value=value, **mtype)


def decode(version: int, dwords: Sequence[int]) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Index, name and fields of each packet; a dword that starts none is named UNKNOWN, one cut short CUT."""
    at = 0
    while at < len(dwords):
        header = dwords[at]
        row = _BY_OPCODE[version].get(header & 0xFFFF)
        if row is None:
            row = _BY_OPCODE[version].get(header & 0xFF)
            row = row if row is not None and row.name == "ATOMIC" else None
        size = packet_dwords(row, dwords[at:]) if row else 1
        words = dwords[at : at + size]
        name = "UNKNOWN" if row is None else "CUT" if len(words) < size else row.name
        yield at, name, {"header": header} if name in ("UNKNOWN", "CUT") else row.decode(words)
        at += size


def packet_dwords(row: Format, dwords: Sequence[int]) -> int:
    """How many dwords a packet takes that starts `dwords`; more than there are when it is cut short."""
    fields = row.decode(dwords)
    if row.name == "NOP":
        return 1 + fields["count"]
    return len(row.words) + (fields.get("count", 0) + 1 if row.has_data else 0)
