"""Runs: the losses of PyTorch, checkpoints that survive SIGKILL, Ctrl-C, the log and the report."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch_models import ConvNet, ResNet

from tg_frontend import Tensor
from tg_nn import gradients, models, optimizers
from tg_nn.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from tg_nn.data import Loader, Records
from tg_nn.errors import StateError, StateFileError, TgError
from tg_nn.layers import Linear
from tg_nn.progress import Progress, format_seconds
from tg_nn.report import read_log
from tg_nn.tasks import TASKS, image_loss, language_loss
from tg_nn.training import Trainer, make_step

SEED = int(os.environ.get("TG_SEED", "20261122"))

# ---- the losses of PyTorch -------------------------------------------------------------------------------------------


def convnet() -> tuple:
    theirs = ConvNet(1, (4, 6), 10)
    ours = models.ConvNet(widths=(4, 6), dropout=0.0)
    return ours, theirs, theirs.state_dict(), lambda g: (torch.randn(8, 1, 8, 8, generator=g), labels(g, 8))


def resnet() -> tuple:
    theirs = ResNet((2, 2, 2, 2), False, 10, 8)
    return (
        models.resnet18(10, 8),
        theirs,
        theirs.state_dict(),
        lambda g: (torch.randn(16, 3, 32, 32, generator=g), labels(g, 16)),
    )


def gpt() -> tuple:
    sizes = {"n_positions": 12, "n_embd": 16, "n_layer": 4, "n_head": 2}
    dropped = dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=32, **sizes, **dropped, **ids))
    ours = models.GPT2(models.GPT2Config(32, 12, 16, 4, 2, dropout=0.0))
    state = {
        k.removeprefix("transformer."): v for k, v in model.state_dict().items() if k != "lm_head.weight"
    }

    def batch(g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(0, 32, (4, 13), generator=g)
        return tokens[:, :-1], tokens[:, 1:]

    return ours, model, state, batch


def labels(g: torch.Generator, count: int) -> torch.Tensor:
    return torch.randint(0, 10, (count,), generator=g)


SGD = {"lr": 0.002, "momentum": 0.9, "weight_decay": 1e-4}
CASES = {
    "convnet-adam": (convnet, "Adam", {"lr": 3e-3}, image_loss(1.0, 0.0), 25),
    "resnet18-sgd": (resnet, "SGD", SGD, image_loss(1.0, 0.0), 6),
    "gpt-adamw": (gpt, "AdamW", {"lr": 3e-3, "weight_decay": 0.1}, language_loss, 15),
}
STEPS_FACTOR = int(os.environ.get("TG_LONG", "1"))


def losses(name: str, narrow: str | None = None) -> tuple[list[float], list[float]]:
    """Ours and PyTorch's from the same weights on the same batches; four batches take turns, so that losses fall."""
    torch.manual_seed(7)
    make, kind, options, loss_of, steps = CASES[name]
    ours, theirs, state, batch = make()
    ours.load_state_dict(state)
    if narrow:
        gradients.narrow_weights(ours, narrow)
    mine = getattr(optimizers, kind)(ours.parameters(), **options)
    other = getattr(torch.optim, kind)(theirs.parameters(), **options)
    generator, got, want = torch.Generator().manual_seed(3), [], []
    batches = [batch(generator) for _ in range(4)]
    theirs.train()
    for step in range(steps * STEPS_FACTOR):
        x, y = batches[step % 4]
        mine.zero_grad()
        loss, _ = loss_of(ours, Tensor(x), Tensor(y))
        loss.backward()
        mine.step()
        got.append(loss.item())
        other.zero_grad()
        logits = theirs(x)
        logits = getattr(logits, "logits", logits)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten())
        loss.backward()
        other.step()
        want.append(loss.item())
    return got, want


@pytest.mark.parametrize("name", CASES)
def test_losses_from_the_same_weights_and_batches_are_those_of_pytorch(name: str):
    got, want = losses(name)
    np.testing.assert_allclose(got, want, rtol=1e-3)
    assert want[-1] < want[0] or len(want) < 10


def test_losses_in_float64_are_those_of_pytorch_to_the_last_digits():
    """Where float32 rounding is amplified from step to step, this tells it from an error."""
    torch.manual_seed(7)
    theirs = ResNet((1, 1, 1, 1), False, 10, 4).double()
    ours = models.ResNet(models.resnet._Basic, (1, 1, 1, 1), 10, 4).to("float64")
    ours.load_state_dict(theirs.state_dict())
    mine, other = optimizers.SGD(ours.parameters(), **SGD), torch.optim.SGD(theirs.parameters(), **SGD)
    x, y = torch.randn(4, 3, 48, 48, dtype=torch.float64), torch.randint(0, 10, (4,))
    for _ in range(4):
        mine.zero_grad()
        loss = ours(Tensor(x)).cross_entropy(Tensor(y))
        loss.backward()
        mine.step()
        other.zero_grad()
        want = torch.nn.functional.cross_entropy(theirs(x), y)
        want.backward()
        other.step()
        assert loss.item() == pytest.approx(want.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["convnet-adam", "gpt-adamw"])
def test_losses_with_bfloat16_weights_stay_near_those_of_pytorch_in_float32(name: str):
    got, want = losses(name, "bfloat16")
    np.testing.assert_allclose(got, want, rtol=0.02)
    assert got != losses(name)[0]


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoint_gives_back_its_tree(tmp_path: Path):
    tree = {"a": {"0": Tensor([1.5, 2.5]), "x": [1, 2.5, None, True, "t"]}, "b": [Tensor(7)], "e": {}}
    save_checkpoint(tmp_path / "c", tree)
    found = load_checkpoint(tmp_path / "c")
    assert found["a"]["0"].tolist() == [1.5, 2.5] and found["b"][0].item() == 7
    assert found["a"]["x"] == [1, 2.5, None, True, "t"] and found["e"] == {}
    with pytest.raises(StateError, match=r"checkpoint: a.f is a function"):
        save_checkpoint(tmp_path / "c", {"a": {"f": labels}})
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-1])
    with pytest.raises(StateFileError, match=r"cut off|range"):
        load_checkpoint(tmp_path / "c")


def test_checkpoints_keep_the_last_ones_and_clear_what_crashes_left(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    assert checkpoints.latest() is None
    for step in (1, 5, 12):
        checkpoints.save(step, {"step": step})
        (tmp_path / "run" / ".step-torn").touch()
    assert checkpoints.steps() == [5, 12] and checkpoints.latest() == (12, {"step": 12})
    checkpoints.save(13, {})
    assert sorted(os.listdir(tmp_path / "run")) == ["step-00000012.safetensors", "step-00000013.safetensors"]


RUN = """
import sys
from pathlib import Path
from tg_frontend import manual_seed
from tg_nn import AdamW, Dropout, Linear, Sequential, schedules
from tg_nn.data import Loader, Records
from tg_nn.tasks import image_loss
from tg_nn.training import Trainer

def told(step):
    def run(*batch):
        print(trainer.step, flush=True)
        return step(*batch)
    return run

manual_seed(3)
pixels, labels = bytes(i * i % 256 for i in range(60 * 8)), bytes(i % 3 for i in range(60))
data = Records((pixels, (8,), "uint8"), (labels, (), "uint8"))
model = Sequential(Linear(8, 16), Dropout(0.3), Linear(16, 3))
optimizer = AdamW(model.parameters(), lr=schedules.one_cycle(0.01, 60))
train = Loader(data, 8, shuffle=True, seed=1, drop_last=True)
trainer = Trainer(model, optimizer, image_loss(1 / 128, -1), train, Loader(data, 60), 8, Path(sys.argv[1]), quiet=True)
trainer.capture = told
trainer.save_every_s = float(sys.argv[2])
outcome = trainer.run(resume=True)
print("finished" if outcome.finished else "stopped", flush=True)
"""


def start(folder: Path, save_every_s: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(folder), str(save_every_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(folder: Path) -> list[tuple]:
    keys = ("step", "epoch", "loss", "accuracy", "test_loss", "test_accuracy")
    return [tuple(row.get(key) for key in keys) for row in read_log(folder / "log.jsonl")]


def test_run_killed_at_random_moments_and_resumed_gives_the_losses_of_one_that_was_not(tmp_path: Path):
    print(f"TG_SEED={SEED}")
    generator = random.Random(SEED)
    out, error = start(tmp_path / "whole", 1e9).communicate()
    assert out.endswith("finished\n"), error
    kills, ended = 0, ""
    while kills < 50 and not ended.endswith("finished\n"):
        process = start(tmp_path / "killed")
        read = "".join([process.stdout.readline() for _ in range(generator.randrange(4, 16))])
        try:  # somewhere in a step, or in the writing of its checkpoint
            rest, error = process.communicate(timeout=generator.uniform(0, 0.02) if kills < 6 else 60)
            ended = read + rest
            assert process.returncode == 0, error
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert kills >= 3
    assert told(tmp_path / "killed") == told(tmp_path / "whole")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_ctrl_c_ends_after_the_step_and_the_run_can_be_resumed(tmp_path: Path):
    process = start(tmp_path / "run", 1e9)
    for _ in range(10):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate()
    assert process.returncode == 0 and out.endswith("stopped\n") and "ending after this step" in error
    last = [row["step"] for row in read_log(tmp_path / "run" / "log.jsonl")][-1]
    assert Checkpoints(tmp_path / "run").steps()[-1] == last >= 10
    out, error = start(tmp_path / "run", 1e9).communicate()
    assert out.startswith(f"{last}\n") and out.endswith("finished\n"), error
    assert [row[0] for row in told(tmp_path / "run") if row[2] is not None] == list(range(1, 57))


# ---- runs ------------------------------------------------------------------------------------------------------------


def small(folder: Path, **options: object) -> Trainer:
    data = Records((bytes(range(64)), (4,), "uint8"), (bytes(i % 2 for i in range(16)), (), "uint8"))
    model = Linear(4, 2)
    optimizer = optimizers.SGD(model.parameters(), lr=0.1)
    loss = image_loss(1 / 32, -1.0)
    return Trainer(model, optimizer, loss, Loader(data, 4), Loader(data, 5), 2, folder, **options)


def test_run_writes_log_model_and_report_and_says_how_it_went(tmp_path: Path, capsys: pytest.CaptureFixture):
    outcome = small(tmp_path / "run", title="<small>").run()
    assert outcome.finished and outcome.steps == 8 and 0 <= outcome.accuracy <= 1
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert rows[-1]["test_accuracy"] == outcome.accuracy and rows[-1]["test_loss"] == outcome.loss
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<polyline") == 4 and "&lt;small&gt;" in page and "<td>2<td>8" in page
    shown = capsys.readouterr().err
    assert "epoch 2: test loss" in shown and "100%" in shown and "samples/s" in shown
    with pytest.raises(StateError, match="holds a run already; pass --resume"):
        small(tmp_path / "run").run()
    again = small(tmp_path / "run", quiet=True).run(resume=True)
    assert (again.steps, again.loss) == (8, outcome.loss)


def test_capture_gets_the_step_and_scaler_and_clipping_take_part(tmp_path: Path):
    seen = []

    def capture(step: Callable) -> Callable:
        return lambda *batch: (seen.append(len(batch)), step(*batch))[1]

    scaler = gradients.LossScaler(256.0, interval=4)
    trainer = small(tmp_path / "run", capture=capture, scaler=scaler, max_norm=0.01, quiet=True)
    before = trainer.model.weight.numpy()
    trainer.run()
    assert seen == [2] * 8 and scaler.scale.item() == 1024.0
    moved = np.linalg.norm(trainer.model.weight.detach().numpy() - before)
    assert 0 < moved <= 8 * 0.1 * 0.01 * 1.001
    assert load_checkpoint(Checkpoints(tmp_path / "run").path(8))["scaler"]["scale"].item() == 1024.0


def test_progress_line_and_times_read_well():
    progress = Progress("digits", 200)
    progress.show({"step": 1, "loss": 2.0, "accuracy": 0.5, "samples_per_s": 1234.0})
    line = progress.line(50, 10.0)
    assert line.startswith(
        "digits █████                 25%  loss 2.0000  accuracy 50.0%  1,234 samples/s  30 s to go"
    )
    assert [format_seconds(s) for s in (0.4, 59.4, 61, 3725)] == ["0 s", "59 s", "1:01", "1:02:05"]


def test_tasks_make_trainers_whose_first_step_lowers_no_value(tmp_path: Path):
    (tmp_path / "text").write_text("def f(x):\n    return x\n" * 400)
    trainer = TASKS["gpt"].make(tmp_path, 1, 2, 0, [str(tmp_path / "text")])
    assert trainer.train.dataset.length == 128 and len(trainer.optimizer.param_groups) == 2
    digits = TASKS["digits"].make(tmp_path, 15, 64, 0, [])
    assert len(digits.train) == 22 and digits.model.num_parameters() == 65_834
    batch = next(iter(digits.train))
    step = make_step(digits.model, digits.optimizer, digits.loss)
    loss, right = step(*batch)
    assert 1.5 < loss.item() < 4 and 0 <= right.item() <= 1
    with pytest.raises(TgError, match="leave it out"):
        TASKS["digits"].make(tmp_path, 1, 64, 0, ["x"])
