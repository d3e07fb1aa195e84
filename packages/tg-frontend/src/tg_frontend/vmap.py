"""vmap: a function of single examples becomes one of batches, by rewriting the graph it builds.

The function is called once, on placeholders without the mapped dimension. Every node of the result that depends on one
of them is rebuilt with a leading batch axis; what depends on none stays as it is and is broadcast where the two meet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from tg_frontend.autograd import _custom, _toposort
from tg_frontend.core import Tensor, resolve_axis
from tg_ir import graph
from tg_ir.errors import ShapeError, TgError
from tg_ir.graph import Node
from tg_ir.symbolic import SymInt

__all__ = ["vmap"]


def vmap(
    function: Callable, in_dims: int | Sequence[int | None] = 0, out_dims: int | Sequence[int] = 0
) -> Callable:
    """`function` mapped over dimension `in_dims` of its tensor arguments (None: not mapped), as `torch.func.vmap`.

    Random numbers inside are the same for every example, and writes in place to tensors from outside are not mapped.

    Raises:
        ShapeError: the mapped dimensions differ in size.
    """

    @functools.wraps(function)
    def mapped(*args: object) -> Tensor | tuple[Tensor, ...]:
        dims = [in_dims] * len(args) if isinstance(in_dims, int | None) else list(in_dims)
        if len(dims) != len(args):
            raise TgError(f"vmap: got {len(args)} arguments, in_dims has {len(dims)}")
        size: SymInt | None = None
        batched: dict[Node, Node] = {}
        made: list[object] = []
        for position, (arg, dim) in enumerate(zip(args, dims, strict=True)):
            if dim is None or not isinstance(arg, Tensor):
                made.append(arg)
                continue
            axis = resolve_axis("vmap", dim, arg.ndim)
            moved = graph.permute(arg.node, [axis, *[i for i in range(arg.ndim) if i != axis]])
            if size is not None and moved.shape[0] != size:
                raise ShapeError(
                    f"vmap: argument {position} has {moved.shape[0]} in dim {dim}, others have {size}"
                )
            size = moved.shape[0]
            placeholder = graph.buffer(moved.shape[1:], arg.dtype, arg.device)
            batched[placeholder] = moved
            made.append(Tensor.from_node(placeholder))
        if size is None:
            raise TgError("vmap: no tensor argument is mapped; see in_dims")
        result = function(*made)
        outputs = list(result) if isinstance(result, tuple | list) else [result]
        places = [out_dims] * len(outputs) if isinstance(out_dims, int) else list(out_dims)
        parents = [arg for arg in args if isinstance(arg, Tensor)]
        rebuilt = []
        for output, place in zip(outputs, places, strict=True):
            node = _with_batch(_rebuild(output.node, batched, size), output.node, size, batched)
            axis = resolve_axis("vmap", place, len(node.shape))
            order = [*range(1, len(node.shape))]
            order.insert(axis, 0)
            rebuilt.append(Tensor.from_node(graph.permute(node, order), output, *parents))
        return tuple(rebuilt) if isinstance(result, tuple | list) else rebuilt[0]

    return mapped


def _rebuild(root: Node, batched: dict[Node, Node], size: SymInt) -> Node:
    """`root` with a leading batch axis if it depends on a node of `batched`, which grows; else `root`."""
    for node in _graph_order(root):
        sources = _custom[node][0] if node in _custom else node.inputs
        if node in batched or not any(source in batched for source in sources):
            continue
        if node in _custom:
            batched[node] = _custom_node(node, batched, size)
            continue
        inputs = [_with_batch(batched.get(source, source), source, size, batched) for source in sources]
        batched[node] = _RULES.get(node.op.name, _same)(node, inputs, size)
    return batched.get(root, root)


def _graph_order(root: Node) -> list[Node]:
    """Inputs before users, through pending buffers and custom gradients."""
    seen = dict.fromkeys(graph.toposort([root]))
    return list(dict.fromkeys([*_toposort([root]), *seen])) if _custom else list(seen)


def _with_batch(node: Node, plain: Node, size: SymInt, batched: dict[Node, Node]) -> Node:
    return node if plain in batched else graph.expand(node, (size, *node.shape))


def _custom_node(node: Node, batched: dict[Node, Node], size: SymInt) -> Node:
    """A node with a gradient of the user's: so has the batched one, by the same rule on placeholders."""
    inputs, rule = _custom[node]
    source = node.inputs[0] if node.inputs else node
    value = _with_batch(_rebuild(source, batched, size), source, size, batched)
    new = graph.buffer(value.shape, value.dtype, value.device, source=value)
    known = dict(batched)
    wide = [_with_batch(batched.get(source, source), source, size, batched) for source in inputs]

    def batched_rule(grad: Tensor) -> list[Tensor | None]:
        placeholder = graph.buffer(node.shape, node.dtype, node.device)
        table = {**known, node: new, placeholder: grad.node}
        given = rule(Tensor.from_node(placeholder))
        given = given if isinstance(given, tuple | list) else (given,)
        return [
            None
            if item is None
            else Tensor.from_node(_with_batch(_rebuild(item.node, table, size), item.node, size, table))
            for item in given
        ]

    _custom[new] = (tuple(wide), batched_rule)
    return new


# ---- (node, batched inputs, batch size) -> batched node ------------------------------------------------------


def _same(node: Node, inputs: list[Node], size: SymInt) -> Node:
    return graph.make(node.op, tuple(inputs), node.attrs)


def _axis(node: Node, inputs: list[Node], size: SymInt) -> Node:
    """The axis, the first attribute or the last, is one further right."""
    at = node.op.positions["axis"]
    return graph.make(node.op, tuple(inputs), (*node.attrs[:at], node["axis"] + 1, *node.attrs[at + 1 :]))


def _expand(node: Node, inputs: list[Node], size: SymInt) -> Node:
    (source,) = inputs
    ones = [1] * (len(node.shape) - len(source.shape) + 1)
    return graph.expand(graph.reshape(source, [size, *ones, *source.shape[1:]]), (size, *node.shape))


def _pad(node: Node, inputs: list[Node], size: SymInt) -> Node:
    fill = node.inputs[1]
    if fill.op.name != "const":
        raise TgError("vmap: a pad whose fill is computed; pad with a constant and use where")
    return graph.pad(inputs[0], [(0, 0), *node["widths"]], fill)


def _random(node: Node, inputs: list[Node], size: SymInt) -> Node:
    raise TgError("vmap: random numbers from a mapped key; draw them outside and pass them in")


_RULES: dict[str, Callable[[Node, list[Node], SymInt], Node]] = {
    "buffer": lambda node, inputs, size: graph.buffer(
        (size, *node.shape), node.dtype, node.device, source=inputs[0]
    ),
    "reshape": lambda node, inputs, size: graph.reshape(inputs[0], (size, *node.shape)),
    "permute": lambda node, inputs, size: graph.permute(
        inputs[0], [0, *[axis + 1 for axis in node["order"]]]
    ),
    "expand": _expand,
    "pad": _pad,
    "shrink": lambda node, inputs, size: graph.shrink(inputs[0], [(0, size), *node["limits"]]),
    "flip": lambda node, inputs, size: graph.flip(inputs[0], [axis + 1 for axis in node["axes"]]),
    "reduce": lambda node, inputs, size: graph.reduce(
        inputs[0], node["kind"], [axis + 1 for axis in node["axes"]]
    ),
    "assign": lambda node, inputs, size: graph.assign(*inputs, (0, *node["offsets"])),
    "random_bits": _random,
    **dict.fromkeys(("window", "cat", "scan", "argsort", "gather", "scatter", "all_gather"), _axis),
}
