"""Replace operations that no kernel does at once by graphs of those that kernels do.

*before*: random_bits, argsort, all_reduce, all_gather; bits read as integers and back, which only stops gradients;
permuted reductions; the powers of a softmax in its gradient.
*after*: Threefry on the position of each element; a bitonic network of compare-exchanges on (key, index) pairs; copies
to the device, combined there; reductions of what is permuted; the softmax times its sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tg_ir import graph
from tg_ir.dtypes import DType, bool_, int64, uint32
from tg_ir.dtypes import dtype_of as named
from tg_ir.graph import Node
from tg_ir.symbolic import SymInt, bounds, prod

__all__ = ["decompose"]


def decompose(roots: Sequence[Node]) -> list[Node]:
    """The graph without the operations of `RULES`."""
    new: dict[Node, Node] = {}
    order = graph.toposort(roots)
    shares = dict(filter(None, map(_share, order)))
    users = Counter([source for node in order for source in node.inputs])
    for node in order:
        inputs = tuple([new[source] for source in node.inputs])
        if node.op.name == "mul" and node.inputs[1] in shares and shares[node.inputs[1]] in new:
            share = new[shares[node.inputs[1]]]
            new[node] = graph.apply("mul", inputs[0], graph.apply("mul", share, share.inputs[1]))
        elif node.op.name == "permute" and inputs[0].op.name == "reduce" and users[node.inputs[0]] == 1:
            new[node] = _permuted_sum(node, inputs[0])
        elif node.op.name in RULES:
            new[node] = RULES[node.op.name](node, inputs)
        elif inputs == node.inputs:
            new[node] = node
        else:
            new[node] = graph.make(node.op, inputs, node.attrs)
    return [new[root] for root in roots]


def _permuted_sum(node: Node, total: Node) -> Node:
    """permute(reduce(x)) as reduce(permute(x)): a reduction is stored in the order of axes that its user wants."""
    (source,), (kind, axes) = total.inputs, total.attrs
    kept = [axis for axis in range(len(source.shape)) if axis not in axes]
    order = [kept[axis] for axis in node["order"]] + list(axes)
    return graph.reduce(_permuted(source, order), kind, range(len(kept), len(order)))


def _permuted(node: Node, order: Sequence[int]) -> Node:
    """permute(a * b) as permute(a) * permute(b), so that products stay next to their sums."""
    if node.op.name in ("mul", "cast"):
        return graph.make(node.op, tuple([_permuted(source, order) for source in node.inputs]), node.attrs)
    return graph.permute(node, order)


def _share(node: Node) -> tuple[Node, Node] | None:
    """The powers of a softmax, and the softmax: its gradient can do without the powers, which are share * sum."""
    if node.op.name == "div" and node.inputs[0].op.name == "exp":
        powers, total = node.inputs
        while total.op.name in ("expand", "reshape"):
            total = total.inputs[0]
        if total.op.name == "reduce" and total["kind"] == "sum" and total.inputs[0] is powers:
            return powers, node
    return None


def _const(value: float, like: Node) -> Node:
    return graph.expand(graph.const(value, like.dtype, like.device), like.shape)


def _rotate(word: Node, bits: int) -> Node:
    left, right = (
        graph.apply("shl", word, _const(bits, word)),
        graph.apply("shr", word, _const(32 - bits, word)),
    )
    return graph.apply("or", left, right)


def _random_bits(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    (key,) = inputs
    shape = node.shape
    position = graph.reshape(graph.iota(prod(shape), int64, node.device), shape)
    high = graph.cast(graph.apply("shr", position, _const(32, position)), uint32)
    low = graph.cast(graph.apply("and", position, _const(0xFFFFFFFF, position)), uint32)
    words = [graph.expand(graph.reshape(graph.shrink(key, [(i, i + 1)]), ()), shape) for i in (0, 1)]
    parity = graph.apply("xor", words[0], graph.apply("xor", words[1], _const(0x1BD11BDA, low)))
    keys = [*words, parity]
    x, y = graph.apply("add", high, keys[0]), graph.apply("add", low, keys[1])
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = graph.apply("add", x, y)
            y = graph.apply("xor", _rotate(y, rotation), x)
        x = graph.apply("add", x, keys[(group + 1) % 3])
        y = graph.apply("add", graph.apply("add", y, keys[(group + 2) % 3]), _const(group + 1, y))
    return graph.apply("xor", x, y)


def _sort_key(node: Node, descending: bool) -> Node:
    """Integers that order as the values do: NaN is the greatest, the two zeros are equal."""
    dtype = node.dtype
    if dtype is bool_:
        node = graph.cast(node, named("uint8"))
    elif dtype.is_float:
        if dtype.bits < 16:
            node, dtype = graph.cast(node, named("float16")), named("float16")
        integer: DType = named(f"int{dtype.bits}")
        bits = graph.bitcast(graph.apply("add", node, _const(0.0, node)), integer)
        flipped = graph.apply("xor", bits, _const(integer.max, bits))
        ordered = graph.apply("where", graph.apply("lt", bits, _const(0, bits)), flipped, bits)
        node = graph.apply("where", graph.apply("ne", node, node), _const(integer.max, ordered), ordered)
    return graph.apply("invert", node) if descending else node


def _argsort(node: Node, inputs: tuple[Node, ...]) -> Node:
    axis, descending = node.attrs
    key = _sort_key(inputs[0], descending)
    rank, size = len(node.shape), node.shape[axis]
    order = [i for i in range(rank) if i != axis] + [axis]
    key = graph.permute(key, order)
    lead = key.shape[:-1]
    whole = 1 << max(bounds(size)[1] - 1, 0).bit_length()
    key = graph.pad(
        key, [(0, 0)] * len(lead) + [(0, whole - size)], graph.const(key.dtype.max, key.dtype, key.device)
    )
    index = graph.expand(graph.iota(whole, int64, key.device), key.shape)
    block = 2
    while block <= whole:
        reach = block // 2
        while reach:
            key, index = _exchange(key, index, lead, whole, block, reach)
            reach //= 2
        block *= 2
    index = graph.shrink(index, [(0, n) for n in lead] + [(0, size)])
    return graph.permute(index, [order.index(i) for i in range(rank)])


def _exchange(
    key: Node, index: Node, lead: tuple[SymInt, ...], whole: int, block: int, reach: int
) -> tuple[Node, Node]:
    """Put pairs `reach` apart in order: ascending in even blocks of size `block`, descending in odd ones."""
    count = whole // (2 * reach)

    def side(array: Node, which: int) -> Node:
        pairs = graph.reshape(array, (*lead, count, 2, reach))
        return graph.shrink(pairs, [(0, n) for n in (*lead, count)] + [(which, which + 1), (0, reach)])

    (a, b), (i, j) = [[side(array, which) for which in (0, 1)] for array in (key, index)]
    tie = graph.apply("and", graph.apply("eq", a, b), graph.apply("lt", j, i))
    behind = graph.apply("or", graph.apply("lt", b, a), tie)
    number = graph.iota(count, int64, key.device)
    odd = graph.apply(
        "and", graph.apply("floordiv", number, _const(block // (2 * reach), number)), _const(1, number)
    )
    down = graph.expand(graph.reshape(graph.apply("ne", odd, _const(0, odd)), (count, 1, 1)), behind.shape)
    swap = graph.apply("xor", behind, down)

    def exchanged(x: Node, y: Node) -> Node:
        pair = [graph.apply("where", swap, y, x), graph.apply("where", swap, x, y)]
        return graph.reshape(graph.cat(pair, len(lead) + 1), key.shape)

    return exchanged(a, b), exchanged(i, j)


_COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def _all_reduce(node: Node, inputs: tuple[Node, ...]) -> Node:
    kind, device = node.attrs
    total, *others = [graph.copy(source, device) for source in inputs]
    for other in others:
        total = graph.apply(_COMBINE[kind], total, other)
    return total


def _all_gather(node: Node, inputs: tuple[Node, ...]) -> Node:
    axis, device = node.attrs
    return graph.cat([graph.copy(source, device) for source in inputs], axis)


def _bitcast(node: Node, inputs: tuple[Node, ...]) -> Node:
    (source,) = inputs
    if source.op.name == "bitcast" and source.inputs[0].dtype is node.dtype:
        return source.inputs[0]
    return graph.bitcast(source, node.dtype)


RULES: dict[str, Callable[[Node, tuple[Node, ...]], Node]] = {
    "random_bits": _random_bits,
    "argsort": _argsort,
    "bitcast": _bitcast,
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
}
