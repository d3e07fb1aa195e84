"""Tensors in arguments and results: where they are found, and what else tells one call from another.

Leaves are looked for in lists, tuples, named tuples and dicts, nested as deeply as one likes. Any other object counts
by its identity, or by its value if it is a number, text, bytes, None, a dtype or a slice; tensors inside of it (the
parameters of a model, say) are state that the step captures, not arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from tg.errors import JitError
from tg_frontend import Tensor
from tg_ir.dtypes import DType
from tg_ir.symbolic import Expr, SymInt, Var, substitute, variables

__all__ = ["Bindings", "bound", "map_leaves", "plain"]

_VALUES = (bool, int, float, complex, str, bytes, type(None), DType, type(Ellipsis))


def map_leaves(tree: object, replace: Callable[[object], object]) -> object:
    """The same containers around what `replace` gives for each thing that is no container."""
    if isinstance(tree, tuple):
        items = [map_leaves(item, replace) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    if type(tree) is list:
        return [map_leaves(item, replace) for item in tree]
    if type(tree) is dict:
        return {key: map_leaves(item, replace) for key, item in tree.items()}
    return replace(tree)


def plain(expr: SymInt, values: dict[str, set[int]] | None = None) -> SymInt:
    """The expression without the values of its variables, which are added to `values`."""
    if type(expr) is int:
        return expr
    bare = {}
    for var in variables(expr):
        if var.value is not None:
            bare[var] = Var(var.name, var.low, var.high)
            if values is not None:
                values.setdefault(var.name, set()).add(var.value)
    return substitute(expr, bare) if bare else expr


def bound(shape: tuple[SymInt, ...], values: dict[str, int]) -> tuple[SymInt, ...]:
    """The shape with values in its variables."""
    found = {
        var: var.bind(values[var.name]) for size in shape if type(size) is not int for var in variables(size)
    }
    return tuple([substitute(size, found) for size in shape]) if found else shape


class Bindings:
    """One call: its tensors in order, a key that equal calls share, and the values of its variables."""

    def __init__(self, args: tuple[object, ...], kwargs: dict[str, object]):
        self.tensors: list[Tensor] = []
        self.values: dict[str, set[int]] = {}
        self.objects: list[object] = []
        """What counts by its identity."""
        self._first: dict[object, int] = {}
        self.key: Hashable = (self._key(args), self._key(kwargs))

    def _key(self, item: object) -> Hashable:
        if isinstance(item, tuple | list):
            return (type(item), *[self._key(each) for each in item])
        if isinstance(item, dict):
            return (dict, *[(key, self._key(each)) for key, each in item.items()])
        if isinstance(item, Tensor):
            self.tensors.append(item)
            same = self._first.setdefault(item._storage, len(self._first)) if not item._steps else -1
            shape = tuple([plain(size, self.values) for size in item.shape])
            return (Tensor, shape, item.dtype, item.device, item.requires_grad, same)
        if isinstance(item, Expr):
            return plain(item, self.values)
        if isinstance(item, _VALUES):
            return (type(item), item)
        if isinstance(item, slice):
            return (slice, self._key((item.start, item.stop, item.step)))
        if hasattr(item, "__array_interface__") or isinstance(item, bytearray | memoryview):
            raise JitError(f"jit: got a {type(item).__name__} as an argument, want a tensor: Tensor(..)")
        self.objects.append(item)
        return (type(item), id(item))
