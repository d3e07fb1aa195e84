"""The calling convention of a kernel on the CPU, and its argument block.

    void kernel(const void *arguments, int64_t begin, int64_t end)

- The System V calling convention of x86-64: rdi, rsi and rdx hold the parameters; rbx, rbp, r12 to r15 and rsp are the
  caller's; the stack is aligned to 16 bytes at the call; the direction flag is clear. The kernel ends with `vzeroupper`
  if it used wide registers. It may use 1 MiB of stack. It must neither throw nor call back into Python.
- It runs the workgroups begin <= g < end of the flattened grid, g = x + grid_x * (y + grid_y * z), begin < end. Any
  thread may run any slice, several run at once; a kernel that starts sees all that kernels before it wrote. A kernel
  that needs grid_x or grid_y finds them from its scalars, as the grid is a function of those. `Binary.workgroup` has no
  meaning here. There are at most `MOST_GROUPS`.
- `arguments` is a block of `Binary.arguments.size_bytes`, aligned to 64 bytes, read-only: the address of each buffer
  (8 bytes) at `arguments.buffers[i]` and each scalar at its offset in its dtype. What `alloc` gives is aligned to 64
  bytes and its size is rounded up to 64; shared host memory and parts of buffers promise the alignment of their dtype.
- The entry is the first byte of `Binary.code`, which is position independent and is placed at a multiple of 64 bytes.
  Constants may follow the code.
- The rounding mode and the masks of MXCSR are those of the process; a kernel that changes them restores them.
- The code may use AMX when the name of its target says `amx`: the runtime asks Linux for the permission at `load`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tg_ir.errors import DeviceError
from tg_ir.protocols import Binary
from tg_ir.symbolic import evaluate
from tg_runtime_cpu.code_memory import Code

__all__ = ["SCALAR_FORMATS", "LoadedBinary"]

MOST_GROUPS = (1 << 32) - 2
SCALAR_FORMATS = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I",
    "int64": "q", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBinary:
    """A binary whose code lies in executable memory."""

    binary: Binary
    code: Code

    def write_arguments(
        self, block: memoryview, addresses: Sequence[int], scalars: Mapping[str, int]
    ) -> None:
        """Fill an argument block. Raises: DeviceError for what is missing or does not fit."""
        layout, name = self.binary.arguments, self.binary.entry
        if len(addresses) != len(layout.buffers):
            raise DeviceError(f"kernel {name}: got {len(addresses)} buffers, want {len(layout.buffers)}")
        for offset, address in zip(layout.buffers, addresses, strict=True):
            struct.pack_into("<Q", block, offset, address)
        for scalar, offset, dtype in layout.scalars:
            value = scalars.get(scalar)
            if value is None:
                raise DeviceError(f"kernel {name}: got no value for scalar {scalar}")
            try:
                struct.pack_into("<" + SCALAR_FORMATS[dtype], block, offset, value)
            except (struct.error, OverflowError):
                raise DeviceError(f"kernel {name}: scalar {scalar}: got {value!r}, want {dtype}") from None

    def groups(self, scalars: Mapping[str, int]) -> int:
        """How many workgroups there are for these scalars."""
        total = 1
        for extent in self.binary.grid:
            total *= extent if isinstance(extent, int) else int(evaluate(extent, scalars))
        if total > MOST_GROUPS:
            raise DeviceError(
                f"kernel {self.binary.entry}: got {total} workgroups, want at most {MOST_GROUPS}"
            )
        return total
