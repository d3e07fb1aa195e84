"""Kernels in Triton, compiled for AMD GPUs without one, as code objects for the interpreter."""

from __future__ import annotations

import functools

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tg_codegen.amdgpu.code_object import CodeObject, read_code_object

FLOAT32, INT32 = tl.float32, tl.int32


@triton.jit
def gemm(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=ACC)
    for start in range(0, k, BK):
        left = tl.load(a + rows[:, None] * k + (start + inner)[None, :])
        right = tl.load(b + (start + inner)[:, None] * n + columns[None, :])
        total = tl.dot(left, right, total, out_dtype=ACC, input_precision="ieee")
    tl.store(
        c + rows[:, None] * n + columns[None, :], total, mask=(rows[:, None] < m) & (columns[None, :] < n)
    )


@triton.jit
def softmax(x, y, n, BN: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BN)
    value = tl.load(x + row * n + columns, mask=columns < n, other=-float("inf"))
    value = tl.exp(value - tl.max(value, axis=0))
    tl.store(y + row * n + columns, value / tl.sum(value, axis=0), mask=columns < n)


@triton.jit
def layer_norm(x, y, w, b, n, BN: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BN)
    value = tl.load(x + row * n + columns, mask=columns < n, other=0.0)
    mean = tl.sum(value, axis=0) / n
    centred = tl.where(columns < n, value - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, axis=0) / n + 1e-5)
    weight, bias = tl.load(w + columns, mask=columns < n), tl.load(b + columns, mask=columns < n)
    tl.store(y + row * n + columns, centred * scale * weight + bias, mask=columns < n)


@triton.jit
def attention(q, k, v, o, n, scale, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr):
    rows, features = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    query = tl.load(q + rows[:, None] * D + features[None, :])
    top = tl.full((BM,), -float("inf"), tl.float32)
    norm = tl.zeros((BM,), tl.float32)
    total = tl.zeros((BM, D), tl.float32)
    for start in range(0, n, BN):
        columns = start + tl.arange(0, BN)
        keys = tl.load(k + columns[None, :] * D + features[:, None])
        scores = tl.dot(query, keys) * scale
        new = tl.maximum(top, tl.max(scores, axis=1))
        weight, keep = tl.exp(scores - new[:, None]), tl.exp(top - new)
        norm = norm * keep + tl.sum(weight, axis=1)
        values = tl.load(v + columns[:, None] * D + features[None, :])
        total = total * keep[:, None] + tl.dot(weight.to(values.dtype), values)
        top = new
    tl.store(o + rows[:, None] * D + features[None, :], total / norm[:, None])


@triton.jit
def scaled_gemm(a, sa, b, sb, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PA: tl.constexpr, PB: tl.constexpr,
                FA: tl.constexpr, FB: tl.constexpr):  # fmt: skip
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    left = tl.load(a + rows[:, None] * (K // PA) + tl.arange(0, K // PA)[None, :])
    right = tl.load(b + tl.arange(0, K // PB)[:, None] * N + columns[None, :])
    scale_left = tl.load(sa + rows[:, None] * (K // 32) + tl.arange(0, K // 32)[None, :])
    scale_right = tl.load(sb + columns[:, None] * (K // 32) + tl.arange(0, K // 32)[None, :])
    total = tl.dot_scaled(left, scale_left, FA, right, scale_right, FB)
    tl.store(c + rows[:, None] * N + columns[None, :], total)


@functools.cache
def compile_triton(name: str, target: str, types: tuple, constants: tuple, warps: int = 4) -> CodeObject:
    """`types` and `constants` are (name, value) pairs."""
    constants = dict(constants)
    signature = dict(types) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=globals()[name], signature=signature, constexprs=constants)
    wave_size = 64 if target.startswith("gfx9") else 32
    options = {"num_warps": warps}
    compiled = triton.compile(source, target=GPUTarget("hip", target, wave_size), options=options)
    code = read_code_object(compiled.asm["hsaco"])
    code.metadata["shared"] = compiled.metadata.shared
    return code
