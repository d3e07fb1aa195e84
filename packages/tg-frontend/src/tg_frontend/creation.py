"""Tensors of known values: constants, ranges, grids, one-hot codes.

Sizes may be symbolic. A created tensor costs nothing until it is written to or asked for: it is a formula.
"""

from __future__ import annotations

import math

from tg_frontend.core import Scalar, Tensor, resolve_shape, symbolic_scalar
from tg_frontend.elementwise import eq, where
from tg_frontend.engine import Device
from tg_ir import graph
from tg_ir.dtypes import DType, dtype_of, float32, float64, int64
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.symbolic import Expr, SymInt

__all__ = [
    "arange", "empty", "empty_like", "eye", "fill", "full", "full_like", "linspace", "logspace", "meshgrid",
    "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "one_hot", "ones", "ones_like", "zero",
    "zeros", "zeros_like",
]  # fmt: skip

METHODS = ("fill", "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "one_hot", "zero")
"""Those that take a tensor first, and are methods."""

AnyDType = DType | str | None


def full(
    size: SymInt | tuple[SymInt, ...] | list[SymInt],
    fill_value: Scalar | Tensor,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value; its dtype is the value's unless given."""
    shape = resolve_shape("full", [size] if not isinstance(size, list | tuple) else size)
    if isinstance(fill_value, Tensor):
        if fill_value.ndim:
            raise ShapeError(f"full: the value has shape {tuple(fill_value.shape)}, want a scalar ()")
        node = graph.cast(fill_value.node, fill_value.dtype if dtype is None else dtype_of(dtype))
        node = graph.copy(node, Device.canonical(device) if device else node.device)
        return Tensor.from_node(graph.expand(node, shape), fill_value)
    wanted = dtype_of(type(fill_value) if dtype is None else dtype)
    node = graph.expand(graph.const(fill_value, wanted, Device.canonical(device)), shape)
    return _leaf(Tensor.from_node(node), requires_grad)


def _leaf(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.requires_grad_() if requires_grad else tensor


def zeros(
    *size: SymInt, dtype: AnyDType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros, float32 by default."""
    return full(
        resolve_shape("zeros", size), 0, dtype=dtype or float32, device=device, requires_grad=requires_grad
    )


def ones(
    *size: SymInt, dtype: AnyDType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ones, float32 by default."""
    return full(
        resolve_shape("ones", size), 1, dtype=dtype or float32, device=device, requires_grad=requires_grad
    )


def empty(
    *size: SymInt, dtype: AnyDType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor to be written to. Here it is zeros: what was never written never shows."""
    return zeros(*resolve_shape("empty", size), dtype=dtype, device=device, requires_grad=requires_grad)


def full_like(
    input: Tensor,
    fill_value: Scalar,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value with the shape, dtype and device of `input`."""
    device = device or input.device
    return full(
        input.shape, fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad
    )


def zeros_like(
    input: Tensor, *, dtype: AnyDType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Zeros with the shape, dtype and device of `input`."""
    return full_like(input, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(
    input: Tensor, *, dtype: AnyDType = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Ones with the shape, dtype and device of `input`."""
    return full_like(input, 1, dtype=dtype, device=device, requires_grad=requires_grad)


empty_like = zeros_like


def new_full(
    self: Tensor,
    size: SymInt | tuple[SymInt, ...],
    fill_value: Scalar,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value with the dtype and device of this one."""
    device = device or self.device
    return full(size, fill_value, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)


def new_zeros(
    self: Tensor,
    *size: SymInt,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Zeros with the dtype and device of this tensor."""
    shape = resolve_shape("new_zeros", size)
    return new_full(self, shape, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def new_ones(
    self: Tensor,
    *size: SymInt,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones with the dtype and device of this tensor."""
    shape = resolve_shape("new_ones", size)
    return new_full(self, shape, 1, dtype=dtype, device=device, requires_grad=requires_grad)


new_empty = new_zeros


def new_tensor(
    self: Tensor,
    data: object,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `data` with the dtype and device of this one."""
    return Tensor(data, dtype or self.dtype, device or self.device, requires_grad)


def fill(self: Tensor, value: Scalar | Tensor) -> Tensor:
    """A tensor of one value with this one's shape and dtype; in place: `fill_`."""
    return full(self.shape, value, dtype=self.dtype, device=self.device)


def zero(self: Tensor) -> Tensor:
    """Zeros with this tensor's shape and dtype; in place: `zero_`."""
    return fill(self, 0)


# ---- ranges and grids --------------------------------------------------------------------------------------


def _iota(length: SymInt, device: str) -> Tensor:
    return Tensor.from_node(graph.iota(length, int64, device))


def arange(
    start: Scalar | Expr,
    end: Scalar | Expr | None = None,
    step: Scalar = 1,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, .. up to but without `end`; `arange(end)` starts at 0. Ints give int64, else float32."""
    start, end = (0, start) if end is None else (start, end)
    whole = all(isinstance(number, int | Expr) for number in (start, end, step))
    if not step:
        raise TgError("arange: got step 0, want another number")
    if whole:
        length = (end - start) // step if step in (1, -1) else -((start - end) // step)
    else:
        length = math.ceil((end - start) / step)
    if isinstance(length, int) and length < 0:
        raise ShapeError(
            f"arange: {start} to {end} in steps of {step} goes the wrong way; change the step's sign"
        )
    device = Device.canonical(device)
    index = _iota(length, device)
    offset = Tensor.from_node(symbolic_scalar(start, device)) if isinstance(start, Expr) else start
    result = index if whole else index.to(float64)
    result = result if step == 1 else result * step
    result = result if isinstance(start, int | float) and start == 0 else result + offset
    return _leaf(result.to(dtype_of(dtype) if dtype else int64 if whole else float32), requires_grad)


def _line(start: Scalar, end: Scalar, steps: SymInt, device: str | None) -> Tensor:
    """float64 numbers from `start` to `end`, exact at both."""
    if isinstance(steps, int) and steps < 0:
        raise ShapeError(f"linspace: got {steps} steps, want 0 or more")
    index = _iota(steps, Device.canonical(device))
    if steps == 1:
        return index.to(float64) + start
    after = (steps - 1 - index).to(float64)
    steps_between = (
        (steps - 1) if isinstance(steps, int) else Tensor.from_node(symbolic_scalar(steps - 1, index.device))
    )
    step = (end - start) / steps_between
    if isinstance(step, Tensor):
        step = step.to(float64)
    return where(index * 2 < steps, start + index.to(float64) * step, end - after * step)


def linspace(
    start: Scalar,
    end: Scalar,
    steps: SymInt,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` numbers evenly spaced from `start` to `end`, both included."""
    return _leaf(_line(start, end, steps, device).to(dtype_of(dtype or float32)), requires_grad)


def logspace(
    start: Scalar,
    end: Scalar,
    steps: SymInt,
    base: float = 10.0,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`base` to the power of `steps` numbers evenly spaced from `start` to `end`."""
    return _leaf((base ** _line(start, end, steps, device)).to(dtype_of(dtype or float32)), requires_grad)


def eye(
    n: SymInt,
    m: SymInt | None = None,
    *,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The n x m matrix with ones on the diagonal."""
    rows, columns = resolve_shape("eye", (n, n if m is None else m))
    device = Device.canonical(device)
    row = Tensor.from_node(graph.reshape(graph.iota(rows, int64, device), (rows, 1)))
    return _leaf(eq(row, _iota(columns, device)).to(dtype_of(dtype or float32)), requires_grad)


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of the grid that vectors span, one tensor a vector; "xy" swaps the first two dimensions.

    Shapes: vectors or scalars of sizes n1, n2, .. give tensors (n1, n2, ..), views that share their memory.
    """
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise TgError(f"meshgrid: got indexing {indexing!r}, want 'ij' or 'xy'")
    for tensor in tensors:
        if tensor.ndim > 1:
            raise ShapeError(f"meshgrid: got shape {tuple(tensor.shape)}, want vectors")
    order = list(range(len(tensors)))
    if indexing == "xy" and len(tensors) > 1:
        order[:2] = [1, 0]
    shape = [tensors[position].numel() for position in order]

    def spread(tensor: Tensor, axis: int) -> Tensor:
        line = [tensor.numel() if i == axis else 1 for i in range(len(tensors))]
        return tensor.view_by(lambda node: graph.expand(graph.reshape(node, line), shape))

    return tuple([spread(tensor, order.index(position)) for position, tensor in enumerate(tensors)])


def one_hot(self: Tensor, num_classes: int = -1) -> Tensor:
    """For each class number a vector with 1 at its place, as int64.

    Shapes: (..) gives (.., num_classes). Without `num_classes` it is one more than the greatest number, which is
    evaluated. A number outside of the classes gives a vector of zeros.
    """
    if not self.dtype.is_int:
        raise DTypeError(f"one_hot: got {self.dtype}, want an integer dtype")
    if num_classes == -1:
        if not self.numel():
            raise ShapeError(
                "one_hot: cannot tell the number of classes of an empty tensor; give num_classes"
            )
        top = graph.reduce(self.node, "max", range(self.ndim))
        num_classes = int(Tensor.from_node(top).item()) + 1
    column = Tensor.from_node(graph.reshape(self.node, (*self.shape, 1)))
    return eq(column, _iota(num_classes, self.device)).to(int64)
