"""The instruction set of a target: encode, decode, and builders named after the instructions.

`isa("gfx942")` gives an `Isa`. Nothing is read before the first use; then the mnemonics are indexed, and a row is
made when its mnemonic or its opcode first occurs.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from tg_codegen.amdgpu.decode_tree import Node
from tg_codegen.amdgpu.instruction import Instruction, Row
from tg_codegen.amdgpu.make_rows import RowMaker, form_of
from tg_codegen.amdgpu.operands import Register
from tg_codegen.amdgpu.statements import split_operands
from tg_codegen.amdgpu.tables import GENERATIONS, family, shape_constants, table
from tg_codegen.errors import AssemblerError, DecodeError

__all__ = ["TARGETS", "Instruction", "Isa", "Row", "isa"]

TARGETS = GENERATIONS
_SUFFIX = re.compile(r"_(e32|e64|dpp|sdwa|e64_dpp)$")


class Isa:
    """The instruction set of one target and wave size. Attributes are builders: `isa.v_add_f32(v[0], v[1], 1.0)`."""

    def __init__(self, target: str, wave_size: int):
        self.target, self.wave_size, self.generation = target, wave_size, TARGETS[target]
        self._maker = RowMaker(target, wave_size)
        column = list(TARGETS).index(target) + 1
        words = (line.split(" ") for line in table("instructions"))
        self._cells = {w[0]: w[column] for w in words if w[column] != "-"}
        self._rows: dict[str, tuple[Row, ...]] = {}
        self._tree: Node | None = None
        self._aliases: dict[str, str] | None = None

    def vopd(self) -> dict[str, tuple[int | None, int | None, str, str]]:
        """Halves of dual-issue instructions: mnemonic -> (opcode as X, opcode as Y, operands, implicit reads)."""
        return self._maker.vopd()

    def aliases(self) -> dict[str, str]:
        """Old names that LLVM still reads -> names of ours."""
        if self._aliases is None:
            words = (line.split(" ") for line in table("aliases"))
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
            number, opcode = cell.split(":")
            rows = self._maker.rows(mnemonic, int(number), int(opcode, 16))
        elif " :: " in mnemonic:
            rows = self._maker.dual_rows(mnemonic)
        elif name := self.aliases().get(mnemonic):
            rows = self.rows(name)
        elif match := _SUFFIX.search(mnemonic):
            rows = tuple(
                r for r in self.rows(mnemonic[: match.start()]) if form_of(r.format.name) == match[0]
            )
        else:
            rows = ()
        if rows or len(self._rows) < 1 << 16:
            self._rows[mnemonic] = rows
        return rows

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

    def _encode(
        self, mnemonic: str, rows: tuple[Row, ...], operands: list[str], modifiers: str
    ) -> Instruction:
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
            raise AssemblerError(
                self._unknown(wrong)
                if wrong
                else f"{mnemonic}: this pair cannot issue together on {self.target}"
            )
        operands = split_operands(x_rest.strip())[0] + split_operands(y_rest.strip())[0]
        return self._encode(mnemonic, rows, operands, "")

    def _unknown(self, mnemonic: str) -> str:
        close = difflib.get_close_matches(mnemonic, self._cells, 2)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"{mnemonic}: no such instruction on {self.target} (wave{self.wave_size}){hint}"

    def _refusal(
        self, mnemonic: str, rows: tuple[Row, ...], operands: list[str], modifiers: str, row: Row | None
    ) -> AssemblerError:
        if row is None:
            counts = sorted({len(r.operands) for r in rows})
            return AssemblerError(
                f"{mnemonic}: got {len(operands)} operands, want {' or '.join(map(str, counts))}"
            )
        result = row.encode(operands, modifiers)
        if result == -1:
            known = (row.modifiers.spec.replace("=", "") if row.modifiers else "") or "none"
            return AssemblerError(
                f"{mnemonic}: modifiers {modifiers!r} do not fit, want some of: {known}", len(operands)
            )
        if result == len(operands):
            return AssemblerError(
                f"{mnemonic}: reads more than {row.bus_limit} scalar registers and literals"
            )
        slot = row.operands[result]
        return AssemblerError(
            f"{mnemonic}: operand {slot.name}: got {operands[result]!r}, want {slot.describe()}", result
        )

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

    def decode(self, data: bytes, offset: int = 0) -> Instruction:
        """The instruction at an offset. Raises: DecodeError."""
        bits = int.from_bytes(data[offset : offset + 20], "little")
        available = len(data) - offset
        if available < 4:
            raise DecodeError(f"an instruction needs 4 bytes, {max(available, 0)} are left", offset)
        if self._tree is None:
            self._tree = self._build_tree()
        for row in self._tree.find(bits, self._row):
            if bits & row.mask == row.base and (size := row.accepts(bits)):
                if size > available:
                    raise DecodeError(f"{row.name} needs {size} bytes, {available} are left", offset)
                return Instruction(row, bits & ((1 << size * 8) - 1), size)
        raise DecodeError(f"0x{bits & 0xFFFFFFFF:08x} is no instruction of {self.target}", offset)

    def _build_tree(self) -> Node:
        """Every encoding as (mask, base, mnemonic, place among its rows); rows are made when a search reaches them."""
        stubs = []
        families = [family(line) for line in table("families")]
        constants = shape_constants()
        for mnemonic, cell in self._cells.items():
            number, opcode = cell.split(":")
            opcode = int(opcode, 16)
            for index, (shape, _, difference) in enumerate(families[int(number)]):
                mask, base, low = constants[shape]
                stubs.append((mask, base | opcode + difference << low, mnemonic, index))
        halves = self.vopd()
        for x, (code, *_) in halves.items():
            if code is not None:
                base = 0xC8000000 | code << 22
                stubs += [
                    (0xFFFE0000, base | h[1] << 17, f"{x} :: {y}", 0)
                    for y, h in halves.items()
                    if h[1] is not None
                ]
        return Node(stubs, 0)

    def _row(self, mnemonic: str, index: int) -> Row | None:
        """The row of a place in a family; None when it is for another wave size."""
        self.rows(mnemonic)
        return (
            self._maker.by_place.get((mnemonic, index)) if " :: " not in mnemonic else self.rows(mnemonic)[0]
        )


def _modifier_word(name: str, value: Any) -> str:
    if value is True or value is False:
        return name if value else ""
    if isinstance(value, (list, tuple)):
        return f"{name}:[{','.join(map(str, value))}]"
    return f"{name}:{value}"


@cache
def isa(target: str, wave_size: int | None = None) -> Isa:
    """The instruction set of a target, for waves of 64 (GFX9) or 32 lanes unless told otherwise."""
    if target not in TARGETS:
        raise AssemblerError(f"target: got {target!r}, want {', '.join(TARGETS)}")
    default = 64 if TARGETS[target] == "gfx940" else 32
    size = wave_size or default
    if size not in ((64,) if default == 64 else (32, 64)):
        raise AssemblerError(
            f"wave size: got {size}, want {'64' if default == 64 else '32 or 64'} on {target}"
        )
    return Isa(target, size)
