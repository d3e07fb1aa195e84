"""Environment variables of the engine: name, type, default, one sentence. TG_DEVICE, TG_VERIFY and TG_THREADS are those
of tg_frontend, tg_schedule and tg_runtime_cpu."""

from __future__ import annotations

import os
from pathlib import Path

from tg_ir.errors import TgError

__all__ = [
    "cache_bytes",
    "cache_folder",
    "dump_folder",
    "dumped",
    "profile",
    "target",
    "trace_path",
    "tune_seconds",
]

STAGES = ("graph", "schedule", "lower", "select", "html")


def _text(name: str) -> str:
    value = os.environ.get(name, "")
    return "" if value == "0" else value


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise TgError(f"{name}: got {text!r}, want a number")
    return int(text) if text else default


def cache_folder() -> Path | None:
    """`TG_CACHE_DIR`, path, `$XDG_CACHE_HOME/tg`: where binaries and tuning results are kept; 0 for nowhere."""
    if os.environ.get("TG_CACHE_DIR") == "0":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(_text("TG_CACHE_DIR") or os.path.join(base, "tg"))


def cache_bytes() -> int:
    """`TG_CACHE_MB`, int, 512: the size of the cache on disk, beyond which what was used longest ago goes."""
    return _number("TG_CACHE_MB", 512) << 20


def dumped() -> frozenset[str]:
    """`TG_DUMP`, names or `all`, nothing: which levels to show: graph, schedule, lower, select, html."""
    names = [name.strip() for name in _text("TG_DUMP").split(",") if name.strip()]
    if unknown := sorted(set(names) - {*STAGES, "all", "1"}):
        raise TgError(f"TG_DUMP: got {unknown[0]!r}, want some of {', '.join(STAGES)}, or all")
    return frozenset(STAGES if {"all", "1"} & set(names) else names)


def dump_folder() -> Path | None:
    """`TG_DUMP_DIR`, path, none: where TG_DUMP writes files; without it text goes to the standard error."""
    text = _text("TG_DUMP_DIR")
    return Path(text) if text else None


def target() -> str:
    """`TG_TARGET`, text, what the machine has: the target that CPUs compile for, such as `x86_64:avx2`."""
    return _text("TG_TARGET")


def profile() -> bool:
    """`TG_PROFILE`, bool, 0: time every kernel, and print a table at exit. Runtimes read it too."""
    return bool(_text("TG_PROFILE"))


def trace_path() -> Path | None:
    """`TG_TRACE`, path, none: with TG_PROFILE=1, the file that gets the launches as a Chrome trace at exit."""
    text = _text("TG_TRACE")
    return Path(text) if text else None


def tune_seconds() -> float:
    """`TG_TUNE`, seconds, 0: how long to try other plans for each kernel that was not tuned yet; 1 means 10."""
    seconds = _number("TG_TUNE", 0)
    return 10.0 if seconds == 1 else float(seconds)
