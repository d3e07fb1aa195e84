"""OpenCL kernels by clang on every target: LDS, barriers, atomics, control flow, calls, scratch, lanes."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from isa_machine import TARGETS, compile_opencl, launch

SEED = int(os.environ.get("TG_SEED", "1"))
SOURCE = r"""
#define RELAXED memory_order_relaxed, memory_scope_device
kernel void reduce(global const float* a, global float* c) {
  local float t[256]; int l = LID(x); t[l] = a[GID(x)]; BARRIER();
  for (int s = 128; s > 0; s >>= 1) { if (l < s) t[l] += t[l + s]; BARRIER(); }
  if (l == 0) c[WID(x)] = t[0];
}
kernel void transpose(global const int* a, global int* c, int n) {
  local int t[16][17]; int x = LID(x), y = LID(y);
  t[y][x] = a[(WID(y) * 16 + y) * n + WID(x) * 16 + x]; BARRIER();
  c[(WID(x) * 16 + y) * n + WID(y) * 16 + x] = t[x][y];
}
kernel void scan(global const int* a, global int* c) {
  local int t[2][256]; int l = LID(x), p = 0; t[0][l] = a[GID(x)]; BARRIER();
  for (int d = 1; d < 256; d <<= 1) { t[1-p][l] = t[p][l] + (l >= d ? t[p][l-d] : 0); p = 1 - p; BARRIER(); }
  c[GID(x)] = t[p][l];
}
kernel void atomics(global const int* a, global int* c) {
  int i = GID(x); global atomic_int* m = (global atomic_int*)c;
  __opencl_atomic_fetch_add(m, a[i], RELAXED); __opencl_atomic_fetch_max(m + 1, a[i], RELAXED);
  __opencl_atomic_fetch_min(m + 2, a[i], RELAXED); __opencl_atomic_fetch_xor(m + 3, a[i], RELAXED);
  __opencl_atomic_fetch_or(m + 4, 1 << (i & 31), RELAXED);
  c[8 + __opencl_atomic_fetch_add(m + 5, 1, RELAXED)] = i;
}
kernel void atomics64(global const long* a, global long* c) {
  int i = GID(x); global atomic_long* m = (global atomic_long*)c; long e = -1;
  __opencl_atomic_fetch_add(m, a[i], RELAXED); __opencl_atomic_fetch_max(m + 1, a[i], RELAXED);
  __opencl_atomic_compare_exchange_strong(m + 2, &e, (long)i, memory_order_relaxed, RELAXED);
}
kernel void histogram(global const uchar* a, global int* c) {
  local int h[256]; int l = LID(x); h[l] = 0; BARRIER();
  __opencl_atomic_fetch_add((local atomic_int*)&h[a[GID(x)]], 1, memory_order_relaxed, memory_scope_work_group);
  BARRIER(); __opencl_atomic_fetch_add((global atomic_int*)&c[l], h[l], RELAXED);
}
kernel void collatz(global const int* a, global int* c) {
  int i = GID(x), n = 0; long x = a[i]; while (x != 1 && n < 300) { x = (x & 1) ? 3 * x + 1 : x / 2; n++; } c[i] = n;
}
int squares(int n) __attribute__((noinline));
int squares(int n) { int r = 0; for (int i = 1; i <= n; i++) r += i * i; return r; }
kernel void calls(global const int* a, global int* c) { c[GID(x)] = squares(a[GID(x)] & 15) + 1; }
kernel void scratch(global const int* a, global int* c) {
  int t[16], i = GID(x), s = 0; for (int k = 0; k < 16; k++) t[k] = a[i] + k * k;
  for (int k = 0; k < 16; k++) s += t[(a[i] * k) & 15] * k; c[i] = s;
}
kernel void choose(global const int* a, global int* c) {
  int i = GID(x);
  switch (a[i] & 7) {
    case 0: c[i] = 1; break; case 1: c[i] = a[i] * 3; break; case 2: c[i] = -a[i]; break;
    case 3: c[i] = a[i] >> 2; break; case 5: c[i] = 99; break; default: c[i] = 7;
  }
}
kernel void lanes(global const int* a, global int* c) {
  int v = a[GID(x)], r = __builtin_amdgcn_readfirstlane(v), q = __builtin_amdgcn_ds_bpermute((LID(x) ^ 5) * 4, v);
  int w = __builtin_amdgcn_ds_swizzle(v, 0x041f), d = __builtin_amdgcn_update_dpp(0, v, 0x111, 0xf, 0xf, true);
  c[GID(x)] = r + 3*q + 5*w + 7*d + 11*__builtin_amdgcn_mbcnt_lo(~0u, 0) + 13*__builtin_amdgcn_readlane(v, 7);
}
kernel void bytes(global const uchar* a, global ushort* c, global char* d) {
  int i = GID(x); local ushort t[128]; t[LID(x)] = a[i] * 3; BARRIER();
  c[i] = t[127 - LID(x)]; d[i] = (char)(a[i] >> 1) - 5;
}
kernel void vectors(global const float4* a, global float4* c, global const half8* h, global half8* o) {
  int i = GID(x); c[i] = a[i] * 2.0f + a[i].wzyx; o[i] = h[i] * 2.0h + (half8)1.5h;
}
kernel void pointers(global int* a, global int* c) {
  local int t[64]; int l = LID(x); t[l] = l * 2; BARRIER();
  int* p = (a[GID(x)] & 1) ? (int*)&t[l] : (int*)&a[GID(x)]; c[GID(x)] = *p;
}
kernel void places(global int* c) { c[(GID(z) * 8 + GID(y)) * 16 + GID(x)] = GID(x) + 100 * GID(y) + 10000 * GID(z); }
kernel void tail(global const int* a, global int* c, int n) { int i = GID(x); if (i < n) c[i] = a[i] + 1; }
"""


class Runner:
    """Runs a kernel of SOURCE and gives its arrays."""

    def __init__(self, target: str, options: tuple[str, ...]):
        self.target, self.code = target, compile_opencl(SOURCE, target, *options)
        self.lanes = 64 if target.startswith("gfx9") or "-mwavefrontsize64" in options else 32
        self.rng = np.random.default_rng(SEED)
        self.small = self.rng.integers(-100, 100, 1024).astype("i4")

    def __call__(self, name: str, grid: tuple, group: tuple, *arguments: object) -> list[np.ndarray]:
        return launch(self.code, name, self.target, grid, group, *arguments)[0]


def reduce(run: Runner) -> None:
    a = run.rng.integers(0, 100, 1024).astype("f4")
    assert (run("reduce", (1024,), (256,), a, np.zeros(4, "f4"))[1] == a.reshape(4, 256).sum(1)).all()


def transpose(run: Runner) -> None:
    m = run.rng.integers(0, 1000, (64, 64)).astype("i4")
    assert (run("transpose", (64, 64), (16, 16), m, np.zeros_like(m), 64)[1] == m.T).all()


def scan(run: Runner) -> None:
    got = run("scan", (1024,), (256,), run.small, np.zeros(1024, "i4"))[1]
    assert (got == run.small.reshape(4, 256).cumsum(1).ravel()).all()


def atomics(run: Runner) -> None:
    a = run.small
    c = run("atomics", (1024,), (128,), a, np.zeros(8 + 1024, "i4"))[1]
    assert c[:6].tolist() == [a.sum(), max(0, a.max()), min(0, a.min()), np.bitwise_xor.reduce(a), -1, 1024]
    assert (np.sort(c[8:]) == np.arange(1024)).all()


def atomics64(run: Runner) -> None:
    a = run.small.astype("i8") << 40
    c = run("atomics64", (1024,), (128,), a, np.array([0, 0, -1], "i8"))[1]
    assert c[0] == a.sum() and c[1] == max(0, a.max()) and 0 <= c[2] < 1024


def histogram(run: Runner) -> None:
    a = run.rng.integers(0, 256, 1024).astype("u1")
    assert (
        run("histogram", (1024,), (256,), a, np.zeros(256, "i4"))[1] == np.bincount(a, minlength=256)
    ).all()


def collatz(run: Runner) -> None:
    def steps(x: int) -> int:
        n = 0
        while x != 1 and n < 300:
            x, n = (3 * x + 1 if x & 1 else x // 2), n + 1
        return n

    a = np.arange(1, 513).astype("i4")
    assert run("collatz", (512,), (128,), a, np.zeros_like(a))[1].tolist() == [steps(int(x)) for x in a]


def calls(run: Runner) -> None:
    got = run("calls", (1024,), (128,), run.small, np.zeros(1024, "i4"))[1]
    assert got.tolist() == [sum(i * i for i in range(1, (int(x) & 15) + 1)) + 1 for x in run.small]


def scratch(run: Runner) -> None:
    got = run("scratch", (1024,), (128,), run.small, np.zeros(1024, "i4"))[1]
    assert got.tolist() == [
        sum((int(x) + ((int(x) * k) & 15) ** 2) * k for k in range(16)) for x in run.small
    ]


def choose(run: Runner) -> None:
    got = run("choose", (1024,), (128,), run.small, np.zeros(1024, "i4"))[1]
    want = [{0: 1, 1: 3 * x, 2: -x, 3: x >> 2, 5: 99}.get(x & 7, 7) for x in map(int, run.small)]
    assert got.tolist() == want


def lanes(run: Runner) -> None:
    lane = np.arange(run.lanes)
    v = run.small.reshape(-1, run.lanes)
    shifted = np.where(lane & 15 >= 1, v[:, np.maximum(lane - 1, 0)], 0)
    want = (
        v[:, :1]
        + 3 * v[:, lane ^ 5]
        + 5 * v[:, lane ^ 1]
        + 7 * shifted
        + 11 * np.minimum(lane, 32)
        + 13 * v[:, 7:8]
    )
    assert (run("lanes", (1024,), (run.lanes,), run.small, np.zeros(1024, "i4"))[1] == want.ravel()).all()


def bytes_(run: Runner) -> None:
    a = run.rng.integers(0, 256, 1024).astype("u1")
    _, c, d = run("bytes", (1024,), (128,), a, np.zeros(1024, "u2"), np.zeros(1024, "i1"))
    assert (c == (a.astype("u2") * 3).reshape(-1, 128)[:, ::-1].ravel()).all() and (
        d == (a >> 1).astype("i1") - 5
    ).all()


def vectors(run: Runner) -> None:
    x, h = run.rng.integers(-99, 99, (256, 4)).astype("f4"), run.rng.integers(-99, 99, (256, 8)).astype("f2")
    _, c, _, o = run("vectors", (256,), (64,), x, np.zeros_like(x), h, np.zeros_like(h))
    assert (c == x * 2 + x[:, ::-1]).all() and (o == h * 2 + np.float16(1.5)).all()


def pointers(run: Runner) -> None:
    got = run("pointers", (1024,), (64,), run.small, np.zeros(1024, "i4"))[1]
    assert (got == np.where(run.small & 1, (np.arange(1024) % 64) * 2, run.small)).all()


def places(run: Runner) -> None:
    z, y, x = np.mgrid[0:4, 0:8, 0:16]
    assert (
        run("places", (16, 8, 4), (4, 4, 2), np.zeros(512, "i4"))[0] == (x + 100 * y + 10000 * z).ravel()
    ).all()


def tail(run: Runner) -> None:
    """A grid that its workgroups do not divide."""
    got = run("tail", (1000,), (128,), run.small, np.zeros(1024, "i4"), 990)[1]
    assert (got == np.where(np.arange(1024) < 990, run.small + 1, 0)).all()


KERNELS: tuple[Callable[[Runner], None], ...] = (
    reduce, transpose, scan, atomics, atomics64, histogram, collatz, calls, scratch, choose, lanes, bytes_, vectors,
    pointers, places, tail,
)  # fmt: skip
BUILDS = [
    (t, o)
    for t in TARGETS
    for o in ((), ("-O0",), ("-mwavefrontsize64",))
    if not (t[3] == "9" and "wave" in str(o))
]


@pytest.mark.parametrize(
    ("target", "options"), BUILDS, ids=lambda x: x if isinstance(x, str) else "".join(x) or "-O2"
)
def test_kernels_by_clang_equal_numpy(target: str, options: tuple[str, ...]) -> None:
    print(f"TG_SEED={SEED}")
    run = Runner(target, options)
    for kernel in KERNELS:
        kernel(run)
