"""Attention against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import assert_equal, check, sample

from tg_frontend import Tensor, Variable
from tg_ir.errors import TgError
from tg_ir.graph.interpret import interpret_graph

attention = F.scaled_dot_product_attention


def _both(**options):
    return (
        lambda q, *rest: q.scaled_dot_product_attention(*rest, **options),
        lambda *x: attention(*x, **options),
    )


def _arrays(*lead: int, queries: int = 4, keys: int = 6, heads: int | None = None) -> list[np.ndarray]:
    other = lead if heads is None else (*lead[:-1], heads)
    return [sample(*lead, queries, 5), sample(*other, keys, 5, seed=1), sample(*other, keys, 3, seed=2)]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0, 2)])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_attention_of_any_rank_equals_torch(lead, options):
    check(*_both(**options), *_arrays(*lead))
    check(*_both(**options), *_arrays(*lead, queries=6, keys=4))


def test_attention_in_narrow_floats_and_second_order_equals_torch():
    check(*_both(is_causal=True), *_arrays(2, 3), dtypes=("float16", "bfloat16", "float64"))
    check(*_both(), *_arrays(2), second_order=True)


@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (4, 1), (2, 1, 4, 6), (1, 3, 1, 6), (2, 3, 4, 6)])
def test_attention_with_masks_equals_torch(shape):
    check(*_both(), *_arrays(2, 3), sample(*shape, seed=3) > -1)
    check(*_both(), *_arrays(2, 3), sample(*shape, seed=3))


@pytest.mark.parametrize("heads", (1, 2, 4))
def test_attention_with_grouped_heads_equals_torch(heads):
    for options in ({}, {"is_causal": True}):
        check(*_both(enable_gqa=True, **options), *_arrays(2, 4, heads=heads))
    for shape in ((4, 6), (1, 1, 4, 6), (2, 4, 1, 6)):
        check(*_both(enable_gqa=True), *_arrays(2, 4, heads=heads), sample(*shape, seed=3))


def test_attention_of_queries_without_keys_gives_zeros_and_no_nan_gradient():
    mask = sample(4, 6, seed=3) > 0
    mask[1] = False
    check(*_both(), *_arrays(2, 3), mask)
    floats = np.where(mask, 0.0, -np.inf)
    check(
        lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor(floats, dtype=q.dtype)),
        lambda q, k, v: attention(q, k, v, torch.tensor(floats, dtype=q.dtype)),
        *_arrays(2, 3),
    )


def test_attention_broadcasts_batches():
    q, k, v = _arrays(2, 3)
    check(*_both(), q, k[:1], v[:1, :1])


def test_attention_over_a_growing_cache_is_one_graph():
    n = Variable("n", 1, 16)
    q, k, v = [Tensor(sample(2, size, 5, seed=i), device="REF") for i, size in enumerate((1, 16, 16))]
    keys, values = k.narrow(1, 0, n), v.narrow(1, 0, n)
    one = q.scaled_dot_product_attention(keys, values, Tensor(sample(16), device="REF").narrow(0, 0, n))
    causal = keys.scaled_dot_product_attention(keys, values, is_causal=True)
    assert one.shape == (2, 1, 5) and causal.shape == (2, n, 5)
    for length in (1, 7, 16):
        got = interpret_graph([one.node, causal.node], {"n": length})
        tq, tk, tv = [torch.tensor(x.numpy()) for x in (q, k.narrow(1, 0, length), v.narrow(1, 0, length))]
        mask = torch.tensor(sample(16)[:length])
        assert_equal(got[0], attention(tq, tk, tv, mask.expand(1, length)).numpy(), 1e-12, f"length {length}")
        assert_equal(got[1], attention(tk, tk, tv, is_causal=True).numpy(), 1e-12, f"length {length}")


def test_attention_dropout_of_everything_and_nothing():
    q, k, v = [Tensor(x) for x in _arrays(2)]
    assert not q.scaled_dot_product_attention(k, v, dropout_p=1.0).numpy().any()
    mean = sum(q.scaled_dot_product_attention(k, v, dropout_p=0.3).numpy() for _ in range(3))
    assert np.isfinite(mean).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, k, v: q.scaled_dot_product_attention(v, v), "do not fit together"),
        (lambda q, k, v: q.scaled_dot_product_attention(k, v.narrow(-2, 0, 2)), "do not fit together"),
        (lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor([True]), is_causal=True), "want one"),
        (
            lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor(np.ones((3, 3), bool))),
            "do not broadcast",
        ),
        (lambda q, k, v: q.scaled_dot_product_attention(k, v, Tensor([1])), "want bool or a float"),
        (lambda q, k, v: q.scaled_dot_product_attention(k.to("float32"), v), "want one dtype"),
        (lambda q, k, v: q.scaled_dot_product_attention(k.narrow(0, 0, 2), v, enable_gqa=True), "heads"),
    ],
)
def test_attention_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(*[Tensor(x) for x in _arrays(3)])
