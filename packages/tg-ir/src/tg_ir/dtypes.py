"""Dtypes: their formats and limits, PyTorch's promotion, and conversion between Python numbers and bits.

The module is the namespace that users see: `dtypes.float32`, and PyTorch's other names such as `dtypes.half`.

What a conversion gives, here, in the NumPy interpreter and in compiled code:

- To a float: the nearest value, ties to even. A float narrower than 32 bits is reached through float32,
  rounding twice, as PyTorch, x86 and AMD GPUs do.
- Too large for a float, or infinite: infinity where the format has it; NaN in the fnuz formats; the largest
  finite value, with the sign, in float8_e4m3fn. This is what PyTorch 2.13 does.
- NaN signs and payloads are not kept: `to_bits` gives a dtype's one canonical NaN. fnuz formats have no -0.
- Integer to integer wraps modulo 2**bits. Float to integer truncates towards zero and saturates at the limits
  of the integer; NaN gives 0. (PyTorch leaves what is out of range undefined. AMD's and Arm's conversion
  instructions, XLA and Rust saturate; on x86 it costs two masked moves.)
- To bool: whether the value differs from zero; NaN does.

Source: IEEE 754-2019; OCP 8-bit Floating Point Specification 1.0 (float8_e4m3fn, float8_e5m2);
Noune et al., "8-bit Numerical Formats for Deep Neural Networks", arXiv:2206.02915 (fnuz).
"""

from __future__ import annotations

import math
from functools import cache

from tg_ir.errors import DTypeError

__all__ = [
    "DTYPES",
    "DType",
    "bfloat16",
    "bool_",
    "constant",
    "dtype_of",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float16",
    "float32",
    "float64",
    "from_bits",
    "int8",
    "int16",
    "int32",
    "int64",
    "promote_types",
    "result_type",
    "to_bits",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]


class DType:
    """The type of an element. There is one instance of each, so compare with `is`.

    A float is sign, exponent and mantissa from the top bit down. A *code* is the bits without the sign; codes
    order as magnitudes do, so the limits of a format are codes.
    """

    __slots__ = (
        "bias",
        "bits",
        "exponent_bits",
        "itemsize",
        "kind",
        "mantissa_bits",
        "max",
        "max_code",
        "min",
        "name",
        "nan_bits",
        "overflow_code",
        "priority",
    )
    name: str
    kind: str  # 'bool', 'uint', 'int' or 'float'
    bits: int
    itemsize: int  # bytes
    priority: int  # where two dtypes promote to one of them, it is the one with the greater
    min: int | float  # the least finite value
    max: int | float  # the greatest finite value
    # Of floats; 0 in other dtypes.
    exponent_bits: int
    mantissa_bits: int
    bias: int
    max_code: int  # of the greatest finite value
    overflow_code: int  # of what is too large
    nan_bits: int  # the canonical NaN

    def __init__(self, priority: int, name: str, kind: str, bits: int, *float_format: int) -> None:
        format_fields = ("exponent_bits", "mantissa_bits", "bias", "max_code", "overflow_code", "nan_bits")
        self._set(priority=priority, name=name, kind=kind, bits=bits, itemsize=bits // 8)
        self._set(**dict(zip(format_fields, float_format or (0,) * 6, strict=True)))
        match kind:
            case "bool":
                self._set(min=False, max=True)
            case "uint":
                self._set(min=0, max=2**bits - 1)
            case "int":
                self._set(min=-(2 ** (bits - 1)), max=2 ** (bits - 1) - 1)
            case _:
                greatest = from_bits(self.max_code, self)
                self._set(min=-greatest, max=greatest)

    def _set(self, **fields: object) -> None:
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def __setattr__(self, field: str, value: object) -> None:
        raise AttributeError(f"{self}: a dtype's {field} cannot be changed")

    def __delattr__(self, field: str) -> None:
        raise AttributeError(f"{self}: a dtype's {field} cannot be deleted")

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return "bool_" if self.kind == "bool" else self.name  # the global that pickle and copy look up

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        """Signed or unsigned; bool is not an integer."""
        return self.kind == "int" or self.kind == "uint"

    @property
    def is_signed(self) -> bool:
        return self.kind == "int" or self.kind == "float"

    @property
    def has_inf(self) -> bool:
        return self.max_code < self.overflow_code != self.nan_bits

    @property
    def has_negative_zero(self) -> bool:
        return self.kind == "float" and self.nan_bits != 1 << (self.bits - 1)

    @property
    def lowest(self) -> int | float:
        """What every value is greater than or equal to, infinity included: where a maximum starts."""
        return -math.inf if self.has_inf else self.min

    @property
    def highest(self) -> int | float:
        """What every value is less than or equal to, infinity included: where a minimum starts."""
        return math.inf if self.has_inf else self.max

    @property
    def eps(self) -> float:
        """The distance from 1 to the next greater value of a float."""
        return math.ldexp(1.0, -self._of_float("eps").mantissa_bits)

    @property
    def tiny(self) -> float:
        """The least positive normal value of a float."""
        return math.ldexp(1.0, 1 - self._of_float("tiny").bias)

    @property
    def smallest_subnormal(self) -> float:
        """The least positive value of a float."""
        return math.ldexp(1.0, 1 - self._of_float("smallest_subnormal").bias - self.mantissa_bits)

    def _of_float(self, limit: str) -> DType:
        if self.kind != "float":
            raise DTypeError(f"{limit}: got {self}, want a float dtype")
        return self


def from_bits(bits: int, dtype: DType) -> int | float | bool:
    """The value that the low `dtype.bits` bits of `bits` stand for, exactly."""
    bits &= (1 << dtype.bits) - 1
    if dtype.kind == "uint":
        return bits
    if dtype.kind == "bool":
        return bits != 0
    sign = bits >> (dtype.bits - 1)
    if dtype.kind == "int":
        return bits - (sign << dtype.bits)
    code = bits - (sign << (dtype.bits - 1))
    if bits == dtype.nan_bits or code > dtype.max_code:
        value = math.inf if code == dtype.overflow_code and dtype.has_inf else math.nan
    else:
        exponent, fraction = divmod(code, 1 << dtype.mantissa_bits)
        if exponent:
            fraction += 1 << dtype.mantissa_bits
            exponent -= 1
        value = math.ldexp(fraction, exponent + 1 - dtype.bias - dtype.mantissa_bits)
    return -value if sign else value


def to_bits(value: int | float | bool, dtype: DType) -> int:
    """The bits of `value` converted to `dtype`, by the rules on top of this module, as an unsigned integer.

    Raises:
        DTypeError: `value` is not a Python number.
    """
    if not isinstance(value, (int, float)):
        raise DTypeError(f"{dtype}: got a {type(value).__name__}, want an int, float or bool; use .item()")
    if dtype.kind == "float":
        if dtype.bits < 32:
            value = from_bits(_float_bits(value, float32), float32)
        return _float_bits(value, dtype)
    if dtype.kind == "bool":
        return int(value != 0)
    if isinstance(value, float):
        if value != value:
            return 0
        value = int(min(max(value, dtype.min), dtype.max))
    return value & ((1 << dtype.bits) - 1)


def _float_bits(value: int | float, dtype: DType) -> int:
    """`value` rounded once to the float `dtype`."""
    if value != value:
        return dtype.nan_bits
    if isinstance(value, int):
        negative, significand, exponent = value < 0, abs(value), 0
    else:
        negative = math.copysign(1.0, value) < 0
        if math.isinf(value):
            return _signed(negative, dtype.overflow_code, dtype)
        fraction, exponent = math.frexp(abs(value))
        significand, exponent = int(fraction * 2**53), exponent - 53
    if not significand:
        return _signed(negative, 0, dtype)
    # value = significand * 2**exponent; count it in units of its last place in dtype, 2**(least + steps).
    least = 1 - dtype.bias - dtype.mantissa_bits
    steps = max(significand.bit_length() + exponent - dtype.mantissa_bits - 1 - least, 0)
    shift = least + steps - exponent
    if shift <= 0:
        units = significand << -shift
    else:
        units, rest = divmod(significand, 1 << shift)
        half = 1 << (shift - 1)
        units += rest > half or (rest == half and units & 1)
    # The implicit leading one of a normal number counts as a step of the exponent, and so does a carry.
    code = (steps << dtype.mantissa_bits) + units
    return _signed(negative, code if code <= dtype.max_code else dtype.overflow_code, dtype)


def _signed(negative: bool, code: int, dtype: DType) -> int:
    if negative and (code or dtype.has_negative_zero):
        return code | 1 << (dtype.bits - 1)
    return code


def constant(value: int | float | bool, dtype: DType) -> int | float | bool:
    """`value` converted to `dtype`: a Python number of its kind, which `dtype` holds exactly.

    Raises:
        DTypeError: `value` is not a Python number.
    """
    kind = dtype.kind
    if type(value) is int and (kind == "int" or kind == "uint") and dtype.min <= value <= dtype.max:
        return value
    if type(value) is float and dtype is float64:
        return value
    return from_bits(to_bits(value, dtype), dtype)


# In order of priority: where two dtypes promote to one of them, it is the lower row.
_ROWS = (
    # name, kind, bits; of floats: exponent bits, mantissa bits, bias, greatest code, overflow code, NaN
    ("bool", "bool", 8),
    ("uint8", "uint", 8),
    ("int8", "int", 8),
    ("uint16", "uint", 16),
    ("int16", "int", 16),
    ("uint32", "uint", 32),
    ("int32", "int", 32),
    ("uint64", "uint", 64),
    ("int64", "int", 64),
    ("float8_e4m3fn", "float", 8, 4, 3, 7, 0x7E, 0x7E, 0x7F),
    ("float8_e4m3fnuz", "float", 8, 4, 3, 8, 0x7F, 0x80, 0x80),
    ("float8_e5m2", "float", 8, 5, 2, 15, 0x7B, 0x7C, 0x7F),
    ("float8_e5m2fnuz", "float", 8, 5, 2, 16, 0x7F, 0x80, 0x80),
    ("float16", "float", 16, 5, 10, 15, 0x7BFF, 0x7C00, 0x7E00),
    ("bfloat16", "float", 16, 8, 7, 127, 0x7F7F, 0x7F80, 0x7FC0),
    ("float32", "float", 32, 8, 23, 127, (0xFF << 23) - 1, 0xFF << 23, 0x1FF << 22),
    ("float64", "float", 64, 11, 52, 1023, (0x7FF << 52) - 1, 0x7FF << 52, 0xFFF << 51),
)
DTYPES: tuple[DType, ...] = tuple(DType(priority, *row) for priority, row in enumerate(_ROWS))
"""Every dtype, in the order of priority."""

bool_, uint8, int8, uint16, int16, uint32, int32, uint64, int64 = DTYPES[:9]
float8_e4m3fn, float8_e4m3fnuz, float8_e5m2, float8_e5m2fnuz, float16, bfloat16, float32, float64 = DTYPES[9:]

_ALIASES = {
    "bool_": bool_,
    "short": int16,
    "int": int32,
    "long": int64,
    "half": float16,
    "float": float32,
    "double": float64,
}
_NAMED = {dtype.name: dtype for dtype in DTYPES} | _ALIASES
_PYTHON_TYPES = {bool: bool_, int: int64, float: float32}
_NUMPY_C_TYPES = {"intc": "int32", "uintc": "uint32", "longlong": "int64", "ulonglong": "uint64"}


def __getattr__(name: str) -> DType:
    # Aliases are not globals: `float` and `int` would hide the built-in functions in this file.
    if name in _NAMED:
        return _NAMED[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def dtype_of(x: object) -> DType:
    """The dtype that `x` names.

    `x` is a DType, a name ('float32', 'torch.half'), a NumPy or ml_dtypes dtype or scalar type, torch.dtype,
    or Python's bool, int or float, which are bool, int64 and float32 as in PyTorch.

    Raises:
        DTypeError: there is no such dtype here.
    """
    if isinstance(x, DType):
        return x
    if isinstance(x, str):
        name = x.removeprefix("torch.")
    elif isinstance(x, type):
        if x in _PYTHON_TYPES:
            return _PYTHON_TYPES[x]
        name = x.__name__ if _top_package(x) in ("numpy", "ml_dtypes") else ""
        name = _NUMPY_C_TYPES.get(name, name)
    elif _top_package(type(x)) == "numpy":
        name = getattr(x, "name", "")
    elif _top_package(type(x)) == "torch":
        name = str(x).removeprefix("torch.")
    else:
        name = ""
    if name in _NAMED:
        return _NAMED[name]
    if name.startswith("complex") or x is complex:
        raise DTypeError(f"dtype: got {x!r}, but complex numbers are not supported; keep two real tensors")
    raise DTypeError(f"dtype: got {x!r}, want one of {', '.join(dtype.name for dtype in DTYPES)}")


def _top_package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


@cache
def promote_types(a: DType, b: DType) -> DType:
    """The dtype in which `a` and `b` meet, as torch.promote_types gives it.

    PyTorch refuses to mix uint16, uint32 and uint64 with bool and other integers. Here they follow its rule
    for uint8: the wider of two unsigned, and with a signed one the narrowest signed dtype that holds both.

    Raises:
        DTypeError: one is a float8 and the other is not the same; or there is no integer that holds both.
    """
    if a is b:
        return a
    low, high = sorted((a, b), key=lambda dtype: dtype.priority)
    if (low.is_float and low.bits == 8) or (high.is_float and high.bits == 8):
        raise DTypeError(
            f"promotion: {a} and {b} do not mix, as float8 is for storage; cast one of them first"
        )
    if low is float16 and high is bfloat16:
        return float32
    if {low.kind, high.kind} == {"int", "uint"}:
        unsigned, signed = (low, high) if low.kind == "uint" else (high, low)
        if unsigned is uint64:
            raise DTypeError(f"promotion: no integer dtype holds both {a} and {b}; cast one of them first")
        if unsigned.bits >= signed.bits:
            return _NAMED[f"int{2 * unsigned.bits}"]
    return high


def result_type(*operands: tuple[DType, str]) -> DType:
    """The dtype of an operation between `operands`, as torch.result_type gives it.

    An operand is its dtype and its category: 'dim' (a tensor with dimensions), 'zero_dim' (one without) or
    'python' (a number; a float counts as float32). A category overrules those after it, except that it meets
    them by promotion where they are of a higher kind: bool, then integer, then float.

    Raises:
        DTypeError: no operands, or operands that do not promote.
    """
    result = None
    for category in ("dim", "zero_dim", "python"):
        meeting = None
        for dtype, of_category in operands:
            if of_category == category:
                if category == "python" and dtype.kind == "float":
                    dtype = float32
                meeting = dtype if meeting is None else promote_types(meeting, dtype)
        if result is None:
            result = meeting
        elif meeting is not None and _rank(meeting) > _rank(result):
            result = promote_types(result, meeting)
    if result is None:
        raise DTypeError("result type: got no operands, want one or more")
    return result


def _rank(dtype: DType) -> int:
    return 0 if dtype.kind == "bool" else 2 if dtype.kind == "float" else 1
