"""Kernels by Triton on every target equal NumPy: GEMM in each type, softmax, layer norm, attention, scaled GEMM."""

from __future__ import annotations

import os

import numpy as np
import pytest
from isa_machine import TARGETS, launch

from tg_emulator_amd.interface import Figures
from tg_emulator_amd.isa import floats

pytest.importorskip("triton", reason="Triton is not installed")
from triton_kernels import INT32, FLOAT32, compile_triton  # noqa: I001

SEED = int(os.environ.get("TG_SEED", "1"))
CODES = {"e4m3": ("fp8", "*fp8e4nv"), "e5m2": ("bf8", "*fp8e5"), "e2m1": ("fp4", "*u8")}


def lanes(target: str) -> int:
    return 64 if target.startswith("gfx9") else 32


def run(
    name: str, target: str, types: dict, constants: dict, blocks: tuple, *arguments: object
) -> tuple[list, Figures]:
    code = compile_triton(name, target, tuple(types.items()), tuple(constants.items()))
    items = 4 * lanes(target)
    grid = (blocks[0] * items, *blocks[1:])
    fixed = code.kernel(name).descriptor.group_segment_fixed_size
    return launch(
        code, name, target, grid, (items,), *arguments, lds_bytes=0 if fixed else code.metadata["shared"]
    )


def operand(
    kind: str, target: str, shape: tuple, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """(what is uploaded, its value, Triton's type)."""
    x = rng.standard_normal(shape).astype("f4")
    if kind in ("fp8", "bf8"):
        fnuz = target == "gfx942"
        name = (floats.FNUZ if fnuz else floats.OCP)[kind]
        codes = floats.encode(x, name)
        text = {"fp8": ("*fp8e4nv", "*fp8e4b8"), "bf8": ("*fp8e5", "*fp8e5b16")}[kind][fnuz]
        return codes, floats.decode(codes, name).astype("f8"), text
    if kind == "bf16":
        return floats.bf16_bits(x), floats.bf16_value(floats.bf16_bits(x)).astype("f8"), "*bf16"
    if kind == "i8":
        n = rng.integers(-128, 128, shape).astype("i1")
        return n, n.astype("f8"), "*i8"
    x = x.astype({"f16": "f2", "f32": "f4"}[kind])
    return x, x.astype("f8"), {"f16": "*fp16", "f32": "*fp32"}[kind]


GEMMS = [(t, k) for t in TARGETS for k in ("f16", "bf16", "fp8", "bf8", "i8", "f32")
         if not (k in ("fp8", "bf8") and t in ("gfx1100", "gfx1151"))]  # fmt: skip


@pytest.mark.parametrize(("target", "kind"), GEMMS)
def test_gemm_by_triton_equals_numpy(target: str, kind: str) -> None:
    print(f"TG_SEED={SEED}")
    m, n, k = 128, 64, 64
    rng = np.random.default_rng(SEED)
    (a, left, text), (b, right, _) = operand(kind, target, (m, k), rng), operand(kind, target, (k, n), rng)
    out, total = ("*i32", INT32) if kind == "i8" else ("*fp32", FLOAT32)
    types = {"a": text, "b": text, "c": out, "m": "i32", "n": "i32", "k": "i32"}
    constants = {"BM": 64, "BN": 64, "BK": 32, "ACC": total}
    zeros = np.zeros((m, n), "i4" if kind == "i8" else "f4")
    (_, _, c), figures = run("gemm", target, types, constants, (m // 64, n // 64), a, b, zeros, m, n, k)
    # Sums of k products in f32: each addition may be off by half a unit in the last place.
    bound = 0 if kind == "i8" else k * 2.0**-24 * (np.abs(left) @ np.abs(right)).max()
    assert np.abs(c - left @ right).max() <= bound
    assert figures.instructions["matrix"] > 0 or kind == "f32"


@pytest.mark.parametrize("target", TARGETS)
def test_softmax_by_triton_equals_numpy(target: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((8, 300)).astype("f4") * 3
    types = {"x": "*fp32", "y": "*fp32", "n": "i32"}
    (_, y), _ = run("softmax", target, types, {"BN": 512}, (8,), x, np.zeros_like(x), 300)
    want = np.exp(x.astype("f8") - x.max(1, keepdims=True))
    assert np.abs(y - want / want.sum(1, keepdims=True)).max() < 1e-6


@pytest.mark.parametrize("target", TARGETS)
def test_layer_norm_by_triton_equals_numpy(target: str) -> None:
    rng = np.random.default_rng(SEED)
    x, (w, b) = rng.standard_normal((8, 300)).astype("f4") * 3, rng.standard_normal((2, 300)).astype("f4")
    types = {"x": "*fp32", "y": "*fp32", "w": "*fp32", "b": "*fp32", "n": "i32"}
    (_, y, _, _), _ = run("layer_norm", target, types, {"BN": 512}, (8,), x, np.zeros_like(x), w, b, 300)
    wide = x.astype("f8")
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * w + b
    assert np.abs(y - want).max() < 1e-5


@pytest.mark.parametrize("target", TARGETS)
def test_attention_by_triton_equals_numpy(target: str) -> None:
    q, k, v = np.random.default_rng(SEED).standard_normal((3, 128, 64)).astype("f2")
    types = {"q": "*fp16", "k": "*fp16", "v": "*fp16", "o": "*fp32", "n": "i32", "scale": "fp32"}
    constants = {"BM": 64, "BN": 32, "D": 64}
    (*_, o), _ = run(
        "attention", target, types, constants, (2,), q, k, v, np.zeros((128, 64), "f4"), 128, 0.125
    )
    scores = q.astype("f8") @ k.astype("f8").T * 0.125
    weight = np.exp(scores - scores.max(1, keepdims=True))
    want = weight / weight.sum(1, keepdims=True) @ v.astype("f8")
    assert np.abs(o - want).max() < 2.0**-10  # the weights pass through f16


@pytest.mark.parametrize(
    ("fa", "fb"), [("e4m3", "e4m3"), ("e5m2", "e5m2"), ("e2m1", "e2m1"), ("e4m3", "e2m1"), ("e2m1", "e5m2")]
)
def test_scaled_gemm_by_triton_equals_numpy(fa: str, fb: str) -> None:
    m, n, k = 64, 64, 256
    rng = np.random.default_rng(SEED)

    def codes(name: str, shape: tuple) -> np.ndarray:
        c = rng.integers(0, 16 if name == "e2m1" else 256, shape).astype("u1")
        return np.where(np.isfinite(floats.decode(c, CODES[name][0])), c, 0x20).astype("u1")

    a, b = codes(fa, (m, k)), codes(fb, (k, n))
    sa, sb = (
        rng.integers(124, 130, (m, k // 32)).astype("u1"),
        rng.integers(124, 130, (n, k // 32)).astype("u1"),
    )
    packed_a = a if fa != "e2m1" else a[:, ::2] | a[:, 1::2] << 4
    packed_b = b if fb != "e2m1" else b[::2] | b[1::2] << 4
    types = {"a": CODES[fa][1], "sa": "*u8", "b": CODES[fb][1], "sb": "*u8", "c": "*fp32"}
    constants = {
        "M": m,
        "N": n,
        "K": k,
        "PA": a.size // packed_a.size,
        "PB": b.size // packed_b.size,
        "FA": fa,
        "FB": fb,
    }
    (*_, c), figures = run(
        "scaled_gemm", "gfx950", types, constants, (1,), packed_a, sa, packed_b, sb, np.zeros((m, n), "f4")
    )
    left = floats.decode(a, CODES[fa][0]).astype("f8") * np.repeat(2.0 ** (sa.astype("f8") - 127), 32, 1)
    right = floats.decode(b, CODES[fb][0]).astype("f8") * np.repeat(2.0 ** (sb.astype("f8") - 127), 32, 1).T
    assert np.abs(c - left @ right).max() <= k * 2.0**-24 * (np.abs(left) @ np.abs(right)).max()
    assert figures.instructions["matrix"] > 0
