"""Random numbers: JAX's bits, reproducible streams, and the distributions they claim (fixed seeds)."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tg_frontend as tg
from tg_frontend import Tensor
from tg_frontend.random import threefry
from tg_frontend.storage import mode
from tg_ir import graph
from tg_ir.dtypes import uint32
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.symbolic import Variable

# Source: JAX 0.10.2 with jax_threefry_partitionable,
# jax.random.bits(jax.random.fold_in(jax.random.key(seed), draw), (3, 5))
JAX_BITS = {
    (0, 0): [3617712097, 783310428, 975722988, 518513098],
    (0, 1): [31327077, 89727312, 2497208264, 1554082365],
    (42, 0): [2277453133, 1345880512, 3872043189, 2999317162],
    (42, 2): [2865777128, 3098761794, 544579079, 1521607940],
    (2**40 + 5, 1): [208896244, 4168351875, 295010962, 2028395587],
}
# jax.random.uniform(jax.random.fold_in(jax.random.key(42), draw), (7,))
JAX_UNIFORM = {
    0: [0.5302608013153076, 0.31336212158203125, 0.9015302658081055],
    1: [0.7276642322540283, 0.787867546081543],
}

KOLMOGOROV = 1.95
"""The statistic times the root of the count exceeds this for one seed in a thousand."""


@pytest.fixture(autouse=True)
def seed():
    tg.manual_seed(1234)


def assert_distributed(values: np.ndarray, distribution, tie: bool = False) -> None:
    """Kolmogorov and Smirnov's test against a cumulative distribution function."""
    values = np.sort(values.ravel().astype(np.float64))
    expected = np.array([distribution(value) for value in values])
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(np.abs(steps[1:] - expected).max(), np.abs(steps[:-1] - expected).max())
    assert distance * math.sqrt(len(values)) < KOLMOGOROV


def gauss(value: float) -> float:
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


# Source: the known answers of Random123 1.14 for Threefry 2x32 with 20 rounds
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "block"), KNOWN)
def test_threefry_gives_the_known_answers(key, counter, block):
    assert threefry(key, counter) == block


@pytest.mark.parametrize(("seed", "draw"), JAX_BITS)
def test_bits_of_a_draw_are_jaxs(seed, draw):
    generator = tg.Generator(seed).set_state((seed, draw))
    bits = Tensor.from_node(graph.random_bits(generator.key_node(tg.Device.default), (3, 5)))
    assert bits.dtype is uint32
    assert bits.numpy().ravel()[:4].tolist() == JAX_BITS[seed, draw]


def test_uniform_numbers_of_a_draw_are_jaxs():
    generator = tg.Generator(42)
    for expected in JAX_UNIFORM.values():
        assert tg.rand(7, generator=generator).tolist()[: len(expected)] == expected


def test_same_seed_gives_the_same_numbers_and_each_draw_others():
    first = [tg.rand(4).tolist(), tg.randn(4).tolist(), tg.randint(0, 100, (4,)).tolist()]
    tg.manual_seed(1234)
    assert first == [tg.rand(4).tolist(), tg.randn(4).tolist(), tg.randint(0, 100, (4,)).tolist()]
    assert tg.rand(4).tolist() != tg.rand(4).tolist()
    tg.manual_seed(1235)
    assert tg.rand(4).tolist() != first[0]


def test_order_of_evaluation_does_not_change_the_numbers():
    a, b = tg.rand(4), tg.rand(4)
    late = (b.tolist(), a.tolist())
    tg.manual_seed(1234)
    assert (tg.rand(4).tolist(), tg.rand(4).tolist()) == late[::-1]


def test_same_numbers_on_another_device():
    here = tg.rand(5).tolist()
    tg.manual_seed(1234)
    assert tg.rand(5, device=f"{tg.Device.default}:1").tolist() == here


def test_state_that_is_set_back_repeats_the_draws():
    tg.rand(3)
    state = tg.get_rng_state()
    after = tg.randn(5).tolist()
    tg.set_rng_state(state)
    assert tg.randn(5).tolist() == after
    assert state == (1234, 1)


def test_generator_of_its_own_leaves_the_default_alone():
    own = tg.Generator(7)
    assert own.initial_seed() == 7
    tg.rand(3, generator=own)
    assert tg.get_rng_state() == (1234, 0) and own.get_state() == (7, 1)
    assert own.seed() == own.initial_seed()


def test_recorded_keys_are_the_buffers_that_the_graph_reads():
    class Keys:
        def __init__(self):
            self.keys = []

        def drew(self, generator, key):
            assert generator is tg.default_generator
            self.keys.append(key)

        def read(self, tensor): ...

        def made(self, storage): ...

    mode.observer, keys = (observer := Keys()), observer.keys
    try:
        result = tg.rand(3) + tg.rand(3)
    finally:
        mode.observer = None
    tg.rand(3)
    found = {node for node in graph.toposort([result.node]) if node.op.name == "buffer"}
    assert len(keys) == 2 and found == set(keys)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rand_is_uniform_below_one(dtype):
    x = tg.rand(100, 100, dtype=dtype)
    assert x.dtype.name == dtype
    values = x.numpy().astype(np.float64)
    assert values.min() >= 0 and values.max() < 1
    if dtype.startswith("float") and dtype != "float16":  # 16-bit numbers have steps that the test would see
        assert_distributed(values, lambda v: v)
    assert abs(values.mean() - 0.5) < 0.015 and abs(values.var() - 1 / 12) < 0.005


def test_uniform_between_limits_is_uniform():
    values = tg.uniform(10000, low=-3.0, high=5.0).numpy()
    assert_distributed(values, lambda v: (v + 3) / 8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_randn_is_normal(dtype):
    values = tg.randn(30000, dtype=dtype).numpy().astype(np.float64)
    assert_distributed(values, gauss)
    assert abs(values.mean()) < 0.02 and abs(values.var() - 1) < 0.03
    assert abs((values**4).mean() - 3) < 0.2
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02


def test_normal_takes_numbers_and_tensors():
    assert_distributed(tg.normal(2.0, 3.0, (10000,)).numpy(), lambda v: gauss((v - 2) / 3))
    means = tg.arange(4).to("float32").to("float32")
    made = tg.normal(means, 0.001)
    assert made.shape == (4,) and np.allclose(made.numpy(), [0, 1, 2, 3], atol=0.01)
    assert tg.normal(means, Tensor([[1.0], [2.0]])).shape == (2, 4)


@pytest.mark.parametrize(("low", "high"), [(0, 10), (-5, 3), (0, 1), (0, 2**40), (-(2**62), 2**62)])
def test_randint_is_uniform_within_its_limits(low, high):
    values = tg.randint(low, high, (5000,)).numpy()
    assert values.dtype == np.int64 and values.min() >= low and values.max() < high
    if high - low <= 10:
        counts = np.bincount(values - low, minlength=high - low)
        expected = 5000 / (high - low)
        assert ((counts - expected) ** 2 / expected).sum() < 28  # chi-squared of 9 at one in a thousand
    else:
        assert_distributed(values, lambda v: (v - low) / (high - low))


def test_randint_takes_its_arguments_as_pytorch():
    assert tg.randint(3, (2, 2)).shape == (2, 2)
    assert tg.randint(5, 6, (2,)).tolist() == [5, 5]
    assert tg.randint(0, 2, (3,), dtype="float32").dtype.name == "float32"
    assert tg.randint_like(tg.zeros(2, 3), 4).shape == (2, 3)


def test_randperm_is_a_permutation_of_evenly_spread_first_items():
    assert sorted(tg.randperm(1000).tolist()) == list(range(1000))
    firsts = np.array([tg.randperm(4).tolist()[0] for _ in range(200)])
    assert (np.bincount(firsts, minlength=4) > 25).all()
    assert tg.randperm(0).tolist() == []


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_bernoulli_has_its_probability(p):
    for values in (
        tg.full((20000,), p).bernoulli(),
        tg.zeros(20000).bernoulli(p),
        tg.bernoulli(tg.full((20000,), p)),
    ):
        array = values.numpy()
        assert set(np.unique(array)) <= {0.0, 1.0}
        assert abs(array.mean() - p) <= 4 * math.sqrt(p * (1 - p) / 20000)


def test_keep_mask_is_bools_of_the_probability():
    mask = tg.keep_mask((10000,), 0.9)
    assert mask.dtype.name == "bool" and abs(mask.numpy().mean() - 0.9) < 0.012
    assert tg.keep_mask((5,), 1.0).tolist() == [True] * 5 and tg.keep_mask((5,), 0.0).tolist() == [False] * 5


def test_multinomial_with_replacement_follows_the_weights():
    weights = np.array([[1.0, 0.0, 3.0, 6.0], [0.0, 0.0, 0.0, 2.0]])
    drawn = Tensor(weights, "float32").multinomial(5000, replacement=True).numpy()
    assert drawn.shape == (2, 5000) and drawn.dtype == np.int64
    counts = np.bincount(drawn[0], minlength=4) / 5000
    np.testing.assert_allclose(counts, [0.1, 0, 0.3, 0.6], atol=0.03)
    assert counts[1] == 0 and (drawn[1] == 3).all()


def test_multinomial_without_replacement_draws_each_once_and_by_weight():
    weights = Tensor([1.0, 0.0, 3.0, 6.0])
    assert sorted(weights.multinomial(3).tolist()) == [0, 2, 3]
    firsts = tg.ones(4000, 1).mul(weights).multinomial(1).numpy().ravel()
    np.testing.assert_allclose(np.bincount(firsts, minlength=4) / 4000, [0.1, 0, 0.3, 0.6], atol=0.03)


FILLS = [
    ("uniform_", (-1.0, 3.0), lambda v: (v + 1) / 4),
    ("normal_", (1.0, 2.0), lambda v: gauss((v - 1) / 2)),
    ("log_normal_", (0.5, 0.25), lambda v: gauss((math.log(v) - 0.5) / 0.25)),
    ("exponential_", (2.0,), lambda v: 1 - math.exp(-2 * v)),
    ("cauchy_", (1.0, 2.0), lambda v: 0.5 + math.atan((v - 1) / 2) / math.pi),
]


@pytest.mark.parametrize(("name", "arguments", "distribution"), FILLS, ids=lambda item: str(item)[:12])
def test_fill_in_place_is_distributed_as_it_says(name, arguments, distribution):
    x = tg.zeros(10000)
    view = x.view_by(lambda node: graph.shrink(node, [(0, 5000)]))
    assert getattr(x, name)(*arguments) is x
    assert_distributed(x.numpy(), distribution)
    assert view.tolist() == x.tolist()[:5000]


def test_geometric_random_and_bernoulli_fills_are_within_their_distributions():
    trials = tg.zeros(20000).geometric_(0.25).numpy()
    assert trials.min() == 1 and abs(trials.mean() - 4) < 0.15 and abs((trials == 1).mean() - 0.25) < 0.02
    integers = tg.zeros(5000, dtype="int32").random_(3, 6).numpy()
    assert set(np.unique(integers)) == {3, 4, 5}
    assert tg.zeros(100, dtype="uint8").random_().numpy().max() > 100
    assert abs(tg.zeros(10000).bernoulli_(0.3).numpy().mean() - 0.3) < 0.02
    assert tg.zeros(4).bernoulli_(Tensor([0.0, 1.0, 0.0, 1.0])).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_likes_keep_shape_and_dtype():
    like = tg.zeros(2, 3, dtype="float64")
    for made in (tg.rand_like(like), tg.randn_like(like)):
        assert made.shape == (2, 3) and made.dtype.name == "float64"
    assert tg.rand(2, requires_grad=True).is_leaf


def test_symbolic_sizes_stay_symbolic():
    n = Variable("n", 1, 10)
    assert (
        tg.rand(n, 2).shape == (n, 2) and tg.randn(n).shape == (n,) and tg.randint(0, 5, (n,)).shape == (n,)
    )


ERRORS = [
    (lambda: tg.rand(2, dtype="int64"), DTypeError, "rand: got int64, want a float dtype"),
    (lambda: tg.randint(5, 5, (2,)), TgError, "randint: got low 5 and high 5, want low < high"),
    (lambda: tg.randint(5), ShapeError, "randint: got no size"),
    (lambda: tg.normal(0.0, 1.0), ShapeError, "normal: got numbers and no size"),
    (lambda: tg.ones(3).multinomial(4), ShapeError, "multinomial: got 4 samples of 3 without replacement"),
    (lambda: tg.ones(1, 2, 3).multinomial(1), ShapeError, "multinomial: got shape"),
    (lambda: tg.zeros(2).bernoulli(1.5), TgError, "got probability 1.5, want 0 to 1"),
    (lambda: tg.zeros(2, requires_grad=True).normal_(), TgError, "this leaf requires a gradient"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_draw_with_a_wrong_argument_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
