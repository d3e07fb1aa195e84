"""Attention over heads with PyTorch's names, and rotary positions."""

from __future__ import annotations

import math

from tg_frontend import Tensor, arange, cat, linear, ones, where, zeros
from tg_nn.initialize import xavier_uniform_, zeros_
from tg_nn.layers import Linear
from tg_nn.module import Module

__all__ = ["MultiheadAttention", "merge_heads", "rotary_tables", "rotate", "split_heads"]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Shapes: (N, L, H * E) gives (N, H, L, E)."""
    return x.unflatten(-1, (heads, x.shape[-1] // heads)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """Shapes: (N, H, L, E) gives (N, L, H * E)."""
    return x.transpose(-2, -3).flatten(-2)


class MultiheadAttention(Module):
    """softmax(q k^T / sqrt(E)) v in several heads, each on its share of the features."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
    ):
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = (
            embed_dim,
            num_heads,
            dropout,
            batch_first,
        )
        self.in_proj_weight = xavier_uniform_(zeros(3 * embed_dim, embed_dim, requires_grad=True))
        self.in_proj_bias = zeros(3 * embed_dim, requires_grad=True) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if bias:
            zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = False, attn_mask: Tensor | None = None, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The attended values, and with `need_weights` the weights, averaged over heads.

        Args:
            key_padding_mask: (N, S), True where a key is to be left out.
            attn_mask: (L, S) or (N * heads, L, S): True where a key is to be left out, or floats to add.
            is_causal: leave out the keys after each query; `attn_mask` is then not needed.

        Shapes: query (L, N, E), key and value (S, N, E); with batch_first (N, L, E) and (N, S, E).
        """
        if not self.batch_first:
            query, key, value = [each.transpose(0, 1) for each in (query, key, value)]
        weights = self.in_proj_weight.chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        triples = zip((query, key, value), weights, biases, strict=True)
        q, k, v = [split_heads(linear(x, w, b), self.num_heads) for x, w, b in triples]
        mask = self._mask(q, k, key_padding_mask, attn_mask, is_causal)
        drop = self.dropout if self.training else 0.0
        causal = is_causal and mask is None
        out = q.scaled_dot_product_attention(k, v, mask, drop, causal)
        out = self.out_proj(merge_heads(out))
        out = out if self.batch_first else out.transpose(0, 1)
        if not need_weights:
            return out, None
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        mask = self._mask(q, k, key_padding_mask, attn_mask, is_causal, always=True)
        return out, (scores + mask).softmax(-1).mean(1)

    def _mask(
        self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None, causal: bool, always: bool = False
    ) -> Tensor | None:  # fmt: skip
        """What to add to the scores; None when nothing, or only causality, is asked for."""
        if padding is None and mask is None and not always:
            return None
        total = zeros(1, 1, q.shape[-2], k.shape[-2], dtype=q.dtype, device=q.device)
        if causal:
            total = where(ones(*total.shape, dtype="bool", device=q.device).tril(), total, -math.inf)
        if mask is not None:
            mask = mask.unflatten(0, (-1, self.num_heads)) if mask.ndim == 3 else mask
            total = total + (mask if mask.dtype.is_float else where(mask, -math.inf, 0.0))
        if padding is not None:
            padding = padding if padding.dtype.is_float else where(padding, -math.inf, 0.0)
            total = total + padding.unsqueeze(1).unsqueeze(1)
        return total


def rotary_tables(positions: Tensor, features: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles by which features turn at the positions. Shapes: (L,) gives twice (L, features).

    Source: Su et al., "RoFormer", 2021; the halves of the features pair up, as in Llama's published weights.
    """
    exponents = arange(0, features, 2, device=positions.device).float() / features
    angles = positions.float().unsqueeze(-1) * (exponents * -math.log(base)).exp()
    angles = cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x turned by `rotary_tables`. Shapes: (.., L, features)."""
    cos, sin = tables
    left, right = x.float().chunk(2, -1)
    return (x.float() * cos + cat([-right, left], -1) * sin).to(x.dtype)
