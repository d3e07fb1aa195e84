"""Random instances of every encoding, and llvm-mc as the witness that judges them."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections import Counter

from tg_codegen.amdgpu.isa import Instruction, Isa, Row
from tg_codegen.amdgpu.operands import LITERAL, Kind
from tg_codegen.amdgpu.slots import ImmediateSlot, RegisterSlot, SizedSlot
from tg_codegen.errors import AssemblerError

LLVM_MC = shutil.which("llvm-mc-22")
LITERALS = (0x1234, 0x56789ABC, 0xFFFFFF00, 0x80000123, 100, 0x3C01, 0x7FFF)


def group_of(number: int, text: str) -> str:
    """The sort of a register or constant."""
    return re.sub(r"[\d.:\[\]-]+", "", text) if number < 256 else "av"[number < 768]


def sort_of(number: int) -> str:
    limits = (
        (102, "s"),
        (128, "special"),
        (209, "integer"),
        (240, "aperture"),
        (249, "float"),
        (256, "flag"),
        (768, "v"),
        (1024, "a"),
    )
    return next(name for limit, name in limits if number < limit)


class Generator:
    """Random valid bits for the rows of an instruction set."""

    def __init__(self, isa: Isa, seed: int):
        self.isa, self.random = isa, random.Random(seed)
        self.seen: dict[RegisterSlot, Counter[str]] = {}
        self.refused: list[str] = []
        self.numbers: dict[Kind, list[list[int]]] = {}

    def number(self, kind: Kind) -> int:
        """A register or constant of a kind: each sort of it as likely as another."""
        if kind not in self.numbers:
            groups: dict[str, list[int]] = {}
            for number in range(1024):
                if number == LITERAL:
                    continue
                if (text := kind.format(number, None)) is not None:
                    groups.setdefault(group_of(number, text), []).append(number)
            self.numbers[kind] = list(groups.values())
        return self.random.choice(self.random.choice(self.numbers[kind]))

    def unseen(self) -> list[tuple[str, str]]:
        """Sorts of register or constant that an operand takes and that no case had, though there were many."""
        out = []
        for slot, seen in self.seen.items():
            if seen.total() >= 400 and not slot.sdwa:
                groups = {sort_of(g[0]) for g in self.numbers.get(slot.kind, ())}
                out += [(slot.spec, group) for group in groups - seen.keys()]
        return out

    def instance(self, row: Row) -> Instruction | None:
        bits, literal, scalars = row.free, None, len(row.scalars) + row.imm
        for slot in self.random.sample(row.operands, len(row.operands)):
            if isinstance(slot, SizedSlot):
                bits |= slot.field.place(256 | self.random.randrange(124) * 2 | self.random.randrange(2) << 9)
            elif isinstance(slot, RegisterSlot):
                crowded = scalars >= row.bus_limit and self.random.random() < 0.9
                if slot.literal_shift and self.random.random() < 0.15 and not crowded:
                    scalars += 1
                    literal = self.random.choice(LITERALS) if literal is None else literal
                    bits |= slot.field.place(LITERAL)
                else:
                    number = 124 if "null" in str(row.checks) else self.number(slot.kind)
                    while (
                        crowded
                        and slot.reads
                        and number < 256
                        and ("v" in slot.kind.banks or "a" in slot.kind.banks)
                    ):
                        number = self.number(slot.kind)
                    scalars += number < 128 or 235 <= number <= 239 or 250 < number < 256
                    if slot.flip:
                        number ^= slot.flip
                    if slot.sdwa:
                        number = number | 0x80 if number != 106 else 0
                    bits |= slot.field.place(number)
                for field in [*slot.mods.values(), *([slot.half] if slot.half else [])]:
                    bits |= field.mask * (self.random.random() < 0.3)
            elif isinstance(slot, ImmediateSlot):
                bits |= slot.field.place(self.random.getrandbits(self.random.choice((3, 8, 32))))
        if literal is not None:
            shift = row.size_bytes * 8
            if any(
                "16" in s.kind.type and not s.kind.type.startswith("v2")
                for s in row.literals
                if s.field.extract(bits) == LITERAL
            ):
                literal &= 0xFFFF
            bits |= literal << shift
        if row.modifiers is not None:
            slot = row.modifiers
            for _ in range(60):
                trial = bits & ~(slot.mask & ~row.mask)
                for field, modifier, _ in slot.fields:
                    chance = self.random.random()
                    value = (
                        modifier.default
                        if chance < 0.5
                        else self.random.getrandbits(32)
                        if chance < 0.9
                        else field.values
                    )
                    trial |= field.place(value) & ~row.mask
                for array in slot.arrays:
                    for mask, half in zip(array.masks, array.halves, strict=True):
                        keep = half is not None or self.random.random() < 0.6
                        trial |= (
                            (array.default & mask if keep else mask * self.random.randrange(2))
                            if half is None
                            else bits & mask
                        )
                trial = trial & ~row.mask | row.base
                if slot.text(trial) is not None:
                    bits = trial
                    break
            else:
                return None
        bits = bits & ~row.mask | row.base
        size = row.accepts(bits)
        return Instruction(row, bits, size) if size else None

    def cases(self, mnemonic: str, each: int) -> list[tuple[str, bytes]]:
        """(text, bytes) of random instances; what breaks a limit on scalar operands is left out."""
        out = []
        for row in self.isa.rows(mnemonic):
            made = 0
            for _ in range(each * 6 + 20):
                instruction = self.instance(row)
                if instruction is None:
                    continue
                text = str(instruction)
                try:
                    again = self.isa.assemble_line(text)
                except AssemblerError as error:
                    if re.search("scalar registers|register bank|want null|partially overlaps", str(error)):
                        self.refused.append(text)
                        continue
                    raise AssertionError(f"{self.isa.target}: {text}: {error}") from error
                if bytes(again) != bytes(instruction) and row is not again.row and row.mask != again.row.mask:
                    continue  # another encoding of the same text
                assert bytes(again) == bytes(instruction), (
                    self.isa.target,
                    text,
                    bytes(again).hex(),
                    bytes(instruction).hex(),
                )
                if quirk_of_the_assembler(text):
                    continue
                for slot in row.operands:
                    if isinstance(slot, RegisterSlot) and not isinstance(slot, SizedSlot):
                        number = slot.number(instruction.bits)
                        self.seen.setdefault(slot, Counter())[sort_of(number)] += 1
                out.append((text, bytes(instruction)))
                made += 1
                if made == each:
                    break
        return out


# Where LLVM cannot be the witness: texts that its assembler misreads, and that its disassembler prints wrongly. Each
# is an entry of ERRATA.md, "LLVM's own".
ASSEMBLER_QUIRKS = {
    "lit() inside |...| or neg()": r"[|(]lit\(",
    "a negated or absolute f64 literal": r"^(?=.*64).*[|(]0x",
    "hints of atomics without a text": r"atomic.*(th:0x[4-7]|_NT_RETURN scope:SCOPE_SYS)",
    "the seventh temporal hint": r"th:0x7",
    "sext() of a constant": r"sext\(-?\d",
    "a float constant in a 16-bit integer operand of DPP or SDWA": r"16_(e64_dpp|sdwa).* -?\d\.",
    "1/(2 pi) in v_pk_fmac_f16 and bf16 WMMA": r"(v_pk_fmac_f16|wmma_bf16).* 0\.15",
    "op_sel of v_fmac_f16 with a half named": r"v_fmac_f16.*op_sel",
}
DISASSEMBLER_QUIRKS = {
    "unused bits of waits and messages are dropped": r"s_(waitcnt|sendmsg|sendmsghalt|delay_alu) (0x)?[0-9a-f]+$",
    "swizzles are made canonical": r"ds_swizzle",
    "e64 and SDWA of what has no operands lose the suffix": r"v_\w+_(e64|sdwa)$",
    "DPP of mixed and fp8 instructions loses a bit of the control": r"v_(fma_mix\w+|cvt_\w*(fp8|bf8)_f32_e64)_dpp",
    "|v1, vcc|": r"v_cndmask_b(16|32)_(e64_)?dpp.*\|, vcc",
    "constants of v_fmac with DPP": r"v_fmac\w+_dpp",
    "lit() of dual instructions": r"v_dual.*lit",
    "the return bit of cascading atomics": r"atomic.*CASCADE",
}
FLOAT_CONSTANT_AS_LITERAL = re.compile(r"\b0x(3800|b800|3c00|bc00|4000|c000|4400|c400|3118)\b")
_assembler_quirk = re.compile("|".join(ASSEMBLER_QUIRKS.values()))
_disassembler_quirk = re.compile("|".join(f"(?:.*{p}|{p})" for p in DISASSEMBLER_QUIRKS.values()))


def quirk_of_the_assembler(text: str) -> bool:
    return bool(_assembler_quirk.search(text))


def quirk_of_the_disassembler(text: str, code: bytes, llvm_text: str | None) -> bool:
    """LLVM also decodes the literal of fmaak and fmamk as if it were an operand, and prints the 16-bit float
    constants of integer operands as literals."""
    constant = re.search("fmaak|fmamk|madak|madmk", text) and code[-4] >= 128 and not any(code[-3:])
    return bool(
        constant or _disassembler_quirk.match(text) or FLOAT_CONSTANT_AS_LITERAL.search(llvm_text or "")
    )


def attributes(isa: Isa) -> list[str]:
    flags = ["-triple=amdgcn-amd-amdhsa", f"-mcpu={isa.target}"]
    features = (["+real-true16"] if isa.generation == "gfx12" else []) + (
        ["+wavefrontsize64", "-wavefrontsize32"] if isa.wave_size == 64 and isa.generation != "gfx940" else []
    )
    return flags + ([f"-mattr={','.join(features)}"] if features else [])


def llvm_assemble(isa: Isa, texts: list[str]) -> list[bytes | str]:
    """LLVM's bytes for every line, or its error."""
    done = subprocess.run(
        [LLVM_MC, *attributes(isa), "-show-encoding"],
        input="\n".join(texts) + "\n",
        capture_output=True,
        text=True,
    )
    errors = {
        int(n): message for n, message in re.findall(r"^<stdin>:(\d+):\d+: error: (.*)$", done.stderr, re.M)
    }
    encodings = iter(re.findall(r"encoding: \[([^\]]*)\]", done.stdout))
    return [
        errors[i] if i in errors else bytes(int(b, 16) for b in next(encodings).split(","))
        for i in range(1, len(texts) + 1)
    ]


def llvm_disassemble(isa: Isa, codes: list[bytes]) -> list[str | None]:
    """LLVM's text for every instruction, None where it decodes none."""
    lines = "\n".join(" ".join(f"0x{b:02x}" for b in code) for code in codes)
    done = subprocess.run(
        [LLVM_MC, *attributes(isa), "-disassemble"], input=lines + "\n", capture_output=True, text=True
    )
    bad = {int(n) for n in re.findall(r"^<stdin>:(\d+):\d+: warning", done.stderr, re.M)}
    texts = [
        line.strip()
        for line in done.stdout.split("\n")
        if line.startswith("\t") and not line.startswith("\t.")
    ]
    if len(texts) != len(codes) - len(bad):
        middle = len(codes) // 2  # one of them gave more than one line: find it by halves
        return (
            llvm_disassemble(isa, codes[:middle]) + llvm_disassemble(isa, codes[middle:])
            if middle
            else [None]
        )
    found = iter(texts)
    return [None if i in bad else next(found) for i in range(1, len(codes) + 1)]
