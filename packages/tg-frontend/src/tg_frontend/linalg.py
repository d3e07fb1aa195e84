"""Linear algebra on matrices and batches of them. Matrices stand in the last two axes.

The values come from factorization.py. Gradients are the known formulas, not those of the unrolled steps: a rule calls
the operations of this module again, so any order of derivative works.

A singular matrix raises nothing, since nothing is computed yet: `det` gives 0, `inv` and `solve` infinities or NaN.
Source of the gradients: Giles, "Collected matrix derivative results", 2008; Walter and Lehmann, "Algorithmic
differentiation of linear algebra functions", 2010 (QR).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tg_frontend.autograd import custom_gradient, grad
from tg_frontend.contraction import matmul
from tg_frontend.core import Tensor, broadcast_shapes
from tg_frontend.elementwise import where
from tg_frontend.factorization import (
    cholesky_factor,
    eliminate,
    householder,
    identity,
    inverse_of_lower,
    one_sided_jacobi,
    parity,
    transposed,
    two_sided_jacobi,
)  # fmt: skip
from tg_ir import graph
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


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    return Tensor.from_node(graph.expand(graph.const(0, like.dtype, like.device), tuple(shape)))


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
            by_b = _solution(name, transposed(a), gradient)
            return -matmul(by_b, transposed(_solution(name, a, b))), by_b

        return eliminate(a.detach(), b.detach())[0], rule

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
    a = self if left else transposed(self)
    x = _solution("solve", a, b if left or vector else transposed(b))
    return x.squeeze(-1) if vector else x if left else transposed(x)


def inv(self: Tensor) -> Tensor:
    """The inverse of square matrices; infinities or NaN where there is none."""
    _, n, _ = _matrices("inv", self)
    return _solution("inv", self, identity(n, self))


inverse = inv


def _pivots(self: Tensor) -> tuple[Tensor, Tensor]:
    """The pivots of elimination, and the sign of the permutation."""
    batch, n, _ = _matrices("det", self)
    _, pivots, order = eliminate(self.detach(), _zeros((*batch, n, 0), self))
    return pivots, parity(order).to(self.dtype)


def det(self: Tensor) -> Tensor:
    """The determinant of square matrices; 0 of singular ones, which have a gradient, too."""
    batch, n, _ = _matrices("det", self)
    if not n:
        return _zeros(batch, self) + 1

    @custom_gradient
    def determinant(a: Tensor) -> tuple[Tensor, Callable]:
        pivots, sign = _pivots(a)
        return pivots.prod(
            -1
        ) * sign, lambda gradient: gradient.reshape(*batch, 1, 1) * transposed(_adjugate(a))

    return determinant(self)


@custom_gradient
def _adjugate(a: Tensor) -> tuple[Tensor, Callable]:
    """det(a) * inv(a), also where a is singular: of a = u s v', det(u) det(v) * v * (products of the other s) * u'.

    Its own gradient is that of det(a) * inv(a), so second derivatives need an inverse.
    """
    n = a.shape[-1]
    u, s, vh = svd(a.detach(), False)
    others = where(identity(n, a) != 0, 1.0, s.unsqueeze(-2)).prod(-1)
    (pu, sign_u), (pv, sign_v) = _pivots(u), _pivots(vh)
    sign = (pu.prod(-1) * sign_u * pv.prod(-1) * sign_v).round().unsqueeze(-1).unsqueeze(-1)

    def rule(gradient: Tensor) -> Tensor:
        return grad(det(a).unsqueeze(-1).unsqueeze(-1) * inv(a), a, gradient)[0]

    return matmul(transposed(vh) * others.unsqueeze(-2), transposed(u)) * sign, rule


def slogdet(self: Tensor) -> tuple[Tensor, Tensor]:
    """The sign of the determinant and the logarithm of its magnitude: 0 and -inf of singular matrices."""
    batch, n, _ = _matrices("slogdet", self)
    if not n:
        return _zeros(batch, self) + 1, _zeros(batch, self)
    pivots, sign = _pivots(self)
    sign = pivots.sign().prod(-1) * sign

    @custom_gradient
    def logarithm(a: Tensor) -> tuple[Tensor, Callable]:
        return pivots.abs().log().sum(
            -1
        ), lambda gradient: gradient.reshape(*batch, 1, 1) * transposed(inv(a))

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
    return identity(size, self).expand(*self.shape) if result is None else result


# ---- triangles -----------------------------------------------------------------------------------------------


def _triangular_solution(a: Tensor, b: Tensor, upper: bool, unit: bool) -> Tensor:
    """x of a x = b of one batch shape, reading one triangle of a."""
    n = a.shape[-1]

    @custom_gradient
    def solved(a: Tensor, b: Tensor) -> tuple[Tensor, Callable]:
        def rule(gradient: Tensor) -> tuple[Tensor, Tensor]:
            by_b = _triangular_solution(transposed(a), gradient, not upper, unit)
            by_a = -matmul(by_b, transposed(_triangular_solution(a, b, upper, unit)))
            return (by_a.triu(int(unit)) if upper else by_a.tril(-int(unit))), by_b

        t, rhs = a.detach(), b.detach()
        t = t.flip((-1, -2)) if upper else t
        t = t.tril(-1) + identity(n, t) if unit else t.tril()
        x = matmul(inverse_of_lower(t), rhs.flip((-2,)) if upper else rhs)
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
        return transposed(
            solve_triangular(transposed(self), transposed(B), upper=not upper, unitriangular=unitriangular)
        )
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
    _, n, _ = _matrices("cholesky", self)
    if not n:
        return self
    source = self if not upper else transposed(self)

    @custom_gradient
    def factor(a: Tensor) -> tuple[Tensor, Callable]:
        def rule(gradient: Tensor) -> Tensor:
            lower = cholesky(a)
            inner = matmul(transposed(lower), gradient.tril()).tril()
            inner = inner - inner * identity(n, a) * 0.5
            half = _triangular_solution(transposed(lower), inner, True, False)
            half = transposed(_triangular_solution(transposed(lower), transposed(half), True, False))
            return (half + transposed(half)) * 0.5

        return cholesky_factor(a.detach()), rule

    return transposed(factor(source)) if upper else factor(source)


def cholesky_solve(self: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of (L @ L.T) @ X = self."""
    lower = transposed(L) if upper else L
    return solve_triangular(transposed(lower), solve_triangular(lower, self, upper=False), upper=True)


# ---- orthogonal factors --------------------------------------------------------------------------------------


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
        return identity(m, self).narrow(-1, 0, k).expand(*batch, m, k), _zeros((*batch, k, n), self)

    def factored(a: Tensor) -> tuple[tuple[Tensor, Tensor], Callable]:
        def rule(by_q: Tensor, by_r: Tensor) -> Tensor:
            if mode == "r" or (mode == "complete" and m > n):
                raise ShapeError(
                    f"qr: no gradient in mode {mode!r} of {format_shape(self.shape)}; use 'reduced'"
                )
            return _qr_gradient(a, *qr(a), by_q, by_r)

        return householder(a.detach(), mode == "complete"), rule

    q, r = _packed(factored, self)
    return (_zeros((0,), self), r) if mode == "r" else (q, r)


def _qr_gradient(a: Tensor, q: Tensor, r: Tensor, by_q: Tensor, by_r: Tensor) -> Tensor:
    """For m >= n; a wide matrix [x y] has R = [u v] with x = Q u and v = Q' y."""
    m, n = a.shape[-2:]
    if m < n:
        x, y = a.narrow(-1, 0, m), a.narrow(-1, m, n - m)
        by_u, by_v = by_r.narrow(-1, 0, m), by_r.narrow(-1, m, n - m)
        by_x = _qr_gradient(x, q, r.narrow(-1, 0, m), by_q + matmul(y, transposed(by_v)), by_u)
        return Tensor.from_node(graph.cat([by_x.node, matmul(q, by_v).node], a.ndim - 1))
    skew = matmul(r, transposed(by_r)) - matmul(transposed(by_q), q)
    skew = skew.tril() + transposed(skew.tril(-1))
    return transposed(solve_triangular(r, transposed(by_q + matmul(q, skew)), upper=True))


def svd(self: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V' with (U * S) @ V' = self and singular values S in descending order.

    The signs of pairs of columns are not determined, and may differ from other libraries. The columns that only
    `full_matrices` has carry no gradient.

    Shapes: (.., m, n) gives (.., m, k), (.., k), (.., k, n), k = min(m, n); full: (.., m, m), (.., k), (.., n, n).
    """
    batch, m, n = _matrices("svd", self, False)
    if not m or not n:
        rows, columns = (m, n) if full_matrices else (0, 0)
        eye = lambda size, k: identity(size, self).narrow(-1, 0, k).expand(*batch, size, k)  # noqa: E731
        return eye(m, rows), _zeros((*batch, 0), self), transposed(eye(n, columns))
    if m < n:
        u, s, vh = svd(transposed(self), full_matrices)
        return transposed(vh), s, transposed(u)

    def factored(a: Tensor) -> tuple[tuple[Tensor, ...], Callable]:
        def rule(by_u: Tensor, by_s: Tensor, by_v: Tensor) -> Tensor:
            if full_matrices and m > n:
                by_u = by_u.narrow(-1, 0, n)
            u, s, vh = svd(a, False)
            return _svd_gradient(u, s, transposed(vh), by_u, by_s, by_v)

        return one_sided_jacobi(a.detach(), full_matrices), rule

    u, s, v = _packed(factored, self)
    return u, s, transposed(v)


def _svd_gradient(u: Tensor, s: Tensor, v: Tensor, by_u: Tensor, by_s: Tensor, by_v: Tensor) -> Tensor:
    """For m >= n. Where two singular values are equal, only their own gradients are defined."""
    n = s.shape[-1]
    eye = identity(n, s)
    gap = (s.unsqueeze(-2) - s.unsqueeze(-1)) * (s.unsqueeze(-2) + s.unsqueeze(-1))
    gap = where(gap == 0, math.inf, gap)
    skew = lambda x: (x - transposed(x)) / gap  # noqa: E731
    row, column = s.unsqueeze(-2), s.unsqueeze(-1)
    inner = (
        skew(matmul(transposed(u), by_u)) * row
        + column * skew(matmul(transposed(v), by_v))
        + by_s.unsqueeze(-1) * eye
    )
    result = matmul(matmul(u, inner), transposed(v))
    safe = where(row == 0, math.inf, row)
    outside = (by_u - matmul(u, matmul(transposed(u), by_u))) / safe
    return result + matmul(outside, transposed(v))


def svdvals(self: Tensor) -> Tensor:
    """The singular values in descending order."""
    return svd(self, False)[1]


def pinv(self: Tensor, rtol: float | None = None) -> Tensor:
    """The Moore-Penrose inverse; singular values up to rtol times the greatest count as 0."""
    _, m, n = _matrices("pinv", self, False)
    if not m or not n:
        return transposed(self)
    u, s, vh = svd(self, False)
    limit = (max(m, n) * self.dtype.eps if rtol is None else rtol) * s.narrow(-1, 0, 1)
    kept = s > limit
    return matmul(transposed(vh) * where(kept, 1 / where(kept, s, 1.0), 0.0).unsqueeze(-2), transposed(u))


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
            inner = matmul(transposed(v), by_vectors) / where(gap == 0, math.inf, gap)
            inner = inner + by_values.unsqueeze(-1) * identity(n, values)
            full = matmul(matmul(v, inner), transposed(v))
            return (full + transposed(full)) * 0.5

        part = a.detach() if UPLO == "L" else transposed(a.detach())
        return two_sided_jacobi(part.tril() + transposed(part.tril(-1))), rule

    return _packed(factored, self)


def eigvalsh(self: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, ascending."""
    return eigh(self, UPLO)[0]
