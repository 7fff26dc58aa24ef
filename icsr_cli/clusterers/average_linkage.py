"""Average linkage (UPGMA, Sokal and Michener 1958) on a sparse similarity."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator

from icsr_cli import choices
from icsr_cli.checks import check_count, check_number, in_kind
from icsr_cli.clusterers.measures import silhouette_of
from icsr_cli.clusterers.similarity import check_similarity, components
from icsr_cli.errors import InputError, counted
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import Evidence, IntArray, by_first_appearance

#: Images per cluster among which ``auto`` chooses, each a tenth more than the one before.
SIZES: Final = tuple(2 * 1.1**step for step in range(25))


class Options(choices.Options):
    """Where the merging stops, one of three, and the least cluster; smaller ones become noise.

    It stops at ``n_clusters``; at the mean ``distance_threshold``; or at n // ``images_per_cluster``
    clusters, and at two at least (published for one camera's images: 5; ``auto``: where the silhouette is
    highest).
    """

    n_clusters: int | None = Field(None, ge=1)
    distance_threshold: float | None = Field(None, gt=0)
    images_per_cluster: Annotated[int | None, Field(ge=1), choices.OrAuto()] = None
    min_size: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _one_of_three(self) -> Options:
        ways = [name for name in type(self).model_fields if name != "min_size"]
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"takes one of {', '.join(ways)}; got {' and '.join(given) or 'none'}")
        return self

    def faults(self, images: int) -> list[str]:
        """Refuse more clusters than images, and clusters of more images than there are."""
        found = choices.too_large(images, min_size=self.min_size)
        if self.n_clusters is not None and self.n_clusters > images:
            found.append(f"n_clusters: {self.n_clusters:,} clusters of {counted(images, 'image')}")
        return found


def cluster(evidence: Evidence, options: Options) -> IntArray:
    """Cluster the similarity by average linkage: int64 (n,), -1 for noise."""
    return by_first_appearance(_clusters(evidence, options), options.min_size)


def _clusters(evidence: Evidence, options: Options) -> IntArray:
    n = len(evidence)
    if options.distance_threshold is not None:
        return _below(evidence.similarity, options.distance_threshold)
    if options.n_clusters is not None:
        return _into(evidence.similarity, min(n, options.n_clusters))  # a camera may have fewer images
    if isinstance(options.images_per_cluster, int):
        return _into(evidence.similarity, min(n, max(2, n // options.images_per_cluster)))
    return best_cut(evidence.similarity)


def best_cut(similarity: sp.csr_array) -> IntArray:
    """Cut the one tree of the linkage where the silhouette is highest, into the most clusters on a tie.

    ``similarity`` as ``average_linkage`` takes it, checked; ``SIZES`` are tried. Gives int64 (n,).
    """
    n = similarity.shape[0]
    merges = _merges(similarity, 0.0)
    best, chosen = -math.inf, np.arange(n)  # of two images or fewer no cut has a silhouette
    for wanted in dict.fromkeys(min(n, max(2, round(n / size))) for size in SIZES):
        labels = _cut(n, *merges, n_clusters=wanted)
        value = silhouette_of(similarity, labels)
        if value > best:
            best, chosen = value, labels
    return chosen


def average_linkage(
    similarity: Any, n_clusters: int | None = None, distance_threshold: float | None = None
) -> Any:
    """Cluster exactly as average linkage of the dense matrix 1 - similarity, absent pairs at distance 1.

    Sokal and Michener 1958, by the chain of nearest neighbours (Benzecri 1982; Murtagh 1983). The mean
    similarity of two clusters is the sum of their stored pairs over the product of their sizes, and sums
    add up when clusters merge; so memory stays in proportion to the stored pairs. Sums are kept in whole
    numbers: they do not depend on the order of summation.

    Ties (equal mean similarities) go to the cluster that the chain came from, else to the one with the
    lowest image. Merges at distance 1, between clusters that share nothing, all tie: there the two
    smallest clusters join first, among equals those with the lowest first image.

    Args:
        similarity: (n, n) sparse of scipy, or dense, numpy or torch; symmetric, values in 0 to 1; the
            diagonal does not matter.
        n_clusters: stop at so many clusters, 1 to n.
        distance_threshold: merge only below this mean distance (strictly). Give one of the two.

    Returns:
        int64 (n,), torch for torch: 0..m-1 in order of first appearance.

    Raises:
        InputError: what came is not as said above.
    """
    matrix = check_similarity(similarity)
    n = matrix.shape[0]
    if (n_clusters is None) == (distance_threshold is None):
        raise InputError(
            "average linkage takes either n_clusters or distance_threshold, "
            f"got n_clusters = {n_clusters!r} and distance_threshold = {distance_threshold!r}."
        )
    if distance_threshold is not None:
        labels = _below(matrix, check_number("distance_threshold", distance_threshold))
        return in_kind(labels, similarity)
    wanted = check_count("n_clusters", n_clusters)
    if wanted > n:
        raise InputError(f"n_clusters must be at most {n}, the number of images, got {wanted}.")
    return in_kind(_into(matrix, wanted), similarity)


def _below(matrix: sp.csr_array, threshold: float) -> IntArray:
    """Merge below a mean distance."""
    merges = _merges(matrix, max(0.0, 1.0 - threshold))
    return _cut(matrix.shape[0], *merges, n_clusters=1 if threshold > 1 else None)


def _into(matrix: sp.csr_array, n_clusters: int) -> IntArray:
    """Merge into so many clusters."""
    return _cut(matrix.shape[0], *_merges(matrix, 0.0), n_clusters=n_clusters)


def _merges(matrix: sp.csr_array, floor: float) -> tuple[Any, Any]:
    """Give the merges above mean similarity ``floor``, most similar first."""
    from icsr_cli.clusterers import _kernels

    # No sum of pairs exceeds the sum of all, which has to fit into 62 bits.
    total = float(matrix.data.sum(dtype=np.float64)) + 1.0
    scale = 2.0 ** min(50, 61 - math.ceil(math.log2(total)))
    starts = matrix.indptr.astype(np.int64)
    stops, sums = np.empty_like(starts[:-1]), np.empty(matrix.nnz, dtype=np.int64)
    # Unsigned, so that no compiled line asks whether an index counts from the end.
    others = np.empty(matrix.nnz, dtype=np.uint32)
    nearest, highest = np.empty(len(stops), dtype=np.int64), np.empty(len(stops), dtype=np.int64)
    lists = stops, others, sums, nearest, highest
    write = partial(_kernels.to_whole_numbers, starts, matrix.indices, matrix.data, scale, *lists)
    in_threads(write, row_ranges(len(stops)))
    first, second, values = _kernels.merge_all(starts, *lists, floor * scale)
    order = np.argsort(-values, kind="stable")
    return first[order], second[order]


def _cut(n: int, first: Any, second: Any, n_clusters: int | None) -> IntArray:
    from icsr_cli.clusterers import _kernels

    steps = len(first) if n_clusters is None else n - n_clusters
    part = components(first[:steps], second[:steps], n)
    roots = np.unique(part, return_index=True)[1][part]  # the lowest image of each
    if n_clusters is not None and steps > len(first):
        roots = _kernels.join_smallest(roots, n_clusters)
    return by_first_appearance(roots)
