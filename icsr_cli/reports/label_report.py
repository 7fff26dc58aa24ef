"""What the labels of one epoch look like: tables in, plain records out; no terminal, no file.

Every record goes into JSON as it is, rows by ``dataclasses.asdict``. What is told of local labels
is None where the labels have none.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icsr_cli.errors import RunError, counted
from icsr_cli.reports.truth import judged
from icsr_cli.runs import LabelTable
from icsr_cli.runs.labels import DISCARDED
from icsr_cli.runs.quality import is_local, local_codes
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, BoolArray, FloatArray, IntArray, most_frequent

#: The lists of clusters by name, with their titles.
LISTS: Final = {
    "largest_clusters": "Largest clusters",
    "most_mixed_clusters": "Most mixed clusters",
    "most_discarded_clusters": "Clusters that lost most images",
}


@dataclass(frozen=True)
class ClusterRow:
    """One cluster before the refinement.

    ``local_clusters_per_camera``: into how many local clusters each of its cameras divides it, on average;
    1 says that the cameras agree with the cluster, more that it mixes what a camera tells apart.
    ``cohesion``: mean similarity of its pairs of images; None where it is not known, or of one image.
    ``nodes``: paths of its information nodes that were not thrown out.
    ``identities`` and ``purity``: how many identities, and the share of the most frequent one, among
    its images of known identity; None without any.
    """

    cluster: int
    images: int
    kept: int
    thrown_out: int
    cameras: int
    local_clusters: int | None
    local_clusters_per_camera: float | None
    cohesion: float | None
    nodes: tuple[str, ...]
    identities: int | None
    purity: float | None


@dataclass(frozen=True)
class ImageRow:
    """One image and what became of it (see ``fates``); ``cohesion`` None where it is alone or not known."""

    path: str
    camera: str
    cluster: int
    local_cluster: int | None
    state: str
    fate: str
    cohesion: float | None
    identity: int | None


def overview(table: LabelTable) -> dict[str, Any]:
    """Count clusters and images of ``table``, before and after the refinement.

    ``kept`` counts the information nodes as well, and what left the noise; ``moved`` those that are trained
    on in another cluster than the one that they were found in.
    """
    return {
        **_counts(table),
        "moved": _moved(table),
        "clusters_after_refinement": _distinct(table.labels),
        "sizes": _sizes(table.clusters),
        "sizes_after_refinement": _sizes(table.labels),
    }


def moved_said(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Say of an ``overview`` that images are trained on in other clusters than shown, where they are."""
    if not found["moved"]:
        return ()
    images = counted(found["moved"], "image is", "images are")
    return (f"{images} trained on in another cluster than shown: clusters are shown as they were found.",)


def fates(table: LabelTable) -> npt.NDArray[np.str_]:
    """Say of each image in one of three words what became of it, whatever the method: (n,).

    ``thrown_out``: it was in a cluster, and is in none, or is called ``discarded``: so methods call what they
    take out of its cluster, also where it gets a cluster of its own. ``noise``: it was in no cluster and is
    in none. ``kept``: it is trained on in a cluster, whatever its method calls it; this may be a part of the
    cluster it was found in, or one that a refiner put it into.
    """
    found, trained = table.clusters != NO_CLUSTER, table.labels != NO_CLUSTER
    out = found & (~trained | (table.states == DISCARDED))
    return np.where(out, "thrown_out", np.where(trained, "kept", "noise"))


def thrown_out(table: LabelTable) -> BoolArray:
    """Mark the images that were in a cluster and that a refiner took out of it: bool (n,); see ``fates``."""
    return np.asarray(fates(table) == "thrown_out")


def camera_rows(table: LabelTable) -> list[dict[str, Any]]:
    """Describe each camera, in rising order: its images by state, and what they are in."""
    rows = []
    for camera in np.unique(table.cameras).tolist():
        own = select(table, np.flatnonzero(table.cameras == camera))
        local = _distinct(own.local_clusters) if table.has_local else None
        people = _distinct(own.identities) if own.has_identities else None
        known = {"local_clusters": local, "identities": people}
        rows.append({"camera": table.camera_name(camera), **_counts(own), **known})
    return rows


def cluster_lists(table: LabelTable, count: int = 10) -> dict[str, list[ClusterRow]]:
    """Give up to ``count`` clusters of each of ``LISTS``, as they are before the refinement.

    The largest by images. The most mixed, of many cameras and low cohesion, by cameras x (1 - cohesion),
    where the labels say the cohesion (a cluster of one image has 1); then of local clusters per camera, then
    of cameras, then of images. Those that lost most images to the refinement; none that lost none. Of the
    cam stage the largest alone, as within one camera nothing is mixed or thrown out.
    """

    def mixing(row: ClusterRow) -> tuple[float, ...]:
        spread = row.cameras * (1 - (1 if row.cohesion is None else row.cohesion))
        return spread, row.local_clusters_per_camera or 0, row.cameras, row.images

    rows = sorted(cluster_rows(table), key=lambda row: row.images, reverse=True)
    found = [rows]
    if not is_local(table):
        found.append(sorted(rows, key=mixing, reverse=True))
        lost = (row for row in rows if row.thrown_out)
        found.append(sorted(lost, key=lambda row: (-row.thrown_out, row.cluster)))
    return {name: chosen[:count] for name, chosen in zip(LISTS, found, strict=False)}


def cluster_row(table: LabelTable, cluster: int) -> ClusterRow:
    """Describe one cluster. Raises RunError when there is none of that number."""
    _require(cluster, table.clusters[table.clusters != NO_CLUSTER], "cluster")
    return next(row for row in cluster_rows(table) if row.cluster == cluster)


def cluster_rows(table: LabelTable) -> Iterator[ClusterRow]:
    """Describe every cluster, in rising order."""
    order, has_local = np.argsort(table.clusters, kind="stable"), table.has_local
    clusters, starts = np.unique(table.clusters[order], return_index=True)
    columns = (table.cameras, local_codes(table), table.identities, thrown_out(table), _cohesion(table))
    cut = (np.split(column[order], starts[1:]) for column in (*columns, table.states == "node"))
    for cluster, rows, *own in zip(clusters.tolist(), np.split(order, starts[1:]), *cut, strict=True):
        if cluster == NO_CLUSTER:
            continue
        cameras, local, known, lost, alike, nodes = own
        labelled, alike = local != NO_CLUSTER, alike[np.isfinite(alike)]
        parts = _kinds(local[labelled])
        # Only cameras in which a local cluster is known can divide a cluster.
        divided = max(1, _kinds(cameras[labelled]))
        people = Counter(known[known != UNKNOWN_IDENTITY].tolist())
        yield ClusterRow(
            cluster=cluster,
            images=len(rows),
            kept=int((~lost).sum()),
            thrown_out=int(lost.sum()),
            cameras=_kinds(cameras),
            local_clusters=parts if has_local else None,
            local_clusters_per_camera=parts / divided if has_local else None,
            cohesion=_number(alike.mean(dtype=np.float64)) if len(alike) else None,
            nodes=tuple(table.paths[row] for row in rows[nodes].tolist()),
            identities=len(people) or None,
            purity=max(people.values()) / people.total() if people else None,
        )


def cluster_images(table: LabelTable, cluster: int) -> tuple[ImageRow, ...]:
    """Give the images of one cluster, thrown-out ones among them, by camera and local cluster.

    Raises RunError when there is no such cluster.
    """
    _require(cluster, table.clusters[table.clusters != NO_CLUSTER], "cluster")
    return _images(table, table.clusters == cluster, (table.local_clusters, table.cameras))


def camera_images(table: LabelTable, camera: int) -> tuple[ImageRow, ...]:
    """Give the images of one camera, by cluster. Raises RunError when there is no such camera."""
    _require(camera, table.cameras, "camera")
    return _images(table, table.cameras == camera, (table.local_clusters, table.clusters))


def discarded_images(table: LabelTable) -> tuple[ImageRow, ...]:
    """Give the images that the refinement threw out, by cluster and camera."""
    return _images(table, thrown_out(table), (table.cameras, table.clusters))


def label_report(table: LabelTable, count: int = 10) -> dict[str, Any]:
    """Give everything about one epoch as a dictionary that goes into JSON."""
    known = {name: part.as_dict() for name, part in judged(table).items()}
    lists = cluster_lists(table, count)
    states, counts = np.unique(table.states, return_counts=True)
    return {
        "overview": overview(table),
        "states": dict(zip(states.tolist(), counts.tolist(), strict=True)),
        "cameras": camera_rows(table),
        "quality": {**dict.fromkeys(("global", "local", "refined")), **known},
        **{name: [asdict(row) for row in lists.get(name, ())] for name in LISTS},
    }


def select(table: LabelTable, rows: npt.NDArray[np.intp]) -> LabelTable:
    """Give the table of the images at ``rows``, in that order."""
    arrays = ("cameras", "identities", "clusters", "local_clusters", "labels", "states")
    chosen: dict[str, Any] = {name: getattr(table, name)[rows] for name in arrays}
    paths = tuple(table.paths[row] for row in rows.tolist())
    columns = {name: values[rows] for name, values in table.columns.items()}
    return replace(table, paths=paths, columns=columns, **chosen)


def _distinct(labels: IntArray) -> int:
    return _kinds(labels[labels != NO_CLUSTER])


def _kinds(values: IntArray) -> int:
    return len(set(values.tolist()))


def _counts(table: LabelTable) -> dict[str, int]:
    """Count the images, what became of them, and the clusters they were in."""
    became = fates(table).tolist()
    return {
        "images": len(table),
        **{fate: became.count(fate) for fate in ("kept", "thrown_out", "noise")},
        "nodes": int((table.states == "node").sum()),
        "clusters": _distinct(table.clusters),
    }


def _moved(table: LabelTable) -> int:
    """Count the images whose label is mostly that of another cluster; a part of a cluster is no other one."""
    trained = table.labels != NO_CLUSTER
    labels, own = table.labels[trained], table.clusters[trained]
    if not len(labels):
        return 0
    numbers, home, _ = most_frequent(labels, own)
    return int((home[np.searchsorted(numbers, labels)] != own).sum())


def _sizes(labels: IntArray) -> dict[str, float]:
    """Say how many images the clusters have; all 0 where there is no cluster."""
    sizes = np.unique(labels[labels != NO_CLUSTER], return_counts=True)[1]
    sizes = sizes if len(sizes) else np.zeros(1, dtype=np.int64)
    low, middle, high = np.quantile(sizes, (0.25, 0.5, 0.75)).tolist()
    return {
        "smallest": int(sizes.min()),
        "lower_quartile": low,
        "median": middle,
        "upper_quartile": high,
        "largest": int(sizes.max()),
        "mean": float(sizes.mean()),
    }


def _require(wanted: int, present: IntArray, what: str) -> None:
    if wanted in present:
        return
    numbers = np.unique(present)
    there = f"numbers run from {numbers[0]} to {numbers[-1]}" if len(numbers) else "there is none"
    raise RunError(f"there is no {what} {wanted} in these labels: {there}. Ask for one that is there.")


def _images(table: LabelTable, mask: BoolArray, keys: tuple[IntArray, IntArray]) -> tuple[ImageRow, ...]:
    """Give the images under ``mask``, sorted by the last key, then the first, then as they stand."""
    rows = np.flatnonzero(mask)
    rows = rows[np.lexsort(tuple(key[rows] for key in keys))]
    alike, local, became = _cohesion(table), table.has_local, fates(table)
    return tuple(
        ImageRow(
            path=table.paths[row],
            camera=table.camera_name(int(table.cameras[row])),
            cluster=int(table.clusters[row]),
            local_cluster=int(table.local_clusters[row]) if local else None,
            state=str(table.states[row]),
            fate=str(became[row]),
            cohesion=_number(alike[row]),
            identity=int(table.identities[row]) if table.identities[row] != UNKNOWN_IDENTITY else None,
        )
        for row in rows.tolist()
    )


def _cohesion(table: LabelTable) -> FloatArray:
    """Give the cohesion of each image, NaN where it is not known."""
    nothing = np.full(len(table), np.nan, dtype=np.float32)
    return np.asarray(table.columns.get("cohesion", nothing), dtype=np.float32)


def _number(value: np.floating[Any]) -> float | None:
    """Give a number for JSON: None for NaN, else the four decimals of a label file."""
    return round(float(value), 4) if np.isfinite(value) else None
