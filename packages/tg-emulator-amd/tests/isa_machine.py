"""A small machine for the interpreter's tests: flat memory, kernels by clang or our assembler, dispatches by hand."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tg_codegen.amdgpu.assembler import assemble
from tg_codegen.amdgpu.code_object import Argument, CodeObject, Kernel, read_code_object, write_code_object
from tg_codegen.amdgpu.isa import isa
from tg_codegen.amdgpu.kernel_descriptor import KernelDescriptor
from tg_emulator_amd.errors import MemoryFault
from tg_emulator_amd.interface import Dispatch, Figures
from tg_emulator_amd.isa import run_dispatch
from tg_emulator_amd.profiles import profile

TARGETS = ("gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")
BASE = 0x7F00_0000_0000


class FlatMemory:
    """One array, allocated upwards; every allocation has its rights and a gap behind it."""

    def __init__(self, size: int = 64 << 20):
        self.backing = np.zeros(size, np.uint8)
        self.rights = np.zeros(size >> 8, np.uint8)  # 1 read, 2 write, 4 execute; by 256 bytes
        self.end = 4096

    def allocate(self, data: bytes | np.ndarray | int, rights: int = 3) -> int:
        blob = np.zeros(data, np.uint8) if isinstance(data, int) else np.frombuffer(bytes(data), np.uint8)
        at = self.end
        self.backing[at : at + len(blob)] = blob
        self.rights[at >> 8 : (at + len(blob) + 255) >> 8] = rights
        self.end = (at + len(blob) + 8191) & ~4095
        return BASE + at

    def translate(self, addresses: np.ndarray, size: int, access: str) -> np.ndarray:
        offsets = np.asarray(addresses).astype(np.int64) - BASE
        bit = {"read": 1, "write": 2, "execute": 4}[access]
        inside = (offsets >= 0) & (offsets + size <= len(self.backing))
        safe = np.where(inside, offsets, 0)
        wrong = (
            ~inside | (self.rights[safe >> 8] & bit == 0) | (self.rights[(safe + size - 1) >> 8] & bit == 0)
        )
        if wrong.any():
            k = int(wrong.argmax())
            mapped = inside.flat[k] and self.rights[safe.flat[k] >> 8]
            reason = f"no permission to {access}" if mapped else "not mapped"
            raise MemoryFault(int(np.asarray(addresses).flat[k]), size, access, reason)
        return offsets

    def check(self, address: int, size: int, access: str) -> None:
        self.translate(np.array([address], np.uint64), size, access)

    def read(self, address: int, size: int) -> bytes:
        return self.backing[address - BASE : address - BASE + size].tobytes()

    def array(self, address: int, size: int, access: str = "read") -> np.ndarray:
        return self.backing[address - BASE : address - BASE + size]


_PRELUDE = """
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#define LID(d) __builtin_amdgcn_workitem_id_##d()
#define WID(d) __builtin_amdgcn_workgroup_id_##d()
#define WSIZE(d) __builtin_amdgcn_workgroup_size_##d()
#define GID(d) (WID(d) * WSIZE(d) + LID(d))
#define BARRIER() do { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"); __builtin_amdgcn_s_barrier(); \\
                       __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup"); } while (0)
"""


@functools.cache
def compile_opencl(source: str, target: str, *options: str) -> CodeObject:
    clang = shutil.which("clang-22")
    if clang is None or shutil.which("ld.lld-22") is None:
        pytest.skip("clang-22 and lld-22 are not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "k.cl"
        path.write_text(_PRELUDE + source)
        out = path.with_suffix(".co")
        done = subprocess.run(
            [clang, "-x", "cl", "-cl-std=CL2.0", "-target", "amdgcn-amd-amdhsa", f"-mcpu={target}", "-nogpulib",
             "-Xclang", "-finclude-default-header", "-O2", *options, str(path), "-o", str(out)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return read_code_object(out.read_bytes())


def assemble_kernel(text: str, target: str) -> CodeObject:
    """A kernel `k` of one pointer in s[0:1], its work-item in v0 and its workgroup in s8, from assembly text."""
    gfx9 = target.startswith("gfx9")
    descriptor = KernelDescriptor(
        128, 32, user_sgpr_count=8, user_sgpr_kernarg_segment_ptr=1, accum_offset=128 if gfx9 else None,
        kernarg_size=64,
    )  # fmt: skip
    code = assemble(text, isa(target)).code
    argument = Argument("global_buffer", 8, 0)
    return read_code_object(write_code_object(target, [Kernel("k", code, descriptor, [argument])]))


def load_elf(memory: FlatMemory, code: CodeObject) -> int:
    """Place a code object's sections; the address that its own addresses are relative to."""
    sections = [s for s in code.elf.sections if s.flags & 2 and s.size]
    size = max(s.address + s.size for s in sections)
    image = bytearray(size)
    for s in sections:
        if s.type != 8:
            image[s.address : s.address + s.size] = code.elf.section_bytes(s)
    return memory.allocate(bytes(image), 7)


def launch(
    code: CodeObject, name: str, target: str, grid: tuple, workgroup: tuple, *arguments: object, lds_bytes: int = 0,
    memory: FlatMemory | None = None, **options: object,
) -> tuple[list[np.ndarray], Figures]:  # fmt: skip
    """Run a kernel: arrays are uploaded and come back, bytes and numbers are passed as they are."""
    memory = memory or FlatMemory()
    base = load_elf(memory, code)
    kernel = code.kernel(name)
    descriptor = kernel.descriptor
    grid, workgroup = (tuple(x) + (1,) * (3 - len(x)) for x in (grid, workgroup))
    kernarg = bytearray(
        max(descriptor.kernarg_size or 0, kernel.metadata.get(".kernarg_segment_size", 0)) + 64
    )
    arrays, explicit = [], [a for a in kernel.arguments if not a.value_kind.startswith("hidden")]
    for argument, value in zip(explicit, arguments, strict=False):
        if isinstance(value, np.ndarray):
            address = memory.allocate(np.ascontiguousarray(value).tobytes())
            arrays.append((address, value))
            value = struct.pack("<Q", address)
        elif isinstance(value, int):
            value = (value & (1 << argument.size * 8) - 1).to_bytes(argument.size, "little")
        elif isinstance(value, float):
            value = struct.pack("<f" if argument.size == 4 else "<d", value)
        kernarg[argument.offset : argument.offset + argument.size] = value
    hidden = {}
    for axis, letter in enumerate("xyz"):
        hidden[f"hidden_block_count_{letter}"] = grid[axis] // workgroup[axis]
        hidden[f"hidden_group_size_{letter}"] = workgroup[axis]
        hidden[f"hidden_remainder_{letter}"] = grid[axis] % workgroup[axis]
    hidden |= {"hidden_grid_dims": 3, "hidden_private_base": 2 << 16, "hidden_shared_base": 1 << 16}
    for argument in kernel.arguments:
        if argument.value_kind in hidden:
            value = hidden[argument.value_kind]
            kernarg[argument.offset : argument.offset + argument.size] = value.to_bytes(
                argument.size, "little"
            )
    pointer = memory.allocate(bytes(kernarg), 1)
    packet = struct.pack("<HHHHHHIII", 0x1502, 3, *workgroup, 0, *grid) + bytes(36)
    sgprs: list[int] = []
    words = {
        "dispatch_ptr": memory.allocate(packet, 1), "queue_ptr": 0, "kernarg_segment_ptr": pointer, "dispatch_id": 0,
    }  # fmt: skip
    for field, value in words.items():
        if descriptor.value(f"user_sgpr_{field}", target):
            sgprs += [value & 0xFFFFFFFF, value >> 32]
    if descriptor.value("user_sgpr_private_segment_size", target):
        sgprs.append(descriptor.private_segment_fixed_size or 0)
    entry = base + kernel.address
    if preload := descriptor.user_sgpr_kernarg_preload_length or 0:
        first = 4 * (descriptor.user_sgpr_kernarg_preload_offset or 0)
        sgprs += struct.unpack_from(f"<{preload}I", kernarg, first)
        entry += 256
    raw = descriptor.encode(target)
    rsrc3, rsrc1, rsrc2 = struct.unpack_from("<3I", raw, 44)
    dispatch = Dispatch(
        target, entry, grid, workgroup, rsrc1, rsrc2, rsrc3, sgprs,
        (descriptor.group_segment_fixed_size or 0) + lds_bytes, descriptor.private_segment_fixed_size or 0, 0,
        descriptor.wave_size(target), name,
    )  # fmt: skip
    figures = run_dispatch(dispatch, memory, profile(target), **options)
    results = [memory.array(a, v.nbytes).view(v.dtype).reshape(v.shape).copy() for a, v in arrays]
    return results, figures
