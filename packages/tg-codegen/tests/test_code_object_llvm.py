"""Code objects against LLVM 22: llvm-mc for descriptors, clang for files, readobj and objdump as readers."""

from __future__ import annotations

import importlib
import os
import random
import re
import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tg_codegen.amdgpu.byte_reader import CodeObjectError
from tg_codegen.amdgpu.code_object import read_bundle, read_code_object, write_code_object
from tg_codegen.amdgpu.elf import ElfFile
from tg_codegen.amdgpu.kernel_descriptor import KernelDescriptor
from tg_codegen.amdgpu.target_id import PROCESSORS, TargetId

TARGETS = list(PROCESSORS)
FEATURED = [f"gfx942:sramecc{a}:xnack{b}" for a in "+-" for b in "+-"] + ["gfx950:xnack+", "gfx950:sramecc-"]

SOURCE = """
#define GLOBAL_ID (__builtin_amdgcn_workgroup_id_x() * 256 + __builtin_amdgcn_workitem_id_x())
kernel void axpy(global float *y, global const float *restrict x, float a, int n) {
  int i = GLOBAL_ID;
  if (i < n) y[i] += a * x[i];
}
kernel void empty(void) {}
kernel void lds(global float *y) {
  local float t[256];
  int i = __builtin_amdgcn_workitem_id_x();
  t[i] = y[i];
  __builtin_amdgcn_s_barrier();
  y[i] = t[255 - i];
}
kernel void scratch(global int *y, int n) {
  volatile private int t[64];
  for (int i = 0; i < 64; i++) t[i] = y[i];
  for (int i = 0; i < n; i++) y[i] = t[(i * 7) & 63];
}
kernel void dynamic_stack(global int *y, int n) {
  volatile private int *t = __builtin_alloca(n * 4);
  for (int i = 0; i < n; i++) t[i] = y[i];
  for (int i = 0; i < n; i++) y[i] = t[n - 1 - i];
}
kernel void many(char a, short b, global int *c, double d, float4 e, global const char *restrict f, long g,
                 int h, uchar2 i, local float *l, global volatile int *m, constant int *k, float3 o,
                 global half *p, char q) {
  c[h] = a + b + d + e.x + e.w + f[g] + i.y + (int)l[3] + *m + k[1] + o.z + q;
}
kernel void hidden(global int *y, int n, char c) {
  const constant int *p = __builtin_amdgcn_implicitarg_ptr();
  for (int i = 0; i < n; i++) y[i] = p[i] + c;
}
kernel __attribute__((reqd_work_group_size(8, 4, 2))) void ids(global int *y) {
  const constant int *p = __builtin_amdgcn_dispatch_ptr();
  y[__builtin_amdgcn_workitem_id_x() + 8 * __builtin_amdgcn_workitem_id_y()
    + 32 * __builtin_amdgcn_workitem_id_z()] =
      __builtin_amdgcn_workgroup_id_x() + 3 * __builtin_amdgcn_workgroup_id_y()
      + 7 * __builtin_amdgcn_workgroup_id_z() + p[1];
}
#if __has_builtin(__builtin_amdgcn_mfma_f32_32x32x1f32) && defined(__gfx90a_or_later__)
kernel void agprs(global float *y) {
  __asm volatile("v_accvgpr_write_b32 a21, 0" ::: "a21");
  y[GLOBAL_ID] = 1;
}
#endif
kernel void registers(global int *y) {
  __asm volatile("v_mov_b32 v97, 0\\n s_mov_b32 s41, 0" ::: "v97", "s41", "vcc");
  y[GLOBAL_ID] = 1;
}
"""


def tool(name: str) -> str:
    path = shutil.which(f"{name}-22")
    if path is None:
        pytest.skip(f"{name}-22 is not installed (Debian packages llvm-22, clang-22, lld-22)")
    return path


def run(*command: str, stdin: str | None = None) -> str:
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"
    assert not result.stderr, f"{' '.join(command)}\n{result.stderr}"
    return result.stdout


def compile_opencl(source: str, target: str, out: Path, *options: str) -> bytes:
    (out / "k.cl").write_text(source)
    flags = ["-w", "-cl-std=CL2.0", "-nogpulib", "-Xclang", "-finclude-default-header", "-O2", *options]
    if target.startswith("gfx9"):
        flags.append("-D__gfx90a_or_later__")
    tool("ld.lld")
    path = str(out / "k.co")
    command = [tool("clang"), "-x", "cl", "-target", "amdgcn-amd-amdhsa", f"-mcpu={target}", *flags]
    run(*command, str(out / "k.cl"), "-o", path)
    return Path(path).read_bytes()


# Descriptors against llvm-mc's .amdhsa_kernel.


def random_descriptor(rng: random.Random, target: TargetId) -> KernelDescriptor:
    """Any directives with any values of their fields; many are refused, for a range or a combination.

    Left out is where we refuse on purpose what llvm-mc takes: more than 16 user SGPRs, shared VGPRs when
    wave32 is not written but the default, more registers than there are on RDNA.
    """
    generation = target.generation
    values = {}
    density = rng.choice((0.1, 0.5, 0.9))
    for item in fields(KernelDescriptor):
        layout = item.metadata.get("layout", {})
        if rng.random() < density and generation.name in layout:
            width = layout[generation.name][1]
            top = (1 << width) - 1
            values[item.name] = rng.choice(
                (0, 1, top, rng.randint(0, top)) + (top + 1,) * (rng.random() < 0.02)
            )
        elif layout and generation.name not in layout and rng.random() < 0.003:
            values[item.name] = 1
    if rng.random() < 0.5 and "user_sgpr_kernarg_preload_length" in values:
        values["user_sgpr_kernarg_preload_length"] = rng.randint(0, 10)
        values["user_sgpr_kernarg_preload_offset"] = rng.randint(0, 10)
    if "shared_vgpr_count" in values:
        if rng.random() < 0.5:
            values["shared_vgpr_count"] = None
        else:
            values.setdefault("wavefront_size32", rng.randint(0, 1))
    if rng.random() < density / 3:
        values["user_sgpr_count"] = rng.randint(0, 16)
    if rng.random() < density:
        values["reserve_vcc"] = rng.randint(0, 1)
    vgprs = rng.randint(0, generation.max_vgprs)
    if generation.name == "cdna3" and rng.random() < 0.98:
        values["accum_offset"] = rng.randint(1, max(1, min(64, -(-vgprs // 4)))) * 4 + (rng.random() < 0.02)
    values["user_sgpr_dispatch_id" if rng.random() < 0.5 else "user_sgpr_queue_ptr"] = None
    values["user_sgpr_private_segment_size"] = None
    if 10 < (values.get("user_sgpr_kernarg_preload_length") or 0) < 32:
        values["user_sgpr_kernarg_preload_length"] = 10
    return KernelDescriptor(vgprs, rng.randint(0, generation.max_sgprs), **values)


def assembly(number: int, descriptor: KernelDescriptor) -> str:
    lines = [
        f".amdhsa_kernel k{number}",
        *(f".amdhsa_{name} {value}" for name, value in descriptor.directives()),
    ]
    return "\n".join([*lines, ".end_amdhsa_kernel"]) + "\n"


def encode_or_none(descriptor: KernelDescriptor, target: TargetId) -> bytes | None:
    try:
        return descriptor.encode(target)
    except CodeObjectError:
        return None


@pytest.mark.parametrize("target_name", TARGETS)
def test_descriptor_random_directives_match_llvm_mc(target_name: str, tmp_path: Path) -> None:
    seed, count = int(os.environ.get("TG_SEED", "20261122")), 400
    print(f"seed {seed}")
    rng, target = random.Random(seed), TargetId.parse(target_name)
    descriptors = [random_descriptor(rng, target) for _ in range(count)]
    blocks = [assembly(number, descriptor) for number, descriptor in enumerate(descriptors)]
    mc = [tool("llvm-mc"), "-triple=amdgcn-amd-amdhsa", f"-mcpu={target_name}", "-filetype=obj", "-o"]
    text = "".join(blocks)
    # An error in one block does not stop the next: the lines of the messages tell which ones llvm-mc refuses.
    block_of_line = [number for number, block in enumerate(blocks) for _ in range(block.count("\n"))]
    first = subprocess.run([*mc, "/dev/null"], input=text, capture_output=True, text=True, timeout=300)
    refused = {block_of_line[int(line) - 1] for line in re.findall(r"<stdin>:(\d+):\d+: error", first.stderr)}
    ours = [encode_or_none(descriptor, target) for descriptor in descriptors]
    assert {number for number, encoded in enumerate(ours) if encoded is None} == refused
    assert count / 30 < len(refused) < count * 0.9, "both outcomes are tried"
    accepted = "".join(block for number, block in enumerate(blocks) if number not in refused)
    run(*mc, str(tmp_path / "d.o"), stdin=".rodata\n" + accepted)
    file = ElfFile((tmp_path / "d.o").read_bytes())
    theirs = file.section_bytes(file.section(".rodata"))
    for index, number in enumerate(number for number in range(count) if number not in refused):
        assert theirs[64 * index : 64 * index + 64].hex() == ours[number].hex(), blocks[number]


# Whole files against clang and lld.

CASES = [
    *((target, ()) for target in TARGETS + FEATURED),
    *((target, ("-mwavefrontsize64",)) for target in ("gfx1100", "gfx1151", "gfx1201")),
    *((target, ("-mcumode",)) for target in ("gfx1100", "gfx1201")),
    ("gfx942", ("-mtgsplit",)),
    ("gfx942", ("-mllvm", "-amdgpu-kernarg-preload-count=8")),
    ("gfx950", ("-mcode-object-version=5", "-mllvm", "-amdgpu-kernarg-preload-count=14")),
    ("gfx1100", ("-mcode-object-version=5", "-O0")),
    ("gfx942", ("-mcode-object-version=4",)),
]


@pytest.mark.parametrize(("target", "options"), CASES, ids=lambda value: "".join(value))
def test_code_object_rewritten_from_parameters_matches_clang(
    target: str, options: tuple, tmp_path: Path
) -> None:
    data = compile_opencl(SOURCE, target, tmp_path, *options)
    theirs = read_code_object(data)
    assert str(theirs.target) == target
    version = next((int(item[-1]) for item in options if "version" in item), 6)
    assert theirs.version == version
    kernels = []
    for kernel in theirs.kernels:
        symbol = next(item for item in theirs.elf.symbols if item.name == f"{kernel.name}.kd")
        raw = theirs.elf.memory(symbol.value, 64, "kernel descriptor")
        assert kernel.descriptor.encode(target, kernel.address - symbol.value) == raw
        assert kernel.descriptor.unnamed_bits == 0
        # The descriptor rounds registers up, the note has them exactly; all else comes from the descriptor.
        sgprs = kernel.metadata[".sgpr_count"] - (6 if target.startswith("gfx9") else 0)
        vgprs = kernel.metadata[".vgpr_count"]
        descriptor = replace(kernel.descriptor, next_free_vgpr=vgprs, next_free_sgpr=sgprs, reserve_vcc=0)
        assert descriptor.encode(target, kernel.address - symbol.value) == raw
        # Version 4 has fewer hidden arguments.
        size = kernel.descriptor.kernarg_size if version == 4 else None
        given = {".language", ".language_version", ".max_flat_workgroup_size", ".reqd_workgroup_size"}
        given |= {".sgpr_spill_count", ".vgpr_spill_count"}
        extra = {key: value for key, value in kernel.metadata.items() if key in given}
        assert (kernel.name == "agprs") == bool(kernel.metadata.get(".agpr_count"))
        kernels.append(replace(kernel, descriptor=replace(descriptor, kernarg_size=size), metadata=extra))
    data = write_code_object(target, kernels, version=max(version, 5))
    ours = read_code_object(data)
    assert ours.elf.flags == theirs.elf.flags
    if version >= 5:
        assert ours.elf.abi_version == theirs.elf.abi_version
        for ours_kernel, kernel in zip(ours.kernels, theirs.kernels, strict=True):
            assert ours_kernel.metadata == kernel.metadata
        assert ours.metadata == theirs.metadata
        assert ours.elf.notes[0].data == theirs.elf.notes[0].data
    for ours_kernel, kernel in zip(ours.kernels, theirs.kernels, strict=True):
        assert ours_kernel.code == kernel.code
        assert ours_kernel.descriptor == kernel.descriptor
        assert ours_kernel.arguments == kernel.arguments
    described = [
        {item.name: (item.size, item.type, item.binding, item.visibility) for item in symbols}
        for symbols in (
            ours.elf.symbols,
            theirs.elf.symbols,
            ours.elf.dynamic_symbols,
            theirs.elf.dynamic_symbols,
        )
    ]
    names = {name for kernel in kernels for name in (kernel.name, f"{kernel.name}.kd")}
    for ours_symbols, their_symbols in (described[:2], described[2:]):
        assert {name: ours_symbols[name] for name in names} == {name: their_symbols[name] for name in names}


@pytest.mark.parametrize("target", TARGETS)
def test_code_object_written_is_read_by_llvm_without_complaint(target: str, tmp_path: Path) -> None:
    theirs = read_code_object(compile_opencl(SOURCE, target, tmp_path))
    path = tmp_path / "ours.co"
    for version in (5, 6):
        path.write_bytes(write_code_object(target, theirs.kernels, version=version))
        readobj = run(tool("llvm-readobj"), "--all", str(path))
        readelf = run(tool("llvm-readelf"), "-a", "-W", str(path))
        for output in (readobj, readelf):
            assert "Invalid AMDGPU Metadata" not in output
            assert "warning" not in output
            assert not re.search(r"<[^>]*(corrupt|unknown|invalid|bogus)[^>]*>", output), output
        run(tool("llvm-readobj"), "--gnu-hash-table", "--hash-table", "--hash-symbols", str(path))
        listing = run(tool("llvm-objdump"), "-D", "-t", "-T", "-p", str(path))
        for kernel in theirs.kernels:
            assert f".name:           {kernel.name}\n" in readelf
            assert f"<{kernel.name}>:" in listing and f".amdhsa_kernel {kernel.name}\n" in listing
        assert "failed to decode" not in listing


def test_code_object_linked_again_by_lld_finds_symbols(tmp_path: Path) -> None:
    """lld reads our dynamic symbols when another object refers to a kernel."""
    linker = tool("ld.lld")
    theirs = read_code_object(compile_opencl(SOURCE, "gfx942", tmp_path))
    (tmp_path / "ours.co").write_bytes(write_code_object("gfx942", theirs.kernels, version=6))
    source = ".data\n.globl p\np: .quad axpy.kd\n.quad q\nq: .quad 0\n"
    mc = [tool("llvm-mc"), "-triple=amdgcn-amd-amdhsa", "-mcpu=gfx942", "-filetype=obj"]
    run(*mc, "-o", str(tmp_path / "p.o"), stdin=source)
    linked = str(tmp_path / "p.so")
    run(linker, "-shared", str(tmp_path / "p.o"), str(tmp_path / "ours.co"), "-o", linked)
    file = ElfFile(Path(linked).read_bytes())
    assert {(item.type, item.symbol and item.symbol.name) for item in file.relocations} == {
        (3, "axpy.kd"),
        (13, None),
    }
    image = file.image(base=0x7000_0000, resolve={"axpy.kd": 0x1234_5678_9ABC}.__getitem__)
    data = file.section(".data").address
    assert int.from_bytes(image[data : data + 8], "little") == 0x1234_5678_9ABC
    assert int.from_bytes(image[data + 8 : data + 16], "little") == 0x7000_0000 + data + 16
    with pytest.raises(CodeObjectError, match="undefined"):
        file.image()


def test_reader_relocatable_object_names_what_to_do(tmp_path: Path) -> None:
    data = compile_opencl(SOURCE, "gfx1100", tmp_path, "-c")
    with pytest.raises(CodeObjectError, match="link it first"):
        read_code_object(data)
    assert {item.name for item in ElfFile(data).sections} >= {".text", ".rodata", ".rela.rodata"}


def test_bundle_from_clang_offload_bundler_is_read(tmp_path: Path) -> None:
    bundler = tool("clang-offload-bundler")
    entries = {}
    for target in ("gfx942", "gfx1100"):
        entries[target] = compile_opencl(SOURCE, target, tmp_path)
        (tmp_path / target).write_bytes(entries[target])
    (tmp_path / "host").write_bytes(b"")
    targets = "host-x86_64-unknown-linux-gnu,hipv4-amdgcn-amd-amdhsa--gfx942,hipv4-amdgcn-amd-amdhsa--gfx1100"
    inputs = [f"-input={tmp_path / name}" for name in ("host", "gfx942", "gfx1100")]
    command = [bundler, "-type=o", f"-targets={targets}", *inputs, f"-output={tmp_path / 'b'}"]
    run(*command)
    bundle = (tmp_path / "b").read_bytes()
    assert {name.rstrip("-") for name in read_bundle(bundle)} == set(targets.split(","))
    for target, data in entries.items():
        assert read_code_object(bundle, target).elf.data == data
    run(*command, "-compress")
    with pytest.raises(CodeObjectError, match="compressed"):
        read_code_object((tmp_path / "b").read_bytes(), "gfx942")


# Triton, which has its own LLVM.


def test_triton_code_objects_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton", reason="triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    module = tmp_path / "triton_gemm.py"
    module.write_text(TRITON_SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    gemm = importlib.import_module("triton_gemm").gemm
    sizes = {"BM": 64, "BN": 64, "BK": 32}
    signature = {"a": "*fp16", "b": "*fp16", "c": "*fp16", "K": "i32"} | dict.fromkeys(sizes, "constexpr")
    for name, processor in PROCESSORS.items():
        target = GPUTarget("hip", name, 64 if processor.generation.name == "cdna3" else 32)
        built = triton.compile(ASTSource(gemm, signature, sizes), target=target)
        found = read_code_object(built.asm["hsaco"])
        assert str(found.target).partition(":")[0] == name
        (kernel,) = found.kernels
        symbol = next(item for item in found.elf.symbols if item.name == "gemm.kd")
        raw = found.elf.memory(symbol.value, 64, "kernel descriptor")
        assert kernel.descriptor.encode(found.target, kernel.address - symbol.value) == raw
        assert [item.value_kind for item in kernel.arguments[:4]] == ["global_buffer"] * 3 + ["by_value"]
        assert kernel.metadata[".group_segment_fixed_size"] == kernel.descriptor.group_segment_fixed_size
        (rewritten,) = read_code_object(write_code_object(found.target, found.kernels)).kernels
        assert replace(rewritten, address=0) == replace(kernel, address=0)


TRITON_SOURCE = """
import triton
import triton.language as tl

@triton.jit
def gemm(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        total += tl.dot(tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * BN + n[None, :]))
    tl.store(c + m[:, None] * BN + n[None, :], total.to(tl.float16))
"""
