"""Movement against PyTorch: values, gradients, aliasing, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor, Variable
from tg_ir.errors import ShapeError

A = sample(2, 3, 4)
SQUARE = sample(3, 3, seed=1)
ODD = sample(3, 5, seed=2)

SAME_CALL = [
    (A, lambda x: x.reshape(6, 4)),
    (A, lambda x: x.reshape((-1, 2))),
    (A, lambda x: x.reshape(4, -1, 3)),
    (A, lambda x: x.view(-1)),
    (A, lambda x: x.view_as(x.reshape(4, 6)).reshape_as(x)),
    (A, lambda x: x.flatten()),
    (A, lambda x: x.flatten(1)),
    (A, lambda x: x.flatten(-2, -1)),
    (A, lambda x: x.ravel()),
    (A, lambda x: x.unflatten(2, (2, -1))),
    (A, lambda x: x.permute(2, 0, 1)),
    (A, lambda x: x.permute((-1, 0, 1))),
    (A, lambda x: x.transpose(0, -1)),
    (A, lambda x: x.swapaxes(1, 2).swapdims(0, 1)),
    (SQUARE, lambda x: x.t()),
    (ODD, lambda x: x.T),
    (A, lambda x: x.mT),
    (A, lambda x: x.movedim(0, 2)),
    (A, lambda x: x.moveaxis((0, 1), (-1, 0))),
    (sample(1, 3, 1), lambda x: x.expand(2, 3, 4)),
    (sample(1, 3, 1), lambda x: x.expand(5, -1, 3, 2)),
    (sample(3), lambda x: x.broadcast_to((2, 3))),
    (sample(3), lambda x: x.expand_as(x.reshape(3, 1).expand(3, 3))),
    (A, lambda x: x.repeat(2, 1, 3)),
    (ODD, lambda x: x.repeat(2, 0, 1)),
    (ODD, lambda x: x.repeat((2, 1, 2))),
    (A, lambda x: x.tile((2,))),
    (A, lambda x: x.tile((2, 1, 1, 2))),
    (A, lambda x: x.repeat_interleave(3)),
    (A, lambda x: x.repeat_interleave(2, dim=1)),
    (A, lambda x: x.repeat_interleave(0, dim=-1)),
    (sample(1, 3, 1), lambda x: x.squeeze()),
    (sample(1, 3, 1), lambda x: x.squeeze(0)),
    (sample(1, 3, 1), lambda x: x.squeeze(1)),
    (sample(1, 3, 1), lambda x: x.squeeze((0, -1))),
    (A, lambda x: x.unsqueeze(0).unsqueeze(-1).unsqueeze(2)),
    (A, lambda x: x.flip(0)),
    (A, lambda x: x.flip((0, -1))),
    (A, lambda x: x.fliplr().flipud()),
    (A, lambda x: x.roll(1)),
    (A, lambda x: x.roll(-2, 1)),
    (A, lambda x: x.roll((1, 5), (0, 2))),
    (A, lambda x: x.rot90()),
    (A, lambda x: x.rot90(2, (1, 2))),
    (A, lambda x: x.rot90(3, (0, 2))),
    (A, lambda x: x.rot90(-4, (0, 2))),
    (A, lambda x: x.narrow(1, 1, 2)),
    (A, lambda x: x.narrow(-1, -3, 2)),
    (A, lambda x: x.select(1, -1)),
    (ODD, lambda x: x.split(2)),
    (ODD, lambda x: x.split(2, dim=1)),
    (ODD, lambda x: x.split((1, 4), 1)),
    (ODD, lambda x: x.chunk(3, 1)),
    (sample(6), lambda x: x.chunk(4)),
    (ODD, lambda x: x.tensor_split(3, 1)),
    (ODD, lambda x: x.tensor_split((1, 3), 1)),
    (ODD, lambda x: x.tensor_split((3, 1, 9), 1)),
    (ODD, lambda x: x.unbind(1)),
    (sample(2, 9), lambda x: x.unfold(1, 3, 2)),
    (sample(7, 2), lambda x: x.unfold(0, 4, 1)),
    (ODD, lambda x: x.diagonal()),
    (ODD, lambda x: x.diagonal(2)),
    (ODD, lambda x: x.diagonal(4)),
    (ODD, lambda x: x.diagonal(-2)),
    (ODD, lambda x: x.diagonal(7)),
    (A, lambda x: x.diagonal(1, 2, 0)),
    (A, lambda x: x.diagonal(-1, -1, -2)),
    (sample(3), lambda x: x.diag()),
    (sample(3), lambda x: x.diag(-2)),
    (ODD, lambda x: x.diag(1)),
    (ODD, lambda x: x.diag_embed()),
    (ODD, lambda x: x.diag_embed(1, 0, 2)),
    (ODD, lambda x: x.diag_embed(-2, 2, 0)),
    (sample(0), lambda x: x.reshape(0, 3)),
    (sample(0, 3), lambda x: x.flip(0).permute(1, 0).reshape(3, 0)),
    (sample(0, 3), lambda x: x.roll(1, 0).repeat(2, 1)),
    (sample(0, 3), lambda x: x.diagonal()),
    (sample(0), lambda x: x.diag()),
    (sample(0), lambda x: x.chunk(2)),
    (sample(), lambda x: x.reshape(1).expand(3)),
    (sample(), lambda x: x.squeeze().unsqueeze(0).flatten()),
    (sample(), lambda x: x.transpose(0, -1).permute(())),
    (sample(), lambda x: x.repeat(2, 2)),
    (sample(), lambda x: x.flip(())),
]


@pytest.mark.parametrize("row", range(len(SAME_CALL)))
def test_movement_method_equals_torch(row):
    array, call = SAME_CALL[row]
    check(call, call, array)
    if row % 5 == 0 and array.size:
        check(lambda x: call(x * x), lambda x: call(x * x), array, second_order=True)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "bfloat16", "float64"])
def test_movement_of_any_dtype_keeps_it(dtype):
    x = Tensor([[0, 1, 2], [3, 4, 5]]).cast(dtype)
    y = tg.cat([x.flip(1).T, x.pad((0, 0, 1, 0)).T], dim=1)
    reference = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, dtype))
    want = torch.cat([reference.flip(1).T, torch.nn.functional.pad(reference, (0, 0, 1, 0)).T], dim=1)
    assert y.dtype.name == dtype
    assert y.cast("float32").tolist() == want.float().tolist()


PADS = [
    (A, (1, 2), "constant", 0.5),
    (A, (1, 2, 0, 3, 2, 0), "constant", None),
    (A, (-1, 2, 1, -2), "constant", 3.0),
    (A, (-2, -2), "constant", None),
    (A, (1, 3), "reflect", None),
    (sample(2, 3, 4, 5), (1, 2, 3, 0), "reflect", None),
    (A, (2, 3), "replicate", None),
    (sample(2, 3, 4, 5), (6, 2, 3, 0), "replicate", None),
    (sample(1, 2, 3, 4, 5), (1, 2, 3, 0, 1, 2), "replicate", None),
    (A, (4, 2), "circular", None),
    (sample(2, 3, 4, 5), (1, 5, 3, 0), "circular", None),
    (A, (-1, 2), "reflect", None),
    (A, (3, -2), "replicate", None),
    (sample(0, 3), (1, 1, 1, 0), "constant", 2.0),
]


@pytest.mark.parametrize("row", range(len(PADS)))
def test_pad_equals_torch(row):
    array, widths, mode, value = PADS[row]
    check(
        lambda x: (x * x).pad(widths, mode, value),
        lambda x: torch.nn.functional.pad(x * x, widths, mode, value),
        array,
        second_order=array.size > 0,
    )


def test_pad_of_any_rank_equals_numpy():
    for mode, theirs in (("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")):
        got = Tensor(sample(4, 5, 3)).pad((1, 2, 3, 1, 2, 2), mode)
        np.testing.assert_allclose(got.numpy(), np.pad(sample(4, 5, 3), [(2, 2), (3, 1), (1, 2)], theirs))


SEQUENCES = [
    ("cat", (A, A), {}),
    ("cat", (A, A, A), {"dim": -1}),
    ("concat", (A, A), {"dim": 1}),
    ("concatenate", (A, A), {"dim": 1}),
    ("cat", (sample(0), A), {"dim": 1}),
    ("cat", (A, np.arange(24).reshape(2, 3, 4)), {}),
    ("stack", (A, A), {}),
    ("stack", (A, A), {"dim": -1}),
    ("stack", (sample(), sample()), {}),
    ("hstack", (A, A), {}),
    ("hstack", (sample(2), sample(3)), {}),
    ("hstack", (sample(), sample()), {}),
    ("vstack", (sample(3), sample(2, 3)), {}),
    ("dstack", (sample(3), sample(1, 3)), {}),
    ("column_stack", (sample(3), sample(3, 2)), {}),
    ("broadcast_tensors", (sample(3, 1), sample(4)), {}),
    ("atleast_1d", (sample(), sample(4)), {}),
    ("atleast_2d", (sample(), sample(4)), {}),
    ("atleast_3d", (sample(), sample(4), sample(2, 3)), {}),
]


@pytest.mark.parametrize("row", range(len(SEQUENCES)))
def test_sequence_function_equals_torch(row):
    name, arrays, options = SEQUENCES[row]
    spread = name.startswith(("broadcast", "atleast"))
    theirs = getattr(torch, name)
    reference = theirs if spread else lambda *tensors: theirs(tensors, **options)
    check(lambda *tensors: getattr(Tensor, name)(list(tensors), **options), reference, *arrays)
    check(lambda first, *rest: getattr(first, name)(*rest, **options), reference, *arrays)


def test_cat_with_dim_by_position_takes_it():
    x = Tensor(sample(2, 3))
    assert tg.cat([x, x], 1).shape == x.cat(x, 1).shape == Tensor.cat((x, x), -1).shape == (2, 6)


def test_repeat_interleave_by_tensor_equals_torch():
    counts = np.array([2, 0, 3])
    check(lambda x, n: x.repeat_interleave(n, 1), lambda x, n: x.repeat_interleave(n, 1), A, counts)
    theirs = lambda x: x.repeat_interleave(torch.tensor([1, 2, 3]), 1)  # noqa: E731
    check(lambda x: x.repeat_interleave([1, 2, 3], 1, output_size=6), theirs, A)


def test_trace_equals_torch():
    check(lambda x: x.trace(), lambda x: x.trace(), SQUARE)
    check(lambda x: x.trace(), lambda x: x.trace(), ODD)


def test_view_of_dtype_reads_the_bits():
    assert Tensor([1.0, -2.0]).view("int32").tolist() == torch.tensor([1.0, -2.0]).view(torch.int32).tolist()
    assert Tensor([1.0]).view(tg.dtypes.uint32).tolist() == [0x3F800000]


VIEWS = [
    lambda x: x.reshape(4, 3),
    lambda x: x.view(2, -1),
    lambda x: x.flatten(),
    lambda x: x.permute(1, 0),
    lambda x: x.T,
    lambda x: x.mT,
    lambda x: x.transpose(0, 1).transpose(0, 1),
    lambda x: x.movedim(0, 1),
    lambda x: x.unsqueeze(1).squeeze(1),
    lambda x: x.unflatten(1, (2, 2)),
    lambda x: x.narrow(1, 1, 2),
    lambda x: x.select(0, 1),
    lambda x: x.select(1, -1),
    lambda x: x.split(2, 1)[1],
    lambda x: x.chunk(2)[0],
    lambda x: x.unbind(1)[2],
    lambda x: x.tensor_split(2, 1)[0],
    lambda x: x.unfold(1, 2, 2),
    lambda x: x.diagonal(),
    lambda x: x.diagonal(-1, 1, 0),
    lambda x: x.expand(3, 4),
]


@pytest.mark.parametrize("row", range(len(VIEWS)))
def test_view_written_to_changes_its_base(row):
    ours, theirs = Tensor(np.arange(12.0).reshape(3, 4)), torch.arange(12.0).double().reshape(3, 4)
    VIEWS[row](ours).assign(VIEWS[row](ours) * 2 + 1)
    VIEWS[row](theirs).copy_(VIEWS[row](theirs) * 2 + 1)
    assert ours.tolist() == theirs.tolist()


COPIES = [
    lambda x: x.flip(0),
    lambda x: x.roll(1, 0),
    lambda x: x.repeat(1, 1),
    lambda x: x.repeat_interleave(1, 0),
    lambda x: x.pad((0, 0)),
    lambda x: tg.cat([x]),
    lambda x: tg.stack([x]),
    lambda x: x.diag(),
    lambda x: x.rot90(0),
]


@pytest.mark.parametrize("row", range(len(COPIES)))
def test_copy_written_to_leaves_its_source(row):
    x = Tensor(np.arange(12.0).reshape(3, 4))
    COPIES[row](x).assign(-1.0)
    assert x.tolist() == np.arange(12.0).reshape(3, 4).tolist()


def test_movement_of_symbolic_sizes_evaluates():
    n = Variable("n", 1, 8).bind(3)
    x = Tensor(np.arange(16.0).reshape(8, 2)).narrow(0, 0, n)
    assert x.shape == (n, 2)
    assert x.reshape(-1).shape == (2 * n,)
    assert x.unsqueeze(1).expand(-1, 4, -1).flatten(0, 1).shape == (4 * n, 2)
    np.testing.assert_array_equal(x.T.numpy(), np.arange(6.0).reshape(3, 2).T)
    np.testing.assert_array_equal(
        tg.cat([x, x]).flip(0).numpy(), np.flip(np.tile(np.arange(6.0).reshape(3, 2), (2, 1)), 0)
    )
    np.testing.assert_array_equal(x.roll(1, 0).numpy(), np.roll(np.arange(6.0).reshape(3, 2), 1, 0))
    np.testing.assert_array_equal(
        x.pad((0, 0, 0, 8 - n)).numpy(), np.pad(np.arange(6.0).reshape(3, 2), [(0, 5), (0, 0)])
    )


ERRORS = [
    (lambda x: x.reshape(5, 5), ShapeError, "reshape"),
    (lambda x: x.reshape(-1, 5), ShapeError, "do not divide"),
    (lambda x: x.reshape(-1, -1), ShapeError, "more than one"),
    (lambda x: x.reshape(-2, 12), ShapeError, "want sizes >= 0"),
    (lambda x: x.flatten(2, 0), ShapeError, "comes after"),
    (lambda x: x.flatten(0, 3), ShapeError, "flatten: got dim 3"),
    (lambda x: x.unflatten(0, (3, 1)), ShapeError, "unflatten"),
    (lambda x: x.permute(0, 1), ShapeError, "no order of 3 dimensions"),
    (lambda x: x.permute(0, 0, 1), ShapeError, "no order"),
    (lambda x: x.expand(2, 5, 4), ShapeError, "expand"),
    (lambda x: x.expand(3, 4), ShapeError, "fewer dimensions"),
    (lambda x: x.repeat(2), ShapeError, "repeat"),
    (lambda x: x.squeeze(3), ShapeError, "squeeze"),
    (lambda x: x.t(), ShapeError, "at most 2"),
    (lambda x: x.roll((1, 2), 0), ShapeError, "roll"),
    (lambda x: x.pad((1,)), ShapeError, "widths"),
    (lambda x: x.pad((1, 1) * 4), ShapeError, "at most 3 dimensions"),
    (lambda x: x.pad((1, 1), "mirror"), ShapeError, "mode 'mirror'"),
    (lambda x: x.pad((4, 0), "reflect"), ShapeError, "want at most 3"),
    (lambda x: x.pad((5, 0), "circular"), ShapeError, "want at most 4"),
    (lambda x: x.select(0, 2), IndexError, "out of range"),
    (lambda x: x.narrow(0, 1, 2), IndexError, "narrow"),
    (lambda x: x.split((1, 2), 0), ShapeError, "add up to 3"),
    (lambda x: x.split(0), ShapeError, "at least 1"),
    (lambda x: x.chunk(0), ShapeError, "at least 1"),
    (lambda x: x.diagonal(0, 1, 1), ShapeError, "two dimensions"),
    (lambda x: x.repeat_interleave(Tensor([1, 2, 3]), 0), ShapeError, "repeats"),
    (lambda x: tg.cat([]), ShapeError, "no tensors"),
    (lambda x: tg.cat([x, x.reshape(3, 2, 4)], 2), ShapeError, "cat"),
    (lambda x: tg.stack([x, x.T]), ShapeError, "stack"),
]


@pytest.mark.parametrize("row", range(len(ERRORS)))
def test_movement_of_what_does_not_fit_says_so(row):
    call, kind, words = ERRORS[row]
    with pytest.raises(kind, match=words):
        call(Tensor(A))
