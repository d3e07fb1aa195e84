"""The x86-64 target: instruction tables, assembler and disassembler."""
