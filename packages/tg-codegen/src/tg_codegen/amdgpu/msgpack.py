"""MessagePack, the format of the metadata note: bytes to Python values and back.

Maps become dicts, arrays lists; the rest is what it is in Python. Refused are extension types and keys that
are not text: no code object has them.
Source: the MessagePack specification (msgpack.org).
"""

from __future__ import annotations

import struct

from .byte_reader import ByteReader, CodeObjectError

__all__ = ["pack", "unpack"]

_MAX_DEPTH = 32

# First byte -> layout of the number that follows it.
_NUMBERS = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"),
    0xD1: struct.Struct(">h"),
    0xD2: struct.Struct(">i"),
    0xD3: struct.Struct(">q"),
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = tuple(_NUMBERS[code] for code in (0xCC, 0xCD, 0xCE))
# First byte -> what it starts and the layout of its length.
_SIZED = {
    first + size: (kind, _LENGTHS[size + 3 - count])
    for kind, first, count in (("bin", 0xC4, 3), ("str", 0xD9, 3), ("array", 0xDC, 2), ("map", 0xDE, 2))
    for size in range(count)
}
# Integers in order of preference: first byte, lowest, highest.
_INTEGERS = [(0xCC + size, 0, (1 << (8 << size)) - 1) for size in range(4)] + [
    (0xD0 + size, -1 << ((8 << size) - 1), -1) for size in range(4)
]


def pack(value: object) -> bytes:
    """`value` in the shortest encoding of each of its parts.

    Raises: CodeObjectError for a type or an integer that MessagePack does not have.
    """
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def _pack(value: object, out: bytearray) -> None:
    if value is None or isinstance(value, bool):
        out.append(0xC0 if value is None else 0xC2 + value)
    elif isinstance(value, int):
        _pack_integer(value, out)
    elif isinstance(value, float):
        out += b"\xcb" + _NUMBERS[0xCB].pack(value)
    elif isinstance(value, str):
        raw = value.encode()
        _pack_head(len(raw), out, 0xA0, 32, 0xD9, _LENGTHS)
        out += raw
    elif isinstance(value, bytes):
        _pack_head(len(value), out, 0, 0, 0xC4, _LENGTHS)
        out += value
    elif isinstance(value, (list, tuple)):
        _pack_head(len(value), out, 0x90, 16, 0xDC, _LENGTHS[1:])
        for item in value:
            _pack(item, out)
    elif isinstance(value, dict):
        _pack_head(len(value), out, 0x80, 16, 0xDE, _LENGTHS[1:])
        for key, item in value.items():
            _pack(key, out)
            _pack(item, out)
    else:
        raise CodeObjectError(f"metadata: got a {type(value).__name__}, want what MessagePack holds")


def _pack_integer(value: int, out: bytearray) -> None:
    if -32 <= value < 128:
        out.append(value & 0xFF)
        return
    for code, lowest, highest in _INTEGERS:
        if lowest <= value <= highest:
            out.append(code)
            out += _NUMBERS[code].pack(value)
            return
    raise CodeObjectError(f"metadata: got the integer {value}, want at most 64 bits")


def _pack_head(size: int, out: bytearray, fixed: int, fixed_limit: int, first: int, layouts: tuple) -> None:
    if size < fixed_limit:
        out.append(fixed | size)
        return
    step = next(step for step, layout in enumerate(layouts) if size < 1 << (8 * layout.size))
    out.append(first + step)
    out += layouts[step].pack(size)


def unpack(data: bytes, start: int = 0) -> object:
    """The one value that `data` holds; `start` is added to the offsets in errors.

    Raises: CodeObjectError for truncated, trailing, too deeply nested or unknown input.
    """
    value, end = _unpack(ByteReader(data, "MessagePack", start), 0, 0)
    if end != len(data):
        raise CodeObjectError(f"MessagePack: {len(data) - end} bytes follow the value", start + end)
    return value


def _unpack(reader: ByteReader, at: int, depth: int) -> tuple[object, int]:
    (code,) = reader.take(at, 1, "value")
    if code < 0x80 or code >= 0xE0:
        return (code if code < 0x80 else code - 256), at + 1
    if code in _CONSTANTS:
        return _CONSTANTS[code], at + 1
    if code in _NUMBERS:
        return reader.unpack(_NUMBERS[code], at + 1, "number")[0], at + 1 + _NUMBERS[code].size
    start, at = at, at + 1
    if code < 0xC0:
        kind, size = (
            ("map", code & 15) if code < 0x90 else ("array", code & 15) if code < 0xA0 else ("str", code & 31)
        )
    elif code in _SIZED:
        kind, layout = _SIZED[code]
        (size,) = reader.unpack(layout, at, "length")
        at += layout.size
    else:
        raise reader.error(f"type byte {code:#04x} is not supported", start)
    if kind == "str":
        return reader.text(at, size, "string"), at + size
    if kind == "bin":
        return reader.take(at, size, "binary"), at + size
    if depth == _MAX_DEPTH:
        raise reader.error(f"nested deeper than {_MAX_DEPTH}", start)
    return _unpack_items(reader, kind, size, at, depth)


def _unpack_items(reader: ByteReader, kind: str, size: int, at: int, depth: int) -> tuple[object, int]:
    # Every item takes a byte at least, so a huge count in a small file ends here and not in a huge loop.
    reader.take(at, size if kind == "array" else 2 * size, kind)
    if kind == "array":
        items = []
        for _ in range(size):
            item, at = _unpack(reader, at, depth + 1)
            items.append(item)
        return items, at
    mapping: dict[str, object] = {}
    for _ in range(size):
        key_at = at
        key, at = _unpack(reader, at, depth + 1)
        if not isinstance(key, str) or key in mapping:
            raise reader.error("a map key is not text or stands twice", key_at)
        mapping[key], at = _unpack(reader, at, depth + 1)
    return mapping, at
