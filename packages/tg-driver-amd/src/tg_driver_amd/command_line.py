"""`tg-amd`: what GPUs there are, run a kernel of a file, measure copies and launches.

    tg-amd info
    tg-amd run file.co scale --grid 1024 --block 64 --arg out:4096 --arg f32:2.0
    tg-amd bench --device 1

An argument is `in:<file>` (a buffer with a file's bytes), `out:<bytes>` (a buffer, shown afterwards or written to
`out:<bytes>:<file>`), or a number after its type: i8 to i64, u8 to u64, f16, f32, f64.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import aql
from .device import Device, find_system, open_device
from .errors import DriverError
from .interface import find_interface
from .knobs import device as default_device
from .memory import Allocation
from .queues import AqlQueue
from .topology import TARGETS, Node

__all__ = ["main"]

_NUMBERS = {
    "i8": "b", "i16": "h", "i32": "i", "i64": "q", "u8": "B", "u16": "H", "u32": "I", "u64": "Q",
    "f16": "e", "f32": "f", "f64": "d",
}  # fmt: skip
_SHOWN_BYTES = 64
_TIMEOUT_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tg-amd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="list the GPUs")
    run = commands.add_parser("run", help="run a kernel of a code object")
    bench = commands.add_parser("bench", help="measure copies and launches")
    for each in (info, run, bench):
        each.add_argument("--device", default=None, help="0 to n, or virtual:<target>; $TG_AMD_DEVICE, or 0")
    run.add_argument("file", type=Path)
    run.add_argument("kernel")
    run.add_argument("--grid", type=_sizes, required=True, help="work-items: 1024 or 64,64,1")
    run.add_argument("--block", type=_sizes, required=True, help="work-items of a workgroup")
    run.add_argument(
        "--arg", action="append", default=[], help="in:<file>, out:<bytes>[:<file>] or <type>:<number>"
    )
    run.add_argument("--queue", choices=("aql", "pm4"), default="aql")
    options = parser.parse_args(arguments)
    try:
        return {"info": _info, "run": _run, "bench": _bench}[options.command](options)
    except (DriverError, OSError) as error:
        print(f"tg-amd: {error}", file=sys.stderr)
        return 1


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def _info(options: argparse.Namespace) -> int:
    interface, _number = find_interface(str(options.device or default_device()))
    system = find_system(interface)
    print(f"KFD interface 1.{system.kfd.minor_version}, {len(system.gpus)} GPU")
    for number, node in enumerate(system.gpus):
        print(*_describe(number, node), sep="\n")
    if not system.is_process_wide:
        system.close()
    return 0


def _describe(number: int, node: Node) -> list[str]:
    support = "" if node.target in TARGETS else ", not supported by this driver"
    lines = [
        f"GPU {number}: {node.target}{support}",
        f"  node {node.number}, GPU id {node.gpu_id}, PCI device {node['device_id']:#06x}, {node.render_path}",
        f"  {node.compute_units} compute units in {node.xccs} XCC, {node['simd_per_cu']} SIMDs each, "
        f"{node['max_waves_per_simd']} waves a SIMD, {node['max_engine_clk_fcompute']} MHz",
        f"  LDS {node['lds_size_in_kb']} KiB, memory {node.vram_bytes / 2**30:.1f} GiB"
        f"{'' if node.has_host_visible_vram else ', not visible to the host'}",
        f"  {node['num_cp_queues']} compute queues, {node['num_sdma_engines']} SDMA engines, "
        f"{node['num_sdma_xgmi_engines']} for XGMI",
    ]
    levels = {each["level"]: each["size"] for each in node.caches}
    lines.append("  caches " + ", ".join(f"L{level} {size} KiB" for level, size in sorted(levels.items())))
    for link in node.links:
        lines.append(f"  {link.kind} to node {link.node_to}, weight {link.weight}, {link.max_bandwidth} MB/s")
    return lines


def _run(options: argparse.Namespace) -> int:
    with open_device(options.device) as device:
        kernel = device.load(options.file.read_bytes())[options.kernel]
        outputs: list[tuple[int, Allocation, str]] = []
        values = [_argument(device, number, text, outputs) for number, text in enumerate(options.arg)]
        signal = device.dispatch(kernel, options.grid, options.block, values, queue=options.queue)
        signal.wait(_TIMEOUT_S)
        print(f"{kernel.name}: {signal.seconds * 1e6:.1f} us on {device}")
        for number, memory, path in outputs:
            data = device.read(memory)
            if path:
                Path(path).write_bytes(data)
            else:
                more = " ..." if len(data) > _SHOWN_BYTES else ""
                print(f"argument {number}: {data[:_SHOWN_BYTES].hex(' ', 4)}{more}")
    return 0


def _argument(
    device: Device, number: int, text: str, outputs: list[tuple[int, Allocation, str]]
) -> Allocation | bytes:
    kind, _, value = text.partition(":")
    if kind == "in":
        data = Path(value).read_bytes()
        memory = device.alloc(len(data))
        device.write(memory, data)
        return memory
    size, _, path = value.partition(":")
    if kind == "out" and size.isdecimal():
        memory = device.alloc(int(size))
        device.write(memory, bytes(int(size)))
        outputs.append((number, memory, path))
        return memory
    try:
        return struct.pack(f"<{_NUMBERS[kind]}", float(value) if kind[0] == "f" else int(value, 0))
    except (KeyError, ValueError, struct.error) as error:
        want = f"in:<file>, out:<bytes>[:<file>] or one of {', '.join(_NUMBERS)} and a number"
        raise DriverError(f"--arg: got {text!r}, want {want}") from error


def _bench(options: argparse.Namespace) -> int:
    with open_device(options.device) as device:
        print(device)
        host, near = device.alloc(1 << 26, "host"), device.alloc(1 << 26)
        other = device.alloc(1 << 26)
        for name, to, source in (
            ("host to GPU", near, host),
            ("GPU to host", host, near),
            ("GPU to GPU", other, near),
        ):
            times = []
            for _ in range(5):
                signal = device.copy(to, source)
                signal.wait(_TIMEOUT_S)
                times.append(signal.seconds)
            print(f"copy {name}: {host.size_bytes / min(times) / 1e9:.1f} GB/s")
        queue, times = device.queue(AqlQueue), []
        for _ in range(100):
            signal = device.signals.new("an empty packet")
            start = time.perf_counter()
            queue.submit(aql.build("BARRIER_AND", completion_signal=signal.address), signal).wait(_TIMEOUT_S)
            times.append(time.perf_counter() - start)
        print(
            f"packet and wait: {statistics.median(times) * 1e6:.1f} us median, {min(times) * 1e6:.1f} us best"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
