"""Compile scalar and vector arithmetic: a row of the semantics tables and an instruction become a function.

The function reads all sources, evaluates the row's expression once for all waves of a group, and writes the results.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from tg_codegen.amdgpu.instruction import Instruction, Row
from tg_codegen.amdgpu.slots import RegisterSlot, Slot

from . import division, floats, integers
from .operands import Operands, field, has
from .scalar import SCALAR
from .vector import COMPARE, VECTOR
from .waves import EXEC, VCC, Group

__all__ = ["Facts", "Semantics", "compile_scalar", "compile_vector", "semantics"]

_NAMES = {n: getattr(m, n) for m in (floats, integers, division) for n in m.__all__}
_NAMES |= {"np": np, "U32": np.uint32, "U64": np.uint64, "W": np.int64, "F64": np.float64, "f32": np.float32,
           "two_sum": floats.two_sum}  # fmt: skip
_SUFFIX = re.compile(r"_([fiubc]+\d+)$")
Run = Callable[[Group], None]


class Semantics(NamedTuple):
    """A row of a table, compiled. `old` says that the expression needs the destination's old value."""

    results: tuple[str, ...]
    sources: tuple[str, ...]
    function: Callable
    old: bool
    packed: bool


class Facts(NamedTuple):
    """What an expression sees as `i`."""

    fp8: str
    bf8: str
    byte: int
    bitop3: int
    signs: tuple[int, int]


def _type_of(name: str) -> str:
    match = _SUFFIX.search(name)
    found = match[1] if match else "u32"
    return {"b16": "u16", "b32": "u32", "b64": "u64"}.get(found, found)


@cache
def semantics(text: str) -> dict[str, Semantics]:
    """A table's rows by name."""
    table = {}
    for line in text.strip().split("\n"):
        names, types, expression = (part.strip() for part in line.split("|", 2))
        code = compile(f"lambda g, i, R, d, a=None, b=None, c=None, e=None: {expression}", names, "eval")
        function = eval(code, dict(_NAMES))  # a row of our own table
        old = bool(re.search(r"\bd\b", expression))
        for name in names.split():
            kind = _type_of(name)
            results, *sources = re.sub(r"\bT\b", kind, types.replace("pT", "p" + kind)).split() or [""]
            table[name] = Semantics(tuple(filter(None, results.split(","))), tuple(sources), function, old,
                                    results[:2] in ("pf", "pu", "pi") and "pf32 u16" not in types)  # fmt: skip
    return table


def _facts(inst: Instruction, target: str) -> Facts:
    names = floats.FNUZ if target == "gfx942" else floats.OCP
    if has(inst, "byte_sel"):
        byte = field(inst, "byte_sel")
    else:
        byte = (
            field(inst, "sel2") | field(inst, "seld") << 1
            if "_sr_" in inst.row.mnemonic and has(inst, "op_sel")
            else 0
        )
    signs = (field(inst, "neg0"), field(inst, "neg1")) if has(inst, "neg_lo") else (0, 0)
    return Facts(names["fp8"], names["bf8"], byte, field(inst, "bitop3"), signs)


def _split(slots: tuple[Slot, ...]) -> tuple[list[Slot], list[Slot]]:
    """Destinations and sources; a destination that is also read counts as one, an exchange has its own function."""
    results = [s for s in slots if s.writes]
    return results, [s for s in slots if not s.writes]


def compile_scalar(inst: Instruction, ops: Operands) -> Run | None:
    """SOP1, SOP2, SOPC and SOPK arithmetic, or None where the table has no row."""
    name = inst.row.mnemonic.removeprefix("s_")
    if match := re.fullmatch(r"cmpk?_(\w+?)_([fiu]\d+)", name):
        return _scalar_compare(inst, ops, *match.groups())
    if match := re.fullmatch(r"(\w+)_(saveexec|wrexec)_b(32|64)", name):
        return _saveexec(inst, ops, *match.groups())
    row = semantics(SCALAR).get(name)
    if row is None:
        return None
    results, sources = _split(inst.row.operands)
    reads = [ops.source(s, t) for s, t in zip(sources, row.sources, strict=True)]
    writes = [None if t == "c" else ops.result(results[0], t) for t in row.results]
    old = ops.source(results[0], row.results[0]) if row.old else None
    size = 2 if "16" in row.results[0] else 4
    function = row.function

    def run(g: Group) -> None:
        d = old(g) if old else None
        value = function(g, None, g.round[size], d, *[read(g) for read in reads])
        for write, part in zip(writes, value if len(writes) > 1 else (value,), strict=True):
            if write is None:
                g.scc = part
            else:
                write(g, part, None)

    return run


def _scalar_compare(inst: Instruction, ops: Operands, relation: str, kind: str) -> Run:
    function = _comparison(relation if relation != "lg" or kind[0] == "f" else "ne")
    reads = [ops.source(s, kind) for s in inst.row.operands]

    def run(g: Group) -> None:
        g.scc = function(*[read(g) for read in reads])

    return run


_SAVE = {
    "and": "s & x", "or": "s | x", "xor": "s ^ x", "nand": "~(s & x)", "nor": "~(s | x)", "xnor": "~(s ^ x)",
    "andn1": "~s & x", "andn2": "s & ~x", "orn1": "~s | x", "orn2": "s | ~x", "and_not0": "~s & x",
    "and_not1": "s & ~x", "or_not0": "~s | x", "or_not1": "s | ~x",
}  # fmt: skip


def _saveexec(inst: Instruction, ops: Operands, relation: str, what: str, bits: str) -> Run:
    """exec = s0 op exec; saveexec keeps the old value, wrexec the new one."""
    function = eval(f"lambda s, x: {_SAVE[relation]}")
    kind = "u" + bits
    results, sources = _split(inst.row.operands)
    read, write = ops.source(sources[0], kind), ops.result(results[0], kind)

    def run(g: Group) -> None:
        old = g.sgpr64(EXEC) if bits == "64" else g.sgpr(EXEC).copy()
        new = np.broadcast_to(function(read(g), old), old.shape)
        write(g, old if what == "saveexec" else new, None)
        (g.set_sgpr64 if bits == "64" else g.set_sgpr)(EXEC, new)
        g.scc = new != 0

    return run


@cache
def _comparison(relation: str) -> Callable:
    return eval(f"lambda a, b: {COMPARE[relation]}")


def compile_vector(inst: Instruction, ops: Operands, target: str) -> Run | None:
    """VOP1 to VOP3P and VOPD, or None where the tables have no row."""
    row = inst.row
    if row.dual:
        names = row.mnemonic.split(" :: ")
        halves = [_step(inst, row, name.replace("v_dual_", ""), slots, ops, target) for name, slots in
                  zip(names, (row.operands[: row.dual], row.operands[row.dual :]), strict=True)]  # fmt: skip
        if None in halves:
            return None
        (x, write_x), (y, write_y) = halves

        def dual(g: Group) -> None:
            first, second = x(g), y(g)
            write_x(g, first)
            write_y(g, second)

        return dual
    name = row.mnemonic.removeprefix("v_")
    if match := re.fullmatch(r"(cmpx?)_(\w+)_([fiu]\d+)", name):
        return _compare(inst, ops, *match.groups())
    found = _step(inst, row, name, row.operands, ops, target)
    if found is None:
        return None
    evaluate, write = found

    def run(g: Group) -> None:
        write(g, evaluate(g))

    return run


def _step(
    inst: Instruction, row: Row, name: str, slots: tuple[Slot, ...], ops: Operands, target: str
) -> tuple[Callable, Callable] | None:
    """(evaluate, write) of a row."""
    meaning = semantics(VECTOR).get(name)
    if meaning is None:
        return None
    if not meaning.results:
        return lambda g: None, lambda g, x: None
    results, sources = _split(slots)
    if meaning.results == ("pair",):
        return _pair(
            results[0], [ops.source(s, t) for s, t in zip(sources, meaning.sources, strict=True)], ops
        )
    kinds = meaning.sources
    if len(sources) < len(kinds):
        assert kinds[-1] == "m" and len(sources) == len(kinds) - 1, f"{row.name}: sources do not fit its row"
        reads = [ops.source(s, t) for s, t in zip(sources, kinds, strict=False)] + [lambda g: g.lanes(VCC)]
    else:
        reads = [ops.source(s, t) for s, t in zip(sources, kinds, strict=True)]
    if has(inst, "clamp") and field(inst, "clamp") and meaning.results[0][-3] in "iu":
        reads = [
            _widened(r) if t[-3] in "iu" and len(t) >= 3 else r for r, t in zip(reads, kinds, strict=True)
        ]
    writes = [ops.result(s, t) for s, t in zip(results, meaning.results, strict=False)]
    old = ops.source(results[0], meaning.results[0]) if meaning.old else None
    facts, function = _facts(inst, target), meaning.function
    main = meaning.results[0]
    size = 8 if main.endswith("64") else 2 if main in ("f16", "pf16") else 4
    count = len(meaning.results)

    if meaning.packed:

        def evaluate(g: Group) -> object:
            parts = [read(g) for read in reads]
            d = old(g) if old else (None, None)
            mode = g.round[size]
            return tuple(function(g, facts, mode, d[k], *[p[k] for p in parts]) for k in (0, 1))

    else:

        def evaluate(g: Group) -> object:
            return function(g, facts, g.round[size], old(g) if old else None, *[read(g) for read in reads])

    enabled = ops.write_mask()
    if count == 1:
        only = writes[0]
        if enabled is None:
            return evaluate, lambda g, x: only(g, x, None)
        return evaluate, lambda g, x: only(g, x, enabled(g))

    def write(g: Group, values: tuple) -> None:
        mask = enabled(g) if enabled else None
        for w, x in zip(writes, values, strict=True):
            w(g, x, mask)

    return evaluate, write


def _pair(result: RegisterSlot, reads: list, ops: Operands) -> tuple[Callable, Callable]:
    """v_pk_mov_b32: the low result is the first source's half, the high one the second's, each as op_sel says."""
    write = ops.result(result, "pu32")
    return (lambda g: (reads[0](g)[0], reads[1](g)[0])), lambda g, x: write(g, x, None)


def _widened(read: Callable) -> Callable:
    """Integers in 64 bits, so that clamping sees what overflows."""

    def widened(g: Group) -> object:
        value = read(g)
        return (
            tuple(part.astype(np.int64) for part in value)
            if isinstance(value, tuple)
            else value.astype(np.int64)
        )

    return widened


def _compare(inst: Instruction, ops: Operands, what: str, relation: str, kind: str) -> Run:
    """v_cmp and v_cmpx; every active lane's bit is written, the others' are 0."""
    results, sources = _split(inst.row.operands)
    if relation == "class":
        reads = [ops.source(sources[0], kind), ops.source(sources[1], "u32")]
        function: Callable = _class
    else:
        reads, function = [ops.source(s, kind) for s in sources], _comparison(relation)
    write = ops.result(results[0], "m") if results else None
    to_exec = what == "cmpx"
    enabled = ops.write_mask()

    def run(g: Group) -> None:
        lanes = np.broadcast_to(function(*[read(g) for read in reads]), g.mask.shape) & g.mask
        if enabled is not None:
            lanes = lanes & enabled(g)
        if write is not None:
            write(g, lanes, None)
        if to_exec:
            g.set_lanes(EXEC, lanes)

    return run


def _class(x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Bits: signalling NaN, quiet NaN, -inf, -normal, -denormal, -0, +0, +denormal, +normal, +inf."""
    bits = {2: 10, 4: 23, 8: 52}[x.dtype.itemsize]
    unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[x.dtype.itemsize]
    quiet = (np.asarray(x).view(unsigned) >> unsigned(bits - 1) & unsigned(1)).astype(bool)
    negative, size = np.signbit(x), np.abs(x)
    normal = size >= np.finfo(x.dtype).tiny
    order = np.where(np.isinf(x), 3, np.where(normal, 2, np.where(size > 0, 1, 0)))
    code = np.where(np.isnan(x), np.where(quiet, 1, 0), np.where(negative, 5 - order, 6 + order))
    return (wanted >> code.astype(np.uint32) & 1).astype(bool)
