"""The nodes of the machine IR: what lowering writes and a target's selection reads.

A function is a list of statements; a statement is an instruction, a `Loop`, an `If` or an `Assign`. Control flow is
structured and the same for all lanes. A register is written once, by the statement that makes it, save those that an
`Assign` names: these carry values around a loop and are made before it. A register is read only after it is made, in
the same list or one nested in it.

Types: "index" is one 64-bit integer for addresses, counters and conditions. All others are data, of `Function.lanes`
lanes: "bool", "i32", "u32", "i64", "u64", "f32", "f64". `uniform` says that all lanes of a register are equal, which a
target may use. Narrower integers are i32 or u32 that lowering keeps extended; float16, bfloat16 and the float8 formats
are f32, converted by the `load`, `store`, `encode` and `decode` that name them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "DATA", "FLOATS", "INDEX", "INTEGERS", "LANES", "MEMORY_BYTES", "OPS", "Address", "Assign", "Function", "If",
    "Instr", "Loop", "Op", "Reg", "Statement",
]  # fmt: skip

INDEX = "index"
INTEGERS = ("i32", "u32", "i64", "u64")
FLOATS = ("f32", "f64")
DATA = ("bool", *INTEGERS, *FLOATS)

MEMORY_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip
"""Size of an element in memory, by the name of its dtype. A bool in memory is 0 or 1."""

LANES = ("one", "lanes", "each")
"""What an access touches: one element for all lanes; consecutive elements, one a lane; or each lane's own."""


class Op:
    """A row of the table: `takes` and `gives` are sets of types, `same` that all operands have the result's type."""

    __slots__ = ("arity", "gives", "meaning", "name", "takes")

    def __init__(self, name: str, arity: int, takes: str, gives: str, meaning: str):
        self.name, self.arity, self.meaning = name, arity, meaning
        self.takes, self.gives = _types(takes), _types(gives)

    def __repr__(self) -> str:
        return self.name


_SETS = {"data": DATA, "int": INTEGERS, "float": FLOATS, "number": (*INTEGERS, *FLOATS)}


def _types(words: str) -> tuple[str, ...]:
    """() stands for the type of the first operand."""
    return tuple(name for word in words.split() for name in _SETS.get(word, (word,)))


OPS: dict[str, Op] = {
    row[0]: Op(*row)
    for row in (
        # name      arity takes          gives         meaning; `gives` empty: the type of the last operand
        ("const", 0, "", "index data", "`attr`, the bits of the value (of an index: the integer)"),
        ("buffer", 0, "", "index", "the address of buffer parameter number `attr`"),
        ("scalar", 0, "", "index", "scalar parameter number `attr`"),
        ("begin", 0, "", "index", "the first workgroup of this call"),
        ("end", 0, "", "index", "the workgroup after the last of this call"),
        ("scratch", 0, "", "index", "the address of this call's scratch memory, aligned to 64 bytes"),
        ("lane", 0, "", "i32", "0, 1, ... lanes - 1"),
        ("broadcast", 1, "index", "int", "an index in every lane, wrapped to the type"),
        ("first", 1, "int", "index", "lane 0"),
        ("splat", 1, "data", "", "lane 0 in every lane"),
        ("down", 1, "data", "", "lane l holds lane l + `attr`; the last `attr` lanes hold anything"),
        ("up", 2, "data", "", "lane l holds a of lane l - `attr`, the first `attr` lanes their own of b"),
        ("neg", 1, "number index", "", "-a"),
        ("abs", 1, "number", "", "|a|"),
        ("not", 1, "bool int", "", "each bit flipped"),
        ("sqrt", 1, "float", "", "correctly rounded"),
        ("floor", 1, "float", "", "the greatest whole number <= a"),
        ("ceil", 1, "float", "", "the least whole number >= a"),
        ("trunc", 1, "float", "", "a without its fraction"),
        ("round", 1, "float", "", "the nearest whole number, ties to even"),
        ("add", 2, "number index", "", "a + b; integers wrap"),
        ("sub", 2, "number index", "", "a - b; integers wrap"),
        ("mul", 2, "number index", "", "a * b; integers wrap"),
        ("div", 2, "float", "", "correctly rounded"),
        ("fma", 3, "float", "", "a * b + c, rounded once"),
        ("mulhi", 2, "i32 u32", "", "the upper 32 bits of the product of 64"),
        ("floordiv", 2, "index number", "", "floor(a / b); an integer by 0 gives 0; floats as NumPy has it"),
        ("mod", 2, "index number", "", "a - b * floor(a / b); an integer by 0 gives 0; floats likewise"),
        ("min", 2, "number index", "", "the lesser; with a NaN either operand"),
        ("max", 2, "number index", "", "the greater; with a NaN either operand"),
        ("minimum", 2, "float", "", "the lesser; NaN where either operand is"),
        ("maximum", 2, "float", "", "the greater; NaN where either operand is"),
        ("and", 2, "bool int index", "", "bitwise; conditions of type index are 0 or 1"),
        ("or", 2, "bool int index", "", ""),
        ("xor", 2, "bool int", "", ""),
        ("shl", 2, "int", "", "a << b; 0 where b, as an unsigned number, is the width or more"),
        ("shr", 2, "int", "", "a >> b; 0 there, or -1 where a is negative"),
        ("lt", 2, "number index", "bool index", "a < b; of indices: 1 or 0"),
        ("le", 2, "number index", "bool index", "a <= b"),
        ("eq", 2, "number index", "bool index", "a == b"),
        ("ne", 2, "number index", "bool index", "a != b; true with a NaN"),
        ("select", 3, "data index", "", "b where a, else c; a is bool, for indices an index"),
        ("convert", 1, "number", "number", "to integer: truncates, saturates (NaN: 0); integers wrap; else to nearest"),
        ("bitcast", 1, "number", "number", "the same bits, of the same size"),
        ("extend", 1, "i32 u32", "", "the low `attr` bits, sign-extended (i32) or zero-extended (u32)"),
        ("mask", 1, "index", "bool", "lane l is true where l < a; false everywhere for a <= 0"),
        ("all", 1, "index", "bool", "every lane: whether a is not 0"),
        ("decode", 1, "u32", "f32", "the value of the low bits as a float of dtype `attr`"),
        ("encode", 1, "f32", "u32", "the bits of the value rounded to dtype `attr`"),
        ("exp", 1, "float", "", ""),
        ("exp2", 1, "float", "", ""),
        ("expm1", 1, "float", "", ""),
        ("log", 1, "float", "", ""),
        ("log2", 1, "float", "", ""),
        ("log1p", 1, "float", "", ""),
        ("sin", 1, "float", "", ""),
        ("cos", 1, "float", "", ""),
        ("atan", 1, "float", "", ""),
        ("tanh", 1, "float", "", ""),
        ("erf", 1, "float", "", ""),
        ("pow", 2, "number", "", "as tg_ir.elementwise has it"),
        ("load", 0, "", "data index", "elements of memory dtype `attr`; where the mask is false `other` or 0"),
        ("store", 1, "data", "", "write elements of memory dtype `attr`; lanes with a false mask are left alone"),
    )
}  # fmt: skip
"""Every operation. `expand.py` rewrites those that a target does not have, as they are built."""


class Reg:
    """A value of the function; identity is what counts, `number` is for printing."""

    __slots__ = ("number", "type", "uniform")

    def __init__(self, number: int, type: str, uniform: bool):
        self.number, self.type, self.uniform = number, type, uniform

    def __repr__(self) -> str:
        return f"%{self.number}"


@dataclass(frozen=True, slots=True)
class Address:
    """base + scale * index + disp, in bytes; with `each`, lane l adds size of an element * each[l]."""

    base: Reg
    index: Reg | None = None
    scale: int = 1
    disp: int = 0
    each: Reg | None = None


class Instr:
    """One operation. `dst` is None for a store alone; `mask` and `other` are for loads and stores.

    `access` is one of LANES for loads and stores. `volatile` loads and stores touch scratch memory, which the function
    itself writes: they keep their order among each other.
    """

    __slots__ = ("access", "address", "args", "attr", "dst", "mask", "op", "other", "volatile")

    def __init__(
        self,
        op: str,
        dst: Reg | None,
        args: tuple[Reg, ...] = (),
        attr: int | str = 0,
        address: Address | None = None,
        access: str = "",
        mask: Reg | None = None,
        other: Reg | None = None,
        volatile: bool = False,
    ):
        self.op, self.dst, self.args, self.attr = op, dst, args, attr
        self.address, self.access, self.mask, self.other, self.volatile = (
            address,
            access,
            mask,
            other,
            volatile,
        )


@dataclass(slots=True)
class Assign:
    """Write `source` to each carried register, all at once: `targets[i] = sources[i]`."""

    targets: tuple[Reg, ...]
    sources: tuple[Reg, ...]


@dataclass(slots=True)
class Loop:
    """`for counter in range(start, stop, step)`: counter, start and stop are indices, step > 0.

    `some` says that there is at least one iteration.
    """

    counter: Reg
    start: Reg
    stop: Reg
    step: int
    body: list[Statement] = field(default_factory=list)
    some: bool = False


@dataclass(slots=True)
class If:
    """The body where `condition`, an index, is not 0. It holds stores and what only they need."""

    condition: Reg
    body: list[Statement] = field(default_factory=list)


Statement = Instr | Assign | Loop | If


@dataclass(slots=True)
class Function:
    """A kernel for one target: `lanes` lanes, `scratch_bytes` of memory for each call."""

    name: str
    lanes: int
    body: list[Statement] = field(default_factory=list)
    scratch_bytes: int = 0
