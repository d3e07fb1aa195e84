"""How a kernel is called, and its frame: the calling convention of x86-64 System V, `(arguments, begin, end)`.

    rsp + 0               scratch memory of the function, aligned to 64
    rsp + scratch         begin, end, the caller's rsp; 64 bytes to miss with; room for accesses that go lane by lane
    rsp + scratch + 512   spilled registers

rdi, the address of the argument block, stays where it is; the block holds 8 bytes for each buffer, then for each
scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tg_codegen.machine.allocate_registers import RegisterFile
from tg_codegen.machine.code import Inst, VReg
from tg_codegen.x86_64.encode import Instruction, Isa
from tg_codegen.x86_64.operands import Mem, V
from tg_codegen.x86_64.registers import gpr, mem

__all__ = ["ARGUMENTS", "CALLEE_SAVED", "FRAME_BYTES", "GENERAL", "STACK", "Frame", "Registers"]

FRAME_BYTES = 512
STACK, ARGUMENTS = gpr[64][4], gpr[64][7]
GENERAL = (0, 1, 2, 6, 8, 9, 10, 11, 3, 5, 12, 13, 14, 15)
"""Numbers of the general registers that code may use, those first that need no saving."""
CALLEE_SAVED = frozenset({3, 5, 12, 13, 14, 15})
_BEGIN, _END, _CALLER_STACK = 0, 8, 16
_COPIES = {"gpr": "mov", "vector": "vmovaps", "mask": "kmovw"}
_ACCESSES = {"gpr": "mov", "vector": "vmovups", "mask": "kmovw"}


class Registers:
    """What register allocation may use, and how it copies and spills."""

    def __init__(self, wide: bool, spill_offset: int):
        vector_bytes = 64 if wide else 32
        self.spill_offset = spill_offset
        self.files = {
            "gpr": RegisterFile(GENERAL, 8),
            "vector": RegisterFile(tuple(range(32 if wide else 16)), vector_bytes),
            "mask": RegisterFile(tuple(range(1, 8)) if wide else (), 8),
        }
        self.kinds = {"gpr": ("q", 8), "vector": ("z" if wide else "y", vector_bytes), "mask": ("k", 2)}

    def copy(self, dst: VReg, src: VReg) -> Inst:
        kind = self.kinds[dst.file][0]
        return Inst(_COPIES[dst.file], (V(dst, kind), V(src, kind)), (dst,), (src,))

    def is_copy(self, inst: Inst) -> bool:
        """A masked move has two uses; a load none of its file."""
        dst, src = inst.defs[0], inst.uses[0]
        return inst.opcode == _COPIES[dst.file] and src.file == dst.file and inst.operands[1].__class__ is V

    def spill(self, reg: VReg, slot: int) -> Inst:
        kind, place = self._slot(reg, slot)
        return Inst(_ACCESSES[reg.file], (place, V(reg, kind)), (), (reg,), memory="store")

    def reload(self, reg: VReg, slot: int) -> Inst:
        kind, place = self._slot(reg, slot)
        return Inst(_ACCESSES[reg.file], (V(reg, kind), place), (reg,), memory="load")

    def _slot(self, reg: VReg, slot: int) -> tuple[str, Mem]:
        kind, size = self.kinds[reg.file]
        return kind, Mem("stack", disp=self.spill_offset + slot, size=size)


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame of a function: bytes of scratch memory and of spill slots, and the registers to save."""

    scratch_bytes: int
    spill_bytes: int
    saved: tuple[int, ...]

    @classmethod
    def of(cls, scratch_bytes: int, spill_bytes: int, used: Iterable[int]) -> Frame:
        saved = tuple(sorted(CALLEE_SAVED.intersection(used)))
        return cls(-(-scratch_bytes // 64) * 64, -(-spill_bytes // 64) * 64, saved)

    @property
    def size_bytes(self) -> int:
        return self.scratch_bytes + FRAME_BYTES + self.spill_bytes

    def enter(self, i: Isa, emit: Callable[[Instruction], None]) -> None:
        """The prologue."""
        for number in self.saved:
            emit(i.push(gpr[64][number]))
        rax, rdx, rsi = gpr[64][0], gpr[64][2], gpr[64][6]
        emit(i.mov(rax, STACK))
        emit(i.sub(STACK, self.size_bytes))
        emit(i.and_(STACK, -64))
        for offset, reg in ((_BEGIN, rsi), (_END, rdx), (_CALLER_STACK, rax)):
            emit(i.mov(mem(STACK, disp=self.scratch_bytes + offset), reg))

    def leave(self, i: Isa, emit: Callable[[Instruction], None]) -> None:
        """The epilogue."""
        emit(i.mov(STACK, mem(STACK, disp=self.scratch_bytes + _CALLER_STACK)))
        for number in reversed(self.saved):
            emit(i.pop(gpr[64][number]))
        emit(i.vzeroupper())
        emit(i.ret())
