"""Writing an ELF64 shared object for AMD GPUs, laid out as the ROCm loader and LLVM's tools expect it.

One read-only segment holds headers, note, dynamic symbols, `.dynamic` and `.rodata`, a second one `.text`;
symbol and string tables for people follow outside of memory. Sections are placed first, from their sizes,
then filled, since symbols, `.dynamic` and `.rodata` hold addresses.
Source: the System V gABI, ELF-64 chapters 4 and 5; LLVM 22, AMDGPUUsage, "ELF Code Object".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import elf

__all__ = ["SymbolRequest", "note_record", "write_shared_object"]

_PAGE_BYTES = 0x1000
_PF_EXECUTE, _PF_WRITE, _PF_READ = 1, 2, 4
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT = 0, 4, 5, 6, 10, 11
_DYNAMIC_ENTRY = struct.Struct("<QQ")
_SEGMENTS = 6


@dataclass(frozen=True, slots=True)
class SymbolRequest:
    """A global, protected symbol in `.rodata` or `.text`, `offset_bytes` into its section."""

    name: str
    section: str
    offset_bytes: int
    size_bytes: int
    type: int


@dataclass(slots=True)
class _Section:
    type: int
    flags: int
    alignment: int
    size: int
    data: bytes = b""
    link: str = ""
    info: int = 0
    entry_size: int = 0
    address: int = 0
    offset: int = 0


def note_record(owner: str, kind: int, data: bytes) -> bytes:
    """A note with its header, padded to 4 bytes."""
    name = owner.encode() + b"\0"
    return elf.NOTE_HEADER.pack(len(name), len(data), kind) + _padded(name) + _padded(data)


def write_shared_object(
    e_flags: int,
    abi_version: int,
    note: bytes,
    rodata_bytes: int,
    rodata: Callable[[int], bytes],
    text: bytes,
    symbols: Sequence[SymbolRequest],
) -> bytes:
    """The file. `rodata` is asked for its content once it is known how far behind it in memory `text` is."""
    names = [symbol.name.encode() for symbol in symbols]
    strings = b"\0" + b"".join(name + b"\0" for name in names)
    section_names: list[str] = []
    alloc, code = elf.SHF_ALLOC, elf.SHF_ALLOC | elf.SHF_EXECINSTR
    hashes = _hash_table(names)
    table_bytes = elf.SYMBOL.size * (len(symbols) + 1)
    sections = {
        "": _Section(0, 0, 0, 0),
        ".note": _Section(elf.SHT_NOTE, alloc, 4, len(note), note),
        ".dynsym": _Section(elf.SHT_DYNSYM, alloc, 8, table_bytes, b"", ".dynstr", 1, elf.SYMBOL.size),
        ".hash": _Section(elf.SHT_HASH, alloc, 4, len(hashes), hashes, ".dynsym", 0, 4),
        ".dynstr": _Section(elf.SHT_STRTAB, alloc, 1, len(strings), strings),
        ".dynamic": _Section(elf.SHT_DYNAMIC, alloc, 8, 6 * _DYNAMIC_ENTRY.size, b"", ".dynstr", 0, 16),
        ".rodata": _Section(elf.SHT_PROGBITS, alloc, 64, rodata_bytes),
        ".text": _Section(elf.SHT_PROGBITS, code, 256, len(text), text),
        ".symtab": _Section(elf.SHT_SYMTAB, 0, 8, table_bytes, b"", ".strtab", 1, elf.SYMBOL.size),
        ".strtab": _Section(elf.SHT_STRTAB, 0, 1, len(strings), strings),
        ".shstrtab": _Section(elf.SHT_STRTAB, 0, 1, 0),
    }
    section_names = list(sections)
    titles = b"".join(name.encode() + b"\0" for name in section_names)
    sections[".shstrtab"].data, sections[".shstrtab"].size = titles, len(titles)
    end = _place(sections)

    rodata_section, text_section = sections[".rodata"], sections[".text"]
    rodata_section.data = rodata(text_section.address - rodata_section.address)
    assert len(rodata_section.data) == rodata_bytes, "rodata kept its size"
    table = bytearray(elf.SYMBOL.size)
    for name, symbol in zip(names, symbols, strict=True):
        table += elf.SYMBOL.pack(
            strings.index(b"\0" + name + b"\0") + 1,
            elf.STB_GLOBAL << 4 | symbol.type,
            elf.STV_PROTECTED,
            section_names.index(symbol.section),
            sections[symbol.section].address + symbol.offset_bytes,
            symbol.size_bytes,
        )
    sections[".dynsym"].data = sections[".symtab"].data = bytes(table)
    sections[".dynamic"].data = b"".join(
        _DYNAMIC_ENTRY.pack(tag, value)
        for tag, value in (
            (_DT_SYMTAB, sections[".dynsym"].address),
            (_DT_SYMENT, elf.SYMBOL.size),
            (_DT_STRTAB, sections[".dynstr"].address),
            (_DT_STRSZ, len(strings)),
            (_DT_HASH, sections[".hash"].address),
            (_DT_NULL, 0),
        )
    )

    ident = elf.IDENT + bytes((elf.ELFOSABI_AMDGPU_HSA, abi_version)) + bytes(7)
    header = elf.FILE_HEADER.pack(
        *(ident, elf.ET_DYN, elf.EM_AMDGPU, 1, 0, elf.FILE_HEADER.size, end, e_flags, elf.FILE_HEADER.size),
        *(elf.PROGRAM_HEADER.size, _SEGMENTS, elf.SECTION_HEADER.size, len(sections), len(sections) - 1),
    )
    out = bytearray(header + _program_headers(sections))
    for section in sections.values():
        out += bytes(section.offset - len(out)) if section.size else b""
        out += section.data
    out += bytes(end - len(out))
    for name, section in sections.items():
        out += elf.SECTION_HEADER.pack(
            *(titles.index(b"\0" + name.encode() + b"\0") + 1 if name else 0, section.type, section.flags),
            *(section.address, section.offset, section.size),
            *(section_names.index(section.link), section.info, section.alignment, section.entry_size),
        )
    return bytes(out)


def _place(sections: dict[str, _Section]) -> int:
    """Give every section its offset and address; returns where the section headers go."""
    at = elf.FILE_HEADER.size + _SEGMENTS * elf.PROGRAM_HEADER.size
    for name, section in sections.items():
        if not section.alignment:
            continue
        at += -at % section.alignment
        section.offset = at
        if section.flags & elf.SHF_ALLOC:
            # Code has a page of its own in memory, without padding in the file: the offset in the page stays.
            section.address = at + (_PAGE_BYTES if name == ".text" else 0)
        at += section.size
    return at + -at % 8


def _program_headers(sections: dict[str, _Section]) -> bytes:
    rodata, text, dynamic, note = (sections[name] for name in (".rodata", ".text", ".dynamic", ".note"))
    start, table_bytes = elf.FILE_HEADER.size, _SEGMENTS * elf.PROGRAM_HEADER.size
    rows = (
        (elf.PT_PHDR, _PF_READ, start, start, table_bytes, 8),
        (elf.PT_LOAD, _PF_READ, 0, 0, rodata.offset + rodata.size, _PAGE_BYTES),
        (elf.PT_LOAD, _PF_READ | _PF_EXECUTE, text.offset, text.address, text.size, _PAGE_BYTES),
        (elf.PT_DYNAMIC, _PF_READ, dynamic.offset, dynamic.address, dynamic.size, 8),
        (elf.PT_GNU_STACK, _PF_READ | _PF_WRITE, 0, 0, 0, 0),
        (elf.PT_NOTE, _PF_READ, note.offset, note.address, note.size, 4),
    )
    return b"".join(
        elf.PROGRAM_HEADER.pack(kind, flags, offset, address, address, size, size, alignment)
        for kind, flags, offset, address, size, alignment in rows
    )


def _hash_table(names: Sequence[bytes]) -> bytes:
    """The content of `.hash`: one bucket a symbol, chains by symbol number."""
    count = len(names) + 1
    buckets, chains = [0] * count, [0] * count
    for number, name in enumerate(names, 1):
        value = 0
        for byte in name:
            value = (value << 4) + byte
            value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
        chains[number], buckets[value % count] = buckets[value % count], number
    return struct.pack(f"<{2 + 2 * count}I", count, count, *buckets, *chains)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
