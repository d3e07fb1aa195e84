"""Every matrix instruction on every target: random small integers, placed as the manuals say, against NumPy.

Layouts: ROCm/amd_matrix_instruction_calculator; the places of K within a lane's registers are A's and B's alike.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import numpy as np
import pytest
from isa_machine import TARGETS, assemble_kernel, launch

from tg_codegen.amdgpu.isa import isa
from tg_emulator_amd.isa import floats

SEED = int(os.environ.get("TG_SEED", "1"))
BITS = {
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "xf32": 32,
    "f64": 64,
    "fp8": 8,
    "bf8": 8,
    "i8": 8,
    "iu8": 8,
    "iu4": 4,
}
A, B, C, INDEX = 16, 48, 80, 120  # first registers


class Case(NamedTuple):
    kind: str
    out: str
    m: int
    n: int
    k: int
    blocks: int
    a: str
    b: str


def case_of(name: str) -> Case:
    kind, out, m, n, k, blocks, inputs = re.fullmatch(
        r"v_(\w+?)_(\w+?)_(\d+)x(\d+)x(\d+)_(?:(\d+)b_)?(\w+)", name
    ).groups()
    a, _, b = inputs.partition("_")
    return Case(kind, out, int(m), int(n), int(k), int(blocks or 1), a, b or a)


def names(target: str) -> list[str]:
    found = [n for n in isa(target).mnemonics() if re.match(r"v_(mfma|smfmac|wmma|swmmac)_", n)]
    return [n for n in found if "f8f6f4" not in n and "ld_scale" not in n]


def to_bits(values: np.ndarray, kind: str, target: str) -> np.ndarray:
    """Elements [..., n] as 32-bit words."""
    if kind == "iu4":
        codes = values.astype(np.int64) & 15
        octets = (codes[..., ::2] | codes[..., 1::2] << 4).astype("u1")
    elif kind in ("fp8", "bf8"):
        octets = floats.encode(values, (floats.FNUZ if target == "gfx942" else floats.OCP)[kind])
    elif kind == "bf16":
        octets = floats.bf16_bits(values)
    else:
        octets = values.astype(
            {"f16": "f2", "f32": "f4", "xf32": "f4", "f64": "f8", "i8": "i1", "iu8": "i1", "i32": "i4"}[kind]
        )
    return np.ascontiguousarray(octets).view(np.uint32)


def from_bits(words: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bf16":
        return floats.bf16_value(words.view(np.uint16))
    return words.view({"f16": "f2", "f32": "f4", "f64": "f8", "i32": "i4"}[kind])


def spread(matrix: np.ndarray, count: int, lanes: int, interleaved: bool) -> np.ndarray:
    """A (or B transposed) [block, row, k] as [lane, element]."""
    blocks, rows, k = matrix.shape
    lane, element = np.arange(lanes)[:, None], np.arange(count)
    group = lane // rows // blocks % max(1, k // count)
    if interleaved:
        group = group % 2 * 2 + group // 2
    return matrix[lane // rows % blocks, lane % rows, group * count + element]


def places(case: Case, count: int, lanes: int, generation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(block, row, column) of D's elements [lane, element]."""
    lane, e = np.arange(lanes)[:, None], np.arange(count)
    rest = lane // case.n
    if generation == "gfx11":
        block, row = 0 * rest, lanes // 16 * e + rest
    elif generation == "gfx12":
        block, row = 0 * rest, e + 8 * (rest % 2) + 4 * (rest // 2)
    elif case.out == "f64":
        block, row = rest % case.blocks, 4 * e + rest // case.blocks
    elif case.m == 4:
        block, row = rest, e
    elif case.m == 16:
        block, row = e // 4, 4 * rest + e % 4
    else:
        block, row = e // 16, 8 * (e % 16 // 4) + 4 * rest + e % 4
    return tuple(np.broadcast_arrays(block, row, lane % case.n))


def program(name: str, words: dict[str, int], target: str) -> str:
    """Load every lane's registers, execute, store the result where C was."""
    gfx9, sparse = target.startswith("gfx9"), "swmmac" in name or "smfmac" in name
    load, store = (
        ("global_load_dword", "global_store_dword") if gfx9 else ("global_load_b32", "global_store_b32")
    )
    lines = ["s_load_dwordx2 s[4:5], s[0:1], 0x0" if gfx9 else "s_load_b64 s[4:5], s[0:1], 0x0"]
    lines += [
        "v_lshlrev_b32 v1, 9, v0",
        "s_wait_kmcnt 0x0" if target == "gfx1201" else "s_waitcnt lgkmcnt(0)",
    ]
    first = {"a": A, "b": B, "c": C, "index": INDEX}
    offset, place = 0, {}
    for part, count in words.items():
        place[part] = offset
        for k in range(count):
            lines.append(f"{load} v{first[part] + k}, v1, s[4:5] offset:{offset + 4 * k}")
        offset += 4 * count
    lines.append("s_wait_loadcnt 0x0" if target == "gfx1201" else "s_waitcnt vmcnt(0)")

    def tuple_of(part: str) -> str:
        return f"v[{first[part]}:{first[part] + words[part] - 1}]" if words[part] > 1 else f"v{first[part]}"

    last = f"v{INDEX}" if sparse else tuple_of("c")
    signs = " neg_lo:[1,1,0]" if "_iu" in name else ""
    lines.append(f"{name} {tuple_of('c')}, {tuple_of('a')}, {tuple_of('b')}, {last}{signs}")
    lines += ["s_nop 15", "s_nop 7"]
    lines += [f"{store} v1, v{C + k}, s[4:5] offset:{place['c'] + 4 * k}" for k in range(words["c"])]
    return "\n".join([*lines, "s_endpgm"])


def sizes(name: str, machine: object) -> dict[str, int]:
    row = machine.rows(name)[-1]
    dwords = {s.name: s.kind.dwords for s in row.operands}
    words = {"a": dwords["src0"], "b": dwords["src1"], "c": dwords["vdst"]}
    return words | ({"index": 1} if "swmmac" in name or "smfmac" in name else {})


@pytest.mark.parametrize("target", TARGETS)
def test_matrix_instructions_equal_numpy(target: str) -> None:
    print(f"TG_SEED={SEED}")
    rng, machine = np.random.default_rng(SEED), isa(target)
    lanes, generation = machine.wave_size, machine.generation
    wrong = []
    for name in names(target):
        case, words = case_of(name), sizes(name, machine)
        sparse = "index" in words
        low = 0 if case.a == "fp8" else -3
        a = rng.integers(low, 4, (case.blocks, case.m, case.k)).astype(float)
        b = rng.integers(-3, 4, (case.blocks, case.n, case.k)).astype(float)
        c = rng.integers(-3, 4, (case.blocks, case.m, case.n)).astype(float)
        count_a, count_b = words["a"] * 32 // BITS[case.a], words["b"] * 32 // BITS[case.b]
        registers = np.zeros((lanes, 128), np.uint32)
        if sparse:
            kept = np.sort(
                rng.permuted(np.tile(np.arange(4), (*a.shape[:2], case.k // 4, 1)), axis=-1)[..., :2]
            )
            a_kept = np.take_along_axis(a.reshape(*a.shape[:2], -1, 4), kept, -1)
            a = np.zeros_like(a).reshape(*a.shape[:2], -1, 4)
            np.put_along_axis(a, kept, a_kept, -1)
            a = a.reshape(1, case.m, case.k)
            lanes_a = spread(a_kept.reshape(1, case.m, -1), count_a, lanes, False)
            index = spread(kept.reshape(1, case.m, -1), count_a, lanes, False)
            registers[:, sum(words.values()) - 1] = (index << 2 * np.arange(count_a)).sum(1).astype(np.uint32)
        else:
            lanes_a = spread(a, count_a, lanes, False)
        lanes_b = spread(b, count_b, lanes, False)
        spread16 = generation == "gfx11" and case.out in ("f16", "bf16")
        count_c = words["c"] if spread16 else words["c"] * 32 // BITS.get(case.out, 32)
        block, row, column = places(case, count_c, lanes, generation)
        lanes_c = c[block, row, column]
        if spread16:  # one value in the low half of each register
            lanes_c = np.stack([lanes_c, np.zeros_like(lanes_c)], -1).reshape(lanes, -1)
        parts = (
            to_bits(lanes_a, case.a, target),
            to_bits(lanes_b, case.b, target),
            to_bits(lanes_c, case.out, target),
        )
        data = np.concatenate(parts, axis=1)
        registers[:, : data.shape[1]] = data
        text = program(name, words, target)
        (result,), _ = launch(assemble_kernel(text, target), "k", target, (lanes,), (lanes,), registers)
        at = words["a"] + words["b"]
        got = from_bits(np.ascontiguousarray(result[:, at : at + words["c"]]), case.out)
        got = got[:, ::2] if spread16 else got
        want = (np.einsum("bmk,bnk->bmn", a, b) + c)[block, row, column]
        if not (got.astype(float) == want).all():
            wrong.append(f"{name}: {np.count_nonzero(got.astype(float) != want)} of {want.size} differ")
    assert not wrong, "\n".join(wrong)
