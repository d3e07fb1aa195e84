"""What pip installs from the repository is the whole of it. The builds use hatchling as installed here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from environments import command_environment
from repository import ROOT, Package, closure, read_packages

PACKAGES = read_packages()


def pip_install(target: Path, paths: Sequence[Path]) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--no-index", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([*pip, *map(str, paths)], env=command_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def import_alone(target: Path, packages: Sequence[Package]) -> None:
    """Import them where nothing but the standard library and `target` is on the path."""
    lines = [
        f"import sys; sys.path.append({str(target)!r})",
        *(f"import {each.import_name}" for each in packages),
    ]
    subprocess.run([sys.executable, "-I", "-S", "-c", "\n".join(lines)], check=True)


def files_below(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in paths}


def test_pip_install_of_the_root_brings_every_required_package_whole(tmp_path: Path):
    pip_install(tmp_path, [ROOT])
    expected = closure(PACKAGES, "tg")
    assert {path.name for path in tmp_path.glob("tg*") if path.suffix == ""} == {
        each.import_name for each in expected
    }
    for package in expected:
        assert files_below(tmp_path / package.import_name) == files_below(package.source), package.name
    import_alone(tmp_path, expected)


def test_pip_install_of_two_folders_brings_these_alone(tmp_path: Path):
    pair = [PACKAGES["tg-ir"], PACKAGES["tg-frontend"]]
    pip_install(tmp_path, [package.folder for package in pair])
    assert {path.name for path in tmp_path.glob("tg*") if path.suffix == ""} == {"tg_ir", "tg_frontend"}
    import_alone(tmp_path, pair)
