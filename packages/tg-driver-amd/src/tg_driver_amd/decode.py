"""Print the packets of a ring: `python -m tg_driver_amd.decode --target gfx942 --kind pm4 ring.bin`.

The file holds the ring's bytes; `-` is standard input. With --hex it is text of hexadecimal dwords.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import aql, pm4, sdma
from .topology import TARGETS

__all__ = ["decode_ring", "main"]


def decode_ring(kind: str, major: int, data: bytes) -> list[str]:
    """A line for each packet: offset in bytes, name, and the fields that are not 0."""
    dwords = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
    readers = {
        "pm4": lambda: pm4.decode(major, dwords),
        "aql": lambda: aql.decode(dwords),
        "sdma": lambda: sdma.decode(sdma.version_of(major), dwords),
    }
    return [f"{4 * at:#06x} {name}{_text(fields.items())}" for at, name, fields in readers[kind]()]


def _text(fields: Iterable[tuple[str, object]]) -> str:
    shown = []
    for name, value in fields:
        if isinstance(value, list) and value:
            shown.append(f" {name}=[{', '.join(f'{each:#x}' for each in value)}]")
        elif isinstance(value, int) and value:
            shown.append(f" {name}={value:#x}" if value > 9 else f" {name}={value}")
    return "".join(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="tg_driver_amd.decode", description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the ring's bytes; - is standard input")
    parser.add_argument("--target", choices=TARGETS, default="gfx942")
    parser.add_argument("--kind", choices=("pm4", "aql", "sdma"), default="pm4")
    parser.add_argument("--hex", action="store_true", help="the file is text of hexadecimal dwords")
    options = parser.parse_args(arguments)
    data = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    if options.hex:
        data = b"".join(struct.pack("<I", int(each, 16)) for each in data.decode().split())
    print(*decode_ring(options.kind, TARGETS[options.target], data), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
