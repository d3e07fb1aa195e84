"""Text, labels, directives, errors, builders and command lines of the AMD GPU assembler."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tg_codegen.amdgpu.assembler import assemble
from tg_codegen.amdgpu.code_object import read_code_object
from tg_codegen.amdgpu.disassembler import disassemble
from tg_codegen.amdgpu.immediates import pack_waits, unpack_waits
from tg_codegen.amdgpu.isa import TARGETS, isa
from tg_codegen.amdgpu.operands import a, s, v
from tg_codegen.errors import AssemblerError, DecodeError
from tg_ir.errors import ParseError, TgError

KERNEL = """
        .amdgcn_target "amdgcn-amd-amdhsa--gfx942"
        .text
        .globl  add_one
        .p2align 8
add_one:                                ; comment
        s_load_dwordx2 s[0:1], s[4:5], 0x0  // another
        .set COUNT, 4 * (2 + 2)
        v_mov_b32 v1, COUNT
        s_waitcnt lgkmcnt(0)
.Lloop:
        s_cbranch_scc1 .Lend
        global_store_dword v0, v1, s[0:1] offset:COUNT
        s_branch .Lloop
.Lend:
        s_add_u32 s2, s2, .Lend - .Lloop
        s_endpgm
        .section .rodata
        .amdhsa_kernel add_one
          .amdhsa_next_free_vgpr 4
          .amdhsa_next_free_sgpr max(6, COUNT / 2)
          .amdhsa_accum_offset 4
        .end_amdhsa_kernel
        .amdgpu_metadata
---
amdhsa.version:
  - 1
  - 2
amdhsa.kernels:
  - .name: add_one
    .args:
      - .size: 8
        .offset: 0
        .value_kind: global_buffer
...
        .end_amdgpu_metadata
"""


def test_kernel_text_gives_code_labels_directives_and_metadata():
    program = assemble(KERNEL, isa("gfx942"))
    assert disassemble(program.code, isa("gfx942")) == [
        "s_load_dwordx2 s[0:1], s[4:5], 0x0",
        "v_mov_b32_e32 v1, 16",
        "s_waitcnt lgkmcnt(0)",
        "s_cbranch_scc1 3",
        "global_store_dword v0, v1, s[0:1] offset:16",
        "s_branch -4",
        "s_add_u32 s2, s2, lit(0x10)",
        "s_endpgm",
    ]
    assert program.labels == {"add_one": 0, ".Lloop": 16, ".Lend": 32}
    assert program.kernels[0].name == "add_one"
    assert program.kernels[0].directives == {"next_free_vgpr": 4, "next_free_sgpr": 8, "accum_offset": 4}
    assert program.metadata["amdhsa.kernels"][0][".args"] == [
        {".size": 8, ".offset": 0, ".value_kind": "global_buffer"}
    ]
    assert program.target == "amdgcn-amd-amdhsa--gfx942"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("\n  v_add_f32 v0, v1, v300", 2, 21, "src1"),
        ("v_addf32 v0, v1, v2", 1, 1, "did you mean v_add_f32"),
        ("v_add_f32 v0, v1", 1, 1, "2 operands, want 3"),
        ("v_add_f32 v0, v1, v2 bogus", 1, 22, "bogus"),
        ("v_add_f32 v0, s1, s2", 1, 1, "scalar"),
        ("s_branch nowhere", 1, 10, "nowhere"),
        (".bogus 1", 1, 1, "no such directive"),
        ("a:\na:", 2, 1, "already defined"),
        ("s_waitcnt vmcnt(64)", 1, 11, "vmcnt(64)"),
        (".set x, 1 +", 1, 1, "1 +"),
        ("global_load_dword v0, v[1:2], off", 1, 23, "v[1:2]"),
        (".amdgpu_metadata\n- a: 1", 1, 1, ".end_amdgpu_metadata"),
        (".amdgpu_metadata\nx 1\n.end_amdgpu_metadata", 2, 1, "key: value"),
    ],
)
def test_text_wrong_raises_with_line_and_column(text, line, column, words):
    with pytest.raises(ParseError) as caught:
        assemble(text, isa("gfx942"))
    assert words in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)


def test_builders_registers_and_modifiers_equal_text():
    g = isa("gfx942")
    assert str(g.v_add_f32(v[0], v[1], s[2])) == "v_add_f32_e64 v0, v1, s2"
    assert (
        str(g.v_add_f32(v[0], -v[1], abs(v[2]), clamp=True, mul=2))
        == "v_add_f32_e64 v0, -v1, |v2| clamp mul:2"
    )
    assert str(g.v_add_f32(v[0], 1.0, v[1])) == "v_add_f32_e32 v0, 1.0, v1"
    matrix = g.v_mfma_f32_32x32x8_bf16(a[0:15], v[0:1], v[2:3], a[0:15])
    assert bytes(matrix) == bytes(g.assemble_line("v_mfma_f32_32x32x8_bf16 a[0:15], v[0:1], v[2:3], a[0:15]"))
    assert (matrix.vdst.bank, matrix.vdst.index, matrix.vdst.dwords) == ("a", 0, 16)
    halves = isa("gfx1100").v_add_f16(v[5].l, v[1].h, v[2].l)
    assert str(halves) == "v_add_f16_e32 v5.l, v1.h, v2.l"
    with pytest.raises(AssemblerError, match="src1: got 'v256', want VGPR"):
        g.v_add_f32(v[0], v[1], v[256])
    with pytest.raises(AttributeError, match="did you mean"):
        g.v_ad_f32(v[0])


def test_rows_tell_what_passes_need():
    (load,) = [
        r
        for r in isa("gfx942").rows("global_load_dwordx4")
        if r.text_spec.startswith(">vdst:va128 vaddr:v64 =off")
    ]
    assert [(o.name, o.reads, o.writes) for o in load.operands] == [
        ("vdst", False, True),
        ("vaddr", True, False),
        ("off", True, False),
    ]
    assert load.operands[0].kind.dwords == 4
    assert "l" in load.flags and "v" in load.flags and load.reads == ("EXEC",) and load.latency == "VMEM"
    add = isa("gfx1100").rows("v_add_co_ci_u32_e32")[0]
    assert add.writes == ("VCC",) and "VCC" in add.reads


@pytest.mark.parametrize("generation", ["gfx940", "gfx11"])
def test_waits_every_value_survives_packing(generation):
    seen = {pack_waits(generation, **unpack_waits(generation, value)) for value in range(0x10000)}
    for value in seen:
        assert pack_waits(generation, **unpack_waits(generation, value)) == value
    with pytest.raises(ValueError, match="vmcnt: got 64"):
        pack_waits(generation, vmcnt=64)


@pytest.mark.parametrize("target", TARGETS)
def test_decode_random_bytes_gives_instruction_or_own_error(target):
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    source, instructions = random.Random(seed), isa(target)
    for _ in range(4000):
        data = source.randbytes(source.randrange(21))
        try:
            instruction = instructions.decode(data)
        except DecodeError:
            continue
        assert bytes(instruction) == data[: instruction.size_bytes]
        assert str(instruction)


def test_assemble_mutated_text_gives_code_or_own_error():
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(1500):
        text = list(KERNEL)
        for _ in range(source.randrange(1, 6)):
            place = source.randrange(len(text))
            text[place : place + source.randrange(3)] = source.choice(
                [" ", ",", "[", "]", ":", "-", "v", "9", "(", ")", ".", "\n", "|", "x"]
            )
        try:
            assemble("".join(text), isa("gfx942"))
        except TgError:
            continue


def test_command_line_round_trip_and_errors(tmp_path):
    text = tmp_path / "k.s"
    text.write_text("v_add_f32 v0, v1, v2\ns_endpgm\n")
    command = [sys.executable, "-m", "tg_codegen.assemble", "--target", "gfx1100"]
    code = subprocess.run([*command, str(text)], check=True, capture_output=True).stdout
    assert code.hex() == "010500060000b0bf"
    lines = subprocess.run(
        [sys.executable, "-m", "tg_codegen.disassemble", "--target", "gfx1100", "-"],
        input=code,
        check=True,
        capture_output=True,
    ).stdout
    assert lines.decode().split("\n")[:2] == ["\tv_add_f32_e32 v0, v1, v2", "\ts_endpgm"]
    text.write_text("v_add_f32 v0, v1\n")
    failed = subprocess.run([*command, str(text)], capture_output=True, text=True)
    assert failed.returncode == 1 and "line 1, column 1" in failed.stderr and "Traceback" not in failed.stderr


def test_command_line_code_object_is_read_back(tmp_path):
    text, file = tmp_path / "k.s", tmp_path / "k.co"
    text.write_text(KERNEL)
    module = [sys.executable, "-m"]
    options = ["--target", "gfx942"]
    subprocess.run(
        [*module, "tg_codegen.assemble", *options, "--emit", "co", str(text), "-o", str(file)], check=True
    )
    (kernel,) = read_code_object(file.read_bytes()).kernels
    assert (kernel.name, kernel.arguments[0].value_kind) == ("add_one", "global_buffer")
    assert kernel.descriptor.next_free_vgpr == 8  # in the granules of the descriptor
    shown = subprocess.run(
        [*module, "tg_codegen.disassemble", *options, str(file)], check=True, capture_output=True, text=True
    )
    assert shown.stdout.startswith("add_one:\n\ts_load_dwordx2 s[0:1], s[4:5], 0x0\n")
    file.write_bytes(file.read_bytes()[:300])
    failed = subprocess.run(
        [*module, "tg_codegen.disassemble", *options, str(file)], capture_output=True, text=True
    )
    assert failed.returncode == 1 and "Traceback" not in failed.stderr


def test_import_loads_no_table():
    code = "import sys, tg_codegen; print([m for m in sys.modules if m.startswith('tg_codegen.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_isa_unknown_target_or_wave_raises():
    with pytest.raises(AssemblerError, match="gfx90a"):
        isa("gfx90a")
    with pytest.raises(AssemblerError, match="wave size"):
        isa("gfx942", 32)
