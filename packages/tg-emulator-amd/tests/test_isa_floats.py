"""Floating-point arithmetic of the interpreter: exact fma, rounding modes, small formats, stochastic rounding."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import pytest
from isa_machine import assemble_kernel, launch

from tg_emulator_amd.isa import floats

SEED = int(os.environ.get("TG_SEED", "1"))


def hard_values(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of all exponents, denormals included, with few significant bits, so that sums meet half way."""
    info = np.finfo(kind)
    mantissa = 1 + rng.integers(0, 1 << int(info.nmant), count) / (1 << int(info.nmant))
    mantissa = np.where(rng.random(count) < 0.5, np.round(mantissa * 16) / 16, mantissa)
    exponent = rng.integers(int(info.minexp) - int(info.nmant), int(info.maxexp), count)
    near = rng.integers(-6, 7, count)
    exponent = np.where(rng.random(count) < 0.5, near, exponent)
    return (np.ldexp(mantissa, exponent) * rng.choice([-1, 1], count)).astype(kind)


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_add_mul_fma_round_once_in_every_mode(kind: str, mode: int) -> None:
    print(f"TG_SEED={SEED}")
    rng = np.random.default_rng(SEED)
    a, b, c = (hard_values(kind, 1500, rng) for _ in range(3))
    with np.errstate(all="ignore"):
        sums, products, fused = floats.add(a, c, mode), floats.mul(a, b, mode), floats.fma(a, b, c, mode)
    for i in range(len(a)):
        x, y, z = (Fraction(float(v[i])) for v in (a, b, c))
        for got, exact in ((sums[i], x + z), (products[i], x * y), (fused[i], x * y + z)):
            want = np.dtype(kind).type(floats.round_fraction(exact, np.dtype(kind), mode))
            assert got == want, (a[i], b[i], c[i], got, want)


@pytest.mark.parametrize("name", floats.SMALL)
def test_small_formats_round_to_the_nearest_even_value(name: str) -> None:
    bits, _, _, kind = floats.SMALL[name]
    values = floats.decode(np.arange(1 << bits), name).astype(float)
    finite = np.nonzero(np.isfinite(values))[0]
    assert (floats.decode(floats.encode(values[finite], name), name) == values[finite]).all()
    x = np.random.default_rng(SEED).uniform(-1.02, 1.02, 4000) * np.abs(values[finite]).max()
    x = np.concatenate([x, x / 64, (values[finite][:-1] + values[finite][1:]) / 2])
    got = floats.decode(floats.encode(x, name, saturate=True), name)
    distance = np.abs(x[:, None] - values[finite][None])
    assert (np.abs(got - x) == distance.min(axis=1)).all()
    ties = (distance == distance.min(axis=1)[:, None]).sum(axis=1) > 1 + (got == 0)
    assert (floats.encode(x[ties], name, saturate=True) % 2 == 0).all()
    top = np.abs(values[finite]).max()
    expected = {"i": np.inf, "n": np.nan, "z": np.nan, "f": top}[kind]
    over = floats.decode(floats.encode(np.array([top * 4]), name), name)[0]
    assert over == expected or (np.isnan(over) and np.isnan(expected))


def test_stochastic_rounding_carries_with_the_chance_of_the_rest() -> None:
    random = np.random.default_rng(SEED).integers(0, 1 << 32, 100_000, dtype=np.uint64)
    got = floats.decode(floats.stochastic(np.full(len(random), 1.03125), random, "fp8"), "fp8")
    assert set(got.tolist()) == {1.0, 1.125} and abs((got == 1.125).mean() - 0.25) < 0.01


def test_mode_register_rounds_and_flushes() -> None:
    """s_setreg of MODE: 2 / 3 and a quarter of its last place rounded up and down; denormals flushed and not."""
    text = """
    s_load_dwordx2 s[4:5], s[0:1], 0x0
    v_lshlrev_b32 v1, 4, v0
    v_mov_b32 v2, 0x3f2aaaab
    v_mov_b32 v3, 0x32800000
    v_mov_b32 v4, 0x00400000
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 5
    v_add_f32 v5, v2, v3
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 10
    v_add_f32 v6, v2, v3
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 4), 15
    v_add_f32 v7, v4, v4
    v_mul_f32 v8, 0.5, v4
    s_setreg_imm32_b32 hwreg(HW_REG_MODE, 4, 4), 12
    v_mul_f32 v8, 0.5, v4
    s_waitcnt lgkmcnt(0)
    global_store_dwordx4 v1, v[5:8], s[4:5]
    s_endpgm
    """.replace("v[5:8]", "v[10:13]").replace("s_waitcnt", "\n".join(
        f"v_mov_b32 v{10 + k}, v{5 + k}" for k in range(4)) + "\ns_waitcnt")  # fmt: skip
    (out,), _ = launch(
        assemble_kernel(text, "gfx942"), "k", "gfx942", (64,), (64,), np.zeros((64, 4), np.uint32)
    )
    assert out[0, :2].tolist() == [0x3F2AAAAC, 0x3F2AAAAB]
    assert out[0, 2] == 0x00800000 and out[0, 3] == 0
