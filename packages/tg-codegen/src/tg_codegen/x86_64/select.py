"""Machine IR to x86-64 instructions over virtual registers: control flow, indices, and what is made when.

An instruction is selected when its result is made, but loads, comparisons of indices and constants wait for their first
use, where they may become part of the instruction that uses them: a memory operand, a branch, an immediate. A store or
the end of a list ends that wait. A value that an `Assign` gives to a carried register is made in that register, where
nothing reads the old value any more.

Flags do not live between instructions: what needs them is one pseudo-instruction (emit.py), `branch`, `set`, `cmov`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from tg_codegen.machine.code import Code, Inst, Label, LoopEnd, LoopStart, VReg
from tg_codegen.machine.nodes import (
    INDEX,
    MEMORY_BYTES,
    Address,
    Assign,
    Function,
    If,
    Instr,
    Loop,
    Reg,
    Statement,
)
from tg_codegen.x86_64.operands import FILE_OF, Mask, Mem, Pool, Source, V

__all__ = ["CONDITIONS", "Parts", "Rule", "Selector"]

Parts = tuple[VReg, ...]
"""The registers that hold a value: one, or two for lanes of 64 bits, the lower lanes first."""
Rule = Callable[["Selector", Instr], Parts]
"""Selects an instruction; gives its result."""

_SCALES = (1, 2, 4, 8)
_INVERSE = {"l": "ge", "le": "g", "e": "ne", "ne": "e"}
CONDITIONS = {"lt": "l", "le": "le", "eq": "e", "ne": "ne"}
_PLAIN = {"float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8}


class Selector:
    """Selects one function. Rules for data are in `rules`: (operation, type of the result) -> Rule."""

    def __init__(self, function: Function, level: str, rules: dict[tuple[str, str], Rule], buffers: int):
        self.function, self.rules, self.buffers = function, rules, buffers
        self.wide = level != "avx2"
        self.kind, self.half, self.vector_bytes = ("z", "y", 64) if self.wide else ("y", "x", 32)
        self.default_kind = {"gpr": "q", "vector": self.kind, "mask": "k"}
        self.frame = -(-function.scratch_bytes // 64) * 64
        self.code = Code(function.name, scratch_bytes=function.scratch_bytes)
        self.items = self.code.items
        self.values: dict[Reg, Parts] = {}
        self.numbers: dict[Reg, int] = {}  # constant indices
        self.bits: dict[Reg, Instr] = {}  # constants in lanes
        self.stack: dict[Reg, int] = {}  # addresses in scratch memory
        self.pending: dict[Reg, Instr] = {}  # loads that wait
        self.compares: dict[Reg, Instr] = {}  # comparisons of indices that wait
        self.scaled: dict[Reg, tuple[Reg, int]] = {}  # multiples of indices that an address may take
        self.uses: Counter[Reg] = Counter()  # still to come
        self.reads: dict[int, list[Reg]] = {}  # of a statement, by its id
        self.mentions: dict[int, set[Reg]] = {}  # by loops and conditions with all in them
        self.carried: set[Reg] = set()
        self.targets: dict[Reg, Reg] = {}  # a value -> the carried register that it is made in
        self.local: set[Reg] = set()  # made in the innermost list
        self.made: dict[object, Parts] = {}  # constants in registers, in the innermost list
        self.count = self.labels = 0

    def select(self) -> Code:
        """The code, ending with `leave`."""
        self._count_uses(self.function.body)
        self.block(self.function.body)
        self.put("leave")
        return self.code

    def _count_uses(self, body: list[Statement]) -> set[Reg]:
        """Fills `uses`, `reads` and `mentions`; gives what a list mentions."""
        uses, mentioned = self.uses, set()
        for statement in body:
            reads = self.reads[id(statement)] = _reads(statement)
            for reg in reads:
                uses[reg] += 1
            mentioned.update(reads)
            if statement.__class__ is Assign:
                self.carried.update(statement.targets)
                mentioned.update(statement.targets)
            elif statement.__class__ is not Instr:
                inside = self.mentions[id(statement)] = self._count_uses(statement.body) | set(reads)
                mentioned |= inside
        return mentioned

    # ---- writing instructions

    def new(self, kind: str) -> VReg:
        self.count += 1
        return VReg(self.count, FILE_OF[kind])

    def put(self, opcode: str, *operands: Source | str, defs: Parts = (), memory: str = "") -> Inst:
        """An instruction without a register result, or whose `defs` are not its first operand."""
        shown, uses = self._operands(operands)
        inst = Inst(opcode, tuple(shown), defs, tuple(uses), memory=memory or _memory(operands, "load"))
        self.items.append(inst)
        return inst

    def _operands(self, sources: tuple[Source | str, ...]) -> tuple[list, list[VReg]]:
        shown, uses, kinds = [], [], self.default_kind
        for source in sources:
            if source.__class__ is VReg:
                uses.append(source)
                shown.append(V(source, kinds[source.file]))
            else:
                if source.__class__ is not int and source.__class__ is not str:
                    uses += source.registers()
                shown.append(source)
        return shown, uses

    def op(
        self,
        opcode: str,
        *sources: Source | str,
        kind: str = "",
        tied: VReg | None = None,
        mask: VReg | None = None,
        zeroing: bool = False,
        into: VReg | None = None,
    ) -> VReg:
        """An instruction whose result comes first; `tied` is what it overwrites, `into` a register to write."""
        kind = kind or self.kind
        result = into or self.new(kind)
        shown, uses = self._operands(sources)
        if mask is not None:
            shown.append(Mask(mask, zeroing))
            uses.append(mask)
        ties = ()
        if tied is not None:
            uses.insert(0, tied)
            ties = ((0, 0),)
            result.hint = tied
        self.items.append(
            Inst(
                opcode,
                (V(result, kind), *shown),
                (result,),
                tuple(uses),
                ties,
                memory=_memory(sources, "load"),
            )
        )
        return result

    def remade(self, opcode: str, source: Source) -> VReg:
        """An index that is made again rather than spilled."""
        result = self.op(opcode, source, kind="q")
        result.remake = self.items[-1]
        return result

    def copy(self, source: VReg, into: VReg | None = None) -> VReg:
        """The same value in another register."""
        opcode = {"gpr": "mov", "mask": "kmovw"}.get(source.file) or ("vmovaps")
        result = self.op(opcode, source, kind=self.default_kind[source.file], into=into)
        result.hint = source
        return result

    def label(self) -> str:
        self.labels += 1
        return f".{self.labels}"

    # ---- statements

    def block(self, body: list[Statement]) -> None:
        outer = self.local, self.made
        self.local, self.made = set(), {}
        self._find_targets(body)
        for statement in body:
            kind = statement.__class__
            if kind is Instr:
                self.instr(statement)
            elif kind is Assign:
                self.assign(statement)
            else:
                self.flush()
                self.made = {}
                (self.loop if kind is Loop else self.when)(statement)
                self.made = {}
            for reg in self.reads[id(statement)]:
                self.uses[reg] -= 1
        self.pending.clear()
        self.local, self.made = outer

    def _find_targets(self, body: list[Statement]) -> None:
        """Which values can be made in the carried register that gets them: nothing reads that in between."""
        last_read: dict[Reg, int] = {}
        place: dict[Reg, int] = {}
        found: list[tuple[Reg, Reg, int]] = []
        for at, statement in enumerate(body):
            if statement.__class__ is Instr:
                for reg in self.reads[id(statement)]:
                    last_read[reg] = at
                if statement.dst is not None:
                    place[statement.dst] = at
            elif statement.__class__ is Assign:
                sources = statement.sources
                for target, source in zip(statement.targets, sources, strict=True):
                    once = sources.count(source) == 1 and source not in self.targets
                    late = source in place and place[source] >= last_read.get(target, -1)
                    if once and late and target not in sources:
                        found.append((source, target, at))
                        self._follow(body, place, source, target, last_read.get(target, -1))
                for reg in sources:
                    last_read[reg] = at
                for target in statement.targets:
                    last_read[target] = at
            else:
                for reg in self.mentions[id(statement)]:
                    last_read[reg] = at
        for source, target, at in found:
            if last_read[source] == at:
                self.targets[source] = target
                self.carried.add(source)

    def _follow(
        self, body: list[Statement], place: dict[Reg, int], source: Reg, target: Reg, read: int
    ) -> None:
        """A chain of multiply-adds that ends in a carried register stays there from its start."""
        while True:
            made = body[place[source]]
            if made.op != "fma" or self.uses[made.args[2]] != 1 or place.get(made.args[2], -1) < read:
                return
            source = made.args[2]
            if source not in place or body[place[source]].op == "load":
                return
            self.targets[source] = target
            self.carried.add(source)

    def instr(self, instr: Instr) -> None:
        op, dst = instr.op, instr.dst
        if op == "store":
            self.flush(keep=instr.args[0])
            self.rules["store", ""](self, instr)
            return
        if not self.uses[dst]:
            return
        self.local.add(dst)
        if op == "load":
            self.pending[dst] = instr
        elif dst.type == INDEX:
            self.index(instr)
        elif op == "const":
            self.bits[dst] = instr
        else:
            self.give(dst, self.rules[op, dst.type], instr)

    def give(self, dst: Reg, rule: Rule, instr: Instr) -> None:
        """Select, in a carried register if the value is for one."""
        target = self.targets.get(dst)
        if target is None:
            self.values[dst] = rule(self, instr)
            return
        for waiting in [reg for reg, load in self.pending.items() if target in self.reads[id(load)]]:
            self.materialise(waiting)
        start = len(self.items)
        made = rule(self, instr)
        self.values[dst] = self._renamed(start, made, self.values[target]) if target in self.values else made

    def _renamed(self, start: int, made: Parts, wanted: Parts) -> Parts:
        """Write results to the wanted registers, where nothing behind that reads what was there."""
        result = list(made)
        for i, (have, want) in enumerate(zip(made, wanted, strict=True)):
            for inst in reversed(self.items[start:]):
                if inst.__class__ is not Inst:
                    break
                if have in inst.defs:
                    tied = bool(inst.tied) and inst.uses[inst.tied[0][1]] is want
                    free = want not in inst.uses or not (inst.early or inst.tied) or tied
                    if free and made.count(have) == 1 and len(inst.defs) == 1:
                        names = {have: want}
                        inst.operands = (inst.operands[0].renamed(names), *inst.operands[1:])
                        inst.defs = tuple([want if reg is have else reg for reg in inst.defs])
                        result[i] = want
                    break
                if want in inst.uses or have in inst.uses:
                    break
        return tuple(result)

    def assign(self, statement: Assign) -> None:
        moves: list[tuple[VReg, VReg]] = []
        self.flush()
        for target, source in zip(statement.targets, statement.sources, strict=True):
            have = self.values.get(target)
            fresh = have is None  # the first write: straight into new registers
            if fresh:
                self.local.add(target)
                parts = 2 if target.type.endswith("64") else 1
                have = self.values[target] = tuple([self.new(self._kind(target.type)) for _ in range(parts)])
            if fresh and source in self.bits:
                self.constant(source.type, self.bits[source].attr, have)
            elif fresh and source in self.numbers:
                self.op("mov", self.numbers[source], kind="q", into=have[0])
            else:
                moves += [
                    pair for pair in zip(have, self.parts(source), strict=True) if pair[0] is not pair[1]
                ]
        if {to for to, _ in moves} & {source for _, source in moves}:
            moves = [(to, self.copy(source)) for to, source in moves]
        for to, source in moves:
            self.copy(source, into=to)

    def _kind(self, type: str) -> str:
        if type == INDEX:
            return "q"
        return "k" if type == "bool" and self.wide else self.kind

    def loop(self, loop: Loop) -> None:
        start, stop = self.number(loop.start), self.number(loop.stop)
        again, end = self.label(), self.label()
        stop = self.gpr(loop.stop) if stop is None else stop
        counter = self.copy(self.gpr(loop.start)) if start is None else self.op("mov", start, kind="q")
        self.values[loop.counter] = (counter,)
        if not loop.some:
            self.branch("ge", counter, stop, end)
        self.items.append(LoopStart(again))
        self.block(loop.body)
        self.op("add", loop.step, kind="q", tied=counter, into=counter)
        self.branch("l", counter, stop, again)
        self.items += LoopEnd(again), Label(end)

    def branch(self, condition: str, a: VReg, b: VReg | int, label: str) -> None:
        self.put("branch", condition, a, b, label)

    def when(self, statement: If) -> None:
        end = self.label()
        for reg in self._conjuncts(statement.condition):
            condition, a, b = self.condition(reg)
            self.branch(_INVERSE[condition], a, b, end)
            self.items.append(Label(self.label()))
        self.block(statement.body)
        self.items.append(Label(end))

    def _conjuncts(self, reg: Reg) -> Iterator[Reg]:
        instr = self.compares.get(reg)
        if instr is not None and instr.op == "and":
            for arg in instr.args:
                yield from self._conjuncts(arg)
        else:
            yield reg

    def flush(self, keep: Reg | None = None) -> None:
        """Load what waits, as memory may change; `keep` may go on waiting."""
        for reg in [reg for reg in self.pending if reg is not keep]:
            if self.uses[reg]:
                self.materialise(reg)

    # ---- values

    def materialise(self, reg: Reg) -> Parts:
        instr = self.pending.pop(reg)
        self.give(reg, self.rules["load", INDEX if reg.type == INDEX else ""], instr)
        return self.values[reg]

    def parts(self, reg: Reg) -> Parts:
        """The registers that hold a value."""
        found = self.values.get(reg)
        if found is not None:
            return found
        if reg in self.pending:
            return self.materialise(reg)
        if reg in self.bits:
            instr = self.bits[reg]
            key = ("bits", instr.dst.type, instr.attr)
            if key not in self.made:
                self.made[key] = self.constant(instr.dst.type, instr.attr)
            return self.made[key]
        return (self.gpr(reg),)

    def constant(self, type: str, bits: int, into: Parts = ()) -> Parts:
        """A constant in registers."""
        results = into or (self.new(self._kind(type)),)
        for result in results:
            if type == "bool" and self.wide:
                opcode, sources = "kxnorw" if bits else "kxorw", (0, 0)
            elif bits == 0:
                opcode, sources = "vpxord" if self.wide else "vpxor", (0, 0)
            elif type == "bool":
                opcode, sources = "vpcmpeqd", (0, 0)
            else:
                size = 8 if type.endswith("64") else 4
                opcode = "vbroadcastsd" if size == 8 else "vbroadcastss"
                sources = (Pool(bits.to_bytes(size, "little")),)
            shown = V(result, self._kind(type))
            operands = (shown, *[shown if source == 0 else source for source in sources])
            inst = Inst(opcode, operands, (result,))
            self.items.append(inst)
            if not into:
                result.remake = inst
        return results if len(results) > 1 or not type.endswith("64") else results * 2

    def pool(self, bits: int, size: int) -> Pool:
        """A constant in every lane, as a memory operand."""
        data = bits.to_bytes(size, "little")
        return Pool(data, True) if self.wide else Pool(data * (self.vector_bytes // size))

    def foldable(self, reg: Reg) -> bool:
        """Whether `operands` gives memory."""
        if reg in self.bits:
            return reg.type != "bool" and (self.bits[reg].attr != 0 or reg not in self.made)
        load = self.pending.get(reg)
        if load is None or self.uses[reg] != 1 or load.mask is not None or load.attr not in _PLAIN:
            return False
        return load.access == "lanes" or (load.access == "one" and self.wide)

    def operands(self, reg: Reg) -> tuple[VReg | Mem | Pool, ...]:
        """The value where memory is as good as a register."""
        if not self.foldable(reg):
            return self.parts(reg)
        if reg in self.bits:
            size = 8 if reg.type.endswith("64") else 4
            return (self.pool(self.bits[reg].attr, size),) * (size // 4)
        load = self.pending.pop(reg)
        return self.places(load)

    def loaded(self, source: Source) -> VReg:
        """A register that holds an operand."""
        return source if source.__class__ is VReg else self.op("vmovups", source)

    def places(self, instr: Instr) -> tuple[Mem, ...]:
        """The memory of a plain access, a part for each register."""
        size = MEMORY_BYTES[instr.attr]
        if instr.access == "one":
            return (self.address(instr, size).at(broadcast=True),) * (size // 4)
        whole = self.address(instr, self.vector_bytes)
        return (whole,) if size < 8 else (whole, whole.at(self.vector_bytes))

    def address(self, instr: Instr, size: int = 0) -> Mem:
        """The address that an access starts at."""
        address: Address = instr.address
        disp, scale, index, base = address.disp, address.scale, None, "stack"
        if address.index is not None:
            number = self.number(address.index)
            if number is not None and -(1 << 31) <= disp + number * scale < 1 << 30:
                disp += number * scale
            else:
                inner, factor = self.scaled.get(address.index, (None, 0))
                if factor * scale in _SCALES:
                    index, scale = self.gpr(inner), factor * scale
                else:
                    index = self.gpr(address.index)
                if scale not in _SCALES:
                    index, scale = self.op("imul", index, scale, kind="q"), 1
        if address.base in self.stack:
            disp += self.stack[address.base]
        else:
            base = self.gpr(address.base)
        return Mem(base, index, scale, disp, size, ordered=instr.volatile)

    def last_use(self, reg: Reg) -> bool:
        """Whether a register may be overwritten by the instruction at hand."""
        return self.uses[reg] == 1 and reg in self.local and reg not in self.carried

    # ---- indices

    def number(self, reg: Reg) -> int | None:
        """A constant that fits an immediate."""
        value = self.numbers.get(reg)
        return value if value is not None and -(1 << 31) <= value < 1 << 31 else None

    def gpr(self, reg: Reg) -> VReg:
        found = self.values.get(reg)
        if found is not None:
            return found[0]
        if reg in self.pending:
            return self.materialise(reg)[0]
        if reg in self.compares:
            return self.truth(reg)
        if reg in self.stack:
            key = ("stack", self.stack[reg])
        else:
            key = ("index", reg) if reg in self.scaled else ("number", self.numbers[reg])
        if key not in self.made:
            if key[0] == "stack":
                made = self.remade("lea", Mem("stack", disp=key[1]))
            elif key[0] == "number":
                made = self.remade("mov", key[1])
            else:
                inner, factor = self.scaled[reg]
                made = self.op("shl", factor.bit_length() - 1, kind="q", tied=self.gpr(inner))
            self.made[key] = (made,)
        return self.made[key][0]

    def index(self, instr: Instr) -> None:
        op, dst, args = instr.op, instr.dst, instr.args
        if op == "const":
            self.numbers[dst] = (instr.attr + (1 << 63)) % (1 << 64) - (1 << 63)
        elif op == "scratch":
            self.stack[dst] = 0
        elif (op == "add" and self._on_stack(dst, *args)) or (op == "mul" and self._is_scaled(dst, *args)):
            return
        elif self._waits(instr):
            for arg in args:
                if arg in self.pending:
                    self.materialise(arg)
            self.compares[dst] = instr
        else:
            self.give(dst, self.rules[op, INDEX], instr)

    def _on_stack(self, dst: Reg, a: Reg, b: Reg) -> bool:
        if a not in self.stack:
            a, b = b, a
        if a not in self.stack or self.number(b) is None:
            return False
        self.stack[dst] = self.stack[a] + self.numbers[b]
        return True

    def _is_scaled(self, dst: Reg, a: Reg, b: Reg) -> bool:
        if a in self.numbers:
            a, b = b, a
        if self.numbers.get(b) not in _SCALES or a in self.carried or dst in self.targets:
            return False
        if a in self.pending:
            self.materialise(a)
        self.scaled[dst] = (a, self.numbers[b])
        return True

    def _waits(self, instr: Instr) -> bool:
        """Whether a comparison, or several, may become part of the one instruction that asks for it."""
        if instr.op not in CONDITIONS and not (
            instr.op == "and" and all(a in self.compares for a in instr.args)
        ):
            return False
        once = self.uses[instr.dst] == 1 and instr.dst not in self.targets
        return once and self.carried.isdisjoint(instr.args)

    def condition(self, reg: Reg) -> tuple[str, VReg, VReg | int]:
        """A comparison whose outcome is that of an index."""
        instr = self.compares.get(reg)
        return self.compared(instr) if instr is not None and instr.op != "and" else ("ne", self.gpr(reg), 0)

    def compared(self, instr: Instr) -> tuple[str, VReg, VReg | int]:
        """Condition and operands of a comparison."""
        a, b = instr.args
        number = self.number(b)
        return CONDITIONS[instr.op], self.gpr(a), self.gpr(b) if number is None else number

    def truth(self, reg: Reg) -> VReg:
        """A comparison that waits, as 0 or 1."""
        instr = self.compares.pop(reg)
        self.values[reg] = self.rules[instr.op, INDEX](self, instr)
        return self.values[reg][0]


def _memory(sources: tuple[Source | str, ...], role: str) -> str:
    for source in sources:
        if source.__class__ is Mem and source.size:
            return f"scratch {role}" if source.ordered else role
    return ""


def _reads(statement: Statement) -> list[Reg]:
    kind = statement.__class__
    if kind is Instr:
        if statement.address is None:
            return list(statement.args)
        address = statement.address
        found = (*statement.args, address.base, address.index, address.each, statement.mask, statement.other)
        return [reg for reg in found if reg is not None]
    if kind is Assign:
        return list(statement.sources)
    return [statement.start, statement.stop] if kind is Loop else [statement.condition]
