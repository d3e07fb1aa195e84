"""An engine that schedules graphs and interprets the programs: the judge of tg-schedule on the frontend's graphs.

pytest -p program_engine packages/tg-frontend/tests     with `tests` on PYTHONPATH: all of them on this engine
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tg_frontend
from tg_ir.graph import Node
from tg_ir.program.interpret import interpret_program
from tg_ir.protocols import Buffer
from tg_ir.reference import ReferenceEngine
from tg_ir.symbolic import evaluate
from tg_schedule import Scheduled, schedule

__all__ = ["ProgramEngine"]


class ProgramEngine(ReferenceEngine):
    """Realises by way of a program; `last` is the one that ran last."""

    last: Scheduled | None = None

    def realize(self, nodes: Sequence[Node]) -> None:
        """Fill each node with its value."""
        wanted = [node for node in nodes if node.value is None]
        if not wanted:
            return
        self.last = scheduled = schedule(wanted)
        given = {n: np.array(np.asarray(b.memory).reshape(-1)) for n, b in scheduled.inputs.items()}
        results = given | interpret_program(scheduled.program, given, scheduled.scalars)
        for node, number in zip(wanted, scheduled.outputs, strict=True):
            shape = tuple([int(evaluate(size, {})) for size in node.shape])
            node.fill(Buffer(shape, node.dtype, node.device, results[number].reshape(shape).copy()))


tg_frontend.set_engine(ProgramEngine())
