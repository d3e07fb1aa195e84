"""llvm-mc 22 judges every encoding of every target over random operands and modifiers, in both directions.

TG_AMDGPU_CASES sets the instances of each encoding (20 unless given), TG_SEED the seed.
"""

from __future__ import annotations

import os

import pytest
from amdgpu_cases import (
    LLVM_MC,
    Generator,
    llvm_assemble,
    llvm_disassemble,
    quirk_of_the_assembler,
    quirk_of_the_disassembler,
)

from tg_codegen.amdgpu.isa import isa

EACH = int(os.environ.get("TG_AMDGPU_CASES", "20"))
SEED = int(os.environ.get("TG_SEED", "20261122"))
CONFIGURATIONS = (
    ("gfx942", 64),
    ("gfx950", 64),
    ("gfx1100", 32),
    ("gfx1151", 32),
    ("gfx1201", 32),
    ("gfx1100", 64),
    ("gfx1201", 64),
)
BATCH = 20000

needs_llvm = pytest.mark.skipif(
    LLVM_MC is None, reason="llvm-mc-22 is not installed (Debian package llvm-22)"
)


def names(instructions):
    halves = instructions.vopd()
    plain = [m for m in instructions.mnemonics() if m not in halves]
    return plain + [f"{x} :: {y}" for x in halves for y in halves if instructions.rows(f"{x} :: {y}")]


@needs_llvm
@pytest.mark.parametrize(("target", "wave_size"), CONFIGURATIONS)
def test_encodings_random_operands_agree_with_llvm(target, wave_size):
    instructions = isa(target, wave_size)
    generator = Generator(instructions, SEED)
    cases, unseen = [], []
    for name in names(instructions):
        made = generator.cases(name, EACH)
        cases += made
        if not made:
            unseen.append(name)
    print(f"{target} wave{wave_size}: seed {SEED}, {len(cases)} cases")
    assert not unseen, f"no case could be made for {unseen}"
    assert not generator.unseen()
    refused = [t for t in generator.refused[: 2 * BATCH] if not quirk_of_the_assembler(t)]
    wrong = [
        (t, "refused here, taken by LLVM", j.hex())
        for t, j in zip(refused, llvm_assemble(instructions, refused), strict=True)
        if isinstance(j, bytes)
    ]
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        for (text, code), judged in zip(
            batch, llvm_assemble(instructions, [c[0] for c in batch]), strict=True
        ):
            if judged != code:
                wrong.append((text, code.hex(), judged if isinstance(judged, str) else judged.hex()))
        batch = [c for c in batch if not quirk_of_the_disassembler(*c, None)]
        for (text, code), line in zip(
            batch, llvm_disassemble(instructions, [c[1] for c in batch]), strict=True
        ):
            if quirk_of_the_disassembler(text, code, line):
                continue
            if line is None or bytes(instructions.assemble_line(line)) != code:
                wrong.append((text, code.hex(), "LLVM's text:", line))
            if bytes(instructions.decode(code)) != code:
                wrong.append((text, code.hex(), "our decoder:", str(instructions.decode(code))))
    assert not wrong, "\n".join(map(str, wrong[:20]))


@needs_llvm
def test_mnemonics_bare_llvm_knows_the_same():
    """A mnemonic that LLVM does not know on a target is not in our tables either."""
    for target, wave_size in CONFIGURATIONS[:5]:
        instructions = isa(target, wave_size)
        plain = [m for m in instructions.mnemonics() if m not in instructions.vopd()]
        judged = llvm_assemble(instructions, plain)
        unknown = [
            m
            for m, j in zip(plain, judged, strict=True)
            if isinstance(j, str) and ("invalid instruction" in j or "not supported" in j)
        ]
        assert not unknown, (target, unknown)


@needs_llvm
@pytest.mark.parametrize(("target", "wave_size"), CONFIGURATIONS[:5])
def test_aliases_old_names_agree_with_llvm(target, wave_size):
    instructions = isa(target, wave_size)
    generator = Generator(instructions, SEED)
    texts = []
    for alias, name in instructions.aliases().items():
        for text, _ in generator.cases(name, 2):
            mnemonic, _, rest = text.partition(" ")
            if mnemonic == name:
                texts.append(f"{alias} {rest}")
    wrong = [
        (t, j)
        for t, j in zip(texts, llvm_assemble(instructions, texts), strict=True)
        if j != bytes(instructions.assemble_line(t))
    ]
    assert not wrong, wrong[:10]
