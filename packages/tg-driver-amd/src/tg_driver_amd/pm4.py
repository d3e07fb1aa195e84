"""PM4: the packets that a compute queue's command processor reads; built from and decoded into named fields.

A packet is a header (type 3, opcode, count of dwords after the next) and the words of its format. gfx9 and later
generations differ in ACQUIRE_MEM and RELEASE_MEM, which name caches in their own words.
Source: Linux 7.2, drivers/gpu/drm/amd/amdgpu, soc15d.h (gfx9) and nvd.h (gfx10 to gfx12); register offsets from
include/asic_reg/gc, gc_9_4_3, gc_11_0_0 and gc_12_0_0, relative to PACKET3_SET_SH_REG_START.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

from .errors import PacketError
from .packets import Format, parse_formats

__all__ = [
    "FORMATS",
    "SH_REGISTERS",
    "DataSel",
    "Event",
    "acquire",
    "build",
    "decode",
    "release",
    "set_registers",
]

_TYPE3, _TYPE2, _COMPUTE = 3, 2, 1 << 1
SH_REGISTER_START = 0x2C00


class Event(IntEnum):
    """Event types (VGT_EVENT_TYPE)."""

    CS_PARTIAL_FLUSH = 0x07
    CACHE_FLUSH_AND_INV_TS = 0x14
    BOTTOM_OF_PIPE_TS = 0x28


class EventIndex(IntEnum):
    OTHER = 0
    CS_PARTIAL_FLUSH = 4
    END_OF_PIPE = 5


class DataSel(IntEnum):
    """What RELEASE_MEM writes."""

    NONE = 0
    DATA_32 = 1
    DATA_64 = 2
    GPU_CLOCK = 3


class IntSel(IntEnum):
    NONE = 0
    INTERRUPT = 1
    AFTER_WRITE = 2


_COMMON = """
NOP 0x10: data*
DISPATCH_DIRECT 0x15: dim_x; dim_y; dim_z; compute_shader_en:0 partial_tg_en:1 force_start_at_000:2
  ordered_append_en:3 use_thread_dimensions:5 order_mode:6 scalar_l1_inv_vol:10 vector_l1_inv_vol:11 restore:14
  cs_w32_en:15
DISPATCH_INDIRECT 0x16: address/lo; address/hi; compute_shader_en:0 partial_tg_en:1 force_start_at_000:2
  use_thread_dimensions:5 order_mode:6 cs_w32_en:15
COND_EXEC 0x22: address/lo; address/hi; -; exec_count:0-13
WRITE_DATA 0x37: dst_sel:8-11 addr_incr:16 wr_confirm:20 cache_policy:25-26 engine_sel:30-31; address/lo; address/hi;
  data*
WAIT_REG_MEM 0x3C: function:0-2 mem_space:4-5 operation:6-7 engine_sel:8 cache_policy:25-26; address/lo; address/hi;
  reference; mask; poll_interval:0-15
INDIRECT_BUFFER 0x3F: address/lo; address/hi; ib_size:0-19 chain:20 offload_polling:21 valid:23 vmid:24-27
  cache_policy:28-29 priv:31
COPY_DATA 0x40: src_sel:0-3 dst_sel:8-11 src_cache_policy:13-14 count_sel:16 wr_confirm:20 dst_cache_policy:25-26;
  source/lo; source/hi; destination/lo; destination/hi
EVENT_WRITE 0x46: event_type:0-5 event_index:8-11
DMA_DATA 0x50: engine:0 src_cache_policy:13-14 dst_sel:20-21 dst_cache_policy:25-26 src_sel:29-30 cp_sync:31;
  source/lo; source/hi; destination/lo; destination/hi; byte_count:0-25 raw_wait:30
SET_SH_REG 0x76: reg_offset:0-15 vmid_shift:23-27 index:28-31; data*
SET_UCONFIG_REG 0x79: reg_offset:0-15; data*
"""
_GFX9 = """
ATOMIC_MEM 0x1E: atomic:0-5 command:8-11 cache_policy:25-26; address/lo; address/hi; source/lo; source/hi;
  compare/lo; compare/hi; loop_interval:0-12
RELEASE_MEM 0x49: event_type:0-5 event_index:8-11 tcl1_vol_action:12 tc_vol_action:13 tc_wb_action:15 tcl1_action:16
  tc_action:17 tc_nc_action:19 tc_md_action:21 exec:28; dst_sel:16-17 int_sel:24-26 data_sel:29-31; address/lo;
  address/hi; data/lo; data/hi; int_ctxid
ACQUIRE_MEM 0x58: tc_nc_action:3 tc_wc_action:4 tc_inv_metadata_action:5 tcl1_vol_action:15 tc_wb_action:18
  tcl1_action:22 tc_action:23 sh_kcache_action:27 sh_kcache_vol_action:28 sh_icache_action:29 sh_kcache_wb_action:30
  engine_sel:31; coher_size/lo; coher_size/hi; coher_base/lo; coher_base/hi; poll_interval:0-15
"""
_GFX10 = """
ATOMIC_MEM 0x1E: atomic:0-6 command:8-11 cache_policy:25-26; address/lo; address/hi; source/lo; source/hi;
  compare/lo; compare/hi; loop_interval:0-12
RELEASE_MEM 0x49: event_type:0-5 event_index:8-11 glm_wb:12 glm_inv:13 glv_inv:14 gl1_inv:15 gl2_us:16 gl2_range:17-18
  gl2_discard:19 gl2_inv:20 gl2_wb:21 seq:22-23 cache_policy:25-26 execute:28; dst_sel:16-17 int_sel:24-26
  data_sel:29-31; address/lo; address/hi; data/lo; data/hi; int_ctxid
ACQUIRE_MEM 0x58: engine_sel:31; coher_size/lo; coher_size/hi; coher_base/lo; coher_base/hi; poll_interval:0-15;
  gli_inv:0-1 gl1_range:2-3 glm_wb:4 glm_inv:5 glk_wb:6 glk_inv:7 glv_inv:8 gl1_inv:9 gl2_us:10 gl2_range:11-12
  gl2_discard:13 gl2_inv:14 gl2_wb:15 seq:16-17
"""
# Formats by the instruction set's major version, then by name.
FORMATS: dict[int, dict[str, Format]] = {
    major: {each.name: each for each in parse_formats(_COMMON.strip() + own)}
    for major, own in ((9, _GFX9), (11, _GFX10), (12, _GFX10))
}
_BY_OPCODE = {major: {each.opcode: each for each in rows.values()} for major, rows in FORMATS.items()}

_REGISTERS = {
    "COMPUTE_DISPATCH_INITIATOR": 0x200, "COMPUTE_DIM_X": 0x201, "COMPUTE_DIM_Y": 0x202, "COMPUTE_DIM_Z": 0x203,
    "COMPUTE_START_X": 0x204, "COMPUTE_START_Y": 0x205, "COMPUTE_START_Z": 0x206,
    "COMPUTE_NUM_THREAD_X": 0x207, "COMPUTE_NUM_THREAD_Y": 0x208, "COMPUTE_NUM_THREAD_Z": 0x209,
    "COMPUTE_PGM_LO": 0x20C, "COMPUTE_PGM_HI": 0x20D,
    "COMPUTE_DISPATCH_PKT_ADDR_LO": 0x20E, "COMPUTE_DISPATCH_PKT_ADDR_HI": 0x20F,
    "COMPUTE_DISPATCH_SCRATCH_BASE_LO": 0x210, "COMPUTE_DISPATCH_SCRATCH_BASE_HI": 0x211,
    "COMPUTE_PGM_RSRC1": 0x212, "COMPUTE_PGM_RSRC2": 0x213, "COMPUTE_RESOURCE_LIMITS": 0x215,
    "COMPUTE_STATIC_THREAD_MGMT_SE0": 0x216, "COMPUTE_STATIC_THREAD_MGMT_SE1": 0x217,
    "COMPUTE_TMPRING_SIZE": 0x218, "COMPUTE_RESTART_X": 0x21B, "COMPUTE_RESTART_Y": 0x21C,
    "COMPUTE_RESTART_Z": 0x21D,
    **{f"COMPUTE_USER_DATA_{number}": 0x240 + number for number in range(16)},
}  # fmt: skip
SH_REGISTERS: dict[int, dict[str, int]] = {
    9: _REGISTERS | {"COMPUTE_TG_CHUNK_SIZE": 0x227, "COMPUTE_PGM_RSRC3": 0x22D},
    11: _REGISTERS | {"COMPUTE_PGM_RSRC3": 0x228},
    12: _REGISTERS | {"COMPUTE_PGM_RSRC3": 0x228},
}
_REGISTER_NAMES = {
    major: {offset: name for name, offset in rows.items()} for major, rows in SH_REGISTERS.items()
}


def build(major: int, name: str, **fields: int | Sequence[int]) -> list[int]:
    """The dwords of a packet for gfx`major`. Raises: PacketError for a name or value that does not exist."""
    if major not in FORMATS or name not in FORMATS[major]:
        raise PacketError(f"PM4: got {name} on gfx{major}, want one of {', '.join(FORMATS.get(major, ()))}")
    row = FORMATS[major][name]
    words = row.build(fields)
    if not 0 < len(words) <= 1 << 14:
        raise PacketError(f"PM4 {name}: got {len(words)} dwords, want 1 to {1 << 14}")
    return [_TYPE3 << 30 | len(words) - 1 << 16 | row.opcode << 8 | _COMPUTE, *words]


def set_registers(major: int, first: str, values: Sequence[int]) -> list[int]:
    """SET_SH_REG of registers that lie one after the other."""
    return build(major, "SET_SH_REG", reg_offset=SH_REGISTERS[major][first], data=list(values))


_EVERYTHING = {"coher_size": (1 << 40) - 1}  # in units of 256 bytes, from base 0


def _ones(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), 1)


# Which caches, as the kernel's own fences name them (gfx_v9_4_3.c, gfx_v11_0.c, gfx_v12_0.c).
_ACQUIRE_GFX10 = _ones("gl2_inv gl2_wb glm_inv glm_wb gl1_inv glv_inv glk_inv")
_ACQUIRE = {
    9: _ones("sh_kcache_action tc_action tcl1_action tc_wb_action"),
    11: _ACQUIRE_GFX10,
    12: _ACQUIRE_GFX10,
}
_CODE = {9: _ones("sh_icache_action"), 11: _ones("gli_inv"), 12: _ones("gli_inv")}
_BYPASS = 3
_RELEASE = {
    9: _ones("tcl1_action tc_action tc_wb_action tc_md_action"),
    11: _ones("seq gl2_wb glm_inv glm_wb") | {"cache_policy": _BYPASS},
    12: _ones("seq gl2_wb") | {"cache_policy": _BYPASS},
}


def acquire(major: int, *, code: bool = False) -> list[int]:
    """Invalidate the caches before a kernel, so that it sees what others wrote; `code` for new code too."""
    return build(
        major,
        "ACQUIRE_MEM",
        poll_interval=10,
        **_EVERYTHING,
        **_ACQUIRE[major],
        **(_CODE[major] if code else {}),
    )


def release(
    major: int, address: int, data: int, data_sel: DataSel = DataSel.DATA_64, event_id: int = 0
) -> list[int]:
    """When all before is done, write caches back, then `data` to `address`; interrupt when `event_id` is not 0."""
    return build(
        major,
        "RELEASE_MEM",
        event_type=Event.CACHE_FLUSH_AND_INV_TS,
        event_index=EventIndex.END_OF_PIPE,
        int_sel=IntSel.AFTER_WRITE if event_id else IntSel.NONE,
        data_sel=data_sel,
        address=address,
        data=data,
        int_ctxid=event_id,
        **_RELEASE[major],
    )


def decode(major: int, dwords: Sequence[int]) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Index, name and fields of each packet; a dword that is no packet is named UNKNOWN, and one cut short CUT."""
    at = 0
    while at < len(dwords):
        header, kind = dwords[at], dwords[at] >> 30
        count = (header >> 16 & 0x3FFF) + 1
        row = _BY_OPCODE[major].get(header >> 8 & 0xFF) if kind == _TYPE3 else None
        if kind == _TYPE2 or (row and row.name == "NOP" and count == 1 << 14):  # padding of one dword
            yield at, "PAD", {}
            at += 1
        elif kind != _TYPE3 or at + count >= len(dwords):
            yield at, "UNKNOWN" if kind != _TYPE3 else "CUT", {"header": header}
            at += 1
        else:
            words = dwords[at + 1 : at + 1 + count]
            yield at, row.name if row else f"OPCODE_{header >> 8 & 0xFF:#04x}", _fields(major, row, words)
            at += 1 + count


def _fields(major: int, row: Format | None, words: Sequence[int]) -> dict[str, object]:
    if row is None:
        return {"data": list(words)}
    fields: dict[str, object] = row.decode(words)
    if row.name == "SET_SH_REG":
        first, names = fields["reg_offset"], _REGISTER_NAMES[major]
        fields = {names.get(first + i, f"SH+{first + i:#x}"): value for i, value in enumerate(fields["data"])}
    return fields
