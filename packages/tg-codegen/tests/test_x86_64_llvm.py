"""Every x86-64 form against llvm-mc: our bytes, our text, and code that clang compiled."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from x86_64_cases import random_instruction

from tg_codegen.x86_64.assembler import assemble
from tg_codegen.x86_64.decode import decode
from tg_codegen.x86_64.disassembler import decode_all, disassemble
from tg_codegen.x86_64.encode import Instruction, isa
from tg_codegen.x86_64.opcodes import Form, all_forms
from tg_codegen.x86_64.registers import Memory
from tg_codegen.x86_64.text import parse_instruction

LLVM_MC, CLANG, OBJCOPY = (shutil.which(f"{name}-22") for name in ("llvm-mc", "clang", "llvm-objcopy"))
needs_llvm_mc = pytest.mark.skipif(not LLVM_MC, reason="llvm-mc-22 (Debian package llvm-22) is missing")
needs_clang = pytest.mark.skipif(not (CLANG and OBJCOPY), reason="clang-22 or llvm-objcopy-22 is missing")

FEATURES = (
    "avx512f avx512bw avx512dq avx512vl avx512cd avx512fp16 avx512vnni avxvnni avx512bf16 avx512vbmi avx512vbmi2 "
    "avx512ifma avx512vpopcntdq avx512bitalg vpclmulqdq amx-tile amx-int8 amx-bf16 amx-fp16 amx-complex bmi bmi2 lzcnt "
    "popcnt f16c fma crc32 adx movbe cx16 clflushopt clwb cldemote rdrnd rdseed rdpid serialize"
)
COMMAND = [LLVM_MC, "-triple=x86_64", "-output-asm-variant=1", "-mattr=+" + FEATURES.replace(" ", ",+")]
CASES_PER_FORM = 10
KERNELS = Path(__file__).with_name("x86_64_kernels.c")


def run_llvm_mc(text: str, *options: str) -> str:
    done = subprocess.run([*COMMAND, *options], input=text, text=True, capture_output=True, check=False)
    assert not done.stderr, done.stderr[:3000]
    return done.stdout


@pytest.fixture(scope="module")
def cases() -> list[Instruction]:
    """Random instances of every form; forms that the assembler reaches only with luck are drawn until they show."""
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose, instructions = random.Random(seed), isa()
    made: list[Instruction] = []
    missing: list[Form] = []
    for form in all_forms():
        found, shown, tries = 0, "alias" in form.traits, 0
        while (found < CASES_PER_FORM or not shown) and tries < 40 * CASES_PER_FORM:
            tries += 1
            built = random_instruction(choose, form, instructions)
            if built is not None:
                made.append(built)
                found += 1
                shown = shown or built.form is form
        if not shown:
            missing.append(form)
    assert not missing
    return made


def is_relative(instruction: Instruction) -> bool:
    return bool(instruction.form.operands) and instruction.form.operands[0].text.startswith("rel")


@needs_llvm_mc
def test_every_form_with_random_operands_has_the_bytes_of_llvm_mc(cases):
    lines = [case for case in cases if not is_relative(case)]  # to LLVM a bare number is no branch target
    output = run_llvm_mc("\n".join(map(str, lines)), "-x86-asm-syntax=intel", "-show-encoding")
    theirs = [
        bytes.fromhex(e.replace("0x", "").replace(",", ""))
        for e in re.findall(r"# encoding: \[(.*?)\]", output)
    ]
    assert len(theirs) == len(lines) > 25_000
    wrong = [
        f"{c} : {c.code.hex()}, LLVM {t.hex()}" for c, t in zip(lines, theirs, strict=True) if c.code != t
    ]
    assert not wrong, f"{len(wrong)} of {len(lines)}: " + "\n".join(wrong[:20])


def expected_text(instruction: Instruction) -> str:
    """What llvm-mc prints where it differs from us: it drops names that are ambiguous to an assembler."""
    text = re.sub(r"\{e?vex\} ", "", str(instruction))
    mnemonic = instruction.form.mnemonic
    if "rep" in instruction.form.traits:  # LLVM writes out the implied operands
        size = {"b": "byte", "w": "word", "d": "dword", "q": "qword"}[mnemonic[-1]]
        register = {"b": "al", "w": "ax", "d": "eax", "q": "rax"}[mnemonic[-1]]
        source = f"{size} ptr [rsi]" if mnemonic[:4] == "movs" else register
        return f"{text} {size} ptr es:[rdi], {source}"
    if re.fullmatch(r"vpcmpu?[bwdq]", mnemonic) and text.startswith(mnemonic) and text.endswith(", 0"):
        return text.replace("vpcmp", "vpcmpeq", 1).removesuffix(", 0")
    if text == "xchg ax, ax":
        return "nop"
    return text


@needs_llvm_mc
def test_every_form_disassembles_to_the_text_of_llvm_mc(cases):
    # LLVM loses the lock of an instruction with a segment override
    locked = [
        c for c in cases if not (c.prefixes and any(isinstance(o, Memory) and o.segment for o in c.operands))
    ]
    hexadecimal = "\n".join(" ".join(f"0x{byte:02x}" for byte in case.code) for case in locked)
    output = run_llvm_mc(hexadecimal, "--disassemble")
    output = re.sub(r"\t(lock|rep)\n", r"\t\1 ", output)
    lines = [" ".join(line.partition("#")[0].split()) for line in output.split("\n")]
    theirs = [re.sub(r"\{e?vex\} ", "", line) for line in lines if line and line != ".text"]
    assert len(theirs) == len(locked) > 25_000
    wrong = Counter()
    for case, their in zip(locked, theirs, strict=True):
        ours = expected_text(decode(case.code))
        if ours != their:
            wrong[f"{ours}  LLVM: {their}  ({case.code.hex()})"] += 1
    assert not wrong, f"{len(wrong)} of {len(locked)}: " + "\n".join([*wrong][:20])


@needs_llvm_mc
def test_every_form_disassembled_assembles_to_its_bytes(cases):
    instructions = isa()
    for case in cases:
        text = str(decode(case.code))
        assert parse_instruction(text, instructions).code == case.code, text


@needs_llvm_mc
@needs_clang
def test_program_with_labels_and_data_has_the_bytes_of_llvm_mc(tmp_path):
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose = random.Random(seed)
    for _ in range(5):
        lines = [f"{choose.choice(['jmp', 'jne', 'call', 'jb'])} L{choose.randrange(40)}" for _ in range(200)]
        lines += [
            "lea rax, [rip + L3]",
            "vaddps zmm3, zmm17, zmmword ptr [rip + L5]",
            "mov dword ptr [rip + L9 + 4], 77",
        ]
        lines += [f".zero {choose.randrange(60)}" for _ in range(100)]
        choose.shuffle(lines)
        for i in range(40):
            lines.insert(choose.randrange(len(lines)), f"L{i}:")
        text = "\n".join(lines) + "\n.byte 1, 2, -1\n.long 0xffffffff\n.quad -2\n"
        (tmp_path / "a.s").write_text(text)
        options = [
            "-x86-asm-syntax=intel",
            "-filetype=obj",
            str(tmp_path / "a.s"),
            "-o",
            str(tmp_path / "a.o"),
        ]
        subprocess.run([*COMMAND, *options], check=True)
        assert assemble(text).code == text_section(tmp_path / "a.o")


def text_section(path) -> bytes:
    raw = path.with_suffix(".bin")
    subprocess.run([OBJCOPY, "-O", "binary", "-j", ".text", str(path), str(raw)], check=True)
    return raw.read_bytes()


@needs_clang
@pytest.mark.parametrize(
    "flags", ["-O3", "-O3 -mprefer-vector-width=512 -ffast-math -funroll-loops", "-Os", "-O0"]
)
def test_kernels_compiled_by_clang_decode_and_assemble_to_the_same_bytes(flags, tmp_path):
    options = [
        *flags.split(),
        "-march=sapphirerapids",
        "-c",
        str(KERNELS),
        "-o",
        str(tmp_path / "k.o"),
    ]
    subprocess.run([CLANG, *options], check=True)
    code = text_section(tmp_path / "k.o")
    decoded = list(decode_all(code))
    unknown = [code[offset : offset + 8].hex() for offset, instruction in decoded if instruction is None]
    assert not unknown and len(decoded) > 500
    lines = disassemble(code)
    # Left as data: branches whose distance a relocation fills in, and nops of a longer form.
    data = [
        line
        for line in lines
        if line.startswith(".byte") and not re.search(r"# (j\w+|call) \S+$|# (data16 )*nop ", line)
    ]
    assert not data
    assert assemble("\n".join(lines)).code == code
