"""placeholder"""
from __future__ import annotations
def compile_matrix(inst, ops, target): return None
def passes_of(name, target): return 4
