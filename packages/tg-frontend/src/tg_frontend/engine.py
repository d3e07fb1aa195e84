"""Which engine evaluates tensors: the one that was set, else the installed one, else tg-ir's NumPy interpreter."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from tg_ir.errors import DeviceError

if TYPE_CHECKING:
    from tg_ir.protocols import Engine

__all__ = ["Device", "current_engine", "installed", "offer_engine", "set_engine"]

_engine: Engine | None = None
_lock = threading.Lock()


def set_engine(engine: Engine | None) -> None:
    """Evaluate with `engine` from now on; None goes back to looking for an installed one."""
    global _engine
    with _lock:
        _engine = engine
        Device._default = None


def installed() -> Engine | None:
    """The engine in use, if one was chosen already."""
    return _engine


def offer_engine(engine: Engine) -> None:
    """Evaluate with `engine` unless there is one already."""
    global _engine
    with _lock:
        _engine = _engine or engine


def current_engine() -> Engine:
    """The engine in use; the first call looks under the entry point group `tg.engines`."""
    global _engine
    if _engine is None:
        with _lock:
            if _engine is None:
                _engine = _find_engine()
    return _engine


def _find_engine() -> Engine:
    from importlib.metadata import entry_points

    found = sorted(entry_points(group="tg.engines"), key=lambda entry: entry.name)
    if found:
        return found[0].load()()
    from tg_ir.reference import ReferenceEngine

    return ReferenceEngine()


class _Device:
    """Device names. `Device.default` is where new tensors live; set it, or the environment variable TG_DEVICE."""

    def __init__(self) -> None:
        self._default: str | None = None

    @property
    def default(self) -> str:
        """The name of the default device."""
        if self._default is None:
            self._default = self.canonical(os.environ.get("TG_DEVICE") or current_engine().devices()[0])
        return self._default

    @default.setter
    def default(self, name: str) -> None:
        self._default = self.canonical(name)

    def canonical(self, name: str | None) -> str:
        """The name in its one spelling (`cpu:0` is `CPU`); None is the default.

        Raises:
            DeviceError: the engine has no device of that name.
        """
        if name is None:
            return self.default
        if not isinstance(name, str):
            raise DeviceError(f"device: got {name!r}, want a name such as {current_engine().devices()[0]!r}")
        base, _, rest = name.upper().partition(":")
        if not current_engine().knows(base):
            known = {device.partition(":")[0] for device in current_engine().devices()}
            raise DeviceError(
                f"device {name!r}: not one of {', '.join(sorted(known))}; install tg for more devices"
            )
        return base if rest in ("", "0") else f"{base}:{rest.lower()}"


Device = _Device()
