"""The kernel IR (schedule -> codegen): nodes, monoids, verifier, printer and parser, interpreter."""

from __future__ import annotations

from tg_ir.kernel.monoids import MONOIDS, Monoid
from tg_ir.kernel.nodes import (
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
    children,
    roots,
    toposort,
)
from tg_ir.kernel.text import format_kernel, parse_kernel
from tg_ir.kernel.verify import verify_kernel

__all__ = [
    "MONOIDS",
    "Argument",
    "Axis",
    "Bitcast",
    "Cast",
    "Const",
    "Elementwise",
    "Index",
    "Kernel",
    "Load",
    "Loaded",
    "Monoid",
    "Parameter",
    "Part",
    "Reduce",
    "Scan",
    "Store",
    "Value",
    "children",
    "format_kernel",
    "parse_kernel",
    "roots",
    "toposort",
    "verify_kernel",
]
