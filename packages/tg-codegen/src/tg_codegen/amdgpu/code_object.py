"""Code objects: the files that hold kernels for AMD GPUs, written and read.

A code object is an ELF shared object with, for each kernel, its machine code (symbol `name` in `.text`), its
descriptor (symbol `name.kd` in `.rodata`) and its entry in the metadata note: arguments, segment sizes,
register counts. Written are versions 5 and 6; versions 4 to 6 are read, from any compiler, bare or in an
uncompressed clang-offload-bundle.
Source: LLVM 22, AMDGPUUsage, "Code Object Metadata", "Note Records" and "Symbols"; ClangOffloadBundler,
"Bundled Binary File Layout".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

from . import elf
from .byte_reader import ByteReader, CodeObjectError
from .elf import ElfFile
from .elf_writer import SymbolRequest, note_record, write_shared_object
from .kernel_descriptor import DESCRIPTOR_BYTES, KernelDescriptor
from .msgpack import pack, unpack
from .target_id import TargetId

__all__ = [
    "HIDDEN_ARGUMENTS",
    "HIDDEN_ARGUMENTS_BYTES",
    "Argument",
    "CodeObject",
    "Kernel",
    "hidden_arguments",
    "lay_out_arguments",
    "read_bundle",
    "read_code_object",
    "write_code_object",
]

_NT_AMDGPU_METADATA = 32
_ENTRY_ALIGN_BYTES = 256
# Version of the code object -> ELF ABI version; the note says 1.1 for version 4 and 1.2 from version 5 on.
_ABI_VERSIONS = {4: 2, 5: 3, 6: 4}
_METADATA_VERSION = [1, 2]

# What a launcher passes behind the kernel's own arguments: kind, offset from their end rounded up to 8, size.
HIDDEN_ARGUMENTS = {
    "hidden_block_count_x": (0, 4),
    "hidden_block_count_y": (4, 4),
    "hidden_block_count_z": (8, 4),
    "hidden_group_size_x": (12, 2),
    "hidden_group_size_y": (14, 2),
    "hidden_group_size_z": (16, 2),
    "hidden_remainder_x": (18, 2),
    "hidden_remainder_y": (20, 2),
    "hidden_remainder_z": (22, 2),
    "hidden_global_offset_x": (40, 8),
    "hidden_global_offset_y": (48, 8),
    "hidden_global_offset_z": (56, 8),
    "hidden_grid_dims": (64, 2),
    "hidden_printf_buffer": (72, 8),
    "hidden_hostcall_buffer": (80, 8),
    "hidden_multigrid_sync_arg": (88, 8),
    "hidden_heap_v1": (96, 8),
    "hidden_default_queue": (104, 8),
    "hidden_completion_action": (112, 8),
    "hidden_dynamic_lds_size": (120, 4),
    "hidden_private_base": (192, 4),
    "hidden_shared_base": (196, 4),
    "hidden_queue_ptr": (200, 8),
}
HIDDEN_ARGUMENTS_BYTES = 256


@dataclass(slots=True)
class Argument:
    """An argument in the kernarg segment; a field named x is the note's `.x`, and None is left out of it.

    `other` holds keys of the note that have no field here, by their full name.
    """

    value_kind: str
    size: int
    offset: int | None = None
    name: str | None = None
    type_name: str | None = None
    address_space: str | None = None
    access: str | None = None
    actual_access: str | None = None
    is_const: bool | None = None
    is_restrict: bool | None = None
    is_volatile: bool | None = None
    is_pipe: bool | None = None
    pointee_align: int | None = None
    other: dict[str, object] = field(default_factory=dict)


_ARGUMENT_KEYS = {f".{item.name}": item.name for item in fields(Argument) if item.name != "other"}


@dataclass(slots=True)
class Kernel:
    """A kernel: `code` starts at its entry; `metadata` adds to or overrides the note's entry, by full key.

    Reading gives `metadata` as the file has it, without `.args`, and the `address` of the entry in memory.
    """

    name: str
    code: bytes
    descriptor: KernelDescriptor
    arguments: list[Argument] = field(default_factory=list)
    metadata: dict[str, object] = field(default_factory=dict)
    address: int = 0


@dataclass(slots=True)
class CodeObject:
    """What was read; `metadata` is the whole note, `elf` the file behind it."""

    target: TargetId
    version: int
    kernels: list[Kernel]
    metadata: dict[str, object]
    elf: ElfFile

    def kernel(self, name: str) -> Kernel:
        """Raises: CodeObjectError when there is none of that name."""
        for item in self.kernels:
            if item.name == name:
                return item
        raise CodeObjectError(
            f"kernel: got {name!r}, want one of {', '.join(item.name for item in self.kernels)}"
        )


def hidden_arguments(explicit_bytes: int, kinds: Iterable[str] = HIDDEN_ARGUMENTS) -> list[Argument]:
    """Hidden arguments as they lie behind `explicit_bytes` of the kernel's own."""
    base = explicit_bytes + -explicit_bytes % 8
    return [Argument(kind, HIDDEN_ARGUMENTS[kind][1], base + HIDDEN_ARGUMENTS[kind][0]) for kind in kinds]


def lay_out_arguments(arguments: Sequence[Argument], hidden: Sequence[str] = ()) -> list[Argument]:
    """`arguments` with an offset each, aligned to the power of two in their size, then `hidden` ones."""
    placed, at = [], 0
    for argument in arguments:
        if argument.offset is None:
            argument = replace(argument, offset=at + -at % _alignment(argument))
        at = argument.offset + argument.size
        placed.append(argument)
    return placed + hidden_arguments(at, hidden)


def write_code_object(
    target: TargetId | str,
    kernels: Sequence[Kernel],
    *,
    version: int = 5,
    metadata: dict[str, object] | None = None,
) -> bytes:
    """The file for `target` with `kernels` in order; `metadata` adds to the top level of the note.

    A kernel whose descriptor has no `kernarg_size` gets that of its arguments.

    Raises: CodeObjectError for a descriptor or argument that does not fit the target, or names that repeat.
    """
    target = TargetId.parse(target)
    if version not in (5, 6):
        raise CodeObjectError(f"code object version: got {version}, want 5 or 6")
    if len({kernel.name for kernel in kernels}) != len(kernels):
        raise CodeObjectError(f"kernels: got names {[kernel.name for kernel in kernels]}, want each once")
    padding = target.generation.padding_word.to_bytes(4, "little")
    text, entries, symbols, notes, descriptors = bytearray(), [], [], [], []
    for number, kernel in enumerate(kernels):
        if not kernel.code or len(kernel.code) % 4:
            raise CodeObjectError(
                f"kernel {kernel.name}: got {len(kernel.code)} bytes of code, want a multiple of 4"
            )
        arguments = lay_out_arguments(kernel.arguments)
        descriptor = kernel.descriptor
        if descriptor.kernarg_size is None:
            descriptor = replace(descriptor, kernarg_size=_kernarg_bytes(arguments))
        text += padding * (-len(text) % _ENTRY_ALIGN_BYTES // 4)
        entries.append(len(text))
        descriptors.append(descriptor)
        symbols.append(SymbolRequest(kernel.name, ".text", len(text), len(kernel.code), elf.STT_FUNC))
        at = number * DESCRIPTOR_BYTES
        symbols.append(SymbolRequest(f"{kernel.name}.kd", ".rodata", at, DESCRIPTOR_BYTES, elf.STT_OBJECT))
        notes.append(_kernel_note(target, replace(kernel, descriptor=descriptor, arguments=arguments)))
        text += kernel.code
    align = target.generation.padding_align_bytes
    text += padding * (-len(text) % align // 4 + target.generation.padding_words)

    def rodata(text_distance: int) -> bytes:
        offsets = (text_distance + entry - number * DESCRIPTOR_BYTES for number, entry in enumerate(entries))
        return b"".join(
            item.encode(target, offset) for item, offset in zip(descriptors, offsets, strict=True)
        )

    top = {"amdhsa.version": _METADATA_VERSION, "amdhsa.target": target.isa_name, "amdhsa.kernels": notes}
    note = note_record("AMDGPU", _NT_AMDGPU_METADATA, pack(dict(sorted((top | (metadata or {})).items()))))
    rodata_bytes = DESCRIPTOR_BYTES * len(kernels)
    return write_shared_object(
        target.e_flags, _ABI_VERSIONS[version], note, rodata_bytes, rodata, bytes(text), symbols
    )


def _kernel_note(target: TargetId, kernel: Kernel) -> dict[str, object]:
    descriptor = kernel.descriptor
    accum_offset = descriptor.accum_offset
    note: dict[str, object] = {
        ".name": kernel.name,
        ".symbol": f"{kernel.name}.kd",
        ".args": [_argument_note(argument) for argument in kernel.arguments],
        ".kernarg_segment_size": descriptor.value("kernarg_size", target),
        ".kernarg_segment_align": max([4, *map(_alignment, kernel.arguments)]),
        ".group_segment_fixed_size": descriptor.value("group_segment_fixed_size", target),
        ".private_segment_fixed_size": descriptor.value("private_segment_fixed_size", target),
        ".wavefront_size": descriptor.wave_size(target),
        ".sgpr_count": descriptor.sgpr_count(target),
        ".vgpr_count": descriptor.next_free_vgpr,
        ".max_flat_workgroup_size": 1024,
        ".sgpr_spill_count": 0,
        ".vgpr_spill_count": 0,
        ".uses_dynamic_stack": bool(descriptor.uses_dynamic_stack),
    }
    if accum_offset is not None:
        note[".agpr_count"] = max(0, descriptor.next_free_vgpr - accum_offset)
    else:
        note[".workgroup_processor_mode"] = descriptor.value("workgroup_processor_mode", target)
    return dict(sorted((note | kernel.metadata).items()))


def _argument_note(argument: Argument) -> dict[str, object]:
    note = {key: getattr(argument, name) for key, name in _ARGUMENT_KEYS.items()}
    present = {key: value for key, value in note.items() if value is not None}
    return dict(sorted((present | argument.other).items()))


def _alignment(argument: Argument) -> int:
    return min(argument.size & -argument.size, 16) or 1


def _kernarg_bytes(arguments: Sequence[Argument]) -> int:
    own = [item for item in arguments if not item.value_kind.startswith("hidden_")]
    end = max((item.offset + item.size for item in own), default=0)
    if len(own) == len(arguments):
        return end + -end % 4
    return end + -end % 8 + HIDDEN_ARGUMENTS_BYTES


# Reading.

_BUNDLE_MAGIC, _COMPRESSED_MAGIC = b"__CLANG_OFFLOAD_BUNDLE__", b"CCOB"
_BUNDLE_COUNT, _BUNDLE_ENTRY = struct.Struct("<Q"), struct.Struct("<QQQ")


def read_bundle(data: bytes) -> dict[str, bytes]:
    """The entries of a clang-offload-bundle by their id, such as `hipv4-amdgcn-amd-amdhsa--gfx942`.

    Raises: CodeObjectError when it is compressed or malformed.
    """
    reader = ByteReader(data, "offload bundle")
    if data.startswith(_COMPRESSED_MAGIC):
        raise reader.error("it is compressed; unbundle it, or compile with --no-offload-compress", 0)
    if not data.startswith(_BUNDLE_MAGIC):
        raise reader.error(f"starts with {data[:24]!r}, want {_BUNDLE_MAGIC!r}", 0)
    at = len(_BUNDLE_MAGIC)
    (count,) = reader.unpack(_BUNDLE_COUNT, at, "entry count")
    at += _BUNDLE_COUNT.size
    entries = {}
    for _ in range(count):
        offset, size, id_bytes = reader.unpack(_BUNDLE_ENTRY, at, "entry")
        name = reader.text(at + _BUNDLE_ENTRY.size, id_bytes, "entry id")
        entries[name] = reader.take(offset, size, f"entry {name}")
        at += _BUNDLE_ENTRY.size + id_bytes
    return entries


def read_code_object(data: bytes, target: TargetId | str | None = None) -> CodeObject:
    """The kernels of an ELF shared object, or of the one in a bundle that is for `target` or the only one.

    Raises: CodeObjectError, with the offset, for what is not a sound code object of a supported processor.
    """
    if data.startswith((_BUNDLE_MAGIC, _COMPRESSED_MAGIC)):
        data = _choose(read_bundle(data), target)
    file = ElfFile(data)
    if file.machine != elf.EM_AMDGPU or file.os_abi != elf.ELFOSABI_AMDGPU_HSA:
        got = f"machine {file.machine} and OS ABI {file.os_abi}"
        raise file.reader.error(
            f"{got}, want {elf.EM_AMDGPU} and {elf.ELFOSABI_AMDGPU_HSA} (AMD GPU, HSA)", 7
        )
    if file.type != elf.ET_DYN:
        raise file.reader.error(
            f"file type {file.type}, want {elf.ET_DYN}, a shared object; link it first", 16
        )
    version = next((key for key, value in _ABI_VERSIONS.items() if value == file.abi_version), None)
    if version is None:
        raise file.reader.error(f"ABI version {file.abi_version}, want 2 to 4, code object version 4 to 6", 8)
    found = TargetId.from_e_flags(file.flags)
    metadata, note_offset = _read_metadata(file)
    symbols = {symbol.name: symbol for symbol in file.symbols}
    kernels = []
    for entry in _typed(metadata, "amdhsa.kernels", list, note_offset):
        try:
            kernels.append(_read_kernel(file, found, entry, symbols, note_offset))
        except CodeObjectError as error:
            name = entry.get(".name") if isinstance(entry, dict) else None
            raise CodeObjectError(f"kernel {name}: {error.message}", error.offset) from error
    return CodeObject(found, version, kernels, metadata, file)


def _choose(entries: dict[str, bytes], target: TargetId | str | None) -> bytes:
    devices = {name.partition("amdgcn-amd-amdhsa-")[2].lstrip("-"): data for name, data in entries.items()}
    devices.pop("", None)
    if target is not None:
        devices = {name: data for name, data in devices.items() if name == str(TargetId.parse(target))}
    if len(devices) != 1:
        want = f"for {target}" if target else "for one target; name it"
        raise CodeObjectError(f"offload bundle: got entries {', '.join(entries) or 'none'}, want one {want}")
    return next(iter(devices.values()))


def _read_metadata(file: ElfFile) -> tuple[dict[str, object], int]:
    for note in file.notes:
        if note.owner == "AMDGPU" and note.type == _NT_AMDGPU_METADATA:
            metadata = unpack(note.data, note.offset)
            if not isinstance(metadata, dict):
                raise file.reader.error("metadata is not a map", note.offset)
            return metadata, note.offset
    raise file.reader.error("no AMDGPU metadata note, want one", 0)


def _read_kernel(file: ElfFile, target: TargetId, entry: object, symbols: dict, note_offset: int) -> Kernel:
    if not isinstance(entry, dict):
        raise file.reader.error("its metadata is not a map", note_offset)
    name = _typed(entry, ".name", str, note_offset)
    descriptor_name = _typed(entry, ".symbol", str, note_offset)
    symbol = symbols.get(descriptor_name)
    if symbol is None:
        raise file.reader.error(f"symbol {descriptor_name!r} is not in the symbol table", note_offset)
    raw = file.memory(symbol.value, DESCRIPTOR_BYTES, "kernel descriptor")
    descriptor, entry_offset = KernelDescriptor.decode(raw, target)
    arguments = [_read_argument(item, note_offset) for item in _typed(entry, ".args", list, note_offset, [])]
    address = symbol.value + entry_offset
    code = _read_code(file, address)
    metadata = {key: value for key, value in entry.items() if key != ".args"}
    return Kernel(name, code, descriptor, arguments, metadata, address)


def _read_argument(item: object, note_offset: int) -> Argument:
    if not isinstance(item, dict):
        raise CodeObjectError("metadata: an argument is not a map", note_offset)
    for key, kind in ((".value_kind", str), (".size", int), (".offset", int)):
        _typed(item, key, kind, note_offset)
    known = {_ARGUMENT_KEYS[key]: value for key, value in item.items() if key in _ARGUMENT_KEYS}
    return Argument(**known, other={key: value for key, value in item.items() if key not in _ARGUMENT_KEYS})


def _read_code(file: ElfFile, address: int) -> bytes:
    """From `address` to its function's end; to the next symbol or the section's end if that has no size."""
    for section in file.sections:
        if section.flags & elf.SHF_EXECINSTR and section.address <= address < section.address + section.size:
            break
    else:
        raise file.reader.error(f"entry address {address:#x} is in no section of code", 0)
    number = file.sections.index(section)
    symbols = [symbol for symbol in file.symbols if symbol.section == number]
    ends = [symbol.value + symbol.size for symbol in symbols if symbol.value == address and symbol.size]
    ends = ends or [symbol.value for symbol in symbols if symbol.value > address]
    end = min([section.address + section.size, *ends])
    return file.section_bytes(section)[address - section.address : end - section.address]


_REQUIRED = object()


def _typed(mapping: dict, key: str, kind: type, note_offset: int, default: object = _REQUIRED):
    value = mapping.get(key, default)
    if value is default and default is not _REQUIRED:
        return value
    if not isinstance(value, kind) or isinstance(value, bool):
        got = "nothing" if value is _REQUIRED else repr(value)[:40]
        raise CodeObjectError(f"metadata: {key}: got {got}, want a {kind.__name__}", note_offset)
    return value
