"""Faults on request: each becomes its error in time, names what ran, and leaves the other GPUs usable."""

from __future__ import annotations

import os
import random
import struct
import threading

import pytest
from shaders import Doubler, code_object

import tg_driver_amd as amd
from tg_driver_amd.ioctls import IOCTLS
from tg_driver_amd.queues import AqlQueue, Pm4Queue, Queue, SdmaQueue
from tg_emulator_amd import VirtualKernel, open_virtual

TIMEOUT_S = 20
SEED = int(os.environ.get("TG_SEED", "1"))


@pytest.fixture
def kernel() -> VirtualKernel:
    return open_virtual("gfx942*2", Doubler())


@pytest.mark.parametrize("queue", ["aql", "pm4"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "page_fault",
            r"GPU 0 \(gfx942\): memory fault at 0x1000: nothing is mapped there; .*kernel 'double'",
        ),
        (
            "reset",
            r"GPU 0 .*: the kernel reset the whole GPU after a hang, its memory is lost; .*kernel 'double'",
        ),
        (
            "ecc",
            r"GPU 0 .*: the kernel reset the whole GPU after an ECC error, its memory is lost; .*kernel 'double'",
        ),
    ],
)
def test_fault_in_a_dispatch_names_queue_and_kernel_and_spares_the_other_gpu(
    kernel: VirtualKernel, fault: str, message: str, queue: str
):
    with amd.open_device(0, kernel) as first, amd.open_device(1, kernel) as second:
        double = first.load(code_object("gfx942"))["double"]
        data = first.alloc(4096)
        first.dispatch(double, 64, 64, [data, data], queue=queue).wait(TIMEOUT_S)
        kernel.faults.plan(fault)
        signal = first.dispatch(double, 64, 64, [data, data], queue=queue)
        with pytest.raises(amd.GpuFaultError, match=message):
            signal.wait(TIMEOUT_S)
        with pytest.raises(amd.GpuFaultError):
            first.fill(data, 1)
        theirs = second.alloc(4096)
        second.fill(theirs, 5).wait(TIMEOUT_S)
        assert second.read(theirs, 4) == struct.pack("<I", 5)


def test_kernel_that_writes_read_only_memory_faults_with_the_address(kernel: VirtualKernel):
    with amd.open_device(0, kernel) as gpu:
        module = gpu.load(code_object("gfx942"))
        data = gpu.alloc(4096)
        signal = gpu.dispatch(module["double"], 64, 64, [data, module.memory])
        message = r"a write to read-only memory; AQL queue 0 .*; the kernel's log: write of 256 bytes"
        with pytest.raises(amd.GpuFaultError, match=message) as caught:
            signal.wait(TIMEOUT_S)
        assert caught.value.address == module.memory.address


def test_copy_to_memory_of_a_gpu_that_it_is_not_mapped_to_faults(kernel: VirtualKernel):
    with amd.open_device(0, kernel) as first, amd.open_device(1, kernel) as second:
        theirs = second.alloc(4096)
        signal = first.copy_address(theirs.address, first.alloc(4096).address, 4096)
        with pytest.raises(
            amd.GpuFaultError, match=f"{theirs.address:#x}: nothing is mapped there; SDMA queue"
        ):
            signal.wait(TIMEOUT_S)


def test_fault_is_among_the_events_of_the_kernel(kernel: VirtualKernel):
    with amd.open_device(0, kernel) as gpu:
        assert gpu.kernel_events() == []
        with pytest.raises(amd.GpuFaultError):
            gpu.copy_address(0x1000, 0x2000, 64).wait(TIMEOUT_S)
        (line,) = gpu.kernel_events(timeout_ms=1000)
        assert line.startswith(f"1 {os.getpid():x}:")
        with pytest.raises(amd.KernelCallError, match="set_xnack_mode: got EPERM"):
            gpu.system.set_xnack(True)
        gpu.system.set_xnack(False)


@pytest.mark.parametrize("kind", [AqlQueue, Pm4Queue, SdmaQueue])
def test_hang_of_a_queue_becomes_a_timeout_that_names_the_work(kernel: VirtualKernel, kind: type[Queue]):
    with amd.open_device(0, kernel) as gpu:
        double, data = gpu.load(code_object("gfx942"))["double"], gpu.alloc(4096)
        kernel.faults.plan("hang")
        if kind is SdmaQueue:
            signal, name = gpu.fill(data, 1), "fill of 4096 bytes"
        else:
            signal, name = (
                gpu.dispatch(double, 64, 64, [data, data], queue=kind.name.lower()),
                "kernel 'double'",
            )
        with pytest.raises(amd.WaitTimeoutError, match=name):
            signal.wait(0.1)


@pytest.mark.parametrize("kind", ["aql", "pm4"])
def test_lost_interrupt_costs_time_and_nothing_else(kernel: VirtualKernel, kind: str):
    with amd.open_device(0, kernel) as gpu:
        double, data = gpu.load(code_object("gfx942"))["double"], gpu.alloc(4096)
        for _ in range(3):
            kernel.faults.plan("lost_interrupt")
            gpu.dispatch(double, 64, 64, [data, data], queue=kind).wait(TIMEOUT_S)


@pytest.mark.parametrize("fault", ["allocation", "map", "queue", "event"])
def test_refused_call_at_any_place_leaks_nothing(fault: str):
    refused, threads = 0, threading.active_count()
    for place in range(40):
        kernel = open_virtual("gfx942", Doubler())
        kernel.faults.plan(fault, after=place)
        try:
            with amd.open_device(0, kernel) as gpu:
                data = gpu.alloc(4096)
                double = gpu.load(code_object("gfx942", private_bytes=64))["double"]
                gpu.dispatch(double, 64, 64, [data, data]).wait(TIMEOUT_S)
                gpu.dispatch(double, 64, 64, [data, data], queue="pm4").wait(TIMEOUT_S)
                gpu.fill(data, 1).wait(TIMEOUT_S)
        except (amd.OutOfMemoryError, amd.KernelCallError) as error:
            refused += 1
            assert "ENOMEM" in str(error) or "ENOSPC" in str(error)
        assert kernel.client is None
        if fault in ("queue", "event") and place == 4:
            break
    assert refused >= 3
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimensions": 0}, "dimensions are not valid"),
        ({"workgroup_x": 0}, "dimensions are not valid"),
        ({"workgroup_x": 2048}, "workgroup is too large"),
        ({"group_segment_bytes": 1 << 20}, "group segment is larger"),
        ({"kernel_object": 0}, "no valid kernel descriptor"),
        ({"type": 9}, "packet's type is not valid"),
        ({"private_segment_bytes": 1 << 20}, "scratch is too small"),
    ],
)
def test_aql_packet_that_cannot_be_executed_is_named(
    kernel: VirtualKernel, changes: dict[str, int], message: str
):
    from tg_driver_amd import aql

    with amd.open_device(0, kernel) as gpu:
        module, queue = gpu.load(code_object("gfx942")), gpu.queue(AqlQueue)
        row = module.code.kernels["double"]
        fields = {"dimensions": 1, "workgroup_x": 64, "workgroup_y": 1, "workgroup_z": 1}
        fields |= {"grid_x": 64, "grid_y": 1, "grid_z": 1}
        fields |= {"kernel_object": module.memory.address + row.descriptor_offset} | changes
        signal = gpu.signals.new("a bad packet")
        queue.submit(aql.build("KERNEL_DISPATCH", completion_signal=signal.address, **fields), signal)
        with pytest.raises(amd.GpuFaultError, match=f"the command processor stopped: .*{message}"):
            signal.wait(TIMEOUT_S)


@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
@pytest.mark.parametrize("kind", ["aql", "pm4", "sdma"])
def test_random_packets_stop_their_queue_and_never_the_process(kind: str, target: str):
    print(f"TG_SEED={SEED}")
    random_ = random.Random(f"{SEED} {kind} {target}")
    known = {
        "aql": (0, 1 << 16, 2, 3, 5),
        "pm4": (0x10, 0x15, 0x1E, 0x3C, 0x3F, 0x40, 0x46, 0x49, 0x50, 0x58, 0x76),
        "sdma": (0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 17, 0x20D),
    }[kind]

    def header() -> int:
        opcode = random_.choice((*known, random_.getrandbits(32)))
        return 0xC0000000 | random_.randrange(12) << 16 | (opcode & 0xFF) << 8 if kind == "pm4" else opcode

    kernel = open_virtual(target, Doubler())
    for _ in range(115):  # 9 cases, more than 1,000 packets in all
        with amd.open_device(0, kernel) as gpu:
            queue = gpu.new_queue(kind)
            words = [header(), *(random_.choice((0, 1, random_.getrandbits(32))) for _ in range(15))]
            queue.write(struct.pack("<16I", *words))
            queue.ring_doorbell()
            try:
                gpu.fill(gpu.alloc(4096), 1).wait(TIMEOUT_S)
            except amd.GpuFaultError:
                assert kernel.reports


def test_random_ioctls_are_answered_or_refused_and_never_end_the_process(kernel: VirtualKernel):
    import ctypes

    print(f"TG_SEED={SEED}")
    random_ = random.Random(SEED)
    outcomes: dict[str, int] = {}
    with amd.open_device(0, kernel) as gpu:
        handles = [gpu.alloc(4096).handle for _ in range(4)]
        values = [0, 1, 2, 4096, 0xFFFFFFFF, gpu.node.gpu_id, *handles, gpu.alloc(4096).address]
        taking = ("free_memory_of_gpu", "unmap_memory_from_gpu", "destroy_event", "destroy_queue")
        rows = [row for row in IOCTLS.values() if row.name not in taking]
        for _ in range(1000):
            row = random_.choice(rows)
            arguments = row.arguments()
            for name, kind in row.arguments._fields_:
                value = random_.choice([*values, random_.getrandbits(64)])
                setattr(arguments, name, value & (1 << 8 * ctypes.sizeof(kind)) - 1)
            if row.name == "wait_events":
                arguments.timeout %= 2
            request = row.request if random_.random() < 0.95 else random_.getrandbits(32)
            address = (
                ctypes.addressof(arguments) if random_.random() < 0.95 else random_.choice((0, 4096, 1 << 60))
            )
            try:
                kernel.ioctl(gpu.system.kfd.descriptor, request, address)
                outcomes["done"] = outcomes.get("done", 0) + 1
            except OSError as error:
                outcomes[str(error.errno)] = outcomes.get(str(error.errno), 0) + 1
        data = gpu.alloc(4096)
        gpu.fill(data, 1).wait(TIMEOUT_S)
    print(outcomes)
    assert len(outcomes) >= 4 and outcomes["done"] > 50
