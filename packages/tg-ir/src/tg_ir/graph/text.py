"""Tensor graphs as text, and text as tensor graphs.

    var n in 1..64
    %0 = buffer() {name="x"} : float32[n, 4] @ CPU
    %1 = reduce(%0) {kind="sum", axes=(1,)} : float32[n] @ CPU
    return %1

Parsing gives back the very nodes that were printed, except for buffers, which are memory and so cannot be made from
text: the caller hands them in by number or gets new empty ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from tg_ir.dtypes import dtype_of
from tg_ir.errors import ParseError, TgError
from tg_ir.graph.build import buffer, const
from tg_ir.graph.nodes import ATTRIBUTES, Attr, Node, make, toposort
from tg_ir.graph.ops import OPS
from tg_ir.symbolic import SymInt, Var, format_expr, parse_expr, variables

__all__ = ["format_graph", "format_var", "parse_graph", "parse_var", "split_commas"]


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


_FORMAT: dict[str, Callable[[Attr], str]] = {
    "bool": lambda value: str(value).lower(),
    "dim": format_expr,
    "dims": lambda dims: _tuple([format_expr(dim) for dim in dims]),
    "dtype": lambda dtype: dtype.name,
    "int": str,
    "ints": lambda values: _tuple([str(value) for value in values]),
    "pairs": lambda pairs: _tuple([f"{format_expr(a)}:{format_expr(b)}" for a, b in pairs]),
    "scalar": lambda value: str(value).lower(),
    "str": json.dumps,
}


def _scalar(text: str) -> float | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def split_commas(text: str, separator: str = ",") -> list[str]:
    """The parts of `text` between separators that stand outside parentheses, brackets and quotes."""
    parts, depth, start, quoted = [], 0, 0, False
    for position, character in enumerate(text):
        if character == '"' and text[position - 1 : position] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == separator and not depth:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _parse_attr(kind: str, text: str, names: Mapping[str, Var]) -> Attr:
    match kind:
        case "bool":
            return text == "true"
        case "dim":
            return parse_expr(text, names)
        case "dtype":
            return dtype_of(text)
        case "int":
            return int(text)
        case "scalar":
            return _scalar(text)
        case "str":
            return json.loads(text)
    items = split_commas(text[1:-1])
    if kind == "ints":
        return tuple(map(int, items))
    if kind == "dims":
        return tuple([parse_expr(item, names) for item in items])
    return tuple([tuple([parse_expr(side, names) for side in split_commas(item, ":")]) for item in items])


def format_var(var: Var) -> str:
    """The line that declares a variable."""
    return f"var {var.name} in {var.low}..{var.high}" + ("" if var.value is None else f" = {var.value}")


def parse_var(line: str) -> Var:
    """The variable that a line of `format_var` declares."""
    match = re.fullmatch(r"var (\w+) in (-?\d+)\.\.(-?\d+)(?: = (-?\d+))?", line)
    if not match:
        raise ParseError(f"got {line!r}, want 'var NAME in LOW..HIGH' or 'var NAME in LOW..HIGH = VALUE'")
    name, low, high, value = match.groups()
    var = Var(name, int(low), int(high))
    return var if value is None else var.bind(int(value))


def _dims(attr: Attr) -> list[SymInt]:
    return [dim for item in attr for dim in _dims(item)] if isinstance(attr, tuple) else [attr]


def format_graph(roots: Sequence[Node]) -> str:
    """The graph that `roots` reach, one node a line, inputs before users."""
    nodes = toposort(roots)
    number = {node: index for index, node in enumerate(nodes)}
    declared: dict[str, Var] = {}
    for node in nodes:
        for dim in _dims((*node.shape, *node.attrs)):
            for var in variables(dim) if hasattr(dim, "low") else ():
                if declared.setdefault(var.name, var) is not var:
                    raise TgError(f"print: two variables are called {var.name!r}; rename one")
    lines = [format_var(declared[name]) for name in sorted(declared)]
    for node in nodes:
        inputs = ", ".join(f"%{number[child]}" for child in node.inputs)
        attrs = [
            f"{name}={_FORMAT[ATTRIBUTES[name]](attr)}"
            for name, attr in zip(node.op.attrs, node.attrs, strict=True)
            if name not in ("dtype", "device") or node.op.name not in ("const", "iota")
        ]
        braces = f" {{{', '.join(attrs)}}}" if attrs else ""
        shape = ", ".join(format_expr(dim) for dim in node.shape)
        lines.append(
            f"%{number[node]} = {node.op.name}({inputs}){braces} : {node.dtype.name}[{shape}] @ {node.device}"
        )
    lines.append("return " + ", ".join(f"%{number[root]}" for root in roots))
    return "\n".join(lines) + "\n"


_LINE = re.compile(r"%(\d+) = (\w+)\(([^)]*)\)(?: \{(.*)\})? : (\w+)\[(.*)\] @ (\S+)")


def parse_graph(text: str, buffers: Mapping[int, Node] | None = None) -> list[Node]:
    """The nodes that the text returns; `buffers` gives the nodes for numbered buffer lines.

    Raises:
        ParseError: the text is no graph; a line whose type is not what its operation gives counts as such.
    """
    names: dict[str, Var] = {}
    nodes: dict[str, Node] = {}
    for line_number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("var "):
                var = parse_var(line)
                names[var.name] = var
            elif line.startswith("return"):
                return [nodes[item] for item in split_commas(line.removeprefix("return"))]
            else:
                match = _LINE.fullmatch(line)
                if not match:
                    raise ParseError(
                        "got no node, want '%N = op(%A, %B) {attribute=value} : dtype[shape] @ device'"
                    )
                number = int(match[1])
                nodes[f"%{number}"] = _parse_node(match, nodes, names, (buffers or {}).get(number))
        except KeyError as error:
            raise ParseError(f"unknown name {error}", line_number, 1) from None
        except (TgError, ValueError) as error:
            raise ParseError(str(error), line_number, 1) from error
    raise ParseError("the text ends without a 'return' line", len(text.splitlines()) + 1, 1)


def _parse_node(
    match: re.Match[str], nodes: Mapping[str, Node], names: Mapping[str, Var], given: Node | None
) -> Node:
    _, name, inputs, braces, dtype, shape, device = match.groups()
    if name not in OPS:
        raise ParseError(f"unknown operation {name!r}")
    op = OPS[name]
    arguments = tuple([nodes[item] for item in split_commas(inputs)])
    texts = dict(item.split("=", 1) for item in split_commas(braces or ""))
    texts = {"dtype": dtype, "device": json.dumps(device), **texts}
    attrs = tuple([_parse_attr(ATTRIBUTES[attr], texts[attr], names) for attr in op.attrs])
    dims = tuple([parse_expr(dim, names) for dim in split_commas(shape)])
    if name == "buffer":
        source = arguments[0] if arguments else None
        node = given or buffer(dims, dtype_of(dtype), device, name=attrs[0], source=source)
    elif name == "const":
        node = const(attrs[0], attrs[1], device)
    else:
        if op.arity not in (-1, len(arguments)):
            raise ParseError(f"{name}: got {len(arguments)} inputs, want {op.arity}")
        node = make(op, arguments, attrs)
    if (node.shape, node.dtype, node.device) != (dims, dtype_of(dtype), device):
        raise ParseError(f"{name}: the text says {dtype}[{shape}] @ {device}, the operation gives {node!r}")
    return node
