"""Linear algebra on matrices and batches of them, as graphs of fixed size without data-dependent control.

Loops run over columns, sweeps or levels, never over elements; inside, whole matrices are updated. Matrices stand in the
last two axes. Gradients are the known formulas, not those of the unrolled steps: a rule calls the operations of this
module again, so any order of derivative works.

A singular matrix raises nothing, since nothing is computed yet: `det` gives 0, `inv` and `solve` infinities or NaN.
Source: Golub and Van Loan, "Matrix Computations", 4th edition; the gradients: Giles, "Collected matrix derivative
results", 2008, and Walter and Lehmann, "Algorithmic differentiation of linear algebra functions", 2010 (QR).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tg_frontend.autograd import custom_gradient, grad
from tg_frontend.contraction import matmul
from tg_frontend.core import Tensor, broadcast_shapes
from tg_frontend.elementwise import where
from tg_ir import graph
from tg_ir.dtypes import int64
from tg_ir.errors import DTypeError, ShapeError
from tg_ir.graph import format_shape

__all__ = [
    "cholesky", "cholesky_solve", "det", "eigh", "eigvalsh", "inv", "inverse", "logdet", "lstsq", "matrix_power",
    "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd", "svdvals",
]  # fmt: skip


# ---- shared --------------------------------------------------------------------------------------------------


def _matrices(name: str, self: Tensor, square: bool = True) -> tuple[tuple[int, ...], int, int]:
    """The batch shape, and how many rows and columns.

    Raises:
        ShapeError: no matrices, not square where they must be, or of symbolic size.
        DTypeError: not float32 or float64.
    """
    if self.dtype.kind != "float" or self.dtype.itemsize < 4:
        raise DTypeError(f"{name}: got {self.dtype}, want float32 or float64; cast first")
    if self.ndim < 2 or not all(isinstance(n, int) for n in self.shape[-2:]):
        raise ShapeError(
            f"{name}: got {format_shape(self.shape)}, want matrices of known size (.., rows, columns)"
        )
    if square and self.shape[-1] != self.shape[-2]:
        raise ShapeError(f"{name}: got {format_shape(self.shape)}, want square matrices")
    return self.shape[:-2], self.shape[-2], self.shape[-1]


def _t(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def _index(n: int, like: Tensor) -> Tensor:
    return Tensor.from_node(graph.iota(n, int64, like.device))


def _identity(n: int, like: Tensor) -> Tensor:
    index = _index(n, like)
    return (index.reshape(n, 1) == index).to(like.dtype)


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    return Tensor.from_node(graph.expand(graph.const(0, like.dtype, like.device), tuple(shape)))


def _column(x: Tensor, j: int) -> Tensor:
    return x.narrow(-1, j, 1)


def _row(x: Tensor, j: int) -> Tensor:
    return x.narrow(-2, j, 1)


def _diagonal(x: Tensor) -> Tensor:
    return x.diagonal(0, -2, -1)


def _packed(
    function: Callable[[Tensor], tuple[tuple[Tensor, ...], Callable]], self: Tensor
) -> tuple[Tensor, ...]:
    """Several results of one matrix with a custom gradient: they travel in one tensor (.., numbers).

    `function` gives the results, all with the batch shape in front, and a rule from their gradients to the input's.
    """
    batch = self.ndim - 2
    results, rule = function(self)
    if not self.requires_grad:
        return results
    shapes = [tuple(result.shape[batch:]) for result in results]
    sizes = [math.prod(shape) for shape in shapes]

    def unpack(flat: Tensor) -> tuple[Tensor, ...]:
        lead, parts, start = flat.shape[:-1], [], 0
        for shape, size in zip(shapes, sizes, strict=True):
            parts.append(flat.narrow(-1, start, size).reshape(*lead, *shape))
            start += size
        return tuple(parts)

    def packed(source: Tensor) -> tuple[Tensor, Callable]:
        lead = source.shape[:-2]
        nodes = [result.reshape(*lead, size).node for result, size in zip(results, sizes, strict=True)]
        return Tensor.from_node(graph.cat(nodes, batch)), lambda gradient: rule(*unpack(gradient))

    return unpack(custom_gradient(packed)(self))


# ---- elimination ---------------------------------------------------------------------------------------------


def _eliminate(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Jordan elimination of [a b] with partial pivoting: the solution, the pivots, and the rows they are in.

    Rows stay in place; the pivot of column j is the greatest element of the rows that have not been pivots yet.
    """
    batch, n = a.shape[:-2], a.shape[-1]
    m = Tensor.from_node(graph.cat([a.node, b.node], a.ndim - 1))
    rows = _index(n, a).reshape(n, 1)
    free = rows >= 0
    pivots, order = [], []
    for j in range(n):
        column = _column(m, j)
        size = where(free, where(column != column, math.inf, column.abs()), -1.0)
        at = Tensor.from_node(graph.reduce(size.squeeze(-1).node, "argmax", [a.ndim - 2])).reshape(
            *batch, 1, 1
        )
        chosen = rows == at
        row = where(chosen, m, 0.0).sum(-2, True)
        pivot = _column(row, j)
        m = m - where(chosen, 0.0, column / where(pivot == 0, 1.0, pivot)) * row
        free = free & ~chosen
        pivots.append(pivot.reshape(*batch, 1))
        order.append(at.reshape(*batch, 1))
    pivots, order = [
        Tensor.from_node(graph.cat([each.node for each in parts], len(batch))) for parts in (pivots, order)
    ]
    index = order.unsqueeze(-1).expand(*batch, n, b.shape[-1])
    solution = Tensor.from_node(graph.gather(m.narrow(-1, n, b.shape[-1]).node, index.node, a.ndim - 2))
    return solution / pivots.unsqueeze(-1), pivots, order


def _solution(name: str, a: Tensor, b: Tensor) -> Tensor:
    """x of a x = b, for matrices b; differentiable."""
    batch = broadcast_shapes(name, a.shape[:-2], b.shape[:-2])
    n, k = b.shape[-2:]
    a, b = a.expand(*batch, n, n), b.expand(*batch, n, k)
    if not n or not k:
        return _zeros((*batch, n, k), a)

    @custom_gradient
    def solved(a: Tensor, b: Tensor) -> tuple[Tensor, Callable]:
        def rule(gradient: Tensor) -> tuple[Tensor, Tensor]:
            by_b = _solution(name, _t(a), gradient)
            return -matmul(by_b, _t(_solution(name, a, b))), by_b

        return _eliminate(a.detach(), b.detach())[0], rule

    return solved(a, b)


def solve(self: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X of self @ X = B, or of X @ self = B where not `left`.

    Shapes: (.., n, n) with (.., n, k) gives (.., n, k); with a vector (n,) or a batch of them (.., n), vectors.
    """
    batch, n, _ = _matrices("solve", self)
    vector = B.ndim == 1 or (B.ndim == self.ndim - 1 and B.shape == self.shape[:-1])
    b = B.unsqueeze(-1) if vector else B
    if b.dtype is not self.dtype or b.shape[-2 if left or vector else -1] != n:
        raise ShapeError(
            f"solve: got {self.dtype} {format_shape(self.shape)} and {B.dtype} {format_shape(B.shape)}, "
            "want one dtype and as many rows"
        )
    a = self if left else _t(self)
    x = _solution("solve", a, b if left or vector else _t(b))
    return x.squeeze(-1) if vector else x if left else _t(x)


def inv(self: Tensor) -> Tensor:
    """The inverse of square matrices; infinities or NaN where there is none."""
    _, n, _ = _matrices("inv", self)
    return _solution("inv", self, _identity(n, self))


inverse = inv


def _parity(order: Tensor) -> Tensor:
    """1 or -1: the sign of a permutation, from the pairs that are out of order."""
    n = order.shape[-1]
    index = _index(n, order)
    inverted = (order.unsqueeze(-1) > order.unsqueeze(-2)) & (index.reshape(n, 1) < index)
    return 1 - 2 * (inverted.to(int64).sum((-1, -2)) % 2)


def _pivots(self: Tensor) -> tuple[Tensor, Tensor]:
    """The pivots of elimination, and the sign of the permutation."""
    batch, n, _ = _matrices("det", self)
    _, pivots, order = _eliminate(self.detach(), _zeros((*batch, n, 0), self))
    return pivots, _parity(order).to(self.dtype)


def det(self: Tensor) -> Tensor:
    """The determinant of square matrices; 0 of singular ones, which have a gradient, too."""
    batch, n, _ = _matrices("det", self)
    if not n:
        return _zeros(batch, self) + 1

    @custom_gradient
    def determinant(a: Tensor) -> tuple[Tensor, Callable]:
        pivots, sign = _pivots(a)
        return pivots.prod(-1) * sign, lambda gradient: gradient.reshape(*batch, 1, 1) * _t(_adjugate(a))

    return determinant(self)


@custom_gradient
def _adjugate(a: Tensor) -> tuple[Tensor, Callable]:
    """det(a) * inv(a), also where a is singular: of a = u s v', det(u) det(v) * v * (products of the other s) * u'.

    Its own gradient is that of det(a) * inv(a), so second derivatives need an inverse.
    """
    n = a.shape[-1]
    u, s, vh = svd(a.detach(), False)
    others = where(_identity(n, a) != 0, 1.0, s.unsqueeze(-2)).prod(-1)
    (pu, sign_u), (pv, sign_v) = _pivots(u), _pivots(vh)
    sign = (pu.prod(-1) * sign_u * pv.prod(-1) * sign_v).round().unsqueeze(-1).unsqueeze(-1)

    def rule(gradient: Tensor) -> Tensor:
        return grad(det(a).unsqueeze(-1).unsqueeze(-1) * inv(a), a, gradient)[0]

    return matmul(_t(vh) * others.unsqueeze(-2), _t(u)) * sign, rule


def slogdet(self: Tensor) -> tuple[Tensor, Tensor]:
    """The sign of the determinant and the logarithm of its magnitude: 0 and -inf of singular matrices."""
    batch, n, _ = _matrices("slogdet", self)
    if not n:
        return _zeros(batch, self) + 1, _zeros(batch, self)
    pivots, sign = _pivots(self)
    sign = pivots.sign().prod(-1) * sign

    @custom_gradient
    def logarithm(a: Tensor) -> tuple[Tensor, Callable]:
        return pivots.abs().log().sum(-1), lambda gradient: gradient.reshape(*batch, 1, 1) * _t(inv(a))

    return sign, logarithm(self)


def logdet(self: Tensor) -> Tensor:
    """The logarithm of the determinant; NaN where that is negative."""
    sign, logarithm = slogdet(self)
    return where(sign < 0, math.nan, logarithm)


def matrix_power(self: Tensor, n: int) -> Tensor:
    """self @ self @ .. n times; a negative n takes the inverse first."""
    size = _matrices("matrix_power", self)[1]
    if n < 0:
        return matrix_power(inv(self), -n)
    result, square = None, self
    while n:
        if n & 1:
            result = square if result is None else matmul(result, square)
        n >>= 1
        square = matmul(square, square) if n else square
    return _identity(size, self).expand(*self.shape) if result is None else result


# ---- triangles -----------------------------------------------------------------------------------------------


def _inverse_of_lower(a: Tensor) -> Tensor:
    """The inverse of lower triangular matrices, by blocks of doubling size.

    inv([[p, 0], [q, r]]) = [[inv(p), 0], [-inv(r) q inv(p), inv(r)]]; all blocks on the diagonal at once. The matrix is
    padded to a power of two with ones on the diagonal.
    """
    batch, n = a.shape[:-2], a.shape[-1]
    size = 1 << (n - 1).bit_length()
    extra = (_index(size, a) >= n).to(a.dtype) * _identity(size, a)
    a = Tensor.from_node(graph.pad(a.node, [(0, 0)] * len(batch) + [(0, size - n)] * 2)) + extra
    result = 1 / _diagonal(a).reshape(*batch, size, 1, 1)
    half = 1
    while half < size:
        count = size // (2 * half)
        tiles = a.reshape(*batch, count, 2 * half, count, 2 * half).diagonal(0, -4, -2).movedim(-1, -3)
        below = tiles.narrow(-2, half, half).narrow(-1, 0, half)
        pairs = result.reshape(*batch, count, 2, half, half)
        p, r = pairs.select(-3, 0), pairs.select(-3, 1)
        corner = -matmul(r, matmul(below, p))
        axis = len(batch) + 1
        top = graph.cat([p.node, graph.expand(graph.const(0, a.dtype, a.device), p.shape)], axis + 1)
        result = Tensor.from_node(graph.cat([top, graph.cat([corner.node, r.node], axis + 1)], axis))
        half *= 2
    return result.reshape(*batch, size, size).narrow(-1, 0, n).narrow(-2, 0, n)


def _triangular_solution(a: Tensor, b: Tensor, upper: bool, unit: bool) -> Tensor:
    """x of a x = b of one batch shape, reading one triangle of a."""
    n = a.shape[-1]

    @custom_gradient
    def solved(a: Tensor, b: Tensor) -> tuple[Tensor, Callable]:
        def rule(gradient: Tensor) -> tuple[Tensor, Tensor]:
            by_b = _triangular_solution(_t(a), gradient, not upper, unit)
            by_a = -matmul(by_b, _t(_triangular_solution(a, b, upper, unit)))
            return (by_a.triu(int(unit)) if upper else by_a.tril(-int(unit))), by_b

        t, rhs = a.detach(), b.detach()
        t = t.flip((-1, -2)) if upper else t
        t = t.tril(-1) + _identity(n, t) if unit else t.tril()
        x = matmul(_inverse_of_lower(t), rhs.flip((-2,)) if upper else rhs)
        return x.flip((-2,)) if upper else x, rule

    return solved(a, b)


def solve_triangular(
    self: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X of self @ X = B (of X @ self = B where not `left`), reading the upper or the lower triangle of self."""
    _, n, _ = _matrices("solve_triangular", self)
    if B.ndim < 2 or B.dtype is not self.dtype or B.shape[-2 if left else -1] != n:
        raise ShapeError(
            f"solve_triangular: got {self.dtype} {format_shape(self.shape)} and {B.dtype} {format_shape(B.shape)}, "
            "want one dtype and as many rows"
        )
    if not left:
        return _t(solve_triangular(_t(self), _t(B), upper=not upper, unitriangular=unitriangular))
    batch = broadcast_shapes("solve_triangular", self.shape[:-2], B.shape[:-2])
    if not n or not B.shape[-1]:
        return _zeros((*batch, *B.shape[-2:]), B)
    return _triangular_solution(
        self.expand(*batch, n, n), B.expand(*batch, *B.shape[-2:]), upper, unitriangular
    )


def cholesky(self: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with L @ L.T = self (or its transpose, if `upper`); NaN where self is not positive.

    One triangle of self is read.
    """
    batch, n, _ = _matrices("cholesky", self)
    if not n:
        return self
    source = self if not upper else _t(self)

    @custom_gradient
    def factor(a: Tensor) -> tuple[Tensor, Callable]:
        def rule(gradient: Tensor) -> Tensor:
            lower = cholesky(a)
            inner = matmul(_t(lower), gradient.tril()).tril()
            inner = inner - inner * _identity(n, a) * 0.5
            half = _triangular_solution(_t(lower), inner, True, False)
            half = _t(_triangular_solution(_t(lower), _t(half), True, False))
            return (half + _t(half)) * 0.5

        rest, columns = a.detach().tril(), []
        rows = _index(n, a).reshape(n, 1)
        for j in range(n):
            column = where(rows >= j, _column(rest, j) / _column(_row(rest, j), j).sqrt(), 0.0)
            columns.append(column.node)
            rest = rest - column * _t(column)
        return Tensor.from_node(graph.cat(columns, len(batch) + 1)), rule

    return _t(factor(source)) if upper else factor(source)


def cholesky_solve(self: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of (L @ L.T) @ X = self."""
    lower = _t(L) if upper else L
    return solve_triangular(_t(lower), solve_triangular(lower, self, upper=False), upper=True)


# ---- orthogonal factors --------------------------------------------------------------------------------------


def _householder(a: Tensor, complete: bool) -> tuple[Tensor, Tensor]:
    """Q and R by Householder reflections, with LAPACK's signs: R[j, j] has the sign opposite to what it replaces."""
    batch, m, n = a.shape[:-2], a.shape[-2], a.shape[-1]
    rows = _index(m, a).reshape(m, 1)
    vectors = []
    r = a
    for j in range(min(m - 1, n)):
        below = where(rows > j, _column(r, j), 0.0)
        alpha = _column(_row(r, j), j)
        scale = where(below == 0, 0.0, below).abs().amax(-2, True).maximum(alpha.abs())
        safe = where(scale == 0, 1.0, scale)
        rest = (below / safe).square().sum(-2, True)
        norm = safe * ((alpha / safe).square() + rest).sqrt()
        beta = where(alpha < 0, norm, -norm)
        none = rest == 0
        v = where(rows == j, 1.0, below / where(none, 1.0, alpha - beta))
        tau = where(none, 0.0, (beta - alpha) / where(none, 1.0, beta))
        r = r - tau * v * matmul(_t(v), r)
        vectors.append((v, tau))
    k = m if complete else min(m, n)
    q = _identity(m, a).narrow(-1, 0, k).expand(*batch, m, k)
    for v, tau in reversed(vectors):
        q = q - tau * v * matmul(_t(v), q)
    return q, r.narrow(-2, 0, k).triu()


def qr(self: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """Orthonormal columns Q and an upper triangle R with Q @ R = self. Modes: reduced, complete, r (an empty Q).

    Shapes: (.., m, n) gives (.., m, k) and (.., k, n), k = min(m, n); complete: k = m.
    Raises:
        ShapeError: the gradient is asked for of `complete` with m > n, or of `r`.
    """
    batch, m, n = _matrices("qr", self, False)
    if mode not in ("reduced", "complete", "r"):
        raise ShapeError(f"qr: got mode {mode!r}, want reduced, complete or r")
    if not m or not n:
        k = m if mode == "complete" else 0
        return _identity(m, self).narrow(-1, 0, k).expand(*batch, m, k), _zeros((*batch, k, n), self)

    def factored(a: Tensor) -> tuple[tuple[Tensor, Tensor], Callable]:
        def rule(by_q: Tensor, by_r: Tensor) -> Tensor:
            if mode == "r" or (mode == "complete" and m > n):
                raise ShapeError(
                    f"qr: no gradient in mode {mode!r} of {format_shape(self.shape)}; use 'reduced'"
                )
            return _qr_gradient(a, *qr(a), by_q, by_r)

        return _householder(a.detach(), mode == "complete"), rule

    q, r = _packed(factored, self)
    return (_zeros((0,), self), r) if mode == "r" else (q, r)


def _qr_gradient(a: Tensor, q: Tensor, r: Tensor, by_q: Tensor, by_r: Tensor) -> Tensor:
    """For m >= n; a wide matrix [x y] has R = [u v] with x = Q u and v = Q' y."""
    m, n = a.shape[-2:]
    if m < n:
        x, y = a.narrow(-1, 0, m), a.narrow(-1, m, n - m)
        by_u, by_v = by_r.narrow(-1, 0, m), by_r.narrow(-1, m, n - m)
        by_x = _qr_gradient(x, q, r.narrow(-1, 0, m), by_q + matmul(y, _t(by_v)), by_u)
        return Tensor.from_node(graph.cat([by_x.node, matmul(q, by_v).node], a.ndim - 1))
    skew = matmul(r, _t(by_r)) - matmul(_t(by_q), q)
    skew = skew.tril() + _t(skew.tril(-1))
    return _t(solve_triangular(r, _t(by_q + matmul(q, skew)), upper=True))


# ---- Jacobi rotations ----------------------------------------------------------------------------------------

_SWEEPS = {4: 10, 8: 14}
"""How often every pair of columns is rotated, by the dtype's size: the last rotations are smaller than rounding."""


def _rotation(difference: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine and sine that zero `off` in [[p, off], [off, q]], from difference = q - p; the smaller angle."""
    skip = off == 0
    ratio = difference / (2 * where(skip, 1.0, off))
    big = ratio.abs() > 1e18  # its square would overflow a float32
    tame = where(big, 1.0, ratio)
    tangent = where(tame < 0, -1.0, 1.0) / (tame.abs() + (tame * tame + 1).sqrt())
    tangent = where(skip, 0.0, where(big, 0.5 / where(big, ratio, 1.0), tangent))
    cosine = (tangent * tangent + 1).rsqrt()
    return cosine, tangent * cosine


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, axis: int) -> Tensor:
    """Both halves of an axis rotated into one another, then moved on by one place of the round-robin tournament.

    The first column stays, the others go round: (0 1 2 | 5 4 3) to (0 5 1 | 4 3 2). After n - 1 rounds each has met
    each other once and all are back where they started.
    """
    half = x.shape[axis] // 2
    first, second = x.narrow(axis, 0, half), x.narrow(axis, half, half)
    first, second = first * cosine - second * sine, first * sine + second * cosine
    position = axis % x.ndim
    parts = [
        first.narrow(axis, 0, 1), second.narrow(axis, 0, 1), first.narrow(axis, 1, max(half - 2, 0)),
        second.narrow(axis, 1, half - 1), first.narrow(axis, half - 1, 1),
    ]  # fmt: skip
    if half == 1:
        parts = [first, second]
    return Tensor.from_node(graph.cat([part.node for part in parts if part.shape[axis]], position))


def _even_columns(x: Tensor) -> Tensor:
    """With a column of zeros added where their number is odd."""
    return Tensor.from_node(graph.pad(x.node, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] % 2)]))


def _sorted(values: Tensor, descending: bool, *matrices: Tensor) -> tuple[Tensor, ...]:
    """The values in order, and the columns of the matrices with them."""
    order = graph.argsort(values.node, values.ndim - 1, descending)
    result = [Tensor.from_node(graph.gather(values.node, order, values.ndim - 1))]
    for matrix in matrices:
        index = graph.expand(graph.reshape(order, (*values.shape[:-1], 1, values.shape[-1])), matrix.shape)
        result.append(Tensor.from_node(graph.gather(matrix.node, index, matrix.ndim - 1)))
    return tuple(result)


def _one_sided_jacobi(a: Tensor, complete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V of matrices with at least as many rows as columns.

    Rotations of columns make them orthogonal: a V = U S. Q of the sorted columns' QR is U, up to signs; so it is
    orthonormal even where singular values are 0.
    Source: Demmel and Veselic, "Jacobi's method is more accurate than QR", 1992; pairs in parallel:
    Brent and Luk, 1985.
    """
    batch, m, n = a.shape[:-2], a.shape[-2], a.shape[-1]
    top = a.abs().amax((-1, -2), True)
    scale = where(top == 0, 1.0, top)
    eye = _identity(n, a).expand(*batch, n, n)
    x = _even_columns(Tensor.from_node(graph.cat([(a / scale).node, eye.node], len(batch))))
    half = x.shape[-1] // 2
    for _ in range(_SWEEPS[a.dtype.itemsize] * (2 * half - 1)):
        w = x.narrow(-2, 0, m)
        p, q = w.narrow(-1, 0, half), w.narrow(-1, half, half)
        difference = (q * q).sum(-2, True) - (p * p).sum(-2, True)
        x = _turn(x, *_rotation(difference, (p * q).sum(-2, True)), -1)
    x = x.narrow(-1, 0, n)  # after whole sweeps all columns are in their places
    w, v = x.narrow(-2, 0, m), x.narrow(-2, m, n)
    s, w, v = _sorted(w.square().sum(-2).sqrt(), True, w, v)
    u, r = _householder(w, complete)
    signs = 1 - 2 * (_diagonal(r) < 0).to(a.dtype)
    if complete and m > n:
        ones = graph.const(1, a.dtype, a.device)
        signs = Tensor.from_node(graph.pad(signs.node, [(0, 0)] * len(batch) + [(0, m - n)], ones))
    return u * signs.unsqueeze(-2), s * scale.squeeze(-1), v


def svd(self: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V' with (U * S) @ V' = self and singular values S in descending order.

    The signs of pairs of columns are not determined, and may differ from other libraries. The columns that only
    `full_matrices` has carry no gradient.

    Shapes: (.., m, n) gives (.., m, k), (.., k), (.., k, n), k = min(m, n); full: (.., m, m), (.., k), (.., n, n).
    """
    batch, m, n = _matrices("svd", self, False)
    if not m or not n:
        rows, columns = (m, n) if full_matrices else (0, 0)
        eye = lambda size, k: _identity(size, self).narrow(-1, 0, k).expand(*batch, size, k)  # noqa: E731
        return eye(m, rows), _zeros((*batch, 0), self), _t(eye(n, columns))
    if m < n:
        u, s, vh = svd(_t(self), full_matrices)
        return _t(vh), s, _t(u)

    def factored(a: Tensor) -> tuple[tuple[Tensor, ...], Callable]:
        def rule(by_u: Tensor, by_s: Tensor, by_v: Tensor) -> Tensor:
            if full_matrices and m > n:
                by_u = by_u.narrow(-1, 0, n)
            u, s, vh = svd(a, False)
            return _svd_gradient(u, s, _t(vh), by_u, by_s, by_v)

        return _one_sided_jacobi(a.detach(), full_matrices), rule

    u, s, v = _packed(factored, self)
    return u, s, _t(v)


def _svd_gradient(u: Tensor, s: Tensor, v: Tensor, by_u: Tensor, by_s: Tensor, by_v: Tensor) -> Tensor:
    """For m >= n. Where two singular values are equal, only their own gradients are defined."""
    n = s.shape[-1]
    eye = _identity(n, s)
    gap = (s.unsqueeze(-2) - s.unsqueeze(-1)) * (s.unsqueeze(-2) + s.unsqueeze(-1))
    gap = where(gap == 0, math.inf, gap)
    skew = lambda x: (x - _t(x)) / gap  # noqa: E731
    row, column = s.unsqueeze(-2), s.unsqueeze(-1)
    inner = skew(matmul(_t(u), by_u)) * row + column * skew(matmul(_t(v), by_v)) + by_s.unsqueeze(-1) * eye
    result = matmul(matmul(u, inner), _t(v))
    safe = where(row == 0, math.inf, row)
    outside = (by_u - matmul(u, matmul(_t(u), by_u))) / safe
    return result + matmul(outside, _t(v))


def svdvals(self: Tensor) -> Tensor:
    """The singular values in descending order."""
    return svd(self, False)[1]


def pinv(self: Tensor, rtol: float | None = None) -> Tensor:
    """The Moore-Penrose inverse; singular values up to rtol times the greatest count as 0."""
    _, m, n = _matrices("pinv", self, False)
    if not m or not n:
        return _t(self)
    u, s, vh = svd(self, False)
    limit = (max(m, n) * self.dtype.eps if rtol is None else rtol) * s.narrow(-1, 0, 1)
    kept = s > limit
    return matmul(_t(vh) * where(kept, 1 / where(kept, s, 1.0), 0.0).unsqueeze(-2), _t(u))


def lstsq(self: Tensor, B: Tensor) -> Tensor:
    """The X with the least norm among those that minimise the norm of self @ X - B."""
    return matmul(pinv(self), B)


def eigh(self: Tensor, UPLO: str = "L") -> tuple[Tensor, Tensor]:
    """The eigenvalues, ascending, and eigenvectors (columns) of symmetric matrices, of which one triangle is read.

    The signs of eigenvectors are not determined. Shapes: (.., n, n) gives (.., n) and (.., n, n).
    """
    batch, n, _ = _matrices("eigh", self)
    if UPLO not in ("L", "U"):
        raise ShapeError(f"eigh: got UPLO {UPLO!r}, want 'L' or 'U'")
    if not n:
        return _zeros((*batch, 0), self), self

    def factored(a: Tensor) -> tuple[tuple[Tensor, Tensor], Callable]:
        def rule(by_values: Tensor, by_vectors: Tensor) -> Tensor:
            values, v = eigh(a, UPLO)
            gap = values.unsqueeze(-2) - values.unsqueeze(-1)
            inner = matmul(_t(v), by_vectors) / where(gap == 0, math.inf, gap)
            inner = inner + by_values.unsqueeze(-1) * _identity(n, values)
            full = matmul(matmul(v, inner), _t(v))
            return (full + _t(full)) * 0.5

        part = a.detach() if UPLO == "L" else _t(a.detach())
        return _two_sided_jacobi(part.tril() + _t(part.tril(-1))), rule

    return _packed(factored, self)


def _two_sided_jacobi(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices: pairs of rows and columns rotated in parallel."""
    batch, n = a.shape[:-2], a.shape[-1]
    top = a.abs().amax((-1, -2), True)
    scale = where(top == 0, 1.0, top)
    x, v = _even_columns(_t(_even_columns(a / scale))), _even_columns(_identity(n, a).expand(*batch, n, n))
    half = x.shape[-1] // 2
    for _ in range(_SWEEPS[a.dtype.itemsize] * (2 * half - 1)):
        diagonal = _diagonal(x)
        difference = diagonal.narrow(-1, half, half) - diagonal.narrow(-1, 0, half)
        cosine, sine = _rotation(difference, _diagonal(x.narrow(-1, half, half).narrow(-2, 0, half)))
        row, column = (cosine.unsqueeze(-2), sine.unsqueeze(-2)), (cosine.unsqueeze(-1), sine.unsqueeze(-1))
        x = _turn(_turn(x, *row, -1), *column, -2)
        v = _turn(v, *row, -1)
    values, vectors = _sorted(_diagonal(x).narrow(-1, 0, n), False, v.narrow(-1, 0, n))
    return values * scale.squeeze(-1), vectors


def eigvalsh(self: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, ascending."""
    return eigh(self, UPLO)[0]
