"""The instruction set of a target: rows loaded from the tables, encode, decode and the builder namespace.

`isa("gfx942")` gives an `Isa`. Nothing is read before the first use; then the mnemonics are indexed, and a row is
made when its mnemonic or its opcode first occurs.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from tg_codegen.amdgpu.formats import Field, Format
from tg_codegen.amdgpu.immediates import IMMEDIATES
from tg_codegen.amdgpu.modifiers import modifier
from tg_codegen.amdgpu.operands import LITERAL, VGPR, Kind, Register
from tg_codegen.amdgpu.slots import (
    LITERAL_SCALAR,
    ArrayModifier,
    DualSlot,
    ImmediateSlot,
    ModifierSlot,
    RegisterSlot,
    SizedSlot,
    Slot,
    WordSlot,
    split_modifiers,
)
from tg_codegen.errors import AssemblerError, DecodeError

__all__ = ["TARGETS", "Instruction", "Isa", "Row", "isa"]

TARGETS = {"gfx942": "gfx940", "gfx950": "gfx940", "gfx1100": "gfx11", "gfx1151": "gfx11", "gfx1201": "gfx12"}
_TABLES = Path(__file__).with_name("tables")


@cache
def _table(name: str) -> list[str]:
    return [line for line in (_TABLES / f"{name}.txt").read_text().split("\n") if line and line[0] != "#"]


@cache
def _formats() -> dict[tuple[str, str], Format]:
    words = (line.split() for line in _table("formats"))
    return {(w[0], w[1]): Format.parse(w[1:]) for w in words}


_ENTRY = re.compile(r"(\d+)\.(\d+)([+-]\d+)?")


@cache
def _family(line: str) -> list[tuple[int, int, int]]:
    """(shape, effects, difference to the opcode) of every encoding of a family."""
    return [(int(shape), int(effects), int(difference or 0)) for shape, effects, difference in _ENTRY.findall(line)]


@cache
def _shape_constants() -> list[tuple[int, int, int]]:
    """(mask, base, lowest bit of the opcode) of every shape, without making its row."""
    opcodes = {f"{g} {n}": f.opcode for (g, n), f in _formats().items()}
    out = []
    for line in _table("shapes"):
        head, _, _, constant = line.split("|")
        opcode = opcodes[head.partition(":")[0]]
        mask, _, base = constant.partition(":")
        out.append((int(mask, 16) | opcode.mask, int(base, 16), opcode.segments[0][0]))
    return out


class Row:
    """One encoding of a mnemonic: everything that assembler, verifier, allocator and emulator need to know.

    `operands` are the slots in the order of the text; `writes` and `reads` the implicit registers; `flags` letters:
    l loads, s stores, v/k/e vector-memory, LDS-or-scalar-memory and export counters, r/n atomic with/without return,
    b branch, t ends a block, j no way past it, x other effects, q transcendental. `latency` is LLVM's class.
    """

    __slots__ = (
        "banks", "base", "bus_limit", "checks", "dual", "flags", "format", "free", "imm", "latency", "literals", "mask", "mnemonic", "modifiers", "name",
        "opcode", "operands", "reads", "scalars", "size_bytes", "text_spec", "wave", "whole", "writes",
    )  # fmt: skip

    mnemonic: str
    name: str
    format: Format
    operands: tuple[Slot, ...]
    modifiers: ModifierSlot | None
    mask: int
    base: int

    def encode(self, operands: list[str], modifiers: str) -> tuple[int, int] | int:
        """(bits, size in bytes), or the index of the first operand that does not fit (-1: the modifiers)."""
        bits, literal, scalars = self.free, 0, [*self.scalars]
        for slot, text in zip(self.operands, operands, strict=True):
            found = slot.encode(text)
            if found is None:
                return self.operands.index(slot)
            value, scalar = found
            bits |= value
            if scalar:
                if scalar >= LITERAL_SCALAR:
                    if literal and (literal ^ scalar) & 0xFFFFFFFF:
                        return self.operands.index(slot)
                    literal = scalar
                scalars.append(scalar)
        if self.modifiers is not None:
            found = self.modifiers.encode(modifiers)
            if found is None:
                return -1
            bits |= found[0]
        elif modifiers:
            return -1
        if bits & self.mask != self.base:
            return -1
        if len(scalars) > self.bus_limit and len(set(scalars)) > self.bus_limit:
            return len(operands)
        for check in self.checks:
            check(self, bits, operands)
        return bits, self.size_bytes + (4 if literal and not self.imm else 0)

    def accepts(self, bits: int) -> int:
        """The size in bytes when the bits are a valid instance of this row, else 0."""
        size = self.size_bytes
        for slot in self.literals:
            if slot.field.extract(bits) == LITERAL:
                size = self.size_bytes + (0 if self.imm else 4)
                break
        for slot in self.operands:
            if slot.text(bits) is None:
                return 0
        if self.modifiers is not None and self.modifiers.text(bits) is None:
            return 0
        return size

    def text(self, bits: int) -> str:
        texts = [slot.text(bits) for slot in self.operands]
        if self.dual:
            x, _, y = self.name.partition(" :: ")
            return f"{x} {', '.join(texts[: self.dual])} :: {y} {', '.join(texts[self.dual :])}"
        if self.mnemonic == "s_endpgm" and texts == ["0"]:
            return self.name
        name = f"{self.name} {', '.join(texts)}" if texts else self.name
        return name + self.modifiers.text(bits) if self.modifiers is not None else name


class Instruction:
    """A row and its bits. The text is `str(instruction)`."""

    __slots__ = ("bits", "row", "size_bytes")

    def __init__(self, row: Row, bits: int, size_bytes: int):
        self.row, self.bits, self.size_bytes = row, bits, size_bytes

    def __bytes__(self) -> bytes:
        return (self.bits & ((1 << self.size_bytes * 8) - 1)).to_bytes(self.size_bytes, "little")

    encode = __bytes__

    def __str__(self) -> str:
        return self.row.text(self.bits)

    def __repr__(self) -> str:
        return f"<{self} : {bytes(self).hex()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and bytes(self) == bytes(other) and self.row.mnemonic == other.row.mnemonic

    def __hash__(self) -> int:
        return hash(self.bits)

    def __getattr__(self, name: str) -> Register | int | str:
        for slot in self.row.operands:
            if slot.name == name:
                return slot.value(self.bits)
        raise AttributeError(f"{self.row.name} has no operand {name}")


_SUFFIX = re.compile(r"_(e32|e64|dpp|sdwa|e64_dpp)$")


def _form(format_name: str) -> str:
    """The suffix that tells forms of one mnemonic apart."""
    name, _, variant = format_name.split(".")[0].partition("_")
    if variant == "SDWA":
        return "_sdwa"
    if variant:
        return "_e64_dpp" if name.startswith("VOP3") else "_dpp"
    return {"VOP1": "_e32", "VOP2": "_e32", "VOPC": "_e32", "VOP3": "_e64"}.get(name, "")


class Isa:
    """The instruction set of one target and wave size. Attributes are builders: `isa.v_add_f32(v[0], v[1], 1.0)`."""

    def __init__(self, target: str, wave_size: int):
        self.target, self.wave_size, self.generation = target, wave_size, TARGETS[target]
        column = list(TARGETS).index(target) + 1
        self._cells: dict[str, str] = {}
        for line in _table("instructions"):
            words = line.split(" ")
            if words[column] != "-":
                self._cells[words[0]] = words[column]
        self._rows: dict[str, tuple[Row, ...]] = {}
        self._slots: dict[Any, Any] = {}
        self._vopd: dict[str, tuple[int | None, int | None, str, str]] | None = None
        self._tree: Node | None = None
        self._aliases: dict[str, str] | None = None
        self._by_place: dict[tuple[str, int], Row] = {}

    # Rows

    def aliases(self) -> dict[str, str]:
        """Old names that LLVM still reads -> names of ours."""
        if self._aliases is None:
            words = (line.split(" ") for line in _table("aliases"))
            self._aliases = {w[0]: w[1] for w in words if self.target in w[2].split(",")}
        return self._aliases

    def mnemonics(self) -> list[str]:
        return [*self._cells, *self.vopd()]

    def rows(self, mnemonic: str) -> tuple[Row, ...]:
        """The encodings of a mnemonic, which may carry a suffix such as _e64, in the order in which text tries them."""
        try:
            return self._rows[mnemonic]
        except KeyError:
            pass
        cell = self._cells.get(mnemonic)
        if cell is not None:
            family, opcode = cell.split(":")
            rows = self._make_rows(mnemonic, int(family), int(opcode, 16))
        elif " :: " in mnemonic:
            rows = self._make_vopd(mnemonic)
        elif name := self.aliases().get(mnemonic):
            rows = self.rows(name)
        elif match := _SUFFIX.search(mnemonic):
            rows = tuple(r for r in self.rows(mnemonic[: match.start()]) if _form(r.format.name) == match[0])
        else:
            rows = ()
        if rows or len(self._rows) < 1 << 16:
            self._rows[mnemonic] = rows
        return rows

    def _make_rows(self, mnemonic: str, family: int, opcode: int) -> tuple[Row, ...]:
        rows = []
        for index, (shape, effects, difference) in enumerate(_family(_table("families")[family])):
            if row := self._make_row(mnemonic, _table("shapes")[shape], _table("effects")[effects], opcode + difference):
                rows.append(row)
                self._by_place[mnemonic, index] = row
        forms = {_form(r.format.name) for r in rows}
        for row in rows:
            form = _form(row.format.name)
            row.name = mnemonic + (form if form in ("_dpp", "_sdwa", "_e64_dpp") or forms >= {"_e32", "_e64"} else "")
        return tuple(rows)

    def _make_row(self, mnemonic: str, shape: str, effects: str, opcode: int) -> Row | None:
        head, operands, modifiers, constant = shape.split("|")
        generation, label = head.split(" ")
        label, _, wave = label.partition(":")
        if wave and wave != f"w{self.wave_size}":
            return None
        row = Row()
        row.format = _formats()[generation, label]
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
        row.whole = len(row.operands) == 1 and isinstance(row.operands[0], ImmediateSlot) and row.operands[0].immediate.whole
        row.checks, row.dual = (), 0
        if any(isinstance(s, SizedSlot) for s in row.operands):
            row.checks += (_check_sizes,)
        if "cbsz" in row.text_spec and "src2" in row.text_spec and not row.checks:
            row.checks += (_check_overlap,)
        if row.mnemonic == "v_writelane_b32" and self.generation == "gfx940":
            row.checks += (_check_lane,)
        if row.mnemonic.startswith("s_waitcnt_") and len(row.operands) == 2:
            row.checks += (_check_null,)
        valu = row.format.name.startswith("VOP")
        row.scalars = (IMPLICIT_VCC,) if valu and "VCC" in row.reads and "src2:swave" not in row.text_spec else ()
        row.bus_limit = 99 if not valu or _check_lane in row.checks else 1 if self.generation == "gfx940" or row.mnemonic in _ONE_SCALAR else 2

    def _slot(self, row: Row, spec: str, index: int) -> Slot:
        role = spec[: len(spec) - len(spec.lstrip("<>"))]
        body = spec[len(role) :]
        if body.startswith("="):
            word = body[1:]
            if word == "vcc" and self.wave_size == 32:
                word = "vcc_lo"
            role = ">" if word.startswith("vcc") and index < len(row.writes) and "VCC" in row.writes and index <= 1 else ""
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
            return DualSlot(spec, name, role, place, Kind(kind, self.generation, self.wave_size), fields["vdstX"], row.size_bytes)
        kind = self._adapt(row, name, kind)
        imm = fields.get("imm")
        shift = imm.segments[0][0] if imm else row.size_bytes * 8
        flip = VGPR if "_SDWA" in row.format.name and kind.startswith("vs") else 0
        bare = bool(half) and "op_sel" not in row.text_spec
        key = (role, name, kind, mods, place, half, tuple(extra.values()), shift, bare, flip)
        if key not in self._slots:
            if kind not in self._slots:
                self._slots[kind] = Kind(kind, self.generation, self.wave_size)
            self._slots[key] = RegisterSlot(spec, name, role, place, self._slots[kind], extra, half, shift, bare, flip)
        return self._slots[key]

    def _adapt(self, row: Row, name: str, kind: str) -> str:
        """What the table leaves to the processor; see ERRATA.md."""
        format_name = row.format.name
        if self.generation == "gfx940" and format_name.startswith("VOP3"):
            banks, rest = re.fullmatch(r"([vasild]+)(.*)", kind).groups() if kind[0] in "vasild" else ("", kind)
            kind = banks.replace("l", "") + rest if banks and banks != "l" else kind  # VOP3 takes no literal
        if self.target == "gfx1100" and format_name.startswith("VOP3") and "_DPP" in format_name and name == "src1" and kind.startswith("vsi"):
            kind = "v" + kind[3:].replace("l", "", kind[3:].startswith("l"))  # src1 of DPP is a VGPR
        return kind

    def _modifier_slot(self, row: Row, text: str) -> ModifierSlot:
        key = (text, row.format.name, row.mask & ~row.format.opcode.mask, _modifier_class(row), tuple(s for s in row.operands if isinstance(s, RegisterSlot) and s.half))
        if key in self._slots:
            return self._slots[key]
        words, fields, arrays, order = [], [], [], []
        names = text.split(" ")
        for name in names:
            if name.startswith("="):
                words.append(name[1:])
                order.append(name[1:])
            elif name in _ARRAYS:
                array = self._array(row, name, name == "op_sel_hi" and row.format.name != "VOP3PX" and "_mix" not in row.mnemonic)
                arrays.append(array)
                order.append(array)
            elif (place := "fi" if name == "fi8" else name) in row.format.fields:
                field = row.format.fields[place]
                required = name == "offset" and row.format.name == "SMEM" and self.generation == "gfx940"
                item = (field, modifier(name, self.generation, row.format.name, row.mnemonic, row.text_spec), required)
                fields.append(item)
                order.append(item)
        slot = self._slots[key] = ModifierSlot(text, words, fields, arrays, order)
        return slot

    def _array(self, row: Row, name: str, default: bool) -> ArrayModifier:
        """A place for every source and for the destination; those at the end that cannot be set are left out."""
        sources = sum(s.name[:3] == "src" for s in row.operands)
        third = row.format.fields.get(_ARRAYS[name][2])
        if row.format.name[:5] != "VOP3P" and (row.mnemonic.startswith("v_fmac") or (sources == 2 and third and not third.mask & row.mask)):
            sources = 3  # the destination is read as a third source
        parts = [row.format.fields.get(p) for p in _ARRAYS[name][:sources] + _ARRAYS[name][3:]]
        parts = [None if p is None or p.mask & row.mask else p for p in parts]
        while parts and parts[-1] is None:
            parts.pop()
        halves = [next((s for s in row.operands if p and isinstance(s, RegisterSlot) and s.half is p), None) for p in parts]
        return ArrayModifier(name, [p.mask if p else 0 for p in parts], default, halves)

    # Dual issue

    def vopd(self) -> dict[str, tuple[int | None, int | None, str, str]]:
        """Halves of dual-issue instructions: mnemonic -> (opcode as X, opcode as Y, operands, implicit reads)."""
        if self._vopd is None:
            self._vopd = {}
            for line in _table("vopd") if self.wave_size == 32 else ():
                head, operands, reads = line.split("|")
                name, where, x, y = head.split(" ")
                if self.generation in where.split(","):
                    self._vopd[name] = (None if x == "-" else int(x), None if y == "-" else int(y), operands, reads)
        return self._vopd

    def _make_vopd(self, mnemonic: str) -> tuple[Row, ...]:
        names = mnemonic.split(" :: ")
        halves = [self.vopd().get(n) for n in names]
        if len(names) != 2 or None in halves or halves[0][0] is None or halves[1][1] is None:
            return ()
        row = Row()
        literal = any("imm:" in h[2] for h in halves)
        row.format = _VOPD[literal]
        row.size_bytes = row.format.size_bytes
        row.mnemonic = row.name = mnemonic
        row.opcode, row.wave, row.flags, row.latency = halves[0][0] << 5 | halves[1][1], "w32", "", "32Bit"
        row.mask, row.base = 0xFC000000 | row.format.opcode.mask, 0xC8000000 | row.format.opcode.place(row.opcode)
        row.writes, row.reads = (), ("MODE", "EXEC", *filter(None, {halves[0][3], halves[1][3]}))
        row.text_spec = ""
        slots = []
        for side, half in zip("XY", halves, strict=True):
            for spec in half[2].split(" "):
                name, kind = spec.lstrip("<>").split(":")
                slots.append(self._slot(row, spec.replace(name, name + (side if name != "imm" else ""), 1), len(slots)))
        row.operands = tuple(slots)
        row.modifiers = None
        self._finish(row)
        row.banks = None if self.generation == "gfx12" and names == ["v_dual_mov_b32"] * 2 else "XY"
        row.checks, row.dual = (_check_dual,), len(halves[0][2].split(" "))
        return (row,)

    # Encode

    def assemble_line(self, text: str) -> Instruction:
        """The instruction that one line of text means, without label or comment. Raises: AssemblerError."""
        mnemonic, _, rest = text.partition(" ")
        if "::" in rest:
            return self._assemble_dual(text)
        rows = self.rows(mnemonic)
        if not rows:
            raise AssemblerError(self._unknown(mnemonic))
        rest = rest.strip()
        if rows[0].whole:
            operands, modifiers = [rest], ""
        else:
            operands, modifiers = split_operands(rest)
        return self._encode(mnemonic, rows, operands, modifiers)

    def _encode(self, mnemonic: str, rows: tuple[Row, ...], operands: list[str], modifiers: str) -> Instruction:
        count = len(operands)
        best, best_row = -2, None
        for row in rows:
            if len(row.operands) != count:
                if count == 0 and len(row.operands) == 1 and row.mnemonic == "s_endpgm":
                    return Instruction(row, row.free, row.size_bytes)
                if len(row.operands) == 0 and count == 1:  # modifiers alone
                    result = row.encode([], (operands[0] + " " + modifiers).strip())
                    if result.__class__ is tuple:
                        return Instruction(row, *result)
                continue
            result = row.encode(operands, modifiers)
            if result.__class__ is tuple:
                return Instruction(row, *result)
            rank = count if result < 0 else result + (result == count)
            if rank > best:
                best, best_row = rank, row
        raise self._refusal(mnemonic, rows, operands, modifiers, best_row)

    def _assemble_dual(self, text: str) -> Instruction:
        x, _, y = text.partition("::")
        (x_name, _, x_rest), (y_name, _, y_rest) = x.strip().partition(" "), y.strip().partition(" ")
        mnemonic = f"{x_name} :: {y_name}"
        rows = self.rows(mnemonic)
        if not rows:
            wrong = next((n for n in (x_name, y_name) if n not in self.vopd()), None)
            raise AssemblerError(self._unknown(wrong) if wrong else f"{mnemonic}: this pair cannot issue together on {self.target}")
        operands = split_operands(x_rest.strip())[0] + split_operands(y_rest.strip())[0]
        return self._encode(mnemonic, rows, operands, "")

    def _unknown(self, mnemonic: str) -> str:
        import difflib

        close = difflib.get_close_matches(mnemonic, self._cells, 2)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"{mnemonic}: no such instruction on {self.target} (wave{self.wave_size}){hint}"

    def _refusal(self, mnemonic: str, rows: tuple[Row, ...], operands: list[str], modifiers: str, row: Row | None) -> AssemblerError:
        if row is None:
            counts = sorted({len(r.operands) for r in rows})
            return AssemblerError(f"{mnemonic}: got {len(operands)} operands, want {' or '.join(map(str, counts))}")
        result = row.encode(operands, modifiers)
        if result == -1:
            words = row.modifiers.required if row.modifiers else ()
            names = [w if isinstance(w, str) else w.name if isinstance(w, ArrayModifier) else "" for w in words]
            known = (row.modifiers.spec.replace("=", "") if row.modifiers else "") or "none"
            del names
            return AssemblerError(f"{mnemonic}: modifiers {modifiers!r} do not fit, want some of: {known}", len(operands))
        if result == len(operands):
            return AssemblerError(f"{mnemonic}: reads more than {row.bus_limit} scalar registers and literals")
        slot = row.operands[result]
        return AssemblerError(f"{mnemonic}: operand {slot.name}: got {operands[result]!r}, want {slot.describe()}", result)

    def __getattr__(self, name: str) -> Any:
        rows = self.rows(name) if not name.startswith("_") else ()
        if not rows:
            raise AttributeError(self._unknown(name) if not name.startswith("_") else name)

        def build(*operands: Register | int | float | str, **modifiers: Any) -> Instruction:
            texts = [str(o) for o in operands]
            words = " ".join(_modifier_word(n, value) for n, value in modifiers.items())
            return self._encode(name, rows, texts, words.strip())

        build.__name__ = name
        self.__dict__[name] = build
        return build

    # Decode

    def decode(self, data: bytes, offset: int = 0) -> Instruction:
        """The instruction at an offset. Raises: DecodeError."""
        bits = int.from_bytes(data[offset : offset + 20], "little")
        available = len(data) - offset
        if available < 4:
            raise DecodeError(f"an instruction needs 4 bytes, {max(available, 0)} are left", offset)
        if self._tree is None:
            self._tree = self._build_tree()
        for row in self._tree.find(bits, self):
            if bits & row.mask == row.base and (size := row.accepts(bits)):
                if size > available:
                    raise DecodeError(f"{row.name} needs {size} bytes, {available} are left", offset)
                return Instruction(row, bits & ((1 << size * 8) - 1), size)
        raise DecodeError(f"0x{bits & 0xFFFFFFFF:08x} is no instruction of {self.target}", offset)

    def _build_tree(self) -> Node:
        """Every encoding as (mask, base, mnemonic, place among its rows); rows are made when a search reaches them."""
        stubs = []
        families = [_family(line) for line in _table("families")]
        constants = _shape_constants()
        for mnemonic, cell in self._cells.items():
            family, opcode = cell.split(":")
            opcode = int(opcode, 16)
            for index, (shape, _, difference) in enumerate(families[int(family)]):
                mask, base, low = constants[shape]
                stubs.append((mask, base | opcode + difference << low, mnemonic, index))
        halves = self.vopd()
        for x, (code, *_) in halves.items():
            if code is not None:
                base = 0xC8000000 | code << 22
                stubs += [(0xFFFE0000, base | h[1] << 17, f"{x} :: {y}", 0) for y, h in halves.items() if h[1] is not None]
        return Node(stubs, 0)

    def _row(self, mnemonic: str, index: int) -> Row | None:
        """The row of a place in a family; None when it is for another wave size."""
        self.rows(mnemonic)
        return self._by_place.get((mnemonic, index)) if " :: " not in mnemonic else self.rows(mnemonic)[0]


class Node:
    """A decision tree over encodings, split where a search first comes: `mask` picks bits, `children` go by them."""

    __slots__ = ("children", "mask", "rows", "stubs")

    def __init__(self, stubs: list[tuple[int, int, str, int]], tested: int):
        common = 0xFFFFFFFF & ~tested
        for stub in stubs:
            common &= stub[0]
        self.stubs, self.rows, self.children = stubs, None, None
        if not tested:
            common = 0xFC000000
        self.mask = common
        if common and (len(stubs) > 3 or not tested):
            self.children = children = {}
            for stub in stubs:
                for extra in _subsets(common & ~stub[0]) if common & ~stub[0] else (0,):
                    children.setdefault(stub[1] & common | extra, []).append(stub)
            self.mask = common

    def find(self, bits: int, isa_: Isa, tested: int = 0) -> list[Row]:
        node = self
        while node.children is not None:
            tested |= node.mask
            key = bits & node.mask
            child = node.children.get(key, _NONE)
            if child.__class__ is list:
                child = node.children[key] = Node(child, tested) if child else _NONE
            if child is _NONE:
                return []
            node = child
        if node.rows is None:
            rows = [isa_._row(mnemonic, index) for _, _, mnemonic, index in node.stubs]
            node.rows = sorted(filter(None, rows), key=lambda r: -r.mask.bit_count())
        return node.rows


IMPLICIT_VCC = (2 << 9) + 106 + 1
_NONE: list = []


def _subsets(mask: int) -> list[int]:
    """All values whose bits lie in a mask."""
    values = [0]
    while mask:
        low = mask & -mask
        values += [v | low for v in values]
        mask ^= low
    return values


_ARRAYS = {
    "op_sel": ("sel0", "sel1", "sel2", "seld"),
    "op_sel_hi": ("selhi0", "selhi1", "selhi2"),
    "neg_lo": ("neg0", "neg1", "neg2"),
    "neg_hi": ("abs0", "abs1", "abs2"),
}
_ONE_SCALAR = {"v_lshlrev_b64", "v_lshrrev_b64", "v_ashrrev_i64", "v_lshlrev_b64_e64"}
_VOPD = {
    literal: Format.parse(
        f"VOPD{'L' * literal} {12 if literal else 8} op=25:17 src0X=8:0 vsrc1X=16:9 src0Y=40:32 vsrc1Y=48:41 vdstY=55:49@1 vdstX=63:56 imm=95:64".split()
    )
    for literal in (False, True)
}


def _modifier_class(row: Row) -> str:
    """What a modifier's meaning depends on besides its name."""
    m = row.mnemonic
    return "".join(w for w in ("flat_", "_f64_", "_mix", "atomic", "store", "v_fmac") if w in m) + "".join(w for w in ("s128", ":v64") if w in row.text_spec)


def _modifier_word(name: str, value: Any) -> str:
    if value is True or value is False:
        return name if value else ""
    if isinstance(value, (list, tuple)):
        return f"{name}:[{','.join(map(str, value))}]"
    return f"{name}:{value}"


def _check_sizes(row: Row, bits: int, operands: list[str]) -> None:
    for index, slot in enumerate(row.operands):
        if isinstance(slot, SizedSlot) and (want := slot.text(bits)) != operands[index]:
            raise AssemblerError(f"{row.mnemonic}: {slot.name}: got {operands[index]}, want {want or 'a format of 0..4'}, whose size cbsz or blgp gives", index)


def _check_overlap(row: Row, bits: int, operands: list[str]) -> None:
    """A matrix instruction's C is D or apart from it (small ones may overlap)."""
    d, c = (next(s for s in row.operands if s.name == name) for name in ("vdst", "src2"))
    distance = abs(d.number(bits) - c.number(bits))
    if d.kind.dwords > 4 and c.number(bits) >= VGPR and 0 < distance < d.kind.dwords:
        raise AssemblerError(f"{row.mnemonic}: src2: {c.text(bits)} partially overlaps vdst {d.text(bits)}", row.operands.index(c))


def _check_lane(row: Row, bits: int, operands: list[str]) -> None:
    """GFX9's writelane reads one scalar register, and besides it m0 as the lane."""
    scalars = {scalar for slot, text in zip(row.operands[1:], operands[1:], strict=True) if (scalar := slot.encode(text)[1])}
    if len(scalars) > 1 and operands[2] != "m0":
        raise AssemblerError(f"{row.mnemonic}: reads more than 1 scalar registers and literals")


def _check_null(row: Row, bits: int, operands: list[str]) -> None:
    if operands[0] != "null":
        raise AssemblerError(f"{row.mnemonic}: sdst: got {operands[0]}, want null", 0)


def _check_dual(row: Row, bits: int, operands: list[str]) -> None:
    """One destination is even and the other odd; sources of the same place come from different banks."""
    if row.operands[row.dual].text(bits) != operands[row.dual]:
        raise AssemblerError(f"{row.mnemonic}: vdstY: got {operands[row.dual]}, want an odd one with an even vdstX, or the reverse; register bank", row.dual)
    if row.banks is None:
        return
    places: list[list[Slot | None]] = []
    for half in (row.operands[: row.dual], row.operands[row.dual :]):
        sources = [*half[1:], *([half[0]] if half[0].reads else [])]
        places.append([s if isinstance(s, RegisterSlot) else None for s in sources])
    for index, (x, y) in enumerate(zip(*places, strict=False)):
        if x is None or y is None:
            continue
        a, b = ((slot.field.extract(bits) | slot.implied | (isinstance(slot, DualSlot) and not bits & slot.low)) for slot in (x, y))
        mask = 1 if index == 2 else 3
        if a >= VGPR and b >= VGPR and (a ^ b) & mask == 0:
            raise AssemblerError(f"{row.mnemonic}: source {index}: got {x.text(bits)} and {y.text(bits)}, want different banks (number modulo {mask + 1}); register bank")


def split_operands(text: str) -> tuple[list[str], str]:
    """'v0, v1, s2 clamp' -> (['v0', 'v1', 's2'], 'clamp')."""
    if not text:
        return [], ""
    if "(" in text or ":[" in text or "|" in text:
        return _split_carefully(text)
    operands = text.split(",")
    if len(operands) > 1:
        operands = [o.strip() for o in operands]
    last, _, modifiers = operands[-1].partition(" ")
    operands[-1] = last
    return operands, modifiers.strip()


def _split_carefully(text: str) -> tuple[list[str], str]:
    operands, depth, start, bars = [], 0, 0, 0
    end = len(text)
    for i, character in enumerate(text):
        if character in "[(":
            depth += 1
        elif character in "])":
            depth -= 1
        elif character == "," and not depth:
            operands.append(text[start:i].strip())
            start = i + 1
        elif character == " " and not depth and text[start:i].strip() and text[i + 1 : i + 2] not in ",":
            end = i
            break
    operands.append(text[start:end].strip())
    return operands, text[end:].strip()


@cache
def isa(target: str, wave_size: int | None = None) -> Isa:
    """The instruction set of a target, for waves of 64 (GFX9) or 32 lanes unless told otherwise."""
    if target not in TARGETS:
        raise AssemblerError(f"target: got {target!r}, want {', '.join(TARGETS)}")
    default = 64 if TARGETS[target] == "gfx940" else 32
    size = wave_size or default
    if size not in ((64,) if default == 64 else (32, 64)):
        raise AssemblerError(f"wave size: got {size}, want {'64' if default == 64 else '32 or 64'} on {target}")
    return Isa(target, size)
