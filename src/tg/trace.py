"""One run of a step that is observed instead of evaluated: what it reads, draws, makes, writes and returns.

The graph of the step has buffers for inputs. Each of them is found to come from somewhere (a `Source`): the storage of
a tensor that the step reads, an argument, the gradient of a leaf, a random key; or it is fixed, made by the step from
Python's data. Storages whose value is another one afterwards, gradients that changed, and tensors in the result are the
roots of the graph.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tg.errors import JitError
from tg.leaves import Bindings, map_leaves, plain
from tg.python_state import PythonState
from tg_frontend import Tensor
from tg_frontend.engine import current_engine
from tg_frontend.random import Generator
from tg_frontend.storage import Storage, leaves, mode, realize_storages
from tg_ir.graph import Node
from tg_ir.graph.nodes import toposort
from tg_ir.protocols import Buffer
from tg_schedule.normalize import Normalized, normalize

__all__ = ["Result", "Source", "Trace", "prepared"]

_OWN = ("tg", "tg_frontend", "tg_ir", "tg_schedule", "tg_nn", "functools", "contextlib")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input comes from, and where a value goes: `what` is a storage, an argument's number, a leaf, a generator
    or a buffer."""

    kind: str
    what: object

    @property
    def key(self) -> tuple[str, object]:
        """What two sources of the same place have in common."""
        return self.kind, self.what if self.kind == "argument" else id(self.what)

    def same(self, other: Source) -> bool:
        """Whether another run of the step would find it at the same place; fixed buffers need equal bytes."""
        if self.key == other.key or self.kind != "fixed" or other.kind != "fixed":
            return self.key == other.key
        engine = current_engine()
        return engine.download(self.what) == engine.download(other.what)


@dataclass(frozen=True, slots=True)
class Result:
    """A tensor of the result: of root number `root`, or one that was there before: an argument or `tensor` itself."""

    root: int = -1
    argument: int = -1
    tensor: Tensor | None = None


def _where() -> str:
    """The line of the user's that is being run."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"


def prepared(bindings: Bindings) -> list[Tensor]:
    """The tensors of a call, each with its value: views as values of their own."""
    tensors = [Tensor.from_node(t.detach().node) if t._steps else t for t in bindings.tensors]
    waiting = [tensor for tensor in tensors if tensor._storage.node.value is None]
    if waiting:
        waiting[0].realize(*waiting[1:])
    return tensors


class Trace:
    """A step observed. `run` does it; then `normal` is its graph and the other fields say what stands for what."""

    def __init__(self, function: Callable[..., object]):
        self.function = function
        self.name = getattr(function, "__qualname__", "step")
        self.reads: dict[Storage, Node] = {}
        self.seen: dict[Tensor, Tensor | None] = {}  # leaves, and their gradients when first read
        self.new: weakref.WeakKeyDictionary[Storage, str] = weakref.WeakKeyDictionary()
        self.lines: dict[Node, str] = {}
        self.keys: list[tuple[Generator, Node]] = []
        self.problem = ""
        """Why this run does not say what the next one does."""

    # ---- observing -----------------------------------------------------------------------------------------

    def read(self, tensor: Tensor) -> None:
        """Give a storage from outside its value, in a buffer that no other storage has."""
        storage = tensor._storage
        if storage in self.reads or storage in self.new:
            return
        history = storage.requires_grad and not storage.leaf
        if history and mode.grad_enabled and not tensor._detached:
            raise JitError(
                f"jit {self.name}: got a tensor with a history from outside of the step; {_where()}; "
                "compute it inside, or detach it"
            )
        if storage.node.value is None:
            current_engine().realize([storage.node])
        buffer, shape = storage.node.value, storage.node.shape
        if storage.node.op.name != "buffer" or any(node.value is buffer for node in self.reads.values()):
            # Two storages of one value may part before the next call: each gets a buffer of its own.
            alias = Buffer(
                buffer.shape, buffer.dtype, buffer.device, buffer.memory, lambda memory, kept=buffer: None
            )
            storage.hold(alias, shape)
        self.reads[storage] = storage.node
        owner = storage.owner() if storage.leaf and storage.owner else None
        if owner is not None:
            self.seen[owner] = owner.grad

    def made(self, storage: Storage) -> None:
        """Remember the line."""
        where = self.new[storage] = _where()
        self.lines.setdefault(storage.node, where)

    def drew(self, generator: Generator, key: Node) -> None:
        """Remember the key."""
        self.keys.append((generator, key))

    def asked(self) -> NoReturn:
        """Raises: JitError."""
        raise JitError(
            f"jit {self.name}: a value is read inside of the step; {_where()}; return the tensor and read it outside"
        )

    # ---- running -------------------------------------------------------------------------------------------

    def run(self, args: tuple, kwargs: dict, bindings: Bindings, tensors: Sequence[Tensor]) -> None:
        """Run the function on these tensors in place of those of the call. An error leaves tensors as they were."""
        given = iter(tensors)
        args, kwargs = map_leaves(
            (args, kwargs), lambda item: next(given) if isinstance(item, Tensor) else item
        )
        realize_storages([])
        before = {
            tensor: tensor.grad for tensor in [ref() for ref in list(leaves.values())] if tensor is not None
        }
        self.state = PythonState(self.function, bindings.objects)
        mode.observer = self
        try:
            result = self.function(*args, **kwargs)
            self._find_roots(result, tensors, before)
        except BaseException:
            self._undo(before)
            raise
        finally:
            mode.observer = None
            mode.together.clear()
        changes = self.state.changes()
        if changes:
            what = next(iter(changes.values()))
            self.problem = f"{what} within the step, which a replay would not do; {self._definition()}"
            self.state.ignored |= changes.keys()
        self._find_sources(bindings, tensors, before)

    def _undo(self, before: dict[Tensor, Tensor | None]) -> None:
        for storage, node in self.reads.items():
            if storage.node is not node:
                storage.hold(node.value, node.shape)
        for tensor, grad in before.items():
            tensor.grad = grad

    def _definition(self) -> str:
        code = getattr(self.function, "__code__", None)
        return f"{code.co_filename}, line {code.co_firstlineno}" if code else self.name

    def _find_roots(self, result: object, tensors: Sequence[Tensor], before: dict) -> None:
        roots: list[Node] = []
        self.kept: list[Storage] = []  # storages that may outlive the run

        def mark(item: object) -> object:
            if not isinstance(item, Tensor):
                return item
            for number, tensor in enumerate(tensors):
                if item is tensor:
                    return Result(argument=number)
            if item._storage not in self.new and not item._steps and not item._detached:
                return Result(tensor=item)
            self.kept.append(item._storage)
            roots.append(item.node)
            return Result(root=len(roots) - 1)

        self.result = map_leaves(result, mark)
        grads = {grad._storage: leaf for leaf, grad in before.items() if grad is not None}
        self.writes: list[tuple[Source, int]] = []
        for storage, node in self.reads.items():
            if storage.node is not node:
                target = self._place(storage, tensors, grads)
                roots.append(storage.node)
                self.writes.append((target, len(roots) - 1))
        self.grads: list[tuple[Tensor, int]] = []  # and the number of their root, -1 for None
        self.guards: list[tuple[Tensor, bool]] = []
        for leaf, grad in self.seen.items():
            if before.get(leaf) is None or grad is not None:  # else it was dropped before anything read it
                self.guards.append((leaf, before.get(leaf) is None))
            if leaf.grad is not before.get(leaf):
                if leaf.grad is not None:
                    roots.append(leaf.grad.node)
                    self.kept.append(leaf.grad._storage)
                self.grads.append((leaf, -1 if leaf.grad is None else len(roots) - 1))
        self.roots = roots

    def _place(self, storage: Storage, tensors: Sequence[Tensor], grads: dict[Storage, Tensor]) -> Source:
        for number, tensor in enumerate(tensors):
            if tensor._storage is storage:
                return Source("argument", number)
        return Source("gradient", grads[storage]) if storage in grads else Source("storage", storage)

    def _find_sources(self, bindings: Bindings, tensors: Sequence[Tensor], before: dict) -> None:
        self.normal: Normalized | None = normalize(self.roots)
        self.graph = self.normal.roots
        grads = {grad._storage: leaf for leaf, grad in before.items() if grad is not None}
        known = {id(node.value): self._place(storage, tensors, grads) for storage, node in self.reads.items()}
        known |= {id(node.value): Source("key", generator) for generator, node in self.keys}
        self.sources = [known.get(id(buffer)) or Source("fixed", buffer) for buffer in self.normal.buffers]
        used = {id(buffer): number for number, buffer in enumerate(self.normal.buffers)}
        self.draws = [(generator, used.get(id(node.value), -1)) for generator, node in self.keys]
        self.expected = [
            (
                buffer.shape,
                buffer.dtype,
                buffer.device,
                source.kind == "storage" and source.what.requires_grad,
            )
            for buffer, source in zip(self.normal.buffers, self.sources, strict=True)
        ]
        self.scalars = dict(self.normal.scalars)
        self.shapes = [tuple([plain(size) for size in root.shape]) for root in self.roots]
        self.arguments = [weakref.ref(tensor._storage) for tensor in tensors]
        for name, value in self.normal.scalars.items():
            known_values = bindings.values.get(name, {value})
            if known_values != {value}:
                raise JitError(
                    f"jit {self.name}: variable {name!r} has the values {sorted(known_values | {value})} in one call; "
                    "give each value a variable of its own"
                )

    def settle(self) -> None:
        """Once the results are known: what the run made and is still alive was kept by a side effect."""
        kept = set(self.kept)
        self.normal = None
        for held in (self.roots, self.kept, self.lines, self.reads, self.seen):
            held.clear()
        if any(storage not in kept for storage in self.new):
            gc.collect()
        made = [storage for storage in self.new if storage not in kept]
        waiting = [storage.node for storage in made if storage.node.value is None]
        if waiting:  # an optimiser's state, say: all of it now, not one by one when each is first read
            current_engine().realize(waiting)
        for storage, where in list(self.new.items()):
            if storage not in kept and not self.problem:
                self.problem = (
                    f"a tensor that it makes is kept beyond it, where a replay would not put another; {where}; "
                    "return it, or write it to a tensor that is there already"
                )
        self.new.clear()

    def difference(self, other: Trace) -> str:
        """How this run differs from another in what a replay would do; empty if it does not. Call before `settle`."""
        if self.graph != other.graph:
            return self._first_other_node(other)
        for source, theirs in zip(self.sources, other.sources, strict=True):
            if not source.same(theirs):
                lines = [line for node, line in self.lines.items() if node.value is source.what]
                return f"it computes with other data each time; {(lines or [self._definition()])[0]}"
        if self.effects() != other.effects():
            return f"it writes to other tensors each time; {self._definition()}"
        return ""

    def effects(self) -> list[object]:
        """What is written, in a form that compares."""
        places = [(place.key, root) for place, root in self.writes]
        return [*places, *[(id(leaf), root) for leaf, root in self.grads]]

    def donations(self) -> list[tuple[int, int]]:
        """Roots that are written to where an input came from, and those inputs."""
        places = [source.key for source in self.sources]
        return [(root, places.index(to.key)) for to, root in self.writes if to.key in places]

    def conditions(self) -> list[tuple[int, bool]]:
        """`guards`, in a form that compares."""
        return [(id(leaf), missing) for leaf, missing in self.guards]

    def _first_other_node(self, other: Trace) -> str:
        before = set(toposort(other.graph))
        for node in toposort(self.graph):
            if node not in before and node.op.name != "buffer":
                lines = [
                    l for mine, l in self.lines.items() if mine.op is node.op and mine.attrs == node.attrs
                ]
                what = f"{node.op.name} {node.attrs[0]!r}" if node.op.name == "const" else node.op.name
                return f"its graph is another one each time, here by {what}; {(lines or [self._definition()])[0]}"
        return f"its graph is another one each time; {self._definition()}"
