"""Compile kernels; assemble and disassemble AMD GPU and x86-64 code."""
