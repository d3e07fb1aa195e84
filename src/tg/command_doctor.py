"""`tg doctor`: one verdict a line, each with what to do about it."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec

from tg import knobs
from tg.command_devices import amd_gpus, cpu_verdict
from tg.engine import install
from tg_ir.errors import TgError

__all__ = ["CHECKS", "run"]

Verdict = tuple[str, str]
"""`ok`, `note` or `bad`, and a sentence."""


def run(options: argparse.Namespace) -> int:
    """Print the verdicts; the exit status is 1 if one is bad."""
    install()
    worst = 0
    for name, check in CHECKS.items():
        try:
            verdict, sentence = check()
        except (TgError, OSError, ImportError) as error:
            verdict, sentence = "bad", str(error)
        worst |= verdict == "bad"
        print(f"{verdict:<5} {name:<12} {sentence}")
    return int(worst)


def _python() -> Verdict:
    version = platform.python_version()
    return ("ok", version) if sys.version_info >= (3, 11) else ("bad", f"{version}; install 3.11 or later")


def _packages() -> Verdict:
    needed = ("tg_ir", "tg_frontend", "tg_schedule", "tg_codegen", "tg_runtime_cpu", "tg_nn")
    missing = [name.replace("_", "-") for name in needed if find_spec(name) is None]
    return (
        ("bad", f"{', '.join(missing)} missing; pip install them again") if missing else ("ok", "all there")
    )


def _cpu() -> Verdict:
    used, why = cpu_verdict()
    return ("ok", f"compiled for {why}") if used else ("note", f"{why}; the interpreter is used instead")


def _interpreter() -> Verdict:
    if find_spec("numpy") is not None:
        return "ok", "NumPy is there"
    return ("note" if cpu_verdict()[0] else "bad"), "no NumPy, which the interpreter needs; pip install numpy"


def _gpu() -> Verdict:
    return "note", "; ".join([f"{name}: {verdict}" for name, verdict in amd_gpus()])


def _compute() -> Verdict:
    from tg_frontend import Device, Tensor

    x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = (x @ x).sum()
    loss.backward()
    if loss.item() != 54.0 or x.grad.tolist() != [[7.0, 11.0], [9.0, 13.0]]:
        return "bad", f"{Device.default} gives wrong values; report it with the output of `tg devices`"
    return "ok", f"a product and its gradient are right on {Device.default}"


def _cache() -> Verdict:
    folder = knobs.cache_folder()
    if folder is None:
        return "note", "TG_CACHE_DIR=0: nothing is kept, every process compiles anew"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return "ok", f"{folder} is writable"
    except OSError as error:
        return "note", f"{folder} is not writable ({error.strerror}); set TG_CACHE_DIR to a folder that is"


def _data() -> Verdict:
    from tg_nn.data import digits

    return "ok", f"{len(digits())} digits to learn from; `tg train digits` works offline"


CHECKS: dict[str, Callable[[], Verdict]] = {
    "python": _python, "packages": _packages, "cpu": _cpu, "interpreter": _interpreter, "gpu": _gpu,
    "compute": _compute, "cache": _cache, "data": _data,
}  # fmt: skip
