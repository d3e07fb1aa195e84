"""The generated tables, read when first asked for.

formats.txt    bit fields of every format of a generation
shapes.txt     an encoding without its opcode: format, operands, modifiers, mask and value of the constant bits
effects.txt    implicit writes and reads, flags, latency class
families.txt   the (shape, effects, difference to the opcode) of all encodings that a mnemonic has
instructions.txt   a mnemonic with its family and opcode on every target
vopd.txt       halves of dual-issue instructions
aliases.txt    old names

An operand of a shape is `[<|>|<>]name:kind[:modifiers]`: read, written or both; what operands.py calls a kind, or an
immediate of immediates.py; source modifiers n (negate), a (absolute), x (sign-extend). `=word` stands for itself.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tg_codegen.amdgpu.formats import Format

__all__ = ["GENERATIONS", "dual_format", "family", "formats", "shape_constants", "table"]

GENERATIONS = {
    "gfx942": "gfx940",
    "gfx950": "gfx940",
    "gfx1100": "gfx11",
    "gfx1151": "gfx11",
    "gfx1201": "gfx12",
}
_TABLES = Path(__file__).with_name("tables")
_ENTRY = re.compile(r"(\d+)\.(\d+)([+-]\d+)?")


@cache
def table(name: str) -> list[str]:
    return [line for line in (_TABLES / f"{name}.txt").read_text().split("\n") if line and line[0] != "#"]


@cache
def formats() -> dict[tuple[str, str], Format]:
    words = (line.split() for line in table("formats"))
    return {(w[0], w[1]): Format.parse(w[1:]) for w in words}


@cache
def family(line: str) -> list[tuple[int, int, int]]:
    """(shape, effects, difference to the opcode) of every encoding of a family."""
    return [
        (int(shape), int(effects), int(difference or 0))
        for shape, effects, difference in _ENTRY.findall(line)
    ]


@cache
def shape_constants() -> list[tuple[int, int, int]]:
    """(mask, base, lowest bit of the opcode) of every shape, without making its row."""
    opcodes = {f"{g} {n}": f.opcode for (g, n), f in formats().items()}
    out = []
    for line in table("shapes"):
        head, _, _, constant = line.split("|")
        opcode = opcodes[head.partition(":")[0]]
        mask, _, base = constant.partition(":")
        out.append((int(mask, 16) | opcode.mask, int(base, 16), opcode.segments[0][0]))
    return out


@cache
def dual_format(literal: bool) -> Format:
    """Two instructions in one word pair, with room for the literal of fmaak and fmamk."""
    places = "src0X=8:0 vsrc1X=16:9 src0Y=40:32 vsrc1Y=48:41 vdstY=55:49@1 vdstX=63:56 imm=95:64"
    return Format.parse(["VOPD", "12" if literal else "8", "op=25:17", *places.split(" ")])
