"""The interpreter of the kernel IR: NumPy over all points of a store's axes at once. It defines what a kernel means.

Every axis of a store, and every reduction axis inside, gets a dimension of its own, counted from the last; a value is
an array that broadcasts over the dimensions it depends on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tg_ir.dtypes import DType
from tg_ir.errors import EvaluationError
from tg_ir.kernel.monoids import MONOIDS, Monoid
from tg_ir.kernel.nodes import (
    Argument,
    Axis,
    Bitcast,
    Cast,
    Const,
    Elementwise,
    Index,
    Kernel,
    Load,
    Loaded,
    Part,
    Reduce,
    Scan,
    Store,
    Value,
)
from tg_ir.numeric import evaluate_elementwise
from tg_ir.numpy_dtypes import cast, compute_dtype, decode, encode, numpy_dtype
from tg_ir.symbolic import Leaf, SymInt, evaluate, leaves

__all__ = ["interpret_kernel"]

_UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def interpret_kernel(
    kernel: Kernel, buffers: Mapping[str, np.ndarray], scalars: Mapping[str, int] | None = None
) -> None:
    """Run the kernel on flat storage arrays, one a parameter; those it writes are changed in place.

    Raises:
        EvaluationError: an array of the wrong dtype or size, or an index outside its buffer.
    """
    scalars = dict(scalars or {})
    for parameter in kernel.parameters:
        array, size = buffers[parameter.name], evaluate(parameter.size, scalars)
        if array.ndim != 1 or array.size < size or array.dtype != numpy_dtype(parameter.dtype):
            raise EvaluationError(
                f"kernel {kernel.name}: {parameter.name} is {array.dtype}{list(array.shape)}, "
                f"want flat {numpy_dtype(parameter.dtype)}[{size}]"
            )
    before = {
        p.name: buffers[p.name].copy() if p.access == "update" else buffers[p.name] for p in kernel.parameters
    }
    for store in kernel.stores:
        _Evaluation(store, before, scalars).run(buffers[store.parameter.name])


class _Evaluation:
    def __init__(self, store: Store, buffers: Mapping[str, np.ndarray], scalars: Mapping[str, int]):
        self.store, self.buffers, self.scalars = store, buffers, scalars
        self.position: dict[Axis, int] = {}  # dimension, counted from the last
        self.extent: dict[Axis, int] = {}
        self.grids: dict[str, np.ndarray] = {}
        self.known: dict[Value, np.ndarray] = {}
        for axis in reversed(store.axes):
            self.enter(axis)

    def enter(self, axis: Axis) -> None:
        """Give the axis a dimension."""
        if axis not in self.position:
            self.extent[axis] = int(self.expr(axis.extent))
            self.position[axis] = len(self.position)
            self.grids[axis.name] = np.arange(self.extent[axis]).reshape([-1] + [1] * self.position[axis])

    def expr(self, expr: SymInt) -> np.ndarray | int:
        values: dict[Leaf | str, np.ndarray | int] = {**self.scalars, **self.grids}
        for leaf in leaves(expr):
            if isinstance(leaf, Loaded):
                values[leaf] = self.value(leaf.source).astype(np.int64)
        return evaluate(expr, values)

    def run(self, target: np.ndarray) -> None:
        store = self.store
        if any(self.extent[axis] == 0 for axis in store.axes):
            return
        result = self.points(self.value(store.value))
        index = self.points(self.expr(store.index))
        chosen = self.points(self.expr(store.guard)) != 0
        index, result = index[chosen], result[chosen]
        self.check(index, target.size, store.parameter.name)
        if store.combine in _UFUNCS:
            held = decode(target, store.parameter.dtype).copy()
            with np.errstate(all="ignore"):
                _UFUNCS[store.combine].at(held, index, result)
            target[...] = encode(held, store.parameter.dtype)
        else:
            if store.combine == "" and np.unique(index).size != index.size:
                raise EvaluationError(f"store to {store.parameter.name}: several points write one element")
            target[index] = encode(result, store.parameter.dtype)

    def points(self, array: np.ndarray | int) -> np.ndarray:
        """One element for each point of the store, in row-major order; dimensions of reductions are 1 by now."""
        array = np.asarray(array)
        shape = [self.extent[axis] for axis in self.store.axes]
        return np.broadcast_to(array.reshape(array.shape[max(0, array.ndim - len(shape)) :]), shape).reshape(
            -1
        )

    def check(self, index: np.ndarray, size: int, name: str) -> None:
        if index.size and (index.min() < 0 or index.max() >= size):
            raise EvaluationError(f"{name}: indices {index.min()}..{index.max()} of {size} elements")

    def value(self, value: Value) -> np.ndarray:
        if value not in self.known:
            self.known[value] = self.compute(value)
        return self.known[value]

    def compute(self, value: Value) -> np.ndarray:
        match value:
            case Const():
                return np.asarray(value.value, compute_dtype(value.dtype))
            case Index():
                return np.asarray(self.expr(value.expr)).astype(compute_dtype(value.dtype))
            case Load():
                return self.load(value)
            case Elementwise():
                return evaluate_elementwise(value.name, [self.value(arg) for arg in value.args], value.dtype)
            case Cast():
                return cast(self.value(value.arg), value.arg.dtype, value.dtype)
            case Bitcast():
                bits = np.ascontiguousarray(encode(self.value(value.arg), value.arg.dtype))
                return decode(bits.view(numpy_dtype(value.dtype)), value.dtype)
            case Part():
                return self.fold(value.fold)[value.position]
            case Reduce() | Scan():
                return self.fold(value)[0]
        raise AssertionError(f"no meaning for {value!r}")

    def load(self, load: Load) -> np.ndarray:
        memory = self.buffers[load.parameter.name]
        index, guard = np.broadcast_arrays(self.expr(load.index), self.expr(load.guard))
        inside = guard != 0
        self.check(index[inside], memory.size, load.parameter.name)
        if not memory.size:
            return np.broadcast_to(self.value(load.other), index.shape)
        found = decode(memory[np.where(inside, index, 0)], load.parameter.dtype)
        return np.where(inside, found, self.value(load.other))

    def fold(self, fold: Reduce | Scan) -> list[np.ndarray]:
        """The components of the result."""
        axes = fold.axes if isinstance(fold, Reduce) else (fold.axis,)
        for axis in axes:
            self.enter(axis)
        if any(self.extent[axis] == 0 for axis in axes):
            return _identity(fold.monoid, ())
        parts = [self.value(arg) for arg in fold.args]
        rank = max(len(self.position), *[part.ndim for part in parts])
        parts = [part.reshape([1] * (rank - part.ndim) + list(part.shape)) for part in parts]
        dims = [rank - 1 - self.position[axis] for axis in axes]
        shape = list(np.broadcast_shapes(*[part.shape for part in parts]))
        for dim, axis in zip(dims, axes, strict=True):
            shape[dim] = self.extent[axis]
        parts = [np.broadcast_to(part, shape) for part in parts]
        if isinstance(fold, Scan):
            return [
                np.moveaxis(p, 0, dims[0])
                for p in scan(fold.monoid, [np.moveaxis(p, dims[0], 0) for p in parts])
            ]
        moved = [np.moveaxis(part, dims, range(len(dims))) for part in parts]
        flat = [part.reshape(-1, *part.shape[len(dims) :]) for part in moved]
        kept = [1 if dim in dims else size for dim, size in enumerate(shape)]
        return [part.reshape(kept) for part in reduce(fold.monoid, flat)]


def _combine(monoid: Monoid, left: list[np.ndarray], right: list[np.ndarray]) -> list[np.ndarray]:
    known: dict[Value, np.ndarray] = {}

    def value(node: Value) -> np.ndarray:
        if node not in known:
            match node:
                case Argument():
                    known[node] = (left if node.side == "left" else right)[node.position]
                case Const():
                    known[node] = np.asarray(node.value, compute_dtype(node.dtype))
                case Elementwise():
                    known[node] = evaluate_elementwise(
                        node.name, [value(arg) for arg in node.args], node.dtype
                    )
                case Cast():
                    known[node] = cast(value(node.arg), node.arg.dtype, node.dtype)
                case _:
                    raise AssertionError(f"a monoid cannot combine with {node!r}")
        return known[node]

    return [np.broadcast_to(value(node), left[i].shape) for i, node in enumerate(monoid.result)]


def _identity(monoid: Monoid, shape: tuple[int, ...]) -> list[np.ndarray]:
    return [np.full(shape, const.value, compute_dtype(const.dtype)) for const in monoid.identity]


def reduce(monoid: Monoid, parts: list[np.ndarray]) -> list[np.ndarray]:
    """The tuples combined over the first dimension, neighbours first."""
    if (
        monoid.name in _UFUNCS
        and MONOIDS[monoid.name](monoid.dtypes[0]) == monoid
        and _native(monoid.dtypes[0])
    ):
        with np.errstate(all="ignore"):
            last = np.ascontiguousarray(
                np.moveaxis(parts[0], 0, -1)
            )  # NumPy sums in pairs along the last axis
            return [_UFUNCS[monoid.name].reduce(last, axis=-1, dtype=last.dtype)]
    while len(parts[0]) > 1:
        even = len(parts[0]) // 2 * 2
        paired = _combine(monoid, [part[0:even:2] for part in parts], [part[1:even:2] for part in parts])
        parts = [np.concatenate([pair, part[even:]]) for pair, part in zip(paired, parts, strict=True)]
    return [part[0] for part in parts]


def scan(monoid: Monoid, parts: list[np.ndarray]) -> list[np.ndarray]:
    """The tuples combined over positions 0 to i of the first dimension, by doubling."""
    reach = 1
    while reach < len(parts[0]):
        later = _combine(monoid, [part[:-reach] for part in parts], [part[reach:] for part in parts])
        parts = [np.concatenate([part[:reach], new]) for part, new in zip(parts, later, strict=True)]
        reach *= 2
    return parts


def _native(dtype: DType) -> bool:
    return dtype.itemsize >= 4 or not dtype.is_float
