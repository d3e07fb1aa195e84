"""KFD's structs and request numbers equal those of the kernel's header, as a C compiler lays it out."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tg_driver_amd.ioctls import IOCTLS, STRUCTS, EventType, MemoryFlag, QueueType, SvmAttribute, SvmFlag

HEADER = Path(os.environ.get("TG_KFD_HEADER", "/usr/include/linux/kfd_ioctl.h"))
COMPILER = next(filter(None, map(shutil.which, ("clang-22", "clang", "gcc", "cc"))), None)
C_NAMES = {name: f"kfd_{name}" for name in STRUCTS} | {
    "memory_exception_data": "kfd_hsa_memory_exception_data",
    "hw_exception_data": "kfd_hsa_hw_exception_data",
    "svm_attribute": "kfd_ioctl_svm_attribute",
}
# Fields that are a struct or a union in C, or lie in one.
NESTED = {
    **{each: f"failure.{each}" for each in ("NotPresent", "ReadOnly", "NoExecute", "imprecise")},
    **{each: f"wave_state.{each}" for each in ("control_stack_offset", "control_stack_size")},
    **{each: f"wave_state.{each}" for each in ("wave_state_offset", "wave_state_size")},
    "payload": "memory_exception_data",
}
RENAMED = {"get_available_memory": "AVAILABLE_MEMORY"}


@pytest.fixture(scope="module")
def header() -> str:
    if COMPILER is None or not HEADER.is_file():
        pytest.skip(f"no C compiler or no {HEADER} (Debian: clang-22, linux-libc-dev)")
    return HEADER.read_text(encoding="utf-8")


def compile_and_run(lines: list[str], folder: Path) -> list[str]:
    program = ["#include <stddef.h>", "#include <stdio.h>", f'#include "{HEADER}"', "int main(void) {"]
    (folder / "facts.c").write_text("\n".join([*program, *lines, "return 0; }"]), encoding="utf-8")
    (folder / "drm").mkdir()  # the header includes drm/drm.h, for the types by width alone
    (folder / "drm" / "drm.h").write_text("#include <linux/types.h>\n", encoding="utf-8")
    subprocess.run([COMPILER, "-w", "-I.", "facts.c", "-o", "facts"], cwd=folder, check=True)
    return subprocess.run([folder / "facts"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_structs_and_requests_equal_the_kernel_header(header: str, tmp_path: Path):
    rows = [(f"kfd_ioctl_{name}_args", row.arguments) for name, row in IOCTLS.items()]
    rows += [(C_NAMES[name], struct) for name, struct in STRUCTS.items()]
    lines, expected, missing = [], [], []
    for c_name, struct in rows:
        body = re.search(rf"struct {c_name} \{{(.*?)\n\}}", header, re.S)
        if body is None:  # a header older than this interface
            missing.append(c_name)
            continue
        known = [
            each for each in struct._fields_ if each[0] in NESTED or re.search(rf"\b{each[0]}\b", body[1])
        ]
        for name, _kind in known:
            lines.append(f'printf("%zu\\n", offsetof(struct {c_name}, {NESTED.get(name, name)}));')
            expected.append((f"{c_name}.{name}", getattr(struct, name).offset))
        if len(known) == len(struct._fields_):
            lines.append(f'printf("%zu\\n", sizeof(struct {c_name}));')
            expected.append((c_name, ctypes.sizeof(struct)))
            call = next((name for name, row in IOCTLS.items() if row.arguments is struct), None)
            if call:
                lines.append(
                    f'printf("%lu\\n", (unsigned long)AMDKFD_IOC_{RENAMED.get(call, call.upper())});'
                )
                expected.append((f"request of {call}", IOCTLS[call].request))
    found = list(map(int, compile_and_run(lines, tmp_path)))
    assert [(name, value) for (name, _), value in zip(expected, found, strict=True)] == expected
    assert len(rows) - len(missing) >= 30, f"{HEADER} lacks {missing}"


def test_constants_equal_the_kernel_header(header: str, tmp_path: Path):
    names = {f"KFD_IOC_ALLOC_MEM_FLAGS_{flag.name}": flag.value for flag in MemoryFlag}
    names |= {f"KFD_IOCTL_SVM_FLAG_{flag.name}": flag.value for flag in SvmFlag}
    svm = {
        "PREFERRED_LOCATION": "PREFERRED_LOC",
        "PREFETCH_LOCATION": "PREFETCH_LOC",
        "CLEAR_FLAGS": "CLR_FLAGS",
    }
    names |= {f"KFD_IOCTL_SVM_ATTR_{svm.get(each.name, each.name)}": each.value for each in SvmAttribute}
    queues = {"SDMA_BY_ENGINE": "SDMA_BY_ENG_ID"}
    names |= {f"KFD_IOC_QUEUE_TYPE_{queues.get(each.name, each.name)}": each.value for each in QueueType}
    names |= {f"KFD_IOC_EVENT_{each.name}": each.value for each in EventType}
    known = {name: value for name, value in names.items() if re.search(rf"\b{name}\b", header)}
    found = compile_and_run(
        [f'printf("%lu\\n", (unsigned long)(unsigned){name});' for name in known], tmp_path
    )
    assert dict(zip(known, map(int, found), strict=True)) == known
    assert len(known) >= 20
