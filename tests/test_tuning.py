"""Tuning on a worker that is none: it walks to better plans, remembers them, and survives what candidates do."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import pytest

import tg_frontend as tg
from fake_target import compile_text, fake_engine
from tg.binaries import Binaries, kernel_key
from tg.disk_cache import DiskCache
from tg.tuning import Measurer, Tuner
from tg_schedule import schedule

WORKER = """
import json, os, sys, time
for line in sys.stdin:
    plan = json.loads(line)["plan"]
    if plan == "crash": os.abort()
    if plan == "hang": time.sleep(1000)
    if plan == "nonsense": print("{", flush=True)
    else: print(json.dumps({"seconds": 9.0 if plan is None else abs(7 - int(plan)) + 1}), flush=True)
"""
COMMAND = (sys.executable, "-c", WORKER)


@pytest.fixture(scope="module")
def kernel():
    tg.set_engine(fake_engine())
    yield schedule([(tg.arange(8) * 3).node]).program.kernels[0]
    tg.set_engine(None)


def around(kernel, target, plan):
    number = 0 if plan is None else int(plan)
    return ["crash", str(number - 1), str(number + 1), str(number + 2)]


def test_walk_ends_at_the_best_plan_and_passes_one_that_crashes(kernel):
    record = Tuner(None, around, 60, lambda: Measurer(COMMAND)).tune(kernel, "fake")
    assert (record["plan"], record["seconds"], record["planner_seconds"]) == ("7", 1.0, 9.0)


def test_candidate_that_hangs_or_talks_nonsense_counts_as_slow_and_the_next_is_timed(kernel):
    with Measurer(COMMAND, answer_within_s=1.0) as measurer:
        assert measurer.seconds(kernel, "fake", "7") == 1.0
        start = time.monotonic()
        assert measurer.seconds(kernel, "fake", "hang") == math.inf and time.monotonic() - start < 5
        assert measurer.seconds(kernel, "fake", "nonsense") == math.inf
        assert measurer.seconds(kernel, "fake", "crash") == math.inf
        assert measurer.seconds(kernel, "fake", "5") == 3.0


def test_plan_is_remembered_and_part_of_the_key_of_binaries(kernel, tmp_path):
    records = DiskCache(tmp_path, 1 << 20)
    key = kernel_key(kernel)
    assert Tuner(records, around).plan_of(kernel, key, "fake") is None
    assert Tuner(records, around, 60, lambda: Measurer(COMMAND)).plan_of(kernel, key, "fake") == "7"
    again = Tuner(records, around)
    assert again.plan_of(kernel, key, "fake") == "7" and again.plan_of(kernel, key, "other") is None
    (binary,) = Binaries(compile_text, None, again.plan_of).get([kernel], "fake").values()
    assert binary.resources == {"plan": 1}


def test_time_that_is_up_ends_the_walk(kernel):
    record = Tuner(None, around, 0.0, lambda: Measurer(COMMAND)).tune(kernel, "fake")
    assert record["plan"] is None and record["tried"] == 0


def test_command_tunes_the_kernels_of_a_program_once(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys, tg; print(sys.argv[1:], (tg.Tensor([[1.0, 2.0]] * 64) * 3).sum().item())")
    environment = {**os.environ, "TG_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "tg.command_line", "tune", "--seconds", "1", str(program), "--two", "x"]
    for count in (1, 0):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "['--two', 'x'] 576.0"
        assert f"{count} kernels tuned, 1 plans" in done.stdout
