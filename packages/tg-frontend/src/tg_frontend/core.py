"""The Tensor class: a lazy value with PyTorch's semantics, and what every family of operations needs to make one.

A tensor is a storage and the steps of a view (storage.py). Operations build nodes of the tensor graph and evaluate
nothing; `realize`, `item`, `tolist`, `numpy`, `print` and `bool` evaluate. The families of operations stand in modules
of their own as plain functions whose first argument is the tensor; `methods.py` makes them methods.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tg_frontend.engine import Device, current_engine
from tg_frontend.storage import (
    Step,
    Storage,
    apply_steps,
    detached,
    leaves,
    mode,
    realize_storages,
    write_through,
)
from tg_ir import dtypes as types
from tg_ir import graph
from tg_ir.dtypes import DType, dtype_of, result_type
from tg_ir.errors import DTypeError, EvaluationError, ShapeError, TgError
from tg_ir.graph import Node, Shape, format_shape
from tg_ir.symbolic import Expr, SymInt, prod, prove_equal

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Scalar", "Tensor", "broadcast_shapes", "combine", "elementwise", "promote", "resolve_axes", "resolve_axis",
    "resolve_shape", "symbolic_scalar",
]  # fmt: skip

Scalar = bool | int | float


class Tensor:
    """A multi-dimensional array on a device, computed when its values are asked for.

    Args:
        data: a number, a nested sequence of numbers, bytes (with `dtype`), a NumPy array, anything with the buffer
            protocol or DLPack, or a Tensor. It is copied; `Tensor.from_numpy` and `from_dlpack` share memory instead.
        dtype: the element type; by default what PyTorch takes (int64 for ints, float32 for floats, bool for bools).
        device: the device's name; by default `Device.default`.
        requires_grad: whether `backward` accumulates a gradient in `.grad`.
    """

    __slots__ = ("__weakref__", "_cache", "_detached", "_steps", "_storage", "grad")

    def __init__(
        self,
        data: object,
        dtype: DType | str | None = None,
        device: str | None = None,
        requires_grad: bool = False,
    ):
        from tg_frontend.interchange import node_from_data

        node = node_from_data(data, None if dtype is None else dtype_of(dtype), device)
        self._adopt(Storage(node))
        if requires_grad:
            self.requires_grad_()

    def _adopt(self, storage: Storage, steps: tuple[Step, ...] = (), is_detached: bool = False) -> None:
        self._storage, self._steps, self._detached = storage, steps, is_detached
        self._cache: tuple[Node, Node] | None = None
        self.grad: Tensor | None = None
        if not steps and storage.owner is None:
            storage.owner = weakref.ref(self)

    # ---- making tensors from nodes ---------------------------------------------------------------------------------

    @staticmethod
    def from_node(node: Node, *parents: Tensor) -> Tensor:
        """A tensor whose value is `node`, computed from `parents`: it requires a gradient if one of them does."""
        tensor = Tensor.__new__(Tensor)
        requires = (
            mode.grad_enabled and node.dtype.is_float and any([parent.requires_grad for parent in parents])
        )
        tensor._adopt(Storage(node, requires))
        return tensor

    def view_by(self, step: Step) -> Tensor:
        """A view of this tensor: it shares the storage, so that a write to either shows in both."""
        tensor = Tensor.__new__(Tensor)
        tensor._adopt(self._storage, (*self._steps, step), self._detached)
        tensor.node  # noqa: B018  (a step that does not fit fails here, where it is asked for)
        return tensor

    @property
    def node(self) -> Node:
        """The node of the present value, to build upon."""
        storage = self._storage
        if mode.observer is not None:
            mode.observer.read(self)
        base = storage.node
        if storage.requires_grad and (self._detached or not mode.grad_enabled):
            base = storage.alias()
        if not self._steps:
            return base
        if self._cache is None or self._cache[0] is not base:
            self._cache = (base, apply_steps(base, self._steps))
        return self._cache[1]

    # ---- what it is ------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The sizes of the dimensions: ints, or symbolic integers."""
        return self.node.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._storage.node.dtype

    @property
    def device(self) -> str:
        """The name of the device that holds the values."""
        return self._storage.node.device

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.node.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return self.ndim

    def size(self, dim: int | None = None) -> Shape | SymInt:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[resolve_axis("size", dim, self.ndim)]

    def numel(self) -> SymInt:
        """The number of elements."""
        return prod(self.shape)

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> SymInt:
        """Bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the elements are of a float dtype."""
        return self.dtype.is_float

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("len: a scalar tensor () has no length")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise ShapeError("iteration: a scalar tensor () has no dimension to iterate over; use .item()")
        return (self[index] for index in range(len(self)))

    def __hash__(self) -> int:
        return id(self)

    # ---- gradients -------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor."""
        return self._storage.requires_grad and not self._detached

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user, not computed from tensors that require gradients."""
        return not self.requires_grad or (self._storage.leaf and not self._steps)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Turn this leaf into one that requires a gradient, or no longer."""
        storage = self._storage
        if requires_grad == self.requires_grad:
            return self
        if not requires_grad and not self.is_leaf:
            raise TgError("requires_grad_: only a leaf can stop requiring a gradient; use .detach()")
        if requires_grad and not self.dtype.is_float:
            raise DTypeError(f"requires_grad_: got {self.dtype}, want a float dtype; cast first")
        if requires_grad and (self._detached or self._steps):
            self._adopt(Storage(detached(self.node)))
            storage = self._storage
        storage.requires_grad = storage.leaf = requires_grad
        if requires_grad:
            self._become_leaf(storage.node)
        return self

    def _become_leaf(self, value: Node) -> None:
        """Give the storage a buffer of its own with this value, known as a leaf of this tensor."""
        storage = self._storage
        storage.node = detached(value)
        owner = storage.owner() if storage.owner else None
        leaves[storage.node] = weakref.ref(self if owner is None else owner)
        storage.together()

    def detach(self) -> Tensor:
        """A view of this tensor through which no gradient flows."""
        tensor = Tensor.__new__(Tensor)
        tensor._adopt(self._storage, self._steps, True)
        return tensor

    @property
    def data(self) -> Tensor:
        """The same as `detach()`."""
        return self.detach()

    def clone(self) -> Tensor:
        """A tensor with the same value and a storage of its own. Nothing is copied until one of them is written to."""
        return Tensor.from_node(self.node, self)

    def contiguous(self) -> Tensor:
        """This tensor: values are always laid out in row-major order when they are computed."""
        return self

    def is_contiguous(self) -> bool:
        """True: see `contiguous`."""
        return True

    # ---- dtype and device ------------------------------------------------------------------------------------------

    def to(
        self, *target: DType | str | Tensor | object, dtype: object = None, device: str | None = None
    ) -> Tensor:
        """This tensor with another dtype, device, or both: `.to(dtype)`, `.to("CPU:1")`, `.to(other)`."""
        for item in target:
            if isinstance(item, Tensor):
                dtype, device = item.dtype, item.device
            elif isinstance(item, str) and not hasattr(types, item):
                device = item
            elif item is not None:
                dtype = item
        node = self.node
        if dtype is not None:
            node = graph.cast(node, dtype_of(dtype))
        if device is not None:
            node = graph.copy(node, Device.canonical(device))
        return self if node is self.node else Tensor.from_node(node, self)

    def cast(self, dtype: DType | str) -> Tensor:
        """The values converted to `dtype`."""
        return self.to(dtype=dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """The values converted to the dtype of `other`."""
        return self.to(dtype=other.dtype)

    def cpu(self) -> Tensor:
        """This tensor on the device `CPU`."""
        return self.to(device="CPU")

    def bitcast(self, dtype: DType | str) -> Tensor:
        """The bits read as another dtype of the same size, as NumPy's `view(dtype)`."""
        return Tensor.from_node(graph.bitcast(self.node, dtype_of(dtype)))

    # ---- values ----------------------------------------------------------------------------------------------------

    def realize(self, *others: Tensor) -> Tensor:
        """Compute the values of this tensor, and of `others` with it, now."""
        if mode.observer is not None:
            return self
        tensors = [self, *others]
        nodes = []
        for tensor in tensors:
            owner = tensor._storage.owner() if tensor._steps and tensor._storage.owner else None
            nodes += [] if owner is None else [owner.node]
            nodes.append(tensor.node)
        if any([node.value is None for node in nodes]):
            realize_storages(nodes)
        for tensor in tensors:
            tensor._storage.settle()
        return self

    def _bytes(self) -> memoryview:
        if mode.observer is not None:
            mode.observer.asked()
        node = self.realize().node
        if node.value is None:  # the base was settled, so that the view has a new node
            realize_storages([node])
        assert node.value is not None, "an engine left a node without a value"
        return current_engine().download(node.value)

    def _concrete_shape(self) -> tuple[int, ...]:
        node = self.node
        return tuple(node.value.shape) if node.value is not None else tuple(map(int, node.shape))

    def tolist(self) -> list | Scalar:
        """The values as nested lists of Python numbers; a scalar tensor gives a number."""
        from tg_frontend.interchange import to_list

        data = self._bytes()
        return to_list(data, self._concrete_shape(), self.dtype)

    def item(self) -> Scalar:
        """The value of a tensor with one element, as a Python number."""
        if self.numel() != 1:
            raise ShapeError(
                f"item: the shape is {format_shape(self.shape)}, want one element; use .tolist()"
            )
        from tg_frontend.interchange import to_list

        value = to_list(self._bytes(), (), self.dtype)
        assert not isinstance(value, list), "a scalar came as a list"
        return value

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: read-only and without a copy where they are in the host's memory.

        bfloat16 and float8 have no NumPy dtype and come as float32; `.bitcast("uint16").numpy()` gives their bits.
        """
        from tg_frontend.interchange import to_numpy

        data = self._bytes()
        return to_numpy(data, self._concrete_shape(), self.dtype)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return (
            array.astype(dtype)
            if dtype is not None and array.dtype != dtype
            else array.copy()
            if copy
            else array
        )

    def _truth(self) -> Scalar:
        if self.numel() != 1:
            raise ShapeError(
                f"bool: the truth of a tensor of shape {format_shape(self.shape)} is ambiguous; use .any() or .all()"
            )
        return self.item()

    def __bool__(self) -> bool:
        return bool(self._truth())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"index: got a {self.dtype} tensor, want an integer one")
        return int(self.item())

    def __repr__(self) -> str:
        from tg_frontend.printing import format_tensor

        return format_tensor(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[object, ...]]:
        shape = self.detach().realize()._concrete_shape()
        return _unpickle, (
            bytes(self.detach()._bytes()),
            shape,
            self.dtype.name,
            self.device,
            self.requires_grad,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        if not self.is_leaf:
            raise TgError("deepcopy: only leaves can be copied deeply; use .detach() or .clone()")
        copy = Tensor.from_node(self.detach().node)
        copy.grad = None if self.grad is None else Tensor.from_node(self.grad.detach().node)
        memo[id(self)] = copy
        return copy.requires_grad_(self.requires_grad)

    # ---- writing in place ------------------------------------------------------------------------------------------

    def assign(self, value: Tensor | Scalar | Sequence | np.ndarray) -> Tensor:
        """Replace the values by `value`, broadcast and converted; every view of the storage sees it.

        Raises:
            TgError: a leaf that requires a gradient, outside of `no_grad`.
            ShapeError: `value` does not broadcast to this shape, or elements of this view share memory.
        """
        storage = self._storage
        if storage.leaf and mode.grad_enabled and not self._detached:
            raise TgError(
                "write in place: this leaf requires a gradient; write under no_grad(), to .detach(), or to a .clone()"
            )
        if not isinstance(value, Tensor):
            value = Tensor(value, self.dtype if isinstance(value, bool | int | float) else None, self.device)
        shape = self.shape
        if broadcast_shapes("write in place", value.shape, shape) != shape:
            raise ShapeError(
                f"write in place: {format_shape(value.shape)} does not broadcast to {format_shape(shape)}"
            )
        node = graph.expand(graph.cast(graph.copy(value.node, self.device), self.dtype), shape)
        if self._detached and value.requires_grad:
            node = detached(node)
        new = write_through(storage.node, self._steps, node)
        if storage.leaf:
            self._become_leaf(new)
        else:
            storage.requires_grad |= mode.grad_enabled and value.requires_grad and not self._detached
            storage.node = new
            storage.together()
        return self

    copy_ = assign

    def __setitem__(self, index: object, value: Tensor | Scalar | Sequence | np.ndarray) -> None:
        from tg_frontend.indexing import set_item

        set_item(self, index, value)


def _unpickle(data: bytes, shape: tuple[int, ...], dtype: str, device: str, requires_grad: bool) -> Tensor:
    node = graph.buffer(shape, dtype_of(dtype), Device.canonical(device))
    node.fill(current_engine().upload(memoryview(data), shape, node.dtype, node.device))
    return Tensor.from_node(node).requires_grad_(requires_grad)


# ---- what the families of operations share ---------------------------------------------------------------------------


def resolve_axis(name: str, axis: int, ndim: int) -> int:
    """The axis counted from 0; a scalar has an axis 0 of its own, as in PyTorch.

    Raises:
        ShapeError: there is no such axis.
    """
    limit = max(ndim, 1)
    if not isinstance(axis, int) or not -limit <= axis < limit:
        raise ShapeError(f"{name}: got dim {axis!r}, want {-limit} to {limit - 1} for {ndim} dimensions")
    return axis % limit


def resolve_axes(name: str, axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Axes counted from 0, in ascending order; None and () are all of them."""
    if axes is None or axes == () or axes == []:
        return tuple(range(ndim))
    if isinstance(axes, int):
        axes = (axes,)
    found = sorted(resolve_axis(name, axis, ndim) for axis in axes)
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: dim {tuple(axes)} names a dimension twice")
    return tuple(axis for axis in found if axis < ndim)


def resolve_shape(name: str, shape: Sequence[object]) -> Shape:
    """A shape given as `(2, 3)`, as `((2, 3),)`, or with 0-dimensional integer tensors in it."""
    if len(shape) == 1 and isinstance(shape[0], list | tuple):
        shape = shape[0]
    dims = tuple([dim if isinstance(dim, int | Expr) else dim.__index__() for dim in shape])  # type: ignore[attr-defined]
    for dim in dims:
        if isinstance(dim, int) and dim < 0:
            raise ShapeError(f"{name}: got size {dim} in {format_shape(dims)}, want sizes >= 0")
    return dims


def broadcast_shapes(name: str, *shapes: Shape) -> Shape:
    """The shape that all of `shapes` broadcast to.

    Raises:
        ShapeError: two sizes differ and neither is 1.
    """
    first = shapes[0]
    if all([shape == first for shape in shapes]):
        return first
    rank = max(len(shape) for shape in shapes)
    result: list[SymInt] = [1] * rank
    for shape in shapes:
        for position, size in enumerate(shape, rank - len(shape)):
            have = result[position]
            if have == 1:
                result[position] = size
            elif size != 1 and size != have and not prove_equal(size, have):
                raise ShapeError(
                    f"{name}: shapes {' and '.join(map(format_shape, shapes))} do not broadcast: "
                    f"dimension {position - rank} is {have} and {size}"
                )
    return tuple(result)


def promote(name: str, *operands: Tensor | Scalar) -> tuple[list[Tensor], DType]:
    """The operands as tensors on one device, and the dtype that PyTorch promotes them to.

    Python numbers and 0-dimensional tensors only decide the kind of dtype (bool, int, float), not its size. Sequences
    and NumPy arrays are taken as tensors.
    """
    device = next((item.device for item in operands if isinstance(item, Tensor)), None)
    kinds, tensors = [], []
    for item in operands:
        if isinstance(item, Tensor):
            kinds.append((item.dtype, "dim" if item.ndim else "zero_dim"))
        elif isinstance(item, bool | int | float):
            kinds.append((dtype_of(type(item)), "python"))
        elif isinstance(item, Expr):
            kinds.append((types.int64, "python"))
            item = Tensor.from_node(symbolic_scalar(item, device or Device.default))
        else:
            item = Tensor(item, device=device)
            kinds.append((item.dtype, "dim" if item.ndim else "zero_dim"))
        tensors.append(item)
    dtype = kinds[0][0] if all([kind == kinds[0] for kind in kinds]) else result_type(*kinds)
    device = device or Device.default
    made = [
        item if isinstance(item, Tensor) else Tensor.from_node(graph.const(item, dtype, device))
        for item in tensors
    ]
    return made, dtype


def symbolic_scalar(value: Expr, device: str) -> Node:
    """A symbolic integer as a 0-dimensional int64 tensor: the last element of an iota of that length."""
    if value.low < 0:
        raise EvaluationError(
            f"a tensor of the symbolic integer {value}: it may be negative; want bounds >= 0"
        )
    last = graph.shrink(graph.iota(value + 1, types.int64, device), [(value, value + 1)])
    return graph.reshape(last, ())


def elementwise(name: str, *operands: Tensor | Scalar, dtype: DType | None = None, label: str = "") -> Tensor:
    """The elementwise operation `name` of tg_ir on broadcast operands, in the promoted dtype or the one given.

    Where the operation takes floats only, integers become float32, as in PyTorch. `label` is what errors call it.
    """
    tensors, promoted = promote(label or name, *operands)
    return combine(name, tensors, dtype or promoted, label or name)


def combine(name: str, tensors: Sequence[Tensor], dtype: DType, label: str) -> Tensor:
    """The elementwise operation on tensors converted to `dtype` and broadcast."""
    shape = broadcast_shapes(label, *[tensor.shape for tensor in tensors])
    nodes = [graph.expand(graph.cast(tensor.node, dtype), shape) for tensor in tensors]
    return Tensor.from_node(graph.apply(name, *nodes), *tensors)
