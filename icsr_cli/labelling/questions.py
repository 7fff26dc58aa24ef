"""Which pairs to ask a person: between clusters that nearly merged, within clusters that nearly split.

An answer is worth the pairs of images that it sets right. Between two clusters that is their pairs across
cameras, if they show one person; within a cluster the pairs across cameras of its two halves, if they show
two. How likely that is follows from the similarity of the pairs; cameras tell across which the others hide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import minimum_spanning_tree

from icsr_cli.labelling.constraints import Rules
from icsr_cli.types import NO_CLUSTER, DoubleArray, IntArray, Pairs

JOIN, SPLIT = "join", "split"
#: What a pair within one camera counts beside one across cameras: these come first.
_SAME_CAMERA: Final = 1e-3
#: How steeply the chance of one person falls with the similarity; of 1, 2 and 3 the best on a city world.
_POWER: Final = 3
#: Steps that find the halves of a cluster; more change few images.
_STEPS: Final = 60


@dataclass(frozen=True)
class Questions:
    """Pairs to ask, the one worth most first.

    ``first``, ``second`` int64 (m,): the images that speak for each side. ``kinds`` (m,): ``join`` or
    ``split``. ``worth`` float64 (m,): pairs of images that the answer is expected to set right. ``sides``
    int64 (m, 2): the side's number in ``parts`` (n,) for ``split``, in ``nodes`` (n,) for ``join``: images of
    one number are one side.
    """

    first: IntArray
    second: IntArray
    kinds: npt.NDArray[np.str_]
    worth: DoubleArray
    sides: IntArray
    nodes: IntArray
    parts: IntArray

    def __len__(self) -> int:
        return len(self.first)

    def images(self, question: int, side: int) -> IntArray:
        """Give the images of one side (0 or 1) of a question."""
        numbers = self.nodes if self.kinds[question] == JOIN else self.parts
        return np.flatnonzero(numbers == self.sides[question, side])


def choose(
    labels: IntArray,
    similarity: sp.csr_array,
    cameras: IntArray | None,
    count: int,
    pairs: Pairs | None = None,
) -> Questions:
    """Choose the pairs that are worth most.

    An image in no cluster counts as a cluster of its own. Of the questions between clusters only those are
    asked that no others would answer, were all of them the same: a spanning forest of the greatest worth.
    What ``pairs`` decide already, or somebody was unsure of, is not asked.

    ``labels`` int64 (n,), -1 for none; ``similarity`` sparse (n, n), 0 to 1, symmetric; ``cameras`` int64
    (n,), or None: then every pair counts as one across cameras; ``count``: pairs at most.
    """
    n = len(labels)
    cameras = np.arange(n, dtype=np.int64) if cameras is None else cameras
    alone = labels == NO_CLUSTER
    nodes = np.where(alone, int(labels.max(initial=NO_CLUSTER)) + np.cumsum(alone), labels)
    parts = 2 * nodes + halves(similarity, nodes)
    within, _ = _within(similarity, nodes)
    typical = _typical(within, nodes)
    rules = None if pairs is None else Rules.of(pairs, n)
    joins = _Sides.of(similarity, nodes, cameras).without(_decided(rules, nodes))
    ends_joined, worth_joined = _forest(joins.ends, joins.pairs * _likely(joins.mean, typical))
    sizes = np.bincount(parts, minlength=2 * int(nodes.max(initial=-1)) + 2).reshape(-1, 2)
    both = 2 * np.flatnonzero(sizes.all(axis=1))[:, None] + np.array([0, 1])
    splits = _Sides.of(within, parts, cameras, both).without(_decided(rules, parts))
    worth = np.concatenate([worth_joined, splits.pairs * (1 - _likely(splits.mean, typical))])
    order = np.argsort(-worth, kind="stable")[:count]
    sides = np.concatenate([ends_joined, splits.ends])[order]
    is_join = order < len(worth_joined)
    ends = np.empty((len(order), 2), dtype=np.int64)
    for asked, numbers in ((is_join, nodes), (~is_join, parts)):
        ends[asked] = _speakers(similarity, numbers, cameras, sides[asked])
    return Questions(
        ends[:, 0], ends[:, 1], np.where(is_join, JOIN, SPLIT), worth[order], sides, nodes, parts
    )


def halves(similarity: sp.csr_array, nodes: IntArray) -> IntArray:
    """Divide each cluster where it is thinnest: 0 or 1 for each image, int64 (n,).

    By the sign of the second eigenvector of a random walk within the cluster, for all clusters at once (Shi
    and Malik, Normalized Cuts and Image Segmentation, PAMI 2000), by power iteration. ``nodes`` int64 (n,)
    numbers the clusters from 0.
    """
    within, degrees = _within(similarity, nodes)
    k = int(nodes.max(initial=-1)) + 1
    mass = np.maximum(np.bincount(nodes, weights=degrees, minlength=k), 1)  # an image is like itself: 1
    vector = np.random.default_rng(0).standard_normal(len(nodes))
    for _ in range(_STEPS):
        vector = (vector + (within @ vector) / degrees) / 2  # lazy: no eigenvalue is below 0
        vector -= (np.bincount(nodes, weights=degrees * vector, minlength=k) / mass)[nodes]
        length = np.sqrt(np.bincount(nodes, weights=degrees * vector**2, minlength=k))
        vector /= np.where(length > 0, length, 1)[nodes]
    return (vector > 0).astype(np.int64)


def _within(similarity: sp.csr_array, nodes: IntArray) -> tuple[sp.csr_array, DoubleArray]:
    """Give the similarity within clusters, 1 on the diagonal, and the sum of each row."""
    entries = sp.coo_array(similarity)
    rows, columns = entries.coords
    inside = (nodes[rows] == nodes[columns]) & (rows != columns)
    n = len(nodes)
    own = np.arange(n)
    values = np.concatenate([entries.data[inside].astype(np.float64), np.ones(n)])
    places = np.concatenate([rows[inside], own]), np.concatenate([columns[inside], own])
    within = sp.csr_array((values, places), shape=(n, n))
    return within, np.asarray(within.sum(axis=1), dtype=np.float64).ravel()


def _typical(within: sp.csr_array, nodes: IntArray) -> float:
    """Give the mean similarity of two images of one cluster, over all such pairs."""
    sizes = np.bincount(nodes)
    pairs = float((sizes * (sizes - 1)).sum())
    return (float(within.sum()) - len(nodes)) / pairs if pairs else 0.0


@dataclass(frozen=True)
class _Sides:
    """All two sides that share anything, and those that were named: ``ends`` (m, 2), the lower first.

    ``mean`` (m,): their mean similarity, of pairs across cameras where there are any. ``pairs`` (m,): how
    many those are; one within a camera counts as little.
    """

    ends: IntArray
    mean: DoubleArray
    pairs: DoubleArray

    @classmethod
    def of(
        cls, similarity: sp.csr_array, numbers: IntArray, cameras: IntArray, named: IntArray | None = None
    ) -> _Sides:
        """Compare the sides that ``numbers`` (n,) tell apart, and those ``named`` (m, 2)."""
        k = int(numbers.max(initial=-1)) + 1
        entries = sp.coo_array(similarity)
        rows, columns = entries.coords
        upper = numbers[rows] < numbers[columns]
        rows, columns, values = rows[upper], columns[upper], entries.data[upper].astype(np.float64)
        across = cameras[rows] != cameras[columns]
        found = numbers[rows] * k + numbers[columns]
        also = np.empty(0, dtype=np.int64) if named is None else named[:, 0] * k + named[:, 1]
        keys, place = np.unique(np.concatenate([found, also]), return_inverse=True)
        place = place[: len(found)]
        ends = np.column_stack(np.divmod(keys, max(k, 1))).astype(np.int64)
        sums = np.bincount(place, weights=values, minlength=len(keys))
        sums_across = np.bincount(place, weights=values * across, minlength=len(keys))
        sizes = np.bincount(numbers, minlength=k)
        pairs = (sizes[ends[:, 0]] * sizes[ends[:, 1]]).astype(np.float64)
        pairs_across = pairs - _of_one_camera(numbers, cameras, ends)
        some = pairs_across > 0
        mean = np.where(some, sums_across, sums) / np.where(some, pairs_across, pairs)
        return cls(ends, mean, pairs_across + _SAME_CAMERA * (pairs - pairs_across))

    def without(self, known: IntArray) -> _Sides:
        """Leave out those that are ``known`` (m, 2) already, the lower first."""
        base = 1 + max(int(self.ends.max(initial=0)), int(known.max(initial=0)))
        keep = ~np.isin(self.ends[:, 0] * base + self.ends[:, 1], known[:, 0] * base + known[:, 1])
        return _Sides(self.ends[keep], self.mean[keep], self.pairs[keep])


def _of_one_camera(numbers: IntArray, cameras: IntArray, ends: IntArray) -> DoubleArray:
    """Count the pairs of one camera between two sides, (m,)."""
    found = np.zeros(len(ends))
    for camera in np.unique(cameras) if len(np.unique(cameras)) < len(cameras) else ():
        sizes = np.bincount(numbers[cameras == camera], minlength=int(numbers.max(initial=-1)) + 1)
        found += sizes[ends[:, 0]] * sizes[ends[:, 1]]
    return found


def _decided(rules: Rules | None, numbers: IntArray) -> IntArray:
    """Give the sides (m, 2), the lower first, that are the same, differ, or left somebody unsure."""
    if rules is None:
        return np.empty((0, 2), dtype=np.int64)
    groups = int(rules.groups.max()) + 1
    ones = np.ones(len(numbers), dtype=np.int64)
    holds = sp.csr_array((ones, (rules.groups, numbers)), shape=(groups, int(numbers.max()) + 1))
    apart = np.ones(len(rules.apart), dtype=np.int64)
    related = sp.csr_array((apart, rules.apart.T), shape=(groups, groups)) + sp.eye_array(
        groups, format="csr"
    )
    known = np.column_stack(sp.coo_array(holds.T @ related @ holds).coords)
    known = np.sort(np.concatenate([known, numbers[rules.pairs.unsure]]), axis=1)
    return known[known[:, 0] < known[:, 1]].astype(np.int64)


def _likely(mean: DoubleArray, typical: float) -> DoubleArray:
    """Say how likely sides of this mean similarity show one person, against that of clusters."""
    return np.clip(mean / typical if typical > 0 else np.zeros(len(mean)), 0, 1) ** _POWER


def _forest(ends: IntArray, worth: DoubleArray) -> tuple[IntArray, DoubleArray]:
    """Leave out pairs of sides (m, 2) of no worth, and what would follow from others, were all the same."""
    ends, worth = ends[worth > 0], worth[worth > 0]
    if len(worth) == 0:
        return ends, worth
    most, k = worth.max(), int(ends.max()) + 1
    short = ends.T.astype(np.int32)  # older releases of scipy take no longer numbers here
    graph = sp.csr_array((1 + most - worth, short), shape=(k, k))
    forest = sp.coo_array(minimum_spanning_tree(graph))
    return np.column_stack(forest.coords).astype(np.int64), 1 + most - forest.data


def _speakers(similarity: sp.csr_array, numbers: IntArray, cameras: IntArray, sides: IntArray) -> IntArray:
    """Choose the image that speaks for each of two sides (m, 2): the one most like the others of its side.

    The second comes from another camera than the first where its side has one.
    """
    degrees = _within(similarity, numbers)[1]
    order = np.lexsort((-degrees, numbers))
    best = np.full(int(numbers.max(initial=-1)) + 1, -1, dtype=np.int64)
    places, first = np.unique(numbers[order], return_index=True)
    best[places] = order[first]
    ends = best[sides]
    # The best image of each side and camera, and of each side the best of another camera than its best.
    away = order[cameras[order] != cameras[best[numbers[order]]]]
    other = best.copy()
    places, first = np.unique(numbers[away], return_index=True)
    other[places] = away[first]
    same = cameras[ends[:, 0]] == cameras[ends[:, 1]]
    second, swapped = other[sides[:, 1]], other[sides[:, 0]]
    helps = same & (cameras[second] != cameras[ends[:, 0]])
    ends[helps, 1] = second[helps]
    rest = same & ~helps
    ends[rest, 0] = swapped[rest]
    return ends
