"""Kernels as Python functions, for tests of what surrounds the instruction interpreter."""

from __future__ import annotations

import struct

import numpy as np

from tg_emulator_amd import Dispatch, Figures, Memory, Profile

DESCRIPTOR_BYTES = 64


class Doubler:
    """Doubles the dwords of one buffer into another: kernel arguments (source, destination). Keeps the dispatches."""

    def __init__(self) -> None:
        self.dispatches: list[Dispatch] = []

    def __call__(self, dispatch: Dispatch, memory: Memory, profile: Profile) -> Figures:
        self.dispatches.append(dispatch)
        memory.check(dispatch.entry, 4, "execute")
        kernargs = dispatch.user_sgprs[0] | dispatch.user_sgprs[1] << 32
        source, destination = struct.unpack("<QQ", memory.read(kernargs, 16))
        values = np.frombuffer(memory.read(source, 4 * dispatch.grid[0]), np.uint32)
        memory.write(destination, (values * 2).tobytes())
        return Figures(waves=1)


def code_object(target: str, private_bytes: int = 0, group_bytes: int = 0) -> bytes:
    """A code object with one kernel, `double`, that takes two buffers; its code is never looked at."""
    from tg_codegen.amdgpu.code_object import Argument, Kernel, write_code_object
    from tg_codegen.amdgpu.isa import isa
    from tg_codegen.amdgpu.kernel_descriptor import KernelDescriptor

    descriptor = KernelDescriptor(
        8,
        8,
        accum_offset=8 if target in ("gfx942", "gfx950") else None,
        user_sgpr_kernarg_segment_ptr=1,
        private_segment_fixed_size=private_bytes,
        group_segment_fixed_size=group_bytes,
        enable_private_segment=int(private_bytes > 0),
    )
    arguments = [
        Argument("global_buffer", 8, name="source"),
        Argument("global_buffer", 8, name="destination"),
    ]
    code = bytes(isa(target).s_endpgm())
    return write_code_object(target, [Kernel("double", code, descriptor, arguments)])
