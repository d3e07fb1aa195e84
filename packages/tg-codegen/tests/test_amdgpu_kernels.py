"""Every instruction of compiled and hand-tuned kernels: to text and back gives the same bytes.

clang-22's come from the OpenCL below. TG_AITER names a wheel of PyPI's amd-aiter (gfx942 and gfx950, hand-tuned).
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import struct
import subprocess
import zipfile

import pytest

from tg_codegen.amdgpu.assembler import assemble
from tg_codegen.amdgpu.disassembler import decode_all, disassemble
from tg_codegen.amdgpu.isa import isa

# ruff: noqa: E501
CLANG = shutil.which("clang-22")
AITER = os.environ.get("TG_AITER", "")
TARGETS = ("gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")

OPENCL = r"""
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
kernel void saxpy(global float *y, global const float *x, float a) { size_t i = get_global_id(0); y[i] = a * x[i] + y[i]; }
kernel void matmul(global float *c, global const float *a, global const float *b, int n) {
  local float ta[16][17], tb[16][17];
  int x = get_local_id(0), y = get_local_id(1); float s = 0;
  for (int k = 0; k < n; k += 16) {
    ta[y][x] = a[get_global_id(1) * n + k + x]; tb[y][x] = b[(k + y) * n + get_global_id(0)];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < 16; i++) s += ta[y][i] * tb[i][x];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  c[get_global_id(1) * n + get_global_id(0)] = s;
}
kernel void halves(global half *y, global const half *x, global const short *z) {
  size_t i = get_global_id(0); half8 v = vload8(i, x); short8 w = vload8(i, z);
  vstore8(fma(v, v, convert_half8(w)) * max(v, (half8)(0)), i, y);
}
kernel void doubles(global double *y, global const long *x) { size_t i = get_global_id(0); y[i] = sqrt((double)x[i]) / (y[i] + 1.0) + fma(y[i], y[i], 2.5); }
kernel void integers(global uint *y, global const uchar *x, global ulong *w) {
  size_t i = get_global_id(0); uint s = 0; ulong p = 1;
  for (uint j = 0; j < x[i]; j++) { s += popcount(y[i] ^ j) * clz(s + j) + rotate(s, 5u); p = p * w[j] + (p >> (j & 63)); if (s & 4) s /= j + 3; }
  y[i] = s; w[i] = p; atomic_add(&y[0], s); atomic_max((global int *)&y[1], (int)s);
}
kernel void transcendental(global float4 *y) { size_t i = get_global_id(0); y[i] = native_exp(y[i]) + native_sin(y[i]) + exp2(y[i]) / rsqrt(y[i]); }
kernel void stack(global int *y, int k) { int a[64]; for (int i = 0; i < 64; i++) a[i] = y[i] * i; for (int i = 0; i < k; i++) a[a[i] & 63] += i; y[get_global_id(0)] = a[k & 63]; }
kernel void reduction(global float *y, local float *t) {
  int l = get_local_id(0); t[l] = y[get_global_id(0)];
  for (int d = get_local_size(0) / 2; d; d /= 2) { barrier(CLK_LOCAL_MEM_FENCE); if (l < d) t[l] += t[l + d]; }
  if (!l) y[get_group_id(0)] = t[0];
}
"""


def text_sections(data: bytes) -> list[bytes]:
    """The executable sections of an ELF64 file."""
    (start,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    out = []
    for index in range(count):
        kind, flags, _, offset, length = struct.unpack_from("<IQQQQ", data, start + index * size + 4)
        if kind == 1 and flags & 4:
            out.append(data[offset : offset + length])
    return out


def round_trip(code: bytes, target: str) -> tuple[int, int, int]:
    """(instructions, those with unused bits set, words that are none). Asserts that text gives the same bytes."""
    instructions = isa(target)
    lines = disassemble(code, instructions)
    assert assemble("\n".join(lines), instructions).code == code
    for offset, instruction in decode_all(code, instructions):
        if instruction is not None:
            assert bytes(instruction) == code[offset : offset + instruction.size_bytes]
    unused = sum("  ; " in line for line in lines)
    return len(lines), unused, sum(line[0] == "." for line in lines) - unused


@pytest.mark.skipif(CLANG is None, reason="clang-22 is not installed (Debian package clang-22)")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_clang_kernels_round_trip(target, level, tmp_path):
    source, output = tmp_path / "k.cl", tmp_path / "k.o"
    source.write_text(OPENCL)
    flags = [
        "-x",
        "cl",
        "-cl-std=CL2.0",
        "-target",
        "amdgcn-amd-amdhsa",
        "-nogpulib",
        "-Xclang",
        "-finclude-default-header",
        "-c",
    ]
    subprocess.run(
        [CLANG, *flags, f"-mcpu={target}", level, str(source), "-o", str(output)],
        check=True,
        capture_output=True,
    )
    for code in text_sections(output.read_bytes()):
        count, unused, undefined = round_trip(code, target)
        print(f"{target} {level}: {count} instructions")
        assert count > 400 and not unused and not undefined


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (PyPI package triton)"
)
@pytest.mark.parametrize("target", TARGETS)
def test_triton_gemm_round_trips(target, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import amdgpu_gemm  # a file of its own: Triton reads the kernel's source

    for code in amdgpu_gemm.text_of(target, text_sections):
        count, unused, undefined = round_trip(code, target)
        print(f"{target}: {count} instructions, {unused} with unused bits set")
        assert count > 100 and not undefined


@pytest.mark.skipif(not AITER, reason="TG_AITER names no wheel of amd-aiter (PyPI)")
@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
def test_aiter_kernels_round_trip(target):
    wheel = zipfile.ZipFile(AITER)
    names = sorted(n for n in wheel.namelist() if n.endswith(".co") and f"/{target}/" in n)
    totals = [0, 0, 0]
    for name in random.Random(1).sample(names, int(os.environ.get("TG_AITER_KERNELS", "25"))):
        for code in text_sections(wheel.read(name)):
            totals = [t + n for t, n in zip(totals, round_trip(code, target), strict=True)]
    print(
        f"{target}: {totals[0]} instructions, {totals[1]} with unused bits set, {totals[2]} words that are none"
    )
    assert totals[0] > 10000
