"""Rules for conversions between types, and for float16. What fits no integer becomes the nearest that there is."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tg_codegen.machine.code import VReg
from tg_codegen.machine.nodes import FLOATS, INTEGERS, Instr
from tg_codegen.x86_64.operands import Pool, Source, V
from tg_codegen.x86_64.select import Parts, Rule, Selector
from tg_codegen.x86_64.select_data import (
    compare,
    halves,
    join,
    lift,
    logic,
    narrow,
    part_masks,
    size_of,
    split,
)

__all__ = ["NATIVE_CONVERSIONS", "convert_rules"]

Conversion = Callable[[Selector, Sequence[VReg]], Parts]
"""Gives the parts of the converted value."""


def _bound(s: Selector, type: str, value: float) -> Pool:
    code, size = ("<f", 4) if type == "f32" else ("<d", 8)
    return s.pool(int.from_bytes(struct.pack(code, value), "little"), size)


def _saturating(opcode: str, source: str, target: str) -> Conversion:
    """Truncation with AVX-512. Too large gives the type's greatest; signed too small its least, 100..0, by itself."""
    size, bits = size_of(target), 8 * size_of(target)
    signed = target[0] == "i"

    def convert(s: Selector, parts: Sequence[VReg]) -> Parts:
        low = parts if signed else (_bound(s, source, -1.0),)
        keep = compare(s, "ord" if signed else "gt", source, parts, low)
        high = compare(s, "ge", source, parts, (_bound(s, source, 2.0 ** (bits - signed)),))
        greatest = s.pool((1 << bits - signed) - 1, size)
        if source == "f32" and size == 8:  # one part becomes two
            keep, high = part_masks(s, keep[0], 2), part_masks(s, high[0], 2)
            sources: Sequence[Source] = [split(s, parts[0], 0), split(s, parts[0], 1)]
        else:
            sources = parts
        kind = s.half if source == "f64" and size == 4 else s.kind
        made = []
        for part, k, h in zip(sources, keep, high, strict=True):
            whole = s.op(opcode, part, mask=k, zeroing=True, kind=kind)
            over = Pool(greatest.data)
            opcode_over = "vpbroadcastd" if size == 4 else "vpbroadcastq"
            made.append(s.op(opcode_over, over, tied=whole, mask=h, kind=kind))
        return (join(s, *made),) if kind == s.half else tuple(made)

    return convert


def _truncate_avx2(s: Selector, parts: Sequence[VReg]) -> Parts:
    """f32 to i32: what does not fit gives 100..0; a flip of all bits makes that the greatest."""
    whole = lift(s, "vcvttps2dq", parts)
    whole = logic(s, "xor", whole, compare(s, "ge", "f32", parts, (_bound(s, "f32", 2.0**31),)))
    return logic(s, "and", whole, compare(s, "ord", "f32", parts, parts))


def _truncate_64_avx2(s: Selector, parts: Sequence[VReg]) -> Parts:
    """f64 to i32: brought into range first; a NaN gives the bound, and is cleared at the end."""
    inside = lift(s, "vminpd", parts, (_bound(s, "f64", 2.0**31 - 1),))
    inside = lift(s, "vmaxpd", inside, (_bound(s, "f64", -(2.0**31)),))
    inside = logic(s, "and", inside, compare(s, "ord", "f64", parts, parts))
    return narrow(s, "vcvttpd2dq", inside)


def _lower_halves(s: Selector, parts: Sequence[VReg]) -> Parts:
    if s.wide:
        return narrow(s, "vpmovqd", parts)
    return (s.op("vpermq", s.op("vshufps", parts[0], parts[1], 0x88), 0xD8),)


_CONVERSIONS: dict[tuple[str, str], Conversion] = {
    ("i32", "f32"): lambda s, p: lift(s, "vcvtdq2ps", p),
    ("i32", "f64"): lambda s, p: halves(s, "vcvtdq2pd", p),
    ("f32", "f64"): lambda s, p: halves(s, "vcvtps2pd", p),
    ("f64", "f32"): lambda s, p: narrow(s, "vcvtpd2ps", p),
} | {
    (f"{a}{n}", f"{b}{m}"): conversion
    for a in "iu"
    for b in "iu"
    for n, m, conversion in (
        (32, 32, lambda s, p: tuple(p)),
        (64, 64, lambda s, p: tuple(p)),
        (64, 32, _lower_halves),
        (32, 64, (lambda s, p: halves(s, "vpmovsxdq", p)) if a == "i" else lambda s, p: halves(s, "vpmovzxdq", p)),
    )
}  # fmt: skip
_CONVERSIONS_AVX2 = _CONVERSIONS | {("f32", "i32"): _truncate_avx2, ("f64", "i32"): _truncate_64_avx2}
_CONVERSIONS_AVX512 = (
    _CONVERSIONS
    | {
        ("u32", "f32"): lambda s, p: lift(s, "vcvtudq2ps", p),
        ("u32", "f64"): lambda s, p: halves(s, "vcvtudq2pd", p),
        ("i64", "f64"): lambda s, p: lift(s, "vcvtqq2pd", p),
        ("u64", "f64"): lambda s, p: lift(s, "vcvtuqq2pd", p),
        ("i64", "f32"): lambda s, p: narrow(s, "vcvtqq2ps", p),
        ("u64", "f32"): lambda s, p: narrow(s, "vcvtuqq2ps", p),
    }
    | {
        (f"f{n}", f"{a}{m}"): _saturating(
            f"vcvtt{'ps' if n == 32 else 'pd'}2{'u' * (a == 'u')}{'dq' if m == 32 else 'qq'}",
            f"f{n}",
            f"{a}{m}",
        )
        for n in (32, 64)
        for m in (32, 64)
        for a in "iu"
    }
)
NATIVE_CONVERSIONS = {False: frozenset(_CONVERSIONS_AVX2), True: frozenset(_CONVERSIONS_AVX512)}
"""(from, to) of the conversions that are not expanded, with AVX2 and with AVX-512."""


def _convert(table: dict[tuple[str, str], Conversion]) -> Rule:
    def rule(s: Selector, instr: Instr) -> Parts:
        value = instr.args[0]
        if value.type == instr.dst.type:
            return s.parts(value)
        return table[value.type, instr.dst.type](s, s.parts(value))

    return rule


def _half_from_float(s: Selector, instr: Instr) -> Parts:
    assert instr.attr == "float16", f"encode of {instr.attr} is expanded"
    half = s.op("vcvtps2ph", s.parts(instr.args[0])[0], 0, kind=s.half)
    return (s.op("vpmovzxwd", V(half, s.half)),)


def _float_from_half(s: Selector, instr: Instr) -> Parts:
    assert instr.attr == "float16", f"decode of {instr.attr} is expanded"
    low = s.parts(instr.args[0])[0]
    if s.wide:
        return (s.op("vcvtph2ps", V(s.op("vpmovdw", low, kind=s.half), s.half)),)
    order = Pool(bytes([0, 1, 4, 5, 8, 9, 12, 13] * 4))
    packed = s.op("vpermq", s.op("vpshufb", low, order), 0x08)
    return (s.op("vcvtph2ps", V(packed, s.half)),)


def convert_rules(wide: bool) -> dict[tuple[str, str], Rule]:
    """The rules of AVX-512, or of AVX2."""
    convert = _convert(_CONVERSIONS_AVX512 if wide else _CONVERSIONS_AVX2)
    rules = {("convert", type): convert for type in (*INTEGERS, *FLOATS)}
    return rules | {("encode", "u32"): _half_from_float, ("decode", "f32"): _float_from_half}
