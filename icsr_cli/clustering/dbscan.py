"""DBSCAN on a sparse similarity."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from icsr_cli.clustering.similarity import by_first_appearance, check_similarity
from icsr_cli.errors import InputError
from icsr_cli.types import NO_CLUSTER, IntArray

INPUT: Final = "similarity"


def dbscan(similarity: Any, eps: float = 0.5, min_samples: int = 4) -> IntArray:
    """Cluster by density: Ester et al., A Density-Based Algorithm, KDD 1996.

    Two images are neighbours where 1 - similarity <= eps. An image with at least ``min_samples``
    neighbours, itself included, is a core image; core images that are neighbours are in one cluster. An
    image beside core images joins, of their clusters, the one with the first core image; the others are
    noise. These are scikit-learn's rules; its numbering follows core images, ours all images.

    Args:
        similarity: (n, n) sparse or dense, symmetric, values in 0 to 1; the diagonal does not matter.
        eps: radius, above 0 and below 1: every pair that is not stored is at distance 1.
        min_samples: neighbours, itself included, that make a core image; at least 1.

    Returns:
        int64 (n,): clusters 0..m-1 in order of first appearance, -1 for noise.

    Raises:
        InputError: what came is not as said above.

    """
    matrix = check_similarity(similarity)
    if not 0 < eps < 1:
        raise InputError(f"eps must be above 0 and below 1, the distance of pairs not stored, got {eps!r}.")
    if isinstance(min_samples, bool) or not isinstance(min_samples, (int, np.integer)) or min_samples < 1:
        raise InputError(f"min_samples must be a whole number of at least 1, got {min_samples!r}.")
    n = matrix.shape[0]
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    # In the precision of the similarity, as a dense distance matrix would be.
    near = (1 - matrix.data <= matrix.dtype.type(eps)) & (rows != matrix.indices)
    rows, columns = rows[near], matrix.indices[near]
    core = np.bincount(rows, minlength=n) + 1 >= min_samples
    from_core = core[rows]
    links = from_core & core[columns]
    graph = sp.coo_array((np.ones(links.sum(), np.bool_), (rows[links], columns[links])), shape=(n, n))
    parts = sp.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    labels = by_first_appearance(np.where(core, parts, NO_CLUSTER))
    beside = from_core & ~core[columns]
    joined = np.full(n, n, dtype=np.int64)
    np.minimum.at(joined, columns[beside], labels[rows[beside]])
    return by_first_appearance(np.where(joined < n, joined, labels))
