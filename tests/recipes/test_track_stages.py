"""Local labels of tracks, in both stages, from crops to the run's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import TINY
from tracked_crops import write_tracks
from typer.testing import CliRunner, Result

from icsr_cli import config, datasets
from icsr_cli.cli.main import app
from icsr_cli.errors import Interrupted
from icsr_cli.labelling import overlapping_tracks
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import load_pixels
from icsr_cli.recipes.global_stage import train_global_stage
from icsr_cli.recipes.steps import Engine
from icsr_cli.recipes.trainer import Stage
from icsr_cli.runs import RunFolder, align_local, create, open_run, read_labels
from icsr_cli.types import Dataset

SET = [word for assignment in TINY for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def home(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set `shop` with tracks and frames, and `plain` without."""
    home = tmp_path_factory.mktemp("tracks")
    write_tracks(next((tiny_root / "tiny").glob("rendered-*")), home / "crops")
    for name, pattern in (("shop", "{camera}/{track}/{frame}.jpg"), ("plain", "{camera}/*/{name}.jpg")):
        words = ["prepare", "folder", name, "--source", home / "crops", "--pattern", pattern]
        result = CliRunner().invoke(
            app, [*map(str, words), "--size", "32x16", "--data-root", str(home / "data")]
        )
        assert result.exit_code == 0, result.output
    return home


@pytest.fixture(scope="module")
def shop(home: Path) -> Dataset:
    return datasets.load("shop", home / "data")


def train(home: Path, *words: str, init: str = "none", code: int = 0) -> Result:
    places = ["--data-root", str(home / "data"), "--runs", str(home / "runs"), "-a", "resnet_small"]
    result = CliRunner().invoke(app, ["train", *words, *places, *SET, "--init", init])
    assert result.exit_code == code, result.output
    return result


def tracks_together(local: np.ndarray, shop: Dataset) -> bool:
    """Whether the images of each track have one local label."""
    return all(len(set(local[shop.train.tracks == track])) == 1 for track in set(shop.train.tracks.tolist()))


def test_the_data_set_knows_its_tracks(shop: Dataset) -> None:
    assert (shop.train.tracks >= 0).all()
    assert (shop.train.frames >= 0).all()
    assert shop.camera_names == ("c1", "c2", "c3")


@pytest.fixture(scope="module")
def cam_run(home: Path) -> RunFolder:
    train(home, "cam", "-d", "shop", "--local", "tracks", "--set", "cam.clusterer.split=-1", "--name", "t")
    return open_run(home / "runs" / "shop" / "cam" / "t")


def test_the_cam_stage(cam_run: RunFolder, shop: Dataset) -> None:
    local = align_local(read_labels(cam_run.labels / "local.csv"), shop.train, cam_run.path)
    assert (local >= 0).all()
    assert tracks_together(local, shop)
    assert "method: tracks" in (cam_run.path / "settings.yaml").read_text()


@pytest.mark.parametrize("method", ["icsr", "camera-aware"])
def test_the_global_stage(method: str, home: Path, shop: Dataset) -> None:
    words = ("global", "-d", "shop", "-m", method, "--local", "tracks", "--set", "global.local.split=-1")
    train(home, *words, "--name", method)
    moves = method == "camera-aware"  # where no refiner of the method uses local labels
    run = open_run(home / "runs" / "shop" / "global" / method)
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    assert all(("moved" in line) == moves for line in run.metrics())
    for epoch in (1, 2, 3):
        table = read_labels(run.label_file(epoch))
        assert (table.local_clusters >= 0).all()
        assert tracks_together(align_local(table, shop.train, run.path), shop)
    assert run.info()["local"] is None
    expected = overlapping_tracks(shop.train.cameras, shop.train.tracks, shop.train.tracks, shop.train.frames)
    assert len(expected)
    assert all(0 < line["pairs_different"] <= len(expected) for line in run.metrics())
    apart = [
        table.labels[side] for side in expected.T
    ]  # of the last epoch: not in one cluster, but for joined
    together = (apart[0] == apart[1]) & (apart[0] >= 0)
    joined = table.local_clusters[expected[:, 0]] == table.local_clusters[expected[:, 1]]
    assert not (together & ~joined).any()
    train(home, *words, "--name", method, "--resume")


def test_a_resumed_run_ends_as_an_uninterrupted_one(home: Path, shop: Dataset, tmp_path: Path) -> None:
    chosen = [*TINY, "global.model.arch=resnet_small", "global.model.weights=none", "global.local=tracks"]
    settings = config.load("shop", family="folder", method="icsr", assignments=chosen)
    engine, silent = Engine(torch.device("cpu"), "fp32"), Progress()
    pixels = load_pixels(shop, "train", settings.image, home / "data", engine, silent)
    left = [5]

    def check() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted("stopped")

    runs = []
    for name, stops in (("whole", False), ("parts", True)):
        runs.append(create(tmp_path / name, "shop", "global"))
        stage = Stage(shop.train, pixels, settings, runs[-1], engine, silent)
        if stops:
            with pytest.raises(Interrupted):
                train_global_stage(replace(stage, check=check))
        train_global_stage(stage)
    for epoch in (1, 2, 3):
        one, two = (read_labels(run.label_file(epoch)) for run in runs)
        np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_array_equal(one.local_clusters, two.local_clusters)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["global", "-d", "plain", "--local", "tracks"], "have no tracks, which global.local (tracks) needs"),
        (["cam", "-d", "plain", "--local", "tracks"], "have no tracks, which cam.clusterer (tracks) needs"),
        (
            ["global", "-d", "shop", "--local", "tracks", "--refine", "none"],
            "No refiner uses the local labels",
        ),
        (["global", "-d", "shop", "--local", "t", "--set", "global.local=tracks"], "asked for twice"),
        (["cam", "-d", "shop", "--local", "t"], "--local belongs to the other stage"),
        (["global", "-d", "shop", "--set", "global.local.joyn=1"], "did you mean"),
    ],
)
def test_what_does_not_fit_is_said(words: list[str], message: str, home: Path) -> None:
    before = sorted(home.glob("runs/*/*/*"))
    assert message in " ".join(train(home, *words, code=2).stderr.split())
    assert sorted(home.glob("runs/*/*/*")) == before


def test_embedded_tracks_serve_labels(home: Path, shop: Dataset, cam_run: RunFolder, tmp_path: Path) -> None:
    """``icsr embed`` writes the tracks beside the features, row by row; labels come of that file alone."""
    out, labels = tmp_path / "shop.npz", tmp_path / "labels.csv"
    places = ["--data-root", str(home / "data"), "--runs", str(home / "runs")]
    words = ["embed", "shop", "--network", str(cam_run.path / "camera_0.safetensors"), "--out", str(out)]
    result = CliRunner().invoke(app, [*words, *places])
    assert result.exit_code == 0, result.output
    found = np.load(out)
    row = {path: place for place, path in enumerate(found["paths"].tolist())}
    order = [row[path] for path in shop.train.paths]
    for name, own in (("tracks", shop.train.tracks), ("frames", shop.train.frames)):
        np.testing.assert_array_equal(found[name][order], own)
    made = ["labels", "generate", str(out), "-c", "tracks", "--set", "clusterer.split=-1", "--refine", "none"]
    result = CliRunner().invoke(app, [*made, "--out", str(labels)])
    assert result.exit_code == 0, result.output
    table = read_labels(labels)
    clusters = dict(zip(table.paths, table.labels.tolist(), strict=True))
    assert tracks_together(np.array([clusters[path] for path in shop.train.paths]), shop)
    assert len(set(clusters.values())) > shop.n_cameras


def test_a_run_goes_on_from_another_with_tracks(home: Path, cam_run: RunFolder) -> None:
    """``--init`` gives the network, ``--local tracks`` the local labels; no cam run is looked for."""
    weights = cam_run.path / "camera_0.safetensors"
    words = ("global", "-d", "shop", "-m", "camera-aware", "--local", "tracks", "--name", "on")
    folder = home / "runs" / "shop" / "global" / "on"
    assert "no such file" in train(home, *words, init=str(weights.with_name("nowhere.pth")), code=1).output
    assert not folder.exists()  # what cannot begin leaves no run behind, and the name is free
    train(home, *words, init=str(weights))
    run = open_run(folder)
    assert run.info()["local"] is None
    assert f"weights: {weights}" in (folder / "settings.yaml").read_text()
    table = read_labels(run.label_file(1))
    assert (table.local_clusters >= 0).all()
