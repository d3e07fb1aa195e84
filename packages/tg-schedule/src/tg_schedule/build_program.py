"""Make kernels and steps of drafts.

*before*: groups of drafts in order. *after*: a program whose temporaries have no offsets yet.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterable, Sequence

from tg_ir.graph import Node
from tg_ir.kernel import Axis, Kernel, Load, Loaded, Parameter, Reduce, Store, Value, roots, toposort
from tg_ir.program import BufferSlot, Copy, Launch, Program, Step
from tg_ir.symbolic import SymInt, Var, le, leaves, logical_and, lt, prod, substitute, variables
from tg_schedule.choose_stores import Choice, Draft
from tg_schedule.lower import Lowering, loaded_index
from tg_schedule.movement import flat_index
from tg_schedule.places import behind_reshape, root_axes
from tg_schedule.split_axes import expressions, split_axes

__all__ = ["build_program"]

Lowered = tuple[tuple[Axis, ...], SymInt, Value]
"""Axes, flat index and value of something that is stored."""


class _Builder:
    def __init__(
        self,
        inputs: Sequence[Node],
        outputs: Sequence[Node],
        groups: Sequence[Sequence[Draft]],
        choice: Choice,
    ):
        self.choice = choice
        self.last_reader = {node: draft for group in groups for draft in group for node in draft.loads}
        self.number: dict[Node, int] = {}
        self.slots: list[BufferSlot] = []
        self.names: dict[int, str] = {}
        self.kernels: dict[tuple[object, ...], Kernel] = {}
        self.steps: list[Step] = []
        self.outputs = set(outputs)
        for node in inputs:
            self.add(node, "input")

    def add(self, node: Node, role: str) -> None:
        self.number[node] = len(self.slots)
        self.slots.append(BufferSlot(node.dtype, prod(node.shape), node.device, role))

    def add_result(self, node: Node, over: Node | None = None) -> None:
        """Number what a kernel stores: like the input `over` that it is written over, or anew."""
        if over is None:
            self.add(node, "output" if node in self.outputs else "temporary")
        else:
            number = self.number[node] = self.number[over]
            if self.slots[number].role == "input":
                self.slots[number] = dataclasses.replace(self.slots[number], role="state")

    def parameter(self, node: Node, access: str = "read") -> Parameter:
        """A buffer as a parameter of this launch's kernel; kernels name them in order, so that equal ones are one."""
        number = self.number[node]
        name = self.names.setdefault(number, f"b{len(self.names)}")
        return Parameter(name, node.dtype, prod(node.shape), access)

    def lowering(self, draft: Draft, updated: Iterable[Node] = ()) -> Lowering:
        parameters = {n: self.parameter(n, "update" if n in updated else "read") for n in draft.loads}
        return Lowering(parameters, self.choice.attention)

    def launch(self, name: str, loaded: Iterable[Parameter], stores: Sequence[Store]) -> None:
        """Add a kernel of these stores and a step that launches it."""
        stores = split_axes(stores)
        targets = list(dict.fromkeys(store.parameter for store in stores))
        parameters = (*targets, *[p for p in loaded if p not in targets])
        content = parameters, _scalars(parameters, stores), tuple(stores)
        kernel = self.kernels.setdefault(content, Kernel(f"k{len(self.kernels)}_{name}", *content))
        numbers = {name: number for number, name in self.names.items()}
        self.steps.append(Launch(kernel.name, tuple([numbers[parameter.name] for parameter in parameters])))

    def group(self, drafts: Sequence[Draft]) -> None:
        """Add the kernels and steps of drafts that are launched together."""
        outputs = [node for draft in drafts for node in draft.outputs]
        head = outputs[0]
        self.names = {}
        if head.op.name == "copy":
            self.add_result(head)
            self.steps.append(Copy(self.number[head], self.number[head.inputs[0]]))
        elif head.op.name == "scatter" or drafts[0].box:
            self.write_into(head, drafts[0])
        else:
            results, loaded = self.lower(drafts)
            loads = _loads(results.values())
            over: dict[Node, Node] = {}
            for draft in drafts:
                for node in draft.outputs:
                    given = self.choice.over.get(node)
                    for each in self.dying(draft, node) if given is None else [given]:
                        there = loads.get(self.parameter(each), set()) <= {results[node][:2]}
                        if there and each not in over.values():
                            over[node] = each
                            break
            if over:
                results, loaded = self.lower(drafts, set(over.values()))
            stores = []
            for node, (axes, index, value) in results.items():
                self.add_result(node, over.get(node))
                updated = self.parameter(node, "update")
                target = updated if updated in loaded else self.parameter(node, "write")
                stores.append(Store(target, index, value, axes))
            self.launch("_".join(list(dict.fromkeys([node.op.name for node in outputs]))[:4]), loaded, stores)

    def dying(self, draft: Draft, node: Node) -> list[Node]:
        """The temporaries of a node's size that only its kernel still reads."""
        if node in self.outputs:
            return []
        slots = [
            (each, self.slots[self.number[each]]) for each in draft.loads if self.last_reader[each] is draft
        ]
        own = (node.dtype, prod(node.shape), node.device, "temporary")
        return [each for each, slot in slots if (slot.dtype, slot.size, slot.device, slot.role) == own]

    def lower(
        self, drafts: Sequence[Draft], updated: Collection[Node] = ()
    ) -> tuple[dict[Node, Lowered], dict[Parameter, None]]:
        """What each output is, and the parameters that are loaded."""
        results: dict[Node, Lowered] = {}
        loaded: dict[Parameter, None] = {}
        first = 0
        for draft in drafts:
            low = self.lowering(draft, updated)
            axes = _axes(draft.sizes, first)
            names = {old.index: new.index for old, new in zip(_axes(draft.sizes), axes, strict=True)}
            first += len(axes)
            for node, place in draft.outputs.items():
                index = tuple([substitute(i, names) for i in place])
                value = low.scan(node, index, axes) if node.op.name == "scan" else low.pull(node, index)
                results[node] = axes, flat_index(index, node.shape), value
            loaded |= low.loaded
        return results, loaded

    def write_into(self, node: Node, draft: Draft) -> None:
        """A scatter or a box: the base first, where it is not there already, then what is written into it."""
        base, over = node.inputs[0], self.choice.over.get(node)
        write = _scattered if node.op.name == "scatter" else _boxed
        low = self.lowering(draft)
        result, _, combine = write(low, node)
        if over is not None and behind_reshape(base) is over:
            given = self.parameter(over)
            there = set() if combine else {result[:2]}
            if _loads([result]).get(given, set()) <= there:
                low = self.lowering(draft, {over})
            else:
                over = None
        else:
            over = None
        self.add_result(node, over)
        if over is None:
            sizes, place = root_axes(base)
            from_base = self.lowering(draft)
            inside = behind_reshape(base)
            if inside in self.number:
                from_base.parameters = {**from_base.parameters, inside: self.parameter(inside)}
            value = from_base.pull(base, place)
            store = Store(self.parameter(node, "write"), flat_index(place, base.shape), value, _axes(sizes))
            self.launch(f"{node.op.name}_base", from_base.loaded, [store])
        (axes, index, value), guard, combine = write(low, node)
        updated = self.parameter(node, "update")
        target = updated if combine or updated in low.loaded else self.parameter(node, "write")
        self.launch(node.op.name, low.loaded, [Store(target, index, value, axes, guard, combine)])


def _scattered(low: Lowering, node: Node) -> tuple[Lowered, SymInt, str]:
    """What a scatter writes into its base, under which guard, and how it is combined."""
    base, index, source = node.inputs
    sizes, place = root_axes(index)
    axis, kind = node.attrs
    row = loaded_index(low.pull(index, place))
    inside = logical_and(le(0, row), lt(row, base.shape[axis]))
    target = flat_index((*place[:axis], row, *place[axis + 1 :]), base.shape)
    return (_axes(sizes), target, low.pull(source, place)), inside, kind


def _boxed(low: Lowering, node: Node) -> tuple[Lowered, SymInt, str]:
    """What an assign writes into its base."""
    base, source = node.inputs
    sizes, place = root_axes(source)
    target = [i + start for i, start in zip(place, node["offsets"], strict=True)]
    return (_axes(sizes), flat_index(target, base.shape), low.pull(source, place)), 1, ""


def _loads(results: Iterable[Lowered]) -> dict[Parameter, set[tuple[tuple[Axis, ...], SymInt]]]:
    """Over which axes and at which index each buffer is loaded."""
    loads: dict[Parameter, set[tuple[tuple[Axis, ...], SymInt]]] = {}
    for axes, index, value in results:
        sources = [leaf.source for leaf in leaves(index) if isinstance(leaf, Loaded)]
        for each in toposort([value, *sources]):
            if isinstance(each, Load):
                loads.setdefault(each.parameter, set()).add((axes, each.index))
    return loads


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
    choice: Choice,
) -> tuple[Program, dict[Node, int]]:
    """The program, and the number of each stored node's buffer."""
    # lowering recurses along chains of operations, which may be some hundred long
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))
    builder = _Builder(inputs, outputs, groups, choice)
    for group in groups:
        builder.group(group)
    scalars = {var for kernel in builder.kernels.values() for var in kernel.scalars}
    scalars |= {var for slot in builder.slots for var in variables(slot.size)}
    ordered = tuple(sorted(scalars, key=lambda var: var.name))
    program = Program(
        name, ordered, tuple(builder.slots), tuple(builder.kernels.values()), tuple(builder.steps)
    )
    return program, builder.number
