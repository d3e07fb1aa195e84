"""Run every test of the repository: `python tools/test.py`. Needs Python 3.11 or later, and pip.

    python tools/test.py                                all of it
    python tools/test.py --fast                         without the tests marked slow
    python tools/test.py packages/tg-ir                 one package, file or test (`path::test`)
    python tools/test.py -k NAME -x --maxfail=3         what starts with a dash goes to pytest

ruff lints and checks the format. Then each package's tests run in an environment that holds only that
package, what it declares and pytest, and `tests/` in one that holds everything; see environments.py. No test
runs twice.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (said here, before an import below fails less clearly)
    sys.exit(
        f"tools/test.py: got Python {sys.version.split()[0]}, want 3.11 or later; start it with such a one"
    )

import argparse
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from environments import HOME, EnvironmentFailure, command_environment, ensure_environment
from repository import ROOT, read_packages

NO_TESTS_COLLECTED = 5  # pytest's exit status


@dataclass(slots=True)
class Outcome:
    """What one suite came to: pytest's counts by their names, and a line for each thing that went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add_error(self, problem: str) -> None:
        self.counts["errors"] += 1
        self.problems.append(f"ERROR {problem}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status is pytest's."""
    paths, options = parse_command_line(sys.argv[1:] if arguments is None else arguments)
    started = time.monotonic()
    outcomes = [] if paths else [lint()]
    for suite, selected in select_suites(paths).items():
        outcomes.append(run_suite(suite, selected, options, may_be_empty=bool(paths or options)))
    counts = sum((outcome.counts for outcome in outcomes), Counter())
    print()
    for outcome in outcomes:
        print(*outcome.problems, sep="\n", end="\n" if outcome.problems else "")
    print(closing_line(counts, time.monotonic() - started))
    if counts["failed"] or counts["errors"]:
        return 1
    return 0 if counts.total() else NO_TESTS_COLLECTED


def parse_command_line(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths, and the options for pytest."""
    parser = argparse.ArgumentParser(
        prog="tools/test.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="*", metavar="path", help="folder, file, or file::test")
    parser.add_argument("--fast", action="store_true", help="leave out the tests marked slow")
    parser.add_argument("-k", metavar="EXPRESSION", help="pytest's -k")
    parser.add_argument("-m", metavar="EXPRESSION", help="pytest's -m")
    known, options = parser.parse_known_intermixed_args(arguments)
    for path in known.paths:
        if not Path(path.split("::")[0]).exists():
            parser.error(f"no such path: {path} (the value of an option is written --option=value)")
    if known.k:
        options += ["-k", known.k]
    marks = [f"({mark})" for mark in (known.m, "not slow" if known.fast else None) if mark]
    if marks:
        options += ["-m", " and ".join(marks)]
    return known.paths, options


def select_suites(paths: Sequence[str]) -> dict[str, list[str]]:
    """The suites that the paths lie in, each with the arguments that select them there; all without paths.

    A suite is a package, or `tests` for the layers together.
    """
    folders = {package.name: package.folder for package in read_packages().values() if package.name != "tg"}
    folders["tests"] = ROOT
    if not paths:
        return {suite: [] for suite in folders}
    selected: dict[str, list[str]] = {}
    for path in paths:
        file, *test = path.split("::")
        file = Path(file).resolve()
        if file in (ROOT, ROOT / "packages"):
            selected |= {suite: [] for suite in folders if file == ROOT or suite != "tests"}
            continue
        suite = next(suite for suite, folder in folders.items() if file.is_relative_to(folder))
        arguments = selected.setdefault(suite, [])
        if file != folders[suite]:
            arguments.append("::".join([str(file), *test]))
    return selected


def lint() -> Outcome:
    """ruff's lint and format check over the whole repository."""
    outcome = Outcome()
    print("-- ruff", flush=True)
    try:
        ruff = ensure_environment("tools").with_name("ruff")
    except EnvironmentFailure as failure:
        print(failure)
        outcome.add_error("the environment for ruff cannot be made")
        return outcome
    for command in (["check"], ["format", "--check"]):
        if subprocess.run([ruff, *command, "--quiet", "."], cwd=ROOT).returncode:
            outcome.add_error(f"ruff {' '.join(command)}")
    return outcome


def run_suite(suite: str, selected: Sequence[str], options: Sequence[str], *, may_be_empty: bool) -> Outcome:
    """Run one suite in its environment."""
    outcome = Outcome()
    folder = ROOT / "tests" if suite == "tests" else ROOT / "packages" / suite / "tests"
    print(f"-- {'tests of the layers together' if suite == 'tests' else f'{suite}, alone'}", flush=True)
    if not folder.is_dir():
        outcome.add_error(f"{suite} has no tests")
        return outcome
    try:
        python = ensure_environment("all" if suite == "tests" else suite)
    except EnvironmentFailure as failure:
        print(failure)
        outcome.add_error(f"the environment of {suite} cannot be made")
        return outcome
    report = HOME / "reports" / f"{suite}.xml"
    report.unlink(missing_ok=True)
    # One thread a process for NumPy and PyTorch: pytest-xdist already keeps every core busy.
    defaults = {"TG_VERIFY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    variables = defaults | command_environment()
    command = [str(python), "-m", "pytest", "-qq", "-rfEs", "-n", "auto", f"--junit-xml={report}", *options]
    status = subprocess.run([*command, *(selected or [str(folder)])], cwd=ROOT, env=variables).returncode
    if report.is_file():
        read_report(report, suite, outcome)
    allowed = [0, NO_TESTS_COLLECTED] if may_be_empty else [0]
    if status not in allowed and not outcome.problems:
        outcome.add_error(f"{suite}: pytest ended with status {status}")
    return outcome


def read_report(report: Path, suite: str, outcome: Outcome) -> None:
    """Add up the JUnit report that pytest wrote."""
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        where = f"{suite}: {case.get('classname')}::{case.get('name')}"
        if case.find("error") is not None:
            outcome.add_error(where)
        elif case.find("failure") is not None:
            outcome.counts["failed"] += 1
            outcome.problems.append(f"FAILED {where}")
        elif skipped is not None:
            outcome.counts["xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"] += 1
        else:
            outcome.counts["passed"] += 1


def closing_line(counts: Counter[str], seconds: float) -> str:
    """The line that pytest closes with, for all suites together."""
    parts = [f"{counts[key]} {key}" for key in ("failed", "passed", "skipped", "xfailed") if counts[key]]
    if counts["errors"]:
        parts.append(f"{counts['errors']} error{'s' if counts['errors'] > 1 else ''}")
    minutes, rest = divmod(int(seconds), 60)
    clock = f" ({minutes // 60}:{minutes % 60:02}:{rest:02})" if seconds >= 60 else ""
    return f" {', '.join(parts) or 'no tests ran'} in {seconds:.2f}s{clock} ".center(80, "=")


if __name__ == "__main__":
    sys.exit(main())
