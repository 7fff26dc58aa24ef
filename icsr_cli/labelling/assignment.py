"""New images to known clusters, or to nobody that is known, by a distance; nothing is trained.

The distance of an image from a cluster is the root of the mean squared distance from the cluster's images.
For unit features that is sqrt(2 - 2 x.m) with the mean m of theirs, so that a threshold on the distance of
two images (``icsr_cli.metrics.thresholds``) holds for it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from icsr_cli.checks import as_numpy, whole_numbers
from icsr_cli.errors import InputError
from icsr_cli.threads import blocks
from icsr_cli.types import NO_CLUSTER, FloatArray, IntArray

#: Products computed at a time.
_BLOCK: Final = 1 << 24


@dataclass(frozen=True)
class KnownClusters:
    """Clusters by number, int64 (m,): how many images, int64 (m,), and their mean, float32 (m, d)."""

    numbers: IntArray
    sizes: IntArray
    means: FloatArray

    @classmethod
    def of(cls, features: Any, labels: Any) -> KnownClusters:
        """Take the clusters of features (n, d) by labels (n,), -1 for none.

        Raises InputError where no image has a label, or features and labels do not fit.
        """
        table, labels = _unit(features), whole_numbers("labels", labels, len(features))
        inside = labels != NO_CLUSTER
        if not inside.any():
            raise InputError("labels must hold at least one cluster, got -1 alone.")
        numbers, place, sizes = np.unique(labels[inside], return_inverse=True, return_counts=True)
        order = np.argsort(place, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        sums = np.add.reduceat(table[inside][order], starts, axis=0, dtype=np.float64)
        return cls(numbers, sizes.astype(np.int64), (sums / sizes[:, None]).astype(np.float32))


@dataclass(frozen=True)
class Assigned:
    """For each of n images the nearest cluster, int64 (n,), and its distance, float32 (n,), 0 to 2."""

    nearest: IntArray
    distances: FloatArray

    def within(self, farthest: float) -> IntArray:
        """Give the cluster of each image, -1 for one that is farther from all: somebody new."""
        return np.where(self.distances <= farthest, self.nearest, NO_CLUSTER)


def assign(features: Any, known: KnownClusters) -> Assigned:
    """Find the nearest cluster of each image, features (n, d)."""
    table = _unit(features)
    places, products = np.empty(len(table), dtype=np.intp), np.empty(len(table), dtype=np.float32)
    for rows in blocks(len(table), len(known.numbers), _BLOCK):
        compared = table[rows] @ known.means.T
        places[rows], products[rows] = compared.argmax(axis=1), compared.max(axis=1)
    return Assigned(known.numbers[places], _distance(products))


def estimate(features: Any, labels: Any) -> float:
    """Estimate the farthest distance of a known person from the known images themselves.

    Each image is held once against its own cluster without it, and once against all others, as if its person
    were new. The distance is that of the highest mean of the two shares: assigned to its own cluster, which
    is the nearest; and to none of the others. Training has brought its own images together, so distances of
    new ones are somewhat larger.

    ``features`` (n, d), numpy or torch; ``labels`` int (n,), -1 for none.
    Raises InputError where there are fewer than two clusters, or none of two images.
    """
    table = _unit(features)
    labels = whole_numbers("labels", labels, len(table))
    known = KnownClusters.of(table, labels)
    own = np.searchsorted(known.numbers, labels)
    rows = np.flatnonzero((labels != NO_CLUSTER) & (known.sizes[np.minimum(own, len(known.sizes) - 1)] > 1))
    if len(known.numbers) < 2 or len(rows) == 0:
        raise InputError("labels must hold two clusters, and one of two images, to estimate a distance from.")
    within, between = np.empty(len(rows)), np.empty(len(rows))
    for block in blocks(len(rows), len(known.numbers), _BLOCK):
        at, mine = rows[block], own[rows[block]]
        products = table[at] @ known.means.T
        ahead = np.arange(len(at))
        sizes = known.sizes[mine]
        within[block] = _distance((sizes * products[ahead, mine] - 1) / (sizes - 1))
        products[ahead, mine] = -np.inf
        between[block] = _distance(products.max(axis=1))
    right = np.sort(within[within < between])
    candidates = np.unique(np.concatenate([within, between]))
    known_rate = np.searchsorted(right, candidates, side="right") / len(rows)
    new_rate = 1 - np.searchsorted(np.sort(between), candidates, side="right") / len(rows)
    return float(candidates[np.argmax(known_rate + new_rate)])


def _unit(features: Any) -> FloatArray:
    table: FloatArray = np.asarray(as_numpy(features), dtype=np.float32)
    if table.ndim != 2:
        raise InputError(f"features must have shape (n, d), got {table.shape}.")
    lengths = np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    unit: FloatArray = (table / lengths).astype(np.float32)
    return unit


def _distance(products: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = np.sqrt(np.maximum(2 - 2 * products, 0))
    return found
