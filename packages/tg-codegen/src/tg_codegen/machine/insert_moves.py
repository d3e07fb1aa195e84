"""Write the code that a linear scan decided on: names for pieces, reloads, spills and copies.

A piece that begins with a read begins with a reload. A register that is reloaded anywhere is stored behind each of its
writes; where the write's piece covers a loop around it, once behind that loop. A value with `remake` has no slot: it is
made again. A copy within one place vanishes, and what would be reloaded only to be copied is reloaded into the copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from tg_codegen.machine.allocation import Allocation, Inserted, Target
from tg_codegen.machine.code import Code, Inst, VReg
from tg_codegen.machine.linear_scan import LinearScan
from tg_codegen.machine.liveness import Interval

__all__ = ["insert_moves"]


def insert_moves(scan: LinearScan, target: Target) -> Allocation:
    """The code with every register's number."""
    return _Rewrite(scan, target).run()


def _renamed(inst: Inst, names: Mapping[VReg, VReg]) -> Inst:
    return Inst(
        inst.opcode,
        tuple(op if op.__class__ in (int, str) else op.renamed(names) for op in inst.operands),
        tuple(names.get(reg, reg) for reg in inst.defs),
        tuple(names.get(reg, reg) for reg in inst.uses),
        inst.tied,
        inst.early,
        inst.memory,
        inst.clobbers,
        inst.extra,
    )


class _Gap:
    """What is inserted before an item, in this order."""

    __slots__ = ("copies", "loads", "stores")

    def __init__(self) -> None:
        self.stores: list[tuple[Inst, Inserted]] = []
        self.loads: list[tuple[Inst, Inserted]] = []
        self.copies: list[tuple[Inst, Inserted]] = []


class _Rewrite:
    """The code with registers for pieces, reloads, spills and copies."""

    def __init__(self, scan: LinearScan, target: Target):
        self.scan, self.target, self.code = scan, target, scan.code
        self.gaps: dict[int, _Gap] = {}
        self.names: dict[int, dict[VReg, VReg]] = {}  # of pieces, by item
        self.dropped: set[int] = set()
        self.loads: list[tuple[int, VReg, VReg]] = []  # (item, piece, register)
        self.stores: dict[VReg, list[tuple[int, VReg]]] = {}
        self.only: dict[VReg, int] = {}  # pieces with one read -> their reload
        self.result = Allocation(self.code, {}, [])

    def run(self) -> Allocation:
        scan, numbers = self.scan, self.result.numbers
        for reg, interval in scan.live.intervals.items():
            place = interval.place
            numbers[reg] = scan.files[reg.file].numbers[place] if place >= 0 else reg.fixed
        if scan.pieces:
            self.name_pieces()
        for index, ties in scan.tie_copies.items():
            names = self.names.setdefault(index, {})
            for dst, src in ties:
                to, of = names.get(dst, dst), names.get(src, src)
                if not self.reload_into(to, of):
                    self.result.copies += 1
                    self.gap(index).copies.append((self.target.copy(to, of), Inserted("copy", index, to, of)))
                names[src] = to
        for index in scan.copies:
            inst, names = self.code.items[index], self.names.get(index, {})
            to, of = inst.defs[0], inst.uses[0]
            to, of = names.get(to, to), names.get(of, of)
            if to.file == of.file and (numbers[to] == numbers[of] or self.reload_into(to, of)):
                self.dropped.add(index)
        if scan.pieces:
            self.insert_memory()
        self.emit()
        return self.result

    def gap(self, index: int) -> _Gap:
        return self.gaps.setdefault(index, _Gap())

    def name_pieces(self) -> None:
        """Name the pieces of every split register, and find where they begin with a reload and are written."""
        scan, numbers = self.scan, self.result.numbers
        count = max(reg.number for reg in scan.live.intervals) + 1
        for reg, parts in scan.pieces.items():
            self.stores[reg] = []
            for part in parts:
                name = reg
                if part is not scan.live.intervals[reg]:
                    name = VReg(count, reg.file, reg.units, reg.align)
                    count += 1
                    numbers[name] = scan.files[reg.file].numbers[part.place]
                    for position in part.mentions:
                        self.names.setdefault(position >> 1, {})[reg] = name
                    if self.begins_with_reload(reg, part):
                        if part.mentions == [part.start]:
                            self.only[name] = len(self.loads)
                        self.loads.append((part.start >> 1, name, reg))
                self.stores[reg] += self.writes(part, name)

    def reload_into(self, to: VReg, of: VReg) -> bool:
        """Where a value is reloaded only to be copied, reload the copy."""
        if of not in self.only:
            return False
        at = self.only[of]
        index, _, reg = self.loads[at]
        self.loads[at] = (index, to, reg)
        del self.result.numbers[of]
        return True

    def insert_memory(self) -> None:
        result, target = self.result, self.target
        reloaded = dict.fromkeys(reg for _, _, reg in self.loads)
        remade = {reg for reg in reloaded if reg.remake is not None and self.written_once(reg)}
        slots = self.assign_slots([reg for reg in reloaded if reg not in remade])
        for index, name, reg in self.loads:
            if reg in remade:
                inst, what = _renamed(reg.remake, {reg: name}), Inserted("remake", index, name, reg)
            else:
                slot = slots[reg]
                inst, what = target.reload(name, slot), Inserted("reload", index, name, slot=slot)
            self.gap(index).loads.append((inst, what))
            result.remakes += reg in remade
            result.reloads += reg not in remade
        for reg, slot in slots.items():
            for index, name in dict.fromkeys(self.stores[reg]):
                result.spills += 1
                what = Inserted("spill", index, name, slot=slot)
                self.gap(index).stores.append((target.spill(name, slot), what))
        for reg in remade:
            first = self.scan.live.intervals[reg].mentions
            if len(first) == 1 and self.code.items[first[0] >> 1].defs == (reg,):
                self.dropped.add(first[0] >> 1)
                del result.numbers[reg]

    def begins_with_reload(self, reg: VReg, part: Interval) -> bool:
        first = part.mentions[0]
        if part.start >> 1 != first >> 1:
            return True
        copied = any(dst is reg for dst, _ in self.scan.tie_copies.get(first >> 1, ()))
        return not first & 1 and not copied

    def written_once(self, reg: VReg) -> bool:
        return sum(position & 1 for part in self.scan.pieces[reg] for position in part.mentions) == 1

    def writes(self, part: Interval, name: VReg) -> list[tuple[int, VReg]]:
        """Before which items a piece's value is to be stored: behind its writes, or loops around them."""
        found = []
        for position in part.mentions:
            if position & 1:
                index = position >> 1
                loop = self.scan.live.loop_of[index] if index >= 0 else None
                while loop is not None and 2 * loop.start >= part.start:
                    index, loop = loop.end, loop.outer
                found.append((index + 1, name))
        return found

    def assign_slots(self, regs: list[VReg]) -> dict[VReg, int]:
        """Byte offsets, the largest registers first; where lives of one size do not meet they share a slot."""
        sizes: dict[int, list[VReg]] = {}
        for reg in regs:
            sizes.setdefault(self.target.files[reg.file].unit_bytes * reg.units, []).append(reg)
        slots: dict[VReg, int] = {}
        top = 0
        for size in sorted(sizes, reverse=True):
            align = size & -size
            top = (top + align - 1) & -align
            busy: list[tuple[int, int]] = []  # (end of the life, slot)
            for reg in sorted(sizes[size], key=lambda reg: self.scan.lives[reg]):
                start, end = self.scan.lives[reg]
                if busy and busy[0][0] <= start:
                    _, slots[reg] = heappop(busy)
                else:
                    slots[reg] = top
                    top += size
                heappush(busy, (end, slots[reg]))
        self.result.slot_bytes = top
        return slots

    def emit(self) -> None:
        result, code = self.result, self.code
        if not self.gaps and not self.dropped and not any(self.names.values()):
            result.origin = list(range(len(code.items)))
            return
        items: list = []
        origin = result.origin
        for index, item in enumerate([*code.items, None]):
            gap = self.gaps.get(index)
            if gap is not None:
                for inst, what in (*gap.stores, *gap.loads, *gap.copies):
                    items.append(inst)
                    origin.append(what)
            if item is None or index in self.dropped:
                continue
            names = self.names.get(index)
            items.append(_renamed(item, names) if names else item)
            origin.append(index)
        result.code = Code(code.name, items, code.scratch_bytes)
