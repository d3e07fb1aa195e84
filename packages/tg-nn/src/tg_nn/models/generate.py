"""Text from a language model, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tg_frontend import Tensor, no_grad
from tg_nn.module import Module

__all__ = ["generate"]


def generate(
    model: Module, tokens: Sequence[int], count: int, temperature: float = 1.0, context: int | None = None
) -> Iterator[int]:
    """`count` tokens that go on from `tokens`, one by one.

    Args:
        temperature: 0 takes the likeliest; less than 1 prefers it.
        context: how many of the last tokens the model sees; all by default.
    """
    tokens = list(tokens)
    for _ in range(count):
        with no_grad():
            seen = tokens if context is None else tokens[-context:]
            logits = model(Tensor([seen], dtype="int64"))[0, -1].float()
            if temperature:
                chosen = (logits / temperature).softmax(-1).multinomial(1)
            else:
                chosen = logits.argmax(-1)
        tokens.append(int(chosen.item()))
        yield tokens[-1]
