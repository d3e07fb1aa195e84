"""The gradient of every operation of the tensor graph: from the gradient of a node to those of its inputs.

A rule takes the node and the gradient of its result and gives one gradient (or None) for each input, as graphs; so
gradients of any order are graphs as well. Operations without a rule in `RULES` have no gradient: their results are
integers, bools, or constant between jumps. Rules may build gradients that nobody asks for; they are never computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tg_ir import graph, symbolic
from tg_ir.dtypes import bool_
from tg_ir.graph import Node
from tg_ir.symbolic import prod

__all__ = [
    "RULES", "sum_to",
]  # fmt: skip

Grads = tuple[Node | None, ...]
Rule = Callable[[Node, Node], Grads]


def _n(name: str, *nodes: Node) -> Node:
    return graph.apply(name, *nodes)


def _like(value: float, node: Node) -> Node:
    return graph.expand(graph.const(value, node.dtype, node.device), node.shape)


def _zero(node: Node) -> Node:
    return _like(0.0, node)


def sum_to(node: Node, shape: graph.Shape) -> Node:
    """The sum over what `expand` from `shape` to the node's shape repeated."""
    lead = len(node.shape) - len(shape)
    axes = [*range(lead), *[lead + i for i, n in enumerate(shape) if n == 1 and node.shape[lead + i] != 1]]
    return graph.reshape(graph.reduce(node, "sum", axes), shape)


def _unary(derivative: Callable[[Node, Node], Node]) -> Rule:
    """From d(a, y), the derivative at input a with result y."""
    return lambda node, grad: (_n("mul", grad, derivative(node.inputs[0], node)),)


def _sign(a: Node) -> Node:
    one, zero = _like(1.0, a), _zero(a)
    return _n("where", _n("lt", zero, a), one, _n("where", _n("lt", a, zero), _n("neg", one), zero))


def _choose(node: Node, grad: Node) -> Grads:
    """maximum and minimum: the gradient goes to the operand taken, in halves where they are equal, as in PyTorch."""
    a, b = node.inputs
    half = _n("mul", grad, _like(0.5, grad))
    tie = _n("eq", a, b)
    first = _n("lt", b, a) if node.op.name == "maximum" else _n("lt", a, b)
    second = _n("lt", a, b) if node.op.name == "maximum" else _n("lt", b, a)
    pick = lambda taken: _n("where", tie, half, _n("where", taken, grad, _zero(grad)))  # noqa: E731
    return pick(first), pick(second)


def _pow(node: Node, grad: Node) -> Grads:
    """b * a**(b - 1), 0 where b is 0; and a**b * log(a), 0 where a is 0 and b is not negative."""
    a, b = node.inputs
    zero = _zero(a)
    by_a = _n("mul", b, _n("pow", a, _n("sub", b, _like(1.0, b))))
    by_a = _n("where", _n("eq", b, zero), zero, by_a)
    flat = _n("and", _n("eq", a, zero), _n("le", zero, b))
    by_b = _n("where", flat, zero, _n("mul", node, _n("log", _n("where", flat, _like(1.0, a), a))))
    return _n("mul", grad, by_a), _n("mul", grad, by_b)


def _mod(node: Node, grad: Node) -> Grads:
    a, b = node.inputs
    return grad, _n("neg", _n("mul", grad, _n("floordiv", a, b)))


def _div(node: Node, grad: Node) -> Grads:
    by_a = _n("div", grad, node.inputs[1])
    return by_a, _n("neg", _n("mul", by_a, node))


def _where(node: Node, grad: Node) -> Grads:
    condition, zero = node.inputs[0], _zero(grad)
    return None, _n("where", condition, grad, zero), _n("where", condition, zero, grad)


def _permute(node: Node, grad: Node) -> Grads:
    order = node["order"]
    return (graph.permute(grad, [order.index(axis) for axis in range(len(order))]),)


def _pad(node: Node, grad: Node) -> Grads:
    source, widths = node.inputs[0], node["widths"]
    inner = graph.shrink(grad, [(a, a + n) for n, (a, _) in zip(source.shape, widths, strict=True)])
    axes = range(len(grad.shape))
    outside = _n("sub", graph.reduce(grad, "sum", axes), graph.reduce(inner, "sum", axes))
    return inner, outside


def _shrink(node: Node, grad: Node) -> Grads:
    source = node.inputs[0]
    return (graph.pad(grad, [(a, n - b) for n, (a, b) in zip(source.shape, node["limits"], strict=True)]),)


def _window(node: Node, grad: Node) -> Grads:
    """Each input element sums the gradients of the windows it was in: a sliding window over the spread gradient.

    The gradient is spread to the stride, padded by the reach on both sides, and windowed again with the offsets in
    reverse; of that, the diagonal on which both window offsets are the same is summed.
    """
    (source,), (axis, size, stride, dilation) = node.inputs, node.attrs
    last, length, reach = len(grad.shape) - 1, source.shape[axis], dilation * (size - 1)
    count = grad.shape[axis]
    order = [*[i for i in range(last) if i != axis], axis, last]
    spread = graph.permute(grad, order)  # (.., count, size)
    lead = spread.shape[:-2]
    if stride != 1:
        spread = graph.pad(
            graph.reshape(spread, (*lead, count, 1, size)), _widths(len(lead) + 3, -2, (0, stride - 1))
        )
        spread = graph.reshape(spread, (*lead, count * stride, size))
        spread = graph.shrink(spread, [(0, n) for n in lead] + [(0, (count - 1) * stride + 1), (0, size)])
    tail = length - 1 - (count - 1) * stride  # elements after the start of the last window
    spread = graph.pad(spread, _widths(len(lead) + 2, -2, (reach, tail)))  # (.., length + reach, size)
    spread = graph.flip(
        graph.window(spread, len(lead), size, 1, dilation), [len(lead) + 2]
    )  # (.., length, size, size)
    diagonal = graph.pad(
        graph.reshape(spread, (*lead, length, size * size)), _widths(len(lead) + 2, -1, (0, size))
    )
    diagonal = graph.reshape(diagonal, (*lead, length, size, size + 1))
    diagonal = graph.shrink(diagonal, [(0, n) for n in diagonal.shape[:-1]] + [(0, 1)])
    total = graph.reduce(diagonal, "sum", [len(lead) + 1, len(lead) + 2])  # (.., length)
    back = [*range(axis), len(lead), *range(axis, len(lead))]
    return (graph.permute(total, back),)


def _widths(rank: int, axis: int, pair: tuple[object, object]) -> list[tuple]:
    return [pair if i == axis % rank else (0, 0) for i in range(rank)]


def _cat(node: Node, grad: Node) -> Grads:
    axis, start, parts = node["axis"], 0, []
    for source in node.inputs:
        limits = [(0, n) for n in source.shape]
        limits[axis] = (start, start + source.shape[axis])
        start = start + source.shape[axis]
        parts.append(graph.shrink(grad, limits))
    return tuple(parts)


def _spread(node: Node, value: Node) -> Node:
    """A reduced value, repeated over the axes that were reduced."""
    axes, shape = node["axes"], node.inputs[0].shape
    return graph.expand(graph.reshape(value, [1 if i in axes else n for i, n in enumerate(shape)]), shape)


def _reduce(node: Node, grad: Node) -> Grads:
    (source,), kind = node.inputs, node["kind"]
    if kind == "sum":
        return (_spread(node, grad),)
    if kind in ("max", "min"):
        taken = graph.cast(_n("eq", source, _spread(node, node)), source.dtype)
        count = graph.reduce(taken, "sum", node["axes"])
        return (_n("mul", taken, _spread(node, _n("div", grad, count))),)
    if kind == "prod":
        return (_n("mul", _spread(node, grad), _product_of_others(node)),)
    return (None,)


def _product_of_others(node: Node) -> Node:
    """For each element the product of all the others: prefix product times suffix product, so zeros are no trouble."""
    (source,), axes = node.inputs, node["axes"]
    kept = [i for i in range(len(source.shape)) if i not in axes]
    order = [*kept, *axes]
    lead = [source.shape[i] for i in kept]
    flat = graph.reshape(graph.permute(source, order), [*lead, prod([source.shape[i] for i in axes])])
    axis = len(lead)
    before = _exclusive_product(flat, axis)
    after = graph.flip(_exclusive_product(graph.flip(flat, [axis]), axis), [axis])
    others = graph.reshape(_n("mul", before, after), [source.shape[i] for i in order])
    return graph.permute(others, [order.index(i) for i in range(len(order))])


def _exclusive_product(node: Node, axis: int) -> Node:
    one = graph.const(1.0, node.dtype, node.device)
    shifted = graph.pad(node, _widths(len(node.shape), axis, (1, 0)), one)
    limits = [(0, n) for n in node.shape]
    return graph.scan(graph.shrink(shifted, limits), "prod", axis)


def _reverse_sum(node: Node, axis: int) -> Node:
    return graph.flip(graph.scan(graph.flip(node, [axis]), "sum", axis), [axis])


def _scan(node: Node, grad: Node) -> Grads:
    (source,), (kind, axis) = node.inputs, node.attrs
    if kind == "sum":
        return (_reverse_sum(grad, axis),)
    if kind in ("max", "min"):
        index = graph.scan(source, f"arg{kind}", axis)
        return (graph.scatter(_zero(source), index, grad, axis, "sum"),)
    if kind == "prod":
        return (_scan_product(node, grad),)
    if kind == "logaddexp":
        return (_scan_logaddexp(node, grad),)
    return (None,)


def _scan_logaddexp(node: Node, grad: Node) -> Node:
    """sum over j >= i of grad_j * exp(a_i - y_j), in logarithms, the positive and the negative gradients apart."""
    (source,), axis = node.inputs, node["axis"]
    zero, one, none = _zero(grad), _like(1.0, grad), _like(-math.inf, grad)

    def part(positive: Node, size: Node) -> Node:
        log = _n("where", positive, _n("sub", _n("log", _n("where", positive, size, one)), node), none)
        total = graph.flip(graph.scan(graph.flip(log, [axis]), "logaddexp", axis), [axis])
        return _n("exp", _n("add", source, total))

    total = _n("sub", part(_n("lt", zero, grad), grad), part(_n("lt", grad, zero), _n("neg", grad)))
    return _n("where", _n("eq", source, none), zero, total)


def _scan_product(node: Node, grad: Node) -> Node:
    """d/da_i of the prefix products: sum over j >= i of grad_j * (product of a_k for k <= j, k != i).

    That is (product before i) * s_i with s_i = grad_i + a_(i+1) * s_(i+1), a linear recurrence from the end, done in
    log2(n) steps of doubling; zeros among the factors are no trouble.
    """
    (source,), axis = node.inputs, node["axis"]
    size = symbolic.bounds(source.shape[axis])[1]
    total = grad  # sum over the next `reach` terms
    factor = _shift(source, axis, 1)  # the product that leads from i to i + reach
    reach = 1
    while reach < size:
        later_total, later_factor = [_shift(array, axis, reach) for array in (total, factor)]
        total = _n("add", total, _n("mul", factor, later_total))
        factor = _n("mul", factor, later_factor)
        reach *= 2
    return _n("mul", _exclusive_product(source, axis), total)


def _shift(node: Node, axis: int, reach: int) -> Node:
    """Element i is element i + reach; zeros come in at the end."""
    limits = [(reach, n + reach) if i == axis else (0, n) for i, n in enumerate(node.shape)]
    return graph.shrink(graph.pad(node, _widths(len(node.shape), axis, (0, reach))), limits)


def _gather(node: Node, grad: Node) -> Grads:
    source, index = node.inputs
    return graph.scatter(_zero(source), index, grad, node["axis"], "sum"), None


def _scatter(node: Node, grad: Node) -> Grads:
    base, index, source = node.inputs
    axis, kind = node.attrs
    picked = graph.gather(grad, index, axis)
    if kind == "sum":
        return grad, None, picked
    if kind == "set":
        false, true = [graph.const(value, bool_, base.device) for value in (False, True)]
        hit = graph.scatter(graph.expand(false, base.shape), index, graph.expand(true, index.shape), axis)
        order = graph.reshape(graph.iota(prod(index.shape), device=base.device), index.shape)
        none = graph.expand(graph.const(-1, order.dtype, base.device), base.shape)
        last = graph.gather(graph.scatter(none, index, order, axis, "max"), index, axis)
        won = _n("eq", last, order)
        return _n("where", hit, _zero(grad), grad), None, _n("where", won, picked, _zero(picked))
    if kind in ("max", "min"):
        result = graph.gather(node, index, axis)
        base_taken = graph.cast(_n("eq", base, node), base.dtype)
        taken = graph.cast(_n("eq", source, result), base.dtype)
        count = graph.scatter(base_taken, index, taken, axis, "sum")
        share = _n("div", grad, _n("maximum", count, _like(1.0, count)))
        return _n("mul", base_taken, share), None, _n("mul", taken, graph.gather(share, index, axis))
    return _scatter_product(node, grad)


def _scatter_product(node: Node, grad: Node) -> Grads:
    """The product of the other factors: the product over the factor, or of those that are not 0 if one alone is 0."""
    base, index, source = node.inputs
    axis = node["axis"]
    nonzero = [
        _n("where", _n("eq", factor, _zero(factor)), _like(1.0, factor), factor) for factor in (base, source)
    ]
    zeros = [graph.cast(_n("eq", factor, _zero(factor)), base.dtype) for factor in (base, source)]
    rest = _n("mul", grad, graph.scatter(nonzero[0], index, nonzero[1], axis, "prod"))
    count = graph.scatter(zeros[0], index, zeros[1], axis, "sum")
    alone = _n("where", _n("eq", count, _like(1.0, count)), rest, _zero(rest))
    share = _n("where", _n("eq", count, _zero(count)), rest, _zero(rest))

    def pick(factor: Node, safe: Node, alone: Node, share: Node) -> Node:
        return _n("where", _n("eq", factor, _zero(factor)), alone, _n("div", share, safe))

    picked = [graph.gather(part, index, axis) for part in (alone, share)]
    return pick(base, nonzero[0], alone, share), None, pick(source, nonzero[1], *picked)


def _assign(node: Node, grad: Node) -> Grads:
    base, source = node.inputs
    offsets = node["offsets"]
    inside = graph.shrink(grad, [(a, a + n) for a, n in zip(offsets, source.shape, strict=True)])
    return graph.assign(grad, _zero(inside), offsets), inside


def _all_reduce(node: Node, grad: Node) -> Grads:
    if node["kind"] == "sum":
        return tuple([graph.copy(grad, source.device) for source in node.inputs])
    return tuple([None for _ in node.inputs])


_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)

RULES: dict[str, Rule] = {
    "neg": lambda node, grad: (_n("neg", grad),),
    "abs": _unary(lambda a, y: _sign(a)),
    "sqrt": lambda node, grad: (_n("div", _n("mul", grad, _like(0.5, grad)), node),),
    "exp": _unary(lambda a, y: y),
    "exp2": _unary(lambda a, y: _n("mul", y, _like(math.log(2), y))),
    "expm1": _unary(lambda a, y: _n("exp", a)),  # y + 1 would lose what is small
    "log": lambda node, grad: (_n("div", grad, node.inputs[0]),),
    "log2": lambda node, grad: (_n("div", grad, _n("mul", node.inputs[0], _like(math.log(2), node))),),
    "log1p": lambda node, grad: (_n("div", grad, _n("add", node.inputs[0], _like(1.0, node))),),
    "sin": _unary(lambda a, y: _n("cos", a)),
    "cos": _unary(lambda a, y: _n("neg", _n("sin", a))),
    "atan": lambda node, grad: (
        _n("div", grad, _n("add", _n("mul", node.inputs[0], node.inputs[0]), _like(1.0, node))),
    ),
    "tanh": _unary(lambda a, y: _n("sub", _like(1.0, y), _n("mul", y, y))),
    "erf": _unary(lambda a, y: _n("mul", _n("exp", _n("neg", _n("mul", a, a))), _like(_TWO_OVER_SQRT_PI, a))),
    "add": lambda node, grad: (grad, grad),
    "sub": lambda node, grad: (grad, _n("neg", grad)),
    "mul": lambda node, grad: (_n("mul", grad, node.inputs[1]), _n("mul", grad, node.inputs[0])),
    "div": _div,
    "mod": _mod,
    "pow": _pow,
    "maximum": _choose,
    "minimum": _choose,
    "where": _where,
    "cast": lambda node, grad: (graph.cast(grad, node.inputs[0].dtype),),
    "copy": lambda node, grad: (graph.copy(grad, node.inputs[0].device),),
    "reshape": lambda node, grad: (graph.reshape(grad, node.inputs[0].shape),),
    "permute": _permute,
    "expand": lambda node, grad: (sum_to(grad, node.inputs[0].shape),),
    "pad": _pad,
    "shrink": _shrink,
    "flip": lambda node, grad: (graph.flip(grad, node["axes"]),),
    "window": _window,
    "cat": _cat,
    "reduce": _reduce,
    "scan": _scan,
    "gather": _gather,
    "scatter": _scatter,
    "assign": _assign,
    "all_reduce": _all_reduce,
}
