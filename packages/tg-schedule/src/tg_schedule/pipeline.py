"""The passes from a tensor graph to a program, in order.

| pass | takes | gives |
|---|---|---|
| normalize | any graph | numbered inputs, no pending buffers, variables without values |
| decompose | | no random_bits, argsort, all_reduce, all_gather |
| choose_stores | | drafts of kernels: what each stores and loads |
| order_kernels | | drafts in an order that needs little memory, small ones together |
| build_program | | a program: kernels, steps, buffers |
| plan_memory | | the program with offsets for its temporaries |
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tg_ir.graph import Node, toposort, verify_graph
from tg_ir.program import Program, verify_program
from tg_ir.protocols import Buffer
from tg_schedule.build_program import build_program
from tg_schedule.choose_stores import choose_stores
from tg_schedule.decompose import decompose
from tg_schedule.normalize import Normalized, normalize
from tg_schedule.order_kernels import order_kernels
from tg_schedule.plan_memory import plan_memory

__all__ = ["Scheduled", "schedule", "schedule_normalized"]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A program, and what to run it on: a buffer for each input number, a number for each root, scalar values."""

    program: Program
    inputs: dict[int, Buffer]
    outputs: tuple[int, ...]
    scalars: dict[str, int]


def schedule(roots: Sequence[Node], name: str = "program") -> Scheduled:
    """The program that computes `roots`.

    Raises:
        EvaluationError, SymbolicError: a buffer was never filled; variables of one name differ.
    """
    normal = normalize(roots)
    program, inputs, outputs = schedule_normalized(normal, name)
    return Scheduled(program, dict(zip(inputs, normal.buffers, strict=True)), outputs, dict(normal.scalars))


def schedule_normalized(normal: Normalized, name: str) -> tuple[Program, tuple[int, ...], tuple[int, ...]]:
    """The program of a normal form, the numbers of its inputs, and those of its roots."""
    verify = os.environ.get("TG_VERIFY") == "1"
    roots = decompose(normal.roots)
    if verify:
        verify_graph(roots, "decompose")
    drafts, attention = choose_stores(roots)
    order = toposort(roots)
    groups = order_kernels(drafts, order, roots)
    used = [node for node in order if node.op.name == "buffer"]
    inputs = [node for node in normal.inputs if node in set(used)]
    rest = [node for node in normal.inputs if node not in set(used)]
    program, numbers = build_program(name, [*inputs, *rest], roots, groups, attention)
    program = plan_memory(program)
    if verify:
        verify_program(program, "plan_memory")
    return program, tuple([numbers[node] for node in normal.inputs]), tuple([numbers[root] for root in roots])
