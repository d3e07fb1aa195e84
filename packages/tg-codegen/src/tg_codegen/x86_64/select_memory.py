"""Rules for loads and stores of data.

An element narrower than a lane is widened or narrowed on its way. With AVX-512 a mask register guards each access; AVX2
guards elements of 32 and 64 bits. What neither has goes lane by lane through the frame, where the address of a lane
that the mask leaves out is replaced by one of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator

from tg_codegen.machine.code import Inst, VReg
from tg_codegen.machine.nodes import MEMORY_BYTES, Instr
from tg_codegen.x86_64.operands import Mask, Mem, Pool, V
from tg_codegen.x86_64.select import Parts, Rule, Selector
from tg_codegen.x86_64.select_data import blend, join, lift, part_masks, split, zero

__all__ = ["memory_rules"]

_WIDEN = {
    "int8": "vpmovsxbd", "uint8": "vpmovzxbd", "int16": "vpmovsxwd", "uint16": "vpmovzxwd", "float16": "vcvtph2ps",
    "bool": "vpmovzxbd",
}  # fmt: skip
_GATHER = {(4, 4): "vpgatherdd", (4, 8): "vpgatherqd", (8, 4): "vpgatherdq", (8, 8): "vpgatherqq"}
_SCATTER = {(4, 4): "vpscatterdd", (4, 8): "vpscatterqd", (8, 4): "vpscatterdq", (8, 8): "vpscatterqq"}
"""By the size of an element and of its index."""

_SAFE, _LANES_AT, _INDICES_AT = 64, 128, 256  # in the frame: 64 bytes to miss, elements, their indices


def memory_rules() -> dict[tuple[str, str], Rule]:
    return {("load", ""): _load, ("store", ""): _store}


# ---- loads


def _load(s: Selector, instr: Instr) -> Parts:
    size = MEMORY_BYTES[instr.attr]
    mask = None if instr.mask is None else s.parts(instr.mask)[0]
    other = None if instr.other is None else s.parts(instr.other)
    if instr.access == "each":
        if size >= 4:
            return _gather(s, instr, size, mask, other)
    elif size >= 4:
        return _load_whole(s, instr, size, mask, other)
    elif s.wide or mask is None:
        return _load_narrow(s, instr, size, mask, other)
    elif instr.access == "one":
        place = _if_any(s, s.address(instr, size), mask)
        return _chosen(s, mask, _widened_one(s, instr.attr, place, size), other, instr.dst.type)
    for lane, place in _lanes(s, instr, size, mask):
        element = V(s.op("movzx", place, kind="d"), "b" if size == 1 else "w")
        s.put("mov", _frame(s, _LANES_AT + size * lane, size), element, memory="scratch store")
    narrow = _frame(s, _LANES_AT, size * s.function.lanes)
    return _chosen(s, mask, _widened(s, instr.attr, narrow), other, instr.dst.type)


def _chosen(s: Selector, mask: VReg | None, made: Parts, other: Parts | None, type: str) -> Parts:
    """What was loaded where the mask is true, else `other` or 0."""
    if mask is None:
        return made
    if type == "bool" and s.wide:
        inside = s.op("kandw", mask, made[0], kind="k")
        if other is None:
            return (inside,)
        return (s.op("korw", inside, s.op("kandnw", mask, other[0], kind="k"), kind="k"),)
    masks = part_masks(s, mask, len(made))
    if other is not None:
        return blend(s, 4 * len(made), masks, made, other)
    if s.wide:
        return tuple([s.op("vmovaps", part, mask=mask, zeroing=True) for part in made])
    return lift(s, "vpand", masks, made)


def _load_whole(s: Selector, instr: Instr, size: int, mask: VReg | None, other: Parts | None) -> Parts:
    """Elements of 32 or 64 bits."""
    parts = size // 4
    if instr.access == "one":
        opcode, places = ("vbroadcastss", "vbroadcastsd")[size == 8], (s.address(instr, size),) * parts
        if mask is None:
            return (s.op(opcode, places[0]),) * parts
        if not s.wide:
            made = s.op(opcode, _if_any(s, places[0], mask))
            return _chosen(s, mask, (made,) * parts, other, instr.dst.type)
    else:
        opcode, places = ("vmovups", "vmovupd")[size == 8], s.places(instr)
        if mask is None:
            return lift(s, opcode, places)
    masks = part_masks(s, mask, parts)
    if not s.wide:
        opcode = ("vpmaskmovd", "vpmaskmovq")[size == 8]
        made = lift(s, opcode, masks, places)
        return made if other is None else blend(s, size, masks, made, other)
    return tuple([
        s.op(opcode, place, mask=mask, zeroing=other is None, tied=other[i] if other else None)
        for i, (place, mask) in enumerate(zip(places, masks, strict=True))
    ])  # fmt: skip


def _load_narrow(s: Selector, instr: Instr, size: int, mask: VReg | None, other: Parts | None) -> Parts:
    """Elements of 8 or 16 bits; with a mask, which needs AVX-512."""
    if instr.access == "one":
        place = s.address(instr, size)
        return _chosen(s, mask, _widened_one(s, instr.attr, place, size, mask), other, instr.dst.type)
    place = s.address(instr, size * s.function.lanes)
    if mask is None or instr.attr != "bool":
        return _widened(s, instr.attr, place, mask, other)
    made = s.op("vmovdqu8", place, kind="x", mask=mask, zeroing=True)
    return _chosen(s, mask, _widened(s, instr.attr, V(made, "x")), other, "bool")


def _widened(
    s: Selector, memory: str, source: Mem | V, mask: VReg | None = None, other: Parts | None = None
) -> Parts:
    """Lanes from narrow elements."""
    if memory == "bool":
        if s.wide:
            low = V(s.op("vmovups", source, kind="x"), "x") if source.__class__ is Mem else source
            return (s.op("vptestmb", low, low, kind="k"),)
        lanes = s.op("vpmovzxbd", source)
        return (s.op("vpsrad", s.op("vpslld", lanes, 31), 31),)
    return (
        s.op(
            _WIDEN[memory],
            source,
            mask=mask,
            zeroing=mask is not None and not other,
            tied=other[0] if other else None,
        ),
    )


def _widened_one(s: Selector, memory: str, place: Mem, size: int, mask: VReg | None = None) -> Parts:
    """One narrow element in all lanes."""
    kind = s.half if size == 2 else "x"
    narrow = s.op(
        "vpbroadcastb" if size == 1 else "vpbroadcastw", place, kind=kind, mask=mask, zeroing=mask is not None
    )
    return _widened(s, memory, V(narrow, kind))


def _if_any(s: Selector, place: Mem, mask: VReg) -> Mem:
    """The place if a lane is true, else one of the frame."""
    bits = s.op("vmovmskps", mask, kind="d")
    chosen = s.op("cmov", "e", bits, 0, _safe(s), kind="q", tied=s.op("lea", place.at(size=0), kind="q"))
    return Mem(chosen, size=place.size, ordered=place.ordered)


def _safe(s: Selector) -> VReg:
    return s.remade("lea", Mem("stack", disp=s.frame + _SAFE))


def _frame(s: Selector, offset: int, size: int) -> Mem:
    return Mem("stack", disp=s.frame + offset, size=size, ordered=True)


# ---- each lane's own place


def _indices(s: Selector, instr: Instr) -> Parts:
    """Signed indices: those that may have the upper bit set are widened."""
    each = instr.address.each
    parts = s.parts(each)
    return tuple([s.op("vpmovzxdq", split(s, parts[0], i)) for i in (0, 1)]) if each.type == "u32" else parts


def _pieces(
    s: Selector, instr: Instr, size: int, mask: VReg | None
) -> Iterator[tuple[str, int, Mem, VReg | None]]:
    """How a gather or scatter is done: kind of its elements, their number, its address, and its mask."""
    address = s.address(instr)
    base = address.base
    if address.index is not None:
        base = s.op("lea", address, kind="q")
        address = Mem(base)
    if base == "stack":
        base = s.op("lea", address, kind="q")
        address = Mem(base)
    indices = _indices(s, instr)
    wide_index = len(indices) == 2
    pieces = 2 if wide_index or size == 8 else 1
    masks = part_masks(s, mask, pieces) if mask is not None else (None,) * pieces
    for i in range(pieces):
        kind = s.half if size == 4 and pieces == 2 else s.kind
        index = V(indices[i], s.kind) if wide_index or pieces == 1 else split(s, indices[0], i)
        place = Mem(base, index.reg, size, address.disp, size, each=index.kind, ordered=instr.volatile)
        yield kind, i, place, masks[i]


def _gather(s: Selector, instr: Instr, size: int, mask: VReg | None, other: Parts | None) -> Parts:
    made = []
    opcode = _GATHER[size, 8 if instr.address.each.type in ("i64", "u64", "u32") else 4]
    for kind, i, place, guard in _pieces(s, instr, size, mask):
        result, used = s.new(kind), s.new("k" if s.wide else kind)
        if other is None:
            before = zero(s)
        elif kind == s.half:
            before = split(s, other[0], i).reg
        else:
            before = other[i]
        if guard is None:
            guard = _truths(s)
        elif not s.wide and kind == s.half:  # the mask of 64-bit lanes, for elements of 32 bits
            guard = split(s, mask, i).reg
        uses = (before, guard, *place.registers())
        tail = (Mask(used),) if s.wide else (V(used, kind),)
        s.items.append(
            Inst(opcode, (V(result, kind), place, *tail), (result, used), uses, ((0, 0), (1, 1)), True,
                 "scratch load" if instr.volatile else "load")
        )  # fmt: skip
        made.append(result)
    return (join(s, *made),) if size == 4 and len(made) == 2 else tuple(made)


def _truths(s: Selector) -> VReg:
    """Every lane: as bits, or as the signs that an AVX2 gather looks at."""
    result = s.new("k" if s.wide else s.kind)
    shown = V(result, "k" if s.wide else s.kind)
    s.items.append(Inst("kxnorw" if s.wide else "vpcmpeqd", (shown, shown, shown), (result,)))
    result.remake = s.items[-1]
    return result


def _lanes(s: Selector, instr: Instr, size: int, mask: VReg | None) -> Iterator[tuple[int, Mem]]:
    """The place of each lane; of lanes that the mask leaves out, one in the frame."""
    address = s.address(instr, size)
    lanes = 1 if instr.access == "one" else s.function.lanes
    bits = safe = indices = None
    if mask is not None:
        bits = s.op("kmovw", mask, kind="d") if s.wide else s.op("vmovmskps", mask, kind="d")
        safe = _safe(s)
    if instr.access == "each":
        indices = _indices(s, instr)
        for i, part in enumerate(indices):
            s.put(
                "vmovups",
                _frame(s, _INDICES_AT + i * s.vector_bytes, s.vector_bytes),
                part,
                memory="scratch store",
            )
        if address.index is not None or address.base == "stack":
            address = Mem(s.op("lea", address.at(size=0), kind="q"), size=size, ordered=instr.volatile)
    for lane in range(lanes):
        if indices is None:
            place = address.at(size * lane)
        else:
            wide = len(indices) == 2
            at = _frame(s, _INDICES_AT + (8 if wide else 4) * lane, 8 if wide else 4)
            index = s.op("mov" if wide else "movsxd", at, kind="q")
            place = address.at(index=index, scale=size)
        if mask is not None:
            chosen = s.op("pick", bits, lane, safe, kind="q", tied=s.op("lea", place.at(size=0), kind="q"))
            place = Mem(chosen, size=size, ordered=instr.volatile)
        yield lane, place


# ---- stores


def _store(s: Selector, instr: Instr) -> None:
    size = MEMORY_BYTES[instr.attr]
    value = s.parts(instr.args[0])
    mask = None if instr.mask is None else s.parts(instr.mask)[0]
    order = "scratch store" if instr.volatile else "store"
    if instr.access == "each" and size >= 4 and s.wide:
        _scatter(s, instr, size, value, mask, order)
    elif instr.access == "one" and mask is None:
        _store_one(s, instr, size, value[0], order)
    elif instr.access == "lanes" and (s.wide or mask is None or size >= 4):
        _store_lanes(s, instr, size, value, mask, order)
    else:
        _store_to(
            s, instr.attr, _frame(s, _LANES_AT, size * s.function.lanes), size, value, None, "scratch store"
        )
        kind = {1: "b", 2: "w", 4: "d", 8: "q"}[size]
        for lane, place in _lanes(s, instr, size, mask):
            element = _frame(s, _LANES_AT + size * lane, size)
            wide = s.op("movzx" if size < 4 else "mov", element, kind="d" if size < 8 else "q")
            s.put("mov", place, V(wide, kind), memory=order)


def _store_lanes(s: Selector, instr: Instr, size: int, value: Parts, mask: VReg | None, order: str) -> None:
    if size < 4:
        _store_to(s, instr.attr, s.address(instr, size * s.function.lanes), size, value, mask, order)
        return
    masks = part_masks(s, mask, len(value)) if mask is not None else ()
    for i, (place, part) in enumerate(zip(s.places(instr), value, strict=True)):
        opcode = ("vmovups", "vmovupd")[size == 8]
        if mask is None:
            s.put(opcode, place, part, memory=order)
        elif s.wide:
            s.put(opcode, place, part, Mask(masks[i]), memory=order)
        else:
            s.put(("vpmaskmovd", "vpmaskmovq")[size == 8], place, masks[i], part, memory=order)


def _store_to(
    s: Selector, memory: str, place: Mem, size: int, value: Parts, mask: VReg | None, order: str
) -> None:
    """Lanes to consecutive elements."""
    tail = () if mask is None else (Mask(mask),)
    if size >= 4:
        for i, part in enumerate(value):
            s.put("vmovups", place.at(i * s.vector_bytes, size=s.vector_bytes), part, memory=order)
    elif memory == "float16":
        s.put("vcvtps2ph", place, value[0], 0, *tail, memory=order)
    elif memory == "bool" and s.wide:
        ones = s.op("vmovdqu8", Pool(bytes([1] * 16)), kind="x", mask=value[0], zeroing=True)
        s.put("vmovdqu8", place, V(ones, "x"), *tail, memory=order)
    elif s.wide:
        s.put("vpmovdb" if size == 1 else "vpmovdw", place, value[0], *tail, memory=order)
    else:
        lanes = s.op("vpsrld", value[0], 31) if memory == "bool" else value[0]
        kept = [4 * i + byte for i in range(4) for byte in range(size)]
        packed = s.op("vpshufb", lanes, Pool(bytes(kept + [0x80] * (16 - len(kept))) * 2))
        upper = V(s.op("vextracti128", packed, 1, kind="x"), "x")
        whole = s.op("vpunpckldq" if size == 1 else "vpunpcklqdq", V(packed, "x"), upper, kind="x")
        s.put("vmovq" if size == 1 else "vmovups", place, V(whole, "x"), memory=order)


def _store_one(s: Selector, instr: Instr, size: int, value: VReg, order: str) -> None:
    place = s.address(instr, size)
    if size >= 4:
        s.put("vmovss" if size == 4 else "vmovsd", place, V(value, "x"), memory=order)
    elif instr.attr == "float16":
        half = s.op("vcvtps2ph", V(value, "x"), 0, kind="x")
        s.put("vpextrw", place, V(half, "x"), 0, memory=order)
    else:
        bits = (
            s.op("kmovw", value, kind="d") if value.file == "mask" else s.op("vmovd", V(value, "x"), kind="d")
        )
        if instr.attr == "bool":
            bits = s.op("and", 1, kind="d", tied=bits)
        s.put("mov", place, V(bits, "b" if size == 1 else "w"), memory=order)


def _scatter(s: Selector, instr: Instr, size: int, value: Parts, mask: VReg | None, order: str) -> None:
    opcode = _SCATTER[size, 8 if instr.address.each.type in ("i64", "u64", "u32") else 4]
    for kind, i, place, guard in _pieces(s, instr, size, mask):
        part = split(s, value[0], i) if kind == s.half else V(value[i], s.kind)
        guard = _truths(s) if guard is None else guard
        used = s.new("k")
        uses = (guard, *place.registers(), part.reg)
        s.items.append(Inst(opcode, (place, part, Mask(used)), (used,), uses, ((0, 0),), True, order))
