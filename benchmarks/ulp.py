"""The greatest error of the elementary functions over all float32 arguments: `python benchmarks/ulp.py [NAME ...]`.

Machine code of this CPU makes every bit pattern, applies the float32 expansion and the float64 one, and keeps the worst
argument. The float64 functions stand for the exact result: the tests hold them to 2 ulps of float64 with mpmath as the
judge, which is 2**-28 of what is measured here. From 2**48 on, where those of sin and cos end, NumPy takes their place
on every 61st pattern. Errors are in units in the last place of the exact result; where a NaN, an infinity or a sign
is not what the exact result rounds to, the error is infinite.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import mmap
import time

import numpy as np

from tg_codegen.compiler import host_target
from tg_codegen.machine.build import Builder
from tg_codegen.machine.nodes import INDEX, Address, Function
from tg_codegen.machine.terms import Term, select
from tg_codegen.x86_64.backend import compile_function, expansions, lanes

NAMES = ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "atan", "tanh", "erf")
INF = math.inf
EXPONENT = 0x7FF << 52
LARGE = int(np.float32(2.0**48).view(np.uint32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--level", default=host_target().partition(":")[2], help="avx2, avx512 or amx")
    options = parser.parse_args()
    for name in options.names or NAMES:
        started = time.perf_counter()
        end = LARGE if name in ("sin", "cos") else 1 << 31
        worst, at, over = measure(name, options.level, end)
        if end == LARGE:
            worst, at, over = max((worst, at, over), measure_large(name, options.level))
        seconds = time.perf_counter() - started
        print(f"{name:5} {worst:.3f} ulp at {at!r}; over 1 ulp: {over} arguments; {seconds:.0f} s", flush=True)


def measure(name: str, level: str, end: int) -> tuple[float, float, int]:
    """The greatest error, its argument, and how many errors are over 1, of bit patterns under `end` with either sign."""
    function = Function(name, lanes(level))
    b = Builder(function, expansions(level))
    zero = b.const("f32", 0)
    worst, at = Term(b, b.carry(zero)), Term(b, b.carry(zero))
    over = Term(b, b.carry(b.const("u32", 0)))
    carried = (worst.reg, at.reg, over.reg)
    with b.loop(b.emit("begin", INDEX), b.emit("end", INDEX), carried=carried) as group:
        first = b.emit("mul", INDEX, group, b.index(function.lanes))
        lane = Term(b, b.emit("lane", "i32")).bits("u32")
        x = (Term(b, b.emit("broadcast", "u32", first)) + lane).bits("f32")
        error = error_term(x.emit(name), x.to("f64").emit(name))
        found = error > worst
        more = over + select(error > 1.0, over.const(1), 0)
        b.assign(carried, (select(found, error, worst).reg, select(found, x, at).reg, more.reg))
    for number, (reg, memory) in enumerate(zip(carried, ("float32", "float32", "uint32"), strict=True)):
        b.store(memory, Address(b.emit("buffer", INDEX, attr=number)), "lanes", reg)
    errors, arguments, counts = (np.zeros(function.lanes, dtype) for dtype in ("f4", "f4", "u4"))
    result, count = (-1.0, 0.0), 0
    call = load(compile_function(function, level)[0])
    for sign in (0, 1 << 31):
        call((errors, arguments, counts), sign // function.lanes, (sign + end) // function.lanes)
        most = int(errors.argmax())
        result = max(result, (float(errors[most]), float(arguments[most])))
        count += int(counts.sum())
    return *result, count


def error_term(got: Term, want: Term) -> Term:
    """The error of an f32 against an f64."""
    exponent = (want.bits("u64") & EXPONENT).bits("f64")
    unit = exponent.emit("maximum", 2.0**-126) * 2.0**-23
    error = (abs(got.to("f64") - want) / unit).to("f32")
    rounded = want.to("f32")
    difference = got.bits("i32") ^ rounded.bits("i32")
    same = (difference == 0) | ((got != got) & (rounded != rounded))
    plain = (abs(got) < INF) & (abs(rounded) < INF) & (difference >= 0)
    return select(plain, error, select(same, error.const(0.0), INF))


def measure_large(name: str, level: str) -> tuple[float, float, int]:
    """The same of every 61st pattern from 2**48 on, against NumPy."""
    function = Function(name, lanes(level))
    b = Builder(function, expansions(level))
    source, target = (b.emit("buffer", INDEX, attr=number) for number in range(2))
    with b.loop(b.emit("begin", INDEX), b.emit("end", INDEX)) as group:
        place = b.emit("mul", INDEX, group, b.index(4 * function.lanes))
        value = b.load("f32", "float32", Address(source, place), "lanes")
        b.store("float32", Address(target, place), "lanes", b.emit(name, "f32", value))
    x = np.arange(LARGE, 0xFF << 23, 61, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, -x])
    x = x[: x.size // function.lanes * function.lanes]
    got = np.empty_like(x)
    load(compile_function(function, level)[0])((x, got), 0, x.size // function.lanes)
    want = getattr(np, name)(x.astype(np.float64))
    error = np.abs(got - want) / np.ldexp(1.0, np.frexp(want)[1] - 24)
    most = int(error.argmax())
    return float(error[most]), float(x[most]), int((error > 1).sum())


class load:
    """Code as a function of arrays and of the workgroups to run."""

    def __init__(self, code: bytes):
        self.memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)

    def __call__(self, arrays: tuple[np.ndarray, ...], begin: int, end: int) -> None:
        block = (ctypes.c_uint64 * len(arrays))(*[array.ctypes.data for array in arrays])
        self.entry(ctypes.addressof(block), begin, end)


if __name__ == "__main__":
    main()
