"""Make kernels and steps of the groups of stored nodes.

*before*: groups in order. *after*: a program whose temporaries have no offsets yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tg_ir.graph import Node
from tg_ir.kernel import Axis, Kernel, Parameter, Reduce, Store, Value, roots, toposort
from tg_ir.kernel import nodes as kernel_nodes
from tg_ir.program import BufferSlot, Copy, Launch, Program, Step
from tg_ir.symbolic import SymInt, Var, le, leaves, logical_and, lt, prod, variables
from tg_schedule.lower import Lowering, flat_index, loaded_index

__all__ = ["build_program"]


class _Builder:
    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node]):
        self.number: dict[Node, int] = {}
        self.slots: list[BufferSlot] = []
        self.kernels: list[Kernel] = []
        self.steps: list[Step] = []
        self.outputs = set(outputs)
        for node in inputs:
            self.add(node, "input")

    def add(self, node: Node, role: str) -> int:
        self.number[node] = len(self.slots)
        self.slots.append(BufferSlot(node.dtype, prod(node.shape), node.device, role))
        return self.number[node]

    def parameter(self, node: Node, access: str = "read") -> Parameter:
        return Parameter(f"b{self.number[node]}", node.dtype, prod(node.shape), access)

    def lowering(self, without: Iterable[Node]) -> Lowering:
        left_out = set(without)
        return Lowering({node: self.parameter(node) for node in self.number if node not in left_out})

    def launch(self, name: str, low: Lowering, stores: Sequence[Store], written: Sequence[Node]) -> None:
        """Add a kernel of these stores and a step that launches it."""
        targets = list(dict.fromkeys(store.parameter for store in stores))
        parameters = (*targets, *[p for p in low.loaded if p not in targets])
        numbers = {f"b{number}": number for number in self.number.values()}
        kernel = Kernel(
            f"k{len(self.kernels)}_{name}", parameters, _scalars(parameters, stores), tuple(stores)
        )
        self.kernels.append(kernel)
        self.steps.append(Launch(kernel.name, tuple([numbers[p.name] for p in parameters])))

    def group(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self.add(node, "output" if node in self.outputs else "temporary")
        head = nodes[0]
        if head.op.name == "copy":
            self.steps.append(Copy(self.number[head], self.number[head.inputs[0]]))
        elif head.op.name == "scatter":
            self.scatter(head)
        else:
            low = self.lowering(nodes)
            axes, index = _axes(low, head.shape)
            stores = []
            for node in nodes:
                value = (
                    low.scan(node, index, axes[node["axis"]])
                    if node.op.name == "scan"
                    else low.pull(node, index)
                )
                stores.append(
                    Store(self.parameter(node, "write"), flat_index(index, node.shape), value, axes)
                )
            self.launch("_".join(dict.fromkeys(node.op.name for node in nodes)), low, stores, nodes)

    def scatter(self, node: Node) -> None:
        """The base first, then the updates into it."""
        base, index, source = node.inputs
        low = self.lowering([node])
        axes, place = _axes(low, base.shape)
        store = Store(
            self.parameter(node, "write"), flat_index(place, base.shape), low.pull(base, place), axes
        )
        self.launch("scatter_base", low, [store], [node])
        low = self.lowering([node])
        axes, place = _axes(low, index.shape)
        axis, kind = node.attrs
        row = loaded_index(low.pull(index, place))
        inside = logical_and(le(0, row), lt(row, base.shape[axis]))
        target = flat_index((*place[:axis], row, *place[axis + 1 :]), base.shape)
        update = Store(self.parameter(node, "update"), target, low.pull(source, place), axes, inside, kind)
        self.launch("scatter", low, [update], [node])


def _axes(low: Lowering, shape: Sequence[SymInt]) -> tuple[tuple[Axis, ...], tuple[SymInt, ...]]:
    axes = tuple([low.axis("i", size) for size in shape])
    return axes, tuple([axis.index for axis in axes])


def _expressions(parameters: Iterable[Parameter], stores: Sequence[Store]) -> Iterable[SymInt]:
    yield from [parameter.size for parameter in parameters]
    for store in stores:
        yield from (store.index, store.guard, *[axis.extent for axis in store.axes])
    for value in toposort(roots(stores)):
        yield from _of_value(value)


def _of_value(value: Value) -> tuple[SymInt, ...]:
    match value:
        case kernel_nodes.Load():
            return (value.index, value.guard)
        case kernel_nodes.Index():
            return (value.expr,)
        case Reduce():
            return tuple([axis.extent for axis in value.axes])
    return ()


def _scalars(parameters: Iterable[Parameter], stores: Sequence[Store]) -> tuple[Var, ...]:
    """The variables that are no axes, in order of name."""
    axes = {axis.index for store in stores for axis in store.axes}
    axes |= {axis.index for v in toposort(roots(stores)) if isinstance(v, Reduce) for axis in v.axes}
    found = {leaf for e in _expressions(parameters, stores) for leaf in leaves(e) if isinstance(leaf, Var)}
    return tuple(sorted(found - axes, key=lambda var: var.name))


def build_program(
    name: str, inputs: Sequence[Node], outputs: Sequence[Node], groups: Sequence[Sequence[Node]]
) -> tuple[Program, dict[Node, int]]:
    """The program, and the number of each stored node's buffer."""
    builder = _Builder(inputs, outputs)
    for group in groups:
        builder.group(group)
    scalars = {var for kernel in builder.kernels for var in kernel.scalars}
    scalars |= {var for slot in builder.slots for var in variables(slot.size)}
    ordered = tuple(sorted(scalars, key=lambda var: var.name))
    program = Program(name, ordered, tuple(builder.slots), tuple(builder.kernels), tuple(builder.steps))
    return program, builder.number
