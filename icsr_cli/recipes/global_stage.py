"""The global stage: all cameras together, with local labels that throw wrong images out of the clusters.

Each epoch: features, clustering, information nodes, refinement, training (arXiv 2304.12634, section 2.2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icsr_cli.clustering import clusterer, cohesion, silhouette
from icsr_cli.config.schema import GlobalSettings, Settings
from icsr_cli.distances import jaccard_similarity, knn
from icsr_cli.errors import TrainingError
from icsr_cli.images.sampler import identity_batches
from icsr_cli.models import Network, save_weights
from icsr_cli.progress import Progress
from icsr_cli.recipes.distributed import ALONE, Ranks, extract_together
from icsr_cli.recipes.steps import (
    Batch,
    Engine,
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
from icsr_cli.refinement import information_nodes, node_scores, refine
from icsr_cli.runs import LabelTable, RunFolder, tabulate, write_labels
from icsr_cli.runs.quality import quality
from icsr_cli.types import BoolArray, FloatArray, IntArray, Neighbours, Split

STAGE = 2


@dataclass(frozen=True)
class EpochLabels:
    """What the label engine says of the training images; arrays are (n,), ``nodes`` (m,).

    ``cohesion``: each image's mean similarity to the others of its cluster before the refinement, or NaN.
    """

    clusters: IntArray
    labels: IntArray
    discarded: BoolArray
    nodes: IntArray
    silhouette: float
    cohesion: FloatArray


@dataclass(frozen=True)
class GlobalStage:
    """What the global stage walks through: data, local labels, settings, where to write, whom to tell.

    ``local`` int64 (n,) numbers the local clusters camera by camera, -1 for none; None with no refinement.
    ``score`` gives the mAP on the test set, for those who chose to look at it.
    """

    split: Split
    pixels: Tensor
    local: IntArray | None
    settings: Settings
    run: RunFolder
    engine: Engine
    progress: Progress
    check: Callable[[], None] = field(default=lambda: None)
    score: Callable[[Network], float] | None = None
    ranks: Ranks = ALONE

    @property
    def own(self) -> GlobalSettings:
        """The settings of this stage."""
        return self.settings.global_


def train_global_stage(stage: GlobalStage) -> Network:
    """Train on all cameras and give the network of the last epoch.

    Writes ``last.safetensors``, ``best.safetensors``, ``labels/epoch_*.csv`` and ``metrics.jsonl``. A run
    that was interrupted goes on after its last finished epoch and ends as if it had not been.

    Raises:
        TrainingError: where every image is noise, or a loss is not finite.
        Interrupted: on SIGINT or SIGTERM; every finished epoch is saved.
    """
    state = stage.run.load_state("global")
    # A resumed run has its weights in the checkpoint; where it began may be gone by now.
    model = stage.own.model if state is None else stage.own.model.model_copy(update={"weights": "none"})
    network = build_network(model, seed_of(stage.settings.seed, STAGE), stage.engine)
    optimizer, schedule = build_optimizer(network, stage.own.optimizer)
    first, best = 1, -np.inf
    if state is not None:
        restore_training_state(state, network, optimizer, schedule)
        first, best = state["epoch"] + 1, state["best"]
    if stage.ranks.leads:
        stage.run.forget(lambda line: line["epoch"] >= first)
    trainee = build_trainee(network, stage.settings, stage.ranks)
    for epoch in range(first, stage.own.epochs + 1):
        figures = _epoch(stage, network, trainee, optimizer, epoch)
        schedule.step()
        if not stage.ranks.leads:
            continue
        value = _selection(stage, network, figures, epoch)
        stage.run.record({"epoch": epoch, **figures})
        if value > best:
            best = value
            _save_weights(stage, network, "best")
        _save_weights(stage, network, "last")
        stage.run.save_state(
            "global", {"epoch": epoch, "best": best, **training_state(network, optimizer, schedule)}
        )
        shown: dict[str, float] = {
            key: figures[key] for key in ("loss", "clusters", "discarded", "noise") if key in figures
        }
        if "refined" in figures.get("quality", ()):
            shown["nmi"] = figures["quality"]["refined"]["nmi"]
        stage.progress.report(f"Epoch {epoch}/{stage.own.epochs}", shown)
    return network


def _save_weights(stage: GlobalStage, network: Network, name: str) -> None:
    image = stage.settings.image
    size = {"height": str(image.height), "width": str(image.width)}
    save_weights(network, stage.run.path / f"{name}.safetensors", size)


def _selection(stage: GlobalStage, network: Network, figures: dict[str, Any], epoch: int) -> float:
    """Give the number whose highest value marks the best epoch."""
    if stage.settings.select == "silhouette":
        return float(np.nan_to_num(figures["silhouette"], nan=-1.0))
    if stage.settings.select == "test-map":
        assert stage.score is not None, "the command gives a score where one is asked for"
        figures["test_mAP"] = stage.score(network)
        return float(figures["test_mAP"])
    return float(epoch)


def _epoch(
    stage: GlobalStage, network: Network, trainee: nn.Module, optimizer: torch.optim.Optimizer, epoch: int
) -> dict[str, Any]:
    seed = seed_of(stage.settings.seed, STAGE, epoch)
    started = time.perf_counter()
    with stage.progress.task(f"Epoch {epoch} features", len(stage.split), "img") as task:
        features = extract_together(
            network,
            stage.pixels,
            np.arange(len(stage.split)),
            stage.ranks,
            batch_size=stage.settings.evaluation.batch_size,
            device=stage.engine.device,
            precision=stage.engine.precision,
            task=task,
        )
    extracted = time.perf_counter()
    found = stage.ranks.from_leader(lambda: _label(stage, features))
    table = tabulate(
        stage.split,
        found.clusters,
        local_clusters=stage.local,
        labels=found.labels,
        discarded=found.discarded,
        nodes=found.nodes,
        cohesion=found.cohesion,
    )
    if stage.ranks.leads:
        write_labels(stage.run.label_file(epoch), table)
    labelled = time.perf_counter()
    memory = stage.own.memory
    with stage.progress.task(f"Epoch {epoch}", stage.own.iters, "step") as task:
        loss = train_epoch(
            trainee,
            optimizer,
            stage.pixels,
            _batches(stage, found.labels, np.random.default_rng(seed)),
            [build_memory(features, found.labels, memory.temperature, memory.momentum, memory.hard)],
            build_augmentation(stage.settings, stage.own.augmentation),
            torch.Generator(stage.engine.device).manual_seed(seed),
            engine=stage.engine,
            task=task,
            check=stage.check,
            ranks=stage.ranks,
        )
    finished = time.perf_counter()
    seconds = {
        "extraction": extracted - started,
        "labels": labelled - extracted,
        "training": finished - labelled,
    }
    return {"loss": loss, **_figures(found, table), "seconds": seconds}


def _label(stage: GlobalStage, features: Tensor) -> EpochLabels:
    found = label_images(features, stage.split.cameras, stage.local, stage.own)
    _require_clusters(found, stage)
    return found


def label_images(
    features: Tensor, cameras: IntArray, local: IntArray | None, settings: GlobalSettings
) -> EpochLabels:
    """Turn features (n, d) into clusters, information nodes and refined labels.

    Without ``local`` labels, or with the refinement ``none``, the labels are the clusters.
    """
    distance, refinement = settings.distance, settings.refinement
    # One search serves both: the neighbours by angle of unit vectors are those by Euclidean distance.
    near = knn(features, min(max(distance.k1, refinement.k), len(features)), metric="cosine")
    similarity = jaccard_similarity(features, distance.k1, distance.k2, neighbours=near)
    neighbours = Neighbours(near.indices[:, : refinement.k], near.distances[:, : refinement.k])
    chosen = clusterer(settings.clustering.method)
    evidence = similarity if chosen.takes == "similarity" else neighbours
    clusters = chosen.function(evidence, **settings.clustering.options)
    value, alike = silhouette(similarity, clusters), cohesion(similarity, clusters)
    nothing = np.zeros(len(features), dtype=bool)
    if local is None or refinement.method == "none":
        return EpochLabels(clusters, clusters, nothing, np.empty(0, np.int64), value, alike)
    scores = node_scores(neighbours, min_similarity=refinement.min_similarity)
    nodes = information_nodes(scores, clusters, rule=refinement.node)
    refined = refine(clusters, local, cameras, nodes, thrown_out=refinement.method)
    return EpochLabels(clusters, refined.labels, refined.discarded, nodes, value, alike)


def _require_clusters(found: EpochLabels, stage: GlobalStage) -> None:
    n_clusters = int(found.labels.max(initial=-1)) + 1
    method = stage.own.clustering
    if n_clusters == 0:
        raise TrainingError(
            f"Every one of the {len(found.labels)} images is noise: {method.method} with "
            f"{dict(method.options)} found no cluster. The last good state is saved, but --resume would lead "
            "here again: start a new run with a looser clustering (a larger eps, a smaller min_similarity or "
            "min_samples: --set global.clustering.options.NAME=VALUE), or from better weights (--init; "
            "RUN/last.safetensors holds those of the last finished epoch)."
        )
    if n_clusters == 1:
        stage.progress.warn(
            "There is one cluster only: nothing tells people apart in this epoch. Tighten the clustering "
            "(a smaller eps, more clusters: --set global.clustering.options.NAME=VALUE)."
        )
    if stage.local is not None and stage.own.refinement.method != "none" and len(found.nodes) == 0:
        stage.progress.warn("No cluster has an information node: nothing is thrown out in this epoch.")


def _batches(stage: GlobalStage, labels: IntArray, generator: np.random.Generator) -> Iterator[Batch]:
    rows = identity_batches(
        labels,
        stage.split.cameras,
        batch_size=stage.own.batch_size,
        num_instances=stage.own.num_instances,
        iters=stage.own.iters,
        generator=generator,
    )
    for batch in rows:
        yield [Part(0, batch, labels[batch])]


def _figures(found: EpochLabels, table: LabelTable) -> dict[str, Any]:
    """Count what the labels are; against the truth where it is known (shown, never used)."""
    figures: dict[str, Any] = {
        "clusters": int(found.clusters.max(initial=-1)) + 1,
        "kept": int((found.labels >= 0).sum()),
        "discarded": int(found.discarded.sum()),
        "noise": int((found.clusters < 0).sum()),
        "nodes": len(found.nodes),
        "silhouette": found.silhouette,
    }
    judged = {name: part.as_dict() for name, part in quality(table).items() if part is not None}
    return figures | ({"quality": judged} if judged else {})
