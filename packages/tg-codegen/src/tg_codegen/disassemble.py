"""Disassemble from the command line: python -m tg_codegen.disassemble --target gfx942 FILE|-.

The file is raw code, a code object (ELF), or text of bytes in hexadecimal.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tg_codegen.errors import DecodeError
from tg_ir.errors import TgError

__all__ = ["main"]


def _sections(data: bytes, target: str) -> list[tuple[str, bytes]]:
    """(title, code) of what a file holds: an ELF file's code by function."""
    if data[:4] == b"\x7fELF":
        from tg_codegen.amdgpu.elf import SHF_EXECINSTR, STT_FUNC, ElfFile

        elf, out = ElfFile(data), []
        for index, section in enumerate(elf.sections):
            if not section.flags & SHF_EXECINSTR or not section.size:
                continue
            code = elf.section_bytes(section)
            functions = (x for x in elf.symbols if x.type == STT_FUNC and x.section == index)
            names = {x.value - section.address: x.name for x in functions}
            starts = sorted({0, *(at for at in names if 0 <= at < len(code))})
            ends = [*starts[1:], len(code)]
            out += [(names.get(a, section.name), code[a:b]) for a, b in zip(starts, ends, strict=True)]
        return out
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return [("", data)]
    words = re.findall(r"[^\s,]+", text)
    if words and all(re.fullmatch(r"(0x)?[0-9a-fA-F]{2}|0x[0-9a-fA-F]{8}", w) for w in words):
        parts = [int(w, 16).to_bytes(4 if len(w) == 10 else 1, "little") for w in words]
        return [("", b"".join(parts))]
    if len(data) % 4 and not target.startswith("x86_64"):
        raise DecodeError(
            f"{target}: got {len(data)} bytes that are neither ELF, hexadecimal nor whole words"
        )
    return [("", data)]


def _disassembler(target: str, wave_size: int | None) -> Callable[[bytes], list[str]]:
    if target.startswith("x86_64"):
        from tg_codegen.x86_64 import disassembler, encode

        instructions = encode.isa(target)
        return lambda code: disassembler.disassemble(code, instructions)
    from tg_codegen.amdgpu.disassembler import disassemble
    from tg_codegen.amdgpu.isa import isa

    amd = isa(target, wave_size)
    return lambda code: disassemble(code, amd)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tg_codegen.disassemble", description="Disassemble code of an AMD GPU or x86-64."
    )
    parser.add_argument("file", help="raw code, ELF or hexadecimal text; - for standard input")
    parser.add_argument(
        "--target",
        required=True,
        help="gfx942, gfx950, gfx1100, gfx1151, gfx1201, or x86_64[:avx2|:avx512|:amx]",
    )
    parser.add_argument(
        "--wave", type=int, choices=(32, 64), help="lanes of a wave, where the target has both"
    )
    options = parser.parse_args(arguments)
    try:
        data = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
        lines = _disassembler(options.target, options.wave)
        for title, code in _sections(data, options.target):
            if title:
                print(f"{title}:")
            print("\n".join("\t" + line for line in lines(code)))
    except (TgError, OSError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
