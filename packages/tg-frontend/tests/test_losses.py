"""Losses against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import TgError

REDUCTIONS = ("none", "mean", "sum")
RNG = np.random.default_rng(3)
SIGNS = np.where(RNG.random((4, 5)) < 0.5, -1.0, 1.0)
ROW_SIGNS = SIGNS[:, 0].copy()
CLASSES = RNG.integers(0, 5, 4)
BITS = RNG.integers(0, 2, (4, 5)).astype(np.float64)
PROBABILITIES = RNG.random((4, 5))
LOGS = np.log(PROBABILITIES / PROBABILITIES.sum(1, keepdims=True))


def A(seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return sample(4, 5, seed=seed, low=low, high=high)


def _both(name: str, **options):
    return (
        lambda *args: getattr(tg, name)(*args, **options),
        lambda *args: getattr(F, name)(*args, **options),
    )


CASES = [
    ("mse_loss", (A(), A(1)), {}),
    ("l1_loss", (A(), A(1)), {}),
    ("smooth_l1_loss", (A(), A(1)), {}),
    ("smooth_l1_loss", (A(), A(1)), {"beta": 0.3}),
    ("smooth_l1_loss", (A(), A(1)), {"beta": 0.0}),
    ("huber_loss", (A(), A(1)), {"delta": 0.7}),
    ("binary_cross_entropy", (PROBABILITIES, BITS), {}),
    ("binary_cross_entropy", (PROBABILITIES, BITS, A(2, 0.1)), {}),
    ("binary_cross_entropy_with_logits", (A(), BITS), {}),
    ("binary_cross_entropy_with_logits", (A(), BITS, A(2, 0.1)), {}),
    ("kl_div", (LOGS, PROBABILITIES), {}),
    ("kl_div", (LOGS, LOGS[::-1].copy()), {"log_target": True}),
    ("poisson_nll_loss", (A(), A(1, 0.0, 4.0)), {}),
    ("poisson_nll_loss", (A(0, 0.1), A(1, 0.0, 4.0)), {"log_input": False, "full": True}),
    ("gaussian_nll_loss", (A(), A(1), A(2, 0.1)), {}),
    ("gaussian_nll_loss", (A(), A(1), A(2, 0.1)[:, :1]), {"full": True}),
    ("hinge_embedding_loss", (A(), SIGNS), {"margin": 0.7}),
    ("margin_ranking_loss", (A(), A(1), SIGNS), {"margin": 0.3}),
    ("soft_margin_loss", (A(), SIGNS), {}),
    ("multi_margin_loss", (A(), CLASSES), {}),
    ("multi_margin_loss", (A(), CLASSES), {"p": 2, "margin": 0.4}),
    (
        "multilabel_margin_loss",
        (A(), np.array([[3, 0, -1, 1, 2], [1, -1, 0, 0, 0], [-1] * 5, [0, 1, 2, 3, 4]])),
        {},
    ),
    ("multilabel_soft_margin_loss", (A(), BITS), {}),
    ("cosine_embedding_loss", (A(), A(1), ROW_SIGNS), {"margin": 0.1}),
    ("triplet_margin_loss", (A(), A(1), A(2)), {}),
    ("triplet_margin_loss", (A(), A(1), A(2)), {"p": 1.0, "margin": 2.0, "swap": True}),
    ("nll_loss", (LOGS, CLASSES), {}),
    ("nll_loss", (LOGS, CLASSES, sample(5, low=0.1)), {"ignore_index": int(CLASSES[0])}),
    ("cross_entropy", (A(), CLASSES), {}),
    ("cross_entropy", (A(), CLASSES), {"label_smoothing": 0.2}),
    (
        "cross_entropy",
        (A(), CLASSES, sample(5, low=0.1)),
        {"ignore_index": int(CLASSES[1]), "label_smoothing": 0.1},
    ),
    ("cross_entropy", (A(), PROBABILITIES), {"label_smoothing": 0.1}),
    ("cross_entropy", (A(), PROBABILITIES, sample(5, low=0.1)), {}),
]


DIFFERENTIABLE = {
    "binary_cross_entropy": 2, "binary_cross_entropy_with_logits": 2, "cross_entropy": 2, "nll_loss": 2,
    "soft_margin_loss": 1,
}  # fmt: skip
"""How many arguments PyTorch has gradients for, where that is not all of them."""


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("name", "arrays", "options"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_loss_equals_torch(name, arrays, options, reduction):
    fixed = DIFFERENTIABLE.get(name, len(arrays))
    weights = [torch.tensor(array, dtype=torch.float32) for array in arrays[fixed:]]
    ours = [Tensor(w.numpy()) for w in weights]
    check(
        lambda *args: getattr(tg, name)(*args, *ours, reduction=reduction, **options),
        lambda *args: getattr(F, name)(
            *args, *[w.to(args[0].dtype) for w in weights], reduction=reduction, **options
        ),
        *arrays[:fixed],
        second_order=reduction == "mean"
        and name in ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits"),
    )


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 5, 3), (2, 5, 3, 4)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_any_rank_equals_torch(shape, reduction):
    target = np.random.default_rng(0).integers(0, 5, shape[:0] if len(shape) == 1 else (shape[0], *shape[2:]))
    for options in ({}, {"label_smoothing": 0.3}):
        check(*_both("cross_entropy", reduction=reduction, **options), sample(*shape), target)
    check(*_both("cross_entropy", reduction=reduction), sample(*shape), sample(*shape, seed=1, low=0.0))


def test_cross_entropy_of_extreme_logits_and_narrow_floats_equals_torch():
    logits = np.array([[1e4, -1e4, 0.0], [-3e4, 3e4, 3e4], [0.0, 0.0, 0.0]])
    check(*_both("cross_entropy"), logits, np.array([1, 2, 0]), dtypes=("float32", "float64"))
    check(*_both("cross_entropy"), A(), CLASSES, dtypes=("float16", "bfloat16"))
    big = np.array([[-200.0, 200.0, 88.0], [0.0, -0.0, -1000.0]])
    check(*_both("binary_cross_entropy_with_logits"), big, np.array([[1.0, 0.0, 0.5], [1.0, 0.0, 0.0]]))
    check(*_both("soft_margin_loss"), big, np.array([[1, -1, 1], [1, -1, -1]]))


def test_cross_entropy_with_all_targets_ignored_gives_nan_mean():
    check(*_both("cross_entropy"), A(), np.full(4, -100))
    check(*_both("cross_entropy", reduction="sum"), A(), np.full(4, -100))


def test_cross_entropy_of_a_class_that_does_not_exist_gives_nan_and_no_read_out_of_bounds():
    loss = Tensor(A()).cross_entropy(Tensor([0, 99, -3, 2]), reduction="none").numpy()
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True, False])


def test_binary_cross_entropy_of_certain_probabilities_equals_torch():
    x = np.array([0.0, 1.0, 0.0, 1.0, 0.5])
    y = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    check(
        lambda x: x.binary_cross_entropy(Tensor(y.numpy(), dtype=x.dtype)),
        lambda x: F.binary_cross_entropy(x, y.to(x.dtype)),
        x,
    )
    check(
        lambda x, y, w: x.binary_cross_entropy_with_logits(y, pos_weight=w),
        lambda x, y, w: F.binary_cross_entropy_with_logits(x, y, pos_weight=w.detach()),
        A(), BITS, sample(5, low=0.5), grad=False,
    )  # fmt: skip


def test_kl_div_with_zero_targets_equals_torch():
    target = PROBABILITIES * (PROBABILITIES > 0.4)
    check(
        lambda x: x.kl_div(Tensor(target)),
        lambda x: F.kl_div(x, torch.tensor(target)),
        LOGS,
        same_dtype=False,
    )
    check(*_both("kl_div", reduction="batchmean"), LOGS, PROBABILITIES)


@pytest.mark.parametrize("dim", (0, 1, -1))
def test_cosine_similarity_and_distance_equal_torch(dim):
    check(*_both("cosine_similarity", dim=dim), A(), A(1), second_order=True)
    check(*_both("cosine_similarity", dim=dim), sample(4, 1, 5), sample(3, 1, seed=1), grad=False)
    check(*_both("pairwise_distance", p=3.0, keepdim=True), A(), A(1))
    check(*_both("pairwise_distance"), A(), A(1)[:1])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctc_loss_equals_torch(reduction):
    def both(**options):  # PyTorch's gradient is right only where the logarithms come from log_softmax
        ours, theirs = _both("ctc_loss", reduction=reduction, **options)
        return (lambda x, *rest: ours(x.log_softmax(-1), *rest)), (
            lambda x, *rest: theirs(x.log_softmax(-1), *rest)
        )

    logits = sample(8, 3, 4)
    targets = np.array([[1, 2, 2, 3], [1, 1, 1, 1], [3, 0, 0, 0]])
    lengths, target_lengths = np.array([8, 6, 5]), np.array([4, 4, 1])
    for options in ({}, {"zero_infinity": True}):
        check(*both(**options), logits[:, :1], targets[:1], lengths[:1], target_lengths[:1])
        check(*both(**options), logits, targets, lengths, target_lengths, grad=bool(options))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: x.mse_loss(x, reduction="average"), "got reduction 'average'"),
        (lambda x, y: x.cross_entropy(y.unsqueeze(1)), "want integers \\(4,\\)"),
        (lambda x, y: x.cross_entropy(y, Tensor([1.0])), "one a class"),
        (lambda x, y: x.cross_entropy(y, label_smoothing=2), "want 0 to 1"),
        (lambda x, y: x.huber_loss(x, delta=0.0), "want > 0"),
        (lambda x, y: x.binary_cross_entropy(x.narrow(0, 0, 2)), "want them equal"),
        (lambda x, y: x.multi_margin_loss(y, p=3), "want 1 or 2"),
    ],
)
def test_loss_that_does_not_fit_raises(call, message):
    with pytest.raises(TgError, match=message):
        call(Tensor(A()), Tensor(CLASSES))
