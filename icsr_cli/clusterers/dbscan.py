"""DBSCAN on a sparse similarity."""

from __future__ import annotations

import math
from typing import Any

import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import check_count, check_number
from icsr_cli.clusterers.similarity import check_similarity
from icsr_cli.types import Evidence, IntArray, by_first_appearance


class Options(choices.Options):
    """Radius (a distance, above 0 and below 1), and the neighbours that make a core image."""

    eps: float = Field(0.5, gt=0, lt=1)
    min_samples: int = Field(4, ge=1, lt=2**31)


def cluster(evidence: Evidence, options: Options) -> IntArray:
    """Cluster the similarity by density: int64 (n,), -1 for noise."""
    return _regions(evidence.similarity, options.eps, options.min_samples)


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
    below_one = math.nextafter(1.0, 0.0)
    eps = check_number("eps", eps, 0, below_one, " and below 1, the distance of pairs not stored")
    return _regions(matrix, eps, check_count("min_samples", min_samples))


def _regions(matrix: sp.csr_array, eps: float, min_samples: int) -> IntArray:
    from icsr_cli.clusterers import _kernels

    # In the precision of the similarity, as a dense distance matrix would be.
    number = matrix.dtype.type
    regions = _kernels.dense_regions(
        matrix.indptr, matrix.indices, matrix.data, number(eps), number(1), min_samples
    )
    return by_first_appearance(regions)
