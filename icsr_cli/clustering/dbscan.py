"""DBSCAN on a sparse similarity."""

from __future__ import annotations

import math
from typing import Any, Final

from icsr_cli.clustering.options import check_count, check_number
from icsr_cli.clustering.similarity import by_first_appearance, check_similarity
from icsr_cli.types import IntArray

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
    from icsr_cli.clustering import _kernels

    matrix = check_similarity(similarity)
    below_one = math.nextafter(1.0, 0.0)
    eps = check_number("eps", eps, 0, below_one, " and below 1, the distance of pairs not stored")
    min_samples = check_count("min_samples", min_samples)
    # In the precision of the similarity, as a dense distance matrix would be.
    number = matrix.dtype.type
    regions = _kernels.dense_regions(
        matrix.indptr, matrix.indices, matrix.data, number(eps), number(1), min_samples
    )
    return by_first_appearance(regions)
