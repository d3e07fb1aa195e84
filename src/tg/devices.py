"""Devices by name: `CPU`, `CPU:1`, .. of the runtimes that are installed, and `REF`, which has none.

Every name has a runtime of its own, made when it is first used: memory and queue of `CPU:1` are not those of `CPU`.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

from tg_ir.errors import DeviceError
from tg_ir.protocols import Runtime

__all__ = ["REFERENCE", "Devices", "kind_of"]

REFERENCE = "REF"

Factory = Callable[[str], Runtime]


def kind_of(device: str) -> str:
    """`CPU` of `CPU:1`."""
    return device.partition(":")[0]


def _cpu(name: str) -> Runtime:
    return import_module("tg_runtime_cpu").CpuRuntime(name)


def _installed() -> dict[str, Factory]:
    """The runtimes under the entry point group `tg.runtimes`. Slow: it reads what every distribution says."""
    from importlib.metadata import entry_points

    return {
        entry.name: lambda name, entry=entry: entry.load()(name)
        for entry in entry_points(group="tg.runtimes")
    }


class Devices:
    """The runtimes by device name. `factories` stand in for the installed ones."""

    def __init__(self, factories: Mapping[str, Factory] | None = None):
        self._given = factories is not None
        self._factories: dict[str, Factory] = dict(factories or {"CPU": _cpu})
        self._runtimes: dict[str, Runtime] = {}
        self._lock = threading.Lock()
        self._searched = self._given

    def names(self) -> tuple[str, ...]:
        """The kinds known so far, the default first."""
        kinds = [*self._factories, REFERENCE]
        return tuple(
            kinds if self._given or _compiles() else sorted(kinds, key=lambda kind: kind != REFERENCE)
        )

    def knows(self, kind: str) -> bool:
        """Whether there are devices of this kind."""
        if kind not in self._factories and kind != REFERENCE and not self._searched:
            self._searched = True
            self._factories = {**_installed(), **self._factories}
        return kind in self._factories or kind == REFERENCE

    def runtime(self, device: str) -> Runtime:
        """The runtime of a device. Raises: DeviceError."""
        found = self._runtimes.get(device)
        if found is None:
            with self._lock:
                found = self._runtimes.get(device)
                if found is None:
                    if not self.knows(kind_of(device)) or kind_of(device) == REFERENCE:
                        raise DeviceError(f"device {device!r}: not one of {', '.join(self._factories)}")
                    found = self._runtimes[device] = self._factories[kind_of(device)](device)
        return found

    def running(self) -> dict[str, Runtime]:
        """The runtimes in use, by device name."""
        return dict(self._runtimes)

    def renew_lock(self) -> None:
        """In the child of a fork, where nobody is left to release it."""
        self._lock = threading.Lock()


def _compiles() -> bool:
    return platform.machine() in ("x86_64", "AMD64") and find_spec("tg_codegen.x86_64.backend") is not None
