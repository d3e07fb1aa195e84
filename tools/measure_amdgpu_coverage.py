"""Which mnemonics llvm-mc knows for each target, and how many of them we have.

    python tools/measure_amdgpu_coverage.py [libLLVM.so]

The candidates are the length-prefixed names in libLLVM's matcher tables, so they do not come from our tables;
llvm-mc then says which of them exist on a target. Graphics (image, export, interpolation, ray tracing) is left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "packages/tg-codegen/src"))

FAMILIES = re.compile(
    rb"([\x04-\x40])((?:v|s|ds|buffer|tbuffer|global|flat|scratch|image|exp|lds)_[a-z0-9_]{2,60})"
)
GRAPHICS = re.compile(
    r"image_|exp|ds_param_load|ds_direct_load|lds_|v_interp_(p1|p2|mov|p1l)|ds_bvh|s_ttracedata|.*_bvh_"
)
TARGETS = {"gfx942": 64, "gfx950": 64, "gfx1100": 32, "gfx1151": 32, "gfx1201": 32}


def candidates(library: Path) -> list[str]:
    data = library.read_bytes()
    names = set()
    for match in re.finditer(rb"(?=([\x04-\x40])([a-z][a-z0-9_]+))", data):
        length = match[1][0]
        name = match[2][:length]
        if len(name) == length and FAMILIES.fullmatch(match[1] + name):
            names.add(name.decode())
    return sorted(names)


def known(target: str, names: list[str]) -> list[str]:
    text = "\n".join(names) + "\n"
    attributes = ["-mattr=+real-true16"] if target == "gfx1201" else []
    done = subprocess.run(
        ["llvm-mc-22", "-triple=amdgcn-amd-amdhsa", f"-mcpu={target}", *attributes],
        input=text,
        capture_output=True,
        text=True,
    )
    unknown = {
        int(n)
        for n in re.findall(
            r"^<stdin>:(\d+):\d+: error: (?:invalid instruction|instruction not supported on this GPU)",
            done.stderr,
            re.M,
        )
    }
    return [n for i, n in enumerate(names, 1) if i not in unknown]


def main() -> None:
    from tg_codegen.amdgpu.isa import isa

    library = Path(sys.argv[1]) if len(sys.argv) > 1 else next(Path("/usr/lib").rglob("libLLVM.so.22*"))
    names = candidates(library)
    print(f"{len(names)} candidates in {library.name}")
    for target in TARGETS:
        compute = [n for n in known(target, names) if not GRAPHICS.match(n)]
        ours = isa(target)
        have = [n for n in compute if ours.rows(n) or n in ours.vopd()]
        missing = sorted(set(compute) - set(have))
        share = 100 * len(have) / len(compute)
        print(
            f"{target}: {len(have)} of {len(compute)} ({share:.1f}%); missing: {' '.join(missing) or 'none'}"
        )


if __name__ == "__main__":
    main()
