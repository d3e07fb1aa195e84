"""Building machine IR: every operation lands in the outermost loop that its operands allow, and is made once.

Open loops are a stack of frames. An operation goes to the deepest frame that an operand was made in, which hoists what
does not change in a loop; a second one with the same operands gives the first one's register. Loads move the same way,
since a kernel reads what buffers held before it; scratch memory changes, so its loads and stores stay where they are
asked for. An operation that the target lacks is replaced by the target's expansion at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tg_codegen.machine.nodes import INDEX, OPS, Address, Assign, Function, If, Instr, Loop, Reg, Statement

__all__ = ["FOLDS", "Builder", "Expansion"]

Expansion = Callable[..., Reg | None]
"""`(builder, *operands)` or, for an operation with an attribute, `(builder, *operands, attr)` -> the result, or None
where the target has the operation on these operands.

Under ("load", dtype) and ("store", dtype) stands what takes the arguments of `load` and `store`."""

FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
}
"""What operations on indices compute; the builder does so where it knows the operands."""

_NEUTRAL = {("add", 0), ("sub", 0), ("mul", 1), ("or", 0), ("floordiv", 1)}
_COMMUTE = frozenset({"add", "mul", "min", "max", "and", "or", "xor", "eq", "ne"})


class _Frame:
    __slots__ = ("known", "statements")

    def __init__(self, statements: list[Statement]):
        self.statements = statements
        self.known: dict[tuple, Reg] = {}


class Builder:
    """Writes one function. `expansions` maps (operation, type of the result) to what replaces it.

    Of an operation with a dtype for an attribute one dtype may be named: ("encode bfloat16", "u32").
    """

    def __init__(self, function: Function, expansions: Mapping[tuple[str, str], Expansion] | None = None):
        self.function = function
        self._expansions = expansions or {}
        self._frames = [_Frame(function.body)]
        self._depth: dict[Reg, int] = {}
        self._value: dict[Reg, int] = {}
        self._bits: dict[Reg, int] = {}
        self._count = 0

    @property
    def depth(self) -> int:
        """How many loops and conditions are open."""
        return len(self._frames) - 1

    def depth_of(self, reg: Reg) -> int:
        """The frame in which a register was made."""
        return self._depth[reg]

    def value_of(self, reg: Reg) -> int | None:
        """The number, where the register is a constant index."""
        return self._value.get(reg)

    def bits_of(self, reg: Reg) -> int | None:
        """The bits of each lane, where the register is constant data."""
        return self._bits.get(reg)

    def _reg(self, type: str, uniform: bool, depth: int) -> Reg:
        reg = Reg(self._count, type, uniform)
        self._count += 1
        self._depth[reg] = depth
        return reg

    def const(self, type: str, bits: int) -> Reg:
        """A constant, by its bits; an index by its value."""
        known = self._frames[0].known
        key = ("const", type, bits, ())
        reg = known.get(key)
        if reg is None:
            reg = known[key] = self._reg(type, True, 0)
            self._frames[0].statements.append(Instr("const", reg, attr=bits))
            (self._value if type == INDEX else self._bits)[reg] = bits
        return reg

    def index(self, value: int | Reg) -> Reg:
        """A constant index; a register stays."""
        return self.const(INDEX, value) if isinstance(value, int) else value

    def emit(self, op: str, type: str, *args: Reg, attr: int | str = 0) -> Reg:
        """The result of an operation without effects."""
        if type == INDEX and len(args) == 2 and (folded := self._fold(op, *args)) is not None:
            return folded
        expansion = self._expansions.get((op, type))
        if expansion is None and isinstance(attr, str):
            expansion = self._expansions.get((f"{op} {attr}", type))
        depth = 0
        for arg in args:
            depth = max(depth, self._depth[arg])
        if op in _COMMUTE and args[1].number < args[0].number:
            args = (args[1], args[0])
        frame = self._frames[depth]
        key = (op, type, attr, args)
        reg = frame.known.get(key)
        if reg is None:
            if expansion is not None:
                reg = expansion(self, *args, attr) if attr else expansion(self, *args)
            if reg is None:
                uniform = op == "splat" or (
                    op != "lane" and op != "mask" and all(arg.uniform for arg in args)
                )
                reg = self._reg(type, uniform, depth)
                frame.statements.append(Instr(op, reg, args, attr))
            frame = self._frames[max(depth, self._depth[reg])]  # an expansion with a loop stays where it is
            frame.known[key] = reg
        return reg

    def _fold(self, op: str, a: Reg, b: Reg) -> Reg | None:
        x, y = self._value.get(a), self._value.get(b)
        if x is not None and y is not None and op in FOLDS:
            return self.const(INDEX, FOLDS[op](x, y))
        if (op, y) in _NEUTRAL:
            return a
        if op in _COMMUTE and (op, x) in _NEUTRAL:
            return b
        if op == "mul" and 0 in (x, y):
            return self.const(INDEX, 0)
        if op == "and" and 0 in (x, y):
            return self.const(INDEX, 0)
        if op == "and" and (x == 1 or y == 1):  # conditions are 0 or 1
            return b if x == 1 else a
        return None

    def load(
        self,
        type: str,
        memory: str,
        address: Address,
        access: str,
        mask: Reg | None = None,
        other: Reg | None = None,
        volatile: bool = False,
    ) -> Reg:
        """Elements from memory; a `volatile` load stays in the present frame."""
        expansion = self._expansions.get(("load", memory))
        if expansion is not None:
            return expansion(self, type, memory, address, access, mask, other, volatile)
        parts = [r for r in (address.base, address.index, address.each, mask, other) if r is not None]
        depth = self.depth if volatile else max(self._depth[reg] for reg in parts)
        frame = self._frames[depth]
        key = ("load", type, memory, address, access, (mask, other))
        reg = None if volatile else frame.known.get(key)
        if reg is None:
            uniform = access == "one" and all(r.uniform for r in (mask, other) if r is not None)
            reg = self._reg(type, uniform, depth)
            frame.statements.append(
                Instr("load", reg, (), memory, address, access, mask, other, volatile=volatile)
            )
            if not volatile:
                frame.known[key] = reg
        return reg

    def store(
        self,
        memory: str,
        address: Address,
        access: str,
        value: Reg,
        mask: Reg | None = None,
        volatile: bool = False,
    ) -> None:
        """Write elements, here."""
        expansion = self._expansions.get(("store", memory))
        if expansion is not None:
            expansion(self, memory, address, access, value, mask, volatile)
            return
        self._frames[-1].statements.append(
            Instr("store", None, (value,), memory, address, access, mask, volatile=volatile)
        )

    @contextmanager
    def loop(
        self, start: int | Reg, stop: int | Reg, step: int = 1, carried: Sequence[Reg] = ()
    ) -> Iterator[Reg]:
        """A loop around what is built inside, which may assign to `carried` registers; gives its counter."""
        start, stop = self.index(start), self.index(stop)
        some = bool(
            (low := self._value.get(start)) is not None
            and (high := self._value.get(stop)) is not None
            and low < high
        )
        counter = self._reg(INDEX, True, len(self._frames))
        made = Loop(counter, start, stop, step, some=some)
        outside = [self._depth[reg] for reg in carried]
        self._depth.update((reg, len(self._frames)) for reg in carried)
        self._frames.append(_Frame(made.body))
        yield counter
        self._frames.pop()
        self._depth.update(zip(carried, outside, strict=True))
        self._frames[-1].statements.append(made)

    @contextmanager
    def when(self, condition: Reg) -> Iterator[None]:
        """Stores that happen only where a condition, an index, is not 0."""
        made = If(condition)
        self._frames.append(_Frame(made.body))
        yield
        self._frames.pop()
        self._frames[-1].statements.append(made)

    def carry(self, initial: Reg) -> Reg:
        """A register for loops to assign to; it starts as `initial`, here. It is not read before those loops."""
        reg = self._reg(initial.type, initial.type == INDEX, self.depth)
        self._frames[-1].statements.append(Assign((reg,), (initial,)))
        return reg

    def assign(self, targets: tuple[Reg, ...], sources: tuple[Reg, ...]) -> None:
        """Write carried registers, all at once, here. What was computed from them is forgotten."""
        for frame in self._frames[min([self._depth[reg] for reg in targets], default=0) :]:
            stale = [key for key in frame.known if not set(targets).isdisjoint(key[-1])]
            for key in stale:
                del frame.known[key]
        self._frames[-1].statements.append(Assign(targets, sources))


assert all(op in OPS for op in FOLDS), "a fold of an operation that does not exist"
