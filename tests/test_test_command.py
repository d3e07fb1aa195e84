"""tools/test.py: which suites it runs, what it adds up, and that it fails when anything does."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from repository import ROOT

REPORT = """<testsuites><testsuite>
<testcase classname="m" name="a"/>
<testcase classname="m" name="b"/>
<testcase classname="m" name="c"><skipped type="pytest.skip"/></testcase>
<testcase classname="m" name="d"><skipped type="pytest.xfail"/></testcase>
<testcase classname="m" name="e"><failure>words</failure></testcase>
<testcase classname="m" name="f"><error>words</error></testcase>
</testsuite></testsuites>"""


def load_test_command() -> ModuleType:
    # By its path, because the standard library has a package called `test` as well.
    spec = importlib.util.spec_from_file_location("test_command", ROOT / "tools" / "test.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


command = load_test_command()


def test_select_suites_without_paths_gives_every_package_and_the_layers_together():
    packages = sorted(path.name for path in (ROOT / "packages").iterdir())
    assert command.select_suites([]) == {suite: [] for suite in [*packages, "tests"]}


def test_select_suites_of_paths_groups_them_by_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    paths = [
        "packages/tg-ir/tests/test_import.py::test_x",
        "tests/test_count_lines.py",
        "packages/tg-codegen",
    ]
    assert command.select_suites(paths) == {
        "tg-ir": [f"{ROOT}/packages/tg-ir/tests/test_import.py::test_x"],
        "tests": [f"{ROOT}/tests/test_count_lines.py"],
        "tg-codegen": [],
    }
    assert "tests" not in command.select_suites(["packages"])


def test_command_line_options_go_to_pytest():
    paths, options = command.parse_command_line(
        ["--fast", "-x", str(ROOT), "-k", "name", "-m", "a or b", "--maxfail=2"]
    )
    assert paths == [str(ROOT)]
    assert options == ["-x", "--maxfail=2", "-k", "name", "-m", "(a or b) and (not slow)"]


def test_command_line_path_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        command.parse_command_line(["no/such/path.py"])
    assert "no such path: no/such/path.py" in capsys.readouterr().err


def test_report_of_pytest_is_added_up_by_kind(tmp_path: Path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    outcome = command.Outcome()
    command.read_report(report, "tg-ir", outcome)
    assert outcome.counts == Counter(passed=2, skipped=1, xfailed=1, failed=1, errors=1)
    assert outcome.problems == ["FAILED tg-ir: m::e", "ERROR tg-ir: m::f"]


@pytest.mark.parametrize(
    ("counts", "seconds", "expected"),
    [
        ({"passed": 3}, 1.5, "3 passed in 1.50s"),
        ({"passed": 3, "failed": 1, "errors": 1}, 59.99, "1 failed, 3 passed, 1 error in 59.99s"),
        (
            {"passed": 1, "skipped": 2, "errors": 2},
            3723.5,
            "1 passed, 2 skipped, 2 errors in 3723.50s (1:02:03)",
        ),
        ({}, 0.25, "no tests ran in 0.25s"),
    ],
)
def test_closing_line_reads_as_that_of_pytest(counts: dict[str, int], seconds: float, expected: str):
    line = command.closing_line(Counter(counts), seconds)
    assert line.strip("= ") == expected
    assert len(line) == 80


@pytest.mark.parametrize(
    ("counts", "status"),
    [({"passed": 1}, 0), ({"passed": 1, "failed": 1}, 1), ({"passed": 1, "errors": 1}, 1), ({}, 5)],
)
def test_exit_status_follows_the_counts(monkeypatch: pytest.MonkeyPatch, counts: dict[str, int], status: int):
    monkeypatch.setattr(command, "run_suite", lambda *_, **__: command.Outcome(Counter(counts)))
    assert command.main([str(ROOT / "tests")]) == status


def test_lint_failure_fails_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    lint = command.Outcome()
    lint.add_error("ruff check")
    monkeypatch.setattr(command, "lint", lambda: lint)
    monkeypatch.setattr(command, "run_suite", lambda *_, **__: command.Outcome(Counter(passed=1)))
    assert command.main([]) == 1
    assert "ERROR ruff check" in capsys.readouterr().out


def test_package_without_tests_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    outcome = command.run_suite("tg-x", [], [], may_be_empty=True)
    assert outcome.problems == ["ERROR tg-x has no tests"]
