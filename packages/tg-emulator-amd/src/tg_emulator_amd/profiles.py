"""The machines that the emulator imitates, one row each.

Source: AMD's data sheets of the products named; Linux 7.2, amdkfd (kfd_crat.c, caches) and ip discovery; the KFD
topology as published for these products.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import EmulatorError

__all__ = ["PROFILES", "Profile", "profile"]

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Profile:
    """One GPU. Caches in KiB; clocks in MHz; `device_id` is PCI's."""

    target: str
    product: str
    device_id: int
    gfx_version: int
    """As sysfs has it: 10000 * major + 100 * minor + stepping."""
    compute_units: int
    xccs: int
    shader_arrays: int
    cus_per_array: int
    simds_per_cu: int
    waves_per_simd: int
    wave_sizes: tuple[int, ...]
    vgprs_per_simd: int
    """Registers of one lane that the waves of a SIMD share."""
    lds_bytes: int
    l1_kib: int
    l2_kib: int
    mall_kib: int
    clock_mhz: int
    memory_clock_mhz: int
    memory_bits: int
    vram_bytes: int
    sdma_engines: int
    xgmi_engines: int
    sdma_version: int

    @property
    def family(self) -> int:
        """The major version of the instruction set: 9, 11 or 12."""
        return self.gfx_version // 10000


_W64, _BOTH = (64,), (32, 64)
PROFILES = {
    row.target: row
    for row in (
        Profile(
            "gfx942", "AMD Instinct MI300X", 0x74A1, 90402, 304, 8, 32, 10, 4, 8, _W64, 512, 64 * _KIB,
            32, 4096, 262144, 2100, 1300, 8192, 192 * _GIB, 2, 14, 0x404,
        ),
        Profile(
            "gfx950", "AMD Instinct MI350X", 0x75A0, 90500, 256, 8, 32, 9, 4, 8, _W64, 512, 160 * _KIB,
            32, 4096, 262144, 2200, 1900, 8192, 288 * _GIB, 2, 14, 0x404,
        ),
        Profile(
            "gfx1100", "AMD Radeon RX 7900 XTX", 0x744C, 110000, 96, 1, 12, 8, 2, 16, _BOTH, 1536, 64 * _KIB,
            32, 6144, 98304, 2482, 1249, 384, 24 * _GIB, 2, 0, 0x600,
        ),
        Profile(
            "gfx1151", "AMD Radeon 8060S", 0x1586, 110501, 40, 1, 4, 10, 2, 16, _BOTH, 1536, 64 * _KIB,
            32, 2048, 32768, 2900, 1000, 256, 512 * _MIB, 1, 0, 0x610,
        ),
        Profile(
            "gfx1201", "AMD Radeon RX 9070 XT", 0x7550, 120001, 64, 1, 8, 8, 2, 16, _BOTH, 1536, 64 * _KIB,
            32, 8192, 65536, 2970, 1258, 256, 16 * _GIB, 2, 0, 0x700,
        ),
    )
}  # fmt: skip


def profile(target: str) -> Profile:
    """The row of a target. Raises: EmulatorError for one that there is no row of."""
    if target not in PROFILES:
        raise EmulatorError(f"profile: got {target!r}, want one of {', '.join(PROFILES)}")
    return PROFILES[target]
