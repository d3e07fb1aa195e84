"""Code objects, as far as loading and launching them asks: segments, relocations, kernels and their arguments.

Read are ELF shared objects of code object versions 4 to 6, bare or in an uncompressed clang-offload-bundle.
Source: LLVM 22, AMDGPUUsage, "Code Object", "Kernel Descriptor" and "Relocation Records"; ClangOffloadBundler; the
ELF and MessagePack specifications.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .errors import CodeObjectError

__all__ = ["Argument", "CodeObject", "Descriptor", "Kernel", "read_code_object"]

_BUNDLE_MAGIC, _ELF_MAGIC = b"__CLANG_OFFLOAD_BUNDLE__", b"\x7fELF\x02\x01"
_EM_AMDGPU, _OSABI_HSA = 224, 64
_PT_LOAD, _PT_NOTE, _PT_RELRO, _PF_WRITE = 1, 4, 0x6474E552, 2
_SHT_RELA, _SHT_DYNSYM = 4, 11
_NT_METADATA = 32
_R_ABS64, _R_RELATIVE64 = 3, 13
DESCRIPTOR_BYTES = 64
_MAX_IMAGE_BYTES = 1 << 28
# The processor in the low byte of e_flags.
_PROCESSORS = {0x4C: "gfx942", 0x4F: "gfx950", 0x41: "gfx1100", 0x4A: "gfx1151", 0x4E: "gfx1201"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument in the kernarg segment. `kind` is the note's value_kind, `by_value`, `global_buffer` or hidden."""

    name: str
    kind: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the 64 bytes of a kernel descriptor say; `properties` is kernel_code_properties with the preload."""

    group_bytes: int
    private_bytes: int
    kernarg_bytes: int
    entry_offset: int
    rsrc1: int
    rsrc2: int
    rsrc3: int
    properties: int
    preload: int

    @classmethod
    def parse(cls, data: bytes) -> Descriptor:
        fixed = struct.unpack_from("<III4xq20xIIIHH", data)
        group, private, kernarg, entry, rsrc3, rsrc1, rsrc2, properties, preload = fixed
        return cls(group, private, kernarg, entry, rsrc1, rsrc2, rsrc3, properties, preload)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel; `descriptor_offset` is in the image."""

    name: str
    descriptor_offset: int
    descriptor: Descriptor
    arguments: tuple[Argument, ...]
    kernarg_bytes: int
    wave_size: int
    max_workgroup: int
    uses_dynamic_stack: bool


@dataclass(slots=True)
class CodeObject:
    """The image as it lies in memory from address 0; at each of `relocations` an 8-byte address is added."""

    target: str
    image: bytearray
    is_writable: bool
    kernels: dict[str, Kernel] = field(default_factory=dict)
    relocations: list[tuple[int, int]] = field(default_factory=list)


def read_code_object(data: bytes, target: str) -> CodeObject:
    """The code object for `target` in a file. Raises: CodeObjectError for anything else."""
    if data.startswith(_BUNDLE_MAGIC):
        data = _unbundle(data, target)
    if not data.startswith(_ELF_MAGIC):
        raise CodeObjectError(
            f"code object: got a file that starts with {data[:6]!r}, want a 64-bit ELF file"
        )
    try:
        return _read_elf(data, target)
    except CodeObjectError:
        raise
    except (
        struct.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise CodeObjectError(f"code object: got a damaged file ({error}), want a sound one") from error


def _unbundle(data: bytes, target: str) -> bytes:
    names = []
    try:
        (count,) = struct.unpack_from("<Q", data, len(_BUNDLE_MAGIC))
        at = len(_BUNDLE_MAGIC) + 8
        for _ in range(count):
            offset, size, length = struct.unpack_from("<QQQ", data, at)
            name = data[at + 24 : at + 24 + length].decode()
            at += 24 + length
            if name.rpartition("-")[2].split(":")[0] == target:
                return data[offset : offset + size]
            names.append(name)
    except (struct.error, UnicodeDecodeError) as error:
        raise CodeObjectError(f"offload bundle: got a damaged file ({error}), want a sound one") from error
    raise CodeObjectError(f"offload bundle: got entries {', '.join(names) or 'none'}, want one for {target}")


def _read_elf(data: bytes, target: str) -> CodeObject:
    _type, machine, _version, _entry, ph_at, sh_at, flags = struct.unpack_from("<HHIQQQI", data, 16)
    ph_size, ph_count, sh_size, sh_count = struct.unpack_from("<HHHH", data, 54)
    found = _PROCESSORS.get(flags & 0xFF, f"processor {flags & 0xFF:#x}")
    if machine != _EM_AMDGPU or data[7] != _OSABI_HSA:
        raise CodeObjectError(
            f"code object: got ELF machine {machine}, ABI {data[7]}, want an AMD GPU's, for HSA"
        )
    if found != target:
        raise CodeObjectError(f"code object: got one for {found}, want {target}; compile it for this GPU")
    segments = [struct.unpack_from("<IIQQQQQQ", data, ph_at + i * ph_size) for i in range(ph_count)]
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, sh_at + i * sh_size) for i in range(sh_count)]
    loads = [each for each in segments if each[0] == _PT_LOAD]
    size = max((each[3] + each[6] for each in loads), default=0)
    if not 0 < size < _MAX_IMAGE_BYTES:
        raise CodeObjectError(f"code object: got {size} bytes to load, want 1 to {_MAX_IMAGE_BYTES}")
    image = bytearray(size)
    for _kind, _flags, offset, address, _physical, in_file, _in_memory, _align in loads:
        if offset + in_file > len(data):
            raise CodeObjectError(f"code object: got a segment at {offset}, want it within {len(data)} bytes")
        image[address : address + in_file] = data[offset : offset + in_file]
    constant = [(each[3], each[3] + each[6]) for each in segments if each[0] == _PT_RELRO]
    writable = any(
        flags & _PF_WRITE
        and not any(
            low <= address and address + in_memory <= -(-high // 4096) * 4096 for low, high in constant
        )
        for _kind, flags, _offset, address, _physical, _in_file, in_memory, _align in loads
    )
    result = CodeObject(found, image, writable)
    symbols = _read_symbols(data, sections)
    _read_relocations(data, sections, symbols, result)
    notes = (data[each[2] : each[2] + each[5]] for each in segments if each[0] == _PT_NOTE)
    metadata = next((found for note in notes if (found := _find_metadata(note))), None)
    if metadata is None:
        raise CodeObjectError("code object: got no AMDGPU metadata note, want one")
    values = {name: value for name, value, _section in symbols}
    for entry in metadata["amdhsa.kernels"]:
        kernel = _read_kernel(entry, values, image)
        result.kernels[kernel.name] = kernel
    return result


def _read_symbols(data: bytes, sections: list[tuple[int, ...]]) -> list[tuple[str, int, int]]:
    """Name, value and section of each dynamic symbol, in order."""
    rows = []
    for section in sections:
        if section[1] == _SHT_DYNSYM:
            strings = sections[section[6]][4]
            for at in range(section[4], section[4] + section[5], 24):
                name, _info, _other, index, value, _size = struct.unpack_from("<IBBHQQ", data, at)
                start = strings + name
                rows.append((data[start : data.index(b"\0", start)].decode(), value, index))
    return rows


def _read_relocations(
    data: bytes, sections: list[tuple[int, ...]], symbols: list[tuple[str, int, int]], result: CodeObject
) -> None:
    for section in sections:
        if section[1] != _SHT_RELA:
            continue
        for at in range(section[4], section[4] + section[5], 24):
            offset, info, addend = struct.unpack_from("<QQq", data, at)
            name, value, index = symbols[info >> 32] if info >> 32 else ("", 0, 1)
            kind = info & 0xFFFFFFFF
            if kind not in (_R_ABS64, _R_RELATIVE64) or index == 0 or offset + 8 > len(result.image):
                raise CodeObjectError(
                    f"code object: got relocation {kind} of symbol {name!r}, want a linked file"
                )
            result.relocations.append((offset, addend + (value if kind == _R_ABS64 else 0)))


def _find_metadata(note: bytes) -> dict | None:
    at = 0
    while at + 12 <= len(note):
        name_size, size, kind = struct.unpack_from("<III", note, at)
        name = note[at + 12 : at + 12 + name_size].rstrip(b"\0")
        start = at + 12 + -(-name_size // 4) * 4
        if name == b"AMDGPU" and kind == _NT_METADATA:
            return unpack(note[start : start + size])[0]
        at = start + -(-size // 4) * 4
    return None


def _read_kernel(entry: dict, symbols: dict[str, int], image: bytearray) -> Kernel:
    offset = symbols[entry[".symbol"]]
    descriptor = Descriptor.parse(bytes(image[offset : offset + DESCRIPTOR_BYTES]))
    arguments = tuple(
        Argument(each.get(".name", ""), each[".value_kind"], each[".offset"], each[".size"])
        for each in entry.get(".args", ())
    )
    return Kernel(
        entry[".name"],
        offset,
        descriptor,
        arguments,
        entry[".kernarg_segment_size"],
        entry[".wavefront_size"],
        entry.get(".max_flat_workgroup_size", 1024),
        bool(entry.get(".uses_dynamic_stack")),
    )


# First bytes of MessagePack values: struct's format of what follows, for numbers and for lengths.
_NUMBERS = dict(
    zip(range(0xCA, 0xD4), (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True)
)
_LENGTHS = dict(zip((0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB), (">B", ">H", ">I") * 2, strict=True))
_LENGTHS |= dict(zip((0xDC, 0xDD, 0xDE, 0xDF), (">H", ">I") * 2, strict=True))


def unpack(data: bytes, at: int = 0) -> tuple[object, int]:
    """A MessagePack value at an offset, and the offset behind it."""
    first = data[at]
    at += 1
    if first < 0x80 or first >= 0xE0:
        return first - (first >> 7 << 8), at
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if first in _NUMBERS:
        return struct.unpack_from(_NUMBERS[first], data, at)[0], at + struct.calcsize(_NUMBERS[first])
    if first in _LENGTHS:
        (length,) = struct.unpack_from(_LENGTHS[first], data, at)
        at += struct.calcsize(_LENGTHS[first])
    elif first < 0xC0:
        length = first & (0x1F if first >= 0xA0 else 0xF)
    else:
        raise CodeObjectError(
            f"metadata: got MessagePack byte {first:#x}, want one that the specification has"
        )
    if first in (0xC4, 0xC5, 0xC6):
        return data[at : at + length], at + length
    if 0xA0 <= first < 0xC0 or first in (0xD9, 0xDA, 0xDB):
        return data[at : at + length].decode(), at + length
    items = []
    for _ in range(length * 2 if first < 0x90 or first in (0xDE, 0xDF) else length):
        item, at = unpack(data, at)
        items.append(item)
    is_map = first < 0x90 or first in (0xDE, 0xDF)
    return (dict(zip(items[::2], items[1::2], strict=True)) if is_map else items), at
