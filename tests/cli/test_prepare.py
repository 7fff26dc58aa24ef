"""``icsr prepare`` as a person meets it: output, messages, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from icsr_cli import config, datasets
from icsr_cli.cli.main import app
from icsr_cli.recipes import plan as paper

SMALL = ["--identities", "3+2", "--cameras", "2", "--images", "2-3", "--size", "32x16"]


@pytest.fixture
def icsr(tmp_path, monkeypatch):
    """Run a command line in an empty folder; the result has exit_code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ICSR_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, code: int = 0):
        result = CliRunner().invoke(app, ["prepare", *map(str, arguments)])
        assert result.exit_code == code, f"{result.exit_code}: {result.output}"
        return result

    return run


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def files(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    return root


MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.png",
    "query/0001_c1s1_001051_00.png",
    "bounding_box_test/0001_c2s1_001976_01.png",
    "bounding_box_test/-1_c2s1_001976_01.png",
)


def test_synthetic(icsr, tmp_path):
    result = icsr("synthetic", *SMALL, "--seed", "3", "--set", "junk=1", "--set", "images=[2,2]", "--quiet")
    assert "train" in result.stdout
    dataset = datasets.load("synthetic", tmp_path / "data")
    assert len(set(dataset.train.identities.tolist())) == 3
    assert len(dataset.camera_names) == 2
    assert (tmp_path / "data/synthetic/pixels/train-32x16.npy").is_file()


def test_the_table_is_whole_on_a_narrow_terminal(icsr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = icsr("synthetic", "--identities", "12", "--cameras", "3", "--size", "32x16").stdout
    assert "unreadable" not in shown  # all are readable
    words = ["split", "images", "identities", "cameras", "tracks", "distractors", "left", "out"]
    assert all(word in shown.split() for word in words)
    assert max(map(len, shown.splitlines())) <= 80
    [gallery] = [line.split() for line in shown.splitlines() if line.split()[:1] == ["gallery"]]
    assert gallery[-2:] == ["100", "50"]  # distractors, and junk in the last column


def test_synthetic_as_json_in_another_place(icsr, tmp_path):
    result = icsr("synthetic", *SMALL, "--name", "other", "--data-root", "elsewhere", "--json")
    report = json.loads(result.stdout)
    assert report["name"] == "other"
    assert [row["split"] for row in report["splits"]] == ["train", "query", "gallery"]
    assert datasets.newest(tmp_path / "elsewhere") == "other"


def test_data_root_from_the_environment(icsr, tmp_path, monkeypatch):
    monkeypatch.setenv("ICSR_DATA", str(tmp_path / "env"))
    icsr("synthetic", *SMALL)
    assert datasets.names(tmp_path / "env") == ("synthetic",)
    assert "synthetic" in icsr("--list").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--identities", "many"], "--identities 'many'"),
        (["--identities", "1+x"], "TRAIN+TEST"),
        (["--images", "2-"], "FROM-TO"),
        (["--identities", "9" * 5000], "TRAIN+TEST"),
        (["--size", "64"], "no height x width"),
        (["--size", "9" * 5000 + "x9"], "no height x width"),
        (["--size", "0x9"], "no height x width"),
        (["--size", "16x2049"], "no height x width; give pixels such as 256x128, at most 2048"),
        (["--preset", "impossible"], "unknown synthetic world 'impossible'"),
        (["--set", "background"], "--set takes key=value"),
        (["--set", "background=dark"], "background is 'dark': input should be a valid number"),
        (["--set", "bakground=1"], "unknown dial 'bakground'"),
        (["--cameras", "0"], "cameras is 0: input should be greater"),
        (["--name", "market1501"], "another kind"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_synthetic_refuses(icsr, tmp_path, options, message):
    result = icsr("synthetic", *options, code=2)
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not (tmp_path / "data").exists()


def test_published_finds_it_by_itself_and_says_what_differs(icsr, tmp_path):
    files(tmp_path / "data/market1501/Market-1501-v15.09.15", *MARKET)
    result = icsr("market1501", "--size", "16x8")
    assert "12,936" in result.stdout
    text = " ".join(result.stderr.split())
    assert "Not the published counts. train: 1 images of 1 identities; published are 12,936 of 751" in text
    assert "Next: icsr train -d market1501" in text
    assert "Traceback" not in result.output


def test_every_published_data_set_has_a_command(icsr):
    for name in datasets.available():
        result = icsr(name, code=1)
        assert f"icsr prepare {name} --source PATH" in " ".join(result.stderr.split())
        assert result.stdout == ""


def test_privacy_of_duke_even_when_quiet(icsr, tmp_path):
    names = ("bounding_box_train/0001_c2_f0046182.png", "query/0005_c2_f0046985.png")
    files(tmp_path / "D", *names, "bounding_box_test/0005_c5_f0051341.png")
    result = icsr("dukemtmcreid", "--source", "D", "--size", "16x8", "--quiet")
    assert "withdrawn by its authors in 2019" in " ".join(result.stderr.split())


def test_bad_images_go_on_only_when_allowed(icsr, tmp_path):
    files(tmp_path / "M", *MARKET)
    (tmp_path / "M/bounding_box_train/0003_c1s1_1_1.jpg").write_bytes(b"")
    result = icsr("market1501", "--source", "M", "--size", "16x8", code=1)
    assert "1 of 2 images of the train split cannot be read" in " ".join(result.stderr.split())
    result = icsr("market1501", "--source", "M", "--size", "16x8", "--allow-bad")
    text = " ".join(result.stderr.split())
    assert "unreadable, left out: bounding_box_train/0003_c1s1_1_1.jpg: empty file" in text


def test_own_crops(icsr, tmp_path):
    files(tmp_path / "crops", "door/1.png", "till/2.png", "3.png")
    common = ["--source", "crops", "--pattern", "{camera}/{name}.png"]
    preview = icsr("folder", "shop", *common, "--dry-run")
    for text in ("door/1.png", "till", "unknown", "3.png", "does not fit"):
        assert text in preview.stdout
    assert not (tmp_path / "data").exists()
    told = json.loads(icsr("folder", "shop", *common, "--dry-run", "--json").stdout)
    assert told["splits"] == {"train": {"images": 2, "identities": 0, "cameras": 2}}
    assert told["unread"] == [["3.png", "the path does not fit the pattern"]]
    icsr("folder", "shop", *common, "--size", "16x8")
    assert datasets.load("shop", tmp_path / "data").camera_names == ("door", "till")
    assert "all sound" in icsr("shop", "--verify").stdout
    assert "all sound" in icsr("folder", "shop", "--verify").stdout


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("shop", ("folder", "shop", "--source", "crops", "--pattern", "{camera}/{name}.png")),
        ("synthetic", ("synthetic", *SMALL[:-2])),
        ("market1501", ("market1501", "--source", "M")),
    ],
)
def test_images_are_looked_at_in_the_size_that_they_were_prepared_at(icsr, tmp_path, monkeypatch, name, how):
    files(tmp_path / "crops", "door/1.png", "till/2.png")
    files(tmp_path / "M", *MARKET)
    icsr(*how, "--size", "24x16")
    image = config.load_for(datasets.load(name, tmp_path / "data")).image
    assert image.size == (24, 16)
    told = CliRunner().invoke(app, ["methods", "icsr", "-d", name, "--json"]).stdout
    assert json.loads(told)["image"] == image.model_dump()
    told = CliRunner().invoke(app, ["models", "resnet_small", "-d", name]).stdout
    assert "an image of 24 x 16" in told
    planned = []
    monkeypatch.setattr(paper, "plan", lambda settings, *_: planned.append(settings.image.size))
    paper.answer(name, tmp_path / "data", None, "t4")
    assert planned == [(24, 16)]
    icsr(*how, "--size", "16x16")
    assert config.load_for(datasets.load(name, tmp_path / "data")).image.size == (16, 16)


def test_own_crops_from_a_table(icsr, tmp_path):
    files(tmp_path / "crops", "1.png", "2.png")
    (tmp_path / "crops/t.csv").write_text("path,camera\n1.png,a\n2.png,b\n")
    report = json.loads(icsr("folder", "shop", "--csv", "crops/t.csv", "--size", "16x8", "--json").stdout)
    assert report["cameras"] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give either --pattern"),
        (["--pattern", "{camera}/*", "--csv", "x.csv"], "Give either --pattern"),
        (["--pattern", "{name}.jpg"], "has no {camera}"),
        (["--pattern", "{camera}/*"], "--pattern needs --source"),
        (["--pattern", "{camera}/*", "--source", ".", "--test-share", "2"], "--test-share is 2.0"),
        (["--verify", "--source", "."], "leave out --source"),
    ],
)
def test_own_crops_refuse(icsr, options, message):
    if "--test-share" in options:
        Path("door").mkdir()
        Path("door/1.png").write_bytes(picture(0))
    assert message in " ".join(icsr("folder", "shop", *options, code=2).stderr.split())


def test_verify_says_what_is_at_fault(icsr, tmp_path):
    files(tmp_path / "M", *MARKET)
    icsr("market1501", "--source", "M", "--size", "16x8")
    assert "3 images read again" in icsr("market1501", "--verify").stdout
    first, other = (tmp_path / "M" / name for name in MARKET[:2])
    first.write_bytes(other.read_bytes() + b"another picture")
    result = icsr("market1501", "--verify", code=1)
    assert "files have changed since it was prepared" in result.stdout
    assert "At fault in 'market1501': 0 images, 1 pixel store." in " ".join(result.stderr.split())
    first.write_bytes(b"x")
    result = icsr("market1501", "--verify", code=1)
    assert MARKET[0] in result.stdout
    assert "At fault in 'market1501': 1 image, 0 pixel stores." in " ".join(result.stderr.split())
    told = json.loads(icsr("market1501", "--verify", "--json", code=1).stdout)
    assert (told["sound"], told["bad"][0]["reason"]) == (False, "not an image")
    assert "is not prepared" in icsr("nothing", "--verify", code=1).stderr


def test_a_set_without_some_of_its_cameras_has_one_number_of_cameras(icsr, tmp_path):
    icsr("market1501", "--source", files(tmp_path / "source", *MARKET))
    rows = json.loads(icsr("--list", "--json").stdout)
    assert [row["cameras"] for row in rows if row["name"] == "market1501"] == [2]
    words = ["train", "cam", "-d", "market1501", "--data-root", str(tmp_path / "data"), "--set", "x=1"]
    assert "images, 2 cameras" in CliRunner().invoke(app, words).stderr


def test_list(icsr, tmp_path):
    icsr("synthetic", *SMALL, "--quiet")
    told = {item["name"]: item for item in json.loads(icsr("--list", "--json").stdout)}
    assert set(told) == {*datasets.available(), "synthetic"}
    train = len(datasets.load("synthetic", tmp_path / "data").train)
    assert told["synthetic"]["splits"]["train"]["images"] == train
    assert told["synthetic"]["pixel_bytes"] > train * 32 * 16 * 3
    assert told["synthetic"]["image_bytes"] == sum(
        path.stat().st_size for path in tmp_path.rglob("*.jpg") if not path.name.startswith("-1")
    )
    assert told["veri"]["expected"] == {"train": 37_778, "query": 1_678, "gallery": 11_579}
    assert told["veri"]["prepared"] is None
    table = icsr("--list").stdout
    assert "37,778 / 1,678 / 11,579" in table
    (tmp_path / "data/synthetic/index.csv").unlink()
    assert "damaged" in icsr("--list").stdout


def test_options_in_the_wrong_place_are_not_swallowed(icsr):
    assert "after the name" in " ".join(icsr("--data-root", "x", "synthetic", code=2).stderr.split())
    assert "stands alone" in " ".join(icsr("--list", "market1501", code=2).stderr.split())
    assert "No such command" in icsr("markt1501", code=2).stderr
    assert "synthetic" in icsr(code=2).output


START = "from icsr_cli.cli.main import run\nif __name__ == '__main__':\n    run()\n"


def test_nothing_is_imported_from_the_current_folder(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/icsr").write_text(START)
    (tmp_path / "types.py").write_text("raise SystemExit('run, and not asked for')")
    command = [sys.executable, str(tmp_path / "bin/icsr"), "prepare", "synthetic", "--workers", "2"]
    command += ["--identities", "2", "--cameras", "2", "--size", "16x8"]
    environment = {**os.environ, "PYTHONPATH": str(Path(datasets.__file__).parent.parent.parent)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "not asked for" not in result.stderr


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "Interrupted. What"), (signal.SIGTERM, "SIGTERM: stopped. What")]
)
def test_a_signal_to_all_processes_leaves_no_half_data_set(tmp_path, number, said):
    (tmp_path / "start.py").write_text(START)
    command = [sys.executable, str(tmp_path / "start.py"), "prepare", "synthetic", "--data-root", "data"]
    command += ["--identities", "400", "--quiet"]
    package = str(Path(datasets.__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": package}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a shell, SIGINT is ignored, and that would be inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/synthetic/.*/bounding_box_train/*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert errors == f"{said} was there before is untouched; the same command starts again.\n"
    left = {path.name for path in (tmp_path / "data/synthetic").iterdir()}
    assert left <= {".prepare.lock"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("market1501",), "is the name of another kind"),
        (("../x",), "cannot be the name"),
        (("x", "--size", "0x0"), "--size"),
        (("x", "--seed", "-1"), "--seed"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "crops" / "c1_1.jpg")
    options = ["--source", str(tmp_path / "crops"), "--pattern", "c{camera}_*", "--data-root", str(tmp_path)]
    result = CliRunner().invoke(app, ["prepare", "folder", *words, *options, "--dry-run"])
    assert result.exit_code == 2, result.output
    assert said in result.output
