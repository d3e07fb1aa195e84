"""Allocated code to bytes: registers get their numbers, constants go behind the code, pseudo-instructions expand.

branch cc a b label    jump if a cc b             pick d bits n other   d = other if bit n of bits is clear
set d cc a b           d = a cc b                 idiv, imod d a b      floor(a / b), a - b * floor(a / b); 0 if b is 0
cmov d cc a b x        if a cc b: d = x           leave                 the epilogue
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tg_codegen.machine.code import Code, Inst, Label, LoopEnd, LoopStart, VReg
from tg_codegen.x86_64.abi import ARGUMENTS, STACK, Frame
from tg_codegen.x86_64.assembler import Program
from tg_codegen.x86_64.encode import Isa, isa
from tg_codegen.x86_64.operands import Mask, Mem, Pool, V
from tg_codegen.x86_64.registers import Memory, Register, gpr, k, mem, xmm, ymm, zmm

__all__ = ["emit"]

_NAMES = {"q": gpr[64], "d": gpr[32], "w": gpr[16], "b": gpr[8], "z": zmm, "y": ymm, "x": xmm, "k": k}
_MOVES = frozenset({"mov", "kmovw", "vmovaps"})
_LOOP_ALIGNMENT = 32
rax, rdx, rsp = gpr[64][0], gpr[64][2], gpr[64][4]


def emit(code: Code, numbers: Mapping[VReg, int], frame: Frame, target: str) -> bytes:
    """The bytes of a function."""
    return _Emission(numbers, frame, isa(target)).run(code)


class _Emission:
    def __init__(self, numbers: Mapping[VReg, int], frame: Frame, instructions: Isa):
        self.numbers, self.frame, self.isa = numbers, frame, instructions
        self.program = Program()
        self.constants: dict[bytes, str] = {}
        self.shown: dict[object, Memory] = {}
        self.labels = 0

    def run(self, code: Code) -> bytes:
        program, items = self.program, code.items
        self.frame.enter(self.isa, program.emit)
        for at, item in enumerate(items):
            kind = item.__class__
            if kind is Inst:
                self.instruction(item)
            elif kind is Label:
                program.label(item.name)
            elif kind is LoopStart:
                if _is_innermost(items, at):
                    program.align(_LOOP_ALIGNMENT)
                program.label(item.name)
        self.place_constants()
        return program.finish().code

    def instruction(self, inst: Inst) -> None:
        opcode, mask, zeroing, operands = inst.opcode, None, False, []
        numbers = self.numbers
        for operand in inst.operands:
            kind = operand.__class__
            if kind is V:
                operands.append(_NAMES[operand.kind][numbers[operand.reg]])
            elif kind is Mem or kind is Pool:
                operands.append(self.memory(operand))
            elif kind is Mask:
                mask, zeroing = k[numbers[operand.reg]], operand.zeroing
            else:
                operands.append(operand)
        macro = _MACROS.get(opcode)
        if macro is not None:
            macro(self, *operands)
        elif mask is not None:
            self.program.emit(getattr(self.isa, opcode)(*operands, mask=mask, zeroing=zeroing))
        elif opcode not in _MOVES or operands[0] is not operands[1]:
            self.program.emit(getattr(self.isa, opcode)(*operands))

    def memory(self, operand: Mem | Pool) -> Memory:
        if operand.__class__ is Pool:
            key: object = operand
        else:
            base, index, numbers = operand.base, operand.index, self.numbers
            key = (
                base if base.__class__ is str else numbers[base],
                None if index is None else numbers[index],
                operand.scale, operand.disp, operand.size, operand.broadcast, operand.each,
            )  # fmt: skip
        shown = self.shown.get(key)
        if shown is None:
            shown = self.shown[key] = self.make_memory(operand)
        return shown

    def make_memory(self, operand: Mem | Pool) -> Memory:
        if operand.__class__ is Pool:
            label = self.constants.setdefault(operand.data, f".c{len(self.constants)}")
            return mem(label=label, size_bytes=len(operand.data), broadcast=operand.broadcast)
        base = {"stack": STACK, "arguments": ARGUMENTS}.get(operand.base)
        if base is None:
            base = gpr[64][self.numbers[operand.base]]
        index = None
        if operand.index is not None:
            index = _NAMES[operand.each or "q"][self.numbers[operand.index]]
        return mem(
            base, index, operand.scale, operand.disp, size_bytes=operand.size, broadcast=operand.broadcast
        )

    def place_constants(self) -> None:
        """The longest first, so that each is aligned to its size."""
        if not self.constants:
            return
        longest_first = sorted(self.constants, key=len, reverse=True)
        self.program.align(len(longest_first[0]))
        for data in longest_first:
            self.program.label(self.constants[data])
            self.program.data(data)

    # ---- pseudo-instructions

    def compare(self, a: Register, b: Register | int) -> None:
        self.program.emit(self.isa.test(a, a) if b.__class__ is int and b == 0 else self.isa.cmp(a, b))

    def branch(self, condition: str, a: Register, b: Register | int, label: str) -> None:
        self.compare(a, b)
        self.program.emit(getattr(self.isa, f"j{condition}")(label))

    def set(self, d: Register, condition: str, a: Register, b: Register | int) -> None:
        self.compare(a, b)
        low = gpr[8][d.number]
        self.program.emit(getattr(self.isa, f"set{condition}")(low))
        self.program.emit(self.isa.movzx(gpr[32][d.number], low))

    def cmov(self, d: Register, condition: str, a: Register, b: Register | int, x: Register) -> None:
        self.compare(a, b)
        self.program.emit(getattr(self.isa, f"cmov{condition}")(d, x))

    def pick(self, d: Register, bits: Register, lane: int, other: Register) -> None:
        self.program.emit(self.isa.bt(gpr[32][bits.number], lane))
        self.program.emit(self.isa.cmovae(d, other))

    def mov(self, d: Register | Memory, source: Register | Memory | int) -> None:
        if source.__class__ is int and 0 <= source < 1 << 32:
            self.program.emit(self.isa.mov(gpr[32][d.number], source))
        elif d is not source:
            self.program.emit(self.isa.mov(d, source))

    def divide(self, d: Register, a: Register, b: Register, remainder: bool) -> None:
        """On the stack, so that any registers will do; rax and rdx are as before unless d is one of them."""
        emit, i, program = self.program.emit, self.isa, self.program
        self.labels += 1
        special, done = f".special{self.labels}", f".done{self.labels}"
        divisor = mem(rsp, size_bytes=8)
        for reg in (rax, rdx, b, a):
            emit(i.push(reg))
        emit(i.pop(rax))
        emit(i.mov(rdx, divisor))
        emit(i.add(rdx, 1))
        emit(i.cmp(rdx, 1))
        emit(i.jbe(special))  # -1, where the quotient may not fit, or 0
        emit(i.cqo())
        emit(i.idiv(divisor))
        if remainder:
            emit(i.mov(rax, rdx))
        emit(i.test(rdx, rdx))
        emit(i.je(done))
        emit(i.xor(rdx, divisor))
        emit(i.jns(done))
        emit(i.add(rax, divisor) if remainder else i.sub(rax, 1))
        emit(i.jmp(done))
        program.label(special)
        emit(i.neg(rax))
        emit(i.mov(rdx, divisor))
        emit(i.and_(rax, 0 if remainder else rdx))
        program.label(done)
        emit(i.mov(divisor, rax))
        emit(i.mov(rdx, mem(rsp, disp=8)))
        emit(i.mov(rax, mem(rsp, disp=16)))
        emit(i.mov(d, mem(rsp)))
        emit(i.lea(rsp, mem(rsp, disp=24)))

    def leave(self) -> None:
        self.frame.leave(self.isa, self.program.emit)


_MACROS: dict[str, Callable[..., None]] = {
    "branch": _Emission.branch,
    "set": _Emission.set,
    "cmov": _Emission.cmov,
    "pick": _Emission.pick,
    "mov": _Emission.mov,
    "idiv": lambda self, d, a, b: self.divide(d, a, b, False),
    "imod": lambda self, d, a, b: self.divide(d, a, b, True),
    "leave": _Emission.leave,
}


def _is_innermost(items: list, at: int) -> bool:
    following = (item.__class__ for item in items[at + 1 :])
    return next((kind for kind in following if kind in (LoopStart, LoopEnd)), None) is LoopEnd
