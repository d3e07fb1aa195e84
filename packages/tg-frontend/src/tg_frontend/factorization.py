"""Factorisations of matrices as graphs of fixed size, without gradients: the algorithms under linalg.py.

Loops run over columns, sweeps or levels, never over elements; inside, whole batches of matrices are updated. Nothing
depends on data but values: pivots are chosen by index, and the number of Jacobi sweeps is fixed.
Source: Golub and Van Loan, "Matrix Computations", 4th edition.
"""

from __future__ import annotations

import math

from tg_frontend.contraction import matmul
from tg_frontend.core import Tensor
from tg_frontend.elementwise import where
from tg_ir import graph
from tg_ir.dtypes import int64

__all__ = [
    "cholesky_factor", "eliminate", "householder", "identity", "indices", "inverse_of_lower", "one_sided_jacobi",
    "parity", "transposed", "two_sided_jacobi",
]  # fmt: skip


def transposed(x: Tensor) -> Tensor:
    """The last two axes swapped."""
    return x.transpose(-1, -2)


def indices(n: int, like: Tensor) -> Tensor:
    """0, 1, .., n - 1 on the device of `like`."""
    return Tensor.from_node(graph.iota(n, int64, like.device))


def identity(n: int, like: Tensor) -> Tensor:
    """The identity matrix of size n."""
    index = indices(n, like)
    return (index.reshape(n, 1) == index).to(like.dtype)


def _column(x: Tensor, j: int) -> Tensor:
    return x.narrow(-1, j, 1)


def _row(x: Tensor, j: int) -> Tensor:
    return x.narrow(-2, j, 1)


def _diagonal(x: Tensor) -> Tensor:
    return x.diagonal(0, -2, -1)


def eliminate(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Jordan elimination of [a b] with partial pivoting: the solution, the pivots, and the rows they are in.

    Rows stay in place; the pivot of column j is the greatest element of the rows that have not been pivots yet.
    """
    batch, n = a.shape[:-2], a.shape[-1]
    m = Tensor.from_node(graph.cat([a.node, b.node], a.ndim - 1))
    rows = indices(n, a).reshape(n, 1)
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


def parity(order: Tensor) -> Tensor:
    """1 or -1: the sign of a permutation, from the pairs that are out of order."""
    n = order.shape[-1]
    index = indices(n, order)
    inverted = (order.unsqueeze(-1) > order.unsqueeze(-2)) & (index.reshape(n, 1) < index)
    return 1 - 2 * (inverted.to(int64).sum((-1, -2)) % 2)


def inverse_of_lower(a: Tensor) -> Tensor:
    """The inverse of lower triangular matrices, by blocks of doubling size.

    inv([[p, 0], [q, r]]) = [[inv(p), 0], [-inv(r) q inv(p), inv(r)]]; all blocks on the diagonal at once. The matrix is
    padded to a power of two with ones on the diagonal.
    """
    batch, n = a.shape[:-2], a.shape[-1]
    size = 1 << (n - 1).bit_length()
    extra = (indices(size, a) >= n).to(a.dtype) * identity(size, a)
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


def cholesky_factor(a: Tensor) -> Tensor:
    """The lower L with L L' = a, column by column; the lower triangle of a is read."""
    n = a.shape[-1]
    rest, columns = a.tril(), []
    rows = indices(n, a).reshape(n, 1)
    for j in range(n):
        column = where(rows >= j, _column(rest, j) / _column(_row(rest, j), j).sqrt(), 0.0)
        columns.append(column.node)
        rest = rest - column * transposed(column)
    return Tensor.from_node(graph.cat(columns, a.ndim - 1))


def householder(a: Tensor, complete: bool) -> tuple[Tensor, Tensor]:
    """Q and R by Householder reflections, with LAPACK's signs: R[j, j] has the sign opposite to what it replaces."""
    batch, m, n = a.shape[:-2], a.shape[-2], a.shape[-1]
    rows = indices(m, a).reshape(m, 1)
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
        r = r - tau * v * matmul(transposed(v), r)
        vectors.append((v, tau))
    k = m if complete else min(m, n)
    q = identity(m, a).narrow(-1, 0, k).expand(*batch, m, k)
    for v, tau in reversed(vectors):
        q = q - tau * v * matmul(transposed(v), q)
    return q, r.narrow(-2, 0, k).triu()


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


def one_sided_jacobi(a: Tensor, complete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V of matrices with at least as many rows as columns.

    Rotations of columns make them orthogonal: a V = U S. Q of the sorted columns' QR is U, up to signs; so it is
    orthonormal even where singular values are 0.
    Source: Demmel and Veselic, "Jacobi's method is more accurate than QR", 1992; pairs in parallel:
    Brent and Luk, 1985.
    """
    batch, m, n = a.shape[:-2], a.shape[-2], a.shape[-1]
    top = a.abs().amax((-1, -2), True)
    scale = where(top == 0, 1.0, top)
    eye = identity(n, a).expand(*batch, n, n)
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
    u, r = householder(w, complete)
    signs = 1 - 2 * (_diagonal(r) < 0).to(a.dtype)
    if complete and m > n:
        ones = graph.const(1, a.dtype, a.device)
        signs = Tensor.from_node(graph.pad(signs.node, [(0, 0)] * len(batch) + [(0, m - n)], ones))
    return u * signs.unsqueeze(-2), s * scale.squeeze(-1), v


def two_sided_jacobi(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices: pairs of rows and columns rotated in parallel."""
    batch, n = a.shape[:-2], a.shape[-1]
    top = a.abs().amax((-1, -2), True)
    scale = where(top == 0, 1.0, top)
    x, v = (
        _even_columns(transposed(_even_columns(a / scale))),
        _even_columns(identity(n, a).expand(*batch, n, n)),
    )
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
