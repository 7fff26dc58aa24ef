"""HDBSCAN on a sparse similarity: density at every level, so that nobody has to guess a radius.

Source: Campello et al., Hierarchical Density Estimates for Data Clustering, TKDD 2015.
"""

from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import in_kind
from icsr_cli.clusterers.similarity import check_similarity, components
from icsr_cli.types import NO_CLUSTER, Evidence, IntArray, by_first_appearance, most_frequent

#: Of equal images: a distance of zero would be no edge.
_LEAST = 1e-6


class Options(choices.Options):
    """Images that a cluster must have, neighbours of a dense place, and which clusters of the tree count."""

    min_cluster_size: int = Field(4, ge=2, lt=2**31)
    min_samples: int = Field(4, ge=1, lt=2**31)
    select: Literal["eom", "leaf"] = "eom"

    def faults(self, images: int) -> list[str]:
        """Refuse clusters of more images than there are."""
        return choices.too_large(images, min_cluster_size=self.min_cluster_size)


def cluster(evidence: Evidence, options: Options) -> IntArray:
    """Cluster the similarity by density at every level: int64 (n,), -1 for noise."""
    found: IntArray = hdbscan(evidence.similarity, **options.model_dump())
    return found


def hdbscan(
    similarity: Any, min_cluster_size: int = 4, min_samples: int = 4, select: Literal["eom", "leaf"] = "eom"
) -> Any:
    """Cluster by the stability of dense regions: Campello et al., Hierarchical Density Estimates, TKDD 2015.

    scikit-learn's, on the pairs that are stored; every other pair is at distance 1, as it is by definition,
    and so many of them are added that the images hang together and each has its neighbours. What reaches the
    others of its cluster by such pairs alone is noise.

    Args:
        similarity: (n, n) sparse of scipy, or dense, numpy or torch; symmetric, values in 0 to 1; the
            diagonal does not matter.
        min_cluster_size: images of a cluster, at least 2.
        min_samples: neighbours, itself included, that make a dense place, at least 1.
        select: ``eom`` takes the clusters that last longest, ``leaf`` the smallest ones of the tree.

    Returns:
        int64 (n,), torch for torch: clusters 0..m-1 in order of first appearance, -1 for noise.

    Raises:
        InputError: the similarity is not as said above.
    """
    from sklearn.cluster import HDBSCAN

    matrix = check_similarity(similarity)
    n = matrix.shape[0]
    if n < max(min_cluster_size, 2):
        return in_kind(np.full(n, -1, dtype=np.int64), similarity)
    least = min(min_samples, n)
    method = HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=least,
        metric="precomputed",
        cluster_selection_method=select,
        copy=False,
    )
    found = method.fit_predict(_distances(matrix, least)).astype(np.int64)
    labels = by_first_appearance(_without_strangers(matrix, found, least), min_cluster_size)
    return in_kind(labels, similarity)


def _distances(matrix: sp.csr_array, least: int) -> sp.csr_array:
    """Give distances with at least ``least`` stored in each row, the diagonal among them, all connected."""
    n = matrix.shape[0]
    pairs = sp.coo_array(matrix)
    row, column = (np.concatenate([ends, np.arange(n)]) for ends in pairs.coords)
    similar = np.concatenate([pairs.data.astype(np.float64), np.ones(n)])
    near = sp.csr_array((similar, (row, column)), shape=(n, n))  # 1 or more on the diagonal
    near.data = 2 - np.maximum(1 - near.data, _LEAST)
    short = np.flatnonzero(np.diff(near.indptr) < least)
    # Neighbours at distance 1, whichever they are: the next images in order serve, both ways. Of each image
    # the next one is a neighbour too, so that all hang together.
    row = np.concatenate([np.repeat(short, 2 * least), np.arange(n - 1)])
    step = np.concatenate([np.tile(np.arange(1, 2 * least + 1), len(short)), np.ones(n - 1, dtype=np.int64)])
    far = sp.csr_array((np.ones(len(row)), (row, (row + step) % n)), shape=(n, n))
    far = far + far.T
    far.data[:] = 1  # pairs that came twice were added up
    # Where a pair is stored already the smaller distance counts: the larger similarity, entry by entry.
    joined = sp.csr_array(near.maximum(far))
    # scikit-learn takes numbers of 32 bits, which older releases of scipy do not choose by themselves.
    places = joined.indices.astype(np.int32), joined.indptr.astype(np.int32)
    return sp.csr_array((np.maximum(2 - joined.data, _LEAST), *places), shape=(n, n))


def _without_strangers(matrix: sp.csr_array, labels: IntArray, least: int) -> IntArray:
    """Leave of each cluster its largest part that hangs together below distance 1.

    At distance 1 everything ties, and the tree joins images that share nothing by chance.
    """
    pairs = sp.coo_array(matrix)
    row, column = pairs.coords
    near = (row != column) & (pairs.data > 0)
    dense = np.bincount(row[near], minlength=len(labels)) + 1 >= least
    near &= dense[row] & dense[column]
    parts = components(row[near], column[near], len(labels))
    clusters, main, _ = most_frequent(labels, parts)
    return np.where(main[np.searchsorted(clusters, labels)] == parts, labels, NO_CLUSTER)
