"""Matrix products and contractions against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor, Variable
from tg_ir import graph
from tg_ir.errors import TgError

ALL = ("float32", "float64", "float16", "bfloat16")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 2)),
        ((2, 1, 3, 4), (5, 4, 2)), ((5, 2, 3), (5, 3, 4)), ((1, 1), (1, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3)),
        ((2, 3), (3, 0)), ((0, 2, 3), (3, 4)), ((0,), (0,)), ((1, 3), (4, 3, 2)),
    ],
)  # fmt: skip
def test_matmul_of_any_ranks_equals_torch(a, b):
    check(
        lambda x, y: x @ y,
        lambda x, y: x @ y,
        sample(*a),
        sample(*b, seed=1),
        second_order=True,
        numpy=np.matmul,
    )


def test_matmul_of_narrow_floats_accumulates_in_float32():
    check(lambda x, y: x @ y, lambda x, y: x @ y, sample(4, 7), sample(7, 3, seed=1), dtypes=ALL)
    ones = Tensor(np.ones((1, 4096)), dtype="float16")
    assert (ones @ ones.t()).item() == 4096.0
    narrow = Tensor([[1.0, 2.0], [0.5, 4.0]], dtype="float8_e4m3fn")
    assert (narrow @ narrow).tolist() == [[2.0, 10.0], [2.5, 17.0 - 1.0]]


@pytest.mark.parametrize("dtype", ("int8", "uint8", "int32", "int64"))
def test_matmul_of_integers_equals_torch(dtype):
    a, b = [np.random.default_rng(i).integers(0, 9, (3, 3)).astype(dtype) for i in range(2)]
    check(lambda x, y: x @ y, lambda x, y: x @ y, a, b)


def test_matmul_operator_takes_arrays():
    a, b = sample(2, 3), sample(3, 2, seed=1)
    np.testing.assert_allclose((Tensor(a) @ b).numpy(), a @ b)
    np.testing.assert_allclose((b.tolist() @ Tensor(a, dtype="float32")).numpy(), b @ a, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mm", ((2, 3), (3, 4))), ("bmm", ((5, 2, 3), (5, 3, 4))), ("mv", ((2, 3), (3,))), ("dot", ((3,), (3,))),
        ("inner", ((2, 3), (4, 3))), ("inner", ((), (4, 3))), ("inner", ((5, 2, 3), (3,))), ("outer", ((2,), (3,))),
        ("kron", ((2, 3), (4, 5))), ("kron", ((2,), (3, 1, 2))), ("kron", ((), (2, 2))),
        ("addmm", ((2, 4), (2, 3), (3, 4))), ("addmm", ((4,), (2, 3), (3, 4))),
        ("baddbmm", ((5, 1, 4), (5, 2, 3), (5, 3, 4))),
        ("addbmm", ((2, 4), (5, 2, 3), (5, 3, 4))), ("addmv", ((2,), (2, 3), (3,))), ("addr", ((2, 3), (2,), (3,))),
    ],
)  # fmt: skip
def test_product_equals_torch(name, shapes):
    arrays = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
    check(getattr(tg, name), getattr(torch, name), *arrays, dtypes=("float32", "bfloat16"))
    if name.startswith(("add", "badd")):
        options = {"beta": 0.5, "alpha": 2.0}
        check(
            lambda *x: getattr(tg, name)(*x, **options),
            lambda *x: getattr(torch, name)(*x, **options),
            *arrays,
        )


def test_addmm_with_beta_zero_leaves_nan_out():
    x = Tensor([[float("nan")]])
    assert x.addmm(Tensor([[2.0]]), Tensor([[3.0]]), beta=0).item() == 6.0


@pytest.mark.parametrize("dims", (0, 1, 2, ([0, 1], [1, 0]), ([2], [2]), ([-1], [-1])))
def test_tensordot_equals_torch(dims):
    a, b = sample(3, 3, 3), sample(3, 3, 3, seed=1)
    check(lambda x, y: x.tensordot(y, dims), lambda x, y: torch.tensordot(x, y, dims), a, b)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4))), ("ij,jk", ((2, 3), (3, 4))), ("ba", ((2, 3),)), ("ii", ((3, 3),)),
        ("ii->i", ((3, 3),)), ("iij->ji", ((3, 3, 2),)), ("...ii->...i", ((2, 4, 3, 3),)), ("iii", ((3, 3, 3),)),
        ("ij->", ((2, 3),)), ("...ij,...jk->...ik", ((2, 1, 3, 4), (5, 4, 2))), ("...i,i", ((2, 3), (3,))),
        ("i...,...j->...", ((2, 3, 4), (3, 4, 5))), (" b h q d , b h k d -> b h q k ", ((2, 2, 3, 4), (2, 2, 5, 4))),
        ("i,j,k->kji", ((2,), (3,), (4,))), ("ab,bc,cd,de->ea", ((2, 3), (3, 4), (4, 5), (5, 2))),
        ("ab,ab,ab->b", ((2, 3), (2, 3), (2, 3))), ("aab,bc->ac", ((2, 2, 3), (3, 4))), ("ij,ij->ij", ((2, 3), (1, 3))),
        (",ij->ji", ((), (2, 3))), ("ij,jk->ik", ((0, 3), (3, 2))), ("ij,jk->ik", ((2, 0), (0, 3))),
        ("i,j->", ((2,), (3,))), ("...,...", ((2, 3), (2, 3))), ("...->...", ((2, 3),)), ("Ab,bA->A", ((2, 3), (3, 2))),
    ],
)  # fmt: skip
def test_einsum_equals_torch(equation, shapes):
    arrays = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
    check(
        lambda *x: tg.einsum(equation, *x),
        lambda *x: torch.einsum(equation, *x),
        *arrays,
        second_order=len(arrays) == 2,
    )


def test_einsum_contracts_small_results_first():
    n = 60
    arrays = [sample(n, n), sample(n, n), sample(n)]
    got = tg.einsum("ij,jk,k->i", *[Tensor(a) for a in arrays])
    assert max(len(node.shape) for node in graph.toposort([got.node])) == 2
    np.testing.assert_allclose(got.numpy(), arrays[0] @ (arrays[1] @ arrays[2]))


@pytest.mark.parametrize("shapes", [((5, 3), (4, 3), (4,)), ((2, 5, 3), (4, 3), (4,)), ((3,), (4, 3), (4,))])
def test_linear_equals_torch(shapes):
    arrays = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
    linear = torch.nn.functional.linear
    check(lambda x, w, b: x.linear(w, b), linear, *arrays, dtypes=("float32", "float64"), second_order=True)
    check(lambda x, w: x.linear(w), linear, *arrays[:2], dtypes=ALL)
    check(lambda x, w: x.linear(w), linear, arrays[0], sample(3))


def test_bilinear_and_multi_dot_and_cross_equal_torch():
    check(
        lambda *x: tg.bilinear(*x),
        torch.nn.functional.bilinear,
        sample(5, 3),
        sample(5, 4),
        sample(2, 3, 4),
        sample(2),
    )
    for shapes in (((2, 3), (3, 4), (4, 5)), ((3,), (3, 4), (4, 2), (2,)), ((2, 3), (3,))):
        arrays = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
        check(lambda *x: tg.multi_dot(x), lambda *x: torch.linalg.multi_dot(x), *arrays)
    check(lambda x, y: x.cross(y), lambda x, y: torch.linalg.cross(x, y), sample(4, 3), sample(1, 3, seed=1))
    check(
        lambda x, y: x.cross(y, dim=0),
        lambda x, y: torch.cross(x, y, dim=0),
        sample(3, 2),
        sample(3, 2, seed=1),
    )


def test_matmul_of_symbolic_sizes_is_symbolic():
    n = Variable("n", 1, 8)
    x = Tensor(sample(8, 3)).narrow(0, 0, n)
    assert (x @ x.t()).shape == (n, n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x @ x, r"matmul: inner dimensions differ, 3 and 2 \(shapes \(2, 3\) and \(2, 3\)\)"),
        (lambda x: x @ x.sum(), "multiply by a scalar with"),
        (lambda x: x.reshape(1, 2, 3).matmul(Tensor(np.ones((3, 2), np.float32))), "operands are float64 and float32"),
        (lambda x: x.expand(4, 2, 3) @ x.t().expand(5, 3, 2), "do not broadcast"),
        (lambda x: (x > 0) @ (x > 0).t(), "got bool tensors"),
        (lambda x: x.bmm(x), "want 3 and 3 dimensions"),
        (lambda x: x.dot(x), "want 1 and 1 dimensions"),
        (lambda x: x.addmm(x, x.t(), beta=1), "do not broadcast|for a product"),
        (lambda x: x.linear(x.t()), "input features differ"),
        (lambda x: x.linear(x, Tensor(np.zeros(5))), "do not broadcast"),
        (lambda x: tg.einsum("ij,jk", x), "has 2 operands"),
        (lambda x: tg.einsum("ijk", x), "names 3 axes"),
        (lambda x: tg.einsum("i1->i", x), "want letters"),
        (lambda x: tg.einsum("ij->k", x), "in no operand"),
        (lambda x: tg.einsum("ij->ii", x), "each once"),
        (lambda x: tg.einsum("ii", x), "is 2 and 3 in one operand"),
        (lambda x: tg.einsum("ij,ij", x, x.t()), "do not broadcast"),
        (lambda x: x.tensordot(x, 1), "differ, 3 and 2"),
        (lambda x: x.cross(x, dim=0), "want size 3"),
    ],
)  # fmt: skip
def test_product_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(Tensor(sample(2, 3)))
