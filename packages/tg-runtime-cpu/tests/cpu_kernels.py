"""Kernels for the tests: assembly text, and its bytes, which the repository's tests/test_cpu_worker.py compares."""

from __future__ import annotations

from collections.abc import Sequence

from tg_ir.protocols import ArgumentLayout, Binary
from tg_ir.symbolic import SymInt

SOURCES = {
    # out[i] = source[n - 1 - i] + add on 64-bit integers, one a workgroup: the next launch needs all of the one before
    "reverse": """
            mov rax, qword ptr [rdi]
            mov rcx, qword ptr [rdi + 8]
            mov r8, qword ptr [rdi + 16]
        next:
            dec r8
            mov r9, r8
            sub r9, rsi
            inc r8
            mov r10, qword ptr [rcx + 8*r9]
            add r10, qword ptr [rdi + 24]
            mov qword ptr [rax + 8*rsi], r10
            inc rsi
            cmp rsi, rdx
            jl next
            ret
    """,
    # counts[g] += 1
    "count": """
            mov rax, qword ptr [rdi]
        next:
            inc qword ptr [rax + 8*rsi]
            inc rsi
            cmp rsi, rdx
            jl next
            ret
    """,
    # out[0] = the stack pointer & 15, out[1] = small (int8), out[2] = real (float32) truncated
    "scalars": """
            mov rax, qword ptr [rdi]
            mov rcx, rsp
            and rcx, 15
            mov qword ptr [rax], rcx
            movsx rcx, byte ptr [rdi + 8]
            mov qword ptr [rax + 8], rcx
            vcvttss2si rcx, dword ptr [rdi + 12]
            mov qword ptr [rax + 16], rcx
            ret
    """,
    "forever": """
        again:
            jmp again
    """,
}
CODE = {
    "reverse": bytes.fromhex(
        "488b07488b4f084c8b471049ffc84d89c14929f149ffc04e8b14c94c0357184c8914f048ffc64839d67ce0c3"
    ),
    "count": bytes.fromhex("488b0748ff04f048ffc64839d67cf4c3"),
    "scalars": bytes.fromhex("488b074889e14883e10f488908480fbe4f0848894808c4e1fa2c4f0c48894810c3"),
    "forever": bytes.fromhex("ebfe"),
}
LAYOUTS = {
    "reverse": ArgumentLayout(32, (0, 8), (("n", 16, "int64"), ("add", 24, "int64"))),
    "count": ArgumentLayout(8, (0,), ()),
    "scalars": ArgumentLayout(16, (0,), (("small", 8, "int8"), ("real", 12, "float32"))),
    "forever": ArgumentLayout(0, (), ()),
}


def binary(name: str, grid: Sequence[SymInt]) -> Binary:
    """A kernel of the table over a grid."""
    return Binary("x86_64:avx2", name, CODE[name], LAYOUTS[name], (*grid, 1, 1)[:3], (1, 1, 1))
