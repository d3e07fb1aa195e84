"""The packages of this repository, as their pyproject.toml files declare them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Package", "closure", "parse_requirement", "read_packages"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Package:
    """One distribution: its folder holds pyproject.toml and `src/<import_name>`."""

    name: str
    folder: Path
    dependencies: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.import_name

    @property
    def pyproject(self) -> Path:
        return self.folder / "pyproject.toml"


def read_packages(root: Path = ROOT) -> dict[str, Package]:
    """Every distribution by name: those of `packages/` in alphabetical order, then the meta-package `tg`."""
    packages = {}
    for pyproject in [*sorted(root.glob("packages/*/pyproject.toml")), root / "pyproject.toml"]:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        extras = {extra: tuple(lines) for extra, lines in project.get("optional-dependencies", {}).items()}
        dependencies = tuple(project.get("dependencies", ()))
        packages[project["name"]] = Package(project["name"], pyproject.parent, dependencies, extras)
    return packages


def parse_requirement(line: str) -> tuple[str, tuple[str, ...]]:
    """The normalised name and the extras of a requirement: "Tg_IR[numpy]>=1" gives ("tg-ir", ("numpy",))."""
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", line)
    assert match, f"not a requirement: {line!r}"
    extras = tuple(extra.strip() for extra in (match[2] or "").split(",") if extra.strip())
    return re.sub(r"[-_.]+", "-", match[1]).lower(), extras


def closure(packages: dict[str, Package], name: str, extras: Iterable[str] = ()) -> list[Package]:
    """The package and all of this repository that installing it with these extras brings along."""
    seen: set[tuple[str, str]] = set()
    todo = [(name, extra) for extra in ("", *extras)]
    while todo:
        step = current, extra = todo.pop()
        if step in seen or current not in packages:
            continue
        seen.add(step)
        package = packages[current]
        for line in package.extras.get(extra, ()) if extra else package.dependencies:
            needed, its_extras = parse_requirement(line)
            todo += [(needed, its_extra) for its_extra in ("", *its_extras)]
    names = {current for current, _ in seen}
    return [package for package in packages.values() if package.name in names]
