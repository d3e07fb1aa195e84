"""A GEMM in Triton, compiled for AMD GPUs without one."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def gemm(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        left = tl.load(a + rows[:, None] * k + (start + inner)[None, :], mask=rows[:, None] < m, other=0.0)
        right = tl.load(
            b + (start + inner)[:, None] * n + columns[None, :], mask=columns[None, :] < n, other=0.0
        )
        total = tl.dot(left, right, total)
    tl.store(
        c + rows[:, None] * n + columns[None, :],
        total.to(tl.float16),
        mask=(rows[:, None] < m) & (columns[None, :] < n),
    )


def text_of(target: str, text_sections) -> list[bytes]:
    """The code of an f16 and a bf16 GEMM."""
    out = []
    wave_size = 64 if target.startswith("gfx9") else 32
    for dtype in ("fp16", "bf16"):
        signature = {"a": f"*{dtype}", "b": f"*{dtype}", "c": "*fp16", "m": "i32", "n": "i32", "k": "i32"}
        signature |= {"BM": "constexpr", "BN": "constexpr", "BK": "constexpr"}
        source = ASTSource(fn=gemm, signature=signature, constexprs={"BM": 128, "BN": 128, "BK": 32})
        compiled = triton.compile(source, target=GPUTarget("hip", target, wave_size))
        out += text_sections(compiled.asm["hsaco"])
    return out
