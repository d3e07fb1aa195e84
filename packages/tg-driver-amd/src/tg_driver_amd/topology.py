"""The topology of CPUs and GPUs as KFD tells it in sysfs: nodes, caches, memory banks and links.

A node is a CPU socket or a GPU; a GPU that is partitioned (MI300's CPX or DPX mode) is a node per partition.
Source: Linux 7.2, drivers/gpu/drm/amd/amdkfd, kfd_topology.c (files), kfd_queue.c (sizes of a queue's save areas),
include/uapi/linux/kfd_sysfs.h (flags).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import NoDeviceError
from .interface import KernelInterface

__all__ = ["TARGETS", "Link", "Node", "SaveArea", "read_topology", "target_name"]

_ROOT = "/sys/class/kfd/kfd/topology"
# What the driver knows how to drive: target, and the major version of its instruction set.
TARGETS = {"gfx942": 9, "gfx950": 9, "gfx1100": 11, "gfx1151": 11, "gfx1201": 12}
_HEAP_PUBLIC, _HEAP_PRIVATE = 1, 2
_LINK_TYPES = {2: "PCIe", 11: "XGMI"}
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Link:
    """A way from one node to another; bandwidths in MB/s, 0 where unknown."""

    kind: str
    node_from: int
    node_to: int
    weight: int
    min_bandwidth: int
    max_bandwidth: int
    is_peer: bool


@dataclass(frozen=True, slots=True)
class SaveArea:
    """Sizes in bytes that a compute queue's buffers must have; per XCC but for `total`."""

    control_stack: int
    context: int
    debug: int
    total: int
    eop: int = PAGE_BYTES


@dataclass(slots=True)
class Node:
    """One node; `properties` holds sysfs's numbers by their names there."""

    number: int
    gpu_id: int
    name: str
    properties: dict[str, int]
    memory_banks: list[dict[str, int]] = field(default_factory=list)
    caches: list[dict[str, int]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def __getitem__(self, name: str) -> int:
        """A property; 0 where this kernel does not tell it."""
        return self.properties.get(name, 0)

    @property
    def target(self) -> str:
        return target_name(self["gfx_target_version"])

    @property
    def render_path(self) -> str:
        return f"/dev/dri/renderD{self['drm_render_minor']}"

    @property
    def xccs(self) -> int:
        return max(1, self["num_xcc"])

    @property
    def compute_units(self) -> int:
        return self["simd_count"] // max(1, self["simd_per_cu"])

    @property
    def vram_bytes(self) -> int:
        heaps = (_HEAP_PUBLIC, _HEAP_PRIVATE)
        return sum(bank["size_in_bytes"] for bank in self.memory_banks if bank["heap_type"] in heaps)

    @property
    def has_host_visible_vram(self) -> bool:
        return any(bank["heap_type"] == _HEAP_PUBLIC for bank in self.memory_banks)

    @property
    def save_area(self) -> SaveArea:
        """As the kernel computes and checks them; sysfs has the first two since Linux 6.3."""
        version, cus = self["gfx_target_version"], self.compute_units // self.xccs
        waves = cus * 32
        if version < 100100:
            engines = self["array_count"] // self.xccs // max(1, self["simd_arrays_per_engine"])
            waves = min(cus * 40, engines * 512)
        vgprs = _VGPR_BYTES_PER_CU.get(version, 0x40000)
        lds = self["lds_size_in_kb"] << 10 if version == 90500 else 0x10000
        context = _align(cus * (vgprs + _SGPR_BYTES_PER_CU + lds + _HWREG_BYTES_PER_CU))
        stack = _align(_HEADER_BYTES + waves * (12 if version >= 100100 else 8) + 8)
        stack = self["ctl_stack_size"] or stack
        size = self["cwsr_size"] or _align(stack + context)
        debug = -(-waves * 32 // 64) * 64
        return SaveArea(stack, size, debug, _align((size + debug) * self.xccs))


_SGPR_BYTES_PER_CU, _HWREG_BYTES_PER_CU, _HEADER_BYTES = 0x4000, 0x1000, 40
_VGPR_BYTES_PER_CU = {
    90402: 0x80000,
    90500: 0x80000,
    110000: 0x60000,
    110001: 0x60000,
    110501: 0x60000,
    120000: 0x60000,
    120001: 0x60000,
}


def _align(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def target_name(version: int) -> str:
    """`gfx942` for 90402, `gfx90a` for 90010."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def read_topology(interface: KernelInterface) -> list[Node]:
    """All nodes, CPUs too. Raises: NoDeviceError where there is no topology."""
    try:
        interface.read(f"{_ROOT}/generation_id")
    except OSError as error:
        raise NoDeviceError(
            f"{_ROOT}: got {error.strerror}; the amdgpu kernel module is not loaded, or there is no AMD GPU here"
        ) from error
    nodes: list[Node] = []
    while (gpu_id := _read(interface, f"{_ROOT}/nodes/{len(nodes)}/gpu_id")) is not None:
        nodes.append(_read_node(interface, len(nodes), int(gpu_id or 0)))
    return nodes


def _read_node(interface: KernelInterface, number: int, gpu_id: int) -> Node:
    folder = f"{_ROOT}/nodes/{number}"
    # A GPU that a cgroup hides cannot be read: it stays a node without properties.
    node = Node(number, gpu_id, _read(interface, f"{folder}/name") or "", {})
    node.properties = _parse(_read(interface, f"{folder}/properties"))
    node.memory_banks = _read_all(interface, f"{folder}/mem_banks", node["mem_banks_count"])
    node.caches = _read_all(interface, f"{folder}/caches", node["caches_count"])
    for kind, is_peer in (("io_links", False), ("p2p_links", True)):
        for each in _read_all(interface, f"{folder}/{kind}", node[f"{kind}_count"]):
            bandwidth = each.get("min_bandwidth", 0), each.get("max_bandwidth", 0)
            name = _LINK_TYPES.get(each["type"], f"type {each['type']}")
            link = Link(name, each["node_from"], each["node_to"], each["weight"], *bandwidth, is_peer)
            node.links.append(link)
    return node


def _read_all(interface: KernelInterface, folder: str, count: int) -> list[dict[str, int]]:
    found = (_read(interface, f"{folder}/{number}/properties") for number in range(count))
    return [_parse(text) for text in found if text]


def _read(interface: KernelInterface, path: str) -> str | None:
    """A file's text; "" where it may not be read, None where there is none."""
    try:
        return interface.read(path).decode().strip()
    except FileNotFoundError:
        return None
    except PermissionError:
        return ""


def _parse(text: str | None) -> dict[str, int]:
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
