"""A hardware queue: ring, pointers and doorbell, and the processor of its packets, which runs as a coroutine.

`step` lets a queue go on until it must wait: for its doorbell, for memory that another queue writes, or for a
dependency. Whatever goes wrong in it stops that queue alone and is reported to the client as KFD would.
Source: Linux 7.2, amdkfd, kfd_mqd_manager_v9.c (units of the pointers); AMD's ROCr, amd_hsa_queue.h and
amd_hsa_signal.h; HSA Platform System Architecture 1.2, 2.8.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .coherence import Caches, ShaderMemory
from .errors import DeviceFault, EmulatorError, PacketError
from .interface import Dispatch, Figures, Memory
from .memory import AddressSpace
from .profiles import Profile

if TYPE_CHECKING:
    from .sysfs import Gpu

_LOG = logging.getLogger("tg_emulator_amd")

__all__ = ["Agent", "Queue", "Shaders", "compare", "gpu_clock"]

Shaders = Callable[[Dispatch, Memory, Profile], Figures]
NOT_RUNG = (1 << 64) - 1
_TICK_NS = 10  # the constant clock of 100 MHz


def gpu_clock() -> int:
    return time.monotonic_ns() // _TICK_NS


_COMPARE: dict[int, Callable[[int, int], bool]] = {
    0: lambda value, reference: True,
    1: lambda value, reference: value < reference,
    2: lambda value, reference: value <= reference,
    3: lambda value, reference: value == reference,
    4: lambda value, reference: value != reference,
    5: lambda value, reference: value >= reference,
    6: lambda value, reference: value > reference,
}


def compare(function: int, value: int, reference: int) -> bool:
    """The functions of WAIT_REG_MEM and POLL_REGMEM. Raises: PacketError for 7."""
    if function not in _COMPARE:
        raise PacketError(f"compare function: got {function}, want 0 to 6")
    return _COMPARE[function](value, reference)


@dataclass(slots=True)
class Agent:
    """What a queue needs of its GPU."""

    gpu: Gpu
    memory: AddressSpace
    caches: Caches
    run_dispatch: Shaders
    interrupt: Callable[[int], None]
    figures: list[Figures]
    take_fault: Callable[[str], bool]

    @property
    def profile(self) -> Profile:
        return self.gpu.profile

    # Reading and writing numbers.

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "little")

    def write_u32(self, address: int, value: int) -> None:
        self.memory.write(_aligned(address, 4), struct.pack("<I", value & 0xFFFFFFFF))

    def write_u64(self, address: int, value: int) -> None:
        self.memory.write(_aligned(address, 8), struct.pack("<Q", value & (1 << 64) - 1))

    def read_dwords(self, address: int, count: int, access: str = "read") -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self.memory.read(_aligned(address, 4), 4 * count, access))

    def copy(self, destination: int, source: int, size: int) -> None:
        self.memory.check(destination, size, "write")
        self.memory.check(source, size, "read")
        self.caches.copied(self.memory.parts(source, size), to=False)
        self.caches.copied(self.memory.parts(destination, size), to=True)
        for at in range(0, size, 1 << 24):
            part = min(1 << 24, size - at)
            self.memory.write(destination + at, self.memory.read(source + at, part))

    def fill(self, address: int, pattern: bytes, size: int) -> None:
        self.memory.check(address, size, "write")
        self.caches.copied(self.memory.parts(address, size), to=True)
        for at in range(0, size, 1 << 20):
            self.memory.write(address + at, pattern * (min(1 << 20, size - at) // len(pattern)))

    def atomic(self, operation: int, address: int, source: int, reference: int) -> None:
        """TC_OP's returning integer operations, 32 bits from 0x00 and 64 bits from 0x20 on."""
        bits = 64 if operation & 0x20 else 32
        old = self.read_u64(address) if bits == 64 else self.read_u32(address)
        value = source & (1 << bits) - 1
        results = {
            0x07: value,
            0x08: value if old == reference & (1 << bits) - 1 else old,
            0x0F: old + value,
            0x10: old - value,
            0x12: min(old, value),
            0x14: max(old, value),
            0x15: old & value,
            0x16: old | value,
            0x17: old ^ value,
        }
        if operation & ~0x60 not in results or operation & 0x40:
            raise PacketError(f"atomic operation: got {operation:#x}, want an integer one that returns")
        (self.write_u64 if bits == 64 else self.write_u32)(address, results[operation & ~0x60])

    def launch(self, dispatch: Dispatch) -> None:
        for kind in ("reset", "ecc"):
            if self.take_fault(kind):
                raise DeviceFault(is_ecc=kind == "ecc")
        if self.take_fault("page_fault"):
            self.memory.check(0x1000, 4, "read")
        memory = ShaderMemory(self.memory, self.caches)
        self.figures.append(self.run_dispatch(dispatch, memory, self.profile))
        self.caches.end_dispatch()


def _aligned(address: int, size: int) -> int:
    if address % size:
        raise PacketError(f"address: got {address:#x}, want a multiple of {size}")
    return address


class Queue:
    """One queue. `pointer_unit` is how many bytes one step of the pointers is; `program` yields when it must wait."""

    pointer_unit = 4

    def __init__(
        self,
        agent: Agent,
        queue_id: int,
        ring: int,
        ring_bytes: int,
        read_pointer: int,
        write_pointer: int,
        doorbell_value: Callable[[], int],
    ):
        self.agent, self.queue_id, self.ring, self.ring_bytes = agent, queue_id, ring, ring_bytes
        self.read_pointer, self.write_pointer, self.doorbell_value = (
            read_pointer,
            write_pointer,
            doorbell_value,
        )
        self.position = 0  # in units, since the start
        self._busy = threading.Lock()
        self.is_stopped = False
        self.is_enabled = True
        self.error: EmulatorError | None = None
        self._program: Iterator[None] | None = None

    def available(self) -> int:
        """Units that were announced and not taken."""
        raw = self.doorbell_value()
        return 0 if raw == NOT_RUNG else max(0, raw - self.position)

    def program(self) -> Iterator[None]:
        """Take and run what is available; subclasses know the packets."""
        raise NotImplementedError

    def step(self) -> bool:
        """Go on until the queue must wait; whether anything was done."""
        with self._busy:
            return self._step()

    def stop(self) -> None:
        """Take no more packets; the one that runs is done when this returns."""
        self.is_stopped = True
        with self._busy:
            self._program = None

    def _step(self) -> bool:
        if self.is_stopped or not self.is_enabled or (self._program is None and not self.available()):
            return False
        if self._program is None:
            if self.agent.take_fault("hang"):
                self.is_stopped = True
                return False
            self._program = self.program()
        try:
            next(self._program)
            return False
        except StopIteration:
            self._program = None
            return True
        except EmulatorError as error:
            self.error, self.is_stopped = error, True
            return True
        except Exception as error:  # a mistake of the emulator's own must end the client's wait, too
            _LOG.exception("the emulator failed")
            self.error, self.is_stopped = EmulatorError(f"the emulator failed: {error!r}"), True
            return True

    def take(self, units: int) -> None:
        """Move the read pointer on."""
        self.position += units
        self.agent.write_u64(self.read_pointer, self.position)

    def ring_bytes_at(self, position: int, size: int) -> bytes:
        """`size` bytes of the ring from a position in bytes on."""
        at = position % self.ring_bytes
        head = min(size, self.ring_bytes - at)
        data = self.agent.memory.read(self.ring + at, head)
        return data + self.agent.memory.read(self.ring, size - head) if size > head else data
