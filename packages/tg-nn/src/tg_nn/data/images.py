"""Images with labels: digits (shipped), MNIST and Fashion-MNIST (found or downloaded), and folders of files.

A batch is (images, labels): uint8 (N, C, H, W) and uint8 (N,), or int64 labels for folders.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from tg_frontend import Tensor
from tg_nn.data.records import Records, Subset
from tg_nn.errors import DataError
from tg_nn.state.mapped import atomic_write

__all__ = ["ImageFolder", "digits", "fashion_mnist", "mnist"]

_DIGITS = 1797


def digits(train: bool = True) -> Subset:
    """1,797 handwritten digits of 8x8 pixels from 0 to 16; every fifth is for testing. Source: DIGITS.md."""
    raw = lzma.decompress(files("tg_nn.data").joinpath("digits.xz").read_bytes())
    split = _DIGITS * 64
    records = Records((raw[:split], (1, 8, 8), "uint8"), (raw[split:], (), "uint8"))
    return Subset(records, [number for number in range(_DIGITS) if (number % 5 != 4) == train])


# ---- MNIST and Fashion-MNIST -----------------------------------------------------------------------------------------

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SOURCES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
}
_SHA256 = {  # of the unpacked files, in the order of _FILES
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def mnist(train: bool = True, path: os.PathLike | str | None = None, download: bool = True) -> Records:
    """70,000 handwritten digits of 28x28 pixels, 10,000 of them for testing.

    They are looked for in `path`, $TG_DATA/mnist, the cache, and downloaded to the cache otherwise.
    """
    return _idx_pair("mnist", train, path, download)


def fashion_mnist(
    train: bool = True, path: os.PathLike | str | None = None, download: bool = True
) -> Records:
    """70,000 articles of clothing of 28x28 pixels in 10 classes; looked for as `mnist` is, and in Debian's
    dataset-fashion-mnist."""
    return _idx_pair("fashion-mnist", train, path, download)


def _idx_pair(name: str, train: bool, path: os.PathLike | str | None, download: bool) -> Records:
    wanted = (0, 1) if train else (2, 3)
    images, labels = [_idx(name, number, path, download) for number in wanted]
    return Records((images, (1, 28, 28), "uint8"), (labels, (), "uint8"))


def _folders(name: str, path: os.PathLike | str | None) -> Iterator[Path]:
    if path is not None:
        yield Path(path)
        return
    if os.environ.get("TG_DATA"):
        yield Path(os.environ["TG_DATA"]) / name
    yield _cache(name)
    yield Path("/usr/share/datasets") / name


def _cache(name: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tg" / name


def _idx(name: str, number: int, path: os.PathLike | str | None, download: bool) -> memoryview:
    file, looked = _FILES[number], list(_folders(name, path))
    for folder in looked:
        for found in (folder / file, folder / f"{file}.gz"):
            if found.is_file():
                return _parse_idx(found, _unpack(found, found.read_bytes()))
    if path is not None or not download:
        raise DataError(
            f"{name}: {file}[.gz] is not in {', '.join(map(str, looked))}; put it there or download"
        )
    return _parse_idx(Path(file), _download(name, number))


def _unpack(path: Path, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: a damaged gzip file ({error}); get it again") from error


def _parse_idx(path: Path, raw: bytes) -> memoryview:
    """The bytes after the header of an idx file: 0, 0, 8 for bytes, rank, and the sizes, big-endian."""
    rank = raw[3] if raw[:3] == b"\0\0\x08" else 0
    sizes = struct.unpack_from(f">{rank}I", raw, 4) if rank and len(raw) >= 4 + 4 * rank else ()
    count = 1
    for size in sizes:
        count *= size
    if not sizes or (rank == 3 and sizes[1:] != (28, 28)) or len(raw) != 4 + 4 * rank + count:
        raise DataError(f"{path}: not an idx file of bytes, or cut off; get it again")
    return memoryview(raw)[4 + 4 * rank :]


def _download(name: str, number: int) -> bytes:
    from urllib.error import URLError
    from urllib.request import urlopen

    file, url = _FILES[number], f"{_SOURCES[name]}/{_FILES[number]}.gz"
    try:
        with urlopen(url, timeout=30) as answer:
            raw = _unpack(Path(file), answer.read(64_000_000))
    except (URLError, OSError) as error:
        hint = f"put the files into {_cache(name)}"
        raise DataError(f"{name}: {url} cannot be downloaded ({error}); {hint}") from error
    got = hashlib.sha256(raw).hexdigest()
    if got != _SHA256[name][number]:
        raise DataError(f"{name}: {url} has SHA-256 {got}, want {_SHA256[name][number]}; it is not used")
    _cache(name).mkdir(parents=True, exist_ok=True)
    with atomic_write(_cache(name) / file) as target:
        target.write(raw)
    return raw


# ---- folders ---------------------------------------------------------------------------------------------------------

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".webp", ".tif", ".tiff"}


class ImageFolder:
    """A folder with a folder of images for each class; read with Pillow (extra `images`), brought to one size.

    `classes` are the names of the folders, in order; a label is a place among them.
    """

    def __init__(self, root: os.PathLike | str, size: int | tuple[int, int] = 224):
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.classes = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir())
        self.samples = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((Path(root) / name).rglob("*"))
            if path.suffix.lower() in _ENDINGS
        ]
        if not self.samples:
            raise DataError(f"ImageFolder: no images in folders of {root}; want {root}/<class>/<image>")

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """RGB images uint8 (N, 3, H, W), and int64 labels."""
        chosen = [self.samples[number] for number in numbers]
        pixels = b"".join([self._read(path) for path, _ in chosen])
        images = Tensor(pixels, dtype="uint8").reshape(len(chosen), self.height, self.width, 3)
        return images.permute(0, 3, 1, 2), Tensor([label for _, label in chosen], dtype="int64")

    def _read(self, path: Path) -> bytes:
        try:
            from PIL import Image
        except ImportError as error:
            raise DataError(
                "ImageFolder: reading images needs Pillow; pip install 'tg-nn[images]'"
            ) from error
        try:
            with Image.open(path) as image:
                return (
                    image.convert("RGB")
                    .resize((self.width, self.height), Image.Resampling.BILINEAR)
                    .tobytes()
                )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not a readable image ({error}); remove it") from error
