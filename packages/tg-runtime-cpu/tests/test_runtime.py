"""The runtime runs small hand-assembled kernels."""

from __future__ import annotations

import os
import platform
import random
import struct
import subprocess
import sys
import threading
from array import array
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cpu_kernels import binary

from tg_ir.dtypes import int64
from tg_ir.errors import DeviceError
from tg_ir.program.nodes import BufferSlot, Collective, Copy, Launch, Program
from tg_ir.protocols import ArgumentLayout, Binary
from tg_ir.symbolic import Variable
from tg_runtime_cpu import CpuMemory, CpuRuntime, OutOfMemoryError, WorkTimeoutError

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="this machine is not x86-64")
N = Variable("n", 1, 100_000)
PREAMBLE = f"""
import sys, os, signal, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from cpu_kernels import binary
from tg_runtime_cpu import CpuRuntime
runtime = CpuRuntime(threads=2)
"""


@pytest.fixture(params=[1, 2, 3], ids="threads{}".format)
def runtime(request) -> CpuRuntime:
    return CpuRuntime(threads=request.param)


def filled(runtime: CpuRuntime, values: list[int]) -> CpuMemory:
    memory = runtime.alloc(8 * len(values))
    runtime.copy(memory, memoryview(array("q", values)), 8 * len(values))
    return memory


def read(runtime: CpuRuntime, memory: CpuMemory) -> list[int]:
    runtime.synchronize(30)
    return memory.view.cast("q").tolist()


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PREAMBLE + text], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000, 65_537])
def test_launch_over_a_grid_runs_every_workgroup_once(runtime, count):
    counts = filled(runtime, [0] * count)
    runtime.launch(runtime.load(binary("count", (count,))), [counts], {})
    assert read(runtime, counts) == [1] * count


def test_launch_over_three_dimensions_runs_all_of_the_flattened_grid(runtime):
    counts = filled(runtime, [0] * 210)
    runtime.launch(runtime.load(binary("count", (5, 6, 7))), [counts], {})
    assert read(runtime, counts) == [1] * 210


def test_launch_without_workgroups_runs_nothing(runtime):
    counts = filled(runtime, [7])
    runtime.launch(runtime.load(binary("count", (0,))), [counts], {})
    assert read(runtime, counts) == [7]


def test_launch_writes_scalars_of_their_dtypes_and_aligns_the_stack(runtime):
    out = filled(runtime, [0] * 3)
    runtime.launch(runtime.load(binary("scalars", (1,))), [out], {"small": -5, "real": -70.5})
    assert read(runtime, out) == [8, -5, -70]  # 8: the return address was pushed on an aligned stack


def test_launch_of_dependent_kernels_of_random_sizes_keeps_their_order(runtime):
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose = random.Random(seed)
    reverse = runtime.load(binary("reverse", (N,)))
    for _ in range(20):
        n = choose.randint(1, 3000)
        values = [choose.randint(-1000, 1000) for _ in range(n)]
        a, b = filled(runtime, values), runtime.alloc(8 * n)
        for _ in range(75):  # more than the ring holds
            add = choose.randint(-9, 9)
            runtime.launch(reverse, [b, a], {"n": n, "add": add})
            a, b = b, a
            values = [value + add for value in reversed(values)]
        assert read(runtime, a) == values


def test_launch_with_wrong_arguments_names_them():
    runtime = CpuRuntime("CPU", threads=1)
    kernel = runtime.load(binary("scalars", (1,)))
    out = runtime.alloc(24)
    with pytest.raises(DeviceError, match="kernel scalars: got 0 buffers, want 1"):
        runtime.launch(kernel, [], {"small": 1, "real": 1.0})
    with pytest.raises(DeviceError, match="no value for scalar real"):
        runtime.launch(kernel, [out], {"small": 1})
    with pytest.raises(DeviceError, match="scalar small: got 300, want int8"):
        runtime.launch(kernel, [out], {"small": 300, "real": 1.0})
    with pytest.raises(DeviceError, match="got 4294967295 workgroups, want at most 4294967294"):
        runtime.launch(runtime.load(binary("count", (65537, 65535))), [out], {})
    with pytest.raises(DeviceError, match="got target gfx942, want x86_64"):
        runtime.load(Binary("gfx942", "k", b"\xc3", ArgumentLayout(0, (), ()), (1, 1, 1), (1, 1, 1)))


def chain_program(length: int) -> Program:
    """source -> temporaries in turn -> out, reversed and increased by `add` at each of `length` launches and a copy."""
    slots = (
        BufferSlot(int64, N, "CPU", "input"),
        BufferSlot(int64, N, "CPU", "output"),
        BufferSlot(int64, N, "CPU", "temporary", offset=0),
        BufferSlot(int64, N, "CPU", "temporary", offset=800_064),
    )
    numbers = [0, *(2 + i % 2 for i in range(length))]
    steps = [Launch("reverse", (numbers[i + 1], numbers[i])) for i in range(length)]
    return Program("chain", (N, Variable("add", -100, 100)), slots, (), (*steps, Copy(1, numbers[-1])))


def test_recording_replays_with_patched_memory_and_scalars(runtime):
    recording = runtime.record(chain_program(101), {"reverse": runtime.load(binary("reverse", (N,)))})
    for n, add in ((1, 5), (1000, -3), (20_001, 2), (3, 0)):
        source, out = filled(runtime, list(range(n))), filled(runtime, [0] * n)
        recording.patch({0: source, 1: out}, {"n": n, "add": add})
        for _ in range(3):
            runtime.submit(recording)
        assert read(runtime, out) == [value + 101 * add for value in reversed(range(n))]
    other = filled(runtime, [10, 20, 30])
    recording.patch({0: other}, {})
    runtime.submit(recording)
    assert read(runtime, out) == [30, 20, 10]


def test_recording_refuses_what_is_missing(runtime):
    reverse = runtime.load(binary("reverse", (N,)))
    program = chain_program(1)
    with pytest.raises(DeviceError, match="got no binary for kernel reverse"):
        runtime.record(program, {})
    recording = runtime.record(program, {"reverse": reverse})
    with pytest.raises(DeviceError, match="no value for scalar n, add"):
        runtime.submit(recording)
    with pytest.raises(DeviceError, match="patch: got buffer 2"):
        recording.patch({2: runtime.alloc(8)}, {})
    with pytest.raises(DeviceError, match="patch: got scalar m"):
        recording.patch({}, {"m": 1})
    recording.patch({0: runtime.alloc(8), 1: runtime.alloc(16)}, {"n": 2, "add": 0})
    with pytest.raises(DeviceError, match=r"buffer 0 \(input\): got 8 bytes, want 16 bytes"):
        runtime.submit(recording)
    collective = Program("c", (), program.buffers, (), (Collective("sum", (1,), (0,)),))
    with pytest.raises(DeviceError, match="collective sum"):
        runtime.record(collective, {})


def test_copy_moves_bytes_between_host_and_memory_and_within_it(runtime):
    data = random.Random(1).randbytes(1_000_003)
    a, b = runtime.alloc(len(data)), runtime.alloc(len(data))
    runtime.copy(a, memoryview(data), len(data))
    runtime.copy(b, a, len(data))
    back = bytearray(len(data))
    runtime.copy(memoryview(back), b, len(data))
    assert back == data
    with pytest.raises(DeviceError, match="copy: got 9 bytes, want 0 to 8, the size of the target"):
        runtime.copy(runtime.alloc(8), a, 9)


def test_share_writes_to_the_buffer_of_the_host(runtime):
    host = array("q", [1, 2, 3])
    shared = runtime.share(memoryview(host))
    runtime.launch(runtime.load(binary("count", (3,))), [shared], {})
    runtime.synchronize(30)
    assert list(host) == [2, 3, 4]
    runtime.free(shared)
    host.append(4)  # an exported buffer would refuse
    with pytest.raises(DeviceError, match="share: got a read-only"):
        runtime.share(memoryview(b"12345678"))


def test_runtimes_have_separate_queues():
    stuck, other = CpuRuntime(threads=1), CpuRuntime(threads=1)
    assert stuck.name != other.name
    stuck.launch(stuck.load(binary("forever", (1,))), [], {})
    counts = filled(other, [0] * 10)
    other.launch(other.load(binary("count", (10,))), [counts], {})
    assert read(other, counts) == [1] * 10
    with pytest.raises(WorkTimeoutError):
        stuck.synchronize(0.01)


def test_use_from_several_threads_at_once_gives_each_its_result(runtime):
    failures = []

    def work(seed: int) -> None:
        for n in (1, 100, 777, seed + 1):
            reverse = runtime.load(binary("reverse", (N,)))
            values = list(range(seed, seed + n))
            a, b = filled(runtime, values), runtime.alloc(8 * n)
            for _ in range(31):
                runtime.launch(reverse, [b, a], {"n": n, "add": seed})
                a, b = b, a
            if read(runtime, a) != [value + 31 * seed for value in reversed(values)]:
                failures.append((seed, n))
            runtime.free(a)
            runtime.free(b)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_synchronize_past_its_time_ends_the_kernel_and_leaves_the_device_usable(runtime):
    counts = filled(runtime, [0] * 100)
    count, forever = runtime.load(binary("count", (100,))), runtime.load(binary("forever", (5,)))
    native_threads = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        runtime.launch(forever, [], {})
        runtime.launch(count, [counts], {})
        with pytest.raises(WorkTimeoutError, match=r"kernel forever not done after 0\.02 s"):
            runtime.synchronize(0.02)
        assert len(os.listdir("/proc/self/task")) <= native_threads
    assert read(runtime, counts) == [0] * 100
    runtime.launch(count, [counts], {})
    assert read(runtime, counts) == [1] * 100


def test_synchronize_elsewhere_while_work_is_ended_raises():
    runtime = CpuRuntime(threads=2)
    runtime.launch(runtime.load(binary("forever", (2,))), [], {})
    raised, started = [], threading.Event()

    def wait() -> None:
        started.set()
        try:
            runtime.synchronize(60)
        except DeviceError as error:
            raised.append(str(error))

    other = threading.Thread(target=wait)
    other.start()
    started.wait()
    with pytest.raises(WorkTimeoutError):
        runtime.synchronize(0.2)
    other.join()
    assert all("this work was dropped" in message for message in raised)
    assert len(raised) <= 1  # none if it came too late to wait


def test_interrupt_while_waiting_raises_and_the_interpreter_exits():
    done = run_script("""
runtime.launch(runtime.load(binary("forever", (2,))), [], {})
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    runtime.synchronize()
except KeyboardInterrupt:
    print("interrupted")
""")
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


def test_exit_with_work_in_flight_and_waiting_threads_is_clean():
    done = run_script("""
runtime.launch(runtime.load(binary("forever", (2,))), [], {})
threading.Thread(target=runtime.synchronize, daemon=True).start()
print("leaving")
""")
    assert (done.stdout, done.returncode) == ("leaving\n", 0), done.stderr


def test_fork_after_use_gives_the_child_threads_of_its_own():
    done = run_script("""
counts = runtime.alloc(800)
counts.view[:] = bytes(800)
count = runtime.load(binary("count", (100,)))
def work():
    runtime.launch(count, [counts], {})
    runtime.synchronize(30)
    return set(counts.view.cast("q").tolist())
assert work() == {1}
child = os.fork()
if not child:
    assert work() == {2}
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert work() == {2}
runtime.launch(runtime.load(binary("forever", (1,))), [], {})
child = os.fork()
if not child:
    try:
        runtime.synchronize()
    except Exception as error:
        print(error, flush=True)
    os._exit(8)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
""")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "unfinished when this process was forked; synchronize before a fork" in done.stdout


def test_timestamps_with_profiling_name_every_launch_in_order(monkeypatch):
    monkeypatch.setenv("TG_PROFILE", "1")
    runtime = CpuRuntime(threads=2)
    recording = runtime.record(chain_program(4), {"reverse": runtime.load(binary("reverse", (N,)))})
    recording.patch({0: filled(runtime, [1, 2]), 1: runtime.alloc(16)}, {"n": 2, "add": 1})
    runtime.submit(recording)
    runtime.synchronize(30)
    times = runtime.timestamps()
    assert [name for name, _, _ in times] == ["reverse"] * 4 + ["copy"]
    stamps = [stamp for _, start, end in times for stamp in (start, end)]
    assert stamps == sorted(stamps)
    assert runtime.timestamps() == []


def test_entry_point_names_the_runtime():
    (entry,) = entry_points(group="tg.runtimes", name="CPU")
    assert entry.load() is CpuRuntime


def test_thread_count_follows_the_knob(monkeypatch):
    monkeypatch.setenv("TG_THREADS", "3")
    assert CpuRuntime().threads == 3
    monkeypatch.setenv("TG_THREADS", "none")
    with pytest.raises(DeviceError, match="TG_THREADS: got 'none', want a number"):
        CpuRuntime()


def mapped(address: int) -> str:
    """The protection of the pages at an address, `----` for none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, protection = line.split()[:2]
        low, high = (int(end, 16) for end in span.split("-"))
        if low <= address < high:
            return protection
    return "----"


def test_code_shares_pages_that_are_never_writable_and_go_with_the_last_user():
    runtime = CpuRuntime(threads=1)
    first, second = runtime.load(binary("count", (1,))), runtime.load(binary("forever", (1,)))
    address = first.code.address
    assert second.code.address == address + 64
    assert mapped(address) == "r-xp"
    runtime.launch(second, [], {})
    third = runtime.load(
        binary("count", (1,))
    )  # code of the first region is running: its pages stay as they are
    assert abs(third.code.address - address) >= 65536
    with pytest.raises(WorkTimeoutError):
        runtime.synchronize(0.01)
    del second
    assert mapped(address) == "r-xp"
    del first
    assert mapped(address) == "----"
    fourth = runtime.load(binary("count", (1,)))
    address = fourth.code.address
    runtime.launch(fourth, [filled(runtime, [0])], {})
    runtime.synchronize(30)
    assert mapped(address) == "r-xp"
    del third, fourth
    assert mapped(address) == "----"
    assert not [
        line for line in Path("/proc/self/maps").read_text().splitlines() if line.split()[1][1:3] == "wx"
    ]


def test_alloc_is_aligned_reused_and_kept_while_viewed():
    runtime = CpuRuntime(threads=1)
    for size in (0, 1, 63, 64, 65, 5000, 131_073, 3_000_000):
        memory = runtime.alloc(size)
        assert memory.address % 64 == 0 and memory.view.nbytes == size
    viewed, plain = runtime.alloc(1000), runtime.alloc(1000)
    view, addresses = viewed.view, (viewed.address, plain.address)
    view[:4] = struct.pack("<i", 77)
    runtime.free(viewed)
    runtime.free(plain)
    assert [runtime.alloc(1000).address == address for address in addresses[::-1]] == [True, False]
    assert view[:4] == struct.pack("<i", 77)
    del view
    assert runtime.alloc(1000).address == addresses[0]
    with pytest.raises(DeviceError, match="free: got"):
        runtime.free(viewed)


def test_free_while_work_uses_the_memory_keeps_it_until_then():
    runtime = CpuRuntime(threads=1)
    counts = filled(runtime, [0] * 10)
    address = counts.address
    runtime.launch(runtime.load(binary("forever", (1,))), [], {})
    runtime.free(counts)
    assert runtime.alloc(80).address != address
    with pytest.raises(WorkTimeoutError):
        runtime.synchronize(0.01)
    assert runtime.alloc(80).address == address


def test_alloc_beyond_the_limit_names_the_largest_allocations():
    runtime = CpuRuntime("CPU:9", threads=1, memory_limit_bytes=10_000_000)
    large, small = runtime.alloc(8_000_000), runtime.alloc(100)
    with pytest.raises(
        OutOfMemoryError, match=r"CPU:9: out of memory: .* 4,000,000 bytes.* the largest: 8,388,608 bytes"
    ):
        runtime.alloc(4_000_000)
    runtime.free(large)
    assert runtime.alloc(4_000_000).size_bytes == 4_000_000
    with pytest.raises(OutOfMemoryError):
        CpuRuntime(threads=1, memory_limit_bytes=1 << 62).alloc(1 << 50)
    assert small.size_bytes == 100
