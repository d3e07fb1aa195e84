"""Register allocation and its validator, on made-up instructions and few registers."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from toy_target import Machine, Programs, Toy, constant, inst

from tg_codegen.machine.allocate_registers import Allocation, Inserted, allocate_registers
from tg_codegen.machine.check_allocation import check_allocation
from tg_codegen.machine.code import Code, Inst, LoopEnd, LoopStart, VReg
from tg_ir.errors import VerifyError

SEED = int(os.environ.get("TG_SEED", "1"))
CASES = int(os.environ.get("TG_REGALLOC_CASES", "60"))


def regs(count: int, file: str = "g", units: int = 1) -> list[VReg]:
    return [VReg(k, file, units, units) for k in range(count)]


def allocated(items: list, target: Toy) -> Allocation:
    code = Code("test", items)
    after = allocate_registers(code, target)
    check_allocation(code, after, target)
    assert Machine(after.code, 0, after).run() == Machine(code, 0).run()
    return after


def opcodes(after: Allocation) -> list[str]:
    names = {LoopStart: "loop", LoopEnd: "end"}
    return [item.opcode if isinstance(item, Inst) else names[type(item)] for item in after.code.items]


def out(reg: VReg) -> Inst:
    return inst("out", (), (reg,), memory="store")


@pytest.mark.parametrize("general,tuples", [(5, 12), (6, 24), (7, 32)])
def test_allocation_of_random_programs_runs_as_before(general, tuples):
    for seed in range(SEED, SEED + CASES):
        target = Toy(general, tuples)
        program = Programs(seed, target)
        try:
            want = Machine(program.code, seed).run()
            after = allocate_registers(program.code, target)
            check_allocation(program.code, after, target)
            assert Machine(after.code, seed, after).run() == want
        except Exception:
            print(f"TG_SEED={seed} general={general} tuples={tuples}")
            raise


def test_validator_on_planted_errors_accepts_only_what_runs_as_before():
    rng = random.Random(SEED)
    print(f"TG_SEED={SEED}")
    verdicts: Counter = Counter()
    for seed in range(SEED, SEED + CASES):
        target = Toy(5, 12)
        program = Programs(seed, target, 25)
        want = Machine(program.code, seed).run()
        for _ in range(6):
            after = allocate_registers(program.code, target)
            kind = plant(after, target, rng)
            try:
                check_allocation(program.code, after, target)
                accepted = True
            except VerifyError:
                accepted = False
            try:
                right = Machine(after.code, seed, after).run() == want
            except (KeyError, AssertionError, ValueError):
                right = False
            assert right or not accepted, f"TG_SEED={seed}: {kind}"
            verdicts[kind, accepted] += 1
    for kind in ("number", "left out", "slot", "swapped"):
        assert verdicts[kind, False] > CASES // 2, verdicts


def plant(after: Allocation, target: Toy, rng: random.Random) -> str:
    inserted = [i for i, origin in enumerate(after.origin) if isinstance(origin, Inserted)]
    kind = rng.choice(("number", "left out", "slot", "swapped")) if inserted else "number"
    at = rng.choice(inserted or [0])
    if kind == "number":
        reg = rng.choice(sorted(after.numbers, key=lambda reg: reg.number))
        numbers = target.files[reg.file].numbers
        after.numbers[reg] = rng.choice([n for n in numbers if n != after.numbers[reg]])
    elif kind == "left out":
        del after.code.items[at], after.origin[at]
    elif kind == "slot":
        at = next((i for i in inserted if after.origin[i].kind in ("spill", "reload")), None)
        if at is None:
            return "none"
        what = after.origin[at]
        slot = what.slot + 8
        after.slot_bytes += 16
        after.origin[at] = what._replace(slot=slot)
        after.code.items[at] = getattr(target, what.kind)(what.reg, slot)
    elif at + 1 < len(after.origin):
        for things in (after.code.items, after.origin):
            things[at], things[at + 1] = things[at + 1], things[at]
    return kind


def test_copies_of_what_dies_vanish():
    a, b, c, d = regs(4)
    d.fixed = 1
    copies = [inst("copy", (b,), (a,)), inst("copy", (c,), (b,)), inst("copy", (d,), (c,))]
    after = allocated([constant(a, 1), *copies, out(d)], Toy())
    assert opcodes(after) == ["constant", "out"]
    assert after.numbers[a] == 1


def test_tied_operand_that_dies_needs_no_copy():
    a, b, c = regs(3)
    ties = [inst("plus", (b,), (a,), tied=((0, 0),)), inst("plus", (c,), (b,), tied=((0, 0),))]
    assert opcodes(allocated([constant(a, 1), *ties, out(c)], Toy())) == ["constant", "plus", "plus", "out"]


def test_tied_operand_that_lives_on_is_copied():
    a, b = regs(2)
    after = allocated([constant(a, 1), inst("plus", (b,), (a,), tied=((0, 0),)), out(b), out(a)], Toy())
    assert opcodes(after) == ["constant", "copy", "plus", "out", "out"]
    assert after.copies == 1


def test_loop_with_just_enough_registers_has_no_moves():
    registers = regs(5)
    *sums, x, y = registers
    items = [constant(reg, 1) for reg in sums]
    body = [inst("load", (x,), (), 1), inst("load", (y,), (), 2)]
    body += [inst("multiply", (reg,), (reg, x, y), tied=((0, 0),)) for reg in sums]
    items += [LoopStart("k"), *body, inst("repeat", (), (), "k"), LoopEnd("k"), *map(out, sums)]
    after = allocated(items, Toy())
    assert opcodes(after) == opcodes(Allocation(Code("", items), {}, []))


def test_value_that_lives_through_a_full_loop_is_reloaded_behind_it():
    *inner, outer = regs(6)
    items = [inst("make", (reg,), (), k) for k, reg in enumerate((outer, *inner))]
    body = [inst("plus", (reg,), (reg,), tied=((0, 0),)) for reg in inner]
    items += [LoopStart("k"), *body, inst("repeat", (), (), "k"), LoopEnd("k"), *map(out, (*inner, outer))]
    names = opcodes(allocated(items, Toy()))
    assert names.count("spill") == names.count("reload") == 1
    assert names.index("spill") < names.index("loop") < names.index("end") < names.index("reload")


def test_register_written_in_a_loop_is_spilled_once_behind_it():
    first, *others = regs(6)
    items = [inst("make", (first,), (), 1), LoopStart("k"), inst("plus", (first,), (first,), tied=((0, 0),))]
    items += [inst("repeat", (), (), "k"), LoopEnd("k")]
    items += [inst("make", (reg,), (), k) for k, reg in enumerate(others)] + [
        out(reg) for reg in (*others, first)
    ]
    names = opcodes(allocated(items, Toy()))
    assert "spill" not in names[names.index("loop") : names.index("end")]
    assert names.count("reload") == 1


def test_value_that_is_reloaded_to_be_copied_is_reloaded_into_the_copy():
    first, *others = regs(6)
    items = [inst("make", (reg,), (), reg.number) for reg in (first, *others)] + [out(reg) for reg in others]
    items += [inst("copy", (others[0],), (first,)), out(others[0])]
    names = opcodes(allocated(items, Toy()))
    assert names.count("reload") == 1
    assert "copy" not in names


def test_constant_that_finds_no_register_is_made_again():
    values = regs(9)
    items = []
    for k, reg in enumerate(values):
        items.append(constant(reg, k))
        reg.remake = items[-1]
    after = allocated([*items, *map(out, values)], Toy())
    assert (after.spills, after.reloads, after.slot_bytes) == (0, 0, 0)
    assert opcodes(after).count("constant") == 9


def test_slots_are_shared_by_lives_that_do_not_meet():
    items = []
    values = regs(14)
    for group in (values[:7], values[7:]):
        items += [inst("make", (reg,), (), reg.number) for reg in group] + [out(reg) for reg in group]
    after = allocated(items, Toy())
    assert after.reloads == 4
    assert after.slot_bytes == 2 * 8


def test_tuples_are_aligned_and_make_room_for_each_other():
    pairs, quads = regs(5, "t", 2), [VReg(10 + k, "t", 4, 4) for k in range(3)]
    items = [inst("make", (reg,), (), reg.number) for reg in (*pairs, *quads)]
    items += [inst("both", (VReg(20, "t"),), (quads[0], pairs[0])), *map(out, (*quads, *pairs))]
    after = allocated(items, Toy(5, 12))
    assert after.reloads > 0
    assert all(after.numbers[reg] % reg.align == 0 for reg in after.numbers)


def test_argument_in_a_register_that_is_needed_moves_elsewhere():
    argument, low, *others = regs(4)
    argument.fixed = low.fixed = 0
    items = [inst("call", (low,), (argument,), clobbers=(("g", 3),)), out(low), out(argument)]
    after = allocated(items, Toy())
    assert after.numbers[low] == 0


def test_more_operands_than_registers_is_refused():
    values = regs(6)
    items = [*(inst("make", (reg,), (), 1) for reg in values), inst("all", (), values, memory="store")]
    with pytest.raises(AssertionError, match="item 6 needs more g registers than there are"):
        allocate_registers(Code("test", items), Toy())


def test_register_that_is_read_before_it_is_written_is_refused():
    with pytest.raises(AssertionError, match="g0 is read before it is written, by out"):
        allocate_registers(Code("test", [out(regs(1)[0])]), Toy())
