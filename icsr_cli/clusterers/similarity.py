"""What every function of this room asks of its similarity matrix."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from icsr_cli.checks import as_numpy
from icsr_cli.errors import InputError
from icsr_cli.types import IntArray


def check_similarity(similarity: Any) -> sp.csr_array:
    """Give ``similarity`` (n, n) as CSR, float, its columns sorted and unique; copied only where it must be.

    It is sparse of scipy, or dense, numpy or torch.
    Raises InputError where it is not square, not symmetric, or holds NaN or values outside 0 to 1.
    """
    if not sp.issparse(similarity):
        dense_tensor = str(getattr(similarity, "layout", "")) == "torch.strided"
        if not isinstance(similarity, np.ndarray) and not dense_tensor:
            raise InputError(
                "similarity must be a sparse array of scipy, or a dense one of numpy or torch, "
                f"got {type(similarity).__name__}."
            )
        similarity = as_numpy(similarity)
        if similarity.ndim != 2:
            raise InputError(f"similarity must have shape (n, n), got {similarity.shape}.")
        if similarity.dtype == np.float16:  # which scipy has not
            similarity = similarity.astype(np.float32)
    matrix = sp.csr_array(similarity)
    if matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise InputError(f"similarity must have shape (n, n) with n >= 1, got {matrix.shape}.")
    if matrix.dtype.kind not in "fiu":
        raise InputError(f"similarity must hold numbers, got dtype {matrix.dtype}.")
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if matrix.nnz:
        low, high = float(matrix.data.min()), float(matrix.data.max())
        if not (low >= 0 and high <= 1 + 1e-6):
            raise InputError(
                f"similarity must lie in 0 to 1 (it is 1 - distance), got values from {low:g} to {high:g}."
            )
    _check_symmetry(matrix)
    return matrix


def components(first: IntArray, second: IntArray, n: int) -> IntArray:
    """Give the number of the part that each of n nodes is in, held together by links: int64 (n,)."""
    graph = sp.coo_array((np.ones(len(first), dtype=np.int32), (first, second)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _check_symmetry(matrix: sp.csr_array) -> None:
    # x'Sy - y'Sx of random x and y is 0 just where S is symmetric, but for mirrors' last digits.
    x, y = np.random.default_rng(0).standard_normal((2, matrix.shape[0])).astype(matrix.dtype)
    if abs(np.vdot(x, matrix @ y) - np.vdot(y, matrix @ x)) <= 1e-5 * np.sqrt(matrix.nnz):
        return
    gaps = sp.coo_array(abs(matrix - matrix.T))
    worst = int(np.argmax(gaps.data))
    row, column = int(gaps.coords[0][worst]), int(gaps.coords[1][worst])
    raise InputError(
        f"similarity must be symmetric, but entry ({row}, {column}) is {matrix[row, column]:g} "
        f"and ({column}, {row}) is {matrix[column, row]:g}. Use (S + S.T) / 2 or S.maximum(S.T)."
    )
