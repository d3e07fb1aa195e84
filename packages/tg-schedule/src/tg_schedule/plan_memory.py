"""Place temporaries in one arena a device, so that those that are live together do not overlap.

Greedy by size: the largest buffer first, each at the lowest offset that is free for as long as it is live. Symbolic
sizes count as their largest value, so that one plan serves every binding.

*before*: temporaries without offsets. *after*: every temporary has one.
"""

from __future__ import annotations

import dataclasses

from tg_ir.program import Program, live_ranges
from tg_ir.symbolic import bounds

__all__ = ["peak_bytes", "plan_memory"]


def plan_memory(program: Program) -> Program:
    """The program with an offset for each temporary."""
    alignment = program.alignment
    ranges = live_ranges(program)
    placed: list[tuple[int, int, int, int, str]] = []  # first step, last step, offset, end, device
    offsets: dict[int, int] = {}
    sizes = {number: bounds(program.buffers[number].size_bytes)[1] for number in program.numbers("temporary")}
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        first, last = ranges.get(number, (0, 0))
        device, size, offset = program.buffers[number].device, sizes[number], 0
        together = [p for p in placed if p[4] == device and p[0] <= last and first <= p[1]]
        for _, _, start, end, _ in sorted(together, key=lambda p: p[2]):
            if offset + size <= start:
                break
            offset = max(offset, -(-end // alignment) * alignment)
        placed.append((first, last, offset, offset + size, device))
        offsets[number] = offset
    buffers = [
        dataclasses.replace(slot, offset=offsets[number]) if number in offsets else slot
        for number, slot in enumerate(program.buffers)
    ]
    return dataclasses.replace(program, buffers=tuple(buffers))


def peak_bytes(program: Program) -> dict[str, int]:
    """The size of each device's arena for the largest binding."""
    peak: dict[str, int] = {}
    for slot in program.buffers:
        if slot.offset is not None:
            end = bounds(slot.offset + slot.size_bytes)[1]
            peak[slot.device] = max(peak.get(slot.device, 0), end)
    return peak
