"""The program IR (schedule -> codegen and engine): steps over buffers, verifier, printer and parser, interpreter."""

from __future__ import annotations

from tg_ir.program.nodes import BufferSlot, Collective, Copy, Launch, Program, Step, reads, writes
from tg_ir.program.text import format_program, parse_program
from tg_ir.program.verify import live_ranges, verify_program

__all__ = [
    "BufferSlot",
    "Collective",
    "Copy",
    "Launch",
    "Program",
    "Step",
    "format_program",
    "live_ranges",
    "parse_program",
    "reads",
    "verify_program",
    "writes",
]
