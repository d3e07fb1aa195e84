"""`tg train`: a task of tg_nn, run on this package's engine, in a folder that it can be resumed from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tg.capture import jit
from tg.engine import install
from tg_frontend import Device
from tg_ir.errors import TgError
from tg_nn.progress import format_seconds
from tg_nn.state import atomic_write
from tg_nn.tasks import TASKS
from tg_nn.training import Outcome

__all__ = ["run"]

_SETTINGS = ("task", "data", "epochs", "batch_size", "seed")


def run(options: argparse.Namespace) -> int:
    """Train, and say how it went."""
    install()
    folder = options.out or Path("runs") / options.task
    settings = _settings(options, folder)
    task = TASKS[options.task]
    trainer = task.make(folder, *[settings[name] for name in ("epochs", "batch_size", "seed", "data")])
    device = Device.default
    # The interpreter has nothing to replay.
    trainer.capture = None if device.startswith("REF") else jit
    print(f"{options.task}: {task.summary}; {trainer.model.num_parameters():,} parameters, on {device}")
    folder.mkdir(parents=True, exist_ok=True)
    outcome = trainer.run(resume=options.resume)
    _say(outcome)
    return 0 if outcome.finished else 130


def _settings(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """What the run is made of: of the run that is resumed, else of the command line; kept in run.json."""
    task, path = TASKS[options.task], folder / "run.json"
    asked = {name: getattr(options, name) for name in _SETTINGS}
    if options.resume and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in ("task", "data", "epochs", "batch_size"):
            if asked[name] is not None and asked[name] != found[name]:
                raise TgError(
                    f"--resume: the run in {folder} has {name} {found[name]!r}, got {asked[name]!r}; leave it out"
                )
        return found
    asked["epochs"], asked["batch_size"] = (
        asked["epochs"] or task.epochs,
        asked["batch_size"] or task.batch_size,
    )
    asked["data"] = asked["data"] or []
    if not (folder / "log.jsonl").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps(asked).encode())
    return asked


def _say(outcome: Outcome) -> None:
    folder = outcome.folder
    if not outcome.finished:
        print(f"stopped after step {outcome.steps}; `tg train ... --resume` goes on from {folder}")
        return
    judged = "" if outcome.accuracy is None else f"accuracy {outcome.accuracy:.2%}, "
    print(
        f"{judged}loss {outcome.loss:.4f} after {outcome.steps} steps in {format_seconds(outcome.seconds)}\n"
        f"{folder}/model.safetensors  weights\n{folder}/report.html        curves\n"
        f"{folder}/log.jsonl          every step"
    )
