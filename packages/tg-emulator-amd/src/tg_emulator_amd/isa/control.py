"""Compile what changes the flow of a program or the state of a wave: branches, barriers, ends, modes, waits.

A branch leaves its targets in `group.target`; what the scheduler must do ("end", "wait") stands in `group.event`.
Source: RDNA3, RDNA4 and CDNA3 ISA manuals, "Program flow control", "SOPP", "Hardware registers".
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tg_codegen.amdgpu.immediates import unpack_waits
from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.slots import ImmediateSlot

from .operands import Operands, field
from .waves import EXEC, VCC, Group

__all__ = ["compile_control"]

U32, U64 = np.uint32, np.uint64
Run = Callable[[Group], None]
_MODE = 1
_CYCLES = {"gfx940": (), "gfx11": (29,), "gfx12": (29, 30)}
_IDLE = {
    "nop", "clause", "delay_alu", "setprio", "sleep", "sleep_var", "set_inst_prefetch_distance", "waitcnt_depctr",
    "wait_alu", "sethalt", "setkill", "icache_inv", "incperflevel", "decperflevel", "ttracedata", "ttracedata_imm",
    "wakeup", "version", "wait_event", "sendmsg", "code_end",
}  # fmt: skip
# Counter names of the dedicated waits -> counters of monitor.py.
_WAITS = {
    "wait_loadcnt": ("load",), "wait_storecnt": ("store",), "wait_dscnt": ("ds",), "wait_kmcnt": ("km",),
    "wait_loadcnt_dscnt": ("load", "ds"), "wait_storecnt_dscnt": ("store", "ds"), "waitcnt_vscnt": ("vs",),
    "waitcnt_vmcnt": ("vm",), "waitcnt_lgkmcnt": ("lgkm",), "waitcnt_expcnt": (), "wait_expcnt": (),
    "wait_samplecnt": (), "wait_bvhcnt": (),
}  # fmt: skip
_CONDITIONS: dict[str, Callable[[Group], np.ndarray]] = {
    "scc0": lambda g: ~g.scc,
    "scc1": lambda g: g.scc,
    "vccz": lambda g: _mask_bits(g, VCC) == 0,
    "vccnz": lambda g: _mask_bits(g, VCC) != 0,
    "execz": lambda g: _mask_bits(g, EXEC) == 0,
    "execnz": lambda g: _mask_bits(g, EXEC) != 0,
}


def _mask_bits(g: Group, r: int) -> np.ndarray:
    return g.sgpr64(r) if g.waves.mask_words == 2 else g.sgpr(r)


def _relative(inst: Instruction) -> int:
    simm = field(inst, "simm16")
    return 4 + 4 * ((simm ^ 0x8000) - 0x8000)


def compile_control(inst: Instruction, ops: Operands, generation: str) -> Run | None:
    name = inst.row.mnemonic.removeprefix("s_")
    if name in _IDLE:
        return lambda g: None
    if name.startswith(("waitcnt", "wait_")):
        return _wait(inst, name, generation)
    if match := re.fullmatch(r"cbranch_(scc0|scc1|vccz|vccnz|execz|execnz)", name):
        return _conditional(_CONDITIONS[match[1]], _relative(inst))
    if name in _OTHERS:
        return _OTHERS[name](inst, ops)
    if name in ("getreg_b32", "setreg_b32", "setreg_imm32_b32"):
        return _register(inst, ops, name, generation)
    return None


def _wait(inst: Instruction, name: str, generation: str) -> Run | None:
    simm = field(inst, "simm16")
    if name == "waitcnt":
        counts = {
            k.removesuffix("cnt"): n for k, n in unpack_waits(generation, simm).items() if k != "expcnt"
        }
        limits = {k.removesuffix("cnt"): n for k, n in unpack_waits(generation, 0xFFFF).items()}
        counts = {k: n for k, n in counts.items() if n != limits[k]}
    elif name == "wait_idle":
        counts = dict.fromkeys(
            ("load", "store", "ds", "km") if generation == "gfx12" else ("vm", "lgkm", "vs"), 0
        )
    elif name in _WAITS:
        names = _WAITS[name]
        parts = (simm,) if len(names) < 2 else (simm >> 8 & 63, simm & 63)
        counts = dict(zip(names, parts, strict=False))
    else:
        return None
    return lambda g: g.waves.spaces.monitor.wait(g, counts)


def _conditional(condition: Callable[[Group], np.ndarray], offset: int) -> Run:
    def run(g: Group) -> None:
        taken = condition(g)
        if taken.all():
            g.target = g.pc + offset
        elif not taken.any():
            g.target = g.pc + 4
        else:
            g.target = np.where(taken, g.pc + offset, g.pc + 4)

    return run


def _branch(inst: Instruction, ops: Operands) -> Run:
    offset = _relative(inst)

    def run(g: Group) -> None:
        g.target = g.pc + offset

    return run


def _event(name: str) -> Callable:
    def build(inst: Instruction, ops: Operands) -> Run:
        def run(g: Group) -> None:
            g.event = name
            g.target = g.pc + 4

        return run

    return build


def _signal(inst: Instruction, ops: Operands) -> Run | None:
    slot = inst.row.operands[0]
    if not isinstance(slot, ImmediateSlot) or slot.value(inst.bits) != 193:  # -1: the workgroup's own
        return None
    asks = inst.row.mnemonic.endswith("isfirst")

    def run(g: Group) -> None:
        waves = g.waves
        if not asks:
            waves.signalled[g.w] += 1
            return
        first = np.zeros(g.n, bool)
        for k, w in enumerate(range(waves.count) if g.all else g.w):
            mates = waves.workgroup == waves.workgroup[w]
            first[k] = (waves.signalled[mates] <= waves.signalled[w]).all()
            waves.signalled[w] += 1
        g.scc = first

    return run


def _wait_barrier(inst: Instruction, ops: Operands) -> Run | None:
    return _event("wait")(inst, ops) if field(inst, "simm16") & 0xFFFF == 0xFFFF else None


def _whole_barrier(inst: Instruction, ops: Operands) -> Run:
    def run(g: Group) -> None:
        g.waves.signalled[g.w] += 1
        g.event, g.target = "wait", g.pc + 4

    return run


def _jump(inst: Instruction, ops: Operands) -> Run:
    name = inst.row.mnemonic
    slots = inst.row.operands
    target = ops.source(slots[-1], "u64") if name != "s_call_b64" else None
    link = slots[0].number(inst.bits) if slots[0].writes else None
    offset = _relative(inst) if target is None else 0

    def run(g: Group) -> None:
        there = target(g).astype(np.int64) if target else g.pc + offset
        if link is not None:
            g.set_sgpr64(link, np.full(g.n, g.pc + 4, U64))
        g.target = there

    return run


def _get_pc(inst: Instruction, ops: Operands) -> Run:
    target = inst.row.operands[0].number(inst.bits)
    return lambda g: g.set_sgpr64(target, np.full(g.n, g.pc + 4, U64))


def _mode(shift: int) -> Callable:
    def build(inst: Instruction, ops: Operands) -> Run:
        value = U32((field(inst, "simm16") & 15) << shift)

        def run(g: Group) -> None:
            g.waves.mode[g.w] = g.waves.mode[g.w] & ~U32(15 << shift) | value
            g.refresh()

        return run

    return build


def _register(inst: Instruction, ops: Operands, name: str, generation: str) -> Run:
    """s_getreg and s_setreg: MODE and the clock; other registers read as 0 and ignore what is written."""
    place = field(inst, "simm16")
    number, offset, size = place & 63, place >> 6 & 31, (place >> 11 & 31) + 1
    ones = (1 << size) - 1
    slots = {s.name: s for s in inst.row.operands}
    if name == "getreg_b32":
        target = slots["sdst"].number(inst.bits)

        def get(g: Group) -> None:
            value = g.waves.mode[g.w] if number == _MODE else np.zeros(g.n, U32)
            if number in _CYCLES[generation]:
                value = np.full(g.n, g.waves.spaces.monitor.step & 0xFFFFF, U32)
            g.set_sgpr(target, value >> U32(offset) & U32(ones))

        return get
    if number != _MODE:
        return lambda g: None
    read = (lambda g: U32(field(inst, "imm"))) if "imm" in slots else ops.source(slots["sdst"], "u32")
    keep = U32(~(ones << offset) & 0xFFFFFFFF)

    def put(g: Group) -> None:
        g.waves.mode[g.w] = g.waves.mode[g.w] & keep | (read(g) & U32(ones)) << U32(offset)
        g.refresh()

    return put


def _message(inst: Instruction, ops: Operands) -> Run:
    """Messages that return: the clock, else 0."""
    target = inst.row.operands[0].number(inst.bits)
    words = inst.row.operands[0].kind.dwords

    def run(g: Group) -> None:
        g.set_sgpr(target, np.full(g.n, g.waves.spaces.monitor.step, U32))
        if words == 2:
            g.set_sgpr(target + 1, np.zeros(g.n, U32))

    return run


def _relative_move(inst: Instruction, ops: Operands) -> Run:
    """s_movrels and s_movreld: M0 counts registers."""
    result, source = (s.number(inst.bits) for s in inst.row.operands)
    words = inst.row.operands[0].kind.dwords
    reads = "movrels" in inst.row.mnemonic
    value = ops.source(inst.row.operands[1], "u64" if words == 2 else "u32")

    def run(g: Group) -> None:
        waves = g.waves
        members = np.arange(waves.count) if g.all else g.w
        step = waves.s[waves.m0][members].astype(np.int64)
        if reads:
            for k in range(words):
                g.set_sgpr(result + k, waves.s[source + step + k, members])
            return
        x = np.broadcast_to(value(g), (g.n,))
        for k in range(words):
            waves.s[result + step + k, members] = (x >> x.dtype.type(32 * k)).astype(U32)

    return run


_OTHERS: dict[str, Callable[[Instruction, Operands], Run | None]] = {
    "branch": _branch, "endpgm": _event("end"), "endpgm_saved": _event("end"), "endpgm_ordered_ps_done": _event("end"),
    "trap": _event("trap"), "barrier": _whole_barrier, "barrier_signal": _signal, "barrier_signal_isfirst": _signal,
    "barrier_wait": _wait_barrier, "barrier_leave": lambda inst, ops: lambda g: None, "setpc_b64": _jump,
    "swappc_b64": _jump, "call_b64": _jump, "getpc_b64": _get_pc, "round_mode": _mode(0), "denorm_mode": _mode(4),
    "sendmsg_rtn_b32": _message, "sendmsg_rtn_b64": _message, "movrels_b32": _relative_move,
    "movrels_b64": _relative_move, "movreld_b32": _relative_move, "movreld_b64": _relative_move,
}  # fmt: skip
