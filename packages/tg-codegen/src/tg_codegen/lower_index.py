"""Symbolic integers in terms of machine IR: addresses, conditions, and indices as data.

An expression at a point is a sum: of multiples of index registers, a constant, a multiple of the lane, and a register
with a part of its own for each lane. What depends on no lane stays in index registers, so that it is computed once,
outside the loops that do not change it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tg_codegen.analyse import Analysis, linear_terms
from tg_codegen.machine.build import Builder
from tg_codegen.machine.nodes import INDEX, Address, Reg
from tg_ir.kernel import Loaded, Value
from tg_ir.symbolic import Expr, SymInt, Var, bounds
from tg_ir.symbolic_nodes import (
    And,
    Eq,
    FloorDiv,
    Le,
    Max,
    Min,
    Mod,
    Ne,
    Or,
    Product,
    Select,
    Sum,
)

__all__ = ["Indexer", "LinearSum"]

_BINARY = {FloorDiv: "floordiv", Mod: "mod", Min: "min", Max: "max", And: "and", Or: "or", Product: "mul"}
_COMPARE = {Le: "le", Eq: "eq", Ne: "ne"}
_I32 = (-(1 << 31), (1 << 31) - 1)


Point = tuple[tuple[str, int], ...]
"""Offsets along some axes."""


@dataclass(slots=True)
class LinearSum:
    """const + sum of coefficient * register + lane * number of the lane + each."""

    const: int
    terms: list[tuple[Reg, int]]
    lane: int = 0
    each: Reg | None = None

    @property
    def varies(self) -> bool:
        """Whether lanes differ."""
        return self.lane != 0 or self.each is not None


class Indexer:
    """Builds the indices of one nest. The owner keeps `position` and `lane_axis` true as loops open and close.

    `position(axis, point)` gives a register and a constant that add up to where an axis stands (of the lane axis: where
    lane 0 stands); `scalar(name)` a scalar parameter; `value(value, point)` the register of a loaded value.
    """

    def __init__(
        self,
        b: Builder,
        analysis: Analysis,
        position: Callable[[str, Point], tuple[Reg, int] | None],
        scalar: Callable[[str], Reg],
        value: Callable[[Value, Point], Reg],
    ):
        self.b, self.analysis = b, analysis
        self.position, self.scalar, self.value = position, scalar, value
        self.lane_axis: str | None = None

    def varies(self, expr: SymInt) -> bool:
        """Whether lanes see different values."""
        return self.lane_axis is not None and self.lane_axis in self.analysis.free_expr(expr)

    # ---- sums

    def sum(self, expr: SymInt, point: Point, type: str = "i32") -> LinearSum:
        """An expression at a point; `type` is that of the part for each lane."""
        const, atoms = linear_terms(expr)
        made = LinearSum(const, [])
        for atom, factor in atoms:
            if isinstance(atom, Var):
                where = self.position(atom.name, point)
                if where is None:
                    made.terms.append((self.scalar(atom.name), factor))
                    continue
                reg, offset = where
                made.const += factor * offset
                known = self.b.value_of(reg)
                if known is None:
                    made.terms.append((reg, factor))
                else:
                    made.const += factor * known
                if atom.name == self.lane_axis:
                    made.lane += factor
            elif self.varies(atom):
                part = self.data(atom, point, type)
                if factor != 1:
                    part = self.b.emit("mul", type, part, self._number(type, factor))
                made.each = part if made.each is None else self.b.emit("add", type, made.each, part)
            else:
                made.terms.append((self.index(atom, point), factor))
        return made

    def _number(self, type: str, value: int) -> Reg:
        return self.b.const(type, value & ((1 << (64 if type.endswith("64") else 32)) - 1))

    def total(self, made: LinearSum, scale: int = 1) -> Reg:
        """The part that all lanes share, times `scale`, as one register: what changes least is added first."""
        b = self.b
        total = None
        for reg, factor in sorted(made.terms, key=lambda term: b.depth_of(term[0])):
            part = b.emit("mul", INDEX, reg, b.index(factor * scale)) if factor * scale != 1 else reg
            total = part if total is None else b.emit("add", INDEX, total, part)
        if total is None:
            return b.index(made.const * scale)
        return b.emit("add", INDEX, total, b.index(made.const * scale)) if made.const else total

    def address(self, base: Reg, expr: SymInt, point: Point, size: int) -> tuple[Address, str]:
        """Where the element of `size` bytes at an index lies, and what an access there touches."""
        type = "i64" if self.varies(expr) and not self._fits(expr) else "i32"
        return self.place(base, self.sum(expr, point, type), size, type)

    def place(self, base: Reg, made: LinearSum, size: int, type: str) -> tuple[Address, str]:
        """The address of element number `made`, and what an access there touches."""
        b = self.b
        terms = sorted(made.terms, key=lambda term: b.depth_of(term[0]))
        index, scale = None, 1
        if terms:
            reg, factor = terms.pop()
            if factor == 1:
                index, scale = reg, size
            else:
                index = b.emit("mul", INDEX, reg, b.index(factor * size))
        for reg, factor in terms:
            part = b.emit("mul", INDEX, reg, b.index(factor * size)) if factor * size != 1 else reg
            base = b.emit("add", INDEX, base, part)
        disp = made.const * size
        if not -(1 << 30) < disp < 1 << 30:
            base, disp = b.emit("add", INDEX, base, b.index(disp)), 0
        if not made.varies:
            return Address(base, index, scale, disp), "one"
        if made.each is None and made.lane == 1:
            return Address(base, index, scale, disp), "lanes"
        each = made.each
        if made.lane:
            lane = self._lane(type, made.lane)
            each = lane if each is None else b.emit("add", type, each, lane)
        return Address(base, index, scale, disp, each), "each"

    def _lane(self, type: str, factor: int) -> Reg:
        b = self.b
        lane = b.emit("lane", "i32")
        if type != "i32":
            lane = b.emit("convert", type, lane)
        return lane if factor == 1 else b.emit("mul", type, lane, self._number(type, factor))

    def _fits(self, expr: SymInt) -> bool:
        """Whether everything in an expression fits 32 bits."""
        if isinstance(expr, int):
            return _I32[0] <= expr <= _I32[1]
        return _I32[0] <= expr.low and expr.high <= _I32[1] and all(map(self._fits, expr.operands))

    # ---- one integer for all lanes

    def index(self, expr: SymInt, point: Point) -> Reg:
        """An expression that is the same in all lanes."""
        b = self.b
        if isinstance(expr, int):
            return b.index(expr)
        kind = type(expr)
        if kind is Sum or kind is Var:
            return self.total(self.sum(expr, point))
        if kind is Loaded:
            return b.emit("first", INDEX, self.value(expr.source, point))
        if kind in _BINARY:
            result, *rest = [self.index(operand, point) for operand in expr.operands]
            for operand in rest:
                result = b.emit(_BINARY[kind], INDEX, result, operand)
            return result
        if kind in _COMPARE:
            return b.emit(_COMPARE[kind], INDEX, self.index(expr.expr, point), b.index(0))
        assert kind is Select, f"no code for {kind.__name__}"
        return b.emit("select", INDEX, *[self.index(operand, point) for operand in expr.operands])

    # ---- integers and truths for each lane

    def data(self, expr: SymInt, point: Point, type: str) -> Reg:
        """An expression as data of an integer type, wrapped to it."""
        b = self.b
        if isinstance(expr, int):
            return self._number(type, expr)
        if not self.varies(expr):
            known = b.value_of(reg := self.index(expr, point))
            return b.emit("broadcast", type, reg) if known is None else self._number(type, known)
        kind = expr.__class__
        if kind is Sum or kind is Var:
            made = self.sum(expr, point, type)
            result = made.each
            if made.lane:
                lane = self._lane(type, made.lane)
                result = lane if result is None else b.emit("add", type, result, lane)
            if made.terms:
                shared = b.emit("broadcast", type, self.total(made))
            elif made.const:
                shared = self._number(type, made.const)
            else:
                return result
            return b.emit("add", type, result, shared)
        if kind is Loaded:
            source = self.value(expr.source, point)
            return source if source.type == type else b.emit("convert", type, source)
        if kind in (And, Or) or kind in _COMPARE:
            one, zero = self._number(type, 1), self._number(type, 0)
            return b.emit("select", type, self.mask(expr, point), one, zero)
        if kind in _BINARY:
            result, *rest = [self.data(operand, point, type) for operand in expr.operands]
            for operand in rest:
                result = b.emit(_BINARY[kind], type, result, operand)
            return result
        assert kind is Select, f"no code for {kind.__name__}"
        yes, no = self.data(expr.yes, point, type), self.data(expr.no, point, type)
        return b.emit("select", type, self.mask(expr.condition, point), yes, no)

    def wide_data(self, expr: SymInt, point: Point, type: str) -> Reg:
        """An expression as data, computed wide enough and then wrapped to a type."""
        width = "i32" if self._fits(expr) else "i64"
        if isinstance(expr, Var | int) or type == width:
            return self.data(expr, point, type)
        return self.b.emit("convert", type, self.data(expr, point, width))

    def mask(self, expr: SymInt, point: Point) -> Reg:
        """A condition (an expression that is 0 or 1) as a truth for each lane."""
        b = self.b
        if not self.varies(expr):
            return b.emit("all", "bool", self.index(expr, point))
        kind = type(expr)
        if kind in (And, Or):
            result, *rest = [self.mask(operand, point) for operand in expr.operands]
            for operand in rest:
                result = b.emit(_BINARY[kind], "bool", result, operand)
            return result
        inner: Expr = expr.expr if kind in _COMPARE else expr
        width = "i32" if self._fits(inner) else "i64"
        op = _COMPARE.get(kind, "ne")
        return b.emit(op, "bool", self.data(inner, point, width), self._number(width, 0))

    def conditions(self, guard: SymInt, point: Point) -> tuple[Reg | None, Reg | None]:
        """A guard as (an index for what all lanes share, a mask for the rest); None where that is always true."""
        shared: Reg | None = None
        mask: Reg | None = None
        for part in guard.args if isinstance(guard, And) else (guard,):
            if bounds(part)[0] > 0:
                continue
            if self.varies(part):
                own = self.mask(part, point)
                mask = own if mask is None else self.b.emit("and", "bool", mask, own)
            else:
                own = self.index(part, point)
                if isinstance(part, Expr) and bounds(part) != (0, 1):
                    own = self.b.emit("ne", INDEX, own, self.b.index(0))
                shared = own if shared is None else self.b.emit("and", INDEX, shared, own)
        return shared, mask
