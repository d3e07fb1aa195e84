"""Gradients as graphs: backward, grad, any order, custom rules, jvp, vmap, and what writes in place do to them."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from torch_reference import assert_equal, check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir import graph
from tg_ir.errors import DTypeError, ShapeError, TgError


def leaf(*shape: int, seed: int = 0) -> tuple[Tensor, torch.Tensor]:
    array = sample(*shape, seed=seed).astype(np.float32)
    return Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)


# ---- backward ----------------------------------------------------------------------------------------------


def test_backward_accumulates_in_grad_of_leaves() -> None:
    (x, tx), (w, tw) = leaf(2, 3), leaf(3, 4, seed=1)
    for _ in range(2):
        ((x @ w).tanh() * x.sum()).sum().backward()
        ((tx @ tw).tanh() * tx.sum()).sum().backward()
    assert_equal(x.grad.numpy(), tx.grad.numpy(), 1e-5, "x")
    assert_equal(w.grad.numpy(), tw.grad.numpy(), 1e-5, "w")


def test_backward_from_given_gradient() -> None:
    x, tx = leaf(3)
    (x * x).backward(Tensor([1.0, 2.0, 3.0]))
    (tx * tx).backward(torch.tensor([1.0, 2.0, 3.0]))
    assert_equal(x.grad.numpy(), tx.grad.numpy(), 1e-6, "x")


def test_equal_parameters_stay_two() -> None:
    a, b = Tensor.zeros(3, requires_grad=True), Tensor.zeros(3, requires_grad=True)
    (a * 2 + b * 3).sum().backward()
    assert a.grad.tolist() == [2, 2, 2]
    assert b.grad.tolist() == [3, 3, 3]


def test_gradients_survive_realising_on_the_way() -> None:
    x, tx = leaf(4)
    y, ty = (x * 2).exp(), (tx * 2).exp()
    y.realize()
    repr(y)
    loss = (y * y).sum()
    loss.item()
    loss.backward()
    (ty * ty).sum().backward()
    assert_equal(x.grad.numpy(), tx.grad.numpy(), 1e-5, "x")


def test_lazily_made_leaf_keeps_its_gradient_when_it_is_realised_in_between() -> None:
    w = Tensor.ones(3).requires_grad_()
    loss = (w * w).sum()
    assert w.tolist() == [1, 1, 1]
    loss.backward()
    assert w.grad.tolist() == [2, 2, 2]


def test_training_step_ends_history_and_costs_no_memory() -> None:
    w = Tensor.ones(3, requires_grad=True)
    sizes = []
    for _ in range(6):
        w.grad = None
        loss = (w * w).sum()
        loss.backward()
        with tg.no_grad():
            w -= 0.1 * w.grad
        loss.item()
        w.realize()
        gc.collect()
        sizes.append(len(graph.toposort([w.node])))
    assert sizes == [1] * 6
    np.testing.assert_allclose(w.numpy(), np.full(3, 0.8**6, np.float32), rtol=1e-6)


def test_loss_is_computed_together_with_the_step() -> None:
    w = Tensor.ones(3, requires_grad=True)
    loss = (w * w).sum()
    loss.backward()
    w.grad.realize()
    assert loss.node.value is not None


def test_released_graph_is_freed() -> None:
    x = Tensor.ones(3, requires_grad=True)
    y = (x * 2).sum()
    node = weakref.ref(y.node)
    del y
    x.realize()
    gc.collect()
    assert node() is None


def test_backward_says_what_is_missing() -> None:
    x = Tensor.ones(3, requires_grad=True)
    with pytest.raises(ShapeError, match=r"\(3,\), want one element"):
        x.backward()
    with pytest.raises(TgError, match="requires_grad=True"):
        Tensor(1.0).backward()
    with pytest.raises(ShapeError, match="the gradient has shape"):
        x.backward(Tensor.ones(2))
    with pytest.raises(DTypeError, match="want a float dtype"):
        Tensor([1, 2]).requires_grad_()
    with pytest.raises(TgError, match="do not depend on input 0"):
        tg.grad(x.sum(), Tensor.ones(3))
    assert tg.grad(x.sum(), Tensor.ones(3), allow_unused=True) == (None,)


# ---- switches ----------------------------------------------------------------------------------------------


def test_no_grad_results_carry_no_gradient() -> None:
    w = Tensor.ones(3, requires_grad=True)
    with tg.no_grad():
        y = w * 2
        assert not y.requires_grad
        with tg.enable_grad():
            assert (w * 2).requires_grad
    loss = (y * w).sum()
    loss.backward()
    assert w.grad.tolist() == [2, 2, 2]


def test_detach_stops_the_gradient_and_shares_the_values() -> None:
    w = Tensor.ones(3, requires_grad=True)
    d = w.detach()
    assert not d.requires_grad
    (d * w).sum().backward()
    assert w.grad.tolist() == [1, 1, 1]
    d += 1
    assert w.tolist() == [2, 2, 2]
    assert w.requires_grad and w.is_leaf


def test_grad_mode_belongs_to_a_thread() -> None:
    seen = []
    with tg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- in place ----------------------------------------------------------------------------------------------


def test_writing_to_a_leaf_is_an_error_outside_no_grad() -> None:
    w = Tensor.ones(3, requires_grad=True)
    with pytest.raises(TgError, match="no_grad"):
        w += 1
    with pytest.raises(TgError, match="no_grad"):
        w[0] = 5.0
    with tg.no_grad():
        w += 1
        w[0] = 5.0
    assert w.tolist() == [5, 2, 2]
    (w * w).sum().backward()
    assert w.grad.tolist() == [10, 4, 4]


def test_gradient_flows_through_writes_in_place() -> None:
    (w, tw), (v, tv) = leaf(4), leaf(2, seed=1)
    y, ty = w * 2, tw * 2
    part, tpart = y[1:3], ty[1:3]
    part *= v
    tpart *= tv
    y[0] = v[0] * 3
    ty[0] = tv[0] * 3
    (y * y).sum().backward()
    (ty * ty).sum().backward()
    assert_equal(w.grad.numpy(), tw.grad.numpy(), 1e-5, "w")
    assert_equal(v.grad.numpy(), tv.grad.numpy(), 1e-5, "v")


def test_zeros_written_into_require_a_gradient_from_then_on() -> None:
    w = Tensor.ones(2, requires_grad=True)
    out = Tensor.zeros(4)
    view = out[1:3]
    view += w * 3
    assert out.requires_grad and view.requires_grad
    (out * out).sum().backward()
    assert w.grad.tolist() == [18, 18]


def test_graphs_built_before_a_write_keep_the_value_they_saw() -> None:
    x = Tensor([1.0, 2.0])
    before = x * 10
    x += 1
    after = x * 10
    x[0] = 7
    assert before.tolist() == [10, 20]
    assert after.tolist() == [20, 30]
    assert x.tolist() == [7, 3]


# ---- functional ----------------------------------------------------------------------------------------------


def test_grad_for_tensors_that_are_no_leaves() -> None:
    x = Tensor([2.0, 3.0])
    y = x * x
    assert [g.tolist() for g in (y * y).sum().gradient(y, x)] == [[8, 18], [32, 108]]


def test_functional_grad_and_value_and_grad() -> None:
    def f(x: Tensor, w: Tensor) -> Tensor:
        return (x.sin() * w).sum()

    x, w = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    np.testing.assert_allclose(tg.grad(f)(x, w).numpy(), np.cos([1, 2]) * [3, 4], rtol=1e-6)
    value, (dx, dw) = tg.value_and_grad(f, argnums=(0, 1))(x, w)
    np.testing.assert_allclose(value.item(), (np.sin([1, 2]) * [3, 4]).sum(), rtol=1e-6)
    np.testing.assert_allclose(dw.numpy(), np.sin([1, 2]), rtol=1e-6)
    assert dx.shape == (2,)
    assert x.grad is None


def test_derivatives_of_any_order() -> None:
    f = lambda x: (x * x * x * x).sum()  # noqa: E731
    for want in ([4, 32], [12, 48], [24, 48], [24, 24]):
        df = tg.grad(f)
        assert df(Tensor([1.0, 2.0])).tolist() == want
        f = (lambda g: lambda x: g(x).sum())(df)


def test_second_derivatives_through_backward_with_create_graph() -> None:
    x, tx = leaf(3)
    (x * x * x).sum().backward(create_graph=True)
    x.grad.sum().backward()
    (tx * tx * tx).sum().backward(create_graph=True)
    tx.grad.sum().backward()
    assert_equal(x.grad.detach().numpy(), tx.grad.detach().numpy(), 1e-5, "x")


def test_jvp_equals_pytorchs() -> None:
    def f(x, w):
        return (x @ w).tanh().exp()

    x, w, dx, dw = sample(2, 3), sample(3, 2, seed=1), sample(2, 3, seed=2), sample(3, 2, seed=3)
    value, tangent = tg.jvp(f, [Tensor(x), Tensor(w)], [Tensor(dx), Tensor(dw)])
    want = torch.func.jvp(f, (torch.tensor(x), torch.tensor(w)), (torch.tensor(dx), torch.tensor(dw)))
    assert_equal(value.numpy(), want[0].numpy(), 1e-10, "value")
    assert_equal(tangent.numpy(), want[1].numpy(), 1e-10, "tangent")


def test_jvp_of_what_does_not_depend_is_zero() -> None:
    _, tangent = tg.jvp(lambda x: Tensor([1.0, 2.0]), [Tensor([3.0])], [Tensor([1.0])])
    assert tangent.tolist() == [0, 0]


def test_custom_gradient_replaces_the_derivative_at_every_order() -> None:
    @tg.custom_gradient
    def clipped(x: Tensor) -> tuple[Tensor, object]:
        return x * 1, lambda g: g.clip(-1, 1) * x

    x = Tensor([3.0, -4.0], requires_grad=True)
    (clipped(x) * 10).sum().backward(create_graph=True)
    assert x.grad.tolist() == [3, -4]
    (second,) = tg.grad(x.grad.sum(), x)
    assert second.tolist() == [1, 1]


def test_custom_gradient_of_the_wrong_shape_is_an_error() -> None:
    @tg.custom_gradient
    def broken(x: Tensor) -> tuple[Tensor, object]:
        return x * 1, lambda g: g.sum()

    x = Tensor([3.0, -4.0], requires_grad=True)
    with pytest.raises(ShapeError, match=r"got \(\) for an input of \(2,\)"):
        broken(x).sum().backward()


# ---- vmap ----------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "elementwise": lambda x: x.tanh() * 2 + 1,
    "reduce": lambda x: (x * x).sum(0),
    "matmul": lambda x: x @ x.transpose(0, 1),
    "movement": lambda x: x.flip(0).reshape(-1).unfold(0, 3, 2),
    "softmax": lambda x: x.softmax(-1),
    "sort": lambda x: x.sort(1)[0],
    "cumsum": lambda x: x.cumsum(1),
    "constant": lambda x: x[0] * 0 + 3,
    "sigmoid": lambda x: x.sigmoid(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_equals_a_loop(name: str) -> None:
    x = Tensor(sample(3, 4, 5))
    function = FUNCTIONS[name]
    want = np.stack([function(x[i]).numpy() for i in range(3)])
    assert_equal(tg.vmap(function)(x).numpy(), want, 1e-10, name)
    turned = tg.vmap(function, in_dims=1, out_dims=-1)(x.transpose(0, 1))
    assert_equal(turned.numpy(), np.moveaxis(want, 0, -1), 1e-10, name)


def test_vmap_of_grad_gives_gradients_of_each_example() -> None:
    w, x = sample(4), sample(6, 4, seed=1)

    def loss(w, x):
        return (w * x).sum().sigmoid()

    got = tg.vmap(tg.grad(loss), in_dims=(None, 0))(Tensor(w), Tensor(x))
    want = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(torch.tensor(w), torch.tensor(x))
    assert_equal(got.numpy(), want.numpy(), 1e-10, "per-example gradients")


def test_grad_of_vmap_flows_to_mapped_and_captured_tensors() -> None:
    w, x = Tensor(sample(4), requires_grad=True), Tensor(sample(6, 4, seed=1), requires_grad=True)
    tg.vmap(lambda row: (row * w).sum().sigmoid())(x).sum().backward()
    tw, tx = (torch.tensor(t.detach().numpy()).requires_grad_() for t in (w, x))
    (tx * tw).sum(1).sigmoid().sum().backward()
    assert_equal(w.grad.numpy(), tw.grad.numpy(), 1e-10, "captured")
    assert_equal(x.grad.numpy(), tx.grad.numpy(), 1e-10, "mapped")


def test_vmap_refuses_sizes_that_differ() -> None:
    with pytest.raises(ShapeError, match="has 2 in dim 0, others have 3"):
        tg.vmap(lambda a, b: a + b)(Tensor.ones(3), Tensor.ones(2))


# ---- rules that no single operation covers -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
def test_reduce_rules_with_ties_and_zeros(kind: str) -> None:
    array = np.array([[0.0, 2.0, 2.0], [0.0, 0.0, 3.0]])
    ours = lambda x: Tensor.from_node(graph.reduce(x.node, kind, (1,)), x)  # noqa: E731
    theirs = {
        "sum": lambda x: x.sum(1),
        "prod": lambda x: x.prod(1),
        "max": lambda x: x.amax(1),
        "min": lambda x: x.amin(1),
    }
    check(ours, theirs[kind], array, dtypes=("float64",))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_prefix_product_rule_with_zeros(size: int) -> None:
    array = sample(3, size)
    array[1, 0] = array[2, size // 2] = array[2, -1] = 0
    ours = lambda x: Tensor.from_node(graph.scan(x.node, "prod", 1), x)  # noqa: E731
    check(ours, lambda x: x.cumprod(1), array, dtypes=("float64",), second_order=True)


def test_prefix_logaddexp_rule_at_extremes() -> None:
    array = np.array([[-500.0, 3.0, 700.0, 699.0], [-np.inf, -np.inf, 1.0, 2.0]])
    ours = lambda x: Tensor.from_node(graph.scan(x.node, "logaddexp", 1), x)  # noqa: E731
    x, tx = Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    start = np.array([[1.0, -2.0, 3.0, 0.5], [0.0, 0.0, -1.0, 2.0]])
    (got,) = tg.grad(ours(x), x, Tensor(start))
    (want,) = torch.autograd.grad(tx.logcumsumexp(1), tx, torch.tensor(start))
    assert_equal(got.numpy(), np.nan_to_num(want.numpy(), nan=0.0), 1e-10, "gradient")


@pytest.mark.parametrize(
    ("length", "size", "stride", "dilation"),
    [(5, 1, 1, 1), (5, 3, 1, 1), (7, 3, 2, 1), (8, 3, 2, 2), (9, 2, 3, 4), (6, 6, 1, 1), (10, 2, 4, 1)],
)
def test_window_rule_equals_unfolding(length: int, size: int, stride: int, dilation: int) -> None:
    ours = lambda x: Tensor.from_node(graph.window(x.node, 1, size, stride, dilation), x)  # noqa: E731
    reach = dilation * (size - 1) + 1
    theirs = lambda x: x.unfold(1, reach, stride)[..., ::dilation]  # noqa: E731
    check(ours, theirs, sample(2, length, 3), dtypes=("float64",), second_order=True)


@pytest.mark.parametrize("kind", ["sum", "set", "max", "min", "prod"])
def test_scatter_rules_with_duplicates(kind: str) -> None:
    base, source = sample(5, 3), sample(4, 3, seed=1)
    index = np.array([[0, 1, 2], [0, 4, 2], [3, 1, 1], [2, 2, 2]])
    ours = lambda b, s: Tensor.from_node(graph.scatter(b.node, Tensor(index).node, s.node, 0, kind), b, s)  # noqa: E731
    names = {"sum": "sum", "max": "amax", "min": "amin", "prod": "prod"}

    def theirs(b: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        if kind != "set":
            return b.scatter_reduce(0, torch.tensor(index), s, names[kind])
        rows = list(b)
        result = torch.stack(rows)
        for i in range(4):
            for j in range(3):
                result = result.index_put((torch.tensor(index[i, j]), torch.tensor(j)), s[i, j])
        return result

    check(ours, theirs, base, source, dtypes=("float64",))
