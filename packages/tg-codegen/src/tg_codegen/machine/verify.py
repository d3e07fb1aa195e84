"""The verifier of the machine IR: types, what is made before it is read, and which registers may be written again."""

from __future__ import annotations

from collections.abc import Iterator

from tg_codegen.machine.nodes import (
    DATA,
    FLOATS,
    INDEX,
    INTEGERS,
    LANES,
    MEMORY_BYTES,
    OPS,
    Address,
    Assign,
    Function,
    If,
    Instr,
    Loop,
    Reg,
    Statement,
)
from tg_codegen.machine.text import format_statement
from tg_ir.errors import VerifyError

__all__ = ["MEMORY_TYPES", "verify"]

MEMORY_TYPES = {
    name: ("bool",)
    if name == "bool"
    else ((*INTEGERS[:2], INDEX) if size < 8 else (*INTEGERS[2:], INDEX))
    if "int" in name
    else FLOATS[name == "float64" :][:1]
    for name, size in MEMORY_BYTES.items()
}
"""The types of register that an element of memory is loaded into and stored from; an index is loaded only."""

_BITS = {"i32": 32, "u32": 32, "f32": 32, "i64": 64, "u64": 64, "f64": 64}
_OPEN_RESULT = {
    "broadcast",
    "convert",
    "bitcast",
}  # operations whose result's type does not follow from the operands'
_ENCODED = tuple(name for name in MEMORY_BYTES if name.startswith(("float8", "bfloat16", "float16")))


def verify(function: Function, made_by: str = "the caller") -> None:
    """Check a function against the rules on top of machine/nodes.py.

    Raises:
        VerifyError: it names the function, the statement, what is wrong, and `made_by`, the last pass.
    """
    for statement, problem in _Check(function).block(function.body, set()):
        head = format_statement(statement)
        raise VerifyError(f"function {function.name}: {head}: {problem}; the function comes from {made_by}")


class _Check:
    def __init__(self, function: Function):
        self.function = function
        self.made: set[Reg] = set()  # by any statement, in scope or not
        self.carried: set[Reg] = set()  # written by an Assign

    def block(self, body: list[Statement], scope: set[Reg]) -> Iterator[tuple[Statement, str]]:
        """Problems of a list of statements; `scope`, the registers that may be read, is the list's own."""
        for statement in body:
            match statement:
                case Instr():
                    for problem in self.instr(statement, scope):
                        yield statement, problem
                    if statement.dst is not None:
                        if statement.dst in self.made:
                            yield (
                                statement,
                                f"{statement.dst} is written a second time, and not by an assignment",
                            )
                        self.made.add(statement.dst)
                        scope.add(statement.dst)
                case Assign():
                    for problem in self.assign(statement, scope):
                        yield statement, problem
                case Loop():
                    if statement.step <= 0:
                        yield statement, f"the step is {statement.step}, want 1 or more"
                    for problem in self.reads((statement.start, statement.stop), scope, INDEX):
                        yield statement, problem
                    if statement.counter in self.made or statement.counter.type != INDEX:
                        yield statement, "the counter is no index of its own"
                    self.made.add(statement.counter)
                    yield from self.block(statement.body, scope | {statement.counter})
                case If():
                    for problem in self.reads((statement.condition,), scope, INDEX):
                        yield statement, problem
                    yield from self.block(statement.body, set(scope))

    def reads(self, regs: tuple[Reg | None, ...], scope: set[Reg], type: str = "") -> Iterator[str]:
        for reg in regs:
            if reg is not None and reg not in scope:
                yield f"{reg} is {'made in a list that has ended' if reg in self.made else 'not made yet'}"
            elif reg is not None and type and reg.type != type:
                yield f"{reg} is {reg.type}, want {type}"

    def assign(self, statement: Assign, scope: set[Reg]) -> Iterator[str]:
        if len(statement.targets) != len(statement.sources) or len(set(statement.targets)) != len(
            statement.targets
        ):
            yield "want as many sources as targets, and each target once"
        yield from self.reads(statement.sources, scope)
        for target, source in zip(statement.targets, statement.sources, strict=False):
            if target.type != source.type:
                yield f"{target} is {target.type}, {source} is {source.type}"
            if target.uniform and not source.uniform:
                yield f"{target} is uniform, {source} is not"
            if target in self.made and target not in self.carried:
                yield f"{target} is written by an instruction, so it is not carried"
            elif target in self.made and target not in scope:
                yield f"{target} is made in a list that has ended"
            self.made.add(target)
            self.carried.add(target)
            scope.add(target)

    def instr(self, instr: Instr, scope: set[Reg]) -> Iterator[str]:
        row = OPS.get(instr.op)
        if row is None:
            yield f"there is no operation {instr.op!r}"
            return
        yield from self.reads((*instr.args, instr.mask, instr.other), scope)
        if len(instr.args) != row.arity:
            yield f"got {len(instr.args)} operands, want {row.arity}"
            return
        if (instr.dst is None) != (instr.op == "store"):
            yield "a store has no result, all else has one"
        elif instr.op in ("load", "store"):
            yield from self.access(instr, scope)
        else:
            yield from self.types(instr)

    def types(self, instr: Instr) -> Iterator[str]:
        row, result, args = OPS[instr.op], instr.dst.type, instr.args
        if args and (wrong := next((reg for reg in args if reg.type not in row.takes), None)) is not None:
            choice = instr.op == "select" and wrong is not args[0]
            if not choice or wrong.type not in (*DATA, INDEX):
                yield f"{wrong} is {wrong.type}, want one of {', '.join(row.takes)}"
        values = args[1:] if instr.op == "select" else args
        if any(reg.type != values[0].type for reg in values):
            yield f"operands are {', '.join(reg.type for reg in values)}, want one type"
        if instr.op == "select":
            want = INDEX if result == INDEX else "bool"
            if args[0].type != want:
                yield f"the condition is {args[0].type}, want {want}"
        if row.gives:
            wanted = row.gives
            if wanted == ("bool", INDEX):
                wanted = (INDEX,) if args[0].type == INDEX else ("bool",)
        else:
            wanted = (values[-1].type,)
        if result not in wanted:
            yield f"the result is {result}, want {', '.join(wanted)}"
        elif instr.op == "bitcast" and _BITS[result] != _BITS[args[0].type]:
            yield f"the result is {result}, the operand {args[0].type}, of another size"
        if instr.op in ("encode", "decode") and instr.attr not in _ENCODED:
            yield f"the dtype is {instr.attr!r}, want one of {', '.join(_ENCODED)}"
        if instr.op in ("up", "down") and not 0 <= instr.attr <= self.function.lanes:
            yield f"lanes move by {instr.attr}, want 0 to {self.function.lanes}"
        if instr.op == "extend" and not 0 < instr.attr <= 32:
            yield f"extends {instr.attr} bits, want 1 to 32"

    def access(self, instr: Instr, scope: set[Reg]) -> Iterator[str]:
        address = instr.address
        if not isinstance(address, Address) or instr.access not in LANES or instr.attr not in MEMORY_BYTES:
            yield f"want an address, one of {', '.join(LANES)} and a dtype of memory"
            return
        yield from self.reads((address.base, address.index), scope, INDEX)
        yield from self.reads((address.each,), scope)
        if (address.each is not None) != (instr.access == "each"):
            yield "an index for each lane is for accesses of each lane, and they need one"
        elif address.each is not None and address.each.type not in INTEGERS:
            yield f"{address.each} is {address.each.type}, want an integer"
        value = instr.dst or instr.args[0]
        if value.type not in MEMORY_TYPES[instr.attr] or (instr.dst is None and value.type == INDEX):
            yield f"{value} is {value.type}, memory of {instr.attr} wants {MEMORY_TYPES[instr.attr][0]}"
        if value.type == INDEX and (instr.access != "one" or instr.mask is not None):
            yield "an index is loaded from one place and without a mask"
        yield from self.reads((instr.mask,), scope, "bool")
        yield from self.reads((instr.other,), scope, value.type)
