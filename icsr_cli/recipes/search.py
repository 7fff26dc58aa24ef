"""Search: ranks the images of a folder for a picture of a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from icsr_cli.datasets.folder import Pattern, compile_pattern
from icsr_cli.datasets.scan import image_files
from icsr_cli.distances.normalisation import CameraStatistics
from icsr_cli.errors import DatasetError, UsageError
from icsr_cli.progress import Progress
from icsr_cli.recipes.debiasing import Debiasing, StoredStatistics, refuse_nothing
from icsr_cli.recipes.gallery import FileEmbedder, Gallery, Unreadable, embed_files, open_gallery, warn_unfit
from icsr_cli.types import FloatArray, IntArray

#: Queries compared at a time: one pass over the gallery serves so many.
_BLOCK = 32
#: How data sets write that nobody knows who it is.
_NOBODY = (None, "", "-1")


@dataclass(frozen=True)
class Names:
    """What the path of an image says: its camera and, if the pattern has ``{id}``, its identity."""

    camera: str | None = None
    identity: str | None = None


@dataclass(frozen=True)
class Match:
    """An answer: rank from 1, path relative to the gallery, Euclidean distance of unit features (0 to 2)."""

    rank: int
    path: str
    camera: str | None
    identity: str | None
    distance: float


@dataclass(frozen=True)
class QueryAnswers:
    """One query and its answers, nearest first; ``compared`` gallery images came into question."""

    query: Path
    camera: str | None
    identity: str | None
    compared: int
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class SearchResult:
    """Answers of every query, and what the gallery was.

    ``reused`` of its ``images`` had their features in ``cache`` already; ``no_camera`` counts those whose
    path does not fit the pattern.
    """

    gallery: Path
    images: int
    unreadable: tuple[Unreadable, ...]
    reused: int
    cache: Path | None
    no_camera: int
    queries: tuple[QueryAnswers, ...]


def search(
    queries: Sequence[Path],
    gallery: Path,
    embedder: FileEmbedder,
    progress: Progress,
    *,
    top: int = 10,
    pattern: str | None = None,
    across_cameras: bool = False,
    debias: Debiasing = "none",
    keep: bool = True,
    farthest: float | None = None,
) -> SearchResult:
    """Rank the images under ``gallery`` for each query and give the ``top`` nearest.

    ``pattern`` reads cameras (``{camera}``) and identities (``{id}``) from paths relative to the gallery.
    ``across_cameras`` leaves out gallery images of the query's camera, and those of an unknown one.
    ``debias`` takes each camera's mean in the gallery (and spread) off the features, or those that a model
    file holds; an image of a camera that is not known is held against all. A query's own file is
    never its answer. Of two images at the same distance the first by name ranks first. None is answered that
    is farther than ``farthest``.

    Raises:
        UsageError: ``across_cameras`` or ``debias`` without a pattern, a pattern that is none, a query that
            does not fit, stored statistics of none of the cameras.
        DatasetError: a query that cannot be read, a gallery without a readable image.
    """
    if pattern is None and (across_cameras or debias != "none"):
        option = "--across-cameras" if across_cameras else "--debias"
        raise UsageError(
            f"{option} needs to know the camera of each image: add --pattern, for instance "
            "--pattern '{camera}_{name}.jpg'."
        )
    reader = None if pattern is None else compile_pattern(pattern)
    named = [_query_names(path, reader) for path in queries]
    if across_cameras and (bare := [p for p, n in zip(queries, named, strict=True) if n.camera is None]):
        raise UsageError(
            f"The name of the query {bare[0]} does not fit the pattern {pattern!r}, so its camera is "
            "unknown. Rename it, or leave out --across-cameras."
        )
    if isinstance(debias, StoredStatistics) and gallery.is_dir():  # before images are embedded
        seen = (*named, *(_names(reader, path) for path in image_files(gallery, recursive=True)))
        debias.check_cameras((name.camera for name in seen), "Let --pattern read the same names")
    features = _embed_queries(queries, embedder, progress)
    found = open_gallery(gallery, embedder, progress, keep=keep)
    names = [_names(reader, path) for path in found.paths]
    unfit = [path for path, name in zip(found.paths, names, strict=True) if reader and name.camera is None]
    warn_unfit(unfit, "left out" if across_cameras else "shown without a camera", progress)
    table = found.features
    if debias != "none":
        features, table = _debiased(features, named, table, names, debias, progress)
    cameras = _camera_numbers(named, names) if across_cameras else None
    answers = _nearest(features, table, _own_rows(queries, found), cameras, top)
    answered = []
    for query, name, (compared, rows) in zip(queries, named, answers, strict=True):
        matches = tuple(
            Match(rank, found.paths[row], names[row].camera, names[row].identity, distance)
            for rank, (row, distance) in enumerate(rows, start=1)
            if farthest is None or distance <= farthest
        )
        answered.append(QueryAnswers(query, name.camera, name.identity, compared, matches))
    about = (len(found.paths), found.unreadable, found.reused, found.cache, len(unfit))
    return SearchResult(gallery, *about, tuple(answered))


def _embed_queries(queries: Sequence[Path], embedder: FileEmbedder, progress: Progress) -> FloatArray:
    with progress.task("Query features", len(queries), "img") as task:
        features, faults = embed_files(queries, embedder, task)
    if faults:
        raise DatasetError(
            "; ".join(f"The query {queries[row]} cannot be used: {reason}" for row, reason in faults)
            + ". Give an image file (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM)."
        )
    return features


def _debiased(
    queries: FloatArray,
    named: Sequence[Names],
    gallery: FloatArray,
    names: Sequence[Names],
    how: Debiasing,
    progress: Progress,
) -> tuple[FloatArray, FloatArray]:
    """Normalise both by the gallery's statistics of each camera, or by stored ones."""
    if isinstance(how, StoredStatistics):
        both = how.apply(
            np.concatenate([queries, gallery]), [one.camera for one in (*named, *names)], progress
        )
        return both[: len(queries)], both[len(queries) :]
    of_query, of_image, unknown = _camera_numbers(named, names)
    known = of_image < unknown
    if not known.any():
        raise UsageError(
            "--debias needs the camera of each image, and no image of the gallery fits --pattern."
        )
    statistics = CameraStatistics.of(gallery[known], of_image[known])
    found = statistics.apply(gallery, of_image, how)
    refuse_nothing(found, how)
    return statistics.apply(queries, of_query, how), found


def _names(reader: Pattern | None, path: str) -> Names:
    found = reader.read(path) if reader else None
    if found is None:
        return Names()
    identity = found.get("id")
    return Names(found["camera"], None if identity in _NOBODY else identity)


def _query_names(path: Path, reader: Pattern | None) -> Names:
    """Read a query's names from as many of its last folders as the pattern needs."""
    parts = PurePosixPath(path.absolute().as_posix()).parts
    for count in range(1, len(parts)):
        found = _names(reader, "/".join(parts[-count:]))
        if found.camera is not None:
            return found
    return Names()


def _own_rows(queries: Sequence[Path], gallery: Gallery) -> list[int | None]:
    """Give the row of each query in the gallery, None where it does not lie there."""
    folder = gallery.folder.resolve().as_posix()
    rows = {f"{folder}/{path}": row for row, path in enumerate(gallery.paths)}
    return [rows.get(query.resolve().as_posix()) for query in queries]


def _camera_numbers(queries: Sequence[Names], gallery: Sequence[Names]) -> tuple[IntArray, IntArray, int]:
    """Give cameras as numbers, those of queries int64 (q,) and of the gallery (g,), and how many it has.

    That last one stands for a camera that nobody knows, or that took no image of the gallery.
    """
    cameras = sorted({one.camera for one in gallery if one.camera is not None})
    number = {camera: place for place, camera in enumerate(cameras)}
    of_query, of_image = (
        np.array([number.get(one.camera or "", len(cameras)) for one in some], dtype=np.int64)
        for some in (queries, gallery)
    )
    return of_query, of_image, len(cameras)


def _nearest(
    queries: FloatArray,
    gallery: FloatArray,
    own: Sequence[int | None],
    cameras: tuple[IntArray, IntArray, int] | None,
    top: int,
) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """Give for each query how many images it is held against, and the rows of the ``top`` nearest of these.

    With their distances. Its ``own`` row is left out and, where ``cameras`` of queries and gallery are given,
    what is of its own camera or of none.
    """
    for first in range(0, len(queries), _BLOCK):
        similarity = queries[first : first + _BLOCK] @ gallery.T
        for place, row in enumerate(similarity, start=first):
            allowed = np.ones(len(gallery), dtype=bool)
            if cameras is not None:
                of_query, of_image, unknown = cameras
                allowed = (of_image != unknown) & (of_image != of_query[place])
            if (itself := own[place]) is not None:
                allowed[itself] = False
            rows = np.flatnonzero(allowed)
            compared = len(rows)
            rows = rows[np.argsort(-row[rows], kind="stable")[:top]]
            # Taken directly: 2 - 2 cos would lose the distances of images that are nearly the same.
            distances = np.linalg.norm(gallery[rows].astype(np.float64) - queries[place], axis=1)
            order = np.argsort(distances, kind="stable")
            yield compared, list(zip(rows[order].tolist(), distances[order].tolist(), strict=True))
