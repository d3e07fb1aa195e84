"""Files by key, kept between processes: whole or not there, and no more of them than a size allows.

A file is its SHA-256 and then the content. It is written under another name and renamed, so that no process sees half
of one; whatever was cut short or altered does not match its checksum and counts as missing. What was used longest ago
goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

__all__ = ["DiskCache"]

_WRITES_BETWEEN_TRIMS = 64
_CHECKSUM_BYTES = 32


class DiskCache:
    """At most about `limit_bytes` in `folder`. A folder that cannot be written to makes it a cache of nothing."""

    def __init__(self, folder: Path, limit_bytes: int):
        self.folder, self.limit_bytes = folder, limit_bytes
        self._writes = 0

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def get(self, key: str) -> bytes | None:
        """The content under a key."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        content = data[_CHECKSUM_BYTES:]
        if hashlib.sha256(content).digest() != data[:_CHECKSUM_BYTES]:
            with contextlib.suppress(OSError):  # another process may have removed it
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # only the order of removal depends on it
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep the content under a key."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}")
            written.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(written, path)
        except OSError:
            return  # no space or no right to write: the next process computes it again
        self._writes += 1
        if self._writes % _WRITES_BETWEEN_TRIMS == 1:
            self.trim()

    def trim(self) -> None:
        """Remove what was used longest ago, down to three quarters of the limit."""
        found = []
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.limit_bytes:
            return
        for _, size, path in sorted(found):
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
            if total <= self.limit_bytes * 3 // 4:
                return
