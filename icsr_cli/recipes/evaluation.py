"""Evaluation: query and gallery images in, retrieval figures out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from icsr_cli.config.schema import EvaluationSettings, ImageSettings, Settings
from icsr_cli.distances import camera_jaccard_similarity
from icsr_cli.errors import DatasetError, ModelError, RunError, UsageError
from icsr_cli.images.store import open_pixels
from icsr_cli.metrics import (
    Ranking,
    Threshold,
    rank,
    rank_by_camera,
    rank_distances,
    rank_distances_by_camera,
    rerank,
    thresholds,
)
from icsr_cli.models import Network, build, open_model, read_metadata, resized, size_of
from icsr_cli.pixels import Stored, resident
from icsr_cli.progress import Progress
from icsr_cli.recipes.camera_features import extract_by_camera
from icsr_cli.recipes.debiasing import Debiasing, StoredStatistics, debiased
from icsr_cli.recipes.steps import Engine
from icsr_cli.runs import RunFolder, find_runs, newest, open_run, read_labels
from icsr_cli.runs.evaluation import record_evaluations
from icsr_cli.types import NO_TRACK, Dataset, FloatArray, IntArray, Size, Split, most_frequent

CameraRankings: TypeAlias = "dict[tuple[int, int], Ranking]"
#: How the gallery is ranked: by the features, and re-ranked.
PLAIN, RERANKED, BY_CAMERA = "plain", "reranked", "camera"


@dataclass(frozen=True)
class Evaluation:
    """Retrieval figures by way of ranking: ``plain``, and as asked for ``reranked`` and ``camera``.

    ``by_camera`` holds, if asked for, those of each pair (query camera, gallery camera) in which a query has
    a match. ``find_thresholds`` counts all pairs, longer than ranking takes.
    """

    rankings: dict[str, Ranking]
    by_camera: dict[str, CameraRankings]
    find_thresholds: Callable[[], list[Threshold]]

    @cached_property
    def thresholds(self) -> list[Threshold]:
        """What tells the same person from another by the distance of plain features; found when asked for."""
        return self.find_thresholds()

    @property
    def plain(self) -> Ranking:
        """Ranked by the features alone."""
        return self.rankings[PLAIN]

    def as_dict(self) -> dict[str, Any]:
        """Give the figures over all cameras, for JSON."""
        return {name: ranking.as_dict() for name, ranking in self.rankings.items()}

    def cameras_as_dict(self, camera_names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Give the figures of each pair of cameras, for JSON; empty where they were not asked for."""
        return {
            name: [
                {
                    "query_camera": camera_names[query],
                    "gallery_camera": camera_names[gallery],
                    **ranking.as_dict(),
                }
                for (query, gallery), ranking in rankings.items()
            ]
            for name, rankings in self.by_camera.items()
        }


def load_pixels(
    dataset: Dataset, part: str, image: ImageSettings, folder: Path, engine: Engine, progress: Progress
) -> Stored:
    """Open the pixel store of a split, uint8 (n, h, w, 3): a tensor on a GPU where it fits, else on disk."""
    split, place = dataset.splits[part], folder / dataset.name / "pixels"
    pixels = open_pixels(split, place, *image.size, name=part, store=image.store, progress=progress)
    if engine.device.type != "cuda":
        return pixels
    free, _ = torch.cuda.mem_get_info(engine.device)
    return pixels if math.prod(pixels.shape) >= free // 2 else resident(pixels, engine.device)


@dataclass(frozen=True)
class Embedder:
    """A network, a data set, the size it is looked at, and where to compute."""

    network: Network
    dataset: Dataset
    image: ImageSettings
    settings: EvaluationSettings
    folder: Path
    engine: Engine
    progress: Progress

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", resized(self.network, self.image.size))

    @classmethod
    def of_run(
        cls,
        run: RunFolder,
        dataset: Dataset,
        settings: Settings,
        folder: Path,
        engine: Engine,
        progress: Progress,
    ) -> Embedder:
        """Open the network of a run, at the image size it was trained at.

        Raises:
            RunError: where the run has no network of all cameras (yet).
            ModelError: where its weights are damaged.
        """
        network, size = open_network(weights_of(run), engine)
        image = settings.image
        if size is not None:
            image = image.model_copy(update={"height": size[0], "width": size[1]})
        return cls(network, dataset, image, settings.evaluation, folder, engine, progress)

    def pixels(self, part: str) -> Stored:
        """Open the pixels of a split: uint8 (n, h, w, 3)."""
        return load_pixels(self.dataset, part, self.image, self.folder, self.engine, self.progress)

    def embed(self, pixels: Stored, title: str, rows: IntArray | None = None) -> Tensor:
        """Embed the images at ``rows`` (all by default): float32 (m, d)."""
        batch_size = self.settings.batch_size
        with self.progress.task(title, len(pixels) if rows is None else len(rows), "img") as task:
            return self.engine.extract(self.network, pixels, rows, batch_size=batch_size, task=task)

    def embed_by_camera(self, pixels: Stored, cameras: IntArray, title: str) -> Tensor:
        """Embed all images, BatchNorm by the statistics of their camera, (n,): float32 (n, d)."""
        with self.progress.task(title, len(pixels), "img") as task:
            embed = partial(self.engine.extract, self.network, pixels, task=task)
            return extract_by_camera(
                self.network, cameras, 0, lambda rows, size: embed(rows, batch_size=size)
            )

    def embed_parts(self, parts: Iterable[tuple[str, Stored]]) -> dict[str, Tensor]:
        """Embed splits one after the other, (name, uint8 (n, h, w, 3)) each: float32 (n, d) by name."""
        return {name: self.embed(pixels, f"{name.capitalize()} features") for name, pixels in parts}


def require_test_images(dataset: Dataset) -> None:
    """Raise DatasetError where there is no query or no gallery image."""
    if dataset.untested:
        raise DatasetError(
            f"The data set {dataset.name!r} has no {' and no '.join(dataset.untested)} images, so there is "
            "nothing to evaluate on. Own crops need known identities for that: icsr prepare folder --help."
        )


def evaluate(
    embedder: Embedder,
    *,
    ways: Iterable[str] = (),
    debias: Debiasing = "none",
    per_camera: bool = False,
    tracks: bool = False,
) -> Evaluation:
    """Rank the gallery for every query, by the protocol of Market-1501; with ``tracks``, whole tracks.

    ``ways``: also re-ranked by k-reciprocal neighbours (``reranked``, arXiv 1701.08398), by camera-aware ones
    (``camera``, 2311.10605). ``debias``: what is taken off the features of each camera, queries and gallery
    together (2502.10195), a look at all unlabelled test images; or by the statistics of a model file.

    Raises:
        DatasetError: where the data set has no query or gallery images, or no tracks and they are asked for.
        UsageError: where stored statistics are of none of its cameras.
    """
    dataset, settings = embedder.dataset, embedder.settings
    require_test_images(dataset)
    query, gallery = dataset.splits["query"], dataset.splits["gallery"]
    cameras = np.concatenate([query.cameras, gallery.cameras])
    if isinstance(debias, StoredStatistics):  # before pixels are made
        names = (dataset.camera_names[camera] for camera in np.unique(cameras))
        debias.check_cameras(names, f"Prepare {dataset.name!r} with cameras of these names")
    features = embedder.embed_parts((name, embedder.pixels(name)) for name in ("query", "gallery"))
    both = torch.cat([features["query"], features["gallery"]])
    both = debiased(both, cameras, dataset.camera_names, debias, embedder.progress)
    identities, count = np.concatenate([query.identities, gallery.identities]), len(query)
    if tracks:
        both, identities, cameras, count = by_track(dataset.name, query, gallery, both)
    found = both[:count], both[count:]
    truth = (identities[:count], identities[count:], cameras[:count], cameras[count:])
    rankings = {PLAIN: rank(*found, *truth)}
    by_camera = {PLAIN: rank_by_camera(*found, *truth)} if per_camera else {}
    for way in ways:
        if way == RERANKED:
            distances = rerank(*found, settings.k1, settings.k2, settings.lambda_value)
        else:
            distances = _camera_distances(both, cameras, count, settings.lambda_value)
        rankings[way] = rank_distances(distances, *truth)
        if per_camera:
            by_camera[way] = rank_distances_by_camera(distances, *truth)
    return Evaluation(rankings, by_camera, partial(thresholds, *found, *truth))


def by_track(
    name: str, query: Split, gallery: Split, features: Tensor
) -> tuple[Tensor, IntArray, IntArray, int]:
    """Put tracks in the place of query and gallery images; an image without one stands for itself.

    A track is looked for if one of its images is a query, and looked in if one is in the gallery; its images
    in either make its features, each once. Its identity is that of most of them. Of ``features`` (n, d) of
    queries, then gallery images, gives those of the m tracks, unit float (m, d), their identities and
    cameras, int64 (m,), and how many, the first, are queries.

    Raises:
        DatasetError: no image has a track.
    """
    tracks = np.concatenate([query.tracks, gallery.tracks])
    if not (tracks != NO_TRACK).any():
        raise DatasetError(
            f"The test images of {name!r} have no tracks. Prepare them with theirs: icsr prepare folder NAME "
            "--pattern '{camera}/{track}/{name}.jpg'; or leave --tracks out."
        )
    paths = np.array([record.path for split in (query, gallery) for record in split.records])
    first, image = np.unique(paths, return_index=True, return_inverse=True)[1:]
    alone = int(tracks.max()) + 1 + image  # an image of both parts is one
    of_image = np.unique(np.where(tracks == NO_TRACK, alone, tracks), return_inverse=True)[1]
    members = sp.csr_array(
        (np.ones(len(first)), (of_image[first], first)), shape=(of_image.max() + 1, len(paths))
    )
    identities = np.concatenate([query.identities, gallery.identities])
    cameras = np.concatenate([query.cameras, gallery.cameras])
    _, identity, _ = most_frequent(of_image[first], identities[first])
    camera = cameras[np.unique(of_image, return_index=True)[1]]
    asked, searched = np.unique(of_image[: len(query)]), np.unique(of_image[len(query) :])
    rows = np.concatenate([asked, searched])
    shares = sp.csr_array(members[rows] / np.asarray(members.sum(axis=1))[rows][:, None])
    return _averages(shares, features), identity[rows], camera[rows], len(asked)


def _averages(shares: sp.csr_array, features: Tensor) -> Tensor:
    """Average features (n, d) by sparse shares (m, n): unit float (m, d), on the same device."""
    entries = shares.astype(np.float32).tocoo()
    rows, columns = (torch.from_numpy(ends.astype(np.int64)).to(features.device) for ends in entries.coords)
    unit = torch.nn.functional.normalize(features, dim=1)
    parts = unit.new_zeros(shares.shape[0], features.shape[1])
    parts.index_add_(0, rows, unit[columns] * torch.from_numpy(entries.data).to(unit)[:, None])
    return torch.nn.functional.normalize(parts, dim=1)


#: Images of a training set that thresholds are estimated from, spread evenly.
_ESTIMATED_FROM: Final = 5000


def estimate_thresholds(embedder: Embedder, run: RunFolder) -> tuple[list[Threshold], Path]:
    """Estimate thresholds where nobody knows identities: pairs of one cluster under two cameras are true.

    The clusters are those of the training images, so distances come out smaller than on people never seen.
    Gives the file of these clusters, too.

    Raises:
        UsageError: the run has no labels of a global stage.
    """
    files = run.epoch_files()
    if not files:
        raise UsageError(
            f"The data set {embedder.dataset.name!r} has no query and gallery images to measure on, and "
            f"{run.path} no labels of a global stage to estimate thresholds from."
        )
    split, labels = embedder.dataset.train, read_labels(files[-1])
    count = min(len(split), _ESTIMATED_FROM)
    rows = np.linspace(0, len(split) - 1, count).astype(np.int64)
    clusters = labels.of_images(split.select(rows))
    rows, clusters = rows[clusters >= 0], clusters[clusters >= 0]
    features = embedder.embed(embedder.pixels("train"), "Train features", rows)
    cameras = split.cameras[rows]
    return thresholds(features, features, clusters, clusters, cameras, cameras), files[-1]


#: What ``evaluation.json`` calls the ways of ranking.
_RERANK: Final = {PLAIN: None, RERANKED: "k-reciprocal", BY_CAMERA: "camera"}


def keep(
    found: Evaluation,
    run: RunFolder,
    weights: Path,
    dataset: Dataset,
    debias: str,
    progress: Progress,
    *,
    digest: str | None,
    tracks: bool = False,
) -> None:
    """Keep what was measured in the run's folder.

    ``debias`` is the word of the command line; ``digest`` that of the weights before they were opened, as
    training may write them anew meanwhile; ``tracks`` says that tracks were ranked, not images.
    """
    common = {
        "dataset": dataset.name,
        "weights": weights.name,
        "weights_sha256": digest,
        "protocol": "tracks" if tracks else "cross-camera",
        "debias": None if debias == "none" else debias,
        "gallery": len(dataset.splits["gallery"]),
    }
    marks = {"thresholds": [asdict(mark) for mark in found.thresholds]}
    entries = [
        {**common, "rerank": _RERANK[way], **figures, **(marks if way == PLAIN else {})}
        for way, figures in found.as_dict().items()
    ]
    _record(run, entries, progress)


def keep_estimated(
    found: Sequence[Threshold],
    run: RunFolder | None,
    weights: Path,
    dataset: Dataset,
    progress: Progress,
    *,
    digest: str | None,
) -> dict[str, Any]:
    """Keep estimated thresholds in the run's folder, if one is given; gives the entry."""
    entry = {"dataset": dataset.name, "weights": weights.name, "estimated": True}
    entry |= {"thresholds": [asdict(mark) for mark in found]}
    if run is not None:
        _record(run, [entry | {"weights_sha256": digest}], progress)
    return entry


def _record(run: RunFolder, entries: list[dict[str, Any]], progress: Progress) -> None:
    try:
        record_evaluations(run.path, entries)
    except OSError as error:  # the run is somebody else's, the disk full: what was measured is shown at least
        why = error.strerror or error
        progress.warn(f"{run.path / 'evaluation.json'} cannot be written ({why}): the figures are not kept.")


def _camera_distances(features: Tensor, cameras: IntArray, n_queries: int, share: float) -> FloatArray:
    """Give camera-aware Jaccard distances float32 (q, g), mixed with ``share`` of the squared distance."""
    similarity = camera_jaccard_similarity(features, cameras)[:n_queries, n_queries:]
    unit = features / features.norm(dim=1, keepdim=True)
    original = (2 - 2 * unit[:n_queries] @ unit[n_queries:].T).clamp(min=0).cpu().numpy()
    # As in k-reciprocal re-ranking: each query's distances over its largest.
    original /= np.maximum(original.max(axis=1, keepdims=True), np.float32(1e-12))
    mixed: FloatArray = (1 - share) * (1 - similarity.toarray()) + share * original
    return mixed.astype(np.float32)


def open_network(path: Path, engine: Engine, arch: str | None = None) -> tuple[Network, Size | None]:
    """Open the network in a file, of the architecture ``arch`` where the file does not say it.

    Gives it in evaluation mode on the device, and the (height, width) it was trained at where the file says
    so. Raises ModelError where the weights cannot be used; the message says why.
    """
    header = read_metadata(path)
    if arch is not None and header.get("arch", arch) != arch:
        raise ModelError(f"{path} holds a {header['arch']}, not a {arch}. Leave -a out.")
    network = build(arch, weights=path) if arch is not None and "arch" not in header else open_model(path)
    return network.to(engine.device).eval(), size_of(header)


def weights_file(checkpoint: Path | None, runs_root: Path, dataset: str | None) -> Path:
    """Give the file that is meant: itself, that of a run, or of the newest run of ``dataset`` (or of any).

    The newest global run comes before any cam run.
    Raises RunError where there is no such run, or it has no network of all cameras.
    """
    if checkpoint is not None:
        return weights_of(open_run(checkpoint)) if checkpoint.is_dir() else checkpoint
    candidates = [run for run in find_runs(runs_root, dataset) if any(run.path.glob("*.safetensors"))]
    in_order = sorted(candidates, key=lambda run: run.stage == "global")
    return weights_of(
        in_order[-1] if in_order else newest(runs_root, dataset, "global", file="last.safetensors")
    )


def weights_of(run: RunFolder) -> Path:
    """Give the file of the network of a run. Raises RunError where it has none of all cameras."""
    for name in ("best.safetensors", "last.safetensors"):
        if (run.path / name).is_file():
            return run.path / name
    networks = sorted(path.name for path in run.path.glob("*.safetensors"))
    raise RunError(
        f"The run {run.path} has no network of all cameras"
        + (f"; name one of its files: {', '.join(networks)}." if networks else " yet: no epoch is finished.")
    )
