"""Compile memory instructions: scalar loads, global, flat, scratch, buffer and LDS loads, stores and atomics.

Source: RDNA3, RDNA4 and CDNA3 ISA manuals, "Scalar memory", "Vector memory", "Flat memory", "Data share".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tg_codegen.amdgpu.instruction import Instruction
from tg_codegen.amdgpu.operands import VGPR
from tg_codegen.amdgpu.slots import Slot

from .operands import DTYPE, Operands, field, has, registers
from .spaces import ATOMIC, READ, WRITE, Lanes, apply_atomic, gather, scatter
from .waves import Group

__all__ = ["compile_memory", "compile_scalar_memory"]

U32, U64 = np.uint32, np.uint64
Run = Callable[[Group], None]
Address = Callable[[Group], tuple[np.ndarray, np.ndarray | None]]


class Datum(NamedTuple):
    """What one lane moves: bytes, whether they are extended with the sign, and which half they fill (-1: all)."""

    size: int
    signed: bool = False
    half: int = -1


_WIDTHS = {"dword": 4, "b32": 4, "dwordx2": 8, "b64": 8, "dwordx3": 12, "b96": 12, "dwordx4": 16, "b128": 16}
_SMALL = {"ubyte": Datum(1), "u8": Datum(1), "sbyte": Datum(1, True), "i8": Datum(1, True), "ushort": Datum(2),
          "u16": Datum(2), "sshort": Datum(2, True), "i16": Datum(2, True), "short": Datum(2), "b16": Datum(2),
          "byte": Datum(1), "b8": Datum(1)}  # fmt: skip
_ALIAS = {"cmpst": "cmpswap", "cmpstore": "cmpswap", "fcmpswap": "cmpswap", "wrxchg": "swap", "storexchg": "swap",
          "sub_clamp": "csub", "min_num": "min", "max_num": "max"}  # fmt: skip


def _datum(text: str) -> Datum | None:
    """`dwordx2`, `u8_d16_hi`, `d16_hi_b16` ..."""
    if text in _WIDTHS:
        return Datum(_WIDTHS[text])
    half = 1 if "d16_hi" in text else 0 if "d16" in text else -1
    plain = re.sub(r"_?d16(_hi)?_?", "", text)
    return _SMALL[plain]._replace(half=half) if plain in _SMALL else None


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


# -- scalar -----------------------------------------------------------------------------------------------------


def compile_scalar_memory(inst: Instruction, ops: Operands) -> Run | None:
    row = inst.row
    match = re.fullmatch(r"s_(buffer_)?(load|store)_(\w+)", row.mnemonic)
    if not match:
        if row.mnemonic in ("s_memtime", "s_memrealtime"):
            clock = row.operands[0].number(inst.bits)
            return lambda g: g.set_sgpr64(clock, np.full(g.n, g.waves.spaces.monitor.step, U64))
        # What is left are caches and prefetches.
        return None if re.match(r"s_(scratch|atomic|buffer_atomic)", row.mnemonic) else lambda g: None
    buffer, what, width = match.groups()
    words = {"dwordx8": 8, "b256": 8, "dwordx16": 16, "b512": 16}.get(width)
    datum = Datum(words * 4) if words else _datum(width)
    slots = {s.name: s for s in row.operands}
    base = slots["sbase"].number(inst.bits)
    data = slots.get("sdst") or slots["sdata"]
    first = data.number(inst.bits)
    offset = ops.source(slots["soffset"], "u32") if "soffset" in slots else None
    fixed = field(inst, "offset") if "offset" in slots or has(inst, "offset") else 0
    fixed = _signed(fixed, row.format.fields["offset"].values.bit_length()) if not buffer and fixed else fixed

    def run(g: Group) -> None:
        spaces = g.waves.spaces
        address = g.sgpr64(base)
        if buffer:
            address = address & U64((1 << 48) - 1)
        step = np.broadcast_to(U64(fixed & 0xFFFFFFFFFFFFFFFF), (g.n,))
        if offset is not None:
            step = step + offset(g).astype(U64)
        address = address + step
        if datum.size >= 4:
            spaces.monitor.aligned(g, address, 4, _members(g), None, "scalar loads are aligned to 4 bytes")
        inside = np.ones(g.n, bool)
        if buffer:
            stride = g.sgpr(base + 1) >> U32(16) & U32(0x3FFF)
            records = g.sgpr(base + 2).astype(U64) * np.maximum(stride, 1)
            inside = step + U64(min(datum.size, 4)) <= records
        at = Lanes(_members(g)[inside], np.zeros(inside.sum(), np.int64), None)
        for part in spaces.parts(
            g, "global", at, address[inside], datum.size, READ if what == "load" else WRITE
        ):
            if what == "store":
                words = [g.sgpr(first + k)[inside] for k in range(datum.size // 4)]
                scatter(part.backing, part.offsets, words, datum.size)
                continue
            for k, word in enumerate(gather(part.backing, part.offsets, datum.size, datum.signed)):
                value = np.zeros(g.n, U32)
                value[inside] = word
                g.set_sgpr(first + k, value)

    return run


def _members(g: Group) -> np.ndarray:
    return np.arange(g.waves.count) if g.all else g.w


# -- addresses ----------------------------------------------------------------------------------------------------


def _flat_address(inst: Instruction, ops: Operands, kind: str, generation: str) -> Address:
    slots = {s.name: s for s in inst.row.operands}
    bits = inst.row.format.fields["offset"].values.bit_length()
    fixed = field(inst, "offset")
    offset = _signed(fixed, bits) if kind != "flat" or generation == "gfx12" else fixed
    step = U64(offset & 0xFFFFFFFFFFFFFFFF)
    vector, scalar = (
        ops.source(slots[name], "u64" if slots[name].kind.dwords == 2 else "u32") if name in slots else None
        for name in ("vaddr", "saddr")
    )

    def address(g: Group) -> tuple[np.ndarray, None]:
        value = np.full((g.n, 1), step, U64)
        if vector is not None:
            value = value + vector(g).astype(U64, copy=False)
        if scalar is not None:
            value = value + scalar(g).astype(U64, copy=False)
        return (value & U64(0xFFFFFFFF) if kind == "scratch" else value), None

    return address


def _buffer_address(inst: Instruction, ops: Operands, size: int, generation: str) -> Address:
    """Address and whether it is inside the buffer; outside, loads give 0 and stores do nothing."""
    slots = {s.name: s for s in inst.row.operands}
    resource = slots["srsrc"].number(inst.bits)
    indexed, offset_from_vgpr = has(inst, "idxen"), has(inst, "offen")
    soffset = ops.source(slots["soffset"], "u32")
    vaddr = slots.get("vaddr")
    first = ops.word(vaddr) if vaddr is not None else None
    second = ops.word(vaddr, 1) if vaddr is not None and indexed and offset_from_vgpr else None
    fixed = U64(field(inst, "offset"))

    def address(g: Group) -> tuple[np.ndarray, np.ndarray]:
        word = [g.sgpr(resource + k)[:, None] for k in range(4)]
        base = word[0].astype(U64) | (word[1] & U32(0xFFFF)).astype(U64) << U64(32)
        stride = (word[1] >> U32(16) & U32(0x3FFF)).astype(U64)
        records = word[2].astype(U64)
        if (word[1] >> U32(31 if generation == "gfx940" else 30)).any():
            raise g.waves.spaces.monitor.unsupported(g, "a swizzled buffer")
        index = first(g).astype(U64) if indexed else U64(0)
        offset = fixed + (second(g) if second else first(g) if offset_from_vgpr else U32(0)).astype(U64)
        scalar = soffset(g).astype(U64)
        flat = offset + scalar + index * stride
        raw = (stride == 0) | (word[3] >> U32(28) & U32(3) == 3 if generation != "gfx940" else False)
        inside = np.where(raw & (not indexed), flat + U64(size) <= records, index < records)
        inside = inside & ((generation == "gfx940") | (stride == 0) | raw | (offset + U64(size) <= stride))
        return base + flat, np.broadcast_to(inside, (g.n, g.waves.lanes))

    return address


# -- vector ---------------------------------------------------------------------------------------------------------


def compile_memory(inst: Instruction, ops: Operands, generation: str) -> Run | None:
    """FLAT, MUBUF and DS instructions, or None for one that is not known."""
    row = inst.row
    prefix, _, rest = row.mnemonic.partition("_")
    if prefix == "ds":
        return _compile_lds(inst, ops, rest, generation)
    kind = "global" if prefix == "buffer" else prefix
    if rest in ("inv", "wb", "wbinv", "wbl2", "gl0_inv", "gl1_inv"):
        return lambda g: g.waves.spaces.monitor.fence(g)
    what, _, width = rest.partition("_")
    slots = {s.name: s for s in row.operands}
    to_lds = has(inst, "lds") or width.startswith("lds_")
    datum = _datum(width.removeprefix("lds_"))
    atomic = _atomic_of(width) if what == "atomic" else None
    size = atomic[1].itemsize if atomic else datum.size if datum else 0
    if not size or what not in ("load", "store", "atomic"):
        return None
    address = (
        _buffer_address(inst, ops, size, generation)
        if prefix == "buffer"
        else _flat_address(inst, ops, kind, generation)
    )
    data = slots.get("vdata") or slots.get("vdst")
    target = slots.get("vdst") or slots.get("vdata")
    if to_lds:
        return _load_to_lds(address, kind, datum, _lds_offset(inst))
    if what == "load":
        return _load(address, kind, datum, _index(inst, ops, target), prefix == "buffer")
    if what == "store":
        return _store(address, kind, datum, _index(inst, ops, data))
    returns = "r" in row.flags
    return _atomic(
        address, kind, atomic, _index(inst, ops, data), _index(inst, ops, target) if returns else None
    )


def _index(inst: Instruction, ops: Operands, slot: Slot) -> int:
    return registers(inst, slot, ops.accumulators)[0] - VGPR


def _lds_offset(inst: Instruction) -> int:
    bits = inst.row.format.fields["offset"].values.bit_length()
    return (
        _signed(field(inst, "offset"), bits)
        if inst.row.mnemonic.startswith("global")
        else field(inst, "offset")
    )


def _place(g: Group, address: Address) -> tuple[Lanes, np.ndarray]:
    value, inside = address(g)
    at = Lanes.of(g, inside)
    return at, at.take(np.broadcast_to(value, (g.n, g.waves.lanes)))


def _load(address: Address, kind: str, datum: Datum, target: int, zeroes: bool) -> Run:
    count = max(1, datum.size // 4)

    def run(g: Group) -> None:
        at, where = _place(g, address)
        if zeroes and at.mask is not None:
            for k in range(count):
                g.set_vgpr(target + k, U32(0), g.mask)
        for part in g.waves.spaces.parts(g, kind, at, where, datum.size, READ) if len(where) else ():
            words = gather(part.backing, part.offsets, datum.size, datum.signed)
            _fill(g, at, target, words, datum, part.where)

    return run


def _fill(g: Group, at: Lanes, target: int, words: list, datum: Datum, where: np.ndarray | slice) -> None:
    for k, word in enumerate(words):
        if datum.half >= 0:
            old = g.waves.v[target][at.wave[where], at.lane[where]]
            kept = U32(0xFFFF0000 if datum.half == 0 else 0xFFFF)
            word = old & kept | (word & U32(0xFFFF)) << U32(16 * datum.half)
        at.put(g, target + k, word, where)


def _store(address: Address, kind: str, datum: Datum, source: int) -> Run:
    count = max(1, datum.size // 4)
    shift = U32(16 if datum.half == 1 else 0)

    def run(g: Group) -> None:
        at, where = _place(g, address)
        if not len(where):
            return
        words = [at.take(g.vgpr(source + k)) >> shift for k in range(count)]
        for part in g.waves.spaces.parts(g, kind, at, where, datum.size, WRITE):
            mine = [w[part.where] for w in words]
            before = gather(part.backing, part.offsets, datum.size) if part.doubts else None
            scatter(part.backing, part.offsets, mine, datum.size)
            if before is not None:
                after = gather(part.backing, part.offsets, datum.size)
                low = U32((1 << 8 * min(datum.size, 4)) - 1)
                # Writing what stands there already harms nobody.
                changed, lost = ((np.stack(x) != np.stack(mine) & low).any(axis=0) for x in (before, after))
                g.waves.spaces.monitor.write_race(
                    g, part, at, part.doubts[0] & changed | part.doubts[1] & lost
                )

    return run


def _load_to_lds(address: Address, kind: str, datum: Datum, fixed: int) -> Run:
    """Global memory straight into LDS: each lane's data lies behind the other's, from M0 on."""
    step = max(4, datum.size)

    def run(g: Group) -> None:
        at, where = _place(g, address)
        spaces = g.waves.spaces
        for part in spaces.parts(g, kind, at, where, datum.size, READ) if len(where) else ():
            words = gather(part.backing, part.offsets, datum.size, datum.signed)
            place = (g.waves.s[g.waves.m0][at.wave] & U32(0xFFFF)).astype(np.int64) + fixed + at.lane * step
            for there in spaces.parts(g, "lds", at, place, step, WRITE):
                scatter(there.backing, there.offsets, words, step)

    return run


def _atomic_of(text: str) -> tuple[str, np.dtype] | None:
    """`add_u32`, `smin_x2`, `cmpswap_b64`, `pk_add_f16` -> (operation, type)."""
    if text in ("pk_add_f16", "pk_add_bf16"):
        return text, np.dtype(U32)
    match = (
        re.fullmatch(r"(s|u)?(min|max)(_x2)?|(\w+?)(_x2)?", text)
        if "_x2" in text or "_" not in text
        else None
    )
    if match and (match[2] or "_" not in (match[4] or "_")):
        wide = bool(match[3] or match[5])
        kind = {"s": "i", "u": "u", None: "u"}[match[1]] if match[2] else "u"
        return match[2] or match[4], np.dtype(DTYPE[kind + ("64" if wide else "32")])
    match = re.fullmatch(r"(\w+)_([uifb])(32|64)", text)
    if not match:
        return None
    return match[1], np.dtype(DTYPE[match[2].replace("b", "u") + match[3]])


def _typed(words: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    if dtype.itemsize == 4:
        return np.ascontiguousarray(words[0]).view(dtype)
    return (words[0].astype(U64) | words[1].astype(U64) << U64(32)).view(dtype)


def _words(value: np.ndarray) -> list[np.ndarray]:
    if value.dtype.itemsize == 4:
        return [value.view(U32)]
    bits = value.view(U64)
    return [bits.astype(U32), (bits >> U64(32)).astype(U32)]


def _atomic(
    address: Address, kind: str, atomic: tuple, source: int, target: int | None, second: int = -1
) -> Run:
    """`second` is the register of the value compared with or stored under a mask; by default behind the data."""
    name, dtype = _ALIAS.get(atomic[0], atomic[0]), atomic[1]
    count = dtype.itemsize // 4
    second = source + count if second < 0 else second
    binary = name not in ("cmpswap", "mskor")

    def run(g: Group) -> None:
        at, where = _place(g, address)
        if not len(where):
            return
        data = _typed([at.take(g.vgpr(source + k)) for k in range(count)], dtype)
        other = None if binary else _typed([at.take(g.vgpr(second + k)) for k in range(count)], dtype)
        for part in g.waves.spaces.parts(g, kind, at, where, dtype.itemsize, ATOMIC):
            w = part.where
            old = apply_atomic(
                part.backing, part.offsets, dtype, name, data[w], None if other is None else other[w]
            )
            if target is not None:
                for k, word in enumerate(_words(old)):
                    at.put(g, target + k, word, w)

    return run


# -- LDS --------------------------------------------------------------------------------------------------------------


_PAIRS = re.compile(
    r"(?:read2|write2|load_2addr|store_2addr|wrxchg2|storexchg_2addr)(st64|_stride64)?(_rtn)?_b(32|64)"
)


def _lds_address(inst: Instruction, ops: Operands, offset: int) -> Address:
    slots = {s.name: s for s in inst.row.operands}
    base = ops.word(slots["addr"])
    step = U32(offset)
    return lambda g: (base(g) + step, None)  # addresses wrap at 32 bits


def _compile_lds(inst: Instruction, ops: Operands, rest: str, generation: str) -> Run | None:
    slots = {s.name: s for s in inst.row.operands}
    index = {name: _index(inst, ops, slot) for name, slot in slots.items() if name != "gds"}
    offset = field(inst, "offset")
    if match := _PAIRS.fullmatch(rest):
        size = int(match[3]) // 8
        step = size * (64 if match[1] else 1)
        places = [_lds_address(inst, ops, field(inst, f"offset{k}") * step) for k in (0, 1)]
        datum, words = Datum(size), size // 4
        if rest.startswith(("wrxchg", "storexchg")):
            kind = ("swap", np.dtype(U32 if size == 4 else U64))
            runs = [
                _atomic(p, "lds", kind, index[f"data{k}"], index["vdst"] + k * words)
                for k, p in enumerate(places)
            ]
        elif "vdst" in index:
            runs = [_load(p, "lds", datum, index["vdst"] + k * words, False) for k, p in enumerate(places)]
        else:
            runs = [_store(p, "lds", datum, index[f"data{k}"]) for k, p in enumerate(places)]
        # The first result may overwrite the address that the second needs.
        return _both(*runs, index["addr"])
    if match := re.fullmatch(r"read_b(64|96)_tr_b(\d+)", rest):
        return _transposed(_lds_address(inst, ops, offset), index["vdst"], int(match[1]) // 8, int(match[2]))
    if match := re.fullmatch(r"(read|load|write|store)_(\w+)", rest):
        datum = _datum(match[2])
        if datum is None or "addtid" in rest:
            return None
        address = _lds_address(inst, ops, offset)
        if match[1] in ("read", "load"):
            return _load(address, "lds", datum, index["vdst"], False)
        return _store(address, "lds", datum, index["data0"])
    if rest == "nop":
        return lambda g: None
    if rest in ("append", "consume"):
        return _counter(index["vdst"], offset, "add" if rest == "append" else "sub")
    text = rest.replace("_rtn", "")
    atomic = _atomic_of(text)
    if atomic is None or "data0" not in index:
        return None
    first, second = index["data0"], index.get("data1", -1)
    if atomic[0] == "cmpst":  # compares with its first data, unlike its successor
        first, second = second, first
    return _atomic(_lds_address(inst, ops, offset), "lds", atomic, first, index.get("vdst"), second)


def _counter(target: int, offset: int, name: str) -> Run:
    """ds_append, ds_consume: active lanes are counted in the word at M0's upper half; all get its old value."""

    def run(g: Group) -> None:
        active = g.mask.sum(axis=1).astype(U32)
        chosen = _members(g)[active > 0]
        at = Lanes(chosen, np.zeros(len(chosen), np.int64), None)
        place = (g.waves.s[g.waves.m0][chosen] >> U32(16)).astype(np.int64) + offset
        for part in g.waves.spaces.parts(g, "lds", at, place, 4, ATOMIC) if len(chosen) else ():
            old = apply_atomic(part.backing, part.offsets, np.dtype(U32), name, active[active > 0], None)
            values = np.zeros((g.n, 1), U32)
            values[active > 0, 0] = old
            g.set_vgpr(target, values)

    return run


def _transposed(address: Address, target: int, size: int, bits: int) -> Run:
    """Each 16 lanes load a matrix of 16 columns, n elements a lane in row order; lane l gets column l.

    Source: CDNA4 ISA manual, 11.4; that Triton's kernels compute right with it.
    """
    count = size * 8 // bits

    def run(g: Group) -> None:
        at, where = _place(g, address)
        if at.mask is not None:
            raise g.waves.spaces.monitor.error(
                g, "exec", "a transposing load needs all lanes", "CDNA4 ISA manual, 11.4"
            )
        for part in g.waves.spaces.parts(g, "lds", at, where, size, READ):
            words = np.stack(gather(part.backing, part.offsets, size), axis=-1)
            elements = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")
            block = elements.reshape(-1, 16, count, bits)  # [16 lanes, lane, element, bit]
            columns = block.reshape(-1, count, 16, bits).swapaxes(1, 2)
            packed = np.packbits(columns.reshape(len(words), -1), axis=-1, bitorder="little")
            for k in range(size // 4):
                at.put(g, target + k, packed.view(U32)[:, k])

    return run


def _both(first: Run, second: Run, address: int) -> Run:
    def run(g: Group) -> None:
        kept = g.vgpr(address).copy()
        first(g)
        changed = g.vgpr(address).copy()
        g.waves.v[address][g.w] = kept
        second(g)
        after = g.vgpr(address)
        g.waves.v[address][g.w] = np.where(after != kept, after, changed)

    return run
