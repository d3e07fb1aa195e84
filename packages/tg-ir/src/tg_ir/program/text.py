"""Programs as text, and text as programs.

program step
var n in 1..128
buffer 0 = input float32[n] @ CPU
buffer 1 = temporary float32[n] @ CPU at 0
{ .. a kernel as in kernel/text.py .. }
launch rows(0, 1)
copy 2 <- 1
collective sum (3, 4) <- (1, 2)
"""

from __future__ import annotations

import re

from tg_ir.dtypes import dtype_of
from tg_ir.errors import ParseError, TgError
from tg_ir.graph.text import format_var, parse_var, split_commas
from tg_ir.kernel.nodes import Kernel
from tg_ir.kernel.text import format_kernel, parse_kernel
from tg_ir.program.nodes import BufferSlot, Collective, Copy, Launch, Program, Step
from tg_ir.symbolic import Var, format_expr, parse_expr

__all__ = ["format_program", "parse_program"]


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _step(step: Step) -> str:
    match step:
        case Launch():
            return f"launch {step.kernel}({_list(step.buffers)})"
        case Copy():
            return f"copy {step.target} <- {step.source}"
        case Collective():
            return f"collective {step.kind} ({_list(step.targets)}) <- ({_list(step.sources)})"


def format_program(program: Program) -> str:
    """The program with its kernels."""
    lines = [f"program {program.name}", f"alignment {program.alignment}", *map(format_var, program.scalars)]
    for number, slot in enumerate(program.buffers):
        line = f"buffer {number} = {slot.role} {slot.dtype.name}[{format_expr(slot.size)}] @ {slot.device}"
        lines.append(line if slot.offset is None else f"{line} at {format_expr(slot.offset)}")
    for kernel in program.kernels:
        lines += ["{", *["    " + line for line in format_kernel(kernel).splitlines()], "}"]
    return "\n".join([*lines, *map(_step, program.steps)]) + "\n"


_PATTERNS = {
    "buffer": r"buffer \d+ = (\w+) (\w+)\[(.*)\] @ (\S+)(?: at (.*))?",
    "launch": r"launch (\w+)\((.*)\)",
    "copy": r"copy (\d+) <- (\d+)",
    "collective": r"collective (\w+) \((.*)\) <- \((.*)\)",
}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, split_commas(text)))


def parse_program(text: str) -> Program:
    """The program of the text.

    Raises:
        ParseError: the text is no program; it says in which line.
    """
    name, alignment = "", 64
    scalars: list[Var] = []
    buffers: list[BufferSlot] = []
    kernels: list[Kernel] = []
    steps: list[Step] = []
    inner: list[str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            word = line.partition(" ")[0]
            if line == "}" and inner is not None:
                kernels.append(parse_kernel("\n".join(inner)))
                inner = None
            elif inner is not None:
                inner.append(line)
            elif line == "{":
                inner = []
            elif word == "program":
                name = line.removeprefix("program ")
            elif word == "alignment":
                alignment = int(line.removeprefix("alignment "))
            elif word == "var":
                scalars.append(parse_var(line))
            else:
                match = re.fullmatch(_PATTERNS.get(word, "(?!)"), line)
                if match is None:
                    raise ParseError(
                        f"got {line!r}, want a buffer, a kernel in braces, launch, copy or collective"
                    )
                groups = match.groups()
                if word == "buffer":
                    role, dtype, size, device, offset = groups
                    names = {var.name: var for var in scalars}
                    at = None if offset is None else parse_expr(offset, names)
                    buffers.append(BufferSlot(dtype_of(dtype), parse_expr(size, names), device, role, at))
                elif word == "launch":
                    steps.append(Launch(groups[0], _numbers(groups[1])))
                elif word == "copy":
                    steps.append(Copy(int(groups[0]), int(groups[1])))
                else:
                    steps.append(Collective(groups[0], _numbers(groups[1]), _numbers(groups[2])))
        except (TgError, ValueError) as error:
            raise ParseError(str(error), number, 1) from error
    return Program(name, tuple(scalars), tuple(buffers), tuple(kernels), tuple(steps), alignment)
