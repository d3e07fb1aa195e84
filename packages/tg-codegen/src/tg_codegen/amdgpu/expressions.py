"""Integer expressions of assembly text: numbers, symbols, `.`, operators and max, min, or, alignto."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import reduce

from tg_codegen.errors import AssemblerError

__all__ = ["evaluate", "symbols_of"]

_SYMBOL = re.compile(r"(?<![\w.$])([A-Za-z_.$][\w.$]*)(?!\w*\s*\()")
_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "max": max,
    "min": min,
    "or": lambda *values: reduce(operator.or_, values),
    "alignto": lambda value, to: value + -value % to,
}


def symbols_of(text: str) -> list[str]:
    """The symbols that an expression names."""
    return _SYMBOL.findall(text)


def evaluate(text: str, symbols: Mapping[str, int]) -> int:
    """The value of an expression. Raises: AssemblerError."""

    def value_of(match: re.Match) -> str:
        if match[1] not in symbols:
            raise AssemblerError(f"expression: {match[1]} is not defined, in {text!r}")
        return f"({symbols[match[1]]})"

    source = _SYMBOL.sub(value_of, text).replace("/", "//").replace("or(", "or_(").strip()
    if len(source) > 4000:
        raise AssemblerError(f"expression: got {len(source)} characters, want at most 4000")

    def walk(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return int(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd, ast.Invert)):
            value = walk(node.operand)
            return (
                -value
                if isinstance(node.op, ast.USub)
                else ~value
                if isinstance(node.op, ast.Invert)
                else value
            )
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = walk(node.left), walk(node.right)
            if isinstance(node.op, (ast.LShift, ast.RShift)) and not 0 <= right < 64:
                raise AssemblerError(f"expression: shift by {right}, want 0..63, in {text!r}")
            return _OPERATORS[type(node.op)](left, right)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id.rstrip("_") in _FUNCTIONS
            and node.args
        ):
            return _FUNCTIONS[node.func.id.rstrip("_")](*map(walk, node.args))
        raise AssemblerError(f"expression: {text!r} is not an integer expression")

    try:
        return walk(ast.parse(source, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ZeroDivisionError, RecursionError, MemoryError) as error:
        if isinstance(error, AssemblerError):
            raise
        raise AssemblerError(f"expression: {text!r} cannot be evaluated") from error
