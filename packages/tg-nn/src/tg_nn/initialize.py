"""Initialisers, PyTorch's: each overwrites a tensor, under `no_grad`, and returns it.

Nothing is computed here: the values are graphs of random bits, and vanish uncomputed when weights are loaded over them.
"""

from __future__ import annotations

import math

from tg_frontend import Tensor, TgError, eye, no_grad, qr, randn, where

__all__ = [
    "constant_", "dirac_", "eye_", "gain", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "orthogonal_",
    "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """By how much to widen a distribution before a nonlinearity, to keep variances."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        known = ", ".join([*_GAINS, "leaky_relu"])
        raise TgError(f"gain: got nonlinearity {nonlinearity!r}, want one of {known}")
    return _GAINS[nonlinearity]


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    """How many inputs an output has, and the other way round. Shapes: (out, in, ..)."""
    if tensor.ndim < 2:
        raise TgError(f"{name}: got shape {tuple(tensor.shape)}, want two or more dimensions (out, in, ..)")
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


@no_grad()
def uniform_(tensor: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform numbers in [low, high)."""
    return tensor.uniform_(low, high)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal numbers."""
    return tensor.normal_(mean, std)


@no_grad()
def constant_(tensor: Tensor, value: float) -> Tensor:
    """One value."""
    return tensor.assign(value)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


_CENTRAL = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 2.1858087e-04, -1.25372503e-03, -4.17768164e-03,
    0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -2.00214257e-04, 1.00950558e-04, 1.34934322e-03, -3.67342844e-03, 5.73950773e-03, -7.6224613e-03, 9.43887047e-03,
    1.00167406, 2.83297682,
)  # fmt: skip


def _erfinv(x: Tensor) -> Tensor:
    """The inverse error function in single precision.

    Source: Giles, "Approximating the erfinv function", GPU Computing Gems 2, 2011.
    """
    w = -((1 - x) * (1 + x)).log()
    central, tail = x * 0, x * 0
    for a, b in zip(_CENTRAL, _TAIL, strict=True):
        central, tail = central * (w - 2.5) + a, tail * (w.sqrt() - 3) + b
    return where(w < 5, central, tail) * x


@no_grad()
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0
) -> Tensor:
    """Normal numbers, those beyond [low, high] excluded: the inverse distribution function of uniform numbers."""
    at = [0.5 * (1 + math.erf((limit - mean) / std / math.sqrt(2))) for limit in (low, high)]
    unit = tensor.float().uniform_(2 * at[0] - 1, 2 * at[1] - 1)
    return tensor.assign((_erfinv(unit) * (std * math.sqrt(2)) + mean).clamp(low, high))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010."""
    bound = gain * math.sqrt(6 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Source: Glorot and Bengio, as above."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans("xavier_normal_", tensor))))


def _kaiming(name: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise TgError(f"{name}: got mode {mode!r}, want 'fan_in' or 'fan_out'")
    return gain(nonlinearity, a) / math.sqrt(_fans(name, tensor)[mode == "fan_out"])


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Source: He et al., "Delving Deep into Rectifiers", 2015."""
    bound = math.sqrt(3) * _kaiming("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Source: He et al., as above."""
    return normal_(tensor, 0.0, _kaiming("kaiming_normal_", tensor, a, mode, nonlinearity))


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """The identity. Shapes: (n, m)."""
    return tensor.assign(eye(*tensor.shape))


@no_grad()
def dirac_(tensor: Tensor) -> Tensor:
    """A convolution that passes its channels through. Shapes: (out, in, ..)."""
    centre = [size // 2 for size in tensor.shape[2:]]
    values = tensor * 0.0
    values[(slice(None), slice(None), *centre)] = eye(*tensor.shape[:2], dtype=tensor.dtype)
    return tensor.assign(values)


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer, of the tensor as (first, all others).

    Source: Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2013.
    """
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    q, r = qr(randn(max(rows, columns), min(rows, columns), device=tensor.device))
    q = q * r.diagonal().sign()
    return tensor.assign((q if rows >= columns else q.t()).reshape(*tensor.shape) * gain)
