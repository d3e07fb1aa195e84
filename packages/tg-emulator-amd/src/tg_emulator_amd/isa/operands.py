"""Operands of a decoded instruction as functions of a group: sources read, results written.

A *type* says what a semantics row sees: u32 i32 f32, u16 i16 f16, bf16 (as f32), u64 i64 f64, m (a lane mask as
booleans), and packed pairs pu16 pi16 pf16 pbf16 pf32 pu32 as (low, high). `mix` is f16 or f32 as op_sel_hi says.
Shapes: vector sources [wave, lane], scalar ones [wave, 1] in vector instructions and [wave] in scalar ones.
Source: RDNA3 and CDNA3 ISA manuals, "Instruction modifiers", "Data parallel primitives", "SDWA".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.operands import AGPR, LITERAL, VGPR, float_patterns
from tg_codegen.amdgpu.slots import ImmediateSlot, RegisterSlot, Slot, WordSlot

from . import floats
from .waves import EXEC, VCC, Group

__all__ = ["Operands", "register_index", "registers"]

U16, U32, U64 = np.uint16, np.uint32, np.uint64
DTYPE = {"u32": U32, "i32": np.int32, "f32": np.float32, "u16": U16, "i16": np.int16, "f16": np.float16,
         "u64": U64, "i64": np.int64, "f64": np.float64, "u8": np.uint8, "i8": np.int8}  # fmt: skip
Read = Callable[[Group], Any]
SCC, SHARED_BASE, PRIVATE_BASE, VCCZ, EXECZ = 253, 235, 237, 251, 252
APERTURES = {235: 1 << 48, 236: (1 << 48) + 0xFFFFFFFF, 237: 2 << 48, 238: (2 << 48) + 0xFFFFFFFF}


def field(inst: Instruction, name: str, default: int = 0) -> int:
    """The value of a field or modifier, where the row has it."""
    row = inst.row
    place = row.format.fields.get(name)
    if place is None:
        return default
    return place.extract(inst.bits)


def has(inst: Instruction, modifier: str) -> bool:
    return modifier in inst.row.text_spec.partition("|")[2].replace("=", "").split(" ")


def registers(inst: Instruction, slot: Slot, accumulators: int) -> tuple[int, ...]:
    """Numbers of the registers of an operand: scalar 0-127, vector from 256 on, a0 at 256 + accumulators."""
    if not isinstance(slot, RegisterSlot):
        return ()
    number = slot.number(inst.bits)
    first = register_index(number, accumulators)
    count = operand_words(inst, slot)
    return tuple(range(first, first + count)) if first >= 0 else ()


def operand_words(inst: Instruction, slot: Slot) -> int:
    if hasattr(slot, "selector"):
        return slot.SIZES[slot.selector.extract(inst.bits)]
    return slot.kind.dwords


def register_index(number: int, accumulators: int) -> int:
    if number < 128:
        return number
    if number < VGPR:
        return -1
    return number if number < AGPR else VGPR + accumulators + number - AGPR


def constant(inst: Instruction, slot: RegisterSlot, number: int) -> int:
    """The 64 bits of an inline constant or literal."""
    kind = slot.kind.type
    if number == LITERAL:
        value = inst.bits >> slot.literal_shift & 0xFFFFFFFF if slot.literal_shift else 0
        return value << 32 if kind == "f64" else value
    if number <= 192:
        value = number - 128
    elif number <= 208:
        value = 192 - number
    else:
        value = next(bits for bits, n in float_patterns(kind or "b32").items() if n == number)
    value &= (1 << 64) - 1
    return value | value << 32 if kind in ("v2f32", "v2b32") and number > 208 else value


class Operands:
    """Compiles the operands of one instruction."""

    def __init__(self, inst: Instruction, accumulators: int, generation: str, lanes: int, scalar: bool):
        self.inst, self.row, self.bits = inst, inst.row, inst.bits
        self.accumulators, self.generation, self.lanes, self.scalar = accumulators, generation, lanes, scalar
        self.sdwa = "_SDWA" in self.row.format.name
        self.packed = self.row.format.name.startswith("VOP3P")
        self.dpp = self._dpp()

    # -- sources ------------------------------------------------------------------------------------------------

    def _dpp(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """(source lane, whether there is one, whether the lane's row and bank are on) of a DPP instruction."""
        inst, lane = self.inst, np.arange(self.lanes)
        every = np.ones(self.lanes, bool)
        if has(inst, "dpp8"):
            select = field(inst, "dpp8")
            return lane & ~7 | (select >> 3 * (lane & 7)) & 7, every, every
        if not has(inst, "dpp_ctrl"):
            return None
        control = field(inst, "dpp_ctrl")
        n, within, row = control & 15, lane & 15, lane & ~15
        table = {
            0x10: (within + n, None), 0x11: (within - n, None), 0x12: ((within - n) & 15, None),
            0x15: (np.full(self.lanes, n), None), 0x16: (within ^ n, None),
        }  # fmt: skip
        whole = {0x130: lane + 1, 0x134: (lane + 1) % self.lanes, 0x138: lane - 1, 0x13C: (lane - 1) % self.lanes,
                 0x140: row + 15 - within, 0x141: lane & ~7 | 7 - (lane & 7), 0x142: np.where(row > 0, row - 1, -1),
                 0x143: np.where(lane >= 32, 31, -1)}  # fmt: skip
        if control < 0x100:
            source = lane & ~3 | (control >> 2 * (lane & 3)) & 3
        elif control in whole:
            source = whole[control]
        else:
            place = table[control >> 4][0]
            source = np.where((place >= 0) & (place < 16), row + place, -1)
        valid = (source >= 0) & (source < self.lanes)
        on = (field(inst, "row_mask") >> (lane >> 4) & 1).astype(bool)
        on &= (field(inst, "bank_mask") >> (within >> 2) & 1).astype(bool)
        return np.where(valid, source, 0), valid, on

    def write_mask(self) -> Callable[[Group], np.ndarray] | None:
        """Which lanes a DPP instruction writes."""
        if self.dpp is None:
            return None
        source, valid, on = self.dpp
        bound = field(self.inst, "bound_ctrl") if has(self.inst, "bound_ctrl") else 1
        inactive = field(self.inst, "fi") in (1, 234)

        def mask(g: Group) -> np.ndarray:
            if bound:
                return g.mask & on
            return g.mask & on & valid & (True if inactive else g.mask[:, source])

        return mask

    def _permuted(self, read: Read) -> Read:
        source, valid, _ = self.dpp
        inactive = field(self.inst, "fi") in (1, 234)

        def permuted(g: Group) -> np.ndarray:
            value = read(g)
            if value.ndim < 2 or value.shape[1] == 1:
                return value
            there = valid if inactive or g.full else valid & g.mask[:, source]
            return np.where(there, value[:, source], U32(0))

        return permuted

    def word(self, slot: RegisterSlot, k: int = 0) -> Read:
        """The k-th dword of a source."""
        number = slot.number(self.bits)
        if number >= VGPR:
            index = register_index(number, self.accumulators) - VGPR + k
            read: Read = lambda g: g.waves.v[index][g.w]  # noqa: E731
        elif number < 128:
            r = number + k
            null = number == 124 and self.generation != "gfx940"
            if null:
                return lambda g: U32(0)
            read = (lambda g: g.waves.s[r][g.w]) if self.scalar else (lambda g: g.waves.s[r][g.w][:, None])
        elif number in APERTURES:
            value = U32(APERTURES[number] >> 32 * k & 0xFFFFFFFF)
            return lambda g: value
        elif number in (SCC, VCCZ, EXECZ):
            read = {
                SCC: lambda g: g.scc.astype(U32),
                VCCZ: lambda g: (g.sgpr64(VCC) == 0).astype(U32),
                EXECZ: lambda g: (g.sgpr64(EXEC) == 0).astype(U32),
            }[number]
            return read if self.scalar else lambda g: read(g)[:, None]
        else:
            value = U32(constant(self.inst, slot, number) >> 32 * k & 0xFFFFFFFF)
            return lambda g: value
        if self.dpp is not None and slot.name.startswith("src0"):
            read = self._permuted(read)
        return read

    def _selected(self, slot: RegisterSlot, read: Read, select: int, signed: bool) -> Read:
        """SDWA's byte or word of a source."""
        if select == 6:
            return read
        dtype, shift = (np.uint8, 8 * select) if select < 4 else (U16, 16 * (select - 4))
        wide = {np.uint8: np.int8, U16: np.int16}[dtype]

        def selected(g: Group) -> np.ndarray:
            part = (read(g) >> U32(shift)).astype(dtype)
            return part.view(wide).astype(np.int32).view(U32) if signed else part.astype(U32)

        return selected

    def source(self, slot: Slot, type_: str) -> Read:
        """A source as a type, with its modifiers."""
        if isinstance(slot, ImmediateSlot):
            value = slot.value(self.bits)
            if slot.kind == "simm16":
                value = (value ^ 0x8000) - 0x8000
            value = np.array(value & 0xFFFFFFFF, U32)
            if type_ in ("f16", "u16"):
                return lambda g: value.astype(U16).view(DTYPE[type_])
            return lambda g: value.view(DTYPE.get(type_, U32))
        if isinstance(slot, WordSlot):
            r = VCC if slot.word.startswith("vcc") else 0
            return lambda g: g.lanes(r)
        if type_ == "m":
            r = slot.number(self.bits)
            if r >= 128:
                value = np.array([constant(self.inst, slot, r)], U64)
                lanes = (value[:, None] >> np.arange(self.lanes).astype(U64) & U64(1)).astype(bool)
                return lambda g: lanes
            return lambda g: g.lanes(r)
        name = slot.name.rstrip("XY")
        position = name[-1] if name[-1].isdigit() else "0"
        read = self.word(slot)
        if self.sdwa and f"src{position}_sel" in self.row.format.fields:
            signed = bool("x" in slot.mods and self.bits & slot.mods["x"].mask)
            read = self._selected(slot, read, field(self.inst, f"src{position}_sel"), signed)
        flags = {m for m, place in slot.mods.items() if self.bits & place.mask and m != "x"}
        if type_[0] == "p":
            return self._packed_source(slot, read, type_, position, flags)
        if type_ == "mix":
            return self._mixed_source(read, position, flags)
        if type_[1:] == "64":
            upper = self.word(slot, 1) if slot.kind.dwords > 1 else None
            return self._modified(_wide(read, upper, type_), flags, type_)
        if type_ in ("u16", "i16", "f16", "bf16"):
            high = self._high_half(slot, position)
            narrow = _half(read, high)
            return self._modified(_bf16(narrow) if type_ == "bf16" else _view(narrow, type_), flags, type_)
        return self._modified(_view(read, type_) if type_ != "u32" else read, flags, type_)

    def _high_half(self, slot: RegisterSlot, position: str) -> bool:
        number = slot.number(self.bits)
        if number < VGPR and number >= 128:
            return False
        if "h" in slot.kind.flags and number >= VGPR:
            return (slot.text(self.bits) or "").rstrip("|)").endswith(".h")
        return (
            has(self.inst, "op_sel") and not self.packed and bool(field(self.inst, f"sel{position}"))
        ) or bool(slot.half and self.bits & slot.half.mask)

    def _modified(self, read: Read, flags: set[str], type_: str) -> Read:
        """Absolute value and sign, then denormals of floats."""
        bits, width = {"bf16": (U32, 32)}.get(type_) or (
            {"64": U64, "32": U32, "16": U16}[type_[1:]],
            int(type_[1:]),
        )
        keep, sign = bits((1 << (width - 1)) - 1), bits(1 << (width - 1))
        if flags:
            plain, dtype = read, DTYPE["f32" if type_ == "bf16" else type_]

            def read(g: Group) -> np.ndarray:
                value = np.asarray(plain(g)).view(bits)
                value = value & keep if "a" in flags else value
                return (value ^ sign if "n" in flags else value).view(dtype)

        if type_[0] != "f" or "MODE" not in self.row.reads:
            return read
        raw, size = read, width // 8

        def flushed(g: Group) -> np.ndarray:
            return raw(g) if g.denormals[size] & 1 else floats.flush(np.asarray(raw(g)))

        return flushed

    def _packed_source(self, slot: RegisterSlot, read: Read, type_: str, position: str, flags: set) -> Read:
        """(low, high) with op_sel, op_sel_hi, neg_lo and neg_hi."""
        inst, kind = self.inst, type_[1:]
        third = {"0": "selhi0", "1": "selhi1", "2": "selhi2"}[position]
        has_select = self.packed and has(inst, "op_sel")
        low_high = bool(field(inst, f"sel{position}")) if has_select else False
        high_high = bool(field(inst, third, 1)) if has_select else True
        signs = (
            (field(inst, f"neg{position}"), field(inst, f"abs{position}")) if has(inst, "neg_lo") else (0, 0)
        )
        if not self.packed and "n" in flags:
            signs = (1, 1)
        halves = []
        for high, negate in zip((low_high, high_high), signs, strict=True):
            if kind.endswith("32"):
                wide = self.word(slot, 1) if slot.kind.dwords > 1 else read
                part = _view(wide if high else read, kind)
            else:
                half = _half(read, high)
                part = _bf16(half) if kind == "bf16" else _view(half, kind)
            halves.append(self._modified(part, {"n"} if negate and kind[0] in "fb" else set(), kind))
        low, high = halves
        return lambda g: (low(g), high(g))

    def _mixed_source(self, read: Read, position: str, flags: set[str]) -> Read:
        if field(self.inst, {"0": "selhi0", "1": "selhi1", "2": "selhi2"}[position]):
            half = self._modified(
                _view(_half(read, bool(field(self.inst, f"sel{position}"))), "f16"), flags, "f16"
            )
            return lambda g: half(g).astype(np.float32)
        return self._modified(_view(read, "f32"), flags, "f32")

    # -- results ------------------------------------------------------------------------------------------------

    def result(self, slot: Slot, type_: str) -> Callable[[Group, Any, np.ndarray | None], None]:
        """A function that writes a value of a type to a destination."""
        if isinstance(slot, WordSlot):
            return lambda g, x, mask: g.set_lanes(VCC, x & g.mask)
        number = slot.number(self.bits)
        if type_ == "m":
            return lambda g, x, mask: g.set_lanes(number, x & g.mask)
        finish = self._finish(type_)
        if number < 128:
            if type_[1:] == "64":
                return lambda g, x, mask: g.set_sgpr64(number, np.asarray(finish(g, x)).view(U64))
            if type_[1:] == "16":
                return lambda g, x, mask: g.set_sgpr(number, _bits(finish(g, x)).astype(U32))
            if self.scalar:
                return lambda g, x, mask: g.set_sgpr(number, np.asarray(finish(g, x)).view(U32))
            return lambda g, x, mask: g.set_sgpr(number, np.asarray(finish(g, x)).view(U32)[:, 0])
        index = register_index(number, self.accumulators) - VGPR
        if self.sdwa and "dst_sel" in self.row.format.fields and has(self.inst, "dst_sel"):
            return self._sdwa_result(index, finish)
        if type_[0] == "p":
            return self._packed_result(index, type_, finish)
        if type_[1:] == "64":

            def write_wide(g: Group, x: Any, mask: np.ndarray | None) -> None:
                value = np.asarray(finish(g, x)).view(U64)
                g.set_vgpr(index, value.astype(U32), mask)
                g.set_vgpr(index + 1, (value >> U64(32)).astype(U32), mask)

            return write_wide
        if (type_[-2:] == "16" and type_ != "bf16") or type_ == "bf16":
            return self._half_result(slot, index, finish)
        return lambda g, x, mask: g.set_vgpr(index, np.asarray(finish(g, x)).view(U32), mask)

    def _half_result(self, slot: RegisterSlot, index: int, finish: Callable) -> Callable:
        chosen = has(self.inst, "op_sel") and not self.packed and bool(field(self.inst, "seld"))
        high = chosen or ("h" in slot.kind.flags and (slot.text(self.bits) or "").endswith(".h"))
        keep = self.generation != "gfx940" or has(self.inst, "op_sel") or self.packed
        high = high or self.row.mnemonic.startswith(("v_fma_mixhi", "v_mad_mixhi"))
        mask_kept = U32(0x0000FFFF if high else 0xFFFF0000)
        shift = U32(16 if high else 0)

        def write(g: Group, x: Any, mask: np.ndarray | None) -> None:
            bits = _bits(finish(g, x)).astype(U32)
            g.set_vgpr(index, g.vgpr(index) & mask_kept | bits << shift if keep else bits, mask)

        return write

    def _packed_result(self, index: int, type_: str, finish: Callable) -> Callable:
        wide = type_.endswith("32")

        def write(g: Group, x: Any, mask: np.ndarray | None) -> None:
            low, high = (_bits(finish(g, part)) for part in x)
            if wide:
                g.set_vgpr(index, low, mask)
                g.set_vgpr(index + 1, high, mask)
            else:
                g.set_vgpr(index, low.astype(U32) | high.astype(U32) << U32(16), mask)

        return write

    def _sdwa_result(self, index: int, finish: Callable) -> Callable:
        select, unused = field(self.inst, "dst_sel"), field(self.inst, "dst_unused")
        shift, width = (0, 32) if select == 6 else (8 * select, 8) if select < 4 else (16 * (select - 4), 16)
        ones = (1 << width) - 1
        place = U32(ones << shift & 0xFFFFFFFF)

        def write(g: Group, x: Any, mask: np.ndarray | None) -> None:
            value = _bits(finish(g, x)).astype(U32) & U32(ones)
            bits = value << U32(shift)
            if unused == 2 and width < 32:
                bits = bits | g.vgpr(index) & ~place
            elif unused == 1 and width < 32:
                above = U32(0xFFFFFFFF << (shift + width) & 0xFFFFFFFF)
                bits = np.where(value >> U32(width - 1) != 0, bits | above, bits)
            g.set_vgpr(index, bits, mask)

        return write

    def _finish(self, type_: str) -> Callable[[Group, Any], np.ndarray]:
        """Output modifier, clamp, denormals, and the type itself."""
        kind = type_[1:] if type_[0] == "p" else type_
        if kind == "bf16":
            return lambda g, x: floats.bf16_bits(x)
        dtype = DTYPE[kind]
        clamp = has(self.inst, "clamp") and bool(field(self.inst, "clamp"))
        if kind[0] != "f":
            if not clamp:
                return lambda g, x: np.asarray(x).astype(dtype, copy=False)
            info = np.iinfo(dtype)
            return lambda g, x: np.clip(x, info.min, info.max).astype(dtype)
        factor = (1, 2, 4, 0.5)[field(self.inst, "omod")] if has(self.inst, "omod") else 1
        size = int(kind[1:]) // 8
        arithmetic = "MODE" in self.row.reads

        def finish(g: Group, x: Any) -> np.ndarray:
            x = np.asarray(x).astype(dtype, copy=False)
            if factor != 1:
                x = x * dtype(factor)
            if clamp:
                x = np.where(np.isnan(x), dtype(0), np.clip(x, dtype(0), dtype(1)))
            return floats.flush(x) if arithmetic and not g.denormals[size] & 2 else x

        return finish


def _bits(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    return x.view({1: np.uint8, 2: U16, 4: U32, 8: U64}[x.dtype.itemsize])


def _view(read: Read, type_: str) -> Read:
    dtype = DTYPE[type_]
    return lambda g: read(g).view(dtype)


def _half(read: Read, high: bool) -> Read:
    if high:
        return lambda g: (read(g) >> U32(16)).astype(U16)
    return lambda g: read(g).astype(U16)


def _bf16(read: Read) -> Read:
    return lambda g: floats.bf16_value(read(g))


def _wide(low: Read, high: Read | None, type_: str) -> Read:
    dtype = DTYPE[type_]
    if high is None:
        return lambda g: low(g).astype(U64).view(dtype)
    return lambda g: (low(g).astype(U64) | high(g).astype(U64) << U64(32)).view(dtype)
