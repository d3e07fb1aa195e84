"""Kernels as text, and text as kernels: parsing gives back the very kernel that was printed.

    kernel rows
    var n in 1..128
    read x : float32[n*64]
    write y : float32[n]
    axis i : n
    axis k : 64
    %0 = load x[64*i + k] : float32
    %1 = reduce sum(%0) over k : float32
    %2 = part %1 0 : float32
    store y[i] = %2 over i

Monoids other than those of `MONOIDS` stand before the values that use them:

    monoid largest_square float32 commutative
    %0 = argument left 0 : float32
    ..
    end 0.0 -> %7
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tg_ir.dtypes import DType, dtype_of
from tg_ir.elementwise import ELEMENTWISE
from tg_ir.errors import ParseError, TgError
from tg_ir.graph.text import format_var, parse_var, split_commas
from tg_ir.kernel.monoids import MONOIDS, Monoid
from tg_ir.kernel.nodes import (
    ACCESS,
    Argument,
    Axis,
    Bitcast,
    Cast,
    Const,
    Elementwise,
    Index,
    Kernel,
    Load,
    Loaded,
    Parameter,
    Part,
    Reduce,
    Scan,
    Store,
    Value,
    roots,
    toposort,
)
from tg_ir.symbolic import SymInt, Var, format_expr, leaves, parse_expr, substitute

__all__ = ["format_kernel", "parse_kernel"]


# ---- printing ----------------------------------------------------------------------------------------------


class _Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.number: dict[Value, int] = {}
        self.axes: dict[Axis, None] = {}
        self.loaded: dict[Loaded, str] = {}
        self.monoids: dict[Monoid, None] = {}

    def expr(self, expr: SymInt) -> str:
        """An index; a `Loaded` leaf prints as a name that a line before declares."""
        names = {}
        for leaf in leaves(expr):
            if isinstance(leaf, Loaded):
                if leaf not in self.loaded:
                    self.loaded[leaf] = f"v{len(self.loaded)}"
                    source = self.number[leaf.source]
                    self.lines.append(f"loaded {self.loaded[leaf]} = %{source} in {leaf.low}..{leaf.high}")
                names[leaf] = Var(self.loaded[leaf], leaf.low, leaf.high)
        return format_expr(substitute(expr, names) if names else expr)

    def over(self, axes: Iterable[Axis]) -> str:
        for axis in axes:
            if axis not in self.axes:
                extent = self.expr(axis.extent)
                self.axes[axis] = None
                self.lines.append(f"axis {axis.name} : {extent}")
        return ", ".join(axis.name for axis in axes)

    def monoid(self, monoid: Monoid) -> str:
        known = MONOIDS.get(monoid.name)
        if (known is None or known(monoid.dtypes[0]) != monoid) and monoid not in self.monoids:
            self.monoids[monoid] = None
            inner = _Printer()
            for value in toposort(monoid.result):
                inner.value(value)
            types = ", ".join(dtype.name for dtype in monoid.dtypes)
            kind = " commutative" if monoid.commutative else ""
            identity = ", ".join(_number(const) for const in monoid.identity)
            result = ", ".join(f"%{inner.number[value]}" for value in monoid.result)
            self.lines += [f"monoid {monoid.name} {types}{kind}", *inner.lines, f"end {identity} -> {result}"]
        return monoid.name

    def args(self, values: Iterable[Value]) -> str:
        return ", ".join(f"%{self.number[value]}" for value in values)

    def value(self, value: Value) -> None:
        match value:
            case Const():
                body = f"const {_number(value)}"
            case Index():
                body = f"index {self.expr(value.expr)}"
            case Load():
                body = f"load {value.parameter.name}[{self.expr(value.index)}]"
                if value.guard != 1:
                    body += f" if {self.expr(value.guard)} else %{self.number[value.other]}"
                elif value.other is not Const.of(0, value.dtype):
                    body += f" if 1 else %{self.number[value.other]}"
            case Elementwise():
                body = f"{value.name}({self.args(value.args)})"
            case Cast() | Bitcast():
                body = f"{type(value).__name__.lower()} %{self.number[value.arg]}"
            case Argument():
                body = f"argument {value.side} {value.position}"
            case Reduce():
                body = f"reduce {self.monoid(value.monoid)}({self.args(value.args)}) over {self.over(value.axes)}"
            case Scan():
                body = f"scan {self.monoid(value.monoid)}({self.args(value.args)}) over {self.over((value.axis,))}"
            case Part():
                body = f"part %{self.number[value.fold]} {value.position}"
            case _:
                raise AssertionError(f"no text for {value!r}")
        self.number[value] = len(self.number)
        self.lines.append(f"%{self.number[value]} = {body} : {value.dtype.name}")


def _number(const: Const) -> str:
    return str(const.value).lower()


def format_kernel(kernel: Kernel) -> str:
    """The kernel, one value a line."""
    printer = _Printer()
    printer.lines += [f"kernel {kernel.name}", *map(format_var, kernel.scalars)]
    for parameter in kernel.parameters:
        size = format_expr(parameter.size)
        printer.lines.append(f"{parameter.access} {parameter.name} : {parameter.dtype.name}[{size}]")
    values = toposort(roots(kernel.stores))
    for axes in [store.axes for store in kernel.stores] + [v.axes for v in values if isinstance(v, Reduce)]:
        if not any(isinstance(leaf, Loaded) for axis in axes for leaf in leaves(axis.extent)):
            printer.over(axes)
    for value in values:
        printer.value(value)
    for store in kernel.stores:
        line = f"store {store.parameter.name}[{printer.expr(store.index)}] = %{printer.number[store.value]}"
        line += f" over {printer.over(store.axes)}" if store.axes else ""
        line += f" if {printer.expr(store.guard)}" if store.guard != 1 else ""
        line += f" combine {store.combine}" if store.combine else ""
        printer.lines.append(line)
    return "\n".join(printer.lines) + "\n"


# ---- parsing -----------------------------------------------------------------------------------------------


class _Parser:
    def __init__(self) -> None:
        self.name = ""
        self.names: dict[str, SymInt] = {}
        self.scalars: list[Var] = []
        self.parameters: dict[str, Parameter] = {}
        self.axes: dict[str, Axis] = {}
        self.values: dict[str, Value] = {}
        self.monoids: dict[str, Monoid] = {}
        self.stores: list[Store] = []

    def line(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "kernel":
            self.name = rest
        elif word == "var":
            var = parse_var(text)
            self.scalars.append(var)
            self.names[var.name] = var
        elif word in ACCESS:
            name, dtype, size = _match(r"(\w+) : (\w+)\[(.*)\]", rest, "ACCESS NAME : DTYPE[SIZE]")
            self.parameters[name] = Parameter(name, dtype_of(dtype), self.expr(size), word)
        elif word == "axis":
            name, extent = _match(r"(\w+) : (.*)", rest, "axis NAME : EXTENT")
            self.axes[name] = Axis(name, self.expr(extent))
            self.names[name] = self.axes[name].index
        elif word == "loaded":
            name, source, low, high = _match(
                r"(\w+) = (%\d+) in (-?\d+)\.\.(-?\d+)", rest, "loaded NAME = %N in LOW..HIGH"
            )
            self.names[name] = Loaded(self.values[source], int(low), int(high))
        elif word == "store":
            self.store(rest)
        else:
            name, body, dtype = _match(r"(%\d+) = (.*) : (\w+)", text, "%N = VALUE : DTYPE")
            value = self.value(body, dtype_of(dtype))
            if value.dtype.name != dtype:
                raise ParseError(f"the text says {dtype}, the value is {value.dtype}")
            self.values[name] = value

    def expr(self, text: str) -> SymInt:
        return parse_expr(text, self.names)

    def args(self, text: str) -> tuple[Value, ...]:
        return tuple([self.values[item] for item in split_commas(text)])

    def store(self, text: str) -> None:
        name, index, value, over, guard, combine = _match(
            r"(\w+)\[(.*)\] = (%\d+)(?: over ([\w, ]+?))?(?: if (.*?))?(?: combine (\w+))?",
            text,
            "store NAME[INDEX] = %N over AXES if GUARD combine KIND",
        )
        axes = tuple([self.axes[item] for item in split_commas(over or "")])
        guarded = 1 if guard is None else self.expr(guard)
        self.stores.append(
            Store(self.parameters[name], self.expr(index), self.values[value], axes, guarded, combine or "")
        )

    def value(self, body: str, dtype: DType) -> Value:
        word, _, rest = body.partition(" ")
        match word:
            case "const":
                return Const.of(_parse_number(rest), dtype)
            case "index":
                return Index(self.expr(rest), dtype)
            case "load":
                name, index, guard, other = _match(
                    r"(\w+)\[(.*?)\](?: if (.*) else (%\d+))?", rest, "load NAME[INDEX] if GUARD else %N"
                )
                if guard is None:
                    return Load.of(self.parameters[name], self.expr(index))
                return Load(self.parameters[name], self.expr(index), self.expr(guard), self.values[other])
            case "cast":
                return Cast(self.values[rest], dtype)
            case "bitcast":
                return Bitcast(self.values[rest], dtype)
            case "argument":
                side, position = rest.split()
                return Argument(side, int(position), dtype)
            case "part":
                fold, position = rest.split()
                return Part(self.values[fold], int(position))
            case "reduce" | "scan":
                name, args, over = _match(
                    r"(\w+)\((.*)\) over (.*)", rest, f"{word} MONOID(%N, ..) over AXES"
                )
                values = self.args(args)
                monoid = self.monoids.get(name) or MONOIDS[name](values[0].dtype)
                axes = tuple([self.axes[item] for item in split_commas(over)])
                return Reduce(monoid, axes, values) if word == "reduce" else Scan(monoid, axes[0], values)
        name, args = _match(r"(\w+)\((.*)\)", body, "OPERATION(%N, ..)")
        if name not in ELEMENTWISE:
            raise ParseError(f"unknown operation {name!r}")
        return Elementwise(name, self.args(args))


def _match(pattern: str, text: str, want: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ParseError(f"got {text!r}, want {want}")
    return match.groups()


def _parse_number(text: str) -> float | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _parse_monoid(head: str, inner: Mapping[str, Value], end: str) -> Monoid:
    name, types, kind = _match(r"(\w+) (.+?)( commutative)?", head, "monoid NAME DTYPES commutative")
    identity, result = _match(r"(.*) -> (.*)", end, "end IDENTITY -> %N, ..")
    dtypes = [dtype_of(item) for item in split_commas(types)]
    numbers = [_parse_number(item) for item in split_commas(identity)]
    return Monoid(
        name,
        tuple([Const.of(number, dtype) for number, dtype in zip(numbers, dtypes, strict=True)]),
        tuple([inner[item] for item in split_commas(result)]),
        kind is not None,
    )


def parse_kernel(text: str) -> Kernel:
    """The kernel of the text.

    Raises:
        ParseError: the text is no kernel; it says in which line.
    """
    outer = _Parser()
    parser, head = outer, ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("monoid "):
                parser, head = _Parser(), line.removeprefix("monoid ")
            elif line.startswith("end ") and parser is not outer:
                monoid = _parse_monoid(head, parser.values, line.removeprefix("end "))
                outer.monoids[monoid.name] = monoid
                parser = outer
            else:
                parser.line(line)
        except KeyError as error:
            raise ParseError(f"unknown name {error}", number, 1) from None
        except (TgError, ValueError, TypeError) as error:
            raise ParseError(str(error), number, 1) from error
    return Kernel(outer.name, tuple(outer.parameters.values()), tuple(outer.scalars), tuple(outer.stores))
