"""Virtual environments under `.venv-test/`, each made anew when what it is made from has changed.

    tools       ruff, and hatchling to build with
    <package>   that package, what it declares, its `test` extra, and pytest: nothing else
    all         every package, the meta-package, and the witnesses for the tests of the layers together

Packages are installed editable, so an edit of a source file needs no new environment, and an edit of a
pyproject.toml remakes those that the package is in. Neither ensurepip nor a pip inside is needed: the pip of the
running interpreter installs into them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from repository import ROOT, Package, closure, read_packages

__all__ = ["HOME", "EnvironmentFailure", "command_environment", "ensure_environment"]

HOME = ROOT / ".venv-test"

BUILD_EDITABLE = """
import os, sys
from hatchling.build import build_editable
for folder in sys.argv[2:]:
    os.chdir(folder)
    print(build_editable(sys.argv[1]))
"""


class EnvironmentFailure(Exception):
    """An environment that cannot be made; the message holds the output of the command that failed."""


def ensure_environment(name: str) -> Path:
    """The Python of the environment of that name, which is made first unless it is there and up to date."""
    packages = read_packages()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    if name == "tools":
        members, requirements = [], groups["tools"]
    elif name == "all":
        members = list(packages.values())
        requirements = [*groups["tools"], *groups["pytest"], *groups["witnesses"]]
    else:
        members, requirements = closure(packages, name, ["test"]), groups["pytest"]
    folder = HOME / name
    python = folder / "bin" / "python"
    stamp = folder / "made-from"
    made_from = _fingerprint(members, requirements)
    if stamp.is_file() and stamp.read_text() == made_from:
        return python

    wheels = _build_wheels(ensure_environment("tools"), members) if members else {}
    print(f"making the environment {folder.relative_to(ROOT)} ...", flush=True)
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    tested = {name} if name in packages else set(packages)
    pip_install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    _run([*pip_install, *requirements, *(_reference(p, wheels, p.name in tested) for p in members if p.name != "tg")])
    if "tg" in wheels:  # its direct references to packages/ would be in conflict with the editable ones
        _run([*pip_install, "--no-deps", _reference(packages["tg"], wheels, False)])
    stamp.write_text(made_from)
    print(f"made in {time.monotonic() - started:.1f} s", flush=True)
    return python


def command_environment() -> dict[str, str]:
    """This process's variables without those that would let in modules from elsewhere."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def _fingerprint(members: Sequence[Package], requirements: Sequence[str]) -> str:
    parts = [sys.version, os.path.realpath(sys.executable), str(ROOT), *requirements]
    parts += [package.pyproject.read_text(encoding="utf-8") for package in members]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _reference(package: Package, wheels: dict[str, Path], with_tests: bool) -> str:
    extra = "[test]" if with_tests and "test" in package.extras else ""
    return f"{package.name}{extra} @ {wheels[package.name].as_uri()}"


def _build_wheels(python: Path, members: Sequence[Package]) -> dict[str, Path]:
    output = HOME / "wheels"
    output.mkdir(parents=True, exist_ok=True)
    folders = [str(package.folder) for package in members]
    names = _run([str(python), "-c", BUILD_EDITABLE, str(output), *folders]).split()
    return {package.name: output / name for package, name in zip(members, names, strict=True)}


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, env=command_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise EnvironmentFailure(f"{' '.join(command[:6])} ...: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
