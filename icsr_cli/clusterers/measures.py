"""What is measured of a clustering on a sparse similarity: its silhouette, and how alike the images are."""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from icsr_cli.checks import in_kind, whole_numbers
from icsr_cli.clusterers.similarity import check_similarity
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import NO_CLUSTER, FloatArray, IntArray

#: Pieces of a sum over the images.
_PIECES: Final = 256


def silhouette(similarity: Any, labels: Any) -> float:
    """Give the mean silhouette (Rousseeuw 1987) on the distances 1 - similarity, absent pairs at 1.

    For an image, a is its mean distance to the others of its cluster, b the least mean distance to
    another cluster; its silhouette is (b - a) / max(a, b), and 0 in a cluster of one.

    Args:
        similarity: (n, n) sparse of scipy, or dense, numpy or torch; symmetric, values in 0 to 1; the
            diagonal does not matter.
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
    part = partial(_kernels.silhouette_sum, matrix.indptr, matrix.indices, matrix.data, compact, sizes)
    # The same pieces whatever the number of threads, so that the sum is the same to the bit.
    total = sum(in_threads(part, row_ranges(len(compact), _PIECES)))
    return float(total / len(numbers))


def cohesion(similarity: Any, labels: Any) -> Any:
    """Give each image's mean similarity to the others of its cluster, absent pairs at 0.

    The mean over a cluster's images is the mean similarity of its pairs.

    Args:
        similarity: (n, n) sparse of scipy, or dense, numpy or torch; symmetric, values in 0 to 1; the
            diagonal does not matter.
        labels: int (n,); -1 is an image in no cluster.

    Returns:
        float32 (n,), torch for torch, 0 to 1; ``nan`` for images in no cluster, and for those alone in
        theirs.

    Raises:
        InputError: what came is not as said above.
    """
    matrix = check_similarity(similarity)
    return in_kind(cohesion_of(matrix, whole_numbers("labels", labels, matrix.shape[0])), similarity)


def cohesion_of(matrix: sp.csr_array, labels: IntArray) -> FloatArray:
    """Give ``cohesion``, float32 (n,), of a similarity (n, n) and labels int64 (n,), both checked."""
    n = len(labels)
    # An image in no cluster counts as alone in one of its own.
    own = np.where(labels == NO_CLUSTER, -1 - np.arange(n), labels)
    numbers, sizes = np.unique(own, return_inverse=True, return_counts=True)[1:]
    sums = _sums_within(matrix, numbers.astype(np.int32)) - matrix.diagonal()
    others = sizes[numbers] - 1
    result = np.full(n, np.nan, dtype=np.float32)
    np.divide(np.maximum(sums, 0), others, out=result, where=others > 0, casting="same_kind")
    return result


def _sums_within(matrix: sp.csr_array, numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Add up each row's entries in columns of its own number; int32 spares half of the memory this takes."""
    lengths = np.diff(matrix.indptr)
    same = np.repeat(numbers, lengths) == numbers[matrix.indices]
    filled = np.flatnonzero(lengths)
    sums = np.zeros(len(lengths))
    if len(filled):
        sums[filled] = np.add.reduceat(matrix.data * same, matrix.indptr[filled], dtype=np.float64)
    return sums
