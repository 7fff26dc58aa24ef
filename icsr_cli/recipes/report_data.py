"""What a report shows beyond what lies in the run folder: rankings, and a map of the embedding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icsr_cli.metrics import Ranking, rank, rank_by_camera
from icsr_cli.pixels import Stored, fetch
from icsr_cli.recipes.evaluation import Embedder, require_test_images
from icsr_cli.runs import LabelTable
from icsr_cli.types import UNKNOWN_IDENTITY, BoolArray, Dataset, DoubleArray, FloatArray, IntArray, PixelArray

#: More images than this are not drawn: the map takes longer than it is worth, and dots hide each other.
MAP_IMAGES = 2000
#: Of each query that is shown.
ANSWERS = 10
#: Fewer have no neighbourhoods to draw.
FEWEST_MAP_IMAGES = 8


@dataclass(frozen=True)
class RankedQuery:
    """One query and the nearest gallery images, as the protocol counts them.

    ``kind``: ``best``, ``worst`` or ``random``. ``query`` is a row of the query split; ``answers``
    int64 (r,) are rows of the gallery, nearest first, and ``right`` bool (r,) says which show the person.
    ``cameras`` are the names of the query's camera and of the answers' (1 + r,), ``pixels`` uint8
    (1 + r, h, w, 3) the pictures of all.
    """

    kind: str
    query: int
    path: str
    average_precision: float
    first_match: int
    answers: IntArray
    right: BoolArray
    cameras: tuple[str, ...]
    pixels: PixelArray


@dataclass(frozen=True)
class Retrieval:
    """Retrieval figures, some queries to look at, and figures by (query camera, gallery camera), by name."""

    ranking: Ranking
    queries: tuple[RankedQuery, ...]
    by_camera: Mapping[tuple[str, str], Ranking]


@dataclass(frozen=True)
class EmbeddingMap:
    """Places of some training images on a plane: ``rows`` int64 (m,), ``points`` float32 (m, 2).

    ``cameras``: their names (m,). ``clusters`` int64 (m,): -1 for none; None where there are no labels.
    ``of``: how many training images there are.
    """

    rows: IntArray
    points: FloatArray
    cameras: npt.NDArray[np.str_]
    clusters: IntArray | None
    of: int


def retrieve(embedder: Embedder, *, per_kind: int, generator: np.random.Generator) -> Retrieval:
    """Rank the gallery for every query, and show ``per_kind`` best, worst and random queries each.

    A query is shown once: one that is among the best is not drawn again at random.

    Raises:
        DatasetError: where the data set has no query or no gallery images.
        InputError: where no query has a match.
    """
    require_test_images(embedder.dataset)
    pixels = {name: embedder.pixels(name) for name in ("query", "gallery")}
    features = embedder.embed_parts(pixels.items())
    query, gallery = (embedder.dataset.splits[name] for name in ("query", "gallery"))
    truth = (query.identities, gallery.identities, query.cameras, gallery.cameras)
    ranking = rank(features["query"], features["gallery"], *truth)
    by_camera = rank_by_camera(features["query"], features["gallery"], *truth)
    chosen = choose_queries(ranking.average_precision, query.identities, per_kind, generator)
    shown = tuple(_ranked(kind, row, ranking, features, pixels, embedder.dataset) for kind, row in chosen)
    names = embedder.dataset.camera_names
    pairs = {(names[one], names[two]): by_camera[one, two] for one, two in sorted(by_camera)}
    return Retrieval(ranking, shown, pairs)


def choose_queries(
    average_precision: DoubleArray, identities: IntArray, per_kind: int, generator: np.random.Generator
) -> list[tuple[str, int]]:
    """Choose (kind, row): ``per_kind`` best, worst and random queries, none twice.

    ``average_precision`` float64 (q,), NaN for queries that have no match: these are not chosen. Of each
    kind, people (``identities`` (q,)) come once each as far as there are enough. Ties go to the earlier
    query. Where there are too few for all, the worst are the first to be shown.
    """
    judged = np.flatnonzero(np.isfinite(average_precision))
    order = judged[np.argsort(average_precision[judged], kind="stable")]
    worst = _of_many(order, identities)[:per_kind]
    left = order[~np.isin(order, worst)]
    best = _of_many(left[np.argsort(-average_precision[left], kind="stable")], identities)[:per_kind]
    rest = np.setdiff1d(judged, np.concatenate([worst, best]))
    random = np.sort(_of_many(generator.permutation(rest), identities)[:per_kind])
    kinds = (("best", best), ("worst", worst), ("random", random))
    return [(kind, row) for kind, rows in kinds for row in rows.tolist()]


def _of_many(rows: IntArray, identities: IntArray) -> IntArray:
    """Put the first row of each person before the others; else the order stays."""
    first = np.zeros(len(rows), dtype=bool)
    first[np.unique(identities[rows], return_index=True)[1]] = True
    return np.concatenate([rows[first], rows[~first]])


def _ranked(
    kind: str,
    row: int,
    ranking: Ranking,
    features: Mapping[str, Tensor],
    pixels: Mapping[str, Stored],
    dataset: Dataset,
) -> RankedQuery:
    """Rank one query's gallery without the images that the protocol drops."""
    query, gallery = dataset.splits["query"], dataset.splits["gallery"]
    person, camera = query.identities[row], query.cameras[row]
    same = gallery.identities == person
    counted = np.flatnonzero((gallery.identities != UNKNOWN_IDENTITY) & ~(same & (gallery.cameras == camera)))
    distances = torch.cdist(
        features["query"][row : row + 1], features["gallery"], compute_mode="donot_use_mm_for_euclid_dist"
    )
    order = np.argsort(distances[0].cpu().numpy()[counted], kind="stable")[:ANSWERS]
    answers = counted[order].astype(np.int64)
    pictures = [fetch(pixels["query"], np.array([row])), fetch(pixels["gallery"], answers)]
    return RankedQuery(
        kind=kind,
        query=row,
        path=query.records[row].path,
        average_precision=float(ranking.average_precision[row]),
        first_match=int(ranking.first_match[row]),
        answers=answers,
        right=same[answers],
        cameras=tuple(dataset.camera_names[number] for number in (camera, *gallery.cameras[answers])),
        pixels=torch.cat([picture.cpu() for picture in pictures]).numpy(),
    )


def map_embedding(
    embedder: Embedder,
    generator: np.random.Generator,
    count: int = MAP_IMAGES,
    labels: LabelTable | None = None,
) -> EmbeddingMap | None:
    """Lay a sample of the training images out on a plane by t-SNE; None where there is nothing to lay out.

    ``labels``: where their clusters are looked up.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    from sklearn.manifold import TSNE

    train = embedder.dataset.train
    n = len(train)
    if min(n, count) < FEWEST_MAP_IMAGES:
        return None
    rows = np.sort(generator.permutation(n)[:count]).astype(np.int64)
    features = embedder.embed(embedder.pixels("train"), "Map features", rows).cpu().numpy()
    with embedder.progress.task("Map (t-SNE)", 1, "map") as task:
        perplexity, seed = min(30.0, (len(features) - 1) / 3), int(generator.integers(2**31))
        method: Any = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
        points = method.fit_transform(features).astype(np.float32)
        task.advance()
    # A network that gives every image the same features has no map.
    if not np.isfinite(points).all():
        return None
    cameras = np.array(embedder.dataset.camera_names)[train.cameras[rows]]
    clusters = None if labels is None else labels.of_images(train.select(rows))
    return EmbeddingMap(rows, points, cameras, clusters, n)
