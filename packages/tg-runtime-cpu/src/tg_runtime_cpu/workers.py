"""The pool of native worker threads: a job goes in by one native call, and runs with no Python in it.

A job is a block: a header and a record for each step (code, arguments, workgroups, workgroups a slice). Workers run
jobs in the order of posting; `tools/generate_cpu_worker.py` says how. Callers wait in slices of `WAIT_SLICE_S`, between
which Python may raise KeyboardInterrupt; the work goes on then.

`end` stops the threads. When work is unfinished, a signal handler of ours sends each worker from wherever it is to the
end of its thread: kernels hold no locks, so nothing but the work is lost. The handler takes the signal `END_SIGNAL`
only for that moment. Workers block all other signals but faults, so that those reach Python's threads.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from tg_ir.errors import DeviceError
from tg_runtime_cpu import native_code as native
from tg_runtime_cpu.libc import call, map_pages, new_thread, protect

__all__ = ["END_SIGNAL", "Job", "WorkerPool", "clock", "copy_code"]

WAIT_SLICE_S = 0.1
END_SIGNAL = signal.SIGRTMAX - 2
IDLE_PAUSES = 2000  # about 0.1 ms before a worker sleeps
CALLER_PAUSES = 100
_MASK = 0xFFFF_FFFF
_SA_SIGINFO = 4
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, END_SIGNAL}

_ending = threading.RLock()  # a finalizer may run in a thread that holds it
_native_address = map_pages(len(native.CODE))
ctypes.memmove(_native_address, native.CODE, len(native.CODE))
protect(_native_address, len(native.CODE), mmap.PROT_READ | mmap.PROT_EXEC)
_post = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(_native_address + native.ENTRY_POST)
_wait = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)(
    _native_address + native.ENTRY_WAIT
)
_stop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_native_address + native.ENTRY_STOP)
clock = ctypes.CFUNCTYPE(ctypes.c_uint64)(_native_address + native.ENTRY_CLOCK)
copy_code = _native_address + native.ENTRY_COPY
"""The address of a kernel with arguments target, source and size in bytes, one workgroup a chunk."""


class Job:
    """Steps ready to run, in one block aligned to 64 bytes. `keep` is whatever must live while they may run."""

    __slots__ = ("_bytes", "address", "keep", "names")

    def __init__(self, names: list[str], argument_bytes: int, keep: object):
        """`argument_bytes` follow the records."""
        self.names, self.keep = names, keep
        block = bytearray(native.JOB_BYTES + native.STEP_BYTES * len(names) + argument_bytes + 64)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        skip = -address % 64
        self.address, self._bytes = address + skip, memoryview(block)[skip:]
        struct.pack_into("<Q", self._bytes, native.JOB_STEPS, len(names))

    def arguments(self, offset: int, size_bytes: int) -> tuple[int, memoryview]:
        """Address and bytes of a part of the argument space."""
        start = native.JOB_BYTES + native.STEP_BYTES * len(self.names) + offset
        return self.address + start, self._bytes[start : start + size_bytes]

    def set_step(self, index: int, code: int, arguments: int, groups: int, workers: int) -> None:
        """Slices are small enough to balance uneven work, and so many that taking them costs little."""
        slice_groups = max(1, groups // (workers * 8)) if workers > 1 else max(1, groups)
        record = native.JOB_BYTES + native.STEP_BYTES * index
        struct.pack_into("<4Q", self._bytes, record, code, arguments, groups, slice_groups)

    def running(self) -> str:
        """The name of the step that is being run."""
        (done,) = struct.unpack_from("<Q", self._bytes, native.JOB_DONE)
        return self.names[min(done, len(self.names) - 1)]

    def times(self) -> list[tuple[str, int, int]]:
        """Name, start and end of each step of the last run, in counts of the time stamp counter."""
        ends = [
            struct.unpack_from("<Q", self._bytes, native.JOB_BYTES + native.STEP_BYTES * i + native.STEP_END)[
                0
            ]
            for i in range(len(self.names))
        ]
        starts = [*struct.unpack_from("<Q", self._bytes, native.JOB_START), *ends]
        return list(zip(self.names, starts, ends, strict=False))


class WorkerPool:
    """`count` native threads and their ring of jobs."""

    def __init__(self, name: str, count: int):
        self.name, self.count = name, count
        self._lock = threading.Lock()
        self._dropped = 0
        self._jobs: list[Job | None] = [None] * native.RING_JOBS
        size = native.POOL_BYTES + native.WORKER_BYTES * count
        self._block = map_pages(size)
        pauses = IDLE_PAUSES if count <= len(os.sched_getaffinity(0)) else 1
        ctypes.c_uint64.from_address(self._block + native.PAUSES).value = pauses
        self._posted = ctypes.c_uint32.from_address(self._block + native.POSTED)
        self._completed = ctypes.c_uint32.from_address(self._block + native.COMPLETED)
        workers = [self._block + native.POOL_BYTES + native.WORKER_BYTES * i for i in range(count)]
        self._threads: list[tuple[int, int]] = []  # and their worker blocks; empty once they have ended
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
        try:
            for worker in workers:
                ctypes.c_uint64.from_address(worker + native.WORKER_POOL).value = self._block
                self._threads.append((new_thread(_native_address + native.ENTRY_WORKER, worker), worker))
        except OSError as error:
            started = len(self._threads)
            _end(self._block, self._threads, os.getpid())
            raise DeviceError(f"{name}: started {started} of {count} worker threads: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # At exit too: no thread may run while the interpreter takes itself apart.
        # The block stays: 4 KiB, which a caller in another thread may still be waiting on.
        self._finalizer = weakref.finalize(self, _end, self._block, self._threads, os.getpid())

    @property
    def ended(self) -> bool:
        """Whether the threads are no more."""
        return not self._threads

    def post(self, job: Job) -> int:
        """Append a job, waiting while the ring is full; gives the ticket to wait for."""
        with self._lock:
            posted = self.posted
            self.wait(posted - native.RING_JOBS + 1, None)
            self._raise_if_ended()
            self._jobs[posted % native.RING_JOBS] = job
            _post(self._block, job.address)  # the one place that counts, should an interrupt come in between
            return posted + 1

    def drop_done(self) -> None:
        """Let go of the jobs that are done, and of what they keep."""
        with self._lock:
            posted = self.posted
            if (posted - self._dropped) & _MASK > native.RING_JOBS:
                self._dropped = posted - native.RING_JOBS
            while (posted - self._dropped) & _MASK and self.is_done(self._dropped + 1):
                self._jobs[self._dropped % native.RING_JOBS] = None
                self._dropped += 1

    @contextmanager
    def standstill(self) -> Iterator[bool]:
        """Whether nothing is running; if so, nothing starts within the `with`."""
        free = self._lock.acquire(blocking=False)
        try:
            yield free and self.is_done(self.posted)
        finally:
            if free:
                self._lock.release()

    def is_done(self, ticket: int) -> bool:
        """Whether a job is done, or never will be."""
        return self.ended or (self._completed.value - ticket) & _MASK < 1 << 31

    def wait(self, ticket: int, timeout_s: float | None) -> bool:
        """Whether the job is done within the time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        left = WAIT_SLICE_S
        while True:
            if deadline is not None:
                left = min(WAIT_SLICE_S, max(0.0, deadline - time.monotonic()))
            timespec = (ctypes.c_long * 2)(0, int(left * 1e9))
            if _wait(self._block, ticket & _MASK, CALLER_PAUSES, ctypes.addressof(timespec)):
                return True
            self._raise_if_ended()
            if left == 0:
                return False

    @property
    def posted(self) -> int:
        """The ticket of the last job, modulo 2**32 as all tickets."""
        return self._posted.value

    def running(self) -> str:
        """What is being run, for messages."""
        job = self._jobs[self._completed.value % native.RING_JOBS]
        return job.running() if job else "nothing"

    def end(self) -> None:
        """Stop the threads, in the midst of work if there is any."""
        _end(self._block, self._threads, os.getpid())

    def forget_threads(self) -> None:
        """In the child of a fork, which has none of them."""
        self._threads.clear()

    def _raise_if_ended(self) -> None:
        if self.ended:
            raise DeviceError(f"{self.name}: this work was dropped with other work that took too long")


def _end(block: int, threads: list[tuple[int, int]], pid: int) -> None:
    if pid != os.getpid() or not threads:  # a fork copies the blocks, not the threads
        return
    posted = ctypes.c_uint32.from_address(block + native.POSTED).value
    completed = ctypes.c_uint32.from_address(block + native.COMPLETED).value
    if posted == completed:
        _stop(block)
        _join(threads)
    else:
        with _ending:
            _interrupt(threads)


def _join(threads: list[tuple[int, int]]) -> None:
    while threads:
        call("pthread_join")(threads.pop()[0], None)


def _interrupt(threads: list[tuple[int, int]]) -> None:
    # struct sigaction of glibc on x86-64: handler, mask of 128 bytes, flags, restorer
    action, before = (ctypes.c_uint64 * 19)(), (ctypes.c_uint64 * 19)()
    action[0], action[17] = _native_address + native.ENTRY_END, _SA_SIGINFO
    call("sigaction")(END_SIGNAL, ctypes.addressof(action), ctypes.addressof(before))
    while left := [
        (thread, worker)
        for thread, worker in threads
        if not ctypes.c_uint64.from_address(worker + native.WORKER_ENDED).value
    ]:
        for thread, worker in left:
            call("pthread_sigqueue")(thread, END_SIGNAL, worker)
        time.sleep(0.001)
    _join(threads)  # before the handler goes: a signal may still be on its way
    call("sigaction")(END_SIGNAL, ctypes.addressof(before), None)
