"""What moved between the labels of two epochs: two tables in, plain records out.

Clusters are numbered anew each epoch, so a number says nothing by itself: a cluster's successor is the
later cluster that holds most of its images (the lowest number on a tie).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icsr_cli.errors import RunError
from icsr_cli.metrics import label_quality
from icsr_cli.reports.label_report import fates, select, thrown_out
from icsr_cli.reports.page import percent
from icsr_cli.runs import LabelTable
from icsr_cli.types import NO_CLUSTER, UNKNOWN_IDENTITY, IntArray, most_frequent

#: A part counts from this share of the split or merged cluster's images on: a stray image makes no split.
_LEAST_SHARE = 0.2
#: What is said where both tables are one.
SAME_EPOCH = "These are the labels of one and the same epoch: nothing can have moved."


@dataclass(frozen=True)
class ImageChange:
    """One image in both epochs; -1 is no cluster. ``fate``: what became of it in the later one."""

    path: str
    camera: str
    identity: int | None
    cluster_before: int
    cluster_after: int
    state_before: str
    state_after: str
    fate: str


@dataclass(frozen=True)
class ClusterChange:
    """One cluster of one epoch and what it is made of in the other: (cluster, images), most images first."""

    cluster: int
    images: int
    parts: tuple[tuple[int, int], ...]

    @property
    def stayed(self) -> int:
        """Images in the largest part; those in no cluster are none."""
        return 0 if self.parts[0][0] == NO_CLUSTER else self.parts[0][1]


@dataclass(frozen=True)
class ClusterMoves(ClusterChange):
    """A cluster with its images: ``changes`` are in the order of its parts, those in no cluster last."""

    changes: tuple[ImageChange, ...]

    @property
    def main(self) -> int | None:
        """The other epoch's cluster that holds most of the images; None where none holds any."""
        return self.parts[0][0] if self.stayed else None

    @property
    def unclustered(self) -> int:
        """Images that are in no cluster of the other epoch."""
        return dict(self.parts).get(NO_CLUSTER, 0)

    @property
    def elsewhere(self) -> int:
        """Images in the other epoch's clusters beside ``main``."""
        return self.images - self.stayed - self.unclustered


@dataclass(frozen=True)
class LabelChanges:
    """How the clusters before the refinement, and the images' states, differ between two epochs.

    ``images``: those in both tables; ``compared``: those of them that are in a cluster in both.
    ``moved``: compared images that left their cluster's successor. ``split``: earlier clusters, and
    ``merged``: later ones, of at least two parts that count. ``agreement``: normalised mutual information
    of both clusterings over the compared images, 1 is equal; None without any.
    ``into_cluster`` and ``into_noise`` count images that joined or left all clusters; ``now_discarded`` and
    ``no_longer_discarded`` count images that the refinement newly threw out, or let stay in their cluster.
    """

    images: int
    compared: int
    moved: tuple[ImageChange, ...]
    split: tuple[ClusterChange, ...]
    merged: tuple[ClusterChange, ...]
    agreement: float | None
    into_cluster: int
    into_noise: int
    now_discarded: int
    no_longer_discarded: int

    @property
    def figures(self) -> dict[str, int | float | None]:
        """The numbers, as they are called where they are shown."""
        share = f" ({percent(len(self.moved) / self.compared)})" if self.compared else ""
        return {
            "images in both epochs": self.images,
            "in a cluster in both": self.compared,
            f"moved{share}": len(self.moved),
            "agreement (NMI)": self.agreement,
            "clusters split": len(self.split),
            "clusters merged": len(self.merged),
            "joined a cluster": self.into_cluster,
            "became noise": self.into_noise,
            "newly thrown out": self.now_discarded,
            "let back in": self.no_longer_discarded,
        }


def compare_labels(before: LabelTable, after: LabelTable) -> LabelChanges:
    """Compare the labels of an earlier and a later epoch; images are the same where their paths are.

    Raises RunError when the tables have no image in common.
    """
    before, after = _of_shared_images(before, after)
    old, new = before.clusters, after.clusters
    both = np.flatnonzero((old != NO_CLUSTER) & (new != NO_CLUSTER))
    discarded_before, discarded_after = thrown_out(before), thrown_out(after)
    clusters, successors, _ = most_frequent(old[both], new[both])
    moved = both[new[both] != successors[np.searchsorted(clusters, old[both])]].tolist()
    return LabelChanges(
        images=len(before),
        compared=len(both),
        moved=_image_changes(before, after, moved),
        split=_divided(_changes(old[both], new[both])),
        merged=_divided(_changes(new[both], old[both])),
        agreement=label_quality(new[both], old[both]).nmi if len(both) else None,
        into_cluster=int(((old == NO_CLUSTER) & (new != NO_CLUSTER)).sum()),
        into_noise=int(((old != NO_CLUSTER) & (new == NO_CLUSTER)).sum()),
        now_discarded=int((discarded_after & ~discarded_before).sum()),
        no_longer_discarded=int((discarded_before & ~discarded_after & (new != NO_CLUSTER)).sum()),
    )


def most_changed(
    before: LabelTable, after: LabelTable, count: int = 5, *, of_later: bool = False
) -> tuple[ClusterMoves, ...]:
    """Give up to ``count`` earlier clusters that most images left, for other clusters or for none.

    With ``of_later`` the later clusters that most images joined. Ties: the larger one, then the lower number.
    No cluster that is in one part alone is among them.
    """
    before, after = _of_shared_images(before, after)
    owners, others = before.clusters, after.clusters
    if of_later:
        owners, others = others, owners
    changed = [change for change in _changes(owners, others) if change.stayed < change.images]
    changed.sort(key=lambda change: (change.stayed - change.images, -change.images, change.cluster))
    found = []
    for change in changed[:count]:
        own = owners == change.cluster
        rows = [row for part, _ in change.parts for row in np.flatnonzero(own & (others == part)).tolist()]
        moved = _image_changes(before, after, rows)
        found.append(ClusterMoves(change.cluster, change.images, change.parts, moved))
    return tuple(found)


def state_changes(before: LabelTable, after: LabelTable) -> dict[tuple[str, str], int]:
    """Count the images in both tables by their state (before, after)."""
    before, after = _of_shared_images(before, after)
    return Counter(zip(before.states.tolist(), after.states.tolist(), strict=True))


def _of_shared_images(before: LabelTable, after: LabelTable) -> tuple[LabelTable, LabelTable]:
    """Give both tables of the images that are in both, in the order of the earlier one."""
    if before.paths == after.paths:
        return before, after
    _, first, second = np.intersect1d(before.paths, after.paths, return_indices=True)
    if len(first) == 0:
        raise RunError(
            f"the two sets of labels have no image in common: one begins with {_example(before)}, the other "
            f"with {_example(after)}. Compare epochs of runs on the same data set."
        )
    order = np.argsort(first)
    return select(before, first[order]), select(after, second[order])


def _example(table: LabelTable) -> str:
    return repr(table.paths[0]) if table.paths else "no image at all"


def _image_changes(before: LabelTable, after: LabelTable, rows: Sequence[int]) -> tuple[ImageChange, ...]:
    """Describe the images at ``rows`` of both tables."""
    became = fates(after)
    return tuple(
        ImageChange(
            path=before.paths[row],
            camera=after.camera_name(int(before.cameras[row])),
            identity=int(before.identities[row]) if before.identities[row] != UNKNOWN_IDENTITY else None,
            cluster_before=int(before.clusters[row]),
            cluster_after=int(after.clusters[row]),
            state_before=str(before.states[row]),
            state_after=str(after.states[row]),
            fate=str(became[row]),
        )
        for row in rows
    )


def _changes(owners: IntArray, others: IntArray) -> list[ClusterChange]:
    """Say what every cluster among ``owners`` is made of in ``others``; images in no cluster come last."""
    clusters: dict[int, list[tuple[int, int]]] = {}
    for (owner, other), images in Counter(zip(owners.tolist(), others.tolist(), strict=True)).items():
        if owner != NO_CLUSTER:
            clusters.setdefault(owner, []).append((other, images))
    for parts in clusters.values():
        parts.sort(key=lambda part: (part[0] == NO_CLUSTER, -part[1], part[0]))
    return [
        ClusterChange(cluster, sum(images for _, images in parts), tuple(parts))
        for cluster, parts in clusters.items()
    ]


def _divided(changes: Sequence[ClusterChange]) -> tuple[ClusterChange, ...]:
    """Give those of two or more parts that count, largest first."""
    found = [
        change
        for change in changes
        if sum(images >= _LEAST_SHARE * change.images for _, images in change.parts) >= 2
    ]
    return tuple(sorted(found, key=lambda change: (-change.images, change.cluster)))
