"""Functions of the machine IR as text, and text as functions: parsing gives back what was printed.

    function add lanes 8 scratch 0
    %0 index! = const 0
    %1 index! = buffer 0
    %2 f32 = load float32 lanes [%1 + 4*%0 + 64]
    loop %3 from %0 to %4 step 8 some
      %5 f32 = add %2, %2
      store float32 lanes [%1] = %5 mask %7
      assign %8, %9 = %5, %2
    end

`!` marks a uniform register. `each %n` in the brackets is an index for each lane, `volatile` is at the end.
"""

from __future__ import annotations

import re

from tg_codegen.machine.nodes import INDEX, Address, Assign, Function, If, Instr, Loop, Reg, Statement
from tg_ir.errors import ParseError

__all__ = ["format_function", "format_statement", "parse_function"]


def format_function(function: Function) -> str:
    """The function, one statement a line."""
    lines = [f"function {function.name} lanes {function.lanes} scratch {function.scratch_bytes}"]
    _lines(function.body, "", lines)
    return "\n".join(lines) + "\n"


def _lines(body: list[Statement], indent: str, lines: list[str]) -> None:
    for statement in body:
        lines.append(indent + format_statement(statement))
        if isinstance(statement, (Loop, If)):
            _lines(statement.body, indent + "  ", lines)
            lines.append(indent + "end")


def format_statement(statement: Statement) -> str:
    """One statement; of a loop or an `If` its head."""
    match statement:
        case Loop():
            some = " some" if statement.some else ""
            return f"loop {statement.counter} from {statement.start} to {statement.stop} step {statement.step}{some}"
        case If():
            return f"if {statement.condition}"
        case Assign():
            return f"assign {_regs(map(_target, statement.targets))} = {_regs(statement.sources)}"
    words = [] if statement.dst is None else [_target(statement.dst), "="]
    words.append(statement.op)
    if statement.op in ("load", "store"):
        words += [str(statement.attr), statement.access, _address(statement.address)]
        words += ["=", str(statement.args[0])] if statement.args else []
        words += ["mask", str(statement.mask)] if statement.mask is not None else []
        words += ["other", str(statement.other)] if statement.other is not None else []
        words += ["volatile"] if statement.volatile else []
    else:
        words += [str(statement.attr)] if statement.attr or statement.op in _WITH_ATTR else []
        words += [_regs(statement.args)] if statement.args else []
    return " ".join(words)


_WITH_ATTR = ("const", "buffer", "scalar")


def _regs(regs: object) -> str:
    return ", ".join(map(str, regs))


def _target(reg: Reg) -> str:
    return f"{reg} {reg.type}{'!' if reg.uniform else ''}"


def _address(address: Address) -> str:
    text = f"[{address.base}"
    text += f" + {address.scale}*{address.index}" if address.index is not None else ""
    text += f" + {address.disp}" if address.disp else ""
    return text + (f" each {address.each}]" if address.each is not None else "]")


# ---- parsing -----------------------------------------------------------------------------------------------

_REG = r"(%\d+)"
_HEAD = re.compile(r"function (\S+) lanes (\d+) scratch (\d+)")
_LOOP = re.compile(rf"loop {_REG} from {_REG} to {_REG} step (-?\d+)( some)?")
_IF = re.compile(rf"if {_REG}")
_ASSIGN = re.compile(r"assign (.*) = (.*)")
_TARGET = re.compile(rf"{_REG} (\w+)(!?)")
_ACCESS = re.compile(
    rf"(?:(.*) = )?(load|store) (\w+) (\w+) \[{_REG}(?: \+ (\d+)\*{_REG})?(?: \+ (-?\d+))?(?: each {_REG})?\]"
    rf"(?: = {_REG})?(?: mask {_REG})?(?: other {_REG})?( volatile)?"
)
_INSTR = re.compile(r"(.*) = (\w+)(?: (?!%)(\S+))?(?: (%.*))?")


def parse_function(text: str) -> Function:
    """The function of the text.

    Raises:
        ParseError: the text is no function; it says in which line.
    """
    parser = _Parser()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            try:
                parser.line(line.strip())
            except KeyError as error:
                raise ParseError(f"{error.args[0]} is not made yet", number, 1) from None
            except ParseError as error:
                raise ParseError(str(error), number, 1) from None
    if len(parser.open) != 1:
        raise ParseError("got no whole function, want its head first and an end for each loop and if")
    return parser.function


class _Parser:
    def __init__(self) -> None:
        self.function = Function("", 1)
        self.open: list[list[Statement]] = []
        self.regs: dict[str, Reg] = {}

    def line(self, text: str) -> None:
        if match := _HEAD.fullmatch(text):
            self.function = Function(match[1], int(match[2]), scratch_bytes=int(match[3]))
            self.open = [self.function.body]
        elif text == "end" and len(self.open) > 1:
            self.open.pop()
        elif not self.open:
            raise ParseError(f"got {text!r}, want function NAME lanes N scratch BYTES")
        else:
            statement = self.statement(text)
            self.open[-1].append(statement)
            if isinstance(statement, (Loop, If)):
                self.open.append(statement.body)

    def statement(self, text: str) -> Statement:
        if match := _LOOP.fullmatch(text):
            counter = self.target(f"{match[1]} {INDEX}!")
            return Loop(
                counter, *self.many(f"{match[2]}, {match[3]}"), int(match[4]), some=match[5] is not None
            )
        if match := _IF.fullmatch(text):
            return If(self.regs[match[1]])
        if match := _ASSIGN.fullmatch(text):
            sources = self.many(match[2])
            return Assign(tuple([self.target(item) for item in match[1].split(", ")]), sources)
        if match := _ACCESS.fullmatch(text):
            dst, op, memory, access, base, scale, index, disp, each, value, mask, other, volatile = (
                match.groups()
            )
            base, index, each, mask, other = (
                name and self.regs[name] for name in (base, index, each, mask, other)
            )
            address = Address(base, index, int(scale or 1), int(disp or 0), each)
            args = self.many(value)
            made = dst and self.target(dst)
            return Instr(op, made, args, memory, address, access, mask, other, volatile is not None)
        if match := _INSTR.fullmatch(text):
            args, attr = self.many(match[4]), match[3] or "0"
            return Instr(
                match[2], self.target(match[1]), args, int(attr) if attr.lstrip("-").isdigit() else attr
            )
        raise ParseError(f"got {text!r}, want a statement")

    def many(self, text: str | None) -> tuple[Reg, ...]:
        return tuple([self.regs[name] for name in text.split(", ")]) if text else ()

    def target(self, text: str) -> Reg:
        match = _TARGET.fullmatch(text)
        if match is None:
            raise ParseError(f"got {text!r}, want %N TYPE, with ! where it is uniform")
        if match[1] not in self.regs:
            self.regs[match[1]] = Reg(int(match[1][1:]), match[2], bool(match[3]))
        return self.regs[match[1]]
