"""Reading ELF64 files for AMD GPUs: sections, segments, symbols, relocations, notes, memory image.

Both what compilers emit (relocatable) and what linkers emit (shared objects) is read; only the latter has a
memory image. Nothing here knows of kernels.
Source: the System V gABI, ELF-64 chapters 4 and 5; LLVM 22, AMDGPUUsage, "ELF Code Object".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from .byte_reader import ByteReader, CodeObjectError

__all__ = ["ElfFile", "Note", "Relocation", "Section", "Segment", "Symbol"]

IDENT = b"\x7fELF\x02\x01\x01"
FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELA = struct.Struct("<QQq")
NOTE_HEADER = struct.Struct("<III")

ET_REL, ET_DYN = 1, 3
EM_AMDGPU = 224
ELFOSABI_AMDGPU_HSA = 64
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR, PT_GNU_STACK = 1, 2, 4, 6, 0x6474E551
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
)
SHT_DYNSYM = 11
SHF_ALLOC, SHF_EXECINSTR = 2, 4
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
STB_GLOBAL, STV_PROTECTED = 1, 3
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Section:
    """A section header; `offset` and `size` are in bytes of the file."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical_address: int
    file_size: int
    memory_size: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """`value` is an address, in a relocatable file an offset into section number `section`."""

    name: str
    value: int
    size: int
    type: int
    binding: int
    visibility: int
    section: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """`offset` is an address, in a relocatable file an offset into section number `section`."""

    section: int
    offset: int
    type: int
    symbol: Symbol | None
    addend: int


@dataclass(frozen=True, slots=True)
class Note:
    """`offset` is where `data` stands in the file."""

    owner: str
    type: int
    data: bytes
    offset: int


# Relocations that a linked file has: type -> width in bytes, right shift of the value, its origin.
_FORMULAS = {
    1: (4, 0, "symbol"),  # ABS32_LO
    2: (4, 32, "symbol"),  # ABS32_HI
    3: (8, 0, "symbol"),  # ABS64
    6: (4, 0, "symbol"),  # ABS32
    13: (8, 0, "base"),  # RELATIVE64
}


class ElfFile:
    """A parsed file; tables are read when first asked for.

    Raises: CodeObjectError, from the constructor and every property, for what is truncated or out of bounds.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.reader = ByteReader(data, "ELF")
        header = self.reader.unpack(FILE_HEADER, 0, "file header")
        ident, self.type, self.machine, _, self.entry, phoff, shoff, self.flags, _ = header[:9]
        self._program_headers, self._section_headers = (phoff, *header[9:11]), (shoff, *header[11:13])
        self._names_section = header[13]
        if ident[:7] != IDENT:
            raise self.reader.error(f"starts with {ident[:7]!r}, want {IDENT!r}, 64-bit little-endian", 0)
        self.os_abi, self.abi_version = ident[7], ident[8]

    @cached_property
    def sections(self) -> list[Section]:
        """By number; number 0 is the null section. Empty when the file has no section headers."""
        rows = self._headers(SECTION_HEADER, *self._section_headers, "section header table")
        if rows and self._names_section >= len(rows):
            raise self.reader.error(f"section {self._names_section} has the names, there are {len(rows)}", 62)
        names, size = rows[self._names_section][4:6] if rows else (0, 0)
        read_name = self.reader.c_string
        return [Section(read_name(names + row[0], names + size, "section name"), *row[1:]) for row in rows]

    @cached_property
    def segments(self) -> list[Segment]:
        rows = self._headers(PROGRAM_HEADER, *self._program_headers, "program header table")
        return [Segment(*row) for row in rows]

    def _headers(self, layout: struct.Struct, at: int, entry_size: int, count: int, what: str) -> list[tuple]:
        if count and entry_size != layout.size:
            raise self.reader.error(f"{what} has entries of {entry_size} bytes, want {layout.size}", at)
        return self.reader.table(layout, at, count, what) if count else []

    @cached_property
    def symbols(self) -> list[Symbol]:
        """Of `.symtab`, or of `.dynsym` in a stripped file; number 0 is the null symbol."""
        return self._symbols_of_type(SHT_SYMTAB) or self.dynamic_symbols

    @cached_property
    def dynamic_symbols(self) -> list[Symbol]:
        return self._symbols_of_type(SHT_DYNSYM)

    @cached_property
    def relocations(self) -> list[Relocation]:
        """Of all `SHT_RELA` sections."""
        sections = (section for section in self.sections if section.type == SHT_RELA)
        return [item for section in sections for item in self._relocations(section)]

    @cached_property
    def notes(self) -> list[Note]:
        """Of the segments, or of the sections where there are no note segments."""
        segments = [item for item in self.segments if item.type == PT_NOTE]
        places = [(item.offset, item.file_size, item.alignment) for item in segments]
        sections = [] if places else [item for item in self.sections if item.type == SHT_NOTE]
        places += [(item.offset, item.size, item.alignment) for item in sections]
        return [note for place in places for note in self._notes(*place)]

    def section(self, name: str) -> Section | None:
        return next((item for item in self.sections if item.name == name), None)

    def section_bytes(self, section: Section) -> bytes:
        if section.type == SHT_NOBITS:
            return b""
        return self.reader.take(section.offset, section.size, f"section {section.name}")

    def memory(self, address: int, size: int, what: str) -> bytes:
        """`size` bytes from what the file loads at `address`, before relocation."""
        for segment in self.segments:
            offset = address - segment.address
            if segment.type == PT_LOAD and offset >= 0 and offset + size <= segment.file_size:
                return self.reader.take(segment.offset + offset, size, what)
        raise CodeObjectError(f"ELF: {what} of {size} bytes at address {address:#x} is in no load segment")

    def image(
        self, base: int = 0, resolve: Callable[[str], int] | None = None, limit_bytes: int = 1 << 30
    ) -> bytearray:
        """Memory from address 0 to the end of the last load segment, relocated to lie at `base`.

        `resolve` gives the absolute address of a symbol that the file does not define.

        Raises: CodeObjectError for a relocation that a shared object cannot have, an undefined symbol, or an
        image larger than `limit_bytes`.
        """
        loads = [segment for segment in self.segments if segment.type == PT_LOAD]
        size = max((item.address + item.memory_size for item in loads), default=0)
        if size > limit_bytes:
            raise CodeObjectError(f"ELF: got an image of {size} bytes, want at most {limit_bytes}")
        memory = bytearray(size)
        for load in loads:
            if load.file_size > load.memory_size:
                raise self.reader.error("a load segment is larger in the file than in memory", load.offset)
            content = self.reader.take(load.offset, load.file_size, "load segment")
            memory[load.address : load.address + load.file_size] = content
        for relocation in self.relocations:
            self._relocate(memory, base, relocation, resolve)
        return memory

    def _relocate(self, memory: bytearray, base: int, item: Relocation, resolve: Callable | None) -> None:
        if item.type not in _FORMULAS:
            raise self.reader.error(f"relocation type {item.type} is not one of a linked file", item.offset)
        width, shift, origin = _FORMULAS[item.type]
        if item.offset + width > len(memory):
            raise self.reader.error("a relocation's place lies outside the image", item.offset)
        value = item.addend + (base if origin == "base" else self._address(item, base, resolve)) >> shift
        memory[item.offset : item.offset + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")

    def _address(self, item: Relocation, base: int, resolve: Callable[[str], int] | None) -> int:
        symbol = item.symbol
        if symbol is None or symbol.section == SHN_ABS:
            return symbol.value if symbol else 0
        if symbol.section != SHN_UNDEF:
            return symbol.value + base
        if resolve is None:
            raise self.reader.error(f"symbol {symbol.name!r} is undefined", item.offset)
        return resolve(symbol.name)

    def _linked(self, section: Section) -> Section:
        if section.link >= len(self.sections):
            message = f"{section.name} names section {section.link} of {len(self.sections)}"
            raise self.reader.error(message, section.offset)
        return self.sections[section.link]

    def _symbols_of_type(self, section_type: int) -> list[Symbol]:
        section = next((item for item in self.sections if item.type == section_type), None)
        return self._symbols(section) if section else []

    def _symbols(self, section: Section) -> list[Symbol]:
        strings, symbols = self._linked(section), []
        end = strings.offset + strings.size
        for row in self.reader.table(SYMBOL, section.offset, section.size // SYMBOL.size, section.name):
            name_at, info, other, number, value, size = row
            name = self.reader.c_string(strings.offset + name_at, end, "symbol name")
            symbols.append(Symbol(name, value, size, info & 15, info >> 4, other & 3, number))
        return symbols

    def _relocations(self, section: Section) -> Iterator[Relocation]:
        symbols = self._symbols(self._linked(section)) if section.link else []
        rows = self.reader.table(RELA, section.offset, section.size // RELA.size, section.name)
        for offset, info, addend in rows:
            index = info >> 32
            if index and index >= len(symbols):
                raise self.reader.error(f"relocation names symbol {index} of {len(symbols)}", section.offset)
            symbol = symbols[index] if index else None
            yield Relocation(section.info, offset, info & 0xFFFFFFFF, symbol, addend)

    def _notes(self, at: int, size: int, alignment: int) -> Iterator[Note]:
        self.reader.take(at, size, "notes")
        end, mask = at + size, 7 if alignment == 8 else 3
        while at + NOTE_HEADER.size <= end:
            name_size, data_size, kind = self.reader.unpack(NOTE_HEADER, at, "note header")
            name_at = at + NOTE_HEADER.size
            data_at = name_at + name_size + mask & ~mask
            if data_at + data_size > end:
                raise self.reader.error(f"a note needs {data_size} bytes, its segment ends before", data_at)
            owner = self.reader.text(name_at, name_size, "note owner").rstrip("\0")
            yield Note(owner, kind, self.reader.take(data_at, data_size, "note"), data_at)
            at = data_at + data_size + mask & ~mask
