"""What is stricter than hardware: waits, initialised registers and LDS, bounds, alignment, races; and the counting.

Registers that need a look, because a load to them is under way or because not all their lanes were written, stand in
`watch`; an instruction whose registers are not there passes with one set operation.

Waits: every counter numbers its operations; a register written by a load carries its operation's number and may be
used when the counter is known to have passed it. Scalar loads return in any order, so only a wait for 0 passes them.
Races: every 4 bytes (or 1, once smaller accesses occur) carry who wrote and who read them last, and when.
Source: RDNA3 ISA manual, "Data dependency resolution"; CDNA3, "S_WAITCNT"; RDNA4, "Wait counters"; LLVM, AMDGPUUsage,
"Memory model".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import MemoryFault, ProgramError, UnsupportedError
from .waves import Group, Waves

if TYPE_CHECKING:
    from ..interface import Dispatch, Figures
    from .program import Op
    from .spaces import Lanes, Part

__all__ = ["Monitor"]

_WHO = (1 << 24) - 1
_MANY = _WHO
_LIMITS = {("gfx940", "lgkm"): 15, ("gfx12", "km"): 31}


class Monitor:
    """The checks and figures of one dispatch; `begin` starts a batch of workgroups."""

    def __init__(self, dispatch: Dispatch, figures: Figures):
        self.dispatch, self.figures = dispatch, figures
        self.step = 0
        self.global_shadow: dict[int, tuple[np.ndarray, ...] | None] = {}

    def begin(
        self, waves: Waves, exists: np.ndarray, initial: set[int], groups: int, first_group: int
    ) -> None:
        self.waves, self.exists = waves, exists
        self.group_base = first_group
        count = waves.count
        self.issued: dict[str, np.ndarray] = {}
        self.passed: dict[str, np.ndarray] = {}
        self.unordered: dict[str, np.ndarray] = {}
        self.pending: dict[int, dict[str, np.ndarray]] = {}
        vectors = range(256, 256 + len(waves.v))
        self.uninitialised: dict[int, np.ndarray | None] = dict.fromkeys(
            r for r in (*range(128), *vectors) if r not in initial
        )
        self.watch = set(self.uninitialised)
        self.epoch = np.ones(groups, np.int64)
        self.acquired = np.zeros(groups, np.int64)
        self.lds_unit, self.lds_written, self.lds_read = 4, None, None
        self.lds_stores: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
        self.count = count

    # -- errors ----------------------------------------------------------------------------------------------

    def error(
        self,
        g: Group,
        rule: str,
        detail: str,
        source: str,
        wave: int = 0,
        lane: int | None = None,
        address: int | None = None,
    ) -> ProgramError:
        x, y, z, number = (int(n) for n in self.waves.identity[wave])
        return ProgramError(
            rule, detail, source=source, kernel=self.dispatch.kernel_name, workgroup=(x, y, z), wave=number, lane=lane,
            pc=g.pc, instruction=str(g.op.inst) if g.op else "", address=address,
        )  # fmt: skip

    def unsupported(self, g: Group, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.dispatch.kernel_name}: {what} is not implemented; pc {g.pc:#x}, `{g.op.inst}`"
        )

    def fault(
        self, g: Group, fault: MemoryFault, address: np.ndarray, size: int, wave: np.ndarray, lane: np.ndarray
    ) -> ProgramError:
        reached = (address <= fault.address) & (address + np.uint64(size) > fault.address)
        k = int(reached.argmax()) if reached.any() else 0
        rule = (
            "permission" if "read-only" in fault.reason or "permission" in fault.reason else "out of bounds"
        )
        return self.error(g, rule, str(fault), "page tables", int(wave[k]), int(lane[k]), int(address[k]))

    def aligned(
        self, g: Group, address: np.ndarray, size: int, wave: np.ndarray, lane: np.ndarray | None, rule: str
    ) -> None:
        wrong = (address & address.dtype.type(size - 1)) != 0
        if wrong.any():
            k = int(wrong.argmax())
            where = int(address[k])
            raise self.error(g, "misaligned", f"address {where:#x}; {rule}", "ISA manual, memory alignment",
                             int(wave[k]), None if lane is None else int(lane[k]), where)  # fmt: skip

    def bounds(
        self,
        g: Group,
        kind: str,
        address: np.ndarray,
        size: int,
        limit: int,
        wave: np.ndarray,
        lane: np.ndarray,
    ) -> None:
        if not len(address) or (address.min() >= 0 and address.max() + size <= limit):
            return
        wrong = (address < 0) | (address + size > limit)
        k = int(wrong.argmax())
        where = int(address[k])
        detail = f"{size} bytes at {kind} offset {where:#x}, which has {limit} bytes"
        source = "ISA manual, LDS and scratch allocation"
        raise self.error(g, "out of bounds", detail, source, int(wave[k]), int(lane[k]), where)

    # -- registers -------------------------------------------------------------------------------------------

    def before(self, g: Group, op: Op) -> None:
        """Registers of an instruction that are watched: loads under way, lanes never written."""
        for r in op.registers & self.watch:
            for counter, tickets in self.pending.get(r, {}).items():
                if r not in op.reads and counter in op.counters:
                    continue  # in-order loads into one register
                late = tickets[g.w] > self.passed[counter][g.w]
                if late.any():
                    wave = self._wave(g, late)
                    raise self.error(g, "missing wait", f"{_name(r)} is used before its load is there ({counter}cnt)",
                                     "ISA manual, data dependency resolution", wave)  # fmt: skip
        if op.copies:
            return
        for r in op.needs & self.watch:
            if r not in self.uninitialised:
                continue
            known = self.uninitialised[r]
            if r < 128:
                wrong = np.ones(g.n, bool) if known is None else ~known[g.w]
                lanes = None
            else:
                active = self.exists[g.w] if op.all_lanes else g.mask & self.exists[g.w]
                lanes = active if known is None else active & ~known[g.w]
                wrong = lanes.any(axis=1)
            if wrong.any():
                k = int(wrong.argmax())
                lane = None if lanes is None else int(lanes[k].argmax())
                raise self.error(g, "uninitialised register", f"{_name(r)} was never written",
                                 "registers hold what the last wave left", self._wave(g, wrong), lane)  # fmt: skip

    def _wave(self, g: Group, wrong: np.ndarray) -> int:
        k = int(wrong.argmax())
        return k if g.all else int(g.w[k])

    def first(self, g: Group) -> int:
        """A wave of the group."""
        return 0 if g.all else int(g.w[0])

    def after(self, g: Group, op: Op) -> None:
        """Registers written for the first time."""
        for position, r in enumerate(op.written):
            if r not in self.uninitialised:
                continue
            source = op.copies[position] if op.copies and position < len(op.copies) else None
            known = self.uninitialised[r]
            if known is None:
                known = np.zeros(self.count, bool) if r < 128 else ~self.exists
                self.uninitialised[r] = known
            if r < 128:
                known[g.w] = True if source is None else self._known(source, g)
            else:
                mask = self.exists[g.w] if op.all_lanes else g.mask
                if source is not None:
                    mask = mask & self._known(source, g)
                known[g.w] |= mask
            if known.all():
                del self.uninitialised[r]
                if r not in self.pending:
                    self.watch.discard(r)

    def _known(self, r: int, g: Group) -> np.ndarray | bool:
        if r not in self.uninitialised:
            return True
        known = self.uninitialised[r]
        if known is None:
            return False
        return known[g.w]

    # -- waits -----------------------------------------------------------------------------------------------

    def issue(self, g: Group, op: Op) -> None:
        """A memory operation starts."""
        for counter in op.counters:
            if counter not in self.issued:
                for table in (self.issued, self.passed, self.unordered):
                    table[counter] = np.zeros(self.count, np.int64)
            issued = self.issued[counter]
            issued[g.w] += 1
            # A counter that is full keeps the next operation back.
            full = issued[g.w] - _LIMITS.get((self.waves.generation, counter), 63)
            ordered = self.unordered[counter][g.w] <= self.passed[counter][g.w]
            self.passed[counter][g.w] = np.maximum(self.passed[counter][g.w], np.where(ordered, full, 0))
            if op.out_of_order:
                self.unordered[counter][g.w] = issued[g.w]
            for r in op.loaded:
                tickets = self.pending.setdefault(r, {})
                if counter not in tickets:
                    tickets[counter] = np.zeros(self.count, np.int64)
                    self.watch.add(r)
                tickets[counter][g.w] = issued[g.w]

    def wait(self, g: Group, counts: dict[str, int]) -> None:
        """A wait until at most so many operations of each counter are under way."""
        moved = False
        for counter, count in counts.items():
            if counter not in self.issued:
                continue
            reached = self.issued[counter][g.w] - count
            if count:
                mixed = self.unordered[counter][g.w] > self.passed[counter][g.w]
                reached = np.where(mixed, 0, reached)
            self.passed[counter][g.w] = np.maximum(self.passed[counter][g.w], reached)
            moved = True
        for r in [*self.pending] if moved else ():
            tickets = self.pending[r]
            for counter in [c for c in counts if c in tickets]:
                if (tickets[counter] <= self.passed[counter]).all():
                    del tickets[counter]
            if not tickets:
                del self.pending[r]
                if r not in self.uninitialised:
                    self.watch.discard(r)

    # -- races -----------------------------------------------------------------------------------------------

    def fence(self, g: Group) -> None:
        """Caches are invalidated: what other workgroups wrote before may be read."""
        self.acquired[self.waves.workgroup[g.w]] = self.step

    def lds_access(
        self,
        g: Group,
        access: str,
        wave: np.ndarray,
        lane: np.ndarray,
        offsets: np.ndarray,
        size: int,
        lds: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if not len(offsets):
            return None
        doubts = None
        self._count_conflicts(g, wave, offsets, size)
        if self.lds_written is None:
            self.lds_written, self.lds_read = (np.zeros(len(lds) // 4 + 4, np.int64) for _ in range(2))
        if self.lds_unit == 4 and (size < 4 or (offsets & 3).any()):
            self.lds_unit = 1
            self.lds_written, self.lds_read = (np.repeat(x, 4) for x in (self.lds_written, self.lds_read))
            self.lds_stores = []
        unit = self.lds_unit
        who = wave.astype(np.int64) + 1
        if access != "read":
            counter = g.op.counters[0]
            issued = self.issued.get(counter)
            ticket = np.ones(len(wave), np.int64) if issued is None else issued[wave] + 1
            self.lds_stores += [
                (counter, wave, offsets // unit + k // unit, ticket) for k in range(0, size, unit)
            ]
        now = self.epoch[self.waves.workgroup[wave]] << 24
        for k in range(0, size, unit):
            place = offsets // unit + k // unit
            written = self.lds_written[place]
            if access != "write" and not written.all():
                raise self._race(g, wave, lane, offsets, written == 0, "uninitialised LDS", "was never written",
                                 "LDS holds what the last workgroup left")  # fmt: skip
            writer = written & _WHO
            clash = (written - writer == now) & (writer != who)
            read = self.lds_read[place]
            reader = read & _WHO
            stamp = now | who
            if access == "read":
                clash &= writer != _MANY  # written by atomics
                same = read - reader == now
                self.lds_read[place] = np.where(same & (reader != who) & (reader != 0), now | _MANY, stamp)
                again = self.lds_read[place]
                many = (again != stamp) & (again - (again & _WHO) == now)
                self.lds_read[place[many]] = now[many] | _MANY
            elif access == "write":
                self.lds_written[place] = stamp
                doubts = _doubt(doubts, clash, self.lds_written[place] != stamp)
                clash = (read - reader == now) & (reader != who)
            else:
                clash &= writer != _MANY
                self.lds_written[place] = now | _MANY
            if clash.any():
                raise self._race(g, wave, lane, offsets, clash, "LDS race", f"{access} meets another wave's access",
                                 "no barrier lies between them")  # fmt: skip
        return doubts

    def barrier(self, group: int) -> None:
        """A workgroup passes a barrier: what its waves still have under way counts as written behind it."""
        later, keep = self.epoch[group] + 1 << 24, []
        for counter, wave, place, ticket in self.lds_stores:
            late = ticket > self.passed[counter][wave]
            moved = late & (self.waves.workgroup[wave] == group)
            self.lds_written[place[moved]] = later | wave[moved] + 1
            if (late & ~moved).any():
                keep.append((counter, wave, place, ticket))
        self.lds_stores = keep
        self.epoch[group] += 1

    def write_race(self, g: Group, part: Part, at: Lanes, wrong: np.ndarray) -> None:
        """Writes of different waves (workgroups) to one place, with different values."""
        if wrong.any():
            rule = "LDS race" if part.space == "lds" else "race between workgroups"
            raise self._race(g, at.wave[part.where], at.lane[part.where], part.offsets, wrong, rule,
                             "write meets another's write", "no barrier lies between them")  # fmt: skip

    def _race(
        self,
        g: Group,
        wave: np.ndarray,
        lane: np.ndarray,
        offsets: np.ndarray,
        wrong: np.ndarray,
        rule: str,
        detail: str,
        source: str,
    ) -> ProgramError:
        k = int(wrong.argmax())
        where = int(offsets[k])
        if "LDS" in rule:
            where -= int(self.waves.workgroup[wave[k]]) * self.waves.spaces.stride
        return self.error(g, rule, f"offset {where:#x} {detail}" if "LDS" in rule else detail, source,
                          int(wave[k]), int(lane[k]), where)  # fmt: skip

    def _shadow(self, unit: int) -> tuple[np.ndarray, ...] | None:
        """Who wrote and who read last, for every unit of memory; None where there is no room for that."""
        if unit not in self.global_shadow:
            size = len(self.waves.spaces.memory.backing)
            try:  # untouched pages of zeros take no memory
                shadow = tuple(np.zeros(size // unit + 4, np.int64) for _ in range(2))
            except MemoryError:
                shadow = None
            self.global_shadow[unit] = shadow
        return self.global_shadow[unit]

    def global_access(
        self, g: Group, access: str, wave: np.ndarray, lane: np.ndarray, offsets: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Bytes and segments are counted; other workgroups' accesses to the same place are looked for."""
        figures, bytes_ = self.figures, size * len(offsets)
        if not bytes_:
            return None
        if access != "write":
            figures.bytes_read += bytes_
        if access != "read":
            figures.bytes_written += bytes_
        if g.op.vector:
            keys = (wave.astype(np.int64) << 40) + (offsets >> 6)
            figures.memory_segments += len(np.unique(keys)) * max(1, size // 64)
        local = self.waves.workgroup[wave]
        if access == "atomic":
            self.acquired[local] = self.step
            return None
        shadow = self._shadow(1 if size < 4 or (offsets & 3).any() else 4)
        if shadow is None:
            return None
        doubts = None
        written, read = shadow
        unit = 1 if size < 4 or (offsets & 3).any() else 4
        who = (local + self.group_base + 1).astype(np.int64)
        now, known = self.step << 24, self.acquired[local]
        for k in range(0, size, unit):
            place = offsets // unit + k // unit
            last = written[place]
            clash = (last != 0) & (last & _WHO != who) & (last >> 24 >= known)
            if access == "write":
                written[place] = now | who
                doubts = _doubt(doubts, clash, written[place] & _WHO != who)
                seen = read[place]
                clash = (seen != 0) & (seen & _WHO != who) & (seen >> 24 >= known)
            else:
                read[place] = now | who
            if clash.any():
                raise self._race(g, wave, lane, offsets, clash, "race between workgroups",
                                 f"{access} of what another workgroup accessed in this dispatch",
                                 "workgroups run in no order; LLVM, AMDGPUUsage, memory model")  # fmt: skip
        return doubts

    # -- figures ---------------------------------------------------------------------------------------------

    def _count_conflicts(self, g: Group, wave: np.ndarray, offsets: np.ndarray, size: int) -> None:
        """Cycles beyond one for each wave: the most different words that one of 32 banks must give."""
        if size > 8:
            return
        words = np.unique((wave.astype(np.int64) << 32) + (offsets >> 2))
        lines = (words >> 32) * 32 + (words & 31)
        most = np.zeros(self.count, np.int64)
        counts = np.bincount(lines, minlength=self.count * 32).reshape(-1, 32)
        most[: len(counts)] = counts.max(axis=1)[: self.count]
        half = 2 if self.waves.lanes == 64 else 1  # 32 lanes a cycle
        self.figures.lds_bank_conflicts += int(np.maximum(most - half * max(1, size // 4), 0).sum())


def _doubt(
    doubts: tuple[np.ndarray, np.ndarray] | None, earlier: np.ndarray, together: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Gather doubts over the words of an access; None where there is none."""
    if not (earlier.any() or together.any()):
        return doubts
    return (earlier, together) if doubts is None else (doubts[0] | earlier, doubts[1] | together)


def _name(r: int) -> str:
    r &= 0xFFF
    if r >= 256:
        return f"v{r - 256}"
    return (
        f"s{r}"
        if r < 106
        else {106: "vcc", 107: "vcc_hi", 124: "m0", 125: "m0"}.get(r, f"scalar register {r}")
    )
