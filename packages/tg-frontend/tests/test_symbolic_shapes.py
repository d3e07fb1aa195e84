"""Symbolic dimensions: one graph for every value, bound when values are computed, and caches that grow."""

from __future__ import annotations

import numpy as np
import pytest
from torch_reference import assert_equal, sample

import tg_frontend as tg
from tg_frontend import Tensor, Variable
from tg_ir import graph
from tg_ir.errors import ShapeError, TgError


def test_shape_carries_the_variable_and_values_follow_the_binding() -> None:
    n = Variable("n", 1, 6)
    x = Tensor(sample(6, 4))
    for rows in (1, 3, 6):
        part = x[: n.bind(rows)]
        assert part.shape[1] == 4
        np.testing.assert_array_equal(part.numpy(), x.numpy()[:rows])
        total = (part * 2).sum(0).softmax(0)
        want = np.exp((x.numpy()[:rows] * 2).sum(0))
        assert_equal(total.numpy(), want / want.sum(), 1e-10, "softmax")


def test_unbound_variable_builds_a_graph_but_has_no_values() -> None:
    n = Variable("n", 1, 6)
    x = Tensor(sample(6, 4))[:n]
    y = (x @ Tensor(sample(4, 5))).relu().sum(1)
    assert y.shape == (n,)
    assert graph.parse_graph(graph.format_graph([y.node]))
    with pytest.raises(TgError, match="n"):
        y.numpy()


def test_one_graph_serves_all_values_of_a_variable() -> None:
    n = Variable("n", 1, 6)
    x = Tensor(sample(6, 4), device="REF").realize()
    node = (x[:n].softmax(-1) * 2).sum(0).node
    from tg_ir.graph.interpret import interpret_graph

    for rows in (1, 4, 6):
        data = x.numpy()[:rows]
        weights = np.exp(data) / np.exp(data).sum(-1, keepdims=True)
        assert_equal(interpret_graph([node], {"n": rows})[0], (weights * 2).sum(0), 1e-10, f"{rows} rows")


def test_growing_cache_is_written_at_a_symbolic_position() -> None:
    position = Variable("position", 0, 7)
    cache = Tensor.zeros(8, 3)
    rows = sample(5, 3).astype(np.float32)
    for step in range(5):
        at = position.bind(step)
        cache[at : at + 1] = Tensor(rows[step : step + 1])
        if step == 2:
            cache.realize()
    np.testing.assert_array_equal(cache.numpy(), np.concatenate([rows, np.zeros((3, 3), np.float32)]))


def test_attention_over_a_growing_cache_equals_that_over_the_part_in_use() -> None:
    length = Variable("length", 1, 16)
    keys, values, query = (
        Tensor(sample(2, 16, 4)),
        Tensor(sample(2, 16, 4, seed=1)),
        Tensor(sample(2, 1, 4, seed=2)),
    )
    for count in (1, 5, 16):
        bound = length.bind(count)
        got = query.scaled_dot_product_attention(keys[:, :bound], values[:, :bound])
        want = query.scaled_dot_product_attention(keys[:, :count], values[:, :count])
        assert_equal(got.numpy(), want.numpy(), 1e-10, f"{count} keys")


def test_gradients_through_symbolic_shapes() -> None:
    n = Variable("n", 1, 6)
    x = Tensor(sample(6, 4), requires_grad=True)
    (x[: n.bind(4)] * x[: n.bind(4)]).sum().backward()
    want = 2 * x.detach().numpy()
    want[4:] = 0
    assert_equal(x.grad.numpy(), want, 1e-12, "gradient")


def test_symbolic_integer_is_a_tensor_of_its_value() -> None:
    n = Variable("n", 0, 9).bind(7)
    assert Tensor(n).item() == 7
    assert (Tensor([1, 2]) + n).tolist() == [8, 9]
    assert (Tensor.arange(10) < n).sum().item() == 7


def test_binding_outside_the_bounds_and_unprovable_slices_are_errors() -> None:
    n = Variable("n", 1, 6)
    with pytest.raises(TgError, match="7"):
        n.bind(7)
    with pytest.raises(ShapeError, match="n"):
        Tensor.zeros(4)[:n] + Tensor.zeros(4)
    with pytest.raises(ShapeError):
        _ = Tensor.zeros(6)[:n] + Tensor.zeros(6)[: Variable("m", 1, 6)]


def test_two_values_of_one_variable_in_one_evaluation_stay_apart() -> None:
    n = Variable("n", 1, 6)
    x = Tensor.arange(6)
    a, b = x[: n.bind(2)].sum(), x[: n.bind(5)].sum()
    a.realize(b)
    assert (a.item(), b.item()) == (1, 10)
    assert tg.Tensor.stack([a, b]).tolist() == [1, 10]
