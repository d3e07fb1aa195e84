"""State files against their own libraries; damaged and hostile files against one kind of error."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch

from tg_frontend import Tensor
from tg_nn.errors import StateFileError
from tg_nn.state import PackedTensor, atomic_write, load_file, load_torch, save_file, save_torch
from tg_nn.state.quantized import KINDS

SEED = int(os.environ.get("TG_SEED", "20261122"))

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([[1.5, -3.25]], dtype=torch.bfloat16),
    "double": torch.tensor(3.25, dtype=torch.float64),
    "long": torch.tensor([-1, 2**40]),
    "int": torch.tensor([[7]], dtype=torch.int32),
    "short": torch.tensor([-300], dtype=torch.int16),
    "char": torch.tensor([-3], dtype=torch.int8),
    "byte": torch.tensor([250, 3, 5], dtype=torch.uint8),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
}


def ours(tensor: torch.Tensor) -> Tensor:
    return Tensor(tensor)


def assert_same(got: Tensor, want: torch.Tensor, name: str) -> None:
    dtype = str(want.dtype).removeprefix("torch.")
    assert (tuple(got.shape), got.dtype.name.rstrip("_")) == (tuple(want.shape), dtype), name
    assert got.tolist() == want.tolist(), name


def assert_all_same(found: object, want: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(want)
    for name, tensor in want.items():
        assert_same(found[name], tensor, name)


# ---- the formats -----------------------------------------------------------------------------------------------------


def test_safetensors_of_its_library_are_read(tmp_path: Path):
    path = tmp_path / "x"
    safetensors.torch.save_file(TENSORS, path, {"by": "them"})
    found = load_file(path)
    assert_all_same(found, TENSORS)
    assert found.metadata == {"by": "them"} and found.shape("a.weight") == (3, 4)


def test_safetensors_of_ours_are_read_by_its_library(tmp_path: Path):
    save_file(tmp_path / "x.safetensors", {name: ours(tensor) for name, tensor in TENSORS.items()})
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert_all_same(load_file(tmp_path / "x.safetensors"), TENSORS)


def test_parts_of_an_index_are_read_as_one(tmp_path: Path):
    names = {"a.weight": "one.safetensors", "half": "two.safetensors"}
    for name, part in names.items():
        safetensors.torch.save_file({name: TENSORS[name]}, tmp_path / part)
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": names}))
    assert_all_same(load_file(tmp_path / "m.index.json"), {name: TENSORS[name] for name in names})
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": {"a": "../one.safetensors"}}))
    with pytest.raises(StateFileError, match="not an index"):
        load_file(tmp_path / "m.index.json")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pytorch_files_are_read(tmp_path: Path, zipped: bool):
    path = tmp_path / "x.pt"
    base = torch.arange(24.0)
    views = {
        "transposed": base.reshape(4, 6).t(),
        "part": base[5:17].reshape(3, 4),
        "strided": base.reshape(4, 6)[:, ::2],
        "scalar": base[7],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    module = torch.nn.BatchNorm1d(3)
    tree = {
        "model": module.state_dict(),
        "views": views,
        "epoch": 3,
        "list": [1, (2.5, "x"), None, True, -(2**70)],
    }
    torch.save(tree | {"all": TENSORS, "size": base.shape}, path, _use_new_zipfile_serialization=zipped)
    found = load_torch(path)
    assert_all_same(found["model"], module.state_dict())
    assert_all_same(found["all"], TENSORS)
    assert_all_same(found["views"], views)
    assert (found["epoch"], found["list"], found["size"]) == (3, [1, (2.5, "x"), None, True, -(2**70)], (24,))
    flat = load_file(path)
    assert_same(flat["views.strided"], views["strided"], "flat")


def test_pytorch_files_of_ours_are_read_by_torch_with_weights_only(tmp_path: Path):
    model = {name: ours(tensor) for name, tensor in TENSORS.items()}
    tree = {"model": model, "epoch": 3, "big": 2**65, "x": [1.5, (None,)]}
    save_torch(tmp_path / "x.pth", tree)
    found = torch.load(tmp_path / "x.pth", weights_only=True)
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in TENSORS.items())
    assert (found["epoch"], found["big"], found["x"]) == (3, 2**65, [1.5, (None,)])
    assert_all_same(load_torch(tmp_path / "x.pth")["model"], TENSORS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_of_numpy_are_read(tmp_path: Path, save: Callable):
    arrays = {name: tensor.numpy() for name, tensor in TENSORS.items() if name != "brain"}
    arrays["columns"] = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    save(tmp_path / "x.npz", **arrays)
    found = load_file(tmp_path / "x.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_npz_files_of_ours_are_read_by_numpy(tmp_path: Path):
    save_file(tmp_path / "x.npz", {name: ours(tensor) for name, tensor in TENSORS.items()})
    found = np.load(tmp_path / "x.npz")
    for name, tensor in TENSORS.items():
        want = tensor.float() if name == "brain" else tensor
        np.testing.assert_array_equal(found[name], want.numpy())
        assert found[name].dtype == want.numpy().dtype


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    writer = gguf.GGUFWriter(path, "test")
    writer.add_uint32("some.count", 7)
    writer.add_array("some.words", ["a", "bc"])
    writer.add_array("some.numbers", [1.5, 2.5])
    generator = np.random.default_rng(SEED)
    packed = {"plain": generator.normal(size=(3, 5)).astype("float32"), "half": np.ones((2, 2), "float16")}
    for name, array in packed.items():
        writer.add_tensor(name, array)
    for name, kind in KINDS.items():
        raw = generator.integers(0, 256, (6, 2 * kind.bytes), dtype=np.uint8)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[name])
        packed[name] = raw
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return packed


def reference(name: str, raw: np.ndarray) -> np.ndarray:
    if name == "Q8_K":  # which gguf cannot unpack: f32 scale, 256 int8, 16 sums
        blocks = raw.reshape(-1, 292)
        return (blocks[:, :4].copy().view("<f4") * blocks[:, 4:260].view("int8")).reshape(len(raw), -1)
    return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_gguf_files_are_read_packed_and_unpack_to_the_numbers_of_their_library(tmp_path: Path):
    print(f"TG_SEED={SEED}")
    packed = write_gguf(tmp_path / "x.gguf")
    found = load_file(tmp_path / "x.gguf")
    assert found.metadata["some.count"] == 7 and found.metadata["some.words"] == ["a", "bc"]
    assert found.metadata["some.numbers"] == [1.5, 2.5]
    np.testing.assert_array_equal(found["plain"].numpy(), packed["plain"])
    np.testing.assert_array_equal(found["half"].numpy(), packed["half"])
    for name in KINDS:
        tensor = found[name]
        assert isinstance(tensor, PackedTensor) and tensor.shape == (6, 2 * KINDS[name].numbers)
        want = reference(name, packed[name])
        finite = np.isfinite(want)
        got = tensor.unpack().numpy()
        np.testing.assert_allclose(got[finite], want[finite], rtol=1e-5, err_msg=name)


# ---- damaged and hostile files ---------------------------------------------------------------------------------------


def make_files(folder: Path) -> list[Path]:
    small = {name: TENSORS[name] for name in ("a.weight", "half", "long")}
    safetensors.torch.save_file(small, folder / "a.safetensors")
    torch.save(OrderedDict(small), folder / "b.pt")
    torch.save(OrderedDict(small), folder / "c.pth", _use_new_zipfile_serialization=False)
    np.savez(folder / "d.npz", **{name: tensor.numpy() for name, tensor in small.items()})
    np.savez_compressed(folder / "e.npz", **{name: tensor.numpy() for name, tensor in small.items()})
    write_gguf(folder / "f.gguf")
    return sorted(folder.iterdir())


def read_all(path: Path) -> None:
    found = load_file(path)
    for name in found:
        tensor = found[name]
        (tensor.blocks if isinstance(tensor, PackedTensor) else tensor).realize()


def damaged(data: bytes, generator: random.Random) -> bytes:
    """One of: cut, flipped bits, a run of bytes replaced, inserted or dropped, a large number planted."""
    raw = bytearray(data)
    at = min(int(generator.expovariate(4 / len(raw))), len(raw) - 1)  # headers stand at the front
    at = generator.choice([at, generator.randrange(len(raw)), len(raw) - 1 - at])
    match generator.randrange(5):
        case 0:
            del raw[at:]
        case 1:
            for _ in range(generator.randrange(1, 4)):
                raw[generator.choice([at, generator.randrange(len(raw))])] ^= 1 << generator.randrange(8)
        case 2:
            raw[at : at + 8] = generator.randbytes(8)
        case 3:
            del raw[at : at + generator.randrange(1, 9)]
        case 4:
            raw[at : at + 8] = struct.pack(
                "<Q", generator.choice([2**63, 2**64 - 1, 2**31 - 1, 2**32, 0, 10**9])
            )
    return bytes(raw)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_one_kind_of_error_or_tensors(tmp_path: Path):
    print(f"TG_SEED={SEED}")
    generator = random.Random(SEED)
    files = make_files(tmp_path)
    target, refused = tmp_path / "damaged", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1500):
        source = files[number % len(files)]
        target.write_bytes(damaged(source.read_bytes(), generator))
        try:
            read_all(target)
        except StateFileError as error:
            assert str(target) in str(error)
            refused += 1
    assert refused > 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KB: a size was believed"


class Exploit:
    def __reduce__(self) -> tuple:
        return os.system, ("touch exploited",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.ones(2), "y": Exploit()}, "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(StateFileError, match=r"bad.pt: .*names (posix|nt).system"):
        load_file("bad.pt")
    assert os.listdir() == ["bad.pt"]


def archive_of(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", bytes(16))
    return file.getvalue()


def tensor_pickle(offset: int, size: tuple, strides: tuple, elements: int = 4) -> bytes:
    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> object:
            return (
                ("storage", torch.FloatStorage, "0", "cpu", elements) if isinstance(item, Storage) else None
            )

        def reducer_override(self, item: object) -> object:
            if isinstance(item, frozenset):
                return torch._utils._rebuild_tensor_v2, (
                    Storage(),
                    offset,
                    size,
                    strides,
                    False,
                    OrderedDict(),
                )
            return NotImplemented

    file = io.BytesIO()
    Pickler(file, 2).dump({"x": frozenset()})
    return file.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"hello world, this is no state file",
    "header-longer-than-file": struct.pack("<Q", 10**15) + b"{}",
    "safetensors-overlap": b'\x8e\0\0\0\0\0\0\0{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
    b'"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}'.ljust(150)
    + bytes(6),
    "safetensors-deep": struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995,
    "safetensors-huge": struct.pack("<Q", 80)
    + b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'.ljust(80),
    "gguf-count": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60),
    "gguf-string": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62),
    "gguf-array": b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 0, 2**62),
    "pickle-memo": archive_of(b"\x80\x02}r\xff\xff\xff\x7f."),
    "pickle-long": archive_of(b"\x80\x02\x8b\xff\xff\xff\x7f."),
    "pickle-deep": archive_of(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."),
    "pickle-deep-dict": archive_of(b"\x80\x02" + b"}U\x01a" * 5000 + b"N" + b"s" * 5000 + b"."),
    "pickle-build": archive_of(b"\x80\x02ctorch\nFloatStorage\n}b."),
    "tensor-beyond-storage": archive_of(tensor_pickle(1, (4,), (1,))),
    "tensor-negative": archive_of(tensor_pickle(-1, (2,), (1,))),
    "tensor-repeats": archive_of(tensor_pickle(0, (10**12,), (0,))),
    "storage-cut-off": archive_of(tensor_pickle(0, (4,), (1,), elements=10**9)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_gives_one_clear_error(tmp_path: Path, name: str):
    path = tmp_path / "hostile"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(StateFileError, match="hostile: "):
        read_all(path)


def test_deflated_array_that_states_a_huge_size_is_refused(tmp_path: Path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(1000))
    raw = path.read_bytes()
    directory = raw.rindex(b"PK\x01\x02")
    path.write_bytes(raw[: directory + 24] + struct.pack("<I", 2**31) + raw[directory + 28 :])
    with pytest.raises(StateFileError, match=r"bomb.npz: member 'x.npy' is packed in a way"):
        load_file(path)


def test_missing_file_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        load_file("no such file")


def test_atomic_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError("halfway")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.safetensors"]


def test_tensors_are_read_only_when_asked_for(tmp_path: Path):
    path = tmp_path / "large.safetensors"
    size = 2**33
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:  # a hole of 8 GB on disk
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_file(path).shape("x") == (size,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
