"""safetensors: a length, a JSON header of names, dtypes, shapes and byte ranges, then the bytes.

Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping

from tg_frontend import Tensor, dtypes
from tg_nn.state.mapped import Entry, StateFile, aligned, atomic_write, check_shape, fail, map_file, realized

__all__ = ["open_safetensors", "save_safetensors"]

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CODES = {name: code for code, name in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def open_safetensors(path: os.PathLike | str) -> StateFile:
    """The tensors of a safetensors file.

    Raises:
        StateFileError: the header is malformed, or its ranges do not cover the file exactly.
    """
    data = memoryview(map_file(path))
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 2**64
    if length > min(_MAX_HEADER_BYTES, len(data) - 8):
        fail(path, f"a header of {length} bytes does not fit a safetensors file of {len(data)}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        fail(path, f"the safetensors header is no JSON of its kind ({error})")
    if not isinstance(header, dict):
        fail(path, "the safetensors header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        fail(path, "the safetensors metadata is not a map of texts")
    entries, ranges = {}, []
    for name, row in header.items():
        entries[name], span = _entry(path, data, 8 + length, name, row)
        ranges.append(span)
    end = 0
    for first, last in sorted(ranges):
        if first != end:
            fail(path, f"tensors overlap or leave a hole at byte {end}")
        end = last
    if 8 + length + end != len(data):
        fail(
            path,
            f"got {len(data)} bytes, want {8 + length + end}: the file is cut off or has more at its end",
        )
    return StateFile(path, entries, metadata)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _entry(
    path: os.PathLike | str, data: memoryview, base: int, name: str, row: object
) -> tuple[Entry, tuple[int, int]]:
    if not isinstance(row, dict) or not row.keys() >= {"dtype", "shape", "data_offsets"}:
        fail(path, f"tensor {name!r} lacks dtype, shape or data_offsets")
    code = row["dtype"]
    if not isinstance(code, str) or code not in _DTYPES:
        fail(path, f"tensor {name!r} has dtype {code!r}, want one of {', '.join(_CODES.values())}")
    shape, span = check_shape(path, name, row["shape"]), row["data_offsets"]
    size = math.prod(shape) * dtypes.dtype_of(_DTYPES[code]).itemsize
    if not isinstance(span, list) or len(span) != 2 or not all(type(end) is int for end in span):
        fail(path, f"tensor {name!r} has data_offsets {span!r}")
    if not 0 <= span[0] <= span[1] <= len(data) - base or span[1] - span[0] != size:
        fail(path, f"tensor {name!r} of {size} bytes has the range {span} of {len(data) - base}")
    return Entry(_DTYPES[code], shape, lambda: aligned(data, base + span[0], size)), (span[0], span[1])


def save_safetensors(
    path: os.PathLike | str, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write the tensors, all or nothing."""
    tensors, header, at = realized(tensors), {}, 0
    if metadata:
        header["__metadata__"] = metadata
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)  # so that every one is aligned
    for name in order:
        tensor, end = tensors[name], at + int(tensors[name].nbytes)
        code = _CODES["bool" if tensor.dtype.kind == "bool" else tensor.dtype.name]
        header[name] = {"dtype": code, "shape": list(map(int, tensor.shape)), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(tensors[name].tobytes())
