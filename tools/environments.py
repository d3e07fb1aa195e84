"""Virtual environments under `.venv-test/`, each made anew when what it is made from has changed.

    tools       ruff, and hatchling to build with
    <package>   that package, what it declares, its `test` extra, and pytest: nothing else
    all         every package, the meta-package, and the witnesses for the tests of the layers together

Packages are installed editable, so an edit of a source file needs no new environment, and an edit of a
pyproject.toml remakes those that the package is in. Neither ensurepip nor a pip inside is needed: the pip of
the running interpreter installs into them.
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
    pip_install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    # The meta-package comes last and alone: its direct references are in conflict with the editable packages.
    meta_package = [f"tg @ {wheels.pop('tg')}"] if "tg" in wheels else []
    # To pip 23 a reference with an extra does not stand for the one without, so both are named.
    tested = wheels.keys() & {name}
    references = [f"{each} @ {url}" for each, url in wheels.items()]
    references += [f"{each}[test] @ {wheels[each]}" for each in tested]
    _run([*pip_install, *requirements, *references])
    if meta_package:
        _run([*pip_install, "--no-deps", *meta_package])
    stamp.write_text(made_from)
    print(f"made in {time.monotonic() - started:.1f} s", flush=True)
    return python


def command_environment() -> dict[str, str]:
    """This process's variables without those that would let in modules from elsewhere."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if key not in foreign}


def _fingerprint(members: Sequence[Package], requirements: Sequence[str]) -> str:
    parts = [sys.version, os.path.realpath(sys.executable), str(ROOT), *requirements]
    parts += [package.pyproject.read_text(encoding="utf-8") for package in members]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _build_wheels(python: Path, members: Sequence[Package]) -> dict[str, str]:
    """The URL of an editable wheel of each package."""
    output = HOME / "wheels"
    output.mkdir(parents=True, exist_ok=True)
    folders = [str(package.folder) for package in members]
    names = _run([str(python), "-c", BUILD_EDITABLE, str(output), *folders]).split()
    return {package.name: (output / name).as_uri() for package, name in zip(members, names, strict=True)}


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, env=command_environment(), capture_output=True, text=True)
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"
        shown = " ".join(command)
        raise EnvironmentFailure(f"{shown}\nended with status {done.returncode} and said:\n{said}")
    return done.stdout
