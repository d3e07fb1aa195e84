"""The x86-64 assembler and disassembler with this package alone: round trips, relaxation, errors, fuzz."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from x86_64_cases import random_instruction

from tg_codegen.errors import AssemblerError, DecodeError
from tg_codegen.x86_64.assembler import Program, assemble, long_nops
from tg_codegen.x86_64.decode import decode
from tg_codegen.x86_64.disassembler import decode_all, disassemble
from tg_codegen.x86_64.encode import isa
from tg_codegen.x86_64.opcodes import all_forms, forms, mnemonics
from tg_codegen.x86_64.registers import REGISTERS, gpr, k, mem, xmm, ymm, zmm
from tg_codegen.x86_64.text import parse_instruction
from tg_ir.errors import ParseError

ISA = isa()
RAX, RCX, RDX, RBX, RSP, RBP = gpr[64][:6]
EAX, ECX = gpr[32][:2]


def test_every_form_encodes_decodes_and_parses_to_itself():
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose = random.Random(seed)
    count = 0
    for form in all_forms():
        for _ in range(2):
            built = random_instruction(choose, form, ISA)
            if built is None:
                continue
            count += 1
            decoded = decode(built.code)
            assert decoded.code == built.code, built
            text = str(decoded)
            again = parse_instruction(text, ISA)
            assert again.code == built.code, (text, built.code.hex(), again.code.hex())
            assert str(again) == text
    assert count > 5000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("add eax, 5", "83c005"),
        ("add eax, 0xffffffff", "83c0ff"),
        ("add eax, 1000", "05e8030000"),
        ("mov rax, 5", "48c7c005000000"),
        ("mov rax, 0x100000000", "48b80000000001000000"),
        ("mov spl, ah", None),
        ("mov sil, dil", "4088fe"),
        ("mov bl, ah", "88e3"),
        ("lea rax, [rbp]", "488d4500"),
        ("lea rax, [r13]", "498d4500"),
        ("lea rax, [rsp]", "488d0424"),
        ("lea rax, [r12 + 128]", "498d842480000000"),
        ("vaddps zmm0, zmm1, [rax + 64]", "62f1744858 4001".replace(" ", "")),
        ("vaddps zmm0, zmm1, [rax + 65]", "62f17448588041000000"),
        ("vaddps xmm0, xmm1, xmm2", "c5f058c2"),
        ("vaddps xmm0, xmm1, xmm8", "c5b858c1"),
        ("vsubps xmm0, xmm1, xmm8", "c4c1705cc0"),
        ("vmovaps xmm0, xmm8", "c57829c0"),
        ("vaddps xmm0, xmm1, xmm16", "62b1740858c0"),
        ("vpdpbusd ymm0, ymm1, ymm2", "62f2752850c2"),
        ("{vex} vpdpbusd ymm0, ymm1, ymm2", "c4e27550c2"),
        ("jz 5", "7405"),
        ("shl eax", "d1e0"),
        ("vcmpneqps k1, zmm0, zmm1", "62f17c48c2c904"),
        ("lock add qword ptr [rax], 1", "f048830001"),
    ],
)
def test_assemble_known_text_gives_known_bytes(text, code):
    if code is None:
        with pytest.raises(ParseError, match="REX"):
            assemble(text)
    else:
        assert assemble(text).code.hex() == code


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ISA.vaddps(zmm[0], zmm[1], RAX),
            "operand 2: got rax, want zmm or 512-bit memory or 32-bit broadcast",
        ),
        (lambda: ISA.vpshufd(zmm[0], zmm[1], 256), "operand 2: got 256, want -128..255"),
        (lambda: ISA.add(RAX, 1 << 40), "operand 1: got 1099511627776, want"),
        (lambda: ISA.vaddps(zmm[0], zmm[1]), "got 2 operands, want 3"),
        (lambda: ISA.vaddps(zmm[0], zmm[1], zmm[2], mask=k[0]), "mask: got k0, want k1..k7"),
        (lambda: ISA.vaddps(zmm[0], zmm[1], zmm[2], zeroing=True), "zeroing"),
        (lambda: ISA.vaddps(zmm[0], zmm[1], zmm[2], rounding="up"), "rounding: got 'up', want rn-sae"),
        (lambda: ISA.vaddps(ymm[0], ymm[1], ymm[2], rounding="rn-sae"), "rounding"),
        (lambda: ISA.vgatherdps(zmm[0], mem(RAX, zmm[1])), "a mask: got none"),
        (lambda: ISA.add(mem(RAX), 1), "memory: got no size, want 8 or 16 or 32 or 64 bits"),
        (lambda: mem(RAX, RSP), "index: got rsp"),
        (lambda: mem(RAX, RCX, 3), "scale: got 3, want 1, 2, 4 or 8"),
        (lambda: mem(EAX), "base: got eax"),
        (lambda: mem(RAX, disp=1 << 31), "displacement: got 2147483648"),
        (
            lambda: isa("x86_64:avx2").vaddps(zmm[0], zmm[1], zmm[2]),
            "needs AVX512F, which x86_64:avx2 has not",
        ),
        (lambda: ISA.build("vaddpz"), "no such instruction on x86-64; did you mean"),
        (lambda: ISA.add(EAX, ECX, prefix="lock"), "prefix: got lock"),
        (lambda: isa("x86_64:sse"), "target: got 'x86_64:sse', want x86_64"),
    ],
)
def test_builder_with_a_wrong_operand_names_it_and_what_it_wants(build, message):
    with pytest.raises(AssemblerError) as caught:
        build()
    assert message in str(caught.value)


def test_isa_with_fewer_features_takes_the_vex_form():
    assert isa("x86_64:avx512").vpdpbusd(xmm[0], xmm[1], xmm[2]).form.encoding.layout == "evex"
    narrow = isa("x86_64:avx2").vaddps(ymm[0], ymm[1], ymm[2])
    assert narrow.form.encoding.layout == "vex"


def test_instruction_reads_and_writes_cover_flags_address_and_merge_mask():
    merged = ISA.vaddps(zmm[0], zmm[1], mem(RAX, RCX, 4), mask=k[1])
    assert set(map(str, merged.reads())) == {"zmm0", "zmm1", "rax", "rcx", "k1"}
    assert list(map(str, merged.writes())) == ["zmm0"]
    zeroed = ISA.vaddps(zmm[0], zmm[1], zmm[2], mask=k[1], zeroing=True)
    assert "zmm0" not in map(str, zeroed.reads())
    assert set(map(str, ISA.adc(RAX, RBX).reads())) == {"rax", "rbx", "flags"}
    assert set(map(str, ISA.div(mem(RBX, size_bytes=8)).writes())) == {"rax", "rdx", "flags"}
    gathered = ISA.vgatherdps(zmm[0], mem(RAX, zmm[1]), mask=k[2])
    assert set(map(str, gathered.writes())) == {"zmm0", "k2"}
    compared = ISA.vcmpps(k[1], zmm[2], zmm[3], 1, mask=k[4])
    assert set(map(str, compared.reads())) == {"zmm2", "zmm3", "k4"}
    blended = ISA.vblendmps(zmm[0], zmm[1], zmm[2], mask=k[1])
    assert "zmm0" not in map(str, blended.reads())
    assert REGISTERS["ah"].unit == REGISTERS["rax"].unit


def test_instruction_loads_and_stores_follow_the_roles_of_memory():
    slot = mem(RAX, size_bytes=8)
    seen = {
        name: (i.loads, i.stores)
        for name, i in {
            "load": ISA.mov(RCX, slot),
            "store": ISA.mov(slot, RCX),
            "update": ISA.add(slot, RCX),
            "compare": ISA.cmp(slot, RCX),
            "address": ISA.lea(RCX, slot),
            "registers": ISA.mov(RCX, RAX),
        }.items()
    }
    assert seen == {
        "load": (True, False),
        "store": (False, True),
        "update": (True, True),
        "compare": (True, False),
        "address": (False, False),
        "registers": (False, False),
    }


def test_every_name_that_a_form_reads_or_writes_is_a_register_or_known():
    for form in all_forms():
        assert {*form.reads, *form.writes} <= {*REGISTERS, "flags", "mxcsr"}, form
    assert len(mnemonics()) > 900


def test_branches_are_short_until_the_label_is_out_of_reach():
    for gap, size in ((0, 2), (127, 2), (128, 5)):
        assert len(assemble(f"jmp end\n.zero {gap}\nend:").code) == gap + size
    for gap, size in ((126, 2), (127, 6)):
        assert len(assemble(f"start:\n.zero {gap}\njne start").code) == gap + size
    assert len(assemble("call end\nend:").code) == 5


def test_branch_growing_pushes_another_out_of_reach():
    code = assemble("jmp a\njmp b\n.zero 123\na:\n.zero 5\nb:").code
    assert len(code) == 5 + 5 + 128


def test_branch_beyond_the_only_reach_is_an_error():
    with pytest.raises(AssemblerError, match=r"want -128\.\.127"):
        assemble("jrcxz end\n.zero 200\nend:")


def test_label_undefined_or_twice_is_an_error():
    with pytest.raises(AssemblerError, match="label nowhere: used but not defined"):
        assemble("jmp nowhere")
    with pytest.raises(ParseError, match="line 2, column 1: label a: defined twice"):
        assemble("a:\na:")


def test_program_of_built_instructions_equals_the_same_text():
    program = Program()
    program.emit(ISA.mov(EAX, 0))
    program.align(16)
    program.label("loop")
    program.emit(ISA.vmulps(zmm[0], zmm[1], mem(label="table", disp=64)))
    program.emit(ISA.add(RAX, 1))
    program.emit(ISA.cmp(RAX, RCX))
    program.emit(ISA.jb("loop"))
    program.emit(ISA.ret())
    program.align(64)
    program.label("table")
    program.data(bytes(128))
    text = """
        mov eax, 0
        .p2align 4
        loop: vmulps zmm0, zmm1, zmmword ptr [rip + table + 64]
        add rax, 1          # a comment
        cmp rax, rcx
        jb loop
        ret
        .align 64
        table: .zero 128
    """
    built, assembled = program.finish(), assemble(text)
    assert built.code == assembled.code and built.labels == assembled.labels
    assert built.labels["loop"] == 16


def test_long_nops_fill_any_size_with_nops_only():
    for size in range(40):
        nops = long_nops(size)
        assert len(nops) == size
        found = [instruction for _, instruction in decode_all(nops)]
        assert all(i is not None and (i.form.mnemonic == "nop" or str(i) == "xchg ax, ax") for i in found)
        assert len(found) == -(-size // 9)


def test_decode_of_cut_instruction_or_unknown_bytes_names_the_offset():
    whole = ISA.vaddps(zmm[0], zmm[1], mem(RAX, disp=1000)).code
    for size in range(len(whole)):
        with pytest.raises(DecodeError, match="offset 0x3"):
            decode(b"\x90\x90\x90" + whole[:size], 3)
    with pytest.raises(DecodeError, match=r"offset 0x0: 06 .* is no instruction"):
        decode(b"\x06\x00\x00\x00")


def test_disassemble_of_random_bytes_assembles_to_the_same_bytes():
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose = random.Random(seed)
    for _ in range(20):
        code = choose.randbytes(200)
        assert assemble("\n".join(disassemble(code))).code == code


def test_decode_of_random_bytes_raises_nothing_but_decode_error():
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose = random.Random(seed)
    decoded = 0
    for _ in range(30_000):
        start = choose.choice([b"", b"", b"\x62", b"\xc4", b"\xc5", b"\x0f", b"\x66\x0f", b"\x48"])
        data = start + choose.randbytes(15)
        try:
            instruction = decode(data)
        except DecodeError:
            continue
        decoded += 1
        assert data.startswith(instruction.code)
        str(instruction)
    assert decoded > 3000


def test_forms_carry_what_the_passes_need():
    for form in all_forms():
        assert form.latency and form.mnemonic
        writes = [operand for operand in form.operands if operand.writes]
        assert (
            writes
            or form.writes
            or not form.operands
            or form.latency in ("branch", "system", "prefetch", "tile", "move")
        )
    add = forms("vfmadd231ps")[0]
    assert add.operands[0].reads and add.operands[0].writes and add.latency == "fma"


def test_command_lines_assemble_and_disassemble(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    from tg_codegen import assemble as assemble_cli
    from tg_codegen import disassemble as disassemble_cli

    text = tmp_path / "add.s"
    text.write_text("vaddps zmm0 {k1} {z}, zmm1, zmm2\nret\n")
    assert assemble_cli.main(["--target", "x86_64", str(text), "-o", str(tmp_path / "add.bin")]) == 0
    assert disassemble_cli.main(["--target", "x86_64:avx512", str(tmp_path / "add.bin")]) == 0
    assert capsysbinary.readouterr().out.decode().split("\n")[:2] == [
        "\tvaddps zmm0 {k1} {z}, zmm1, zmm2",
        "\tret",
    ]
    assert assemble_cli.main(["--target", "x86_64", "--emit", "co", str(text)]) == 1


def test_only_packed_comparisons_exchange_their_sources_to_be_shorter() -> None:
    """A scalar's upper elements come from its first source. Both encodings are llvm-mc's."""
    assert assemble("vcmpsd xmm12, xmm6, xmm10, 0").code == bytes.fromhex("c4414bc2e200")
    assert assemble("vcmpps xmm12, xmm6, xmm10, 100").code == bytes.fromhex("c528c2e664")
