"""The errors that the virtual GPU reports.

TgError
└── EmulatorError            anything below; carries the rule that was broken and where the rule stands
    ├── UnsupportedError     an instruction, packet or request that the emulator does not implement
    ├── MemoryFault          an access that the page tables refuse; a real GPU would raise a page fault
    ├── DeviceFault          a reset or memory error that was asked for
    ├── PacketError          a packet that the command processor cannot execute
    └── ProgramError         a rule of the instruction set that a kernel broke; names wave, lane, PC, instruction
"""

from __future__ import annotations

from tg_ir.errors import TgError

__all__ = ["DeviceFault", "EmulatorError", "MemoryFault", "PacketError", "ProgramError", "UnsupportedError"]


class EmulatorError(TgError):
    """Anything that the virtual GPU reports."""


class UnsupportedError(EmulatorError):
    """An instruction, packet or request that the emulator does not implement."""


class MemoryFault(EmulatorError):
    """An access that the page tables refuse. `access` is "read", "write" or "execute"."""

    def __init__(self, address: int, size: int, access: str, reason: str):
        super().__init__(f"{access} of {size} bytes at {address:#x}: {reason}")
        self.address, self.size, self.access, self.reason = address, size, access, reason


class DeviceFault(EmulatorError):
    """A reset of the whole GPU after a hang, or, where `is_ecc`, after a memory error."""

    def __init__(self, is_ecc: bool):
        super().__init__("an uncorrectable ECC error" if is_ecc else "the GPU was reset after a hang")
        self.is_ecc = is_ecc


class PacketError(EmulatorError):
    """A packet that the command processor cannot execute."""


class ProgramError(EmulatorError):
    """A rule that a kernel broke: which, where in the program, and where the rule is written down."""

    def __init__(
        self,
        rule: str,
        detail: str,
        *,
        source: str = "",
        kernel: str = "",
        workgroup: tuple[int, int, int] | None = None,
        wave: int | None = None,
        lane: int | None = None,
        pc: int | None = None,
        instruction: str = "",
        address: int | None = None,
    ):
        named = {"kernel": kernel or None, "workgroup": workgroup, "wave": wave, "lane": lane}
        where = [f"{name} {value}" for name, value in named.items() if value is not None]
        if pc is not None:
            where.append(f"pc {pc:#x}")
        if instruction:
            where.append(f"`{instruction}`")
        text = f"{rule}: {detail}; {', '.join(where) or 'no place'}"
        super().__init__(f"{text} (rule: {source})" if source else text)
        self.rule, self.detail, self.source, self.kernel, self.workgroup = (
            rule,
            detail,
            source,
            kernel,
            workgroup,
        )
        self.wave, self.lane, self.pc, self.instruction, self.address = wave, lane, pc, instruction, address
