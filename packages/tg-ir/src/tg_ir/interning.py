"""One object for equal nodes: a weak table from a key to the node that was made for it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Interner"]

T = TypeVar("T")


class _Ref(weakref.ref):
    __slots__ = ("key",)
    key: Hashable


class Interner(Generic[T]):
    """Thread-safe; an entry goes when its node does. The lock is reentrant because a collection may run inside it."""

    __slots__ = ("_lock", "_refs")

    def __init__(self) -> None:
        self._refs: dict[Hashable, _Ref] = {}
        self._lock = threading.RLock()

    def find(self, key: Hashable) -> T | None:
        """The node of this key, if it exists."""
        ref = self._refs.get(key)
        return None if ref is None else ref()

    def add(self, key: Hashable, node: T) -> T:
        """The node of this key: the one that another thread was first to add, or `node`."""
        with self._lock:
            found = self.find(key)
            if found is None:
                ref = self._refs[key] = _Ref(node, self._forget)
                ref.key = key
                found = node
        return found

    def _forget(self, ref: _Ref) -> None:
        with self._lock:
            if self._refs.get(ref.key) is ref:
                del self._refs[ref.key]
