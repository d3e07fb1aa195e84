"""Environment variables: name, type, default, one sentence."""

from __future__ import annotations

import os

from .errors import DriverError

__all__ = ["device", "spin_us"]


def device() -> str:
    """`TG_AMD_DEVICE`, str, "0": what `open` opens when no device is named: a number, or `virtual:<target>`."""
    return os.environ.get("TG_AMD_DEVICE", "") or "0"


def spin_us() -> int:
    """`TG_AMD_SPIN_US`, int, 50: how long a wait looks at the signal before it sleeps until an interrupt."""
    text = os.environ.get("TG_AMD_SPIN_US", "") or "50"
    if not text.isdecimal():
        raise DriverError(f"TG_AMD_SPIN_US: got {text!r}, want a number of microseconds")
    return int(text)
