"""The reference engine: evaluates graphs with the NumPy interpreter. Slow, and right."""

from __future__ import annotations

from collections.abc import Sequence

from tg_ir.dtypes import DType
from tg_ir.errors import DeviceError
from tg_ir.graph.nodes import Node
from tg_ir.protocols import Buffer

__all__ = ["ReferenceEngine"]


class ReferenceEngine:
    """An `Engine` (tg_ir.protocols) whose devices `REF`, `REF:1`, .. are all the host's memory."""

    def devices(self) -> Sequence[str]:
        """The default device; `REF:1`, `REF:2`, .. exist as well."""
        return ("REF",)

    def knows(self, kind: str) -> bool:
        """`REF` it is."""
        return kind == "REF"

    def realize(self, nodes: Sequence[Node]) -> None:
        """Fill each node with its value."""
        from tg_ir.graph.interpret import interpret_graph
        from tg_ir.numpy_dtypes import encode

        wanted = [node for node in nodes if node.value is None]
        for node, array in zip(wanted, interpret_graph(wanted), strict=True):
            bits = encode(array, node.dtype)
            bits = bits.copy() if not bits.flags.c_contiguous or bits.base is not None else bits
            node.fill(Buffer(array.shape, node.dtype, node.device, bits))

    def upload(self, data: memoryview, shape: tuple[int, ...], dtype: DType, device: str) -> Buffer:
        """A buffer with a copy of `data`."""
        return self.share(memoryview(bytes(data)), shape, dtype, device)

    def share(self, data: memoryview, shape: tuple[int, ...], dtype: DType, device: str) -> Buffer:
        """A buffer over `data` itself."""
        import numpy as np

        from tg_ir.numpy_dtypes import numpy_dtype

        if device.partition(":")[0] != "REF":
            raise DeviceError(
                f"device {device!r}: the reference engine has REF, REF:1, ..; install tg for others"
            )
        return Buffer(shape, dtype, device, np.frombuffer(data, numpy_dtype(dtype)).reshape(shape))

    def download(self, buffer: Buffer) -> memoryview:
        """The bytes of `buffer`, in place."""
        import numpy as np

        return memoryview(np.ascontiguousarray(buffer.memory).reshape(-1).view(np.uint8)).cast("B")

    def synchronize(self, device: str, timeout_s: float | None = None) -> None:
        """Nothing runs on after `realize`."""
