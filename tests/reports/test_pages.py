from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, visit
from html_pages import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from icsr_cli.errors import RunError, UsageError
from icsr_cli.metrics import rank
from icsr_cli.recipes.report_data import EmbeddingMap, RankedQuery, Retrieval
from icsr_cli.reports import pages
from icsr_cli.reports.charts import Line, PointGroup, bar_chart, line_chart, scatter, ticks
from icsr_cli.reports.epochs import LABELS, curves, epoch_table, seconds_table
from icsr_cli.reports.galleries import sampled
from icsr_cli.reports.label_report import label_report, overview
from icsr_cli.reports.page import duration, table, tile, write
from icsr_cli.reports.pages.changes import CLUSTER_PICTURES, STAYED_PICTURES, Epochs, change_page
from icsr_cli.reports.pages.images import camera_page, cluster_page, discarded_page
from icsr_cli.reports.pages.labels import overview_page
from icsr_cli.reports.pages.run import RunView, run_page
from icsr_cli.reports.pictures import LONGEST, Pictures, thumbnail
from icsr_cli.reports.truth import judged
from icsr_cli.reports.view import LabelSource, View
from icsr_cli.runs import LabelTable, RunFolder, create, write_labels
from icsr_cli.runs.quality import is_local, one_number_per_cluster

SECTIONS = {"training", "labels", "retrieval", "rankings", "map", "time", "settings", "environment"}
EVIL = '<script>alert("1")</script>&amp;'
ALL_ABSENT = dict.fromkeys(("labels", "retrieval", "rankings", "map"), f"not there: {EVIL}")


def labels_of(n: int = 60, seed: int = 0, identities: bool = True) -> LabelTable:
    """Random labels of three cameras, with all four states."""
    random = np.random.default_rng(seed)
    clusters = random.integers(-1, 4, n)
    states = np.where(clusters < 0, "noise", "kept").astype("<U9")
    states[(clusters == 1) & (random.random(n) < 0.5)] = "discarded"
    for cluster in range(4):
        kept = np.flatnonzero((clusters == cluster) & (states == "kept"))
        states[kept[:1]] = "node"
    return LabelTable(
        paths=tuple(f"train/{EVIL}{row}.jpg" for row in range(n)),
        cameras=random.integers(0, 3, n),
        identities=random.integers(0, 5, n) if identities else np.full(n, -1),
        clusters=clusters,
        local_clusters=random.integers(0, 6, n),
        labels=np.where(np.isin(states, ("kept", "node")), clusters, -1),
        states=states,
    )


def pictures_of(labels: LabelTable) -> Pictures:
    shape = (len(labels), 32, 16, 3)
    return Pictures(labels.paths, np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8))


def global_epoch(epoch: int) -> dict[str, object]:
    quality = {name: {"nmi": 0.9 + epoch / 100, "pairwise_f": 0.5, "bcubed_f": 0.6} for name in LABELS}
    return {
        "epoch": epoch, "loss": 2.0 / epoch, "clusters": 100 + epoch, "kept": 80, "discarded": 15, "noise": 5,
        "nodes": 100, "silhouette": 0.1 if epoch > 1 else math.nan, "quality": quality,
        "seconds": {"extraction": 1.0, "labels": 2.0, "training": 5.0},
    }  # fmt: skip


def cam_epoch(camera: int, epoch: int) -> dict[str, object]:
    quality = {"nmi": 0.9, "pairwise_f": 0.5, "bcubed_f": 0.6}
    own = {"clusters": 10 + camera, "silhouette": 0.2, "best_epoch": epoch, "quality": quality}
    return {"part": f"camera_{camera}", "epoch": epoch, "loss": 1.0 + camera, "clusters": 10,
            "silhouette": 0.2, "nmi": 0.9, "cameras": {str(camera): own}}  # fmt: skip


def run_of(root: Path, stage: str = "global", epochs: int = 3, **info: object) -> RunFolder:
    run = create(root, "tiny", stage, name="one")
    run.write_settings(
        {"seed": 1, "note": EVIL, "global": {"epochs": 9, "model": {"arch": "x"}}, "cam": {"epochs": 9}}
    )
    run.write_environment({"python": "3.11", "gpus": [], "device": "cpu", "command": ["icsr", EVIL]})
    make = global_epoch if stage == "global" else lambda epoch: cam_epoch(epoch % 2, 1 + epoch // 2)
    run.write_metrics([make(epoch) for epoch in range(1, epochs + 1)])
    run.finish()
    run.update_info(**info)
    return run


def view_of(labels: LabelTable | None) -> RunView:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 32, 16, 3)).astype(np.uint8)
    right = np.arange(1, 6) % 2 == 0
    cameras = ("1", *(str(place % 3) for place in range(1, 6)))
    queries = tuple(
        RankedQuery(kind, 0, EVIL, 0.25, 2, np.arange(5), right, cameras, pixels)
        for kind in ("best", "worst", "random")
    )
    features = random.normal(size=(12, 4)).astype(np.float32)
    ids, cameras_ = np.arange(12) % 3, np.arange(12) % 2
    ranking = rank(features, features, ids, ids, cameras_, 1 - cameras_)
    points = random.normal(size=(40, 2)).astype(np.float32)
    clusters = random.integers(-1, 5, 40)
    names = random.integers(0, 3, 40).astype(str)
    return RunView(
        Retrieval(ranking, queries, {}),
        EmbeddingMap(np.arange(40), points, names, clusters, 400),
        labels,
        ALL_ABSENT,
    )


@pytest.fixture
def source() -> LabelSource:
    return LabelSource("tiny", "labels/epoch_003.csv", "global", [global_epoch(1), global_epoch(2)], (EVIL,))


def test_a_page_is_a_file_and_its_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pages.available() == ("changes", "compare", "labels", "run")
    (tmp_path / "mine.py").write_text("def page(view):\n    return f'{view.run.dataset}: mine'\n")
    monkeypatch.setattr(pages, "__path__", [*pages.__path__, str(tmp_path)])
    assert "mine" in pages.available()
    view = View((run_of(tmp_path),), tmp_path)
    assert pages.find("mine").page(view) == "tiny: mine"
    with pytest.raises(UsageError, match="no page 'nine'; there are changes, compare, labels, mine, run"):
        pages.find("nine")


@pytest.mark.parametrize("name", ["labels", "changes", "compare"])
def test_every_page_is_written_from_a_run(tmp_path: Path, name: str) -> None:
    run, labels = run_of(tmp_path), labels_of()
    run.update_info(camera_names=["door", "hall", "exit"])
    for epoch, table_ in ((1, labels), (3, labels_of(seed=1))):
        write_labels(run.label_file(epoch), replace(table_, paths=tuple(f"{row}.jpg" for row in range(60))))
    page = Page(pages.find(name).page(View((run,), tmp_path)))
    page.check()
    words = {"labels": "epoch_003", "changes": "From epoch 1 to epoch 3", "compare": "1 run side by side"}
    assert words[name] in page.text
    if name == "labels":
        assert all(camera in page.text for camera in ("door", "hall", "exit"))


def test_states_of_tomorrow_are_shown_in_their_own_words(source: LabelSource) -> None:
    labels = labels_of()
    states = np.where(labels.states == "discarded", "left-alone", labels.states)
    page = Page(overview_page(source, replace(labels, states=states), pictures_of(labels)))
    page.check()
    assert "left alone: taken out of the cluster it was found in" in page.text
    assert page.text.count("✕") == int((states == "left-alone").sum()) + 1


def test_a_run_page_stands_alone_and_has_every_section(tmp_path: Path) -> None:
    html = run_page(run_of(tmp_path), view_of(labels_of()))
    page = Page(html)
    page.check()
    assert set(page.ids) >= SECTIONS
    assert len(page.images) == 3 * (1 + 5)
    assert page.classes.count("right") == 3 * 2 + 1  # one in the key
    assert page.classes.count("wrong") == 3 * 3 + 1
    assert page.text.count("✓") == page.classes.count("right")
    assert page.text.count("✕") == page.classes.count("wrong")
    for words in (
        "Best queries",
        "Worst queries",
        "drawn at random",
        "NMI",
        "mINP",
        "By cluster",
        "training",
    ):
        assert words in page.text
    assert "40 of 400 training images" in page.text
    assert EVIL in page.text  # escaped: it is text, and no tag


def test_a_page_without_anything_says_why(tmp_path: Path) -> None:
    run = run_of(tmp_path, epochs=0, status="running")
    page = Page(run_page(run, RunView(None, None, None, ALL_ABSENT)))
    page.check()
    assert set(page.ids) >= SECTIONS
    assert page.images == []
    assert page.text.count("not there") == 4
    assert "still going" in page.text
    assert "Epoch 0 of 9 is done" in page.text


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"status": "interrupted"}, "goes on with --resume"),
        ({"status": "failed", "reason": "The loss is nan"}, "Reason: The loss is nan"),
        ({"started": "2026-01-01T10:00:00+0000", "ended": "2026-01-01T11:02:00+0000"}, "1 h 02 min"),
        ({"started": "some day"}, "some day"),
    ],
)
def test_the_state_of_a_run_is_said(tmp_path: Path, info: dict[str, str], words: str) -> None:
    page = Page(run_page(run_of(tmp_path, **info), RunView(None, None, None, ALL_ABSENT)))
    assert words in page.text


def test_the_last_epoch_of_several_networks_is_that_of_the_one_at_work(tmp_path: Path) -> None:
    run = run_of(tmp_path, "cam", epochs=0, status="interrupted", camera_names=["a", "b"])
    run.write_metrics([*(cam_epoch(0, epoch) for epoch in range(1, 10)), cam_epoch(1, 1)])
    page = Page(run_page(run, RunView(None, None, None, ALL_ABSENT)))
    assert "Epoch 1 of 9 of camera b is done" in page.text


def test_a_run_took_what_its_epochs_took(tmp_path: Path) -> None:
    """By the clock a run that was stopped overnight took the night."""
    info = {"started": "2026-01-01T10:00:00+0000", "ended": "2026-01-02T10:00:00+0000"}
    page = Page(run_page(run_of(tmp_path, **info), RunView(None, None, None, ALL_ABSENT)))
    assert re.search(r"Epochs took\s*24\.0 s", page.text)
    assert re.search(r"by the clock, stops and all: 24 h", page.text)


def test_the_epoch_that_was_chosen_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, best_epoch=2)
    run.write_settings({**run.settings(), "select": "test-map"})
    page = Page(run_page(run, RunView(None, None, None, ALL_ABSENT)))
    assert "epoch 2, chosen by the test set (test-map)" in page.text


def test_a_finished_run_has_no_warning(tmp_path: Path) -> None:
    assert "note" not in Page(run_page(run_of(tmp_path), view_of(labels_of()))).classes


def test_a_cam_run_has_curves_per_camera(tmp_path: Path) -> None:
    run = run_of(tmp_path, "cam", epochs=6)
    run.write_settings({**run.settings(), "select": "silhouette"})
    labels = labels_of()
    local = replace(labels, clusters=labels.local_clusters, labels=labels.local_clusters,
                    states=np.full(len(labels), "kept"))  # fmt: skip
    page = Page(run_page(run, RunView(None, None, one_number_per_cluster(local), ALL_ABSENT)))
    page.check()
    assert "Labels that are kept: each camera's best epoch" in page.text
    assert "chosen by" not in page.text
    assert "Local: those of" in page.text
    assert "Refined: what" not in page.text
    for words in ("Silhouette per camera", "Label quality: NMI per camera", "camera 0", "camera 1"):
        assert words in page.text
    assert page.text.count("Silhouette") == page.text.count(
        "Silhouette per camera"
    )  # it is the network's own
    assert "not timed by part" in page.text
    assert "refined" not in Page(str(epoch_table(run.metrics()).columns)).text


def test_every_number_of_a_cam_run_has_its_curve() -> None:
    timed = {"learning_rate": 0.1, "seconds": {"extraction": 1.0, "training": 5.0}}
    lines = [{**cam_epoch(camera, epoch), **timed} for epoch in (1, 2) for camera in (0, 1)]
    alone = [line | {"part": "shared"} for line in lines if "1" in line["cameras"]]
    for epochs, more in ((lines, ()), (alone, ("Clusters", "Silhouette", "NMI"))):
        drawn = "".join(curves(epochs, "cam"))
        titles = set(re.findall(r"<figcaption>([^<]*)", drawn))
        assert titles >= {"Loss", "Learning rate", "Seconds of extraction", "Seconds of training", *more}
        assert "Clusters per camera" in titles
        assert "est epoch" not in drawn


def test_tiles_of_a_cam_run_are_of_all_cameras(tmp_path: Path) -> None:
    run = run_of(tmp_path, "cam", epochs=5)
    page = Page(run_page(run, RunView(None, None, None, ALL_ABSENT)))
    assert "0.900 label NMI (mean of cameras), last epoch 1.500 loss, last epoch" in page.text  # 1 and 2


def test_a_command_is_shown_as_it_can_be_typed(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.write_environment({"command": ["icsr", "train", "--name", "it's one, two"]})
    assert """command icsr train --name 'it'"'"'s one, two'""" in Page(run_page(run, view_of(None))).text


def test_one_epoch_alone_has_not_moved(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    write_labels(run.label_file(1), labels_of())
    page = Page(pages.find("changes").page(View((run,), tmp_path)))
    assert "labels of one and the same epoch: nothing can have moved" in page.text


def test_tiles_count_one_as_one() -> None:
    assert (tile(1, "cluster"), tile(1200, "image")) == (("cluster", "1"), ("images", "1,200"))


def test_tiles_of_labels_count_what_the_tables_count(source: LabelSource) -> None:
    labels = labels_of()
    found = overview(labels)
    page = Page(overview_page(source, labels, None))
    assert found["nodes"]
    assert f"{found['kept'] / found['images']:.1%} kept" in page.text.replace(" %", "%")


def test_damaged_evaluations_are_none(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (run.path / "evaluation.json").write_text('{"format": 1, "evaluations": [{')
    assert "0.667 loss" in Page(run_page(run, view_of(labels_of()))).text


def test_a_damaged_environment_is_none(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (run.path / "environment.json").write_text("[1, 2")
    page = Page(run_page(run, view_of(None)))
    assert "Not recorded" in page.text


def test_settings_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (run.path / "settings.yaml").unlink()
    with pytest.raises(RunError, match="settings"):
        run_page(run, view_of(None))


def test_the_label_page_shows_each_state_marked(source: LabelSource) -> None:
    labels = labels_of()
    page = Page(overview_page(source, labels, pictures_of(labels)))
    page.check()
    assert set(page.ids) >= {"epochs", "sizes", "cameras", "quality", "clusters", "pictures"}
    assert {f"cluster-{number}" for number in range(4)} <= set(page.ids)
    shown = int((labels.clusters >= 0).sum())
    assert len(page.images) == shown
    for state, mark in (("discarded", "✕"), ("node", "★")):
        count = int((labels.states == state).sum())
        assert count > 0
        assert page.classes.count(state) == count + 1  # one in the key
        assert page.text.count(mark) == count + 1
    assert EVIL in page.text
    assert any(EVIL in title for title in page.titles)


def test_local_clusters_are_told_of_where_there_are_any(source: LabelSource) -> None:
    labels = labels_of()
    some = Page(overview_page(source, labels, None)).text
    assert "local clusters" in some
    assert "local per camera" in some
    assert "Local per camera" in some
    none = Page(overview_page(source, replace(labels, local_clusters=np.full(len(labels), -1)), None))
    none.check()
    assert "local clusters" not in none.text
    assert "ocal per camera" not in none.text


def test_cohesion_is_shown_where_it_is_known(source: LabelSource) -> None:
    labels = labels_of(identities=False)
    plain = Page(overview_page(source, labels, None)).text
    assert "ohesion" not in plain
    known = np.where(labels.clusters < 0, np.nan, 0.25 + labels.clusters / 10).astype(np.float32)
    page = Page(overview_page(source, replace(labels, columns={"cohesion": known}), None))
    page.check()
    assert "cohesion 0.45" in page.text
    assert "Cohesion is the mean similarity" in page.text
    # All have three cameras, so the order is that of the cohesion alone.
    mixed = page.text.split("Most mixed clusters")[1]
    places = [mixed.index(value) for value in ("0.250", "0.350", "0.450", "0.550")]
    assert places == sorted(places)


def test_a_large_cluster_shows_images_of_every_camera_and_state_and_says_how_many_are_not(
    source: LabelSource,
) -> None:
    labels = labels_of(400)
    page = Page(overview_page(source, labels, pictures_of(labels)))
    page.check()
    assert len(page.images) == 4 * 24
    size = int((labels.clusters == 1).sum())
    assert f"{size - 24} more images are not shown" in page.text
    assert page.classes.count("node") == 4 + 1  # one in the key
    for cluster in range(4):
        own = labels.clusters == cluster
        kinds = set(zip(labels.cameras[own].tolist(), labels.states[own].tolist(), strict=True))
        gallery = Page(cluster_page(source, labels, None, cluster))
        assert {state for _, state in kinds} <= set(gallery.classes)
    few = Page(overview_page(source, labels, pictures_of(labels), images=6))
    assert len(few.images) == 4 * 6


def test_a_sample_gives_every_kind_its_turn() -> None:
    kinds = [("a", "kept")] * 90 + [("a", "out")] * 5 + [("b", "kept")] * 40 + [("b", "node")]
    chosen = sampled(kinds, 24)
    counts = Counter(kinds[place] for place in chosen.tolist())
    assert counts == {("a", "kept"): 9, ("a", "out"): 5, ("b", "kept"): 9, ("b", "node"): 1}
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(sampled(kinds, 1000)) == len(kinds)
    assert len(sampled([], 5)) == 0


def test_pages_of_one_cluster_one_camera_and_thrown_out_images(source: LabelSource) -> None:
    labels, pictures = labels_of(), pictures_of(labels_of())
    for html, mask in (
        (cluster_page(source, labels, pictures, 1), labels.clusters == 1),
        (camera_page(source, labels, pictures, 2), labels.cameras == 2),
        (discarded_page(source, labels, pictures), labels.states == "discarded"),
    ):
        page = Page(html)
        page.check()
        assert len(page.images) == mask.sum()
    with pytest.raises(RunError, match="no cluster 77"):
        cluster_page(source, labels, pictures, 77)
    with pytest.raises(RunError, match="no camera 9"):
        camera_page(source, labels, pictures, 9)


def test_no_thrown_out_images_is_said(source: LabelSource) -> None:
    labels = labels_of()
    states = np.where(labels.clusters < 0, "noise", "kept")
    kept = replace(labels, states=states, labels=labels.clusters)
    assert "No images" in Page(discarded_page(source, kept, None)).text


EPOCHS = Epochs("tiny", "epoch 1", "epoch 3", ("labels/epoch_001.csv", "labels/epoch_003.csv"), (EVIL,))


def moved_from(labels: LabelTable, share: float, seed: int = 0) -> LabelTable:
    """The same images: a share of them in other clusters, all under other numbers, some states changed."""
    random = np.random.default_rng(seed)
    clusters = np.where(labels.clusters < 0, -1, 3 - labels.clusters)
    moved = random.random(len(labels)) < share
    clusters[moved] = random.integers(-1, 4, int(moved.sum()))
    states = np.where(clusters < 0, "noise", np.where(labels.states == "noise", "kept", labels.states))
    return replace(labels, clusters=clusters, labels=clusters, states=states.astype("<U9"))


def test_the_page_of_changes_shows_what_moved() -> None:
    before = labels_of(200)
    after = moved_from(before, 0.2)
    page = Page(change_page(EPOCHS, before, after, pictures_of(before), 10))
    page.check()
    assert set(page.ids) >= {"states", "clusters", "pictures"}
    assert {f"{epoch}-{number}" for epoch in ("before", "after") for number in range(4)} <= set(page.ids)
    for words in (
        "From epoch 1 to epoch 3",
        "epoch_001.csv",
        "newly thrown out",
        "kept → noise",
        "stayed together, now cluster",
        "went to cluster",
        "now in no cluster",
        "came from cluster",
        "were in no cluster",
        EVIL,
    ):
        assert words in page.text
    assert len(page.images) == 8 * CLUSTER_PICTURES
    assert page.text.count("more images are not shown") == 8
    assert page.text.count("cam ") == len(page.images)


def test_moved_images_come_before_those_that_stayed() -> None:
    before = labels_of(2000)
    page = Page(change_page(EPOCHS, before, moved_from(before, 0.4), pictures_of(before), 1))
    page.check()
    assert len(page.images) == 2 * CLUSTER_PICTURES
    first = page.text.split("stayed together, now cluster")[1].split("went to cluster")[0]
    assert first.count("cam ") == STAYED_PICTURES


def test_where_nothing_moved_the_page_says_so() -> None:
    labels = labels_of()
    page = Page(change_page(EPOCHS, labels, moved_from(labels, 0), pictures_of(labels)))
    page.check()
    assert "Nothing moved" in page.text
    assert "0 moved (0.0%)" in page.text
    assert page.images == []


def test_changes_without_pictures_or_clusters() -> None:
    labels = labels_of()
    page = Page(change_page(EPOCHS, labels, moved_from(labels, 0.5), None))
    page.check()
    assert "gone" in page.classes
    assert page.images == []
    none = np.full(len(labels), -1)
    empty = replace(labels, clusters=none, labels=none, states=np.full(len(labels), "noise"))
    page = Page(change_page(EPOCHS, labels, empty, None))
    page.check()
    assert "went to no cluster" in page.text
    words = replace(labels, states=np.full(len(labels), "a-word-of-tomorrow"))
    assert "a word of tomorrow in epoch 3" in Page(change_page(EPOCHS, labels, words, None)).text
    with pytest.raises(RunError, match="no image in common"):
        change_page(EPOCHS, labels, replace(labels, paths=("x",) * len(labels)), None)


def test_without_pictures_the_page_names_the_images(source: LabelSource) -> None:
    labels = labels_of()
    page = Page(overview_page(source, labels, None))
    page.check()
    assert page.images == []
    assert page.classes.count("gone") == int((labels.clusters >= 0).sum())


def test_without_identities_nothing_is_judged(source: LabelSource) -> None:
    labels = labels_of(identities=False)
    page = Page(overview_page(replace(source, epochs=[]), labels, pictures_of(labels)))
    page.check()
    assert "no known identities" in page.text
    assert "purity" not in page.text
    assert "epochs" not in page.ids


def test_labels_without_a_cluster_make_a_page(source: LabelSource) -> None:
    labels = labels_of(8)
    none = np.full(8, -1)
    empty = replace(labels, clusters=none, labels=none, states=np.full(8, "noise"))
    page = Page(overview_page(source, empty, pictures_of(labels)))
    page.check()
    assert "tables above: 0 of 0." in page.text


def test_clusters_of_the_cam_stage_get_one_number_each() -> None:
    cameras = np.array([0, 1, 0, 1, 2, 0])
    local = np.array([0, 0, 1, 0, -1, 0])
    table_ = replace(labels_of(6), cameras=cameras, clusters=local, local_clusters=local, labels=local)
    found = one_number_per_cluster(table_)
    assert found.clusters.tolist() == [0, 2, 1, 2, -1, 0]
    assert one_number_per_cluster(found).clusters.tolist() == found.clusters.tolist()
    assert list(judged(found)) == ["local"]
    told = label_report(table_)
    assert [name for name, part in told["quality"].items() if part] == ["local"]
    assert (len(told["largest_clusters"]) > 0, told["most_mixed_clusters"]) == (True, [])
    other = labels_of()
    assert not is_local(other)
    assert one_number_per_cluster(other) is other
    assert list(judged(other)) == ["global", "local", "refined"]


def test_seconds_add_up() -> None:
    found = seconds_table([global_epoch(1), global_epoch(2)])
    assert found is not None
    assert found.rows[2] == ("training", "10.0", "5.00", "62.5%")
    assert found.rows[-1] == ("together", "16.0", "8.00", "100.0%")
    assert found.numeric == (False, True, True, True)
    assert seconds_table([cam_epoch(0, 1)]) is None


def test_thumbnails_are_small_and_true() -> None:
    pixels = np.zeros((256, 128, 3), np.uint8)
    pixels[:, :, 0] = 200
    found = thumbnail(pixels)
    image = Image.open(io.BytesIO(base64.b64decode(found.uri.split(",")[1])))
    assert image.size == (found.width, found.height) == (LONGEST // 2, LONGEST)
    assert np.abs(np.asarray(image).astype(int) - [200, 0, 0]).max() < 8
    small = thumbnail(np.zeros((20, 10, 3), np.uint8))
    assert (small.width, small.height) == (10, 20)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 8), st.booleans())
@settings(max_examples=200, deadline=None)
def test_ticks_enclose_the_values(low: float, span: float, count: int, whole: bool) -> None:
    marks = ticks(low, low + span, count, whole=whole)
    slack = 1e-6 * max(abs(low), span, 1)
    assert marks[0] <= low + slack
    assert marks[-1] >= low + span - slack
    assert marks == sorted(set(marks))
    assert 2 <= len(marks) <= 2 * count + 3
    if whole:
        assert all(mark == int(mark) for mark in marks)


def test_a_line_goes_through_its_points_and_leaves_gaps() -> None:
    svg = str(line_chart("t", [Line("a", [1, 2, 3, 4, 5], [0.0, 1.0, None, math.nan, 0.5])]))
    (path,) = re.findall(r'stroke-dasharray="" d="([^"]+)"', svg)
    assert path.count("M") == 2
    assert path.count("L") == 1
    places = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
    (x1, y1), (x2, y2), (x5, y5) = places
    assert (x5 - x1) == pytest.approx(4 * (x2 - x1), abs=0.3)
    assert y5 == pytest.approx((y1 + y2) / 2, abs=0.1)
    assert y1 > y2  # larger is higher
    assert svg.count("<circle") == 3


def test_no_value_is_said_and_one_value_is_drawn() -> None:
    assert "No value" in line_chart("t", [Line("a", [1], [None])])
    assert "<circle" in line_chart("t", [Line("a", [1], [3.0])])
    assert "No value" in bar_chart("t", ["1"], [("a", [0])])


def test_lines_differ_by_more_than_colour() -> None:
    lines = [Line(f"camera {i}", [1, 2], [i, i + 1.0]) for i in range(16)]
    svg = str(line_chart("t", lines))
    looks = re.findall(r'<g class="line (c\d)"><path stroke-dasharray="([^"]*)"', svg)
    assert len(looks) == len(set(looks)) == 16
    assert all(one[1] != other[1] for one, other in pairwise(looks))


def test_bars_are_as_high_as_their_counts() -> None:
    svg = str(bar_chart("t", ["1", "2"], [("a", [2, 4]), ("b", [0, 1])]))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert heights[2] == 0


def test_a_map_has_a_dot_for_every_image() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    groups = [PointGroup("<a>", points[:20]), PointGroup("b", points[20:], "#123456")]
    svg = str(scatter("t", groups, legend=True))
    assert svg.count("h0") == 50 + 2  # two in the legend
    assert "<a>" not in svg
    assert "stroke:#123456" in svg
    one = str(scatter("t", [PointGroup("a", np.zeros((1, 2)))], legend=False))
    assert "nan" not in one


def test_numbers_are_written_for_people() -> None:
    assert [write(value) for value in (1234, 0.12345, None, math.nan, True, "a", 1234.5)] == [
        "1,234", "0.123", "-", "-", "yes", "a", "1,234",
    ]  # fmt: skip
    assert table(["a", "b", "c"], [[1, "x", "5.0%"], [None, "2", "-"]]).numeric == (True, False, True)
    assert [duration(value) for value in (8.44, 185, 7620)] == ["8.4 s", "3 min 05 s", "2 h 07 min"]


def test_curves_of_no_epoch_are_none() -> None:
    assert curves([], "global") == curves([], "cam") == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_shows_everything_and_asks_nobody(tmp_path: Path, source: LabelSource, width: int) -> None:
    labels = labels_of()
    pages = {
        "run": run_page(run_of(tmp_path), view_of(labels)),
        "labels": overview_page(source, labels, pictures_of(labels)),
        "changes": change_page(EPOCHS, labels, moved_from(labels, 0.3), pictures_of(labels)),
    }
    questions = {
        "images": "document.images.length",
        "shown": "[...document.images].filter(i => i.complete && i.naturalWidth > 0 && i.width > 0).length",
        "sideways": "document.documentElement.scrollWidth - window.innerWidth",
        "ground": "getComputedStyle(document.body).backgroundColor",
    }
    for name, html in pages.items():
        file = tmp_path / f"{name}.html"
        file.write_text(html, encoding="utf-8")
        found = visit(file, tmp_path / f"profile-{name}", questions, width, dark=width == 390)
        assert found.errors == []
        assert {address.split(":")[0] for address in found.requests} <= {"file", "data"}
        assert [address for address in found.requests if address.startswith("file")] == [file.as_uri()]
        assert found.values["images"] == found.values["shown"] == len(Page(html).images) > 0
        assert found.values["sideways"] <= 0, json.dumps(found.values)
        dark = found.values["ground"] != "rgb(252, 252, 251)"
        assert dark == (width == 390)
