"""Slots: an operand or the modifiers of one encoding, between text and placed bits.

A slot owns bits of the encoding (`mask`). `encode` turns text into those bits, `text` turns the bits back; both are
cached by the slot, and rows of equal slots share them, so that assembling and disassembling are mostly dictionary
lookups. What a text does not fit gives None: the caller tries the next row or reports.

`encode` gives (bits, scalar): `scalar` identifies the scalar register or literal that is read (0: none), for the
limits on scalar operands. A literal's value stands above the encoding's own bits.
"""

from __future__ import annotations

from tg_codegen.amdgpu.formats import Field
from tg_codegen.amdgpu.immediates import IMMEDIATES, Immediate
from tg_codegen.amdgpu.modifiers import Modifier
from tg_codegen.amdgpu.operands import AGPR, LITERAL, VGPR, Kind, Register
from tg_codegen.amdgpu.statements import split_modifiers

__all__ = [
    "ArrayModifier",
    "DualSlot",
    "ImmediateSlot",
    "ModifierSlot",
    "RegisterSlot",
    "SizedSlot",
    "Slot",
    "WordSlot",
]

LITERAL_SCALAR = 1 << 40
CACHE_LIMIT = 1 << 16


class Slot:
    __slots__ = ("_bits", "_texts", "mask", "name", "reads", "spec", "writes")

    def __init__(self, spec: str, name: str, role: str, mask: int):
        self.spec, self.name, self.mask = spec, name, mask
        self.reads, self.writes = role != ">", ">" in role
        self._bits: dict[str, tuple[int, int] | None] = {}
        self._texts: dict[int, str | None] = {}

    def encode(self, text: str) -> tuple[int, int] | None:
        try:
            return self._bits[text]
        except KeyError:
            if len(self._bits) > CACHE_LIMIT:
                self._bits.clear()
            result = self._bits[text] = self._encode(text)
            return result

    def text(self, bits: int) -> str | None:
        key = bits & self.mask
        try:
            return self._texts[key]
        except KeyError:
            if len(self._texts) > CACHE_LIMIT:
                self._texts.clear()
            result = self._texts[key] = self._text(key)
            return result


class WordSlot(Slot):
    """A fixed word: vcc, off, m0."""

    __slots__ = ("word",)

    def __init__(self, spec: str, word: str, role: str):
        super().__init__(spec, word, role, 0)
        self.word = word

    def _encode(self, text: str) -> tuple[int, int] | None:
        return (0, 0) if text == self.word else None

    def _text(self, bits: int) -> str:
        return self.word

    def describe(self) -> str:
        return self.word

    def value(self, bits: int) -> str:
        return self.word


class ImmediateSlot(Slot):
    __slots__ = ("field", "generation", "immediate", "kind")

    def __init__(self, spec: str, name: str, role: str, field: Field, kind: str, generation: str):
        super().__init__(spec, name, role, field.mask)
        self.field, self.generation, self.kind = field, generation, kind
        self.immediate: Immediate = IMMEDIATES[kind]

    def _encode(self, text: str) -> tuple[int, int] | None:
        value = self.immediate.parse(text, self.generation)
        if value is None or value & ~self.field.values:
            return None
        literal = {"k32": LITERAL_SCALAR | 32 << 44, "k16": LITERAL_SCALAR | 32 << 44}.get(self.kind)
        return self.field.place(value), literal | value if literal else 0

    def _text(self, bits: int) -> str | None:
        return self.immediate.format(self.field.extract(bits), self.generation) or None

    def value(self, bits: int) -> int:
        return self.field.extract(bits)

    def describe(self) -> str:
        return f"{self.kind} of {self.field.values.bit_length()} bits"


class RegisterSlot(Slot):
    """A register, constant or literal with its source modifiers and 16-bit half.

    `mods` are the letters n (negate), a (absolute), x (sign-extend) with their fields in `extra`; `half` is the
    field that says which half of a 16-bit register is meant, where that is not bit 7 of the number.
    """

    __slots__ = (
        "bare",
        "field",
        "flip",
        "half",
        "implied",
        "kind",
        "literal_shift",
        "mods",
        "null",
        "sdwa",
        "vector",
    )

    def __init__(
        self,
        spec: str,
        name: str,
        role: str,
        field: Field,
        kind: Kind,
        mods: dict[str, Field],
        half: Field | None,
        literal_shift: int,
        bare: bool = False,
        flip: int = 0,
    ):
        mask = field.mask | (half.mask if half else 0)
        for mod in mods.values():
            mask |= mod.mask
        super().__init__(spec, name, role, mask)
        self.field, self.kind, self.mods, self.half = field, kind, mods, half
        implied = (VGPR if set(kind.banks) <= {"v", "a", "d"} else 0) | (AGPR if kind.banks == "a" else 0)
        self.implied = implied & ~field.values
        self.vector = (
            0 if "v" in kind.banks else AGPR - VGPR
        )  # accumulators alone: the field has no bit for it
        self.bare = bare  # no op_sel in the text: only a register can say which half
        self.sdwa = kind.type == "sdwa"
        self.flip = flip  # SDWA marks scalars with the bit that elsewhere marks VGPRs
        self.null = -1 if kind.generation == "gfx940" else 124
        self.literal_shift = literal_shift if "l" in kind.banks else 0

    def _encode(self, text: str) -> tuple[int, int] | None:
        bits = 0
        for letter, function in (("x", "sext"), ("n", "neg"), ("a", "abs")):
            if letter in self.mods and text.startswith(function + "(") and text.endswith(")"):
                bits |= self.mods[letter].mask
                text = text[len(function) + 1 : -1].strip()
        if "n" in self.mods and text[:1] == "-" and not (text[1:2].isdigit() or text[1:2] == "."):
            bits |= self.mods["n"].mask
            text = text[1:].strip()
        if "a" in self.mods and text[:1] == "|" and text[-1:] == "|" and len(text) > 2:
            bits |= self.mods["a"].mask
            text = text[1:-1].strip()
        found = self.kind.parse(text)
        if found is None:
            return None
        number, literal = found
        flags = self.kind.flags
        if "h" in flags and number >= VGPR:
            high = text.endswith(".h")
            if "7" in flags:
                if number & 0x80:
                    return None
                number |= high << 7
            elif high:
                if not self.half:
                    return None
                bits |= self.half.mask
        elif "7" in flags and number >= VGPR and number & 0x80:
            return None
        if self.sdwa:
            return bits | self.field.place(0 if number == 106 else 0x80 | number), 0
        bits |= self.field.place(number ^ self.flip)
        if literal is not None:
            return (
                bits | literal << self.literal_shift,
                LITERAL_SCALAR | literal | self.kind.literal_bits << 44,
            )
        if not self.reads:
            return bits, 0
        if number < 128 and number != self.null:
            return bits, (self.kind.dwords << 9) + number + 1  # a pair and its half count as two
        return bits, number + 1 if 235 <= number <= 239 or (number > 250 and number < VGPR) else 0

    def number(self, bits: int) -> int:
        """The operand's number in the source encoding, halves removed."""
        number = (self.field.extract(bits) ^ self.flip) | self.implied
        if self.sdwa:
            return number & 0x7F if number & 0x80 else 106
        if number >= VGPR:
            number |= self.vector
        return (
            number & ~0x80 if "7" in self.kind.flags and "h" in self.kind.flags and number >= VGPR else number
        )

    def text(self, bits: int) -> str | None:
        key = bits & self.mask
        try:
            return self._texts[key]
        except KeyError:
            if self.literal_shift and self.field.extract(bits) == LITERAL:
                if self.bare and bits & self.half.mask:
                    return None
                return self._decorated(
                    bits, self.kind.format(LITERAL, bits >> self.literal_shift & 0xFFFFFFFF), True
                )
            result = self._texts[key] = self._text(key)
            return result

    def _text(self, bits: int) -> str | None:
        number = (self.field.extract(bits) ^ self.flip) | self.implied
        flags = self.kind.flags
        suffix = ""
        if number >= VGPR and flags:
            if "h" in flags:
                high = number & 0x80 if "7" in flags else bool(self.half) and bits & self.half.mask
                suffix = ".h" if high else ".l"
            elif "7" in flags and number & 0x80:
                return None
        if self.bare and number < VGPR and bits & self.half.mask:
            return None
        if self.sdwa and number & 0x7F and not number & 0x80:
            return None
        text = self.kind.format(self.number(bits), None) if self.number(bits) != LITERAL else None
        return (
            None
            if text is None
            else self._decorated(bits, text + suffix, 128 <= number < VGPR and number < 249)
        )

    def _decorated(self, bits: int, text: str | None, constant: bool) -> str | None:
        if text is None:
            return None
        has = {letter for letter, field in self.mods.items() if bits & field.mask}
        if "a" in has:
            text = f"|{text}|"
        if "n" in has:
            text = f"neg({text})" if constant and "a" not in has else "-" + text
        return f"sext({text})" if "x" in has else text

    def value(self, bits: int) -> Register | int | str:
        """The register, or the number of an inline constant, or a literal's value."""
        number = self.number(bits)
        if number == LITERAL and self.literal_shift:
            return bits >> self.literal_shift & 0xFFFFFFFF
        if 128 <= number < 235 or 240 <= number < 249:
            return self.kind.format(number, None) or number
        name = self.kind.register_text(number) or "?"
        half = (self.text(bits) or "")[-1:] if "h" in self.kind.flags and number >= VGPR else ""
        return Register(number, self.kind.dwords, name, half)

    def describe(self) -> str:
        return self.kind.describe()


class SizedSlot(RegisterSlot):
    """A or B of an f8f6f4 matrix instruction: the tuple's size follows from the format that another field names."""

    __slots__ = ("kinds", "selector")

    SIZES = (8, 8, 6, 6, 4)

    def __init__(
        self, spec: str, name: str, role: str, field: Field, selector: Field, generation: str, size_bytes: int
    ):
        self.kinds = {n: Kind(f"va{n * 32}", generation, 64) for n in (4, 6, 8)}
        super().__init__(spec, name, role, field, self.kinds[8], {}, None, size_bytes)
        self.selector = selector
        self.mask |= selector.mask

    def _encode(self, text: str) -> tuple[int, int] | None:
        for kind in self.kinds.values():
            if found := kind.parse(text):
                return self.field.place(found[0]), 0
        return None

    def _text(self, bits: int) -> str | None:
        selector = self.selector.extract(bits)
        return (
            self.kinds[self.SIZES[selector]].format(self.field.extract(bits), None) if selector < 5 else None
        )


class DualSlot(RegisterSlot):
    """The destination of a dual instruction's second half: its lowest bit is the opposite of the first half's."""

    __slots__ = ("low",)

    def __init__(
        self, spec: str, name: str, role: str, field: Field, kind: Kind, other: Field, size_bytes: int
    ):
        super().__init__(spec, name, role, field, kind, {}, None, size_bytes)
        self.low = other.mask & -other.mask

    def number(self, bits: int) -> int:
        return self.field.extract(bits) | self.implied | (not bits & self.low)

    def text(self, bits: int) -> str | None:
        return self.kind.format(self.number(bits), None)


class ArrayModifier:
    """op_sel and its like: one bit for each operand, as `op_sel:[1,0]`.

    `halves` are slots whose register's half is written at the register (.l, .h) and not here.
    """

    def __init__(self, name: str, masks: list[int], default: int, halves: list[RegisterSlot | None]):
        self.name, self.masks, self.halves = name, masks, halves
        self.default = sum(m for m in masks if default)
        self.mask = sum(masks)

    def parse(self, word: str) -> int | None:
        if not (word.startswith(self.name + ":[") and word.endswith("]")):
            return None
        values = word[len(self.name) + 2 : -1].split(",")
        values = [v.strip() for v in values]
        if len(values) == 4 and len(self.masks) == 3 and values[2] == "0":
            del values[2]  # LLVM counts a tied third source
        if not set(values) <= {"0", "1"} or len(values) > 4 or "1" in values[len(self.masks) :]:
            return None
        return sum(m for m, v in zip(self.masks, values, strict=False) if v == "1")

    def format(self, bits: int) -> str:
        plain = bits
        for mask, slot in zip(self.masks, self.halves, strict=True):
            if slot is not None and slot.field.extract(bits) | slot.implied >= VGPR:
                plain &= ~mask
        if plain & self.mask == self.default:
            return ""
        return f"{self.name}:[{','.join(str(int(bool(bits & m))) for m in self.masks)}]"


class ModifierSlot(Slot):
    """All modifiers of an encoding together, in the order of the text."""

    __slots__ = ("arrays", "fields", "required", "slots_mask", "words")

    def __init__(
        self,
        spec: str,
        words: list[str],
        fields: list[tuple[Field, Modifier, bool]],
        arrays: list[ArrayModifier],
        order: list,
    ):
        mask = 0
        for field, _, _ in fields:
            mask |= field.mask
        for array in arrays:
            mask |= array.mask
        self.slots_mask = 0
        for array in arrays:
            for slot in array.halves:
                if slot is not None:
                    self.slots_mask |= slot.field.mask
        super().__init__(spec, "modifiers", "", mask)
        self.words, self.fields, self.arrays, self.required = words, fields, arrays, order

    def _encode(self, text: str) -> tuple[int, int] | None:
        bits, seen = 0, set()
        values: dict[int, int] = {}
        missing = set(self.words)
        for word in split_modifiers(text):
            if word in missing:
                missing.discard(word)
                continue
            for index, (_, modifier, _) in enumerate(self.fields):
                value = modifier.parse(word)
                if value is None:
                    continue
                if index in seen and not modifier.joins:
                    return None
                values[index] = values.get(index, 0) | value
                seen.add(index)
                break
            else:
                for array in self.arrays:
                    if (value := array.parse(word)) is not None and array.name not in seen:
                        bits |= value
                        seen.add(array.name)
                        break
                else:
                    return None
        if missing:
            return None
        for index, (field, modifier, required) in enumerate(self.fields):
            if required and index not in seen:
                return None
            bits |= field.place(values.get(index, modifier.default))
        for array in self.arrays:
            if array.name not in seen:
                bits |= array.default
        return bits, 0

    def text(self, bits: int) -> str | None:
        """The modifiers with a space before each, or None where the bits mean nothing."""
        key = bits & (self.mask | self.slots_mask)
        try:
            return self._texts[key]
        except KeyError:
            if len(self._texts) > CACHE_LIMIT:
                self._texts.clear()
            result = self._texts[key] = self._text(key)
            return result

    def _text(self, bits: int) -> str | None:
        words = []
        for item in self.required:
            if isinstance(item, str):
                words.append(item)
            elif isinstance(item, ArrayModifier):
                words.append(item.format(bits))
            else:
                field, modifier, _ = item
                words.append(modifier.format(field.extract(bits)))
        return None if any(w.endswith("?") for w in words) else "".join(" " + w for w in words if w)
