"""Learning rates as functions of the count of steps taken: of a tensor, so that a captured step contains them.

A schedule has no state; resuming needs the count alone. Called with a number it gives a number. `warm_up` and
`one_cycle` combine others. The values are those of PyTorch's schedulers after `step` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tg_frontend import Tensor, where
from tg_nn.errors import TgError

__all__ = ["Schedule", "constant", "cosine", "linear", "one_cycle", "polynomial", "step", "warm_up"]

Curve = Callable[[Tensor], Tensor]


class Schedule:
    """A function of the step; `curve` takes it as a float64 scalar."""

    def __init__(self, curve: Curve):
        self.curve = curve

    def __call__(self, step: Tensor | int) -> Tensor | float:
        if isinstance(step, Tensor):
            return self.curve(step.to("float64"))
        return float(self.curve(Tensor(float(step), dtype="float64")).item())


def _share(step: Tensor, steps: float) -> Tensor:
    if steps <= 0:
        raise TgError(f"schedule: got {steps} steps, want more than 0")
    return (step / steps).clamp(0.0, 1.0)


def constant(lr: float) -> Schedule:
    """Always `lr`."""
    return Schedule(lambda t: t * 0 + lr)


def linear(start: float, end: float, steps: int) -> Schedule:
    """From `start` to `end` in equal parts, then `end`."""
    return Schedule(lambda t: start + (end - start) * _share(t, steps))


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """From `lr` down half a cosine to `end`, then `end`. Source: Loshchilov and Hutter, "SGDR", 2017."""
    return Schedule(lambda t: end + (lr - end) * (1 + (_share(t, steps) * math.pi).cos()) / 2)


def polynomial(lr: float, steps: int, power: float = 1.0, end: float = 0.0) -> Schedule:
    """From `lr` to `end` as (1 - t / steps) ** power."""
    return Schedule(lambda t: end + (lr - end) * (1 - _share(t, steps)) ** power)


def step(lr: float, every: int | Sequence[int], factor: float = 0.1) -> Schedule:
    """`lr` times `factor` for every `every` steps, or for each of the milestones that was reached."""
    if isinstance(every, int):
        return Schedule(lambda t: lr * (math.log(factor) * (t / every).floor()).exp())

    def curve(t: Tensor) -> Tensor:
        value = t * 0 + lr
        for milestone in every:
            value = where(t >= milestone, value * factor, value)
        return value

    return Schedule(curve)


def warm_up(then: Schedule, steps: int, start: float = 0.0) -> Schedule:
    """From `start` straight to where `then` begins, in `steps` steps; then `then`, from its beginning."""
    peak = then(0)
    return Schedule(
        lambda t: where(
            t < steps, start + (peak - start) * _share(t, steps), then.curve((t - steps).clamp(min=0))
        )
    )


def one_cycle(
    lr: float, steps: int, rise: float = 0.3, start_factor: float = 25.0, end_factor: float = 1e4
) -> Schedule:
    """Up to `lr` and down to next to nothing, both along half a cosine.

    Args:
        rise: the share of the steps that goes up.
        start_factor: `lr` over the first rate.
        end_factor: the first rate over the last.
    Source: Smith and Topin, "Super-Convergence", 2018.
    """
    least = 1e-9  # of a rise or fall in a run of a few steps
    first, top = lr / start_factor, max(rise * steps - 1, least)

    def half(t: Tensor, length: float, start: float, end: float) -> Tensor:
        return end + (start - end) * (1 + (_share(t, length) * math.pi).cos()) / 2

    def curve(t: Tensor) -> Tensor:
        down = half(t - top, max(steps - 1 - top, least), lr, first / end_factor)
        return where(t <= top, half(t, top, first, lr), down)

    return Schedule(curve)
