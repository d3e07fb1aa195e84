"""Random numbers: counter-based, so that they are the same on every device and follow from the seed alone.

A generator is a seed and a count of draws. Each draw has a key of its own, the Threefry 2x32 block of the count under
the seed, and its bits are blocks of the element's index under that key. These are JAX's bits (with
`jax_threefry_partitionable`, its default): draw n of seed s is `jax.random.bits(jax.random.fold_in(jax.random.key(s),
n), shape)`, and `rand` of float32 is `jax.random.uniform` of that key.

The key of a draw enters the graph as a filled buffer uint32[2], an input like any other. To replay a captured graph
with new numbers, collect those buffers with an `Observer` (storage.py) while capturing, and give each of them a new
`next_key()`, in the same order, before a replay: that is exactly what running the step again would have drawn.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Sequence

from tg_frontend.core import Tensor, broadcast_shapes, resolve_shape
from tg_frontend.elementwise import where
from tg_frontend.engine import Device, current_engine
from tg_frontend.storage import mode
from tg_ir import graph
from tg_ir.dtypes import DType, dtype_of, float32, float64, int64, uint32, uint64
from tg_ir.errors import DTypeError, ShapeError, TgError
from tg_ir.graph import Node, Shape
from tg_ir.symbolic import SymInt

__all__ = [
    "Generator", "bernoulli", "bernoulli_", "cauchy_", "default_generator", "exponential_", "geometric_",
    "get_rng_state", "keep_mask", "log_normal_", "manual_seed", "multinomial", "normal", "normal_", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "random_", "randperm", "set_rng_state",
    "uniform", "uniform_",
]  # fmt: skip

METHODS = (
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal_",
    "random_", "uniform_",
)  # fmt: skip
"""Those that take a tensor first, and are methods."""

AnyDType = DType | str | None
Key = tuple[int, int]

_MASK = 2**32 - 1
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(key: Key, counter: Key) -> Key:
    """One block of Threefry 2x32 with 20 rounds."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + keys[0]) & _MASK, (counter[1] + keys[1]) & _MASK
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = (x + y) & _MASK
            y = ((y << rotation | y >> (32 - rotation)) & _MASK) ^ x
        x, y = (x + keys[(group + 1) % 3]) & _MASK, (y + keys[(group + 2) % 3] + group + 1) & _MASK
    return x, y


class Generator:
    """A stream of random keys: a seed of 64 bits, and how many draws were made from it."""

    def __init__(self, seed: int = 0):
        self._lock = threading.Lock()
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`."""
        with self._lock:
            self._seed, self._draws = seed % 2**64, 0
        return self

    def seed(self) -> int:
        """Start again from a seed of the operating system's, which is returned."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed of the last start."""
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """The seed and the number of draws: all there is to save."""
        with self._lock:
            return self._seed, self._draws

    def set_state(self, state: Sequence[int]) -> Generator:
        """Go on from what `get_state` gave."""
        seed, draws = state
        with self._lock:
            self._seed, self._draws = int(seed), int(draws)
        return self

    def next_key(self) -> Key:
        """The key of the next draw."""
        with self._lock:
            seed, draw = self._seed, self._draws
            self._draws += 1
        return threefry((seed >> 32, seed & _MASK), (draw >> 32, draw & _MASK))

    def key_node(self, device: str) -> Node:
        """The key of the next draw as a buffer of the graph."""
        node = graph.buffer((2,), uint32, device)
        data = struct.pack("=2I", *self.next_key())
        node.fill(current_engine().upload(memoryview(data), (2,), uint32, device))
        if mode.observer is not None:
            mode.observer.drew(self, node)
        return node

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, draws={self._draws})"


default_generator = Generator()
"""What every draw takes its key from that is not given a generator."""


def manual_seed(seed: int) -> Generator:
    """Start the default generator again from `seed`."""
    return default_generator.manual_seed(seed)


def get_rng_state() -> tuple[int, int]:
    """The state of the default generator, for a checkpoint."""
    return default_generator.get_state()


def set_rng_state(state: Sequence[int]) -> None:
    """Put the default generator back into a state."""
    default_generator.set_state(state)


# ---- from bits to numbers ----------------------------------------------------------------------------------


def _bits(shape: Shape, device: str, generator: Generator | None) -> Tensor:
    return Tensor.from_node(graph.random_bits((generator or default_generator).key_node(device), shape))


def _words(shape: Shape, device: str, generator: Generator | None) -> list[Tensor]:
    """Two independent words an element."""
    both = _bits((2, *shape), device, generator).node
    rest = [(0, size) for size in shape]
    return [Tensor.from_node(graph.reshape(graph.shrink(both, [(i, i + 1), *rest]), shape)) for i in (0, 1)]


def _unit(shape: Shape, dtype: DType, device: str, generator: Generator | None) -> Tensor:
    """Uniform in [0, 1): the multiples of the dtype's eps."""
    if dtype is float64:
        high, low = _words(shape, device, generator)
        return (high.to(float64) * 2.0**20 + (low >> 12).to(float64)) * 2.0**-52
    return (_bits(shape, device, generator) >> (32 - dtype.mantissa_bits)).to(dtype) * dtype.eps


def _positive(bits: Tensor, dtype: DType) -> Tensor:
    """Uniform in (0, 1]: the multiples of 2**-32, whose logarithm is finite."""
    return (bits.to(dtype) + 1) * 2.0**-32


def _gaussian(shape: Shape, dtype: DType, device: str, generator: Generator | None) -> Tensor:
    """Box and Muller's transform of two words an element; the largest magnitude is 6.66."""
    wide = float64 if dtype is float64 else float32
    radius, angle = _words(shape, device, generator)
    turns = (angle >> 8).to(wide) * 2.0**-24
    return ((_positive(radius, wide).log() * -2).sqrt() * (turns * (2 * math.pi)).cos()).to(dtype)


def _integers(low: int, high: int, shape: Shape, device: str, generator: Generator | None) -> Tensor:
    """Uniform int64 in [low, high): 64 random bits modulo the range, which is even to one part in 2**64 / range."""
    if not low < high:
        raise TgError(f"randint: got low {low} and high {high}, want low < high")
    return (_long_words(shape, device, generator) % (high - low)).to(int64) + low


def _long_words(shape: Shape, device: str, generator: Generator | None) -> Tensor:
    upper, lower = _words(shape, device, generator)
    return (upper.to(uint64) << 32) | lower.to(uint64)


def _float(name: str, dtype: AnyDType) -> DType:
    found = dtype_of(dtype or float32)
    if not found.is_float:
        raise DTypeError(f"{name}: got {found}, want a float dtype; cast the result")
    return found


def _leaf(tensor: Tensor, requires_grad: bool) -> Tensor:
    return tensor.requires_grad_() if requires_grad else tensor


# ---- new tensors -------------------------------------------------------------------------------------------


def rand(
    *size: SymInt,
    generator: Generator | None = None,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return uniform(*size, generator=generator, dtype=dtype, device=device, requires_grad=requires_grad)


def uniform(
    *size: SymInt,
    low: float = 0.0,
    high: float = 1.0,
    generator: Generator | None = None,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [low, high)."""
    unit = _unit(resolve_shape("rand", size), _float("rand", dtype), Device.canonical(device), generator)
    return _leaf(unit if (low, high) == (0, 1) else unit * (high - low) + low, requires_grad)


def randn(
    *size: SymInt,
    generator: Generator | None = None,
    dtype: AnyDType = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers of mean 0 and variance 1: Box and Muller's transform, magnitudes up to 6.66."""
    made = _gaussian(
        resolve_shape("randn", size), _float("randn", dtype), Device.canonical(device), generator
    )
    return _leaf(made, requires_grad)


def randint(
    low: int,
    high: int | Sequence[SymInt] | None = None,
    size: Sequence[SymInt] | None = None,
    *,
    generator: Generator | None = None,
    dtype: AnyDType = int64,
    device: str | None = None,
) -> Tensor:
    """Uniform integers in [low, high); `randint(high, size)` starts at 0."""
    if size is None:
        if not isinstance(high, list | tuple):
            raise ShapeError("randint: got no size; pass it as a tuple, as in randint(0, 10, (2, 3))")
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    made = _integers(low, high, resolve_shape("randint", [size]), Device.canonical(device), generator)  # type: ignore[arg-type]
    return made.to(dtype_of(dtype))


def randperm(
    n: int, *, generator: Generator | None = None, dtype: AnyDType = int64, device: str | None = None
) -> Tensor:
    """The numbers 0 to n - 1 in random order: the order of random numbers of 64 bits."""
    words = _long_words(resolve_shape("randperm", (n,)), Device.canonical(device), generator)
    return Tensor.from_node(graph.argsort(words.node, 0)).to(dtype_of(dtype))


def normal(
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
    size: Sequence[SymInt] | None = None,
    *,
    generator: Generator | None = None,
    dtype: AnyDType = None,
    device: str | None = None,
) -> Tensor:
    """Normal numbers; the shape is `size`, or that of `mean` and `std`."""
    tensors = [item for item in (mean, std) if isinstance(item, Tensor)]
    if size is None and not tensors:
        raise ShapeError(
            "normal: got numbers and no size; pass it as a tuple, as in normal(0.0, 1.0, (2, 3))"
        )
    shape = (
        broadcast_shapes("normal", *[item.shape for item in tensors])
        if size is None
        else resolve_shape("normal", [size])
    )
    if tensors:
        dtype, device = dtype or tensors[0].dtype, device or tensors[0].device
    return _gaussian(shape, _float("normal", dtype), Device.canonical(device), generator) * std + mean


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: AnyDType = None) -> Tensor:
    """Uniform numbers in [0, 1) with the shape, dtype and device of `input`."""
    return rand(input.shape, generator=generator, dtype=dtype or input.dtype, device=input.device)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: AnyDType = None) -> Tensor:
    """Normal numbers with the shape, dtype and device of `input`."""
    return randn(input.shape, generator=generator, dtype=dtype or input.dtype, device=input.device)


def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: AnyDType = None,
) -> Tensor:
    """Uniform integers in [low, high) with the shape, dtype and device of `input`."""
    dtype = dtype or input.dtype
    return randint(low, high, input.shape, generator=generator, dtype=dtype, device=input.device)


# ---- draws from given probabilities ------------------------------------------------------------------------


def keep_mask(
    shape: Shape, keep: float, device: str | None = None, generator: Generator | None = None
) -> Tensor:
    """Bools that are true with probability `keep`, to 32 bits: what dropout multiplies by."""
    if not 0 <= keep <= 1:
        raise TgError(f"keep_mask: got probability {keep}, want 0 to 1")
    limit = round(keep * 2**32)
    bits = _bits(shape, Device.canonical(device), generator)
    return bits < limit if limit <= _MASK else bits >= 0


def bernoulli(self: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that stands at each place (or with probability `p`), else 0; in this tensor's dtype."""
    if p is not None:
        return keep_mask(self.shape, p, self.device, generator).to(self.dtype)
    _float("bernoulli", self.dtype)
    unit = _unit(self.shape, float64 if self.dtype is float64 else float32, self.device, generator)
    return (unit < self.to(unit.dtype)).to(self.dtype)


def multinomial(
    self: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with probabilities in proportion to the weights in each row, as int64.

    Shapes: (n,) or (rows, n) gives (num_samples,) or (rows, num_samples). The weights are not checked: they are to be
    finite and not negative, with a positive sum.

    Raises:
        ShapeError: more samples than there are weights, without replacement.
    """
    _float("multinomial", self.dtype)
    if self.ndim not in (1, 2):
        raise ShapeError(f"multinomial: got shape {tuple(self.shape)}, want (n,) or (rows, n)")
    count, axis = self.shape[-1], self.ndim - 1
    weights = self.detach().to(float64 if self.dtype is float64 else float32)
    if not replacement:
        if isinstance(count, int) and num_samples > count:
            raise ShapeError(f"multinomial: got {num_samples} samples of {count} without replacement")
        times = _exponential(
            weights.shape, weights.dtype, self.device, generator
        )  # the first to arrive is drawn
        arrival = where(weights > 0, times / where(weights > 0, weights, 1.0), math.inf)
        order = graph.argsort(arrival.node, axis)
        limits = [(0, size) for size in self.shape[:-1]] + [(0, num_samples)]
        return Tensor.from_node(graph.shrink(order, limits))
    total = graph.scan(weights.node, "sum", axis)
    lead = self.shape[:-1]
    last = Tensor.from_node(graph.shrink(total, [(0, size) for size in lead] + [(count - 1, count)]))
    unit = _unit((*lead, num_samples), weights.dtype, self.device, generator)
    below = (unit * last).minimum(last * (1 - weights.dtype.eps))  # the product may round up to the total
    column = Tensor.from_node(graph.reshape(below.node, (*lead, num_samples, 1)))
    row = Tensor.from_node(graph.reshape(total, (*lead, 1, count)))
    return Tensor.from_node(graph.reduce((row <= column).to(int64).node, "sum", [axis + 1]))


# ---- in place ----------------------------------------------------------------------------------------------


def _exponential(shape: Shape, dtype: DType, device: str, generator: Generator | None) -> Tensor:
    return -_positive(_bits(shape, device, generator), dtype).log()


def _wide(self: Tensor) -> DType:
    return float64 if self.dtype is float64 else float32


def uniform_(
    self: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite this tensor with uniform numbers in [low, high)."""
    dtype = _float("uniform_", self.dtype)
    return self.assign(_unit(self.shape, dtype, self.device, generator) * (high - low) + low)


def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite this tensor with normal numbers."""
    return self.assign(
        _gaussian(self.shape, _float("normal_", self.dtype), self.device, generator) * std + mean
    )


def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite this tensor with numbers whose logarithms are normal."""
    return self.assign((_gaussian(self.shape, _wide(self), self.device, generator) * std + mean).exp())


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite this tensor with exponential numbers of rate `lambd`."""
    return self.assign(_exponential(self.shape, _wide(self), self.device, generator) / lambd)


def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite this tensor with Cauchy numbers."""
    unit = _unit(self.shape, _wide(self), self.device, generator)
    return self.assign(((unit - 0.5) * math.pi).tan() * sigma + median)


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrite this tensor with how many trials of probability `p` it takes to succeed."""
    if not 0 < p < 1:
        raise TgError(f"geometric_: got probability {p}, want it between 0 and 1")
    times = _exponential(self.shape, _wide(self), self.device, generator)
    return self.assign((times / -math.log1p(-p)).ceil().maximum(1))


def bernoulli_(self: Tensor, p: float | Tensor = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite this tensor with 1 with probability `p`, else 0."""
    if isinstance(p, Tensor):
        return self.assign(bernoulli(Tensor.from_node(graph.expand(p.node, self.shape)), generator=generator))
    return self.assign(keep_mask(self.shape, p, self.device, generator))


def random_(
    self: Tensor, low: int = 0, high: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite this tensor with integers in [low, high); without limits, all that the dtype holds exactly from 0."""
    dtype = self.dtype
    if high is None:
        exact = 2 ** (dtype.mantissa_bits + 1) + 1 if dtype.is_float else int(dtype.max) + 1
        low, high = (0, low) if low else (0, min(exact, 2**63 - 1))
    return self.assign(_integers(low, high, self.shape, self.device, generator))
