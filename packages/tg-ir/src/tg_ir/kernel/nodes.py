"""The kernel IR: what the scheduler writes and the code generator reads.

A kernel is an algorithm: stores over named axes, each of a scalar value computed from loads at integer indices, with
reductions and scans over axes of their own inside. It says nothing about tiles, threads or vectors.

Values are immutable and interned; a value is a function of the axes that its indices mention. Indices, guards and
extents are symbolic integers (tg_ir.symbolic) over axis variables, the kernel's scalar parameters, and `Loaded` leaves,
which hold integers that were themselves loaded.

An axis name means one axis in a store. A reduction inside another may run over the same axis anew: its arguments mean
its own points, and its result depends on none of them.

Memory: a load reads what the buffer held before the kernel. A buffer that is both loaded and stored (`update`) is
loaded only at the very index at which a store over the same axes writes it, so that it is enough to load all that a
point needs before storing any of it. Distinct iterations of a store
write distinct elements unless its `combine` says how they come together; `set` then keeps the last in row-major order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tg_ir.dtypes import DType, bool_, constant, from_bits, to_bits
from tg_ir.elementwise import ELEMENTWISE, result_dtype
from tg_ir.errors import DTypeError, VerifyError
from tg_ir.interning import Interner
from tg_ir.symbolic import Expr, Leaf, SymInt, Var, bounds, leaves

if TYPE_CHECKING:
    from tg_ir.kernel.monoids import Monoid

__all__ = [
    "ACCESS",
    "COMBINES",
    "Argument",
    "Axis",
    "Bitcast",
    "Cast",
    "Const",
    "Elementwise",
    "Field",
    "Index",
    "Kernel",
    "Load",
    "Loaded",
    "Parameter",
    "Part",
    "Reduce",
    "Scan",
    "Store",
    "Value",
    "children",
    "roots",
    "toposort",
]

ACCESS = ("read", "write", "update")
COMBINES = ("", "set", "sum", "prod", "max", "min")


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop without an order: `name` runs over 0 <= name < extent."""

    name: str
    extent: SymInt

    @property
    def index(self) -> SymInt:
        """The variable of the axis, to build indices with; 0 where the extent is 1 at most."""
        high = bounds(self.extent)[1] - 1
        return Var(self.name, 0, high, below=self.extent) if high > 0 else 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """A buffer that the kernel is given: `size` elements of `dtype`, contiguous."""

    name: str
    dtype: DType
    size: SymInt
    access: str = "read"


class Value:
    """A scalar, as a function of axes. Fields are those of the subclass, in order; equal values are one object."""

    __slots__ = ("__weakref__", "digest", "dtype")
    fields: ClassVar[tuple[str, ...]] = ()
    dtype: DType
    digest: int

    def __new__(cls, *given: Field) -> Value:
        key = (cls, *given)
        self = _interned.find(key)
        if self is None:
            self = object.__new__(cls)
            if len(given) != len(cls.fields):
                raise TypeError(f"{cls.__name__}: got {len(given)} fields, want {', '.join(cls.fields)}")
            for name, field in zip(cls.fields, given, strict=True):
                setattr(self, name, field)
            self.dtype = self._type()
            self.digest = hash((zlib.crc32(cls.__name__.encode()), *map(_digest, given)))
            self = _interned.add(key, self)
        return self

    def _type(self) -> DType:
        """The dtype; raises if the fields break the rule of the class."""
        raise AssertionError(f"{type(self).__name__} has no rule for its dtype")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.dtype}>"

    def __reduce__(self) -> tuple[type, tuple[Field, ...]]:
        return type(self), tuple([getattr(self, name) for name in self.fields])


_interned: Interner[Value] = Interner()


class Const(Value):
    """A number, given by the bits of its dtype: `Const.of(0.5, float32)`."""

    __slots__ = fields = ("bits", "type")
    bits: int
    type: DType

    @staticmethod
    def of(value: float | int | bool, dtype: DType) -> Const:
        """The number rounded to `dtype`."""
        return Const(to_bits(constant(value, dtype), dtype), dtype)

    @property
    def value(self) -> float | int | bool:
        """The number as Python has it."""
        return from_bits(self.bits, self.type)

    def _type(self) -> DType:
        return self.type


class Index(Value):
    """An integer or truth computed from axes: a symbolic integer as a value."""

    __slots__ = fields = ("expr", "type")
    expr: SymInt
    type: DType

    def _type(self) -> DType:
        if self.type.kind not in ("int", "uint", "bool"):
            raise DTypeError(f"index: got {self.type}, want an integer dtype or bool; cast the value")
        return self.type


class Load(Value):
    """An element of a buffer where `guard` is not 0, else `other`; nothing is read then."""

    __slots__ = fields = ("parameter", "index", "guard", "other")
    parameter: Parameter
    index: SymInt
    guard: SymInt
    other: Value

    @staticmethod
    def of(parameter: Parameter, index: SymInt, guard: SymInt = 1, other: float = 0) -> Load:
        """A load whose `other` is a number."""
        return Load(parameter, index, guard, Const.of(other, parameter.dtype))

    def _type(self) -> DType:
        if self.other.dtype is not self.parameter.dtype:
            raise DTypeError(
                f"load: {self.parameter.name} is {self.parameter.dtype} and other {self.other.dtype}"
            )
        return self.parameter.dtype


class Elementwise(Value):
    """An operation of tg_ir.elementwise."""

    __slots__ = fields = ("name", "args")
    name: str
    args: tuple[Value, ...]

    def _type(self) -> DType:
        return result_dtype(ELEMENTWISE[self.name], tuple([arg.dtype for arg in self.args]))


class Cast(Value):
    """The value converted to `type`."""

    __slots__ = fields = ("arg", "type")
    arg: Value
    type: DType

    def _type(self) -> DType:
        return self.type


class Bitcast(Value):
    """The bits read as `type`, of the same size."""

    __slots__ = fields = ("arg", "type")
    arg: Value
    type: DType

    def _type(self) -> DType:
        if self.type.itemsize != self.arg.dtype.itemsize or bool_ in (self.type, self.arg.dtype):
            raise DTypeError(
                f"bitcast: {self.arg.dtype} to {self.type}; want two dtypes of one size, neither bool"
            )
        return self.type


class Argument(Value):
    """A component of a monoid's left or right operand, in the value that combines them."""

    __slots__ = fields = ("side", "position", "type")
    side: str
    position: int
    type: DType

    def _type(self) -> DType:
        return self.type


class _Fold(Value):
    """What reductions and scans share: a monoid over tuples of values."""

    __slots__ = ()
    monoid: Monoid
    args: tuple[Value, ...]

    def _type(self) -> DType:
        have = tuple([arg.dtype for arg in self.args])
        if have != self.monoid.dtypes:
            raise DTypeError(f"{self.monoid.name}: got {have}, want {self.monoid.dtypes}")
        return have[0]


class Reduce(_Fold):
    """The tuples `args` combined over all of `axes`; `Part` takes a component. Without elements: the identity."""

    __slots__ = fields = ("monoid", "axes", "args")
    axes: tuple[Axis, ...]


class Scan(_Fold):
    """The tuples `args` combined over positions 0 to the present one of `axis`, which is an axis around it."""

    __slots__ = fields = ("monoid", "axis", "args")
    axis: Axis


class Part(Value):
    """A component of a reduction's or scan's result."""

    __slots__ = fields = ("fold", "position")
    fold: Reduce | Scan
    position: int

    def _type(self) -> DType:
        if not 0 <= self.position < len(self.fold.args):
            raise VerifyError(f"part: {self.position} of {len(self.fold.args)} components")
        return self.fold.monoid.dtypes[self.position]


Field = Value | Parameter | Axis | SymInt | DType | str | tuple


class Loaded(Leaf):
    """A leaf of symbolic integers: a value known to lie in low..high, used in an index."""

    __slots__ = ("source",)
    source: Value

    def __new__(cls, source: Value, low: int, high: int) -> Loaded:
        key = (cls, source, low, high)
        self = _loaded.find(key)
        if self is None:
            if source.dtype.kind not in ("int", "uint"):
                raise DTypeError(f"loaded index: got {source.dtype}, want an integer dtype")
            self = object.__new__(cls)
            Leaf.__init__(self, "loaded", low, high, digest=source.digest)
            self.source = source
            self = _loaded.add(key, self)
        return self

    def __init__(self, source: Value, low: int, high: int):
        pass  # __new__ did it, once for each object

    def __reduce__(self) -> tuple[type, tuple[Value, int, int]]:
        return Loaded, (self.source, self.low, self.high)


_loaded: Interner[Loaded] = Interner()


def _digest(field: Field) -> int:
    """The same in every process, unlike a hash."""
    match field:
        case Expr():
            return field.order[2]
        case Value():
            return field.digest
        case Axis():
            return hash((zlib.crc32(field.name.encode()), _digest(field.extent)))
        case Parameter():
            return hash((zlib.crc32(field.name.encode()), _digest(field.size)))
        case tuple():
            return hash(tuple(map(_digest, field)))
        case int():
            return field
        case _:
            return zlib.crc32(str(field).encode())


@dataclass(frozen=True, slots=True)
class Store:
    """`parameter[index] = value` for every point of `axes` where `guard` is not 0.

    `combine` says how several points that write one element come together, and with what it held: "" is for stores
    that never do so.
    """

    parameter: Parameter
    index: SymInt
    value: Value
    axes: tuple[Axis, ...]
    guard: SymInt = 1
    combine: str = ""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Stores that may run in any order, over the buffers and scalars that the kernel is given."""

    name: str
    parameters: tuple[Parameter, ...]
    scalars: tuple[Var, ...]
    stores: tuple[Store, ...]


def _loaded_in(exprs: Iterable[SymInt]) -> Iterator[Value]:
    for expr in exprs:
        for leaf in leaves(expr):
            if isinstance(leaf, Loaded):
                yield leaf.source


def children(value: Value) -> tuple[Value, ...]:
    """The values that a value is computed from, those inside its indices included."""
    match value:
        case Load():
            return (*_loaded_in((value.index, value.guard)), value.other)
        case Index():
            return tuple(_loaded_in((value.expr,)))
        case Elementwise() | Reduce() | Scan():
            return value.args
        case Cast() | Bitcast():
            return (value.arg,)
        case Part():
            return (value.fold,)
        case _:
            return ()


def roots(stores: Iterable[Store]) -> list[Value]:
    """The values that stores mention themselves."""
    return [value for store in stores for value in (*_loaded_in((store.index, store.guard)), store.value)]


def toposort(values: Iterable[Value]) -> list[Value]:
    """All values that `values` are computed from and they themselves, those that a value needs before it."""
    order: dict[Value, None] = {}
    for root in values:
        stack = [(root, iter(children(root)))] if root not in order else []
        while stack:
            value, rest = stack[-1]
            child = next((child for child in rest if child not in order), None)
            if child is not None:
                stack.append((child, iter(children(child))))
            else:
                order.setdefault(value)
                stack.pop()
    return list(order)
