"""Code objects with this package alone: MessagePack, descriptor, ELF, bundle, malformed input."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace

import pytest

from tg_codegen.amdgpu import elf
from tg_codegen.amdgpu.byte_reader import CodeObjectError
from tg_codegen.amdgpu.code_object import (
    Argument,
    Kernel,
    hidden_arguments,
    lay_out_arguments,
    read_bundle,
    read_code_object,
    write_code_object,
)
from tg_codegen.amdgpu.elf import ElfFile
from tg_codegen.amdgpu.kernel_descriptor import KernelDescriptor
from tg_codegen.amdgpu.msgpack import pack, unpack
from tg_codegen.amdgpu.target_id import PROCESSORS, TargetId

TARGETS = list(PROCESSORS)
ENDPGM = bytes.fromhex("000081bf")


def descriptor_for(target: str, **values: int) -> KernelDescriptor:
    accum = {"accum_offset": 8} if target.startswith("gfx9") else {}
    return KernelDescriptor(8, 8, **accum | values)


def small_code_object(target: str = "gfx942", kernels: int = 1) -> bytes:
    arguments = [Argument("global_buffer", 8, address_space="global"), Argument("by_value", 4, name="n")]
    items = [Kernel(f"k{i}", ENDPGM * (i + 1), descriptor_for(target), arguments) for i in range(kernels)]
    return write_code_object(target, items)


def bundle_of(entries: dict[str, bytes]) -> bytes:
    """A clang-offload-bundle, from the description of its layout."""
    at = 24 + 8 + sum(24 + len(name) for name in entries)
    head, body = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(entries)), b""
    for name, data in entries.items():
        head += struct.pack("<QQQ", at + len(body), len(data), len(name)) + name.encode()
        body += data
    return head + body


# MessagePack.


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, "c0"),
        (False, "c2"),
        (True, "c3"),
        (127, "7f"),
        (128, "cc80"),
        (256, "cd0100"),
        (1 << 16, "ce00010000"),
        (1 << 32, "cf0000000100000000"),
        (-32, "e0"),
        (-33, "d0df"),
        (-129, "d1ff7f"),
        (-(1 << 63), "d38000000000000000"),
        (1.5, "cb3ff8000000000000"),
        ("a", "a161"),
        ("b" * 32, "d920" + "62" * 32),
        (b"\1", "c40101"),
        ([1, 2], "920102"),
        ([0] * 16, "dc0010" + "00" * 16),
        ({"a": 1}, "81a16101"),
    ],
)
def test_msgpack_value_matches_specification(value: object, encoded: str) -> None:
    assert pack(value).hex() == encoded
    assert unpack(bytes.fromhex(encoded)) == value


def test_msgpack_random_values_survive() -> None:
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    rng = random.Random(seed)

    def value(depth: int) -> object:
        kind = rng.randrange(8 if depth else 6)
        if kind == 0:
            return rng.choice((None, True, False))
        if kind in (1, 2):
            return rng.randint(-(1 << 63), (1 << 64) - 1) >> rng.randrange(64)
        if kind == 3:
            return rng.random()
        if kind == 4:
            return "ä" * rng.choice((0, 1, 20, 150, 40000))
        if kind == 5:
            return rng.randbytes(rng.choice((0, 5, 300, 70000)))
        count = rng.choice((0, 1, 3, 15, 16, 20))
        items = [value(depth - 1) for _ in range(count)]
        return items if kind == 6 else {str(rng.getrandbits(40)): item for item in items}

    for _ in range(50):
        item = value(2)
        assert unpack(pack(item)) == item


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ("", "needs 1 bytes"),
        ("c1", "0xc1 is not supported"),
        ("d40000", "0xd4 is not supported"),
        ("cd00", "needs 2 bytes"),
        ("a3ff", "needs 3 bytes"),
        ("a1ff", "not UTF-8"),
        ("c0c0", "1 bytes follow"),
        ("ddffffffff00", "needs 4294967295 bytes"),
        ("82a16101a16102", "stands twice"),
        ("810101", "is not text"),
        ("819000", "is not text"),
        ("91" * 40 + "c0", "nested deeper"),
    ],
)
def test_msgpack_malformed_names_the_offset(encoded: str, message: str) -> None:
    with pytest.raises(CodeObjectError, match=message) as caught:
        unpack(bytes.fromhex(encoded), start=1000)
    assert caught.value.offset >= 1000


# Target IDs.


def test_target_id_texts_and_flags_survive() -> None:
    texts = [*TARGETS, "gfx942:sramecc+:xnack-", "gfx950:xnack+", "gfx942:sramecc-"]
    for text in texts:
        target = TargetId.parse(text)
        assert str(target) == text
        assert TargetId.from_e_flags(target.e_flags) == target == TargetId.parse(target.isa_name)
    assert str(TargetId.parse("gfx942:xnack-:sramecc+")) == "gfx942:sramecc+:xnack-"


@pytest.mark.parametrize(
    "text", ["gfx90a", "", "gfx942:", "gfx942:xnack", "gfx1100:xnack+", "gfx942:xnack+:xnack-"]
)
def test_target_id_unknown_is_refused(text: str) -> None:
    with pytest.raises(CodeObjectError, match="target: got"):
        TargetId.parse(text)


# Kernel descriptor.


@pytest.mark.parametrize("target", TARGETS)
def test_descriptor_random_bits_decode_and_encode_are_inverse(target: str) -> None:
    seed = int(os.environ.get("TG_SEED", "20261122"))
    print(f"seed {seed}")
    rng, refused = random.Random(seed), 0
    for _ in range(300):
        raw = rng.randbytes(64)
        descriptor, entry = KernelDescriptor.decode(raw, target)
        if (
            descriptor.user_sgpr_kernarg_preload_length
            and descriptor.next_free_sgpr < descriptor.user_sgpr_count
        ):
            continue  # encode makes room for the preloaded arguments
        try:
            assert descriptor.encode(target, entry) == raw
        except CodeObjectError:
            refused += 1
        again = descriptor_for(target)
        names = {
            name: value
            for name, value in descriptor.directives()
            if name in ("float_round_mode_32", "fp16_overflow")
        }
        again = replace(again, **names, unnamed_bits=descriptor.unnamed_bits)
        assert (
            KernelDescriptor.decode(again.encode(target, entry), target)[0].unnamed_bits
            == descriptor.unnamed_bits
        )
    assert refused < 300


@pytest.mark.parametrize(
    ("target", "values", "message"),
    [
        ("gfx942", {"float_round_mode_32": 4}, r"\.amdhsa_float_round_mode_32: got 4, want 0 to 3"),
        ("gfx942", {"next_free_vgpr": 513}, "next_free_vgpr: got 513, want 0 to 512"),
        ("gfx1100", {"next_free_vgpr": 257}, "next_free_vgpr: got 257, want 0 to 256"),
        ("gfx942", {"next_free_sgpr": 103}, "next_free_sgpr: got 103"),
        ("gfx942", {"accum_offset": 6}, "accum_offset: got 6, want a multiple of 4"),
        ("gfx942", {"accum_offset": None}, "accum_offset: got None"),
        ("gfx942", {"accum_offset": 12}, "accum_offset: got 12, want at most next_free_vgpr"),
        ("gfx1100", {"accum_offset": 4}, "accum_offset: got 4, want none"),
        ("gfx942", {"wavefront_size32": 1}, "wavefront_size32: got 1, want none; gfx942 has no such"),
        ("gfx1201", {"dx10_clamp": 1}, "dx10_clamp: got 1, want none"),
        ("gfx1100", {"round_robin_scheduling": 0}, "round_robin_scheduling: got 0, want none"),
        ("gfx1100", {"inst_pref_size": 64}, "inst_pref_size: got 64, want 0 to 63"),
        ("gfx1201", {"inst_pref_size": 256}, "inst_pref_size: got 256, want 0 to 255"),
        ("gfx1100", {"shared_vgpr_count": 1}, "want 0 for wave32"),
        ("gfx942", {"user_sgpr_count": 1, "user_sgpr_queue_ptr": 1}, "user_sgpr_count: got 1, want 2 to 16"),
        (
            "gfx942",
            {"user_sgpr_kernarg_preload_length": 4, "kernarg_size": 8},
            "want at most kernarg_size, 8",
        ),
        ("gfx950", {"reserve_vcc": 2}, "reserve_vcc: got 2, want 0 to 1"),
    ],
)
def test_descriptor_bad_directive_is_named(target: str, values: dict, message: str) -> None:
    with pytest.raises(CodeObjectError, match=message):
        replace(descriptor_for(target), **values).encode(target)


# Files.


@pytest.mark.parametrize("target", [*TARGETS, "gfx942:sramecc+:xnack-"])
@pytest.mark.parametrize("version", [5, 6])
def test_code_object_written_is_read_back(target: str, version: int) -> None:
    arguments = [
        Argument("global_buffer", 8, name="x", address_space="global", is_const=True, other={".vendor": [1]}),
        Argument("by_value", 2, type_name="short"),
        Argument("by_value", 4),
        *hidden_arguments(16),
    ]
    plain = descriptor_for(target, group_segment_fixed_size=512, uses_dynamic_stack=1, kernarg_size=99)
    kernels = [
        Kernel("first", ENDPGM * 70, descriptor_for(target, user_sgpr_kernarg_segment_ptr=1), arguments),
        Kernel(
            "zweitär", ENDPGM, plain, metadata={".max_flat_workgroup_size": 64, ".cluster_dims": [2, 1, 1]}
        ),
    ]
    found = read_code_object(write_code_object(target, kernels, version=version, metadata={"vendor.x": "y"}))
    assert (str(found.target), found.version, found.metadata["vendor.x"]) == (target, version, "y")
    first, second = found.kernels
    assert [item.code for item in found.kernels] == [item.code for item in kernels]
    assert first.address % 256 == second.address % 256 == 0
    assert first.arguments == lay_out_arguments(arguments)
    assert [item.offset for item in first.arguments[:4]] == [0, 8, 12, 16]
    assert first.descriptor.kernarg_size == first.metadata[".kernarg_segment_size"] == 16 + 256
    assert first.descriptor.user_sgpr_count == 2
    assert second.descriptor.kernarg_size == second.metadata[".kernarg_segment_size"] == 99
    assert second.metadata[".uses_dynamic_stack"] is True
    assert second.metadata[".group_segment_fixed_size"] == 512
    assert (second.metadata[".max_flat_workgroup_size"], second.metadata[".cluster_dims"]) == (64, [2, 1, 1])
    assert found.kernel("zweitär") is second
    with pytest.raises(CodeObjectError, match="got 'third', want one of first, zweitär"):
        found.kernel("third")


def test_code_object_of_no_kernels_is_read_back() -> None:
    assert read_code_object(write_code_object("gfx1100", [])).kernels == []


def test_code_object_written_has_padding_for_the_prefetcher() -> None:
    for target, word, words in (("gfx950", "000080bf", 256), ("gfx1151", "00009fbf", 96)):
        file = ElfFile(small_code_object(target, kernels=2))
        text = file.section_bytes(file.section(".text"))
        assert text[4:256].hex() == word * 63
        assert text.hex().endswith(word * words)


def test_code_object_hash_table_finds_every_symbol() -> None:
    """The lookup that the gABI describes, on the written table."""
    file = ElfFile(small_code_object(kernels=20))
    words = struct.unpack(f"<{file.section('.hash').size // 4}I", file.section_bytes(file.section(".hash")))
    buckets, chains = words[2 : 2 + words[0]], words[2 + words[0] :]
    for number, symbol in enumerate(file.dynamic_symbols[1:], 1):
        value = 0
        for byte in symbol.name.encode():
            value = (value << 4) + byte & 0xFFFFFFFF
            high = value & 0xF0000000
            value = (value ^ high >> 24) & ~high
        at = buckets[value % len(buckets)]
        while at != number:
            assert at, f"{symbol.name} is not on its chain"
            at = chains[at]


def test_code_object_image_holds_sections_at_their_addresses() -> None:
    file = ElfFile(small_code_object(kernels=3))
    image = file.image()
    for section in file.sections:
        if section.flags & elf.SHF_ALLOC:
            assert image[section.address : section.address + section.size] == file.section_bytes(section)
    with pytest.raises(CodeObjectError, match="want at most 100"):
        file.image(limit_bytes=100)


@pytest.mark.parametrize(
    ("kernels", "version", "message"),
    [
        ([Kernel("k", ENDPGM, descriptor_for("gfx942"))] * 2, 5, "want each once"),
        ([Kernel("k", b"abc", descriptor_for("gfx942"))], 5, "kernel k: got 3 bytes of code"),
        ([Kernel("k", b"", descriptor_for("gfx942"))], 5, "kernel k: got 0 bytes of code"),
        ([Kernel("k", ENDPGM, descriptor_for("gfx942"), metadata={".x": object()})], 5, "got a object"),
        ([Kernel("k", ENDPGM, descriptor_for("gfx942"), metadata={".x": 1 << 64})], 5, "at most 64 bits"),
        ([], 4, "got 4, want 5 or 6"),
    ],
)
def test_write_code_object_impossible_is_refused(kernels: list, version: int, message: str) -> None:
    with pytest.raises(CodeObjectError, match=message):
        write_code_object("gfx942", kernels, version=version)


def test_bundle_entries_are_chosen_by_target() -> None:
    files = {target: small_code_object(target) for target in ("gfx942:xnack+", "gfx1100")}
    entries = {"host-x86_64-unknown-linux-gnu-": b""} | {
        f"hipv4-amdgcn-amd-amdhsa--{target}": data for target, data in files.items()
    }
    bundle = bundle_of(entries)
    assert read_bundle(bundle) == entries
    for target, data in files.items():
        assert read_code_object(bundle, target).elf.data == data
        assert (
            read_code_object(bundle_of({"host": b"", f"hip-amdgcn-amd-amdhsa-{target}": data})).elf.data
            == data
        )
    for target in (None, "gfx942"):
        with pytest.raises(CodeObjectError, match="got entries host-x86_64"):
            read_code_object(bundle, target)
    with pytest.raises(CodeObjectError, match="compressed"):
        read_code_object(b"CCOB" + bytes(20))
    with pytest.raises(CodeObjectError, match="at offset 0x20"):
        read_bundle(bundle[:40])


@pytest.mark.parametrize(
    ("offset", "replacement", "message"),
    [
        (0, b"PK", "starts with b.PK"),
        (4, b"\1", "64-bit"),
        (7, b"\0", "OS ABI 0"),
        (8, b"\1", "ABI version 1, want 2 to 4"),
        (16, b"\1\0", "link it first"),
        (18, b"\x3e\0", "machine 62"),
        (32, b"\xff" * 8, "program header table"),
        (40, b"\xff" * 8, "section header table"),
        (48, b"\x3f", "processor number 0x3f"),
        (54, b"\0", "program header table has entries of 0 bytes"),
        (58, b"\0", "section header table has entries of 0 bytes"),
        (62, b"\xff", "255 has the names"),
    ],
)
def test_reader_corrupt_header_is_named(offset: int, replacement: bytes, message: str) -> None:
    data = bytearray(small_code_object())
    data[offset : offset + len(replacement)] = replacement
    with pytest.raises(CodeObjectError, match=message):
        read_code_object(bytes(data))


def test_reader_every_truncation_gives_its_error() -> None:
    data = small_code_object()
    for size in range(len(data)):
        with pytest.raises(CodeObjectError):
            read_code_object(data[:size])


# Fuzzing.


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A random file, or one of `seeds` with a few bytes, fields or stretches changed."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(seeds))
    if kind == 1:
        return bytes(data[: rng.randrange(64)]) + rng.randbytes(rng.randrange(400))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = (
            rng.randrange(len(data))
            if rng.random() < 0.5
            else rng.choice((0, len(data) - 704)) + rng.randrange(64)
        )
        choice = rng.randrange(4)
        if choice == 0:
            data[at] = rng.randrange(256)
        elif choice == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif choice == 2:
            width = rng.choice((2, 4, 8))
            value = rng.choice(
                (0, 1, len(data), (1 << 8 * width) - 1, 1 << 8 * width - 1, rng.getrandbits(8 * width))
            )
            data[at & ~1 : (at & ~1) + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        else:
            source = rng.randrange(len(data))
            data[at : at + 16] = data[source : source + 16]
    return bytes(data[: rng.randrange(len(data))]) if kind == 2 else bytes(data)


def read_everything(data: bytes) -> bool:
    """Whether the file reads; every way into it raises nothing but CodeObjectError."""
    sound = True
    try:
        found = read_code_object(data)
        for kernel in found.kernels:
            kernel.descriptor.encode(found.target, 0)
        write_code_object(found.target, found.kernels)
    except CodeObjectError:
        sound = False
    try:
        file = ElfFile(data)
    except CodeObjectError:
        return False
    for read in (
        lambda: file.symbols,
        lambda: file.dynamic_symbols,
        lambda: file.notes,
        lambda: file.image(limit_bytes=1 << 16),
        lambda: [file.section_bytes(section) for section in file.sections],
    ):
        try:
            read()
        except CodeObjectError:
            sound = False
    return sound


def fuzz(count: int, seed: int, seeds: list[bytes]) -> int:
    """How many of `count` mutated files still read."""
    rng, sound = random.Random(seed), 0
    for number in range(count):
        data = mutate(rng, seeds)
        try:
            sound += read_everything(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}, file {number}: {error!r}\n{data.hex()}") from error
    return sound


def test_reader_mutated_files_raise_nothing_else() -> None:
    seed = int(os.environ.get("TG_SEED", "20261122"))
    seeds = [small_code_object("gfx942"), small_code_object("gfx1201", kernels=2)]
    seeds.append(bundle_of({"hipv4-amdgcn-amd-amdhsa--gfx942": seeds[0]}))
    sound = fuzz(5000, seed, seeds)
    assert 0 < sound < 5000, "both outcomes are tried"
