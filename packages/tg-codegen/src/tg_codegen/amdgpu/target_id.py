"""Target IDs (`gfx942:sramecc+:xnack-`) and what a code object must know of each processor.

A generation is a row: wave sizes, granules of the descriptor's register counts, limits, and the padding after
code. A processor is a row: its number in e_flags, its generation, and the features its target ID may set.
Source: LLVM 22, AMDGPUUsage, "Target ID", "Header" (e_flags) and "Code Object V3 Kernel Descriptor".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .byte_reader import CodeObjectError

__all__ = ["GENERATIONS", "PROCESSORS", "Generation", "Processor", "TargetId"]

_TRIPLE = "amdgcn-amd-amdhsa-"
_MACH_MASK = 0xFF


@dataclass(frozen=True, slots=True)
class Generation:
    """What the kernel descriptor and the layout of code depend on.

    `vgpr_granule` maps a wave size to the unit of the descriptor's VGPR count. `extra_sgprs` are VCC,
    FLAT_SCRATCH and XNACK_MASK, allocated above the kernel's own; where `sgpr_granule` is 0 every wave has
    all SGPRs. Code ends with `padding_words` of `padding_word` from the next multiple of
    `padding_align_bytes`, for the prefetcher.
    """

    name: str
    vgpr_granule: Mapping[int, int]
    sgpr_granule: int
    extra_sgprs: int
    max_vgprs: int
    max_sgprs: int
    padding_word: int
    padding_align_bytes: int
    padding_words: int


_S_NOP, _S_CODE_END = 0xBF800000, 0xBF9F0000
GENERATIONS = {
    row.name: row
    for row in (
        Generation("cdna3", {64: 8}, 8, 6, 512, 102, _S_NOP, 64, 256),
        Generation("rdna3", {32: 8, 64: 4}, 0, 0, 256, 106, _S_CODE_END, 128, 96),
        Generation("rdna4", {32: 8, 64: 4}, 0, 0, 256, 106, _S_CODE_END, 128, 96),
    )
}


@dataclass(frozen=True, slots=True)
class Processor:
    """`mach` is the processor's number in e_flags; `features` those that its target ID may set."""

    name: str
    mach: int
    generation: Generation
    features: tuple[str, ...] = ()


PROCESSORS = {
    row.name: row
    for row in (
        Processor("gfx942", 0x4C, GENERATIONS["cdna3"], ("sramecc", "xnack")),
        Processor("gfx950", 0x4F, GENERATIONS["cdna3"], ("sramecc", "xnack")),
        Processor("gfx1100", 0x41, GENERATIONS["rdna3"]),
        Processor("gfx1151", 0x4A, GENERATIONS["rdna3"]),
        Processor("gfx1201", 0x4E, GENERATIONS["rdna4"]),
    )
}

# Lowest bit in e_flags of each feature's two: 0 not supported, 1 any, 2 off, 3 on.
_FEATURE_BIT = {"xnack": 8, "sramecc": 10}
_SETTINGS = (None, False, True)


@dataclass(frozen=True, slots=True)
class TargetId:
    """A processor and its features: True is on, False off, None any (or not supported)."""

    processor: Processor
    xnack: bool | None = None
    sramecc: bool | None = None

    @classmethod
    def parse(cls, text: str | TargetId) -> TargetId:
        """From `gfx942`, `gfx942:xnack+` or `amdgcn-amd-amdhsa--gfx942:xnack+`.

        Raises: CodeObjectError for an unknown processor or a feature it does not have.
        """
        if isinstance(text, TargetId):
            return text
        name, *features = text.removeprefix(_TRIPLE).removeprefix("-").split(":")
        if name not in PROCESSORS:
            raise CodeObjectError(f"target: got {text!r}, want one of {', '.join(PROCESSORS)}")
        processor, settings = PROCESSORS[name], {}
        for feature in features:
            if feature[:-1] not in processor.features or feature[-1] not in "+-" or feature[:-1] in settings:
                want = ", ".join(f"{allowed}+ or -" for allowed in processor.features) or "no feature"
                raise CodeObjectError(f"target: got feature {feature!r} in {text!r}, want {want}, each once")
            settings[feature[:-1]] = feature[-1] == "+"
        return cls(processor, **settings)

    @classmethod
    def from_e_flags(cls, flags: int) -> TargetId:
        """Raises: CodeObjectError for a processor that is not supported."""
        mach = flags & _MACH_MASK
        processor = next((row for row in PROCESSORS.values() if row.mach == mach), None)
        if processor is None:
            raise CodeObjectError(
                f"e_flags: got processor number {mach:#x}, want one of {', '.join(PROCESSORS)}"
            )
        settings = {}
        for feature in processor.features:
            code = flags >> _FEATURE_BIT[feature] & 3
            settings[feature] = _SETTINGS[max(code - 1, 0)]
        return cls(processor, **settings)

    @property
    def generation(self) -> Generation:
        return self.processor.generation

    @property
    def e_flags(self) -> int:
        flags = self.processor.mach
        for feature in self.processor.features:
            flags |= _SETTINGS.index(getattr(self, feature)) + 1 << _FEATURE_BIT[feature]
        return flags

    @property
    def isa_name(self) -> str:
        """As in the note's `amdhsa.target`."""
        return f"{_TRIPLE}-{self}"

    def __str__(self) -> str:
        settings = {feature: getattr(self, feature) for feature in self.processor.features}
        features = (f":{name}{'+' if on else '-'}" for name, on in settings.items() if on is not None)
        return self.processor.name + "".join(features)
