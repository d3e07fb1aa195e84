"""The greatest error of each elementary function over all 2**32 float32 arguments: `python benchmarks/ulp.py [NAME ...]`.

The expansions of tg_codegen run as machine code of this CPU; NumPy's float64 functions are the exact results (of erf
PyTorch's). Errors are in units in the last place of the exact result. --step N takes every Nth bit pattern.
Where one result is NaN or infinite, or has another sign, and the exact one does not, the error is infinite.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import time
from collections.abc import Callable

import numpy as np

from tg_codegen.compiler import host_target
from tg_codegen.machine.build import Builder
from tg_codegen.machine.expand import EXPANSIONS
from tg_codegen.machine.nodes import INDEX, Address, Function
from tg_codegen.x86_64.backend import compile_function, expansions, lanes

CHUNK = 1 << 18
MOST = float(np.finfo(np.float32).max)
NAMES = ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "atan", "tanh", "erf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--step", type=int, default=1, help="take every Nth bit pattern")
    parser.add_argument("--level", default=host_target().partition(":")[2], help="avx2, avx512 or amx")
    options = parser.parse_args()
    for name in options.names or NAMES:
        run, count = compile_unary(name, options.level)
        started, busy, worst, at, over = time.perf_counter(), 0.0, -1.0, np.float32(0), 0
        for start in range(0, 1 << 32, CHUNK * options.step):
            patterns = np.arange(
                start, min(start + CHUNK * options.step, 1 << 32), options.step, dtype=np.uint32
            )
            x = np.zeros(CHUNK, np.float32)
            x[: patterns.size] = patterns.view(np.float32)
            before = time.perf_counter()
            got = run(x)
            busy += time.perf_counter() - before
            error = errors(got, exact(name, x.astype(np.float64)))
            most = int(error.argmax())
            over += int((error > 1).sum())
            if error[most] > worst:
                worst, at = float(error[most]), x[most]
        speed = (1 << 32) / options.step / busy / 1e9
        print(
            f"{name:5} {worst:.3f} ulp at {float(at)!r}; over 1 ulp: {over}; {count} operations; "
            f"{speed:.2f} G results/s; {time.perf_counter() - started:.0f} s",
            flush=True,
        )


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64."""
    if name == "erf":
        import torch

        return torch.erf(torch.from_numpy(x)).numpy()
    with np.errstate(all="ignore"):
        return {"atan": np.arctan}.get(name, getattr(np, name, None))(x)


def errors(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """In ulps of a float32 of the size of the exact result."""
    with np.errstate(all="ignore"):
        exponent = want.view(np.int64) & (0x7FF << 52)
        unit = (np.maximum(exponent, (1023 - 126) << 52) - (23 << 52)).view(np.float64)
        error = np.abs(got - want) / unit
        rounded = want.astype(np.float32)
    signs = got.view(np.int32) ^ rounded.view(np.int32)
    odd = ~(np.isfinite(got) & np.isfinite(rounded)) | (signs < 0)
    if odd.any():
        same = (got == rounded) & (signs >= 0) | (np.isnan(got) & np.isnan(rounded))
        error[odd] = np.where(same[odd], 0, np.inf)
    return error


def compile_unary(name: str, level: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """The operation on an array of `CHUNK` elements, and how many operations of the machine IR it is."""
    function = Function(name, lanes(level))
    b = Builder(function, {**EXPANSIONS, **expansions(level)})
    source, target = (b.emit("buffer", INDEX, attr=number) for number in range(2))
    with b.loop(b.emit("begin", INDEX), b.emit("end", INDEX)) as group:
        scale = 4 * function.lanes
        place = b.emit("mul", INDEX, group, b.index(scale))
        value = b.load("f32", "float32", Address(source, place), "lanes")
        b.store("float32", Address(target, place), "lanes", b.emit(name, "f32", value))
    made = [s.op for s in function.body[-1].body]
    count = len(made) - made.count("bitcast") - 3  # those, and the address, load and store
    code, _ = compile_function(function, level)
    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    entry = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(entry)

    def run(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        block = (ctypes.c_uint64 * 2)(x.ctypes.data, out.ctypes.data)
        call(ctypes.addressof(block), 0, x.size // function.lanes)
        return out

    run.memory = memory
    return run, count


if __name__ == "__main__":
    main()
