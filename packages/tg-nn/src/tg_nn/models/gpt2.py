"""GPT-2, with the names and layouts of its published weights.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

from tg_frontend import Tensor, arange, randn, zeros
from tg_nn.attention import merge_heads, split_heads
from tg_nn.layers import Dropout, Embedding, LayerNorm, Linear
from tg_nn.module import Module

__all__ = ["GPT2", "GPT2Config"]


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """Sizes; the defaults are those of the smallest published model."""

    vocabulary: int = 50257
    context: int = 1024
    width: int = 768
    layers: int = 12
    heads: int = 12
    dropout: float = 0.1


class _Affine(Linear):
    """x @ weight + bias: a Linear whose weight is transposed."""

    def __init__(self, inner: int, outer: int, std: float = 0.02):
        self.weight = (randn(inner, outer) * std).requires_grad_()
        self.bias = zeros(outer, requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.weight.dtype) @ self.weight + self.bias


class _Attention(Module):
    def __init__(self, config: GPT2Config):
        self._heads, self._dropout = config.heads, config.dropout
        self.c_attn = _Affine(config.width, 3 * config.width)
        self.c_proj = _Affine(config.width, config.width, 0.02 / (2 * config.layers) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = [split_heads(part, self._heads) for part in self.c_attn(x).chunk(3, -1)]
        drop = self._dropout if self.training else 0.0
        return self.c_proj(merge_heads(q.scaled_dot_product_attention(k, v, None, drop, is_causal=True)))


class _MLP(Module):
    def __init__(self, config: GPT2Config):
        self.c_fc = _Affine(config.width, 4 * config.width)
        self.c_proj = _Affine(4 * config.width, config.width, 0.02 / (2 * config.layers) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(x).gelu("tanh"))


class _Block(Module):
    def __init__(self, config: GPT2Config):
        self.ln_1, self.attn = LayerNorm(config.width), _Attention(config)
        self.ln_2, self.mlp = LayerNorm(config.width), _MLP(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.ln_1(x)))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class GPT2(Module):
    """A language model whose output shares the embedding's weights. Shapes: (N, L) gives logits (N, L, vocabulary)."""

    def __init__(self, config: GPT2Config):
        self._config = config
        self.wte, self.wpe = (
            Embedding(config.vocabulary, config.width),
            Embedding(config.context, config.width),
        )
        for table, std in ((self.wte, 0.02), (self.wpe, 0.01)):
            table.weight = (randn(*table.weight.shape) * std).requires_grad_()
        self.dropout = Dropout(config.dropout)
        self.h = [_Block(config) for _ in range(config.layers)]
        self.ln_f = LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what follows each token."""
        x = self.wte(tokens) + self.wpe(arange(tokens.shape[1], device=tokens.device))
        x = self.dropout(x)
        for block in self.h:
            x = block(x)
        return self.ln_f(x).to(self.wte.weight.dtype).linear(self.wte.weight)
