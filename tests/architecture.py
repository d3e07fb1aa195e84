"""Checks a package's imports against the table of docs/architecture.md.

An import counts wherever it stands: at the top of a module, in a function, under TYPE_CHECKING, relative, or
by `import_module` with a literal name.

- Another of our packages: only when the table's row allows it.
- A third-party module: only what pyproject.toml declares; what it requires, the row names too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from repository import Package, parse_requirement

__all__ = ["Import", "Row", "declared_names", "find_imports", "find_violations", "read_table"]


DISTRIBUTIONS = {"PIL": "pillow"}
"""Third-party modules whose distribution is called something else."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a distribution, its import name, and the distributions it may depend on."""

    name: str
    import_name: str
    allowed: frozenset[str]


class Import(NamedTuple):
    """One import: its line, and the absolute name of the module."""

    line: int
    module: str


def read_table(text: str) -> dict[str, Row]:
    """The rows of the table headed `distribution | import | may depend on`, by distribution."""
    rows: dict[str, Row] = {}
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[:3] == ["distribution", "import", "may depend on"]:
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and not re.fullmatch(r"[\s|:-]+", line):
            name, import_name, allowed = cells[:3]
            names = [] if allowed == "nothing" else [part.strip() for part in allowed.split(",")]
            rows[name] = Row(name, import_name, frozenset(names))
    return rows


def find_imports(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import of the module called `module`; `is_package` when its file is an `__init__.py`."""
    parents = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            assert base or not node.level, f"{module}, line {node.lineno}: relative import out of the package"
            yield Import(node.lineno, ".".join([*base, *([node.module] if node.module else [])]))
        elif isinstance(node, ast.Call) and _is_import_call(node):
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if isinstance(name, str) and not name.startswith("."):
                yield Import(node.lineno, name)


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__")


def declared_names(package: Package) -> tuple[set[str], set[str]]:
    """The distributions that a package requires, and those that only its extras but `test` bring."""
    extras = [line for extra, lines in package.extras.items() if extra != "test" for line in lines]
    required = {parse_requirement(line)[0] for line in package.dependencies}
    return required, {parse_requirement(line)[0] for line in extras} - required


def find_violations(package: Package, table: dict[str, Row]) -> list[str]:
    """What the package imports or declares against its row, one sentence each; its row must exist."""
    row = table[package.name]
    required, optional = declared_names(package)
    problems = [
        f"{package.name}: pyproject.toml requires {name}, which its row does not allow"
        for name in sorted(required - row.allowed)
    ]
    problems += [
        f"{package.name}: the extras bring {name}, which its row does not allow"
        for name in sorted((optional & set(table)) - row.allowed)
    ]
    for path in sorted(package.source.rglob("*.py")):
        parts = path.relative_to(package.source.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        for found in find_imports(path.read_text(encoding="utf-8"), module, is_package=is_package):
            top = found.module.split(".")[0]
            if top in sys.stdlib_module_names or top == package.import_name:
                continue
            name = parse_requirement(DISTRIBUTIONS.get(top, top).replace("_", "-"))[0]
            file = path.relative_to(package.folder)
            where = f"{file}, line {found.line}: {package.name} imports {found.module}"
            if name in table and name not in row.allowed:
                problems.append(f"{where}, which its row does not allow")
            elif name not in required | optional:
                problems.append(f"{where}, which its pyproject.toml does not declare")
    return problems
