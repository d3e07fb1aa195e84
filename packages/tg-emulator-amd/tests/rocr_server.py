"""A virtual kernel for another process: the other end of rocr_shim.c."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

from tg_emulator_amd import make_gpus
from tg_emulator_amd.faults import Faults
from tg_emulator_amd.kfd import Client
from tg_emulator_amd.memory import HostMemory, Store
from tg_emulator_amd.queues import Shaders
from tg_emulator_amd.sysfs import make_tree

HELLO, IOCTL, LOCATE, OPEN, TAKE = range(1, 6)
_REQUEST, _REPLY = struct.Struct("<IIQQ"), struct.Struct("<iIQ")


class RemoteStore(Store):
    """Pages that a client in another process shares stay shared until it ends."""

    def release(self, host: HostMemory, address: int, offset: int, size: int) -> None:
        pass


class RemoteClient(Client):
    """A client whose pages were taken over by the shim."""

    def __init__(self, *arguments: object):
        self.taken: dict[int, int] = {}
        super().__init__(*arguments)

    def _adopt(self, address: int, size: int) -> int:
        return self.taken[address]


class Server:
    """Serves one process at a socket in `folder`, where its sysfs files are, too."""

    def __init__(self, target: str, folder: Path, shaders: Shaders):
        self.folder, self.shaders, self.faults = folder, shaders, Faults()
        self.gpus, self.store = make_gpus(target), RemoteStore()
        self.client: RemoteClient | None = None
        self.calls: list[tuple[int, int]] = []  # number of the ioctl, and errno
        self._renders: dict[int, int] = {}
        self._lock = threading.Lock()
        for path, text in make_tree(self.gpus).items():
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        self.path = str(folder / "socket")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while request := connection.recv(_REQUEST.size, socket.MSG_WAITALL):
                operation, descriptor, a, b = _REQUEST.unpack(request)
                if operation == HELLO:
                    self._start(a)
                    socket.send_fds(connection, [_REPLY.pack(0, 0, 0)], [self.store.descriptor])
                    continue
                error = value = 0
                try:
                    value = self._answer(operation, descriptor, a, b)
                except OSError as refused:
                    error = refused.errno
                if operation == IOCTL:
                    self.calls.append((a & 0xFF, error))
                connection.sendall(_REPLY.pack(error, 0, value))

    def _start(self, process: int) -> None:
        with self._lock:
            if self.client is None:
                host = HostMemory(process)
                self.client = RemoteClient(self.gpus, self.store, host, self.shaders, self.faults)
                self.client.render_gpu = self._renders.get

    def _answer(self, operation: int, descriptor: int, a: int, b: int) -> int:
        assert self.client is not None, "a request before the first hello"
        if operation == IOCTL:
            self.client.ioctl(a, b)
        elif operation == LOCATE:
            return self.client.locate(a, b)
        elif operation == OPEN and a:
            found = [gpu.gpu_id for gpu in self.gpus if gpu.render_minor == a]
            if not found:
                raise FileNotFoundError(2, os.strerror(2))
            self._renders[descriptor] = found[0]
        elif operation == TAKE:
            self.client.taken[a] = self.store.take(b)
            return self.client.taken[a]
        return 0

    def close(self) -> None:
        self._socket.close()
        if self.client is not None:
            self.client.close()
        self.store.close()
