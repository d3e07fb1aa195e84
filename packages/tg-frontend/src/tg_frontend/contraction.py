"""Matrix products and other contractions: sums of products over labelled axes.

Everything here is `contract` of two operands with a label for each axis: both are brought to the order (axes of the
result, axes summed over), expanded, multiplied and summed. Labels that only one operand has are summed before. Floats
narrower than 32 bits are multiplied and summed in float32, and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, pairwise
from string import ascii_letters

from tg_frontend.core import Scalar, Tensor, broadcast_shapes, resolve_axis
from tg_ir import graph
from tg_ir.dtypes import DType, float32
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import Node, format_shape
from tg_ir.symbolic import SymInt, bounds, prod, prove_equal

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bilinear", "bmm", "cross", "dot", "einsum", "inner", "kron",
    "linear", "matmul", "mm", "multi_dot", "mv", "outer", "tensordot",
]  # fmt: skip

Labels = Sequence[Hashable]


# ---- on nodes ------------------------------------------------------------------------------------------------


def wide_dtype(dtype: DType) -> DType:
    """What a contraction computes in."""
    return float32 if dtype.is_float and dtype.itemsize < 4 else dtype


def widened(name: str, *tensors: Tensor) -> tuple[list[Node], DType]:
    """The operands in the dtype to compute in, and the dtype of the result.

    Raises:
        DTypeError: they differ, or are bools.
    """
    dtype = tensors[0].dtype
    for tensor in tensors:
        if tensor.dtype is not dtype:
            raise DTypeError(
                f"{name}: operands are {dtype} and {tensor.dtype}, want one dtype; cast one of them"
            )
    if dtype.kind == "bool":
        raise DTypeError(f"{name}: got bool tensors, want numbers; cast first")
    return [graph.cast(tensor.node, wide_dtype(dtype)) for tensor in tensors], dtype


def _arrange(node: Node, labels: Labels, order: Labels) -> Node:
    """Axes in `order`; those that the node lacks have size 1."""
    have = [label for label in order if label in labels]
    node = graph.permute(node, [labels.index(label) for label in have])
    sizes = dict(zip(have, node.shape, strict=True))
    return graph.reshape(node, [sizes.get(label, 1) for label in order])


def _sum_alone(node: Node, labels: Labels, needed: set[Hashable]) -> tuple[Node, list[Hashable]]:
    alone = [axis for axis, label in enumerate(labels) if label not in needed]
    return graph.reduce(node, "sum", alone), [label for label in labels if label in needed]


def contract(name: str, a: Node, a_labels: Labels, b: Node, b_labels: Labels, out: Labels) -> Node:
    """The sum of products over every label that is not in `out`. A size of 1 broadcasts."""
    a, a_labels = _sum_alone(a, a_labels, {*b_labels, *out})
    b, b_labels = _sum_alone(b, b_labels, {*a_labels, *out})
    order = [*out, *[label for label in a_labels if label not in out]]
    a, b = _arrange(a, a_labels, order), _arrange(b, b_labels, order)
    shape = broadcast_shapes(name, a.shape, b.shape)
    product = graph.apply("mul", graph.expand(a, shape), graph.expand(b, shape))
    return graph.reduce(product, "sum", range(len(out), len(order)))


def diagonal_node(node: Node, first: int, second: int) -> Node:
    """The elements whose indices along two axes of one size are equal; that index becomes the last axis.

    Rows of n elements one after the other, n more at the end, read as rows of n + 1: the diagonal is a column.
    """
    size = node.shape[first]
    order = [axis for axis in range(len(node.shape)) if axis not in (first, second)]
    lead = [node.shape[axis] for axis in order]
    flat = graph.reshape(graph.permute(node, [*order, first, second]), [*lead, size * size])
    rows = graph.reshape(graph.pad(flat, [(0, 0) for _ in lead] + [(0, size)]), [*lead, size, size + 1])
    return graph.reshape(graph.shrink(rows, [(0, n) for n in [*lead, size]] + [(0, 1)]), [*lead, size])


# ---- products of two -----------------------------------------------------------------------------------------


def _of_rank(name: str, *pairs: tuple[Tensor, int]) -> None:
    for tensor, rank in pairs:
        if tensor.ndim != rank:
            shapes = " and ".join(format_shape(tensor.shape) for tensor, _ in pairs)
            raise ShapeError(
                f"{name}: got shapes {shapes}, want {' and '.join(str(r) for _, r in pairs)} dimensions"
            )


def _same_size(name: str, what: str, a: SymInt, b: SymInt, *tensors: Tensor) -> None:
    if a != b and not prove_equal(a, b):
        shapes = " and ".join(format_shape(tensor.shape) for tensor in tensors)
        raise ShapeError(f"{name}: {what} differ, {a} and {b} (shapes {shapes})")


def _product(name: str, a: Tensor, a_labels: Labels, b: Tensor, b_labels: Labels, out: Labels) -> Tensor:
    (first, second), dtype = widened(name, a, b)
    return Tensor.from_node(graph.cast(contract(name, first, a_labels, second, b_labels, out), dtype), a, b)


def matmul(self: Tensor, other: Tensor) -> Tensor:
    """The matrix product, batched and broadcast.

    Shapes: (.., m, k) and (.., k, n) give (.., m, n); an operand of shape (k,) is a row on the left and a column on
        the right, and that axis is absent from the result.
    Raises:
        ShapeError: the inner dimensions differ, an operand is a scalar, or the batch dimensions do not broadcast.
    """
    if not self.ndim or not other.ndim:
        raise ShapeError(
            f"matmul: got shapes {format_shape(self.shape)} and {format_shape(other.shape)}, want 1 or more "
            "dimensions; multiply by a scalar with *"
        )
    inner_a, inner_b = self.shape[-1], other.shape[0 if other.ndim == 1 else -2]
    _same_size("matmul", "inner dimensions", inner_a, inner_b, self, other)
    rank = max(self.ndim, other.ndim) - 2
    a_labels = ["k"] if self.ndim == 1 else [*range(rank - self.ndim + 2, rank), "m", "k"]
    b_labels = ["k"] if other.ndim == 1 else [*range(rank - other.ndim + 2, rank), "k", "n"]
    out = [*range(rank), *[label for label in "mn" if label in a_labels or label in b_labels]]
    return _product("matmul", self, a_labels, other, b_labels, out)


def _right_matmul(self: Tensor, other: Tensor) -> Tensor:
    return matmul(other if isinstance(other, Tensor) else Tensor(other, device=self.device), self)


def _left_matmul(self: Tensor, other: Tensor) -> Tensor:
    return matmul(self, other if isinstance(other, Tensor) else Tensor(other, device=self.device))


OPERATORS: dict[str, Callable[..., Tensor]] = {"__matmul__": _left_matmul, "__rmatmul__": _right_matmul}


def mm(self: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _of_rank("mm", (self, 2), (mat2, 2))
    return matmul(self, mat2)


def bmm(self: Tensor, mat2: Tensor) -> Tensor:
    """The products of two equally long batches of matrices."""
    _of_rank("bmm", (self, 3), (mat2, 3))
    _same_size("bmm", "batch sizes", self.shape[0], mat2.shape[0], self, mat2)
    return matmul(self, mat2)


def mv(self: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    _of_rank("mv", (self, 2), (vec, 1))
    return matmul(self, vec)


def dot(self: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors."""
    _of_rank("dot", (self, 1), (tensor, 1))
    return matmul(self, tensor)


def inner(self: Tensor, other: Tensor) -> Tensor:
    """The sums of products over the last axis of both; a scalar multiplies."""
    if not self.ndim or not other.ndim:
        return self * other
    _same_size("inner", "last dimensions", self.shape[-1], other.shape[-1], self, other)
    return tensordot(self, other, ([-1], [-1]))


def outer(self: Tensor, vec2: Tensor) -> Tensor:
    """The products of every element of a vector with every element of another."""
    _of_rank("outer", (self, 1), (vec2, 1))
    return self.reshape(-1, 1) * vec2


def tensordot(self: Tensor, other: Tensor, dims: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """The sum of products over axes `dims[0]` of self and `dims[1]` of other, or over the last n and the first n."""
    if isinstance(dims, int):
        if not 0 <= dims <= min(self.ndim, other.ndim):
            raise ShapeError(f"tensordot: got dims {dims}, want 0 to {min(self.ndim, other.ndim)}")
        dims = (range(self.ndim - dims, self.ndim), range(dims))
    a_axes, b_axes = [[dim] if isinstance(dim, int) else list(dim) for dim in dims]
    if len(a_axes) != len(b_axes):
        raise ShapeError(f"tensordot: dims {a_axes} and {b_axes} are of different length")
    a_labels: list[Hashable] = [("a", axis) for axis in range(self.ndim)]
    b_labels: list[Hashable] = [("b", axis) for axis in range(other.ndim)]
    for number, (i, j) in enumerate(zip(a_axes, b_axes, strict=True)):
        i, j = resolve_axis("tensordot", i, self.ndim), resolve_axis("tensordot", j, other.ndim)
        _same_size("tensordot", f"dimensions {i} and {j}", self.shape[i], other.shape[j], self, other)
        a_labels[i] = b_labels[j] = number
    out = [label for label in [*a_labels, *b_labels] if isinstance(label, tuple)]
    return _product("tensordot", self, a_labels, other, b_labels, out)


def linear(self: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """self @ weight.T + bias.

    Shapes: (.., in) with weight (out, in) and bias (out,) gives (.., out); with weight (in,) and bias () gives (..).
    """
    if weight.ndim not in (1, 2) or not self.ndim:
        raise ShapeError(
            f"linear: got input {format_shape(self.shape)} and weight {format_shape(weight.shape)}, "
            "want (.., in) and (out, in)"
        )
    _same_size("linear", "input features", self.shape[-1], weight.shape[-1], self, weight)
    given = [self, weight] if bias is None else [self, weight, bias]
    nodes, dtype = widened("linear", *given)
    batch, features = range(self.ndim - 1), ["n"][: weight.ndim - 1]
    result = contract("linear", nodes[0], [*batch, "k"], nodes[1], [*features, "k"], [*batch, *features])
    if bias is not None:
        if broadcast_shapes("linear", nodes[2].shape, result.shape) != result.shape:
            raise ShapeError(
                f"linear: bias {format_shape(bias.shape)} for a result of {format_shape(result.shape)}"
            )
        result = graph.apply("add", result, graph.expand(nodes[2], result.shape))
    return Tensor.from_node(graph.cast(result, dtype), *given)


def _plus(name: str, self: Tensor, product: Tensor, beta: Scalar, alpha: Scalar) -> Tensor:
    """beta * self + alpha * product; a beta of 0 leaves self out, even NaN."""
    if broadcast_shapes(name, self.shape, product.shape) != product.shape:
        raise ShapeError(
            f"{name}: input {format_shape(self.shape)} for a product of {format_shape(product.shape)}"
        )
    if self.dtype is not product.dtype:
        raise DTypeError(
            f"{name}: input is {self.dtype} and the product {product.dtype}, want one dtype; cast first"
        )
    if self.dtype.kind != "float" and isinstance(beta + alpha, float):
        raise DTypeError(f"{name}: beta {beta} and alpha {alpha} with {self.dtype} tensors, want integers")
    scaled = product if alpha == 1 else product * alpha
    return scaled if beta == 0 else (self if beta == 1 else self * beta) + scaled


def addmm(self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta * self + alpha * (mat1 @ mat2)."""
    return _plus("addmm", self, mm(mat1, mat2), beta, alpha)


def baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta * self + alpha * (batch1 @ batch2), batched."""
    return _plus("baddbmm", self, bmm(batch1, batch2), beta, alpha)


def addbmm(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta * self + alpha * (the sum over the batch of batch1 @ batch2)."""
    _of_rank("addbmm", (batch1, 3), (batch2, 3))
    return _plus("addbmm", self, tensordot(batch1, batch2, ([0, 2], [0, 1])), beta, alpha)


def addmv(self: Tensor, mat: Tensor, vec: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta * self + alpha * (mat @ vec)."""
    return _plus("addmv", self, mv(mat, vec), beta, alpha)


def addr(self: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta * self + alpha * outer(vec1, vec2)."""
    return _plus("addr", self, outer(vec1, vec2), beta, alpha)


def kron(self: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of self times all of other, as blocks."""
    rank = max(self.ndim, other.ndim)
    a = [1] * (rank - self.ndim) + list(self.shape)
    b = [1] * (rank - other.ndim) + list(other.shape)
    left = self.reshape([size for n in a for size in (n, 1)])
    right = other.reshape([size for n in b for size in (1, n)])
    return (left * right).reshape([m * n for m, n in zip(a, b, strict=True)])


def cross(self: Tensor, other: Tensor, dim: int = -1) -> Tensor:
    """The cross product of vectors of 3 elements along `dim`."""
    shape = broadcast_shapes("cross", self.shape, other.shape)
    axis = resolve_axis("cross", dim, len(shape))
    if len(shape) != max(self.ndim, other.ndim) or {self.shape[axis], other.shape[axis]} != {3}:
        raise ShapeError(
            f"cross: got shapes {format_shape(self.shape)} and {format_shape(other.shape)}, want size 3 along dim {dim}"
        )
    a, b = self.expand(shape), other.expand(shape)
    return a.roll(-1, axis) * b.roll(-2, axis) - a.roll(-2, axis) * b.roll(-1, axis)


# ---- products of many ----------------------------------------------------------------------------------------


def einsum(equation: str, *operands: Tensor | Sequence[Tensor]) -> Tensor:
    """The sum of products that an equation such as "bij,bjk->bik" describes.

    A letter names an axis. Letters absent from the right side are summed over; a letter twice in one operand takes
    the diagonal; `...` stands for axes that broadcast. Without `->` the result has `...` and then the letters that
    occur once, in alphabetical order. More than two operands are contracted in pairs, the smallest results first.

    Raises:
        ShapeError: the equation does not fit the operands.
    """
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = tuple(operands[0])
    tensors: list[Tensor] = list(operands)  # type: ignore[arg-type]
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ShapeError(f"einsum: {equation!r} has {len(terms)} operands, but {len(tensors)} were given")
    labels = [_term_labels(equation, term, tensor) for term, tensor in zip(terms, tensors, strict=True)]
    dots = sorted({label for term in labels for label in term if isinstance(label, int)})
    if arrow:
        out = _output_labels(equation, right, dots)
    else:
        letters = left.replace("...", "").replace(",", "")
        out = [*dots, *sorted(letter for letter in letters if letters.count(letter) == 1)]
    for label in out:
        if not any(label in term for term in labels):
            raise ShapeError(f"einsum: {label!r} of the result of {equation!r} is in no operand")
    nodes, dtype = widened("einsum", *tensors)
    terms_left = [_take_diagonals(equation, node, term) for node, term in zip(nodes, labels, strict=True)]
    return Tensor.from_node(graph.cast(_contract_all(terms_left, out), dtype), *tensors)


def _term_labels(equation: str, term: str, tensor: Tensor) -> list[Hashable]:
    """One label an axis: letters, and for the axes of `...` negative numbers counted from its end."""
    before, dots, after = term.partition("...")
    named, count = len(before) + len(after), tensor.ndim - len(before) - len(after)
    if not all(letter in ascii_letters for letter in before + after):
        raise ShapeError(f"einsum: {term!r} in {equation!r}; want letters and at most one '...'")
    if count < 0 or (count and not dots):
        raise ShapeError(
            f"einsum: {term!r} of {equation!r} names {named} axes, "
            f"but the operand has shape {format_shape(tensor.shape)}"
        )
    return [*before, *range(-count, 0), *after]


def _output_labels(equation: str, term: str, dots: list[int]) -> list[Hashable]:
    before, ellipsis, after = term.partition("...")
    letters = before + after
    if len(set(letters)) != len(letters) or not all(letter in ascii_letters for letter in letters):
        raise ShapeError(
            f"einsum: the result {term!r} of {equation!r} wants letters, each once, and at most one '...'"
        )
    return [*before, *(dots if ellipsis else []), *after]


def _take_diagonals(equation: str, node: Node, labels: list[Hashable]) -> tuple[Node, list[Hashable]]:
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if node.shape[first] != node.shape[second]:
                raise ShapeError(
                    f"einsum: {label!r} of {equation!r} is {node.shape[first]} and {node.shape[second]} in one operand"
                )
            node = diagonal_node(node, first, second)
            labels = [*[other for axis, other in enumerate(labels) if axis not in (first, second)], label]
    return node, labels


Term = tuple[Node, list[Hashable]]


def _contract_all(terms: list[Term], out: Labels) -> Node:
    """All operands contracted to the labels `out`, in pairs."""
    while len(terms) > 1:
        i, j, kept = _best_pair(terms, out)
        kept = list(out) if len(terms) == 2 else kept
        node = contract("einsum", *terms[i], *terms[j], kept)
        terms = [term for k, term in enumerate(terms) if k not in (i, j)] + [(node, kept)]
    node, labels = _sum_alone(*terms[0], set(out))
    return graph.permute(node, [labels.index(label) for label in out])


def _best_pair(terms: list[Term], out: Labels) -> tuple[int, int, list[Hashable]]:
    """The pair whose contraction saves the most elements, of equals the one with the fewest products; its labels."""
    sizes = {
        label: bounds(n)[1]
        for node, labels in terms
        for label, n in zip(labels, node.shape, strict=True)
        if n != 1
    }

    def count(labels: Labels) -> int:
        return prod([sizes.get(label, 1) for label in labels])

    choices = []
    for i, j in combinations(range(len(terms)), 2):
        elsewhere = {label for k, (_, labels) in enumerate(terms) if k not in (i, j) for label in labels}
        joined = list(dict.fromkeys([*terms[i][1], *terms[j][1]]))
        kept = [label for label in joined if label in elsewhere or label in out]
        choices.append((count(kept) - count(terms[i][1]) - count(terms[j][1]), count(joined), i, j, kept))
    return min(choices, key=lambda choice: choice[:4])[2:]


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The matrix product of a chain, in an order that keeps the results between small; a vector may end it."""
    first, last = tensors[0], tensors[-1]
    for position, tensor in enumerate(tensors):
        if tensor.ndim != 2 and not (tensor.ndim == 1 and position in (0, len(tensors) - 1)):
            raise ShapeError(
                f"multi_dot: operand {position} has shape {format_shape(tensor.shape)}, want a matrix"
            )
    for a, b in pairwise(tensors):
        _same_size("multi_dot", "inner dimensions", a.shape[-1], b.shape[0], a, b)
    if len(tensors) == 1:
        return first
    nodes, dtype = widened("multi_dot", *tensors)
    labels = [[position, position + 1] for position in range(len(tensors))]
    labels[0], labels[-1] = labels[0][2 - first.ndim :], labels[-1][: last.ndim]
    out = [*labels[0][: first.ndim - 1], *labels[-1][1:]]
    return Tensor.from_node(
        graph.cast(_contract_all(list(zip(nodes, labels, strict=True)), out), dtype), *tensors
    )


def bilinear(self: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """self[.., i] * weight[o, i, j] * input2[.., j] summed over i and j, plus bias[o]."""
    result = einsum("...i,oij,...j->...o", self, weight, input2)
    return result if bias is None else result + bias
