"""Scratch memory: values computed ahead, and partial results of reductions whose loops are outside those of stores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from tg_codegen.lower_folds import Accumulators, Folds
from tg_codegen.lower_index import LinearSum
from tg_codegen.lower_points import Point, Scratch
from tg_codegen.lower_values import machine_type
from tg_codegen.machine.nodes import INDEX, MEMORY_BYTES, Address, Reg
from tg_codegen.plan import Split, Stage
from tg_ir.kernel import (
    Reduce,
    Value,
)

__all__ = ["ScratchMemory"]

SCRATCH_MEMORY = {
    "f32": "float32",
    "f64": "float64",
    "i32": "int32",
    "u32": "uint32",
    "i64": "int64",
    "u64": "uint64",
}


class ScratchMemory(Folds):
    """Stages values and takes reductions in blocks."""

    @abstractmethod
    def loops(self, level: int) -> None:
        """Open the loops from number `level` on, and build what is inside."""

    # ---- scratch memory

    def allocate(self, size_bytes: int) -> Reg:
        """So many bytes of scratch memory, aligned to 64."""
        b, function = self.b, self.b.function
        offset = function.scratch_bytes
        function.scratch_bytes += -(-size_bytes // 64) * 64
        return b.emit("add", INDEX, b.emit("scratch", INDEX), b.index(offset))

    def array(self, axes: Sequence[str], element: str, inner: int, tile: int = 0) -> Scratch:
        """An array over what is left of some axes, the last in tiles; its elements are `inner` bytes apart."""
        b, stride = self.b, inner
        strides: dict[str, tuple[int, int]] = {}
        for n, axis in enumerate(reversed(axes)):
            most = tile if tile and n == 0 else self.reach(axis)
            strides[axis] = stride, stride
            stride *= -(-most // self.lanes) * self.lanes if n == 0 else most
            if n == 0 and stride % 512 == 0 and len(axes) > 1:
                stride += 64  # rows a power of two apart would fall into the same cache set
        if tile:
            count = -(-self.ranges[axes[-1]].most // tile)
            strides[axes[-1]] = stride // tile, inner
            stride *= count
        base = self.allocate(stride)
        for axis in axes:
            start = b.emit("mul", INDEX, self.ranges[axis].start, b.index(strides[axis][0]))
            base = b.emit("sub", INDEX, base, start)
        return Scratch(base, strides, element)

    def reach(self, axis: str) -> int:
        """How many elements of an axis are touched from its start on: the last steps may go behind its end."""
        reach = block = self.ranges[axis].most
        for split in self.nest.loops:
            if split.axis == axis and split.kind == "serial" and split.step < block:
                reach, block = reach + -block % split.step, split.step
        return reach

    def scratch_address(
        self, scratch: Scratch, point: Point, extra: int | None = None
    ) -> tuple[Address, str]:
        """Where the element at a point lies; with `extra`, so many bytes further, a vector."""
        terms: list[tuple[Reg, int]] = []
        lane, const, offsets = 0, extra or 0, dict(point)
        size = MEMORY_BYTES[scratch.memory]
        for axis, (far, near) in scratch.strides.items():
            start = self.ranges[axis].start
            known = self.b.value_of(start)
            const += near * offsets.get(axis, 0) + far * (known or 0)
            if known is None:
                terms.append((start, far))
            if axis == self.indexer.lane_axis and extra is None:
                lane = near // size
        return self.indexer.place(scratch.base, LinearSum(const, terms, lane), 1, "i32")

    def load_scratch(self, scratch: Scratch, value: Value, point: Point) -> Reg:
        address, access = self.scratch_address(scratch, point)
        lane, mask = self.indexer.lane_axis, None
        if lane in scratch.strides and (
            lane != self.lane_axis or access == "each"
        ):  # may reach behind the array
            mask = self.both(self.tail([lane], point))
        type = machine_type(value.dtype)
        return self.b.load(type, scratch.memory, address, access, mask, volatile=True)

    def stage(self, stage: Stage) -> None:
        """Compute a value for all that is left of its axes, into scratch memory."""
        b, value = self.b, self.values[stage.value]
        saved = dict(self.ranges), self.open, self.indexer.lane_axis
        extents = {axis.name: axis.extent for fold in self.splits for axis in getattr(fold, "axes", ())}
        for axis in stage.layout:
            if axis not in self.ranges:
                self.ranges[axis] = self.whole_range(extents[axis])
        memory = SCRATCH_MEMORY[machine_type(value.dtype)]
        scratch = self.array(stage.layout, memory, MEMORY_BYTES[memory], stage.tile)
        self.indexer.lane_axis = stage.layout[-1]

        def fill(axes: tuple[str, ...]) -> None:
            if axes:
                step = (stage.tile or self.lanes) if len(axes) == 1 else 1
                for _ in self.steps(Split("serial", axes[0], step), True):
                    fill(axes[1:])
                return
            self.open = self.open | set(stage.layout)
            self.prepare([value])
            for point in self.points(stage.layout):
                address, access = self.scratch_address(scratch, point)
                b.store(memory, address, access, self.value(value, point), volatile=True)

        fill(stage.layout)
        self.ranges, self.open, self.indexer.lane_axis = saved
        self.staged[value] = scratch

    # ---- reductions in blocks

    def in_blocks(self, level: int, axis: str) -> None:
        """Loops over parts of a reduction's axes outside of loops over stores: the results wait in scratch memory."""
        fold = next(f for f in self.splits if isinstance(f, Reduce) and any(a.name == axis for a in f.axes))
        saved = dict(self.ranges), dict(self.staged)
        self.blocked = fold
        self.block_axes = {a.name for a in fold.axes} & {split.axis for split in self.nest.loops[level:]}
        with self.own_lanes(fold):
            copies = len(self.copies(fold))
        axes = [a for a in self.ranges if a in self.analysis.free(fold) and a != self.lane_axis]
        for const in fold.monoid.identity:
            memory = SCRATCH_MEMORY[machine_type(const.dtype)]
            vector = self.lanes * MEMORY_BYTES[memory] * copies
            if self.vertical(fold):
                array = self.array([*axes, self.lane_axis], memory, MEMORY_BYTES[memory] * copies)
            else:
                array = self.array(axes, memory, vector)
            self.partial.append(array)
        for self.phase in ("clear", "add", "finish"):
            if self.phase == "add":
                for each in fold.axes:
                    if each.name in self.block_axes:
                        self.ranges[each.name] = self.whole_range(each.extent)
            self.loops(level)
            self.ranges, self.staged = dict(saved[0]), dict(saved[1])
        self.phase, self.blocked, self.block_axes, self.partial = "", None, set(), []

    def partial_results(self, fold: Reduce, add: bool) -> None:
        """Clear what is in scratch memory for the results at hand, or add a block to it."""
        b = self.b
        points = self.result_points(fold)
        with self.own_lanes(fold):
            keys = [(fold, point, copy) for point in points for copy in self.copies(fold)]
            if add:
                made = self.accumulate([(fold, points)], fold, self.load_partial(keys))
                values = made.current
            else:
                values = [self.identity(fold.monoid) for _ in keys]
            for (_, point, copy), parts in zip(keys, values, strict=True):
                for array, address, reg in zip(
                    self.partial, self.partial_addresses(fold, point, copy), parts, strict=True
                ):
                    b.store(array.memory, address, "lanes", reg, volatile=True)

    def load_partial(self, keys: list[tuple[Reduce, Point, Point]]) -> list[list[Reg]]:
        return [
            [
                self.b.load(machine_type(const.dtype), array.memory, address, "lanes", volatile=True)
                for const, array, address in zip(
                    fold.monoid.identity, self.partial, self.partial_addresses(fold, point, copy), strict=True
                )
            ]
            for fold, point, copy in keys
        ]

    def partial_addresses(self, fold: Reduce, point: Point, copy: Point) -> list[Address]:
        number = self.copies(fold).index(copy)
        found = []
        for array in self.partial:
            vector = self.lanes * MEMORY_BYTES[array.memory]
            found.append(self.scratch_address(array, point, number * vector)[0])
        return found

    def finish_partial(self, fold: Reduce) -> None:
        """The results at hand, from scratch memory."""
        points = self.result_points(fold)
        with self.own_lanes(fold):
            keys = [(fold, point, copy) for point in points for copy in self.copies(fold)]
            made = Accumulators(keys, self.load_partial(keys))
            for key, parts in self.finish(made):
                self.scopes[-1].folds[key] = tuple(parts)
