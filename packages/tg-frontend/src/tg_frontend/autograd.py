"""Gradients as graphs: `vjp` on nodes, and what users call on tensors.

The reverse walk goes from outputs to the nodes asked for and adds up one gradient graph a node. Nothing is computed
and nothing is recorded on the way forward: the graph is the record. Gradients are tensors like any other, so any order
of derivative works. They end at buffers: data, leaves, and what was detached.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Sequence

from tg_frontend.core import Tensor
from tg_frontend.gradients import RULES
from tg_frontend.storage import detached, leaves, mode
from tg_ir import graph
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import Node, format_shape, toposort

__all__ = [
    "backward", "custom_gradient", "enable_grad", "grad", "gradient", "is_grad_enabled", "jvp", "no_grad",
    "value_and_grad", "vjp",
]  # fmt: skip

CustomRule = Callable[..., Tensor | Sequence[Tensor | None] | None]

_custom: weakref.WeakKeyDictionary[Node, tuple[tuple[Node, ...], CustomRule]] = weakref.WeakKeyDictionary()
"""Buffers that gradients pass by a rule of the user's: their inputs, and the rule."""


# ---- switches ----------------------------------------------------------------------------------------------


class _GradMode(contextlib.ContextDecorator):
    """A context manager and decorator that switches the recording of gradients for this thread."""

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(mode.grad_enabled)
        mode.grad_enabled = self._enabled

    def __exit__(self, *exception: object) -> None:
        mode.grad_enabled = self._before.pop()


def no_grad() -> _GradMode:
    """`with no_grad():` or `@no_grad()`: results do not require gradients, and leaves may be written to."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """`with enable_grad():` or `@enable_grad()`: the opposite of `no_grad`."""
    return _GradMode(True)


def is_grad_enabled() -> bool:
    """Whether gradients are recorded in this thread."""
    return mode.grad_enabled


# ---- on nodes ----------------------------------------------------------------------------------------------


def _sources(node: Node) -> tuple[Node, ...]:
    """Where gradients go from a node."""
    if node.op.name == "buffer":
        return _custom[node][0] if node in _custom else ()
    return node.inputs


def _toposort(roots: Sequence[Node]) -> list[Node]:
    """Inputs before users, along the ways that gradients go."""
    if not _custom:
        return toposort(roots, into=lambda node: node.op.name != "buffer")
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack = [] if root in done else [(root, iter(_sources(root)))]
        done.add(root)
        while stack:
            node, rest = stack[-1]
            child = next((child for child in rest if child not in done), None)
            if child is None:
                order.append(node)
                stack.pop()
            else:
                done.add(child)
                stack.append((child, iter(_sources(child))))
    return order


def vjp(outputs: Sequence[Node], cotangents: Sequence[Node], wanted: Sequence[Node]) -> dict[Node, Node]:
    """For each node of `wanted` that the outputs depend on: the sum of cotangent times derivative, as a graph."""
    order = _toposort(outputs)
    goals, reach = set(wanted), set()
    for node in order:
        if node in goals or (node.dtype.is_float and any(child in reach for child in _sources(node))):
            reach.add(node)
    grads: dict[Node, Node] = {}

    def add(node: Node, grad: Node) -> None:
        grads[node] = graph.apply("add", grads[node], grad) if node in grads else grad

    for output, cotangent in zip(outputs, cotangents, strict=True):
        if output in reach:
            add(output, cotangent)
    for node in reversed(order):
        sources = _sources(node)
        if node not in grads or not any(child in reach for child in sources):
            continue
        for child, grad in zip(
            sources, _rule(node, grads[node] if node in goals else grads.pop(node)), strict=True
        ):
            if grad is not None and child in reach:
                add(child, grad)
    return {node: grads[node] for node in wanted if node in grads}


def _rule(node: Node, grad: Node) -> Sequence[Node | None]:
    if node in _custom:
        inputs, rule = _custom[node]
        given = rule(Tensor.from_node(grad))
        given = given if isinstance(given, tuple | list) else (given,)
        if len(given) != len(inputs):
            raise TgError(f"custom gradient: the rule gave {len(given)} gradients for {len(inputs)} inputs")
        for item, source in zip(given, inputs, strict=True):
            if item is not None and item.shape != source.shape:
                raise ShapeError(
                    f"custom gradient: got {format_shape(item.shape)} for an input of {format_shape(source.shape)}"
                )
        pairs = zip(given, inputs, strict=True)
        return [None if item is None else graph.cast(item.node, source.dtype) for item, source in pairs]
    rule = RULES.get(node.op.name)
    return [None] * len(node.inputs) if rule is None else rule(node, grad)


def _ones_like(output: Tensor, name: str) -> Node:
    if output.numel() != 1:
        raise ShapeError(
            f"{name}: the output has shape {format_shape(output.shape)}, want one element; "
            "reduce it or give the gradient to start from"
        )
    return graph.expand(graph.const(1.0, output.dtype, output.device), output.shape)


def _start(outputs: Sequence[Tensor], given: Sequence[Tensor | None], name: str) -> list[Node]:
    starts = []
    for output, start in zip(outputs, given, strict=True):
        if not output.dtype.is_float:
            raise DTypeError(f"{name}: the output is {output.dtype}, want a float dtype")
        if start is not None and start.shape != output.shape:
            raise ShapeError(
                f"{name}: the gradient has shape {format_shape(start.shape)}, the output {format_shape(output.shape)}"
            )
        starts.append(_ones_like(output, name) if start is None else graph.cast(start.node, output.dtype))
    return starts


def _list(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


# ---- on tensors --------------------------------------------------------------------------------------------


def backward(self: Tensor, gradient: Tensor | None = None, create_graph: bool = False) -> None:
    """Add the gradient of this tensor to `.grad` of every leaf that requires one.

    Args:
        gradient: the gradient to start from; needed unless this tensor has one element.
        create_graph: keep the history of the gradients, so that they can be differentiated themselves.

    Raises:
        TgError: no leaf that requires a gradient contributes.
    """
    node = self.node
    targets = {}
    for leaf in _toposort([node]):
        owner = leaves[leaf]() if leaf in leaves else None
        if owner is not None:
            targets[leaf] = owner
    if not self.requires_grad or not targets:
        raise TgError(
            "backward: the tensor does not require a gradient; give a leaf requires_grad=True first"
        )
    self._storage.together()
    for leaf, grad in vjp([node], _start([self], [gradient], "backward"), list(targets)).items():
        owner = targets[leaf]
        total = Tensor.from_node(grad if create_graph else detached(grad), *([self] if create_graph else []))
        owner.grad = total if owner.grad is None else owner.grad + total


def grad(
    outputs: Tensor | Sequence[Tensor] | Callable,
    inputs: Tensor | Sequence[Tensor] | int | Sequence[int] = 0,
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    create_graph: bool = True,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...] | Callable:
    """The gradients of `outputs` for `inputs`, as `torch.autograd.grad`; or of a function, as `jax.grad`.

    With tensors: one gradient an input; any tensors that the outputs were computed from will do. With a function of
    one scalar result: a function that gives the gradient for the argument (or arguments) numbered by `inputs`.

    Raises:
        TgError: an input does not contribute, unless `allow_unused` (then its gradient is None).
    """
    if callable(outputs) and not isinstance(outputs, Tensor):
        of = value_and_grad(outputs, inputs)
        return functools.wraps(outputs)(lambda *args, **kwargs: of(*args, **kwargs)[1])
    results, wanted = _list(outputs), _list(inputs)
    starts = [None] * len(results) if grad_outputs is None else _list(grad_outputs)
    with enable_grad():
        nodes = [tensor.node for tensor in wanted]
        found = vjp([result.node for result in results], _start(results, starts, "grad"), nodes)
    for position, node in enumerate(nodes):
        if node not in found and not allow_unused:
            raise TgError(
                f"grad: the outputs do not depend on input {position} of shape {format_shape(node.shape)}; "
                "pass allow_unused=True to get None for it"
            )
    made = [found.get(node) for node in nodes]
    if not create_graph:
        made = [None if node is None else detached(node) for node in made]
    parents = results if create_graph else []
    return tuple([None if node is None else Tensor.from_node(node, *parents) for node in made])


def gradient(self: Tensor, *inputs: Tensor, gradient: Tensor | None = None) -> list[Tensor]:
    """The gradients of this tensor for `inputs`, which need not be leaves. Nothing is added to any `.grad`."""
    return list(grad(self, inputs, gradient))


_tracked: weakref.WeakSet[Node] = weakref.WeakSet()
"""The nodes that stand for arguments of functions that are being differentiated."""


def _fresh(value: Tensor) -> Tensor:
    """The same value under a node of its own, which gradients of an enclosing function pass."""
    node = detached(value.node)
    _custom[node] = ((value.node,), lambda grad: grad)
    _tracked.add(node)
    made = Tensor.from_node(node)
    made._storage.requires_grad = True
    return made


def _beyond(output: Tensor, own: Sequence[Tensor]) -> list[Tensor]:
    """[output] if it depends on leaves or on arguments of enclosing functions besides `own`, else []."""
    mine = {tensor.node for tensor in own}
    order = _toposort([output.node])
    return (
        [output] if any(node in leaves or (node in _tracked and node not in mine) for node in order) else []
    )


def value_and_grad(function: Callable, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable:
    """A function that gives the result of `function` and its gradient for the arguments numbered by `argnums`.

    The result must have one element; with `has_aux` the function returns (result, anything else).
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> tuple:
        made = list(args)
        with enable_grad():
            for number in numbers:
                if number >= len(args) or not isinstance(args[number], Tensor):
                    raise TgError(f"grad: argument {number} of {function.__name__} is no tensor; see argnums")
                made[number] = _fresh(args[number])
            result = function(*made, **kwargs)
            output = result[0] if has_aux else result
            inputs = [made[number] for number in numbers]
            found = vjp([output.node], _start([output], [None], "grad"), [x.node for x in inputs])
            parents = _beyond(output, inputs)
            grads = [Tensor.from_node(found.get(x.node, _zeros(x)), *parents) for x in inputs]
            value = Tensor.from_node(output.node, *parents)
        return (value, result[1]) if has_aux else value, grads[0] if isinstance(argnums, int) else tuple(
            grads
        )

    return wrapped


def jvp(function: Callable, primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The value of `function` at `primals` and its derivative in the direction `tangents`.

    The vjp is linear in its cotangent; the vjp of that is the jvp.
    """
    with enable_grad():
        inputs = [_fresh(primal) for primal in primals]
        output = function(*inputs)
        probe = graph.buffer(output.shape, output.dtype, output.device, source=_zeros(output))
        back = vjp([output.node], [probe], [x.node for x in inputs])
        pairs = [(back[x.node], t.node) for x, t in zip(inputs, tangents, strict=True) if x.node in back]
        found = vjp([pair[0] for pair in pairs], [pair[1] for pair in pairs], [probe])
        parents = _beyond(output, inputs)
        tangent = found.get(probe, _zeros(output))
        return Tensor.from_node(output.node, *parents), Tensor.from_node(tangent, *parents)


def _zeros(tensor: Tensor) -> Node:
    return graph.expand(graph.const(0, tensor.dtype, tensor.device), tensor.shape)


def custom_gradient(function: Callable) -> Callable:
    """A function with a gradient of its own making.

    `function(*tensors)` returns (result, rule); `rule(gradient)` returns one gradient for each tensor argument, in
    their order (or None). Other arguments pass through. The function gets clones of the tensors, so that its rule
    means the values of now, whatever is written to them later.

        @custom_gradient
        def clipped(x):
            return x, lambda gradient: gradient.clip(-1, 1)
    """

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> Tensor:
        args = tuple([item.clone() if isinstance(item, Tensor) else item for item in args])
        tensors = [item for item in args if isinstance(item, Tensor)]
        result, rule = function(*args, **kwargs)
        node = graph.buffer(result.shape, result.dtype, result.device, source=result.node)
        _custom[node] = (tuple([tensor.node for tensor in tensors]), rule)
        return Tensor.from_node(node, *tensors)

    return wrapped
