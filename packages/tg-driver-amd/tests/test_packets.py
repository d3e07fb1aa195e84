"""Packets: every format builds and decodes to the same, headers are as the kernel's macros make them."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys

import pytest

from tg_driver_amd import PacketError, aql, pm4, sdma
from tg_driver_amd.decode import decode_ring
from tg_driver_amd.packets import Format, parse_formats

SEED = int(os.environ.get("TG_SEED", "1"))
PM4 = [(major, name) for major, rows in pm4.FORMATS.items() for name in rows]
SDMA = [(version, name) for version, rows in sdma.FORMATS.items() for name in rows]


def random_fields(row: Format, random_: random.Random) -> dict[str, int]:
    return {name: random_.getrandbits(bits) for name, bits in row.widths().items()}


@pytest.mark.parametrize(("major", "name"), PM4)
def test_pm4_packet_built_and_decoded_is_the_same(major: int, name: str):
    print(f"TG_SEED={SEED}")
    row, random_ = pm4.FORMATS[major][name], random.Random(f"{SEED} {major} {name}")
    for _ in range(50):
        fields = random_fields(row, random_)
        if name == "SET_SH_REG":
            fields["reg_offset"] = 0x240
        if row.has_data:
            fields["data"] = [random_.getrandbits(32) for _ in range(random_.randrange(1, 9))]
        dwords = pm4.build(major, name, **fields)
        assert dwords[0] == 3 << 30 | len(dwords) - 2 << 16 | row.opcode << 8 | 2
        ((at, found, decoded),) = pm4.decode(major, dwords)
        assert (at, found) == (0, name)
        if name == "SET_SH_REG":
            fields = {f"COMPUTE_USER_DATA_{i}": value for i, value in enumerate(fields["data"])}
        assert decoded == fields


@pytest.mark.parametrize(("version", "name"), SDMA)
def test_sdma_packet_built_and_decoded_is_the_same(version: int, name: str):
    print(f"TG_SEED={SEED}")
    row, random_ = sdma.FORMATS[version][name], random.Random(f"{SEED} {version} {name}")
    for _ in range(50):
        fields = random_fields(row, random_) | {"op": row.opcode & 0xFF}
        if "sub_op" in fields:
            fields["sub_op"] = row.opcode >> 8
        if row.has_data:
            data = [random_.getrandbits(32) for _ in range(random_.randrange(1, 9))]
            fields |= {"data": data, "count": len(data) - (name != "NOP")}
        dwords = sdma.build(version, name, **fields)
        assert list(sdma.decode(version, [*dwords, 0])) == [
            (0, name, fields),
            (len(dwords), "NOP", sdma_nop()),
        ]


def sdma_nop() -> dict[str, object]:
    return {"op": 0, "sub_op": 0, "count": 0, "data": []}


@pytest.mark.parametrize("name", aql.FORMATS)
def test_aql_packet_built_and_decoded_is_the_same(name: str):
    print(f"TG_SEED={SEED}")
    row, random_ = aql.FORMATS[name], random.Random(f"{SEED} {name}")
    for _ in range(50):
        fields = random_fields(row, random_) | {"type": row.opcode}
        packet = aql.build(name, **fields)
        assert len(packet) == 64
        assert aql.decode_one(packet) == (name, fields)


def test_packets_of_known_bits_are_what_the_kernel_makes():
    # PACKET3(PACKET3_WRITE_DATA, 3) with WR_CONFIRM and DST_SEL 5, as gfx_v9_0_ring_test_ib writes memory.
    dwords = pm4.build(9, "WRITE_DATA", dst_sel=5, wr_confirm=1, address=0x123456780, data=[0xDEADBEEF])
    assert dwords == [0xC0033702, 0x00100500, 0x23456780, 0x1, 0xDEADBEEF]
    # SDMA_OP_WRITE, as sdma_v6_0_ring_test_ring has it.
    assert sdma.build(6, "WRITE_LINEAR", address=0x1000, count=0, data=[7]) == [2, 0x1000, 0, 0, 7]
    assert sdma.copy(4, 0x2000, 0x1000, 64) == [1, 63, 0, 0x1000, 0, 0x2000, 0]
    assert sdma.fence(6, 0x40, 9) == [0x00030005, 0x40, 0, 9]
    # HSA: header of a dispatch with the barrier bit and system fences, 2 dimensions.
    packet = aql.build("KERNEL_DISPATCH", dimensions=2, grid_x=5, kernel_object=0x1122334455667788)
    assert struct.unpack_from("<HH", packet) == (0x1502, 2)
    assert struct.unpack_from("<I", packet, 12) == (5,)
    assert struct.unpack_from("<Q", packet, 32) == (0x1122334455667788,)


@pytest.mark.parametrize("version", [4, 6, 7])
def test_copy_of_more_than_a_packet_takes_is_split_without_gap(version: int):
    step = sdma.MAX_COPY_BYTES[version]
    packets = list(sdma.decode(version, sdma.copy(version, 0x10_0000_0000, 0x20_0000_0000, 2 * step + 5)))
    sizes = [fields["count"] + 1 for _, _, fields in packets]
    assert sizes == [step, step, 5]
    assert [fields["source"] - 0x20_0000_0000 for _, _, fields in packets] == [0, step, 2 * step]


def test_packet_with_a_bad_name_or_value_is_refused():
    with pytest.raises(PacketError, match=r"got DANCE on gfx9, want one of NOP"):
        pm4.build(9, "DANCE")
    with pytest.raises(PacketError, match=r"EVENT_WRITE.event_type: got 64, want 0 to 0x3f"):
        pm4.build(11, "EVENT_WRITE", event_type=64)
    with pytest.raises(PacketError, match=r"got field 'tc_action', want one of"):
        pm4.build(12, "ACQUIRE_MEM", tc_action=1)
    with pytest.raises(PacketError, match="multiples of 4"):
        sdma.fill(6, 0x1000, 1, 7)


@pytest.mark.parametrize("major", [9, 11, 12])
def test_random_dwords_decode_without_an_error(major: int):
    print(f"TG_SEED={SEED}")
    random_ = random.Random(f"{SEED} {major}")
    for _ in range(300):
        data = random_.randbytes(random_.randrange(200))
        for kind in ("pm4", "aql", "sdma"):
            decode_ring(kind, major, data)


def test_decode_prints_a_line_for_each_packet(tmp_path):
    ring = tmp_path / "ring.bin"
    dwords = pm4.acquire(9) + pm4.set_registers(9, "COMPUTE_PGM_LO", [1, 2]) + [0xFFFF1002]
    ring.write_bytes(struct.pack(f"<{len(dwords)}I", *dwords))
    command = [sys.executable, "-m", "tg_driver_amd.decode", "--target", "gfx942", str(ring)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("0x0000 ACQUIRE_MEM tc_wb_action=1")
    assert lines[1] == "0x001c SET_SH_REG COMPUTE_PGM_LO=1 COMPUTE_PGM_HI=2"


def test_format_of_text_knows_halves_and_reserved_words():
    (row,) = parse_formats("EXAMPLE 0x12: a:0-3 b:31; -; address/lo; address/hi; data*")
    assert row.build({"a": 5, "b": 1, "address": 1 << 40, "data": [7]}) == [0x80000005, 0, 0, 0x100, 7]
