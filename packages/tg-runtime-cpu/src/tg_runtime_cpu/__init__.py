"""Running x86-64 kernels on native worker threads: the device `CPU`."""

from __future__ import annotations

from tg_runtime_cpu.abi import LoadedBinary
from tg_runtime_cpu.errors import OutOfMemoryError, WorkTimeoutError
from tg_runtime_cpu.memory import CpuMemory
from tg_runtime_cpu.recording import CpuRecording
from tg_runtime_cpu.runtime import CpuRuntime

__all__ = ["CpuMemory", "CpuRecording", "CpuRuntime", "LoadedBinary", "OutOfMemoryError", "WorkTimeoutError"]
