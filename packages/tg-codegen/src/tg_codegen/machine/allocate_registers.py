"""Give every virtual register a place: liveness, linear scan, insertion of moves.

Tied operands: where the use dies, the definition takes its place; elsewhere a copy is put before the instruction.
A fixed register that is read and never written is an argument: it begins there, and may move. `TG_VERIFY=1` has every
allocation proven right.
"""

from __future__ import annotations

import os

from tg_codegen.machine.allocation import Allocation, Inserted, RegisterFile, Target
from tg_codegen.machine.check_allocation import check_allocation
from tg_codegen.machine.code import Code
from tg_codegen.machine.insert_moves import insert_moves
from tg_codegen.machine.linear_scan import LinearScan

__all__ = ["Allocation", "Inserted", "RegisterFile", "Target", "allocate_registers"]


def allocate_registers(code: Code, target: Target) -> Allocation:
    """Places for all registers of a function, and its code with spills, reloads and copies."""
    scan = LinearScan(code, target)
    scan.run()
    allocation = insert_moves(scan, target)
    if os.environ.get("TG_VERIFY") == "1":
        check_allocation(code, allocation, target)
    return allocation
