"""Integer and bit functions that the semantics tables name, on NumPy arrays of any width."""

from __future__ import annotations

import numpy as np

__all__ = [
    "add_carry",
    "align",
    "bfe",
    "brev",
    "byte",
    "carry_sub",
    "clamped",
    "cls",
    "clz",
    "ctz",
    "dot",
    "halves",
    "insert",
    "join",
    "low_bits",
    "majority",
    "med3",
    "mul_hi",
    "ones_below",
    "perm",
    "popcount",
    "quad_mask",
    "replicate",
    "sad",
    "sext",
    "shl",
    "shr",
    "signed24",
    "whole_quad",
    "wide_mad",
]  # fmt: skip

U8, U16, U32, U64 = np.uint8, np.uint16, np.uint32, np.uint64


def shl(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    return x << (np.asarray(n) & (x.itemsize * 8 - 1)).astype(x.dtype)


def shr(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    return x >> (np.asarray(n) & (x.itemsize * 8 - 1)).astype(x.dtype)


def low_bits(n: np.ndarray, dtype: type) -> np.ndarray:
    """The n lowest bits, n up to the width."""
    width = np.dtype(dtype).itemsize * 8
    n = np.asarray(n).astype(dtype)
    ones = (dtype(1) << (n & dtype(width - 1))) - dtype(1)
    return np.where(n >= width, ~dtype(0), ones)


def bfe(x: np.ndarray, offset: np.ndarray, width: np.ndarray) -> np.ndarray:
    """A field of bits, sign-extended for signed types; fields that reach beyond the top end there."""
    total = x.itemsize * 8
    if x.dtype.kind == "u":
        return shr(x, offset) & low_bits(width, x.dtype.type)
    offset = np.asarray(offset).astype(np.int64) & (total - 1)
    width = np.minimum(np.asarray(width).astype(np.int64), total - offset)
    up = (total - width - offset).astype(x.dtype) % x.dtype.type(total)
    down = (total - width).astype(x.dtype) % x.dtype.type(total)
    return np.where(width == 0, x.dtype.type(0), x << up >> down)


def sext(x: np.ndarray, bits: int) -> np.ndarray:
    """The low bits as a signed number of x's own width."""
    signed = np.asarray(x).view({1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}[x.itemsize])
    shift = signed.dtype.type(x.itemsize * 8 - bits)
    return signed << shift >> shift


def signed24(x: np.ndarray) -> np.ndarray:
    return sext(x, 24)


def popcount(x: np.ndarray) -> np.ndarray:
    return np.bitwise_count(x).astype(U32)


def clz(x: np.ndarray) -> np.ndarray:
    """Leading zeros, -1 for 0."""
    width = x.itemsize * 8
    smeared = np.asarray(x)
    step = 1
    while step < width:
        smeared = smeared | smeared >> smeared.dtype.type(step)
        step *= 2
    return np.where(x == 0, U32(0xFFFFFFFF), U32(width) - popcount(smeared))


def ctz(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, U32(0xFFFFFFFF), popcount(~x & (x - x.dtype.type(1))))


def cls(x: np.ndarray) -> np.ndarray:
    """Leading bits equal to the sign, counted from the top; -1 when all are."""
    unsigned = {4: U32, 8: U64}[x.itemsize]
    return clz((x ^ (x >> x.dtype.type(x.itemsize * 8 - 1))).view(unsigned))


def brev(x: np.ndarray) -> np.ndarray:
    octets = np.ascontiguousarray(x).view(U8)
    table = np.packbits(np.unpackbits(np.arange(256, dtype=U8)[:, None], axis=1, bitorder="little"), axis=1)[
        :, 0
    ]
    flipped = table[octets].reshape(*np.shape(x), x.itemsize)[..., ::-1]
    return np.ascontiguousarray(flipped).view(x.dtype).reshape(np.shape(x))


def mul_hi(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    wide = U64 if a.dtype.kind == "u" else np.int64
    return ((a.astype(wide) * b.astype(wide)) >> wide(32)).astype(a.dtype)


def add_carry(a: np.ndarray, b: np.ndarray, carry: np.ndarray | int = 0) -> tuple[np.ndarray, np.ndarray]:
    total = a.astype(U64) + b.astype(U64) + np.asarray(carry).astype(U64)
    return total.astype(U32), total > 0xFFFFFFFF


def carry_sub(a: np.ndarray, b: np.ndarray, borrow: np.ndarray | int = 0) -> tuple[np.ndarray, np.ndarray]:
    total = a.astype(np.int64) - b.astype(np.int64) - np.asarray(borrow).astype(np.int64)
    return total.astype(U32), total < 0


def wide_mad(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a * b + c of 64 bits, and whether the sum left them."""
    product = a.astype(c.dtype) * b.astype(c.dtype)
    total = product + c
    over = total < c if c.dtype == U64 else (total < c) != (product < 0)
    return total, over


def align(high: np.ndarray, low: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return ((high.astype(U64) << U64(32) | low) >> shift.astype(U64)).astype(U32)


def byte(x: np.ndarray, n: int) -> np.ndarray:
    return x >> U32(8 * n) & U32(0xFF)


def insert(old: np.ndarray, value: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """A byte of a word replaced."""
    shift = np.asarray(n).astype(U32) * U32(8)
    return old & ~(U32(0xFF) << shift) | (np.asarray(value).astype(U32) & U32(0xFF)) << shift


def perm(a: np.ndarray, b: np.ndarray, select: np.ndarray) -> np.ndarray:
    """Bytes of a (4-7) and b (0-3), signs and constants, as each byte of `select` names them."""
    both = a.astype(U64) << U64(32) | b
    out = np.zeros(np.broadcast_shapes(both.shape, np.shape(select)), U32)
    for k in range(4):
        code = byte(select, k)
        plain = both >> ((code & U32(7)) * U32(8)).astype(U64)
        sign = both >> ((code - U32(8)) * U32(16) + U32(15)).astype(U64) % U64(64)
        value = np.where(code < 8, plain & U64(0xFF), (sign & U64(1)) * U64(0xFF))
        value = np.where(code == 12, U64(0), np.where(code > 12, U64(0xFF), value))
        out |= value.astype(U32) << U32(8 * k)
    return out


def sad(a: np.ndarray, b: np.ndarray, bits: int, masked: bool = False) -> np.ndarray:
    """The sum of the absolute differences of the parts; masked: where b's part is not 0."""
    total = np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b)), U32)
    ones = U32((1 << bits) - 1)
    for shift in range(0, 32, bits):
        x, y = (a >> U32(shift) & ones).astype(np.int64), (b >> U32(shift) & ones).astype(np.int64)
        difference = np.abs(x - y)
        total += np.where(y != 0, difference, 0).astype(U32) if masked else difference.astype(U32)
    return total


def dot(a: np.ndarray, b: np.ndarray, bits: int, a_signed: int, b_signed: int) -> np.ndarray:
    """The dot product of the parts of two words, in 64 bits."""
    total = np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b)), np.int64)
    ones = U32((1 << bits) - 1)

    def part(x: np.ndarray, shift: int, signed: int) -> np.ndarray:
        value = (x >> U32(shift) & ones).astype(np.int64)
        return value - ((value >> (bits - 1)) << bits) if signed else value

    for shift in range(0, 32, bits):
        total += part(a, shift, a_signed) * part(b, shift, b_signed)
    return total


def ones_below(g: object, mask: np.ndarray, first: int) -> np.ndarray:
    """How many bits of a mask belong to lanes below each lane; the mask starts at lane `first`."""
    lane = np.clip(np.arange(g.waves.lanes) - first, 0, 32)
    return popcount(mask & ((1 << lane.astype(U64)) - 1).astype(U32))


def med3(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.astype(U16), (x >> U32(16)).astype(U16)


def join(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.asarray(low).astype(U16).astype(U32) | np.asarray(high).astype(U16).astype(U32) << U32(16)


def clamped(x: np.ndarray, dtype: type) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.clip(x, info.min, info.max).astype(dtype)


def majority(truth: int, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Any bitwise function of three words, by its truth table (a is 0xF0, b 0xCC, c 0xAA)."""
    out = np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b), np.shape(c)), a.dtype)
    for n in range(8):
        if truth >> n & 1:
            out = out | (a if n & 4 else ~a) & (b if n & 2 else ~b) & (c if n & 1 else ~c)
    return out


def _quads(x: np.ndarray) -> np.ndarray:
    """Bit 4n is set where any bit of quad n is."""
    t = x.dtype.type
    x = x | x >> t(1)
    return (x | x >> t(2)) & t(0x1111111111111111 & (1 << x.itemsize * 8) - 1)


def whole_quad(x: np.ndarray) -> np.ndarray:
    return _quads(x) * x.dtype.type(15)


def quad_mask(x: np.ndarray) -> np.ndarray:
    t, quads = x.dtype.type, _quads(x)
    out = np.zeros_like(x)
    for n in range(x.itemsize * 2):
        out |= (quads >> t(4 * n) & t(1)) << t(n)
    return out


def replicate(x: np.ndarray) -> np.ndarray:
    """Every bit twice."""
    out = np.zeros(np.shape(x), U64)
    for n in range(32):
        out |= (x.astype(U64) >> U64(n) & U64(1)) * U64(3) << U64(2 * n)
    return out
