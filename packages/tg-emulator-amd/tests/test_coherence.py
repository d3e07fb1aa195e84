"""Kernels without the fences that their data needs: each missing fence is an error, and none that is there."""

from __future__ import annotations

import pytest
from shaders import Doubler, code_object

import tg_driver_amd as amd
from tg_driver_amd import aql
from tg_driver_amd.aql import Fence
from tg_driver_amd.queues import AqlQueue
from tg_emulator_amd import open_virtual

TIMEOUT_S = 20


class Machine:
    """A GPU with three buffers and the kernel that doubles one into another."""

    def __init__(self, gpu: amd.Device):
        self.gpu, self.module = gpu, gpu.load(code_object("gfx942"))
        self.queue = gpu.queue(AqlQueue)
        self.a, self.b, self.c = (gpu.alloc(256) for _ in range(3))
        self.kernargs = gpu.alloc(1 << 16, "host")
        self.used = 0

    def double(
        self, source: amd.Allocation, destination: amd.Allocation, acquire: Fence, release: Fence
    ) -> amd.Signal:
        at, self.used = self.used, self.used + 256
        for place, buffer in ((at, source), (at + 8, destination)):
            self.kernargs.view[place : place + 8] = buffer.address.to_bytes(8, "little")
        row = self.module.code.kernels["double"]
        signal = self.gpu.signals.new("kernel 'double'")
        packet = aql.build(
            "KERNEL_DISPATCH", acquire=acquire, release=release, dimensions=1, workgroup_x=64, workgroup_y=1,
            workgroup_z=1, grid_x=64, grid_y=1, grid_z=1, completion_signal=signal.address,
            kernel_object=self.module.memory.address + row.descriptor_offset,
            kernarg_address=self.kernargs.address + at,
        )  # fmt: skip
        return self.queue.submit(packet, signal)


@pytest.fixture
def machine():
    with amd.open_device(interface=open_virtual("gfx942", Doubler())) as gpu:
        yield Machine(gpu)


def test_kernel_that_reads_what_another_wrote_without_acquire_is_stale(machine: Machine):
    a, b, c = machine.a, machine.b, machine.c
    machine.double(b, c, Fence.SYSTEM, Fence.SYSTEM).wait(TIMEOUT_S)  # takes b into the caches
    machine.double(a, b, Fence.NONE, Fence.SYSTEM).wait(TIMEOUT_S)
    with pytest.raises(amd.GpuFaultError, match=r"stale cache: the line .* no acquire came between"):
        machine.double(b, c, Fence.NONE, Fence.SYSTEM).wait(TIMEOUT_S)


def test_kernel_that_reads_what_another_wrote_after_acquire_is_right(machine: Machine):
    a, b, c = machine.a, machine.b, machine.c
    machine.gpu.fill(a, 3).wait(TIMEOUT_S)
    machine.double(b, c, Fence.SYSTEM, Fence.SYSTEM)
    machine.double(a, b, Fence.NONE, Fence.AGENT)
    machine.double(b, c, Fence.AGENT, Fence.SYSTEM).wait(TIMEOUT_S)
    assert machine.gpu.read(c, 4) == (12).to_bytes(4, "little")


def test_kernel_that_reads_a_new_copy_without_acquire_is_stale(machine: Machine):
    a, b, c = machine.a, machine.b, machine.c
    machine.double(a, b, Fence.SYSTEM, Fence.SYSTEM).wait(TIMEOUT_S)
    machine.gpu.copy(a, c).wait(TIMEOUT_S)
    with pytest.raises(amd.GpuFaultError, match=r"stale cache"):
        machine.double(a, b, Fence.NONE, Fence.SYSTEM).wait(TIMEOUT_S)


def test_copy_of_what_a_kernel_wrote_without_release_is_stale(machine: Machine):
    machine.double(machine.a, machine.b, Fence.SYSTEM, Fence.NONE).wait(TIMEOUT_S)
    with pytest.raises(amd.GpuFaultError, match=r"stale memory: an engine copies .* no release came between"):
        machine.gpu.copy(machine.c, machine.b).wait(TIMEOUT_S)


def test_copy_of_what_a_kernel_wrote_and_released_is_right(machine: Machine):
    machine.gpu.fill(machine.a, 5).wait(TIMEOUT_S)
    machine.double(machine.a, machine.b, Fence.SYSTEM, Fence.SYSTEM).wait(TIMEOUT_S)
    machine.gpu.copy(machine.c, machine.b).wait(TIMEOUT_S)
    assert machine.gpu.read(machine.c, 4) == (10).to_bytes(4, "little")
