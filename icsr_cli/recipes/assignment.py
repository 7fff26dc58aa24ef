"""New images to the clusters of a run, or to nobody: what stands between the two, and how far it reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icsr_cli.config.schema import Settings
from icsr_cli.errors import InputError, RunError, UsageError
from icsr_cli.labelling.assignment import KnownClusters, assign, estimate
from icsr_cli.progress import Progress
from icsr_cli.recipes.evaluation import Embedder, weights_of
from icsr_cli.recipes.gallery import FileEmbedder, embed_readable
from icsr_cli.recipes.steps import Engine
from icsr_cli.runs import RunFolder, read_labels
from icsr_cli.runs.evaluation import image_thresholds
from icsr_cli.types import NO_CLUSTER, Dataset, IntArray

#: The limit that the run's own labels give; the others are those that ``icsr eval`` stored.
FROM_LABELS = "labels"


def limit_of(limits: Mapping[str, float], chosen: str | None) -> tuple[str, float]:
    """Give the name and the distance of one of ``limits``, a number, or, for None, of the run's own labels.

    Raises:
        UsageError: it is neither.
    """
    name = chosen or FROM_LABELS
    if name in limits:
        return name, limits[name]
    if name == FROM_LABELS:
        raise UsageError(
            "The labels hold one cluster, or no two images in one: they do not say how far somebody known "
            f"may be. Say it: --at {' or '.join([*map(repr, limits), 'DISTANCE'])}, from 0 to 2."
        )
    try:
        distance = float(name)
    except ValueError:
        distance = -1
    if not 0 <= distance <= 2:
        raise UsageError(
            f"--at takes a distance from 0 to 2, or {' or '.join(map(repr, limits))}; got {name!r}. "
            f"Those beside {FROM_LABELS!r} come from icsr eval."
        )
    return "given", distance


@dataclass(frozen=True)
class Known:
    """Whom a run knows, how far they reach, by name, and what embeds new images as its own were embedded."""

    clusters: KnownClusters
    limits: dict[str, float]
    embedder: FileEmbedder


def open_known(
    run: RunFolder, dataset: Dataset, settings: Settings, data_root: Path, engine: Engine, progress: Progress
) -> Known:
    """Embed the images that the last labels of a run hold, and find how far the known reach.

    Raises:
        RunError: the run has no labels or no network yet, or its images are not in the data set.
    """
    files = run.label_files()
    if run.stage != "global" or not files:
        raise RunError(f"{run.path} holds no labels of a global stage to assign to. Give such a run to --to.")
    labels = read_labels(files[-1]).of_images(dataset.train)
    rows = np.flatnonzero(labels != NO_CLUSTER)
    if len(rows) == 0:
        raise RunError(f"{files[-1]} gives no image of {dataset.name!r} a label.")
    own = Embedder.of_run(run, dataset, settings, data_root, engine, progress)
    features = own.embed(own.pixels("train"), "Known features", rows)
    return Known(
        KnownClusters.of(features, labels[rows]),
        limits_of(run, features, labels[rows]),
        FileEmbedder(own.network, weights_of(run), own.image.size, engine),
    )


def limits_of(run: RunFolder, features: Any, labels: IntArray) -> dict[str, float]:
    """Say how far from a cluster somebody known may be, by name: as ``icsr eval`` found, and by the labels.

    Those are int64 (n,), of features (n, d); of one cluster, nothing can be estimated.
    """
    stored = image_thresholds(run.path, weights_of(run).name).get("thresholds", ())
    marks = {str(mark["name"]): float(mark["distance"]) for mark in stored}
    try:
        return {FROM_LABELS: estimate(features, labels), **marks}
    except InputError:
        return marks


def assign_files(
    folder: Path, paths: Sequence[str], known: Known, farthest: float, progress: Progress
) -> list[dict[str, Any]]:
    """Embed image files and give each to the nearest cluster, or to nobody where that is too far.

    Gives a row for each that can be read: path, cluster (-1: somebody new), the nearest cluster in any case,
    and its distance.

    Raises:
        DatasetError: none can be read.
    """
    features, kept = embed_readable(folder, paths, known.embedder, progress, "New features")
    found = assign(features, known.clusters)
    columns = (kept, found.within(farthest), found.nearest, found.distances)
    return [
        {"path": paths[row], "cluster": cluster, "nearest": nearest, "distance": round(distance, 4)}
        for row, cluster, nearest, distance in zip(*(column.tolist() for column in columns), strict=True)
    ]
