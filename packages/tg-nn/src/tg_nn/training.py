"""The training loop: steps, evaluation, a log, checkpoints, resuming, and an orderly end on Ctrl-C.

A run lives in a folder: `log.jsonl` with a line a step and a line an epoch, `step-*.safetensors`, and at the end
`model.safetensors` and `report.html`. Everything that a run draws on (weights, optimiser, schedule, random state, place
in the data) is in its checkpoints, so that a run which was killed and resumed gives the losses of one which was not.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tg_frontend import Tensor, get_rng_state, no_grad, set_rng_state
from tg_nn.checkpoint import Checkpoints
from tg_nn.data import Loader
from tg_nn.errors import StateError
from tg_nn.gradients import LossScaler, clip_grad_norm_
from tg_nn.module import Module
from tg_nn.optimizers import Optimizer
from tg_nn.progress import Progress
from tg_nn.report import write_report
from tg_nn.state import atomic_write, save_safetensors

__all__ = ["Outcome", "Trainer", "make_step"]

Loss = Callable[..., tuple[Tensor, Tensor]]


@dataclass
class Outcome:
    """How a run ended: `finished` is false after Ctrl-C."""

    finished: bool
    steps: int
    seconds: float
    loss: float
    accuracy: float | None
    folder: Path


def make_step(
    model: Module,
    optimizer: Optimizer,
    loss: Loss,
    scaler: LossScaler | None = None,
    max_norm: float | None = None,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function that learns from a batch and gives its loss and share of right answers, as `loss` does.

    It reads no value and changes nothing of Python's but gradients, so that it can be captured and replayed.
    """

    def step(*batch: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        value, right = loss(model, *batch)
        if scaler is not None:
            scaler.scale_loss(value).backward()
            scaler.step(optimizer, max_norm)
        else:
            value.backward()
            if max_norm is not None:
                clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
        optimizer.zero_grad()
        return value.detach(), right.detach()

    return step


@dataclass
class Trainer:
    """What a run is made of.

    Args:
        loss: of a batch: `loss(model, *batch)` gives the loss, to be differentiated, and the share of right answers.
        train: what to learn from; its batches are of one size.
        test: what to be judged by, after each epoch.
        max_norm: gradients are clipped to this norm.
        scaler: for float16.
        save_every_s: checkpoints are written after each epoch, and whenever this time has passed.
        capture: what makes a replayable step from a function of a batch, such as an engine's `jit`.
        title: what the report is called.
        quiet: print nothing.
    """

    model: Module
    optimizer: Optimizer
    loss: Loss
    train: Loader
    test: Loader | None
    epochs: int
    folder: Path
    max_norm: float | None = None
    scaler: LossScaler | None = None
    save_every_s: float = 60.0
    capture: Callable[[Callable], Callable] | None = None
    title: str = "run"
    quiet: bool = False
    step: int = field(default=0, init=False)

    # ---- judging ----------------------------------------------------------------------------------------------------

    @no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Mean loss and share of right answers on the test data."""
        assert self.test is not None, "evaluation without test data"
        self.model.eval()
        loss, right, count = 0.0, 0.0, 0
        for batch in self.test:
            size = int(batch[0].shape[0])
            values = self.loss(self.model, *batch)
            values[0].realize(values[1])
            loss, right, count = loss + values[0].item() * size, right + values[1].item() * size, count + size
        self.model.train()
        return loss / count, right / count

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """All that the rest of the run depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "data": self.train.state_dict(),
            "random": list(get_rng_state()),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.train.load_state_dict(state["data"])
        set_rng_state(state["random"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    # ---- the run ---------------------------------------------------------------------------------------------------

    def run(self, resume: bool = False) -> Outcome:
        """Train to the end, or until Ctrl-C, after which the run can be resumed.

        Raises:
            StateError: the folder has a run already, and it is not to be resumed.
        """
        checkpoints, log = Checkpoints(self.folder), Path(self.folder) / "log.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoints.latest() if resume else None
        if found is not None:
            self.load_state_dict(found[1])
            _cut_log(log, self.step)
        elif not resume and (log.exists() or checkpoints.steps()):
            raise StateError(
                f"train: {self.folder} holds a run already; pass --resume, or choose another --out"
            )
        else:
            log.unlink(missing_ok=True)
        started, saved, stopped, results = time.monotonic(), time.monotonic(), False, (float("nan"), None)
        step = make_step(self.model, self.optimizer, self.loss, self.scaler, self.max_norm)
        step = self.capture(step) if self.capture else step
        total = self.epochs * len(self.train)
        self.model.train()
        with (
            open(log, "a", encoding="utf-8") as lines,
            _interruptible() as interrupted,
            Progress(self.title, total, self.step, self.quiet) as progress,
        ):
            while self.train.epoch < self.epochs and not stopped:
                epoch, row = self.train.epoch, None
                for batch in self.train:
                    before = time.monotonic()
                    loss, right = step(*batch)
                    loss.realize(right)
                    self.step += 1
                    row = {"step": self.step, "epoch": epoch, "loss": loss.item(), "accuracy": right.item()}
                    rate = int(batch[0].shape[0]) / max(time.monotonic() - before, 1e-9)
                    row |= {"samples_per_s": round(rate, 1), "seconds": round(time.monotonic() - started, 3)}
                    _append(lines, row)
                    progress.show(row)
                    stopped = interrupted.is_set()
                    if stopped or time.monotonic() - saved > self.save_every_s:
                        checkpoints.save(self.step, self.state_dict())
                        saved = time.monotonic()
                    if stopped:
                        break
                if not stopped:
                    if row is not None:  # None: resumed between an epoch's last step and its end
                        results = (row["loss"], row["accuracy"])
                    if self.test is not None:
                        results = self.evaluate()
                        row = {
                            "step": self.step,
                            "epoch": epoch,
                            "test_loss": results[0],
                            "test_accuracy": results[1],
                        }
                        _append(lines, row)
                        progress.note(row)
                    checkpoints.save(self.step, self.state_dict())
                    saved = time.monotonic()
        if not stopped:
            if results[1] is None and self.test is not None:  # resumed after the last step
                results = self.evaluate()
            save_safetensors(self.folder / "model.safetensors", self.model.state_dict())
        write_report(self.folder, self.title)
        return Outcome(not stopped, self.step, time.monotonic() - started, *results, self.folder)


def _append(lines: object, row: dict[str, object]) -> None:
    lines.write(json.dumps(row) + "\n")
    lines.flush()


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines after `step`, and what a crash left of a line."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line)
    with atomic_write(path) as file:
        file.write("".join([f"{line}\n" for line in kept]).encode())


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """The event is set by the first Ctrl-C; the second interrupts at once. Other threads get none."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        os.write(2, b"\nending after this step; once more to stop at once\n")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
