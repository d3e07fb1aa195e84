"""Rules for indices: addresses, counters and conditions, in general registers."""

from __future__ import annotations

from collections.abc import Callable

from tg_codegen.machine.code import Inst, VReg
from tg_codegen.machine.nodes import INDEX, MEMORY_BYTES, Instr
from tg_codegen.x86_64.operands import Mem, V
from tg_codegen.x86_64.select import CONDITIONS, Rule, Selector

__all__ = ["index_rules"]


def index_rules() -> dict[tuple[str, str], Rule]:
    """The rules, for every level."""
    return {(op, INDEX): _rule(select) for op, select in _RULES.items()}


def _rule(select: Callable[[Selector, Instr], VReg]) -> Rule:
    return lambda s, instr: (select(s, instr),)


def _load(s: Selector, instr: Instr) -> VReg:
    size, signed = MEMORY_BYTES[instr.attr], instr.attr[0] == "i"
    place = s.address(instr, size)
    if size == 8 or (size == 4 and not signed):
        return s.op("mov", place, kind="q" if size == 8 else "d")
    if size == 4:
        return s.op("movsxd", place, kind="q")
    return s.op("movsx" if signed else "movzx", place, kind="q" if signed else "d")


def _argument(s: Selector, instr: Instr) -> VReg:
    number = instr.attr + (s.buffers if instr.op == "scalar" else 0)
    return s.remade("mov", Mem("arguments", disp=8 * number, size=8))


def _slice(s: Selector, instr: Instr) -> VReg:
    return s.remade("mov", Mem("stack", disp=s.frame + 8 * (instr.op == "end"), size=8))


def _first(s: Selector, instr: Instr) -> VReg:
    value = instr.args[0]
    low = V(s.parts(value)[0], "x")
    if value.type.endswith("64"):
        return s.op("vmovq", low, kind="q")
    result = s.op("vmovd", low, kind="d")
    return s.op("movsxd", V(result, "d"), kind="q") if value.type == "i32" else result


def _two(s: Selector, opcode: str, instr: Instr) -> VReg:
    """An operation that overwrites its first operand."""
    a, b = instr.args
    if opcode != "sub" and (s.number(a) is not None or (s.last_use(b) and not s.last_use(a))):
        a, b = b, a
    number = s.number(b)
    return s.op(opcode, s.gpr(b) if number is None else number, kind="q", tied=s.gpr(a))


def _add(s: Selector, instr: Instr) -> VReg:
    a, b = instr.args
    if s.number(a) is not None or a in s.stack:
        a, b = b, a
    if s.targets.get(instr.dst) in (a, b):
        return _two(s, "add", instr)
    if s.number(b) is not None:
        place = Mem(s.gpr(a), disp=s.numbers[b])
    elif b in s.stack:
        place = Mem("stack", s.gpr(a), 1, s.stack[b])
    else:
        place = Mem(s.gpr(a), s.gpr(b))
    return s.op("lea", place, kind="q")


def _sub(s: Selector, instr: Instr) -> VReg:
    number = s.number(instr.args[1])
    if number is None or number == -(1 << 31):
        return _two(s, "sub", instr)
    return s.op("lea", Mem(s.gpr(instr.args[0]), disp=-number), kind="q")


def _mul(s: Selector, instr: Instr) -> VReg:
    a, b = instr.args
    if s.number(a) is not None:
        a, b = b, a
    number = s.number(b)
    return _two(s, "imul", instr) if number is None else _times(s, s.gpr(a), number)


def _times(s: Selector, a: VReg, number: int) -> VReg:
    """A multiple, by the cheapest instruction."""
    if number in (2, 3, 5, 9):
        return s.op("lea", Mem(a, a, number - 1), kind="q")
    if number > 0 and number & number - 1 == 0:
        return s.op("shl", number.bit_length() - 1, kind="q", tied=a)
    return s.op("imul", a, number, kind="q")


def _extreme(condition: str) -> Callable[[Selector, Instr], VReg]:
    def select(s: Selector, instr: Instr) -> VReg:
        a, b = [s.gpr(arg) for arg in instr.args]
        return s.op("cmov", condition, b, a, b, kind="q", tied=a)

    return select


def _select(s: Selector, instr: Instr) -> VReg:
    chosen, other = s.gpr(instr.args[1]), s.gpr(instr.args[2])
    return s.op("cmov", *s.condition(instr.args[0]), chosen, kind="q", tied=other)


def _compare(s: Selector, instr: Instr) -> VReg:
    return s.op("set", *s.compared(instr), kind="q")


def _divide(s: Selector, instr: Instr) -> VReg:
    """The quotient rounded down, or its remainder.

    A number n < 0 is ~m, and floor(~m / d) is ~floor(m / d); so only 0 <= m < 2^63 is divided, by multiplying with
    ceil(2^(64 + s) / d): its excess, less than d <= 2^(s + 1), times m is less than 2^(64 + s).
    """
    a, divisor = s.gpr(instr.args[0]), s.number(instr.args[1])
    quotient = instr.op == "floordiv"
    if divisor is None or divisor < 1:
        return s.op("idiv" if quotient else "imod", a, s.gpr(instr.args[1]), kind="q")
    shift = (divisor - 1).bit_length()
    if divisor == 1 << shift:
        if quotient:
            return s.op("sar", shift, kind="q", tied=a)
        return s.op("and", divisor - 1, kind="q", tied=a)
    sign = s.op("sar", 63, kind="q", tied=a)
    positive = s.op("xor", sign, kind="q", tied=a)
    factor = s.new("q")
    factor.fixed = 2  # rdx, which mulx reads
    s.op("mov", -(-(1 << 63 + shift) // divisor), kind="q", into=factor)
    high = s.new("q")
    shown = V(high, "q")
    s.items.append(Inst("mulx", (shown, shown, V(positive, "q")), (high,), (positive, factor)))
    result = s.op("xor", sign, kind="q", tied=s.op("shr", shift - 1, kind="q", tied=high))
    return result if quotient else s.op("sub", _times(s, result, divisor), kind="q", tied=a)


_RULES: dict[str, Callable[[Selector, Instr], VReg]] = {
    "load": _load,
    "buffer": _argument,
    "scalar": _argument,
    "begin": _slice,
    "end": _slice,
    "first": _first,
    "neg": lambda s, i: s.op("neg", kind="q", tied=s.gpr(i.args[0])),
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "floordiv": _divide,
    "mod": _divide,
    "min": _extreme("l"),
    "max": _extreme("g"),
    "and": lambda s, i: _two(s, "and", i),
    "or": lambda s, i: _two(s, "or", i),
    "select": _select,
} | dict.fromkeys(CONDITIONS, _compare)
