"""Rows from the tables' lines, for one target and wave size.

Slots are shared between rows that have the same, so that their caches are too.
"""

from __future__ import annotations

import re
from typing import Any

from tg_codegen.amdgpu.checks import check_dual, check_lane, check_null, check_overlap, check_sizes
from tg_codegen.amdgpu.immediates import IMMEDIATES
from tg_codegen.amdgpu.instruction import Row
from tg_codegen.amdgpu.modifiers import modifier
from tg_codegen.amdgpu.operands import VGPR, Kind
from tg_codegen.amdgpu.slots import (
    ArrayModifier,
    DualSlot,
    ImmediateSlot,
    ModifierSlot,
    RegisterSlot,
    SizedSlot,
    Slot,
    WordSlot,
)
from tg_codegen.amdgpu.tables import GENERATIONS, dual_format, family, formats, table

__all__ = ["RowMaker", "form_of"]

_ARRAYS = {
    "op_sel": ("sel0", "sel1", "sel2", "seld"),
    "op_sel_hi": ("selhi0", "selhi1", "selhi2"),
    "neg_lo": ("neg0", "neg1", "neg2"),
    "neg_hi": ("abs0", "abs1", "abs2"),
}
_ONE_SCALAR = {"v_lshlrev_b64", "v_lshrrev_b64", "v_ashrrev_i64"}
IMPLICIT_VCC = (2 << 9) + 106 + 1  # as the pair vcc is counted


def form_of(format_name: str) -> str:
    """The suffix that tells forms of one mnemonic apart."""
    name, _, variant = format_name.split(".")[0].partition("_")
    if variant == "SDWA":
        return "_sdwa"
    if variant:
        return "_e64_dpp" if name.startswith("VOP3") else "_dpp"
    return {"VOP1": "_e32", "VOP2": "_e32", "VOPC": "_e32", "VOP3": "_e64"}.get(name, "")


class RowMaker:
    """Makes the rows of a target."""

    def __init__(self, target: str, wave_size: int):
        self.target, self.wave_size, self.generation = target, wave_size, GENERATIONS[target]
        self.by_place: dict[tuple[str, int], Row] = {}
        self._slots: dict[Any, Any] = {}
        self._vopd: dict[str, tuple[int | None, int | None, str, str]] | None = None

    def rows(self, mnemonic: str, number: int, opcode: int) -> tuple[Row, ...]:
        rows = []
        for index, (shape, effects, difference) in enumerate(family(table("families")[number])):
            if row := self._make_row(
                mnemonic, table("shapes")[shape], table("effects")[effects], opcode + difference
            ):
                rows.append(row)
                self.by_place[mnemonic, index] = row
        forms = {form_of(r.format.name) for r in rows}
        for row in rows:
            form = form_of(row.format.name)
            row.name = mnemonic + (
                form if form in ("_dpp", "_sdwa", "_e64_dpp") or forms >= {"_e32", "_e64"} else ""
            )
        return tuple(rows)

    def _make_row(self, mnemonic: str, shape: str, effects: str, opcode: int) -> Row | None:
        head, operands, modifiers, constant = shape.split("|")
        generation, label = head.split(" ")
        label, _, wave = label.partition(":")
        if wave and wave != f"w{self.wave_size}":
            return None
        row = Row()
        row.format = formats()[generation, label]
        row.size_bytes = row.format.size_bytes
        mask, base = (int(x, 16) for x in constant.split(":"))
        row.mask, row.base = mask | row.format.opcode.mask, base | row.format.opcode.place(opcode)
        row.mnemonic = row.name = mnemonic
        row.opcode, row.wave = opcode, wave
        writes, reads, row.flags, row.latency = effects.split("|")
        row.writes, row.reads = tuple(filter(None, writes.split(","))), tuple(filter(None, reads.split(",")))
        row.text_spec = operands + "|" + modifiers
        row.operands = tuple(self._slot(row, spec, i) for i, spec in enumerate(operands.split(" ")) if spec)
        row.modifiers = self._modifier_slot(row, modifiers) if modifiers else None
        self._finish(row)
        return row

    def _finish(self, row: Row) -> None:
        owned = 0
        for slot in row.operands + ((row.modifiers,) if row.modifiers else ()):
            owned |= slot.mask
        row.free = row.base & ~owned
        row.imm = "imm" in row.format.fields and any(s.name.startswith("imm") for s in row.operands)
        row.literals = tuple(s for s in row.operands if isinstance(s, RegisterSlot) and s.literal_shift)
        row.whole = (
            len(row.operands) == 1
            and isinstance(row.operands[0], ImmediateSlot)
            and row.operands[0].immediate.whole
        )
        row.checks, row.dual = (), 0
        if any(isinstance(s, SizedSlot) for s in row.operands):
            row.checks += (check_sizes,)
        if "cbsz" in row.text_spec and "src2" in row.text_spec and not row.checks:
            row.checks += (check_overlap,)
        if row.mnemonic == "v_writelane_b32" and self.generation == "gfx940":
            row.checks += (check_lane,)
        if row.mnemonic.startswith("s_waitcnt_") and len(row.operands) == 2:
            row.checks += (check_null,)
        valu = row.format.name.startswith("VOP")
        row.scalars = (
            (IMPLICIT_VCC,) if valu and "VCC" in row.reads and "src2:swave" not in row.text_spec else ()
        )
        row.bus_limit = (
            99
            if not valu or check_lane in row.checks
            else 1
            if self.generation == "gfx940" or row.mnemonic in _ONE_SCALAR
            else 2
        )

    def _slot(self, row: Row, spec: str, index: int) -> Slot:
        role = spec[: len(spec) - len(spec.lstrip("<>"))]
        body = spec[len(role) :]
        if body.startswith("="):
            word = body[1:]
            if word == "vcc" and self.wave_size == 32:
                word = "vcc_lo"
            role = ">" if word.startswith("vcc") and "VCC" in row.writes and index <= 1 else ""
            return self._slots.setdefault((body, role), WordSlot(spec, word, role))
        name, kind, *mods = body.split(":")
        mods = mods[0] if mods else ""
        fields = row.format.fields
        place = fields[name]
        if kind == "smem" and "s128" in row.text_spec:
            kind = "smem_buffer"
        if kind in IMMEDIATES:
            key = (spec, place, kind)
            if key not in self._slots:
                self._slots[key] = ImmediateSlot(spec, name, role, place, kind, self.generation)
            return self._slots[key]
        number = name[-1]
        if kind == "vaf8f6f4":
            selector = fields["cbsz" if number == "0" else "blgp"]
            return SizedSlot(spec, name, role, place, selector, self.generation, row.size_bytes)
        extra = {m: fields[{"n": "neg", "a": "abs", "x": "sext"}[m] + number] for m in mods}
        half = None
        if "/" in kind and "h" in kind.split("/")[1] and "7" not in kind.split("/")[1]:
            half = fields.get("seld" if name == "vdst" else "sel" + number)
            if half and half.mask & row.mask:
                half = None
        if name == "vdstY":
            return DualSlot(
                spec,
                name,
                role,
                place,
                Kind(kind, self.generation, self.wave_size),
                fields["vdstX"],
                row.size_bytes,
            )
        kind = self._adapt(row, name, kind)
        imm = fields.get("imm")
        shift = imm.segments[0][0] if imm else row.size_bytes * 8
        flip = VGPR if "_SDWA" in row.format.name and kind.startswith("vs") else 0
        bare = bool(half) and "op_sel" not in row.text_spec
        key = (role, name, kind, mods, place, half, tuple(extra.values()), shift, bare, flip)
        if key not in self._slots:
            if kind not in self._slots:
                self._slots[kind] = Kind(kind, self.generation, self.wave_size)
            self._slots[key] = RegisterSlot(
                spec, name, role, place, self._slots[kind], extra, half, shift, bare, flip
            )
        return self._slots[key]

    def _adapt(self, row: Row, name: str, kind: str) -> str:
        """What the table leaves to the processor; see ERRATA.md."""
        format_name = row.format.name
        if self.generation == "gfx940" and format_name.startswith("VOP3"):
            banks, rest = (
                re.fullmatch(r"([vasild]+)(.*)", kind).groups() if kind[0] in "vasild" else ("", kind)
            )
            kind = banks.replace("l", "") + rest if banks and banks != "l" else kind  # VOP3 takes no literal
        if (
            self.target == "gfx1100"
            and format_name.startswith("VOP3")
            and "_DPP" in format_name
            and name == "src1"
            and kind.startswith("vsi")
        ):
            kind = "v" + kind[3:].replace("l", "", kind[3:].startswith("l"))  # src1 of DPP is a VGPR
        return kind

    def _modifier_slot(self, row: Row, text: str) -> ModifierSlot:
        key = (
            text,
            row.format.name,
            row.mask & ~row.format.opcode.mask,
            _modifier_class(row),
            tuple(s for s in row.operands if isinstance(s, RegisterSlot) and s.half),
        )
        if key in self._slots:
            return self._slots[key]
        words, fields, arrays, order = [], [], [], []
        names = text.split(" ")
        for name in names:
            if name.startswith("="):
                words.append(name[1:])
                order.append(name[1:])
            elif name in _ARRAYS:
                array = self._array(
                    row,
                    name,
                    name == "op_sel_hi" and row.format.name != "VOP3PX" and "_mix" not in row.mnemonic,
                )
                arrays.append(array)
                order.append(array)
            elif (place := "fi" if name == "fi8" else name) in row.format.fields:
                field = row.format.fields[place]
                required = name == "offset" and row.format.name == "SMEM" and self.generation == "gfx940"
                item = (
                    field,
                    modifier(name, self.generation, row.format.name, row.mnemonic, row.text_spec),
                    required,
                )
                fields.append(item)
                order.append(item)
        slot = self._slots[key] = ModifierSlot(text, words, fields, arrays, order)
        return slot

    def _array(self, row: Row, name: str, default: bool) -> ArrayModifier:
        """A place for every source and for the destination; those at the end that cannot be set are left out."""
        sources = sum(s.name[:3] == "src" for s in row.operands)
        third = row.format.fields.get(_ARRAYS[name][2])
        if row.format.name[:5] != "VOP3P" and (
            row.mnemonic.startswith("v_fmac") or (sources == 2 and third and not third.mask & row.mask)
        ):
            sources = 3  # the destination is read as a third source
        parts = [row.format.fields.get(p) for p in _ARRAYS[name][:sources] + _ARRAYS[name][3:]]
        parts = [None if p is None or p.mask & row.mask else p for p in parts]
        while parts and parts[-1] is None:
            parts.pop()
        halves = [
            next((s for s in row.operands if p and isinstance(s, RegisterSlot) and s.half is p), None)
            for p in parts
        ]
        return ArrayModifier(name, [p.mask if p else 0 for p in parts], default, halves)

    def vopd(self) -> dict[str, tuple[int | None, int | None, str, str]]:
        """Halves of dual-issue instructions: mnemonic -> (opcode as X, opcode as Y, operands, implicit reads)."""
        if self._vopd is None:
            self._vopd = {}
            for line in table("vopd") if self.wave_size == 32 else ():
                head, operands, reads = line.split("|")
                name, where, x, y = head.split(" ")
                if self.generation in where.split(","):
                    self._vopd[name] = (
                        None if x == "-" else int(x),
                        None if y == "-" else int(y),
                        operands,
                        reads,
                    )
        return self._vopd

    def dual_rows(self, mnemonic: str) -> tuple[Row, ...]:
        names = mnemonic.split(" :: ")
        halves = [self.vopd().get(n) for n in names]
        if len(names) != 2 or None in halves or halves[0][0] is None or halves[1][1] is None:
            return ()
        row = Row()
        literal = any("imm:" in h[2] for h in halves)
        row.format = dual_format(literal)
        row.size_bytes = row.format.size_bytes
        row.mnemonic = row.name = mnemonic
        row.opcode, row.wave, row.flags, row.latency = halves[0][0] << 5 | halves[1][1], "w32", "", "32Bit"
        row.mask, row.base = (
            0xFC000000 | row.format.opcode.mask,
            0xC8000000 | row.format.opcode.place(row.opcode),
        )
        row.writes, row.reads = (), ("MODE", "EXEC", *filter(None, {halves[0][3], halves[1][3]}))
        row.text_spec = ""
        slots = []
        for side, half in zip("XY", halves, strict=True):
            for spec in half[2].split(" "):
                name, kind = spec.lstrip("<>").split(":")
                slots.append(
                    self._slot(row, spec.replace(name, name + (side if name != "imm" else ""), 1), len(slots))
                )
        row.operands = tuple(slots)
        row.modifiers = None
        self._finish(row)
        row.banks = None if self.generation == "gfx12" and names == ["v_dual_mov_b32"] * 2 else "XY"
        row.checks, row.dual = (check_dual,), len(halves[0][2].split(" "))
        return (row,)


def _modifier_class(row: Row) -> str:
    """What a modifier's meaning depends on besides its name."""
    m = row.mnemonic
    return "".join(w for w in ("flat_", "_f64_", "_mix", "atomic", "store", "v_fmac") if w in m) + "".join(
        w for w in ("s128", ":v64") if w in row.text_spec
    )
