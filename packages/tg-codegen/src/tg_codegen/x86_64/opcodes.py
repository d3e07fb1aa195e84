"""The instruction forms of x86-64, read from the tables beside this file when first asked for.

A line of `tables/*.txt` is `mnemonics | encoding | operands | effects : feature`:

    vmulps:59* | VEX.L.NP.0F.WIG n /r | V, V, V/mV |           `*`: the two sources may change places
    mul:4 imul:5 | F7 /n | <r/m32 | r:eax w:eax,edx,flags      `<` reads, `>` writes; else the first is written

- Several mnemonics share a line when only a number tells them apart; `n` stands for it, also in `40+n` and `00+8n`.
- A line without mnemonics continues the one above, with its effects unless it has its own. Forms are tried in order.
- `L` stands for 128 and 256 (VEX) or 128, 256 and 512 (EVEX): V is then a vector register of that length, H, Q and
  E of a half, a quarter and an eighth of it (xmm at least), mV to mE memory of exactly that.
- `v` ending a word stands for 16, 32 and 64 bits (66, nothing, REX.W), `y` for 32 and 64 (W0, W1).
- `m32` memory, `b32` a broadcast element, `r/m32` register or memory, `av` al to rax, `imm8s` a sign-extended byte.
- `{k}` masking, `{z}` zeroing, `{k!}` a mask is required and cleared, `{er}` embedded rounding, `{sae}`.
- `N4` sets the unit of a compressed displacement where it is not the size of the memory operand.
- effects: `r:`/`w:` implicit reads and writes, `lock` and `rep` allow these prefixes, `alias` is only assembled,
  `explicit` is only taken when asked for ({vex}) or when nothing else is available, `swap` may turn into the store
  form for a shorter prefix, `compare` has names for its predicates.
- `@ latency FEATURE` starts a section; the latency class is what list scheduling looks up.

Source: Intel SDM volume 2; AVX-512-FP16 and AMX architecture specifications.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from pathlib import Path

from tg_codegen.x86_64.formats import EVEX, LEGACY, Encoding, Operand, place_operands

__all__ = ["Form", "all_forms", "forms", "forms_at", "mnemonics"]

_TABLES = Path(__file__).with_name("tables")
_VECTOR = {"V": 1, "H": 2, "Q": 4, "E": 8}
_REGISTER = {128: "xmm", 256: "ymm", 512: "zmm"}


class Form:
    """One instruction form: all that assembler, disassembler, verifier, register allocator and scheduler need.

    `operands` in the order of the text; a read and written operand is tied to itself. `reads` and `writes` are
    the implicit registers ("flags", "eax", "mxcsr"). `features` must all be there. `latency` is a class.
    `merges` says that a masked instance without zeroing reads its destination. `traits` are the other effects.
    """

    __slots__ = (
        "commutes", "encoding", "features", "immediate", "latency", "masking", "merges", "mnemonic", "operands",
        "reads", "rm", "rounding", "traits", "width", "writes",
    )  # fmt: skip

    def __init__(self, mnemonic: str, encoding: Encoding, operands: tuple[Operand, ...], width: int):
        self.mnemonic, self.encoding, self.operands, self.width = mnemonic, encoding, operands, width
        self.rm = next((i for i, o in enumerate(operands) if o.place == "rm"), -1)
        self.immediate = next((i for i, o in enumerate(operands) if o.place == "imm"), -1)
        self.masking = next((o.masking for o in operands if o.masking), "")
        self.rounding = next((o.rounding for o in operands if o.rounding), "")
        # Embedded rounding takes the place of the vector length: packed forms must be of 512 bits.
        if self.rounding and encoding.length not in (None, 2):
            self.rounding = ""

    def __repr__(self) -> str:
        return f"{self.mnemonic} {', '.join(o.text for o in self.operands)}"


class Row:
    """A line of a table, split but not yet expanded."""

    __slots__ = ("effects", "encoding", "features", "latency", "numbers", "operands")

    def __init__(
        self, numbers: dict[str, str], encoding: str, operands: str, effects: str, latency: str, features: str
    ):
        self.numbers, self.encoding, self.operands = numbers, encoding, operands
        self.effects, self.latency, self.features = effects, latency, features

    def notation(self, mnemonic: str) -> str:
        number = self.numbers[mnemonic].removesuffix("*")
        if not number:
            return self.encoding
        n = int(number, 16)

        def value(match: re.Match[str]) -> str:
            base, factor = match.groups()
            return f"{int(base, 16) + int(factor or 1) * n:02X}"

        text = re.sub(r"\b([0-9A-F]{2})\+(\d?)n\b", value, self.encoding)
        return re.sub(r"/n\b", f"/{n}", re.sub(r"(?<!/)\bn\b", number, text))


@cache
def _rows() -> list[Row]:
    rows = []
    latency = features = effects = ""
    numbers: dict[str, str] = {}
    for path in sorted(_TABLES.glob("*.txt"), reverse=True):  # vex before integer before evex
        for line in path.read_text().split("\n"):
            if not line or line[0] == "#":
                continue
            if line[0] == "@":
                _, latency, *rest = line.split()
                features = rest[0] if rest else ""
                continue
            names, encoding, *rest = (cell.strip() for cell in line.split("|"))
            operands = rest[0] if rest else ""
            if names:
                numbers = {
                    name: number for name, _, number in (word.partition(":") for word in names.split())
                }
                effects = ""
            if len(rest) > 1:
                effects = rest[1]
            words, _, feature = f" {effects}".partition(" : ")
            rows.append(Row(numbers, encoding, operands, words, latency, feature.strip() or features))
    return rows


@cache
def _index() -> dict[str, list[Row]]:
    index: dict[str, list[Row]] = {}
    for row in _rows():
        for name in row.numbers:
            index.setdefault(name, []).append(row)
    return index


def mnemonics() -> list[str]:
    """Every mnemonic, in the order of the tables."""
    return [*_index()]


@cache
def forms(mnemonic: str) -> tuple[Form, ...]:
    """The forms of a mnemonic in the order in which the assembler tries them; none when it does not exist."""
    return tuple(form for row in _index().get(mnemonic, ()) for form in _expand(row, mnemonic))


def all_forms() -> list[Form]:
    """Every form of every mnemonic."""
    return [form for mnemonic in mnemonics() for form in forms(mnemonic)]


_EXPANDED: dict[tuple[int, str], tuple[Form, ...]] = {}


def _expand(row: Row, mnemonic: str) -> tuple[Form, ...]:
    key = (id(row), mnemonic)
    if key not in _EXPANDED:
        _EXPANDED[key] = tuple(_make_forms(row, mnemonic))
    return _EXPANDED[key]


def _make_forms(row: Row, mnemonic: str) -> list[Form]:
    notation = row.notation(mnemonic)
    head = notation.split(" ")[0]
    lengths: tuple[int, ...] = (0,)
    if ".256.512." in head:
        lengths = (256, 512)
    elif ".L." in head:
        lengths = (128, 256, 512)[: 3 if head[0] == "E" else 2]
    widths: tuple[int, ...] = (0,)
    if re.search(r"(^|[\s<>])(r|r/m|m|a|imm)v\b", row.operands):
        widths = (16, 32, 64)
    elif re.search(r"(^|[\s<>/])(r|r/m|m)y\b", row.operands):
        widths = (32, 64)
    made = []
    for length, width in product(lengths, widths):
        encoding = notation.replace(".256.512.", ".L.").replace(".L.", f".{length}.")
        if width:
            encoding = encoding.replace("Wy", "W1" if width == 64 else "W0")
            encoding = re.sub(r"\biv\b", "iw" if width == 16 else "id", encoding)
            if "EX." not in encoding:
                encoding = {16: "66 ", 32: "", 64: "REX.W "}[width] + encoding
        specs = tuple(_substitute(spec, length, width) for spec in row.operands.split(", ") if spec)
        made.append(_make_form(row, mnemonic, encoding, specs, length, width))
    return made


@cache
def _substitute(spec: str, length: int, width: int) -> str:
    """A spec with its letters replaced: `V/mH/b32` -> `zmm/m256/b32`."""
    if length:
        spec = re.sub(r"vm(\d\d)([VHQE])", lambda m: f"vm{m[1]}{_part(length, m[2])[0]}", spec)
        spec = re.sub(r"\bm([VHQE])", lambda m: f"m{length // _VECTOR[m[1]]}", spec)
        spec = re.sub(r"\b([VHQE])\b", lambda m: _part(length, m[1]), spec)
    if width:
        spec = re.sub(r"\bav\b", {16: "ax", 32: "eax", 64: "rax"}[width], spec)
        spec = re.sub(r"\bimmv\b", {16: "imm16", 32: "imm32", 64: "imm32s"}[width], spec)
        spec = re.sub(r"\b([rm])[vy]\b", rf"\g<1>{width}", spec)
    return re.sub(r"\br/m(\d+)", r"r\1/m\1", spec)


def _part(length: int, letter: str) -> str:
    return _REGISTER[max(length // _VECTOR[letter], 128)]


def _make_form(
    row: Row, mnemonic: str, notation: str, specs: tuple[str, ...], length: int, width: int
) -> Form:
    encoding = Encoding(notation)
    form = Form(mnemonic, encoding, place_operands(specs, encoding), width)
    words = row.effects.split()
    implicit = {kind: tuple(w[2:].split(",")) for w in words for kind in (w[:2],) if kind in ("r:", "w:")}
    form.reads, form.writes = implicit.get("r:", ()), implicit.get("w:", ())
    form.traits = frozenset(w for w in words if w[1] != ":")
    # A mask or memory as destination is not merged: unselected bits become zero, unselected elements stay away.
    form.merges = bool(form.masking) and specs[0][:1] not in "km" and "blend" not in form.traits
    form.commutes = row.numbers[mnemonic].endswith("*")
    form.latency = row.latency
    features = {row.features} - {""}
    if encoding.layout == EVEX:
        features.add("AVX512F")
        if length and length < 512:
            features.add("AVX512VL")
    form.features = frozenset(features)
    return form


@cache
def _opcode_index() -> dict[tuple[str, int, int], list[tuple[Row, str]]]:
    index: dict[tuple[str, int, int], list[tuple[Row, str]]] = {}
    for row in _rows():
        if "alias" in row.effects:
            continue
        for mnemonic in row.numbers:
            notation = (
                re.sub(r"\b(L|256\.512)\b", "128", row.notation(mnemonic))
                .replace("Wy", "W0")
                .replace("iv", "id")
            )
            encoding = Encoding(notation)
            opcodes = range(encoding.opcode, encoding.opcode + (8 if encoding.opcode_register else 1))
            for opcode in opcodes:
                index.setdefault((encoding.layout, encoding.map, opcode), []).append((row, mnemonic))
    return index


@cache
def forms_at(layout: str, map_: int, opcode: int) -> tuple[Form, ...]:
    """The forms that an opcode byte may mean in a layout and opcode map."""
    found = [
        form for row, name in _opcode_index().get((layout, map_, opcode), ()) for form in _expand(row, name)
    ]
    if layout == LEGACY:  # `90` is nop before it is an exchange
        found.sort(key=lambda form: form.encoding.opcode_register)
    return tuple(found)
