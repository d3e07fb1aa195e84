"""Where virtual registers live in selected code: one interval each, without holes.

Item i reads at position 2i and writes at 2i + 1; an early write happens at 2i. An interval [start, end) reaches from
the first write to behind the last mention. A register that is mentioned in a loop and was written before the loop lives
to the loop's end, since the next turn may want it. A fixed register that is read and never written before is an
argument: it lives from position -1. One pass over the list.
"""

from __future__ import annotations

from tg_codegen.machine.code import Code, Inst, Label, LoopEnd, LoopStart, VReg

__all__ = ["Interval", "Liveness", "LoopRange", "analyse_liveness"]


class LoopRange:
    """A loop from the index of its `LoopStart` to that of its `LoopEnd`."""

    __slots__ = ("end", "outer", "start", "through")

    def __init__(self, start: int, outer: LoopRange | None):
        self.start, self.end, self.outer = start, -1, outer
        self.through: list[Interval] = []


class Interval:
    """The life of a register, or a part of it, that is spent in one place.

    `mentions` are the positions of its reads (even) and writes (odd) in order. `place`, a bit of its file, and what it
    would cost to lose it in a loop belong to register allocation.
    """

    __slots__ = ("end", "loop", "loop_weight", "mentions", "place", "reg", "start")

    def __init__(self, reg: VReg, start: int, end: int, mentions: list[int]):
        self.reg, self.start, self.end, self.mentions = reg, start, end, mentions
        self.place = -1
        self.loop: LoopRange | None = None
        self.loop_weight = 0.0


class Liveness:
    """What one pass over the code finds.

    `intervals` has every register; `loop_of[i]` is the innermost loop of item i; `weights[i]` is 10 to the depth of
    loops, an estimate of how often item i runs; `joins` are pairs (index of a label, index of the first branch to it).
    """

    __slots__ = ("intervals", "joins", "loop_of", "weights")

    def __init__(self) -> None:
        self.intervals: dict[VReg, Interval] = {}
        self.loop_of: list[LoopRange | None] = []
        self.weights: list[float] = []
        self.joins: list[tuple[int, int]] = []


def analyse_liveness(code: Code) -> Liveness:
    """The intervals of every register that the code mentions."""
    live = Liveness()
    intervals, loop_of, weights = live.intervals, live.loop_of, live.weights
    branches: dict[str, int] = {}
    loop: LoopRange | None = None
    inside = -2  # the position of the innermost loop's start
    weight = 1.0
    for index, item in enumerate(code.items):
        if item.__class__ is Inst:
            read = index + index
            written = read + 1
            for reg in item.uses:
                interval = intervals.get(reg)
                if interval is None:
                    assert reg.fixed is not None, (
                        f"{code.name}: {reg} is read before it is written, by {item.opcode}"
                    )
                    interval = intervals[reg] = Interval(reg, -1, 0, [-1])
                interval.mentions.append(read)
                if interval.end < written:
                    interval.end = written
                if interval.start < inside:
                    _live_through(interval, loop)
            for reg in item.defs:
                interval = intervals.get(reg)
                if interval is None:
                    start = read if item.early else written
                    intervals[reg] = Interval(reg, start, written + 1, [written])
                else:
                    interval.mentions.append(written)
                    if interval.end <= written:
                        interval.end = written + 1
                    if interval.start < inside:
                        _live_through(interval, loop)
            if not item.defs and not item.memory:
                for operand in item.operands:
                    if operand.__class__ is str:
                        branches.setdefault(operand, index)
        elif item.__class__ is LoopStart:
            loop = LoopRange(index, loop)
            inside = index + index
            weight *= 10.0
        elif item.__class__ is LoopEnd:
            assert loop is not None, f"{code.name}: loop {item.name} ends and has not begun"
            loop.end = index
            loop_of.append(loop)
            weights.append(weight)
            for interval in loop.through:
                interval.end = index + index + 1
            loop = loop.outer
            inside = -2 if loop is None else loop.start * 2
            weight /= 10.0
            continue
        elif item.__class__ is Label and item.name in branches:
            live.joins.append((index, branches[item.name]))
        loop_of.append(loop)
        weights.append(weight)
    assert loop is None, f"{code.name}: a loop has no end"
    weights.append(1.0)  # weights[-1] is that of the entry
    return live


def _live_through(interval: Interval, loop: LoopRange | None) -> None:
    while loop is not None and loop.start * 2 > interval.start:
        outermost, loop = loop, loop.outer
    if not outermost.through or outermost.through[-1] is not interval:
        outermost.through.append(interval)
