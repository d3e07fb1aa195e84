"""Activations against PyTorch: values, gradients at the kinks and at the extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_reference import assert_equal, check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import ShapeError, TgError

ROWS: list[tuple[str, dict, Callable]] = [
    ("relu", {}, F.relu),
    ("relu6", {}, F.relu6),
    ("leaky_relu", {}, F.leaky_relu),
    ("leaky_relu", {"negative_slope": 0.2}, F.leaky_relu),
    ("elu", {}, F.elu),
    ("elu", {"alpha": 0.5}, F.elu),
    ("celu", {"alpha": 1.5}, F.celu),
    ("selu", {}, F.selu),
    ("gelu", {}, F.gelu),
    ("gelu", {"approximate": "tanh"}, F.gelu),
    ("silu", {}, F.silu),
    ("swish", {}, F.silu),
    ("mish", {}, F.mish),
    ("softplus", {}, F.softplus),
    ("softplus", {"beta": 2.0, "threshold": 3.0}, F.softplus),
    ("hardswish", {}, F.hardswish),
    ("hardsigmoid", {}, F.hardsigmoid),
    ("hardtanh", {}, F.hardtanh),
    ("hardtanh", {"min_val": -2.0, "max_val": 0.5}, F.hardtanh),
    ("softsign", {}, F.softsign),
    ("logsigmoid", {}, F.logsigmoid),
    ("sigmoid", {}, lambda x: F.logsigmoid(x).exp()),
    ("tanhshrink", {}, F.tanhshrink),
    ("softshrink", {}, F.softshrink),
    ("hardshrink", {"lambd": 0.7}, F.hardshrink),
    ("threshold", {"threshold": 0.1, "value": 20.0}, F.threshold),
    ("quick_gelu", {}, lambda x: x * torch.sigmoid(1.702 * x)),
]
IDS = [f"{name}-{options}" if options else name for name, options, _ in ROWS]
KINKS = np.array([-6.0, -3.0, -2.0, -1.0, -0.7, -0.5, -0.0, 0.0, 0.5, 0.7, 1.0, 1.5, 3.0, 6.0])
SMOOTH = {
    "celu",
    "elu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "softsign",
    "logsigmoid",
    "sigmoid",
    "tanhshrink",
    "quick_gelu",
}
SMOOTH -= {"elu", "celu"}  # whose second derivatives jump at 0


@pytest.mark.parametrize(("name", "options", "theirs"), ROWS, ids=IDS)
def test_activation_is_pytorchs(name, options, theirs):
    ours = lambda x: getattr(x, name)(**options)  # noqa: E731
    reference = lambda x: theirs(x, **options)  # noqa: E731
    dtypes = ("float32",) if name == "hardsigmoid" else ("float32", "float64")  # PyTorch's 1 / 6 is a float32
    check(
        ours,
        reference,
        sample(4, 5, low=-7, high=7),
        dtypes=dtypes,
        second_order=name in SMOOTH,
    )
    for dtype, tolerance in (("float16", 4e-3), ("bfloat16", 3e-2)):
        check(ours, reference, sample(4, 5, seed=1, low=-2.4, high=2.4), dtypes=(dtype,), tolerance=tolerance)
    for shape in ((), (0, 3), (3, 1, 2)):
        check(ours, reference, sample(*shape))


@pytest.mark.parametrize(("name", "options", "theirs"), ROWS, ids=IDS)
def test_activation_at_its_kinks_has_pytorchs_gradient(name, options, theirs):
    x = Tensor(KINKS, "float32", requires_grad=True)
    reference = torch.tensor(KINKS, dtype=torch.float32, requires_grad=True)
    got, want = getattr(x, name)(**options), theirs(reference, **options)
    assert_equal(got.detach().numpy(), want.detach().numpy(), 1e-6, "value")
    got.backward(Tensor(np.ones(len(KINKS)), "float32"))
    want.backward(torch.ones(len(KINKS)))
    assert_equal(x.grad.numpy(), reference.grad.numpy(), 1e-6, "gradient")


@pytest.mark.parametrize(("name", "options", "theirs"), ROWS, ids=IDS)
def test_activation_at_extremes_is_pytorchs_and_its_gradient_finite(name, options, theirs):
    values = np.array([-1e30, -1e4, -104.0, -89.0, -50.0, 50.0, 89.0, 104.0, 1e4, 1e30])
    x = Tensor(values, "float32", requires_grad=True)
    reference = torch.tensor(values, requires_grad=True)
    got, want = getattr(x, name)(**options), theirs(reference, **options)
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-6, atol=1e-30)
    got.backward(Tensor(np.ones(len(values)), "float32"))
    want.backward(torch.ones(len(values), dtype=torch.float64))
    if (name, options) == ("gelu", {"approximate": "tanh"}):  # PyTorch's own gradient of this overflows
        assert np.isfinite(x.grad.numpy()[1:-1]).all()
        return
    np.testing.assert_allclose(x.grad.numpy(), reference.grad.numpy(), rtol=1e-5, atol=1e-30)


PRELU = [((4,), 1), ((3, 4), 1), ((3, 4), 4), ((2, 4, 3), 1), ((2, 4, 3), 4), ((2, 4, 3, 3), 4)]


@pytest.mark.parametrize(("shape", "count"), PRELU, ids=str)
def test_prelu_with_a_weight_for_all_or_each_channel_is_pytorchs(shape, count):
    check(
        lambda x, w: x.prelu(w), F.prelu, sample(*shape), sample(count, seed=1), dtypes=("float32", "float64")
    )


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_glu_and_swiglu_halve_the_dimension(dim):
    x = sample(4, 6, 2)
    check(lambda x: x.glu(dim), lambda x: F.glu(x, dim), x, second_order=True)

    def swiglu(x):
        gate, value = x.chunk(2, dim)
        return F.silu(gate) * value

    check(lambda x: x.swiglu(dim=dim), swiglu, x)


def test_swiglu_of_two_tensors_gates_the_second():
    check(lambda a, b: a.swiglu(b), lambda a, b: F.silu(a) * b, sample(3, 4), sample(3, 4, seed=1))


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "hardtanh", "threshold"])
def test_activation_of_integers_follows_promotion(name):
    arguments = (1, 5) if name == "threshold" else ()
    x = np.array([-3, 0, 9], np.int32)
    got = getattr(Tensor(x), name)(*arguments).numpy()
    want = (
        np.where(x <= 1, 5, x)
        if name == "threshold"
        else getattr(F, name)(torch.tensor(x, dtype=torch.float64))
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["relu", "relu6", "leaky_relu", "elu", "silu", "softplus", "hardtanh", "mish", "gelu"]
)
def test_activation_of_nan_is_nan(name):
    assert np.isnan(getattr(Tensor([float("nan")]), name)().item())


ERRORS = [
    (lambda: Tensor([1.0]).gelu("sigmoid"), TgError, "gelu: got approximate 'sigmoid'"),
    (
        lambda: Tensor([1.0, 2.0, 3.0]).glu(),
        ShapeError,
        "glu: dimension -1 of .* has 3 elements, want an even number",
    ),
    (
        lambda: tg.ones(2, 3).prelu(tg.ones(2)),
        ShapeError,
        r"prelu: weight has shape \(2,\), want \(3,\) or one element",
    ),
    (lambda: Tensor([1.0]).softshrink(-1.0), TgError, "softshrink: got lambd -1.0"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_activation_with_a_wrong_argument_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
