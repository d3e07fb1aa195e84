"""Functions that our x86-64 assembler made, run in this process and compared with NumPy."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tg_codegen.x86_64.assembler import Program, assemble
from tg_codegen.x86_64.encode import isa
from tg_codegen.x86_64.registers import gpr, k, mem, zmm

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
CPU_FLAGS = set(
    next((x for x in Path("/proc/cpuinfo").read_text().split("\n") if x.startswith("flags")), "").split()
)


def needs(*flags: str) -> pytest.MarkDecorator:
    missing = ", ".join(sorted({*flags} - CPU_FLAGS))
    return pytest.mark.skipif(bool(missing), reason=f"this CPU has no {missing}")


@pytest.fixture
def load() -> Callable[[bytes], Callable[..., int]]:
    """Makes a callable of code. The pages are written first and executable afterwards, never both at once."""
    pages = []

    def make(code: bytes) -> Callable[..., int]:
        page = mmap.mmap(
            -1, max(len(code), 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
        )
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        assert libc.mprotect(address, len(code), mmap.PROT_READ | mmap.PROT_EXEC) == 0
        pages.append(page)
        return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)(address)

    return make


def pointer(array: np.ndarray) -> int:
    return array.ctypes.data


def call(function: Callable[..., int], *arguments: int) -> int:
    return function(*arguments, *[0] * (6 - len(arguments)))


AXPY_AVX2 = """
    # y (rdi) += a (rsi) * x (rdx), rcx elements, a multiple of 8
        vbroadcastss ymm0, dword ptr [rsi]
        xor eax, eax
        jmp test
        .p2align 4
    loop:
        vmovups ymm1, ymmword ptr [rdx + 4*rax]
        vfmadd213ps ymm1, ymm0, ymmword ptr [rdi + 4*rax]
        vmovups ymmword ptr [rdi + 4*rax], ymm1
        add rax, 8
    test:
        cmp rax, rcx
        jb loop
        vzeroupper
        ret
"""


@needs("avx2", "fma")
def test_axpy_avx2_equals_numpy(load):
    rng = np.random.default_rng(1)
    y, x, a = (rng.standard_normal(n).astype(np.float32) for n in (1000, 1000, 1))
    want = (np.float64(a[0]) * x + y).astype(np.float32)  # exact in double but for one rounding, as fused
    call(load(assemble(AXPY_AVX2).code), pointer(y), pointer(a), pointer(x), y.size)
    np.testing.assert_array_equal(y, want)


@needs("avx512f", "avx512bw", "bmi2")
def test_masked_tail_of_any_length_touches_nothing_behind_it(load):
    """An AVX-512 add whose last step is masked, made with the builder."""
    x86 = isa("x86_64:avx512")
    rax, rcx, rdx = gpr[64][:3]
    rdi, rsi = gpr[64][7], gpr[64][6]
    ecx = gpr[32][1]
    program = Program()
    for instruction in (x86.xor(gpr[32][0], gpr[32][0]), x86.sub(rdx, 16), x86.jb("tail")):
        program.emit(instruction)
    program.align(16)
    program.label("loop")
    program.emit(x86.vmovups(zmm[20], mem(rdi, rax, 4)))
    program.emit(x86.vaddps(zmm[20], zmm[20], mem(rsi, rax, 4)))
    program.emit(x86.vmovups(mem(rdi, rax, 4), zmm[20]))
    program.emit(x86.add(rax, 16))
    program.emit(x86.cmp(rax, rdx))
    program.emit(x86.jbe("loop"))
    program.label("tail")
    program.emit(x86.lea(rcx, mem(rdx, disp=16)))
    program.emit(x86.sub(rcx, rax))
    program.emit(x86.mov(gpr[32][2], -1))
    program.emit(x86.bzhi(ecx, gpr[32][2], ecx))
    program.emit(x86.kmovw(k[3], ecx))
    program.emit(x86.vmovups(zmm[31], mem(rdi, rax, 4), mask=k[3], zeroing=True))
    program.emit(x86.vaddps(zmm[31], zmm[31], mem(rsi, rax, 4), mask=k[3], zeroing=True))
    program.emit(x86.vmovups(mem(rdi, rax, 4), zmm[31], mask=k[3]))
    program.emit(x86.vzeroupper())
    program.emit(x86.ret())
    function = load(program.finish().code)
    rng = np.random.default_rng(2)
    for n in range(1, 70):
        y, x = (rng.standard_normal(96).astype(np.float32) for _ in range(2))
        want = y.copy()
        want[:n] += x[:n]
        call(function, pointer(y), pointer(x), n)
        np.testing.assert_array_equal(y, want)


@needs("avx512f")
def test_gather_broadcast_rounding_and_compress_equal_numpy(load):
    text = """
        vmovdqu32 zmm1, zmmword ptr [rsi]
        kxnorw k1, k0, k0
        vgatherdps zmm2 {k1}, dword ptr [rdx + 4*zmm1]
        vaddps zmm2, zmm2, dword ptr [rip + half]{1to16}
        vcvtps2dq zmm3, zmm2, {rd-sae}
        vmovdqu32 zmmword ptr [rdi], zmm3
        vpcmpgtd k2, zmm3, dword ptr [rip + ten]{1to16}
        vpcompressd zmmword ptr [rcx] {k2}, zmm3
        kmovw eax, k2
        popcnt eax, eax
        vzeroupper
        ret
        .p2align 2
    half: .long 0x3f000000
    ten: .long 10
    """
    rng = np.random.default_rng(3)
    table = (rng.standard_normal(100) * 30).astype(np.float32)
    index = rng.integers(0, 100, 16).astype(np.int32)
    whole, packed = np.zeros(16, np.int32), np.zeros(16, np.int32)
    count = call(load(assemble(text).code), pointer(whole), pointer(index), pointer(table), pointer(packed))
    want = np.floor(table[index] + np.float32(0.5)).astype(np.int32)
    np.testing.assert_array_equal(whole, want)
    np.testing.assert_array_equal(packed[:count], want[want > 10])


@needs("avx512_fp16")
def test_half_precision_add_equals_numpy(load):
    text = "vmovups zmm0, zmmword ptr [rdi]\nvaddph zmm0, zmm0, zmmword ptr [rsi]\nvmovups zmmword ptr [rdi], zmm0\nret"
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(32).astype(np.float16) for _ in range(2))
    want = a + b
    call(load(assemble(text).code), pointer(a), pointer(b))
    np.testing.assert_array_equal(a, want)


@needs("avx512_bf16")
def test_conversion_to_bfloat16_rounds_to_nearest_even(load):
    text = "vcvtneps2bf16 ymm0, zmmword ptr [rsi]\nvmovups ymmword ptr [rdi], ymm0\nvzeroupper\nret"
    x = np.random.default_rng(5).standard_normal(16).astype(np.float32)
    bits = x.view(np.uint32)
    want = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    out = np.zeros(16, np.uint16)
    call(load(assemble(text).code), pointer(out), pointer(x))
    np.testing.assert_array_equal(out, want)


@needs("avx512_vnni")
@pytest.mark.parametrize("layout", ["evex", pytest.param("vex", marks=needs("avx_vnni"))])
def test_dot_products_of_bytes_equal_numpy(layout, load):
    text = "vpxor xmm0, xmm0, xmm0\nvmovups ymm1, ymmword ptr [rsi]\n"
    text += f"{{{layout}}} vpdpbusd ymm0, ymm1, ymmword ptr [rdx]\nvmovups ymmword ptr [rdi], ymm0\nvzeroupper\nret"
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 256, 32).astype(np.uint8), rng.integers(-128, 128, 32).astype(np.int8)
    out = np.zeros(8, np.int32)
    call(load(assemble(text).code), pointer(out), pointer(a), pointer(b))
    np.testing.assert_array_equal(out, (a.astype(np.int32) * b).reshape(8, 4).sum(1))


def test_integer_functions_equal_python(load):
    """Division, wide multiplication, rotation, conditional moves and a locked exchange-and-add."""
    text = """
        mov rax, rdi
        cqo
        idiv rsi                # rax = a / b, rdx = a % b
        mov r10, rdx
        mul rdi                 # low half of (a / b) * a
        rol rax, 7
        xor rax, r10
        cmp rdi, rsi
        cmovl rax, rsi
        mov ecx, 5
        lock xadd qword ptr [r8], rcx
        setg cl
        movzx ecx, cl
        add rax, rcx
        ret
    """
    function = load(assemble(text).code)
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print("seed", seed)
    choose = random.Random(seed)
    cell = np.zeros(1, np.int64)
    for _ in range(300):
        a, b = (
            choose.randint(-(1 << 62), 1 << 62),
            choose.choice([-1, 1]) * choose.randint(1, 1 << choose.randint(1, 62)),
        )
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        low = quotient * a & (1 << 64) - 1
        rotated = (low << 7 | low >> 57) & (1 << 64) - 1
        want = rotated ^ (a - quotient * b) & (1 << 64) - 1
        before = int(cell[0])
        want = b if a < b else want
        want = want + (before + 5 > 0) & (1 << 64) - 1
        got = function(a, b, 0, 0, pointer(cell), 0)
        assert got & (1 << 64) - 1 == want & (1 << 64) - 1
        assert cell[0] == before + 5
