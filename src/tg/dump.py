"""TG_DUMP: each level of what is compiled, as text that its own parser reads again, and a page to look at it all.

With TG_DUMP_DIR a program gets a folder: `graph.txt`, `schedule.txt`, for each kernel `NAME.lower.txt` (its plan and
machine IR) and `NAME.select.txt` (the instructions), and `page.html`. Without it all but the page goes to the standard
error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module

from tg import knobs
from tg_ir.graph import Node
from tg_ir.graph.text import format_graph
from tg_ir.kernel.nodes import Kernel
from tg_ir.kernel.text import format_kernel
from tg_ir.program.nodes import Launch, Program
from tg_ir.program.text import format_program
from tg_ir.program.verify import live_ranges
from tg_ir.protocols import Binary
from tg_ir.symbolic import bounds

__all__ = ["dump", "page"]

_COLORS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#9c755f")


def dump(graph: Sequence[Node], program: Program, binaries: Mapping[str, Mapping[str, Binary]]) -> None:
    """Show what TG_DUMP names of a program, its graph, and its binaries by device and kernel."""
    stages, folder = knobs.dumped(), knobs.dump_folder()
    texts: dict[str, str] = {}
    if "graph" in stages:
        texts["graph"] = format_graph(graph)
    if "schedule" in stages:
        texts["schedule"] = format_program(program)
    for found in binaries.values():
        for name, binary in found.items():
            if "lower" in stages:
                texts[f"{name}.lower"] = _lowered(program.kernel[name], binary.target)
            if "select" in stages:
                texts[f"{name}.select"] = _instructions(binary)
    for title, text in texts.items():
        if folder is None:
            sys.stderr.write(f"# {program.name}: {title}\n{text}\n")
        else:
            (folder / program.name).mkdir(parents=True, exist_ok=True)
            (folder / program.name / f"{title}.txt").write_text(text)
    if "html" in stages and folder is not None:
        (folder / program.name).mkdir(parents=True, exist_ok=True)
        (folder / program.name / "page.html").write_text(page(graph, program))


def _lowered(kernel: Kernel, target: str) -> str:
    """The planner's choice and the machine IR; a plan found by tuning is not looked up."""
    if not target.startswith("x86_64"):
        return format_kernel(kernel)
    compiler = import_module("tg_codegen.compiler")
    plan, function, _ = compiler.lower_kernel(kernel, target)
    return f"{plan}\n{import_module('tg_codegen.machine.text').format_function(function)}"


def _instructions(binary: Binary) -> str:
    if not binary.target.startswith("x86_64"):
        return binary.code.hex()
    instructions = import_module("tg_codegen.x86_64.encode").isa(binary.target)
    lines = import_module("tg_codegen.x86_64.disassembler").disassemble(binary.code, instructions)
    end = lines.index("ret") + 1  # the one exit; constants follow
    return "\n".join([*lines[:end], "# constants:", *lines[end:]]) + "\n"


def page(graph: Sequence[Node], program: Program) -> str:
    """One HTML page without scripts: steps, kernels, the arena over time, the graph; names are links."""
    parts = [
        "<!DOCTYPE html><meta charset='utf-8'>",
        f"<title>{escape(program.name)}</title>",
        "<style>body{font:14px sans-serif;margin:2em}pre{background:#f4f4f4;padding:.6em;overflow:auto}"
        "td,th{padding:.1em .8em .1em 0;text-align:left}rect:hover{opacity:.6}</style>",
        f"<h1>{escape(program.name)}</h1>",
        f"<p>{len(program.steps)} steps, {len(program.kernels)} kernels, {len(program.buffers)} buffers</p>",
        "<h2>Steps</h2><table><tr><th>step<th>what<th>buffers</tr>",
    ]
    for number, step in enumerate(program.steps):
        if isinstance(step, Launch):
            what = f"<a href='#{escape(step.kernel)}'>{escape(step.kernel)}</a>"
            used = " ".join([f"<a href='#b{n}'>{n}</a>" for n in step.buffers])
        else:
            what, used = escape(str(step)), ""
        parts.append(f"<tr><td>{number}<td>{what}<td>{used}</tr>")
    parts += ["</table><h2>Arena</h2>", _arena(program), "<h2>Buffers</h2><table>"]
    for number, slot in enumerate(program.buffers):
        place = "" if slot.offset is None else f"at {slot.offset}"
        row = [number, slot.role, f"{slot.dtype.name}[{slot.size}]", slot.device, place]
        parts.append(f"<tr id='b{number}'>" + "".join([f"<td>{escape(str(item))}" for item in row]) + "</tr>")
    parts.append("</table><h2>Kernels</h2>")
    for kernel in program.kernels:
        parts.append(
            f"<h3 id='{escape(kernel.name)}'>{escape(kernel.name)}</h3><pre>{escape(format_kernel(kernel))}</pre>"
        )
    parts.append(f"<h2>Graph</h2><pre>{escape(format_graph(graph))}</pre>")
    return "\n".join(parts)


def _arena(program: Program) -> str:
    """Temporaries as boxes: steps to the right, offsets downwards."""
    boxes = []
    ranges = live_ranges(program)
    for number, slot in enumerate(program.buffers):
        if slot.offset is not None and number in ranges:
            start, size = bounds(slot.offset)[1], bounds(slot.size_bytes)[1]
            boxes.append((number, *ranges[number], start, size))
    if not boxes:
        return "<p>No temporaries.</p>"
    height, width = max(start + size for *_, start, size in boxes), len(program.steps)
    drawn = [
        f"<a href='#b{number}'><rect x='{900 * first / width:.1f}' y='{300 * start / height:.1f}' "
        f"width='{900 * (last - first + 1) / width:.1f}' height='{max(300 * size / height, 1):.1f}' "
        f"fill='{_COLORS[number % len(_COLORS)]}' stroke='white'><title>{number}: {size:,} bytes</title></rect></a>"
        for number, first, last, start, size in boxes
    ]
    return f"<p>{height:,} bytes</p><svg width='900' height='300'>{''.join(drawn)}</svg>"
