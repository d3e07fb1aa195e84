"""Data sets in the host's memory: samples by number, batches as tensors.

A data set is anything with `len` and `batch(numbers)`, which gives a tuple of tensors whose first axis is the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tg_frontend import Tensor, dtypes
from tg_nn.errors import DataError

__all__ = ["Dataset", "Records", "Subset", "Text"]


class Dataset(Protocol):
    """What a Loader draws from."""

    def __len__(self) -> int:
        """How many samples there are."""

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, ...]:
        """The samples of these numbers."""


class Records:
    """Samples of fixed size: for each part, the bytes of all samples one after the other.

    Args:
        parts: (bytes, shape of a sample, dtype) of each tensor of a batch.
    """

    def __init__(self, *parts: tuple[bytes | memoryview, tuple[int, ...], str]):
        self._parts = []
        for data, shape, dtype in parts:
            size = dtypes.dtype_of(dtype).itemsize
            for length in shape:
                size *= length
            self._parts.append((memoryview(data).cast("B"), shape, dtype, size))
        lengths = {len(data) / size for data, _, _, size in self._parts}
        if len(lengths) != 1 or not (length := lengths.pop()).is_integer():
            raise DataError(
                "Records: the parts hold different or broken numbers of samples; check their shapes"
            )
        self._length = int(length)

    def __len__(self) -> int:
        return self._length

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, ...]:
        """The samples of these numbers, in the dtypes they are stored in."""
        made = []
        for data, shape, dtype, size in self._parts:
            joined = b"".join([data[number * size : number * size + size] for number in numbers])
            made.append(Tensor(joined, dtype=dtype).reshape(len(numbers), *shape))
        return tuple(made)


class Subset:
    """Some samples of a data set, by their numbers."""

    def __init__(self, dataset: Dataset, numbers: Sequence[int]):
        self.dataset, self.numbers = dataset, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, ...]:
        """The samples of these numbers."""
        return self.dataset.batch([self.numbers[number] for number in numbers])


class Text:
    """Text in windows: `length` items, and the same one item on, which a language model is to predict.

    Args:
        text: bytes; or with `encode` anything that it turns into a list of numbers.
        encode: a tokenizer's function; without it, items are bytes.
    """

    def __init__(self, text: bytes, length: int, encode: Callable[[str], Sequence[int]] | None = None):
        self.length = length
        self.dtype, self._data = "uint8", memoryview(text)
        if encode is not None:
            tokens = encode(text.decode("utf-8", "replace"))
            self.dtype = "uint16" if max(tokens, default=0) < 2**16 else "uint32"
            size = dtypes.dtype_of(self.dtype).itemsize
            self._data = memoryview(b"".join([token.to_bytes(size, "little") for token in tokens]))
        if not len(self):
            raise DataError(
                f"text: got {len(text)} bytes, want more than one window of {length}; give more files"
            )

    @staticmethod
    def read(paths: Iterable[Path | str], pattern: str = "*") -> bytes:
        """The files, and those under folders whose names match, joined in order of their names."""
        found: list[Path] = []
        for path in map(Path, paths):
            if not path.exists():
                raise DataError(f"text: {path} does not exist; give files or folders")
            found += (
                sorted(each for each in path.rglob(pattern) if each.is_file()) if path.is_dir() else [path]
            )
        return b"\n".join([path.read_bytes() for path in found])

    def __len__(self) -> int:
        return (len(self._data) // dtypes.dtype_of(self.dtype).itemsize - 1) // self.length

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, ...]:
        """Windows and what follows each of their items. Shapes: (N, length) twice."""
        size = dtypes.dtype_of(self.dtype).itemsize
        span, step = (self.length + 1) * size, self.length * size
        joined = b"".join([self._data[number * step : number * step + span] for number in numbers])
        windows = Tensor(joined, dtype=self.dtype).reshape(len(numbers), self.length + 1)
        return windows[:, :-1], windows[:, 1:]
