"""The interpreter of the tensor graph: NumPy, one node after the other. It defines what a graph means.

Movement is views, so a matrix product or convolution (`reduce sum` of `mul` of two expanded views) is recognised by
its strides and done as one matrix product, without the array of all products. Arrays are in compute form
(`tg_ir.numpy_dtypes`). Sums and products of float16, bfloat16 and float8 accumulate in float32 and round once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tg_ir.dtypes import DType, bool_
from tg_ir.errors import EvaluationError
from tg_ir.graph.nodes import Node, format_shape, toposort
from tg_ir.numeric import evaluate_elementwise, threefry2x32
from tg_ir.numpy_dtypes import cast, compute_dtype, decode, encode, numpy_dtype, round_to
from tg_ir.symbolic import SymInt, evaluate

__all__ = ["interpret_graph"]

Env = Mapping[str, int]


def interpret_graph(roots: Sequence[Node], env: Env | None = None) -> list[np.ndarray]:
    """The values of `roots`, in compute form; `env` binds variables that carry no value of their own.

    Raises:
        EvaluationError: an index out of range, or memory that was never filled.
        SymbolicError: a variable without a value.
    """
    env = env or {}
    nodes = toposort(roots, into=lambda node: node.value is None)
    users = Counter(child for node in nodes if node.value is None for child in node.inputs)
    products = _fused_products(nodes, roots)
    waiting = Counter(users)
    values: dict[Node, np.ndarray] = {}
    wanted = set(roots)
    for node in nodes:
        if node.value is not None:
            values[node] = decode(np.asarray(node.value.memory), node.dtype).reshape(node.value.shape)
            continue
        if node in products:
            continue
        if node.op.name == "reduce" and node.inputs[0] in products:
            values[node] = _contract(node, *[values[factor] for factor in node.inputs[0].inputs])
        else:
            values[node] = _evaluate(node, [values[child] for child in node.inputs], env)
        for child in node.inputs:
            waiting[child] -= 1
            for dead in (child, *child.inputs) if child in products and not waiting[child] else (child,):
                if dead is not child:
                    waiting[dead] -= 1
                if not waiting[dead] and dead not in wanted:
                    values.pop(dead, None)
    return [values[root] for root in roots]


def _fused_products(nodes: Sequence[Node], roots: Sequence[Node]) -> set[Node]:
    """The products that only sums read: they are never computed by themselves."""
    products = {node for node in nodes if node.op.name == "mul" and node.value is None} - set(roots)
    for node in nodes:
        if node.value is None and not (node.op.name == "reduce" and node["kind"] == "sum"):
            products.difference_update(node.inputs)
    return products


def _contract(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sum over axes of a * b as a matrix product, where an axis with stride 0 is one that the factor lacks."""
    axes, dtype = node["axes"], node.dtype
    wide = np.float32 if dtype.is_float and dtype.itemsize < 4 else compute_dtype(dtype)
    rank = a.ndim
    if not a.size:
        return np.zeros([a.shape[i] for i in range(rank) if i not in axes], compute_dtype(dtype))
    groups: dict[tuple[bool, bool, bool], list[int]] = {}
    has_a = [a.shape[i] <= 1 or a.strides[i] != 0 for i in range(rank)]
    has_b = [b.shape[i] <= 1 or b.strides[i] != 0 for i in range(rank)]
    for i in range(rank):
        groups.setdefault((has_a[i], has_b[i], i in axes), []).append(i)
    repeats = int(np.prod([a.shape[i] for i in groups.get((False, False, True), [])], dtype=np.int64))

    def arrange(array: np.ndarray, has: list[bool], other: list[bool], own_first: bool) -> np.ndarray:
        array = array[tuple([slice(None) if has[i] else slice(0, 1) for i in range(rank)])].astype(
            wide, copy=False
        )
        alone = tuple([i for i in axes if has[i] and not other[i]])
        if alone:
            array = array.sum(axis=alone, keepdims=True, dtype=wide)
        batch = [i for i in range(rank) if has[i] and other[i] and i not in axes]
        shared = [i for i in axes if has[i] and other[i]]
        own = [i for i in range(rank) if has[i] and not other[i] and i not in axes]
        rest = [i for i in range(rank) if i not in (*batch, *shared, *own)]
        order = [*batch, *own, *shared, *rest] if own_first else [*batch, *shared, *own, *rest]
        size = [int(np.prod([array.shape[i] for i in part], dtype=np.int64)) for part in (batch, own, shared)]
        shape = (size[0], size[1], size[2]) if own_first else (size[0], size[2], size[1])
        return array.transpose(order).reshape(shape)

    product = np.matmul(arrange(a, has_a, has_b, True), arrange(b, has_b, has_a, False))
    batch, own_a = groups.get((True, True, False), []), groups.get((True, False, False), [])
    own_b, neither = groups.get((False, True, False), []), groups.get((False, False, False), [])
    kept = [*batch, *own_a, *own_b]
    product = product.reshape([a.shape[i] if has_a[i] else b.shape[i] for i in kept] + [1] * len(neither))
    product = product.transpose(np.argsort([*kept, *neither]))
    product = np.broadcast_to(product, [a.shape[i] for i in range(rank) if i not in axes])
    return round_to(product * np.asarray(repeats, wide) if repeats != 1 else product, dtype)


def _elementwise(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    """Computed once along axes on which every operand is a repetition, so that the result is one as well."""
    shape = arrays[0].shape
    once = tuple(
        [
            slice(0, 1) if n > 1 and all(a.strides[i] == 0 for a in arrays) else slice(None)
            for i, n in enumerate(shape)
        ]
    )
    if node.op.name == "cast":
        result = cast(arrays[0][once], node.inputs[0].dtype, node.dtype)
    else:
        result = evaluate_elementwise(node.op.name, [array[once] for array in arrays], node.dtype)
    return np.broadcast_to(result, shape)


def _evaluate(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    if node.op.elementwise or node.op.name == "cast":
        return _elementwise(node, arrays)
    return _EVALUATE[node.op.name](node, arrays, env)


def _dims(dims: Sequence[SymInt], env: Env) -> tuple[int, ...]:
    return tuple([int(evaluate(dim, env)) for dim in dims])


def _const(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    return np.asarray(node["value"], dtype=compute_dtype(node.dtype))


def _iota(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    return np.arange(evaluate(node["length"], env)).astype(compute_dtype(node.dtype))


def _buffer(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    if not arrays:
        raise EvaluationError(f"buffer {node['name']!r}: {node!r} was never filled; give it a value first")
    return arrays[0]


def _random_bits(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    shape = _dims(node.shape, env)
    position = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
    high, low = (position >> np.uint64(32)).astype(np.uint32), position.astype(np.uint32)
    x, y = threefry2x32((arrays[0][0], arrays[0][1]), (high, low))
    return (x ^ y).reshape(shape)


def _bitcast(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    bits = np.ascontiguousarray(encode(arrays[0], node.inputs[0].dtype))
    return decode(bits.view(numpy_dtype(node.dtype)), node.dtype).reshape(arrays[0].shape)


def _pad(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    array, fill = arrays
    result = np.full(_dims(node.shape, env), fill, dtype=array.dtype)
    starts = [int(evaluate(before, env)) for before, _ in node["widths"]]
    result[tuple([slice(start, start + size) for start, size in zip(starts, array.shape, strict=True)])] = (
        array
    )
    return result


def _shrink(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    limits = [_dims(pair, env) for pair in node["limits"]]
    for (start, stop), size in zip(limits, arrays[0].shape, strict=True):
        if not 0 <= start <= stop <= size:
            raise EvaluationError(f"shrink: {start}:{stop} of a dimension of size {size}")
    return arrays[0][tuple([slice(start, stop) for start, stop in limits])]


def _window(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    axis, size, stride, dilation = (
        node["axis"],
        int(evaluate(node["size"], env)),
        node["stride"],
        node["dilation"],
    )
    windows = sliding_window_view(arrays[0], dilation * (size - 1) + 1, axis=axis)
    return windows[(slice(None),) * axis + (slice(None, None, stride), ...)][..., ::dilation]


def _reduce(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    (array,), kind, axes = arrays, node["kind"], node["axes"]
    if kind in ("argmax", "argmin"):
        return np.asarray(getattr(np, kind)(array, axis=axes[0]), dtype=np.int64)
    if kind in ("max", "min"):
        return np.asarray(getattr(np, kind)(array, axis=axes))
    with np.errstate(all="ignore"):
        return round_to(
            np.asarray(getattr(np, kind)(_widen(array, node.dtype), axis=axes, dtype=_wide(node.dtype))),
            node.dtype,
        )


def _wide(dtype: DType) -> np.dtype:
    """What sums and products accumulate in."""
    return np.dtype(np.float32) if dtype.is_float and dtype.itemsize < 4 else compute_dtype(dtype)


def _widen(array: np.ndarray, dtype: DType) -> np.ndarray:
    return array.astype(_wide(dtype), copy=False)


def _scan(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    (array,), kind, axis = arrays, node["kind"], node["axis"]
    if not array.size:
        return np.zeros(array.shape, compute_dtype(node.dtype))
    if kind in ("argmax", "argmin"):
        best = (np.maximum if kind == "argmax" else np.minimum).accumulate(array, axis=axis)
        position = np.arange(array.shape[axis]).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        return np.maximum.accumulate(np.where((array == best) | (array != array), position, 0), axis=axis)
    ufunc = {
        "sum": np.add,
        "prod": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
        "logaddexp": np.logaddexp,
    }[kind]
    with np.errstate(all="ignore"):
        return round_to(
            ufunc.accumulate(_widen(array, node.dtype), axis=axis, dtype=_wide(node.dtype)), node.dtype
        )


def _argsort(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    (array,), (axis, descending) = arrays, node.attrs
    if not descending:
        return np.argsort(array, axis=axis, kind="stable")
    order = np.argsort(np.flip(array, axis), axis=axis, kind="stable")
    return array.shape[axis] - 1 - np.flip(order, axis)


def _check_index(name: str, index: np.ndarray, size: int) -> None:
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < size):
        bad = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise EvaluationError(f"{name}: index {bad} is out of range for a dimension of size {size}")


def _gather(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    array, index = arrays
    _check_index("gather", index, array.shape[node["axis"]])
    return np.take_along_axis(array, index.astype(np.int64), axis=node["axis"])


def _scatter(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    (base, index, source), (axis, kind) = arrays, node.attrs
    _check_index("scatter", index, base.shape[axis])
    where = list(np.ogrid[tuple([slice(0, size) for size in index.shape])])
    where[axis] = index.astype(np.int64)
    result = _widen(np.array(base), node.dtype) if kind in ("sum", "prod") else np.array(base)
    if kind == "set":
        result[tuple(where)] = source
        return result
    ufunc = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[kind]
    with np.errstate(all="ignore"):
        ufunc.at(result, tuple(where), source)
    return round_to(result, node.dtype)


def _assign(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    result, source = np.array(arrays[0]), arrays[1]
    starts = _dims(node["offsets"], env)
    box = tuple([slice(start, start + size) for start, size in zip(starts, source.shape, strict=True)])
    if result[box].shape != source.shape:
        raise EvaluationError(
            f"assign: a box {format_shape(source.shape)} at {format_shape(starts)} of {format_shape(result.shape)}"
        )
    result[box] = source
    return result


def _all_reduce(node: Node, arrays: list[np.ndarray], env: Env) -> np.ndarray:
    ufunc = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[node["kind"]]
    total = _widen(arrays[0], node.dtype)
    for array in arrays[1:]:
        total = ufunc(total, _widen(array, node.dtype))
    return round_to(total, node.dtype) if node.dtype is not bool_ else total


_EVALUATE = {
    "const": _const,
    "iota": _iota,
    "buffer": _buffer,
    "random_bits": _random_bits,
    "bitcast": _bitcast,
    "copy": lambda node, arrays, env: arrays[0],
    "reshape": lambda node, arrays, env: arrays[0].reshape(_dims(node.shape, env)),
    "permute": lambda node, arrays, env: arrays[0].transpose(node["order"]),
    "expand": lambda node, arrays, env: np.broadcast_to(arrays[0], _dims(node.shape, env)),
    "pad": _pad,
    "shrink": _shrink,
    "flip": lambda node, arrays, env: np.flip(arrays[0], node["axes"]),
    "window": _window,
    "cat": lambda node, arrays, env: np.concatenate(arrays, axis=node["axis"]),
    "reduce": _reduce,
    "scan": _scan,
    "argsort": _argsort,
    "gather": _gather,
    "scatter": _scatter,
    "assign": _assign,
    "all_reduce": _all_reduce,
    "all_gather": lambda node, arrays, env: np.concatenate(arrays, axis=node["axis"]),
}
