"""What a function can see of Python's state, to notice when it changes.

From the function's closure, the globals it names and given objects, everything that is reached through attributes,
lists, dicts, tuples and functions. A row is one container with the items it held. Numbers and texts compare by value,
everything else by identity. Modules, classes, tensors and the stack's own objects are not looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from tg_frontend import Tensor

__all__ = ["PythonState"]

LIMIT = 50_000
_ATOMS = (bool, int, float, complex, str, bytes, type(None))
_CLOSED = (*_ATOMS, type, ModuleType, BuiltinFunctionType, Tensor)
_OWN = ("tg", "tg_frontend", "tg_ir", "tg_schedule", "numpy", "threading")

Row = tuple[str, Callable[[], tuple[object, ...]], tuple[str, ...], tuple[object, ...], tuple[int, ...]]
"""A name, what reads the items, their names, the items as they were, and the ids of those."""


def _same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and isinstance(a, _ATOMS) and (a == b or (a != a and b != b)))


class PythonState:
    """The items of all that `function` and `objects` lead to, as they are now."""

    def __init__(self, function: Callable[..., object], objects: Iterable[object]):
        self.rows: list[Row] = []
        self._seen: set[int] = set()
        self.ignored: set[str] = set()
        """Places that may change."""
        self._waiting: list[tuple[str, object]] = [(getattr(function, "__name__", "step"), function)]
        self._waiting += [
            (f"{type(item).__name__}{number or ''}", item) for number, item in enumerate(objects)
        ]
        while self._waiting and len(self.rows) < LIMIT:
            self._look(*self._waiting.pop())

    def _look(self, name: str, item: object) -> None:
        if isinstance(item, _CLOSED) or id(item) in self._seen:
            return
        if type(item).__module__.partition(".")[0] in _OWN:
            return
        self._seen.add(id(item))
        if isinstance(item, MethodType):
            self._waiting += [(type(item.__self__).__name__, item.__self__), (name, item.__func__)]
        elif isinstance(item, FunctionType):
            if (item.__module__ or "").partition(".")[0] in _OWN:
                return
            cells, scope = item.__closure__ or (), item.__globals__
            named = tuple([key for key in _names(item.__code__) if key in scope])
            self._row("", lambda: tuple([_content(cell) for cell in cells]), item.__code__.co_freevars)
            self._row("", lambda: tuple([scope.get(key) for key in named]), named)
        elif isinstance(item, dict):
            self._row(name, lambda: tuple(item.values()), tuple([f"[{key!r}]" for key in item]))
        elif isinstance(item, list | tuple | set | frozenset):
            self._row(name, lambda: tuple(item), tuple([f"[{number}]" for number in range(len(item))]))
        elif isinstance(getattr(item, "__dict__", None), dict):
            held = item.__dict__
            self._row(name, lambda: tuple(held.values()), tuple([f".{key}" for key in held]))

    def _row(self, name: str, read: Callable[[], tuple[object, ...]], names: tuple[str, ...]) -> None:
        items = read()
        if not items and not name:
            return
        self.rows.append((name, read, names, items, tuple(map(id, items))))
        self._waiting += [(name + key, item) for key, item in zip(names, items, strict=True)]

    def changes(self) -> dict[str, str]:
        """What differs now, by the name of the place: what happened to it."""
        found: dict[str, str] = {}
        for name, read, names, items, ids in self.rows:
            now = read()
            if tuple(map(id, now)) == ids or name in self.ignored:
                continue
            if len(now) != len(items):
                found[name] = f"{name}: {len(items)} items became {len(now)}"
                continue
            for key, old, new in zip(names, items, now, strict=True):
                if not _same(old, new) and name + key not in self.ignored:
                    found[name + key] = f"{name}{key}: {_short(old)} became {_short(new)}"
        return found


def _names(code: object) -> list[str]:
    """The names that the code and the functions inside of it may look up."""
    inner = [const for const in code.co_consts if hasattr(const, "co_names")]
    return [*code.co_names, *[name for each in inner for name in _names(each)]]


def _content(cell: object) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _short(item: object) -> str:
    text = repr(item) if isinstance(item, _ATOMS) else f"a {type(item).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."
