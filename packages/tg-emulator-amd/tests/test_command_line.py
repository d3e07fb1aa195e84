"""`tg-amd` on virtual GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from shaders import code_object

from tg_driver_amd.command_line import main


def test_info_describes_each_gpu(capsys: pytest.CaptureFixture[str]):
    assert main(["info", "--device", "virtual:gfx942*2+gfx1201"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "KFD interface 1.23, 3 GPU"
    assert [line for line in lines if line.startswith("GPU")] == [
        "GPU 0: gfx942",
        "GPU 1: gfx942",
        "GPU 2: gfx1201",
    ]
    assert "  304 compute units in 8 XCC, 4 SIMDs each, 8 waves a SIMD, 2100 MHz" in lines
    assert "  XGMI to node 2, weight 15, 50000 MB/s" in lines


def test_bench_prints_bandwidths_and_latency(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--device", "virtual:gfx1100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "GPU 0 (gfx1100)"
    assert [line.rpartition(":")[0] for line in lines[1:4]] == [
        "copy host to GPU", "copy GPU to host", "copy GPU to GPU",
    ]  # fmt: skip
    assert lines[4].startswith("packet and wait: ")


def test_run_executes_a_kernel_and_shows_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tg_emulator_amd.isa")
    (tmp_path / "k.co").write_bytes(code_object("gfx942"))
    (tmp_path / "in.bin").write_bytes(bytes(64))
    launch = [
        "run",
        str(tmp_path / "k.co"),
        "double",
        "--grid",
        "64",
        "--block",
        "64",
        "--device",
        "virtual:gfx942",
    ]
    assert main([*launch, "--arg", f"in:{tmp_path / 'in.bin'}", "--arg", "out:8"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("double: ") and second == "argument 1: 00000000 00000000"
    assert main([*launch, "--arg", "x:1", "--arg", "out:8"]) == 1
    assert "--arg: got 'x:1', want in:<file>" in capsys.readouterr().err
