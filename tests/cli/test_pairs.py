"""What the user says of pairs, from the command line to the labels."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import icsr
from tiny_world import TINY
from typer.testing import Result

from icsr_cli.errors import UsageError
from icsr_cli.recipes.review import Review, pairs_of
from icsr_cli.runs import open_run, read_labels
from icsr_cli.runs.pairs import (
    Answer,
    about_pairs,
    keep_pairs,
    kept_pairs,
    read_answers,
    read_pairs,
    write_answers,
)
from icsr_cli.types import Dataset, Pairs

SETTINGS = [word for assignment in TINY for word in ("--set", assignment)]


def train(stage: str, home: Path, root: Path, *arguments: object) -> Result:
    places = ["--data-root", root, "--runs", home / "runs", "--json"]
    return icsr("train", stage, "-d", "tiny", *SETTINGS, *arguments, *places)


@pytest.fixture
def answers(tiny: Dataset, tmp_path: Path) -> Path:
    """Three images of one person, of two cameras; and one of another, under the first's camera."""
    identities, cameras = tiny.train.identities, tiny.train.cameras
    own = np.flatnonzero(identities == identities[0])
    across = own[cameras[own] != cameras[0]][0]
    other = np.flatnonzero((identities != identities[0]) & (cameras == cameras[0]))[0]
    paths = tiny.train.paths
    rows = [(0, across, "same"), (across, own[1], "same"), (own[1], other, "different"), (0, other, "unsure")]
    file = tmp_path / "answers.csv"
    text = "".join(f"{paths[a]},{paths[b]},{answer}\n" for a, b, answer in rows)
    file.write_text("first,second,answer\n" + text)
    return file


def _obeyed(labels: np.ndarray, tiny: Dataset) -> bool:
    identities, cameras = tiny.train.identities, tiny.train.cameras
    own = np.flatnonzero(identities == identities[0])
    across = own[cameras[own] != cameras[0]][0]
    other = np.flatnonzero((identities != identities[0]) & (cameras == cameras[0]))[0]
    together = labels[0] == labels[across] == labels[own[1]]
    return bool(together and (labels[0] != labels[other] or labels[0] < 0))


def test_a_global_run_obeys_and_says_so(
    tiny: Dataset, tiny_root: Path, answers: Path, tmp_path: Path
) -> None:
    own = ["--method", "cluster-contrast", "--init", "none"]
    done = train("global", tmp_path, tiny_root, *own, "--pairs", answers)
    assert done.exit_code == 0, done.output
    run = open_run(Path(json.loads(done.stdout)["run"]))
    for file in run.label_files():
        table = read_labels(file)
        assert _obeyed(table.labels, tiny)
        assert _obeyed(table.clusters, tiny)
        assert table.columns["pairs"].sum() == 6
    assert run.metrics()[-1]["pairs_same"] == 2
    assert run.metrics()[-1]["pairs_different"] == 1
    about = run.info()["pairs"]
    assert (about["file"], about["same"], about["different"]) == (str(answers), 2, 1)
    resumed = train("global", tmp_path, tiny_root, *own, "--resume", "--pairs", answers)
    assert resumed.exit_code == 0, resumed.output
    answers.write_text(answers.read_text().replace("different", "unsure"))
    other = train("global", tmp_path, tiny_root, *own, "--resume", "--pairs", answers)
    assert other.exit_code == 2
    assert "2 same, 1 different" in other.stderr
    (run.path / "pairs.csv").write_text("first,second,answer\n")
    changed = train("global", tmp_path, tiny_root, *own, "--resume")
    assert changed.exit_code == 1
    assert "has changed since the run began" in changed.stderr
    shutil.rmtree(tmp_path / "runs")
    answers.write_text(answers.read_text() + "nobody.jpg,nobody.jpg,same\n")
    wrong = train("global", tmp_path, tiny_root, *own, "--pairs", answers)
    assert wrong.exit_code == 2
    assert "line 6: 'nobody.jpg'" in wrong.stderr
    assert not (tmp_path / "runs").exists(), "found out before anything is made"


@pytest.mark.parametrize("network", ["shared", "per-camera"])
def test_a_cam_run_obeys_what_follows_within_a_camera(
    tiny: Dataset, tiny_root: Path, answers: Path, tmp_path: Path, network: str
) -> None:
    """Two images of one camera are the same by way of another camera's; the two that differ share one."""
    cam = train("cam", tmp_path, tiny_root, "--method", "icsr", "--network", network, "--pairs", answers)
    assert cam.exit_code == 0, cam.output
    local = read_labels(Path(json.loads(cam.stdout)["local"]))
    identities, cameras = tiny.train.identities, tiny.train.cameras
    own = np.flatnonzero(identities == identities[0])
    other = np.flatnonzero((identities != identities[0]) & (cameras == cameras[0]))[0]
    assert cameras[own[1]] == cameras[0]
    assert local.local_clusters[0] == local.local_clusters[own[1]] >= 0
    assert local.local_clusters[0] != local.local_clusters[other]


def test_labels_generate_obeys(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    truth = np.repeat(np.arange(6), 5)
    features = np.eye(6)[truth] + 0.05 * generator.standard_normal((30, 6))
    np.savez(tmp_path / "features.npz", features=features, ids=truth, cameras=np.arange(30) % 2)
    (tmp_path / "pairs.csv").write_text("first,second,answer\n0,7,same\n0,1,different\n11,12,same\n")
    done = icsr(
        "labels", "generate", tmp_path / "features.npz", "--clusterer", "dbscan", "--k1", 6, "--k2", 3,
        "--local", "cluster", "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "labels.csv", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    labels = read_labels(tmp_path / "labels.csv").labels
    assert labels[0] == labels[7] != labels[1]
    assert json.loads(done.stdout)["pairs_mended"] >= 1
    # A cluster stands for an image of it, here of the labels that were just made.
    (tmp_path / "more.csv").write_text(
        f"first,second,answer\ncluster:{labels[20]},cluster:{labels[29]},same\n"
    )
    again = icsr(
        "labels", "generate", tmp_path / "features.npz", "--clusterer", "dbscan", "--k1", 6, "--k2", 3,
        "--pairs", tmp_path / "more.csv", "--pairs-labels", tmp_path / "labels.csv",
        "--out", tmp_path / "joined.csv",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    joined = read_labels(tmp_path / "joined.csv").labels
    assert joined[20] == joined[29]
    assert labels[20] != labels[29]


def test_review_asks_and_answers_from_the_truth(
    tiny: Dataset, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--data-root", tiny_root, "--runs", tmp_path / "runs"]
    own = ["--method", "cluster-contrast", "--init", "none"]
    assert train("global", tmp_path, tiny_root, *own).exit_code == 0
    page, answers, more = tmp_path / "review.html", tmp_path / "answers.csv", tmp_path / "more.csv"
    shown = icsr("labels", "review", "--questions", 6, "--out", page, "--json", *places)
    assert shown.exit_code == 0, shown.output
    assert page.read_text().count('<article class="question"') == json.loads(shown.stdout)["questions"] == 6
    told = icsr("labels", "review", "--questions", 6, "--truth", "--out", answers, "--json", *places)
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["same"] + found["different"] == 6
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # where somebody has saved what a page gave
        said = answers.read_bytes()
        refused = icsr("labels", "review", "--truth", *places)
        assert refused.exit_code == 2
        assert "may hold what somebody said" in refused.stderr
        assert answers.read_bytes() == said
    identity = {record.path: record.identity for record in tiny.train.records}
    lines = read_answers(answers)
    assert len(lines) == 6
    assert all((identity[one.first] == identity[one.second]) == (one.answer == "same") for one in lines)
    assert 0 <= found["pairwise_f_before"] <= found["pairwise_f_after"] <= 1
    # What was answered goes into the next page, and is not asked again; nor what somebody was unsure of.
    write_answers(answers, [replace(lines[0], answer="unsure"), *lines[1:]])
    again = icsr(
        "labels", "review", "--questions", 3, "--truth", "--pairs", answers, "--out", more, "--json", *places
    )
    assert again.exit_code == 0, again.output
    both = read_answers(more)
    asked, known = ({frozenset((one.first, one.second)) for one in each} for each in (both, lines))
    assert asked > known
    assert len(asked) == len(both)
    doubted = [{one.first, one.second} for one in both if one.answer == "unsure"]
    assert doubted == [{lines[0].first, lines[0].second}]
    # Nor is that where it is all that a run knows.
    doubt = pairs_of([replace(lines[0], answer="unsure")], tiny.train)
    first = open_run(next((tmp_path / "runs/tiny/global").iterdir()))
    keep_pairs(first.path, doubt, tiny.train.paths)
    first.update_info(pairs=about_pairs(answers, doubt, tiny.train.paths))
    doubts = tmp_path / "doubts.csv"
    unsure = icsr("labels", "review", "--questions", 3, "--truth", "--out", doubts, *places)
    assert unsure.exit_code == 0, unsure.output
    assert [one.answer for one in read_answers(doubts)].count("unsure") == 1
    # A run that obeys them asks about the rest.
    obeyed = train("global", tmp_path, tiny_root, *own, "--pairs", more, "--name", "obeyed")
    assert obeyed.exit_code == 0, obeyed.output
    third = icsr("labels", "review", "--questions", 3, "--truth", "--out", answers, *places)
    assert third.exit_code == 0, third.output
    assert len(read_answers(answers)) > len(both)
    # What is wrong with a file is said before anything is computed.
    monkeypatch.setattr("icsr_cli.recipes.review.Embedder", None)
    [said] = [one for one in both if one.answer == "different"][:1]
    write_answers(
        answers, [replace(said, answer="same"), replace(said, first="cluster:999", answer="unsure")]
    )
    against = icsr("labels", "review", "--pairs", answers, *places)
    assert against.exit_code == 2
    for word in (str(answers), said.first, said.second, "the run's own pairs"):
        assert word in " ".join(against.stderr.split())
    write_answers(answers, [replace(said, first="cluster:999")])
    run = tmp_path / "runs/tiny/global/obeyed"
    beyond = icsr("labels", "review", "--pairs", answers, "--pairs-labels", run, *places)
    assert beyond.exit_code == 2
    assert "the labels have clusters 0 to" in " ".join(beyond.stderr.split())


@pytest.mark.parametrize(("known", "told"), [("same", "different"), ("different", "same")])
def test_answers_against_what_is_known_are_named(tiny: Dataset, known: str, told: str) -> None:
    one, other = tiny.train.paths[:2]
    pairs = pairs_of([Answer(one, other, known)], tiny.train)
    nothing: Any = None
    opened = Review(tiny.train, nothing, nothing, nothing, nothing, pairs)
    differ, same = "what is known already", "what the identities say"
    differ, same = (differ, same) if known == "different" else (same, differ)
    with pytest.raises(
        UsageError, match=f"'{one}' and '{other}' are different by {differ} and the same.*{same}"
    ):
        opened.relabel([Answer(other, one, told)])


def test_review_needs_a_global_run(tiny_root: Path, tmp_path: Path) -> None:
    places = ["--data-root", tiny_root, "--runs", tmp_path / "runs"]
    none = icsr("labels", "review", *places)
    assert none.exit_code == 1
    assert "icsr train global" in none.stderr
    assert train("cam", tmp_path, tiny_root, "--method", "icsr").exit_code == 0
    [run] = (tmp_path / "runs" / "tiny" / "cam").iterdir()
    cam = icsr("labels", "review", run, *places)
    assert cam.exit_code == 2
    assert "is a run of the cam stage" in cam.stderr


def test_a_run_goes_on_from_the_network_of_another(tiny_root: Path, tmp_path: Path) -> None:
    own = ["--method", "cluster-contrast", "--epochs", 2]
    first = train(
        "global", tmp_path, tiny_root, *own, "--init", "none", "-a", "resnet_small", "--name", "first"
    )
    assert first.exit_code == 0, first.output
    begun = open_run(Path(json.loads(first.stdout)["run"]))
    second = train("global", tmp_path, tiny_root, *own, "--init", begun.path, "--name", "second")
    assert second.exit_code == 0, second.output
    run = open_run(Path(json.loads(second.stdout)["run"]))
    model = run.settings()["global"]["model"]
    assert model["weights"] == str(begun.path / "best.safetensors")
    assert model["arch"] == "resnet_small", "the network is that of the run"
    assert run.metrics()[0]["loss"] != begun.metrics()[0]["loss"]
    resumed = train("global", tmp_path, tiny_root, *own, "--init", begun.path, "--resume", "--name", "second")
    assert resumed.exit_code == 0, resumed.output
    on = ("--init", begun.path, "--resume", "--name", "second")
    on = (*on, "--set", "global.model.num_features=64", "--set", "image.height=40")
    for config in ((), ("--config", tmp_path / "empty.yaml")):
        (tmp_path / "empty.yaml").touch()
        refused = train("global", tmp_path, tiny_root, *own, *on, *config)
        assert refused.exit_code == 2
        assert "global.model.num_features: 0 in the run, 64 asked for" in refused.stderr
        assert "image.height" in refused.stderr
    other = train("global", tmp_path, tiny_root, *own, "--init", begun.path, "-a", "resnet50")
    assert other.exit_code == 2
    assert "global.model.arch: 'resnet50' asked for, 'resnet_small' there" in other.stderr
    (tmp_path / "empty").mkdir()
    none = train("global", tmp_path, tiny_root, *own, "--init", tmp_path / "empty")
    assert none.exit_code == 1
    assert "is no run folder" in none.stderr
    cam = train("cam", tmp_path, tiny_root, "--method", "icsr", "--init", begun.path, "--name", "after")
    assert cam.exit_code == 0, cam.output
    assert open_run(tmp_path / "runs/tiny/cam/after").info()["init"] == str(begun.path)


def test_names_with_space_at_their_ends_are_kept_as_they_are(tmp_path: Path) -> None:
    paths = [" a/x.jpg", "b/y.jpg ", "c\rd.jpg", "e.jpg"]
    pairs = Pairs(np.array([[0, 1]]), np.array([[2, 3]]), np.empty((0, 2), dtype=np.int64))
    keep_pairs(tmp_path, pairs, paths)
    kept = kept_pairs(tmp_path, paths, about_pairs(None, pairs, paths))
    assert kept is not None
    assert (kept.same.tolist(), kept.different.tolist()) == ([[0, 1]], [[2, 3]])
    write_answers(tmp_path / "typed.csv", [Answer(" e.jpg", "c\rd.jpg", " same ")])
    typed = read_pairs(tmp_path / "typed.csv", paths)
    assert typed is not None
    assert typed.same.tolist() == [[3, 2]]
