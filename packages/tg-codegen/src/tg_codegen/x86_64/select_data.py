"""Rules for data: (operation, type of the result) -> what selects it. A row of a table is a mnemonic for each type.

Lanes of 64 bits take two registers, the lower lanes in the first; a rule works on both alike unless it says otherwise.
A bool is a mask register with AVX-512, and with AVX2 a vector of 32-bit lanes, 0 or -1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache

from tg_codegen.machine.code import VReg
from tg_codegen.machine.nodes import Instr, Reg
from tg_codegen.x86_64.operands import Pool, Source, V
from tg_codegen.x86_64.select import Parts, Rule, Selector

__all__ = [
    "blend", "compare", "data_rules", "halves", "join", "lift", "logic", "narrow", "part_masks", "size_of", "split",
    "zero",
]  # fmt: skip

_TYPES = ("f32", "f64", "i32", "u32", "i64", "u64")
_BINARY = """
add   vaddps  vaddpd  vpaddd    vpaddd    vpaddq    vpaddq
sub   vsubps  vsubpd  vpsubd    vpsubd    vpsubq    vpsubq
mul   vmulps  vmulpd  vpmulld   vpmulld   vpmullq   vpmullq
div   vdivps  vdivpd
min   vminps  vminpd  vpminsd   vpminud   vpminsq   vpminuq
max   vmaxps  vmaxpd  vpmaxsd   vpmaxud   vpmaxsq   vpmaxuq
and   -       -       vpandd    vpandd    vpandq    vpandq
or    -       -       vpord     vpord     vporq     vporq
xor   -       -       vpxord    vpxord    vpxorq    vpxorq
shl   -       -       vpsllvd   vpsllvd   vpsllvq   vpsllvq
shr   -       -       vpsravd   vpsrlvd   vpsravq   vpsrlvq
"""
_UNARY = """
sqrt  vsqrtps     vsqrtpd
floor vroundps:9  vroundpd:9
ceil  vroundps:10 vroundpd:10
trunc vroundps:11 vroundpd:11
round vroundps:8  vroundpd:8
abs   -           -           vpabsd  -   vpabsq
"""
_NOT_AVX2 = {"vpmullq", "vpminsq", "vpminuq", "vpmaxsq", "vpmaxuq", "vpsravq", "vpabsq"}
_RENAMED = {
    False: {f"vp{op}{size}": f"vp{op}" for op in ("and", "or", "xor") for size in "dq"},
    True: {"vroundps": "vrndscaleps", "vroundpd": "vrndscalepd"},
}
_COMMUTES = {"add", "mul", "min", "max", "and", "or", "xor", "eq", "ne"}
_SIGN = {4: 1 << 31, 8: 1 << 63}
_ONES = {4: (1 << 32) - 1, 8: (1 << 64) - 1}


def size_of(type: str) -> int:
    return 8 if type.endswith("64") else 4


def lift(s: Selector, opcode: str, *columns: Sequence[Source], **options: Source) -> Parts:
    """An instruction on each part; a column of one serves both, and equal parts are computed once."""
    count = max(map(len, columns))
    results: list[VReg] = []
    for i in range(count):
        row = [column[i] if len(column) > 1 else column[0] for column in columns]
        if i and all(len(column) == 1 or column[1] is column[0] for column in columns):
            results.append(results[0])
        else:
            results.append(s.op(opcode, *row, **options))
    return tuple(results)


# ---- arithmetic


def _binary(opcode: str, commutes: bool) -> Rule:
    def rule(s: Selector, instr: Instr) -> Parts:
        a, b = instr.args
        if commutes and s.foldable(a) and not s.foldable(b):
            a, b = b, a
        return lift(s, opcode, s.parts(a), s.operands(b))

    return rule


def _shift(opcode: str) -> Rule:
    """Shifts by a constant have an immediate."""
    variable, immediate = _binary(opcode, False), opcode.replace("v", "").replace("ps", "vps", 1)

    def rule(s: Selector, instr: Instr) -> Parts:
        count = s.bits.get(instr.args[1])
        if count is None:
            return variable(s, instr)
        return lift(s, immediate, s.parts(instr.args[0]), (min(count.attr, 255),))

    return rule


def _unary(opcode: str, *immediate: int) -> Rule:
    def rule(s: Selector, instr: Instr) -> Parts:
        return lift(s, opcode, s.operands(instr.args[0]), *[(i,) for i in immediate])

    return rule


def logic(s: Selector, op: str, a: Sequence[Source], b: Sequence[Source]) -> Parts:
    """Bitwise, on vectors."""
    return lift(s, f"vp{op}" + "q" * s.wide, a, b)


def _with_bits(op: str, bits: Callable[[int], int]) -> Rule:
    """A bitwise operation with a constant that depends on the size."""

    def rule(s: Selector, instr: Instr) -> Parts:
        size = size_of(instr.dst.type)
        constant = s.pool(bits(size), size)
        return lift(s, f"vp{op}" + ("q" if size == 8 else "d") * s.wide, s.parts(instr.args[0]), (constant,))

    return rule


def _negate(s: Selector, instr: Instr) -> Parts:
    return lift(
        s,
        "vpsub" + "q" * (size_of(instr.dst.type) == 8) + "d" * (size_of(instr.dst.type) == 4),
        (zero(s),),
        s.operands(instr.args[0]),
    )


def zero(s: Selector) -> VReg:
    """All bits 0."""
    if ("bits", "i32", 0) not in s.made:
        s.made["bits", "i32", 0] = s.constant("i32", 0)
    return s.made["bits", "i32", 0][0]


def _fma(s: Selector, instr: Instr) -> Parts:
    """a * b + c in the form whose result overwrites what is not needed any more.

    231: c += a * memory; 213: a = a * b + memory; 132: a = a * memory + c.
    """
    a, b, c = instr.args
    suffix = "ps" if instr.dst.type == "f32" else "pd"
    over_c = s.targets.get(instr.dst) is (s.targets.get(c) or c) or s.last_use(c)
    if s.foldable(a) and not s.foldable(b):
        a, b = b, a
    if s.last_use(b) and not s.last_use(a) and not s.foldable(b):
        a, b = b, a
    if s.foldable(c) and not (over_c and c in s.values):
        form, tied, x, y = "213", s.parts(a), s.parts(b), s.operands(c)
    elif over_c or not s.last_use(a):
        form, tied, x, y = "231", s.parts(c), s.parts(a), s.operands(b)
    elif s.foldable(b):
        form, tied, x, y = "132", s.parts(a), s.parts(c), s.operands(b)
    else:
        form, tied, x, y = "213", s.parts(a), s.parts(b), s.operands(c)
    count = len(tied)
    same = all(column[0] is column[-1] for column in (tied, x, y))
    made = [s.op(f"vfmadd{form}{suffix}", x[i], y[i], tied=tied[i]) for i in range(1 if same else count)]
    return tuple(made * (count if same else 1))


def _multiply_64(s: Selector, instr: Instr) -> Parts:
    """From products of 32 bits: the upper halves' product leaves no trace."""
    a, b = s.parts(instr.args[0]), s.parts(instr.args[1])
    crossed = lift(
        s,
        "vpaddq",
        lift(s, "vpmuludq", a, lift(s, "vpsrlq", b, (32,))),
        lift(s, "vpmuludq", lift(s, "vpsrlq", a, (32,)), b),
    )
    return lift(s, "vpaddq", lift(s, "vpmuludq", a, b), lift(s, "vpsllq", crossed, (32,)))


def _multiply_high(s: Selector, instr: Instr) -> Parts:
    opcode = "vpmuldq" if instr.dst.type == "i32" else "vpmuludq"
    a, b = s.parts(instr.args[0]), s.parts(instr.args[1])
    even = lift(s, opcode, a, b)
    odd = lift(s, opcode, lift(s, "vpsrlq", a, (32,)), lift(s, "vpsrlq", b, (32,)))
    return logic(s, "or", lift(s, "vpsrlq", even, (32,)), logic(s, "and", odd, (s.pool(_ONES[4] << 32, 8),)))


def _shift_arithmetic_64(s: Selector, instr: Instr) -> Parts:
    a, b = s.parts(instr.args[0]), s.operands(instr.args[1])
    sign = lift(s, "vpcmpgtq", (zero(s),), a)
    return logic(s, "xor", lift(s, "vpsrlvq", logic(s, "xor", a, sign), b), sign)


def _extend(s: Selector, instr: Instr) -> Parts:
    a, bits = s.parts(instr.args[0]), instr.attr
    if bits == 32:
        return a
    if instr.dst.type == "u32":
        return lift(s, "vpand" + "d" * s.wide, a, (s.pool((1 << bits) - 1, 4),))
    return lift(s, "vpsrad", lift(s, "vpslld", a, (32 - bits,)), (32 - bits,))


# ---- comparisons and what they choose

_FLOAT_PREDICATES = {"eq": 0, "lt": 0x11, "le": 0x12, "ne": 4, "gt": 0x1E, "ge": 0x1D, "ord": 7, "unord": 3}
_INT_PREDICATES = {"eq": 0, "lt": 1, "le": 2, "ne": 4, "ge": 5, "gt": 6}


def compare(s: Selector, op: str, type: str, a: Sequence[VReg], b: Sequence[Source]) -> Parts:
    """The outcome for each part: masks of its lanes."""
    size = size_of(type)
    letter = "q" if size == 8 else "d"
    if type[0] == "f":
        predicate = (_FLOAT_PREDICATES[op],)
        return lift(s, "vcmppd" if size == 8 else "vcmpps", a, b, predicate, kind="k" if s.wide else "")
    if s.wide:
        opcode = "vpcmp" + "u" * (type[0] == "u") + letter
        return lift(s, opcode, a, b, (_INT_PREDICATES[op],), kind="k")
    if op in ("eq", "ne"):
        found = lift(s, f"vpcmpeq{letter}", a, b)
    else:
        if type[0] == "u":
            bias = (s.pool(_SIGN[size], size),)
            a = logic(s, "xor", a, bias)
            b = logic(s, "xor", [s.loaded(x) for x in b], bias)
        found = lift(s, f"vpcmpgt{letter}", a, b)
    return found


def negated(s: Selector, op: str, type: str) -> bool:
    """Whether AVX2 finds the opposite: it has no more than equal and greater."""
    return not s.wide and type[0] != "f" and op in ("ne", "le")


def join_masks(s: Selector, parts: Sequence[VReg]) -> VReg:
    """A bool from masks of its parts."""
    if len(parts) == 1:
        return parts[0]
    if s.wide:
        return s.op("kunpckbw", parts[1], parts[0], kind="k")
    return s.op("vpermq", s.op("vshufps", parts[0], parts[1], 0x88), 0xD8)


def part_masks(s: Selector, mask: VReg, count: int) -> Parts:
    """Masks of the parts from a bool."""
    if count == 1:
        return (mask,)
    if s.wide:
        return mask, s.op("kshiftrw", mask, 8, kind="k")
    return s.op("vpmovsxdq", V(mask, "x")), s.op("vpmovsxdq", split(s, mask, 1))


def _compare(op: str) -> Rule:
    def rule(s: Selector, instr: Instr) -> Parts:
        (a, b), type, how = instr.args, instr.args[0].type, op
        greater = not s.wide and type[0] != "f" and how == "lt"  # b > a
        if greater or (how in ("eq", "ne") and s.foldable(a) and not s.foldable(b)):
            a, b = b, a
        found = join_masks(s, compare(s, how, type, s.parts(a), s.operands(b)))
        return (_invert(s, found),) if negated(s, op, type) else (found,)

    return rule


def _invert(s: Selector, mask: VReg) -> VReg:
    if s.wide:
        return s.op("knotw", mask, kind="k")
    return s.op("vpxor", mask, s.pool(_ONES[4], 4))


def blend(s: Selector, size: int, masks: Sequence[VReg], yes: Sequence[Source], no: Sequence[VReg]) -> Parts:
    """Parts of `yes` where their masks are true, else of `no`."""
    count = max(len(yes), len(no))
    made = []
    for i in range(count):
        y, n, m = yes[i % len(yes)], no[i % len(no)], masks[i % len(masks)]
        if s.wide:
            made.append(s.op("vblendmps" if size == 4 else "vblendmpd", n, y, mask=m))
        else:
            made.append(s.op("vblendvps", n, y, m))
    return tuple(made)


def _select(s: Selector, instr: Instr) -> Parts:
    condition, yes, no = instr.args
    size = size_of(instr.dst.type)
    masks = part_masks(s, s.parts(condition)[0], size // 4)
    if not s.wide and no in s.bits and s.bits[no].attr == 0:
        return lift(s, "vpand", masks, s.operands(yes))
    return blend(s, size, masks, s.operands(yes), s.parts(no))


def _select_bool(s: Selector, instr: Instr) -> Parts:
    condition, yes, no = [s.parts(reg)[0] for reg in instr.args]
    if not s.wide:
        return (s.op("vblendvps", no, yes, condition),)
    yes = s.op("kandw", condition, yes, kind="k")
    return (s.op("korw", yes, s.op("kandnw", condition, no, kind="k"), kind="k"),)


def _quiet_extreme(name: str) -> Rule:
    """min and max give their second operand where either is a NaN; a NaN in the first remains to be seen to."""

    def rule(s: Selector, instr: Instr) -> Parts:
        (a, b), type = instr.args, instr.dst.type
        if b in s.bits or (
            a in s.carried and a not in s.bits
        ):  # what is accumulated waits for less as the second
            a, b = b, a
        opcode = name + ("ps" if type == "f32" else "pd")
        first, second = s.parts(a), s.operands(b)
        found = lift(s, opcode, first, second)
        if a in s.bits and not _is_nan(s.bits[a].attr, size_of(type)):
            return found
        return blend(s, size_of(type), compare(s, "unord", type, first, first), first, found)

    return rule


def _is_nan(bits: int, size: int) -> bool:
    return bits & _SIGN[size] - 1 > (0x7F800000 if size == 4 else 0x7FF0 << 48)


# ---- lanes


def split(s: Selector, value: VReg, i: int) -> V:
    """The lower or upper half of a register, as a register of half the width."""
    if i == 0:
        return V(value, s.half)
    upper = s.op("vextracti64x4" if s.wide else "vextracti128", value, 1, kind=s.half)
    return V(upper, s.half)


def join(s: Selector, low: VReg, high: VReg) -> VReg:
    """A register from two halves."""
    return s.op("vinserti64x4" if s.wide else "vinserti128", low, V(high, s.half), 1)


def halves(s: Selector, opcode: str, source: Sequence[VReg], *tail: int) -> Parts:
    """An instruction that widens half a register: both halves of one."""
    return tuple([s.op(opcode, split(s, source[0], i), *tail) for i in (0, 1)])


def narrow(s: Selector, opcode: str, parts: Sequence[VReg], *tail: int) -> Parts:
    """An instruction that halves a register, on both parts of a value."""
    return (join(s, *[s.op(opcode, part, *tail, kind=s.half) for part in parts]),)


def align(s: Selector, high: VReg, low: VReg, size_bytes: int) -> VReg:
    """The register that starts so many bytes into low and goes on in high."""
    if size_bytes == 0:
        return low
    if s.wide:
        return s.op("valignd", high, low, size_bytes // 4)
    middle = s.op("vperm2i128", low, high, 0x21)
    if size_bytes == 16:
        return middle
    a, b = (middle, low) if size_bytes < 16 else (high, middle)
    return s.op("vpalignr", a, b, size_bytes % 16)


def _down(s: Selector, instr: Instr) -> Parts:
    parts = s.parts(instr.args[0])
    whole, rest = divmod(instr.attr * size_of(instr.dst.type), s.vector_bytes)
    at = [parts[min(i + whole, len(parts) - 1)] for i in range(len(parts) + 1)]
    return tuple([align(s, at[i + 1], at[i], rest) for i in range(len(parts))])


def _up(s: Selector, instr: Instr) -> Parts:
    a, b = s.parts(instr.args[0]), s.parts(instr.args[1])
    whole, rest = divmod(instr.attr * size_of(instr.dst.type), s.vector_bytes)
    made = []
    for i in range(len(a)):
        if i < whole:
            made.append(b[i])
        elif rest == 0:
            made.append(a[i - whole])
        else:
            below = a[i - whole - 1] if i > whole else align(s, b[i], b[i], rest)
            made.append(align(s, a[i - whole], below, s.vector_bytes - rest))
    return tuple(made)


def _down_mask(s: Selector, instr: Instr) -> Parts:
    return (s.op("kshiftrw", s.parts(instr.args[0])[0], instr.attr, kind="k"),)


def _up_mask(s: Selector, instr: Instr) -> Parts:
    a, b = [s.parts(reg)[0] for reg in instr.args]
    first = s.op("kmovw", V(s.op("mov", (1 << instr.attr) - 1, kind="d"), "d"), kind="k")
    moved = s.op("kshiftlw", a, instr.attr, kind="k")
    return (s.op("korw", moved, s.op("kandw", first, b, kind="k"), kind="k"),)


def _splat(s: Selector, instr: Instr) -> Parts:
    type = instr.dst.type
    low = s.parts(instr.args[0])[0]
    if type == "bool" and s.wide:
        bit = s.op("and", 1, kind="d", tied=s.op("kmovw", low, kind="d"))
        return (s.op("kmovw", V(s.op("neg", kind="d", tied=bit), "d"), kind="k"),)
    size = size_of(type)
    return (s.op("vpbroadcastq" if size == 8 else "vpbroadcastd", V(low, "x")),) * (size // 4)


def _broadcast(s: Selector, instr: Instr) -> Parts:
    return spread(s, instr.args[0], size_of(instr.dst.type))


def spread(s: Selector, index: Reg, size: int) -> Parts:
    """An index in every lane."""
    opcode, kind = ("vpbroadcastq", "q") if size == 8 else ("vpbroadcastd", "d")
    source = V(s.gpr(index), kind)
    if not s.wide:
        source = V(s.op("vmovq" if size == 8 else "vmovd", source, kind="x"), "x")
    return (s.op(opcode, source),) * (size // 4)


def numbers(s: Selector, size: int) -> tuple[Pool, ...]:
    """0, 1, 2, ... in the lanes."""
    lanes = s.vector_bytes // size
    letter = "Q" if size == 8 else "I"
    return tuple(
        [Pool(struct.pack(f"<{lanes}{letter}", *range(i * lanes, (i + 1) * lanes))) for i in range(size // 4)]
    )


def _lane(s: Selector, instr: Instr) -> Parts:
    return (s.op("vmovups", numbers(s, 4)[0]),)


def _mask(s: Selector, instr: Instr) -> Parts:
    count = spread(s, instr.args[0], 8)
    kind = "k" if s.wide else ""
    return (join_masks(s, lift(s, "vpcmpgtq", count, numbers(s, 8), kind=kind)),)


def _all(s: Selector, instr: Instr) -> Parts:
    value = spread(s, instr.args[0], 8)[0]
    if s.wide:
        return (join_masks(s, [s.op("vptestmq", value, value, kind="k")] * 2),)
    return (_invert(s, s.op("vpcmpeqq", value, zero(s))),)


# ---- the table


@cache
def data_rules(wide: bool) -> dict[tuple[str, str], Rule]:
    """The rules of AVX-512, or of AVX2."""
    rules: dict[tuple[str, str], Rule] = {}
    renamed = _RENAMED[wide]
    for line in filter(None, (_BINARY + _UNARY).splitlines()):
        op, *names = line.split()
        for type, name in zip(_TYPES, names, strict=False):
            name, _, immediate = name.partition(":")
            if name == "-" or (name in _NOT_AVX2 and not wide):
                continue
            name = renamed.get(name, name)
            if op in ("shl", "shr"):
                rules[op, type] = _shift(name)
            elif line in _UNARY:
                rules[op, type] = _unary(name, *([int(immediate)] if immediate else []))
            else:
                rules[op, type] = _binary(name, op in _COMMUTES)
    for type in _TYPES:
        rules["select", type] = _select
        rules["down", type], rules["up", type], rules["splat", type] = _down, _up, _splat
        rules["bitcast", type] = lambda s, i: s.parts(i.args[0])
        if type[0] == "f":
            rules["fma", type] = _fma
            rules["neg", type] = _with_bits("xor", _SIGN.__getitem__)
            rules["abs", type] = _with_bits("and", lambda size: _SIGN[size] - 1)
            for op in ("minimum", "maximum"):
                rules[op, type] = _quiet_extreme(f"v{op[:3]}")
        else:
            rules["neg", type], rules["broadcast", type] = _negate, _broadcast
            rules["not", type] = _with_bits("xor", _ONES.__getitem__)
            if type[0] == "u":
                rules["abs", type] = lambda s, i: s.parts(i.args[0])
            if size_of(type) == 4:
                rules["mulhi", type], rules["extend", type] = _multiply_high, _extend
    if not wide:
        rules["shr", "i64"] = _shift_arithmetic_64
        rules["mul", "i64"] = rules["mul", "u64"] = _multiply_64
        for type in ("i64", "u64"):
            rules["min", type], rules["max", type] = _extreme_64("min"), _extreme_64("max")
        rules["abs", "i64"] = _absolute_64
    for op in ("lt", "le", "eq", "ne"):
        rules[op, "bool"] = _compare(op)
    for op in ("and", "or", "xor"):
        rules[op, "bool"] = (
            (lambda opcode: lambda s, i: (s.op(opcode, *[s.parts(a)[0] for a in i.args], kind="k"),))(
                f"k{op}w"
            )
            if wide
            else _binary(f"vp{op}", True)
        )
    rules["not", "bool"] = lambda s, i: (_invert(s, s.parts(i.args[0])[0]),)
    rules["select", "bool"], rules["splat", "bool"] = _select_bool, _splat
    rules["down", "bool"], rules["up", "bool"] = (_down_mask, _up_mask) if wide else (_down, _up)
    rules["mask", "bool"], rules["all", "bool"], rules["lane", "i32"] = _mask, _all, _lane
    return rules


def _extreme_64(op: str) -> Rule:
    def rule(s: Selector, instr: Instr) -> Parts:
        a, b = s.parts(instr.args[0]), s.parts(instr.args[1])
        greater = compare(s, "gt", instr.dst.type, a, b)
        return blend(s, 8, greater, *((b, a) if op == "min" else (a, b)))

    return rule


def _absolute_64(s: Selector, instr: Instr) -> Parts:
    a = s.parts(instr.args[0])
    sign = lift(s, "vpcmpgtq", (zero(s),), a)
    return lift(s, "vpsubq", logic(s, "xor", a, sign), sign)
