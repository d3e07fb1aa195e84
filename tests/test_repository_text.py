"""The text of the repository speaks of no particular machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repository import ROOT

# Written with a class of one letter, so that this file does not match itself.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~}\-])/(?:wor[k]|roo[t]|hom[e]/\w+|User[s]/\w+|tm[p]/(?:wt|venv))\b|\b[A-Z]:\\User[s]"
)
SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules"}
KEPT_DOTTED = {".ci", ".github", ".gitignore"}


def repository_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.name not in KEPT_DOTTED:
            continue
        if path.is_dir() and path.name not in SKIPPED_FOLDERS and not path.name.endswith(".egg-info"):
            yield from repository_files(path)
        elif path.is_file():
            yield path


def test_repository_text_names_no_machine_path():
    files = list(repository_files(ROOT))
    assert Path(__file__).resolve() in files
    assert ROOT / ".ci" / "run" in files
    found = []
    for path in files:
        for number, line in enumerate(path.read_bytes().decode("utf-8", errors="replace").splitlines(), 1):
            if match := MACHINE_PATHS.search(line):
                found.append(f"{path.relative_to(ROOT)}, line {number}: {match[0]}")
    assert found == []


@pytest.mark.parametrize(
    "text", ["see /wor{}k/main", "cd /hom{}e/someone", "'/roo{}t/.cache'", "/tm{}p/wt/x", "C:\\User{}s\\me"]
)
def test_machine_paths_of_common_kinds_are_found(text: str):
    assert MACHINE_PATHS.search(text.replace("{}", ""))


@pytest.mark.parametrize(
    "text", ["tests/wor{}k/x", "/dev/kfd", "#!/usr/bin/env bash", "{root:uri}/packages", "/wor{}kgroup"]
)
def test_machine_paths_in_other_text_are_not_found(text: str):
    assert not MACHINE_PATHS.search(text.replace("{}", ""))
