"""Hazards: what hardware does not interlock, and how many wait states a program must put between.

A rule is a row: what the first instruction is and writes, what the second is and reads (or writes), and the wait
states between them, which for matrix instructions follow from the first one's passes. Wait states are instructions,
and what s_nop adds. A wave's history is the few last instructions; where waves join, all of theirs.
Source: CDNA3 ISA manual, 4.5 and tables 11 and 37; CDNA4, table 38; LLVM 22, GCNHazardRecognizer (what its code
generator provides for); RDNA3 manual, WMMA; LLVM, VALUTransUseHazard.
Not checked: s_setreg followed by s_getreg, VCCZ, and the scalar-register hazards of RDNA4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from tg_codegen.amdgpu.slots import RegisterSlot

from .operands import Operands, field, has, registers
from .waves import EXEC, VCC, Group

if TYPE_CHECKING:
    from .monitor import Monitor
    from .program import Op

__all__ = ["Hazards", "History", "hazards_of"]

_FURTHEST, _NEAR = 21, 6
_RARE = {"shifted", "trans", "wide store", "matrix"}  # first instructions that few programs have
_SOURCE = "ISA manual, manually inserted wait states; LLVM, GCNHazardRecognizer"
_EMPTY: frozenset[int] = frozenset()


class Hazards(NamedTuple):
    """What rules look at: kinds, register sets by name, wait states that the instruction itself is worth."""

    kinds: frozenset[str]
    sets: dict[str, frozenset[int]]
    states: int
    common: tuple[Rule, ...]  # rules in which this instruction is the second
    rare: tuple[Rule, ...]  # those after a rare first instruction
    passes: int


class Rule(NamedTuple):
    first: str
    writes: str
    second: str
    uses: str
    states: Callable[[int, bool], int]
    text: str


def _fixed(n: int) -> Callable[[int, bool], int]:
    return lambda passes, gfx950: n


def _xdl(passes: int, gfx950: bool) -> int:
    return passes + 3 + (gfx950 and passes != 2)


_CDNA = (
    Rule("valu", "scalars", "vmem", "scalars_in", _fixed(5), "VALU writes an SGPR that vector memory reads"),
    Rule("valu", "scalars", "lane", "select", _fixed(4), "VALU writes an SGPR that selects a lane"),
    Rule("valu", "scalars", "valu", "constants", _fixed(2), "VALU writes an SGPR that VALU reads as a constant"),
    Rule("valu", "vcc", "div_fmas", "vcc_in", _fixed(4), "VALU writes VCC before v_div_fmas"),
    Rule("valu", "vectors", "dpp", "permuted", _fixed(2), "VALU writes a VGPR that DPP reads"),
    Rule("valu", "exec", "dpp", "exec_in", _fixed(5), "VALU writes EXEC before DPP"),
    Rule("valu", "vectors", "readlane", "vectors_in", _fixed(1), "VALU writes a VGPR that v_readlane reads"),
    Rule("shifted", "vectors", "valu", "vectors_in", _fixed(1), "VALU places a result by op_sel or SDWA"),
    Rule("trans", "vectors", "plain", "vectors_in", _fixed(1), "a transcendental result is used by another VALU op"),
    Rule("wide store", "data", "valu", "vectors", _fixed(2), "VALU overwrites the data of a wide store"),
    Rule("salu", "m0", "m0 user", "m0_in", _fixed(1), "SALU writes M0 before its use"),
    Rule("plain", "vectors", "matrix", "vectors_in", _fixed(2), "VALU writes a VGPR that a matrix instruction reads"),
    Rule("xdl", "vectors", "matrix", "ab", _xdl, "a matrix result is A or B of another"),
    Rule("xdl", "vectors", "matrix", "c_other", lambda p, new: p + 1 + (new and p != 2), "a result overlaps a C"),
    Rule("xdl", "vectors", "not matrix", "vectors_all", _xdl, "a matrix result is used"),
    Rule("sgemm", "vectors", "matrix", "ab", lambda p, new: p + 2, "a matrix result is A or B of another"),
    Rule("sgemm", "vectors", "matrix", "c_other", lambda p, new: p, "a matrix result overlaps another's C"),
    Rule("sgemm", "vectors", "not matrix", "vectors_all", lambda p, new: p + 2, "a matrix result is used"),
    Rule("dgemm", "vectors", "matrix", "ab", lambda p, new: 6 if p == 4 else p + 3, "a matrix result is A or B"),
    Rule("dgemm", "vectors", "valu", "vectors_all", lambda p, new: 6 if p == 4 else p + 3, "a matrix result is used"),
    Rule("dgemm", "vectors", "memory", "vectors_in", lambda p, new: 9 if p == 4 else p + 10, "a result is stored"),
    Rule("matrix", "c", "plain", "vectors", lambda p, new: p - 1, "VALU overwrites C of a matrix instruction"),
)  # fmt: skip
_WMMA = Rule("matrix", "vectors", "matrix", "ab", _fixed(1), "a matrix result is A or B of the next")
_RULES = {"gfx940": _CDNA, "gfx11": (_WMMA,), "gfx12": (_WMMA,)}


def hazards_of(op: Op, ops: Operands) -> Hazards:
    inst, row = op.inst, op.inst.row
    name, format_name = row.mnemonic, row.format.name
    kinds, matrix = {op.kind}, op.kind == "matrix"
    vector_out = frozenset(r & 0xFFF for r in op.writes if r & 0xFFF >= 256)
    vector_in = frozenset(r & 0xFFF for r in op.reads | op.needs if r & 0xFFF >= 256)
    scalar_out = frozenset(r for r in op.writes if r < 128)
    sets = {"vectors": vector_out, "vectors_in": vector_in, "vectors_all": vector_out | vector_in}
    if op.kind == "valu":
        sets |= {"scalars": scalar_out, "vcc": scalar_out & {VCC, VCC + 1}}
        sets["exec"] = frozenset({EXEC}) if "EXEC" in row.writes else _EMPTY
        kinds |= {"trans"} if "q" in row.flags else {"plain"}
        selects = has(inst, "op_sel") and field(inst, "seld") and format_name[:5] != "VOP3P"
        if selects or ("_SDWA" in format_name and field(inst, "dst_sel", 6) != 6):
            kinds.add("shifted")
        masks = {
            s
            for s in row.operands
            if isinstance(s, RegisterSlot)
            and s.kind.bits == ops.lanes
            and s.kind.type in ("", "sdwa")
            and s.kind.banks == "s"
        }
        constants = (
            registers(inst, s, ops.accumulators) for s in row.operands if not s.writes and s not in masks
        )
        sets["constants"] = frozenset(r for words in constants for r in words if r < 128)
    if ops.dpp is not None:
        kinds.add("dpp")
        sets |= {"permuted": vector_in, "exec_in": frozenset({EXEC})}
    if name in ("v_readlane_b32", "v_writelane_b32", "v_readfirstlane_b32"):
        kinds |= {"readlane"} if "read" in name else set()
        if len(row.operands) > 2:
            kinds.add("lane")
            sets["select"] = frozenset(
                r for r in registers(inst, row.operands[2], ops.accumulators) if r < 128
            )
            sets["constants"] = _EMPTY
    if "div_fmas" in name:
        kinds.add("div_fmas")
        sets["vcc_in"] = frozenset({VCC, VCC + 1})
    if op.kind in ("vmem", "lds"):
        kinds.add("memory")
        sets["scalars_in"] = frozenset(r for r in op.reads if r < 128)
        stored = [
            registers(inst, s, ops.accumulators)
            for s in row.operands
            if s.name in ("vdata", "data0") and not s.writes
        ]
        if op.kind == "vmem" and stored and len(stored[0]) > 2:
            kinds.add("wide store")
            sets["data"] = frozenset(stored[0])
    m0 = 124 if ops.generation == "gfx940" else 125
    if op.kind == "salu":
        sets["m0"] = scalar_out & {m0}
    if (
        (m0 in op.needs and (op.kind == "vmem" or "addtid" in name))
        or "movrel" in name
        or name.startswith("s_sendmsg")
    ):
        kinds.add("m0 user")
        sets["m0_in"] = frozenset({m0})
    if matrix:
        kinds.add(
            "dgemm" if "f64" in name else "sgemm" if name.endswith("_f32") and "xf32" not in name else "xdl"
        )
        slots = {s.name: frozenset(registers(inst, s, ops.accumulators)) for s in row.operands}
        c = slots.get("src2", _EMPTY) if "smfmac" not in name and "swmmac" not in name else vector_out
        index = (
            slots.get("idx", slots.get("src2", _EMPTY)) if "mmac" in name and "mfma" not in name else _EMPTY
        )
        scales = slots.get("scale_src0", _EMPTY) | slots.get("scale_src1", _EMPTY)
        sets["ab"] = slots["src0"] | slots["src1"] | (index if "mmac" in name else _EMPTY) | scales
        sets["c"] = sets["c_other"] = c
    else:
        kinds.add("not matrix")
    states = 1 + (field(inst, "simm16") & 15 if name == "s_nop" else 0)
    rules = tuple(rule for rule in _RULES[ops.generation] if rule.second in kinds and sets.get(rule.uses))
    rare = tuple(rule for rule in rules if rule.first in _RARE | {"xdl", "sgemm", "dgemm"})
    common = tuple(rule for rule in rules if rule not in rare)
    return Hazards(frozenset(kinds), sets, states, common, rare, op.passes)


class History:
    """The last instructions of waves that stand together, with the wait state at which each was issued."""

    __slots__ = ("clock", "entries", "rare_clock")

    def __init__(self) -> None:
        self.clock, self.rare_clock = 0, -100
        self.entries: deque[tuple[int, Op]] = deque(maxlen=24)

    @staticmethod
    def join(histories: list[History]) -> History:
        """What any of the waves has just executed."""
        out = History()
        out.clock = max(h.clock for h in histories)
        merged = [(clock + out.clock - h.clock, op) for h in histories for clock, op in h.entries]
        out.entries = deque(sorted(merged, key=lambda entry: entry[0]), maxlen=24 * len(histories))
        out.rare_clock = max(h.rare_clock + out.clock - h.clock for h in histories)
        return out

    def step(self, op: Op, g: Group, monitor: Monitor) -> None:
        hazards = op.hazards
        if hazards.rare and self.clock - self.rare_clock < _FURTHEST:
            self._check(op, hazards.rare, _FURTHEST, g, monitor)
        if hazards.common:
            self._check(op, hazards.common, _NEAR, g, monitor)
        self.entries.append((self.clock, op))
        if not _RARE.isdisjoint(hazards.kinds):
            self.rare_clock = self.clock
        self.clock += hazards.states

    def _check(self, op: Op, rules: tuple[Rule, ...], reach: int, g: Group, monitor: Monitor) -> None:
        sets, gfx950 = op.hazards.sets, monitor.dispatch.target == "gfx950"
        for clock, first in reversed(self.entries):
            between = self.clock - clock - 1
            if between >= reach:
                return
            earlier = first.hazards
            for rule in rules:
                if rule.first not in earlier.kinds:
                    continue
                met = earlier.sets.get(rule.writes, _EMPTY) & sets[rule.uses]
                if not met or between >= (need := rule.states(earlier.passes, gfx950)):
                    continue
                if (
                    rule.uses == "c_other"
                    and earlier.sets["vectors"] == sets["c"]
                    and earlier.passes == op.passes
                ):
                    continue  # accumulation goes on without waiting
                raise monitor.error(g, "missing wait states", f"{rule.text}: {between} wait states after "
                                    f"`{first.inst}`, want {need}", _SOURCE,
                                    monitor.first(g))  # fmt: skip
