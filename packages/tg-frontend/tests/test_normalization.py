"""Normalization, dropout and embeddings against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import assert_equal, check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import TgError

NARROW = ("float32", "float64", "float16", "bfloat16")


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
@pytest.mark.parametrize("training", (True, False))
def test_batch_norm_equals_torch_and_moves_the_statistics(shape, training):
    mean, var = sample(3, seed=1), sample(3, seed=2, low=0.5)
    states = [
        [Tensor(mean, dtype="float32"), Tensor(var, dtype="float32")],
        [torch.tensor(mean), torch.tensor(var)],
    ]
    check(
        lambda x, w, b: x.batch_norm(*states[0], w, b, training, momentum=0.2),
        lambda x, w, b: F.batch_norm(x, *states[1], w, b, training, momentum=0.2),
        sample(*shape), sample(3, seed=3), sample(3, seed=4), same_dtype=False, second_order=len(shape) == 3,
    )  # fmt: skip
    for mine, theirs in zip(*states, strict=True):
        assert_equal(mine.numpy(), theirs.numpy(), 1e-5, "running statistics")


def test_batch_norm_in_other_dtypes_and_without_parameters_equals_torch():
    check(
        lambda x: x.batch_norm(None, None, training=True), lambda x: F.batch_norm(x, None, None, training=True),
        sample(4, 3, 5), dtypes=NARROW,
    )  # fmt: skip
    mean = Tensor(np.zeros(3), dtype="float32")
    with tg.no_grad():
        Tensor(sample(4, 3), dtype="bfloat16").batch_norm(
            mean, Tensor(np.ones(3), dtype="float32"), training=True
        )
    assert mean.dtype is tg.dtypes.float32 and mean.numpy().any()


def test_instance_norm_equals_torch_and_moves_the_statistics():
    states = [[Tensor(np.zeros(3)), Tensor(np.ones(3))], [torch.zeros(3).double(), torch.ones(3).double()]]
    check(
        lambda x, w, b: x.instance_norm(*states[0], w, b),
        lambda x, w, b: F.instance_norm(x, *states[1], w, b),
        sample(2, 3, 4, 5), sample(3, seed=1), sample(3, seed=2), dtypes=("float64",), same_dtype=False,
    )  # fmt: skip
    for mine, theirs in zip(*states, strict=True):
        assert_equal(mine.numpy(), theirs.numpy(), 1e-12, "running statistics")
    check(
        lambda x: x.instance_norm(*states[0], use_input_stats=False),
        lambda x: F.instance_norm(x, *states[1], use_input_stats=False),
        sample(2, 3, 4), dtypes=("float64",),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (0, 5)])
def test_layer_norm_and_rms_norm_equal_torch(shape):
    arrays = sample(*shape), sample(5, seed=1), sample(5, seed=2)
    check(
        lambda x, w, b: x.layer_norm((5,), w, b), lambda x, w, b: F.layer_norm(x, (5,), w, b), *arrays,
        dtypes=NARROW, second_order=len(shape) == 2,
    )  # fmt: skip
    for eps in (None, 1e-3):
        check(
            lambda x, w, e=eps: x.rms_norm((5,), w, e), lambda x, w, e=eps: F.rms_norm(x, (5,), w, e), *arrays[:2],
            dtypes=("float32", "bfloat16"), second_order=len(shape) == 2,
        )  # fmt: skip


def test_layer_norm_over_several_axes_and_far_from_zero_equals_torch():
    check(lambda x: x.layer_norm((3, 5)), lambda x: F.layer_norm(x, (3, 5)), sample(2, 3, 5))
    check(lambda x: x.layer_norm(5), lambda x: F.layer_norm(x, (5,)), sample(4, 5) + 1000, tolerance=1e-3)


@pytest.mark.parametrize("groups", (1, 2, 6))
def test_group_norm_equals_torch(groups):
    for shape in ((3, 6), (2, 6, 4), (2, 6, 3, 2)):
        if shape == (3, 6) and groups == 6:
            continue  # PyTorch wants more than one value a group
        check(
            lambda x, w, b: x.group_norm(groups, w, b), lambda x, w, b: F.group_norm(x, groups, w, b),
            sample(*shape), sample(6, seed=1), sample(6, seed=2), dtypes=("float32", "bfloat16"),
        )  # fmt: skip


@pytest.mark.parametrize("size", (1, 2, 5))
def test_local_response_norm_and_normalize_equal_torch(size):
    for shape in ((2, 7, 3), (1, 7, 2, 3)):
        check(
            lambda x: x.local_response_norm(size, 0.5, 0.6, 2.0),
            lambda x: F.local_response_norm(x, size, 0.5, 0.6, 2.0),
            sample(*shape),
        )  # fmt: skip
    check(
        lambda x: x.normalize(p=float(size), dim=-1),
        lambda x: F.normalize(x, p=float(size), dim=-1),
        sample(3, 4),
    )


def test_normalize_of_zeros_gives_zeros():
    assert not Tensor(np.zeros((2, 3))).normalize().numpy().any()


# ---- dropout -------------------------------------------------------------------------------------------------


def test_dropout_drops_about_the_share_and_scales_the_rest():
    tg.manual_seed(5)
    x = Tensor(np.ones(10000), dtype="float32", requires_grad=True)
    y = x.dropout(0.3)
    values = y.detach().numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(values.mean() - 1) < 0.03
    np.testing.assert_array_equal(tg.grad(y.sum(), x)[0].numpy(), values)
    assert (x.dropout(0.3).detach().numpy() != values).any()


def test_dropout_at_its_limits_and_outside_of_training():
    x = Tensor(sample(3, 4), dtype="bfloat16")
    assert x.dropout(0.5, training=False) is x and x.dropout(0.0) is x
    assert not x.dropout(1.0).numpy().any()
    with pytest.raises(TgError, match=r"got probability 1\.5"):
        x.dropout(1.5)


def test_dropout_of_channels_drops_them_whole():
    tg.manual_seed(1)
    kept = Tensor(np.ones((20, 10, 4, 4))).dropout2d(0.5).numpy().reshape(200, 16)
    assert (kept == kept[:, :1]).all() and 50 < (kept[:, 0] == 0).sum() < 150
    assert (Tensor(np.ones((8, 8, 3))).feature_dropout(0.5).numpy() != 1).all()


def test_alpha_dropout_keeps_mean_and_variance():
    tg.manual_seed(2)
    y = Tensor(np.random.default_rng(0).standard_normal(40000)).alpha_dropout(0.2, training=True).numpy()
    assert abs(y.mean()) < 0.03 and abs(y.std() - 1) < 0.03


# ---- embeddings ----------------------------------------------------------------------------------------------

INDEX = np.array([[1, 4, 4], [0, 2, 1]])


@pytest.mark.parametrize("padding_idx", (None, 4, -1, 0))
def test_embedding_equals_torch(padding_idx):
    check(
        lambda i, w: i.embedding(w, padding_idx), lambda i, w: F.embedding(i, w, padding_idx), INDEX, sample(5, 3),
        dtypes=("float32", "bfloat16"),
    )  # fmt: skip
    check(lambda i, w: i.embedding(w), F.embedding, INDEX[:0], sample(5, 3))
    check(lambda i, w: i.embedding(w), F.embedding, np.array(3), sample(5, 3))


@pytest.mark.parametrize("mode", ("sum", "mean", "max"))
@pytest.mark.parametrize("padding_idx", (None, 4))
def test_embedding_bag_equals_torch(mode, padding_idx):
    options = {"mode": mode, "padding_idx": padding_idx}
    check(
        lambda i, w: i.embedding_bag(w, **options),
        lambda i, w: F.embedding_bag(i, w, **options),
        INDEX,
        sample(5, 3),
    )
    if mode == "sum":
        weights = sample(2, 3)
        check(
            lambda i, w, p: i.embedding_bag(w, per_sample_weights=p, **options),
            lambda i, w, p: F.embedding_bag(i, w, per_sample_weights=p, **options),
            INDEX, sample(5, 3), weights, grad=padding_idx is None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.batch_norm(None, None), "want running_mean"),
        (lambda x: x.batch_norm(None, None, Tensor([1.0]), training=True), "one a channel"),
        (lambda x: x.narrow(0, 0, 1).batch_norm(None, None, training=True), "more than one value"),
        (lambda x: x.layer_norm(4), "got normalized_shape"),
        (lambda x: x.layer_norm(3, Tensor([1.0])), "got weight or bias"),
        (lambda x: x.group_norm(2), "do not divide"),
        (lambda x: x.instance_norm(), r"want \(N, C, spatial"),
        (lambda x: x.to("int32").layer_norm(3), "want floats"),
        (lambda x: x.embedding(x), "want integers"),
        (lambda x: x.to("int64").embedding(x, max_norm=1.0), "not supported"),
    ],
)
def test_normalization_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(Tensor(sample(2, 3)))
