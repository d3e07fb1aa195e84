"""Data sets and the loader: order, position, errors."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from itertools import chain
from pathlib import Path

import pytest

from tg_nn.data import ImageFolder, Loader, Records, Text, digits, fashion_mnist, images, mnist
from tg_nn.errors import DataError


def numbered(count: int) -> Records:
    return Records((bytes(range(count)), (), "uint8"))


def given(loader: Loader) -> list[list[int]]:
    return [batch.tolist() for (batch,) in loader]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_loader_gives_each_sample_once_in_an_order_of_seed_and_epoch(prefetch: int):
    loader = Loader(numbered(10), 4, shuffle=True, seed=5, prefetch=prefetch)
    first, second = given(loader), given(loader)
    assert [len(batch) for batch in first] == [4, 4, 2] and len(loader) == 3
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
    assert first != second
    again = Loader(numbered(10), 4, shuffle=True, seed=5, prefetch=0)
    assert [given(again), given(again)] == [first, second]
    assert given(Loader(numbered(10), 4, shuffle=True, seed=6)) != first
    assert given(Loader(numbered(10), 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("taken", [0, 2, 4, 6])
def test_loader_that_loads_a_position_goes_on_with_the_batch_after(taken: int):
    whole = Loader(numbered(10), 3, shuffle=True, seed=1)
    want = given(whole) + given(whole)
    loader, seen = Loader(numbered(10), 3, shuffle=True, seed=1), []
    while len(seen) < taken:
        for (batch,) in loader:
            seen.append(batch.tolist())
            if len(seen) == taken:
                state = loader.state_dict()
                break
    resumed = Loader(numbered(10), 3, shuffle=True, seed=1)
    resumed.load_state_dict(state if taken else loader.state_dict())
    while len(seen) < len(want):
        seen += given(resumed)
    assert seen[: len(want)] == want


def test_loader_left_early_ends_its_thread_and_errors_on_it_are_raised():
    before = threading.active_count()
    for _ in Loader(numbered(100), 1):
        break
    assert threading.active_count() == before

    class Broken(Records):
        def batch(self, numbers):
            raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        given(Loader(Broken((bytes(4), (), "uint8")), 2))
    with pytest.raises(DataError, match="3 samples make no batch of 4"):
        Loader(numbered(3), 4, drop_last=True)


def test_records_of_unequal_parts_are_refused():
    with pytest.raises(DataError, match="different or broken numbers"):
        Records((bytes(8), (2,), "uint8"), (bytes(3), (), "uint8"))
    with pytest.raises(DataError, match="different or broken numbers"):
        Records((bytes(7), (2,), "uint8"))


def test_digits_are_those_of_the_repository_they_come_from():
    train, test = digits(), digits(train=False)
    assert (len(train), len(test)) == (1438, 359)
    pixels, labels = train.batch(range(3))
    assert pixels.shape == (3, 1, 8, 8) and labels.tolist() == [0, 1, 2]
    assert pixels[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    everything = train.batch(range(len(train)))[1].tolist() + test.batch(range(len(test)))[1].tolist()
    assert [everything.count(digit) for digit in range(10)] == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]


def write_idx(folder: Path, count: int, packed: bool) -> None:
    for kind, rank, sizes, data in (
        ("images", 3, (count, 28, 28), bytes(i % 251 for i in range(count * 784))),
        ("labels", 1, (count,), bytes(i % 10 for i in range(count))),
    ):
        raw = struct.pack(f">BBBB{rank}I", 0, 0, 8, rank, *sizes) + data
        name = folder / f"train-{kind}-idx{rank}-ubyte{'.gz' if packed else ''}"
        name.write_bytes(gzip.compress(raw) if packed else raw)


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files_of_a_folder_are_read(tmp_path: Path, packed: bool):
    write_idx(tmp_path, 5, packed)
    for function in (mnist, fashion_mnist):
        found = function(path=tmp_path)
        pixels, labels = found.batch([4, 1])
        assert len(found) == 5 and labels.tolist() == [4, 1]
        assert pixels[1, 0, 0, :3].tolist() == [784 % 251, 785 % 251, 786 % 251]


def test_mnist_that_is_missing_or_damaged_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        mnist(path=tmp_path)
    write_idx(tmp_path, 5, True)
    name = tmp_path / "train-labels-idx1-ubyte.gz"
    for raw in (name.read_bytes()[:-9], gzip.compress(b"\0\0\x08\x01\0\0\0\x09123"), b"", b"\0\0\x08\x03\0"):
        name.write_bytes(raw)
        with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: "):
            mnist(path=tmp_path)


def test_download_with_another_checksum_is_refused_and_with_its_own_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    served, home = tmp_path / "served", tmp_path / "home"
    served.mkdir()
    write_idx(served, 2, True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.delenv("TG_DATA", raising=False)
    monkeypatch.setitem(images._SOURCES, "mnist", served.as_uri())
    with pytest.raises(DataError, match=r"has SHA-256 .* it is not used"):
        mnist()
    assert not home.exists()
    sums = [hashlib.sha256(gzip.decompress(p.read_bytes())).hexdigest() for p in sorted(served.iterdir())]
    monkeypatch.setitem(images._SHA256, "mnist", (*sums, "", ""))
    assert len(mnist()) == 2
    monkeypatch.setitem(images._SOURCES, "mnist", (tmp_path / "gone").as_uri())
    assert len(mnist()) == 2, "the second time from the cache"
    with pytest.raises(DataError, match="cannot be downloaded"):
        mnist(train=False)


def test_text_is_cut_into_windows_and_what_follows(tmp_path: Path):
    (tmp_path / "b.txt").write_text("world!")
    (tmp_path / "a.txt").write_text("hello")
    text = Text.read([tmp_path], "*.txt")
    assert text == b"hello\nworld!"
    windows = Text(text, 4)
    inputs, targets = windows.batch([1, 0])
    assert len(windows) == 2
    assert [bytes(row) for row in inputs.tolist()] == [b"o\nwo", b"hell"]
    assert [bytes(row) for row in targets.tolist()] == [b"\nwor", b"ello"]
    tokens = Text(text, 2, encode=lambda text: [ord(letter) + 300 for letter in text])
    assert tokens.batch([0])[1].tolist() == [[ord("e") + 300, ord("l") + 300]]
    with pytest.raises(DataError, match="more than one window of 50"):
        Text(text, 50)
    with pytest.raises(DataError, match="does not exist"):
        Text.read([tmp_path / "c"])


def test_image_folder_reads_classes_and_names_what_is_unreadable(tmp_path: Path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / name).mkdir()
        image.new("RGB", (5, 7), colour).save(tmp_path / name / "1.png")
    found = ImageFolder(tmp_path, 4)
    pixels, labels = found.batch([1, 0])
    assert found.classes == ["cat", "dog"] and labels.tolist() == [1, 0]
    assert pixels.shape == (2, 3, 4, 4) and pixels[0, :, 2, 2].tolist() == [0, 0, 255]
    (tmp_path / "cat" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png: not a readable image"):
        ImageFolder(tmp_path, 4).batch([1])
    with pytest.raises(DataError, match="no images in folders"):
        ImageFolder(tmp_path / "cat")
