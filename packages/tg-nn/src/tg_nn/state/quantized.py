"""Quantised tensors: blocks of bytes that stay packed, and what they mean, as tensor programs on those bytes.

A block of 32 or 256 numbers holds small integers and one or more scales. `d` and `m` below are a block's scale and
minimum. Since unpacking is a graph, a compiler may fuse it into what reads the numbers.
Source: the block structures of ggml-common.h and their meaning in ggml-quants.c (facts only).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tg_frontend import Tensor, arange, cat
from tg_nn.errors import TgError

__all__ = ["KINDS", "PackedTensor"]

_IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the values of 4-bit floats."""


def _half(b: Tensor, at: int) -> Tensor:
    """The float16 at a byte of each block, as float32. Shapes: (n, bytes) gives (n, 1)."""
    return (b[:, at].to("uint16") | b[:, at + 1].to("uint16") << 8).bitcast("float16").float().unsqueeze(1)


def _nibbles(q: Tensor) -> Tensor:
    """Low halves, then high halves, along the last axis."""
    return cat([q & 15, q >> 4], -1)


def _fields(q: Tensor, bits: int) -> Tensor:
    """The bit fields of each byte, from the low end. Shapes: (n, k) gives (n, 8 / bits, k)."""
    shifts = arange(0, 8, bits, device=q.device).to("uint8").reshape(1, -1, 1)
    return (q.unsqueeze(1) >> shifts) & (2**bits - 1)


def _fifth(qh: Tensor) -> Tensor:
    """Bit j of four bytes, as 16 for number j. Shapes: (n, 4) gives (n, 32)."""
    return _fields(qh, 1).transpose(1, 2).flatten(1) << 4


def _signed(q: Tensor) -> Tensor:
    return q.bitcast("int8").float()


def _q4_0(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 2:]).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return _half(b, 0) * _nibbles(b[:, 4:]).float() + _half(b, 2)


def _q5_0(b: Tensor) -> Tensor:
    return _half(b, 0) * ((_nibbles(b[:, 6:]) | _fifth(b[:, 2:6])).float() - 16)


def _q5_1(b: Tensor) -> Tensor:
    return _half(b, 0) * (_nibbles(b[:, 8:]) | _fifth(b[:, 4:8])).float() + _half(b, 2)


def _q8_0(b: Tensor) -> Tensor:
    return _half(b, 0) * _signed(b[:, 2:])


def _by_16(scale: Tensor, q: Tensor) -> Tensor:
    """Sixteen numbers a scale. Shapes: (n, 16) and (n, 256) give (n, 16, 16)."""
    return scale.unsqueeze(2) * q.float().reshape(-1, 16, 16)


def _quarters(q: Tensor) -> Tensor:
    """Two bits a number: 128 numbers in 32 bytes, whose low bits come first. Shapes: (n, 64) gives (n, 256)."""
    return cat([_fields(q[:, :32], 2).flatten(1), _fields(q[:, 32:], 2).flatten(1)], 1)


def _q2_k(b: Tensor) -> Tensor:
    scales, d, m = b[:, :16], _half(b, 80), _half(b, 82)
    values = _by_16(d * (scales & 15).float(), _quarters(b[:, 16:80]))
    return values - (m * (scales >> 4).float()).unsqueeze(2)


def _q3_k(b: Tensor) -> Tensor:
    low, high = _nibbles(b[:, 96:104]), _fields(b[:, 104:108], 2).flatten(1)
    scales = (low | high << 4).float() - 32
    inverted = _fields(b[:, :32], 1).flatten(1)  # a bit that is not set stands for -4
    return _by_16(_half(b, 108) * scales, _quarters(b[:, 32:96]).float() + (inverted.float() - 1) * 4)


def _scales_of_k4(s: Tensor) -> tuple[Tensor, Tensor]:
    """Eight scales and eight minima of 6 bits from 12 bytes."""
    first, second, rest = s[:, :4], s[:, 4:8], s[:, 8:]
    scales = cat([first & 63, (rest & 15) | (first >> 6 << 4)], 1)
    return scales.float().unsqueeze(2), cat(
        [second & 63, (rest >> 4) | (second >> 6 << 4)], 1
    ).float().unsqueeze(2)


def _q4_k(b: Tensor) -> Tensor:
    return _k4(b, _nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def _q5_k(b: Tensor) -> Tensor:
    return _k4(b, _nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32) | _fields(b[:, 16:48], 1) << 4)


def _k4(b: Tensor, q: Tensor) -> Tensor:
    scales, minima = _scales_of_k4(b[:, 4:16])
    return _half(b, 0).unsqueeze(2) * scales * q.float() - _half(b, 2).unsqueeze(2) * minima


def _q6_k(b: Tensor) -> Tensor:
    low = cat([_nibbles(b[:, 64 * i : 64 * i + 64]) for i in (0, 1)], 1)
    q = (low | _quarters(b[:, 128:192]) << 4).float() - 32
    return _by_16(_half(b, 208) * _signed(b[:, 192:208]), q)


def _q8_k(b: Tensor) -> Tensor:
    bits = b[:, :4].to("uint32")
    d = (bits[:, 0] | bits[:, 1] << 8 | bits[:, 2] << 16 | bits[:, 3] << 24).bitcast("float32")
    return d.unsqueeze(1) * _signed(b[:, 4:260])


def _looked_up(values: tuple[int, ...], q: Tensor) -> Tensor:
    return Tensor(values, dtype="float32", device=q.device)[_nibbles(q).long()]


def _iq4_nl(b: Tensor) -> Tensor:
    return _half(b, 0) * _looked_up(_IQ4_NL, b[:, 2:])


def _mxfp4(b: Tensor) -> Tensor:
    # In two factors, because 2 ** -128 alone is subnormal.
    first = b[:, :1] >> 1
    factors = [(part.float() - 64).exp2() for part in (first, b[:, :1] - first)]
    return factors[0] * _looked_up(_E2M1, b[:, 1:]) * factors[1]


@dataclass(frozen=True, slots=True)
class Kind:
    """A format: numbers and bytes of a block, and how blocks become numbers."""

    numbers: int
    bytes: int
    unpack: Callable[[Tensor], Tensor]


KINDS = {
    "Q4_0": Kind(32, 18, _q4_0),
    "Q4_1": Kind(32, 20, _q4_1),
    "Q5_0": Kind(32, 22, _q5_0),
    "Q5_1": Kind(32, 24, _q5_1),
    "Q8_0": Kind(32, 34, _q8_0),
    "Q2_K": Kind(256, 84, _q2_k),
    "Q3_K": Kind(256, 110, _q3_k),
    "Q4_K": Kind(256, 144, _q4_k),
    "Q5_K": Kind(256, 176, _q5_k),
    "Q6_K": Kind(256, 210, _q6_k),
    "Q8_K": Kind(256, 292, _q8_k),
    "IQ4_NL": Kind(32, 18, _iq4_nl),
    "MXFP4": Kind(32, 17, _mxfp4),
}


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A quantised tensor: its blocks as uint8 (blocks, bytes), in the order of the row-major numbers."""

    kind: str
    shape: tuple[int, ...]
    blocks: Tensor

    def unpack(self) -> Tensor:
        """The numbers as float32."""
        kind = KINDS.get(self.kind)
        if kind is None:
            raise TgError(f"PackedTensor: got kind {self.kind!r}, want one of {', '.join(KINDS)}")
        assert math.prod(self.shape) == int(self.blocks.shape[0]) * kind.numbers, (
            "blocks do not fit the shape"
        )
        return kind.unpack(self.blocks).reshape(*self.shape)

    def __repr__(self) -> str:
        return f"PackedTensor({self.kind}, shape={self.shape})"
