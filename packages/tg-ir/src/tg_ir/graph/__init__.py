"""The tensor graph (frontend -> schedule): nodes, verifier, printer and parser, interpreter."""

from __future__ import annotations

from tg_ir.graph.build import *  # noqa: F403
from tg_ir.graph.build import __all__ as _builders
from tg_ir.graph.nodes import Node, Op, Shape, format_shape, make, toposort
from tg_ir.graph.ops import OPS
from tg_ir.graph.text import format_graph, parse_graph
from tg_ir.graph.verify import verify_graph

__all__ = [
    *_builders,
    "OPS",
    "Node",
    "Op",
    "Shape",
    "format_graph",
    "format_shape",
    "make",
    "parse_graph",
    "toposort",
    "verify_graph",
]
