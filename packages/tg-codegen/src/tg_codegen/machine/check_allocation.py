"""Prove that allocated code computes what the code before it did, whatever allocation had in mind.

Abstract interpretation: for every register and every unit of a spill slot, the set of virtual registers whose present
values are there. A write removes its register from everywhere else; where control flow meets, sets intersect; loops run
to a fixed point. Then every read must find its register where it looks. Taken on trust from allocation is only which
item became which, and what an inserted instruction does.
"""

from __future__ import annotations

from collections.abc import Iterable

from tg_codegen.machine.allocation import Allocation, Inserted, Target
from tg_codegen.machine.code import Code, Inst, Label, LoopStart, VReg
from tg_ir.errors import VerifyError

__all__ = ["check_allocation"]

_Place = tuple[str, int]  # (file, number); ("slot of 32", offset) for a unit of 32 bytes
_Values = frozenset[tuple[VReg, int]]
_State = dict[_Place, _Values]
_NOTHING: _Values = frozenset()


def check_allocation(before: Code, allocation: Allocation, target: Target) -> None:
    """Check an allocation of registers against the code that it was made for.

    Raises:
        VerifyError: it names the function, the instruction and what is wrong; allocation has an error.
    """
    assert len(allocation.origin) == len(allocation.code.items), "an item has no origin, or an origin no item"
    check = _Check(before, allocation, target)
    while check.run():
        pass
    if check.problem:
        raise VerifyError(
            f"function {before.name}: {check.problem}; the function comes from allocate_registers"
        )


class _Check:
    def __init__(self, before: Code, allocation: Allocation, target: Target):
        self.before, self.after, self.target = before.items, allocation.code.items, target
        self.origin, self.numbers = allocation.origin, allocation.numbers
        self.slot_bytes = allocation.slot_bytes
        self.entries: dict[str, _State] = {}  # what holds at a label, by every branch to it
        self.behind: set[str] = set()  # labels that were passed
        self.changed = False  # whether the entry of one of them got weaker
        self.problem = ""
        insts = [item for item in before.items if item.__class__ is Inst]
        self.writes: dict[VReg, list[Inst]] = {}
        for inst in insts:
            for reg in inst.defs:
                self.writes.setdefault(reg, []).append(inst)
        uses = {reg for inst in insts for reg in inst.uses}
        self.arguments = {reg for reg in uses if reg.fixed is not None and reg not in self.writes}
        names = {item.name for item in before.items if item.__class__ in (Label, LoopStart)}
        self.targets = {
            id(inst): [op for op in inst.operands if op.__class__ is str and op in names] for inst in insts
        }

    def fail(self, inst: object, problem: str) -> None:
        if not self.problem:
            shown = f"{inst.opcode} {inst.operands}" if inst.__class__ is Inst else str(inst)
            self.problem = f"{shown}: {problem}"

    def run(self) -> bool:
        """Go through the code once; whether it takes another time, with what was found out about loops."""
        self.changed, self.problem = False, ""
        self.behind.clear()
        state: _State = {
            (reg.file, reg.fixed + k): frozenset({(reg, k)})
            for reg in self.arguments
            for k in range(reg.units)
        }
        done = 0
        for reg, number in self.numbers.items():
            self.suits(reg, number)
        for origin, item in zip(self.origin, self.after, strict=True):
            inserted = origin.__class__ is Inserted
            at = origin.before if inserted else origin
            if done > at:
                self.fail(item, "an item is out of order")
            for index in range(done, at):
                self.missing(state, self.before[index])
            done = at + (not inserted)
            if inserted:
                self.inserted(state, item, origin)
                continue
            was = self.before[origin]
            if item.__class__ is not Inst:
                if item is not was:
                    self.fail(item, "it took the place of another item")
                if item.__class__ in (Label, LoopStart):
                    self.enter(item.name, state)
                    self.behind.add(item.name)
                    state = dict(self.entries[item.name])
            else:
                self.instruction(state, was, item)
                for name in self.targets[id(was)]:
                    self.enter(name, state)
        for index in range(done, len(self.before)):
            self.missing(state, self.before[index])
        return self.changed

    def enter(self, name: str, state: _State) -> None:
        known = self.entries.get(name)
        if known is None:
            self.entries[name] = dict(state)
            return
        for place in list(known):
            both = known[place] & state.get(place, _NOTHING)
            if both != known[place]:
                known[place] = both
                self.changed |= name in self.behind

    # ---- places

    def places(self, reg: VReg) -> list[_Place]:
        number = self.numbers.get(reg, -1)
        return [(reg.file, number + k) for k in range(reg.units)]

    def slot(self, reg: VReg, at: int, inst: Inst) -> list[_Place]:
        unit = self.target.files[reg.file].unit_bytes
        if at + unit * reg.units > self.slot_bytes:
            self.fail(inst, f"slot {at} is not within {self.slot_bytes} bytes")
        return [(f"slot of {unit}", at + k * unit) for k in range(reg.units)]

    def suits(self, reg: VReg, number: int) -> None:
        allowed = self.target.files[reg.file].numbers
        if number != reg.fixed and (
            number % reg.align or any(number + k not in allowed for k in range(reg.units))
        ):
            self.fail(reg, f"it is in {reg.file} {number}, which it must not have")

    def forget(self, state: _State, regs: Iterable[VReg]) -> None:
        """Old values are gone. What is written once has none: on the way into a loop it is nowhere yet."""
        gone = frozenset((reg, k) for reg in regs if len(self.writes[reg]) > 1 for k in range(reg.units))
        if gone:
            for place, values in state.items():
                if not gone.isdisjoint(values):
                    state[place] = values - gone

    # ---- items

    def inserted(self, state: _State, inst: Inst, what: Inserted) -> None:
        places = self.places(what.reg)
        if what.kind == "spill":
            into = self.slot(what.reg, what.slot, inst)
            unit = self.target.files[what.reg.file].unit_bytes
            begin, end = into[0][1], into[-1][1] + unit
            for file, at in list(state):
                if file.startswith("slot of ") and begin < at + int(file[8:]) and at < end:
                    del state[file, at]
            state.update({slot: state.get(place, _NOTHING) for slot, place in zip(into, places, strict=True)})
            return
        if what.kind == "remake":
            made = what.source
            again = made.remake
            if self.writes.get(made) != [again] or again.opcode != inst.opcode or again.uses:
                self.fail(inst, f"{made} cannot be made again")
            contents = [frozenset({(made, k)}) for k in range(made.units)]
        elif what.kind == "reload":
            contents = [state.get(slot, _NOTHING) for slot in self.slot(what.reg, what.slot, inst)]
        else:
            contents = [state.get(place, _NOTHING) for place in self.places(what.source)]
        state.update(zip(places, contents, strict=True))

    def missing(self, state: _State, was: object) -> None:
        """An item that allocation left out: a copy within one place, or what is made again wherever it is read."""
        good = was.__class__ is Inst and len(was.defs) == 1
        copy = good and len(was.uses) == 1 and not was.memory and self.target.is_copy(was)
        if not (copy or (good and was.defs[0].remake is was)):
            self.fail(was, "it is missing")
        if not good:
            return
        self.forget(state, was.defs)
        if copy:
            dst, src = was.defs[0], was.uses[0]
            for place, values in state.items():
                found = {(dst, k) for k in range(dst.units) if (src, k) in values}
                if found:
                    state[place] = values | found

    def instruction(self, state: _State, was: Inst, inst: Inst) -> None:
        if inst is not was:
            self.same(was, inst)
        reads = [self.places(reg) for reg in inst.uses]
        writes = [self.places(reg) for reg in inst.defs]
        for reg, places in zip(was.uses, reads, strict=True):
            if reg.fixed is not None and reg not in self.arguments and places[0][1] != reg.fixed:
                self.fail(inst, f"it reads {reg} in {places[0]}")
            for k, place in enumerate(places):
                values = state.get(place, _NOTHING)
                if (reg, k) not in values:
                    self.fail(inst, f"it reads {reg} in {place}, where {set(values)} is")
        for reg, places in zip(was.defs, writes, strict=True):
            if reg.fixed is not None and places[0][1] != reg.fixed:
                self.fail(inst, f"it writes {reg} to {places[0]}")
        for i, j in inst.tied:
            if reads[j] != writes[i]:
                self.fail(inst, f"{was.defs[i]} is tied to {was.uses[j]} and elsewhere")
        if inst.early:
            for j, places in enumerate(reads):
                apart = [written for i, written in enumerate(writes) if (i, j) not in inst.tied]
                if not set(places).isdisjoint(
                    [place for written in (*apart, inst.clobbers) for place in written]
                ):
                    self.fail(inst, f"it writes early where it reads {was.uses[j]}")
        if len(writes) > 1:
            places = [place for written in writes for place in written]
            if len(set(places)) != len(places):
                self.fail(inst, "two of its results share a register")
        self.forget(state, was.defs)
        for reg, places in zip(was.defs, writes, strict=True):
            for k, place in enumerate(places):
                state[place] = frozenset({(reg, k)})
        if inst.clobbers:
            state.update(dict.fromkeys(inst.clobbers, _NOTHING))

    def same(self, was: Inst, inst: Inst) -> None:
        """Whether two instructions differ in the names of registers only, and evenly."""
        regs, new = [*was.defs, *was.uses], [*inst.defs, *inst.uses]
        names = dict(zip(regs, new, strict=True))
        facts = [(i.opcode, i.tied, i.early, i.clobbers) for i in (was, inst)]
        shown = [getattr(operand, "registers", tuple)() for operand in inst.operands]
        want = [
            tuple(names[reg] for reg in getattr(operand, "registers", tuple)()) for operand in was.operands
        ]
        if facts[0] != facts[1] or shown != want or [names[reg] for reg in regs] != new:
            self.fail(inst, f"it was {was.opcode} {was.operands}")
