"""Random instructions of every x86-64 form, for the tests."""

from __future__ import annotations

import random

from tg_codegen.x86_64.encode import Instruction, Isa
from tg_codegen.x86_64.formats import EVEX, LEGACY, Operand
from tg_codegen.x86_64.opcodes import Form
from tg_codegen.x86_64.registers import REGISTERS, Memory, Register, gpr, k, rip, tmm, xmm, ymm, zmm

FILES = {"xmm": xmm, "ymm": ymm, "zmm": zmm, "k": k, "tmm": tmm} | {f"r{w}": file for w, file in gpr.items()}
HIGH_BYTES = tuple(REGISTERS[name] for name in ("ah", "bh", "ch", "dh"))


def random_register(choose: random.Random, operand: Operand, form: Form) -> Register:
    if operand.register not in FILES:
        return REGISTERS[operand.register]
    file = FILES[operand.register]
    if operand.register in ("xmm", "ymm", "zmm") and form.encoding.layout != EVEX:
        file = file[:16]
    if operand.register == "r8" and choose.random() < 0.15:
        return choose.choice(HIGH_BYTES)
    return choose.choice(file)


def random_memory(choose: random.Random, operand: Operand, form: Form, broadcast: bool) -> Memory:
    """Every shape of an address: with and without base, index, scale and displacement; rip-relative; segments."""
    size = operand.memory_bytes
    unit, count = size or 1, False
    if broadcast:
        count, size = size // operand.broadcast_bytes, operand.broadcast_bytes
        unit = size
    units = choose.choice([0, 0, 1, -1, 127, -128, 128, -129, choose.randint(-(1 << 20), 1 << 20)])
    disp = units * choose.choice([1, form.encoding.disp_unit or unit, unit])
    shape = choose.random()
    if operand.vector_index:
        file = FILES[operand.vector_index + "mm"]
        index = choose.choice(file if form.encoding.layout == EVEX else file[:16])
        base = choose.choice(gpr[64]) if shape < 0.9 else None
        return Memory(base, index, choose.choice([1, 2, 4, 8]), disp, size)
    segment = choose.choice(["fs", "gs"]) if choose.random() < 0.03 else ""
    if shape < 0.08 and not operand.force_sib:
        return Memory(rip, None, 1, disp, size, count, segment)
    base = choose.choice(gpr[64]) if shape < 0.9 else None
    index = choose.choice([r for r in gpr[64] if r.name != "rsp"]) if choose.random() < 0.5 else None
    scale = choose.choice([1, 2, 4, 8]) if index else 1
    if base is None and index is not None and scale == 1:
        scale = 4  # the text [rcx] names a base
    return Memory(base, index, scale, disp, size, count, segment)


def random_immediate(choose: random.Random, operand: Operand) -> int:
    _, low, high = operand.immediate
    return choose.choice(
        [low, high, 0, 1, choose.randint(low, high), choose.randint(max(low, -128), min(high, 127))]
    )


def random_instruction(choose: random.Random, form: Form, isa: Isa) -> Instruction | None:
    """A random instance of a form, built through the builder; None when what was drawn is not encodable."""
    operands = []
    kind = choose.choice(["register", "memory", "memory", "broadcast"])
    in_register = True
    for operand in form.operands:
        if operand.immediate:
            low, high = operand.immediate[1:]
            operands.append(random_immediate(choose, operand) if low != high else low)
        elif operand.memory_bytes is not None and (not operand.register or kind != "register"):
            in_register = False
            broadcast = kind == "broadcast" and bool(operand.broadcast_bytes)
            operands.append(random_memory(choose, operand, form, broadcast))
        else:
            operands.append(random_register(choose, operand, form))
    registers = [o for o in operands if isinstance(o, Register)]
    if "distinct" in form.traits and registers[0] in registers[1:]:
        return None
    if form.latency in ("gather", "tilemul"):
        vectors = [*registers, *(o.index for o in operands if isinstance(o, Memory))]
        if len({v.unit for v in vectors}) != len(vectors):
            return None
    rex = [r for r in registers if r in HIGH_BYTES]
    if rex and _uses_rex(operands, form):
        return None
    if form.mnemonic == "xchg" and registers[0] is registers[-1] is REGISTERS["rax"]:
        return None  # LLVM writes nop
    options: dict[str, object] = {}
    if form.masking and (form.masking == "k!" or choose.random() < 0.5):
        options["mask"] = choose.choice(k[1:])
        if form.masking == "kz" and not isinstance(operands[0], Memory):
            options["zeroing"] = choose.random() < 0.5
    if form.rounding and in_register and choose.random() < 0.6:
        modes = ["rn-sae", "rd-sae", "ru-sae", "rz-sae"] if form.rounding == "er" else ["sae"]
        options["rounding"] = choose.choice(modes)
    if form.encoding.layout != LEGACY:
        options["encoding"] = form.encoding.layout
    if "lock" in form.traits and isinstance(operands[0], Memory) and choose.random() < 0.4:
        options["prefix"] = "lock"
    if "rep" in form.traits and choose.random() < 0.5:
        options["prefix"] = "rep"
    return isa.build(form.mnemonic, *operands, **options)


def _uses_rex(operands: list[object], form: Form) -> bool:
    if form.width == 64 or form.encoding.w:
        return True
    registers = [
        r
        for o in operands
        for r in (o.registers() if isinstance(o, Memory) else [o])
        if isinstance(r, Register)
    ]
    return any(
        r.number > 7 or r.name in ("spl", "bpl", "sil", "dil") or r.width == 64
        for r in registers
        if r not in HIGH_BYTES
    )
