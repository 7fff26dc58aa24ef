"""``icsr demo``, to its end and not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from in_process import icsr

from icsr_cli.cli import demo
from icsr_cli.errors import Interrupted
from icsr_cli.runs import create, find_runs


def test_the_demo_and_what_it_advises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    least = [f"--set={stage}.{key}=1" for stage in ("cam", "global") for key in ("epochs", "iters")]
    done = icsr("demo", "--identities", 8, *least)
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^ (\S.*?)  +[\d.]+  +[\d.]+ .*[\d.]+ *$", done.stdout, re.MULTILINE)
    assert rows[:5] == ["untrained", "cluster-contrast", "icsr, cam stage", "icsr", "camera-aware"]
    assert [run.stage for run in find_runs(Path("runs"), "demo")] == ["global", "cam", "global", "global"]
    assert {run.settings()["image"]["height"] for run in find_runs(Path("runs"))} == {48}
    for line in re.findall(r"^  icsr (.+)", done.stdout, re.MULTILINE):
        advised = icsr(*shlex.split(line))
        assert advised.exit_code == 0, f"{line}\n{advised.output}"


def test_a_method_that_is_not_there_is_found_before_the_first_is_trained(tmp_path: Path) -> None:
    refused = icsr("demo", "-m", "icsr", "-m", "camera-awar", "--data-root", tmp_path, "--runs", tmp_path)
    assert refused.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_an_interrupted_demo_advises_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Interrupted("SIGTERM: go on with the same command and --resume.", signal_number=15)

    monkeypatch.setattr(demo, "_train_and_measure", stop)
    places = ["--data-root", tmp_path / "data", "--runs", tmp_path / "runs"]
    result = icsr("demo", "--identities", 8, "-q", *places)
    assert result.exit_code == 143
    said = " ".join(result.stderr.split())
    assert "same command starts the demo anew" in said
    assert "--resume -d demo" in said


def test_labels_that_nobody_can_judge_are_counted_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = create(tmp_path, "demo", "global")
    run.write_metrics([{"epoch": 1, "loss": 1.0, "clusters": 7}])
    demo._show({"untrained": {"mAP": 0.5}}, run, tmp_path, 1.0, as_json=False)
    shown = capsys.readouterr().out
    assert re.search(r"Pseudo labels of the last epoch\s+clusters\s+─+\s+7\b", shown)
