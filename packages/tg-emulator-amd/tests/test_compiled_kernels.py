"""Kernels that clang compiled, loaded and launched by the driver, executed by the interpreter, against NumPy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tg_driver_amd as amd
from tg_emulator_amd import PROFILES, VirtualKernel, open_virtual

CLANG = shutil.which("clang-22")
TIMEOUT_S = 120
SOURCE = """
#define GROUP __builtin_amdgcn_workgroup_id_x
#define LANE __builtin_amdgcn_workitem_id_x
uint here(void) { return GROUP() * __builtin_amdgcn_workgroup_size_x() + LANE(); }
void meet(void) { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "workgroup"); __builtin_amdgcn_s_barrier(); }

kernel void scale(global const float *a, global float *b, float factor, uint count) {
    uint i = here();
    if (i < count) b[i] = a[i] * factor;
}
kernel void sums(global const int *a, global int *out) {
    local int part[128];
    uint lane = LANE();
    part[lane] = a[here()];
    meet();
    for (uint width = 64; width; width >>= 1) {
        if (lane < width) part[lane] += part[lane + width];
        meet();
    }
    if (!lane) out[GROUP()] = part[0];
}
kernel void scratch(global const int *a, global int *b) {
    volatile int near[200];
    uint i = here();
    for (int k = 0; k < 200; k++) near[k] = a[i] * k;
    b[i] = near[a[i] % 200] + near[199];
}
kernel void grid(global int *b, uint width) {
    uint x = here();
    uint y = __builtin_amdgcn_workgroup_id_y() * __builtin_amdgcn_workgroup_size_y() + __builtin_amdgcn_workitem_id_y();
    b[y * width + x] = y * 1000 + x;
}
kernel void count(global int *counter) { __opencl_atomic_fetch_add((global atomic_int *)counter, 3,
    memory_order_relaxed, memory_scope_device); }
kernel void beyond(global int *b, uint far) { b[here() + far] = 1; }
"""


@pytest.fixture(scope="module", params=PROFILES)
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VirtualKernel, amd.Device, amd.Module]]:
    pytest.importorskip("tg_emulator_amd.isa")
    if CLANG is None:
        pytest.skip("no clang-22")
    folder: Path = tmp_path_factory.mktemp(request.param)
    (folder / "k.cl").write_text(SOURCE, encoding="utf-8")
    options = [
        "-x",
        "cl",
        "-cl-std=CL2.0",
        "-target",
        "amdgcn-amd-amdhsa",
        f"-mcpu={request.param}",
        "-nogpulib",
    ]
    headers = ["-Xclang", "-finclude-default-header", "-w", "-O2"]
    subprocess.run([CLANG, *options, *headers, "k.cl", "-o", "k.co"], cwd=folder, check=True)
    kernel = open_virtual(request.param)
    with amd.open_device(interface=kernel) as gpu:
        yield kernel, gpu, gpu.load((folder / "k.co").read_bytes())


@pytest.mark.parametrize("queue", ["aql", "pm4"])
def test_compiled_kernels_give_what_numpy_gives(machine: tuple, queue: str):
    _kernel, gpu, module = machine
    source, result = gpu.alloc(4096), gpu.alloc(1 << 14)

    def run(
        name: str, grid: int | tuple[int, ...], group: int | tuple[int, ...], args: list, count: int
    ) -> np.ndarray:
        gpu.dispatch(module[name], grid, group, args, queue=queue).wait(TIMEOUT_S)
        return np.frombuffer(gpu.read(result, 4 * count), np.int32)

    floats = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    gpu.write(source, floats.tobytes())
    scaled = run("scale", 1000, 64, [source, result, 3.0, 1000], 1000)
    assert (scaled.view(np.float32) == floats * np.float32(3)).all()
    integers = np.arange(1024, dtype=np.int32) * 3
    gpu.write(source, integers.tobytes())
    assert (run("sums", 1024, 128, [source, result], 8) == integers.reshape(8, 128).sum(1)).all()
    expected = integers * (integers % 200) + integers * 199
    assert (run("scratch", 1024, 256, [source, result], 1024) == expected).all()
    rows = np.arange(20)[:, None] * 1000 + np.arange(96)
    assert (run("grid", (96, 20), (16, 4), [result, 96], 1920).reshape(20, 96) == rows).all()
    gpu.write(result, bytes(4))
    assert run("count", 512, 64, [result], 1).tolist() == [3 * 512]


def test_kernel_that_writes_out_of_bounds_names_wave_lane_and_instruction(machine: tuple):
    kernel, _gpu, module = machine
    with amd.open_device(interface=open_virtual(kernel.gpus[0].profile.target)) as gpu:
        again = gpu.load(module.file)
        data = gpu.alloc(4096)
        with pytest.raises(
            amd.GpuFaultError, match=r"memory fault at 0x.*kernel 'beyond'.*lane .*store"
        ) as caught:
            gpu.dispatch(again["beyond"], 64, 64, [data, 1 << 30]).wait(TIMEOUT_S)
        assert caught.value.address == data.address + (4 << 30)


@pytest.mark.parametrize("target", PROFILES)
def test_gemm_and_softmax_by_triton_run_through_the_driver(target: str):
    pytest.importorskip("triton", reason="Triton is not installed")
    from triton_kernels import FLOAT32, compile_triton

    m, n, k = 128, 64, 64
    rng = np.random.default_rng(1)
    items = 4 * (64 if target.startswith("gfx9") else 32)
    kinds = (("a", "*fp16"), ("b", "*fp16"), ("c", "*fp32"), ("m", "i32"), ("n", "i32"), ("k", "i32"))
    gemm = compile_triton("gemm", target, kinds, (("BM", 64), ("BN", 64), ("BK", 32), ("ACC", FLOAT32)))
    softmax = compile_triton(
        "softmax", target, (("x", "*fp32"), ("y", "*fp32"), ("n", "i32")), (("BN", 128),)
    )
    with amd.open_device(f"virtual:{target}") as gpu:

        def upload(values: np.ndarray) -> amd.Allocation:
            memory = gpu.alloc(values.nbytes)
            gpu.write(memory, values.tobytes())
            return memory

        def run(code: object, name: str, blocks: tuple[int, ...], args: list) -> None:
            kernel = gpu.load(code.elf.data)[name]
            extra = len(kernel.kernel.arguments) - len(
                args
            )  # Triton's scratch pointers, which nothing uses here
            fixed = kernel.kernel.descriptor.group_bytes
            lds = 0 if fixed else code.metadata["shared"]
            grid = (blocks[0] * items, *blocks[1:])
            gpu.dispatch(kernel, grid, items, [*args, *[0] * extra], lds_bytes=lds).wait(TIMEOUT_S)

        a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((m, k), (k, n)))
        near_a, near_b, near_c = upload(a), upload(b), upload(np.zeros((m, n), np.float32))
        run(gemm, "gemm", (m // 64, n // 64), [near_a, near_b, near_c, m, n, k])
        got = np.frombuffer(gpu.read(near_c), np.float32).reshape(m, n)
        left, right = a.astype(np.float64), b.astype(np.float64)
        # Sums of k products in f32: each addition may be off by half a unit in the last place.
        assert np.abs(got - left @ right).max() <= k * 2.0**-24 * (np.abs(left) @ np.abs(right)).max()
        x = rng.standard_normal((8, 100)).astype(np.float32)
        near_x, near_y = upload(x), upload(np.zeros_like(x))
        run(softmax, "softmax", (8,), [near_x, near_y, 100])
        expected = np.exp(x - x.max(1, keepdims=True))
        expected /= expected.sum(1, keepdims=True)
        assert np.allclose(
            np.frombuffer(gpu.read(near_y), np.float32).reshape(8, 100), expected, rtol=1e-5, atol=0
        )
