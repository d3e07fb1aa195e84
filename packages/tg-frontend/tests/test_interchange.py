"""Values in and out: sequences, bytes, buffers, NumPy, DLPack with PyTorch and NumPy; sharing and lifetimes."""

from __future__ import annotations

import array
import gc
import pickle
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

import tg_frontend as tg
from tg_frontend import Tensor, dlpack
from tg_ir.errors import DeviceError, DTypeError, ShapeError

ALL = [
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32",
    "float64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
]  # fmt: skip
SEQUENCES = [
    1, 2.5, True, [], [[]], [[], []], [1, 2], [1, 2.5], [True, False], [True, 2], [[1, 2], [3, 4]], [[[1.5]]], (1, (2)),
    range(4), [range(2), (3, 4)], float("inf"), [-(2**63), 2**63 - 1],
]  # fmt: skip


def typed(tensor: torch.Tensor) -> tuple:
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.tolist()


def ours(tensor: Tensor) -> tuple:
    return tensor.dtype.name, tensor.shape, tensor.tolist()


@pytest.mark.parametrize("data", SEQUENCES, ids=str)
def test_sequence_of_numbers_is_pytorchs(data):
    assert ours(Tensor(data)) == typed(torch.tensor(data))
    for dtype in ("float64", "int32", "float16", "bfloat16"):
        if data != float("inf") and data != SEQUENCES[-1]:
            assert ours(Tensor(data, dtype)) == typed(torch.tensor(data, dtype=getattr(torch, dtype)))


def test_sequence_mixed_with_tensors_and_numpy_takes_their_dtypes():
    assert ours(Tensor([Tensor([1, 2]), [3, 4]])) == ("int64", (2, 2), [[1, 2], [3, 4]])
    assert ours(Tensor([np.float32(1.5), np.float32(2)])) == ("float32", (2,), [1.5, 2.0])
    assert ours(Tensor([np.arange(2, dtype=np.int16), np.arange(2, dtype=np.int8)])) == (
        "int16",
        (2, 2),
        [[0, 1], [0, 1]],
    )
    assert ours(Tensor([torch.tensor(1.0), torch.tensor(2.0)])) == ("float32", (2,), [1.0, 2.0])
    assert ours(Tensor(np.float64(1.5))) == ("float64", (), 1.5)
    assert ours(Tensor(np.int8(3))) == ("int8", (), 3)


def test_numbers_beyond_a_given_dtype_are_converted_by_its_rules():
    assert Tensor([1e300, -1.0], "float32").tolist() == [float("inf"), -1.0]
    assert Tensor([1.9, -1.9], "int32").tolist() == [1, -1]
    assert Tensor([300, -1], "uint8").tolist() == [44, 255]


@pytest.mark.parametrize("dtype", ALL)
def test_bytes_are_read_as_the_dtype(dtype):
    values = torch.tensor([0.0, 1.0, 1.0]).to(getattr(torch, dtype))
    data = values.view(torch.uint8).numpy().tobytes()
    for holder in (data, bytearray(data), memoryview(data)):
        assert ours(Tensor(holder, dtype)) == (dtype, (3,), values.tolist())


@pytest.mark.parametrize("letter", "bBhHiIlLqQfd")
def test_buffers_keep_their_type_and_convert(letter):
    data = array.array(letter, [1, 2, 3])
    kind = "float" if letter in "fd" else "int" if letter.islower() else "uint"
    assert ours(Tensor(data)) == (f"{kind}{8 * data.itemsize}", (3,), [1, 2, 3])
    if letter != "B":  # plain bytes of another dtype are its bits
        assert ours(Tensor(data, "float64")) == ("float64", (3,), [1.0, 2.0, 3.0])
    assert ours(Tensor(memoryview(bytes(6)).cast("B", (2, 3)))) == ("uint8", (2, 3), [[0] * 3] * 2)


ARRAYS = {
    "plain": np.arange(6.0).reshape(2, 3),
    "transposed": np.arange(6).reshape(2, 3).T,
    "strided": np.arange(12, dtype=np.int16)[::3],
    "reversed": np.arange(4, dtype=np.uint8)[::-1],
    "big-endian": np.arange(3, dtype=">f4"),
    "big-endian integer": np.arange(3, dtype=">i2").reshape(3, 1),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float16),
    "broadcast": np.broadcast_to(np.float32(1), (2, 2)),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_array_is_copied_whatever_its_layout(name):
    source = ARRAYS[name].copy(order="K") if name == "plain" else ARRAYS[name]
    tensor = Tensor(source)
    assert tensor.dtype.name == source.dtype.newbyteorder("=").name and tensor.shape == source.shape
    np.testing.assert_array_equal(tensor.numpy(), source)
    if name == "plain":
        source += 1
        assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_from_numpy_shares_memory():
    source = np.arange(4, dtype=np.float32)
    tensor = Tensor.from_numpy(source)
    source[0] = 9
    assert tensor.tolist() == [9.0, 1.0, 2.0, 3.0]
    assert np.shares_memory(tensor.numpy(), source)
    tensor += 1  # never writes to what it shares
    assert source.tolist() == [9.0, 1.0, 2.0, 3.0] and tensor.tolist() == [10.0, 2.0, 3.0, 4.0]
    frozen = np.arange(3)
    frozen.flags.writeable = False
    assert tg.from_numpy(frozen).tolist() == [0, 1, 2]


def test_numpy_gives_a_read_only_array_without_a_copy():
    tensor = tg.arange(4).realize()
    first, second = tensor.numpy(), tensor.numpy()
    assert np.shares_memory(first, second)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    copied = np.array(tensor)
    copied[0] = 7
    assert tensor.tolist() == [0, 1, 2, 3]
    assert np.asarray(tensor, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("dtype", ALL)
def test_values_of_every_dtype_go_through_torch_and_back(dtype):
    theirs = torch.tensor([[0.0, 1.0], [2.0, 1.5]]).to(getattr(torch, dtype))
    tensor = Tensor(theirs)
    assert ours(tensor) == typed(theirs)
    back = torch.from_dlpack(tensor)
    assert back.dtype == theirs.dtype and back.tolist() == theirs.tolist()
    assert ours(pickle.loads(pickle.dumps(tensor))) == ours(tensor)


def test_dlpack_in_shares_pytorchs_memory():
    theirs = torch.arange(6.0).reshape(2, 3)
    tensor = Tensor.from_dlpack(theirs)
    theirs[0, 0] = 5
    assert tensor.tolist() == [[5.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    copied = tg.from_dlpack(theirs, copy=True)
    theirs[0, 0] = 6
    assert copied.tolist()[0][0] == 5.0


def test_dlpack_out_shares_memory_with_pytorch_and_numpy():
    tensor = Tensor([1.0, 2.0, 3.0]).realize()
    address = tensor.numpy().ctypes.data
    assert torch.from_dlpack(tensor).data_ptr() == address
    assert np.from_dlpack(tensor).ctypes.data == address
    assert tensor.__dlpack_device__() == (1, 0)


def test_dlpack_of_numpy_arrays_goes_in_as_they_are():
    for source in (
        np.arange(6).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.arange(6)[::-1],
        np.zeros((0, 2)),
        np.array(3.5),
    ):
        np.testing.assert_array_equal(Tensor.from_dlpack(source).numpy(), source)


@pytest.mark.parametrize("versioned", [False, True])
def test_capsule_of_either_version_is_read_once(versioned):
    capsule = tg.arange(3).__dlpack__(max_version=(1, 0) if versioned else None)
    assert ("dltensor_versioned" if versioned else 'dltensor"') in repr(capsule)
    assert Tensor.from_dlpack(capsule).tolist() == [0, 1, 2]
    with pytest.raises(DTypeError, match="spent or not DLPack's"):
        Tensor.from_dlpack(capsule)


def test_memory_lives_as_long_as_either_side():
    theirs = torch.arange(1000.0)
    tensor = Tensor.from_dlpack(theirs)
    expected = theirs.tolist()
    del theirs
    gc.collect()
    assert tensor.tolist() == expected
    back = torch.from_dlpack(tensor)
    del tensor
    gc.collect()
    assert back.tolist() == expected


def test_memory_is_given_back_when_the_last_side_is_gone():
    gc.collect()
    before = len(dlpack._exported)
    tensor = tg.arange(10).realize()
    theirs = [torch.from_dlpack(tensor), np.from_dlpack(tensor)]
    unused = tensor.__dlpack__()
    assert len(dlpack._exported) == before + 3
    del unused
    assert len(dlpack._exported) == before + 2
    del theirs
    gc.collect()
    assert len(dlpack._exported) == before

    class Watched(np.ndarray):
        pass

    source = np.arange(5).view(Watched)
    watch = weakref.ref(source)
    shared = Tensor.from_dlpack(source)
    del source
    gc.collect()
    assert watch() is not None
    del shared
    gc.collect()
    assert watch() is None


def test_process_that_ends_with_shared_tensors_alive_ends_well():
    program = (
        "import torch, numpy, tg_frontend as tg; a = tg.arange(3); b = torch.from_dlpack(a); c = numpy.from_dlpack(a);"
        "d = tg.from_dlpack(torch.ones(3)); e = a.__dlpack__(); print(b.sum().item(), c.sum(), d.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "3", "")


def test_buffer_of_a_tensor_is_its_values_read_only():
    tensor = Tensor([[1, 2], [3, 4]])
    view = memoryview(tensor) if sys.version_info >= (3, 12) else tensor.__buffer__(0)
    assert view.readonly and view.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(BufferError, match="bfloat16 has no format in the buffer protocol"):
        Tensor([1.0], "bfloat16").__buffer__(0)


def test_as_tensor_keeps_what_fits():
    x = Tensor([1.0])
    assert tg.as_tensor(x) is x and tg.as_tensor(x, "float32") is x
    assert tg.as_tensor([1], "int8").dtype.name == "int8" and tg.tensor([1.5]).tolist() == [1.5]


ERRORS = [
    (lambda: Tensor([[1, 2], [3]]), ShapeError, "the nested sequence is ragged: want 2 items at depth 1"),
    (lambda: Tensor([1, [2]]), ShapeError, r"got \[2\] at depth 1 of a nested sequence, want a number"),
    (lambda: Tensor(["a"]), ShapeError, "got 'a' at depth 1"),
    (lambda: Tensor({}), DTypeError, "Tensor: got dict, want numbers"),
    (lambda: Tensor([2**63]), DTypeError, "an int is beyond int64"),
    (lambda: Tensor(2**63), DTypeError, "an int is beyond int64"),
    (lambda: Tensor(b"abc", "int16"), ShapeError, "got 3 bytes, want a multiple of 2 for int16"),
    (lambda: Tensor(np.array([1j])), DTypeError, "complex"),
    (lambda: Tensor(np.array(["a"])), DTypeError, "dtype: got"),
    (
        lambda: Tensor.from_numpy(np.arange(6).reshape(2, 3).T),
        ShapeError,
        "from_numpy: the array is not contiguous",
    ),
    (lambda: Tensor.from_numpy(np.arange(3, dtype=">i4")), DTypeError, "byte order"),
    (
        lambda: Tensor.from_dlpack(torch.ones(2, 3).T, copy=False),
        ShapeError,
        "from_dlpack: strides .* not contiguous",
    ),
    (
        lambda: Tensor.from_dlpack(torch.ones(2, dtype=torch.complex64)),
        DTypeError,
        "from_dlpack: type code 5",
    ),
    (lambda: torch.from_dlpack(tg.ones(2, requires_grad=True)), BufferError, "requires a gradient"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_value_that_has_no_place_here_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_dlpack_of_another_device_is_refused():
    class Elsewhere:
        def __dlpack__(self):
            raise AssertionError("must not be asked for")

        def __dlpack_device__(self):
            return (10, 0)

    with pytest.raises(DeviceError, match="from_dlpack: the memory is on a device of type 10"):
        Tensor.from_dlpack(Elsewhere())


def test_frombuffer_shares_the_bytes_from_an_offset():
    raw = bytearray(b"head" + bytes(range(8)))
    shared = tg.frombuffer(raw, dtype="uint8", shape=(2, 3), offset=5)
    assert shared.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tg.frombuffer(raw, dtype="uint16", offset=4).shape == (4,)
    with pytest.raises(ShapeError, match="got 12 bytes, want 40 from offset 0 on"):
        tg.frombuffer(raw, dtype="float32", shape=(10,))


def test_tobytes_gives_row_major_bytes():
    x = Tensor([[1, 2], [3, 4]], dtype="uint8")
    assert x.t().tobytes() == bytes([1, 3, 2, 4])
    assert Tensor([1.5], dtype="bfloat16").tobytes() == b"\xc0\x3f"
