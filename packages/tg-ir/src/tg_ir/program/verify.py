"""The verifier of the program IR: arguments fit, reads come after writes, live temporaries do not overlap."""

from __future__ import annotations

from collections.abc import Iterator

from tg_ir.errors import VerifyError
from tg_ir.kernel.verify import verify_kernel
from tg_ir.program.nodes import (
    COLLECTIVES,
    ROLES,
    BufferSlot,
    Collective,
    Copy,
    Launch,
    Program,
    Step,
    reads,
    writes,
)
from tg_ir.symbolic import format_expr, prove_equal, prove_le, variables

__all__ = ["live_ranges", "verify_program"]


def verify_program(program: Program, made_by: str = "the caller") -> None:
    """Check a program against the rules on top of program/nodes.py, and its kernels.

    Raises:
        VerifyError: it names the program, the step or buffer, what is wrong, and `made_by`, the last pass.
    """
    for kernel in program.kernels:
        verify_kernel(kernel, made_by)
    for where, problem in _problems(program):
        raise VerifyError(f"program {program.name}: {where}: {problem}; the program comes from {made_by}")


def _problems(program: Program) -> Iterator[tuple[str, str]]:
    if len(program.kernel) != len(program.kernels):
        yield "kernels", "two have one name"
    for number, slot in enumerate(program.buffers):
        yield from _slot_problems(f"buffer {number}", slot, program)
    for number, step in enumerate(program.steps):
        where = f"step {number}"
        used = _numbers(step)
        if any(not 0 <= buffer < len(program.buffers) for buffer in used):
            yield where, f"buffers {used}; there are {len(program.buffers)}"
            return
        yield from _step_problems(where, step, program)
    yield from _order_problems(program)
    yield from _overlaps(program)


def _numbers(step: Step) -> tuple[int, ...]:
    match step:
        case Launch():
            return step.buffers
        case Copy():
            return (step.target, step.source)
        case Collective():
            return (*step.targets, *step.sources)


def _slot_problems(where: str, slot: BufferSlot, program: Program) -> Iterator[tuple[str, str]]:
    if slot.role not in ROLES:
        yield where, f"role is {slot.role!r}, want one of {', '.join(ROLES)}"
    if (slot.offset is not None) != (slot.role == "temporary"):
        yield where, f"a {slot.role} buffer with offset {slot.offset}; temporaries have one and others none"
    if slot.offset is not None and slot.offset % program.alignment != 0:
        yield where, f"offset {format_expr(slot.offset)} is not a multiple of {program.alignment}"
    for expr in (slot.size, slot.offset or 0):
        for var in variables(expr):
            if var not in program.scalars:
                yield where, f"{var.name} in {format_expr(expr)} is no scalar of the program"


def _step_problems(where: str, step: Step, program: Program) -> Iterator[tuple[str, str]]:
    slots = program.buffers
    match step:
        case Launch():
            kernel = program.kernel.get(step.kernel)
            if kernel is None or len(kernel.parameters) != len(step.buffers):
                yield (
                    where,
                    f"launches {step.kernel!r} on {len(step.buffers)} buffers: no kernel of that form",
                )
                return
            if not set(kernel.scalars) <= set(program.scalars):
                yield where, f"kernel {kernel.name} has scalars that the program has not"
            for parameter, number in zip(kernel.parameters, step.buffers, strict=True):
                slot = slots[number]
                if parameter.dtype is not slot.dtype or not prove_le(parameter.size, slot.size):
                    have = f"{slot.dtype}[{format_expr(slot.size)}]"
                    want = f"{parameter.dtype}[{format_expr(parameter.size)}]"
                    yield where, f"buffer {number} is {have}, parameter {parameter.name} wants {want}"
                if parameter.access != "read" and step.buffers.count(number) > 1:
                    yield where, f"buffer {number} is written and given twice"
            if len({slots[number].device for number in step.buffers}) > 1:
                yield where, "buffers on several devices; copy first"
        case Copy():
            target, source = slots[step.target], slots[step.source]
            if target.dtype is not source.dtype or not prove_equal(target.size, source.size):
                yield where, f"copies buffer {step.source} to {step.target}, of another size or dtype"
        case Collective():
            if step.kind not in COLLECTIVES or not step.sources or not step.targets:
                yield where, f"collective {step.kind!r} of {len(step.sources)} buffers"
            whole = slots[step.sources[0]].size * (len(step.sources) if step.kind == "gather" else 1)
            if any(not prove_equal(slots[number].size, whole) for number in step.targets):
                yield (
                    where,
                    f"targets {step.targets} do not have the {format_expr(whole)} elements of the result",
                )
    for number in writes(program, step):
        if slots[number].role in ("input", "constant"):
            yield where, f"writes buffer {number}, an {slots[number].role}"


def _order_problems(program: Program) -> Iterator[tuple[str, str]]:
    written = set(program.numbers("input", "state", "constant"))
    for position, step in enumerate(program.steps):
        for number in reads(program, step):
            if number not in written:
                yield f"step {position}", f"reads buffer {number}, which nothing has written"
        written.update(writes(program, step))
    for number in program.numbers("output"):
        if number not in written:
            yield f"buffer {number}", "an output that nothing writes"


def live_ranges(program: Program) -> dict[int, tuple[int, int]]:
    """For each temporary that is used: the first and last step that touch it."""
    ranges: dict[int, tuple[int, int]] = {}
    for position, step in enumerate(program.steps):
        for number in _numbers(step):
            if program.buffers[number].role == "temporary":
                ranges[number] = (ranges.get(number, (position, position))[0], position)
    return ranges


def _overlaps(program: Program) -> Iterator[tuple[str, str]]:
    live = sorted(live_ranges(program).items())
    for position, (one, (start, stop)) in enumerate(live):
        for other, (first, last) in live[position + 1 :]:
            a, b = program.buffers[one], program.buffers[other]
            if first > stop or start > last or a.device != b.device:
                continue
            assert a.offset is not None and b.offset is not None, (
                "a temporary without an offset was found before"
            )
            if not (
                prove_le(a.offset + a.size_bytes, b.offset) or prove_le(b.offset + b.size_bytes, a.offset)
            ):
                yield f"buffer {one}", f"shares bytes with buffer {other} while both are live"
