"""What somebody said of pairs, obeyed: ``same`` always in one cluster, ``different`` never.

Images that are the same, one by the other, are a group; what is said of one holds for all of it. What
differs is cut in the similarity before there are clusters, and those are mended: clusters that hold parts of
a group are joined, clusters that hold two groups which differ are split, each image to the side that it is
nearer to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from icsr_cli.checks import as_numpy
from icsr_cli.clusterers.measures import cohesion_of
from icsr_cli.clusterers.similarity import components
from icsr_cli.errors import InputError
from icsr_cli.types import NO_CLUSTER, BoolArray, IntArray, Labels, Pairs, by_first_appearance, most_frequent

#: Steps of the walk that tells the sides of a cluster; farther than so many neighbours nothing is near.
_STEPS = 20


@dataclass(frozen=True)
class Rules:
    """The pairs of n images, followed to the end.

    ``groups`` int64 (n,): images of one number are the same. ``apart`` int64 (m, 2): groups that differ, the
    lower first, each two once.
    """

    pairs: Pairs
    groups: IntArray
    apart: IntArray

    @classmethod
    def of(cls, pairs: Pairs, n: int) -> Rules:
        """Follow the pairs of n images.

        Raises InputError for pairs that name other images, or contradict each other.
        """
        pairs = _checked(pairs, n)
        groups = groups_of(pairs, n)
        wrong = contradictions(pairs, groups)
        if len(wrong):
            first, second = pairs.different[wrong[0]]
            raise InputError(
                f"The pairs contradict each other: images {first} and {second} are said to be different, and "
                f"the same by way of others, as in {len(wrong)} of {len(pairs.different)} pairs."
            )
        apart = np.unique(np.sort(groups[pairs.different], axis=1), axis=0)
        return cls(pairs, groups, apart)

    @cached_property
    def bound(self) -> BoolArray:
        """Mark the images of groups of two or more, bool (n,)."""
        return np.bincount(self.groups)[self.groups] > 1

    def mend_clusters(self, clusters: IntArray, similarity: sp.csr_array) -> IntArray:
        """Give clusters (n,) that obey; a group that was noise as a whole is a cluster of its own."""
        return self._split(self._joined(clusters, similarity), similarity)

    def mend_labels(self, labels: Labels, similarity: sp.csr_array) -> Labels:
        """Give labels that obey, as a refiner left them: it may leave out groups, but as a whole.

        A group that a refiner tore goes where most of its images are.
        """
        mended = self._split(self._gathered(labels.labels), similarity)
        if np.array_equal(mended, labels.labels):
            return labels
        back = (labels.labels == NO_CLUSTER) & (mended != NO_CLUSTER)
        soft = None if labels.soft is None else _follow(labels.soft, labels.labels, mended)
        return replace(labels, labels=mended, states=labels.marked((back, "kept")), soft=soft)

    def note(self, labels: Labels, found: IntArray) -> Labels:
        """Add what was known: the column ``pairs``, how many name the image, and figures.

        ``pairs_same`` and ``pairs_different`` count the pairs, ``pairs_mended`` those that the clusterer's
        own clusters, ``found``, did not obey.
        """
        same, different = self.pairs.same, self.pairs.different
        named = np.bincount(np.concatenate([same, different]).ravel(), minlength=len(found))
        one, two = (
            (found[pairs[:, 0]] == found[pairs[:, 1]]) & (found[pairs] != NO_CLUSTER).all(axis=1)
            for pairs in (same, different)
        )
        figures = {
            "pairs_same": len(same),
            "pairs_different": len(different),
            "pairs_mended": int((~one).sum() + two.sum()),
        }
        columns = {**labels.columns, "pairs": named.astype(np.int64)}
        return replace(labels, columns=columns, figures={**labels.figures, **figures})

    def _joined(self, clusters: IntArray, similarity: sp.csr_array) -> IntArray:
        """Join the clusters that hold parts of one group, and groups that no cluster holds.

        A cluster that holds parts of several groups is joined with one of them, and the parts of the others
        leave it: early on clusters mix people, and those that were joined from one to the next would end
        as a crowd.
        """
        n_clusters = int(clusters.max(initial=NO_CLUSTER)) + 1
        own = n_clusters + self.groups
        links = self._main_parts(clusters, similarity)
        part = components(clusters[links], own[links], int(own.max()) + 1)
        nodes = np.where(self.bound, own, clusters)
        return by_first_appearance(np.where(nodes == NO_CLUSTER, NO_CLUSTER, part[nodes]))

    def _main_parts(self, clusters: IntArray, similarity: sp.csr_array) -> IntArray:
        """Give the images of each cluster's main group: that of most images in it.

        On a tie, the one whose images are most like the others of the cluster.
        """
        images = np.flatnonzero(self.bound & (clusters != NO_CLUSTER))
        ends = np.column_stack([clusters, self.groups])[images]
        parts, place, sizes = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
        place = place.ravel()
        cohesion = np.nan_to_num(cohesion_of(similarity, clusters)[images])
        alike = np.bincount(place, weights=cohesion, minlength=len(parts)) / sizes
        order = np.lexsort((-alike, -sizes, parts[:, 0]))
        main = np.zeros(len(parts), dtype=np.bool_)
        main[order[np.unique(parts[order, 0], return_index=True)[1]]] = True
        return images[main[place]]

    def _gathered(self, labels: IntArray) -> IntArray:
        """Put each group where most of its images are; on a tie, into the lowest cluster."""
        inside = self.bound & (labels != NO_CLUSTER)
        groups, most, _ = most_frequent(self.groups[inside], labels[inside])
        chosen = np.full(int(self.groups.max()) + 1, NO_CLUSTER, dtype=np.int64)
        chosen[groups] = most
        return by_first_appearance(np.where(self.bound, chosen[self.groups], labels))

    def _split(self, clusters: IntArray, similarity: sp.csr_array) -> IntArray:
        """Split the clusters that hold two groups which differ; each group lies in one cluster by now."""
        of_group = np.full(int(self.groups.max()) + 1, NO_CLUSTER, dtype=np.int64)
        of_group[self.groups] = clusters
        places = of_group[self.apart]
        broken = self.apart[(places[:, 0] == places[:, 1]) & (places[:, 0] != NO_CLUSTER)]
        if len(broken) == 0:
            return clusters
        images = np.flatnonzero(np.isin(clusters, of_group[broken[:, 0]]))
        groups, nodes = np.unique(self.groups[images], return_inverse=True)
        conflicts = np.searchsorted(groups, broken)
        weights = _between(similarity[images][:, images], nodes, of_group[groups])
        sides = _sides(of_group[groups], conflicts, weights, np.bincount(nodes))
        split = clusters.copy()
        split[images] = int(clusters.max()) + 1 + sides[nodes]
        return by_first_appearance(split)


def groups_of(pairs: Pairs, n: int) -> IntArray:
    """Give the group of each image, int64 (n,): images that are the same, one by the other."""
    return components(pairs.same[:, 0], pairs.same[:, 1], n)


def contradictions(pairs: Pairs, groups: IntArray) -> IntArray:
    """Give the rows of ``pairs.different`` whose images are in one group."""
    return np.flatnonzero(groups[pairs.different[:, 0]] == groups[pairs.different[:, 1]])


def within(pairs: Pairs, rows: IntArray, n: int) -> Pairs:
    """Give what follows from the pairs of n images for those at ``rows`` (m,), by their place there.

    Two of them may be the same, or differ, by way of images that are not among them.
    """
    rules = Rules.of(pairs, n)
    groups = rules.groups[rows]
    order = np.argsort(groups, kind="stable")
    together = groups[order[1:]] == groups[order[:-1]]
    same = np.column_stack([order[:-1], order[1:]])[together]
    place = np.full(int(rules.groups.max()) + 1, -1, dtype=np.int64)
    place[groups[::-1]] = np.arange(len(rows))[::-1]
    different = place[rules.apart]
    return Pairs(same, different[(different >= 0).all(axis=1)])


def write_in(similarity: sp.csr_array, pairs: Pairs) -> sp.csr_array:
    """Give the similarity (n, n) with nothing between groups that differ.

    What is the same stays as it is: a pair at 1 would join whole clusters in a clusterer that follows
    chains, whatever else they hold.
    Raises InputError for pairs that name other images, or contradict each other.
    """
    rules = Rules.of(pairs, similarity.shape[0])
    if len(rules.apart) == 0:
        return similarity
    told = similarity.copy()
    told.data[_entries_apart(told, rules)] = 0
    told.eliminate_zeros()
    return told


def _entries_apart(matrix: sp.csr_array, rules: Rules) -> IntArray:
    """Give the places, among the stored entries, of those between groups that differ."""
    concerned = np.zeros(int(rules.groups.max()) + 1, dtype=np.bool_)
    concerned[rules.apart] = True
    concerned = concerned[rules.groups]
    rows = np.repeat(concerned, np.diff(matrix.indptr))
    places = np.flatnonzero(rows & concerned[matrix.indices])
    ends = np.column_stack([np.searchsorted(matrix.indptr, places, side="right") - 1, matrix.indices[places]])
    low, high = np.sort(rules.groups[ends], axis=1).T
    base = len(rules.groups)
    return places[np.isin(low * base + high, rules.apart[:, 0] * base + rules.apart[:, 1])]


def _between(similarity: sp.csr_array, nodes: IntArray, clusters: IntArray) -> sp.csr_array:
    """Add up the similarities of images (m, m) between their nodes (k, k), within each node's cluster."""
    entries = sp.coo_array(similarity)
    rows, columns = (nodes[ends] for ends in entries.coords)
    inside = (rows != columns) & (clusters[rows] == clusters[columns])
    shape = (len(clusters), len(clusters))
    values = entries.data[inside].astype(np.float64)
    return sp.csr_array((values, (rows[inside], columns[inside])), shape=shape)


def _sides(clusters: IntArray, conflicts: IntArray, weights: sp.csr_array, sizes: IntArray) -> IntArray:
    """Divide nodes (k,) of some clusters into sides, so that none holds a conflict; every side is new.

    Nodes in conflict come first, those with the most before the others: each goes to the side that it is
    most similar to in the mean, of those it may go to, and else to a new one. A random walk over the
    similarities decides for the others: they go where it ends most often (Zhu, Ghahramani and Lafferty,
    Semi-Supervised Learning Using Gaussian Fields and Harmonic Functions, ICML 2003); what no walk leads
    from goes to the largest side.
    """
    from icsr_cli.labelling import _kernels

    k = len(clusters)
    both = np.concatenate([conflicts, conflicts[:, ::-1]])
    against = sp.csr_array((np.ones(len(both), dtype=np.int8), (both[:, 0], both[:, 1])), shape=(k, k))
    degrees = np.diff(against.indptr)
    seeds = np.flatnonzero(degrees)
    order = seeds[np.lexsort((-degrees[seeds], clusters[seeds]))]
    sides = _kernels.seed_sides(
        order,
        clusters,
        *(against.indptr, against.indices),
        *(weights.indptr, weights.indices, weights.data),
        sizes,
    )
    shares = _walk(sides, seeds, weights)
    reached = np.asarray(shares.sum(axis=1)).ravel() > 0
    sides = np.where(reached, np.asarray(shares.argmax(axis=1)).ravel(), NO_CLUSTER)
    return np.where(reached, sides, _largest_side(sides, clusters, sizes)[clusters])


def _walk(sides: IntArray, seeds: IntArray, weights: sp.csr_array) -> sp.csr_array:
    """Give, for each node, how often a walk from it ends at each side, sparse (k, sides)."""
    k, n_sides = len(sides), int(sides[seeds].max()) + 1
    fixed = sp.csr_array((np.ones(len(seeds)), (seeds, sides[seeds])), shape=(k, n_sides))
    totals = np.asarray(weights.sum(axis=1)).ravel()
    totals[seeds] = 0  # a walk ends here
    scale = np.divide(1, totals, out=np.zeros(k), where=totals > 0)
    step = sp.csr_array(sp.diags_array(scale) @ weights)
    shares = fixed
    for _ in range(_STEPS):
        shares = sp.csr_array(step @ shares + fixed)
    return shares


def _largest_side(sides: IntArray, clusters: IntArray, sizes: IntArray) -> IntArray:
    """Give the side with the most images of each cluster, by the cluster's number."""
    inside = sides != NO_CLUSTER
    images = np.bincount(sides[inside], weights=sizes[inside])
    order = np.flatnonzero(inside)[np.argsort(images[sides[inside]], kind="stable")]
    largest = np.full(int(clusters.max()) + 1, NO_CLUSTER, dtype=np.int64)
    largest[clusters[order]] = sides[order]
    return largest


def _follow(soft: Any, before: IntArray, after: IntArray) -> sp.csr_array:
    """Give the shares (n, m) of clusters as they are now.

    A cluster's shares are those of the one that took most of its images; an image that went elsewhere has
    its whole share there.
    """
    kept = (before != NO_CLUSTER) & (after != NO_CLUSTER)
    m, now = soft.shape[1], int(after.max(initial=NO_CLUSTER)) + 1
    became = sp.csr_array((np.ones(int(kept.sum())), (before[kept], after[kept])), shape=(m, now))
    main = np.asarray(became.argmax(axis=1)).ravel()
    renamed = sp.csr_array((np.ones(m), (np.arange(m), main)), shape=(m, now))
    moved = (after != NO_CLUSTER) & (np.where(before == NO_CLUSTER, NO_CLUSTER, main[before]) != after)
    rows = np.flatnonzero(moved)
    whole = sp.csr_array((np.ones(len(rows)), (rows, after[rows])), shape=(len(after), now))
    return sp.csr_array(
        (sp.diags_array(np.where(moved, 0.0, 1.0)) @ soft @ renamed + whole).astype(soft.dtype)
    )


def _checked(pairs: Pairs, n: int) -> Pairs:
    """Give the pairs as int64 (m, 2) numbers of n images."""
    found = []
    for name in ("same", "different", "unsure"):
        given = as_numpy(getattr(pairs, name))
        if given.ndim != 2 or given.shape[1] != 2 or (given.size and given.dtype.kind not in "iu"):
            raise InputError(
                f"pairs.{name} must be whole numbers of shape (m, 2), got shape {given.shape}, "
                f"dtype {given.dtype}."
            )
        if given.size and not 0 <= int(given.min()) <= int(given.max()) < n:
            raise InputError(
                f"pairs.{name} must name images 0 to {n - 1}, got {given.min()} to {given.max()}."
            )
        found.append(given.astype(np.int64))
    return Pairs(*found)
