"""What happens to gradients and parameters around a step: clipping, loss scaling, narrow weights, averaged weights."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Iterable, Iterator

from tg_frontend import Tensor, dtypes, no_grad, where
from tg_nn.attention import MultiheadAttention
from tg_nn.layers import Embedding, Linear, _Convolution
from tg_nn.module import Module
from tg_nn.optimizers import Optimizer
from tg_nn.recurrent import _Recurrent

__all__ = ["LossScaler", "WeightAverage", "clip_grad_norm_", "clip_grad_value_", "narrow_weights"]


@no_grad()
def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients down together until their norm is at most `max_norm`; gives the norm before, as a tensor."""
    owners = [p for p in parameters if p.grad is not None]
    total = sum([p.grad.float().square().sum() for p in owners]).sqrt()
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for p in owners:
        p.grad = (p.grad * factor).detach()
    return total


@no_grad()
def clip_grad_value_(parameters: Iterable[Tensor], limit: float) -> None:
    """Bring each element of each gradient into [-limit, limit]."""
    for p in parameters:
        if p.grad is not None:
            p.grad = p.grad.clamp(-limit, limit).detach()


def narrow_weights(model: Module, dtype: str | dtypes.DType) -> Module:
    """Keep the weights of matrix products in `dtype`; normalisations stay in float32. Make the optimiser after it.

    The layers then compute in `dtype` with float32 sums, and the optimiser keeps float32 masters.
    """
    products = (Linear, Embedding, _Convolution, MultiheadAttention, _Recurrent)
    made: dict[Tensor, Tensor] = {}
    for module in model.modules():
        if not isinstance(module, products):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.requires_grad:
                if value not in made:
                    made[value] = value.detach().to(dtype=dtype).requires_grad_()
                setattr(module, name, made[value])
    return model


class LossScaler:
    """Keeps float16 gradients within range: scales the loss up, and skips a step whose gradients overflowed.

    `scaler.scale_loss(loss).backward()`, then `scaler.step(optimizer)`. The scale halves after an overflow and doubles
    after `interval` steps without one. Nothing is read on the host.

    Source: Micikevicius et al., "Mixed Precision Training", 2018.
    """

    def __init__(
        self, scale: float = 65536.0, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000,
        device: str | None = None,
    ):  # fmt: skip
        self.growth, self.backoff, self.interval = growth, backoff, interval
        self.scale = Tensor([float(scale)], device=device).sum()
        self.streak = Tensor([0], device=device).sum()

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return loss.float() * self.scale

    @no_grad()
    def unscale(self, optimizer: Optimizer) -> Tensor:
        """Divide the gradients by the scale; gives a scalar that is true where one of them is not finite."""
        owners = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for p in owners:
            p.grad = (p.grad.float() / self.scale).detach()
        return ~functools.reduce(operator.and_, [p.grad.isfinite().all() for p in owners])

    @no_grad()
    def step(self, optimizer: Optimizer, max_norm: float | None = None) -> Tensor:
        """Unscale, clip to `max_norm` if given, step unless a gradient overflowed, and move the scale."""
        overflow = self.unscale(optimizer)
        if max_norm is not None:
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
        optimizer.step(skip=overflow)
        streak = where(overflow, 0, self.streak + 1)
        grown = where(streak >= self.interval, self.scale * self.growth, self.scale)
        self.scale.assign(where(overflow, self.scale * self.backoff, grown))
        self.streak.assign(where(streak >= self.interval, 0, streak))
        return overflow

    def state_dict(self) -> dict[str, Tensor]:
        """The scale, and the steps since it last moved."""
        return {"scale": self.scale.detach(), "streak": self.streak.detach()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self.scale.assign(state["scale"])
        self.streak.assign(state["streak"])


class WeightAverage:
    """An exponential moving average of a model's float state: `update()` after each step, `applied()` to use it."""

    def __init__(self, model: Module, decay: float = 0.999):
        self.model, self.decay = model, decay
        self.average = {
            name: tensor.clone() for name, tensor in model.state_dict().items() if tensor.dtype.is_float
        }

    @no_grad()
    def update(self) -> None:
        """Move the average towards the model by 1 - decay."""
        state = self.model.state_dict()
        for name, mean in self.average.items():
            mean.assign(mean + (state[name] - mean) * (1 - self.decay))

    @contextlib.contextmanager
    def applied(self) -> Iterator[Module]:
        """`with average.applied():` the model has the averaged values."""
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(own | self.average)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages."""
        return {name: tensor.detach() for name, tensor in self.average.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        for name, mean in self.average.items():
            mean.assign(state[name])
