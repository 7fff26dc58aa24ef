"""Both stages on a tiny world: what they write, how they resume, what they say of bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_world import TINY

from icsr_cli import config
from icsr_cli.choices import available
from icsr_cli.config import Settings
from icsr_cli.distances import camera_jaccard_similarity
from icsr_cli.errors import Interrupted, RunError, TrainingError, UsageError
from icsr_cli.labelling import evidence_of
from icsr_cli.models import build
from icsr_cli.pixels import Stored
from icsr_cli.progress import Progress
from icsr_cli.recipes import evaluation
from icsr_cli.recipes.cam_stage import _camera_turns, train_cam_stage
from icsr_cli.recipes.camera_labels import CameraLabels
from icsr_cli.recipes.evaluation import Embedder, _camera_distances, evaluate, load_pixels, weights_file
from icsr_cli.recipes.global_stage import _counts, _selection, _shown, train_global_stage
from icsr_cli.recipes.steps import Engine, build_memory, repeatable, seed_of
from icsr_cli.recipes.trainer import Stage, Trainer
from icsr_cli.recipes.training import Workplace, measure
from icsr_cli.recipes.wish import find_cam_weights, find_local
from icsr_cli.runs import RunFolder, align_local, create, read_labels, tabulate, write_labels
from icsr_cli.types import Dataset, ImageRecord, Labels, Split

ENGINE = Engine(torch.device("cpu"), "fp32")


def settings_of(*assignments: str) -> Settings:
    return config.load("tiny", family="synthetic", method="icsr", assignments=[*TINY, *assignments])


class Warnings(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, message: str) -> None:
        self.texts.append(message)


def stop_after(steps: int) -> Callable[[], None]:
    left = [steps]

    def check() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted("stopped")

    return check


def timeless(run: RunFolder) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in run.metrics()]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert different == []


@pytest.fixture(scope="module")
def pixels(tiny: Dataset, tiny_root: Path) -> Stored:
    image = settings_of().image
    return load_pixels(tiny, "train", image, tiny_root, ENGINE, Progress())


def cam_stage(tiny: Dataset, pixels: Stored, run: RunFolder, *assignments: str) -> Stage:
    return Stage(tiny.train, pixels, settings_of(*assignments), run, ENGINE, Warnings())


def global_stage(tiny: Dataset, pixels: Stored, run: RunFolder, local: Any, *assignments: str) -> Stage:
    settings = settings_of("global.model.weights=none", *assignments)
    return Stage(tiny.train, pixels, settings, run, ENGINE, Warnings(), local=local)


@pytest.fixture(scope="module")
def shared_run(tiny: Dataset, pixels: Stored, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = create(tmp_path_factory.mktemp("runs"), "tiny", "cam")
    train_cam_stage(cam_stage(tiny, pixels, run))
    return run


def test_the_shared_network_labels_every_camera(shared_run: RunFolder, tiny: Dataset) -> None:
    table = read_labels(shared_run.labels / "local.csv")
    local = align_local(table, tiny.train, shared_run.path)
    for camera in range(3):
        own = local[tiny.train.cameras == camera]
        assert set(own) == set(range(max(2, len(own) // 5)))
    assert [line["epoch"] for line in shared_run.metrics()] == [1, 2, 3]
    assert (shared_run.path / "last.safetensors").is_file()
    assert find_cam_weights(shared_run.labels / "local.csv") == shared_run.path / "last.safetensors"


def test_the_labels_are_those_of_the_best_silhouette(shared_run: RunFolder) -> None:
    state = shared_run.load_state("shared")
    assert state is not None
    for camera in ("0", "1", "2"):
        history = [line["cameras"][camera]["silhouette"] for line in shared_run.metrics()]
        kept = state["labels"][camera]
        assert kept["silhouette"] == max(history)
        assert kept["epoch"] == 1 + int(np.argmax(history))
        best = [line["cameras"][camera]["best_epoch"] for line in shared_run.metrics()]
        assert best == [1 + int(np.argmax(history[:epoch])) for epoch in (1, 2, 3)]
    for line in shared_run.metrics():
        cameras = line["cameras"].values()
        assert line["clusters"] == sum(own["clusters"] for own in cameras)
        assert line["silhouette"] == pytest.approx(np.mean([own["silhouette"] for own in cameras]))
        assert line["nmi"] == pytest.approx(np.mean([own["quality"]["nmi"] for own in cameras]))


def test_of_labels_as_good_as_those_there_are_the_first_are_kept() -> None:
    """A silhouette that nobody can say, of one cluster or none, is the worst there is."""
    own = CameraLabels(0, np.arange(2), np.full(2, -1))
    kept = []
    for epoch, silhouette in enumerate((np.nan, -1.0, 0.2, 0.2, np.nan), start=1):
        own.offer(np.full(2, epoch), silhouette, epoch)
        kept.append((own.epoch, own.labels.tolist(), own.silhouette))
    assert kept == [(1, [1, 1], -1), (1, [1, 1], -1), *3 * [(3, [3, 3], 0.2)]]


def test_a_queue_ahead_of_the_step_changes_no_weight(
    shared_run: RunFolder, tiny: Dataset, pixels: Any, tmp_path: Path
) -> None:
    """``pixels`` are mapped, and a thread fetches them; in memory there is nothing to fetch."""
    assert isinstance(pixels, np.memmap)
    run = create(tmp_path, "tiny", "cam")
    train_cam_stage(cam_stage(tiny, np.array(pixels), run))
    assert_same_weights(run.path / "last.safetensors", shared_run.path / "last.safetensors")


def test_a_network_per_camera(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "cam")
    table = train_cam_stage(cam_stage(tiny, pixels, run, "cam.network=per-camera"))
    assert (table.labels >= 0).all()
    cameras_of = {label: set(table.cameras[table.labels == label]) for label in table.labels}
    assert all(len(cameras) == 1 for cameras in cameras_of.values())
    assert {line["part"] for line in run.metrics()} == {"camera_0", "camera_1", "camera_2"}
    weights = [load_file(run.path / f"camera_{camera}.safetensors") for camera in range(3)]
    assert not torch.equal(weights[0]["base.0.weight"], weights[1]["base.0.weight"])
    with pytest.raises(RunError, match="--network shared"):
        find_cam_weights(run.labels / "local.csv")
    assert find_local(run.path, tmp_path, "tiny") == run.labels / "local.csv"


@pytest.mark.parametrize("part", [True, False])
def test_swapped_checkpoints_and_a_network_that_is_gone_are_said(
    tiny: Dataset, pixels: Stored, tmp_path: Path, part: bool
) -> None:
    run = create(tmp_path, "tiny", "cam")
    stage = cam_stage(tiny, pixels, run, "cam.network=per-camera", "cam.epochs=1")
    train_cam_stage(stage)
    first, second = (run.path / "checkpoints" / f"camera_{camera}.pt" for camera in range(2))
    if not part:  # as checkpoints were that did not say what they are of
        for path in (first, second):
            state = torch.load(path, weights_only=True)
            del state["part"]
            torch.save(state, path)
    train_cam_stage(stage)
    first.rename(tmp_path / "kept")
    second.rename(first)
    with pytest.raises(RunError, match="of another part" if part else "other cameras' labels"):
        train_cam_stage(stage)
    (tmp_path / "kept").rename(first)
    (run.path / "camera_0.safetensors").unlink()
    with pytest.raises(RunError, match=r"camera_0\.safetensors is gone.*camera_0\.pt"):
        train_cam_stage(stage)


def test_only_the_chosen_cameras_get_labels(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    table = train_cam_stage(cam_stage(tiny, pixels, create(tmp_path, "tiny", "cam")), cameras=[1])
    assert ((table.labels >= 0) == (table.cameras == 1)).all()


@pytest.mark.parametrize("network", ["shared", "per-camera"])
def test_a_resumed_cam_stage_ends_as_an_uninterrupted_one(
    tiny: Dataset, pixels: Stored, tmp_path: Path, network: str
) -> None:
    """Interrupted in its first step, where it goes on from there, and after some more."""
    option = f"cam.network={network}"
    whole = create(tmp_path / "whole", "tiny", "cam")
    expected = train_cam_stage(cam_stage(tiny, pixels, whole, option))
    run = create(tmp_path / "parts", "tiny", "cam")
    stage = cam_stage(tiny, pixels, run, option)
    for steps in (1, 8, 12):
        with pytest.raises(Interrupted):
            train_cam_stage(replace(stage, check=stop_after(steps)))
    found = train_cam_stage(stage)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert timeless(run) == timeless(whole)
    for file in whole.path.glob("*.safetensors"):
        assert_same_weights(run.path / file.name, file)


def test_the_global_stage_throws_images_out_and_trains_on_the_rest(
    tiny: Dataset, pixels: Stored, shared_run: RunFolder, tmp_path: Path
) -> None:
    # The truth as local labels: whatever is thrown out then shows another person than the node.
    local = np.unique(tiny.train.identities, return_inverse=True)[1].astype(np.int64)
    run = create(tmp_path, "tiny", "global")
    option = "global.clusterer={method: average-linkage, n_clusters: 3}"
    train_global_stage(global_stage(tiny, pixels, run, local, option))
    table = read_labels(run.label_file(1))
    thrown_out = table.states == "discarded"
    assert thrown_out.any()
    assert (table.labels[thrown_out] == -1).all()
    assert (table.labels[~thrown_out] >= 0).all()
    for cluster in range(3):
        node = (table.clusters == cluster) & (table.states == "node")
        out = (table.clusters == cluster) & thrown_out
        assert node.sum() == 1
        assert (table.cameras[out] == table.cameras[node]).all()
        assert (table.identities[out] != table.identities[node]).all()
    first = run.metrics()[0]
    assert first["discarded"] == thrown_out.sum()
    quality = first["quality"]
    assert quality["refined"]["pairwise_precision"] > quality["global"]["pairwise_precision"]
    assert quality["local"]["pairwise_precision"] == 1
    cohesion = table.columns["cohesion"]
    sizes = np.bincount(table.clusters)
    np.testing.assert_array_equal(np.isfinite(cohesion), sizes[table.clusters] > 1)
    assert 0 < np.nanmean(cohesion) < 1


def test_the_plain_baseline_throws_nothing_out(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "global")
    train_global_stage(global_stage(tiny, pixels, run, None, "global.refiners=[]"))
    table = read_labels(run.label_file(3))
    np.testing.assert_array_equal(table.labels, table.clusters)
    assert set(table.states) <= {"kept", "noise"}


def test_a_resumed_global_stage_ends_as_an_uninterrupted_one(
    tiny: Dataset, pixels: Stored, shared_run: RunFolder, tmp_path: Path
) -> None:
    """Interrupted in its first step, in its second epoch, and in its last step."""
    local = align_local(read_labels(shared_run.labels / "local.csv"), tiny.train, shared_run.path)
    whole = create(tmp_path / "whole", "tiny", "global")
    train_global_stage(global_stage(tiny, pixels, whole, local))
    run = create(tmp_path / "parts", "tiny", "global")
    stage = global_stage(tiny, pixels, run, local)
    for steps in (1, 5, 6):
        with pytest.raises(Interrupted):
            train_global_stage(replace(stage, check=stop_after(steps)))
    train_global_stage(stage)
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_weights(run.path / name, whole.path / name)
    assert run.label_file(3).read_text() == whole.label_file(3).read_text()
    assert timeless(run) == timeless(whole)
    (run.path / "last.safetensors").unlink()
    with pytest.raises(RunError, match=r"last\.safetensors is gone"):
        train_global_stage(stage)


@pytest.mark.parametrize("memory", available("memories"))
def test_every_memory_goes_on_as_if_nothing_had_been(
    tiny: Dataset, pixels: Stored, tmp_path: Path, memory: str
) -> None:
    """Interrupted in the second epoch and resumed, to the same bits, with every memory there is."""
    chosen = (f"global.memory={memory}", "global.refiners=[]")
    whole, parts = (create(tmp_path / name, "tiny", "global") for name in ("whole", "parts"))
    train_global_stage(global_stage(tiny, pixels, whole, None, *chosen))
    stage = global_stage(tiny, pixels, parts, None, *chosen)
    with pytest.raises(Interrupted):
        train_global_stage(replace(stage, check=stop_after(5)))
    train_global_stage(stage)
    assert_same_weights(parts.path / "last.safetensors", whole.path / "last.safetensors")
    assert timeless(parts) == timeless(whole)


def test_labels_of_features_by_camera(
    tiny: Dataset, pixels: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They alone are made of them: the memory begins with the features as training sees them."""
    chosen = ("global.label_norm=camera", "global.refiners=[]")
    whole, parts = (create(tmp_path / name, "tiny", "global") for name in ("whole", "parts"))
    train_global_stage(global_stage(tiny, pixels, whole, None, *chosen))
    stage = global_stage(tiny, pixels, parts, None, *chosen)
    with pytest.raises(Interrupted):
        train_global_stage(replace(stage, check=stop_after(5)))
    compared, remembered, embedded = [], [], []

    def evidence(features: torch.Tensor, *args: Any, **facts: Any) -> Any:
        compared.append(features)
        return evidence_of(features, *args, **facts)

    def memory(epoch: Any, *args: Any) -> Any:
        remembered.append(epoch.features)
        return build_memory(epoch, *args)

    def embed(self: Trainer, rows: Any, title: str) -> torch.Tensor:
        embedded.append(plainly(self, rows, title))
        return embedded[-1]

    plainly = Trainer.embed
    monkeypatch.setattr(Trainer, "embed", embed)
    monkeypatch.setattr(f"{train_global_stage.__module__}.evidence_of", evidence)
    monkeypatch.setattr(f"{train_global_stage.__module__}.build_memory", memory)
    network = train_global_stage(stage)
    assert_same_weights(parts.path / "last.safetensors", whole.path / "last.safetensors")
    assert timeless(parts) == timeless(whole)
    assert whole.metrics()[0]["seconds"].keys() >= {"extraction", "extraction by camera", "labels"}
    assert len(compared) == len(remembered) == 2
    for one, other, plain in zip(compared, remembered, embedded, strict=True):
        assert other is plain
        assert (one - other).norm(dim=1).min() > 0.1
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_the_best_epoch_by_silhouette(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "global")
    seen: list[dict[str, torch.Tensor]] = []

    class Watcher(Progress):
        def report(self, title: str, figures: Any) -> None:
            seen.append(load_file(run.path / "last.safetensors"))

    option = ("select=silhouette", "global.refiners=[]")
    stage = replace(global_stage(tiny, pixels, run, None, *option), progress=Watcher())
    train_global_stage(stage)
    best = int(np.argmax([line["silhouette"] for line in run.metrics()]))
    chosen = load_file(run.path / "best.safetensors")
    assert all(torch.equal(value, seen[best][name]) for name, value in chosen.items())
    # What goes on is held against the best epoch before it: no silhouette exceeds 1.
    file = run.path / "checkpoints" / "global.pt"
    torch.save({**torch.load(file, weights_only=True), "best": 2.0}, file)
    (run.path / "best.safetensors").write_bytes(b"kept")
    train_global_stage(global_stage(tiny, pixels, run, None, *option, "global.epochs=4"))
    assert (run.path / "best.safetensors").read_bytes() == b"kept"
    assert len(run.metrics()) == 4


@pytest.mark.parametrize(
    ("asked", "measured", "values"),
    [
        (["eval_every=2"], [2, 4], [1, 2, 3, 4]),
        (["eval_every=0"], [], [1, 2, 3, 4]),
        (["select=test-map", "eval_every=3"], [1, 2, 3, 4], [0.25] * 4),
        (["select=silhouette", "eval_every=4"], [4], [-1, 0.5, 0.5, 0.5]),
    ],
)
def test_the_test_set_is_looked_at_where_it_is_asked_for(
    tiny: Dataset, pixels: Stored, tmp_path: Path, asked: list[str], measured: list[int], values: list[float]
) -> None:
    stage = replace(global_stage(tiny, pixels, RunFolder(tmp_path), None, *asked), score=lambda _: 0.25)
    lines: list[dict[str, Any]] = [{"silhouette": np.nan if epoch == 1 else 0.5} for epoch in (1, 2, 3, 4)]
    network = build("resnet_small", seed=1)
    found = [_selection(stage, network, line, epoch) for epoch, line in enumerate(lines, start=1)]
    assert found == values
    assert [epoch for epoch, line in enumerate(lines, start=1) if "test_mAP" in line] == measured


def test_all_noise_is_an_error_and_the_last_state_is_kept(
    tiny: Dataset, pixels: Stored, tmp_path: Path
) -> None:
    run = create(tmp_path, "tiny", "global")
    train_global_stage(global_stage(tiny, pixels, run, None, "global.refiners=[]", "global.epochs=1"))
    before = (run.path / "checkpoints" / "global.pt").read_bytes()
    options = ("global.refiners=[]", "global.clusterer={eps: 0.7, min_samples: 500}")
    with pytest.raises(TrainingError, match=r"is noise.* Finished epochs, if any, are saved"):
        train_global_stage(global_stage(tiny, pixels, run, None, *options))
    assert (run.path / "checkpoints" / "global.pt").read_bytes() == before


def test_one_cluster_only_is_a_warning(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "global")
    options = (
        "global.refiners=[]",
        "global.epochs=1",
        "global.clusterer={method: average-linkage, n_clusters: 1}",
    )
    stage = global_stage(tiny, pixels, run, None, *options)
    train_global_stage(stage)
    assert isinstance(stage.progress, Warnings)
    assert "one cluster only" in stage.progress.texts[0]


def test_a_loss_that_is_not_finite_is_an_error(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    run = create(tmp_path, "tiny", "cam")
    with pytest.raises(TrainingError, match="learning rate"):
        train_cam_stage(cam_stage(tiny, pixels, run, "cam.optimizer.lr=1e30"))


def test_small_cameras_are_said_and_left_alone(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    """One image under camera 0, seven (fewer than k1) under camera 1."""
    rows = np.concatenate(
        [np.flatnonzero(tiny.train.cameras == 0)[:1], np.flatnonzero(tiny.train.cameras == 1)[:7]]
    )
    run = create(tmp_path, "tiny", "cam")
    stage = replace(cam_stage(tiny, pixels, run, "cam.network=per-camera"), split=tiny.train.select(rows))
    table = train_cam_stage(replace(stage, pixels=pixels[torch.from_numpy(rows)]))
    assert table.labels[0] == -1
    assert set(table.labels[1:]) == {0, 1}
    assert isinstance(stage.progress, Warnings)
    too_few, close = stage.progress.texts
    assert too_few.startswith("camera 0 has 1 image, too few")
    assert close.startswith("camera 1 has 7 images, where 8 neighbours are compared (cam.distance.k1)")


def test_what_one_camera_leaves_undone_is_said_once(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    rows = np.flatnonzero(tiny.train.cameras == 0)
    own = ("global.distance.method=camera-jaccard", "global.memory={method: camera-proxies}")
    own += ("global.refiners=[]", "global.epochs=2", "global.clusterer.eps=0.9")
    stage = global_stage(tiny, pixels, create(tmp_path, "tiny", "global"), None, *own)
    stage = replace(stage, split=tiny.train.select(rows), pixels=pixels[torch.from_numpy(rows)])
    train_global_stage(stage)
    assert isinstance(stage.progress, Warnings)
    assert [text for text in stage.progress.texts if "one camera" in text] == [
        "All training images are of one camera: nothing can be learnt across cameras, and what compares them "
        "does nothing of its own (memory.0: camera-proxies, distance: camera-jaccard). For that, train on a "
        "data set of two cameras or more."
    ]
    assert all("camera_nmi" not in line for line in stage.run.metrics())


def test_no_camera_with_enough_images_is_an_error(tmp_path: Path) -> None:
    split = Split(tmp_path, tuple(ImageRecord(f"{i}.jpg", i) for i in range(5)))
    pixels = torch.zeros((5, 32, 16, 3), dtype=torch.uint8)
    stage = Stage(split, pixels, settings_of(), create(tmp_path, "d", "cam"), ENGINE, Warnings())
    with pytest.raises(TrainingError, match="nothing to train on"):
        train_cam_stage(stage)


def test_no_identities_are_needed(tiny: Dataset, pixels: Stored, tmp_path: Path) -> None:
    unknown = tuple(ImageRecord(record.path, record.camera) for record in tiny.train.records)
    split = Split(tiny.root, unknown)
    run = create(tmp_path, "tiny", "cam")
    table = train_cam_stage(replace(cam_stage(tiny, pixels, run), split=split))
    again = create(tmp_path, "tiny", "global")
    stage = replace(global_stage(tiny, pixels, again, table.local_clusters), split=split)
    train_global_stage(stage)
    assert "quality" not in again.metrics()[0]


def test_scoring_an_epoch_finds_no_thresholds(
    tiny: Dataset, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(evaluation, "thresholds", lambda *_: asked.append(1) or [])
    network = build("resnet_small", seed=1).eval()
    found = measure(network, tiny, settings_of(), Workplace(tiny_root, "cpu", Progress()))
    assert (found.plain.mAP > 0, asked) == (True, [])
    assert (found.thresholds, found.thresholds, asked) == ([], [], [1])


def test_evaluation_of_the_tiny_world(tiny: Dataset, tiny_root: Path, pixels: Stored) -> None:
    settings = settings_of()
    network = build("resnet_small", stripes=4, seed=1)
    where = (settings.image, settings.evaluation, tiny_root, ENGINE, Progress())
    found = evaluate(Embedder(network, tiny, *where), ways=["reranked", "camera"])
    figures = found.as_dict()
    assert set(figures) == {"plain", "reranked", "camera"}
    assert 0 < figures["plain"]["mAP"] < 1
    assert figures["plain"]["rank_1"] <= figures["plain"]["rank_5"] <= figures["plain"]["rank_10"]


def test_the_network_that_is_meant(tmp_path: Path) -> None:
    """That of the newest global run before any cam run's, newer or not; the best epoch's before the last."""
    first, second, cam = (create(tmp_path, "tiny", stage) for stage in ("global", "global", "cam"))

    def trained(run: RunFolder, name: str) -> Path:
        (run.path / f"{name}.safetensors").touch()
        return run.path / f"{name}.safetensors"

    trained(create(tmp_path, "other", "global"), "last")
    with pytest.raises(RunError, match=r"no global run of tiny with a last\.safetensors"):
        weights_file(None, tmp_path, "tiny")
    trained(cam, "camera_0")
    with pytest.raises(RunError, match=r"name one of its files: camera_0\.safetensors"):
        weights_file(None, tmp_path, "tiny")
    for run, name in ((cam, "last"), (first, "last"), (first, "best"), (second, "last")):
        expected = trained(run, name)
        assert weights_file(None, tmp_path, "tiny") == expected
    assert weights_file(first.path, tmp_path, "tiny") == first.path / "best.safetensors"
    assert weights_file(first.path / "last.safetensors", tmp_path, "other").name == "last.safetensors"


def test_thresholds_are_estimated_from_the_last_labels(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images that are spread over all, those with a label: of one cluster they are of one person."""
    run, rng = create(tmp_path, "tiny", "global"), np.random.default_rng(0)
    features = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(len(tiny.train), 4))), dim=1)
    embedder = SimpleNamespace(
        dataset=tiny, pixels=lambda _: None, embed=lambda _, title, rows: features[rows]
    )
    with pytest.raises(UsageError, match="no labels of a global stage"):
        evaluation.estimate_thresholds(embedder, run)
    write_labels(run.labels / "local.csv", tabulate(tiny.train, Labels.of(np.zeros(len(tiny.train), int))))
    with pytest.raises(UsageError, match="no labels of a global stage"):
        evaluation.estimate_thresholds(embedder, run)
    for epoch in (1, 2):
        clusters = rng.integers(-1, 5, len(tiny.train))
        write_labels(run.label_file(epoch), tabulate(tiny.train, Labels.of(clusters)))
    for most, count in ((10**6, len(tiny.train)), (12, 12)):
        monkeypatch.setattr(evaluation, "_ESTIMATED_FROM", most)
        rows = np.linspace(0, len(tiny.train) - 1, count).astype(int)
        who = (clusters[rows], clusters[rows], tiny.train.cameras[rows], tiny.train.cameras[rows])
        expected = evaluation.thresholds(features[rows], features[rows], *who)
        assert len(expected) == 3
        assert evaluation.estimate_thresholds(embedder, run) == (expected, run.label_file(2))


def test_camera_distances_against_their_definition() -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    cameras = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    squared = torch.cdist(*(2 * [torch.nn.functional.normalize(features, dim=1)]))[:3, 3:].square()
    jaccard = 1 - camera_jaccard_similarity(features, cameras).toarray()[:3, 3:]
    expected = 0.7 * jaccard + 0.3 * (squared / squared.amax(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(_camera_distances(features, cameras, 3, 0.3), expected, atol=1e-5)
    copies = torch.eye(3)[:1].repeat(9, 1)
    np.testing.assert_array_equal(_camera_distances(copies, cameras, 3, 0.3), 0)


def test_camera_turns_are_different_cameras_in_proportion_to_their_images() -> None:
    turns = _camera_turns([100, 100, 400], 4000, 2, np.random.default_rng(0))
    assert turns.shape == (4000, 2)
    assert (turns[:, 0] != turns[:, 1]).all()
    first = np.bincount(turns[:, 0], minlength=3) / 4000
    np.testing.assert_allclose(first, [1 / 6, 1 / 6, 4 / 6], atol=0.03)


def test_seeds_differ_by_place() -> None:
    seeds = {seed_of(1, stage, epoch) for stage in (1, 2) for epoch in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_image_that_a_refiner_took_back_is_no_noise() -> None:
    labels = replace(Labels.of(np.array([0, -1, -1, 0])), labels=np.array([0, 0, -1, -1]))
    found = _counts(labels)
    assert (found["images"], found["kept"], found["noise"]) == (4, 2, 1)


def test_a_gpu_computes_what_can_be_repeated_while_it_trains() -> None:
    told = torch.are_deterministic_algorithms_enabled
    with repeatable(torch.device("cpu")):
        assert not told()
    with repeatable(torch.device("cuda")):
        assert told()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not told()


def test_the_line_of_an_epoch_keeps_the_words_of_the_methods() -> None:
    quality = {"refined": {"nmi": 0.5}}
    shown = _shown({"clusters": 3, "discarded": 4, "kept": 9, "quality": quality})
    assert shown == {"clusters": 3, "discarded": 4, "nmi": 0.5}
