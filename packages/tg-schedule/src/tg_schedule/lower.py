"""Lower nodes to kernel values by pulling: the value of a node at an index, in terms of its inputs at theirs.

Movement is substitution on indices and costs nothing. A pad is a guard on the loads below it. Reductions open axes of
their own. Nodes that the scheduler stores are loads from their buffer.

    out[i, j] of `expand(reshape(x, (4,)), (3, 4))` -> load x[j]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from tg_ir import kernel as k
from tg_ir.dtypes import DType, bool_, float32, int64
from tg_ir.graph import Node
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
from tg_ir.symbolic import And, SymInt, bounds, le, logical_and, lt, maximum, minimum, simplify
from tg_schedule.find_attention import Attention
from tg_schedule.movement import MOVED, Indices, flat_index

__all__ = ["Lowering", "loaded_index"]


def accumulator(dtype: DType) -> DType:
    """What sums and products of `dtype` are accumulated in."""
    return float32 if dtype.is_float and dtype.bits < 32 else dtype


class Lowering:
    """The pull of one kernel. `parameters` gives the buffer of every node that is loaded, not computed."""

    def __init__(self, parameters: Mapping[Node, Parameter], attention: Mapping[Node, Attention]):
        self.parameters, self.attention = parameters, attention
        self.loaded: dict[Parameter, None] = {}
        self.memo: dict[tuple[Node, Indices, SymInt], Value] = {}
        self.axes: list[Axis] = []
        self.open: set[Axis] = set()

    def axis(self, extent: SymInt) -> Axis:
        """A reduction's axis of this extent that is not in use around: siblings run over the same one."""
        for axis in self.axes:
            if axis.extent == extent and axis not in self.open:
                break
        else:
            axis = Axis(f"r{len(self.axes)}", extent)
            self.axes.append(axis)
        self.open.add(axis)
        return axis

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
        if node.op.name in MOVED:
            inner = MOVED[node.op.name](node, index)
            if guard != 1 and node.op.name in ("reshape", "window"):
                inner = tuple([simplify(i, assuming=guard) for i in inner])
            return self.pull(node.inputs[0], inner, guard)
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

    def scan(self, node: Node, index: Indices, axes: Sequence[Axis]) -> Value:
        """The prefix of a scan node at `index`, over the axes of a store."""
        source, kind, along = node.inputs[0], node["kind"], node["axis"]
        dtype = accumulator(source.dtype)
        value = self.cast(self.pull(source, index), dtype)
        axis = next((axis for axis in axes if axis.index is index[along]), None)
        if axis is None:  # of one element
            return Const.of(0, int64) if kind.startswith("arg") else self.cast(value, node.dtype)
        if kind.startswith("arg"):
            # the latest of equals: compare positions the other way round
            return Part(Scan(_latest(kind, dtype), axis, (value, Index(axis.index, int64))), 1)
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
    if isinstance(otherwise, Const) and otherwise.bits == 0 and vanishes(value, both):
        return value
    return Elementwise("where", (Index(both, bool_), value, otherwise))


@lru_cache(maxsize=1 << 12)  # values share parts
def vanishes(value: Value, guard: SymInt) -> bool:
    """Whether a value is 0 where the guard does not hold, because nothing is loaded there."""
    match value:
        case Load():
            return value.other == Const(0, value.dtype) and logical_and(value.guard, guard) == value.guard
        case Const():
            return value.bits == 0
        case Cast():
            return vanishes(value.arg, guard)
        case Part(fold=Reduce() as fold):
            return fold.monoid.name == "sum" and vanishes(fold.args[0], guard)
        case Elementwise(name="add" | "sub" | "neg"):
            return all(vanishes(arg, guard) for arg in value.args)
        case Elementwise(name="mul"):
            a, b = value.args
            return (vanishes(a, guard) and _is_tame(b)) or (vanishes(b, guard) and _is_tame(a))
        case Elementwise(name="where"):
            return vanishes(value.args[1], guard) and vanishes(value.args[2], guard)
        case Elementwise(name="div"):
            by = value.args[1]
            return isinstance(by, Const) and by.value != 0 and vanishes(value.args[0], guard)
    return False


@lru_cache(maxsize=1 << 12)  # values share parts
def _is_tame(value: Value) -> bool:
    """Whether a value is finite if what is loaded is."""
    match value:
        case Load() | Const() | Index():
            return True
        case Cast():
            return _is_tame(value.arg)
        case Elementwise(name="mul" | "add" | "sub" | "neg" | "where" | "maximum" | "minimum"):
            return all(map(_is_tame, value.args))
        case Elementwise():
            return value.dtype.name == "bool"
    return False


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
    axes = tuple([low.axis(source.shape[axis]) for axis in reduced if bounds(source.shape[axis])[1] != 1])
    inner, own = list(index), iter(axes)
    for axis in reduced:
        inner.insert(axis, 0 if bounds(source.shape[axis])[1] == 1 else next(own).index)
    if node in low.attention and axes:
        result = _online_softmax(low, node, axes, tuple(inner), guard)
        low.open.difference_update(axes)
        return result
    dtype = accumulator(source.dtype)
    value = low.cast(low.pull(source, tuple(inner), guard), dtype)
    low.open.difference_update(axes)
    monoid = k.MONOIDS[kind](dtype)
    if not axes:
        return Const.of(0, int64) if kind.startswith("arg") else low.cast(value, node.dtype)
    if kind.startswith("arg"):
        return Part(Reduce(monoid, axes, (value, Index(axes[0].index, int64))), 1)
    if kind == "sum":
        axes, value = _merged(monoid, axes, value)
        value = _guarded_once(value)
    return low.cast(Part(Reduce(monoid, axes, (value,)), 0), node.dtype)


def _merged(monoid: k.Monoid, axes: tuple[Axis, ...], value: Value) -> tuple[tuple[Axis, ...], Value]:
    """A sum of sums is one sum over the axes of both."""
    if isinstance(value, Part) and isinstance(value.fold, Reduce) and value.fold.monoid == monoid:
        inner = value.fold
        if not set(inner.axes) & set(axes):
            return (*axes, *inner.axes), inner.args[0]
    return axes, value


def _guarded_once(value: Value) -> Value:
    """A product in which one factor is 0 where a guard fails: the other needs no guard, if it loads from inside.

    (x[i - r] if r <= i else 0) * (w[r] if r <= i else 0) -> (x[i - r] if r <= i else 0) * w[r]

    That is how the gradient of a convolution becomes a contraction. Where w[r] is infinite or NaN the product is NaN.
    """
    if isinstance(value, Elementwise) and value.name == "mul":
        for number, other in ((0, 1), (1, 0)):
            zero = value.args[number]
            freed = _freed(value.args[other], zero)
            if freed is not value.args[other]:
                return Elementwise("mul", (zero, freed) if number == 0 else (freed, zero))
    return value


@lru_cache(maxsize=1 << 12)  # values share parts
def _freed(value: Value, zero: Value) -> Value:
    """`value` without the conditions of loads under which `zero` is 0 anyway, as far as they are not needed."""
    match value:
        case Load():
            guards = value.guard.args if isinstance(value.guard, And) else (value.guard,)
            kept = logical_and(*[guard for guard in guards if guard == 1 or not vanishes(zero, guard)])
            inside = logical_and(le(0, value.index), lt(value.index, value.parameter.size))
            if kept != value.guard and simplify(inside, assuming=kept) == 1:
                return Load(value.parameter, value.index, kept, value.other)
        case Cast():
            return Cast(_freed(value.arg, zero), value.type)
        case Elementwise():
            return Elementwise(value.name, tuple([_freed(arg, zero) for arg in value.args]))
    return value


def _online_softmax(
    low: Lowering, node: Node, axes: tuple[Axis, ...], inner: Indices, guard: SymInt
) -> Value:
    """The weighted sum of attention; it is NaN, as softmax is, where the greatest score is infinite."""
    attention = low.attention[node]
    dtype = accumulator(node.dtype)
    score = low.cast(low.pull(attention.scores, attention.place(inner), guard), dtype)
    value = low.cast(low.pull(attention.values, inner, guard), dtype)
    fold = Reduce(k.MONOIDS["online_softmax"](dtype), axes, (score, Const.of(1, dtype), value))
    top, total, weighted = [Part(fold, position) for position in range(3)]
    result: Value = Elementwise("div", (weighted, total))
    result = Elementwise("add", (result, Elementwise("sub", (top, top))))
    if attention.zero_if_hidden:
        hidden = Elementwise("eq", (top, Const.of(-math.inf, dtype)))
        result = Elementwise("where", (hidden, Const.of(0, dtype), result))
    return low.cast(result, node.dtype)


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
    "pad": _pad,
    "cat": _cat,
    "reduce": _reduce,
    "gather": _gather,
    "assign": _assign,
}
