"""Code objects: what clang made is read, what is damaged is refused."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tg_driver_amd import CodeObjectError, PacketError
from tg_driver_amd.code_object import CodeObject, read_code_object, unpack
from tg_driver_amd.dispatch import pack_arguments
from tg_driver_amd.topology import TARGETS

CLANG = shutil.which("clang-22") and shutil.which("ld.lld-22") and shutil.which("clang-22")
SEED = int(os.environ.get("TG_SEED", "1"))
SOURCE = """
constant int table[4] = {1, 2, 3, 4};
global int counter;
kernel void first(global float* out, float scale, local int* scratch, long wide) {
    local int near[64];
    near[get_local_id(0) & 63] = scratch[0];
    out[get_global_id(0)] = scale * near[0] + wide + counter;
}
kernel void second(global int* out, uchar small) { out[get_group_id(0)] = table[small & 3]; }
"""
LIBRARY = """
size_t __attribute__((overloadable, weak)) get_global_id(uint d) { return __builtin_amdgcn_workitem_id_x(); }
size_t __attribute__((overloadable, weak)) get_local_id(uint d) { return __builtin_amdgcn_workitem_id_x(); }
size_t __attribute__((overloadable, weak)) get_group_id(uint d) { return __builtin_amdgcn_workgroup_id_x(); }
"""


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    if CLANG is None:
        pytest.skip("no clang-22 or lld-22")
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "k.cl").write_text(LIBRARY + SOURCE, encoding="utf-8")
    options = [
        "-x",
        "cl",
        "-cl-std=CL2.0",
        "-target",
        "amdgcn-amd-amdhsa",
        f"-mcpu={request.param}",
        "-nogpulib",
    ]
    headers = ["-Xclang", "-finclude-default-header", "-w", "-O1"]
    subprocess.run([CLANG, *options, *headers, "k.cl", "-o", "k.co"], cwd=folder, check=True)
    return request.param, (folder / "k.co").read_bytes()


def test_kernels_of_a_compiled_file_are_read(compiled: tuple[str, bytes]):
    target, data = compiled
    code = read_code_object(data, target)
    assert set(code.kernels) == {"first", "second"}
    first, second = code.kernels["first"], code.kernels["second"]
    own = [
        (each.offset, each.size, each.kind) for each in first.arguments if not each.kind.startswith("hidden")
    ]
    kinds = ("global_buffer", "by_value", "dynamic_shared_pointer", "by_value")
    assert own == [
        (at, size, kind) for at, size, kind in zip((0, 8, 12, 16), (8, 4, 4, 8), kinds, strict=True)
    ]
    assert first.descriptor.group_bytes == 256 and second.descriptor.group_bytes == 0
    assert first.wave_size == (64 if target in ("gfx942", "gfx950") else 32)
    assert first.descriptor_offset % 64 == 0
    entry = first.descriptor_offset + first.descriptor.entry_offset
    assert entry % 256 == 0 and entry < len(code.image)


def test_bundle_gives_the_entry_of_the_target(compiled: tuple[str, bytes]):
    target, data = compiled
    names = [b"host-x86_64-unknown-linux-gnu-", b"hipv4-amdgcn-amd-amdhsa--" + target.encode()]
    header = b"__CLANG_OFFLOAD_BUNDLE__" + (2).to_bytes(8, "little")
    start = len(header) + sum(24 + len(name) for name in names)
    for name, size in zip(names, (0, len(data)), strict=True):
        header += b"".join(each.to_bytes(8, "little") for each in (start, size, len(name))) + name
    assert set(read_code_object(header + data, target).kernels) == {"first", "second"}
    with pytest.raises(CodeObjectError, match="want one for gfx90a"):
        read_code_object(header + data, "gfx90a")


def test_damaged_file_is_refused_or_read_and_never_fails_otherwise(compiled: tuple[str, bytes]):
    print(f"TG_SEED={SEED}")
    target, data = compiled
    random_ = random.Random(f"{SEED} {target}")
    for _ in range(200):
        damaged = bytearray(data[: random_.randrange(64, len(data))] if random_.random() < 0.3 else data)
        for _ in range(random_.randrange(1, 8)):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        try:
            assert isinstance(read_code_object(bytes(damaged), target), CodeObject)
        except CodeObjectError as error:
            assert "want" in str(error)


def test_arguments_are_packed_where_the_metadata_says(compiled: tuple[str, bytes]):
    target, data = compiled
    kernel = read_code_object(data, target).kernels["first"]
    packed = pack_arguments(kernel, [0x1000, 1.5, 0, -2], (100, 1, 1), (64, 1, 1), 0, {})
    assert packed[:8] == (0x1000).to_bytes(8, "little") and packed[8:12] == b"\0\0\xc0\x3f"
    assert packed[16:24] == b"\xfe" + b"\xff" * 7
    hidden = {each.kind: packed[each.offset : each.offset + each.size] for each in kernel.arguments}
    if "hidden_remainder_x" in hidden:
        assert int.from_bytes(hidden["hidden_block_count_x"], "little") == 1
        assert int.from_bytes(hidden["hidden_remainder_x"], "little") == 36
    with pytest.raises(PacketError, match="first: argument 1: got 'x', want by_value of 4 bytes"):
        pack_arguments(kernel, [0, "x", 0, 0], (1, 1, 1), (1, 1, 1), 0, {})


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"hello", b"\x7fELF\x02\x01" + bytes(100)])
def test_file_that_is_no_code_object_is_refused(data: bytes):
    with pytest.raises(CodeObjectError, match="code object: got"):
        read_code_object(data, "gfx942")


def test_messagepack_of_every_kind_is_read():
    data = (
        b"\x8a\xa1a\x01\xa1b\xff\xa1c\xc3\xa1d\xc0\xa1e\xcd\x01\x00\xa1f\x92\x01\x02\xa1g\xcb"
        + b"?\xf8"
        + bytes(6)
    )
    data += b"\xa1h\xd9\x02hi\xa1i\xc4\x01\x07\xa1j\xd1\xff\x00"
    assert unpack(data) == (
        {
            "a": 1,
            "b": -1,
            "c": True,
            "d": None,
            "e": 256,
            "f": [1, 2],
            "g": 1.5,
            "h": "hi",
            "i": b"\x07",
            "j": -256,
        },
        len(data),
    )
