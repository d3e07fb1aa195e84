"""State files of every kind by what they contain, not by what they are called."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tg_frontend import Tensor
from tg_nn.errors import StateFileError
from tg_nn.state.gguf import open_gguf
from tg_nn.state.mapped import StateFile, fail, map_file, open_zip
from tg_nn.state.npz import open_npz, save_npz
from tg_nn.state.safetensors import open_safetensors, save_safetensors
from tg_nn.state.torch_files import open_torch, save_torch

__all__ = ["load_file", "save_file"]

_WRITERS = {".safetensors": save_safetensors, ".npz": save_npz, ".pt": save_torch, ".pth": save_torch}


def load_file(path: os.PathLike | str) -> StateFile:
    """The tensors of a safetensors, PyTorch, GGUF or npz file, or of the parts that an index.json names.

    Nothing but the header is read until a tensor is asked for.

    Raises:
        StateFileError: the file is of no such kind, or not what it says.
        OSError: it cannot be opened.
    """
    head = bytes(map_file(path)[:16])
    if Path(path).name.endswith(".index.json"):
        return _open_parts(Path(path))
    if head[:4] == b"GGUF":
        return open_gguf(path)
    if head[:2] == b"PK":
        members = open_zip(path)
        pickled = any(name.endswith("/data.pkl") for name in members)
        return open_torch(path, members) if pickled else open_npz(path, members)
    if head[:1] == b"\x80":
        return open_torch(path)
    if head[8:9] == b"{":
        return open_safetensors(path)
    fail(path, "not a state file: want safetensors, PyTorch (.pt, .pth), GGUF or npz")


def _open_parts(path: Path) -> StateFile:
    try:
        names = json.loads(path.read_bytes())["weight_map"]
        parts = {
            name: load_file(path.parent / name) for name in dict.fromkeys(names.values()) if "/" not in name
        }
        entries = {name: parts[part]._entries[name] for name, part in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, StateFileError):
            raise
        raise StateFileError(
            f"{path}: not an index of state files ({type(error).__name__}: {error})"
        ) from error
    return StateFile(path, entries)


def save_file(path: os.PathLike | str, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors in the format of the name's ending, all or nothing.

    Raises:
        StateFileError: the ending is none of .safetensors, .npz, .pt, .pth.
    """
    writer = _WRITERS.get(Path(path).suffix)
    if writer is None:
        raise StateFileError(f"save: got {Path(path).name!r}, want a name that ends in {', '.join(_WRITERS)}")
    writer(path, tensors)
