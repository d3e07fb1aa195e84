"""The interpreter of the program IR: steps in order on real arenas, so that a wrong memory plan gives wrong numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tg_ir.errors import EvaluationError
from tg_ir.kernel.interpret import interpret_kernel
from tg_ir.numpy_dtypes import decode, encode, numpy_dtype
from tg_ir.program.nodes import Collective, Copy, Launch, Program
from tg_ir.symbolic import evaluate

__all__ = ["arena_bytes", "interpret_program"]

_UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
_POISON = 0xA5


def arena_bytes(program: Program, scalars: Mapping[str, int] | None = None) -> dict[str, int]:
    """How large the arena of each device is for these scalars."""
    sizes: dict[str, int] = {}
    for slot in program.buffers:
        if slot.offset is not None:
            end = int(evaluate(slot.offset + slot.size_bytes, scalars or {}))
            sizes[slot.device] = max(sizes.get(slot.device, 0), end)
    return sizes


def interpret_program(
    program: Program, given: Mapping[int, np.ndarray], scalars: Mapping[str, int] | None = None
) -> dict[int, np.ndarray]:
    """Run the program on flat storage arrays for its inputs, constants and states; states are changed in place.

    Returns:
        The outputs and states by buffer number.

    Raises:
        EvaluationError: a buffer that the caller has to fill is missing or of the wrong dtype or size.
    """
    scalars = scalars or {}
    arenas = {
        device: np.full(size, _POISON, np.uint8) for device, size in arena_bytes(program, scalars).items()
    }
    memory: list[np.ndarray] = []
    for number, slot in enumerate(program.buffers):
        size, dtype = int(evaluate(slot.size, scalars)), numpy_dtype(slot.dtype)
        if slot.offset is not None:
            start = int(evaluate(slot.offset, scalars))
            memory.append(arenas[slot.device][start : start + size * dtype.itemsize].view(dtype))
        elif slot.role == "output":
            memory.append(np.full(size * dtype.itemsize, _POISON, np.uint8).view(dtype))
        else:
            array = given.get(number)
            if array is None or array.dtype != dtype or array.shape != (size,):
                have = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
                raise EvaluationError(
                    f"program {program.name}: buffer {number} ({slot.role}) is {have}, want flat {dtype}[{size}]"
                )
            memory.append(array)
    for step in program.steps:
        match step:
            case Launch():
                kernel = program.kernel[step.kernel]
                names = [parameter.name for parameter in kernel.parameters]
                arrays = [memory[number] for number in step.buffers]
                interpret_kernel(kernel, dict(zip(names, arrays, strict=True)), scalars)
            case Copy():
                memory[step.target][...] = memory[step.source]
            case Collective():
                result = _collective(program, step, memory)
                for number in step.targets:
                    memory[number][...] = result
    return {number: memory[number] for number in program.numbers("output", "state")}


def _collective(program: Program, step: Collective, memory: list[np.ndarray]) -> np.ndarray:
    if step.kind == "gather":
        return np.concatenate([memory[number] for number in step.sources])
    dtype = program.buffers[step.sources[0]].dtype
    total, *others = [decode(memory[number], dtype) for number in step.sources]
    for array in others:
        total = _UFUNCS[step.kind](total, array)
    return encode(total, dtype)
