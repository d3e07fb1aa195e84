"""Assemble from the command line: python -m tg_codegen.assemble --target gfx942 [--emit raw|co] FILE|- [-o OUT]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tg_ir.errors import TgError

__all__ = ["main"]


def _raw(text: str, target: str, wave_size: int | None) -> bytes:
    if target.startswith("x86_64"):
        from tg_codegen.x86_64 import assembler, encode

        return assembler.assemble(text, encode.isa(target)).code
    from tg_codegen.amdgpu.assembler import assemble
    from tg_codegen.amdgpu.isa import isa

    return assemble(text, isa(target, wave_size)).code


def _code_object(text: str, target: str, wave_size: int | None) -> bytes:
    from tg_codegen.amdgpu.assembler import assemble
    from tg_codegen.amdgpu.code_object import Argument, Kernel, write_code_object
    from tg_codegen.amdgpu.isa import isa
    from tg_codegen.amdgpu.kernel_descriptor import KernelDescriptor
    from tg_codegen.errors import AssemblerError

    if target.startswith("x86_64"):
        raise AssemblerError(f"code object: the target is {target}, want an AMD GPU; use --emit raw")
    program = assemble(text, isa(target, wave_size))
    starts = sorted(program.labels.get(k.name, -1) for k in program.kernels) + [len(program.code)]
    if not program.kernels or starts[0] < 0:
        raise AssemblerError("code object: want an .amdhsa_kernel block with a label of its name")
    notes: dict[str, dict[str, Any]] = {
        k[".name"]: k for k in (program.metadata or {}).get("amdhsa.kernels", ())
    }
    kernels = []
    for kernel in program.kernels:
        start = program.labels[kernel.name]
        code = program.code[start : starts[starts.index(start) + 1]]
        note = dict(notes.get(kernel.name, {}))
        arguments = [
            Argument(**{key.lstrip("."): value for key, value in a.items()})
            for a in note.pop(".args", None) or ()
        ]
        try:
            descriptor = KernelDescriptor(**kernel.directives)
        except TypeError as error:
            raise AssemblerError(
                f"{kernel.name}: an .amdhsa_ directive that does not exist: {error}"
            ) from error
        kernels.append(Kernel(kernel.name, code, descriptor, arguments, note))
    return write_code_object(program.target or target, kernels, version=program.version or 5)


EMITTERS = {"raw": _raw, "co": _code_object}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tg_codegen.assemble", description="Assemble text for an AMD GPU or x86-64."
    )
    parser.add_argument("file", help="assembly text, - for standard input")
    parser.add_argument(
        "--target",
        required=True,
        help="gfx942, gfx950, gfx1100, gfx1151, gfx1201, or x86_64[:avx2|:avx512|:amx]",
    )
    parser.add_argument(
        "--wave", type=int, choices=(32, 64), help="lanes of a wave, where the target has both"
    )
    parser.add_argument("--emit", choices=EMITTERS, default="raw", help="raw code or a code object (ELF)")
    parser.add_argument("-o", "--output", help="where to write; standard output unless given")
    options = parser.parse_args(arguments)
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
        data = EMITTERS[options.emit](text, options.target, options.wave)
    except (TgError, OSError, UnicodeDecodeError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    if options.output:
        Path(options.output).write_bytes(data)
    else:
        sys.stdout.buffer.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
