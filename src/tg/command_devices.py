"""`tg devices`: what was found to compute on, what is supported, and why something is not used."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.util import find_spec
from pathlib import Path

from tg.engine import install
from tg_frontend import Device
from tg_frontend.engine import current_engine

__all__ = ["amd_gpus", "cpu_name", "cpu_verdict", "run"]

AMD_TARGETS = {
    (11, 0, 0): "gfx1100", (11, 5, 1): "gfx1151", (12, 0, 1): "gfx1201", (9, 4, 2): "gfx942", (9, 5, 0): "gfx950",
}  # fmt: skip
_TOPOLOGY = Path("/sys/class/kfd/kfd/topology/nodes")
_EXTENSIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def run(options: argparse.Namespace) -> int:
    """Print a line for each device, and the default."""
    install()
    used, why = cpu_verdict()
    print(f"CPU   {cpu_name()}, {os.cpu_count()} threads")
    print(f"      {'compiled for' if used else 'not compiled for:'} {why}")
    for name, verdict in amd_gpus():
        print(f"AMD   {name}\n      {verdict}")
    print("REF   the interpreter: every machine with NumPy, and slow")
    print(
        f"\ndefault: {Device.default}; another with TG_DEVICE or --device; of {', '.join(current_engine().devices())}"
    )
    return 0


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in [line.partition(":") for line in lines]}


def cpu_name() -> str:
    """The processor as the system calls it."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def cpu_verdict() -> tuple[bool, str]:
    """Whether kernels are compiled for this CPU, and with which extensions or why not."""
    flags = set(_cpu_info().get("flags", "").split())
    found = [name for name in _EXTENSIONS if name in flags]
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() != "Linux":
        return False, f"found {platform.system()} on {platform.machine()}, supported is Linux on x86_64"
    if not {"avx2", "fma"} <= flags:
        return False, f"found {', '.join(found) or 'neither'}, want avx2 and fma"
    if find_spec("tg_codegen.x86_64.backend") is None:
        return False, "this version of tg-codegen assembles for x86_64 but does not compile yet"
    return True, ", ".join(found)


def amd_gpus() -> list[tuple[str, str]]:
    """Each AMD GPU that the kernel driver shows, with whether it can be used."""
    if not _TOPOLOGY.is_dir():
        return [("none", "the kernel shows no AMD GPU (no amdgpu driver, or no GPU)")]
    found = []
    for node in sorted(_TOPOLOGY.iterdir(), key=lambda path: int(path.name)):
        words = (node / "properties").read_text(encoding="utf-8").split()
        values = dict(zip(words[::2], words[1::2], strict=False))
        version = int(values.get("gfx_target_version", 0))
        if not version:
            continue  # a CPU
        target = (version // 10000, version // 100 % 100, version % 100)
        name = AMD_TARGETS.get(target) or "gfx{}{:x}{:x}".format(*target)
        found.append((f"{name}, node {node.name}", _amd_verdict(target)))
    return found or [("none", "the kernel driver is there and shows no GPU")]


def _amd_verdict(target: tuple[int, int, int]) -> str:
    if target not in AMD_TARGETS:
        return f"not supported; supported are {', '.join(AMD_TARGETS.values())}"
    if not os.access("/dev/kfd", os.R_OK | os.W_OK):
        return "not used: no permission on /dev/kfd; join the group `render`, then log in again"
    if find_spec("tg_runtime_amd") is None:
        return "not used: tg-runtime-amd is not installed"
    return "found"
