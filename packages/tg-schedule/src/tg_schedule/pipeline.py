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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tg_ir.graph import Node, toposort, verify_graph
from tg_ir.program import Program, verify_program
from tg_ir.protocols import Buffer
from tg_schedule import knobs
from tg_schedule.build_program import build_program
from tg_schedule.choose_stores import choose_stores
from tg_schedule.decompose import decompose
from tg_schedule.normalize import Normalized, normalize
from tg_schedule.order_kernels import order_kernels
from tg_schedule.places import behind_reshape
from tg_schedule.plan_memory import plan_memory

__all__ = ["Scheduled", "schedule", "schedule_normalized"]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A program, and what to run it on: a buffer for each input number, a number for each root, scalar values.

    A root whose number is that of an input was written over that input (then a `state`), or is that very input.
    """

    program: Program
    inputs: dict[int, Buffer]
    outputs: tuple[int, ...]
    scalars: dict[str, int]


def schedule(
    roots: Sequence[Node], name: str = "program", donate: Mapping[Node, Buffer] | None = None
) -> Scheduled:
    """The program that computes `roots`.

    Args:
        donate: for a root, the buffer that its value may be written over, because nobody wants what it holds any
            more. It is, where sizes agree and each element of the buffer is read only to compute the element of the
            root that takes its place; a box assigned to the buffer and a scatter into it write nothing else.

    Raises:
        EvaluationError, SymbolicError: a buffer was never filled; variables of one name differ.
    """
    normal = normalize(roots)
    places = {id(buffer): number for number, buffer in enumerate(normal.buffers)}
    pairs = [(root, places[id(buffer)]) for root, buffer in (donate or {}).items() if id(buffer) in places]
    over = tuple([(list(roots).index(root), number) for root, number in pairs])
    program, inputs, outputs = schedule_normalized(normal, name, over)
    return Scheduled(program, dict(zip(inputs, normal.buffers, strict=True)), outputs, dict(normal.scalars))


def schedule_normalized(
    normal: Normalized, name: str, donate: Sequence[tuple[int, int]] = ()
) -> tuple[Program, tuple[int, ...], tuple[int, ...]]:
    """The program of a normal form, the numbers of its inputs, and those of its roots.

    `donate`: roots and the inputs that they may be written over, by their places in the normal form.
    """
    verify = knobs.verify()
    roots = _without_reshapes(decompose(normal.roots))
    if verify:
        verify_graph(roots, "decompose")
    choice = choose_stores(roots, {roots[root]: normal.inputs[given] for root, given in donate})
    order = toposort(roots)
    groups = order_kernels(choice.drafts, order, roots)
    used = {node for node in order if node.op.name == "buffer"}
    inputs = sorted(normal.inputs, key=lambda node: node not in used)
    program, numbers = build_program(name, inputs, roots, groups, choice)
    program = plan_memory(program)
    if verify:
        verify_program(program, "plan_memory")
    return program, tuple([numbers[node] for node in normal.inputs]), tuple([numbers[root] for root in roots])


def _without_reshapes(roots: Sequence[Node]) -> list[Node]:
    """What roots are reshapes of, in their stead, unless it is an input or a root itself."""
    taken, result = set(roots), []
    for root in roots:
        inner = behind_reshape(root)
        if inner.op.name not in ("buffer", "const") and inner not in taken:
            taken.add(inner)
            root = inner
        result.append(root)
    return result
