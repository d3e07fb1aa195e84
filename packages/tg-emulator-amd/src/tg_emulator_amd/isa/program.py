"""Decoding: an instruction becomes an `Op`, which runs it and says what checks and figures need to know of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.isa import isa
from tg_codegen.amdgpu.slots import RegisterSlot, Slot, WordSlot

from ..errors import UnsupportedError
from .access import compile_memory, compile_scalar_memory
from .arithmetic import SCALAR, VECTOR, compile_scalar, compile_vector, semantics
from .control import compile_control
from .hazards import Hazards, hazards_of
from .lanes import compile_lanes
from .matrix import compile_matrix, passes_of
from .operands import Operands, registers
from .scaled import compile_scaled
from .waves import VCC, Group

__all__ = ["Op", "decode"]

_COPIES = {"v_mov_b32", "v_mov_b64", "s_mov_b32", "s_mov_b64", "v_accvgpr_read_b32", "v_accvgpr_write_b32",
           "v_accvgpr_mov_b32", "v_mov_b16"}  # fmt: skip
LOW, HIGH = 1 << 12, 1 << 13
_NARROW = re.compile(r"(store|write)_(?:d16_hi_)?(?:b8|b16|byte|short)|d16")
_ENDS = {
    "s_setpc_b64",
    "s_swappc_b64",
    "s_call_b64",
    "s_branch",
    "s_endpgm",
    "s_barrier",
    "s_barrier_wait",
    "s_trap",
}
_READ_OLD = {"v_swap_b32", "v_swap_b16", "v_permlane16_swap_b32", "v_permlane32_swap_b32"}
# (family, whether it stores without returning) -> counters. Scalar loads return in any order.
_COUNTERS = {
    "gfx940": {"SMEM": ("lgkm",), "DS": ("lgkm",), "flat": ("vm", "lgkm"), "load": ("vm",), "store": ("vm",)},
    "gfx11": {"SMEM": ("lgkm",), "DS": ("lgkm",), "flat": ("vm", "lgkm"), "load": ("vm",), "store": ("vs",)},
    "gfx12": {"SMEM": ("km",), "DS": ("ds",), "flat": ("load", "ds"), "load": ("load",), "store": ("store",)},
}


class Op:
    """One decoded instruction. Registers are numbered as in operands.registers."""

    __slots__ = (
        "all_lanes",
        "copies",
        "counters",
        "cycles",
        "ends",
        "hazards",
        "inst",
        "kind",
        "loaded",
        "needs",
        "out_of_order",
        "passes",
        "reads",
        "registers",
        "run",
        "size",
        "vector",
        "writes",
        "written",
    )

    run: Callable[[Group], None]
    hazards: Hazards

    def __init__(self, inst: Instruction, ops: Operands, target: str):
        self.inst, self.size = inst, inst.size_bytes
        row = inst.row
        family = row.format.name.partition("_")[0].partition(".")[0]
        name = row.mnemonic
        self.kind = _kind(family, name, row.flags)
        self._operands(inst, ops, name)
        self.vector = family in ("FLAT", "MUBUF", "MTBUF")
        self.counters: tuple[str, ...] = ()
        table = _COUNTERS[ops.generation]
        if "l" in row.flags or "s" in row.flags or family in ("SMEM", "DS"):
            if family in ("SMEM", "DS"):
                self.counters = table[family] if "k" in row.flags else ()
            elif self.vector and row.flags.strip("e"):
                store = (
                    "s" in row.flags and not row.operands[0].writes and "l" not in row.flags.replace("ls", "")
                )
                store = store or ("n" in row.flags)
                self.counters = (
                    table["flat"] if name.startswith("flat") else table["store" if store else "load"]
                )
                if name.startswith("flat") and store and ops.generation != "gfx940":
                    self.counters = (table["store"][0], self.counters[1])
        self.out_of_order = family == "SMEM"
        narrow = ops.generation != "gfx940" and _NARROW.search(name)
        self.loaded = frozenset(r for r in self.writes if r < 128 or r & (LOW | HIGH) or not narrow)
        self.loaded = self.loaded if self.counters else frozenset()
        self.all_lanes = (
            "mfma" in name
            or "wmma" in name
            or "mmac" in name
            or name in ("v_writelane_b32", "v_readlane_b32")
        )
        self.ends = name in _ENDS or "cbranch" in name or name.startswith(("s_endpgm", "s_setreg"))
        self.passes = passes_of(inst, target) if self.kind == "matrix" else 0
        self.cycles = _issue_cycles(self, ops)
        self.hazards = hazards_of(self, ops)

    def _operands(self, inst: Instruction, ops: Operands, name: str) -> None:
        row = inst.row
        core = name.removeprefix("v_").removeprefix("s_")
        meaning = semantics(VECTOR).get(core) if name[0] == "v" else semantics(SCALAR).get(core)
        reads_old = name in _READ_OLD or "mmac" in name or (meaning is not None and meaning.old)
        needs, written, read_keys, written_keys = set(), [], set(), set()
        vcc = tuple(range(VCC, VCC + ops.lanes // 32))
        for slot in row.operands:
            words = registers(inst, slot, ops.accumulators)
            if isinstance(slot, WordSlot) and slot.word.startswith("vcc"):
                words = vcc
            keys = _keys(words, _half_of(inst, slot, name), ops.generation)
            if slot.writes:
                written += words
                written_keys.update(keys)
                if reads_old:
                    needs.update(words)
            else:
                read_keys.update(keys)
                # Compilers multiply and add 32 bits with an undefined upper half of the addend, and spill what was
                # never written: in lanes that are off, and registers that a caller may use.
                spilled = name.startswith("scratch_store") and slot.name == "vdata"
                half = "64_" in name and "_mad_" in name and len(words) == 2
                needs.update(() if spilled else words[:1] if half else words)
        implicit = set(vcc) if "VCC" in row.reads else set()
        if "M0" in row.reads and (
            not name.startswith(("ds_", "s_sendmsg")) or "append" in name or "addtid" in name
        ):
            implicit.add(124 if ops.generation == "gfx940" else 125)
        if "VCC" in row.writes:
            written += vcc
        always = {126, 127, 124 if ops.generation != "gfx940" else -1}
        self.copies: tuple[int, ...] = ()
        if name in _COPIES and needs and not ops.dpp and not ops.sdwa:
            self.copies = registers(inst, row.operands[1], ops.accumulators)
        self.written = tuple(r for r in written if r not in always)
        self.needs = frozenset(needs | implicit) - always
        self.reads = frozenset(read_keys | implicit) - always
        self.writes = frozenset(written_keys) | frozenset(self.written)
        self.registers = self.reads | self.needs | self.writes


def _half_of(inst: Instruction, slot: Slot, name: str) -> int:
    """Which half of its register an operand uses: LOW, HIGH or 0 for all of it."""
    if match := _NARROW.search(name):
        data = slot.name in ("vdata", "data0") if match[1] else slot.name in ("vdst", "vdata")
        return 0 if not data else HIGH if "d16_hi" in name else LOW
    if isinstance(slot, RegisterSlot) and "h" in slot.kind.flags:
        text = (slot.text(inst.bits) or "").rstrip("|)")
        return HIGH if text.endswith(".h") else LOW if text.endswith(".l") else 0
    return 0


def _keys(words: tuple[int, ...], half: int, generation: str) -> tuple[int, ...]:
    """What waits are tracked by: registers, and from RDNA3 on halves of vector registers."""
    if generation == "gfx940" or not words or words[0] < 256:
        return words
    if half:
        return tuple(r | half for r in words)
    return tuple(r | part for r in words for part in (0, LOW, HIGH))


def _issue_cycles(op: Op, ops: Operands) -> int:
    """Cycles for which an instruction occupies its issue port.

    A wave's 64 lanes take 4 cycles of a CDNA SIMD; 32 lanes take one of an RDNA SIMD. Transcendental operations run at
    a quarter, doubles on RDNA at a sixteenth of the rate; a matrix instruction takes its passes of 4 cycles.
    Source: CDNA3 and RDNA3 ISA manuals, "Introduction"; AMD's white papers; LLVM, SISchedule.td.
    """
    if op.kind == "matrix":
        return 4 * op.passes
    if op.kind != "valu":
        return 1
    latency = op.inst.row.latency
    slow = (
        4 if latency.startswith("Trans") else 16 if "Double" in latency and ops.generation != "gfx940" else 1
    )
    return slow * (4 if ops.generation == "gfx940" else ops.lanes // 32)


def _kind(family: str, name: str, flags: str) -> str:
    """The class of figures."""
    if "mfma" in name or "wmma" in name or "mmac" in name:
        return "matrix"
    if "b" in flags:
        return "branch"
    return {
        "SMEM": "smem",
        "DS": "lds",
        "FLAT": "vmem",
        "MUBUF": "vmem",
        "MTBUF": "vmem",
        "SOPP": "other",
    }.get(family, "valu" if family.startswith("VOP") or family == "VINTERP" else "salu")


@lru_cache(maxsize=1 << 16)
def decode(target: str, lanes: int, accumulators: int, code: bytes) -> Op:
    """The op of the instruction at the start of `code`. Raises: DecodeError, UnsupportedError."""
    machine = isa(target, lanes)
    inst = machine.decode(code)
    family = inst.row.format.name.partition("_")[0].partition(".")[0]
    ops = Operands(inst, accumulators, machine.generation, lanes, family.startswith("SO") or family == "SMEM")
    op = Op(inst, ops, target)
    if family.startswith("SOP"):
        run = compile_scalar(inst, ops) or compile_control(inst, ops, machine.generation)
    elif family == "SMEM":
        run = compile_scalar_memory(inst, ops)
    elif family in ("FLAT", "MUBUF", "MTBUF"):
        run = compile_memory(inst, ops, machine.generation)
    elif family == "DS":
        run = compile_lanes(inst, ops) or compile_memory(inst, ops, machine.generation)
    elif op.kind == "matrix":
        run = compile_matrix(inst, ops, target)
    else:
        run = compile_lanes(inst, ops) or compile_scaled(inst, ops) or compile_vector(inst, ops, target)
    if run is None:
        raise UnsupportedError(f"{inst}: this instruction is not implemented by the interpreter for {target}")
    op.run = run
    return op
