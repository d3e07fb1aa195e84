"""A target of made-up instructions for tests of the shared back end: random programs and an interpreter."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tg_codegen.machine.allocate_registers import Allocation, RegisterFile
from tg_codegen.machine.code import Code, Inst, Label, LoopEnd, LoopStart, VReg


@dataclass(frozen=True)
class Regs:
    """An operand that mentions one register or, as an address does, two."""

    regs: tuple[VReg, ...]

    def registers(self):
        return self.regs

    def renamed(self, names):
        return Regs(tuple(names.get(reg, reg) for reg in self.regs))


def inst(opcode, defs=(), uses=(), *rest, **more) -> Inst:
    """Definitions, then uses by pairs, then plain operands."""
    pairs = [Regs(tuple(uses[i : i + 2])) for i in range(0, len(uses), 2)]
    return Inst(opcode, (*(Regs((reg,)) for reg in defs), *pairs, *rest), tuple(defs), tuple(uses), **more)


class Toy:
    """File g has gaps and no tuples, file t has tuples."""

    def __init__(self, general: int = 5, tuples: int = 8):
        self.files = {
            "g": RegisterFile((3, 0, 5, 1, 7, 9, 2)[:general], 8),
            "t": RegisterFile(tuple(range(2, 2 + tuples)), 4),
        }

    def copy(self, dst, src):
        return inst("copy", (dst,), (src,))

    def is_copy(self, item):
        return item.opcode == "copy"

    def spill(self, reg, slot):
        return inst("spill", (), (reg,), slot, memory="scratch store")

    def reload(self, reg, slot):
        return inst("reload", (reg,), (), slot, memory="scratch load")


def constant(reg: VReg, value: int) -> Inst:
    return inst("constant", (reg,), (), value)


class Programs:
    """Random code: nested loops and conditions, registers written again, ties, fixed registers, tuples, remakes."""

    def __init__(self, seed: int, target: Toy, size: int = 60):
        self.rng = random.Random(seed)
        self.items: list = []
        self.count = 0
        self.names = 0
        self.size = size
        self.target = target
        self.argument = self.reg("g", fixed=0)
        self.block([self.argument], 0, size)
        self.code = Code(f"random{seed}", self.items)

    def reg(self, file=None, fixed=None) -> VReg:
        rng = self.rng
        file = file or rng.choice("gggt")
        large = len(self.target.files["t"].numbers) >= 24
        units = rng.choice((1, 2, 4) if large else (1, 1, 2)) if file == "t" else 1
        self.count += 1
        return VReg(self.count, file, units, units if rng.random() < 0.7 else 1, fixed)

    def block(self, scope: list[VReg], depth: int, size: int) -> None:
        """Instructions over what is in scope; what they make is in scope to the block's end."""
        rng, scope = self.rng, list(scope)
        for _ in range(size):
            if len(self.items) > self.size * 2:
                return
            kind = rng.random()
            if kind < 0.08 and depth < 3:
                self.names += 1
                name = f"l{self.names}"
                if zero := rng.random() < 0.5:
                    self.items.append(inst("branch", (), (), name + "out"))
                self.items.append(LoopStart(name))
                self.block(scope, depth + 1, rng.randrange(1, 14))
                read = [rng.choice(scope)] if rng.random() < 0.5 else []
                self.items.append(inst("repeat", (), read, name))
                self.items.append(LoopEnd(name))
                if zero:
                    self.items.append(Label(name + "out"))
            elif kind < 0.14 and depth < 3:
                self.names += 1
                name = f"f{self.names}"
                self.items.append(inst("branch", (), (), name))
                self.block(scope, depth + 1, rng.randrange(1, 6))
                self.items.append(Label(name))
            else:
                self.instruction(scope, kind)
        for reg in rng.sample(scope, min(len(scope), 4)):
            self.items.append(inst("out", (), (reg,), memory="store"))

    def instruction(self, scope: list[VReg], kind: float) -> None:
        rng, items = self.rng, self.items
        uses = [rng.choice(scope) for _ in range(rng.randrange(1, 3))]
        recent = [reg for reg in scope[-6:] if reg.file == "g"]
        new = self.reg()
        if kind < 0.24:
            items.append(constant(new, rng.randrange(1000)))
            if rng.random() < 0.7:
                new.remake = items[-1]
        elif kind < 0.34:  # written again
            written = [reg for reg in scope if reg.remake is None and reg is not self.argument]
            if not written:
                return
            new = rng.choice(written)
            if rng.random() < 0.5:
                items.append(inst("again", (new,), [new, *uses], tied=((0, 0),)))
            else:
                items.append(inst("other", (new,), uses))
            return
        elif kind < 0.46:
            source = rng.choice(scope)
            new = VReg(new.number, source.file, source.units, source.align)
            items.append(inst("copy", (new,), (source,)))
        elif kind < 0.62:  # two operands, and now and then into a register that is there already
            source = rng.choice(scope)
            there = [
                r for r in scope if (r.file, r.units) == (source.file, source.units) and r.remake is None
            ]
            there = [reg for reg in there if reg not in (*uses, source, self.argument)]
            new = VReg(new.number, source.file, source.units, source.align)
            if there and rng.random() < 0.3:
                new = rng.choice(there)
            items.append(inst("tied", (new,), [*uses, source], tied=((0, len(uses)),)))
        elif kind < 0.70 and recent:  # a shift by a fixed register
            count = self.reg("g", fixed=self.target.files["g"].numbers[0])
            items.append(inst("copy", (count,), (rng.choice(recent),)))
            if rng.random() < 0.5:
                items.append(inst("out", (), uses, memory="store"))
            items.append(inst("shift", (new,), (uses[0], count)))
        elif kind < 0.74:  # a result in a fixed register, and another that is destroyed
            numbers = self.target.files["g"].numbers
            low = self.reg("g", fixed=numbers[1])
            new = self.reg("g")
            items.append(inst("call", (low,), uses, clobbers=(("g", numbers[2]), ("t", 3), ("flags", 0))))
            items.append(inst("copy", (new,), (low,)))
        elif kind < 0.80:
            items.append(inst("early", (new,), uses, early=True))
        elif kind < 0.84:
            second = self.reg()
            items.append(inst("both", (new, second), uses))
            scope.append(second)
        else:
            items.append(inst("plain", (new,), uses))
        scope.append(new)


class Machine:
    """Runs code before allocation (on registers by name) or after it (by number)."""

    def __init__(self, code: Code, seed: int, allocation: Allocation | None = None, argument: int = 77):
        self.rng = random.Random(seed)
        self.items = code.items
        self.numbers = allocation and allocation.numbers
        self.values: dict = {}
        self.trace: list = []
        self.argument = argument
        if allocation:
            self.values["g", 0] = argument

    def places(self, reg: VReg) -> list:
        if self.numbers is None:
            return [(reg, k) for k in range(reg.units)]
        return [(reg.file, self.numbers[reg] + k) for k in range(reg.units)]

    def read(self, reg: VReg) -> tuple:
        if self.numbers is None and reg.fixed == 0 and (reg, 0) not in self.values:
            return (self.argument,)
        if self.numbers is None:
            return tuple(self.values[place] for place in self.places(reg))
        return tuple(self.values.get(place) for place in self.places(reg))

    def write(self, reg: VReg, values) -> None:
        self.values.update(zip(self.places(reg), values, strict=True))

    def run(self) -> list:
        labels = {item.name: i for i, item in enumerate(self.items) if isinstance(item, Label | LoopStart)}
        turns: dict[str, int] = {}
        at = 0
        while at < len(self.items):
            item = self.items[at]
            at += 1
            if item.__class__ is not Inst:
                continue
            count = len(item.defs)
            defs = [operand.regs[0] for operand in item.operands[:count]]
            uses = [
                reg for operand in item.operands[count:] if isinstance(operand, Regs) for reg in operand.regs
            ]
            if self.numbers is not None:
                for d, u in item.tied:
                    assert self.numbers[item.defs[d]] == self.numbers[item.uses[u]], item
            read = [self.read(reg) for reg in uses]
            for file, number in item.clobbers:
                if self.numbers is not None:
                    self.values[file, number] = "destroyed"
            if item.opcode == "branch":
                if self.rng.random() < 0.5:
                    at = labels[item.operands[0]]
            elif item.opcode == "repeat":
                name = item.operands[-1]
                self.trace.append(read)
                turns[name] = turns.get(name, 0) + 1
                if turns[name] % 3:
                    at = labels[name]
            elif item.opcode == "copy":
                self.write(defs[0], read[0])
            elif item.opcode == "out":
                self.trace.append(read)
            elif item.opcode == "spill":
                self.values.update(
                    {("slot", item.operands[-1] + 4 * k): value for k, value in enumerate(read[0])}
                )
            elif item.opcode == "reload":
                self.write(
                    defs[0],
                    [self.values.get(("slot", item.operands[-1] + 4 * k)) for k in range(defs[0].units)],
                )
            else:
                if item.early:  # written before its operands are read, as far as the machine is concerned
                    for reg in defs:
                        self.write(reg, [0] * reg.units)
                    read = [self.read(reg) for reg in uses]
                salt = (item.opcode, tuple(read), 0 if uses else item.operands[-1])
                made = [[hash((d, k, salt)) for k in range(reg.units)] for d, reg in enumerate(defs)]
                for reg, values in zip(defs, made, strict=True):
                    self.write(reg, values)
        return self.trace
