"""Indexing against NumPy on random indices, and gathers and scatters against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_reference import check, sample

import tg_frontend as tg
from tg_frontend import Tensor, Variable
from tg_ir.errors import DTypeError, EvaluationError, IndexRangeError, ShapeError, TgError

A = sample(3, 4, 5)


# ---- x[...] against NumPy ---------------------------------------------------------------------------------------


def random_index(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    """Ints, slices, None, Ellipsis, masks and integer arrays, as they come."""
    items: list = []
    axis = 0
    dots = False
    common = [(), (3,), (2, 1), (1,), (2, 3)][rng.integers(5)]
    while axis < len(shape) and (not items or rng.random() > 0.05):
        size, kind = shape[axis], rng.integers(10)
        if kind <= 2:
            ends = [None if rng.random() < 0.4 else int(rng.integers(-size - 2, size + 3)) for _ in range(2)]
            items.append(slice(*ends, [None, 1, 2, 3, -1, -2][rng.integers(6)]))
        elif kind == 3 and size:
            items.append(int(rng.integers(-size, size)))
        elif kind == 4:
            items.append(None)
            continue
        elif kind == 5 and not dots:
            dots = True
            items.append(...)
            axis += int(rng.integers(0, len(shape) - axis + 1))
            continue
        elif kind in (6, 7) and size:
            array = rng.integers(-size, size, common)
            items.append(array.tolist() if common and rng.random() < 0.3 else array)
        elif kind == 8 and not dots:
            count = int(rng.integers(1, len(shape) - axis + 1))
            items.append(rng.random(shape[axis : axis + count]) < 0.5)
            axis += count
            continue
        elif kind == 9 and rng.random() < 0.2:
            items.append(bool(rng.random() < 0.8))
            continue
        else:
            continue
        axis += 1
    return tuple(items)


def as_ours(rng: np.random.Generator, index: tuple) -> tuple:
    """Some of the arrays as tensors."""
    return tuple(
        [Tensor(item) if isinstance(item, np.ndarray) and rng.random() < 0.5 else item for item in index]
    )


@pytest.mark.parametrize("seed", range(8))
def test_getting_and_setting_at_random_indices_equals_numpy(seed):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    done = 0
    while done < 100:
        shape = tuple(rng.integers(0 if rng.random() < 0.1 else 1, 5, rng.integers(0, 5)).tolist())
        array = rng.standard_normal(shape).astype("float32").reshape(shape)
        index = random_index(rng, shape)
        try:
            want = array[index]
        except IndexError:
            with pytest.raises(TgError):
                Tensor(array)[as_ours(rng, index)].numpy()
            continue
        done += 1
        got = Tensor(array)[as_ours(rng, index)].numpy()
        np.testing.assert_array_equal(got, want, err_msg=f"{shape} {index}")
        assert got.shape == want.shape, f"{shape} {index}"
        value = rng.standard_normal(want.shape).astype("float32").reshape(want.shape)
        if want.ndim and want.shape[0] and rng.random() < 0.5:
            value = value[:1]
        array[index] = value
        tensor = Tensor(np.zeros(shape, "float32"))
        tensor[...] = Tensor(array)
        tensor[as_ours(rng, index)] = Tensor(value)
        np.testing.assert_array_equal(tensor.numpy(), array, err_msg=f"{shape} {index}")


INDICES = [
    (1,),
    (slice(None), 2),
    (..., slice(1, 4, 2)),
    ([0, 2, 2],),
    (slice(None), [0, 3], [1, 1]),
    ([0, 1], slice(None), [2, 4]),
    (slice(0, 2), [[0, 1], [3, 2]]),
    (None, [1, 0], 0),
    (A > 0,),
    (slice(None), A[0] > 0),
    (A[:, 0, 0] > -9, 1),
]


@pytest.mark.parametrize("row", range(len(INDICES)))
def test_getting_and_setting_gradients_equal_torch(row):
    index = INDICES[row]
    ours = tuple([Tensor(item) if isinstance(item, np.ndarray) else item for item in index])
    theirs = tuple([torch.tensor(item) if isinstance(item, np.ndarray | list) else item for item in index])
    check(lambda x: (x * x)[ours], lambda x: (x * x)[theirs], A, second_order=True)

    if row == 3:  # names an element twice: PyTorch gives a gradient to the value that lost, too
        return

    def assigned(x: Tensor | torch.Tensor, value: Tensor | torch.Tensor) -> Tensor | torch.Tensor:
        result = x * x
        result[ours if isinstance(x, Tensor) else theirs] = value * value
        return result

    check(assigned, assigned, A, sample(1), second_order=True)


def test_setting_an_element_twice_gives_the_gradient_to_the_last():
    x, value = Tensor([0.0, 0.0, 0.0]), Tensor([1.0, 2.0, 3.0], requires_grad=True)
    x[[1, 1, 0]] = value
    x.sum().backward()
    assert value.grad.tolist() == [0.0, 1.0, 1.0]


def test_basic_index_is_a_view_and_advanced_is_a_copy():
    x = Tensor(np.zeros((3, 4)))
    row, corner, back, picked = x[1], x[:2, ::2], x[::-1], x[[0, 1]]
    row.assign(1.0)
    corner += 2.0
    back[0] = 7.0
    picked[:] = 9.0
    want = np.zeros((3, 4))
    want[1] = 1.0
    want[:2, ::2] += 2.0
    want[::-1][0] = 7.0
    np.testing.assert_array_equal(x.numpy(), want)


def test_augmented_assignment_through_an_index_equals_numpy():
    x, want = Tensor(np.arange(12.0).reshape(3, 4)), np.arange(12.0).reshape(3, 4)
    for array in (x, want):
        array[0] += 1
        array[:, 1] *= 3
        array[[0, 2], [1, 1]] -= 5
        array[1:, ::2] /= 2
    x[x > 5] = 0
    want[want > 5] = 0
    x[x < 0] += 10
    want[want < 0] += 10
    np.testing.assert_array_equal(x.numpy(), want)


def test_setting_an_element_twice_keeps_the_last():
    x = Tensor(np.zeros(3))
    x[[1, 1, 0]] = Tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [3.0, 2.0, 0.0]


def test_setting_converts_to_the_dtype():
    x = Tensor([1, 2, 3])
    x[0] = 2.7
    x[[1, 2]] = np.array([3.9, -1.2])
    assert x.tolist() == [2, 3, -1]


def test_masked_setting_of_a_number_evaluates_nothing():
    x = Tensor(np.arange(6.0).reshape(2, 3)) + 0
    mask = x > 2
    x[mask] = -1.0
    assert mask.node.value is None
    assert x.tolist() == [[0, 1, 2], [-1, -1, -1]]
    x[mask[:, 0]] = 5.0
    assert x.tolist() == [[0, 1, 2], [5, 5, 5]]


def test_scalar_tensor_index_is_not_evaluated():
    x, place = Tensor(A), Tensor([1, -1])[1] + 0
    np.testing.assert_array_equal(x[place].numpy(), Tensor(A)[-1].numpy())
    np.testing.assert_array_equal(x[:, place, 2].numpy(), Tensor(A)[:, -1, 2].numpy())
    assert place.node.value is None


def test_index_tensor_out_of_range_of_one_axis_of_two_is_an_error():
    rows, columns = Tensor([0, 1], device="REF"), Tensor([1, 5], device="REF")  # compiled code reads 0
    with pytest.raises(EvaluationError, match="out of range"):
        Tensor(A, device="REF")[rows, columns].numpy()


def test_symbolic_index_gets_and_sets():
    pos = Variable("pos", 0, 3).bind(2)
    x, want = Tensor(sample(3, 4)), sample(3, 4)
    np.testing.assert_array_equal(x[:, :pos].numpy(), want[:, :2])
    np.testing.assert_array_equal(x[:, pos:].numpy(), want[:, 2:])
    np.testing.assert_array_equal(x[:, pos : pos + 1].numpy(), want[:, 2:3])
    np.testing.assert_array_equal(x[:, pos].numpy(), want[:, 2])
    np.testing.assert_array_equal(x[[0, 2], pos].numpy(), want[[0, 2], 2])
    x[:, pos] = 1.5
    x[0, : pos + 1] = -1.5
    want[:, 2] = 1.5
    want[0, :3] = -1.5
    np.testing.assert_array_equal(x.numpy(), want)
    part = x[:, :pos]
    np.testing.assert_array_equal(part[..., ::-1].numpy(), want[:, :2][..., ::-1])
    np.testing.assert_array_equal(part[1].numpy(), want[1, :2])
    assert x[pos:, :2].shape == (3 - pos, 2)


ERRORS = [
    (lambda x: x[3], IndexRangeError, "3 is out of range for dimension 0 of size 3"),
    (lambda x: x[0, 0, 0, 0], IndexError, "4 indices for 3 dimensions"),
    (lambda x: x[..., 0, ...], IndexError, "two Ellipsis"),
    (lambda x: x[[0, 3]], IndexError, "3 is out of range"),
    (lambda x: x[[-4]], IndexError, "-4 is out of range"),
    (lambda x: x[Tensor([True, False])], IndexError, "mask has shape"),
    (lambda x: x[[0.5]], DTypeError, "float32 array"),
    (lambda x: x["a"], DTypeError, "str"),
    (lambda x: x[::0], ShapeError, "step 0"),
    (lambda x: x[[0, 1], [0, 1, 2]], ShapeError, "do not broadcast"),
    (lambda x: x.__setitem__(0, Tensor([1.0, 2.0])), ShapeError, "not broadcast"),
    (lambda x: x.__setitem__([0, 1], Tensor([1.0, 2.0])), ShapeError, "not broadcast"),
    (lambda x: x.gather(0, Tensor([0])), ShapeError, "as many dimensions"),
    (lambda x: x.gather(0, x), DTypeError, "integer"),
    (lambda x: x.scatter(0, Tensor([[[0]]]), Tensor([1.0])), ShapeError, "source"),
    (lambda x: x.scatter_reduce(0, Tensor([[[0]]]), Tensor([[[1.0]]]), "max"), TgError, "amax"),
    (lambda x: x.index_add(0, Tensor([0]), Tensor([1.0])), ShapeError, "want"),
    (lambda x: x.masked_fill(x, 0), DTypeError, "want bool"),
]


@pytest.mark.parametrize("row", range(len(ERRORS)))
def test_index_that_does_not_fit_says_so(row):
    call, kind, words = ERRORS[row]
    with pytest.raises(kind, match=words):
        call(Tensor(A))


# ---- gather, scatter and their like against PyTorch -------------------------------------------------------------

I1 = np.array([[[0, 1, 3, 3, 2], [1, 1, 0, 2, 0]], [[3, 2, 1, 0, 0], [0, 0, 0, 0, 0]]])  # (2, 2, 5), below 4
I0 = np.array([2, 0, 2, 1])
I2 = np.array([[0, 1, 2, 3, 0], [1, 2, 0, 0, 3]])  # no index twice in a column
S1 = sample(2, 2, 5, seed=3)
MASK = np.random.default_rng(8).random((3, 4, 5)) < 0.4

CALLS = [
    (lambda x, i: x.gather(1, i), (A, I1)),
    (lambda x, i: x.gather(-1, i), (A, I1)),
    (lambda x, i: x.index_select(0, i), (A, I0)),
    (lambda x, i: x.index_select(2, i), (A, I0)),
    (lambda x, i: x.take(i), (A, I1 * 7)),
    (lambda x, i: x.take(i), (A, np.array(-3))),
    (lambda x, i: x.take_along_dim(i, 1), (A, I1[:1, :1, :])),
    (lambda x, i: x.take_along_dim(i), (A, I1)),
    (lambda x, i, s: x.scatter(1, i, s), (A, np.stack([I2, 3 - I2]), S1)),
    (lambda x, i: x.scatter(1, i, 1.5), (A, I1)),
    (lambda x, i: x.scatter(1, i, value=2.0), (A, I1)),
    (lambda x, i, s: x.scatter_add(1, i, s), (A, I1, S1)),
    (lambda x, i, s: x.scatter_add(0, i, s), (A, I1 % 3, S1)),
    (lambda x, i, s: x.index_add(0, i, s), (A, I0, sample(4, 4, 5, seed=4))),
    (lambda x, i, s: x.index_add(1, i, s, alpha=3), (A, I0, sample(3, 4, 5, seed=4))),
    (lambda x, i, s: x.index_copy(1, i, s), (A, np.array([3, 0]), sample(3, 2, 5, seed=4))),
    (lambda x, i: x.index_fill(2, i, -1.0), (A, I0)),
    (lambda x, m: x.masked_fill(m, 3.0), (A, MASK)),
    (lambda x, m: x.masked_fill(m, -math.inf).exp(), (A, MASK[:, :, :1])),
    (lambda x, m, v: x.masked_fill(m, v), (A, MASK, sample())),
    (lambda x, m: x.masked_select(m), (A, MASK)),
    (lambda x, m: x.masked_select(m), (A, MASK[0])),
    (lambda x, m, s: x.masked_scatter(m, s), (A, MASK, sample(3, 4, 5, seed=6))),
    (lambda x, s: x.put(_like(x, [1, 7, -1]), s), (A, sample(3, seed=5))),
    (lambda x, s: x.put(_like(x, [1, 7, 1]), s, accumulate=True), (A, sample(3, seed=5))),
    (lambda x, i, s: x.index_put((i, i % 3), s), (A, np.array([2, 0, 1]), sample(3, 5, seed=5))),
    (lambda x, i, s: x.index_put((i, i - 1), s, accumulate=True), (A, I0, sample(4, 5, seed=5))),
    (lambda x, s: x.select_scatter(s, 1, -1), (A, sample(3, 5, seed=5))),
    (lambda x, s: x.slice_scatter(s, 1, 0, 4, 2), (A, sample(3, 2, 5, seed=5))),
    (lambda x, s: x.diagonal_scatter(s, 1), (sample(3, 4), sample(3, seed=5))),
    (lambda x, i: x.gather(0, i), (sample(), np.array([0, 0]))),
    (lambda x, i: x.gather(0, i), (sample(0), np.zeros(0, "int64"))),
    (lambda x, i: x.index_select(0, i), (sample(4), np.zeros(0, "int64"))),
    (lambda x, i, s: x.scatter_add(0, i, s), (sample(4), np.zeros(0, "int64"), sample(0))),
]


def _like(x: object, values: list) -> object:
    return torch.tensor(values) if isinstance(x, torch.Tensor) else Tensor(values)


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_gather_or_scatter_equals_torch(row):
    call, arrays = CALLS[row]
    check(call, call, *arrays)
    if row in (0, 2, 8, 11, 13, 17, 22, 26):
        square = lambda x, *rest: call(x * x, *rest)  # noqa: E731
        check(square, square, *arrays, second_order=True)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce_equals_torch(reduce, include_self):
    base, source = np.abs(A) + 0.5, np.abs(S1) + 0.5
    call = lambda x, i, s: x.scatter_reduce(1, i, s, reduce, include_self=include_self)  # noqa: E731
    check(call, call, base, I1, source)
    check(
        call,
        call,
        np.round(base * 2) / 2,
        I1,
        np.round(source * 2) / 2,
        grad=include_self and reduce != "prod",
    )
    integers = [Tensor(np.round(array * 9).astype("int64")) for array in (base, source)]
    if reduce == "sum":
        assert call(integers[0], Tensor(I1), integers[1]).dtype.name == "int64"
    if reduce != "sum":
        by_slices = lambda x, i, s: x.index_reduce(0, i, s, reduce, include_self=include_self)  # noqa: E731
        check(by_slices, by_slices, base, I0, np.abs(sample(4, 4, 5, seed=4)) + 0.5)


def test_scatter_product_with_zeros_has_the_gradient_of_torch():
    base, source, index = (
        np.array([0.0, 2.0, 3.0, 4.0]),
        np.array([2.0, 0.0, 3.0, 5.0, 0.0]),
        np.array([0, 1, 2, 2, 0]),
    )
    call = lambda x, i, s: x.scatter_reduce(0, i, s, "prod")  # noqa: E731
    check(call, call, base, index, source)
    check(call, call, base + 1, index, source + 1, second_order=True)


@pytest.mark.parametrize("reduce", ["add", "multiply"])
def test_scatter_with_reduce_equals_torch(reduce):
    call = lambda x, i, s: x.scatter(1, i, s, reduce=reduce)  # noqa: E731
    check(call, call, A, I1, S1, grad=False)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (0, 2), (2, 0, 3)])
def test_nonzero_equals_torch(shape):
    values = np.random.default_rng(4).integers(0, 2, shape)
    values = np.asarray(values)
    for call in (lambda x: x.nonzero(), lambda x: x.nonzero(as_tuple=True), lambda x: x.argwhere()):
        check(call, call, values)
    check(lambda x: tg.where(x != 0), lambda x: torch.where(x != 0), values)


def test_in_place_forms_write_to_the_tensor():
    index, source = Tensor([0, 2]), Tensor([1.0, 2.0])
    x = Tensor([0.0, 0.0, 0.0])
    x.index_add_(0, index, source)
    x.scatter_(0, Tensor([1]), 5.0)
    x.masked_fill_(x > 4, -1.0)
    x.index_put_((Tensor([0, 0]),), Tensor([1.0, 1.0]), accumulate=True)
    x.put_(Tensor([2]), Tensor([9.0]))
    assert x.tolist() == [3.0, -1.0, 9.0]
