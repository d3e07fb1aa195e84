"""Operands to bytes: templates, and the builder namespace of a target.

`isa()` gives an `Isa`, whose attributes build instructions: `isa.vaddps(zmm0, zmm1, mem(rax, rcx, 4, 64))`. The
kinds of the operands select a list of templates, once; after that an instruction is a dictionary look-up, an OR of
what its operands contribute (registers.py), and `int.to_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

from tg_codegen.errors import AssemblerError
from tg_codegen.x86_64.formats import EVEX, LEGACY, VEX, Operand
from tg_codegen.x86_64.opcodes import Form, forms, mnemonics
from tg_codegen.x86_64.registers import REGISTERS, SEGMENTS, Memory, Register

__all__ = ["TARGETS", "Instruction", "Isa", "isa"]

_LEVELS = {
    "avx2": "AVX AVX2 FMA F16C BMI BMI2 LZCNT POPCNT CX16 RDRAND CRC32 CLFLUSHOPT",
    "avx512": "AVX512F AVX512BW AVX512DQ AVX512VL AVX512CD AVX512VNNI AVX512BF16 AVX512FP16 AVX512VBMI AVX512VBMI2 "
    "AVX512IFMA AVX512VPOPCNTDQ AVX512BITALG AVX-VNNI VPCLMULQDQ CLWB CLDEMOTE SERIALIZE",
    "amx": "AMX-TILE AMX-INT8 AMX-BF16",
}
_AVX2 = frozenset(_LEVELS["avx2"].split())
_AVX512 = _AVX2.union(_LEVELS["avx512"].split())
_AMX = _AVX512.union(_LEVELS["amx"].split())
TARGETS: dict[str, frozenset[str] | None] = {
    "x86_64": None,  # everything that the tables know
    "x86_64:avx2": _AVX2,
    "x86_64:avx512": _AVX512,
    "x86_64:amx": _AMX,
}
ROUNDINGS = {"rn-sae": 0, "rd-sae": 1, "ru-sae": 2, "rz-sae": 3, "sae": 0}
_CLASS_KINDS: dict[type, str] = {int: "i", str: "l"}

AnyOperand = Register | Memory | int | str


class Instruction:
    """A form with its operands, and its bytes in `code`.

    A branch to a label has the label's name (a str) as operand, and zeros for the distance.
    """

    __slots__ = ("code", "form", "mask", "operands", "prefixes", "rounding", "zeroing")

    def __init__(
        self,
        form: Form,
        operands: tuple[AnyOperand, ...],
        code: bytes,
        mask: Register | None = None,
        zeroing: bool = False,
        rounding: str = "",
        prefixes: tuple[str, ...] = (),
    ):
        self.form, self.operands, self.code = form, operands, code
        self.mask, self.zeroing, self.rounding, self.prefixes = mask, zeroing, rounding, prefixes

    def __bytes__(self) -> bytes:
        return self.code

    @property
    def size_bytes(self) -> int:
        return len(self.code)

    def reads(self) -> list[Register | str]:
        """What it reads: registers of operands and addresses, its mask, and implicit names such as "flags"."""
        form = self.form
        merges = form.merges and self.mask is not None and not self.zeroing
        read: list[Register | str] = [REGISTERS.get(name, name) for name in form.reads]
        for operand, value in zip(form.operands, self.operands, strict=True):
            if isinstance(value, Memory):
                read += value.registers()
            elif isinstance(value, Register) and (operand.reads or (merges and operand.masking)):
                read.append(value)
        return [*read, self.mask] if self.mask else read

    def writes(self) -> list[Register | str]:
        """The registers that it writes, and implicit names such as "flags"."""
        written: list[Register | str] = [REGISTERS.get(name, name) for name in self.form.writes]
        for operand, value in zip(self.form.operands, self.operands, strict=True):
            if operand.writes and isinstance(value, Register):
                written.append(value)
        return [*written, self.mask] if self.mask and self.form.masking == "k!" else written

    @property
    def loads(self) -> bool:
        """Whether it reads the memory that an operand names; the stack and strings are not operands."""
        return self._accesses("reads")

    @property
    def stores(self) -> bool:
        """Whether it writes the memory that an operand names."""
        return self._accesses("writes")

    def _accesses(self, role: str) -> bool:
        operands = zip(self.form.operands, self.operands, strict=True)
        touched = any(isinstance(value, Memory) and getattr(operand, role) for operand, value in operands)
        return touched and "address" not in self.form.traits

    def __str__(self) -> str:
        from tg_codegen.x86_64.text import instruction_text  # the printer is not needed to compile

        return instruction_text(self)

    def __repr__(self) -> str:
        return f"<{self} : {self.code.hex()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and self.code == other.code and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self.code)


Check = Callable[[tuple[Any, ...]], bool]


class Template:
    """A form with each operand's kind fixed, ready to OR operands into.

    `base` holds the constant bits, in the layout of registers.py; `fields` are (operand, contribution) pairs.
    `check` tells whether these operand values fit; the next template is tried when it says no.
    """

    __slots__ = (
        "base", "check", "disp_unit", "fields", "force_sib", "form", "immediate", "immediate_bytes",
        "immediate_mask", "is4", "layout", "memory", "middle", "prefix", "shortens", "size",
    )  # fmt: skip

    def __init__(self, form: Form, kinds: tuple[str, ...], places: tuple[str, ...], rounding: bool = False):
        encoding = form.encoding
        layout = encoding.layout
        self.form, self.layout, self.check = form, layout, None
        self.memory = next((i for i, kind in enumerate(kinds) if kind[0] in "mvb" and places[i] == "rm"), -1)
        self.is4 = places.index("is4") if "is4" in places else -1
        self.immediate = next((i for i, place in enumerate(places) if place == "imm"), -1)
        self.immediate_bytes = encoding.immediate_bytes
        self.immediate_mask = (1 << 8 * self.immediate_bytes) - 1
        operand = form.operands[self.memory] if self.memory >= 0 else None
        self.force_sib = operand is not None and operand.force_sib
        gathers = operand is not None and bool(operand.vector_index)
        fields = []
        for i, place in enumerate(places):
            if place in ("reg", "rm", "vvvv", "opcode"):
                name = "vsib" if gathers and layout == EVEX and i == self.memory else layout
                fields.append((i, attrgetter(f"{name}_{place}")))
        self.fields = tuple(fields)
        modrm = encoding.fixed_modrm or 0
        if encoding.reg_field is not None:
            modrm = max(encoding.reg_field, 0) << 3
            if self.memory < 0:
                modrm |= 0xC0
        self.disp_unit, self.shortens, self.prefix, self.middle = 1, False, b"", b""
        w, length = encoding.w or 0, 0 if rounding else encoding.length or 0
        if layout == LEGACY:
            self._make_legacy(modrm, w)
        elif layout == VEX:
            self.base = (
                0xC4
                | encoding.map << 8
                | (w << 7 | length << 2 | encoding.prefix) << 16
                | encoding.opcode << 24
            )
            self.base |= modrm << 32
            if "reg" not in places:
                self.base |= 0x8000
            if "vvvv" not in places:
                self.base |= 15 << 19
            if "rm" not in places:
                self.base |= 0x6000
            self.size = 4 + (encoding.reg_field is not None or encoding.fixed_modrm is not None)
            self.shortens = encoding.map == 1 and not w
        else:
            self.base = 0x62 | encoding.map << 8 | (w << 7 | 4 | encoding.prefix) << 16 | length << 29
            self.base |= encoding.opcode << 32 | modrm << 40
            if "reg" not in places:
                self.base |= 0x9000
            if "vvvv" not in places:
                self.base |= 15 << 19 | (0 if gathers else 1 << 27)
            self.size = 6
            if operand is not None:
                broadcast = kinds[self.memory][0] == "b"
                self.disp_unit = (
                    operand.broadcast_bytes if broadcast else encoding.disp_unit or operand.memory_bytes
                )
                self.base |= broadcast << 28
        if self.memory >= 0:
            self.size -= 1  # the tail of the address brings ModRM

    def _make_legacy(self, modrm: int, w: int) -> None:
        encoding = self.form.encoding
        self.prefix = b"\x66" * encoding.both + (b"", b"\x66", b"\xf3", b"\xf2")[encoding.prefix]
        opcode = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[encoding.map]
        last = encoding.opcode
        if encoding.reg_field is not None or encoding.fixed_modrm is not None:
            opcode, last = opcode + bytes([last]), modrm
        self.middle = opcode
        self.base = w << 3 | last << 8
        self.size = 2

    def encode(self, operands: tuple[Any, ...], evex: int = 0, prefix: str = "") -> bytes:
        """The bytes; `evex` are more bits to set (masking, rounding), `prefix` is "lock" or "rep"."""
        value = self.base | evex
        for i, contribution in self.fields:
            value |= contribution(operands[i])
        size, segment = self.size, b""
        if self.memory >= 0:
            memory = operands[self.memory]
            tail, tail_size = memory.tail(self.disp_unit, self.force_sib)
            value |= tail << 8 * size
            size += tail_size
            if memory.segment:
                segment = SEGMENTS[memory.segment]
        if self.immediate_bytes:
            if self.is4 >= 0:
                number = operands[self.is4].number << 4
            else:
                number = operands[self.immediate]
                number = number & self.immediate_mask if number.__class__ is int else 0
            value |= number << 8 * size
            size += self.immediate_bytes
        if self.layout is LEGACY:
            return self._legacy_bytes(value, size, segment, prefix)
        if self.shortens and value & 0x6000 == 0x6000:
            value = 0xC5 | (value & 0x8000) | (value >> 16 & 0x7F) << 8 | value >> 24 << 16
            size -= 1
        return segment + value.to_bytes(size, "little")

    def _legacy_bytes(self, value: int, size: int, segment: bytes, prefix: str) -> bytes:
        rex = value & 0xFF
        head = segment + self.prefix
        if prefix:
            head = head + b"\xf0" if prefix == "lock" else b"\xf3" + head
        if rex:
            if rex & 0x80:
                if rex != 0x80:
                    raise AssemblerError(
                        f"{self.form.mnemonic}: ah, bh, ch and dh cannot stand beside a register that needs REX"
                    )
            else:
                head += bytes((rex | 0x40,))
        return head + self.middle + (value >> 8).to_bytes(size - 1, "little")


def _fits(operand: Operand, value: Any, width: int) -> bool:
    name, low, high = operand.immediate
    if value.__class__ is not int or low <= value <= high:
        return True
    if width and name in ("imm8s", "imm32s"):  # 0xffffffff is -1 where 32 bits are meant
        return (1 << width) + low <= value < 1 << width
    return False


def _immediate_check(index: int, operand: Operand, width: int) -> Check:
    _, low, high = operand.immediate

    def check(operands: tuple[Any, ...]) -> bool:
        value = operands[index]
        return value.__class__ is not int or low <= value <= high or _fits(operand, value, width)

    return check


def _both(first: Check | None, second: Check) -> Check:
    return second if first is None else lambda operands: first(operands) and second(operands)


class Isa:
    """The instructions of a set of features. Attributes are builders; Python's keywords take an underscore, `and_`.

    `mask`, `zeroing` and `rounding` ("rn-sae" to "rz-sae", or "sae") are what {k1}, {z} and {rn-sae} are in text.
    `encoding` "vex" or "evex" asks for that layout.
    """

    def __init__(self, features: frozenset[str] | None, target: str):
        self.features, self.target = features, target
        self._templates: dict[str, dict[Any, tuple[Template, ...]]] = {}

    def __getattr__(self, name: str) -> Callable[..., Instruction]:
        mnemonic = name.rstrip("_")
        if name.startswith("_") or not forms(mnemonic):
            raise AttributeError(_unknown(mnemonic))
        templates = self._templates.setdefault(mnemonic, {})
        class_kind = _CLASS_KINDS.get

        def build(
            *operands: AnyOperand,
            mask: Register | None = None,
            zeroing: bool = False,
            rounding: str = "",
            encoding: str = "",
            prefix: str = "",
        ) -> Instruction:
            if mask is not None or rounding or encoding or prefix or zeroing:
                return self._build_special(mnemonic, operands, mask, zeroing, rounding, encoding, prefix)
            kinds = tuple([class_kind(o.__class__) or o.kind for o in operands])
            found = templates.get(kinds)
            if found is None:
                found = templates[kinds] = self._select(mnemonic, operands, kinds, ())
            for template in found:
                if template.check is None or template.check(operands):
                    return Instruction(template.form, operands, template.encode(operands))
            raise self._refusal(mnemonic, operands, kinds)

        build.__name__ = name
        self.__dict__[name] = build
        return build

    def build(self, mnemonic: str, *operands: AnyOperand, **options: Any) -> Instruction:
        """The instruction of a mnemonic that is known only at run time. Raises: AssemblerError."""
        try:
            builder = getattr(self, mnemonic)
        except AttributeError as error:
            raise AssemblerError(str(error)) from None
        return builder(*operands, **options)

    def _build_special(
        self,
        mnemonic: str,
        operands: tuple[AnyOperand, ...],
        mask: Register | None,
        zeroing: bool,
        rounding: str,
        encoding: str,
        prefix: str,
    ) -> Instruction:
        kinds = tuple([_CLASS_KINDS.get(o.__class__) or o.kind for o in operands])
        if mask is not None and (mask.kind != "k" or mask.number == 0):
            raise AssemblerError(f"{mnemonic}: mask: got {mask}, want k1..k7")
        if zeroing and mask is None:
            raise AssemblerError(f"{mnemonic}: zeroing: got no mask to go with it, want k1..k7")
        if rounding and rounding not in ROUNDINGS:
            raise AssemblerError(f"{mnemonic}: rounding: got {rounding!r}, want {', '.join(ROUNDINGS)}")
        wants = (mask is not None, zeroing, "er" if rounding[:1] == "r" else rounding, encoding)
        cache = self._templates.setdefault(mnemonic, {})
        found = cache.get((kinds, wants))
        if found is None:
            found = cache[kinds, wants] = self._select(mnemonic, operands, kinds, wants)
        evex = (mask.number << 24 if mask is not None else 0) | zeroing << 31
        for template in found:
            if template.check is None or template.check(operands):
                form = template.form
                if prefix and (prefix not in form.traits or (prefix == "lock" and template.memory < 0)):
                    raise AssemblerError(f"{mnemonic}: prefix: got {prefix}, which it does not take here")
                if rounding:
                    evex |= 1 << 28 | ROUNDINGS[rounding] << 29
                code = template.encode(operands, evex, prefix)
                prefixes = (prefix,) if prefix else ()
                return Instruction(form, operands, code, mask, zeroing, rounding, prefixes)
        raise self._refusal(mnemonic, operands, kinds)

    # Selection

    def _select(
        self, mnemonic: str, operands: tuple[AnyOperand, ...], kinds: tuple[str, ...], wants: tuple[Any, ...]
    ) -> tuple[Template, ...]:
        """The templates that take operands of these kinds, in the order of preference. Raises: AssemblerError."""
        mask, zeroing, rounding, encoding = wants or (False, False, "", "")
        matching = [form for form in forms(mnemonic) if _matches(form, kinds)]
        wrong = "operands" if not matching else ""
        found = []
        for form in matching:
            memory_destination = kinds[0][0] in "mv" if kinds else False
            if (mask and not form.masking) or (not mask and form.masking == "k!"):
                wrong = "a mask: got " + ("one, want none" if mask else "none, want k1..k7")
            elif zeroing and (form.masking != "kz" or memory_destination):
                wrong = "zeroing, which it does not take here"
            elif rounding and (form.rounding != rounding or (form.rm >= 0 and kinds[form.rm][0] in "mb")):
                wrong = f"rounding, which is of 512-bit or scalar registers: {form!r} takes {form.rounding or 'none'}"
            elif encoding and form.encoding.layout != encoding:
                wrong = f"encoding: got {encoding}, want {form.encoding.layout}"
            elif self.features is not None and not form.features <= self.features:
                missing = ", ".join(sorted(form.features - self.features))
                wrong = f"needs {missing}, which {self.target} has not"
            else:
                found.append(form)
        if any("explicit" not in form.traits for form in found) and encoding != "vex":
            found = [form for form in found if "explicit" not in form.traits]
        if not found:
            raise self._refusal(mnemonic, operands, kinds, wrong)
        sizes = {o.memory_bytes for form in found for o in form.operands if o.memory_bytes}
        if len(sizes) > 1 and "m" in kinds:
            names = " or ".join(str(8 * size) for size in sorted(sizes))
            raise AssemblerError(
                f"{mnemonic}: memory: got no size, want {names} bits; give size_bytes, or `dword ptr`"
            )
        return tuple(template for form in found for template in _templates(form, kinds, bool(rounding)))

    def _refusal(
        self, mnemonic: str, operands: tuple[AnyOperand, ...], kinds: tuple[str, ...], wrong: str = ""
    ) -> AssemblerError:
        """The error that names the operand which no form takes."""
        if wrong and wrong != "operands":
            return AssemblerError(f"{mnemonic}: {wrong}")
        known = forms(mnemonic)
        sized = [form for form in known if len(form.operands) == len(kinds)]
        if not sized:
            counts = " or ".join(map(str, sorted({len(form.operands) for form in known})))
            return AssemblerError(f"{mnemonic}: got {len(kinds)} operands, want {counts}")
        depth, wanted = -1, {}
        for form in sized:
            for i, (operand, kind) in enumerate(zip(form.operands, kinds, strict=True)):
                if kind not in _accepts(operand, form) or (
                    operand.immediate and not _fits(operand, operands[i], form.width)
                ):
                    break
            else:
                continue
            if i > depth:
                depth, wanted = i, {}
            if i == depth:
                wanted[operand.describe()] = None
        got = operands[depth] if depth >= 0 else ", ".join(map(str, operands))
        return AssemblerError(f"{mnemonic}: operand {depth}: got {got}, want {' or '.join(wanted)}", depth)


@cache
def _broadcasts(operand: Operand) -> frozenset[str]:
    bits = 8 * operand.broadcast_bytes
    count = operand.memory_bytes // operand.broadcast_bytes
    return frozenset({"b", f"b{bits}", f"bx{count}", f"b{bits}x{count}"})


def _accepts(operand: Operand, form: Form) -> frozenset[str]:
    if operand.broadcast_bytes:
        return operand.accepts | _broadcasts(operand)
    return operand.accepts - {"eax"} if "not_eax" in form.traits and operand.place else operand.accepts


def _matches(form: Form, kinds: tuple[str, ...]) -> bool:
    if len(form.operands) != len(kinds):
        return False
    return all(kind in _accepts(operand, form) for operand, kind in zip(form.operands, kinds, strict=True))


def _templates(form: Form, kinds: tuple[str, ...], rounding: bool) -> list[Template]:
    """The template of a form, and before it what gets a shorter VEX prefix by exchanging registers.

    The two-byte VEX prefix has no bit for the register in ModRM.rm, so that one is best a low one.
    """
    places = tuple(operand.place for operand in form.operands)
    plain = Template(form, kinds, places, rounding)
    for i, operand in enumerate(form.operands):
        if operand.immediate:
            plain.check = _both(plain.check, _immediate_check(i, operand, form.width))
    last = form.rm
    if not plain.shortens or plain.memory >= 0:
        return [plain]
    # A scalar takes the rest of its result from the first source, so only packed comparisons are symmetric.
    symmetric = "compare" in form.traits and form.encoding.length is not None
    if form.commutes or symmetric:
        exchanged = Template(form, kinds, ("reg", "rm", "vvvv", *places[3:]))
        # Of the comparisons only eq, unord, neq, ord and their signalling kin are.
        exchanged.check = lambda o: (
            o[2].number > 7 >= o[1].number and (not symmetric or o[3] & 7 in (0, 3, 4, 7))
        )
        return [exchanged, plain]
    if "swap" in form.traits:
        plain.check = lambda o: not o[last].number > 7 >= o[0].number
    return [plain]


def _unknown(mnemonic: str) -> str:
    import difflib  # only for the error

    close = difflib.get_close_matches(mnemonic, mnemonics(), 2)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{mnemonic}: no such instruction on x86-64{hint}"


@cache
def isa(target: str = "x86_64") -> Isa:
    """The instruction set of a target: `x86_64` for everything, `x86_64:avx2`, `:avx512` or `:amx`."""
    if target not in TARGETS:
        raise AssemblerError(f"target: got {target!r}, want {', '.join(TARGETS)}")
    return Isa(TARGETS[target], target)
