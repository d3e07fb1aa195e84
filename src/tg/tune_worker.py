"""The process that times candidates: a line of JSON in, a line of JSON out. What it runs may crash it or hang it."""

from __future__ import annotations

import json
import struct
import sys
import time

from tg.binaries import compile_kernel
from tg_ir.kernel.text import parse_kernel
from tg_ir.symbolic import evaluate
from tg_runtime_cpu import CpuRuntime

__all__ = ["main"]

_ONES = {"float32": struct.pack("f", 1.0), "float64": struct.pack("d", 1.0), "float16": struct.pack("e", 1.0)}
_ONES["bfloat16"] = _ONES["float32"][2:]


def main() -> None:
    """Answer requests until there are no more."""
    runtime = CpuRuntime("CPU")
    for line in sys.stdin:
        request = json.loads(line)
        kernel = parse_kernel(request["kernel"])
        loaded = runtime.load(compile_kernel(kernel, request["target"], request["plan"]))
        scalars = {var.name: var.high for var in kernel.scalars}
        buffers = []
        for parameter in kernel.parameters:
            count = int(evaluate(parameter.size, scalars))
            memory = runtime.alloc(count * parameter.dtype.itemsize)
            one = _ONES.get(parameter.dtype.name, bytes(parameter.dtype.itemsize))  # a valid index is 0
            memory.view[:] = one * count
            buffers.append(memory)
        best, spent = float("inf"), 0.0
        while spent < 0.05:
            start = time.perf_counter()
            runtime.launch(loaded, buffers, scalars)
            runtime.synchronize()
            seconds = time.perf_counter() - start
            best, spent = min(best, seconds), spent + seconds
        for memory in buffers:
            runtime.free(memory)
        print(json.dumps({"seconds": best}), flush=True)


if __name__ == "__main__":
    main()
