"""Environment variables: name, type, default, one sentence."""

from __future__ import annotations

import os

from tg_ir.errors import DeviceError

__all__ = ["profile", "threads"]


def threads() -> int:
    """`TG_THREADS`, int, the CPUs this process may use: how many native worker threads each runtime has."""
    text = os.environ.get("TG_THREADS", "")
    if not text:
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise DeviceError(f"TG_THREADS: got {text!r}, want a number from 1 to 1024")
    return int(text)


def profile() -> bool:
    """`TG_PROFILE`, bool, 0: whether runtimes keep the times of every launch for `timestamps`."""
    return os.environ.get("TG_PROFILE", "0") not in ("", "0")
