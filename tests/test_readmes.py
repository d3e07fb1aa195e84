"""The examples of the READMEs run, and the files they name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT, read_packages

PACKAGES = [package for package in read_packages().values() if package.name != "tg"]
SOURCES = {ROOT / "src" / "tg" / "README.md": ROOT / "src" / "tg"}
SOURCES |= {package.folder / "README.md": package.source for package in PACKAGES}
READMES = [ROOT / "README.md", *SOURCES]
EXAMPLES = [
    pytest.param(block, id=f"{readme.parent.name}-{number}")
    for readme in READMES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_a_readme_runs(example: str):
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("readme", SOURCES, ids=lambda readme: readme.parent.name)
def test_readme_of_a_package_names_files_that_exist(readme: Path):
    tables = re.findall(r"^\| (`[^|]*) \|", readme.read_text(encoding="utf-8"), re.M)
    names = [name for name in re.findall(r"`([^`]+)`", " ".join(tables)) if not name.startswith("TG_")]
    for name in names:
        assert list(SOURCES[readme].rglob(name.rstrip("/"))), f"{readme}: names {name}, which does not exist"
    assert names


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_links_of_a_readme_lead_to_files(readme: Path):
    for target in re.findall(r"\]\(([^):#]+)\)", readme.read_text(encoding="utf-8")):
        assert (readme.parent / target).exists(), target
