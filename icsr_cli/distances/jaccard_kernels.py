"""Compiled parts of the k-reciprocal Jaccard similarity that it shares with nobody.

Each kernel works on the rows [low, high) and holds no GIL.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _product(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for index in range(a.size):
        total += a[index] * b[index]
    return total


@numba.njit(cache=True, nogil=True)
def softmax(x: Any, first: int, starts: Any, members: Any, weights: Any, low: int, high: int) -> None:
    """Write V of the rows: the softmax over each set of minus the squared distances (equation 7).

    The first row is that of the vector ``x[first]``.
    """
    for row in range(low, high):
        total = 0.0
        for place in range(starts[row], starts[row + 1]):
            distance = 2.0 - 2.0 * np.float64(_product(x[first + row], x[members[place]]))
            weight = np.exp(-distance)
            weights[place] = weight
            total += weight
        for place in range(starts[row], starts[row + 1]):
            weights[place] /= total


@numba.njit(cache=True, nogil=True)
def fill_below(
    counts: Any, found: Any, similarities: Any, low: int, high: int, filled: Any, columns: Any, values: Any
) -> None:
    """Write the pairs (i, l), i in [low, high), l > i, as entries (l, i): each row stays sorted."""
    entry = 0
    for row in range(low, high):
        for _ in range(counts[row - low]):
            place = filled[found[entry]]
            columns[place], values[place] = row, similarities[entry]
            filled[found[entry]] += 1
            entry += 1


@numba.njit(cache=True, nogil=True)
def fill_above(starts: Any, filled: Any, columns: Any, values: Any) -> None:
    """Write the diagonal, and mirror what is below it, row after row: each row stays sorted."""
    for row in range(filled.size):
        below = filled[row]
        columns[below], values[below] = row, 1
        filled[row] += 1
        for entry in range(starts[row], below):
            place = filled[columns[entry]]
            columns[place], values[place] = row, values[entry]
            filled[columns[entry]] += 1
