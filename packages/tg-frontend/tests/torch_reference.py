"""The judge of these tests: the same expression in PyTorch, its values in float64, its type in the given dtype."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

import tg_frontend as tg
from tg_frontend import Tensor

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-5, "float64": 1e-10}
"""Relative to the largest magnitude of the result, and absolute below 1."""


def sample(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Uniform float64 numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape)


def outputs(result: object) -> list:
    """The tensors of a result that may be one or several."""
    return list(result) if isinstance(result, list | tuple) else [result]


def assert_equal(got: np.ndarray, want: np.ndarray, tolerance: float, what: str) -> None:
    """Shapes equal, NaN and infinities in the same places, the rest within the tolerance."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, want {want.shape}"
    finite = want[np.isfinite(want)] if want.dtype.kind == "f" else want
    scale = max(1.0, float(np.abs(finite).max())) if finite.size and want.dtype.kind == "f" else 1.0
    np.testing.assert_allclose(
        got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=True, err_msg=what
    )


def check(
    ours: Callable,
    theirs: Callable,
    *inputs: np.ndarray,
    dtypes: Sequence[str] = ("float32",),
    grad: bool = True,
    second_order: bool = False,
    numpy: Callable | None = None,
    tolerance: float | None = None,
    same_dtype: bool = True,
) -> None:
    """Compare `ours(*Tensors)` with `theirs(*torch tensors)`, values and gradients, for each float dtype of `dtypes`.

    Float arrays are converted to the dtype under test (and PyTorch computes on the rounded numbers in float64); other
    arrays keep their own dtype and get no gradient. The gradient starts from random numbers. `numpy` is checked on
    float64 arrays as well when given.
    """
    for dtype in dtypes:
        floats = [array.dtype.kind == "f" for array in inputs]
        rounded = [
            torch.tensor(array).to(getattr(torch, dtype)).double() if is_float else torch.tensor(array)
            for array, is_float in zip(inputs, floats, strict=True)
        ]
        mine = [
            Tensor(t.numpy(), dtype=dtype if is_float else None, requires_grad=is_float and grad)
            for t, is_float in zip(rounded, floats, strict=True)
        ]
        exact = [
            t.clone().requires_grad_(is_float and grad) for t, is_float in zip(rounded, floats, strict=True)
        ]
        got, want = outputs(ours(*mine)), outputs(theirs(*exact))
        limit = TOLERANCE[dtype] if tolerance is None else tolerance
        assert len(got) == len(want), f"{len(got)} results, want {len(want)}"
        if same_dtype:
            typed = outputs(
                theirs(
                    *[t.to(getattr(torch, dtype)) if f else t for t, f in zip(rounded, floats, strict=True)]
                )
            )
            for result, reference in zip(got, typed, strict=True):
                assert str(reference.dtype) == f"torch.{result.dtype}", (
                    f"{result.dtype}, want {reference.dtype}"
                )
        for result, reference in zip(got, want, strict=True):
            assert_equal(result.detach().numpy(), reference.detach().numpy(), limit, f"{dtype} value")
        if numpy is not None:
            for result, reference in zip(got, outputs(numpy(*[t.numpy() for t in rounded])), strict=True):
                assert_equal(
                    result.detach().numpy(), np.asarray(reference), limit, f"{dtype} value against NumPy"
                )
        if not grad or not any(floats):
            continue
        pairs = [(a, b) for a, b in zip(got, want, strict=True) if b.requires_grad]
        starts = [sample(*b.shape, seed=7 + i) for i, (_, b) in enumerate(pairs)]
        mine_leaves = [t for t, f in zip(mine, floats, strict=True) if f]
        exact_leaves = [t for t, f in zip(exact, floats, strict=True) if f]
        ours_start = [Tensor(s, dtype=a.dtype) for s, (a, _) in zip(starts, pairs, strict=True)]
        theirs_start = [torch.tensor(s, dtype=b.dtype) for s, (_, b) in zip(starts, pairs, strict=True)]
        got_grads = tg.grad([a for a, _ in pairs], mine_leaves, ours_start, allow_unused=True)
        want_grads = torch.autograd.grad(
            [b for _, b in pairs], exact_leaves, theirs_start, allow_unused=True, create_graph=second_order
        )
        for position, (a, b) in enumerate(zip(got_grads, want_grads, strict=True)):
            want_array = np.zeros(exact_leaves[position].shape) if b is None else b.detach().numpy()
            got_array = np.zeros(mine_leaves[position].shape) if a is None else a.detach().numpy()
            assert_equal(got_array, want_array, limit * 4, f"{dtype} gradient of input {position}")
        if second_order:
            _check_second(got_grads, want_grads, mine_leaves, exact_leaves, limit * 16)


def _check_second(got: Sequence, want: Sequence, mine: Sequence, exact: Sequence, limit: float) -> None:
    """The gradient of the sum of all squared gradients."""
    total = sum(((g * g).sum() for g in got if g is not None), start=Tensor(0.0))
    reference = sum((g * g).sum() for g in want if g is not None)
    linear = not isinstance(reference, torch.Tensor) or not reference.requires_grad
    second = tg.grad(total, mine, allow_unused=True)
    wanted = [None] * len(exact) if linear else torch.autograd.grad(reference, exact, allow_unused=True)
    for position, (a, b) in enumerate(zip(second, wanted, strict=True)):
        got_array = np.zeros(exact[position].shape) if a is None else a.detach().numpy()
        want_array = np.zeros(exact[position].shape) if b is None else b.detach().numpy()
        assert_equal(got_array, want_array, limit, f"second gradient of input {position}")
