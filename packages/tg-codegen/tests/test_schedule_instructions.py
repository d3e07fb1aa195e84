"""List scheduling, on made-up instructions."""

from __future__ import annotations

import os

from toy_target import Machine, Programs, Toy, inst

from tg_codegen.machine.allocate_registers import allocate_registers
from tg_codegen.machine.check_allocation import check_allocation
from tg_codegen.machine.code import Code, VReg
from tg_codegen.machine.liveness import analyse_liveness
from tg_codegen.machine.schedule_instructions import schedule_instructions

SEED = int(os.environ.get("TG_SEED", "1"))
CASES = int(os.environ.get("TG_REGALLOC_CASES", "60"))


def latency(item) -> int | None:
    return {"load": 10, "again": 4, "plain": 7, "stay": None}.get(item.opcode, 1)


def peak(code: Code, file: str) -> int:
    """The most registers that are taken at one time."""
    intervals = [i for i in analyse_liveness(code).intervals.values() if i.reg.file == file]
    at = range(-1, 2 * len(code.items) + 2)
    return max((sum(i.reg.units for i in intervals if i.start <= t < i.end) for t in at), default=0)


def test_schedule_of_random_programs_runs_as_before_and_takes_no_more_registers():
    target = Toy(7, 32)
    limits = {name: len(file.numbers) for name, file in target.files.items()}
    moved = 0
    for seed in range(SEED, SEED + CASES):
        program = Programs(seed, target)
        try:
            code = schedule_instructions(program.code, latency, limits)
            assert sorted(map(id, code.items)) == sorted(map(id, program.code.items))
            moved += [id(item) for item in code.items] != [id(item) for item in program.code.items]
            want = Machine(program.code, seed).run()
            assert Machine(code, seed).run() == want
            for file, limit in limits.items():
                assert peak(code, file) <= max(limit, peak(program.code, file))
            after = allocate_registers(code, target)
            check_allocation(code, after, target)
            assert Machine(after.code, seed, after).run() == want
        except Exception:
            print(f"TG_SEED={seed}")
            raise
    assert moved > CASES // 2


def load(reg: VReg, address: int, space: str = "") -> object:
    return inst("load", (reg,), (), address, memory=space + "load")


def store(reg: VReg, space: str = "") -> object:
    return inst("out", (), (reg,), memory=space + "store")


def chains(count: int) -> Code:
    items = []
    for k in range(count):
        a, b, c = (VReg(3 * k + n, "g") for n in range(3))
        items += [load(a, k), inst("plain", (b,), (a,)), inst("plain", (c,), (b,)), store(c)]
    return Code("chains", items)


def opcodes(code: Code) -> list[str]:
    return [item.opcode for item in code.items]


def test_loads_come_early_and_stores_keep_their_order():
    code = schedule_instructions(chains(3), latency, {"g": 8})
    assert opcodes(code) == ["load"] * 3 + ["plain"] * 6 + ["out"] * 3
    assert [item.uses[0].number for item in code.items[-3:]] == [2, 5, 8]


def test_loads_wait_where_registers_would_run_out():
    code = schedule_instructions(chains(6), latency, {"g": 2})
    assert peak(code, "g") == 2
    assert opcodes(code)[:3] == ["load", "load", "plain"]


def test_scratch_memory_keeps_its_order():
    a, b = VReg(0, "g"), VReg(1, "g")
    items = [
        inst("make", (a,), (), 1),
        store(a, "scratch "),
        load(b, 0, "scratch "),
        store(b),
        store(b, "scratch "),
    ]
    assert schedule_instructions(Code("", items), latency, {"g": 8}).items == items


def test_instruction_that_must_stay_divides_runs():
    a, b, c = (VReg(n, "g") for n in range(3))
    items = [inst("make", (a,), (), 1), inst("stay", (b,), (a,)), load(c, 1), store(b), store(c)]
    assert opcodes(schedule_instructions(Code("", items), latency, {"g": 8}))[:3] == ["make", "stay", "load"]


def test_tied_last_read_stays_last():
    a, b, c, d = (VReg(n, "g") for n in range(4))
    items = [load(a, 0), inst("short", (b,), (a,)), inst("plain", (c,), (a,), tied=((0, 0),))]
    items += [inst("plain", (d,), (c,)), store(d), store(b)]
    code = schedule_instructions(Code("", items), latency, {"g": 8})
    assert opcodes(code)[:3] == ["load", "short", "plain"]
