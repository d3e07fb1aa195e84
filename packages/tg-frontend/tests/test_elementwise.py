"""Elementwise arithmetic, comparison, logic, rounding and selection against PyTorch."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch_reference import assert_equal, check, sample

import tg_frontend as tg
from tg_frontend import Tensor
from tg_ir.errors import DTypeError, ShapeError, TgError

SHAPES = [((3, 4), (3, 4)), ((), ()), ((0, 3), (3,)), ((5, 1), (1, 7)), ((2, 1, 3), ()), ((1,), (2, 3))]
SPECIAL = np.array([-np.inf, -3.5, -2.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.0, np.inf, np.nan])
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")

BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "hypot",
    "copysign",
    "remainder",
    "fmod",
]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge", "greater", "less_equal", "not_equal", "isclose"]
UNARY = [
    "abs",
    "neg",
    "positive",
    "square",
    "reciprocal",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "round",
    "frac",
]
PREDICATES = ["isnan", "isinf", "isfinite", "isposinf", "isneginf", "signbit", "logical_not"]


def both(name: str, *args: object, **kwargs: object) -> tuple:
    """The method in our library and in PyTorch."""
    return (lambda x, *rest: getattr(x, name)(*rest, *args, **kwargs),) * 2


def pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of small integers of a dtype."""
    values = np.array(
        [0, 1, 2, 3, 7, 100] if dtype == "uint8" else [-100, -7, -2, -1, 0, 1, 2, 3, 7, 100], dtype
    )
    return np.repeat(values, len(values)), np.tile(values, len(values))


def assert_same(got: Tensor, want: torch.Tensor) -> None:
    assert f"torch.{got.dtype}" == str(want.dtype)
    np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_binary_of_broadcast_shapes_is_pytorchs(name, shapes):
    a, b = sample(*shapes[0], seed=1), sample(*shapes[1], seed=2)
    check(*both(name), a, b, second_order=name in ("mul", "div", "hypot"))


@pytest.mark.parametrize("name", BINARY)
def test_binary_of_each_float_dtype_is_pytorchs(name):
    a, b = sample(4, 5, seed=3), sample(5, seed=4)
    if name in ("remainder", "fmod"):  # quotients near whole numbers jump when they are rounded
        a, b = np.array([[5.25, -5.25, 7.0]]), np.array([[2.0], [-2.0], [3.5]])
    check(*both(name), a, b, dtypes=FLOATS)


@pytest.mark.parametrize("name", [*BINARY[:8], *BINARY[9:]])
def test_binary_of_special_values_is_pytorchs(name):
    a, b = np.repeat(SPECIAL, len(SPECIAL)), np.tile(SPECIAL, len(SPECIAL))
    check(*both(name), a, b, dtypes=("float32", "float64"), grad=False)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
@pytest.mark.parametrize("name", ["add", "mul", "div", "maximum", "fmin", "eq", "lt", "ge", "copysign"])
def test_binary_of_integers_is_pytorchs(name, dtype):
    a, b = pairs("int8") if dtype == "bool" else pairs(dtype)
    a, b = a.astype(dtype), b.astype(dtype)
    assert_same(getattr(Tensor(a), name)(Tensor(b)), getattr(torch.tensor(a), name)(torch.tensor(b)))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["sub", "floor_divide", "remainder", "fmod", "pow", "trunc_divide"])
def test_division_and_power_of_integers_is_pytorchs(name, dtype):
    a, b = pairs(dtype)
    keep = b != 0
    a, b = a[keep], (np.abs(b) % 5 if name == "pow" else b)[keep].astype(dtype)
    if name == "trunc_divide":
        divide = lambda x, y: x.div(y, rounding_mode="trunc")  # noqa: E731
        assert_same(divide(Tensor(a), Tensor(b)), divide(torch.tensor(a), torch.tensor(b)))
    else:
        assert_same(getattr(Tensor(a), name)(Tensor(b)), getattr(torch.tensor(a), name)(torch.tensor(b)))


@pytest.mark.parametrize("mode", [None, "floor", "trunc"])
def test_div_with_rounding_mode_is_pytorchs(mode):
    a, b = np.array([7.5, -7.5, 1e30, 0.0, 1.0]), np.array([[2.0], [-2.0], [0.3]])
    check(*both("div", rounding_mode=mode), a, b)
    check(*both("div", rounding_mode=mode), np.arange(-5, 5), np.array(3))


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
@pytest.mark.parametrize(
    "name", ["bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "logical_xor"]
)
def test_bits_and_logic_are_pytorchs(name, dtype):
    a, b = (array.astype(dtype) for array in (pairs("int8") if dtype == "bool" else pairs(dtype)))
    assert_same(getattr(Tensor(a), name)(Tensor(b)), getattr(torch.tensor(a), name)(torch.tensor(b)))
    assert_same(~Tensor(a), ~torch.tensor(a))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_within_the_width_are_pytorchs(dtype):
    a, _ = pairs(dtype)
    for bits in range(8):
        assert_same(Tensor(a) << bits, torch.tensor(a) << bits)
        assert_same(Tensor(a) >> bits, torch.tensor(a) >> bits)


@pytest.mark.parametrize("name", UNARY)
def test_unary_of_floats_is_pytorchs(name):
    x = np.concatenate([sample(20, seed=5, low=-9, high=9), [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]])
    check(*both(name), x, dtypes=FLOATS)
    check(*both(name), sample(9, low=0.5), second_order=name in ("square", "reciprocal"))
    check(*both(name), np.zeros((0, 2)))
    check(*both(name), np.array(1.25))


@pytest.mark.parametrize("name", ["sqrt", "rsqrt"])
def test_root_of_floats_is_pytorchs(name):
    check(*both(name), sample(3, 5, low=0.1, high=9), dtypes=FLOATS, second_order=True)
    check(*both(name), np.array([0.0, -1.0, np.inf, 1e30]), grad=False)


@pytest.mark.parametrize("name", [*UNARY, *PREDICATES, "nan_to_num"])
def test_unary_of_special_values_is_pytorchs(name):
    ours, theirs = Tensor(SPECIAL, "float32"), torch.tensor(SPECIAL, dtype=torch.float32)
    got, want = getattr(ours, name)(), getattr(theirs, name)()
    assert f"torch.{got.dtype}" == str(want.dtype)
    assert_equal(got.numpy(), want.numpy(), 1e-7, name)


@pytest.mark.parametrize(
    "name", ["abs", "neg", "square", "sign", "floor", "ceil", "trunc", "round", *PREDICATES]
)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_unary_of_integers_is_pytorchs(name, dtype):
    x = pairs(dtype)[0]
    assert_same(getattr(Tensor(x), name)(), getattr(torch.tensor(x), name)())


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison_of_special_values_is_pytorchs(name):
    a, b = np.repeat(SPECIAL, len(SPECIAL)), np.tile(SPECIAL, len(SPECIAL))
    check(*both(name), a, b, grad=False)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, -1, -2, 0.5, -0.5, 2.5, -1.5])
def test_pow_of_a_number_is_pytorchs(exponent):
    power = lambda x: x**exponent  # noqa: E731
    check(power, power, sample(3, 4, low=0.3, high=2), dtypes=FLOATS)
    check(power, power, sample(3, 4, low=0.3, high=2), second_order=exponent not in (0, 1))
    x = np.array([-2.0, -1.0, 0.0, 1.0, np.inf, np.nan])
    check(power, power, x, grad=isinstance(exponent, int) and exponent >= 0)


@pytest.mark.parametrize("base", [2, 3, 0.5, 1])
def test_pow_with_a_number_as_base_is_pytorchs(base):
    check(lambda x: base**x, lambda x: base**x, sample(3, 4), second_order=True)
    assert_same(base ** Tensor([0, 1, 5]), base ** torch.tensor([0, 1, 5]))


def test_pow_of_tensors_is_pytorchs_in_values_and_gradients_where_the_base_is_zero():
    check(operator.pow, operator.pow, sample(3, 1, low=0.2, high=2), sample(4), second_order=True)
    check(
        operator.pow,
        operator.pow,
        np.array([0.0, 0.0, 0.0, -2.0]),
        np.array([0.0, 1.0, 2.0, 3.0]),
        grad=False,
    )
    x, y = Tensor([0.0, 0.0, 2.0], requires_grad=True), Tensor([0.0, 2.0, 0.0], requires_grad=True)
    (x**y).backward(Tensor([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(x.grad.numpy(), [0, 0, 0])
    np.testing.assert_allclose(y.grad.numpy(), [0, 0, np.log(2)], rtol=1e-6)


OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("number", [2, -3, 1.5, True])
def test_operator_with_a_number_on_either_side_is_pytorchs(function, number):
    for array in (
        np.array([[5.5, -4.25, 1.0]]),
        np.array([7, -8, 2], np.int32),
        np.array([7, -8, 2], np.int8),
    ):
        if number is True and function is operator.sub:
            continue
        grad = function not in (operator.floordiv, operator.mod)  # PyTorch has no derivative of these
        check(lambda x: function(x, number), lambda x: function(x, number), array, grad=grad)
        check(lambda x: function(number, x), lambda x: function(number, x), array, grad=grad)


@pytest.mark.parametrize(
    "function", [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
)
def test_bit_operator_with_a_number_on_either_side_is_pytorchs(function):
    x = np.array([1, 2, 5], np.int32)
    assert_same(function(Tensor(x), 3), function(torch.tensor(x), 3))
    assert_same(function(3, Tensor(x)), function(3, torch.tensor(x)))


def test_divmod_and_unary_operators_are_pythons():
    quotient, rest = divmod(Tensor([7.5, -7.5]), 2)
    assert (quotient.tolist(), rest.tolist()) == ([3.0, -4.0], [1.5, 0.5])
    assert (-Tensor([1, -2])).tolist() == [-1, 2]
    assert (+Tensor([1, -2])).tolist() == [1, -2]
    assert abs(Tensor([1, -2])).tolist() == [1, 2]
    assert (~Tensor([True, False])).tolist() == [False, True]


def test_operator_with_a_numpy_array_on_the_left_gives_a_tensor():
    result = np.array([1.0, 2.0], np.float32) + Tensor([3.0, 4.0])
    assert isinstance(result, Tensor) and result.tolist() == [4.0, 6.0]
    assert isinstance(np.float64(2) * Tensor([3.0]), Tensor)


MIXED = ["bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("first", MIXED)
def test_promotion_of_operands_is_pytorchs(first):
    for second in MIXED:
        for shape in ((2,), ()):
            theirs = torch.ones(2, dtype=getattr(torch, first)) * torch.ones(
                shape, dtype=getattr(torch, second)
            )
            ours = Tensor(np.ones(2), first) * Tensor(np.ones(shape), second)
            assert f"torch.{ours.dtype}" == str(theirs.dtype)


FLOAT8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]


@pytest.mark.parametrize("dtype", FLOAT8)
def test_arithmetic_of_float8_rounds_the_float32_result_once(dtype):
    a, b = sample(64, seed=6), sample(64, seed=7)
    x, y = [torch.tensor(array).to(getattr(torch, dtype)) for array in (a, b)]
    for function in (operator.add, operator.mul, operator.truediv, torch.maximum):
        name = {"truediv": "div"}.get(function.__name__, function.__name__)
        got = getattr(Tensor(a, dtype), name)(Tensor(b, dtype))
        assert got.dtype.name == dtype
        want = function(x.float(), y.float()).to(getattr(torch, dtype)).float()
        np.testing.assert_array_equal(got.numpy(), want.numpy())


CLAMPS = [(-0.5, 0.5), (None, 0.25), (0.25, None), (1, 2), (0.5, -0.5)]


@pytest.mark.parametrize("limits", CLAMPS, ids=str)
def test_clamp_to_numbers_and_tensors_is_pytorchs(limits):
    x = np.concatenate([sample(3, 5).ravel(), [-0.5, 0.25, 0.5, np.inf, -np.inf]])
    check(*both("clamp", *limits), x, dtypes=FLOATS)
    check(*both("clip", *limits), np.arange(-3, 4))
    low, high = sample(20, seed=8), sample(20, seed=9)
    check(*both("clamp"), x[:20], low, high)
    check(lambda x, high: x.clamp(max=high), lambda x, high: x.clamp(max=high), x[:20], high)
    check(*both("clamp"), np.array([np.nan, 1.0]), np.array([0.0, 2.0]), grad=False)


def test_clamp_without_limits_is_refused():
    with pytest.raises(TgError, match="clamp: got neither min nor max"):
        Tensor([1.0]).clamp()


@pytest.mark.parametrize("decimals", [0, 1, 3, -1])
def test_round_to_decimals_is_pytorchs(decimals):
    check(
        *both("round", decimals=decimals),
        np.array([2.5, -3.14159, 1234.5678, 0.07]),
        dtypes=("float32", "float64"),
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_lerp_is_pytorchs_and_exact_at_the_ends(weight):
    a, b = sample(3, 4, seed=1), sample(4, seed=2)
    check(*both("lerp", weight), a, b, dtypes=("float32", "float64"))
    check(*both("lerp"), a, b, sample(3, 4, seed=3, low=0, high=1))
    assert Tensor([1e8]).lerp(Tensor([1.0]), 1.0).tolist() == [1.0]


def test_addcmul_and_addcdiv_are_pytorchs():
    a, b, c = sample(3, 4, seed=1), sample(4, seed=2), sample(3, 1, seed=3, low=1)
    for name in ("addcmul", "addcdiv"):
        check(*both(name, value=0.5), a, b, c)
        check(*both(name), a, b, c)
    check(*both("add", alpha=2), a, b)
    check(*both("sub", alpha=0.5), a, b)


def test_where_as_function_and_method_is_pytorchs():
    condition, a, b = sample(3, 4) > 0, sample(3, 1, seed=1), sample(4, seed=2)
    check(tg.where, torch.where, condition, a, b, dtypes=FLOATS)
    check(lambda c, x, y: x.where(c, y), lambda c, x, y: x.where(c, y), condition, sample(3, 4), b)
    for first, second in ((1, 2), (1, 0.5), (True, False), (1.5, 2)):
        got, want = (
            tg.where(Tensor(condition), first, second),
            torch.where(torch.tensor(condition), first, second),
        )
        assert_same(got, want)
    check(lambda c, x: tg.where(c, x, 0), lambda c, x: torch.where(c, x, 0), condition, np.arange(4))


def test_gradient_of_where_does_not_see_the_nan_of_the_branch_not_taken():
    x = Tensor([0.0, 4.0], requires_grad=True)
    (got,) = tg.grad(tg.where(x > 0, tg.where(x > 0, x, 1.0).sqrt(), 0.0), [x], [Tensor([1.0, 1.0])])
    assert got.tolist() == [0.0, 0.25]


@pytest.mark.parametrize("diagonal", [-5, -1, 0, 1, 5])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (0, 3), (1, 1)], ids=str)
def test_triangle_is_pytorchs(shape, diagonal):
    check(*both("tril", diagonal), sample(*shape))
    check(*both("triu", diagonal), sample(*shape))


def test_triangle_of_a_vector_is_refused():
    with pytest.raises(ShapeError, match="tril: got 1 dimensions, want at least 2"):
        Tensor([1.0]).tril()


def test_isclose_allclose_and_equal_are_pytorchs():
    a = np.array([1.0, 1.0 + 1e-6, np.inf, np.nan, 0.0, 100.0])
    b = np.array([1.0, 1.0, np.inf, np.nan, 1e-9, 101.0])
    for options in ({}, {"equal_nan": True}, {"rtol": 0.1}, {"atol": 2.0}):
        check(*both("isclose", **options), a, b, grad=False)
    assert Tensor([1.0, 2.0]).allclose(Tensor([1.0, 2.0 + 1e-6])) is True
    assert Tensor([1.0, 2.0]).allclose(Tensor([1.0, 2.1])) is False
    assert Tensor([[1, 2]]).equal(Tensor([[1, 2]])) is True
    assert Tensor([[1, 2]]).equal(Tensor([1, 2])) is False
    assert Tensor(np.zeros((0, 2))).equal(Tensor(np.zeros((0, 2)))) is True


def test_nan_to_num_with_given_numbers_is_pytorchs():
    check(*both("nan_to_num", 1.0, 2.0, -2.0), SPECIAL)


ERRORS = [
    (
        lambda: Tensor([1.0, 2.0]) + Tensor([1.0, 2.0, 3.0]),
        ShapeError,
        r"add: shapes \(2,\) and \(3,\) do not broadcast",
    ),
    (lambda: Tensor([True]) - Tensor([True]), DTypeError, "sub: got two bool tensors"),
    (lambda: Tensor([1.0]) & Tensor([1.0]), DTypeError, "and: got float32"),
    (lambda: Tensor([2]) ** -1, DTypeError, "to the power -1; cast it to a float first"),
    (lambda: tg.where(Tensor([1]), 1, 2), DTypeError, "where: the condition is int64, want bool"),
    (lambda: Tensor([1.0]).div(2, rounding_mode="up"), TgError, "div: got rounding_mode 'up'"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_operand_that_does_not_fit_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
