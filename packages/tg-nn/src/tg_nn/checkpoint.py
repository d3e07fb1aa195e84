"""Checkpoints: everything that a run needs to go on, in one file that is there whole or not at all.

A checkpoint is a safetensors file: the tensors of a tree of dicts and lists, and in its metadata the tree itself as
JSON, where a tensor is replaced by its name.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tg_frontend import Tensor
from tg_nn.errors import StateError, StateFileError
from tg_nn.state import open_safetensors, save_safetensors

__all__ = ["Checkpoints", "load_checkpoint", "save_checkpoint"]

_TENSOR = "$tensor"


def save_checkpoint(path: os.PathLike | str, tree: object) -> None:
    """Write dicts, lists, numbers, texts and tensors; after a crash at any moment the file is the old or the new one.

    Raises:
        StateError: something else is in the tree.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: object, name: str) -> object:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {_TENSOR: name}
        if isinstance(value, dict):
            return {
                str(key): plain(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [plain(item, f"{name}.{position}") for position, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise StateError(f"checkpoint: {name} is a {type(value).__name__}, want tensors and plain data")

    text = json.dumps(plain(tree, ""))
    save_safetensors(path, tensors, {"tree": text})


def load_checkpoint(path: os.PathLike | str) -> object:
    """The tree that `save_checkpoint` wrote; keys of dicts are texts, tuples are lists.

    Raises:
        StateFileError: the file is damaged, or no checkpoint.
    """
    file = open_safetensors(path)

    def full(value: object) -> object:
        if isinstance(value, dict):
            if value.keys() == {_TENSOR}:
                return file[value[_TENSOR]]
            return {key: full(item) for key, item in value.items()}
        return [full(item) for item in value] if isinstance(value, list) else value

    try:
        return full(json.loads(file.metadata["tree"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StateFileError(f"{path}: safetensors, but no checkpoint ({error!r}); use load_file") from error


class Checkpoints:
    """The checkpoints of a run, in a folder, by step; the last `keep` of them stay."""

    def __init__(self, folder: os.PathLike | str, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def steps(self) -> list[int]:
        """The steps that there is a checkpoint of, in order."""
        names = self.folder.glob("step-*.safetensors")
        found = [re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in names]
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step:08}.safetensors"

    def save(self, step: int, tree: object) -> Path:
        """Write the checkpoint of a step, then drop those that are too old, and what crashed writes left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.path(step), tree)
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink(missing_ok=True)
        for left in self.folder.glob(".step-*"):
            left.unlink(missing_ok=True)
        return self.path(step)

    def latest(self) -> tuple[int, object] | None:
        """The last step and its tree; None if there is none."""
        steps = self.steps()
        return (steps[-1], load_checkpoint(self.path(steps[-1]))) if steps else None
