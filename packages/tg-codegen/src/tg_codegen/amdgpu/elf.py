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
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
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


# Relocation type -> width in bytes and the value's right shift, and whether the place is subtracted.
_FORMULAS = {
    1: (4, 0, False),  # ABS32_LO
    2: (4, 32, False),  # ABS32_HI
    3: (8, 0, False),  # ABS64
    4: (4, 0, True),  # REL32
    5: (8, 0, True),  # REL64
    6: (4, 0, False),  # ABS32
    10: (4, 0, True),  # REL32_LO
    11: (4, 32, True),  # REL32_HI
}
_R_NONE, _R_RELATIVE64 = 0, 13


class ElfFile:
    """A parsed file; tables are read when first asked for.

    Raises: CodeObjectError, from the constructor and every property, for what is truncated or out of bounds.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.reader = ByteReader(data, "ELF")
        header = self.reader.unpack(FILE_HEADER, 0, "file header")
        ident, self.type, self.machine, _, self.entry = header[:5]
        self._phoff, self._shoff, self.flags, _, self._phentsize, self._phnum = header[5:11]
        self._shentsize, self._shnum, self._shstrndx = header[11:]
        if ident[:7] != IDENT:
            raise self.reader.error(
                f"starts with {ident[:7].hex(' ')}, want {IDENT.hex(' ')}, 64-bit little-endian", 0
            )
        self.os_abi, self.abi_version = ident[7], ident[8]

    @cached_property
    def sections(self) -> list[Section]:
        """By number; number 0 is the null section. Empty when the file has no section headers."""
        if not self._shnum:
            return []
        if self._shentsize != SECTION_HEADER.size:
            raise self.reader.error(
                f"section headers of {self._shentsize} bytes, want {SECTION_HEADER.size}", 58
            )
        rows = self.reader.table(SECTION_HEADER, self._shoff, self._shnum, "section header table")
        if self._shstrndx >= len(rows):
            raise self.reader.error(f"section {self._shstrndx} has the names, there are {len(rows)}", 62)
        _, _, _, _, names, names_size, *_ = rows[self._shstrndx]
        if names + names_size > len(self.data):
            raise self.reader.error("section names lie outside the file", names)
        read_name = self.reader.c_string
        return [
            Section(read_name(names + row[0], names + names_size, "section name"), *row[1:]) for row in rows
        ]

    @cached_property
    def segments(self) -> list[Segment]:
        if self._phnum and self._phentsize != PROGRAM_HEADER.size:
            raise self.reader.error(
                f"program headers of {self._phentsize} bytes, want {PROGRAM_HEADER.size}", 54
            )
        rows = self.reader.table(PROGRAM_HEADER, self._phoff, self._phnum, "program header table")
        return [Segment(*row) for row in rows]

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
        return [
            item
            for section in self.sections
            if section.type == SHT_RELA
            for item in self._relocations(section)
        ]

    @cached_property
    def notes(self) -> list[Note]:
        """Of the segments, or of the sections where there are no note segments."""
        places = [
            (item.offset, item.file_size, item.alignment) for item in self.segments if item.type == PT_NOTE
        ]
        if not places:
            places = [
                (item.offset, item.size, item.alignment) for item in self.sections if item.type == SHT_NOTE
            ]
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
        if item.type == _R_NONE:
            return
        if item.type == _R_RELATIVE64:
            width, value = 8, base + item.addend
        elif item.type in _FORMULAS:
            width, shift, relative = _FORMULAS[item.type]
            value = (
                self._address(item, base, resolve) + item.addend - relative * (base + item.offset) >> shift
            )
        else:
            raise self.reader.error(f"relocation type {item.type} is not supported", item.offset)
        if item.offset + width > len(memory):
            raise self.reader.error("a relocation's place lies outside the image", item.offset)
        memory[item.offset : item.offset + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")

    def _address(self, item: Relocation, base: int, resolve: Callable[[str], int] | None) -> int:
        symbol = item.symbol
        if symbol is None:
            return 0
        if symbol.section != SHN_UNDEF:
            return symbol.value + (base if symbol.section < SHN_LORESERVE else 0)
        if resolve is None:
            raise self.reader.error(f"symbol {symbol.name!r} is undefined", item.offset)
        return resolve(symbol.name)

    def _symbols_of_type(self, section_type: int) -> list[Symbol]:
        section = next((item for item in self.sections if item.type == section_type), None)
        return self._symbols(section) if section else []

    def _symbols(self, section: Section) -> list[Symbol]:
        if section.link >= len(self.sections):
            raise self.reader.error(
                f"{section.name} names section {section.link} for its strings", section.offset
            )
        strings = self.sections[section.link]
        end = strings.offset + strings.size
        if end > len(self.data):
            raise self.reader.error(f"{strings.name} lies outside the file", strings.offset)
        count = section.size // SYMBOL.size
        return [
            Symbol(
                self.reader.c_string(strings.offset + name, end, "symbol name"),
                value,
                size,
                info & 15,
                info >> 4,
                other & 3,
                number,
            )
            for name, info, other, number, value, size in self.reader.table(
                SYMBOL, section.offset, count, section.name
            )
        ]

    def _relocations(self, section: Section) -> Iterator[Relocation]:
        symbols: list[Symbol] = []
        if section.link:
            if section.link >= len(self.sections):
                raise self.reader.error(
                    f"{section.name} names section {section.link} for its symbols", section.offset
                )
            symbols = self._symbols(self.sections[section.link])
        rows = self.reader.table(RELA, section.offset, section.size // RELA.size, section.name)
        for offset, info, addend in rows:
            index = info >> 32
            if index and index >= len(symbols):
                raise self.reader.error(
                    f"{section.name} names symbol {index} of {len(symbols)}", section.offset
                )
            yield Relocation(
                section.info, offset, info & 0xFFFFFFFF, symbols[index] if index else None, addend
            )

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
