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
    check = _Check(before, allocation, target)
    while check.run():
        pass
    check.final = True
    check.run()


class _Check:
    def __init__(self, before: Code, allocation: Allocation, target: Target):
        self.before, self.after, self.target = before.items, allocation.code.items, target
        self.name, self.origin, self.numbers = before.name, allocation.origin, allocation.numbers
        self.slot_bytes = allocation.slot_bytes
        self.entries: dict[str, _State] = {}  # what holds at a label, by every branch to it
        self.final = self.changed = False
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

    def require(self, fact: bool, inst: object, problem: str) -> None:
        if self.final and not fact:
            shown = f"{inst.opcode} {inst.operands}" if inst.__class__ is Inst else str(inst)
            raise VerifyError(
                f"function {self.name}: {shown}: {problem}; the function comes from allocate_registers"
            )

    def run(self) -> bool:
        """Go through the code once; whether a label's entry got weaker."""
        self.changed = False
        state: _State = {(reg.file, reg.fixed): frozenset({(reg, 0)}) for reg in self.arguments}
        done = 0
        self.require(len(self.origin) == len(self.after), "allocation", "origins and items differ in number")
        for origin, item in zip(self.origin, self.after, strict=True):
            inserted = origin.__class__ is Inserted
            at = origin.before if inserted else origin
            self.require(done <= at, item, "an item is out of order")
            for index in range(done, at):
                self.missing(state, self.before[index])
            done = at + (not inserted)
            if inserted:
                self.inserted(state, item, origin)
                continue
            was = self.before[origin]
            if item.__class__ is not Inst:
                self.require(item is was, item, "it took the place of another item")
                if item.__class__ in (Label, LoopStart):
                    self.enter(item.name, state)
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
            self.changed = True
            return
        for place in list(known):
            both = known[place] & state.get(place, _NOTHING)
            if both != known[place]:
                known[place] = both
                self.changed = True

    # ---- places

    def places(self, reg: VReg, inst: Inst) -> list[_Place]:
        self.require(reg in self.numbers, inst, f"{reg} has no register")
        number = self.numbers[reg]
        return [(reg.file, number + k) for k in range(reg.units)]

    def slot(self, reg: VReg, at: int, inst: Inst) -> list[_Place]:
        unit = self.target.files[reg.file].unit_bytes
        end = at + unit * reg.units
        self.require(end <= self.slot_bytes, inst, f"slot {at} is not within {self.slot_bytes} bytes")
        return [(f"slot of {unit}", at + k * unit) for k in range(reg.units)]

    def forget(self, state: _State, regs: Iterable[VReg]) -> None:
        gone = frozenset((reg, k) for reg in regs for k in range(reg.units))
        if gone:
            for place, values in state.items():
                if not gone.isdisjoint(values):
                    state[place] = values - gone

    # ---- items

    def inserted(self, state: _State, inst: Inst, what: Inserted) -> None:
        places = self.places(what.reg, inst)
        self.suits(what.reg, inst)
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
            self.require(
                self.writes.get(made) == [again] and again.opcode == inst.opcode and not again.uses,
                inst,
                f"{made} cannot be made again",
            )
            contents = [frozenset({(made, k)}) for k in range(made.units)]
        elif what.kind == "reload":
            contents = [state.get(slot, _NOTHING) for slot in self.slot(what.reg, what.slot, inst)]
        else:
            contents = [state.get(place, _NOTHING) for place in self.places(what.source, inst)]
        state.update(zip(places, contents, strict=True))

    def missing(self, state: _State, was: object) -> None:
        """An item that allocation left out: a copy within one place, or what is made again wherever it is read."""
        good = was.__class__ is Inst and len(was.defs) == 1
        copy = good and len(was.uses) == 1 and not was.memory and self.target.is_copy(was)
        self.require(copy or (good and was.defs[0].remake is was), was, "it is missing")
        if not good:
            return
        self.forget(state, was.defs)
        if copy:
            dst, src = was.defs[0], was.uses[0]
            for place, values in state.items():
                found = {(dst, k) for k in range(dst.units) if (src, k) in values}
                if found:
                    state[place] = values | found

    def suits(self, reg: VReg, inst: Inst) -> None:
        allowed, number = self.target.files[reg.file].numbers, self.numbers[reg]
        inside = all(number + k in allowed for k in range(reg.units))
        self.require(inside or number == reg.fixed, inst, f"{reg} is in {number}, which is not to be given")
        self.require(number % reg.align == 0 or number == reg.fixed, inst, f"{reg} is in {number}, unaligned")

    def instruction(self, state: _State, was: Inst, inst: Inst) -> None:
        same = (was.opcode, was.tied, was.early, was.clobbers) == (
            inst.opcode, inst.tied, inst.early, inst.clobbers,
        )  # fmt: skip
        regs, new = (*was.defs, *was.uses), (*inst.defs, *inst.uses)
        names = dict(zip(regs, new, strict=True))
        self.require(same and [names[reg] for reg in regs] == list(new), inst, "it is not what it was")
        self.require(
            [getattr(op, "registers", tuple)() for op in inst.operands]
            == [
                tuple(names[reg] for reg in getattr(op, "registers", tuple)())
                for op in was.operands
            ],
            inst,
            "its operands are not what they were",
        )  # fmt: skip
        reads = [self.places(reg, inst) for reg in inst.uses]
        writes = [self.places(reg, inst) for reg in inst.defs]
        for reg, name, places in zip(was.uses, inst.uses, reads, strict=True):
            self.suits(name, inst)
            if reg.fixed is not None and reg not in self.arguments:
                self.require(self.numbers[name] == reg.fixed, inst, f"{reg} is in {self.numbers[name]}")
            for k, place in enumerate(places):
                values = state.get(place, _NOTHING)
                self.require((reg, k) in values, inst, f"it reads {reg} in {place}, where {set(values)} is")
        for i, (reg, name) in enumerate(zip(was.defs, inst.defs, strict=True)):
            self.suits(name, inst)
            if reg.fixed is not None:
                self.require(self.numbers[name] == reg.fixed, inst, f"{reg} is in {self.numbers[name]}")
            if inst.early:
                for j, places in enumerate(reads):
                    apart = (i, j) in inst.tied or set(places).isdisjoint(writes[i])
                    self.require(apart, inst, f"{reg} is written early and shares a register with a use")
        for i, j in inst.tied:
            self.require(reads[j] == writes[i], inst, f"{was.defs[i]} is tied to {was.uses[j]} and elsewhere")
        if inst.early:
            for places in reads:
                self.require(set(inst.clobbers).isdisjoint(places), inst, "it destroys what it reads")
        flat = [place for places in writes for place in places]
        self.require(len(set(flat)) == len(flat), inst, "two of its results share a register")
        self.forget(state, was.defs)
        for reg, places in zip(was.defs, writes, strict=True):
            state.update({place: frozenset({(reg, k)}) for k, place in enumerate(places)})
        state.update(dict.fromkeys(inst.clobbers, _NOTHING))
