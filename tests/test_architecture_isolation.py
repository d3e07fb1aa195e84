"""Each package's tests run where only what it declares is installed; tools/test.py arranges it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from environments import ensure_environment
from repository import ROOT, Package, closure, parse_requirement, read_packages

PACKAGES = read_packages()
RUNNER = {"pytest", "pytest-xdist"}

LIST_DISTRIBUTIONS = """
import importlib.metadata
for distribution in importlib.metadata.distributions():
    print(distribution.name, *(distribution.requires or []), sep="\\t")
"""


def test_environment_of_each_package_holds_only_what_it_declares():
    # One test over all of them, so that two processes never make environments at once.
    for package in PACKAGES.values():
        if package.name == "tg":
            continue
        python = ensure_environment(package.name)
        listed = subprocess.run(
            [python, "-c", LIST_DISTRIBUTIONS], capture_output=True, text=True, check=True
        )
        requires = {}
        for line in listed.stdout.splitlines():
            installed, *lines = line.split("\t")
            requires[parse_requirement(installed)[0]] = {parse_requirement(each)[0] for each in lines}
        ours = {each.name for each in closure(PACKAGES, package.name, ["test"])}
        assert requires.keys() & PACKAGES.keys() == ours, package.name

        # What the package and pytest ask for, what that asks for in turn, and nothing else.
        allowed: set[str] = set()
        todo = {package.name, *RUNNER}
        while todo:
            allowed |= todo
            todo = set().union(*(requires.get(name, set()) for name in todo)) - allowed
        assert requires.keys() <= allowed, package.name


def test_environment_of_this_process_holds_every_package():
    program = f"import {', '.join(package.import_name for package in PACKAGES.values())}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT.parent)


def test_closure_with_extras_follows_required_and_asked_for():
    packages = {
        "tg-a": Package("tg-a", Path("a"), (), {"fast": ("tg-b",)}),
        "tg-b": Package("tg-b", Path("b"), ("numpy",), {}),
        "tg-c": Package("tg-c", Path("c"), ("tg-a",), {"test": ("tg-a[fast]", "pytest")}),
    }
    assert [package.name for package in closure(packages, "tg-c")] == ["tg-a", "tg-c"]
    assert [package.name for package in closure(packages, "tg-c", ["test"])] == ["tg-a", "tg-b", "tg-c"]
    assert [package.name for package in closure(packages, "tg-a", ["fast"])] == ["tg-a", "tg-b"]
    assert [package.name for package in closure(packages, "tg-b")] == ["tg-b"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("numpy", ("numpy", ())),
        ("Tg_IR[numpy, test]>=1", ("tg-ir", ("numpy", "test"))),
        ("tg-ir @ {root:uri}/packages/tg-ir", ("tg-ir", ())),
        ("torch==2.13.0; python_version > '3.8'", ("torch", ())),
    ],
)
def test_parse_requirement_of_a_line_gives_name_and_extras(line: str, expected: tuple[str, tuple[str, ...]]):
    assert parse_requirement(line) == expected
