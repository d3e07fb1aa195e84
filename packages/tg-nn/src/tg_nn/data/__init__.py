"""Data sets, and a loader of batches."""

from __future__ import annotations

from tg_nn.data.images import ImageFolder, digits, fashion_mnist, mnist
from tg_nn.data.loader import Loader
from tg_nn.data.records import Dataset, Records, Subset, Text

__all__ = [
    "Dataset",
    "ImageFolder",
    "Loader",
    "Records",
    "Subset",
    "Text",
    "digits",
    "fashion_mnist",
    "mnist",
]
