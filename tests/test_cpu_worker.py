"""The bytes of machine code in tg-runtime-cpu are what our assembler makes of their sources."""

from __future__ import annotations

import importlib.util

from generate_cpu_worker import OUTPUT, generate
from repository import ROOT
from tg_codegen.x86_64.assembler import assemble


def test_generating_the_cpu_worker_again_gives_the_same_file():
    assert OUTPUT.read_text(encoding="utf-8") == generate()


def test_kernels_of_the_runtime_tests_equal_their_sources():
    path = ROOT / "packages/tg-runtime-cpu/tests/cpu_kernels.py"
    spec = importlib.util.spec_from_file_location("cpu_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {name: assemble(text).code for name, text in module.SOURCES.items()} == module.CODE
