"""Write tg_codegen's AMD GPU instruction tables from what LLVM's TableGen says.

    python tools/generate_amdgpu_tables.py llvm22_amdgpu.jsonl.xz [OUTPUT_DIRECTORY]

The input is one JSON object a line: a header (predicates, processors, operand classes), then every real
instruction with its bits, operands, implicit registers, predicates and flags. The output is four text tables,
each of one row a line, whose columns `tg_codegen/amdgpu/tables.py` describes: formats, shapes, families,
instructions. What is common is folded: a shape is everything of an encoding but its opcode, a family is the list
of encodings that a group of mnemonics shares, and a mnemonic names for every target a family and an opcode.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from collections import defaultdict
from pathlib import Path

TARGETS = ("gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")
GENERATION = {
    "gfx942": "gfx940",
    "gfx950": "gfx940",
    "gfx1100": "gfx11",
    "gfx1151": "gfx11",
    "gfx1201": "gfx12",
}
NAMESPACES = {
    "gfx940": {"GFX8", "GFX9", "GFX90A", "GFX940", "GFX9_DL", "GFX950"},
    "gfx11": {"GFX11", "GFX11_FAKE16", "GFX11W64"},
    "gfx12": {"GFX12", "GFX12_FAKE16", "GFX12W64"},
}
# Where the opcode stands in each format (the rest of the constant bits are the format's encoding).
OPCODE_BITS = {
    "SOP1": (15, 8), "SOP2": (29, 23), "SOPC": (22, 16), "SOPK": (27, 23), "SOPP": (22, 16),
    "VOP1": (16, 9), "VOP2": (30, 25), "VOPC": (24, 17), "VOP3": (25, 16),
    "VOP3P": (22, 16), "VOP3PM": (22, 16), "VINTERP": (22, 16),
    "SMEM": {"gfx940": (25, 18), "gfx11": (25, 18), "gfx12": (18, 13)},
    "DS": {"gfx940": (24, 17), "gfx11": (25, 18), "gfx12": (25, 18)},
    "FLAT": {"gfx940": (24, 18), "gfx11": (24, 18), "gfx12": (21, 14)},
    "MUBUF": {"gfx940": (24, 18), "gfx11": (25, 18), "gfx12": (21, 14)},
    "MTBUF": {"gfx940": (18, 15), "gfx11": (18, 15), "gfx12": (17, 14)},
    "VOP3PX": (86, 80),
}  # fmt: skip
# Immediate operands that stand between commas.
POSITIONAL = {
    "s16imm": "simm16", "u16imm": "uimm16", "i16imm": "imm16", "i8imm": "imm8", "i32imm": "imm32",
    "SOPPBrTarget": "branch",
    "hwreg": "hwreg", "SendMsg": "sendmsg", "SWaitCnt": "waitcnt", "SDelayALU": "delay", "DepCtr": "depctr",
    "Endpgm": "endpgm", "VersionImm": "version", "GPRIdxMode": "gpridx", "SMEMOffset": "smem", "KImmFP32": "k32",
    "KImmFP16": "k16", "SplitBarrier": "barrier",
}  # fmt: skip
FLAG_LETTERS = {
    "mayLoad": "l", "mayStore": "s", "VM_CNT": "v", "LGKM_CNT": "k", "EXP_CNT": "e", "IsAtomicRet": "r",
    "IsAtomicNoRet": "n",
    "isBranch": "b", "isTerminator": "t", "isBarrier": "j", "hasSideEffects": "x", "TRANS": "q",
}  # fmt: skip


class Source:
    """The JSON lines, with predicates evaluated for a target."""

    def __init__(self, path: str):
        with lzma.open(path, "rt") as file:
            header, *rows = (json.loads(line) for line in file)
        self.predicates, self.classes = header["predicates"], header["operand_classes"]
        self.rows = rows
        self.features = {t: set(header["processors"][t]["features"]) for t in TARGETS}
        for target, features in self.features.items():
            features |= {"FeatureRealTrue16Insts"} if "FeatureTrue16BitInsts" in features else set()
            features |= {"FeatureWavefrontSize64"}
            if GENERATION[target] != "gfx940":
                features |= {"FeatureWavefrontSize32"}

    def holds(self, predicate: str, target: str) -> bool:
        tokens = iter(re.findall(r"[()]|[^\s(),]+", self.predicates[predicate]["asm"] or ""))
        features = self.features[target]

        def term(token: str) -> bool:
            if token != "(":
                return token in features
            operator, values = next(tokens), []
            while (token := next(tokens)) != ")":
                values.append(term(token))
            return {"all_of": all, "any_of": any, "not": lambda x: not x[0]}[operator](values)

        first = next(tokens, None)
        return first is None or term(first)

    def rows_for(self, target: str) -> list[dict]:
        known = {p: self.holds(p, target) for p in self.predicates}
        spaces = NAMESPACES[GENERATION[target]]
        rows = [r for r in self.rows if r["ns"] in spaces and all(known[p] for p in r["pred"])]
        rows = [r for r in rows if "isCodeGenOnly" not in r["flags"]]
        rows = [
            r for r in rows if not (r["asm"].endswith(" tfe") and "mayLoad" not in r["flags"])
        ]  # means nothing
        # TableGen spells VOPC's and carry's vcc in three ways; the neutral one is enough, tables.py adds vcc.
        return [
            r for r in rows if not ("isAsmParserOnly" in r["flags"] and re.search(r" vcc(_lo)?\b", r["asm"]))
        ]


def mnemonic(row: dict) -> str:
    name = re.sub(r"[{}]", "", re.match(r"[^\s$]+", row["asm"]).group())
    return re.sub(r"_(e64_dpp|e32|e64|sdwa|dpp)$", "", name)


def format_name(row: dict, generation: str) -> str:
    flags, classes = set(row["flags"]), row["class"]
    value, mask = constants(row)
    low = value & 0xFFFFFFFF
    for name in ("SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "DS", "MTBUF", "FLAT"):
        if name in flags:
            return name
    if "MUBUF" in flags:
        return "MUBUF"
    if "SMRD" in flags:
        return "SMEM"
    if "VINTERP" in flags:
        return "VINTERP"
    if "VOP3PXe" in classes:
        return "VOP3PX"
    if mnemonic(row) == "v_accvgpr_write_b32":
        return "VOP3P"  # its destination is an AGPR with no bit that says so
    if (
        any(len(bits) == 4 and (bits[3] == 9 or bits[2] == "idx") for bits in row["bits"])
        or "VOP3Pe_MAI_Base" in classes
    ):
        return "VOP3PM"
    dpp = "" if "DPP" not in flags else "_DPP8" if any("DPP8" in c for c in classes) else "_DPP16"
    if "SDWA" in flags:
        dpp = "_SDWA"
    if low >> 31 == 0 and mask >> 31 & 1:
        top = low >> 25
        return ("VOPC" if top == 0x3E else "VOP1" if top == 0x3F else "VOP2") + dpp
    packed = low >> 24 == (0xD3 if generation == "gfx940" else 0xCC)
    return ("VOP3P" if packed else "VOP3") + dpp


def opcode_bits(name: str, generation: str) -> tuple[int, int]:
    bits = OPCODE_BITS[name.split("_")[0]]
    return bits[generation] if isinstance(bits, dict) else bits


def constants(row: dict) -> tuple[int, int]:
    """Value and mask of the bits that the encoding fixes."""
    value = mask = 0
    for bits in row["bits"]:
        high, low, what = bits[0], bits[1], bits[2]
        if isinstance(what, int):
            mask |= ((2 << (high - low)) - 1) << low
            value |= what << low
    return value, mask


MODIFIER_BITS = {0: "neg", 1: "abs", 2: "sel", 3: "selhi", 4: "sext"}


def fields(row: dict, name: str) -> dict[str, list[tuple[int, int, int]]]:
    """Field name -> segments (high, low, first bit of the value), source modifiers taken apart."""
    out: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for bits in row["bits"]:
        if len(bits) != 4:
            continue
        high, low, what, first = bits
        if source := re.fullmatch(r"(?:scale_)?src(\d)_modifiers", what):
            for bit in range(low, high + 1):
                index = int(source[1])
                part = MODIFIER_BITS[first + bit - low]
                if part == "selhi" and not name.startswith(("VOP3P",)):
                    out["seld"].append((bit, bit, 0))
                else:
                    out[f"{part}{index}"].append((bit, bit, 0))
        elif what == "cpol" and first == 11:
            continue  # gfx1250's bit
        elif what not in ("Offset", "SOffsetEn"):
            out[what].append((high, low, first))
    return {k: sorted(v, key=lambda s: s[2]) for k, v in out.items()}


class Classes:
    """LLVM's operand classes in our notation, <banks><bits>[.<type>][flags]; see tables.py."""

    def __init__(self, classes: dict):
        self.classes, self.cache = classes, {}

    def kind(self, name: str) -> str:
        if name not in self.cache:
            self.cache[name] = self.translate(name)
        return self.cache[name]

    def translate(self, name: str) -> str:
        if name in POSITIONAL:
            return POSITIONAL[name]
        d = self.classes.get(name, {})
        register = d.get("regclass") or name
        if name == "SDWAVopcDst":
            return "swave.sdwa"
        if register.startswith("SReg_1") and re.match(r"SReg_1(_|$)", register):
            return "swave"
        banks = {"VGPR": "v", "VReg": "v", "AGPR": "a", "AReg": "a", "AV": "va", "SReg": "s", "VS": "vs",
                 "VRegOrLds": "vd", "SRegOrLds": "sd"}[register.split("_")[0]]  # fmt: skip
        width = int(re.search(r"_(\d+)", register)[1])
        kind = d.get("operandtype") or ""
        if "_IMM_" in kind:
            banks += "il"
        elif "_INLINE_" in kind:
            banks += "i"
        type_ = kind.rsplit("_", 1)[-1].lower() if "i" in banks else ""
        if kind.endswith("_SPLAT"):
            type_ = "v2f16"
        type_ = type_.replace("int", "b").replace("fp", "f")
        flags = "h" if register.startswith(("VGPR_16", "VS_16")) else ""
        flags += "7" if "Lo128" in register else ""
        flags += "n" if "XNULL" in register else ""
        flags += "x" if "XEXEC" in register else ""
        flags += "m" if "XM0" in register else ""
        return f"{banks}{width}" + (f".{type_}" if type_ else "") + (f"/{flags}" if flags else "")


def roles(row: dict) -> dict[str, str]:
    """Operand -> '>' written, '<>' read and written, '' read."""
    out = {name: ">" for name, _ in row["out"]}
    tied = re.findall(r"\$(\w+) = \$(\w+)", row["constraints"])
    for a, b in tied:
        for name in (a, b):
            if name in out:
                out[name] = "<>"
        if a in out and b in {n for n, _ in row["in"]}:
            out[b] = "<>"
    if mnemonic(row).startswith("v_movreld"):
        out["vdst"] = ">"
    return out


def slots(row: dict, classes: Classes, name: str) -> tuple[list[str], list[str], set[str]]:
    """Positional operands and modifiers in the order of the text, and the fields they use."""
    text = row["asm"]
    text = text[re.match(r"[^\s$]+", text).end() :]
    kinds = dict(row["out"]) | dict(row["in"])
    role, have = roles(row), fields(row, name)
    text = text.replace(",$format $soffset", ", $soffset$format")
    parts = [p.strip() for p in text.split(",")]
    used: set[str] = set()
    operands: list[str] = []
    tail: list[str] = []

    def add(token: str) -> None:
        if not token.startswith("$"):
            operands.append("=" + token)
            return
        operand, mods = token[1:], ""
        if source := re.fullmatch(r"src(\d)_modifiers", operand):
            index, cls = int(source[1]), kinds[operand]
            supers = " ".join(classes.classes.get(cls, {}).get("super", ())) + cls
            operand = f"src{index}"
            if cls.startswith("Bin"):
                mods = ""
            elif "Int" in supers and "SDWA" in supers:
                mods = "x"
            elif "Int" not in supers and "Packed" not in supers:
                mods = ("n" if f"neg{index}" in have else "") + ("a" if f"abs{index}" in have else "")
            used.update({f"{ {'n': 'neg', 'a': 'abs', 'x': 'sext'}[m] }{index}" for m in mods})
        kind = classes.kind(kinds[operand])
        if "/" in kind and "h" in kind.split("/")[1] and "7" not in kind:
            half = "seld" if operand == "vdst" else "sel" + operand[-1]
            used.update({half} & have.keys())
        used.add(operand)
        operands.append(f"{role.get(operand, '')}{operand}:{kind}" + (f":{mods}" if mods else ""))

    for part in filter(None, parts):
        # An operand is the first word; modifiers follow, glued with $ or apart with a space.
        words = re.findall(r"\$\w+|[^\s$]+", part)
        if words[0] in ("idxen", "offen"):
            tail += words
            continue
        first = words.pop(0)
        if first.startswith("$") and first[1:] in MODIFIERS and kinds[first[1:]] not in POSITIONAL:
            tail.append(first)
        else:
            add(first)
        tail += words
    modifiers: list[str] = []
    for word in tail:
        modifier = word.removeprefix("$")
        if word == "$gds" and row["ns"] in NAMESPACES["gfx940"]:
            continue  # ERRATA.md, "gds on GFX90A and later"
        if name.startswith("VOP3PX"):
            modifier = {"src0_modifiers": "op_sel", "src1_modifiers": "op_sel_hi"}.get(modifier, modifier)
        if not word.startswith("$"):
            modifiers.append("=" + word)
            continue
        if modifier == "fi" and name.endswith("DPP8"):
            modifier = "fi8"
        modifiers.append(modifier)
        used.update(MODIFIERS.get(modifier, {modifier}) & have.keys())
    if mnemonic(row).startswith("v_permlane"):
        used -= {"sel2", "seld"}
    if re.match(r"v_dot2_b?f16_b?f16", mnemonic(row)):
        used -= {"sel0", "sel1"}
    if "old" in kinds and "vdst" in kinds:
        operands = [("<" + o if o.startswith(">vdst") else o) for o in operands]
    return operands, modifiers, used


MODIFIERS = {
    "op_sel": {"sel0", "sel1", "sel2", "seld"}, "op_sel_hi": {"selhi0", "selhi1", "selhi2"},
    "neg_lo": {"neg0", "neg1", "neg2"}, "neg_hi": {"abs0", "abs1", "abs2"}, "fi8": {"fi"},
} | {name: {name} for name in str.split(
    "clamp omod offset offset0 offset1 gds cpol dpp_ctrl row_mask bank_mask bound_ctrl fi dpp8 "
    "dst_sel dst_unused src0_sel src1_sel cbsz abid blgp byte_sel bitop3 waitexp index_key_8bit "
    "index_key_16bit format "
)}  # fmt: skip


def imply_vcc(row: dict, name: str, operands: list[str]) -> list[str]:
    """LLVM's printer adds the vcc of e32 and DPP forms by itself; here it stands in the operands."""
    if (
        not name.startswith(("VOP2", "VOPC"))
        or "=vcc" in operands
        or any(o.lstrip("<>").startswith("sdst") for o in operands)
    ):
        return operands
    if "VCC" in row["defs"]:
        operands = operands[:1] * (name[:4] == "VOP2") + ["=vcc"] + operands[(name[:4] == "VOP2") :]
    if "VCC" in row["uses"]:
        operands = operands + ["=vcc"]
    return operands


class Formats:
    """Formats by name; fields of the same name at the same place are merged, else a variant is made."""

    def __init__(self) -> None:
        self.variants: dict[tuple[str, str], list[dict]] = defaultdict(list)

    def add(self, name: str, generation: str, size: int, have: dict) -> tuple[str, str, int]:
        found = self.variants[name, generation]
        for index, variant in enumerate(found):
            if variant["size"] == size and (merged := self.merge(variant["fields"], have)) is not None:
                variant["fields"] = merged
                return name, generation, index
        found.append({"size": size, "fields": dict(have)})
        return name, generation, len(found) - 1

    @staticmethod
    def merge(a: dict, b: dict) -> dict | None:
        out = dict(a)
        for key, segments in b.items():
            places = {}
            for high, low, first in [*segments, *out.get(key, ())]:
                for bit in range(low, high + 1):
                    if places.setdefault(first + bit - low, bit) != bit:
                        return None
            if len(set(places.values())) != len(places):
                return None
            merged: list[tuple[int, int, int]] = []
            for value_bit, bit in sorted(places.items()):
                if merged and merged[-1][0] + 1 == bit and merged[-1][2] + bit - merged[-1][1] == value_bit:
                    merged[-1] = (bit, *merged[-1][1:])
                else:
                    merged.append((bit, bit, value_bit))
            out[key] = merged
        return out


def width_by_format(row: dict, operands: list[str]) -> list[str]:
    """One row for all of f8f6f4: the width of A and B follows from cbsz and blgp."""
    if "MFMA_F8F6F4_WithSizeTable" not in row["class"]:
        return operands
    return [re.sub(r"^(src[01]):va\d+", r"\1:vaf8f6f4", o) for o in operands]


def encode_rows(source: Source) -> tuple[dict, Formats, dict]:
    classes, formats = Classes(source.classes), Formats()
    table: dict[tuple[str, str], list] = defaultdict(list)  # (mnemonic, target) -> entries
    vopd: dict[str, dict] = {}
    for target in TARGETS:
        generation = GENERATION[target]
        rows = source.rows_for(target)
        named = [
            (
                r,
                mnemonic(r),
                "" if "VOPDe" in r["class"] or "VOPD_MADKe" in r["class"] else format_name(r, generation),
            )
            for r in rows
        ]
        real = {
            (m, f, opcode(r, f, generation)) for r, m, f in named if f and "UseRealTrue16Insts" in r["pred"]
        }
        vopd[target] = vopd_halves([r for r, _, f in named if not f], classes)
        for row, mnemonic_, name in named:
            if not name:
                continue
            key = (mnemonic_, name, opcode(row, name, generation))
            if key in real and "UseRealTrue16Insts" not in row["pred"]:
                continue
            operands, modifiers, used = slots(row, classes, name)
            operands = width_by_format(row, imply_vcc(row, name, operands))
            have = fields(row, name)
            if generation == "gfx940" and name == "VOP3P" and mnemonic_.startswith("v_dot"):
                used -= {
                    f"{part}{i}" for part in ("sel", "selhi") for i in range(3)
                }  # ERRATA.md, "op_sel of dot products"
            own = {
                bit: field
                for field in used
                for high, low, _ in have.get(field, ())
                for bit in range(low, high + 1)
            }
            row_format = formats.add(
                name, generation, row["size"], {k: v for k, v in have.items() if k in used}
            )
            value, mask = constants(row)
            for field, segments in have.items():
                if field not in used:  # a field that no text can set is zero
                    for high, low, _ in segments:
                        mask |= ((2 << (high - low)) - 1) << low
            for bit, field in enumerate(
                ("sel0", "sel1", "sel2", "seld")[: 3 if name.startswith("VOP3P") else 4], 11
            ):
                if (
                    "op_sel" in modifiers
                    and field not in used
                    and name.startswith("VOP3")
                    and name != "VOP3PX"
                ):
                    mask |= 1 << bit
            if name in ("VOP3P", "VOP3P_DPP8", "VOP3P_DPP16") or (
                "v_accvgpr" in mnemonic_ and name == "VOP3PM"
            ):
                ones = sum(1 << bit for i, bit in enumerate((59, 60, 14)) if f"selhi{i}" not in used)
                mask, value = mask | ones, value | ones  # ERRATA.md, "implicit op_sel_hi"
            if (
                name.startswith("VOP3")
                and mnemonic_.startswith("v_cmpx")
                and not any(o.startswith(">sdst") for o in operands)
            ):
                mask, value = mask | 0xFF, value | 0x7E  # ERRATA.md, "v_cmpx names exec"
            high, low = opcode_bits(name, generation)
            op_mask = ((2 << (high - low)) - 1) << low
            wave = "w32" if "isWave32" in row["pred"] else "w64" if "isWave64" in row["pred"] else ""
            letters = "".join(FLAG_LETTERS[f] for f in row["flags"] if f in FLAG_LETTERS)
            effects = (",".join(row["defs"]), ",".join(row["uses"]), letters, latency_class(row))
            shape = (
                row_format,
                " ".join(operands),
                " ".join(modifiers),
                mask & ~op_mask,
                value & ~op_mask,
                wave,
                (frozenset(used), frozenset(own)),
            )
            entry = (shape, effects, (value & op_mask) >> low)
            if entry not in table[mnemonic_, target]:
                table[mnemonic_, target].append(entry)
    return table, formats, vopd


def latency_class(row: dict) -> str:
    return row["sched"][0].removeprefix("Write") if row["sched"] else "-"


def opcode(row: dict, name: str, generation: str) -> int:
    high, low = opcode_bits(name, generation)
    return constants(row)[0] >> low & ((2 << (high - low)) - 1)


def vopd_halves(rows: list[dict], classes: Classes) -> dict[str, tuple]:
    """Mnemonic -> (opcode as X or '-', opcode as Y, operands of the half)."""
    out: dict[str, list] = {}
    for row in rows:
        value = constants(row)[0]
        x_text, y_text = row["asm"].split(" :: ")
        kinds = dict(row["out"]) | dict(row["in"])
        for text, side, code in ((x_text, "X", value >> 22 & 15), (y_text, "Y", value >> 17 & 31)):
            name, operands = text.split(" ", 1)
            operands = [o.strip("$ ") for o in operands.split(",")]
            tied = f"$src2{side} = $vdst{side}" in row["constraints"]
            spec = " ".join(
                ("" if not o.startswith("vdst") else "<>" if tied else ">")
                + f"{o.removesuffix(side)}:{classes.kind(kinds[o])}"
                for o in operands
            )
            uses = " ".join(u for u in row["uses"] if u == "VCC")
            half = out.setdefault(name, [None, None, spec, uses])
            assert half[2] == spec, (row["name"], half, spec)
            index = "XY".index(side)
            assert half[index] in (None, code), row["name"]
            half[index] = code
    return {k: tuple(v) for k, v in out.items()}


def order(entry: tuple) -> tuple:
    """Text without a suffix means the first form that fits, in this order (LLVM's)."""
    name, _, variant = entry[0][0]
    forms = ("VOP1", "VOP2", "VOPC", "VOP3", "VOP3P", "VOP3PM", "VINTERP")
    return (
        -variant if name == "SMEM" else 0,
        name.endswith("_DPP8"),
        name.endswith("_DPP16"),
        name.endswith("_SDWA"),
        name.split("_")[0] in forms[3:],
    )


def write(path: Path, title: str, columns: str, lines: list[str]) -> None:
    origin = "Generated by tools/generate_amdgpu_tables.py from LLVM 22.1's AMDGPU.td; do not edit."
    head = f"# {title}\n# {origin}\n# {columns}\n"
    path.write_text(head + "\n".join(lines) + "\n")


def segments_text(segments: list[tuple[int, int, int]]) -> str:
    return "+".join((f"{h}:{l}" if h != l else str(l)) + (f"@{f}" if f else "") for h, l, f in segments)


def generate(source_path: str, out: Path) -> None:
    table, formats, vopd = encode_rows(Source(source_path))
    format_names = {}
    lines = []
    for (name, generation), variants in sorted(formats.variants.items()):
        for index, variant in enumerate(variants):
            label = name + ("" if not index else f".{index}")
            format_names[name, generation, index] = label
            high, low = opcode_bits(name, generation)
            parts = " ".join(f"{k}={segments_text(v)}" for k, v in sorted(variant["fields"].items()))
            lines.append(f"{generation} {label} {variant['size']} op={high}:{low} {parts}".rstrip())
    write(
        out / "formats.txt",
        "Bit fields of every format.",
        "generation format bytes field=high:low[@first bit of the value][+...]",
        lines,
    )

    shape_ids: dict[tuple, int] = {}
    effect_ids: dict[tuple, int] = {}
    family_ids: dict[tuple, int] = {}
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    families, shapes, effects = [], [], []
    for (name, target), entries in sorted(table.items()):
        entries = sorted(entries, key=order)
        base = entries[0][2]
        family = []
        for shape, effect, code in entries:
            label = format_names[shape[0]]
            *body, (used, own) = (shape[0][1], label, *shape[1:])
            places = formats.variants[shape[0][:2]][shape[0][2]]["fields"]
            for field in used & places.keys():  # bits of a field that this encoding lacks are zero
                for high, low, _ in places[field]:
                    body[4] |= sum(1 << bit for bit in range(low, high + 1) if bit not in own)
            body = tuple(body)
            if body not in shape_ids:
                shape_ids[body] = len(shape_ids)
                generation, label, operands, modifiers, mask, value, wave = body
                shapes.append(
                    f"{generation} {label}{':' + wave if wave else ''}|{operands}|{modifiers}|{mask:x}:{value:x}"
                )
            if effect not in effect_ids:
                effect_ids[effect] = len(effect_ids)
                effects.append("|".join(effect))
            family.append(
                f"{shape_ids[body]}.{effect_ids[effect]}" + (f"{code - base:+d}" if code != base else "")
            )
        family = tuple(family)
        if family not in family_ids:
            family_ids[family] = len(family_ids)
            families.append(" ".join(family))
        cells[name][target] = f"{family_ids[family]}:{base:x}"
    write(
        out / "shapes.txt",
        "Encodings without their opcode.",
        "generation format[:wave]|operands|modifiers|mask:value of the constant bits (line number = id)",
        shapes,
    )
    write(
        out / "effects.txt",
        "What an instruction does besides its operands.",
        "implicit writes|implicit reads|flags|latency class (line number = id)",
        effects,
    )
    write(
        out / "families.txt",
        "Encodings that mnemonics share.",
        "shape.effects[+opcode difference] ... (line number = id)",
        families,
    )
    rows = []
    for name, by_target in sorted(cells.items()):
        texts = [by_target.get(t, "-") for t in TARGETS]
        rows.append(f"{name} " + " ".join(texts))
    write(out / "instructions.txt", "Mnemonics.", "mnemonic " + " ".join(TARGETS) + " as family:opcode", rows)
    halves = sorted({(n, *h) for t in TARGETS for n, h in vopd[t].items()})
    lines = []
    for name, x, y, spec, uses in halves:
        where = ",".join(sorted({GENERATION[t] for t in TARGETS if vopd[t].get(name) == (x, y, spec, uses)}))
        lines.append(f"{name} {where} {'-' if x is None else x} {'-' if y is None else y}|{spec}|{uses}")
    write(
        out / "vopd.txt",
        "Halves of dual-issue instructions.",
        "mnemonic generations opcode-as-X opcode-as-Y|operands|implicit reads",
        lines,
    )


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "packages/tg-codegen/src/tg_codegen/amdgpu/tables"
    generate(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else default)
