"""New images to the people that a run knows."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from in_process import icsr
from tiny_world import TINY
from typer.testing import Result

from icsr_cli.runs import open_run, read_labels, write_labels
from icsr_cli.runs.evaluation import read_evaluations, record_evaluations
from icsr_cli.types import Dataset

SETTINGS = [word for assignment in TINY for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def home(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("assign")
    own = ["--method", "cluster-contrast", "--init", "none", "--name", "known"]
    done = icsr(
        "train", "global", "-d", "tiny", *SETTINGS, *own, "--data-root", tiny_root, "--runs", home / "runs"
    )
    assert done.exit_code == 0, done.output
    return home


def assign(home: Path, root: Path, *arguments: object) -> Result:
    return icsr(
        "assign", *arguments, "--data-root", root, "--runs", home / "runs", "--out", home / "found.csv"
    )


def test_images_it_was_trained_on_are_known(home: Path, tiny_root: Path, tiny: Dataset) -> None:
    done = assign(home, tiny_root, "tiny", "--at", 2, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["at"], found["known"], found["new"]) == ("given", len(tiny.train), 0)
    table = read_labels(open_run(home / "runs/tiny/global/known").label_files()[-1])
    label = dict(zip(table.paths, table.labels.tolist(), strict=True))
    rows = [row for row in found["assigned"] if label[row["path"]] >= 0]
    right = sum(row["cluster"] == label[row["path"]] for row in rows)
    assert right / len(rows) > 0.8
    with (home / "found.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["path"] for row in written] == list(tiny.train.paths)
    assert {row["cluster"] for row in written} <= {str(number) for number in range(99)}


def test_the_run_that_is_taken_and_the_distance_are_said(home: Path, tiny_root: Path) -> None:
    done = assign(home, tiny_root, "tiny", "--at", 0.60361)
    assert f"Run: {home / 'runs/tiny/global/known'} (the newest)" in done.stderr
    assert "0.6036" in done.stdout
    named = assign(home, tiny_root, "tiny", "--to", home / "runs/tiny/global/known")
    assert "(the newest)" not in named.stderr


def test_nobody_is_known_at_no_distance(home: Path, tiny_root: Path, tiny: Dataset) -> None:
    done = assign(home, tiny_root, "tiny", "--split", "query", "--at", 0)
    assert done.exit_code == 0, done.output
    with (home / "found.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(tiny.splits["query"])
    assert {row["cluster"] for row in written} == {"-1"}
    assert all(int(row["nearest"]) >= 0 for row in written)


def test_limits_of_the_labels_and_of_an_evaluation(home: Path, tiny_root: Path) -> None:
    plain = json.loads(assign(home, tiny_root, "tiny", "--json").stdout)
    assert plain["at"] == "labels"
    assert plain["farthest"] == plain["limits"]["labels"]
    measured = icsr(
        "eval", home / "runs/tiny/global/known", "--data-root", tiny_root, "--runs", home / "runs"
    )
    assert measured.exit_code == 0, measured.output
    run = home / "runs/tiny/global/known"
    odd = ({"protocol": "tracks"}, {"debias": "full"}, {"estimated": True}, {"weights": "last.safetensors"})
    marks = {"weights": "best.safetensors", "mAP": 0.5, "thresholds": [{"name": "best F1", "distance": 2.0}]}
    record_evaluations(run, [marks | one for one in odd])  # newer ones, of something else than two images
    stored = json.loads(assign(home, tiny_root, "tiny", "--at", "best F1", "--json").stdout)
    kept = next(one for one in read_evaluations(run) if one.get("queries"))
    assert set(stored["limits"]) > {"labels", "best F1"}
    assert stored["farthest"] == stored["limits"]["best F1"] == round(kept["thresholds"][-1]["distance"], 4)


def test_one_cluster_says_no_distance(home: Path, tiny_root: Path, tiny: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "one"
    shutil.copytree(home / "runs/tiny/global/known", run)
    (run / "evaluation.json").unlink(missing_ok=True)
    file = open_run(run).label_files()[-1]
    table = read_labels(file)
    write_labels(file, replace(table, labels=np.minimum(table.labels, 0)))
    silent = assign(home, tiny_root, "tiny", "--to", run)
    assert (silent.exit_code, "--at DISTANCE, from 0 to 2" in " ".join(silent.stderr.split())) == (2, True)
    found = json.loads(assign(home, tiny_root, "tiny", "--to", run, "--at", 2, "--json").stdout)
    assert (found["known"], found["known_clusters"], found["limits"]) == (len(tiny.train), 1, {})


def test_a_folder_of_crops(home: Path, tiny_root: Path, tiny: Dataset, tmp_path: Path) -> None:
    for number, path in enumerate(tiny.train.paths[:3]):
        shutil.copy(tiny.train.root / path, tmp_path / f"{number}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = assign(home, tiny_root, tmp_path, "--to", home / "runs/tiny/global/known")
    assert done.exit_code == 0, done.output
    assert "1 image cannot be read" in " ".join(done.output.split())
    assert (home / "found.csv").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tiny", "--at", "fair"], 2, "a distance from 0 to 2, or 'labels'"),
        (["tiny", "--at", "3"], 2, "a distance from 0 to 2"),
        (["nowhere"], 1, "nowhere"),
        (["tiny", "--to", "nowhere"], 1, "no run folder"),
    ],
)
def test_what_cannot_be_assigned(
    home: Path, tiny_root: Path, arguments: list[str], code: int, said: str
) -> None:
    done = assign(home, tiny_root, *arguments)
    assert done.exit_code == code
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "words",
    [
        ("assign", "tiny", "--to", "{run}/labels/epoch_001.csv"),
        ("assign", "tiny", "--to", "{run}/last.safetensors"),
        ("labels", "review", "{run}/labels/epoch_001.csv"),
        ("report", "{run}/labels/epoch_001.csv"),
        ("compare", "{run}/last.safetensors", "{run}"),
        ("train", "global", "--resume", "{run}/best.safetensors"),
    ],
    ids=" ".join,
)
def test_a_file_of_a_run_does_not_stand_for_the_run(
    home: Path, tiny_root: Path, words: tuple[str, ...]
) -> None:
    """It says less: the labels of one epoch, other weights; the run's last ones would be taken instead."""
    named = [word.format(run=home / "runs/tiny/global/known") for word in words]
    places = ["--data-root", tiny_root, "--runs", home / "runs"]
    done = icsr(*named, *places[2 * (words[0] == "compare") :])
    assert done.exit_code == 1, done.output
    assert "Give the run itself" in " ".join(done.stderr.split())
