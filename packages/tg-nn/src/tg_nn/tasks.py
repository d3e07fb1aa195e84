"""What `tg train` can train: for each name the data, the model, and how it is learned.

Everything follows from `seed`, so two runs give the same numbers.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tg_frontend import Tensor, manual_seed
from tg_nn import data, schedules
from tg_nn.data import Loader, Text
from tg_nn.errors import TgError
from tg_nn.models import GPT2, ConvNet, GPT2Config
from tg_nn.optimizers import AdamW
from tg_nn.training import Trainer

__all__ = ["TASKS", "Task", "image_loss", "language_loss"]


@dataclass(frozen=True, slots=True)
class Task:
    """One name of `tg train`."""

    summary: str
    epochs: int
    batch_size: int
    make: Callable[[Path, int, int, int, Sequence[str]], Trainer]
    """From folder, epochs, batch size, seed and paths of data."""


def image_loss(scale: float, shift: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """Cross entropy of logits of images, whose pixels become pixel * scale + shift."""

    def loss(model: Callable, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, labels = model(images.float() * scale + shift).float(), labels.long()
        return logits.cross_entropy(labels), (logits.argmax(-1) == labels).float().mean()

    return loss


def language_loss(model: Callable, tokens: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of what follows each token."""
    logits, following = model(tokens.long()).float().flatten(0, 1), following.long().flatten()
    return logits.cross_entropy(following), (logits.argmax(-1) == following).float().mean()


def _images(
    name: str, load: Callable, model: Callable[[], ConvNet], loss: Callable, lr: float, folder: Path, epochs: int,
    batch_size: int, seed: int, paths: Sequence[str],
) -> Trainer:  # fmt: skip
    train, test = [load(part, *paths[:1]) for part in (True, False)]
    manual_seed(seed)
    network = model()
    loader = Loader(train, batch_size, shuffle=True, seed=seed, drop_last=True)
    rate = schedules.one_cycle(lr, epochs * len(loader))
    optimizer = AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    return Trainer(network, optimizer, loss, loader, Loader(test, 512), epochs, folder, title=name)


def _digits(folder: Path, epochs: int, batch_size: int, seed: int, paths: Sequence[str]) -> Trainer:
    if paths:
        raise TgError("train digits: got --data, but the digits are part of the package; leave it out")
    model = lambda: ConvNet(widths=(32, 64), dropout=0.0)  # noqa: E731
    loss = image_loss(1 / 16, -0.5)
    return _images("digits", data.digits, model, loss, 0.01, folder, epochs, batch_size, seed, paths)


def _mnist_like(name: str, load: Callable) -> Callable[[Path, int, int, int, Sequence[str]], Trainer]:
    def make(folder: Path, epochs: int, batch_size: int, seed: int, paths: Sequence[str]) -> Trainer:
        model = lambda: ConvNet(widths=(32, 64, 128), dropout=0.25)  # noqa: E731
        loss = image_loss(1 / 127.5, -1.0)
        return _images(name, load, model, loss, 0.005, folder, epochs, batch_size, seed, paths)

    return make


def _gpt(folder: Path, epochs: int, batch_size: int, seed: int, paths: Sequence[str]) -> Trainer:
    """A byte-level GPT on files, by default the sources of Python's standard library; the last 5% are for testing."""
    config = GPT2Config(vocabulary=256, context=128, width=192, layers=6, heads=6, dropout=0.0)
    if paths:
        text = Text.read(paths)
    else:
        text = Text.read(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
    split = len(text) * 19 // 20
    manual_seed(seed)
    model = GPT2(config)
    loader = Loader(Text(text[:split], config.context), batch_size, shuffle=True, seed=seed, drop_last=True)
    steps = epochs * len(loader)
    rate = schedules.warm_up(schedules.cosine(1e-3, steps, 1e-4), max(steps // 50, 1))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = AdamW(
        [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.95),
        weight_decay=0.1,
    )
    test = Loader(Text(text[split:], config.context), batch_size)
    return Trainer(model, optimizer, language_loss, loader, test, epochs, folder, max_norm=1.0, title="gpt")


TASKS = {
    "digits": Task("1,797 handwritten digits of 8x8 pixels, in the package: a convnet", 15, 64, _digits),
    "mnist": Task(
        "70,000 handwritten digits of 28x28 pixels: a convnet", 4, 128, _mnist_like("mnist", data.mnist)
    ),
    "fashion": Task(
        "70,000 articles of clothing of 28x28 pixels: a convnet",
        8,
        128,
        _mnist_like("fashion", data.fashion_mnist),
    ),
    "gpt": Task("text from files, by default Python's standard library: a byte-level GPT", 1, 32, _gpt),
}
