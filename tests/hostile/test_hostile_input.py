"""Odd names, numbers, links and devices: one message, or it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import forked
import numpy as np
import pytest
from forked import Forked
from typer.testing import CliRunner, Result

from icsr_cli import datasets
from icsr_cli.cli import main
from icsr_cli.cli.console import print_json
from icsr_cli.cli.main import app
from icsr_cli.datasets.scan import find_folder, image_files
from icsr_cli.errors import printable
from icsr_cli.models import build, save_weights
from icsr_cli.recipes import feature_files
from icsr_cli.recipes.interruption import AtOnce, Stop, interruptible

EVIL = "a\x1b]0;title\x07\x1b[2Jb.jpg"


@pytest.fixture
def crops(tmp_path: Path, tiny_root: Path) -> Path:
    """Two cameras, one of them in a folder named as our own store is."""
    source = sorted(next((tiny_root / "tiny").glob("rendered-*/bounding_box_train")).iterdir())
    for number, file in enumerate(source[:12]):
        folder = tmp_path / "crops" / ("pixels" if number % 2 else "door")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / f"{number}.jpg")
    return tmp_path / "crops"


def prepare(crops: Path, *options: str) -> Result:
    command = ["prepare", "folder", "shop", "--source", str(crops), "--pattern", "{camera}/{name}.jpg"]
    where = ["--data-root", str(crops.parent / "data"), "--size", "32x16", *options]
    return CliRunner().invoke(app, [*command, *where])


def test_links_to_themselves_and_a_camera_named_pixels(crops: Path) -> None:
    (crops / "ring").symlink_to("ring")
    (crops / "door" / "ring.jpg").symlink_to("ring.jpg")
    assert len(image_files(crops, recursive=True)) == 13
    assert find_folder(crops, lambda folder: folder.name == "pixels") == crops / "pixels"
    done = prepare(crops)
    assert done.exit_code in (0, 1), done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)
    if done.exit_code == 0:
        assert len(datasets.load("shop", crops.parent / "data").camera_names) == 2


def test_control_characters_do_not_reach_the_terminal(crops: Path) -> None:
    (crops / "door" / EVIL).write_bytes(b"no picture")
    done = prepare(crops)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x07" not in done.stdout + done.stderr
    assert printable(EVIL) == r"a\x1b]0;title\x07\x1b[2Jb.jpg"
    assert printable("käse\n\udcff") == "käse\n\\udcff"


def test_json_of_a_name_that_is_not_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    print_json({"name": name, "escape": EVIL})
    text = capsys.readouterr().out
    assert json.loads(text.encode()) == {"name": name, "escape": EVIL}
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "cam", "--cameras", "2-0"], "rising numbers"),
        (["train", "cam", "--cameras", "0-99999999999"], "rising numbers"),
        (["train", "cam", "--device", "meta"], "holds no numbers"),
        (["train", "cam", "--name", "../../x"], "plain name"),
        (["train", "cam", "--name", "/tmp/x"], "plain name"),
        (["train", "cam", "--set", "seed=" + "9" * 5000], "number of 5000 digits"),
        (["train", "cam", "--set", "seed=" + "[" * 500], "nested more than"),
    ],
)
def test_wrong_words_are_usage_errors(tiny_root: Path, tmp_path: Path, words: list[str], said: str) -> None:
    places = ["-d", "tiny", "--data-root", str(tiny_root), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, [*words, *places])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_numbers_beyond_64_bits_and_people_on_both_sides(tmp_path: Path, tiny_root: Path) -> None:
    rendered = next((tiny_root / "tiny").glob("rendered-*"))
    home = shutil.copytree(rendered, tmp_path / "Market-1501-v15.09.15")
    some = sorted((home / "bounding_box_train").iterdir())
    person = some[0].name.partition("_")[0]
    some[0].rename(some[0].with_name(f"{'9' * 25}_c1s1_000001_01.jpg"))
    shutil.copy(some[1], home / "query" / f"{person}_c1s1_000009_09.jpg")
    reading = datasets.benchmark("market1501").read(home)
    assert [one.reason for one in reading.unread] == ["the name does not fit"]
    assert any("in train and in query" in note for note in reading.notes)
    assert np.array([record.identity for record in reading.splits["train"]], dtype=np.int64).max() < 2**40
    report = CliRunner().invoke(
        app,
        [
            "prepare",
            "market1501",
            "--source",
            str(home),
            "--data-root",
            str(tmp_path / "data"),
            "--size",
            "32x16",
        ],
    )
    assert "Traceback" not in report.output


@pytest.mark.parametrize("words", ["doctor", "train -d nothing", "search x --gallery y"])
@pytest.mark.parametrize("kilobytes", [400_000, 1_500_000])
def test_a_limit_of_memory_is_said(words: str, kilobytes: int) -> None:
    done = subprocess.run(
        f"ulimit -v {kilobytes}; exec {sys.executable} -m icsr_cli {words}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "out of memory before a library was loaded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_impatience_leaves_one_message(tiny_root: Path, tmp_path: Path, pause: float) -> None:
    words = ["train", "cam", "-d", "tiny", "--data-root", str(tiny_root), "--runs", str(tmp_path)]
    words += ["--weights", "none", "--epochs", "50", "--device", "cpu"]
    training = Forked(tmp_path / "said", forked.icsr, words)
    while not training.errors() and training.process.is_alive():  # it is at work afterwards
        time.sleep(0.01)
    for _ in range(3):
        with contextlib.suppress(ProcessLookupError):  # it has ended at the first
            training.send(signal.SIGINT)
        time.sleep(pause)
    assert "Traceback" not in training.end(130)[1]


def test_an_interrupt_that_python_swallows_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the callbacks of locks, while something is imported."""
    shown: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: shown.append(found.exc_type))
    main._hide_swallowed_interrupts()
    for error in (Stop(int(signal.SIGINT)), ValueError()):
        kept = AtOnce()
        swallowing = weakref.ref(kept, Mock(side_effect=error))
        del kept
        assert swallowing() is None
    assert ValueError in shown
    assert Stop not in shown


def test_an_interrupt_that_a_library_swallowed_still_ends_training() -> None:
    before = signal.signal(signal.SIGINT, AtOnce())
    try:
        with interruptible():
            pass  # nobody has asked yet
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        with pytest.raises(KeyboardInterrupt), interruptible():
            raise AssertionError("training began")
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_while_a_file_is_written_keeps_the_one_before(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(temporary: Path, *_: object) -> None:
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(feature_files, "writer", lambda suffix: half)
    out = tmp_path / "out" / "features.npz"
    out.parent.mkdir()
    out.write_bytes(b"before")
    weights = tmp_path / "own.safetensors"
    save_weights(build("resnet_small", seed=1), weights, {"height": "32", "width": "16"})
    before = signal.signal(signal.SIGTERM, AtOnce())
    try:
        words = ["embed", crops, "--out", out, "--network", weights, "--device", "cpu"]
        done = CliRunner().invoke(app, [str(word) for word in words])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 143, done.stderr
    assert "SIGTERM: stopped. What was there before is untouched" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert out.read_bytes() == b"before"


def test_a_pipe_in_the_place_of_an_array_is_not_waited_for(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.eye(4, dtype=np.float32))
    os.mkfifo(tmp_path / "cameras.npy")
    words = ["labels", "generate", tmp_path / "features.npy", "--out", tmp_path / "labels.csv"]
    key = f"cameras={tmp_path / 'cameras.npy'}"
    errors = Forked(tmp_path / "said", forked.icsr, [*map(str, words), "--key", key]).end(2)[1]
    assert f"There is no file {tmp_path / 'cameras.npy'}." in errors


@pytest.mark.parametrize("words", ["--help | true", "methods icsr >&-", "--version >&- 2>&- <&-"])
def test_a_closed_output_is_no_fault(words: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m icsr_cli {words}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
