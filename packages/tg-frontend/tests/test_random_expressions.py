"""Random expression graphs against PyTorch: values, gradients, and second derivatives, from a printed seed."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from torch_reference import assert_equal

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir import graph

UNARY = ["tanh", "sin", "exp", "sigmoid", "abs", "neg", "square", "relu", "softplus"]
KINDS = ["unary"] * 2 + ["binary"] * 3 + [
    "sum", "mean", "permute", "reshape", "slice", "matmul", "softmax", "cat", "pad", "where", "expand", "cumsum",
    "amax", "index", "write", "norm",
]  # fmt: skip
BINARY = ["add", "sub", "mul", "maximum", "minimum"]


def step(rng: random.Random, ours: list[Tensor], theirs: list[torch.Tensor]) -> None:
    """Add one operation on earlier results, the same to both lists."""
    k = rng.randrange(len(ours))
    a, b = ours[k], theirs[k]
    rank = b.ndim
    kind = rng.choice(KINDS)
    if kind == "unary":
        name = rng.choice(UNARY)
        f = lambda x: getattr(x, name)() if hasattr(x, name) else getattr(torch.nn.functional, name)(x)  # noqa: E731
    elif kind == "binary":
        name, m = rng.choice(BINARY), rng.randrange(len(ours))
        try:
            torch.broadcast_shapes(b.shape, theirs[m].shape)
        except RuntimeError:
            return
        ours.append(getattr(a, name)(ours[m]))
        theirs.append(getattr(b, name)(theirs[m]))
        return
    elif kind in ("sum", "mean", "amax") and rank:
        dim, keep = rng.randrange(-rank, rank), rng.random() < 0.5
        if b.shape[dim] == 0:
            return
        f = lambda x: getattr(x, kind)(dim, keepdim=keep)  # noqa: E731
    elif kind == "permute":
        order = rng.sample(range(rank), rank)
        f = lambda x: x.permute(*order) if rank else x  # noqa: E731
    elif kind == "reshape":
        f = lambda x: x.reshape(-1)  # noqa: E731
    elif kind == "slice" and rank and b.shape[0] > 1:
        start, stride = rng.randrange(b.shape[0]), rng.randint(1, 2)
        f = lambda x: x[start::stride]  # noqa: E731
    elif kind == "matmul" and rank >= 2:
        f = lambda x: x @ x.transpose(-1, -2)  # noqa: E731
    elif kind == "softmax" and rank:
        f = lambda x: x.softmax(-1)  # noqa: E731
    elif kind == "cat" and rank:
        dim = rng.randrange(rank)
        ours.append(Tensor.cat([a, a * 2], dim=dim))
        theirs.append(torch.cat([b, b * 2], dim=dim))
        return
    elif kind == "pad" and rank:
        widths = (rng.randint(-1, 2) if b.shape[-1] > 2 else 1, rng.randint(0, 2))
        ours.append(a.pad(widths, value=0.5))
        theirs.append(torch.nn.functional.pad(b, widths, value=0.5))
        return
    elif kind == "where":
        f = lambda x: x.where(x > 0.1, x * 0.5)  # noqa: E731
    elif kind == "expand":
        f = lambda x: x.unsqueeze(0).expand(2, *x.shape)  # noqa: E731
    elif kind == "cumsum" and rank:
        f = lambda x: x.cumsum(-1)  # noqa: E731
    elif kind == "index" and rank and b.shape[0]:
        picks = [rng.randrange(b.shape[0]) for _ in range(3)]
        f = lambda x: x[picks]  # noqa: E731
    elif kind == "write" and rank and b.shape[0]:
        place = rng.randrange(b.shape[0])

        def f(x):
            y = x * 1
            y[place] = y[place] * 2 + 1
            y[place:] += 0.25
            return y
    elif kind == "norm" and rank and b.shape[-1] > 1:
        f = lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 0.1).sqrt()  # noqa: E731
    else:
        return
    if b.numel() < 2000:
        ours.append(f(a))
        theirs.append(f(b))


SEEDS = int(os.environ.get("TG_SEEDS", "150"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_expression_equals_pytorch(seed: int) -> None:
    rng = random.Random(seed)
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=shape) * 0.7 for shape in ((3, 4), (4,), (2, 1, 4))]
    leaves = [Tensor(array, requires_grad=True) for array in arrays]
    exact = [torch.tensor(array, requires_grad=True) for array in arrays]
    ours, theirs = list(leaves), list(exact)
    for _ in range(rng.randint(4, 14)):
        step(rng, ours, theirs)
    result, reference = ours[-1], theirs[-1]
    if not result.requires_grad:
        return
    graph.verify_graph([result.node])
    with torch.no_grad():
        scale = 1 + reference.abs().max().item() if reference.numel() else 1.0
    if scale > 1e6:
        return
    assert_equal(result.detach().numpy(), reference.detach().numpy(), 1e-9, f"seed {seed}: value")
    loss, want = (result / scale).tanh().sum(), (reference / scale).tanh().sum()
    got_grads = tg.grad(loss, leaves, allow_unused=True)
    want_grads = torch.autograd.grad(want, exact, allow_unused=True, create_graph=True)
    for position, (g, t) in enumerate(zip(got_grads, want_grads, strict=True)):
        expected = np.zeros(arrays[position].shape) if t is None else t.detach().numpy()
        actual = np.zeros(arrays[position].shape) if g is None else g.detach().numpy()
        assert_equal(actual, expected, 1e-8, f"seed {seed}: gradient of leaf {position}")
    if seed % 5 == 0:
        total = sum(((g * g).sum() for g in got_grads if g is not None), start=Tensor(0.0, dtype="float64"))
        reference_total = sum((t * t).sum() for t in want_grads if t is not None)
        second = tg.grad(total, leaves, allow_unused=True)
        expected_second = (
            torch.autograd.grad(reference_total, exact, allow_unused=True)
            if reference_total.requires_grad
            else [None] * 3
        )
        for position, (g, t) in enumerate(zip(second, expected_second, strict=True)):
            expected = np.zeros(arrays[position].shape) if t is None else t.numpy()
            actual = np.zeros(arrays[position].shape) if g is None else g.detach().numpy()
            assert_equal(actual, expected, 1e-6, f"seed {seed}: second gradient of leaf {position}")
