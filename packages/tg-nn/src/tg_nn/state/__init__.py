"""State files: tensors by name on disk."""

from __future__ import annotations

from tg_nn.state.files import load_file, save_file
from tg_nn.state.gguf import open_gguf
from tg_nn.state.mapped import StateFile, atomic_write
from tg_nn.state.npz import open_npz, save_npz
from tg_nn.state.quantized import PackedTensor
from tg_nn.state.safetensors import open_safetensors, save_safetensors
from tg_nn.state.torch_files import load_torch, open_torch, save_torch

__all__ = [
    "PackedTensor", "StateFile", "atomic_write", "load_file", "load_torch", "open_gguf", "open_npz",
    "open_safetensors", "open_torch", "save_file", "save_npz", "save_safetensors", "save_torch",
]  # fmt: skip
