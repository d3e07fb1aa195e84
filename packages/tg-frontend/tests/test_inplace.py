"""Writing in place: PyTorch's order of effects under aliasing views, its errors, and gradients through the writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_reference import assert_equal, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir import graph
from tg_ir.errors import DTypeError, ShapeError, TgError

SHAPE = (3, 4)


def view(x, kind: str):
    """The same view of a tensor of ours, whose families of views stand elsewhere, and of PyTorch's."""
    steps = {
        "all": (lambda n: n, lambda t: t.view(t.shape)),
        "row": (lambda n: graph.reshape(graph.shrink(n, [(1, 2), (0, 4)]), (4,)), lambda t: t[1]),
        "columns": (lambda n: graph.shrink(n, [(0, 3), (1, 3)]), lambda t: t[:, 1:3]),
        "transposed": (lambda n: graph.permute(n, (1, 0)), lambda t: t.t()),
        "flat": (lambda n: graph.reshape(n, (12,)), lambda t: t.view(12)),
        "diagonal": (_diagonal, lambda t: t.diagonal()),
    }
    ours, theirs = steps[kind]
    return x.view_by(ours) if isinstance(x, Tensor) else theirs(x)


def _diagonal(node):
    square = graph.reshape(graph.shrink(node, [(0, 3), (0, 3)]), (9,))
    padded = graph.reshape(graph.pad(square, [(0, 3)]), (3, 4))
    return graph.reshape(graph.shrink(padded, [(0, 3), (0, 1)]), (3,))


KINDS = ["all", "row", "columns", "transposed", "flat", "diagonal"]
UNARY = [
    ("abs_", ()), ("neg_", ()), ("exp_", ()), ("sqrt_", ()), ("floor_", ()), ("sigmoid_", ()), ("tanh_", ()),
    ("relu_", ()), ("round_", ()), ("reciprocal_", ()), ("square_", ()), ("clamp_", (-0.5, 0.5)), ("zero_", ()),
    ("fill_", (3.0,)), ("add_", (2,)), ("mul_", (0.5,)), ("sub_", (1.5,)), ("div_", (3,)), ("pow_", (2,)),
    ("remainder_", (0.7,)), ("floor_divide_", (0.7,)), ("eq_", (0.0,)), ("lt_", (0.5,)), ("nan_to_num_", ()),
    ("copysign_", (-1.0,)), ("leaky_relu_", (0.1,)), ("trunc_", ()), ("sin_", ()), ("erf_", ()), ("log1p_", ()),
]  # fmt: skip
THEIRS = {"leaky_relu_": torch.nn.functional.leaky_relu_}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "arguments"), UNARY, ids=lambda item: str(item))
def test_method_in_place_on_a_view_writes_to_the_base_as_pytorch(name, arguments, kind):
    data = sample(*SHAPE, low=0.1 if name in ("sqrt_", "log1p_") else -2.0)
    ours, theirs = Tensor(data, "float64"), torch.tensor(data)
    mine, reference = view(ours, kind), view(theirs, kind)
    assert getattr(mine, name)(*arguments) is mine
    if name in THEIRS:
        reference.copy_(THEIRS[name](reference.clone(), *arguments))
    else:
        getattr(reference, name)(*arguments)
    assert_equal(ours.numpy(), theirs.numpy(), 1e-12, name)
    assert_equal(mine.numpy(), reference.numpy(), 1e-12, name)


def test_augmented_operators_write_in_place_as_pytorch():
    def program(x, y):
        alias = x
        x += y
        x *= 2
        x -= y
        x /= 4
        x **= 2
        x //= 0.5
        x %= 3
        assert alias is x
        return x

    a, b = sample(*SHAPE), sample(4, seed=1)
    got = program(Tensor(a, "float64"), Tensor(b, "float64"))
    assert_equal(got.numpy(), program(torch.tensor(a), torch.tensor(b)).numpy(), 1e-12, "augmented")

    def bits(x):
        x &= 13
        x |= 32
        x ^= 5
        x <<= 2
        x >>= 1
        return x

    assert bits(Tensor([1, 2, 77])).tolist() == bits(torch.tensor([1, 2, 77])).tolist()


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_operands_that_alias_give_pytorchs_values(first, second):
    """A write whose operand is another view of the same memory reads it before, as a copy would."""
    data = sample(*SHAPE)
    ours, theirs = Tensor(data, "float64"), torch.tensor(data)
    a, b = view(ours, first), view(ours, second)
    reference_a, reference_b = view(theirs, first), view(theirs, second)
    try:
        torch.broadcast_shapes(reference_b.shape, reference_a.shape)
        fits = torch.broadcast_shapes(reference_b.shape, reference_a.shape) == reference_a.shape
    except RuntimeError:
        fits = False
    if not fits:
        with pytest.raises(ShapeError):
            a.add_(b)
        return
    a.add_(b)
    reference_a.add_(reference_b.clone())
    assert_equal(ours.numpy(), theirs.numpy(), 1e-12, f"{first} += {second}")


def test_effects_happen_in_the_order_of_the_program():
    def program(x, shared):
        before = x * 1
        row = shared(x, "row")
        double = row * 2  # of the value before the writes
        row += 10
        after = shared(x, "flat") * 1
        shared(x, "transposed").mul_(3)
        row.sub_(1)
        return [before, double, after, x, row]

    data = sample(*SHAPE)
    for got, want in zip(
        program(Tensor(data, "float64"), view), program(torch.tensor(data), view), strict=True
    ):
        assert_equal(got.numpy(), want.numpy(), 1e-12, "order")


def test_random_programs_of_writes_through_views_are_pytorchs():
    for seed in range(20):
        random = np.random.default_rng(seed)
        data = random.normal(size=SHAPE)
        ours, theirs = Tensor(data, "float64"), torch.tensor(data)
        for _ in range(8):
            kind, realize = random.choice(KINDS), random.random() < 0.3
            name, arguments = [("add_", (1.5,)), ("mul_", (-0.5,)), ("fill_", (0.25,)), ("tanh_", ())][
                random.integers(4)
            ]
            getattr(view(ours, kind), name)(*arguments)
            getattr(view(theirs, kind), name)(*arguments)
            if realize:
                ours.realize()
        assert_equal(ours.numpy(), theirs.numpy(), 1e-12, f"seed {seed}")


def test_views_of_views_write_to_the_one_base():
    x = tg.zeros(3, 4)
    inner = view(x, "transposed").view_by(lambda n: graph.shrink(n, [(1, 3), (0, 2)]))
    inner += 1
    expected = torch.zeros(3, 4)
    expected.t()[1:3, 0:2] += 1
    assert x.tolist() == expected.tolist()


def test_detached_alias_shares_writes_and_hides_them_from_gradients():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    alias = y.detach()
    alias += 1
    assert y.tolist() == [4.0, 7.0] and not alias.requires_grad
    leaf = Tensor([1.0, 2.0], requires_grad=True)
    leaf.detach().mul_(5)
    assert leaf.tolist() == [5.0, 10.0] and leaf.requires_grad and leaf.is_leaf
    (leaf * leaf).backward(tg.ones(2))
    assert leaf.grad.tolist() == [10.0, 20.0]


def test_gradient_flows_through_writes_as_in_pytorch():
    def program(x, y, shared):
        z = x * 2
        shared(z, "row").mul_(y)
        z += x
        shared(z, "columns").mul_(0.5)
        shared(z, "diagonal").fill_(0.0)
        return z * z

    a, b = sample(*SHAPE), sample(4, seed=1)
    x, y = Tensor(a, "float64", requires_grad=True), Tensor(b, "float64", requires_grad=True)
    got = program(x, y, view)
    rx, ry = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    want = program(rx, ry, view)
    assert_equal(got.detach().numpy(), want.detach().numpy(), 1e-12, "value")
    got.backward(Tensor(np.ones(SHAPE)))
    want.backward(torch.ones(SHAPE, dtype=torch.float64))
    assert_equal(x.grad.numpy(), rx.grad.numpy(), 1e-12, "gradient of x")
    assert_equal(y.grad.numpy(), ry.grad.numpy(), 1e-12, "gradient of y")


def test_rule_of_a_custom_gradient_means_the_values_before_a_later_write():
    x = Tensor([0.5], requires_grad=True)
    y = x * 1
    z = y.asin()
    y.zero_()
    z.backward(Tensor([1.0]))
    np.testing.assert_allclose(x.grad.numpy(), [1 / np.sqrt(0.75)], rtol=1e-6)


def test_write_of_a_wider_dtype_is_rounded_and_of_a_narrower_kept():
    x = Tensor([1.0, 2.0], dtype="float16")
    x += Tensor([0.1, 0.2], dtype="float64")
    assert x.dtype.name == "float16"
    integers = Tensor([1, 2], dtype="int8")
    integers += Tensor([1, 2], dtype="int64")
    assert integers.dtype.name == "int8" and integers.tolist() == [2, 4]
    unsigned = Tensor([1, 2], dtype="uint8")
    unsigned.add_(Tensor([1, 2], dtype="int32"))
    assert unsigned.tolist() == [2, 4]


def leaf_in_no_grad() -> list:
    x = Tensor([1.0], requires_grad=True)
    with tg.no_grad():
        x += 1
    return x.tolist()


def test_leaf_may_be_written_to_under_no_grad():
    assert leaf_in_no_grad() == [2.0]


ERRORS = [
    (
        lambda: Tensor([1, 2]).div_(2),
        DTypeError,
        "div_: the result is float32, which a int64 tensor cannot hold",
    ),
    (lambda: Tensor([1, 2]).add_(0.5), DTypeError, "add_: the result is float32"),
    (
        lambda: Tensor([True]).add_(1),
        DTypeError,
        "add_: the result is int64, which a bool tensor cannot hold",
    ),
    (lambda: Tensor([1.0], requires_grad=True).add_(1), TgError, "this leaf requires a gradient"),
    (lambda: Tensor([1.0, 2.0]).add_(tg.ones(3, 2)), ShapeError, r"\(3, 2\) does not broadcast to \(2,\)"),
    (lambda: tg.ones(1, 2).view_by(lambda n: graph.expand(n, (3, 2))).add_(1), ShapeError, "share memory"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_write_that_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
