"""Scalar operations of the kernel IR in terms of machine IR: types, elementwise rows, casts, constants.

A float16, bfloat16 or float8 value is an f32 that only casts and stores round; a narrow integer is an i32 or u32 that
stays sign- or zero-extended.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tg_codegen.machine.build import Builder
from tg_codegen.machine.nodes import Reg
from tg_ir.dtypes import DType, bool_, float32

__all__ = ["bitcast", "cast", "constant", "elementwise", "float_constant", "machine_type"]

_RENAMED = {"invert": "not"}
_MAY_LEAVE = frozenset({"neg", "abs", "invert", "add", "sub", "mul", "floordiv", "pow", "shl"})
"""Operations whose result may not fit a narrow integer although their operands do."""


def machine_type(dtype: DType) -> str:
    """The type of the register that holds a value of this dtype."""
    match dtype.kind:
        case "bool":
            return "bool"
        case "float":
            return "f64" if dtype.bits == 64 else "f32"
        case _:
            return ("i" if dtype.kind == "int" else "u") + ("64" if dtype.bits == 64 else "32")


def float_constant(b: Builder, value: float, type: str) -> Reg:
    """A float as a constant."""
    code, bits = ("<f", "<I") if type == "f32" else ("<d", "<Q")
    return b.const(type, struct.unpack(bits, struct.pack(code, value))[0])


def constant(b: Builder, value: float | int | bool, dtype: DType) -> Reg:
    """A number of a dtype, as Python has it."""
    type = machine_type(dtype)
    if dtype.is_float:
        return float_constant(b, float(value), type)
    return b.const(type, int(value) & ((1 << (64 if type.endswith("64") else 32)) - 1))


def elementwise(b: Builder, name: str, args: Sequence[Reg], dtype: DType) -> Reg:
    """A row of tg_ir.elementwise; `dtype` is that of its operands (after the condition of `where`)."""
    type = machine_type(dtype)
    if type == "bool":
        return _logic(b, name, args)
    if name == "where":
        return b.emit("select", type, *args)
    if name in ("lt", "le", "eq", "ne"):
        return b.emit(name, "bool", *args)
    if name in ("maximum", "minimum") and not dtype.is_float:
        name = name[:3]
    result = b.emit(_RENAMED.get(name, name), type, *args)
    if name in _MAY_LEAVE and not dtype.is_float and dtype.bits < 32:
        return b.emit("extend", type, result, attr=dtype.bits)
    return result


def _logic(b: Builder, name: str, args: Sequence[Reg]) -> Reg:
    """Operations on truth values."""

    def e(op: str, *operands: Reg) -> Reg:
        return b.emit(op, "bool", *operands)

    match name, args:
        case "invert", (x,):
            return e("not", x)
        case (("and" | "minimum"), (x, y)):
            return e("and", x, y)
        case (("or" | "maximum"), (x, y)):
            return e("or", x, y)
        case (("xor" | "ne"), (x, y)):
            return e("xor", x, y)
        case "eq", (x, y):
            return e("not", e("xor", x, y))
        case "lt", (x, y):
            return e("and", e("not", x), y)
        case "le", (x, y):
            return e("or", e("not", x), y)
        case "where", (c, x, y):
            return e("or", e("and", c, x), e("and", e("not", c), y))
    raise AssertionError(f"{name} of truth values")


def cast(b: Builder, value: Reg, source: DType, target: DType) -> Reg:
    """The value converted as tg_ir.dtypes says."""
    if source is target:
        return value
    have, want = machine_type(source), machine_type(target)
    if target is bool_:
        return b.emit("ne", "bool", value, constant(b, 0, source))
    if source is bool_:
        return b.emit("select", want, value, constant(b, 1, target), constant(b, 0, target))
    if target.is_float:
        wide = value if have == want else b.emit("convert", want, value)
        if target.bits < 32 and not (source.is_float and _holds(target, source)):
            return b.emit("decode", "f32", b.emit("encode", "u32", wide, attr=target.name), attr=target.name)
        return wide
    if source.is_float:
        wide = b.emit("convert", want, value)
        if target.bits < 32:  # saturates
            low, high = constant(b, target.min, target), constant(b, target.max, target)
            wide = b.emit("min", want, wide, high)
            return wide if want[0] == "u" else b.emit("max", want, wide, low)
        return wide
    wide = value if have == want else b.emit("convert", want, value)
    if target.bits < 32 and not (
        source.bits < target.bits and (source.kind == "uint" or target.kind == "int")
    ):
        return b.emit("extend", want, wide, attr=target.bits)
    return wide


def _holds(target: DType, source: DType) -> bool:
    """Whether every value of `source` is one of `target`: only a format itself does, among narrow ones."""
    return target is source


def bitcast(b: Builder, value: Reg, source: DType, target: DType) -> Reg:
    """The bits of a value read as another dtype of the same size."""
    if source is target:
        return value
    if source.bits >= 32:
        have, want = machine_type(source), machine_type(target)
        return value if have == want else b.emit("bitcast", want, value)
    if source.is_float:
        bits = b.emit("encode", "u32", value, attr=source.name)
    else:
        bits = value if source.kind == "uint" else b.emit("bitcast", "u32", value)
    if target.is_float:
        return b.emit("decode", "f32", bits, attr=target.name)
    if target.kind == "uint":
        return b.emit("extend", "u32", bits, attr=target.bits)
    return b.emit("extend", "i32", b.emit("bitcast", "i32", bits), attr=target.bits)


assert machine_type(float32) == "f32", "the accumulator of narrow floats"
