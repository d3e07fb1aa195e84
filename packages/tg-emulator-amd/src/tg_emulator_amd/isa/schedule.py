"""Run the waves of some workgroups to their end, in groups that stand at one pc.

The group furthest behind runs until it branches, waits at a barrier, ends, or reaches the pc of another group, with
which it then goes on together. Now and then the wave that has executed least goes first, so that a wave that spins
cannot keep back the one it waits for.
"""

from __future__ import annotations

import numpy as np

from tg_codegen.errors import DecodeError

from ..errors import MemoryFault, ProgramError, UnsupportedError
from .hazards import History
from .monitor import Monitor
from .program import Op, decode
from .waves import Group, Waves

__all__ = ["run_waves"]

RUNNING, WAITING, ENDED = range(3)
_FAR = 1 << 62
_LONGEST = 20


class Code:
    """The ops of a program by address."""

    def __init__(self, memory: object, target: str, lanes: int, accumulators: int, vgprs: int):
        self.memory, self.key, self.vgprs = memory, (target, lanes, accumulators), vgprs
        self.ops: dict[int, Op] = {}

    def at(self, pc: int) -> Op:
        op = self.ops.get(pc)
        if op is None:
            for size in (_LONGEST, 16, 12, 8, 4):
                try:
                    self.memory.check(pc, size, "execute")
                except MemoryFault:
                    if size == 4:
                        raise
                    continue
                code = bytes(self.memory.read(pc, size))
                try:
                    op = decode(*self.key, code)
                except DecodeError as error:
                    raise ProgramError(
                        "illegal instruction", str(error), source="ISA manual", pc=pc
                    ) from error
                except UnsupportedError as error:
                    raise UnsupportedError(f"pc {pc:#x}: {error}") from error
                break
            highest = max((r & 0xFFF for r in op.registers), default=0) - 256
            if highest >= self.vgprs:
                raise ProgramError(
                    "unallocated register",
                    f"v{highest}, of {self.vgprs} that the kernel has",
                    source="kernel descriptor, granulated VGPR count",
                    pc=pc,
                    instruction=str(op.inst),
                )
            self.ops[pc] = op
        return op


def run_waves(waves: Waves, code: Code, monitor: Monitor, limit: int) -> None:
    """Raises: ProgramError, and what decoding raises."""
    state = np.zeros(waves.count, np.int8)
    steps = np.zeros(waves.count, np.int64)
    shared: History | None = History()  # of all waves, or each wave's own
    history: list[History] = []
    waves.signalled, waves.waited = np.zeros((2, waves.count), np.int64)
    turn = 0
    while True:
        running = np.nonzero(state == RUNNING)[0]
        if not len(running) or (turn & 15) == 0:
            if _release(waves, state, monitor):
                running = np.nonzero(state == RUNNING)[0]
            elif not len(running):
                if (state == ENDED).all():
                    return
                raise _deadlock(waves, state, monitor)
        turn += 1
        pcs = waves.pc[running]
        pc = int(pcs[steps[running].argmin()]) if turn % 64 == 0 else int(pcs.min())
        here = running[pcs == pc]
        if len(here) > 1:
            modes = waves.mode[here]
            here = here[modes == modes[0]]
        later = pcs[pcs > pc]
        stop = int(later.min()) if len(later) else _FAR
        g = Group(waves, here)
        if g.all and shared is not None:
            past = shared
        else:
            history = [shared] * waves.count if shared is not None else history
            past = History.join(list({id(history[w]): history[w] for w in here}.values()))
        count = _run_group(g, pc, stop, code, monitor, past, int(steps[here].max()), limit)
        steps[here] += count
        shared = past if g.all else None
        for w in () if g.all else here:
            history[w] = past
        _settle(g, here, waves, state, monitor)


def _run_group(
    g: Group, pc: int, stop: int, code: Code, monitor: Monitor, past: History, done_before: int, limit: int
) -> int:
    """Run ops until the group parts, ends, waits or meets others; how many."""
    ops, watch, figures = code.ops, monitor.watch, monitor.figures
    counts = dict.fromkeys(figures.instructions, 0)
    done, budget = 0, limit - done_before
    cycles = matrix = 0
    while True:
        op = ops.get(pc) or code.at(pc)
        g.pc, g.op = pc, op
        monitor.step += 1
        done += 1
        watched = not op.registers.isdisjoint(watch)
        if watched:
            monitor.before(g, op)
        past.step(op, g, monitor)
        op.run(g)
        if watched:
            monitor.after(g, op)
        if op.counters:
            monitor.issue(g, op)
        counts[op.kind] = counts.get(op.kind, 0) + 1
        cycles += op.cycles
        matrix += op.passes
        pc += op.size
        if done >= budget:
            raise monitor.error(g, "stuck wave", f"{limit} instructions without an end", "watchdog",
                                monitor.first(g))  # fmt: skip
        if op.ends:
            if g.target is None:
                g.target = pc
            break
        if pc == stop:
            g.target = pc
            break
    for kind, count in counts.items():
        if count:
            figures.instructions[kind] = figures.instructions.get(kind, 0) + count * g.n
    figures.issue_cycles += cycles * g.n
    figures.matrix_cycles += 4 * matrix * g.n
    return done


def _settle(g: Group, here: np.ndarray, waves: Waves, state: np.ndarray, monitor: Monitor) -> None:
    """What the last op of a group asked for."""
    waves.pc[here] = g.target
    if g.event == "end":
        state[here] = ENDED
        short = waves.signalled[here]
        for w, count in zip(here, short, strict=True):
            mates = waves.workgroup == waves.workgroup[w]
            if (waves.signalled[mates & (state == WAITING)] > count).any():
                raise monitor.error(g, "barrier misuse", "the wave ends while others of its workgroup wait for it",
                                    "ISA manual, S_BARRIER", int(w))  # fmt: skip
    elif g.event == "wait":
        state[here] = WAITING
    elif g.event == "trap":
        raise monitor.error(g, "trap", "the program gave up", "S_TRAP", int(here[0]))


def _release(waves: Waves, state: np.ndarray, monitor: Monitor) -> bool:
    """Let workgroups pass whose waves have all arrived."""
    waiting = state == WAITING
    if not waiting.any():
        return False
    released = False
    for group in np.unique(waves.workgroup[waiting]):
        mates = waves.workgroup == group
        alive = mates & (state != ENDED)
        chosen = mates & waiting
        need = waves.waited[chosen].min() + 1
        if (waves.signalled[alive] >= need).all():
            ended = mates & (state == ENDED) & (waves.signalled < need)
            if ended.any():
                w = int(np.nonzero(chosen)[0][0])
                g = Group(waves, np.array([w]))
                raise monitor.error(g, "barrier misuse", "a wave of the workgroup has ended without the barrier",
                                    "ISA manual, S_BARRIER", int(np.nonzero(ended)[0][0]))  # fmt: skip
            passing = chosen & (waves.waited < need)
            waves.waited[passing] = need
            state[passing] = RUNNING
            monitor.barrier(int(group))
            released = True
    return released


def _deadlock(waves: Waves, state: np.ndarray, monitor: Monitor) -> ProgramError:
    w = int(np.nonzero(state == WAITING)[0][0])
    g = Group(waves, np.array([w]))
    g.pc = int(waves.pc[w])
    return monitor.error(
        g,
        "barrier misuse",
        "the wave waits for a barrier that others never reach",
        "ISA manual, S_BARRIER",
        w,
    )
