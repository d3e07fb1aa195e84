"""Plans found by measuring: neighbours of the planner's choice are timed, and the best is remembered on disk.

A record is one file of a `DiskCache` for each kernel, target and machine: the plan, its time, and that of the planner's
choice. `compile` and time run in a process of their own (tune_worker.py); one that crashes or does not answer in time
is ended, and its candidate counts as slow.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from types import TracebackType

from tg.disk_cache import DiskCache
from tg_ir.kernel.nodes import Kernel
from tg_ir.kernel.text import format_kernel

__all__ = ["Measurer", "Tuner", "machine_name", "neighbours"]

ANSWER_WITHIN_S = 10.0
_WORKER = (sys.executable, "-m", "tg.tune_worker")

Neighbours = Callable[[Kernel, str, str | None], Iterable[str]]
"""The plans near one (None: the planner's choice), as text; from a kernel and a target."""


@cache
def machine_name() -> str:
    """What times depend on besides kernel and plan: the model of the CPU, and how many of them."""
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return f"{model} x{len(os.sched_getaffinity(0))}"


def neighbours(kernel: Kernel, target: str, plan: str | None) -> Iterable[str]:
    """The plans near one that tg_codegen knows."""
    compiler, plans = import_module("tg_codegen.compiler"), import_module("tg_codegen.plan")
    return map(str, compiler.plans_near(kernel, target, None if plan is None else plans.parse_plan(plan)))


class Measurer:
    """Times candidates in another process, which is started again when one of them ends it."""

    def __init__(self, command: Sequence[str] = _WORKER, answer_within_s: float = ANSWER_WITHIN_S):
        self._command, self._limit_s = tuple(command), answer_within_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def seconds(self, kernel: Kernel, target: str, plan: str | None) -> float:
        """How long a launch takes; infinity if it fails, crashes or hangs."""
        if self._process is None or self._process.poll() is not None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0
            )
        request = json.dumps({"kernel": format_kernel(kernel), "target": target, "plan": plan})
        try:
            self._process.stdin.write(request.encode() + b"\n")
            answer = self._read_line(time.monotonic() + self._limit_s)
            return float(json.loads(answer)["seconds"])
        except (BrokenPipeError, ValueError, KeyError, TimeoutError):
            self._end()
            return math.inf

    def _read_line(self, deadline: float) -> bytes:
        line = b""
        output = self._process.stdout
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = output.read(4096)
            if not part:
                raise BrokenPipeError
            line += part
        return line

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Tuner:
    """Best plans of kernels. `seconds_a_kernel` is how long one that is not known is tuned: 0 for not at all."""

    def __init__(
        self,
        records: DiskCache | None,
        neighbours: Neighbours,
        seconds_a_kernel: float = 0.0,
        measurer: Callable[[], Measurer] = Measurer,
    ):
        self._records, self._neighbours = records, neighbours
        self._seconds, self._measurer = seconds_a_kernel, measurer

    def plan_of(self, kernel: Kernel, key: str, target: str) -> str | None:
        """The best plan known for the kernel of this key; None for the planner's choice."""
        if self._records is None:
            return None
        name = hashlib.sha256("\0".join((key, target, machine_name())).encode()).hexdigest()
        data = self._records.get(name)
        if data is not None:
            return json.loads(data)["plan"]
        if self._seconds <= 0:
            return None
        record = self.tune(kernel, target)
        self._records.put(name, json.dumps(record).encode())
        return record["plan"]

    def tune(self, kernel: Kernel, target: str) -> dict[str, object]:
        """Walk to better neighbours until there is none or the time is up."""
        deadline = time.monotonic() + self._seconds
        with self._measurer() as measurer:
            first = best = measurer.seconds(kernel, target, None)
            plan: str | None = None
            tried: set[str] = set()
            better = True
            while better:
                better, around = False, plan
                for candidate in self._neighbours(kernel, target, around):
                    if time.monotonic() > deadline:
                        break
                    if candidate in tried:
                        continue
                    tried.add(candidate)
                    seconds = measurer.seconds(kernel, target, candidate)
                    if seconds < best * 0.98:  # less is noise
                        best, plan, better = seconds, candidate, True
        return {"plan": plan, "seconds": best, "planner_seconds": first, "tried": len(tried)}
