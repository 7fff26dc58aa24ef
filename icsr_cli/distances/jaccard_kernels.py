"""Compiled parts of the k-reciprocal Jaccard similarity.

Sparse rows are (starts int64 (n + 1,), columns int32, values float32). Each kernel works on the rows
[low, high) and holds no GIL; what it gives for them is (entries per row, columns, values).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def mark_reciprocal(ranks: Any, marks: Any, low: int, high: int) -> None:
    """Set ``marks[i, c]`` to whether row i is among the neighbours of its c-th neighbour."""
    k = ranks.shape[1]
    for row in range(low, high):
        for place in range(k):
            other = ranks[row, place]
            found = False
            for back in range(k):
                if ranks[other, back] == row:
                    found = True
                    break
            marks[row, place] = found


@numba.njit(cache=True, nogil=True)
def grown(array: Any, used: int, more: int) -> Any:
    """Give ``array``, or a larger copy of it, with room for ``more`` behind the first ``used``."""
    if used + more <= array.size:
        return array
    larger = np.empty(max(2 * array.size, used + more), dtype=array.dtype)
    larger[:used] = array[:used]
    return larger


@numba.njit(cache=True, nogil=True)
def _members(row: int, ranks: Any, full_sets: Any, half_sets: Any, seen: Any, members: Any) -> int:
    """Write the grown reciprocal set of ``row`` to ``members``; give its size. ``seen`` is scratch."""
    count = 0
    for place in range(ranks.shape[1]):
        if full_sets[row, place]:
            members[count] = ranks[row, place]
            seen[ranks[row, place]] = 2 * row
            count += 1
    first = count
    for index in range(first):
        candidate = members[index]
        size, shared = 0, 0
        for place in range(half_sets.shape[1]):
            if half_sets[candidate, place]:
                size += 1
                shared += seen[ranks[candidate, place]] == 2 * row
        if 3 * shared > 2 * size:
            for place in range(half_sets.shape[1]):
                other = ranks[candidate, place]
                if half_sets[candidate, place] and seen[other] < 2 * row:
                    # Joined, and no member of the set that later candidates are measured by.
                    seen[other] = 2 * row + 1
                    members[count] = other
                    count += 1
    return count


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _product(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for index in range(a.size):
        total += a[index] * b[index]
    return total


@numba.njit(cache=True, nogil=True)
def weigh(x: Any, ranks: Any, full_sets: Any, half_sets: Any, low: int, high: int) -> Any:
    """Give V of the rows: the softmax over each grown set of minus the squared distances."""
    n = ranks.shape[0]
    seen = np.full(n, -1, dtype=np.int64)
    members = np.empty(ranks.shape[1] * (1 + half_sets.shape[1]), dtype=np.int32)
    counts = np.empty(high - low, dtype=np.int64)
    columns = np.empty(64 * (high - low), dtype=np.int32)
    values = np.empty(64 * (high - low), dtype=np.float32)
    used = 0
    for row in range(low, high):
        count = _members(row, ranks, full_sets, half_sets, seen, members)
        columns, values = grown(columns, used, count), grown(values, used, count)
        ordered = np.sort(members[:count])
        total = 0.0
        for place in range(count):
            distance = 2.0 - 2.0 * np.float64(_product(x[row], x[ordered[place]]))
            weight = np.exp(-distance)
            columns[used + place] = ordered[place]
            values[used + place] = weight
            total += weight
        for place in range(used, used + count):
            values[place] /= total
        used += count
        counts[row - low] = count
    return counts, columns[:used], values[:used]


@numba.njit(cache=True, nogil=True)
def average(ranks: Any, starts: Any, columns: Any, values: Any, low: int, high: int) -> Any:
    """Give for each row the mean of the rows of its neighbours."""
    n, k2 = ranks.shape
    sums = np.zeros(n, dtype=np.float32)
    touched = np.empty(n, dtype=np.int32)
    counts = np.empty(high - low, dtype=np.int64)
    found = np.empty(128 * (high - low), dtype=np.int32)
    means = np.empty(128 * (high - low), dtype=np.float32)
    used = 0
    for row in range(low, high):
        count = 0
        for place in range(k2):
            other = ranks[row, place]
            for entry in range(starts[other], starts[other + 1]):
                column = columns[entry]
                if sums[column] == 0:
                    touched[count] = column
                    count += 1
                sums[column] += values[entry]
        found, means = grown(found, used, count), grown(means, used, count)
        ordered = np.sort(touched[:count])
        for place in range(count):
            found[used + place] = ordered[place]
            means[used + place] = sums[ordered[place]] / np.float32(k2)
            sums[ordered[place]] = 0
        used += count
        counts[row - low] = count
    return counts, found[:used], means[:used]


@numba.njit(cache=True, nogil=True)
def invert(n: int, starts: Any, columns: Any, values: Any) -> Any:
    """Give the same entries by columns: starts, rows (ascending), values, and each entry's place there."""
    heads = np.zeros(n + 1, dtype=np.int64)
    for entry in range(columns.size):
        heads[columns[entry] + 1] += 1
    heads = np.cumsum(heads)
    filled = heads[:-1].copy()
    rows = np.empty(columns.size, dtype=np.int32)
    weights = np.empty(columns.size, dtype=np.float32)
    places = np.empty(columns.size, dtype=np.int64)
    for row in range(n):
        for entry in range(starts[row], starts[row + 1]):
            place = filled[columns[entry]]
            filled[columns[entry]] += 1
            rows[place], weights[place], places[entry] = row, values[entry], place
    return heads, rows, weights, places


@numba.njit(cache=True, nogil=True)
def overlap(
    starts: Any,
    columns: Any,
    values: Any,
    heads: Any,
    rows: Any,
    weights: Any,
    places: Any,
    low: int,
    high: int,
) -> Any:
    """Give s / (2 - s), s the sum of minima, of each row with every later row it shares anything with."""
    n = heads.size - 1
    sums = np.zeros(n, dtype=np.float32)
    touched = np.empty(n, dtype=np.int32)
    counts = np.empty(high - low, dtype=np.int64)
    found = np.empty(256 * (high - low), dtype=np.int32)
    similarities = np.empty(256 * (high - low), dtype=np.float32)
    used = 0
    for row in range(low, high):
        count = 0
        for entry in range(starts[row], starts[row + 1]):
            value = values[entry]
            for place in range(places[entry] + 1, heads[columns[entry] + 1]):
                other = rows[place]
                if sums[other] == 0:
                    touched[count] = other
                    count += 1
                sums[other] += min(value, weights[place])
        found, similarities = grown(found, used, count), grown(similarities, used, count)
        for place in range(count):
            other = touched[place]
            share = sums[other]
            sums[other] = 0
            found[used + place] = other
            similarities[used + place] = min(share / (np.float32(2) - share), np.float32(1))
        used += count
        counts[row - low] = count
    return counts, found[:used], similarities[:used]


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
