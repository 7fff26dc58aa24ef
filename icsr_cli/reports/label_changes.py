"""What moved between the labels of two epochs: two tables in, plain records out.

Clusters are numbered anew each epoch, so a number says nothing by itself: a cluster's successor is the
later cluster that holds most of its images (the lowest number on a tie).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icsr_cli.errors import RunError
from icsr_cli.metrics import label_quality
from icsr_cli.runs import LabelTable
from icsr_cli.types import NO_CLUSTER, IntArray


@dataclass(frozen=True)
class MovedImage:
    """An image that is not in the successor of its earlier cluster."""

    path: str
    camera: int
    cluster_before: int
    cluster_after: int
    state_before: str
    state_after: str


@dataclass(frozen=True)
class ClusterChange:
    """One cluster of one epoch and what it is made of in the other: (cluster, images), most images first."""

    cluster: int
    images: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LabelChanges:
    """How the clusters before the refinement, and the images' states, differ between two epochs.

    ``images``: those in both tables; ``compared``: those of them that are in a cluster in both.
    ``moved``: compared images that left their cluster's successor. ``split``: earlier clusters, and
    ``merged``: later ones, of at least two parts that count. ``agreement``: normalised mutual information
    of both clusterings over the compared images, 1 is equal; None without any.
    ``into_cluster`` and ``into_noise`` count images that joined or left all clusters; ``now_discarded`` and
    ``no_longer_discarded`` count images that the refinement newly threw out, or let stay.
    """

    images: int
    compared: int
    moved: tuple[MovedImage, ...]
    split: tuple[ClusterChange, ...]
    merged: tuple[ClusterChange, ...]
    agreement: float | None
    into_cluster: int
    into_noise: int
    now_discarded: int
    no_longer_discarded: int

    def as_dict(self) -> dict[str, Any]:
        """Give the fields under their names, for JSON."""
        return asdict(self)


def compare_labels(before: LabelTable, after: LabelTable, min_share: float = 0.2) -> LabelChanges:
    """Compare the labels of an earlier and a later epoch; images are the same where their paths are.

    ``min_share``, above 0 to 0.5: a part counts as such from this share of the split or merged cluster's
    images on, so that a single stray image makes no split.

    Raises RunError when the tables have no image in common, or ``min_share`` is out of range.
    """
    if not 0 < min_share <= 0.5:
        raise RunError(f"min_share is {min_share}; expected more than 0 and at most 0.5.")
    first, second = _shared_rows(before, after)
    old, new = before.clusters[first], after.clusters[second]
    both = np.flatnonzero((old != NO_CLUSTER) & (new != NO_CLUSTER))
    discarded_before, discarded_after = (
        table.states[rows] == "discarded" for table, rows in ((before, first), (after, second))
    )
    moved = both[_left_successor(old[both], new[both])]
    return LabelChanges(
        images=len(first),
        compared=len(both),
        moved=_moved_images(before, after, first[moved], second[moved]),
        split=_changes(old[both], new[both], min_share),
        merged=_changes(new[both], old[both], min_share),
        agreement=label_quality(new[both], old[both]).nmi if len(both) else None,
        into_cluster=int(((old == NO_CLUSTER) & (new != NO_CLUSTER)).sum()),
        into_noise=int(((old != NO_CLUSTER) & (new == NO_CLUSTER)).sum()),
        now_discarded=int((discarded_after & ~discarded_before).sum()),
        no_longer_discarded=int((discarded_before & ~discarded_after).sum()),
    )


def _shared_rows(before: LabelTable, after: LabelTable) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Give the rows of the images that are in both tables, in the order of the earlier one."""
    if before.paths == after.paths:
        rows = np.arange(len(before))
        return rows, rows
    _, first, second = np.intersect1d(before.paths, after.paths, return_indices=True)
    if len(first) == 0:
        raise RunError(
            f"the two sets of labels have no image in common: one begins with {_example(before)}, the other "
            f"with {_example(after)}. Compare epochs of runs on the same data set."
        )
    order = np.argsort(first)
    return first[order], second[order]


def _example(table: LabelTable) -> str:
    return repr(table.paths[0]) if table.paths else "no image at all"


def _cells(owners: IntArray, others: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Count images per pair of clusters: owner, other, images; by owner, most images first, then by other."""
    (owner, other), images = np.unique(np.stack([owners, others]), axis=1, return_counts=True)
    order = np.lexsort((other, -images, owner))
    return owner[order], other[order], images[order]


def _left_successor(old: IntArray, new: IntArray) -> npt.NDArray[np.bool_]:
    """Say of each image whether it is elsewhere than most of its old cluster."""
    if len(old) == 0:
        return np.zeros(0, dtype=bool)
    owner, other, _ = _cells(old, new)
    clusters, start = np.unique(owner, return_index=True)
    left: npt.NDArray[np.bool_] = other[start][np.searchsorted(clusters, old)] != new
    return left


def _moved_images(
    before: LabelTable, after: LabelTable, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> tuple[MovedImage, ...]:
    return tuple(
        MovedImage(
            path=before.paths[row],
            camera=int(before.cameras[row]),
            cluster_before=int(before.clusters[row]),
            cluster_after=int(after.clusters[later]),
            state_before=str(before.states[row]),
            state_after=str(after.states[later]),
        )
        for row, later in zip(first.tolist(), second.tolist(), strict=True)
    )


def _changes(owners: IntArray, others: IntArray, min_share: float) -> tuple[ClusterChange, ...]:
    """Give the owners of two or more parts that count, largest first."""
    if len(owners) == 0:
        return ()
    owner, other, images = _cells(owners, others)
    clusters, place = np.unique(owner, return_inverse=True)
    size = np.bincount(place, weights=images).astype(np.int64)
    counts = images >= min_share * size[place]
    several = np.flatnonzero(np.bincount(place[counts], minlength=len(clusters)) >= 2)
    several = several[np.lexsort((clusters[several], -size[several]))]
    starts = np.searchsorted(owner, clusters)
    ends = np.searchsorted(owner, clusters, side="right")
    return tuple(
        ClusterChange(
            cluster=int(clusters[index]),
            images=int(size[index]),
            parts=tuple(
                zip(
                    other[starts[index] : ends[index]].tolist(),
                    images[starts[index] : ends[index]].tolist(),
                    strict=True,
                )
            ),
        )
        for index in several.tolist()
    )
