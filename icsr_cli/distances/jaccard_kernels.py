"""Compiled parts of the k-reciprocal Jaccard similarity that it shares with nobody.

Each kernel works on the rows [low, high) and holds no GIL.
"""

from typing import Any

import numpy as np

from icsr_cli.compilation import compiled


@compiled(fastmath={"reassoc", "contract"})
def _product(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for index in range(a.size):
        total += a[index] * b[index]
    return total


@compiled()
def softmax(
    x: Any,
    first: int,
    starts: Any,
    members: Any,
    ranks: Any,
    squared: Any,
    weights: Any,
    low: int,
    high: int,
) -> None:
    """Write V of the rows: the softmax over each set of minus the squared distances (equation 7).

    The first row is that of the vector ``x[first]``. ``squared``: distances of the images ``ranks``, which
    need not be taken anew.
    """
    known = np.full(x.shape[0], -1, dtype=np.float32)
    for row in range(low, high):
        image, total = first + row, 0.0
        for place in range(ranks.shape[1]):
            known[ranks[image, place]] = squared[image, place]
        for place in range(starts[row], starts[row + 1]):
            distance = np.float64(known[members[place]])
            if distance < 0:
                distance = 2.0 - 2.0 * np.float64(_product(x[image], x[members[place]]))
            weight = np.exp(-distance)
            weights[place] = weight
            total += weight
        for place in range(starts[row], starts[row + 1]):
            weights[place] /= total
        for place in range(ranks.shape[1]):
            known[ranks[image, place]] = -1


@compiled()
def fill_below(
    counts: Any, found: Any, similarities: Any, first: int, filled: Any, columns: Any, values: Any
) -> None:
    """Write the pairs (i, l), i from ``first`` on, l > i, as entries (l, i): each row stays sorted."""
    entry = 0
    for row in range(counts.size):
        for _ in range(counts[row]):
            place = filled[found[entry]]
            columns[place], values[place] = first + row, similarities[entry]
            filled[found[entry]] += 1
            entry += 1


@compiled()
def count(starts: Any, diagonal: Any, columns: Any, low: int, high: int) -> Any:
    """Count how often each image is a column below the diagonal: int64 (n,)."""
    counts = np.zeros(diagonal.size, dtype=np.int64)
    for row in range(low, high):
        for entry in range(starts[row], diagonal[row]):
            counts[columns[entry]] += 1
    return counts


@compiled()
def fill_above(
    starts: Any, diagonal: Any, low: int, high: int, filled: Any, columns: Any, values: Any
) -> None:
    """Mirror what is below the diagonal, row after row: each row stays sorted."""
    for row in range(low, high):
        for entry in range(starts[row], diagonal[row]):
            place = filled[columns[entry]]
            columns[place], values[place] = row, values[entry]
            filled[columns[entry]] += 1
