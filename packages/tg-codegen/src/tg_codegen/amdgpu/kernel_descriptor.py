"""The kernel descriptor: 64 bytes from which the command processor sets up a kernel's waves.

`KernelDescriptor` has one field for each `.amdhsa_*` directive of the assembler, named without the prefix. A
field that is one bit field says where it lies in the 512 bits, for each generation that has it, and what it
defaults to; the rest (register counts, `user_sgpr_count`, `accum_offset`) are computed in `encode`
and `decode`.
Source: LLVM 22, AMDGPUUsage, "Code Object V3 Kernel Descriptor", the tables of compute_pgm_rsrc1, 2 and 3,
and "AMDHSA Kernel Assembler Directives"; defaults and checks as llvm-mc 22 has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from .byte_reader import CodeObjectError
from .target_id import GENERATIONS, TargetId

__all__ = ["DESCRIPTOR_BYTES", "KernelDescriptor"]

DESCRIPTOR_BYTES = 64

# First bit of each word in the descriptor.
_ENTRY_OFFSET, _RSRC3, _RSRC1, _RSRC2, _PROPERTIES, _PRELOAD = 128, 352, 384, 416, 448, 464
_VGPR_COUNT, _SGPR_COUNT = (_RSRC1, 6), (_RSRC1 + 6, 4)
_USER_SGPR_COUNT, _ACCUM_OFFSET = (_RSRC2 + 1, 5), (_RSRC3, 6)
_MAX_USER_SGPRS = 16

_ALL = tuple(GENERATIONS)
_CDNA, _RDNA, _NOT_RDNA4 = ("cdna3",), ("rdna3", "rdna4"), ("cdna3", "rdna3")


def _bits(
    low: int, width: int = 1, default: int = 0, on: tuple[str, ...] = _ALL, user_sgprs: int = 0
) -> int | None:
    layout = dict.fromkeys(on, (low, width, default))
    return field(default=None, metadata={"layout": layout, "user_sgprs": user_sgprs})


def _bits_by_generation(**layout: tuple[int, int, int]) -> int | None:
    return field(default=None, metadata={"layout": layout, "user_sgprs": 0})


@dataclass(slots=True)
class KernelDescriptor:
    """A field that is None has the target's default; `decode` leaves None only what the target lacks.

    `next_free_vgpr` and `next_free_sgpr` count the kernel's own registers; decoding gives them rounded up to
    the granule, and 0 SGPRs where the generation allocates all. `reserve_vcc` and `reserve_xnack_mask` change
    no bit: the supported generations always allocate both. `unnamed_bits` holds the bits that no directive
    names, so that `encode` inverts `decode` on every valid descriptor.
    """

    next_free_vgpr: int
    next_free_sgpr: int
    accum_offset: int | None = None
    group_segment_fixed_size: int | None = _bits(0, 32)
    private_segment_fixed_size: int | None = _bits(32, 32)
    kernarg_size: int | None = _bits(64, 32)
    shared_vgpr_count: int | None = _bits(_RSRC3, 4, on=("rdna3",))
    inst_pref_size: int | None = _bits_by_generation(rdna3=(_RSRC3 + 4, 6, 0), rdna4=(_RSRC3 + 4, 8, 0))
    tg_split: int | None = _bits(_RSRC3 + 16, on=_CDNA)
    reserve_vcc: int | None = None
    reserve_xnack_mask: int | None = None
    float_round_mode_32: int | None = _bits(_RSRC1 + 12, 2)
    float_round_mode_16_64: int | None = _bits(_RSRC1 + 14, 2)
    float_denorm_mode_32: int | None = _bits(_RSRC1 + 16, 2)
    float_denorm_mode_16_64: int | None = _bits(_RSRC1 + 18, 2, default=3)
    dx10_clamp: int | None = _bits(_RSRC1 + 21, default=1, on=_NOT_RDNA4)
    round_robin_scheduling: int | None = _bits(_RSRC1 + 21, on=("rdna4",))
    ieee_mode: int | None = _bits(_RSRC1 + 23, default=1, on=_NOT_RDNA4)
    fp16_overflow: int | None = _bits(_RSRC1 + 26)
    workgroup_processor_mode: int | None = _bits(_RSRC1 + 29, default=1, on=_RDNA)
    memory_ordered: int | None = _bits(_RSRC1 + 30, default=1, on=_RDNA)
    forward_progress: int | None = _bits(_RSRC1 + 31, default=1, on=_RDNA)
    enable_private_segment: int | None = _bits(_RSRC2)
    user_sgpr_count: int | None = None
    system_sgpr_workgroup_id_x: int | None = _bits(_RSRC2 + 7, default=1)
    system_sgpr_workgroup_id_y: int | None = _bits(_RSRC2 + 8)
    system_sgpr_workgroup_id_z: int | None = _bits(_RSRC2 + 9)
    system_sgpr_workgroup_info: int | None = _bits(_RSRC2 + 10)
    system_vgpr_workitem_id: int | None = _bits(_RSRC2 + 11, 2)
    exception_fp_ieee_invalid_op: int | None = _bits(_RSRC2 + 24)
    exception_fp_denorm_src: int | None = _bits(_RSRC2 + 25)
    exception_fp_ieee_div_zero: int | None = _bits(_RSRC2 + 26)
    exception_fp_ieee_overflow: int | None = _bits(_RSRC2 + 27)
    exception_fp_ieee_underflow: int | None = _bits(_RSRC2 + 28)
    exception_fp_ieee_inexact: int | None = _bits(_RSRC2 + 29)
    exception_int_div_zero: int | None = _bits(_RSRC2 + 30)
    user_sgpr_dispatch_ptr: int | None = _bits(_PROPERTIES + 1, user_sgprs=2)
    user_sgpr_queue_ptr: int | None = _bits(_PROPERTIES + 2, user_sgprs=2)
    user_sgpr_kernarg_segment_ptr: int | None = _bits(_PROPERTIES + 3, user_sgprs=2)
    user_sgpr_dispatch_id: int | None = _bits(_PROPERTIES + 4, user_sgprs=2)
    user_sgpr_private_segment_size: int | None = _bits(_PROPERTIES + 6, user_sgprs=1)
    wavefront_size32: int | None = _bits(_PROPERTIES + 10, default=1, on=_RDNA)
    uses_dynamic_stack: int | None = _bits(_PROPERTIES + 11)
    user_sgpr_kernarg_preload_length: int | None = _bits(_PRELOAD, 7, on=_CDNA, user_sgprs=1)
    user_sgpr_kernarg_preload_offset: int | None = _bits(_PRELOAD + 7, 9, on=_CDNA)
    unnamed_bits: int = 0

    def value(self, name: str, target: TargetId | str) -> int:
        """A bit field's value, or the target's default where none is set."""
        value = getattr(self, name)
        return _LAYOUT[TargetId.parse(target).generation.name][name][2] if value is None else value

    def wave_size(self, target: TargetId | str) -> int:
        target = TargetId.parse(target)
        sizes = target.generation.vgpr_granule
        return 32 if 32 in sizes and self.value("wavefront_size32", target) else 64

    def sgpr_count(self, target: TargetId | str) -> int:
        """SGPRs as the metadata counts them: the kernel's own and the special ones."""
        generation = TargetId.parse(target).generation
        vcc = 2 if self.reserve_vcc is None else 2 * self.reserve_vcc
        # Preloaded arguments occupy their registers even when no instruction names them.
        own = max(self.next_free_sgpr, self._user_sgprs() if self.user_sgpr_kernarg_preload_length else 0)
        return own + (generation.extra_sgprs or vcc)

    def directives(self) -> Iterator[tuple[str, int]]:
        """The `.amdhsa_*` directives that say the same: name without prefix, value."""
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and item.name != "unnamed_bits":
                yield item.name, value

    def encode(self, target: TargetId | str, entry_offset_bytes: int = 0) -> bytes:
        """The 64 bytes; `entry_offset_bytes` leads from the descriptor to the kernel's first instruction.

        Raises: CodeObjectError naming a directive that is out of range, missing or not of this target.
        """
        target = TargetId.parse(target)
        layout = _LAYOUT[target.generation.name]
        bits = self.unnamed_bits | (entry_offset_bytes & (1 << 64) - 1) << _ENTRY_OFFSET
        for name in _BIT_FIELDS:
            value = getattr(self, name)
            if name not in layout:
                if value is not None:
                    raise CodeObjectError(
                        f".amdhsa_{name}: got {value}, want none; {target.processor.name} has no such"
                    )
                continue
            low, width, default = layout[name]
            bits |= _checked(name, default if value is None else value, 0, (1 << width) - 1) << low
        for name in ("reserve_vcc", "reserve_xnack_mask"):
            _checked(name, getattr(self, name) or 0, 0, 1)
        for (low, _width), value in self._counts(target):
            bits |= value << low
        return bits.to_bytes(DESCRIPTOR_BYTES, "little")

    def _counts(self, target: TargetId) -> Iterator[tuple[tuple[int, int], int]]:
        """Where each computed field lies, and its value."""
        generation = target.generation
        granule = generation.vgpr_granule[self.wave_size(target)]
        vgprs = _checked("next_free_vgpr", self.next_free_vgpr, 0, generation.max_vgprs)
        _checked("next_free_sgpr", self.next_free_sgpr, 0, generation.max_sgprs)
        vgpr_blocks = _blocks(vgprs, granule)
        yield _VGPR_COUNT, vgpr_blocks
        if generation.sgpr_granule:
            yield _SGPR_COUNT, _blocks(self.sgpr_count(target), generation.sgpr_granule)
        yield _USER_SGPR_COUNT, self._user_sgprs()
        if generation.name in _CDNA:
            yield _ACCUM_OFFSET, self._accum_offset_blocks(target)
        elif self.accum_offset is not None:
            raise CodeObjectError(
                f".amdhsa_accum_offset: got {self.accum_offset}, want none; not on {target}"
            )
        shared = self.shared_vgpr_count or 0
        if shared and (self.wave_size(target) == 32 or 2 * shared + vgpr_blocks > 63):
            raise CodeObjectError(
                f".amdhsa_shared_vgpr_count: got {shared}, want 0 for wave32, and with "
                f"{vgprs} VGPRs at most {(63 - vgpr_blocks) // 2} for wave64"
            )

    def _accum_offset_blocks(self, target: TargetId) -> int:
        offset = self.accum_offset
        if offset is None or offset % 4 or not 4 <= offset <= 256:
            raise CodeObjectError(
                f".amdhsa_accum_offset: got {offset}, want a multiple of 4 from 4 to 256; needed on {target}"
            )
        if offset > _blocks(self.next_free_vgpr, 4) * 4 + 4:
            raise CodeObjectError(
                f".amdhsa_accum_offset: got {offset}, want at most next_free_vgpr, {self.next_free_vgpr}, "
                "rounded up to 4"
            )
        return offset // 4 - 1

    def _user_sgprs(self) -> int:
        enabled = sum(count * (getattr(self, name) or 0) for name, count in _USER_SGPRS.items())
        count = enabled if self.user_sgpr_count is None else self.user_sgpr_count
        _checked("user_sgpr_count", count, enabled, _MAX_USER_SGPRS)
        preloaded = self.user_sgpr_kernarg_preload_length or 0
        end_bytes = 4 * (preloaded + (self.user_sgpr_kernarg_preload_offset or 0))
        if preloaded and self.kernarg_size and end_bytes > self.kernarg_size:
            raise CodeObjectError(
                f".amdhsa_user_sgpr_kernarg_preload_length: got an end at byte {end_bytes}, want at most "
                f"kernarg_size, {self.kernarg_size}"
            )
        return count

    @classmethod
    def decode(cls, data: bytes, target: TargetId | str) -> tuple[KernelDescriptor, int]:
        """The descriptor in 64 bytes, and the offset in bytes from it to the entry.

        Raises: CodeObjectError when `data` is not 64 bytes long.
        """
        target = TargetId.parse(target)
        generation = target.generation
        if len(data) != DESCRIPTOR_BYTES:
            raise CodeObjectError(f"kernel descriptor: got {len(data)} bytes, want {DESCRIPTOR_BYTES}")
        bits = int.from_bytes(data, "little")
        take = _Taker(bits)
        entry = take(_ENTRY_OFFSET, 64)
        values = {name: take(low, width) for name, (low, width, _) in _LAYOUT[generation.name].items()}
        descriptor = cls(0, 0, user_sgpr_count=take(*_USER_SGPR_COUNT), **values)
        descriptor.next_free_vgpr = (take(*_VGPR_COUNT) + 1) * generation.vgpr_granule[
            descriptor.wave_size(target)
        ]
        if generation.sgpr_granule:
            own = (take(*_SGPR_COUNT) + 1) * generation.sgpr_granule - generation.extra_sgprs
            excess = max(0, own - generation.max_sgprs)
            descriptor.next_free_sgpr = own - (excess if excess < generation.sgpr_granule else 0)
        if generation.name in _CDNA:
            descriptor.accum_offset = 4 * take(*_ACCUM_OFFSET) + 4
        descriptor.unnamed_bits = take.rest
        return descriptor, entry - (entry >> 63 << 64)


class _Taker:
    """Takes fields out of an integer; `rest` is what nobody took."""

    def __init__(self, bits: int):
        self.rest = bits

    def __call__(self, low: int, width: int) -> int:
        value = self.rest >> low & (1 << width) - 1
        self.rest ^= value << low
        return value


_BIT_FIELDS = [item.name for item in fields(KernelDescriptor) if "layout" in item.metadata]
_LAYOUT: dict[str, dict[str, tuple[int, int, int]]] = {
    generation: {
        item.name: item.metadata["layout"][generation]
        for item in fields(KernelDescriptor)
        if generation in item.metadata.get("layout", ())
    }
    for generation in GENERATIONS
}
_USER_SGPRS = {
    item.name: item.metadata["user_sgprs"]
    for item in fields(KernelDescriptor)
    if item.metadata.get("user_sgprs")
}


def _checked(name: str, value: int, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        raise CodeObjectError(f".amdhsa_{name}: got {value}, want {lowest} to {highest}")
    return value


def _blocks(registers: int, granule: int) -> int:
    """Registers in units of `granule`, less one, as the hardware counts them; none count as one."""
    return max(0, -(-registers // granule) - 1)
