"""Machine IR to machine code: select, allocate registers, emit. What a level lacks, `expansions` gives.

| level | registers | beside AVX2, FMA, F16C, BMI2 |
|---|---|---|
| avx2 | 16 of 8 lanes | |
| avx512 | 32 of 16 lanes, masks | AVX-512 F, BW, DQ, VL, BF16, FP16, VNNI |
| amx | as avx512 | AMX tiles |
"""

from __future__ import annotations

import os
from functools import cache

from tg_codegen.machine.allocate_registers import allocate_registers
from tg_codegen.machine.check_allocation import check_allocation
from tg_codegen.machine.nodes import Function, Instr, Statement
from tg_codegen.machine.verify import verify
from tg_codegen.x86_64.abi import FRAME_BYTES, Frame, Registers
from tg_codegen.x86_64.emit import emit
from tg_codegen.x86_64.expand import expansions
from tg_codegen.x86_64.select import Rule, Selector
from tg_codegen.x86_64.select_convert import convert_rules
from tg_codegen.x86_64.select_data import data_rules
from tg_codegen.x86_64.select_index import index_rules
from tg_codegen.x86_64.select_memory import memory_rules

__all__ = ["compile_function", "expansions", "lanes"]


def lanes(level: str) -> int:
    """How many lanes a function for this level has."""
    return 8 if level == "avx2" else 16


def compile_function(
    function: Function, level: str, buffers: int | None = None
) -> tuple[bytes, dict[str, int]]:
    """Position-independent code, its entry first, and what it needs.

    The argument block holds the addresses of `buffers` buffers, by default as many as the function uses, then scalars.
    TG_VERIFY=1 verifies the function and the allocation of registers.
    """
    assert function.lanes == lanes(level), (
        f"{function.name} has {function.lanes} lanes, {level} has {lanes(level)}"
    )
    if buffers is None:
        buffers = 1 + max([i.attr for i in _instructions(function.body) if i.op == "buffer"], default=-1)
    wide = level != "avx2"
    check = os.environ.get("TG_VERIFY") == "1"
    if check:
        verify(function, "lowering")
    code = Selector(function, level, _rules(wide), buffers).select()
    scratch_bytes = -(-function.scratch_bytes // 64) * 64
    registers = Registers(wide, scratch_bytes + FRAME_BYTES)
    allocation = allocate_registers(code, registers)
    if check:
        check_allocation(code, allocation, registers)
    used = [number for reg, number in allocation.numbers.items() if reg.file == "gpr"]
    frame = Frame.of(scratch_bytes, allocation.slot_bytes, used)
    binary = emit(allocation.code, allocation.numbers, frame, f"x86_64:{level}")
    resources = {"stack_bytes": frame.size_bytes, "spills": allocation.spills, "reloads": allocation.reloads}
    return binary, resources


@cache
def _rules(wide: bool) -> dict[tuple[str, str], Rule]:
    return data_rules(wide) | convert_rules(wide) | index_rules() | memory_rules()


def _instructions(body: list[Statement]) -> list[Instr]:
    found = []
    for statement in body:
        if statement.__class__ is Instr:
            found.append(statement)
        elif hasattr(statement, "body"):
            found += _instructions(statement.body)
    return found
