"""The engine on the CPU's runtime, with machine code written here: interrupts, sharing, profiles, dumps."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import tg_frontend as tg
from fake_target import fake_engine
from tg.capture import jit
from tg.dump import page
from tg.engine import TgEngine
from tg.profile import compute_ceiling, kernel_cost
from tg_codegen.compiler import host_target
from tg_ir.dtypes import float32
from tg_ir.errors import TgError
from tg_ir.graph.text import parse_graph
from tg_ir.program import parse_program
from tg_ir.protocols import ArgumentLayout, Binary
from tg_runtime_cpu import CpuRuntime
from tg_schedule import schedule

SEED = int(os.environ.get("TG_SEED", "7"))

ENDLESS = """
import signal, sys
import tg_frontend as tg
from tg.engine import TgEngine
from tg_ir.protocols import ArgumentLayout, Binary
from tg_runtime_cpu import CpuRuntime

def endless(kernel, target, plan):  # jmp to itself
    offsets = tuple(range(0, 8 * len(kernel.parameters), 8))
    layout = ArgumentLayout(8 * len(offsets), offsets, ())
    return Binary("x86_64", kernel.name, bytes.fromhex("ebfe"), layout, (1, 1, 1), (1, 1, 1))

tg.set_engine(TgEngine({"CPU": CpuRuntime}, endless))
print("ready", flush=True)
(tg.Tensor([1.0]) + 1).tolist()
"""


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setenv("TG_TARGET", "x86_64")

    def nothing(kernel, target, plan):
        offsets = tuple(range(0, 8 * len(kernel.parameters), 8))
        layout = ArgumentLayout(8 * len(offsets), offsets, ())
        return Binary("x86_64", kernel.name, b"\xc3", layout, (1, 1, 1), (1, 1, 1))

    made = TgEngine({"CPU": CpuRuntime}, nothing)
    tg.set_engine(made)
    yield made
    tg.set_engine(None)


def test_interrupt_of_a_long_run_returns_within_a_second():
    environment = {**os.environ, "TG_TARGET": "x86_64"}
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout.readline() == b"ready\n"
    threads = 0
    while threads < 2:  # until its worker threads run
        threads = len(os.listdir(f"/proc/{process.pid}/task"))
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors and time.monotonic() - start < 5  # a second, and a busy machine


def test_array_is_shared_where_it_can_be_written_and_copied_otherwise(engine):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(64, dtype=numpy.float32)
    x = tg.from_numpy(array)
    array[3] = 9
    assert x.tolist()[3] == 9 and numpy.shares_memory(x.numpy(), array)
    array.flags.writeable = False
    y = tg.from_numpy(array)
    assert y.tolist() == x.tolist() and not numpy.shares_memory(y.numpy(), array)


def test_devices_copy_to_one_another(engine):
    x = tg.Tensor([1.0, 2.0, 3.0], device="CPU:1")
    assert x.to("CPU").tolist() == [1.0, 2.0, 3.0] and x.to("CPU").to("REF").tolist() == [1.0, 2.0, 3.0]
    assert set(engine._devices.running()) == {"CPU", "CPU:1"}


# ---- profiles ---------------------------------------------------------------------------------------------------


def test_cost_of_a_product_is_two_operations_a_term():
    tg.set_engine(fake_engine())
    x, y = tg.zeros(8, 16).realize(), tg.zeros(16, 4).realize()
    (kernel,) = schedule([(x @ y).node]).program.kernels
    assert kernel_cost(kernel, {}) == (2 * 8 * 16 * 4, 4 * (8 * 16 + 16 * 4 + 8 * 4))
    n = tg.Variable("n", 1, 100)
    rows = tg.zeros(100).realize()[: n.bind(10)]
    (kernel,) = schedule([(rows + 1).node]).program.kernels
    assert kernel_cost(kernel, {"n": 10})[0] == 10 and kernel_cost(kernel, {"n": 20})[0] == 20
    tg.set_engine(None)


def test_profile_lists_kernels_with_their_share_and_writes_a_trace(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("TG_PROFILE", "1")
    profiled = TgEngine({"CPU": CpuRuntime}, engine._binaries._compile)
    tg.set_engine(profiled)
    for _ in range(3):
        (tg.Tensor([1.0] * 100) * 2).realize()
    table = profiled.profile.table().splitlines()
    assert table[0].split()[:3] == ["kernel", "device", "calls"]
    assert table[1].split()[0].endswith("mul") and table[1].split()[2] == "3" and table[1].endswith("%")
    profiled.profile.write_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    launches = [event for event in events if event["ph"] == "X"]
    assert len(launches) == 3 and all(event["dur"] >= 0 for event in launches)
    assert launches == sorted(launches, key=lambda event: event["ts"])


@pytest.mark.parametrize("target", ["x86_64:avx2", "x86_64:avx512"])
def test_ceiling_of_arithmetic_is_measured(target):
    if target == "x86_64:avx512" and host_target() == "x86_64:avx2":
        pytest.skip("the CPU has no AVX-512")
    assert compute_ceiling(CpuRuntime(threads=1), target) > 1e9


# ---- dumps ------------------------------------------------------------------------------------------------------


def test_dumps_of_graph_and_schedule_load_again(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("TG_DUMP", "graph,schedule,html")
    monkeypatch.setenv("TG_DUMP_DIR", str(tmp_path))
    x = tg.Tensor([[1.0, 2.0], [3.0, 4.0]])
    (x.softmax(1) @ x).realize()
    (folder,) = tmp_path.iterdir()
    (root,) = parse_graph((folder / "graph.txt").read_text())
    assert root.shape == (2, 2) and root.dtype is float32
    program = parse_program((folder / "schedule.txt").read_text())
    html = (folder / "page.html").read_text()
    for kernel in program.kernels:
        assert f"<h3 id='{kernel.name}'>" in html and f"<a href='#{kernel.name}'>" in html


def test_page_draws_every_temporary():
    tg.set_engine(fake_engine())
    x = tg.zeros(8, 8).realize()
    for _ in range(3):
        x = x.softmax(0) @ x
    program = schedule([x.node]).program
    text = page([x.node], program)
    assert text.count("<rect ") == len(program.numbers("temporary")) > 1
    tg.set_engine(None)


def test_unknown_stage_to_dump_raises(engine, monkeypatch):
    monkeypatch.setenv("TG_DUMP", "grap")
    with pytest.raises(TgError, match="TG_DUMP: got 'grap'"):
        (tg.Tensor([1.0]) + 5).realize()


# ---- compiled ---------------------------------------------------------------------------------------------------

TRAIN = """
import sys, tg
from tg_frontend.engine import current_engine
import tg_frontend as f

def losses(wrap):
    f.manual_seed(5)
    w, b, m = f.rand(6, 3).requires_grad_(), f.zeros(3).requires_grad_(), f.zeros(6, 3)
    @wrap
    def step(x, y):
        w.grad = b.grad = None
        loss = ((x + f.rand(4, 6) * 0.1) @ w + b - y).square().mean()
        loss.backward()
        with f.no_grad():
            m.assign(m * 0.9 + w.grad)
            w.sub_(m * 0.1)
            b.sub_(b.grad * 0.1)
        return loss
    x = f.rand(4, 6)
    return [step(x * (1 + k / 50), x[:, :3] + 1).item() for k in range(12)]

tg.Tensor
eager, replayed = losses(lambda step: step), losses(tg.jit)
assert max(abs(a - b) for a, b in zip(eager, replayed)) < 1e-5, (eager, replayed)
assert eager[0] > eager[-1] and tg.Device.default == "CPU"
print(current_engine().compiled)
"""


def test_training_step_replayed_as_machine_code_and_binaries_found_by_the_next_process(tmp_path):
    environment = {**os.environ, "TG_CACHE_DIR": str(tmp_path), "TG_VERIFY": "1"}
    counts = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        counts.append(int(done.stdout))
    assert counts[0] > 5 and counts[1] == 0


def test_fork_after_use_goes_on_with_threads_of_its_own(tmp_path):
    program = """
import os, tg
x = tg.Tensor([1.0, 2.0])
assert (x + 1).tolist() == [2.0, 3.0]
child = os.fork()
assert (x + 2).tolist() == [3.0, 4.0] and (x + 1).tolist() == [2.0, 3.0]
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "TG_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_dump_of_all_levels_names_plan_machine_ir_and_instructions(tmp_path):
    environment = {**os.environ, "TG_CACHE_DIR": "0", "TG_DUMP": "all", "TG_DUMP_DIR": str(tmp_path)}
    program = "import tg; (tg.Tensor([[1.0, 2.0]] * 4).sum(1) * 2).tolist()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (lowered,), (selected,) = tmp_path.rglob("*.lower.txt"), tmp_path.rglob("*.select.txt")
    assert lowered.read_text().startswith("nest ") and "\nfunction " in lowered.read_text()
    assert "\nret\n" in selected.read_text() and len(list(tmp_path.rglob("page.html"))) == 1


def test_threads_evaluate_and_replay_at_once_as_machine_code(monkeypatch, tmp_path):
    monkeypatch.setenv("TG_CACHE_DIR", str(tmp_path))
    tg.set_engine(TgEngine())
    step, failures = jit(lambda x, y: (x @ y).sum(1)), []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(20):
                size, value = chance.choice([2, 5, 17]), float(chance.randint(-3, 3))
                x, y = tg.full((size, size), value), tg.ones(size, size)
                total, rows = (x * 2 + y).sum().item(), step(x, y).tolist()
                if total != (2 * value + 1) * size * size or rows != [value * size * size] * size:
                    failures.append((size, value, total, rows))
        except Exception as error:
            failures.append(error)

    print(f"seed {SEED}")
    threads = [threading.Thread(target=work, args=(SEED + number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tg.set_engine(None)
    assert failures == [] and step.replays == 120 - 2 * 3
