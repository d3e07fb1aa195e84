"""BERT and MiniLM encoders, with the names of their published weights, and sentence embeddings from them.

Source: Devlin et al., "BERT", 2019; Reimers and Gurevych, "Sentence-BERT", 2019 (mean pooling).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tg_frontend import Tensor, arange
from tg_nn.attention import merge_heads, split_heads
from tg_nn.layers import Dropout, Embedding, LayerNorm, Linear
from tg_nn.module import Module
from tg_nn.state import load_file

__all__ = ["Bert", "BertConfig"]


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes; the defaults are those of bert-base-uncased."""

    vocabulary: int = 30522
    context: int = 512
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    kinds: int = 2
    eps: float = 1e-12
    dropout: float = 0.1

    @staticmethod
    def read(path: os.PathLike | str) -> BertConfig:
        """From a published config.json."""
        found = json.loads(Path(path).read_text())
        return BertConfig(
            found["vocab_size"], found["max_position_embeddings"], found["hidden_size"], found["num_hidden_layers"],
            found["num_attention_heads"], found["intermediate_size"], found["type_vocab_size"], found["layer_norm_eps"],
            found["hidden_dropout_prob"],
        )  # fmt: skip


class _Embeddings(Module):
    def __init__(self, config: BertConfig):
        self.word_embeddings = Embedding(config.vocabulary, config.width)
        self.position_embeddings = Embedding(config.context, config.width)
        self.token_type_embeddings = Embedding(config.kinds, config.width)
        self.LayerNorm, self.dropout = LayerNorm(config.width, config.eps), Dropout(config.dropout)

    def forward(self, tokens: Tensor, kinds: Tensor) -> Tensor:
        positions = self.position_embeddings(arange(tokens.shape[1], device=tokens.device))
        return self.dropout(
            self.LayerNorm(self.word_embeddings(tokens) + positions + self.token_type_embeddings(kinds))
        )


class _Output(Module):
    """A projection, added to what came before, and normalised."""

    def __init__(self, inner: int, config: BertConfig):
        self.dense, self.dropout = Linear(inner, config.width), Dropout(config.dropout)
        self.LayerNorm = LayerNorm(config.width, config.eps)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + before)


class _Layer(Module):
    def __init__(self, config: BertConfig):
        self._heads, self._dropout = config.heads, config.dropout
        projections = {name: Linear(config.width, config.width) for name in ("query", "key", "value")}
        self.attention = {"self": projections, "output": _Output(config.width, config)}
        self.intermediate = {"dense": Linear(config.width, config.hidden)}
        self.output = _Output(config.hidden, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = [split_heads(project(x), self._heads) for project in self.attention["self"].values()]
        attended = q.scaled_dot_product_attention(k, v, mask, self._dropout if self.training else 0.0)
        x = self.attention["output"](merge_heads(attended), x)
        return self.output(self.intermediate["dense"](x).gelu(), x)


class Bert(Module):
    """An encoder. Shapes: tokens (N, L), mask (N, L) of ones where there is a token, give (N, L, width)."""

    def __init__(self, config: BertConfig):
        self._config = config
        self.embeddings = _Embeddings(config)
        self.encoder = {"layer": [_Layer(config) for _ in range(config.layers)]}
        self.pooler = {"dense": Linear(config.width, config.width)}

    def forward(self, tokens: Tensor, mask: Tensor | None = None, kinds: Tensor | None = None) -> Tensor:
        """The last layer's states."""
        x = self.embeddings(tokens, tokens * 0 if kinds is None else kinds)
        keys = None if mask is None else (mask != 0).unsqueeze(1).unsqueeze(1)
        for layer in self.encoder["layer"]:
            x = layer(x, keys)
        return x

    def pool(self, states: Tensor) -> Tensor:
        """The first token's state through the pooler. Shapes: (N, L, width) gives (N, width)."""
        return self.pooler["dense"](states[:, 0]).tanh()

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Sentence embeddings of length 1: the mean of the states. Shapes: (N, L) twice gives (N, width)."""
        weights = mask.float().unsqueeze(-1)
        return ((self(tokens, mask) * weights).sum(1) / weights.sum(1).clamp(min=1e-9)).normalize()

    @classmethod
    def from_folder(cls, folder: os.PathLike | str) -> Bert:
        """The model of a folder with config.json and model.safetensors."""
        model = cls(BertConfig.read(Path(folder) / "config.json"))
        state = load_file(Path(folder) / "model.safetensors")
        model.load_state_dict({name: state[name] for name in state if not name.endswith("position_ids")})
        return model.eval()
