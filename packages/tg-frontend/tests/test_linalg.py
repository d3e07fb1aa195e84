"""Linear algebra against PyTorch and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_reference import assert_equal, check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import TgError

L = torch.linalg
BOTH = ("float32", "float64")


def _regular(*shape: int, seed: int = 0) -> np.ndarray:
    n = shape[-1]
    return (
        sample(*shape, seed=seed) + 3 * np.eye(n)[::-1]
    )  # the greatest elements are off the diagonal: it pivots


def _positive(*shape: int, seed: int = 0) -> np.ndarray:
    a = sample(*shape, seed=seed)
    return a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])


def _symmetric(x):
    return (x + x.transpose(-1, -2)) / 2


SQUARE = [(1, 1), (2, 2), (5, 5), (2, 3, 4, 4), (0, 3, 3), (0, 0), (2, 0, 0)]


@pytest.mark.parametrize("shape", SQUARE)
def test_inverse_and_determinants_equal_torch(shape):
    a, order2 = _regular(*shape), shape in ((2, 2), (2, 3, 4, 4))
    check(lambda x: x.inv(), L.inv, a, dtypes=BOTH, second_order=order2, tolerance=1e-4)
    check(lambda x: x.det(), L.det, a, dtypes=BOTH, second_order=order2, tolerance=1e-4)
    check(
        lambda x: x.slogdet(),
        lambda x: tuple(L.slogdet(x)),
        a,
        dtypes=BOTH,
        second_order=order2,
        tolerance=1e-4,
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 3), (3, 2)),
        ((3, 3), (3,)),
        ((2, 4, 4), (2, 4)),
        ((2, 4, 4), (4, 3)),
        ((4, 4), (5, 4, 1)),
        ((3, 3), (3, 0)),
    ],
)
def test_solve_equals_torch(a, b):
    check(lambda x, y: x.solve(y), L.solve, _regular(*a), sample(*b, seed=1), dtypes=BOTH, tolerance=1e-4)
    if len(b) > 1 and a == (3, 3):
        right = sample(*b[::-1], seed=1)
        check(
            lambda x, y: x.solve(y, left=False),
            lambda x, y: L.solve(x, y, left=False),
            _regular(*a),
            right,
            tolerance=1e-4,
        )


def test_determinants_of_singular_matrices_are_zero_and_have_a_gradient():
    rank_two = Tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], dtype="float64", requires_grad=True)
    cofactors = [[-3.0, 6, -3], [6, -12, 6], [-3, 6, -3]]
    np.testing.assert_allclose(tg.grad(rank_two.det(), rank_two)[0].numpy(), cofactors, rtol=1e-12)
    got = Tensor(np.zeros((3, 3)), dtype="float32")
    assert got.det().item() == 0 and got.slogdet()[0].item() == 0 and got.logdet().item() == -np.inf
    assert not np.isfinite(got.inv().numpy()).all()
    minors = Tensor(np.diag([2.0, 3.0, 0.0]), dtype="float32", requires_grad=True)
    np.testing.assert_allclose(tg.grad(minors.det(), minors)[0].numpy(), np.diag([0.0, 0, 6]), atol=1e-5)


@pytest.mark.parametrize("n", (-2, -1, 0, 1, 2, 5))
def test_matrix_power_equals_torch(n):
    check(lambda x: x.matrix_power(n), lambda x: L.matrix_power(x, n), _regular(2, 3, 3) / 3, tolerance=2e-4)


@pytest.mark.parametrize("upper", (False, True))
@pytest.mark.parametrize("unit", (False, True))
@pytest.mark.parametrize("left", (False, True))
@pytest.mark.parametrize("n", (1, 2, 3, 5, 8))
def test_solve_triangular_equals_torch(n, left, unit, upper):
    options = {"upper": upper, "left": left, "unitriangular": unit}
    a = sample(2, n, n) + 3 * np.eye(n)
    b = sample(n, 3, seed=1) if left else sample(3, n, seed=1)
    clean = (lambda x: x.triu()) if upper else (lambda x: x.tril())
    check(
        lambda x, y: x.solve_triangular(y, **options),
        lambda x, y: L.solve_triangular(clean(x), y, **options),
        a, b, dtypes=BOTH, second_order=n == 3, tolerance=2e-4,
    )  # fmt: skip


@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("upper", (False, True))
def test_cholesky_equals_torch(shape, upper):
    check(
        lambda x: _symmetric(x).cholesky(upper=upper),
        lambda x: L.cholesky(_symmetric(x), upper=upper),
        _positive(*shape), dtypes=BOTH, second_order=shape == (2, 3, 4, 4), tolerance=1e-4,
    )  # fmt: skip


def test_cholesky_of_an_indefinite_matrix_gives_nan_and_solve_equals_torch():
    assert np.isnan(Tensor([[1.0, 2.0], [2.0, 1.0]]).cholesky().numpy()).any()
    factor = np.linalg.cholesky(_positive(4, 4))
    check(
        lambda b, f: b.cholesky_solve(f),
        torch.cholesky_solve,
        sample(4, 2),
        factor,
        grad=False,
        tolerance=1e-4,
    )


@pytest.mark.parametrize(
    "shape", [(4, 4), (6, 3), (3, 6), (2, 3, 5, 4), (1, 3), (3, 1), (0, 3), (3, 0), (0, 3, 2)]
)
def test_qr_equals_torch(shape):
    check(
        lambda x: x.qr(),
        lambda x: tuple(L.qr(x)),
        sample(*shape),
        dtypes=BOTH,
        tolerance=2e-4,
        second_order=shape == (6, 3),
    )
    complete = lambda x: tuple(L.qr(x, "complete"))  # noqa: E731
    check(lambda x: x.qr("complete"), complete, sample(*shape), tolerance=1e-4, grad=shape[-1] == shape[-2])


def test_qr_of_rank_deficient_and_extreme_matrices_is_orthonormal():
    for a in (np.zeros((4, 3)), np.ones((4, 3)), np.eye(4)[:, ::-1] * 1e30, sample(5, 4) * 1e-30):
        q, r = (each.numpy() for each in Tensor(a, dtype="float32").qr())
        np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=2e-6)
        np.testing.assert_allclose(q @ r, a, atol=1e-6 * np.abs(a).max())


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (6, 3), (3, 7), (2, 3, 5, 4), (5, 5), (3, 1), (9, 6)])
def test_svd_takes_matrices_apart_to_the_accuracy_of_the_dtype(shape):
    for dtype in BOTH:
        a = sample(*shape).astype(dtype)
        eps = float(np.finfo(dtype).eps) * 40
        for full in (False, True):
            u, s, vh = (each.numpy() for each in Tensor(a, dtype=dtype).svd(full))
            want = np.linalg.svd(a.astype(np.float64), full)
            assert [x.shape for x in (u, s, vh)] == [x.shape for x in want]
            assert_equal(s, want[1], eps, "singular values")
            for q in (u, np.swapaxes(vh, -1, -2)):
                gram = np.swapaxes(q, -1, -2) @ q
                assert_equal(gram, np.broadcast_to(np.eye(q.shape[-1]), gram.shape), eps, "orthonormal")
            k = s.shape[-1]
            assert_equal((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], a, eps, "product")


@pytest.mark.parametrize(
    "a", [np.zeros((4, 3)), np.ones((5, 4)), np.eye(3), np.diag([1e-20, 1, 1e20]), np.ones((3, 3)) * 1e30]
)
def test_svd_of_degenerate_matrices_is_orthonormal(a):
    u, s, vh = (each.numpy() for each in Tensor(a, dtype="float32").svd())
    np.testing.assert_allclose(u.T @ u, np.eye(len(u)), atol=1e-5)
    np.testing.assert_allclose(vh @ vh.T, np.eye(len(vh)), atol=1e-5)
    np.testing.assert_allclose(s, np.linalg.svd(a)[1], atol=1e-5 * max(a.max(), 1e-30), rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3)])
def test_svd_gradient_of_what_signs_do_not_change_equals_torch(shape):
    k, rows, columns = min(shape[-2:]), sample(shape[-2], 4, seed=1), sample(shape[-1], 4, seed=2)

    def of(svd, tensor, x):
        u, s, vh = svd(x)
        left, right = u.transpose(-1, -2) @ tensor(rows, x), vh @ tensor(columns, x)
        return s, u**2, vh**2, left * right, (u * s.exp().unsqueeze(-2)) @ vh, (s**3).sum(-1) + k

    check(
        lambda x: of(lambda y: y.svd(False), lambda a, y: Tensor(a, dtype=y.dtype), x),
        lambda x: of(lambda y: L.svd(y, full_matrices=False), lambda a, y: torch.tensor(a, dtype=y.dtype), x),
        sample(*shape, seed=5), dtypes=("float64",), tolerance=1e-8, second_order=shape == (5, 3),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (2, 4, 4), (0, 0), (9, 9)])
def test_eigh_equals_torch(shape):
    check(
        lambda x: (lambda w, v: (w, v**2, (v * w.exp().unsqueeze(-2)) @ v.transpose(-1, -2)))(*_symmetric(x).eigh()),
        lambda x: (lambda w, v: (w, v**2, (v * w.exp().unsqueeze(-2)) @ v.transpose(-1, -2)))(*L.eigh(_symmetric(x))),
        sample(*shape), dtypes=("float64",), tolerance=1e-8,
    )  # fmt: skip
    check(
        lambda x: _symmetric(x).eigvalsh(), lambda x: L.eigvalsh(_symmetric(x)), sample(*shape), dtypes=BOTH
    )


def test_pinv_and_lstsq_equal_torch():
    for shape in ((5, 3), (3, 5), (4, 4)):
        check(lambda x: x.pinv(), L.pinv, sample(*shape), dtypes=("float64",), tolerance=1e-8)
    check(
        lambda x, y: x.lstsq(y),
        lambda x, y: L.lstsq(x, y).solution,
        sample(5, 3),
        sample(5, 2),
        grad=False,
        tolerance=1e-4,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.inv(), "want square matrices"),
        (lambda x: x.sum().det(), "want matrices"),
        (lambda x: x.to("float16").qr(), "want float32 or float64"),
        (lambda x: x.qr("full"), "want reduced, complete or r"),
        (lambda x: (x.T if hasattr(x, "T") else x.t()).matmul(x).solve(x), "as many rows"),
        (lambda x: Tensor(np.eye(2)).eigh("X"), "want 'L' or 'U'"),
    ],
)
def test_linalg_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(Tensor(sample(3, 2)))


def test_gradient_of_a_result_and_of_what_depends_on_it_passes_each_once():
    # The order of nodes was wrong with a custom gradient about, where one output is computed from another.
    both = lambda inv: lambda x: (lambda y: (y, y.exp(), (y * y).exp()))(inv(x))  # noqa: E731
    check(both(lambda x: x.inv()), both(L.inv), _regular(3, 3), dtypes=("float64",))
