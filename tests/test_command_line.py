"""The command `tg`: what a newcomer types first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tg import command_devices, command_doctor
from tg.command_line import main


def test_help_names_the_commands(capsys: pytest.CaptureFixture):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in ("tg train digits", "tg devices", "tg doctor", "tg bench"):
        assert command in shown
    with pytest.raises(SystemExit):
        main(["train", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_devices_names_the_cpu_and_the_default(capsys: pytest.CaptureFixture):
    assert main(["devices"]) == 0
    shown = capsys.readouterr().out
    assert command_devices.cpu_name() in shown and "default: " in shown and "REF" in shown and "AMD" in shown


def test_doctor_finds_nothing_bad_here_and_exits_with_1_where_it_does(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    assert main(["doctor"]) == 0
    verdicts = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [name for _, name in verdicts] == list(command_doctor.CHECKS)
    monkeypatch.setitem(command_doctor.CHECKS, "data", lambda: ("bad", "gone; get it again"))
    assert main(["doctor"]) == 1
    assert "bad   data         gone; get it again" in capsys.readouterr().out


def fake_gpu(folder: Path, version: int) -> None:
    folder.mkdir(parents=True)
    (folder / "properties").write_text(f"simd_count 64\ngfx_target_version {version}\n")


def test_gpus_of_the_kernel_are_listed_with_why_they_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command_devices, "_TOPOLOGY", tmp_path)
    assert command_devices.amd_gpus() == [("none", "the kernel driver is there and shows no GPU")]
    fake_gpu(tmp_path / "0", 0)
    fake_gpu(tmp_path / "1", 90402)
    fake_gpu(tmp_path / "2", 90010)
    monkeypatch.setattr(command_devices.os, "access", lambda path, mode: False)
    (name, why), (other, unsupported) = command_devices.amd_gpus()
    assert name == "gfx942, node 1" and "join the group `render`" in why
    assert other == "gfx90a, node 2" and unsupported.startswith("not supported; supported are gfx1100")


def tg(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tg.command_line", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_train_says_where_the_run_lies_and_resumes_it(tmp_path: Path):
    options = ("train", "digits", "--epochs", "1", "--batch-size", "479")
    done = tg(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert "65,834 parameters" in done.stdout and "after 3 steps" in done.stdout
    folder = tmp_path / "runs" / "digits"
    assert {"log.jsonl", "model.safetensors", "report.html", "run.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "run.json").read_text())["batch_size"] == 479
    again = tg(tmp_path, *options)
    assert again.returncode == 1 and "holds a run already; pass --resume" in again.stderr
    resumed = tg(tmp_path, "train", "digits", "--resume")
    assert resumed.returncode == 0 and "after 3 steps" in resumed.stdout
    other = tg(tmp_path, "train", "digits", "--resume", "--epochs", "7")
    assert other.returncode == 1 and "has epochs 1, got 7; leave it out" in other.stderr


def test_train_with_data_that_is_not_there_says_so(tmp_path: Path):
    done = tg(tmp_path, "train", "mnist", "--data", "nowhere")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "tg train: mnist: train-images-idx3-ubyte[.gz] is not in nowhere" in done.stderr


def test_bench_prints_a_row_for_each_kernel(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    from tg import command_bench

    monkeypatch.setattr(command_bench, "KERNELS", {"": 64})
    monkeypatch.setattr(command_bench, "_SECONDS", 0.0)
    monkeypatch.setattr(command_bench, "_COPY_BYTES", 1 << 16)
    assert main(["bench"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3 + 5 and all(len(row.split()) >= 5 for row in rows[3:])
