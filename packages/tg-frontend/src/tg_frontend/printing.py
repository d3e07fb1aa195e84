"""How a tensor prints: as PyTorch does, realising it."""

from __future__ import annotations

import math
from collections.abc import Callable

from tg_frontend.core import Scalar, Tensor
from tg_frontend.engine import Device
from tg_frontend.interchange import to_list
from tg_ir.dtypes import DType, bool_, float32, int64

__all__ = ["format_tensor"]

PRECISION, THRESHOLD, EDGE_ITEMS, LINE_WIDTH = 4, 1000, 3, 80

_GAP = object()
"""Stands in a list for the elements left out."""


def format_tensor(tensor: Tensor) -> str:
    """The text of `repr`: values, then only those of dtype, device and gradient that do not go without saying."""
    plain = tensor.detach()
    shape, dtype = plain.realize()._concrete_shape(), tensor.dtype
    start = "tensor("
    empty = math.prod(shape) == 0
    suffixes = [f"size={shape}"] if empty and len(shape) != 1 else []
    if dtype is not float32 and (empty or dtype not in (int64, bool_)):
        suffixes.append(f"dtype={dtype}")
    if tensor.device != Device.default:
        suffixes.append(f"device='{tensor.device}'")
    if not tensor.is_leaf:
        suffixes.append(f"grad_fn=<{tensor.node.op.name}>")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    if empty:
        text = "[]"
    else:
        values = _pick(plain._bytes(), shape, dtype, math.prod(shape) > THRESHOLD)
        flat = list(_flatten(values))
        width, form = _float_format(flat) if dtype.is_float else (max(len(str(value)) for value in flat), str)
        text = _lines(values, len(start), width, lambda value: form(value).rjust(width))
    return _append(start + text, suffixes, len(start)) + ")"


def _pick(data: memoryview, shape: tuple[int, ...], dtype: DType, summarize: bool) -> list | Scalar:
    """The values as nested lists, with a gap for the middle of what is long."""
    if not shape:
        return to_list(data, (), dtype)
    step, edge = len(data) // shape[0], EDGE_ITEMS

    def run(start: int, stop: int) -> list:
        if len(shape) == 1:
            return to_list(data[start * step : stop * step], (stop - start,), dtype)
        return [
            _pick(data[i * step : (i + 1) * step], shape[1:], dtype, summarize) for i in range(start, stop)
        ]

    if summarize and shape[0] > 2 * edge:
        return [*run(0, edge), _GAP, *run(shape[0] - edge, shape[0])]
    return run(0, shape[0])


def _flatten(values: object) -> list:
    if not isinstance(values, list):
        return [] if values is _GAP else [values]
    return [value for item in values for value in _flatten(item)]


def _float_format(values: list[float]) -> tuple[int, Callable[[float], str]]:
    """The width and the format that suit these numbers, of which zeros, infinities and NaN do not count."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    whole = all(value == math.ceil(value) for value in sizes)
    if not sizes:
        return 1, _whole
    low, high = min(sizes), max(sizes)
    if high / low > 1000 or high > 1e8 or (not whole and low < 1e-4):
        form: Callable[[float], str] = lambda value: f"{value:.{PRECISION}e}"  # noqa: E731
    else:
        form = _whole if whole else lambda value: f"{value:.{PRECISION}f}"
    return max(len(form(value)) for value in values if value and math.isfinite(value)), form


def _whole(value: float) -> str:
    return f"{value:.0f}." if math.isfinite(value) else f"{value}"


def _lines(values: list | Scalar, indent: int, width: int, form: Callable[[Scalar], str]) -> str:
    if not isinstance(values, list):
        return form(values)
    if isinstance(values[0], list):
        depth, inner = 1, values[0]
        while isinstance(inner, list):
            depth, inner = depth + 1, inner[0]
        parts = ["..." if item is _GAP else _lines(item, indent + 1, width, form) for item in values]
        return f"[{(',' + chr(10) * (depth - 1) + ' ' * (indent + 1)).join(parts)}]"
    words = [" ..." if item is _GAP else form(item) for item in values]
    count = max(1, (LINE_WIDTH - indent) // (width + 2))
    rows = [", ".join(words[i : i + count]) for i in range(0, len(words), count)]
    return f"[{(',' + chr(10) + ' ' * (indent + 1)).join(rows)}]"


def _append(text: str, suffixes: list[str], indent: int) -> str:
    """The suffixes after the text, on lines of their own where one would get too long."""
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > LINE_WIDTH:
            text, length = f"{text},\n{' ' * indent}{suffix}", indent + len(suffix)
        else:
            text, length = f"{text}, {suffix}", length + len(suffix) + 2
    return text
