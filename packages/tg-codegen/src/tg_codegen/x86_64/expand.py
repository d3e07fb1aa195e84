"""What a level lacks, in terms of what it has: conversions between floats and wide integers, and encoded floats.

The number 2^52 + n, for n < 2^52, is a float64 whose lower bits are n: adding and subtracting 2^52 converts between
integers and floats. A number of 64 bits takes two such steps, 32 bits each.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache

from tg_codegen.machine.build import Builder, Expansion
from tg_codegen.machine.expand import EXPANSIONS
from tg_codegen.machine.nodes import INTEGERS, MEMORY_BYTES, Address, Reg
from tg_codegen.x86_64.select_convert import NATIVE_CONVERSIONS, convert_rules
from tg_codegen.x86_64.select_data import data_rules

__all__ = ["expansions"]

_ENCODED = tuple(name for name in MEMORY_BYTES if name.startswith(("bfloat16", "float8")))


def _number(b: Builder, value: float) -> Reg:
    return b.const("f64", struct.unpack("<Q", struct.pack("<d", value))[0])


def _bits(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def _u64(b: Builder, value: Reg) -> Reg:
    return value if value.type == "u64" else b.emit("bitcast", "u64", value)


def _f64_from_64(b: Builder, value: Reg) -> Reg:
    """(upper * 2^32 - bias) + lower, of which only the last sum rounds."""
    bits, signed = _u64(b, value), value.type == "i64"
    low = b.emit("and", "u64", bits, b.const("u64", 0xFFFFFFFF))
    low = b.emit("bitcast", "f64", b.emit("or", "u64", low, b.const("u64", _bits(2.0**52))))
    high = b.emit("shr", "u64", bits, b.const("u64", 32))
    flip = _bits(2.0**84) ^ (0x80000000 if signed else 0)  # a signed upper half counts from -2^31
    high = b.emit("bitcast", "f64", b.emit("xor", "u64", high, b.const("u64", flip)))
    high = b.emit("sub", "f64", high, _number(b, 2.0**84 + 2.0**52 + (2.0**63 if signed else 0)))
    return b.emit("add", "f64", high, low)


def _f32_from_64(b: Builder, value: Reg) -> Reg:
    """Through f64 without rounding twice: from 2^53 up the lowest 11 bits become one that tells whether any was set.

    Source: Boldo, Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 57 (2008).
    """
    type = value.type
    low = b.const(type, 0x7FF)
    sticky = b.emit("add", type, b.emit("and", type, value, low), low)
    odd = b.emit("and", type, b.emit("or", type, value, sticky), b.const(type, ~0x7FF & (1 << 64) - 1))
    size = value if type == "u64" else b.emit("abs", type, value)
    small = b.emit("lt", "bool", _u64(b, size), b.const("u64", 1 << 53))
    exact = b.emit("select", type, small, value, odd)
    return b.emit("convert", "f32", b.emit("convert", "f64", exact))


def _64_from_f64(b: Builder, value: Reg, type: str) -> Reg:
    """trunc(value) = upper * 2^32 + lower, each exact; then what does not fit is replaced."""
    whole = b.emit("trunc", "f64", value)
    upper = b.emit("floor", "f64", b.emit("mul", "f64", whole, _number(b, 2.0**-32)))
    lower = b.emit("fma", "f64", upper, _number(b, -(2.0**32)), whole)
    magic = 2.0**52 + 2.0**51  # also for negative numbers
    high = b.emit("bitcast", "u64", b.emit("add", "f64", upper, _number(b, magic)))
    low = b.emit("bitcast", "u64", b.emit("add", "f64", lower, _number(b, 2.0**52)))
    low = b.emit("xor", "u64", low, b.const("u64", _bits(2.0**52)))
    result = b.emit("add", "u64", b.emit("shl", "u64", high, b.const("u64", 32)), low)
    least, greatest = (0, (1 << 64) - 1) if type == "u64" else (1 << 63, (1 << 63) - 1)
    under = b.emit("lt", "bool", value, _number(b, 0.0 if type == "u64" else -(2.0**63)))
    fits = b.emit("lt", "bool", value, _number(b, 2.0**64 if type == "u64" else 2.0**63))
    result = b.emit("select", "u64", fits, result, b.const("u64", greatest))
    result = b.emit("select", "u64", under, b.const("u64", least), result)
    result = b.emit("select", "u64", b.emit("eq", "bool", value, value), result, b.const("u64", 0))
    return result if type == "u64" else b.emit("bitcast", type, result)


def _conversion(type: str) -> Expansion:
    def expand(b: Builder, value: Reg) -> Reg | None:
        source = value.type
        if (source, type) in NATIVE_CONVERSIONS[False] or source == type:
            return None
        if source == "u32":  # to a float
            wide = b.emit("convert", "f64", b.emit("convert", "u64", value))
            return wide if type == "f64" else b.emit("convert", type, wide)
        if source in INTEGERS:
            return _f64_from_64(b, value) if type == "f64" else _f32_from_64(b, value)
        if source == "f32":
            return b.emit("convert", type, b.emit("convert", "f64", value))
        if type == "u32":
            wide = b.emit("min", "i64", _64_from_f64(b, value, "i64"), b.const("i64", 0xFFFFFFFF))
            return b.emit("convert", "u32", b.emit("max", "i64", wide, b.const("i64", 0)))
        return _64_from_f64(b, value, type)

    return expand


def _load_encoded(
    b: Builder,
    type: str,
    memory: str,
    address: Address,
    access: str,
    mask: Reg | None,
    other: Reg | None,
    volatile: bool,
) -> Reg:
    """Its bits, decoded; those of 0 are 0."""
    bits = b.load("u32", f"uint{8 * MEMORY_BYTES[memory]}", address, access, mask, None, volatile)
    value = b.emit("decode", type, bits, attr=memory)
    return value if other is None else b.emit("select", type, mask, value, other)


def _store_encoded(
    b: Builder, memory: str, address: Address, access: str, value: Reg, mask: Reg | None, volatile: bool
) -> None:
    bits = b.emit("encode", "u32", value, attr=memory)
    b.store(f"uint{8 * MEMORY_BYTES[memory]}", address, access, bits, mask, volatile)


@cache
def expansions(level: str) -> Mapping[tuple[str, str], Expansion]:
    """What lowering must expand for a level."""
    native = data_rules(level != "avx2") | convert_rules(level != "avx2")
    table = {key: e for key, e in EXPANSIONS.items() if key not in native and not key[0].endswith(" float16")}
    if level == "avx2":
        table |= {("convert", type): _conversion(type) for type in ("f32", "f64", "u32", "i64", "u64")}
    table |= {("load", name): _load_encoded for name in _ENCODED}
    table |= {("store", name): _store_encoded for name in _ENCODED}
    return table
