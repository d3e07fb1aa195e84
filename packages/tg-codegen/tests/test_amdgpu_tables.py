"""The generated tables are what the generator makes of its source."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = Path(os.environ.get("TG_AMDGPU_TABLEGEN", ROOT.parent / "shared/isa/llvm22_amdgpu.jsonl.xz"))
TABLES = ROOT / "packages/tg-codegen/src/tg_codegen/amdgpu/tables"


@pytest.mark.skipif(not SOURCE.exists(), reason=f"no {SOURCE.name}; TG_AMDGPU_TABLEGEN names it")
def test_tables_regenerated_are_the_same(tmp_path):
    generate = runpy.run_path(str(ROOT / "tools/generate_amdgpu_tables.py"))["generate"]
    generate(str(SOURCE), tmp_path)
    for made in sorted(tmp_path.iterdir()):
        assert made.read_text() == (TABLES / made.name).read_text(), made.name
