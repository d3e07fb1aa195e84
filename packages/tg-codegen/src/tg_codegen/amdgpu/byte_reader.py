"""Bounds-checked reading of bytes that somebody else wrote.

Everything that parses a file (ELF, note, bundle, MessagePack) reads through this, so that a truncated or
corrupt input gives a `CodeObjectError` naming the offset and nothing else.
"""

from __future__ import annotations

import struct

from tg_ir.errors import TgError

__all__ = ["ByteReader", "CodeObjectError"]


class CodeObjectError(TgError, ValueError):
    """A code object that is malformed, unsupported, or asked to hold what it cannot; `offset` is in bytes."""

    def __init__(self, message: str, offset: int | None = None):
        super().__init__(message if offset is None else f"{message}; at offset {offset:#x}")
        self.message, self.offset = message, offset


class ByteReader:
    """`data` with checked access; `subject` opens every message, `start` is where `data` lies in its file."""

    __slots__ = ("data", "start", "subject")

    def __init__(self, data: bytes, subject: str, start: int = 0):
        self.data, self.subject, self.start = data, subject, start

    def error(self, message: str, offset: int) -> CodeObjectError:
        return CodeObjectError(f"{self.subject}: {message}", self.start + offset)

    def take(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise self.error(f"{what} needs {size} bytes, there are {len(self.data)}", offset)
        return self.data[offset : offset + size]

    def unpack(self, layout: struct.Struct, offset: int, what: str) -> tuple:
        if offset < 0 or offset + layout.size > len(self.data):
            raise self.error(f"{what} needs {layout.size} bytes, there are {len(self.data)}", offset)
        return layout.unpack_from(self.data, offset)

    def table(self, layout: struct.Struct, offset: int, count: int, what: str) -> list[tuple]:
        return list(layout.iter_unpack(self.take(offset, count * layout.size, f"{what} of {count} entries")))

    def text(self, offset: int, size: int, what: str) -> str:
        return self._decode(self.take(offset, size, what), offset, what)

    def c_string(self, offset: int, end: int, what: str) -> str:
        """The NUL-terminated text at `offset`, which must end before `end`."""
        stop = self.data.find(b"\0", offset, end) if 0 <= offset < end <= len(self.data) else -1
        if stop < 0:
            raise self.error(f"{what} has no end in its string table", offset)
        return self._decode(self.data[offset:stop], offset, what)

    def _decode(self, raw: bytes, offset: int, what: str) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8", offset + error.start) from error
