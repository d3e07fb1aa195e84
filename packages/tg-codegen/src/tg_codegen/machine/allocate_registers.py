"""Give every virtual register a place: liveness, linear scan, insertion of moves.

Tied operands: where the use dies, the definition takes its place; elsewhere a copy is put before the instruction.
A fixed register that is read and never written is an argument: it begins there, and may move. `check_allocation`
proves the result right.
"""

from __future__ import annotations

from tg_codegen.machine.allocation import Allocation, Inserted, RegisterFile, Target
from tg_codegen.machine.code import Code
from tg_codegen.machine.insert_moves import insert_moves
from tg_codegen.machine.linear_scan import LinearScan

__all__ = ["Allocation", "Inserted", "RegisterFile", "Target", "allocate_registers"]


def allocate_registers(code: Code, target: Target) -> Allocation:
    """Places for all registers of a function, and its code with spills, reloads and copies."""
    scan = LinearScan(code, target)
    scan.run()
    return insert_moves(scan, target)
