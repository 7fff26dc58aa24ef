"""Silhouette of a clustering on a sparse similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from icsr_cli.checks import whole_numbers
from icsr_cli.clusterers.similarity import check_similarity
from icsr_cli.types import NO_CLUSTER, IntArray


def silhouette(similarity: Any, labels: Any) -> float:
    """Give the mean silhouette (Rousseeuw 1987) on the distances 1 - similarity, absent pairs at 1.

    For an image, a is its mean distance to the others of its cluster, b the least mean distance to
    another cluster; its silhouette is (b - a) / max(a, b), and 0 in a cluster of one.

    Args:
        similarity: (n, n) sparse or dense, symmetric, values in 0 to 1; the diagonal does not matter.
        labels: int (n,); images labelled -1 are left out altogether.

    Returns:
        -1 to 1; ``nan`` where it is undefined: fewer than two clusters, or every cluster of one image.

    Raises:
        InputError: what came is not as said above.

    """
    matrix = check_similarity(similarity)
    return silhouette_of(matrix, whole_numbers("labels", labels, matrix.shape[0]))


def silhouette_of(matrix: sp.csr_array, labels: IntArray) -> float:
    """Give ``silhouette`` of a similarity (n, n) and labels int64 (n,) that have been checked."""
    from icsr_cli.clusterers import _kernels

    kept = labels != NO_CLUSTER
    _, numbers = np.unique(labels[kept], return_inverse=True)
    sizes = np.bincount(numbers)
    if not 2 <= len(sizes) < len(numbers):
        return float("nan")
    compact = np.full(len(labels), NO_CLUSTER, dtype=np.int64)
    compact[kept] = numbers
    total = _kernels.silhouette_sum(matrix.indptr, matrix.indices, matrix.data, compact, sizes)
    return float(total / len(numbers))
