"""The Llama family: RMS normalisation, rotary positions, grouped-query attention, gated MLP; published names.

Source: Touvron et al., "Llama 2", 2023; GGUF's names and order of rows from llama.cpp's conversion (facts only).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tg_frontend import Tensor, arange
from tg_nn.attention import merge_heads, rotary_tables, rotate, split_heads
from tg_nn.errors import StateFileError
from tg_nn.layers import Embedding, Linear, RMSNorm
from tg_nn.module import Module
from tg_nn.state import PackedTensor, load_file

__all__ = ["Llama", "LlamaConfig"]


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes; the defaults are those of SmolLM2-135M."""

    vocabulary: int = 49152
    width: int = 576
    layers: int = 30
    heads: int = 9
    key_heads: int = 3
    hidden: int = 1536
    eps: float = 1e-5
    rotary_base: float = 100000.0
    tied: bool = True

    @staticmethod
    def read(path: os.PathLike | str) -> LlamaConfig:
        """From a published config.json."""
        found = json.loads(Path(path).read_text())
        return LlamaConfig(
            found["vocab_size"], found["hidden_size"], found["num_hidden_layers"], found["num_attention_heads"],
            found.get("num_key_value_heads", found["num_attention_heads"]), found["intermediate_size"],
            found["rms_norm_eps"], found.get("rope_theta", 10000.0), found.get("tie_word_embeddings", False),
        )  # fmt: skip


class _Attention(Module):
    def __init__(self, config: LlamaConfig):
        self._heads, self._key_heads = config.heads, config.key_heads
        features = config.width // config.heads
        self.q_proj = Linear(config.width, config.heads * features, bias=False)
        self.k_proj = Linear(config.width, config.key_heads * features, bias=False)
        self.v_proj = Linear(config.width, config.key_heads * features, bias=False)
        self.o_proj = Linear(config.heads * features, config.width, bias=False)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        q = rotate(split_heads(self.q_proj(x), self._heads), tables)
        k = rotate(split_heads(self.k_proj(x), self._key_heads), tables)
        v = split_heads(self.v_proj(x), self._key_heads)
        return self.o_proj(merge_heads(q.scaled_dot_product_attention(k, v, is_causal=True, enable_gqa=True)))


class _MLP(Module):
    def __init__(self, config: LlamaConfig):
        self.gate_proj = Linear(config.width, config.hidden, bias=False)
        self.up_proj = Linear(config.width, config.hidden, bias=False)
        self.down_proj = Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.gate_proj(x).silu() * self.up_proj(x))


class _Layer(Module):
    def __init__(self, config: LlamaConfig):
        self.self_attn, self.mlp = _Attention(config), _MLP(config)
        self.input_layernorm = RMSNorm(config.width, config.eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.eps)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), tables)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(Module):
    """A language model. Shapes: (N, L) gives logits (N, L, vocabulary)."""

    def __init__(self, config: LlamaConfig):
        self._config = config
        self.model = {
            "embed_tokens": Embedding(config.vocabulary, config.width),
            "layers": [_Layer(config) for _ in range(config.layers)],
            "norm": RMSNorm(config.width, config.eps),
        }
        self.lm_head = Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.lm_head.weight = self.model["embed_tokens"].weight

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Logits of what follows each token; `start` is the position of the first."""
        features = self._config.width // self._config.heads
        positions = arange(start, start + tokens.shape[1], device=tokens.device)
        tables = rotary_tables(positions, features, self._config.rotary_base)
        x = self.model["embed_tokens"](tokens)
        for layer in self.model["layers"]:
            x = layer(x, tables)
        return self.lm_head(self.model["norm"](x))

    @classmethod
    def from_gguf(cls, path: os.PathLike | str) -> Llama:
        """The model of a GGUF file of architecture llama, its weights unpacked to float32.

        Raises:
            StateFileError: another architecture, or no sizes in the metadata.
        """
        state = load_file(path)
        found = state.metadata
        try:
            if found["general.architecture"] != "llama":
                raise StateFileError(f"{path}: architecture {found['general.architecture']!r}, want 'llama'")
            heads = found["llama.attention.head_count"]
            config = LlamaConfig(
                state.shape("token_embd.weight")[0], found["llama.embedding_length"], found["llama.block_count"], heads,
                found.get("llama.attention.head_count_kv", heads), found["llama.feed_forward_length"],
                found["llama.attention.layer_norm_rms_epsilon"], found.get("llama.rope.freq_base", 10000.0),
                "output.weight" not in state,
            )  # fmt: skip
        except KeyError as error:
            raise StateFileError(f"{path}: no {error} in a GGUF file of a Llama model") from error
        model = cls(config)
        model.load_state_dict(_from_gguf(state, config))
        return model.eval()


_GGUF_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
}  # fmt: skip


def _from_gguf(state: Mapping[str, Tensor | PackedTensor], config: LlamaConfig) -> dict[str, Tensor]:
    made = {}
    for name in state:
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
        if match is None or match[2] not in _GGUF_NAMES:
            continue  # such as precomputed factors of rotations
        value = state[name]
        value = value.unpack() if isinstance(value, PackedTensor) else value
        if match[2] in ("attn_q", "attn_k"):
            # llama.cpp turns neighbouring features, the published weights the halves of a head.
            heads = config.heads if match[2] == "attn_q" else config.key_heads
            value = value.reshape(heads, -1, 2, config.width).transpose(1, 2).reshape(-1, config.width)
        prefix = f"model.layers.{match[1]}." if match[1] else ""
        made[f"{prefix}{_GGUF_NAMES[match[2]]}.weight"] = value
    if config.tied:
        made["lm_head.weight"] = made["model.embed_tokens.weight"]
    return made
