"""Commands that a command advises work as they are printed, from folders with blanks in their names too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from in_process import icsr
from tiny_world import TINY
from typer.testing import Result

from icsr_cli.cli import options
from icsr_cli.runs import RunFolder

REFINER = """
from icsr_cli import choices


class Options(choices.Options):
    pass


def refine(evidence, labels, options):
    return labels
"""
SETTINGS = [word for assignment in TINY for word in ("--set", assignment)]


def advised(result: Result, after: str = "Next: ") -> list[str]:
    assert result.exit_code == 0, result.output
    [line] = re.findall(f"^{re.escape(after)}icsr (.*)$", result.output, re.M)
    return shlex.split(line)


def test_from_one_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data, runs = ("--data-root", "my data"), ("--runs", "it's here")
    world = ("--name", "first", "--identities", 8, "--cameras", 2, "--size", "32x16")
    training = advised(icsr("prepare", "synthetic", *world, *data))
    assert icsr("prepare", "synthetic", *world[2:], *data).exit_code == 0  # one that is newer
    plain = icsr(*training, *SETTINGS, *runs, "-m", "cluster-contrast", "--init", "none", "--name", "a b")
    assert icsr(*advised(plain)).exit_code == 0
    inspected = icsr("labels", "inspect", "it's here/first/global/a b")
    assert icsr(*advised(inspected, "One cluster's images: ")).exit_code == 0
    reviewed = icsr("labels", "review", "--truth", "--out", "my answers.csv", *data, *runs)
    again = icsr(*advised(reviewed), "--name", "c")
    assert again.exit_code == 0, again.output
    local = icsr("train", "cam", "-d", "first", *SETTINGS, "--init", "none", *data, *runs)
    assert icsr(*advised(local), *SETTINGS, "--init", "none", "--name", "e").exit_code == 0
    assert (
        RunFolder(Path("it's here/first/global/e")).settings()["method"] == "icsr"
    )  # not the data set's own
    Path("my own.yaml").write_text("method: icsr\nglobal: {refiners: [discard, mine]}\n")
    Path("mine.py").write_text(REFINER)
    own = ("--config", "my own.yaml", "--plugin", "mine.py", "--init", "none")
    local = icsr("train", "cam", "-d", "first", *SETTINGS, *own, *data, *runs)
    assert icsr(*advised(local), *SETTINGS, "--init", "none", "--name", "d").exit_code == 0
    settings = RunFolder(Path("it's here/first/global/d")).settings()
    assert settings["method"] == "icsr"
    assert [refiner["method"] for refiner in settings["global"]["refiners"]] == ["discard", "mine"]
    reviewed = icsr("labels", "review", "it's here/first/global/d", "--truth", "--out", "others.csv", *data)
    assert "it's here/first/global/d/local.csv" in advised(reviewed)


def test_a_review_hands_the_plugin_on(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(REFINER)
    own = ["--plugin", "mine.py", "--refine", "mine", "-m", "cluster-contrast", "--init", "none"]
    assert icsr("train", "global", "-d", "tiny", *SETTINGS, *own, "--data-root", tiny_root).exit_code == 0
    reviewed = advised(
        icsr("labels", "review", "--truth", "--plugin", "mine.py", "--data-root", tiny_root, "--questions", 2)
    )
    again = icsr(*reviewed, "--name", "again")
    assert again.exit_code == 0, again.output
    settings = Path("runs/tiny/global/again/settings.yaml").read_text()
    assert "method: mine" in settings
    assert "height: 32" in settings


def test_folders_that_are_looked_in_anyway_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"data_root": Path("data"), "runs_root": Path("runs")}
    assert options.typed("eval", Path("runs/a"), **places) == "icsr eval runs/a"
    monkeypatch.setenv("ICSR_DATA", "/d")
    assert options.typed("eval", data_root=Path("/d"), runs_root=Path("/r")) == "icsr eval --runs /r"
