"""Models, each a page of plain code in a file of its own."""

from __future__ import annotations

from tg_nn.models.bert import Bert, BertConfig
from tg_nn.models.convnet import ConvNet
from tg_nn.models.efficientnet import EfficientNetLite0
from tg_nn.models.generate import generate
from tg_nn.models.gpt2 import GPT2, GPT2Config
from tg_nn.models.llama import Llama, LlamaConfig
from tg_nn.models.mlp import MLP
from tg_nn.models.resnet import ResNet, resnet18, resnet50
from tg_nn.models.vit import ViT, vit_b_16

__all__ = [
    "GPT2", "MLP", "Bert", "BertConfig", "ConvNet", "EfficientNetLite0", "GPT2Config", "Llama", "LlamaConfig", "ResNet",
    "ViT", "generate", "resnet18", "resnet50", "vit_b_16",
]  # fmt: skip
