"""What the label engine and re-ranking share of k-reciprocal encoding: sets, growth, expansion, overlap.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017 (arXiv 1701.08398),
equations 3, 4, 10 and 11. How a set is weighted, and what becomes of the overlap, is the caller's.

Sparse rows are (starts int64 (n + 1,), columns int32, values float32). A row's columns are in rising order
and its values positive. No n x n array exists. Each kernel works on the rows [low, high) and holds no GIL;
what it gives for them is (entries per row, columns, values).
"""

from typing import Any, TypeAlias

import numpy as np

from icsr_cli.compilation import compiled
from icsr_cli.threads import in_threads, row_ranges

#: Where each row starts, its columns in order, its values.
Rows: TypeAlias = tuple[Any, Any, Any]


def reciprocal_sets(ranks: Any, half: int, share: tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Give the grown k-reciprocal set of every image: starts int64 (m + 1,), members int32 in order.

    ``ranks`` (n, k): whole numbers, the k nearest of each image, nearest first. R(i, k) holds those of i
    that have i among theirs (equation 3). It grows by R(c, half) for each c in it of which more than 2/3
    lies in R(i, k) (equation 4). ``share``: first and end of the m images that are asked for; default: all.
    """
    ranks = np.ascontiguousarray(ranks, dtype=np.int32)
    full_sets, half_sets = mutual(ranks), mutual(ranks[:, :half])
    first, end = share or (0, len(ranks))
    grow = in_threads(
        lambda low, high: _grow(ranks, full_sets, half_sets, low, high), row_ranges(end, first=first)
    )
    sets: tuple[Any, Any] = stacked(grow)
    return sets


def expanded(ranks: Any, rows: Rows, share: tuple[int, int] | None = None) -> Rows:
    """Give for each image the mean of the rows of its nearest, ``ranks`` (n, k2), -1 for none (equation 11).

    With k2 = 1 that is its own row, also where a copy of it comes first. ``share``: as above.
    """
    if ranks.shape[1] == 1:
        return rows
    ranks = np.ascontiguousarray(ranks, dtype=np.int32)
    first, end = share or (0, len(ranks))
    means = in_threads(lambda low, high: _average(ranks, rows, low, high), row_ranges(end, first=first))
    found: Rows = stacked(means)
    return found


def stacked(parts: list[tuple[Any, ...]]) -> Any:
    """Put parts of sparse rows, (entries per row, columns, values), one behind the other."""
    counts, *entries = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.concatenate(([0], np.cumsum(counts))), *entries


def mutual(ranks: Any) -> Any:
    """Mark the neighbours that have the image among theirs: bool (n, k) for ``ranks`` (n, k), -1 for none."""
    ranks = np.ascontiguousarray(ranks, dtype=np.int32)
    marks = np.empty(ranks.shape, dtype=np.bool_)
    in_threads(lambda low, high: _mark_reciprocal(ranks, marks, low, high), row_ranges(len(ranks)))
    return marks


@compiled()
def _mark_reciprocal(ranks: Any, marks: Any, low: int, high: int) -> None:
    """Set ``marks[i, c]`` to whether row i is among the neighbours of its c-th neighbour."""
    k = ranks.shape[1]
    for row in range(low, high):
        for place in range(k):
            other = ranks[row, place]
            found = False
            for back in range(k if other >= 0 else 0):
                if ranks[other, back] == row:
                    found = True
                    break
            marks[row, place] = found


@compiled()
def _grown(array: Any, used: int, more: int) -> Any:
    """Give ``array``, or a larger copy of it, with room for ``more`` behind the first ``used``."""
    if used + more <= array.size:
        return array
    larger = np.empty(max(2 * array.size, used + more), dtype=array.dtype)
    for place in range(used):  # slices that are written to take seconds to compile
        larger[place] = array[place]
    return larger


@compiled()
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


@compiled()
def _grow(ranks: Any, full_sets: Any, half_sets: Any, low: int, high: int) -> Any:
    """Give (members per row, members in order) of the grown sets of the rows."""
    seen = np.full(ranks.shape[0], -1, dtype=np.int64)
    members = np.empty(ranks.shape[1] * (1 + half_sets.shape[1]), dtype=np.int32)
    counts = np.empty(high - low, dtype=np.int64)
    found = np.empty(64 * (high - low), dtype=np.int32)
    used = 0
    for row in range(low, high):
        count = _members(row, ranks, full_sets, half_sets, seen, members)
        found = _grown(found, used, count)
        ordered = np.sort(members[:count])
        for place in range(count):
            found[used + place] = ordered[place]
        used += count
        counts[row - low] = count
    return counts, found[:used]


@compiled()
def _average(ranks: Any, rows: Rows, low: int, high: int) -> Any:
    """Give for each row the mean of the rows of its neighbours."""
    n, k2 = ranks.shape
    starts, columns, values = rows
    sums = np.zeros(n, dtype=np.float32)
    touched = np.empty(n, dtype=np.int32)
    counts = np.empty(high - low, dtype=np.int64)
    found = np.empty(128 * (high - low), dtype=np.int32)
    means = np.empty(128 * (high - low), dtype=np.float32)
    used = 0
    for row in range(low, high):
        count, averaged = 0, 0
        for place in range(k2):
            other = ranks[row, place]
            if other < 0:
                continue
            averaged += 1
            for entry in range(starts[other], starts[other + 1]):
                column = columns[entry]
                if sums[column] == 0:
                    touched[count] = column
                    count += 1
                sums[column] += values[entry]
        found, means = _grown(found, used, count), _grown(means, used, count)
        ordered = np.sort(touched[:count])
        for place in range(count):
            found[used + place] = ordered[place]
            means[used + place] = sums[ordered[place]] / np.float32(averaged)
            sums[ordered[place]] = 0
        used += count
        counts[row - low] = count
    return counts, found[:used], means[:used]


@compiled()
def inverted(rows: Rows) -> Any:
    """Give the same entries by columns: starts, rows in order, values, and each entry's place there."""
    starts, columns, values = rows
    n = starts.size - 1
    heads = np.zeros(n + 1, dtype=np.int64)
    for entry in range(columns.size):
        heads[columns[entry] + 1] += 1
    heads = np.cumsum(heads)
    filled = heads[:-1].copy()
    owners = np.empty(columns.size, dtype=np.uint32)
    weights = np.empty(columns.size, dtype=np.float32)
    places = np.empty(columns.size, dtype=np.int64)
    for row in range(n):
        for entry in range(starts[row], starts[row + 1]):
            place = filled[columns[entry]]
            filled[columns[entry]] += 1
            owners[place], weights[place], places[entry] = row, values[entry], place
    return heads, owners, weights, places


@compiled()
def overlap(rows: Rows, by_column: Any, low: int, high: int, least: float = 0.0) -> Any:
    """Give 1 - the Jaccard distance of each row and every later row it shares a column with (equation 10).

    That is s / (2 - s), s the sum of minima. ``by_column``: what ``inverted`` gives for all rows. What is
    below ``least`` is left out.
    """
    starts, columns, values = rows
    heads, owners, weights, places = by_column
    n = heads.size - 1
    sums = np.zeros(n, dtype=np.float32)
    touched = np.empty(n + 1, dtype=np.uint32)
    counts = np.empty(high - low, dtype=np.int64)
    found = np.empty(256 * (high - low), dtype=np.int32)
    similarities = np.empty(256 * (high - low), dtype=np.float32)
    used = 0
    for row in range(low, high):
        count = 0
        for entry in range(starts[row], starts[row + 1]):
            value = values[entry]
            for place in range(places[entry] + 1, heads[columns[entry] + 1]):
                other = owners[place]
                touched[count] = other  # without a branch, which would be guessed wrong half the time
                count += sums[other] == 0
                sums[other] += min(value, weights[place])
        found, similarities = _grown(found, used, count), _grown(similarities, used, count)
        first = used
        for place in range(count):
            other = touched[place]
            share = sums[other]
            sums[other] = 0
            similarity = min(share / (np.float32(2) - share), np.float32(1))
            if similarity >= least:
                found[used], similarities[used] = other, similarity
                used += 1
        counts[row - low] = used - first
    return counts, found[:used], similarities[:used]
