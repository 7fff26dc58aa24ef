"""The cam stage: reliable labels within each camera (arXiv 2304.12634, section 2.1).

As published every camera has a network of its own. The shared network is ours: one network, which each
epoch clusters every camera's images by its own features and trains with one memory per camera.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icsr_cli.clustering import average_linkage, silhouette
from icsr_cli.config.schema import CamSettings, Settings
from icsr_cli.distances import jaccard_similarity
from icsr_cli.errors import TrainingError
from icsr_cli.images.sampler import identity_batches
from icsr_cli.metrics import judge
from icsr_cli.models import Network, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes.distributed import ALONE, Ranks, extract_together
from icsr_cli.recipes.steps import (
    Batch,
    Engine,
    Generator,
    Part,
    build_augmentation,
    build_memory,
    build_network,
    build_optimizer,
    build_trainee,
    restore_training_state,
    seed_of,
    train_epoch,
    training_state,
)
from icsr_cli.runs import LabelTable, RunFolder, tabulate, write_labels
from icsr_cli.types import NO_CLUSTER, IntArray, Split

STAGE = 1
#: Fewer images than this cannot be told apart into clusters: they get no local label.
FEWEST_IMAGES = 4


@dataclass
class CameraLabels:
    """The best labels of one camera so far: those of the epoch with the highest silhouette."""

    camera: int
    rows: IntArray
    labels: IntArray
    silhouette: float = -np.inf
    epoch: int = 0

    def offer(self, labels: IntArray, silhouette_: float, epoch: int) -> None:
        """Take the labels of an epoch if they are better than what there is."""
        value = silhouette_ if np.isfinite(silhouette_) else -1.0
        if value > self.silhouette:
            self.labels, self.silhouette, self.epoch = labels, value, epoch

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint holds of it."""
        return {"labels": torch.from_numpy(self.labels), "silhouette": self.silhouette, "epoch": self.epoch}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        self.labels, self.silhouette, self.epoch = (
            state["labels"].numpy(),
            state["silhouette"],
            state["epoch"],
        )


@dataclass(frozen=True)
class CamStage:
    """What the cam stage walks through: data, settings, where to write, whom to tell."""

    split: Split
    pixels: Tensor
    settings: Settings
    run: RunFolder
    engine: Engine
    progress: Progress
    check: Callable[[], None] = field(default=lambda: None)
    ranks: Ranks = ALONE

    @property
    def cam(self) -> CamSettings:
        """The settings of this stage."""
        return self.settings.cam


def train_cam_stage(stage: CamStage, cameras: Sequence[int] | None = None) -> LabelTable:
    """Train on every camera (or on ``cameras``) and give the local labels, also in ``labels/local.csv``.

    A run that was interrupted goes on after its last finished epoch; finished cameras are skipped.

    Raises:
        TrainingError: where no camera has enough images, or a loss is not finite.
        Interrupted: on SIGINT or SIGTERM; every finished epoch is saved.
    """
    chosen = sorted(set(stage.split.cameras.tolist())) if cameras is None else sorted(set(cameras))
    found = [_unlabelled(stage.split, camera) for camera in chosen]
    for labels in found:
        if len(labels.rows) < FEWEST_IMAGES and stage.ranks.leads:
            stage.progress.warn(
                f"Camera {labels.camera} has {len(labels.rows)} image(s), too few to cluster: they get no "
                "local label, and the refinement leaves them alone."
            )
    trainable = [labels for labels in found if len(labels.rows) >= FEWEST_IMAGES]
    if not trainable:
        raise TrainingError(f"No camera has {FEWEST_IMAGES} images or more: there is nothing to train on.")
    if stage.cam.network == "shared":
        _train_network(stage, trainable, name="shared", seed_word=0)
    else:
        _train_cameras(stage, trainable)
    table = _join(stage.split, found)
    if stage.ranks.leads:
        write_labels(stage.run.labels / "local.csv", table)
    return table


def _train_cameras(stage: CamStage, found: Sequence[CameraLabels]) -> None:
    """Train a network for each camera. Cameras are independent: every rank takes whole ones, on its own."""
    cost = [len(labels.rows) + 3 * stage.cam.iters * stage.cam.batch_size for labels in found]
    mine = [found[job] for job in stage.ranks.take_largest_first(cost)]
    for labels in mine:
        alone = replace(stage, ranks=ALONE)
        _train_network(alone, [labels], name=f"camera_{labels.camera}", seed_word=labels.camera + 1)
    for states in stage.ranks.collect(_label_states(mine)):
        _restore_labels([labels for labels in found if str(labels.camera) in states], {"labels": states})


def _unlabelled(split: Split, camera: int) -> CameraLabels:
    rows = np.flatnonzero(split.cameras == camera)
    return CameraLabels(camera, rows, np.full(len(rows), NO_CLUSTER, dtype=np.int64))


def _join(split: Split, found: Iterable[CameraLabels]) -> LabelTable:
    """Put the cameras together: local numbers from 0 under each, cluster numbers different everywhere."""
    local = np.full(len(split), NO_CLUSTER, dtype=np.int64)
    clusters = local.copy()
    used = 0
    for labels in found:
        local[labels.rows] = labels.labels
        clusters[labels.rows] = np.where(labels.labels >= 0, labels.labels + used, NO_CLUSTER)
        used += int(labels.labels.max(initial=NO_CLUSTER)) + 1
    return tabulate(split, clusters, local_clusters=local)


def _train_network(stage: CamStage, found: Sequence[CameraLabels], *, name: str, seed_word: int) -> None:
    """Train one network on the cameras of ``found``: one camera as published, or all of them."""
    state = stage.run.load_state(name)
    if state is not None and state["epoch"] >= stage.cam.epochs:
        _restore_labels(found, state)
        stage.progress.note(f"{_title(name)} is finished already.")
        return
    network = build_network(stage.cam.model, seed_of(stage.settings.seed, STAGE, seed_word), stage.engine)
    optimizer, schedule = build_optimizer(network, stage.cam.optimizer)
    first = 1
    if state is not None:
        restore_training_state(state, network, optimizer, schedule)
        _restore_labels(found, state)
        first = state["epoch"] + 1
    if stage.ranks.leads:
        stage.run.forget(lambda line: line["part"] == name and line["epoch"] >= first)
    trainee = build_trainee(network, stage.settings, stage.ranks)
    for epoch in range(first, stage.cam.epochs + 1):
        figures = _epoch(stage, network, trainee, optimizer, found, name, (seed_word, epoch))
        schedule.step()
        if not stage.ranks.leads:
            continue
        stage.run.record({"part": name, "epoch": epoch, **figures})
        if epoch < stage.cam.epochs:
            state = training_state(network, optimizer, schedule)
            stage.run.save_state(name, {"epoch": epoch, "labels": _label_states(found), **state})
        else:
            _finish(stage, network, found, name)
        shown: dict[str, float] = {
            key: figures[key] for key in ("loss", "clusters", "silhouette", "nmi") if key in figures
        }
        stage.progress.report(f"{_title(name)} epoch {epoch}/{stage.cam.epochs}", shown)


def _finish(stage: CamStage, network: Network, found: Sequence[CameraLabels], name: str) -> None:
    """Save the weights, then a state without optimiser that says they are complete."""
    image = stage.settings.image
    file = "last" if name == "shared" else name
    size = {"height": str(image.height), "width": str(image.width)}
    save_weights(network, stage.run.path / f"{file}.safetensors", size)
    stage.run.save_state(name, {"epoch": stage.cam.epochs, "labels": _label_states(found)})


def _label_states(found: Sequence[CameraLabels]) -> dict[str, Any]:
    return {str(labels.camera): labels.state() for labels in found}


def _restore_labels(found: Sequence[CameraLabels], state: dict[str, Any]) -> None:
    for labels in found:
        labels.restore(state["labels"][str(labels.camera)])


def _title(name: str) -> str:
    return "Shared network" if name == "shared" else f"Camera {name.removeprefix('camera_')}"


def _epoch(
    stage: CamStage,
    network: Network,
    trainee: nn.Module,
    optimizer: torch.optim.Optimizer,
    found: Sequence[CameraLabels],
    name: str,
    place: tuple[int, int],
) -> dict[str, Any]:
    """Cluster every camera's images by the network's features, then train on the clusters."""
    seed_word, epoch = place
    seed = seed_of(stage.settings.seed, STAGE, seed_word, epoch)
    rows = np.concatenate([labels.rows for labels in found])
    started = time.perf_counter()
    with stage.progress.task(f"{_title(name)} features", len(rows), "img") as task:
        features = extract_together(
            network,
            stage.pixels,
            rows,
            stage.ranks,
            batch_size=stage.settings.evaluation.batch_size,
            device=stage.engine.device,
            precision=stage.engine.precision,
            task=task,
        )
    extracted = time.perf_counter()
    parts = torch.split(features, [len(labels.rows) for labels in found])
    current = _label_together(stage, parts)
    for labels, (clusters, value) in zip(found, current, strict=True):
        labels.offer(clusters, value, epoch)
    memory = stage.cam.memory
    memories = [
        build_memory(own, clusters, memory.temperature, memory.momentum, memory.hard)
        for own, (clusters, _) in zip(parts, current, strict=True)
    ]
    labelled = time.perf_counter()
    with stage.progress.task(f"{_title(name)} epoch {epoch}", stage.cam.iters, "step") as task:
        loss = train_epoch(
            trainee,
            optimizer,
            stage.pixels,
            _batches(stage, found, [clusters for clusters, _ in current], np.random.default_rng(seed)),
            memories,
            build_augmentation(stage.settings, stage.cam.augmentation),
            torch.Generator(stage.engine.device).manual_seed(seed),
            engine=stage.engine,
            task=task,
            check=stage.check,
            ranks=stage.ranks,
        )
    seconds = {
        "extraction": extracted - started,
        "labels": labelled - extracted,
        "training": time.perf_counter() - labelled,
    }
    return {"loss": loss, **_figures(stage.split, found, current), "seconds": seconds}


def _label_together(stage: CamStage, parts: Sequence[Tensor]) -> list[tuple[IntArray, float]]:
    """Cluster each camera's features, each rank its share of the cameras; all know all labels after it."""
    mine = {}
    for camera in stage.ranks.take_largest_first([len(own) for own in parts]):
        mine[camera] = label_camera(parts[camera], stage.cam)
        if stage.ranks.size == 1:
            stage.check()
    found = {camera: labels for each in stage.ranks.collect(mine) for camera, labels in each.items()}
    return [found[camera] for camera in range(len(parts))]


def label_camera(features: Tensor, settings: CamSettings) -> tuple[IntArray, float]:
    """Cluster one camera's features (n, d): average linkage into n // images_per_cluster clusters.

    Gives labels int64 (n,) and their silhouette (nan where it is not defined).
    """
    n = len(features)
    similarity = jaccard_similarity(features, settings.distance.k1, settings.distance.k2)
    clusters = average_linkage(similarity, n_clusters=min(n, max(2, n // settings.images_per_cluster)))
    return clusters, silhouette(similarity, clusters)


def _batches(
    stage: CamStage, found: Sequence[CameraLabels], clusters: Sequence[IntArray], generator: Generator
) -> Iterator[Batch]:
    """Give the epoch's batches: equal shares of cameras_per_batch different cameras.

    A camera comes in proportion to its images, so that a small one is not learnt by heart.
    """
    share = min(stage.cam.cameras_per_batch, len(found)) if stage.cam.network == "shared" else 1
    turns = _camera_turns([len(labels.rows) for labels in found], stage.cam.iters, share, generator)
    batches = []
    for number, (labels, own) in enumerate(zip(found, clusters, strict=True)):
        rows = identity_batches(
            own,
            np.full(len(own), labels.camera, dtype=np.int64),
            batch_size=stage.cam.batch_size // share,
            num_instances=stage.cam.num_instances,
            iters=int((turns == number).sum()),
            generator=generator,
        )
        batches.append(iter([Part(number, labels.rows[batch], own[batch]) for batch in rows]))
    for turn in turns:
        yield [next(batches[number]) for number in turn]


def _camera_turns(sizes: Sequence[int], iters: int, share: int, generator: Generator) -> IntArray:
    """Draw ``share`` different cameras for each batch, int64 (iters, share), weighted by their sizes.

    Sorting log weights plus Gumbel noise draws without replacement (Efraimidis and Spirakis 2006).
    """
    keys = np.log(np.asarray(sizes, dtype=np.float64)) + generator.gumbel(size=(iters, len(sizes)))
    return np.argsort(-keys, axis=1, kind="stable")[:, :share].astype(np.int64)


def _figures(
    split: Split, found: Sequence[CameraLabels], current: Sequence[tuple[IntArray, float]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "clusters": int(sum(clusters.max() + 1 for clusters, _ in current)),
        "silhouette": float(np.mean([value for _, value in current])),
        "cameras": {
            str(labels.camera): {"clusters": int(clusters.max() + 1), "silhouette": value}
            for labels, (clusters, value) in zip(found, current, strict=True)
        },
    }
    judged = {
        str(labels.camera): quality
        for labels, (clusters, _) in zip(found, current, strict=True)
        if (quality := judge(clusters, split.identities[labels.rows])) is not None
    }
    for camera, quality in judged.items():
        figures["cameras"][camera]["quality"] = quality.as_dict()
    if judged:
        figures["nmi"] = float(np.mean([quality.nmi for quality in judged.values()]))
    return figures
