"""Make kernels and steps of drafts.

*before*: groups of drafts in order. *after*: a program whose temporaries have no offsets yet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from tg_ir.graph import Node
from tg_ir.kernel import Axis, Kernel, Parameter, Reduce, Store, roots, toposort
from tg_ir.program import BufferSlot, Copy, Launch, Program, Step
from tg_ir.symbolic import SymInt, Var, le, leaves, logical_and, lt, prod, substitute, variables
from tg_schedule.choose_stores import Draft
from tg_schedule.find_attention import Attention
from tg_schedule.lower import Lowering, loaded_index
from tg_schedule.movement import flat_index
from tg_schedule.places import root_axes
from tg_schedule.split_axes import expressions, split_axes

__all__ = ["build_program"]


class _Builder:
    def __init__(self, inputs: Sequence[Node], outputs: Sequence[Node], attention: Mapping[Node, Attention]):
        self.attention = attention
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

    def lowering(self, draft: Draft) -> Lowering:
        return Lowering({node: self.parameter(node) for node in draft.loads}, self.attention)

    def launch(self, name: str, loaded: Iterable[Parameter], stores: Sequence[Store]) -> None:
        """Add a kernel of these stores and a step that launches it."""
        stores = split_axes(stores)
        targets = list(dict.fromkeys(store.parameter for store in stores))
        parameters = (*targets, *[p for p in loaded if p not in targets])
        kernel = Kernel(
            f"k{len(self.kernels)}_{name}", parameters, _scalars(parameters, stores), tuple(stores)
        )
        self.kernels.append(kernel)
        self.steps.append(Launch(kernel.name, tuple([int(p.name[1:]) for p in parameters])))

    def group(self, drafts: Sequence[Draft]) -> None:
        """Add the kernels and steps of drafts that are launched together."""
        outputs = [node for draft in drafts for node in draft.outputs]
        for node in outputs:
            self.add(node, "output" if node in self.outputs else "temporary")
        head = outputs[0]
        if head.op.name == "copy":
            self.steps.append(Copy(self.number[head], self.number[head.inputs[0]]))
        elif head.op.name == "scatter":
            self.scatter(head, drafts[0])
        else:
            stores, loaded, first = [], {}, 0
            for draft in drafts:
                low = self.lowering(draft)
                axes = _axes(draft.sizes, first)
                names = {old.index: new.index for old, new in zip(_axes(draft.sizes), axes, strict=True)}
                first += len(axes)
                for node, place in draft.outputs.items():
                    index = tuple([substitute(i, names) for i in place])
                    value = low.scan(node, index, axes) if node.op.name == "scan" else low.pull(node, index)
                    target = self.parameter(node, "write")
                    stores.append(Store(target, flat_index(index, node.shape), value, axes))
                loaded |= low.loaded
            self.launch("_".join(list(dict.fromkeys([node.op.name for node in outputs]))[:4]), loaded, stores)

    def scatter(self, node: Node, draft: Draft) -> None:
        """The base first, then the updates into it."""
        base, index, source = node.inputs
        low = self.lowering(draft)
        sizes, place = root_axes(base)
        store = Store(
            self.parameter(node, "write"), flat_index(place, base.shape), low.pull(base, place), _axes(sizes)
        )
        self.launch("scatter_base", low.loaded, [store])
        low = self.lowering(draft)
        sizes, place = root_axes(index)
        axis, kind = node.attrs
        row = loaded_index(low.pull(index, place))
        inside = logical_and(le(0, row), lt(row, base.shape[axis]))
        target = flat_index((*place[:axis], row, *place[axis + 1 :]), base.shape)
        update = Store(
            self.parameter(node, "update"), target, low.pull(source, place), _axes(sizes), inside, kind
        )
        self.launch("scatter", low.loaded, [update])


def _axes(sizes: Sequence[SymInt], first: int = 0) -> tuple[Axis, ...]:
    return tuple([Axis(f"i{number}", size) for number, size in enumerate(sizes, first)])


def _scalars(parameters: Iterable[Parameter], stores: Sequence[Store]) -> tuple[Var, ...]:
    """The variables that are no axes, in order of name."""
    values = toposort(roots(stores))
    axes = {axis.index for store in stores for axis in store.axes}
    axes |= {axis.index for value in values if isinstance(value, Reduce) for axis in value.axes}
    found = dict.fromkeys([*[parameter.size for parameter in parameters], *expressions(stores, values)])
    variables = {leaf for expr in found for leaf in leaves(expr) if isinstance(leaf, Var)}
    return tuple(sorted(variables - axes, key=lambda var: var.name))


def build_program(
    name: str,
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    groups: Sequence[Sequence[Draft]],
    attention: Mapping[Node, Attention],
) -> tuple[Program, dict[Node, int]]:
    """The program, and the number of each stored node's buffer."""
    # lowering recurses along chains of operations, which may be some hundred long
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))
    builder = _Builder(inputs, outputs, attention)
    for group in groups:
        builder.group(group)
    scalars = {var for kernel in builder.kernels for var in kernel.scalars}
    scalars |= {var for slot in builder.slots for var in variables(slot.size)}
    ordered = tuple(sorted(scalars, key=lambda var: var.name))
    program = Program(name, ordered, tuple(builder.slots), tuple(builder.kernels), tuple(builder.steps))
    return program, builder.number
