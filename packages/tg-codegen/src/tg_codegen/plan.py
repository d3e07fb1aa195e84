"""Plans: how a kernel's loops are ordered, split and spread. Any valid plan gives a correct kernel.

A plan has a nest for each group of stores that share their axes, and the grids of the nests lie one behind the other.
A nest lists loops from the outermost to the innermost; each is a part of an axis:

    nest 0,1: grid i/192 grid j/128 serial k/256 serial i/14 serial j/32 lanes j
    fold 0: serial k/4 chain k
    stage 3 at 3: k j

`serial i/14` steps through what the part of `i` before it left (or all of `i`) by 14. `grid` parts, the first of their
axes, are spread over workgroups; `serial` parts are loops. What the last part of an axis leaves is unrolled: copies of
the body, which share what does not depend on the axis. One axis at most has `lanes`: a copy of it is a vector.

`fold` n is a reduction or scan of the nest, in the order in which they are needed, with the loops over its own axes.
What they leave has accumulators of its own, or with `chain` takes turns with one; lanes are combined at the end; a
reduction that depends on the lanes of the nest has none. A part of a reduction's axis in the nest's own loops moves
that loop outwards: the partial results of all that is inside wait in scratch memory.

`stage` computes a value of the nest (numbered as `nest_values` gives them) ahead, within the first `at` loops of the
nest, for all points of the loops inside, into scratch memory whose layout is these axes, the last contiguous. With
`j/32` as the last, there is such an array for each 32 elements of `j`, one behind the other: a packed panel for each
step of a loop over `j` by 32.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tg_ir.errors import ParseError

__all__ = ["KINDS", "Nest", "Plan", "Split", "Stage", "format_plan", "parse_plan"]

KINDS = ("grid", "serial", "chain", "lanes")


@dataclass(frozen=True, slots=True)
class Split:
    """A loop over part of an axis, in steps of `step` elements; `lanes` and `chain` have no step."""

    kind: str
    axis: str
    step: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.axis}" + ("" if self.kind in ("lanes", "chain") else f"/{self.step}")


@dataclass(frozen=True, slots=True)
class Stage:
    """A value that is computed ahead, within the first `at` loops of the nest; `tile` 0 is a single array."""

    value: int
    at: int
    layout: tuple[str, ...]
    tile: int = 0

    def __str__(self) -> str:
        return f"stage {self.value} at {self.at}: {' '.join(self.layout)}" + (
            f"/{self.tile}" if self.tile else ""
        )


@dataclass(frozen=True, slots=True)
class Nest:
    """The loops around some stores of the kernel, by number."""

    stores: tuple[int, ...]
    loops: tuple[Split, ...]
    folds: tuple[tuple[Split, ...], ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How to compile one kernel."""

    nests: tuple[Nest, ...]

    def __str__(self) -> str:
        return format_plan(self)


def format_plan(plan: Plan) -> str:
    """The plan as text that `parse_plan` reads."""
    lines = []
    for nest in plan.nests:
        lines.append(f"nest {','.join(map(str, nest.stores))}: {' '.join(map(str, nest.loops))}".rstrip())
        lines += [f"fold {n}: {' '.join(map(str, loops))}".rstrip() for n, loops in enumerate(nest.folds)]
        lines += map(str, nest.stages)
    return "\n".join(lines) + "\n"


_SPLIT = re.compile(r"(\w+) (\w+)(?:/(\d+))?")


def parse_plan(text: str) -> Plan:
    """The plan of a text. Raises: ParseError."""
    nests: list[list] = []
    for number, line in enumerate(text.splitlines(), 1):
        head, colon, rest = line.partition(":")
        word, _, what = head.strip().partition(" ")
        if not line.strip():
            continue
        if word == "nest" and colon and all(part.isdigit() for part in what.split(",")):
            nests.append([tuple(map(int, what.split(","))), _parse_splits(rest, number), (), ()])
        elif word == "fold" and colon and nests and what == str(len(nests[-1][2])):
            nests[-1][2] += (_parse_splits(rest, number),)
        elif word == "stage" and nests and (match := re.fullmatch(r"(\d+) at (\d+)", what)):
            names, _, tile = rest.partition("/")
            nests[-1][3] += (Stage(int(match[1]), int(match[2]), tuple(names.split()), int(tile or 0)),)
        else:
            raise ParseError(f"plan: got {line!r}, want a nest, fold or stage line", number, 1)
    return Plan(tuple([Nest(*nest) for nest in nests]))


def _parse_splits(text: str, line: int) -> tuple[Split, ...]:
    splits = tuple([Split(kind, axis, int(step or 1)) for kind, axis, step in _SPLIT.findall(text)])
    if any(split.kind not in KINDS for split in splits) or " ".join(map(str, splits)) != " ".join(
        text.split()
    ):
        raise ParseError(f"plan: got {text.strip()!r}, want loops like `serial i/4` or `lanes i`", line, 1)
    return splits
