"""The interpreter of the machine IR: NumPy, one operation at a time over all lanes. It defines what a function means.

An index is a Python integer, data an array of `lanes` elements. Memory is made of byte arrays at made-up addresses,
4 GiB apart, so that whatever leaves a buffer is noticed. What the IR leaves open comes out in the way that is least
likely to be right by chance: `min` and `max` drop a NaN, `down` fills with ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from tg_codegen.machine.build import FOLDS
from tg_codegen.machine.nodes import (
    INDEX,
    MEMORY_BYTES,
    OPS,
    Assign,
    Function,
    If,
    Instr,
    Loop,
    Reg,
    Statement,
)
from tg_ir import dtypes
from tg_ir.errors import EvaluationError
from tg_ir.numeric import evaluate_elementwise
from tg_ir.numpy_dtypes import cast, compute_dtype, decode, encode, numpy_dtype

__all__ = ["DTYPE", "interpret"]

Value = int | np.ndarray

DTYPE = {
    "bool": dtypes.bool_, "i32": dtypes.int32, "u32": dtypes.uint32, "i64": dtypes.int64, "u64": dtypes.uint64,
    "f32": dtypes.float32, "f64": dtypes.float64,
}  # fmt: skip
"""The dtype of each type of data."""

_GAP = 32  # bits of an address within a buffer
_ELEMENTWISE = {"div", "floordiv", "mod", "sqrt", "floor", "ceil", "trunc", "round"} | {
    *(
        "add",
        "sub",
        "mul",
        "neg",
        "abs",
        "minimum",
        "maximum",
        "and",
        "or",
        "xor",
        "shl",
        "shr",
        "lt",
        "le",
        "eq",
        "ne",
    ),
    *("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "atan", "tanh", "erf", "pow"),
}


def interpret(
    function: Function,
    buffers: Sequence[np.ndarray],
    scalars: Sequence[int] = (),
    begin: int = 0,
    end: int = 1,
) -> None:
    """Run the workgroups `begin` to `end` on flat, contiguous arrays, which are changed in place.

    Raises:
        EvaluationError: an access outside of every buffer.
    """
    run = _Run(function, buffers, scalars, begin, end)
    with np.errstate(all="ignore"):
        run.block(function.body)


class _Run:
    def __init__(
        self, function: Function, buffers: Sequence[np.ndarray], scalars: Sequence[int], begin: int, end: int
    ):
        self.function, self.lanes = function, function.lanes
        scratch = np.full(function.scratch_bytes, 0xA5, np.uint8)
        self.memory = [buffer.reshape(-1).view(np.uint8) for buffer in buffers] + [scratch]
        self.scalars, self.begin, self.end = scalars, begin, end
        self.values: dict[Reg, Value] = {}

    def block(self, statements: list[Statement]) -> None:
        values = self.values
        for statement in statements:
            match statement:
                case Instr():
                    if statement.op == "store":
                        self.store(statement)
                    else:
                        values[statement.dst] = (
                            self.load(statement) if statement.op == "load" else self.compute(statement)
                        )
                case Loop():
                    for counter in range(values[statement.start], values[statement.stop], statement.step):
                        values[statement.counter] = counter
                        self.block(statement.body)
                case If():
                    if values[statement.condition]:
                        self.block(statement.body)
                case Assign():
                    values.update(zip(statement.targets, [values[r] for r in statement.sources], strict=True))

    def compute(self, instr: Instr) -> Value:
        args = [self.values[reg] for reg in instr.args]
        if all(isinstance(arg, int) for arg in args) and instr.dst.type == INDEX:
            return self.index_op(instr, args)
        return self.data_op(
            instr, args, numpy_dtype(DTYPE[instr.dst.type]) if instr.dst.type != INDEX else None
        )

    def index_op(self, instr: Instr, args: list[int]) -> int:
        match instr.op:
            case "const":
                return _wrap(instr.attr)
            case "buffer":
                return (instr.attr + 1) << _GAP
            case "scratch":
                return len(self.memory) << _GAP
            case "scalar":
                return int(self.scalars[instr.attr])
            case "begin" | "end":
                return self.begin if instr.op == "begin" else self.end
        return _wrap(_INDEX_OPS[instr.op](*args))

    def data_op(self, instr: Instr, args: list[Value], dtype: np.dtype | None) -> Value:
        op, attr, lanes = instr.op, instr.attr, self.lanes
        if op in _ELEMENTWISE:
            return evaluate_elementwise(op, args, DTYPE[instr.dst.type])
        a = args[0] if args else None
        match op:
            case "const":
                return np.full(lanes, attr, f"u{dtype.itemsize}").view(dtype)
            case "lane":
                return np.arange(lanes, dtype=dtype)
            case "broadcast":
                return np.full(lanes, a & (1 << 8 * dtype.itemsize) - 1, f"u{dtype.itemsize}").view(dtype)
            case "first":
                return int(a[0])
            case "splat":
                return np.full(lanes, a[0])
            case "down":
                return np.concatenate([a[attr:], np.full(attr * dtype.itemsize, 0xFF, np.uint8).view(dtype)])
            case "up":
                return np.concatenate([args[1][:attr], a[: max(lanes - attr, 0)]])
            case "not":
                return ~a
            case "fma":
                return _fma32(*args) if dtype == np.float32 else _fma64(*args)
            case "mulhi":
                wide = np.dtype(f"{dtype.kind}8")
                return (a.astype(wide) * args[1].astype(wide) >> wide.type(32)).astype(dtype)
            case "min" | "max":
                return (np.fmin if op == "min" else np.fmax)(a, args[1])
            case "select":
                return np.where(a, args[1], args[2])
            case "convert":
                return cast(a, DTYPE[instr.args[0].type], DTYPE[instr.dst.type])
            case "bitcast":
                return a.view(dtype)
            case "extend":
                return (a << dtype.type(32 - attr)) >> dtype.type(32 - attr)
            case "mask":
                return np.arange(lanes) < a
            case "all":
                return np.full(lanes, a != 0)
            case "decode":
                dtype = dtypes.dtype_of(attr)
                stored = a.astype(f"u{MEMORY_BYTES[attr]}").view(numpy_dtype(dtype))
                return decode(stored, dtype).astype(np.float32)
            case "encode":
                bits = encode(a, dtypes.dtype_of(attr))
                return bits.view(f"u{bits.dtype.itemsize}").astype(dtype)
        raise AssertionError(f"no meaning for {op}")

    # ---- memory --------------------------------------------------------------------------------------------

    def bytes_of(self, instr: Instr, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The buffer that an access is in, and the offset of each byte of each active element."""
        address, size = instr.address, MEMORY_BYTES[instr.attr]
        start = self.values[address.base] + address.disp
        start += address.scale * self.values[address.index] if address.index is not None else 0
        each = {"one": 0, "lanes": size * np.arange(self.lanes)}.get(instr.access)
        if each is None:
            each = size * self.values[address.each].astype(np.int64)
        places = np.broadcast_to(np.int64(start) + each, self.lanes)[active]
        number = int(places[0] >> _GAP)
        offsets = places - (number << _GAP)
        memory = self.memory[number - 1] if 0 < number <= len(self.memory) else np.zeros(0, np.uint8)
        if offsets.min() < 0 or offsets.max() + size > memory.size:
            raise EvaluationError(
                f"{self.function.name}: {instr.op} of {instr.attr} at bytes {offsets.min()} to "
                f"{offsets.max() + size - 1} of buffer {number - 1}, which has {memory.size}"
            )
        return memory, offsets[:, None] + np.arange(size)

    def load(self, instr: Instr) -> Value:
        if instr.dst.type == INDEX:
            memory, places = self.bytes_of(instr, np.arange(self.lanes) == 0)
            return int(memory[places].view(numpy_dtype(dtypes.dtype_of(instr.attr)))[0, 0])
        active = np.ones(self.lanes, bool) if instr.mask is None else self.values[instr.mask]
        dtype = compute_dtype(DTYPE[instr.dst.type])
        result = np.zeros(self.lanes, dtype) if instr.other is None else self.values[instr.other].copy()
        if active.any():
            memory, places = self.bytes_of(instr, active)
            source = dtypes.dtype_of(instr.attr)
            result[active] = decode(memory[places].view(numpy_dtype(source))[:, 0], source).astype(dtype)
        return result

    def store(self, instr: Instr) -> None:
        active = np.ones(self.lanes, bool) if instr.mask is None else self.values[instr.mask]
        if active.any():
            memory, places = self.bytes_of(instr, active)
            bits = encode(self.values[instr.args[0]][active], dtypes.dtype_of(instr.attr))
            memory[places] = np.ascontiguousarray(bits).view(np.uint8).reshape(places.shape)


def _wrap(value: int) -> int:
    """An index is a signed integer of 64 bits."""
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


_INDEX_OPS: dict[str, Callable[..., int]] = {
    **FOLDS, "neg": lambda a: -a, "select": lambda a, b, c: b if a else c,
}  # fmt: skip


# ---- fused multiply-add ------------------------------------------------------------------------------------


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded sum and its error, exactly. Source: Knuth, TAOCP 2, 4.2.2, theorem B."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _add_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b, where inexact rounded to the neighbour with an odd last bit: rounding once more cannot go wrong.

    Source: Boldo, Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 57 (2008).
    """
    total, error = _two_sum(a, b)
    bits = total.view(np.int64)
    step = np.where((error > 0) == (total > 0), 1, -1)
    return np.where((error != 0) & np.isfinite(error) & (bits & 1 == 0), bits + step, bits).view(np.float64)


def _fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    wide = np.float64
    return _add_to_odd(a.astype(wide) * b.astype(wide), c.astype(wide)).astype(
        np.float32
    )  # the product is exact


def _fma64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    product = a * b
    halves = []
    for x in (a, b):
        shifted = x * (2.0**27 + 1)
        high = shifted - (shifted - x)
        halves.append((high, x - high))
    (ah, al), (bh, bl) = halves
    error = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    high, low = _two_sum(c, error)
    high, rest = _two_sum(product, high)
    result = np.where(product == 0, product + c, high + _add_to_odd(rest, low))
    largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(product), np.abs(c)))
    extreme = (largest > 2.0**990) | (np.abs(product) < 2.0**-900)
    extreme &= (a != 0) & (b != 0) & np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    result = np.where(np.isfinite(product) & np.isfinite(c), result, product + c)
    result = np.where(np.isfinite(a) & np.isfinite(b) & np.isinf(c), c, result)
    for lane in np.flatnonzero(extreme):
        exact = Fraction(float(a[lane])) * Fraction(float(b[lane])) + Fraction(float(c[lane]))
        try:
            result[lane] = float(exact) if exact else product[lane] + c[lane]
        except OverflowError:
            result[lane] = np.inf if exact > 0 else -np.inf
        if exact and result[lane] == 0 and exact < 0:
            result[lane] = -0.0
    return result


assert set(_INDEX_OPS) | _ELEMENTWISE <= set(OPS), "a meaning of an operation that does not exist"
