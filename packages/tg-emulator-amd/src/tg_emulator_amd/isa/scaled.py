"""Compile conversions between wide and small floats with a common scale (CDNA4's v_cvt_scalef32_*).

Towards a small format the value is divided by the power of two in the scale's exponent, away from it multiplied.
Source: CDNA4 ISA manual, 7.3 and V_CVT_SCALEF32_*; what the division means from the microscaling formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.operands import VGPR
from tg_codegen.amdgpu.slots import Slot

from . import floats
from .matrix import decode_words
from .operands import Operands, field, operand_words, registers
from .waves import Group

__all__ = ["compile_scaled"]

U8, U16, U32, F32, F64 = np.uint8, np.uint16, np.uint32, np.float32, np.float64
_NAME = re.compile(r"v_cvt_scalef32_(sr_)?(2xpk16_|pk32_|pk_)?(\w+?)_(\w+)")
_COUNTS = {"2xpk16_": 32, "pk32_": 32, "pk_": 2, None: 1}
_BITS = {name: bits for name, (bits, *_) in floats.SMALL.items()}


def compile_scaled(inst: Instruction, ops: Operands) -> Callable[[Group], None] | None:
    match = _NAME.fullmatch(inst.row.mnemonic)
    if not match:
        return None
    stochastic, packing, target, source = match.groups()
    count = _COUNTS[packing]
    slots = {s.name: s for s in inst.row.operands}
    scale = ops.word(slots["src2"] if "src2" in slots else slots["src1"])
    first = registers(inst, slots["vdst"], ops.accumulators)[0] - VGPR
    words = slots["vdst"].kind.dwords
    selects = [field(inst, name) for name in ("sel0", "sel1", "sel2", "seld")]
    narrowing = target in _BITS
    seed = ops.word(slots["src1"]) if stochastic else None
    read = _values(
        inst, ops, slots, source, packing, count, selects, narrowing and "src2" in slots and not stochastic
    )

    def run(g: Group) -> None:
        exponent = (scale(g) >> U32(23) & U32(0xFF)).astype(np.int64) - 127
        power = np.ldexp(1.0, np.broadcast_to(exponent, g.mask.shape))[..., None]
        values = read(g)
        if narrowing:
            x = (values / power).astype(F32)
            codes = _random(x, seed(g), target) if seed else floats.encode(x, target, g.overflow16)
            bits = np.unpackbits(codes[..., None], axis=-1, count=_BITS[target], bitorder="little")
            octets = np.packbits(bits.reshape(*g.mask.shape, -1), axis=-1, bitorder="little")
        else:
            wide = (values * power).astype(F32)
            cast = {"f32": lambda v: v, "f16": lambda v: v.astype(np.float16), "bf16": floats.bf16_bits}[
                target
            ]
            octets = np.ascontiguousarray(cast(wide)).view(U8)
        _store(g, octets, first, words, selects)

    return run


def _values(
    inst: Instruction,
    ops: Operands,
    slots: dict[str, Slot],
    kind: str,
    packing: str | None,
    count: int,
    selects: list[int],
    two: bool,
) -> Callable[[Group], np.ndarray]:
    """The source's elements [wave, lane, element]: all of src0, src0 and src1, or a part that op_sel names."""
    names = ("src0", "src1") if two else ("src0",)
    reads = [[ops.word(slots[n], k) for k in range(operand_words(inst, slots[n]))] for n in names]
    if two or kind not in _BITS or count == 32:

        def whole(g: Group) -> np.ndarray:
            parts = []
            for words in reads:
                stack = np.stack([np.broadcast_to(word(g), g.mask.shape) for word in words], axis=-1)
                parts.append(decode_words(stack, kind, False))
            if packing == "2xpk16_":
                return np.stack(parts, axis=-1).reshape(*g.mask.shape, -1)
            return np.concatenate(parts, axis=-1)[..., :count]

        return whole
    step = count * _BITS[kind]  # bits; a word or a byte is chosen
    shift = U32(16 * selects[0] if step == 16 else 8 * (selects[0] | selects[1] << 1))

    def part(g: Group) -> np.ndarray:
        word = np.broadcast_to(reads[0][0](g), g.mask.shape) >> shift
        return decode_words(np.ascontiguousarray(word)[..., None], kind, False)[..., :count]

    return part


def _random(x: np.ndarray, seed: np.ndarray, target: str) -> np.ndarray:
    """Stochastic rounding, every element with the next number of v_prng_b32."""
    number = np.broadcast_to(seed, x.shape[:-1])
    codes = np.empty(x.shape, U8)
    for k in range(x.shape[-1]):
        codes[..., k] = floats.stochastic(x[..., k], number, target)
        number = number << U32(1) ^ np.where(number >> U32(31) != 0, U32(197), U32(0))
    return codes


def _store(g: Group, octets: np.ndarray, first: int, words: int, selects: list[int]) -> None:
    """Whole registers, or the half or byte that op_sel names, the rest kept."""
    size = octets.shape[-1]
    if size >= 4:
        for k, word in enumerate(np.moveaxis(np.ascontiguousarray(octets).view(U32), -1, 0)[:words]):
            g.set_vgpr(first + k, word)
        return
    shift = U32(16 * selects[3] if size == 2 else 8 * (selects[2] | selects[3] << 1))
    value = (
        octets[..., 0].astype(U32)
        if size == 1
        else np.ascontiguousarray(octets).view(U16)[..., 0].astype(U32)
    )
    kept = ~(U32((1 << 8 * size) - 1) << shift)
    g.set_vgpr(first, g.vgpr(first) & kept | value << shift)
