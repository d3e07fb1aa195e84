"""What this machine is, as a target."""

from __future__ import annotations

from functools import cache

from tg_ir.errors import TgError

__all__ = ["host_target"]


@cache
def host_target() -> str:
    """The best target that this CPU runs. Raises: TgError, with what was found and what is supported."""
    with open("/proc/cpuinfo") as file:
        line = next((line for line in file if line.startswith("flags")), "")
    flags = set(line.split())
    if {"amx_tile", "amx_bf16", "amx_int8", "avx512f"} <= flags:
        return "x86_64:amx"
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_fp16", "avx512_bf16", "avx512_vnni"} <= flags:
        return "x86_64:avx512"
    if {"avx2", "fma", "f16c", "bmi1", "bmi2"} <= flags:
        return "x86_64:avx2"
    raise TgError(
        "CPU: got one without AVX2, FMA, F16C and BMI2, want these at least; the reference interpreter still works: "
        "TG_DEVICE=REF"
    )
