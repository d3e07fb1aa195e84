"""ROCm's own runtime as a client of the virtual kernel, through a preloaded shim.

`TG_ROCR_ROOT` names a folder with Debian's packages libhsa-runtime64-1 and libhsa-runtime-dev (6.4), rocminfo and what
they depend on, libc6 included, unpacked: programs run under that folder's own dynamic loader.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from rocr_server import Server
from shaders import Doubler, code_object

from tg_driver_amd.queues import AmdQueue
from tg_driver_amd.signals import SignalWords
from tg_emulator_amd import PROFILES

HERE = Path(__file__).parent
ROOT = Path(os.environ.get("TG_ROCR_ROOT", "/nonexistent"))
LIBRARIES = ROOT / "usr/lib/x86_64-linux-gnu"
COMPILER = shutil.which("clang-22") or shutil.which("cc")
CREATE_QUEUE, DESTROY_QUEUE = 2, 3

pytestmark = pytest.mark.skipif(
    COMPILER is None or not (LIBRARIES / "libhsa-runtime64.so.1").exists(),
    reason="no C compiler, or TG_ROCR_ROOT names no folder with libhsa-runtime64-1 unpacked",
)


def run(server: Server, program: Path, *arguments: str) -> str:
    environment = {
        "TG_SHIM_SOCKET": server.path,
        "TG_SHIM_ROOT": str(server.folder),
        "PATH": os.environ["PATH"],
    }
    loader = [LIBRARIES / "ld-linux-x86-64.so.2", "--library-path", LIBRARIES]
    shim = server.folder / "shim.so"
    subprocess.run([COMPILER, "-w", "-shared", "-fPIC", "-O1", HERE / "rocr_shim.c", "-o", shim], check=True)
    command = [*loader, "--preload", shim, program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("target", PROFILES)
def test_rocminfo_lists_the_virtual_gpu(target: str, tmp_path: Path):
    server = Server(target, tmp_path, Doubler())
    try:
        text = run(server, ROOT / "usr/bin/rocminfo")
    finally:
        server.close()
    row = PROFILES[target]
    assert f"amdgcn-amd-amdhsa--{target}" in text
    found = {tuple(part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line}
    assert ("Compute Unit", str(row.compute_units)) in found
    assert ("Chip ID", f"{row.device_id}({row.device_id:#x})") in found
    assert all(error == 0 for _number, error in server.calls)


def start_client(target: str, folder: Path, shaders: Doubler) -> tuple[Server, Path]:
    (folder / "kernel.co").write_bytes(code_object(target))
    links = ["-L", LIBRARIES, "-l:libhsa-runtime64.so.1", "-Wl,--unresolved-symbols=ignore-in-shared-libs"]
    subprocess.run([COMPILER, "-w", HERE / "rocr_client.c", "-o", folder / "client", *links], check=True)
    return Server(f"{target}*2", folder, shaders), folder / "client"


@pytest.mark.parametrize("target", [target for target in PROFILES if target != "gfx1151"])
def test_rocm_runtime_dispatches_a_kernel_and_sees_it_finish(target: str, tmp_path: Path):
    shaders = Doubler()
    server, program = start_client(target, tmp_path, shaders)
    try:
        lines = run(server, program, str(tmp_path / "kernel.co")).splitlines()
    finally:
        server.close()
    assert lines[:-1] == [f"gpu {target}"] * len(server.gpus)
    assert lines[-1] == "signal 0 results " + " ".join(str(2 * each) for each in range(1, 65))
    assert [dispatch.grid for dispatch in shaders.dispatches] == [(64, 1, 1)]
    calls = [number for number, error in server.calls if not error]
    assert calls.count(CREATE_QUEUE) == calls.count(DESTROY_QUEUE) > 0


def test_rocm_runtime_with_a_small_save_area_is_refused_as_by_linux(tmp_path: Path):
    # Version 6.4 counts 0x40000 bytes of VGPRs for each CU of gfx1151, Linux 7.2 counts 0x60000.
    server, program = start_client("gfx1151", tmp_path, Doubler())
    try:
        with pytest.raises(AssertionError, match="Queue create failed"):
            run(server, program, str(tmp_path / "kernel.co"))
    finally:
        server.close()
    assert (CREATE_QUEUE, errno.EINVAL) in server.calls


# Our names of fields where the header's differ; `size` and others lie in its hsa_queue_t.
QUEUE = {
    "base_address": "hsa_queue.base_address", "doorbell_signal": "hsa_queue.doorbell_signal", "size": "hsa_queue.size",
    "group_aperture_base_hi": "group_segment_aperture_base_hi", "tmpring_size": "compute_tmpring_size",
    "private_aperture_base_hi": "private_segment_aperture_base_hi", "properties": "queue_properties",
    "read_dispatch_id_offset": "read_dispatch_id_field_base_byte_offset", "inactive_signal": "queue_inactive_signal",
    "scratch_address": "scratch_backing_memory_location", "scratch_bytes": "scratch_backing_memory_byte_size",
    "scratch_lane_bytes": "scratch_wave64_lane_byte_size", "write_dispatch_id": "write_dispatch_id",
    "read_dispatch_id": "read_dispatch_id", "max_cu_id": "max_cu_id", "max_wave_id": "max_wave_id",
}  # fmt: skip
SIGNAL = {
    "kind": "kind", "value": "value", "event_mailbox": "event_mailbox_ptr", "event_id": "event_id",
    "start": "start_ts", "end": "end_ts",
}  # fmt: skip


def test_queue_and_signal_lie_as_in_the_header(tmp_path: Path):
    if not (ROOT / "usr/include/hsa/amd_hsa_queue.h").exists():
        pytest.skip("TG_ROCR_ROOT has no libhsa-runtime-dev")
    lines, expected = [], []
    for c_name, struct, fields in (("amd_queue_t", AmdQueue, QUEUE), ("amd_signal_t", SignalWords, SIGNAL)):
        lines.append(f"sizeof({c_name})")
        expected.append(ctypes.sizeof(struct))
        for ours, theirs in fields.items():
            lines.append(f"offsetof({c_name}, {theirs})")
            expected.append(getattr(struct, ours).offset)
    body = "".join(f'printf("%zu ", {line});' for line in lines)
    names = ("stddef.h", "stdio.h", "hsa/amd_hsa_queue.h", "hsa/amd_hsa_signal.h")
    headers = "".join(f"#include <{name}>\n" for name in names)
    (tmp_path / "facts.c").write_text(f"{headers}int main(void) {{ {body} return 0; }}", encoding="utf-8")
    command = [COMPILER, "-w", "-I", ROOT / "usr/include", tmp_path / "facts.c", "-o", tmp_path / "facts"]
    subprocess.run(command, check=True)
    found = subprocess.run([tmp_path / "facts"], capture_output=True, text=True, check=True).stdout
    assert dict(zip(lines, map(int, found.split()), strict=True)) == dict(zip(lines, expected, strict=True))
