"""The virtual machine as a driver sees it: the kernel's calls, for a process that is this one.

interface = open_virtual("gfx942*2")      two MI300X in one hive
interface = open_virtual("gfx942/cpx")    one, in 8 partitions of one XCC
interface = open_virtual("gfx1100+gfx1201")
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import select
from collections.abc import Sequence

from .errors import EmulatorError
from .events import refuse
from .faults import Faults
from .interface import Dispatch, Figures, Memory
from .kfd import Client
from .memory import PAGE_BYTES, HostMemory, Store, map_pages, unmap_pages
from .profiles import Profile, profile
from .queues import Shaders
from .sysfs import Gpu, make_tree

__all__ = ["VirtualKernel", "make_gpus", "open_virtual"]

_FIRST_RENDER_MINOR = 128
_MODES = {"": 1, "spx": 1, "dpx": 2, "qpx": 4, "cpx": 8}
_MAP_FIXED, _MAP_ANONYMOUS = 0x10, 0x20


def _run_dispatch(dispatch: Dispatch, memory: Memory, row: Profile) -> Figures:
    return importlib.import_module(f"{__package__}.isa").run_dispatch(dispatch, memory, row)


def make_gpus(text: str) -> list[Gpu]:
    """GPUs by words apart by "+": a target, then perhaps "/" and a partition mode, "*" and a count.

    Raises: EmulatorError for anything else.
    """
    gpus: list[Gpu] = []
    chosen = []
    for word in text.split("+"):
        match = re.fullmatch(r"(gfx\w+)(?:/(\w+))?(?:\*(\d+))?", word)
        if match is None or (match[2] or "") not in _MODES:
            raise EmulatorError(
                f"virtual GPU: got {word!r}, want a target like gfx942, gfx942/cpx or gfx942*2"
            )
        row, parts = profile(match[1]), _MODES[match[2] or ""]
        if row.xccs % parts:
            raise EmulatorError(f"virtual GPU: got {word!r}, want a mode for {row.xccs} XCC")
        chosen += [(row, parts)] * int(match[3] or 1)
    for row, parts in chosen:
        for _ in range(parts):
            number = len(gpus)
            hive = 0x10020000 if row.xgmi_engines and (parts > 1 or len(chosen) > 1) else 0
            share = row.vram_bytes // parts
            minor, gpu_id = _FIRST_RENDER_MINOR + number, 0x1000 + 0x101 * (number + 1)
            gpus.append(Gpu(gpu_id, number + 1, minor, row, row.xccs // parts, share, hive))
    return gpus


class VirtualKernel:
    """A kernel interface with virtual GPUs behind it; see `tg_driver_amd.interface` for what the calls are.

    `faults` plans faults, `reports` holds what the GPUs found wrong, `figures` what each dispatch did.
    """

    def __init__(self, gpus: Sequence[Gpu], run_dispatch: Shaders = _run_dispatch, is_loaded: bool = True):
        self.gpus, self.faults, self._shaders = list(gpus), Faults(), run_dispatch
        self.tree = make_tree(self.gpus) if is_loaded else {}
        self.client: Client | None = None
        self.store: Store | None = None
        self.reports: list[EmulatorError] = []
        self.figures: list[Figures] = []
        self._files: dict[int, str] = {}

    def open(self, path: str) -> int:
        """A descriptor of /dev/kfd or of a render node. Raises: OSError ENOENT."""
        names = {"/dev/kfd"} | {f"/dev/dri/renderD{gpu.render_minor}" for gpu in self.gpus}
        if not self.tree or path not in names:
            raise refuse(errno.ENOENT)
        descriptor = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._files[descriptor] = path
        if path == "/dev/kfd" and self.client is None:
            self.store = Store()
            self.client = Client(self.gpus, self.store, HostMemory(os.getpid()), self._shaders, self.faults)
            self.client.render_gpu = self._render_gpu
            self.client.reports, self.figures = self.reports, self.client.figures
        return descriptor

    def _render_gpu(self, descriptor: int) -> int | None:
        path = self._files.get(descriptor)
        return next((gpu.gpu_id for gpu in self.gpus if path == f"/dev/dri/renderD{gpu.render_minor}"), None)

    def close(self, descriptor: int) -> None:
        """Close a file; with the last /dev/kfd the client and all it held are gone."""
        path = self._files.pop(descriptor, None)
        os.close(descriptor)
        if self.client is not None and descriptor in self.client.smi:
            os.close(self.client.smi.pop(descriptor)[1])
        if path == "/dev/kfd" and path not in self._files.values() and self.client is not None:
            self.client.close()
            self.store.close()
            self.client = self.store = None

    def ioctl(self, descriptor: int, request: int, address: int) -> None:
        if self._files.get(descriptor) != "/dev/kfd" or self.client is None:
            raise refuse(errno.EBADF if descriptor not in self._files else errno.ENOTTY)
        self.client.ioctl(request, address)

    def mmap(self, address: int, size: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
        if flags & _MAP_ANONYMOUS:
            return map_pages(address, size, protection, flags, -1, 0)
        path = self._files.get(descriptor)
        if path is None or self.client is None or self.store is None:
            raise refuse(errno.EBADF)
        if path == "/dev/kfd":
            offset = self.client.locate(offset, size)
        elif not any(each.offset == offset and size <= each.size for each in self.client.buffers.values()):
            raise refuse(errno.EINVAL)
        return map_pages(address, size, protection, flags, self.store.descriptor, offset)

    def munmap(self, address: int, size: int) -> None:
        if address % PAGE_BYTES:
            raise refuse(errno.EINVAL)
        unmap_pages(address, size)

    def poll(self, descriptor: int, timeout_ms: int) -> bool:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(timeout_ms))

    def read(self, source: str | int) -> bytes:
        if isinstance(source, int):
            return os.read(source, 1 << 16)
        if source not in self.tree:
            raise refuse(errno.ENOENT)
        return self.tree[source].encode()

    def write(self, descriptor: int, data: bytes) -> None:
        """Which SMI events are wanted; all are sent."""
        if self.client is None or descriptor not in self.client.smi or len(data) != 8:
            raise refuse(errno.EINVAL)

    def log(self) -> list[str]:
        return [str(error) for error in self.reports[-1:]]


def open_virtual(text: str, run_dispatch: Shaders = _run_dispatch) -> VirtualKernel:
    """A kernel interface with the GPUs that `text` describes; see `make_gpus`."""
    return VirtualKernel(make_gpus(text), run_dispatch)
