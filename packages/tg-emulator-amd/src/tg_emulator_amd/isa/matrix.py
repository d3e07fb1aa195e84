"""Compile matrix instructions: MFMA and SMFMAC of CDNA, WMMA and SWMMAC of RDNA, scaled and sparse ones.

Lane l of A holds row l % M; what is left of the lane number counts blocks, then groups along K; a lane's elements
follow one another along K. (RDNA4 interleaves K otherwise, A and B alike, which changes no product.) Products are
exact and summed in 64-bit floats, then rounded once to the result's type: hardware's order of summation is not
documented.
Source: ROCm/amd_matrix_instruction_calculator (layouts of A, B, C, D and indices); CDNA4 ISA manual, 7.1.5 and 7.5
(8-bit operands of f8f6f4: two runs of 16 along K), 7.2 (scales); RDNA3 and RDNA4 ISA manuals, WMMA.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.operands import VGPR
from tg_codegen.amdgpu.slots import RegisterSlot

from . import floats
from .operands import Operands, constant, field, has, operand_words, registers
from .waves import Group

__all__ = ["compile_matrix", "decode_words", "passes_of"]

U16, U32, F32, F64 = np.uint16, np.uint32, np.float32, np.float64
Run = Callable[[Group], None]
_BITS = {"f16": 16, "bf16": 16, "f32": 32, "xf32": 32, "f64": 64, "fp8": 8, "bf8": 8, "i8": 8, "iu8": 8, "iu4": 4,
         "fp6": 6, "bf6": 6, "fp4": 4}  # fmt: skip
_F8F6F4 = ("fp8", "bf8", "fp6", "bf6", "fp4")
# Passes of four cycles by (M, inputs); the rest by M alone. Source: LLVM, SISchedule.td, MFMA.
_PASSES = {
    (4, ""): 2,
    (16, ""): 4,
    (32, ""): 8,
    (16, "f32"): 8,
    (32, "f32"): 16,
    (16, "f64"): 8,
    (4, "f64"): 4,
}


class Shape(NamedTuple):
    """D[m, n] += A[m, k] B[k, n], `blocks` times."""

    kind: str
    out: str
    m: int
    n: int
    k: int
    blocks: int
    a: str
    b: str


_NAME = re.compile(r"v_(mfma|smfmac|wmma|swmmac)_(?:scale_)?(\w+?)_(\d+)x(\d+)x(\d+)_(?:(\d+)b_)?(\w+)")


def _shape(name: str) -> Shape | None:
    match = _NAME.fullmatch(name)
    if not match:
        return None
    kind, out, m, n, k, blocks, inputs = match.groups()
    a, _, b = inputs.partition("_")
    return Shape(kind, out, int(m), int(n), int(k), int(blocks or 1), a, b or a)


def passes_of(inst: Instruction, target: str) -> int:
    """Passes of four cycles that a matrix instruction takes."""
    shape = _shape(inst.row.mnemonic)
    if shape is None:
        return 1
    if shape.kind in ("wmma", "swmmac"):
        return 4 if target == "gfx1201" else 8
    base = _PASSES.get((shape.m, shape.a)) or _PASSES[shape.m, ""]
    if shape.blocks > 1 and shape.m > 4:
        base = 16 if shape.m == 32 else 8
    if shape.a == "f64" and shape.m == 16 and target == "gfx950":
        return 16
    wide = shape.a == "f8f6f4" and min(field(inst, "cbsz"), field(inst, "blgp")) < 2
    return 2 * base if wide else base


def compile_matrix(inst: Instruction, ops: Operands, target: str) -> Run | None:
    shape = _shape(inst.row.mnemonic)
    if shape is None:
        return None
    slots = {s.name: s for s in inst.row.operands}
    if shape.a == "f8f6f4":
        formats = [_F8F6F4[field(inst, name)] for name in ("cbsz", "blgp")]
        shape = shape._replace(a=formats[0], b=formats[1])
    sparse = shape.kind in ("smfmac", "swmmac")
    a, b = (
        _Source(inst, ops, slots[s], t, target, k)
        for k, (s, t) in enumerate((("src0", shape.a), ("src1", shape.b)))
    )
    place_a = _places(shape, shape.a, a.count * (2 if sparse else 1), shape.m, ops)
    place_b = _places(shape, shape.b, b.count, shape.n, ops)
    if place_a is None or place_b is None:
        return None
    index_slot = slots.get("idx") or slots.get("src2")
    choose = _index(inst, index_slot, a.count, ops) if sparse else None
    result = _Result(inst, ops, slots["vdst"], slots["vdst"] if sparse else slots["src2"], shape)
    scales = [_scale(inst, ops, slots.get(f"scale_src{s}"), s) for s in (0, 1)]
    broadcast, permuted = _broadcast(inst, shape), _permuted(inst, shape)
    dims = (shape.blocks, shape.m, shape.k), (shape.blocks, shape.n, shape.k)

    def run(g: Group) -> None:
        x, y = a.read(g), b.read(g)
        if permuted is not None:
            y = y[:, permuted]
        left = _dense(x, place_a, dims[0]) if choose is None else _expanded(x, choose(g), place_a, dims[0])
        right = _dense(y, place_b, dims[1])
        if scales[0] is not None:
            left = left * _scale_blocks(scales[0](g), dims[0])
            right = right * _scale_blocks(scales[1](g), dims[1])
        if broadcast is not None:
            left = left[:, broadcast]
        result.write(g, np.matmul(left, right.swapaxes(2, 3)))

    return run


class _Source:
    """A or B: its registers as [wave, lane, element] of exact values."""

    def __init__(
        self, inst: Instruction, ops: Operands, slot: RegisterSlot, kind: str, target: str, position: int
    ):
        words = operand_words(inst, slot)
        first = registers(inst, slot, ops.accumulators)[0] - VGPR
        self.registers = range(first, first + words)
        self.count = words * 32 // _BITS[kind]
        self.kind = {"fp8": (floats.FNUZ if target == "gfx942" else floats.OCP)["fp8"],
                     "bf8": (floats.FNUZ if target == "gfx942" else floats.OCP)["bf8"]}.get(kind, kind)  # fmt: skip
        flags = has(inst, "neg_lo")
        self.signed = kind[:2] == "i8" or bool(flags and field(inst, f"neg{position}"))
        # Floats: neg_lo negates the even elements, neg_hi the odd ones.
        self.negated = [
            bool(flags and kind[0] != "i" and field(inst, f"{n}{position}")) for n in ("neg", "abs")
        ]
        if kind == "f64" and field(inst, "blgp") >> position & 1:
            self.negated = [True, True]

    def read(self, g: Group) -> np.ndarray:
        words = np.stack([g.vgpr(r) for r in self.registers], axis=-1)
        value = decode_words(words, self.kind, self.signed)
        if any(self.negated):
            value = value * np.where(np.arange(self.count) % 2 == 0, *(
                (-1.0 if self.negated[0] else 1.0), (-1.0 if self.negated[1] else 1.0)))  # fmt: skip
        return value


def decode_words(words: np.ndarray, kind: str, signed: bool) -> np.ndarray:
    """32-bit words [..., word] as the exact values [..., element] of a type."""
    shape = words.shape[:-1]
    if kind == "f16":
        return words.view(np.float16).astype(F64)
    if kind == "bf16":
        return floats.bf16_value(words.view(U16)).astype(F64)
    if kind == "f32":
        return words.view(F32).astype(F64)
    if kind == "xf32":
        return (words & U32(0xFFFFE000)).view(F32).astype(F64)
    if kind == "f64":
        return words.view(F64)
    if kind in ("i8", "iu8"):
        return words.view(np.int8 if signed else np.uint8).astype(F64)
    if kind in ("iu4", "fp4"):
        octets = words.view(np.uint8)
        codes = np.stack([octets & 15, octets >> 4], axis=-1).reshape(*shape, -1)
        if kind == "fp4":
            return floats.decode(codes, "fp4").astype(F64)
        return np.where(signed & (codes > 7), codes.astype(F64) - 16, codes)
    if kind in ("fp6", "bf6"):
        bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little").reshape(*shape, -1, 6)
        return floats.decode(
            (bits << np.arange(6, dtype=np.uint8)).sum(axis=-1, dtype=np.uint8), kind
        ).astype(F64)
    return floats.decode(words.view(np.uint8), kind).astype(F64)


def _places(shape: Shape, kind: str, count: int, rows: int, ops: Operands) -> tuple[np.ndarray, ...] | None:
    """(block, row, k, lanes) of a lane's dense elements: arrays [lane, element]; lanes beyond K repeat others."""
    lane, element = np.arange(ops.lanes), np.arange(count)
    rest = lane // rows
    block, group = rest % shape.blocks, rest // shape.blocks
    groups = shape.k // count
    if shape.kind == "swmmac" and groups == 4 and _BITS[kind] == 4:
        group = group % 2 * 2 + group // 2  # a sparse A has lanes for half of the groups
    if groups < 1 or groups > ops.lanes // rows // shape.blocks:
        return None
    used = group < groups
    if shape.k >= 64 and count == 32 and shape.kind == "mfma" and _BITS[kind] == 8:
        k = group[:, None] * 16 + element % 16 + element // 16 * (shape.k // 2)
    else:
        k = group[:, None] * count + element
    k, block = k[used], np.broadcast_to(block[:, None], (ops.lanes, count))[used]
    row = np.broadcast_to((lane % rows)[:, None], (ops.lanes, count))[used]
    return block, row, k, np.nonzero(used)[0]


def _dense(values: np.ndarray, place: tuple, dims: tuple) -> np.ndarray:
    block, row, k, lanes = place
    out = np.empty((len(values), *dims), F64)
    out[:, block, row, k] = values[:, lanes]
    return out


def _expanded(values: np.ndarray, choice: np.ndarray, place: tuple, dims: tuple) -> np.ndarray:
    """A sparse operand: of four elements along K two are kept, at the places that the index names."""
    block, row, k, lanes = place
    kept = values.shape[2]
    first = k[:, (np.arange(kept) // 2) * 4]
    out = np.zeros((len(values), *dims), F64)
    wave = np.arange(len(values))[:, None, None]
    out[wave, block[:, :kept], row[:, :kept], first + choice[:, lanes]] = values[:, lanes]
    return out


def _index(inst: Instruction, slot: RegisterSlot, kept: int, ops: Operands) -> Callable[[Group], np.ndarray]:
    """Two bits for each kept element, from one of the sets in the index register."""
    register = registers(inst, slot, ops.accumulators)[0] - VGPR
    sets = max(1, 32 // (2 * kept))
    if has(inst, "cbsz"):
        chosen = field(inst, "abid") % sets if field(inst, "cbsz") == 0 else 0
    else:
        name = next((n for n in ("index_key_8bit", "index_key_16bit") if has(inst, n)), "")
        chosen = field(inst, name) % sets if name else 0
    shift = (chosen * 2 * kept + 2 * np.arange(kept)).astype(U32)
    return lambda g: (g.vgpr(register)[:, :, None] >> shift & U32(3)).astype(np.int64)


def _scale(inst: Instruction, ops: Operands, slot: RegisterSlot | None, position: int) -> Callable | None:
    """Powers of two, one byte (E8M0) of every lane."""
    if slot is None:
        return None
    select = field(inst, f"sel{position}") | field(inst, f"selhi{position}") << 1
    word = ops.word(slot)

    def read(g: Group) -> np.ndarray:
        code = np.broadcast_to(word(g), (g.n, ops.lanes)) >> U32(8 * select) & U32(0xFF)
        return np.where(code == 255, np.nan, np.ldexp(1.0, code.astype(np.int64) - 127))

    return read


def _scale_blocks(scales: np.ndarray, dims: tuple) -> np.ndarray:
    """Lane l scales row l % M, elements 32 * (l // M) and on."""
    _, rows, k = dims
    blocks = scales[:, : rows * (k // 32)].reshape(len(scales), k // 32, rows)
    return np.repeat(blocks.swapaxes(1, 2), 32, axis=2)[:, None]


def _broadcast(inst: Instruction, shape: Shape) -> np.ndarray | None:
    """CBSZ and ABID: one block of A serves 2**CBSZ blocks."""
    cbsz = field(inst, "cbsz") if shape.kind == "mfma" and shape.a not in _F8F6F4 + ("f64",) else 0
    if not cbsz:
        return None
    block = np.arange(shape.blocks)
    return (block >> cbsz << cbsz) + field(inst, "abid") % (1 << cbsz)


def _permuted(inst: Instruction, shape: Shape) -> np.ndarray | None:
    """BLGP: which lanes B comes from."""
    blgp = field(inst, "blgp") if shape.kind == "mfma" and shape.b not in _F8F6F4 + ("f64",) else 0
    lane = np.arange(64)
    return {0: None, 1: lane % 32, 2: lane % 32 + 32, 3: (lane + 16) % 64}.get(
        blgp, lane % 16 + 16 * (blgp - 4)
    )


class _Result:
    """C and D: [wave, lane, register] and where each stands in the matrix."""

    def __init__(
        self, inst: Instruction, ops: Operands, target: RegisterSlot, source: RegisterSlot, shape: Shape
    ):
        self.shape, self.lanes, self.inst = shape, ops.lanes, inst
        self.first = registers(inst, target, ops.accumulators)[0] - VGPR
        number = source.number(inst.bits)
        self.source = registers(inst, source, ops.accumulators)[0] - VGPR if number >= VGPR else -1
        self.constant = constant(inst, source, number) if number < VGPR else 0
        self.words = target.kind.dwords
        self.size = {"f64": 64, "f16": 16, "bf16": 16}.get(shape.out, 32)
        self.spread = ops.generation == "gfx11" and self.size == 16  # one 16-bit value in each register
        self.high = self.spread and bool(field(inst, "sel2"))
        self.count = self.words if self.spread else self.words * 32 // self.size
        self.clamp = has(inst, "clamp") and bool(field(inst, "clamp"))
        self.place = self._place(ops)
        signs = has(inst, "neg_lo") and shape.out[0] != "i"
        self.absolute, self.negate = (bool(signs and field(inst, n)) for n in ("abs2", "neg2"))
        if shape.a == "f64":
            self.negate = bool(field(inst, "blgp") >> 2 & 1)

    def _place(self, ops: Operands) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape, lane, e = self.shape, np.arange(ops.lanes)[:, None], np.arange(self.count)
        column, rest = lane % shape.n, lane // shape.n
        if shape.kind in ("wmma", "swmmac"):
            if ops.generation == "gfx11":
                row = ops.lanes // 16 * e + rest
            else:
                row = e + 8 * (rest % 2) + 4 * (rest // 2)
            block = np.zeros_like(row)
        elif shape.out == "f64":
            row, block = (rest // shape.blocks + 4 * e, rest % shape.blocks + 0 * e)
        elif shape.m == 4:
            row, block = e + 0 * rest, rest + 0 * e
        else:
            per_block = shape.m * shape.n // 64
            within = e % per_block
            row = 64 // shape.n * 4 * (within // 4) + 4 * rest + within % 4
            block = e // per_block + 0 * rest
        return tuple(np.broadcast_arrays(block, row, column))

    def _read(self, g: Group) -> np.ndarray:
        if self.source < 0:
            raw = np.full((1, 1, self.words), self.constant & 0xFFFFFFFF, U32)
            if self.size == 64:
                raw[..., 1::2] = self.constant >> 32
            if self.size == 16:
                raw = raw | raw << U32(16)
        else:
            raw = np.stack([g.vgpr(self.source + k) for k in range(self.words)], axis=-1)
        if self.spread:
            half = (raw >> U32(16 if self.high else 0)).astype(U16)
            return half.view(np.float16) if self.shape.out == "f16" else floats.bf16_value(half)
        if self.shape.out == "bf16":
            return floats.bf16_value(raw.view(U16))
        return raw.view({"f32": F32, "f64": F64, "f16": np.float16, "i32": np.int32}[self.shape.out])

    def write(self, g: Group, product: np.ndarray) -> None:
        """Add C, round, and store; all lanes, whatever exec says."""
        block, row, column = self.place
        c = self._read(g).astype(F64)
        c = np.abs(c) if self.absolute else c
        total = product[:, block, row, column] + (-c if self.negate else c)
        out = self.shape.out
        if out == "i32":
            limit = np.iinfo(np.int32)
            total = np.clip(total, limit.min, limit.max) if self.clamp else total
            values = total.astype(np.int64).astype(U32)
        elif out == "bf16":
            values = floats.bf16_bits(total.astype(F32))
        else:
            values = total.astype({"f32": F32, "f64": F64, "f16": np.float16}[out])
        if self.spread:
            kept = U32(0xFFFF if self.high else 0xFFFF0000)
            bits = values.view(U16).astype(U32) << U32(16 if self.high else 0)
            values = np.stack([g.vgpr(self.first + k) & kept for k in range(self.words)], axis=-1) | bits
        words = np.ascontiguousarray(values).view(U32)
        for k in range(self.words):
            g.waves.v[self.first + k][g.w] = words[:, :, k]
