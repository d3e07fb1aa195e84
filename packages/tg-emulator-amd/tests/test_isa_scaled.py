"""CDNA4's conversions with a scale, every one of them, against NumPy."""

from __future__ import annotations

import os
import re

import numpy as np
from isa_machine import assemble_kernel, launch

from tg_codegen.amdgpu.isa import isa
from tg_emulator_amd.isa import floats

SEED = int(os.environ.get("TG_SEED", "1"))
SMALL = {"fp8": 8, "bf8": 8, "fp6": 6, "bf6": 6, "fp4": 4}
D, S0, S1, S2 = 4, 40, 76, 96  # first registers
SCALE = 0.5


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [lane, element] as words."""
    total = sum(codes[:, k].astype(object) << bits * k for k in range(codes.shape[1]))
    count = -(-codes.shape[1] * bits // 32)
    return np.array([[int(t) >> 32 * k & 0xFFFFFFFF for k in range(count)] for t in total], np.uint32)


def wide(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bf16":
        return np.ascontiguousarray(floats.bf16_bits(values)).view(np.uint16)
    return np.ascontiguousarray(values.astype({"f32": "f4", "f16": "f2"}[kind])).view(
        {"f32": "u4", "f16": "u2"}[kind]
    )


def words_of(values: np.ndarray, kind: str) -> np.ndarray:
    bits = wide(values, kind)
    if bits.shape[1] % 2 and bits.dtype == np.uint16:
        bits = np.concatenate([bits, np.zeros_like(bits)], axis=1)
    return np.ascontiguousarray(bits).view(np.uint32)


def run(name: str, sources: list[np.ndarray], result_words: int) -> np.ndarray:
    """The destination's words of every lane; it held 0xAAAAAAAA."""
    starts = (S0, S1, S2)
    data = np.concatenate([np.concatenate(sources, axis=1), np.zeros((64, result_words), np.uint32)], axis=1)
    stride = data.shape[1] * 4
    text = ["s_load_dwordx2 s[4:5], s[0:1], 0x0", f"v_mul_u32_u24 v1, {stride}, v0", "s_waitcnt lgkmcnt(0)"]
    offset, operands = 0, []
    for source, first in zip(sources, starts, strict=False):
        for k in range(source.shape[1]):
            text.append(f"global_load_dword v{first + k}, v1, s[4:5] offset:{offset}")
            offset += 4
        count = source.shape[1]
        operands.append(f"v{first}" if count == 1 else f"v[{first}:{first + count - 1}]")
    text += [f"v_mov_b32 v{D + k}, 0xaaaaaaaa" for k in range(result_words)] + ["s_waitcnt vmcnt(0)"]
    target = f"v{D}" if result_words == 1 else f"v[{D}:{D + result_words - 1}]"
    text += [f"{name} {target}, {', '.join(operands)}", "s_nop 1"]
    text += [f"global_store_dword v1, v{D + k}, s[4:5] offset:{offset + 4 * k}" for k in range(result_words)]
    code = assemble_kernel("\n".join([*text, "s_endpgm"]), "gfx950")
    (result,), _ = launch(code, "k", "gfx950", (64,), (64,), data)
    return np.ascontiguousarray(result[:, offset // 4 :])


def test_conversions_with_scale_equal_numpy() -> None:
    print(f"TG_SEED={SEED}")
    rng, machine = np.random.default_rng(SEED), isa("gfx950")
    scale = np.full((64, 1), np.float32(SCALE)).view(np.uint32)
    names = [n for n in machine.mnemonics() if n.startswith("v_cvt_scalef32_")]
    assert len(names) == 49
    for name in names:
        stochastic, packing, target, source = re.fullmatch(
            r"v_cvt_scalef32_(sr_)?(2xpk16_|pk32_|pk_)?(\w+?)_(\w+)", name
        ).groups()
        count = {"2xpk16_": 32, "pk32_": 32, "pk_": 2, None: 1}[packing]
        result_words = {s.name: s.kind.dwords for s in machine.rows(name)[-1].operands}["vdst"]
        if target in SMALL:
            codes = rng.integers(0, 1 << SMALL[target], (64, count))
            exact = floats.decode(codes, target)
            codes = np.where(np.isfinite(exact) & (exact != 0), codes, 1)
            values = floats.decode(codes, target) * SCALE  # exact, so that any rounding gives the same
            if packing == "2xpk16_":
                sources = [words_of(values[:, ::2], source), words_of(values[:, 1::2], source)]
            elif packing == "pk_" and source == "f32" and not stochastic:
                sources = [words_of(values[:, :1], source), words_of(values[:, 1:], source)]
            else:
                sources = [words_of(values, source)]
            seeds = rng.integers(0, 1 << 32, (64, 1), dtype=np.uint32)
            got = run(name, [*sources, *([seeds] if stochastic else []), scale], result_words)
            want = packed(codes, SMALL[target])
            part = count * SMALL[target]
            if part < 32:
                want = want | 0xAAAAAAAA >> part << part
        else:
            codes = rng.integers(0, 1 << SMALL[source], (64, count))
            codes = np.where(np.isfinite(floats.decode(codes, source)), codes, 1)
            values = floats.decode(codes, source) * np.float32(SCALE)
            got = run(name, [packed(codes, SMALL[source]), scale], result_words)
            want = words_of(values, target)
            if count == 1 and target != "f32":
                want = want | 0xAAAA0000
        assert (got == want).all(), name
