"""Linear scan: a place for every interval, which is split where registers run out.

Intervals are visited by their start, so the free registers of a file are a bit mask. One that finds none free takes
the place of the interval that costs least to do without for a while: its reloads, weighted by loop depth, over the
distance to its next mention. What is taken from an interval becomes later intervals of their own, which begin with a
reload and are visited in turn. A register that was split has a slot that each write goes to as well, so a slot is
always right and only these rules keep pieces right:

- A piece that begins with a reload ends before a label which a branch from before its start goes to.
- A piece that covers the start of a loop and is mentioned in it covers the loop. A register taken away within a loop
  that it entered in a register is therefore taken away for the whole loop: its earlier mentions there become pieces in
  the old place, reloaded too.
- A piece whose first mention lies in a later loop is reloaded before that loop.

Source: Wimmer and Moessenboeck, "Optimized interval splitting in a linear scan register allocator", VEE 2005.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import heapify, heappop, heappush
from itertools import pairwise

from tg_codegen.machine.allocation import Target
from tg_codegen.machine.code import Code, Inst, VReg
from tg_codegen.machine.liveness import Interval, Liveness, LoopRange, analyse_liveness

__all__ = ["LinearScan"]

_NEVER = 1 << 60


class _File:
    """The registers of one file; bit k of a mask is the k-th of `numbers`."""

    __slots__ = ("bit_of", "blocks", "free", "name", "numbers", "owner", "starts", "tuples")

    def __init__(self, name: str, numbers: tuple[int, ...]):
        self.name, self.numbers = name, numbers
        self.bit_of = {number: bit for bit, number in enumerate(numbers)}
        self.free = (1 << len(numbers)) - 1
        self.owner: list[Interval | None] = [None] * len(numbers)
        self.blocks: dict[int, list[tuple[int, int]]] = {}
        """Times at which a fixed register or a clobber needs a place, the next one last."""
        self.tuples = all(b == a + 1 for a, b in pairwise(numbers))
        self.starts: dict[int, int] = {}

    def block(self, number: int, start: int, end: int) -> None:
        bit = self.bit_of.get(number)
        if bit is not None:
            self.blocks.setdefault(bit, []).append((start, end))

    def blocked_from(self, bit: int, units: int, start: int) -> int:
        """When a place is next needed by something fixed."""
        first = _NEVER
        for k in range(bit, bit + units):
            blocks = self.blocks.get(k)
            if blocks:
                while blocks and blocks[-1][1] <= start:
                    blocks.pop()
                if blocks and blocks[-1][0] < first:
                    first = blocks[-1][0]
        return first

    def unblocked(self, mask: int, start: int, end: int) -> int:
        """The bits of a mask that nothing fixed needs in a time."""
        for bit in self.blocks:
            if mask >> bit & 1 and self.blocked_from(bit, 1, start) < end:
                mask &= ~(1 << bit)
        return mask

    def fitting(self, mask: int, units: int, align: int) -> int:
        """Where in a mask aligned tuples can begin."""
        if units > 1:
            assert self.tuples, f"register file {self.name} has tuples, but its numbers have gaps"
            single = mask
            for k in range(1, units):
                mask &= single >> k
        if align > 1:
            starts = self.starts.get(align)
            if starts is None:
                starts = sum(1 << bit for bit, number in enumerate(self.numbers) if number % align == 0)
                self.starts[align] = starts
            mask &= starts
        return mask


class LinearScan:
    """The scan of one function. `run` leaves `place` in every interval, and `pieces` of registers that were split.

    `tie_copies` are copies (to, from) that tied operands need before an item, `copies` the items that are copies.
    """

    def __init__(self, code: Code, target: Target):
        self.code = code
        self.live: Liveness = analyse_liveness(code)
        self.files = {name: _File(name, file.numbers) for name, file in target.files.items()}
        self.pieces: dict[VReg, list[Interval]] = {}
        self.lives: dict[VReg, tuple[int, int]] = {}  # of registers in pieces, from start to end
        self.copies: list[int] = []
        self.tie_copies: dict[int, list[tuple[VReg, VReg]]] = {}
        self.must: dict[VReg, VReg] = {}
        self.ahead: dict[VReg, VReg] = {}  # what a register is copied or tied to
        self.behind: dict[VReg, VReg] = {}  # what was copied or tied to it
        self.heap: list[tuple[int, int, int, Interval]] = []
        self.ends: list[tuple[int, int, Interval]] = []
        self.serial = 0
        self.prepare(target)

    def prepare(self, target: Target) -> None:
        """Ties, copies, fixed registers and clobbers."""
        ahead, behind = self.ahead, self.behind
        for index, item in enumerate(self.code.items):
            if item.__class__ is not Inst:
                continue
            if item.tied:
                self.tie(index, item)
            elif len(item.defs) == 1 and len(item.uses) == 1 and not item.memory and target.is_copy(item):
                dst, src = item.defs[0], item.uses[0]
                self.copies.append(index)
                behind.setdefault(dst, src)
                ahead[src] = dst
            for file, number in item.clobbers:
                if file in self.files:
                    self.files[file].block(number, 2 * index + (not item.early), 2 * index + 2)
        for reg, interval in self.live.intervals.items():
            if reg.fixed is not None and interval.start >= 0:
                for k in range(reg.units):
                    self.files[reg.file].block(reg.fixed + k, interval.start, interval.end)
        for file in self.files.values():
            for blocks in file.blocks.values():
                blocks.sort(reverse=True)

    def tie(self, index: int, inst: Inst) -> None:
        intervals = self.live.intervals
        taken: set[VReg] = set()
        for d, u in inst.tied:
            dst, src = inst.defs[d], inst.uses[u]
            if dst is src:
                taken.add(src)
                continue
            to, of = intervals[dst], intervals[src]
            begins, dies = to.mentions[0] == 2 * index + 1, of.end == 2 * index + 1
            alone = not any(reg.fixed is not None for reg in inst.defs) and not any(
                file == dst.file for file, _ in inst.clobbers
            )
            alone = alone and (src.fixed is None or src.fixed in self.files[src.file].bit_of)
            if begins and dies and alone and src not in taken:
                self.must[dst] = src
                to.start = 2 * index + 1
                taken.add(src)
                self.ahead[src] = dst
                continue
            assert src not in taken, f"{inst.opcode}: {src} is tied twice"
            assert dst not in inst.uses, f"{inst.opcode}: {dst} is tied to {src} and read as well"
            taken.add(src)
            self.tie_copies.setdefault(index, []).append((dst, src))
            to.start = min(to.start, 2 * index)
            to.mentions.insert(bisect_left(to.mentions, 2 * index + 1), 2 * index)
            self.ahead[src] = dst
            self.behind.setdefault(dst, src)

    def run(self) -> None:
        must, ends, files, ahead, behind = self.must, self.ends, self.files, self.ahead, self.behind
        last: dict[VReg, int] = {}  # where a register was put last
        intervals = sorted(self.live.intervals.values(), key=_start)
        self.heap = heap = [
            (interval.start, interval.reg not in must, serial, interval)
            for serial, interval in enumerate(intervals)
        ]
        self.serial = len(heap)
        heapify(heap)
        while heap:
            now, _, serial, current = heappop(heap)
            while ends and ends[0][0] <= now:
                _, _, ended = heappop(ends)
                if ended.end <= now:
                    self.release(ended)
            reg = current.reg
            file = files[reg.file]
            units = reg.units
            pinned = reg.fixed is not None and current is self.live.intervals[reg]
            if pinned:
                bit = file.bit_of.get(reg.fixed, -1)
                if bit < 0:
                    continue  # a register that is not ours to give, such as a stack pointer
                for owner in file.owner[bit : bit + units]:
                    if owner is not None and owner.place >= 0:
                        self.take_away(owner, now, f"a second fixed register, {reg}")
            elif reg in must:
                bit = last[must.pop(reg)]
            else:
                bit = -1
                fits = file.free if not file.blocks else file.unblocked(file.free, now, current.end)
                if units > 1 or reg.align > 1:
                    fits = file.fitting(fits, units, reg.align)
                if fits:
                    bit = last.get(reg, -1)
                    if bit < 0 or not fits >> bit & 1:
                        if reg in ahead or reg in behind or reg.hint is not None:
                            bit = self.hinted(reg, file, fits, last)
                        if bit < 0 or not fits >> bit & 1:
                            bit = (fits & -fits).bit_length() - 1
                else:
                    bit = self.make_room(current, file, now)
                    if bit < 0:
                        continue
            current.place = last[reg] = bit
            if units == 1:
                file.free &= ~(1 << bit)
                file.owner[bit] = current
            else:
                file.free &= ~(((1 << units) - 1) << bit)
                file.owner[bit : bit + units] = [current] * units
            if file.blocks and (not pinned or now < 0):
                blocked = file.blocked_from(bit, units, now)
                if blocked < current.end:
                    self.split(current, blocked, now)
                    if not current.mentions:
                        self.release(current)
                        continue
            heappush(ends, (current.end, serial, current))

    def hinted(self, reg: VReg, file: _File, fits: int, last: dict[VReg, int]) -> int:
        """A place that saves a copy: where the value goes to, or where it comes from."""
        target: VReg | None = reg
        for _ in range(4):
            target = self.ahead.get(target)
            if target is None or target.file != reg.file:
                break
            bit = last.get(target, -1) if target.fixed is None else file.bit_of.get(target.fixed, -1)
            if bit >= 0 and fits >> bit & 1:
                return bit
        source = self.behind.get(reg) or reg.hint
        if source is None or source.file != reg.file:
            return -1
        return last.get(source, -1)

    def release(self, interval: Interval) -> None:
        file = self.files[interval.reg.file]
        bit, units = interval.place, interval.reg.units
        if file.owner[bit] is interval:
            file.owner[bit : bit + units] = [None] * units
            file.free |= ((1 << units) - 1) << bit

    def take_away(self, owner: Interval, now: int, why: str) -> None:
        assert self.cost(owner, now, True) < _NEVER, (
            f"{self.code.name}: {owner.reg} has no register, because of {why}"
        )
        self.split(owner, now, now)
        self.release(owner)

    def make_room(self, current: Interval, file: _File, now: int) -> int:
        """A place for an interval where none is free for all of its time, or -1 when it is better to wait."""
        units, owners = current.reg.units, file.owner
        everywhere = file.fitting((1 << len(owners)) - 1, units, current.reg.align)
        costs: dict[Interval, float] = {}
        best, least = -1, self.cost(current, now) if current.mentions[0] >> 1 != now >> 1 else _NEVER
        for bit in range(len(owners)):
            if not everywhere >> bit & 1:
                continue
            cost = 0.0
            if file.blocks:
                blocked = file.blocked_from(bit, units, now)
                if blocked <= now | 1:
                    continue
                if blocked < current.end:
                    cost = self.cost(current, blocked)
            if units == 1:
                if owners[bit] is not None:
                    cost += self.cost(owners[bit], now, True)
            else:
                for owner in dict.fromkeys(owners[bit : bit + units]):
                    if owner is not None:
                        if owner not in costs:
                            costs[owner] = self.cost(owner, now, True)
                        cost += costs[owner]
            if cost < least:
                best, least = bit, cost
        if best >= 0:
            for owner in owners[best : best + units]:
                if owner is not None and owners[owner.place] is owner:
                    self.split(owner, now, now)
                    self.release(owner)
            return best
        assert least < _NEVER, (
            f"{self.code.name}: item {now >> 1} needs more {file.name} registers than there are"
        )
        self.split(current, now, now)
        return -1

    def cost(self, interval: Interval, at: int, placed: bool = False) -> float:
        """What it costs to be without a register from a time on, over the time won.

        A placed interval cannot lose its register where its instruction needs it, nor where it is fixed.
        """
        reg, mentions, weights = interval.reg, interval.mentions, self.live.weights
        after = bisect_left(mentions, at)
        following = mentions[after] if after < len(mentions) else interval.end
        if placed:
            if following >> 1 == at >> 1:
                return _NEVER
            if reg.fixed is not None and self.live.intervals[reg].start >= 0:
                return _NEVER
        loop, entered = self.live.loop_of[at >> 1], None
        while loop is not None and 2 * loop.start >= interval.start:
            entered, loop = loop, loop.outer
        if entered is not None and interval.loop is not entered:
            first, behind = bisect_left(mentions, 2 * entered.start), bisect_right(mentions, 2 * entered.end)
            interval.loop = entered
            interval.loop_weight = sum([weights[position >> 1] for position in mentions[first:behind]])
        if entered is not None and interval.loop_weight:
            weight = interval.loop_weight
        else:
            weight = weights[following >> 1]
        if reg.remake is not None:
            weight *= 0.5
        elif reg not in self.pieces:
            weight += weights[mentions[0] >> 1]
        return weight / (following - at + 1)

    def split(self, interval: Interval, at: int, now: int) -> None:
        """End an interval at a time and make pieces of what follows; those before `now` keep its place."""
        mentions = interval.mentions
        cut = bisect_left(mentions, at)
        if cut < len(mentions) and mentions[cut] >> 1 == at >> 1:
            cut = bisect_left(mentions, at & ~1)  # all of an instruction's mentions are in one piece
        past, future = mentions[:cut], mentions[cut:]
        if interval.reg not in self.pieces:
            self.pieces[interval.reg] = [interval]
            self.lives[interval.reg] = (interval.start, interval.end)
        known = self.pieces[interval.reg]
        starts: list[int] = []
        loop = self.live.loop_of[at >> 1]
        while loop is not None and 2 * loop.start >= interval.start:
            starts.append(loop.start)
            loop = loop.outer
        made: list[Interval] = []
        self.pieces_of(interval.reg, future, at >> 1, made)
        for start in starts:  # from the innermost outwards
            first = bisect_left(past, 2 * start)
            self.pieces_of(interval.reg, past[first:], start, made)
            past = past[:first]
        interval.mentions, interval.loop = past, None
        if past:
            interval.end = self.end_of(interval.start, past)
        else:
            known.remove(interval)
        for piece in made:
            known.append(piece)
            if piece.start < now:
                piece.place = interval.place
            else:
                self.serial += 1
                heappush(self.heap, (piece.start, 1, self.serial, piece))

    def pieces_of(self, reg: VReg, mentions: list[int], floor: int, made: list[Interval]) -> None:
        """Intervals for mentions behind the item `floor`, each reloaded before the loops that begin behind it."""
        loop_of, joins, items = self.live.loop_of, self.live.joins, self.code.items
        first = 0
        while first < len(mentions):
            start = mentions[first]
            if start & 1 and items[start >> 1].early:
                start -= 1
            loop = loop_of[start >> 1]
            while loop is not None and loop.start > floor:
                start = 2 * loop.start
                loop = loop.outer
            limit = len(items)
            for k in range(bisect_right(joins, (start >> 1, _NEVER)), len(joins)):
                label, branch = joins[k]
                if branch < start >> 1 or 2 * label > mentions[-1]:
                    limit = label
                    break
            behind = bisect_left(mentions, 2 * limit, first)
            part = mentions[first:behind]
            made.append(Interval(reg, start, self.end_of(start, part), part))
            first, floor = behind, limit

    def end_of(self, start: int, mentions: list[int]) -> int:
        end = mentions[-1] + 1
        seen: LoopRange | None = None
        for position in mentions:
            loop = self.live.loop_of[position >> 1] if position >= 0 else None
            if loop is not seen:
                seen = loop
                while loop is not None and 2 * loop.start >= start:
                    end = max(end, 2 * loop.end + 1)
                    loop = loop.outer
        return end


def _start(interval: Interval) -> int:
    return interval.start
