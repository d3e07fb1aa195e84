"""Fields of packets lie where the kernel's headers have them.

`TG_AMDGPU_HEADERS` names a folder with drivers/gpu/drm/amd/amdgpu of Linux (Debian: linux-source-7.2).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tg_driver_amd import pm4, sdma
from tg_driver_amd.packets import Format

FOLDER = Path(os.environ.get("TG_AMDGPU_HEADERS", "/nonexistent"))
SDMA_HEADERS = {4: "vega10_sdma_pkt_open.h", 6: "sdma_v6_0_0_pkt_open.h", 7: "sdma_v6_0_0_pkt_open.h"}
SDMA_NAMES = {"CONST_FILL": "CONSTANT_FILL", "WRITE_LINEAR": "WRITE_UNTILED"}
PM4_HEADERS = {9: "soc15d.h", 11: "nvd.h", 12: "nvd.h"}
# Flags that the headers write as single bits: our name -> the end of theirs.
FLAGS = {
    9: {
        "RELEASE_MEM": {
            "tcl1_vol_action": "EOP_TCL1_VOL_ACTION_EN", "tc_vol_action": "EOP_TC_VOL_ACTION_EN",
            "tc_wb_action": "EOP_TC_WB_ACTION_EN", "tcl1_action": "EOP_TCL1_ACTION_EN", "tc_action": "EOP_TC_ACTION_EN",
            "tc_nc_action": "EOP_TC_NC_ACTION_EN", "tc_md_action": "EOP_TC_MD_ACTION_EN",
        },
        "ACQUIRE_MEM": {},
    },
    11: {"RELEASE_MEM": {}, "ACQUIRE_MEM": {}},
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (FOLDER / "nvd.h").exists(), reason="TG_AMDGPU_HEADERS names no folder with nvd.h"
)


def sdma_fields(text: str, packet: str) -> set[tuple[int, int, int]]:
    """(dword, lowest bit, highest bit) of every field that the header has for a packet."""
    pattern = (
        rf"#define SDMA_PKT_{packet}_\w+_offset (\d+)\s+"
        rf"#define SDMA_PKT_{packet}_\w+_mask\s+(0x[0-9A-F]+)\s+#define SDMA_PKT_{packet}_\w+_shift\s+(\d+)"
    )
    rows = (tuple(int(each, 0) for each in row) for row in re.findall(pattern, text))
    return {(dword, shift, shift + mask.bit_length() - 1) for dword, mask, shift in rows}


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in sdma.FORMATS for name in sdma.FORMATS[version]]
)
def test_sdma_fields_lie_where_the_header_has_them(version: int, name: str):
    text = (FOLDER / SDMA_HEADERS[version]).read_text(encoding="utf-8")
    theirs = sdma_fields(text, SDMA_NAMES.get(name, name))
    assert theirs
    opcode = re.search(rf"#define SDMA_OP_{name.split('_LINEAR')[0].split('_GET')[0]}\s+(\d+)", text)
    row: Format = sdma.FORMATS[version][name]
    assert opcode and int(opcode[1]) == row.opcode & 0xFF
    for number, word in enumerate(row.words):
        for field in word:
            place = (number, field.low, field.high)
            # The header leaves out the low bits of addresses that must be 0.
            assert place in theirs or any(
                dword == number and field.low == 0 and field.high == 31 == high
                for dword, _low, high in theirs
            ), (field.name, place)


@pytest.mark.parametrize("major", [9, 11])
def test_pm4_opcodes_and_fields_lie_where_the_header_has_them(major: int):
    text = (FOLDER / PM4_HEADERS[major]).read_text(encoding="utf-8")
    checked = 0
    for name, row in pm4.FORMATS[major].items():
        opcode = re.search(rf"#define\s+PACKET3_{name}\s+(0x[0-9A-Fa-f]+)", text)
        assert opcode and int(opcode[1], 16) == row.opcode, name
        for field in (field for word in row.words for field in word):
            macro = FLAGS[major].get(name, {}).get(field.name, field.name.upper())
            bit = re.search(rf"#define\s+(?:PACKET3_{name}_(?:GCR_)?)?{macro}\s+\(1 << (\d+)\)", text)
            argument = r"\(?(?:\(\(unsigned\)\(x\)\) & (0x[0-9A-Fa-f]+)\)|x\)) << (\d+)\)"
            prefix = rf"PACKET3_{name}_(?:_|GCR_CNTL_|CP_COHER_CNTL_)?"
            shift = re.search(rf"{prefix}{macro}(?:_ENA)?\(x\)\s+\({argument}", text)
            if bit and field.low == field.high:
                assert int(bit[1]) == field.low, (name, field.name)
                checked += 1
            elif shift:
                assert int(shift[2]) == field.low, (name, field.name)
                assert not shift[1] or int(shift[1], 16) == field.mask or field.high == 31, (name, field.name)
                checked += 1
    assert checked >= 40
