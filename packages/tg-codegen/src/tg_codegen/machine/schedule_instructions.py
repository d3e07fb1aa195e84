"""Order the instructions of straight-line runs so that results are ready when they are read: list scheduling.

A run ends at what is no instruction, at an instruction without results and memory accesses (a branch, a wait, a
comparison for its flags) and where the target gives no latency. In a run, one instruction issues a cycle: of those
whose operands are ready, the one with the longest way of latencies to the run's end, in source order on ties. One that
would need more registers than there are waits until a register is free. An order that still needs more registers than
the file has, and more than the source order, is given up for the source order.

Memory: a store stays behind the loads and stores before it; a load may move up over stores, since a kernel reads what
its buffers held before. Scratch memory keeps its order but for loads among each other. Fixed registers and clobbers are
places: whatever has the same place keeps its order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from itertools import accumulate

from tg_codegen.machine.code import Code, Inst, VReg
from tg_codegen.machine.liveness import Interval, analyse_liveness

__all__ = ["schedule_instructions"]


def schedule_instructions(
    code: Code, latency: Callable[[Inst], int | None], limits: Mapping[str, int]
) -> Code:
    """The code in a better order.

    `latency` gives the cycles until an instruction's result can be read, or None for one that must stay where it is;
    `limits` how many registers of a file there are.
    """
    live = analyse_liveness(code)
    pressure = _pressure(live.intervals, limits, 2 * len(code.items) + 3)
    items: list = []
    run: list[Inst] = []
    cycles: list[int] = []
    for index, item in enumerate([*code.items, None]):
        wait = latency(item) if item.__class__ is Inst and (item.defs or item.memory) else None
        if wait is not None and item.memory != "barrier":
            run.append(item)
            cycles.append(wait)
            continue
        if len(run) > 2:
            run = _Run(run, cycles, index, live.intervals, pressure, limits).order()
        items += run
        run, cycles = [], []
        if item is not None:
            items.append(item)
    return Code(code.name, items, code.scratch_bytes)


def _pressure(
    intervals: dict[VReg, Interval], limits: Mapping[str, int], positions: int
) -> dict[str, list[int]]:
    """How many registers of each file are taken at each position."""
    steps = {file: [0] * positions for file in limits}
    for reg, interval in intervals.items():
        if reg.file in steps:
            steps[reg.file][max(interval.start, 0)] += reg.units
            steps[reg.file][interval.end] -= reg.units
    return {file: list(accumulate(step)) for file, step in steps.items()}


class _Run:
    """One run: `behind` is the index of the item that follows it."""

    def __init__(
        self,
        run: list[Inst],
        cycles: list[int],
        behind: int,
        intervals: dict[VReg, Interval],
        pressure: dict[str, list[int]],
        limits: Mapping[str, int],
    ):
        self.run, self.cycles, self.intervals = run, cycles, intervals
        self.first = behind - len(run)
        first = 2 * self.first
        self.ends_by = 2 * behind  # what ends until here is not read behind the run
        self.live = {file: pressure[file][first] for file in limits}
        self.limits = {
            file: max(limit, max(pressure[file][first : self.ends_by])) for file, limit in limits.items()
        }
        self.goals = limits
        self.followers: list[list[tuple[int, int]]] = [[] for _ in run]
        self.waiting_for = [0] * len(run)
        self.begun = {reg for inst in run for reg in (*inst.uses, *inst.defs) if intervals[reg].start < first}
        self.mentions: dict[VReg, int] = {}

    def order(self) -> list[Inst]:
        self._find_dependences()
        heights = self.cycles[:]
        for i in range(len(heights) - 1, -1, -1):
            for follower, wait in self.followers[i]:
                heights[i] = max(heights[i], wait + heights[follower])
        order: list[Inst] = []
        earliest = [0] * len(self.run)
        ready: list[tuple[int, int]] = []  # (-height, index) of what can issue now
        later = [(0, i) for i, count in enumerate(self.waiting_for) if not count]  # (cycle, index)
        heapify(later)
        held: list[tuple[int, int]] = []  # what waits for a register, the most urgent first
        held_in_order: list[int] = []  # the same in source order; in both, what has left is skipped
        is_held = [False] * len(self.run)
        time = 0
        while len(order) < len(self.run):
            while later and (later[0][0] <= time or not ready):
                _, i = heappop(later)
                heappush(ready, (-heights[i], i))
            if ready:
                _, i = heappop(ready)
                if not self._fits(i):
                    heappush(held, (-heights[i], i))
                    heappush(held_in_order, i)
                    is_held[i] = True
                    continue
            else:
                i = heappop(held_in_order)
                if not is_held[i]:
                    continue
                is_held[i] = False
            order.append(self.run[i])
            time = max(time, earliest[i]) + 1
            for follower, wait in self.followers[i]:
                earliest[follower] = max(earliest[follower], time - 1 + wait)
                self.waiting_for[follower] -= 1
                if not self.waiting_for[follower]:
                    heappush(later, (earliest[follower], follower))
            freed = self._issue(i)
            if freed < 0:
                return self.run
            while freed > 0 and held:
                entry = heappop(held)
                if is_held[entry[1]]:
                    is_held[entry[1]] = False
                    heappush(ready, entry)
                    freed -= 1
        return order

    def _find_dependences(self) -> None:
        written: dict[object, int] = {}
        read: dict[object, list[int]] = {}
        mentions, cycles = self.mentions, self.cycles
        memory: dict[str, list[int]] = {"load": [], "scratch load": []}
        store: dict[str, int] = {}
        for i, inst in enumerate(self.run):
            for reg in inst.uses:
                mentions[reg] = mentions.get(reg, 0) + 1
                key = reg if reg.fixed is None else (reg.file, reg.fixed)
                if key in written:
                    self._follow(written[key], i, cycles[written[key]])
                read.setdefault(key, []).append(i)
            # Where a value dies in its tied use no copy is needed: its other reads stay in front.
            for d, u in inst.tied:
                source = inst.uses[u]
                if source is not inst.defs[d] and self.intervals[source].end == 2 * (self.first + i) + 1:
                    for reader in read.get(source, ()):
                        self._follow(reader, i, 0)
            for reg in inst.defs:
                mentions[reg] = mentions.get(reg, 0) + 1
            keys = [reg if reg.fixed is None else (reg.file, reg.fixed) for reg in inst.defs]
            for key in (*keys, *inst.clobbers) if inst.clobbers else keys:
                if key in written:
                    self._follow(written[key], i, 1)
                for reader in read.pop(key, ()):
                    self._follow(reader, i, 0)
                written[key] = i
            if inst.memory:
                space = "scratch " if inst.memory.startswith("scratch") else ""
                if inst.memory.endswith("store"):
                    for load in memory[space + "load"]:
                        self._follow(load, i, 0)
                    memory[space + "load"].clear()
                    if space in store:
                        self._follow(store[space], i, 0)
                    store[space] = i
                else:
                    memory[inst.memory].append(i)
                    if space and space in store:
                        self._follow(store[space], i, 1)

    def _follow(self, before: int, behind: int, wait: int) -> None:
        if before != behind:
            self.followers[before].append((behind, wait))
            self.waiting_for[behind] += 1

    def _change(self, i: int) -> dict[str, list[int]]:
        """How many registers more an instruction needs while it writes, and leaves taken."""
        inst, change, mentions, intervals = self.run[i], {}, self.mentions, self.intervals
        for reg in inst.defs:
            if reg not in self.begun:
                more = change.setdefault(reg.file, [0, 0])
                more[0] += reg.units
                more[1] += reg.units
        for reg in {*inst.uses, *inst.defs}:
            left = mentions[reg] - inst.uses.count(reg) - inst.defs.count(reg)
            if not left and intervals[reg].end <= self.ends_by:
                more = change.setdefault(reg.file, [0, 0])
                more[1] -= reg.units
                if not inst.early and reg not in inst.defs:
                    more[0] -= reg.units
        return change

    def _fits(self, i: int) -> bool:
        for file, (more, _) in self._change(i).items():
            if more > 0 and file in self.live and self.live[file] + more > self.goals[file]:
                return False
        return True

    def _issue(self, i: int) -> int:
        """Account for an instruction; how many registers it freed, or -1 when it took more than there may be."""
        freed, mentions, live = 0, self.mentions, self.live
        inst = self.run[i]
        for file, (more, left) in self._change(i).items():
            if file in live:
                if more > 0 and live[file] + more > self.limits[file]:
                    return -1
                live[file] += left
                freed -= min(left, 0)
        self.begun.update(inst.defs)
        for reg in (*inst.uses, *inst.defs):
            mentions[reg] -= 1
        return freed
