"""Topology, and the sentences for machines without a usable GPU."""

from __future__ import annotations

import errno

import pytest
from fake_kernel import MI300X, FakeKernel, node_files

from tg_driver_amd import DriverError, NoDeviceError, UnsupportedError, open_device
from tg_driver_amd.command_line import main
from tg_driver_amd.knobs import spin_us
from tg_driver_amd.system import System
from tg_driver_amd.topology import read_topology, target_name

CPU = node_files(0, 0, {"cpu_cores_count": 64})


def test_topology_of_a_cpu_and_a_gpu_is_read():
    cpu, gpu = read_topology(FakeKernel(CPU | node_files(1, 4353, MI300X)))
    assert cpu.gpu_id == 0 and not cpu.links
    assert (gpu.target, gpu.compute_units, gpu.xccs, gpu.vram_bytes) == ("gfx942", 304, 8, 206141652992)
    assert gpu.has_host_visible_vram
    assert [(link.kind, link.node_to, link.max_bandwidth) for link in gpu.links] == [("XGMI", 2, 50000)]
    assert gpu.render_path == "/dev/dri/renderD128"


def test_save_area_without_sizes_in_sysfs_is_computed_as_the_kernel_does():
    # 38 CUs an XCC; control stack 38 * 40 waves of 8 bytes and a header of 40, in pages; 0x95000 bytes a CU.
    (gpu,) = [node for node in read_topology(FakeKernel(CPU | node_files(1, 1, MI300X))) if node.gpu_id]
    area = gpu.save_area
    assert area.control_stack == 0x3000
    assert area.context == 0x3000 + 38 * 0x95000
    assert area.debug == 38 * 40 * 32
    assert area.total == -(-(area.context + area.debug) * 8 // 4096) * 4096
    told = MI300X | {"ctl_stack_size": 0x4000, "cwsr_size": 0x2000000}
    (gpu,) = [node for node in read_topology(FakeKernel(CPU | node_files(1, 1, told))) if node.gpu_id]
    assert (gpu.save_area.control_stack, gpu.save_area.context) == (0x4000, 0x2000000)


def test_gpu_hidden_by_a_cgroup_stays_a_node_without_properties():
    files = (
        CPU | node_files(1, 4353, MI300X) | {"/sys/class/kfd/kfd/topology/nodes/1/properties": errno.EPERM}
    )
    files["/sys/class/kfd/kfd/topology/nodes/1/gpu_id"] = errno.EPERM
    _cpu, gpu = read_topology(FakeKernel(files))
    assert (gpu.gpu_id, gpu.properties) == (0, {})


@pytest.mark.parametrize(
    ("version", "name"), [(90402, "gfx942"), (90010, "gfx90a"), (110501, "gfx1151"), (120001, "gfx1201")]
)
def test_target_name_of_a_version(version: int, name: str):
    assert target_name(version) == name


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "amdgpu kernel module is not loaded"),
        (errno.EACCES, "usermod -aG render,video"),
        (errno.EPERM, "--device=/dev/kfd"),
    ],
)
def test_kfd_that_cannot_be_opened_says_what_to_do(code: int, words: str):
    with pytest.raises(NoDeviceError, match=words):
        System(FakeKernel({"/dev/kfd": code}))


def test_machine_without_topology_says_what_to_do():
    with pytest.raises(NoDeviceError, match="amdgpu kernel module is not loaded"):
        System(FakeKernel({"/sys/class/kfd/kfd/topology/generation_id": errno.ENOENT}))


def test_old_kernel_and_unknown_gpu_are_named():
    with pytest.raises(UnsupportedError, match=r"got version 1\.0, want 1\.1 or later; update the kernel"):
        System(FakeKernel(CPU, version=(1, 0)))
    system = System(FakeKernel(CPU, version=(1, 4)))
    with pytest.raises(UnsupportedError, match=r"svm: got KFD 1\.4, want 1\.5 or later; update the kernel"):
        system.kfd.call("svm")
    old = MI300X | {"gfx_target_version": 90006}
    with pytest.raises(UnsupportedError, match=r"device 0: got gfx906 .*want one of gfx942"):
        System(FakeKernel(CPU | node_files(1, 7, old))).node(0)
    with pytest.raises(NoDeviceError, match=r"device: got 3, want one of these: 0 \(gfx942\)"):
        System(FakeKernel(CPU | node_files(1, 7, MI300X))).node(3)


def test_render_node_without_permission_says_what_to_do():
    kernel = FakeKernel(CPU | node_files(1, 7, MI300X) | {"/dev/dri/renderD128": errno.EACCES})
    with pytest.raises(NoDeviceError, match=r"renderD128: got Permission denied; join the group render"):
        open_device(interface=kernel)


def test_refused_call_names_error_and_arguments():
    with pytest.raises(
        DriverError, match=r"KFD destroy_queue: got EINVAL \(Invalid argument\); with queue_id=0x5"
    ):
        System(FakeKernel(CPU)).kfd.call("destroy_queue", queue_id=5)


@pytest.mark.parametrize("name", ["cuda:0", "first", "-1"])
def test_device_with_an_unknown_name_is_refused(name: str):
    with pytest.raises(NoDeviceError, match="want a number, or virtual:<target>"):
        open_device(name)


def test_command_line_without_a_gpu_prints_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("TG_AMD_DEVICE", "nothing:at-all")
    assert main(["info"]) == 1
    assert capsys.readouterr().err.startswith("tg-amd: device: got 'nothing:at-all', which nothing provides")


def test_knob_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("TG_AMD_SPIN_US", "soon")
    with pytest.raises(DriverError, match="TG_AMD_SPIN_US: got 'soon'"):
        spin_us()
