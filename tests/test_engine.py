"""The engine on a target that is none: caches, devices, memory, threads."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Iterator

import pytest

import tg_frontend as tg
from fake_target import FakeRuntime, compile_text, fake_engine
from tg.binaries import Binaries, kernel_key, pack_binary, unpack_binary
from tg.disk_cache import DiskCache
from tg.engine import TgEngine
from tg.executable import Part, Transfer, split_by_device
from tg_ir.errors import DeviceError
from tg_ir.program import verify_program
from tg_schedule import schedule

SEED = int(os.environ.get("TG_SEED", "7"))


@pytest.fixture
def engine() -> Iterator[TgEngine]:
    made = fake_engine()
    tg.set_engine(made)
    yield made
    tg.set_engine(None)


def runtime(engine: TgEngine, device: str = "FAKE") -> FakeRuntime:
    found = engine._devices.runtime(device)
    assert isinstance(found, FakeRuntime)
    return found


def test_values_from_the_target_are_those_of_the_graph(engine):
    x = tg.arange(12, dtype="float32").reshape(3, 4)
    assert tg.Device.default == "FAKE"
    assert (x @ x.T + 1).tolist() == [[15, 39, 63], [39, 127, 215], [63, 215, 367]]
    assert x.device == "FAKE" and runtime(engine).submitted > 0


def test_second_identical_step_is_neither_scheduled_nor_compiled(engine):
    def step(values: list[float]) -> list[float]:
        return (tg.Tensor(values).exp().sum() * 2).tolist()

    first = step([1.0, 2.0])
    counts = engine.scheduled, engine.compiled, runtime(engine).loads
    assert step([1.0, 2.0]) == first and step([0.0, 0.0]) == 4.0
    assert (engine.scheduled, engine.compiled, runtime(engine).loads) == counts


def test_equal_kernels_of_different_programs_are_compiled_once(engine):
    x = tg.Tensor([1.0, 2.0])
    assert (x + 1).tolist() == [2, 3]
    before = engine.compiled
    y = tg.Tensor([5.0, 6.0])
    tg.Tensor.realize(first := x + 1, second := y + 1)
    assert first.tolist() == [2, 3] and second.tolist() == [6, 7] and engine.compiled <= before + 1


def test_recordings_of_a_program_are_two_at_most(engine):
    for number in range(6):
        assert (tg.Tensor([float(number)]) * 3).tolist() == [3.0 * number]
    assert runtime(engine).recorded == 2


def test_memory_goes_back_when_tensors_go(engine):
    x = tg.ones(10)
    y = (x + 1).realize()
    assert y.tolist() == [2.0] * 10
    del x, y
    gc.collect()
    assert runtime(engine).live == 0


def test_value_that_is_an_input_is_shared_not_computed(engine):
    x = tg.Tensor([1.0, 2.0]).realize()
    y = x.detach().clone().realize()
    assert y.tolist() == [1.0, 2.0] and runtime(engine).submitted <= 1


def test_symbolic_sizes_share_one_program(engine):
    n = tg.Variable("n", 1, 8)
    x = tg.arange(8, dtype="float32").realize()
    sums = [x[: n.bind(count)].sum().tolist() for count in (1, 4, 8)]
    assert sums == [0.0, 6.0, 28.0] and engine.scheduled == 2  # arange, and the sum


def test_devices_of_one_kind_have_memory_of_their_own(engine):
    x = tg.Tensor([1.0, 2.0], device="FAKE:1")
    y = x.to("FAKE") * 2
    assert (y.device, y.tolist()) == ("FAKE", [2.0, 4.0])
    assert runtime(engine, "FAKE:1").live == 1 and runtime(engine).submitted == 1
    z = (x + 1).to("FAKE") + (y.to("FAKE:1") * 10).to("FAKE")
    assert z.tolist() == [22.0, 43.0]


def test_graph_that_crosses_to_the_interpreter_and_back_is_evaluated(engine):
    x = tg.Tensor([1.0, 2.0])
    y = (x * 2).to("REF").exp().to("FAKE") + 1
    want = [2.718281828**2 + 1, 2.718281828**4 + 1]
    assert y.tolist() == pytest.approx(want) and y.device == "FAKE"
    assert (tg.Tensor([3.0], device="REF") + 1).tolist() == [4.0]


def test_unknown_device_raises_and_names_those_known(engine):
    with pytest.raises(DeviceError, match="device 'NPU': not one of FAKE, REF"):
        tg.ones(2, device="NPU")


def test_program_over_two_devices_splits_into_valid_parts(engine):
    x = tg.rand(4, 4).realize()
    other = x.to("FAKE:1")
    result = ((x.exp() @ x).to("FAKE:1") @ other.sum(0).softmax(0)).to("FAKE") + x.sum(1)
    program = schedule([result.node]).program
    parts = split_by_device(program)
    assert sum(isinstance(part, Transfer) for part in parts) >= 3
    for part in parts:
        if isinstance(part, Part):
            assert {slot.device for slot in part.program.buffers} == {part.device}
            verify_program(part.program, "split_by_device")
    tg.set_engine(None)
    assert tg.Device.default  # another engine may read the value only through the host
    tg.set_engine(engine)


def test_threads_evaluate_at_once(engine):
    failures: list[object] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(8):
                value = chance.randint(-5, 5)
                x = tg.Tensor([float(value), 1.0]) * 2 + 1
                if x.tolist() != [2.0 * value + 1, 3.0]:
                    failures.append((value, x.tolist()))
        except Exception as error:
            failures.append(error)

    print(f"seed {SEED}")
    threads = [threading.Thread(target=work, args=(SEED + number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_child_of_a_fork_goes_on(engine):
    assert (tg.Tensor([1.0]) + 1).tolist() == [2.0]
    engine._lock.acquire()  # as another thread might hold it
    child = os.fork()
    if child == 0:
        os._exit(0 if (tg.Tensor([1.0]) + 2).tolist() == [3.0] else 1)
    engine._lock.release()
    assert os.waitpid(child, 0)[1] == 0


# ---- binaries -----------------------------------------------------------------------------------------------


def kernels_of(count: int) -> list:
    x = tg.arange(6, dtype="float32")
    nodes = [(x * (number + 2.5)).sum(0).node for number in range(count)]
    return [kernel for node in nodes for kernel in schedule([node]).program.kernels]


def test_binary_as_bytes_and_back_is_the_same(engine):
    n = tg.Variable("n", 1, 100)
    node = tg.ones(n.bind(5)).cumsum(0).node
    for kernel in schedule([node]).program.kernels:
        binary = compile_text(kernel, "fake", None)
        assert unpack_binary(pack_binary(binary), kernel) == binary


def test_key_of_a_kernel_does_not_tell_its_names(engine):
    first, second = kernels_of(1)[0], kernels_of(2)[1]
    assert kernel_key(first) != kernel_key(second)
    again = schedule(
        [(tg.arange(6, dtype="float32") * 2.5).sum(0).node, (tg.ones(2) * 3).node]
    ).program.kernels
    assert kernel_key(first) in map(kernel_key, again)


def test_second_process_finds_binaries_on_disk(engine, tmp_path):
    kernels = kernels_of(3)
    first = Binaries(compile_text, DiskCache(tmp_path, 1 << 20))
    made = first.get(kernels, "fake")
    assert first.compiled == len({kernel_key(kernel) for kernel in kernels})
    second = Binaries(compile_text, DiskCache(tmp_path, 1 << 20))
    assert second.get(kernels, "fake") == made and second.compiled == 0
    other = Binaries(compile_text, DiskCache(tmp_path, 1 << 20), lambda kernel, key, target: "a plan")
    assert other.get(kernels, "fake") != made and other.compiled == first.compiled


def test_many_kernels_are_compiled_by_several_processes(engine):
    pids: set[int] = set()

    def compile_here(kernel, target, plan):
        pids.add(os.getpid())
        return compile_text(kernel, target, plan)

    kernels = kernels_of(40)
    binaries = Binaries(compile_here)
    made = binaries.get(kernels, "fake")
    assert {name: binary.code for name, binary in made.items()} == {
        kernel.name: made[kernel.name].code for kernel in kernels
    }
    assert pids == {os.getpid()} and binaries.compiled == 40


def test_error_of_the_compiler_in_another_process_reaches_the_caller(engine):
    kernels = kernels_of(40)
    broken = kernel_key(kernels[7])

    def compile_most(kernel, target, plan):
        if kernel_key(kernel) == broken:
            raise DeviceError("kernel: got this one")
        return compile_text(kernel, target, plan)

    with pytest.raises(DeviceError, match="got this one"):
        Binaries(compile_most).get(kernels, "fake")


# ---- the cache on disk -----------------------------------------------------------------------------------------


def test_truncated_or_altered_file_counts_as_missing(tmp_path):
    cache = DiskCache(tmp_path, 1 << 20)
    for cut in (lambda data: data[:-1], lambda data: data[:10], lambda data: b"", lambda data: data + b"x"):
        cache.put("abcd", b"content")
        path = tmp_path / "ab" / "abcd"
        path.write_bytes(cut(path.read_bytes()))
        assert cache.get("abcd") is None and not path.exists()
    cache.put("abcd", b"content")
    assert cache.get("abcd") == b"content"


def test_cache_over_its_size_drops_what_was_used_longest_ago(tmp_path):
    cache = DiskCache(tmp_path, 10_000)
    for number in range(20):
        cache.put(f"{number:02}", bytes(1000))
        os.utime(tmp_path / f"{number:02}" / f"{number:02}", ns=(number, number))
    assert cache.get("00") is not None  # used now
    cache.trim()
    left = [number for number in range(20) if cache.get(f"{number:02}") is not None]
    assert left[0] == 0 and left[1:] == list(range(20 - len(left) + 1, 20)) and len(left) <= 7


def test_processes_that_write_one_key_at_once_leave_it_whole(tmp_path):
    cache = DiskCache(tmp_path, 1 << 20)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(50):
                cache.put("key", bytes([number]) * 5000)
            os._exit(0)
        children.append(child)
    seen = 0
    while children:
        content = cache.get("key")
        seen += content is not None
        assert content is None or content in [bytes([number]) * 5000 for number in range(4)]
        if os.waitpid(children[0], os.WNOHANG)[0]:
            children.pop(0)
    assert seen and len(list(tmp_path.rglob(".*"))) == 0


def test_folder_that_cannot_be_written_is_a_cache_of_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file", 1 << 20)
    cache.put("abcd", b"content")
    assert cache.get("abcd") is None
