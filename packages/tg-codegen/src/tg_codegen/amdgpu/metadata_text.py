"""The YAML subset between `.amdgpu_metadata` and its end: nested mappings and lists of plain scalars."""

from __future__ import annotations

import re
from typing import Any

from tg_ir.errors import ParseError

__all__ = ["parse_metadata"]


def _scalar(text: str) -> Any:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(t) for t in text[1:-1].split(",") if t.strip()]
    if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", text):
        return int(text, 0)
    return text


def parse_metadata(lines: list[str], first_line: int = 1) -> Any:
    """The document as dicts, lists, strings, numbers and truth values. Raises: ParseError."""
    rows = []
    for number, line in enumerate(lines, first_line):
        if line.strip() and line.strip() not in ("---", "..."):
            rows.append([len(line) - len(line.lstrip()), line.strip(), number])
    position = 0

    def block(indent: int) -> Any:
        nonlocal position
        result: Any = None
        while position < len(rows) and rows[position][0] >= indent:
            column, text, number = rows[position]
            if column > indent:
                raise ParseError(f"metadata: got indentation {column}, want {indent}", number, column + 1)
            if text.startswith("- ") or text == "-":
                result = [] if result is None else result
                rest = text[1:].lstrip()
                if not isinstance(result, list):
                    raise ParseError("metadata: a list entry in a mapping", number, column + 1)
                if re.match(r"[\w.]+:(\s|$)", rest):
                    inner = column + len(text) - len(rest)
                    rows[position] = [inner, rest, number]
                    result.append(block(inner))
                else:
                    position += 1
                    result.append(_scalar(rest))
                continue
            match = re.match(r"([\w.]+):\s*(.*)$", text)
            if not match or isinstance(result, list):
                raise ParseError(f"metadata: got {text!r}, want `key: value`", number, column + 1)
            result = {} if result is None else result
            position += 1
            if match[2]:
                result[match[1]] = _scalar(match[2])
            elif position < len(rows) and (
                rows[position][0] > column
                or (rows[position][0] == column and rows[position][1].startswith("-"))
            ):
                result[match[1]] = block(rows[position][0])
            else:
                result[match[1]] = None
        return result

    result = block(rows[0][0]) if rows else {}
    if position < len(rows):
        raise ParseError("metadata: indentation goes back too far", rows[position][2], 1)
    return result
