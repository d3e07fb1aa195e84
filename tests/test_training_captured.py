"""A training step as a captured program: the same losses as without, and as the interpreter's."""

from __future__ import annotations

import numpy as np
import pytest

import tg
from tg_frontend import manual_seed
from tg_nn import AdamW, LossScaler, make_step, narrow_weights, schedules
from tg_nn.models import GPT2, ConvNet, GPT2Config
from tg_nn.tasks import image_loss, language_loss


def convnet(device: str):
    model = ConvNet(widths=(4, 6), dropout=0.2).to(device=device)
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (6, 8, 1, 8, 8), dtype=np.uint8)
    return model, image_loss(1 / 128, -1.0), [(x, generator.integers(0, 10, 8)) for x in pixels]


def gpt(device: str):
    model = GPT2(GPT2Config(32, 8, 16, 2, 2, dropout=0.1)).to(device=device)
    tokens = np.random.default_rng(1).integers(0, 32, (6, 3, 9), dtype=np.uint8)
    return model, language_loss, [(x[:, :-1], x[:, 1:]) for x in tokens]


def losses(make, device: str, captured: bool, dtype: str | None) -> list[float]:
    manual_seed(5)
    model, loss, batches = make(device)
    if dtype:
        narrow_weights(model, dtype)
    optimizer = AdamW(model.parameters(), lr=schedules.one_cycle(0.01, len(batches)))
    scaler = LossScaler(64.0, interval=2, device=device) if dtype == "float16" else None
    step = make_step(model, optimizer, loss, scaler, max_norm=1.0)
    step = tg.jit(step) if captured else step
    found = [step(*[tg.Tensor(part, device=device) for part in batch])[0].item() for batch in batches]
    assert not captured or step.replays == len(batches) - 2
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("make", "dtype"), [(convnet, None), (gpt, "bfloat16"), (convnet, "float16")])
def test_captured_training_gives_the_losses_of_the_interpreter(make, dtype: str | None):
    if tg.Device.default != "CPU":
        pytest.skip("no compiler for this machine")
    want = losses(make, "REF", False, dtype)
    np.testing.assert_allclose(losses(make, "CPU", False, dtype), want, rtol=2e-2 if dtype else 1e-4)
    np.testing.assert_allclose(losses(make, "CPU", True, dtype), want, rtol=2e-2 if dtype else 1e-4)
