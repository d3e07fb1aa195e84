"""The driver on virtual GPUs: memory, copies, launches, signals, several GPUs, partitions."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from shaders import Doubler, code_object

import tg_driver_amd as amd
from tg_driver_amd.queues import SdmaQueue
from tg_emulator_amd import PROFILES, EmulatorError, make_gpus, open_virtual

TIMEOUT_S = 20


@pytest.mark.parametrize("queue", ["aql", "pm4"])
@pytest.mark.parametrize("target", PROFILES)
def test_dispatch_on_each_target_sees_arguments_and_memory(target: str, queue: str):
    shaders = Doubler()
    kernel = open_virtual(target, shaders)
    with amd.open_device(interface=kernel) as gpu:
        source, destination = gpu.alloc(4000), gpu.alloc(4000, "host")
        values = np.arange(1000, dtype=np.uint32)
        gpu.write(source, values.tobytes())
        gpu.write(destination, bytes(4000))
        double = gpu.load(code_object(target, private_bytes=24, group_bytes=512))["double"]
        signal = gpu.dispatch(double, (1000, 1), (64, 2), [source, destination], lds_bytes=512, queue=queue)
        signal.wait(TIMEOUT_S)
        assert gpu.read(destination) == (values * 2).tobytes()
        assert 0 < signal.seconds < TIMEOUT_S
    (dispatch,) = shaders.dispatches
    assert (dispatch.grid, dispatch.workgroup, dispatch.target) == ((1000, 1, 1), (64, 2, 1), target)
    assert dispatch.wave_size == (64 if target in ("gfx942", "gfx950") else 32)
    assert 1024 <= dispatch.lds_bytes < 1024 + 1280
    assert dispatch.scratch_bytes_per_lane >= 24
    assert dispatch.scratch_base % 256 == 0 < dispatch.scratch_base
    assert kernel.reports == []


def test_closing_a_device_leaves_nothing_behind():
    def held() -> tuple[int, int, int]:
        with open("/proc/self/maps", encoding="ascii") as maps:
            mappings = sum("memfd:tg-emulator" in line for line in maps)
        return len(os.listdir("/proc/self/fd")), mappings, threading.active_count()

    before = held()
    for _ in range(3):
        kernel = open_virtual("gfx942", Doubler())
        with amd.open_device(interface=kernel) as gpu:
            data = gpu.alloc(1 << 16)
            gpu.fill(data, 1).wait(TIMEOUT_S)
            double = gpu.load(code_object("gfx942", private_bytes=100))["double"]
            gpu.dispatch(double, 64, 64, [data, data]).wait(TIMEOUT_S)
            gpu.dispatch(double, 64, 64, [data, data], queue="pm4").wait(TIMEOUT_S)
            client = kernel.client
            assert client.count()["queues"] == 3
            gpu.close()
            assert kernel.client is None
    assert held() == before


def test_buffers_freed_one_by_one_leave_no_mapping():
    kernel = open_virtual("gfx1100*2", Doubler())
    with amd.open_device(interface=kernel) as first, amd.open_device(1, kernel) as second:
        before = kernel.client.count()
        buffers = [first.alloc(5000), second.alloc(5000, "host"), first.alloc(1 << 22, "uncached")]
        buffers[0].map_to(second)
        for each in buffers:
            each.free()
        assert kernel.client.count() == before


@pytest.mark.parametrize("size", [4, 4096, (1 << 22) + 64, 5 << 20])
def test_copy_between_host_and_vram_gives_the_same_bytes(size: int):
    with amd.open_device("virtual:gfx942") as gpu:
        near, host = gpu.alloc(size), gpu.alloc(size, "host")
        data = np.random.default_rng(size).bytes(size)
        gpu.write(near, data)
        gpu.copy(host, near).wait(TIMEOUT_S)
        assert gpu.read(host) == data
        gpu.fill(near, 0x01020304).wait(TIMEOUT_S)
        assert gpu.read(near) == struct.pack("<I", 0x01020304) * (size // 4)


def test_copies_past_the_end_of_the_ring_arrive():
    with amd.open_device("virtual:gfx1201") as gpu:
        near, far = gpu.alloc(1 << 16), gpu.alloc(1 << 16)
        for number in range(1500):  # about 100 bytes each, in a ring of 64 KiB
            gpu.fill(near, number)
            last = gpu.copy(far, near)
        last.wait(TIMEOUT_S)
        assert gpu.read(far, 4) == struct.pack("<I", 1499)
        assert gpu.queue(SdmaQueue).written > 2 * gpu.queue(SdmaQueue).ring_bytes


def test_two_gpus_copy_over_their_link():
    kernel = open_virtual("gfx942*2")
    with amd.open_device(0, kernel) as first, amd.open_device(1, kernel) as second:
        ours, theirs = first.alloc(4096), second.alloc(4096)
        first.write(ours, b"x" * 4096)
        theirs.map_to(first)
        queue = first.new_queue("xgmi")
        from tg_driver_amd import sdma

        signal = first.signals.new("copy to a peer")
        queue.submit_packets(sdma.copy(4, theirs.address, ours.address, 4096), signal).wait(TIMEOUT_S)
        assert second.read(theirs) == b"x" * 4096
        assert {link.kind for link in first.node.links} == {"PCIe", "XGMI"}


def test_partitions_are_gpus_of_their_own():
    gpus = make_gpus("gfx942/cpx")
    assert len(gpus) == 8 and {gpu.compute_units for gpu in gpus} == {38}
    with amd.open_device("virtual:gfx942/cpx@7") as gpu:
        assert (gpu.node.xccs, gpu.node.compute_units, gpu.node.vram_bytes) == (1, 38, 24 << 30)
        buffer = gpu.alloc(4096)
        gpu.fill(buffer, 3).wait(TIMEOUT_S)


@pytest.mark.parametrize("text", ["gfx803", "gfx942/xyz", "gfx1100/cpx", "", "gfx942*x"])
def test_virtual_gpu_with_a_bad_name_is_refused(text: str):
    with pytest.raises(EmulatorError):
        make_gpus(text)


def test_pages_of_the_host_registered_or_shared_are_seen_by_the_gpu():
    with amd.open_device("virtual:gfx1100") as gpu:
        pages = mmap.mmap(-1, 16384)
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        ours = gpu.register(address, 8192)
        gpu.fill(ours, 0x11111111).wait(TIMEOUT_S)
        assert pages[:8192] == b"\x11" * 8192 and pages[8192:] == bytes(8192)
        ours.free()
        gpu.share(address + 8192, 8192)
        target = gpu.alloc(4096)
        pages[8192:12288] = b"z" * 4096
        gpu.copy_address(target.address, address + 8192, 4096).wait(TIMEOUT_S)
        assert gpu.read(target) == b"z" * 4096


def test_dmabuf_of_one_gpu_is_imported_by_another():
    kernel = open_virtual("gfx1100+gfx1201")
    with amd.open_device(0, kernel) as first, amd.open_device(1, kernel) as second:
        ours = first.alloc(8192)
        first.write(ours, b"d" * 8192)
        theirs = second.import_dmabuf(ours.export())
        near = second.alloc(8192)
        second.copy(near, theirs).wait(TIMEOUT_S)
        assert second.read(near) == b"d" * 8192


def test_dispatch_after_a_signal_waits_for_it():
    shaders = Doubler()
    with amd.open_device(interface=open_virtual("gfx942", shaders)) as gpu:
        a, b = gpu.alloc(1 << 20), gpu.alloc(1 << 20)
        double = gpu.load(code_object("gfx942"))["double"]
        for number in range(20):
            filled = gpu.fill(a, number)
            copied = gpu.dispatch(double, 1 << 18, 64, [a, b], after=[filled])
            copied.wait(TIMEOUT_S)
            assert set(np.frombuffer(gpu.read(b), np.uint32)) == {2 * number}


def test_queue_updated_to_no_share_stops_until_it_has_one():
    with amd.open_device("virtual:gfx942") as gpu:
        buffer, queue = gpu.alloc(4096), gpu.queue(SdmaQueue)
        queue.set_cu_mask([0xFFFFFFFF])
        queue.update(percentage=0)
        signal = gpu.fill(buffer, 9)
        with pytest.raises(amd.WaitTimeoutError, match=r"fill of 4096 bytes in 0\.05 s"):
            signal.wait(0.05)
        queue.update(percentage=100)
        signal.wait(TIMEOUT_S)


@pytest.mark.parametrize(
    "end", ["", "raise KeyError('on purpose')", "sys.exit(3)", "gpu.fill(data, 1); os.fork()"]
)
def test_process_that_ends_without_close_gives_everything_back(end: str):
    program = f"""
import os, sys
import tg_driver_amd as amd
from tg_emulator_amd import open_virtual
kernel = open_virtual("gfx942")
import atexit
atexit.register(lambda: print(os.getpid() != first or kernel.client is None))  # runs after the device's own
first = os.getpid()
gpu = amd.open_device(interface=kernel)
data = gpu.alloc(4096)
gpu.fill(data, 7).wait(20)
{end}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == {"r": 1, "s": 3}.get(end[:1], 0), done.stderr
    assert set(done.stdout.split()) == {"True"}
    assert ("KeyError" in done.stderr) == end.startswith("raise") and "tg_driver_amd" not in done.stderr


def test_driver_used_in_a_forked_child_is_refused():
    with amd.open_device("virtual:gfx1100") as gpu:
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                gpu.alloc(4096)
            except amd.ForkedError as error:
                os.write(write_end, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert b"open it after forking" in os.read(read_end, 4096)
        os.close(read_end)
        os.close(write_end)


def test_arguments_that_do_not_fit_are_refused():
    with amd.open_device(interface=open_virtual("gfx1100", Doubler())) as gpu:
        double = gpu.load(code_object("gfx1100"))["double"]
        data = gpu.alloc(256)
        with pytest.raises(amd.PacketError, match=r"got 1 arguments, want 2: source, destination"):
            gpu.dispatch(double, 64, 64, [data])
        with pytest.raises(amd.PacketError, match=r"argument 0 source: got 'x'"):
            gpu.dispatch(double, 64, 64, ["x", data])
        with pytest.raises(amd.PacketError, match=r"workgroup of 2048"):
            gpu.dispatch(double, 64, (64, 32), [data, data])
        with pytest.raises(amd.PacketError, match=r"bytes of LDS, want at most 65536"):
            gpu.dispatch(double, 64, 64, [data, data], lds_bytes=1 << 17)
        with pytest.raises(amd.PacketError, match=r"grid: got 0"):
            gpu.dispatch(double, 0, 64, [data, data])
        with pytest.raises(amd.CodeObjectError, match=r"one for gfx942, want gfx1100"):
            gpu.load(code_object("gfx942"))
        with pytest.raises(amd.DriverError, match=r"kernel: got 'triple', want one of double"):
            gpu.load(code_object("gfx1100"))["triple"]
        with pytest.raises(amd.OutOfMemoryError, match="ENOMEM"):
            gpu.alloc(1 << 40)
        with pytest.raises(amd.DriverError, match="want some of 0 to 256"):
            gpu.read(data, 512)
    with pytest.raises(amd.DriverError, match="after close"):
        gpu.alloc(4096)
