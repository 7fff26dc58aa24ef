"""The file of pairs: what it may say, and what is said of one that says something wrong."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icsr_cli.errors import RunError, UsageError
from icsr_cli.runs import LabelTable, write_labels
from icsr_cli.runs.pairs import (
    Answer,
    about_pairs,
    fingerprint,
    keep_pairs,
    kept_pairs,
    read_answers,
    read_pairs,
    say_pairs,
    write_answers,
)

PATHS = ("train/a.jpg", "train/b.jpg", "train/c.jpg", "train/d, the last.jpg")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "answers.csv"


def _read(file: Path, *lines: str, clusters: Path | None = None) -> tuple[list[list[int]], list[list[int]]]:
    file.write_text("\n".join(("first,second,answer", *lines, "")))
    pairs = read_pairs(file, PATHS, clusters)
    assert pairs is not None
    assert pairs.same.dtype == pairs.different.dtype == np.int64
    return pairs.same.tolist(), pairs.different.tolist()


def test_images_by_their_paths(file: Path) -> None:
    found = _read(
        file,
        "train/a.jpg,train/b.jpg,same",
        'train/c.jpg,"train/d, the last.jpg",different',
        "train/a.jpg,train/d.jpg,unsure",
        " train/c.jpg , train/a.jpg, different ",
    )
    assert found == ([[0, 1]], [[2, 3], [2, 0]])


def test_nothing_but_doubt_is_no_pair(file: Path) -> None:
    assert _read(file) == ([], [])
    assert _read(file, "train/a.jpg,train/b.jpg,unsure") == ([], [])
    assert read_pairs(None, PATHS) is None
    # One image that is there makes no pair with one that is not: no other stands for it.
    file.write_text(
        "first,second,answer\ntrain/a.jpg,train/gone.jpg,unsure\ntrain/a.jpg,train/b.jpg,unsure\n"
    )
    pairs = read_pairs(file, PATHS)
    assert pairs is not None
    assert pairs.unsure.tolist() == [[0, 1]]


def test_a_cluster_stands_for_its_most_typical_image(file: Path, tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, -1])
    table = LabelTable(
        PATHS,
        *(np.zeros(4, dtype=np.int64), np.full(4, -1), labels, labels, labels),
        np.array(["kept", "kept", "kept", "noise"]),
        {"cohesion": np.array([0.2, np.nan, 0.4, np.nan], dtype=np.float32)},
    )
    write_labels(tmp_path / "labels.csv", table)
    clusters = tmp_path / "labels.csv"
    assert _read(file, 'cluster:0,"train/d, the last.jpg",same', clusters=clusters) == ([[2, 3]], [])
    with pytest.raises(UsageError, match="line 2: cluster:7; the labels have clusters 0 to 0"):
        _read(file, "cluster:7,train/a.jpg,same", clusters=clusters)
    with pytest.raises(UsageError, match="line 2: cluster:0 - say of which labels: --pairs-labels"):
        _read(file, "cluster:0,train/a.jpg,same")
    with pytest.raises(UsageError, match="give --pairs FILE too"):
        read_pairs(None, PATHS, clusters)
    with pytest.raises(RunError, match="no run folder"):
        _read(file, clusters=tmp_path / "elsewhere")
    # Numbered camera by camera: cluster 1 is that of the second camera, as icsr labels inspect shows it.
    local = np.zeros(4, dtype=np.int64)
    parts = dict.fromkeys(("clusters", "local_clusters", "labels"), local)
    own = replace(table, cameras=np.array([0, 0, 1, 1]), states=np.full(4, "kept"), columns={}, **parts)
    write_labels(clusters, own)
    assert _read(file, "cluster:0,cluster:1,same", clusters=clusters) == ([[0, 2]], [])
    with pytest.raises(UsageError, match="cluster:7; the labels have clusters 0 to 1"):
        _read(file, "cluster:7,train/a.jpg,same", clusters=clusters)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["train/a.jpg,train/e.jpg,same"], "line 2: 'train/e.jpg'. Did you mean 'train/"),
        (["train/a.jpg,train/b.jp,same"], "line 2: 'train/b.jp'. Did you mean 'train/b.jpg'?"),
        (["a,b,c"] * 9, "line 2: 'c'"),
        (["a,b,sane"], "line 2: 'sane'. Did you mean 'same'?"),
        (["a,b,same"] * 9, "and 13 more"),
        (["a,b"], "line 2: ''"),
        (
            [
                "train/a.jpg,train/b.jpg,same",
                "train/a.jpg,train/c.jpg,different",
                "train/c.jpg,train/b.jpg,same",
            ],
            "line 3: 'train/a.jpg' and 'train/c.jpg' are different, and the same by lines 2, 4",
        ),
        (
            ["train/b.jpg,train/a.jpg,different", "train/a.jpg,train/b.jpg,same"],
            "and the same by line 3",
        ),
        (["train/a.jpg,train/b.jpg,same", *["train/a.jpg,train/b.jpg,different"] * 8], "and 3 more"),
        (
            ["train/a.jpg,train/a.jpg,different"],
            "line 2: 'train/a.jpg' and 'train/a.jpg' are different, and one",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(file: Path, lines: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        _read(file, *lines)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(("faults", "more"), [(5, []), (6, ["  and 1 more"]), (8, ["  and 3 more"])])
def test_five_faults_are_named_and_the_others_counted(file: Path, faults: int, more: list[str]) -> None:
    same, different = "train/a.jpg,train/b.jpg,same", "train/a.jpg,train/b.jpg,different"
    for lines, line in (([different] * faults + [same], 2), ([same] + [different] * faults, 3)):
        with pytest.raises(UsageError) as error:
            _read(file, *lines)
        said = str(error.value).splitlines()[1:]
        assert [one.split(":")[0] for one in said[:5]] == [f"  line {line + row}" for row in range(5)]
        assert said[5:] == more
    with pytest.raises(UsageError) as error:
        _read(file, *["a,train/b.jpg,same"] * faults)
    assert str(error.value).splitlines()[6:] == more


def test_files_that_are_no_pairs(file: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_answers(file)
    file.write_text("left,right\na,b\n")
    with pytest.raises(UsageError, match="lacks the column"):
        read_answers(file)
    file.write_text("")
    with pytest.raises(UsageError, match="lacks the column"):
        read_answers(file)
    file.write_text("first,second,answer,answer\na,b,same,different\n")
    with pytest.raises(UsageError, match="2 columns 'answer'"):
        read_answers(file)


def test_a_run_keeps_what_it_obeys(file: Path, tmp_path: Path) -> None:
    lines = ("train/a.jpg,train/b.jpg,same", "train/b.jpg,train/c.jpg,different", "x,y,unsure")
    _read(file, *lines)
    pairs = read_pairs(file, PATHS)
    assert pairs is not None
    about = about_pairs(file, pairs, PATHS)
    assert say_pairs(about) == f"{file}, 1 same, 1 different"
    assert say_pairs({}) == ""
    _read(file, *lines, "train/a.jpg,train/c.jpg,unsure")
    pairs = read_pairs(file, PATHS)
    assert pairs is not None
    assert len(pairs) == 2, "nothing follows from doubt"
    keep_pairs(tmp_path, pairs, PATHS)
    found = kept_pairs(tmp_path, PATHS, about)
    assert found.same.tolist() == [[0, 1]]
    assert found.different.tolist() == [[1, 2]]
    assert found.unsure.tolist() == [[0, 2]]
    assert fingerprint(found, PATHS) == about["sha256"]
    _read(file, "train/c.jpg,train/b.jpg,different", "train/b.jpg,train/a.jpg,same", *lines)
    again = read_pairs(file, PATHS)
    assert again is not None
    assert fingerprint(again, PATHS) == about["sha256"], "in another order, and twice"
    with pytest.raises(RunError, match="has changed"):
        kept_pairs(tmp_path, PATHS, {"sha256": "0" * 64})
    (tmp_path / "pairs.csv").unlink()
    os.mkfifo(tmp_path / "pairs.csv")
    with pytest.raises(RunError, match="not a file"):
        kept_pairs(tmp_path, PATHS, about)
    (tmp_path / "pairs.csv").unlink()
    with pytest.raises(RunError, match="cannot be used"):
        kept_pairs(tmp_path, PATHS, about)


def test_answers_read_back(file: Path) -> None:
    answers = [Answer("a,b", 'c"', "same", 2), Answer("d", "e\udcff", "unsure", 3)]
    write_answers(file, answers)
    assert read_answers(file) == answers
