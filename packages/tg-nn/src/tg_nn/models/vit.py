"""Vision transformer, with torchvision's names of weights.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
"""

from __future__ import annotations

from tg_frontend import Tensor, cat, randn, zeros
from tg_nn.attention import MultiheadAttention
from tg_nn.layers import GELU, Conv2d, Dropout, LayerNorm, Linear
from tg_nn.module import Module, Sequential

__all__ = ["ViT", "vit_b_16"]


class _Layer(Module):
    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        self.ln_1 = LayerNorm(width, eps=1e-6)
        self.self_attention = MultiheadAttention(width, heads, dropout, batch_first=True)
        self.ln_2 = LayerNorm(width, eps=1e-6)
        self.mlp = Sequential(
            Linear(width, hidden), GELU(), Dropout(dropout), Linear(hidden, width), Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y)[0]
        return x + self.mlp(self.ln_2(x))


class _Encoder(Module):
    def __init__(self, length: int, depth: int, width: int, heads: int, hidden: int, dropout: float):
        self.pos_embedding = (randn(1, length, width) * 0.02).requires_grad_()
        self.layers = {f"encoder_layer_{i}": _Layer(width, heads, hidden, dropout) for i in range(depth)}
        self.ln = LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embedding
        for layer in self.layers.values():
            x = layer(x)
        return self.ln(x)


class ViT(Module):
    """Patches of an image as words, behind a word whose final state is classified.

    Shapes: (N, 3, image, image) gives logits (N, classes).
    """

    def __init__(
        self, image: int, patch: int, depth: int, heads: int, width: int, hidden: int, classes: int = 1000,
        dropout: float = 0.0,
    ):  # fmt: skip
        self.class_token = zeros(1, 1, width, requires_grad=True)
        self.conv_proj = Conv2d(3, width, patch, patch)
        self.encoder = _Encoder((image // patch) ** 2 + 1, depth, width, heads, hidden, dropout)
        self.heads = {"head": Linear(width, classes)}

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(patches.shape[0], 1, patches.shape[2]).to(patches.dtype)
        return self.heads["head"](self.encoder(cat([first, patches], 1))[:, 0])


def vit_b_16(classes: int = 1000) -> ViT:
    """86.6 million parameters, for 224x224 images."""
    return ViT(224, 16, 12, 12, 768, 3072, classes)
