"""Lower nodes to kernel values by pulling: the value of a node at an index, in terms of its inputs at theirs.

Movement is substitution on indices and costs nothing. A pad is a guard on the loads below it. Reductions open axes of
their own. Nodes that the scheduler stores are loads from their buffer.

    out[i, j] of `expand(reshape(x, (4,)), (3, 4))` -> load x[j]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tg_ir import kernel as k
from tg_ir.dtypes import DType, bool_, float32, int64
from tg_ir.graph import Node, Shape
from tg_ir.kernel import (
    Axis,
    Cast,
    Const,
    Elementwise,
    Index,
    Load,
    Loaded,
    Parameter,
    Part,
    Reduce,
    Scan,
    Value,
)
from tg_ir.symbolic import SymInt, bounds, le, logical_and, lt, maximum, minimum, prod, simplify

__all__ = ["Lowering", "flat_index", "unflatten"]

Indices = tuple[SymInt, ...]


def flat_index(index: Sequence[SymInt], shape: Shape) -> SymInt:
    """The position of an index in row-major order."""
    flat: SymInt = 0
    for position, size in zip(index, shape, strict=True):
        flat = flat * size + position
    return flat


def unflatten(flat: SymInt, shape: Shape) -> Indices:
    """The index of a position in row-major order."""
    index: list[SymInt] = []
    for axis, size in enumerate(shape):
        inner = prod(shape[axis + 1 :])
        if bounds(size)[1] <= 1 or bounds(inner)[1] == 0:
            index.append(0)
        else:
            # a size that may be 0 divides nothing: there are no elements then
            outer = flat // _positive(inner)
            index.append(outer % _positive(size) if axis else outer)
    return tuple(index)


def _positive(size: SymInt) -> SymInt:
    return size if bounds(size)[0] > 0 else maximum(size, 1)


def accumulator(dtype: DType) -> DType:
    """What sums and products of `dtype` are accumulated in."""
    return float32 if dtype.is_float and dtype.bits < 32 else dtype


class Lowering:
    """The pull of one kernel. `parameters` gives the buffer of every node that is loaded, not computed."""

    def __init__(self, parameters: Mapping[Node, Parameter]):
        self.parameters = parameters
        self.loaded: dict[Parameter, None] = {}
        self.memo: dict[tuple[Node, Indices, SymInt], Value] = {}
        self.axes: list[Axis] = []
        self.open: set[Axis] = set()

    def axis(self, prefix: str, extent: SymInt) -> Axis:
        """An axis of this extent that is not in use around: sibling reductions run over the same one."""
        for axis in self.axes:
            if axis.extent == extent and axis.name.startswith(prefix) and axis not in self.open:
                break
        else:
            axis = Axis(f"{prefix}{len(self.axes)}", extent)
            self.axes.append(axis)
        self.open.add(axis)
        return axis

    def close(self, axes: Iterable[Axis]) -> None:
        """The axes are free to be used again."""
        self.open.difference_update(axes)

    def pull(self, node: Node, index: Indices, guard: SymInt = 1) -> Value:
        """The value of `node` at `index`, wanted only where `guard` is not 0."""
        key = (node, index, guard)
        if key not in self.memo:
            self.memo[key] = self._pull(node, index, guard)
        return self.memo[key]

    def _pull(self, node: Node, index: Indices, guard: SymInt) -> Value:
        if node in self.parameters:
            return self.load(node, index, guard)
        if node.op.elementwise:
            return Elementwise(
                node.op.name, tuple([self.pull(source, index, guard) for source in node.inputs])
            )
        rule = _RULES.get(node.op.name)
        assert rule is not None, f"{node.op.name} is stored, never pulled through"
        return rule(self, node, index, guard)

    def load(self, node: Node, index: Indices, guard: SymInt) -> Value:
        """The element of a stored node."""
        parameter = self.parameters[node]
        self.loaded.setdefault(parameter)
        flat = simplify(flat_index(index, node.shape), assuming=guard)
        inside = logical_and(le(0, flat), lt(flat, parameter.size))
        if inside != 1 and guard != 0 and 0 not in node.shape and simplify(inside, assuming=guard) != 1:
            # It is inside wherever the value is used, but that is more than can be proved: see to it.
            guard = logical_and(guard, inside)
            if simplify(inside, assuming=guard) != 1:
                flat = minimum(maximum(flat, 0), parameter.size - 1)
        return Load.of(parameter, flat, guard)

    def scan(self, node: Node, index: Indices, axis: Axis, guard: SymInt = 1) -> Value:
        """The prefix of a scan node at `index`, whose scanned position is `axis`."""
        source, kind, dtype = node.inputs[0], node["kind"], accumulator(node.inputs[0].dtype)
        value = self.cast(self.pull(source, index, guard), dtype)
        if kind.startswith("arg"):
            # the latest of equals: compare positions the other way round
            fold = Scan(_latest(kind, dtype), axis, (value, Index(index[node["axis"]], int64)))
            return Part(fold, 1)
        return self.cast(Part(Scan(k.MONOIDS[kind](dtype), axis, (value,)), 0), node.dtype)

    @staticmethod
    def cast(value: Value, dtype: DType) -> Value:
        return value if value.dtype is dtype else Cast(value, dtype)


def _latest(kind: str, dtype: DType) -> k.Monoid:
    """arg-extreme of prefixes: of equal values the last index."""
    monoid = k.MONOIDS[kind](dtype)
    swapped = {"left": "right", "right": "left"}

    def swap(value: Value) -> Value:
        match value:
            case k.Argument():
                return k.Argument(swapped[value.side], value.position, value.type)
            case Elementwise(name="le"):
                return Elementwise("le", value.args)
            case Elementwise():
                return Elementwise(value.name, tuple([swap(arg) for arg in value.args]))
        return value

    identity = (monoid.identity[0], Const.of(-1, int64))
    return k.Monoid(f"{kind}_last", identity, tuple([swap(value) for value in monoid.result]), False)


# ---- rules: (lowering, node, index, guard) -> value ----------------------------------------------------------


def _const(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    return Const.of(node["value"], node.dtype)


def _iota(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    return Index(index[0], node.dtype)


def _cast(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    return Cast(low.pull(node.inputs[0], index, guard), node.dtype)


def _bitcast(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    return k.Bitcast(low.pull(node.inputs[0], index, guard), node.dtype)


def _reshape(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    source = node.inputs[0]
    return low.pull(source, unflatten(flat_index(index, node.shape), source.shape), guard)


def _permute(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    inner: list[SymInt] = [0] * len(index)
    for axis, position in zip(node["order"], index, strict=True):
        inner[axis] = position
    return low.pull(node.inputs[0], tuple(inner), guard)


def _expand(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    source = node.inputs[0]
    inner = index[len(index) - len(source.shape) :]
    return low.pull(
        source, tuple([0 if size == 1 else i for i, size in zip(inner, source.shape, strict=True)]), guard
    )


def _pad(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    source, fill = node.inputs
    inner, inside = [], guard
    for position, (before, _), size in zip(index, node["widths"], source.shape, strict=True):
        moved = position - before
        inside = logical_and(inside, le(0, moved), lt(moved, size))
        inner.append(moved)
    return _chosen(low, inside, source, tuple(inner), low.pull(fill, (), guard), guard)


def _chosen(
    low: Lowering, inside: SymInt, node: Node, index: Indices, otherwise: Value, guard: SymInt
) -> Value:
    """The node where `inside` holds, and `otherwise` elsewhere."""
    inside = simplify(inside, assuming=guard)
    if inside == 0:
        return otherwise
    if inside == 1:
        return low.pull(node, index, guard)
    both = logical_and(inside, guard)
    value = low.pull(node, tuple([simplify(i, assuming=both) for i in index]), both)
    if isinstance(value, Load) and value.guard == both and isinstance(otherwise, Const):
        return Load(value.parameter, value.index, both, otherwise)
    return Elementwise("where", (Index(both, bool_), value, otherwise))


def _shrink(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    moved = [i + start for i, (start, _) in zip(index, node["limits"], strict=True)]
    return low.pull(node.inputs[0], tuple(moved), guard)


def _flip(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    axes = node["axes"]
    return low.pull(
        node.inputs[0], tuple([node.shape[a] - 1 - i if a in axes else i for a, i in enumerate(index)]), guard
    )


def _window(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    axis, _, stride, dilation = node.attrs
    *inner, offset = index
    inner[axis] = inner[axis] * stride + offset * dilation
    return low.pull(node.inputs[0], tuple(inner), guard)


def _cat(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    axis = node["axis"]
    starts: list[SymInt] = [0]
    for source in node.inputs:
        starts.append(starts[-1] + source.shape[axis])

    def part(number: int, among: SymInt) -> Value:
        source = node.inputs[number]
        inner = (*index[:axis], index[axis] - starts[number], *index[axis + 1 :])
        if number == len(node.inputs) - 1:
            return low.pull(source, inner, among)
        here = lt(index[axis], starts[number + 1])
        rest = logical_and(among, le(starts[number + 1], index[axis]))
        if simplify(here, assuming=among) == 0 or source.shape[axis] == 0:
            return part(number + 1, among)
        if simplify(here, assuming=among) == 1:
            return low.pull(source, inner, among)
        return Elementwise(
            "where",
            (Index(here, bool_), low.pull(source, inner, logical_and(among, here)), part(number + 1, rest)),
        )

    return part(0, guard)


def _reduce(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    source, (kind, reduced) = node.inputs[0], node.attrs
    axes = tuple([low.axis("r", source.shape[axis]) for axis in reduced])
    inner = list(index)
    for axis, own in zip(reduced, axes, strict=True):
        inner.insert(axis, own.index)
    dtype = accumulator(source.dtype)
    value = low.cast(low.pull(source, tuple(inner), guard), dtype)
    low.close(axes)
    monoid = k.MONOIDS[kind](dtype)
    if kind.startswith("arg"):
        return Part(Reduce(monoid, axes, (value, Index(axes[0].index, int64))), 1)
    return low.cast(Part(Reduce(monoid, axes, (value,)), 0), node.dtype)


def _assign(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    base, source = node.inputs
    inner = tuple([i - start for i, start in zip(index, node["offsets"], strict=True)])
    inside = logical_and(
        guard, *[c for i, n in zip(inner, source.shape, strict=True) for c in (le(0, i), lt(i, n))]
    )
    outside = (
        low.pull(base, index, guard) if simplify(inside, assuming=guard) != 1 else Const.of(0, node.dtype)
    )
    return _chosen(low, inside, source, inner, outside, guard)


def _gather(low: Lowering, node: Node, index: Indices, guard: SymInt) -> Value:
    source, which = node.inputs
    axis, size = node["axis"], source.shape[node["axis"]]
    place = loaded_index(low.pull(which, index, guard))
    inside = logical_and(guard, le(0, place), lt(place, size))
    inner = (*index[:axis], place, *index[axis + 1 :])
    return _chosen(low, inside, source, inner, Const.of(0, node.dtype), guard)


def loaded_index(value: Value) -> SymInt:
    """A loaded integer as an index, of which nothing is known but its dtype."""
    return Loaded(value, value.dtype.min, value.dtype.max)


_RULES = {
    "const": _const,
    "iota": _iota,
    "cast": _cast,
    "bitcast": _bitcast,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "pad": _pad,
    "shrink": _shrink,
    "flip": _flip,
    "window": _window,
    "cat": _cat,
    "reduce": _reduce,
    "gather": _gather,
    "assign": _assign,
}
