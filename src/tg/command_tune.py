"""`tg tune`: run a program, and try other plans for each kernel of it that has none on disk yet."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path

from tg import knobs
from tg_ir.errors import TgError

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the program with TG_TUNE set, then say how many plans were added."""
    folder = knobs.cache_folder()
    if folder is None:
        raise TgError("TG_CACHE_DIR: got 0, want a folder, where plans are kept")
    if not options.program.is_file():
        raise TgError(f"program: got {options.program}, want a Python file")
    os.environ["TG_TUNE"] = str(options.seconds)
    before = _plans(folder)
    sys.argv = [str(options.program), *options.arguments]
    sys.path.insert(0, str(options.program.resolve().parent))
    runpy.run_path(str(options.program), run_name="__main__")
    print(
        f"tg tune: {len(_plans(folder) - before)} kernels tuned, {len(_plans(folder))} plans in {folder / 'plans'}"
    )
    return 0


def _plans(folder: Path) -> set[str]:
    return {path.name for path in (folder / "plans").glob("??/*")}
