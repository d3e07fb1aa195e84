"""Every check of the interpreter finds the fault that is planted for it, and names the place."""

from __future__ import annotations

import numpy as np
import pytest
from isa_machine import FlatMemory, assemble_kernel, launch

from tg_emulator_amd.errors import ProgramError

# Text for gfx942 | gfx1100, with the kernel's argument pointer in s[0:1] and its lane in v0.
_START = """
s_load_dwordx2 s[4:5], s[0:1], 0x0 | s_load_b64 s[4:5], s[0:1], 0x0
v_lshlrev_b32 v1, 2, v0
s_waitcnt lgkmcnt(0)
"""
_STORE = "global_store_dword v1, v2, s[4:5] | global_store_b32 v1, v2, s[4:5]\ns_endpgm\n"

# Name of the rule -> (program, what the message says beside, options of the launch).
FAULTS = {
    "missing wait": (
        "global_load_dword v2, v1, s[4:5] | global_load_b32 v2, v1, s[4:5]\n"
        "v_add_u32 v2, v2, v0 | v_add_nc_u32 v2, v2, v0\n",
        "v2", {},
    ),
    "uninitialised register": ("v_add_f32 v2, v7, v7\n", "v7", {}),
    "uninitialised LDS": (
        "ds_read_b32 v2, v1 | ds_load_b32 v2, v1\ns_waitcnt lgkmcnt(0)\n", "never written", {"lds_bytes": 1024},
    ),
    "out of bounds": (
        "v_mov_b32 v2, 0x7ffff000\nglobal_load_dword v2, v2, s[4:5] | global_load_b32 v2, v2, s[4:5]\n"
        "s_waitcnt vmcnt(0)\n",
        "not mapped", {},
    ),
    "misaligned": (
        "v_or_b32 v1, 2, v1\nv_mov_b32 v2, 1\n"
        "global_atomic_add v1, v2, s[4:5] | global_atomic_add_u32 v1, v2, s[4:5]\n",
        "aligned", {},
    ),
    "LDS race": (
        "ds_write_b32 v1, v0 | ds_store_b32 v1, v0\ns_waitcnt lgkmcnt(0)\nv_xor_b32 v3, 0x100, v1\n"
        "ds_read_b32 v2, v3 | ds_load_b32 v2, v3\ns_waitcnt lgkmcnt(0)\n",
        "another wave", {"lds_bytes": 1024},
    ),
    "barrier misuse": (
        "v_readfirstlane_b32 s6, v0\ns_cmp_eq_u32 s6, 0\ns_cbranch_scc1 1\ns_barrier\nv_mov_b32 v2, 1\n", "ends", {},
    ),
    "stuck wave": ("s_branch -1\n", "without an end", {"watchdog_instructions": 1000}),
    "race between workgroups": ("v_mov_b32 v2, s8\n", "workgroup", {"groups": 2}),
}  # fmt: skip


def program(text: str, target: str) -> str:
    side = 0 if target.startswith("gfx9") else -1
    return "\n".join(line.split("|")[side].strip() for line in text.split("\n"))


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("rule", FAULTS)
def test_fault_planted_is_reported(rule: str, target: str) -> None:
    body, word, options = FAULTS[rule]
    options = dict(options)
    groups = options.pop("groups", 1)
    lds = options.pop("lds_bytes", 0)
    code = assemble_kernel(program(_START + body + _STORE, target), target)
    with pytest.raises(ProgramError) as raised:
        launch(code, "k", target, (256 * groups,), (256,), np.zeros(1024, np.int32), lds_bytes=lds, **options)
    error = raised.value
    assert error.rule == rule and word in str(error), str(error)
    assert error.wave is not None and error.source


_MATRIX = "v_mov_b32 v4, v0\nv_mov_b32 v5, v0\ns_nop {}\nv_mfma_f32_32x32x8_f16 v[16:31], v[4:5], v[4:5], 0\n"
# (target, program, the rule's words): one wait state too few.
HAZARDS = [
    ("gfx942", "v_readfirstlane_b32 s6, v0\ns_nop 3\nglobal_load_dword v2, v1, s[4:5] offset:0\n"
     "v_readfirstlane_b32 s4, v0\ns_nop 3\nglobal_load_dword v2, v1, s[4:5]\n", "vector memory reads"),
    ("gfx942", "v_readfirstlane_b32 s6, v0\ns_nop 0\nv_add_u32 v2, s6, v0\n", "reads as a constant"),
    ("gfx942", "v_mov_b32 v2, v0\ns_nop 0\nv_mov_b32_dpp v3, v2 row_shr:1 row_mask:0xf bank_mask:0xf\n",
     "DPP reads"),
    ("gfx942", "v_cmp_eq_u32 vcc, v0, v1\ns_nop 2\nv_div_fmas_f32 v2, v0, v0, v0\n", "v_div_fmas"),
    ("gfx942", "v_cvt_f32_u32 v2, v1\nv_rcp_f32 v2, v2\nv_add_f32 v2, v2, v2\n", "transcendental"),
    ("gfx942", _MATRIX.format(0), "that a matrix"),
    ("gfx942", _MATRIX.format(1) + "s_nop 9\nv_add_f32 v2, v16, v16\n", "matrix result is used: 10 wait states"),
    ("gfx950", _MATRIX.format(1) + "s_nop 10\nv_add_f32 v2, v16, v16\n", "matrix result is used: 11 wait states"),
    ("gfx1100", "".join(f"v_mov_b32 v{n}, v0\n" for n in range(16, 40)) +
     "v_wmma_f32_16x16x16_f16 v[16:23], v[24:31], v[32:39], v[16:23]\n"
     "v_wmma_f32_16x16x16_f16 v[32:39], v[16:23], v[24:31], v[32:39]\n", "A or B of the next"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "body", "words"), HAZARDS, ids=[w for _, _, w in HAZARDS])
def test_wait_states_missing_are_reported(target: str, body: str, words: str) -> None:
    code = assemble_kernel(program(_START + body + _STORE, target), target)
    with pytest.raises(ProgramError, match=words) as raised:
        launch(code, "k", target, (256,), (256,), np.zeros(1024, np.int32))
    assert raised.value.rule == "missing wait states" and raised.value.source


def test_store_to_lds_under_way_at_a_barrier_is_a_race() -> None:
    """The barrier keeps the waves in step, but nothing waits for the store: another wave may read too early."""
    body = "ds_write_b32 v1, v0\n{}s_barrier\nv_xor_b32 v3, 0x100, v1\nds_read_b32 v2, v3\ns_waitcnt lgkmcnt(0)\n"
    right, wrong = (assemble_kernel(program(_START + body.format(w) + _STORE, "gfx942"), "gfx942")
                    for w in ("s_waitcnt lgkmcnt(0)\n", ""))  # fmt: skip
    (got,), _ = launch(right, "k", "gfx942", (256,), (256,), np.zeros(256, np.int32), lds_bytes=1024)
    assert (got == np.arange(256) ^ 64).all()
    with pytest.raises(ProgramError) as raised:
        launch(wrong, "k", "gfx942", (256,), (256,), np.zeros(256, np.int32), lds_bytes=1024)
    assert raised.value.rule == "LDS race"


def test_register_beyond_the_allocated_is_reported() -> None:
    code = assemble_kernel("v_mov_b32 v200, v0\ns_endpgm\n", "gfx942")
    with pytest.raises(ProgramError, match="v200, of 128"):
        launch(code, "k", "gfx942", (64,), (64,), np.zeros(64, np.int32))


def test_write_without_permission_is_reported_with_its_lane() -> None:
    text = program(_START + "v_mov_b32 v2, 1\n" + _STORE, "gfx942")
    memory = FlatMemory()
    readonly = memory.allocate(np.zeros(1024, np.int32), 1)
    with pytest.raises(ProgramError) as raised:
        launch(assemble_kernel(text, "gfx942"), "k", "gfx942", (64,), (64,), readonly, memory=memory)
    error = raised.value
    assert error.rule == "permission" and error.lane == 0 and error.address == readonly
    assert "global_store_dword" in error.instruction and error.pc


def test_clock_goes_on() -> None:
    text = "s_memtime s[6:7]\ns_waitcnt lgkmcnt(0)\ns_memtime s[10:11]\ns_waitcnt lgkmcnt(0)\n"
    text += "s_sub_u32 s6, s10, s6\nv_mov_b32 v2, s6\n"
    code = assemble_kernel(program(_START + text + _STORE, "gfx942"), "gfx942")
    (got,), _ = launch(code, "k", "gfx942", (64,), (64,), np.zeros(64, np.int32))
    assert (got == 2).all()


def test_append_counts_active_lanes_of_each_wave() -> None:
    text = _START + (
        "v_mov_b32 v3, 0\nv_mov_b32 v4, 0\nv_cmp_eq_u32 vcc, 0, v0\ns_and_saveexec_b64 s[6:7], vcc\n"
        "ds_write_b32 v3, v4\n"
        "s_mov_b64 exec, s[6:7]\ns_waitcnt lgkmcnt(0)\ns_barrier\ns_mov_b32 m0, 0\nds_append v2\ns_waitcnt lgkmcnt(0)\n"
    )
    code = assemble_kernel(program(text + _STORE, "gfx942"), "gfx942")
    (got,), _ = launch(code, "k", "gfx942", (256,), (256,), np.zeros(256, np.int32), lds_bytes=64)
    assert (
        sorted(got.reshape(4, 64)[:, 0]) == [0, 64, 128, 192]
        and (got.reshape(4, 64) == got[::64, None]).all()
    )


def test_program_without_faults_passes() -> None:
    for target in ("gfx942", "gfx1100"):
        code = assemble_kernel(program(_START + "v_mov_b32 v2, v0\n" + _STORE, target), target)
        (result,), _ = launch(code, "k", target, (256,), (256,), np.zeros(256, np.int32))
        assert (result == np.arange(256)).all()
