"""A kernel interface that has files and answers the ioctls that are needed to list GPUs."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

ROOT = "/sys/class/kfd/kfd/topology"
MI300X = {
    "simd_count": 1216,
    "simd_per_cu": 4,
    "max_waves_per_simd": 8,
    "lds_size_in_kb": 64,
    "array_count": 32,
    "simd_arrays_per_engine": 1,
    "max_slots_scratch_cu": 32,
    "gfx_target_version": 90402,
    "drm_render_minor": 128,
    "num_xcc": 8,
    "device_id": 0x74A1,
    "mem_banks_count": 1,
    "io_links_count": 1,
}


def node_files(number: int, gpu_id: int, properties: dict[str, int]) -> dict[str, str]:
    """The sysfs files of one node, with a memory bank and a link where its properties count them."""
    folder = f"{ROOT}/nodes/{number}"
    files = {
        "gpu_id": str(gpu_id),
        "name": "\n",
        "properties": "".join(f"{name} {value}\n" for name, value in properties.items()),
        "mem_banks/0/properties": "heap_type 1\nsize_in_bytes 206141652992\nflags 0\nwidth 8192\nmem_clk_max 1300\n",
        "io_links/0/properties": f"type 11\nnode_from {number}\nnode_to 2\nweight 15\nmax_bandwidth 50000\n",
    }
    return {f"{folder}/{name}": text for name, text in files.items()}


class FakeKernel:
    """`files` by path; a value that is an int is the errno of reading or opening it."""

    def __init__(self, files: dict[str, str | int], version: tuple[int, int] = (1, 14)):
        self.files: dict[str, str | int] = {f"{ROOT}/generation_id": "1", "/dev/kfd": "", **files}
        self.version = version

    def _look(self, path: str) -> str:
        value = self.files.get(path, errno.ENOENT)
        if isinstance(value, int):
            raise OSError(value, os.strerror(value))
        return value

    def open(self, path: str) -> int:
        self._look(path)
        return 1000

    def close(self, descriptor: int) -> None:
        pass

    def ioctl(self, descriptor: int, request: int, address: int) -> None:
        if request & 0xFF == 0x01:
            ctypes.memmove(address, struct.pack("<II", *self.version), 8)
        elif request & 0xFF == 0x14:
            ctypes.memmove(address + 8, struct.pack("<I", 0), 4)
        else:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def read(self, source: str | int) -> bytes:
        return self._look(str(source)).encode()

    def log(self) -> list[str]:
        return []
