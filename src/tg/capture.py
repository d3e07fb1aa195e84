"""`jit`: a step is run under observation, and replayed from then on as one program.

The first two calls observe (trace.py) and evaluate what they saw; when both saw the same, the calls that follow neither
run the function nor build a graph: they gather the inputs, submit the program, and put its results where the function
would have put them. A step may read and write any tensors in place: its arguments, those it finds through its closure
or in objects (parameters, optimiser state, a cache), gradients, random state. Sizes may be symbolic: `n.bind(5)` as an
argument or in the shape of one is another number for the same program.

A call is replayed if it is like the one that was captured: the same tree of arguments (leaves.py), shapes, dtypes and
devices, the same tensors and numbers in what the function can see of Python's state (python_state.py). Otherwise it is
observed anew. What cannot be replayed is an error:

- a value that is read inside of the step: at once, with the line;
- a change of Python's state, a tensor kept beyond the step, another graph each time: at the second call, since a first
  one may set things up. The step has then been done.

Gradients are taken inside of the step: its results have no history. A step that is called inside of another, or on
tensors that are being differentiated, is simply run.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from types import SimpleNamespace
from typing import Generic, ParamSpec, TypeVar

from tg.engine import TgEngine
from tg.errors import JitError
from tg.executable import Executable
from tg.leaves import Bindings, bound, map_leaves
from tg.trace import Result, Source, Trace, prepared
from tg_frontend import Device, Tensor
from tg_frontend.engine import current_engine
from tg_frontend.storage import Storage, mode, realize_storages
from tg_ir import graph
from tg_ir.protocols import Buffer

__all__ = ["Jit", "jit"]

P = ParamSpec("P")
R = TypeVar("R")

MOST_UNLIKE = 64


class _Capture:
    """What two traces agreed on."""

    def __init__(self, trace: Trace, before: Trace, engine: TgEngine, executable: Executable):
        self.trace, self.engine, self.executable = trace, engine, executable
        self.fixed = [
            (number, ref)
            for number, (ref, was) in enumerate(zip(trace.arguments, before.arguments, strict=True))
            if ref() is was()  # the closure may know that tensor, too
        ]

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether this call may be replayed, apart from Python's state."""
        return all([tensors[number]._storage is ref() for number, ref in self.fixed]) and all(
            [(leaf.grad is None) == missing for leaf, missing in self.trace.guards]
        )


def jit(function: Callable[P, R]) -> Jit[P, R]:
    """The function as one program that is captured once and replayed.

    Raises:
        JitError: when it is called, what it does cannot be captured; the message names the line.
    """
    return Jit(function)


class Jit(Generic[P, R]):
    """A captured function. `replays` counts the calls that were replayed."""

    def __init__(self, function: Callable[P, R]):
        functools.update_wrapper(self, function)
        self._function = function
        self._captures: dict[Hashable, list[_Capture]] = {}
        self._last: dict[Hashable, list[Trace]] = {}
        self._objects: list[object] = []  # whose ids are in keys
        self._lock = threading.RLock()
        self._unlike = 0
        self.replays = 0

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        bindings = Bindings(args, kwargs)
        if mode.observer is not None or any(t.requires_grad and not t.is_leaf for t in bindings.tensors):
            return self._function(*args, **kwargs)
        with self._lock:
            key = (id(current_engine()), Device.default, mode.grad_enabled, bindings.key)
            tensors = prepared(bindings)
            for capture in self._captures.get(key, ()):
                if capture.fits(tensors) and not capture.trace.state.changes():
                    buffers = self._gather(capture, tensors)
                    if buffers is not None:
                        scalars = self._scalars(capture.trace, bindings)
                        self.replays, self._unlike = self.replays + 1, 0
                        results = capture.executable.run(buffers, scalars)
                        return self._deliver(capture.trace, results, bindings, tensors, scalars)
            return self._observe(key, args, kwargs, bindings, tensors)

    # ---- replaying -----------------------------------------------------------------------------------------

    def _gather(self, capture: _Capture, tensors: Sequence[Tensor]) -> list[Buffer] | None:
        """The inputs of a replay; None if they are not like those that were captured."""
        sources = capture.trace.sources
        places = [_storage(source, tensors) for source in sources]
        waiting = [place.node for place in places if place is not None and place.node.value is None]
        if waiting:
            realize_storages(waiting)
        found: list[Buffer | None] = [
            source.what if source.kind == "fixed" else None if place is None else place.node.value
            for source, place in zip(sources, places, strict=True)
        ]
        if not all(map(_like, sources, places, capture.trace.expected)):
            return None
        for number in capture.executable.overwrites:
            found[number] = None  # so that only its storage may hold the buffer
            alone = _sole(places[number])
            found[number] = places[number].node.value
            if not alone or not capture.engine.may_overwrite(found[number]):
                found[number] = capture.engine.copy_of(found[number])
        for generator, number in capture.trace.draws:
            if number < 0:
                generator.next_key()
            else:
                found[number] = generator.key_node(capture.trace.expected[number][2]).value
        return found

    def _scalars(self, trace: Trace, bindings: Bindings) -> dict[str, int]:
        """The values of the program's variables in this call."""
        for name, values in bindings.values.items():
            if name in trace.scalars and len(values) > 1:
                raise JitError(
                    f"jit {trace.name}: variable {name!r} has the values {sorted(values)} in one call; give each value "
                    "a variable of its own"
                )
        return trace.scalars | {name: max(values) for name, values in bindings.values.items()}

    def _deliver(
        self,
        trace: Trace,
        results: Sequence[Buffer],
        bindings: Bindings,
        tensors: Sequence[Tensor],
        scalars: dict[str, int],
    ) -> R:
        """Put the results where the function would have put them, and give what it would have returned."""

        def tensor(root: int) -> Tensor:
            node = graph.buffer(bound(trace.shapes[root], scalars), results[root].dtype, results[root].device)
            node.fill(results[root])
            return Tensor.from_node(node)

        for place, root in trace.writes:
            target = _storage(place, tensors)
            if target.node.value is not results[root]:  # else it was written over
                target.hold(results[root], bound(trace.shapes[root], scalars))
            given = bindings.tensors[place.what] if place.kind == "argument" else None
            if given is not None and given._steps:
                given.detach().assign(Tensor.from_node(target.node))
        for leaf, root in trace.grads:
            leaf.grad = None if root < 0 else tensor(root)

        def result(item: object) -> object:
            if not isinstance(item, Result):
                return item
            if item.argument >= 0:
                return bindings.tensors[item.argument]
            return item.tensor if item.tensor is not None else tensor(item.root)

        return map_leaves(trace.result, result)  # type: ignore[return-value]

    # ---- observing -----------------------------------------------------------------------------------------

    def _observe(
        self, key: Hashable, args: tuple, kwargs: dict, bindings: Bindings, tensors: Sequence[Tensor]
    ) -> R:
        trace = Trace(self._function)
        trace.run(args, kwargs, bindings, tensors)
        assert trace.normal is not None, "a run gives a graph"
        engine = current_engine()
        executable = None
        if isinstance(engine, TgEngine):
            executable = engine.executable(trace.normal, trace.donations())
        alike = [each for each in self._last.get(key, ()) if each.conditions() == trace.conditions()]
        before = alike[-1] if alike else None
        unlike = trace.difference(before) if before else ""
        scalars = dict(trace.normal.scalars)
        if executable is not None:
            buffers = list(trace.normal.buffers)
            for number in executable.overwrites:  # the graph of this run still refers to them
                buffers[number] = engine.copy_of(buffers[number])
            results = executable.run(buffers, scalars)
        else:
            engine.realize(trace.roots)
            results = [root.value for root in trace.roots]
        delivered = self._deliver(trace, results, bindings, tensors, scalars)
        trace.settle()
        self._objects += [
            item for item in bindings.objects if not any(item is each for each in self._objects)
        ]
        self._last[key] = [each for each in self._last.get(key, ()) if each is not before] + [trace]
        if before is not None and self._agree(trace, before, unlike) and executable is not None:
            others = [each for each in self._captures.get(key, ()) if each.trace.graph != trace.graph]
            self._captures[key] = [*others, _Capture(trace, before, engine, executable)]
        return delivered

    def _agree(self, trace: Trace, before: Trace, unlike: str) -> bool:
        """Whether what two runs saw can be replayed. Raises: JitError: it never can."""
        if trace.problem:
            raise JitError(f"jit {trace.name}: {trace.problem}")
        changed = before.state.changes()
        if unlike and not before.problem and not changed:
            raise JitError(f"jit {trace.name}: {unlike}")
        self._unlike += bool(unlike)
        if self._unlike > MOST_UNLIKE:
            raise JitError(
                f"jit {trace.name}: captured {MOST_UNLIKE} times without a replay, the last time because "
                f"{', '.join(changed.values())}; make it a tensor"
            )
        if not unlike:
            trace.state.ignored |= before.state.ignored | changed.keys()
        return not unlike


def _like(source: Source, storage: Storage | None, expected: tuple[object, ...]) -> bool:
    """Whether what the step finds for itself has the shape, dtype, device and need of a gradient that it had."""
    if source.kind not in ("storage", "gradient"):
        return True
    buffer, wants = storage.node.value, source.kind == "storage" and storage.requires_grad
    return (buffer.shape, buffer.dtype, buffer.device, wants) == expected


def _holders(storage: Storage) -> tuple[int, int]:
    node = storage.node
    buffer = node.value
    return sys.getrefcount(node), sys.getrefcount(buffer)


_SOLE = _holders(SimpleNamespace(node=SimpleNamespace(value=object())))  # type: ignore[arg-type]


def _sole(storage: Storage) -> bool:
    """Whether nothing but this storage knows its value: no graph that is built already, no copy that shares it."""
    return _holders(storage) == _SOLE


def _storage(place: Source, tensors: Sequence[Tensor]) -> Storage | None:
    match place.kind:
        case "argument":
            return tensors[place.what]._storage
        case "storage":
            return place.what
        case "gradient":
            return place.what.grad._storage
    return None
