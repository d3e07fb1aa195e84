"""The topology that a kernel with these GPUs would show in sysfs: path -> text.

Source: Linux 7.2, amdkfd, kfd_topology.c (files and their lines), kfd_queue.c (sizes of save areas), kfd_crat.c
(links), include/uapi/linux/kfd_sysfs.h (capability and flag bits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .profiles import Profile

__all__ = ["ROOT", "Gpu", "make_tree", "save_area_bytes"]

ROOT = "/sys/class/kfd/kfd/topology"
_CPU_CORES, _CPU_MEMORY = 16, 64 << 30
_HEAP_SYSTEM, _HEAP_PUBLIC, _HEAP_PRIVATE = 0, 1, 2
_PCIE, _XGMI = 2, 11
# HSA_CAP: queue sizes are powers of 2, doorbells of type 2 (64 bits), shared virtual memory; on MI300 SRAM ECC.
_CAPABILITY, _CAPABILITY_SRAM_ECC = 1 << 3 | 2 << 12 | 1 << 27, 1 << 26
_LINK_ENABLED = 1 << 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the kernel sees it; a partition has a share of the profile's XCCs and memory."""

    gpu_id: int
    node: int
    render_minor: int
    profile: Profile
    xccs: int
    vram_bytes: int
    hive_id: int
    host_visible: bool = True

    @property
    def compute_units(self) -> int:
        return self.profile.compute_units * self.xccs // self.profile.xccs


def save_area_bytes(gpu: Gpu) -> tuple[int, int, int]:
    """Control stack, context and debug area of one XCC, as kfd_queue_ctx_save_restore_size computes them."""
    profile, cus = gpu.profile, gpu.compute_units // gpu.xccs
    is_gfx9 = profile.family == 9
    vgpr_bytes = {9: 0x80000}.get(profile.family, 0x60000)
    lds = profile.lds_bytes if profile.gfx_version == 90500 else 0x10000
    engines = profile.shader_arrays // profile.xccs
    waves = min(cus * 40, engines * 512) if is_gfx9 else cus * 32
    stack = _pages(40 + waves * (8 if is_gfx9 else 12) + 8)
    context = _pages(stack + _pages(cus * (vgpr_bytes + 0x4000 + lds + 0x1000)))
    return stack, context, -(-waves * 32 // 64) * 64


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096


def make_tree(gpus: Sequence[Gpu]) -> dict[str, str]:
    """All files. Node 0 is the CPU, also beside an APU, whose GPU KFD treats as it does any other."""
    tree = {
        f"{ROOT}/generation_id": "1\n",
        f"{ROOT}/system_properties": "platform_oem 0\nplatform_id 0\nplatform_rev 0\n",
        "/sys/module/amdgpu/initstate": "live\n",
    }
    links = [_link(_PCIE, 0, gpu.node, 20, 64000) for gpu in gpus]
    cpu = {"cpu_cores_count": _CPU_CORES, "mem_banks_count": 1, "max_engine_clk_ccompute": 4500}
    _add_node(tree, 0, 0, "", cpu, [_bank(_HEAP_SYSTEM, _CPU_MEMORY, 64, 2400)], [], links)
    for gpu in gpus:
        heap = _HEAP_PUBLIC if gpu.host_visible else _HEAP_PRIVATE
        banks = [_bank(heap, gpu.vram_bytes, gpu.profile.memory_bits, gpu.profile.memory_clock_mhz)]
        links = [_link(_PCIE, gpu.node, 0, 20, 64000)]
        peers = [other for other in gpus if other is not gpu]
        hive = [
            _link(_XGMI, gpu.node, each.node, 15, 50000) for each in peers if gpu.hive_id == each.hive_id != 0
        ]
        far = [
            _link(_PCIE, gpu.node, each.node, 40, 64000)
            for each in peers
            if not gpu.hive_id == each.hive_id != 0
        ]
        _add_node(
            tree,
            gpu.node,
            gpu.gpu_id,
            gpu.profile.target,
            _properties(gpu),
            banks,
            _caches(gpu),
            links + hive,
            far,
        )
    return tree


def _properties(gpu: Gpu) -> dict[str, int]:
    profile = gpu.profile
    stack, context, _debug = save_area_bytes(gpu)
    return {
        "cpu_cores_count": 0,
        "simd_count": gpu.compute_units * profile.simds_per_cu,
        "simd_id_base": 0x80000000 + 0x1000 * gpu.node,
        "max_waves_per_simd": profile.waves_per_simd,
        "lds_size_in_kb": profile.lds_bytes >> 10,
        "wave_front_size": profile.wave_sizes[0],
        "array_count": profile.shader_arrays * gpu.xccs // profile.xccs,
        "simd_arrays_per_engine": 1 if profile.family == 9 else 2,
        "cu_per_simd_array": profile.cus_per_array,
        "simd_per_cu": profile.simds_per_cu,
        "max_slots_scratch_cu": 32,
        "gfx_target_version": profile.gfx_version,
        "vendor_id": 0x1002,
        "device_id": profile.device_id,
        "location_id": gpu.node << 8,
        "drm_render_minor": gpu.render_minor,
        "hive_id": gpu.hive_id,
        "num_sdma_engines": profile.sdma_engines,
        "num_sdma_xgmi_engines": profile.xgmi_engines,
        "num_sdma_queues_per_engine": 8,
        "num_cp_queues": 24 if profile.family == 9 else 8,
        "num_gws": 64 if profile.family == 9 else 0,
        "cwsr_size": context,
        "ctl_stack_size": stack,
        "max_engine_clk_fcompute": profile.clock_mhz,
        "local_mem_size": 0,
        "fw_version": 2000,
        "capability": _CAPABILITY | (_CAPABILITY_SRAM_ECC if profile.family == 9 else 0),
        "capability2": 0,
        "debug_prop": 1511,
        "sdma_fw_version": 24,
        "unique_id": 0x1002_0000_0000_0000 + gpu.gpu_id,
        "num_xcc": gpu.xccs,
        "max_engine_clk_ccompute": 4500,
    }


def _bank(heap: int, size: int, width: int, clock: int) -> dict[str, int]:
    return {"heap_type": heap, "size_in_bytes": size, "flags": 0, "width": width, "mem_clk_max": clock}


def _caches(gpu: Gpu) -> list[dict[str, int]]:
    # Data and HSA compute; level 3 is the memory-side cache.
    sizes = (gpu.profile.l1_kib, gpu.profile.l2_kib, gpu.profile.mall_kib)
    lines = (64 if gpu.profile.family == 9 else 128, 128, 64)
    return [
        {"processor_id_low": 0x80000000 + 0x1000 * gpu.node, "level": level, "size": size, "cache_line_size": line,
         "cache_lines_per_tag": 1, "association": 16, "latency": 0, "type": 9}
        for level, size, line in zip((1, 2, 3), sizes, lines, strict=True)
    ]  # fmt: skip


def _link(kind: int, node_from: int, node_to: int, weight: int, bandwidth: int) -> dict[str, int]:
    flags = _LINK_ENABLED
    return {
        "type": kind, "version_major": 0, "version_minor": 0, "node_from": node_from, "node_to": node_to,
        "weight": weight, "min_latency": 0, "max_latency": 0, "min_bandwidth": bandwidth, "max_bandwidth": bandwidth,
        "recommended_transfer_size": 0, "recommended_sdma_engine_id_mask": 0, "flags": flags,
    }  # fmt: skip


def _add_node(
    tree: dict[str, str],
    node: int,
    gpu_id: int,
    name: str,
    properties: dict[str, int],
    banks: list[dict[str, int]],
    caches: list[dict[str, int]],
    links: list[dict[str, int]],
    peers: Sequence[dict[str, int]] = (),
) -> None:
    folder = f"{ROOT}/nodes/{node}"
    counts = {"mem_banks_count": len(banks), "caches_count": len(caches)}
    counts |= {"io_links_count": len(links), "p2p_links_count": len(peers)}
    tree[f"{folder}/gpu_id"] = f"{gpu_id}\n"
    tree[f"{folder}/name"] = f"{name}\n"
    tree[f"{folder}/properties"] = _text(properties | counts)
    lists = {"mem_banks": banks, "caches": caches, "io_links": links, "p2p_links": peers}
    for kind, rows in lists.items():
        for number, row in enumerate(rows):
            tree[f"{folder}/{kind}/{number}/properties"] = _text(row)


def _text(properties: dict[str, int]) -> str:
    return "".join(f"{name} {value}\n" for name, value in properties.items())
