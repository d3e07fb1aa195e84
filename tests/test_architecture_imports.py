"""Imports follow the table of docs/architecture.md, and the packages are wired as it says."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from architecture import Import, Row, declared_names, find_imports, find_violations, read_table
from repository import ROOT, Package, closure, parse_requirement, read_packages

PACKAGES = read_packages()
TABLE = read_table((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PACKAGES)
def test_imports_of_each_package_follow_the_table(name: str):
    assert name in TABLE, f"{name} has no row in docs/architecture.md"
    assert find_violations(PACKAGES[name], TABLE) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_layout_of_each_package_is_complete(name: str):
    package = PACKAGES[name]
    tests = ROOT / "tests" if name == "tg" else package.folder / "tests"
    assert TABLE[name].import_name == package.import_name
    assert (package.source / "__init__.py").is_file()
    assert (package.source / "py.typed").is_file()
    assert (package.folder / "README.md").is_file()
    assert sorted(tests.glob("test_*.py")), f"{name} has no tests"
    assert [path.name for path in (package.folder / "src").iterdir() if path.suffix == ""] == [
        package.import_name
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_import_of_each_package_loads_nothing_that_only_an_extra_brings(name: str):
    package = PACKAGES[name]
    declared = [declared_names(each) for each in closure(PACKAGES, name)]
    required = set().union(*(names for names, _ in declared))
    forbidden = {each.replace("-", "_") for each in set().union(*(names for _, names in declared)) - required}
    program = f"import sys, {package.import_name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert package.import_name in loaded
    assert sorted(forbidden & set(loaded)) == []


def test_table_order_has_no_cycle():
    remaining = {name: row.allowed & set(TABLE) for name, row in TABLE.items()}
    while remaining:
        free = {name for name, needs in remaining.items() if not needs & set(remaining)}
        assert free, f"these depend on each other: {sorted(remaining)}"
        remaining = {name: needs for name, needs in remaining.items() if name not in free}


def test_meta_package_names_every_package():
    tg = PACKAGES["tg"]
    lines = [*tg.dependencies, *(line for extra in tg.extras.values() for line in extra)]
    ours = {name: line for line in lines if (name := parse_requirement(line)[0]) in TABLE}
    assert set(ours) == set(PACKAGES) - {"tg"}
    for name, line in ours.items():
        assert line == f"{name} @ {{root:uri}}/packages/{name}"


def test_every_folder_of_packages_is_a_package():
    folders = {path.name for path in (ROOT / "packages").iterdir() if path.is_dir()}
    assert folders == set(PACKAGES) - {"tg"}


def test_read_table_of_markdown_gives_its_rows():
    text = """
    | other | table |
    |---|---|
    | a | b |

    | distribution | import | may depend on | alone |
    |---|---|---|---|
    | tg-a | tg_a | nothing | words |
    | tg-b | tg_b | tg-a, numpy | words |

    | tg-c | tg_c | nothing | after the table |
    """
    assert read_table(textwrap.dedent(text)) == {
        "tg-a": Row("tg-a", "tg_a", frozenset()),
        "tg-b": Row("tg-b", "tg_b", frozenset({"tg-a", "numpy"})),
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path, numpy as np", [Import(1, "os.path"), Import(1, "numpy")]),
        ("from . import x", [Import(1, "tg_a.sub")]),
        ("from ..y import z", [Import(1, "tg_a.y")]),
        ("def f():\n    from tg_b import z", [Import(2, "tg_b")]),
        ("f = lambda: __import__('tg_b')", [Import(1, "tg_b")]),
        ("try:\n    import tg_b\nexcept ImportError:\n    pass", [Import(2, "tg_b")]),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", [Import(2, "a"), Import(4, "b")]),
        ("importlib.import_module('tg_b.c')", [Import(1, "tg_b.c")]),
        ("import_module(name)", []),
    ],
)
def test_find_imports_of_a_statement_gives_its_modules(source: str, expected: list[Import]):
    assert sorted(find_imports(source, "tg_a.sub.module")) == sorted(expected)


def test_find_imports_from_an_init_resolves_relative_to_the_package_itself():
    assert list(find_imports("from .x import y", "tg_a", is_package=True)) == [Import(1, "tg_a.x")]


def test_find_imports_out_of_the_package_fails():
    with pytest.raises(AssertionError, match="line 1: relative import out of the package"):
        list(find_imports("from ... import x", "tg_a.module"))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import json\nimport tg_a\nfrom . import m", None),
        ("def f():\n    import numpy", None),
        ("if TYPE_CHECKING:\n    import numpy", None),
        ("def f():\n    import tg_c", "imports tg_c, which its row does not allow"),
        ("if TYPE_CHECKING:\n    from tg_c.x import y", "imports tg_c.x, which its row does not allow"),
        ("def f():\n    import torch", "imports torch, which its pyproject.toml does not declare"),
        ("import pytest", "imports pytest, which its pyproject.toml does not declare"),
        ("import tg_d", "imports tg_d, which its pyproject.toml does not declare"),
    ],
)
def test_find_violations_of_a_module_names_what_breaks_the_table(
    tmp_path: Path, source: str, problem: str | None
):
    extras = {"numpy": ("numpy>=1.24",), "test": ("pytest>=8",)}
    package = Package("tg-b", tmp_path, ("tg-a",), extras)
    package.source.mkdir(parents=True)
    (package.source / "m.py").write_text(source)
    table = {
        "tg-a": Row("tg-a", "tg_a", frozenset()),
        "tg-b": Row("tg-b", "tg_b", frozenset({"tg-a", "tg-d"})),
        "tg-c": Row("tg-c", "tg_c", frozenset()),
        "tg-d": Row("tg-d", "tg_d", frozenset()),
    }
    problems = find_violations(package, table)
    assert [line.split("tg-b ", 1)[1] for line in problems] == ([problem] if problem else [])


def test_find_violations_of_a_declaration_outside_the_row_is_reported(tmp_path: Path):
    package = Package("tg-b", tmp_path, ("tg-c", "requests>=2"), {"more": ("tg-d",)})
    table = {name: Row(name, name.replace("-", "_"), frozenset()) for name in ("tg-b", "tg-c", "tg-d")}
    assert find_violations(package, table) == [
        "tg-b: pyproject.toml requires requests, which its row does not allow",
        "tg-b: pyproject.toml requires tg-c, which its row does not allow",
        "tg-b: the extras bring tg-d, which its row does not allow",
    ]
