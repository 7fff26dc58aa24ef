"""Compiled parts of the clustering. A similarity comes as CSR: starts, columns (sorted), values.

What takes ``low`` and ``high`` works on these rows. No kernel holds the GIL.
"""

import heapq
from typing import Any

import numpy as np

from icsr_cli.compilation import compiled, find


@compiled()
def to_whole_numbers(
    starts: Any,
    columns: Any,
    values: Any,
    scale: float,
    stops: Any,
    others: Any,
    sums: Any,
    nearest: Any,
    highest: Any,
    low: int,
    high: int,
) -> None:
    """Write rows without diagonal and zeros, similarities as whole multiples of 1 / ``scale``.

    ``others`` uint32 and ``sums`` int64 have the room of the given rows: row i lies in [starts[i], stops[i]).
    ``nearest``: the lowest of those that are most similar, -1 for none; ``highest``: how similar.
    """
    for row in range(low, high):
        place = starts[row]
        nearest[row], highest[row] = -1, 0
        for entry in range(starts[row], starts[row + 1]):
            other = columns[entry]
            # Both mirrors round the same float.
            amount = np.int64(np.float64(values[entry]) * scale + 0.5)
            if other != row and amount > 0:
                others[place], sums[place] = other, amount
                place += 1
                if amount > highest[row]:
                    nearest[row], highest[row] = other, amount
        stops[row] = place


@compiled()
def _gather(
    top: int,
    parents: Any,
    heads: Any,
    tails: Any,
    following: Any,
    starts: Any,
    stops: Any,
    others: Any,
    sums: Any,
    totals: Any,
    touched: Any,
) -> int:
    """Bring the list of cluster ``top`` up to date, in place; give the number of its neighbours.

    A cluster's list is a chain of row segments, whose entries may name members of clusters that have
    been merged since. Entries of one cluster are added up, and written back into the first segments.
    """
    count = 0
    segment = heads[top]
    while segment >= 0:
        for entry in range(starts[segment], stops[segment]):
            other = parents[parents[others[entry]]]
            if parents[other] != other:  # few are farther from their root, so that this seldom branches
                other = find(parents, other)
            if other == top:
                continue
            touched[count] = other
            count += totals[other] == 0
            totals[other] += sums[entry]
        segment = following[segment]
    segment, written = heads[top], 0
    while True:
        room = min(starts[segment + 1] - starts[segment], count - written)
        for place in range(starts[segment], starts[segment] + room):
            others[place], sums[place] = touched[written], totals[touched[written]]
            written += 1
        stops[segment] = starts[segment] + room
        if written == count:
            break
        segment = following[segment]
    # A list never grows, so the room behind is not needed again.
    following[segment], tails[top] = -1, segment
    return count


@compiled()
def _nearest(count: int, touched: Any, totals: Any, sizes: Any, top: int, previous: int) -> Any:
    """Give the most similar neighbour and its mean similarity; clear ``totals``.

    Among equals the one before ``top`` in the chain, else the lowest number.
    """
    best, best_value = -1, 0.0
    for index in range(count):
        other = touched[index]
        value = np.float64(totals[other]) / (np.float64(sizes[other]) * np.float64(sizes[top]))
        totals[other] = 0
        if value > best_value or (
            value == best_value and best != previous and (other == previous or other < best)
        ):
            best, best_value = other, value
    return best, best_value


@compiled()
def merge_all(
    starts: Any, stops: Any, others: Any, sums: Any, nearest: Any, highest: Any, floor: float
) -> Any:
    """Merge by the chain of nearest neighbours while mean similarities are above ``floor``.

    A mean is never above the highest that it is of. So where the nearest image of one that is alone is alone
    too, it is the nearest of all clusters, and its list need not be read: two of five readings of entries.

    Gives (first int32 (m,), second int32 (m,), value float64 (m,)): merge t joins the clusters that
    hold images ``first[t]`` and ``second[t]``. A merge comes after the merges it stands on, its value is
    at most theirs.
    """
    n = starts.size - 1
    parents, heads, tails = np.arange(n, dtype=np.uint32), np.arange(n), np.arange(n)
    following, sizes, heights = np.full(n, -1), np.ones(n, dtype=np.int64), np.full(n, np.inf)
    totals, touched = np.zeros(n, dtype=np.int64), np.empty(n + 1, dtype=np.uint32)
    chain, links = np.empty(n, dtype=np.int64), np.empty(n)
    first, second, values = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty(n)
    merges, length, start = 0, 0, 0
    on_chain = np.zeros(n, dtype=np.bool_)
    while start < n:
        if length == 0:
            if parents[start] != start:
                start += 1
                continue
            chain[0], length, on_chain[start] = start, 1, True
        top = chain[length - 1]
        previous = chain[length - 2] if length > 1 else -1
        best, value = nearest[top], np.float64(highest[top])
        if sizes[top] == 1 and best >= 0 and sizes[best] == 1 and parents[best] == best:
            if previous >= 0 and links[length - 1] == value:
                best = previous
        else:
            count = _gather(
                top, parents, heads, tails, following, starts, stops, others, sums, totals, touched
            )
            best, value = _nearest(count, touched, totals, sizes, top, previous)
        if best < 0 or value <= floor:
            # Nothing is near enough, and merges elsewhere bring nothing nearer: only at a chain's start.
            length, on_chain[start] = 0, False
            start += 1
        elif not on_chain[best]:
            chain[length], links[length], on_chain[best] = best, value, True
            length += 1
        else:
            # On the chain only the one before can be nearest, but for mirrors that are not quite equal.
            low, high = min(top, previous), max(top, previous)
            # Rounding must not put a merge before one that it stands on.
            heights[low] = min(value, heights[low], heights[high])
            first[merges], second[merges], values[merges] = low, high, heights[low]
            merges += 1
            parents[high] = low
            sizes[low] += sizes[high]
            following[tails[low]], tails[low] = heads[high], tails[high]
            length -= 2
            on_chain[low], on_chain[high] = False, False
    return first[:merges], second[:merges], values[:merges]


@compiled()
def join_smallest(roots: Any, wanted: int) -> Any:
    """Join clusters that share nothing, the two smallest first (ties: first image), until ``wanted``."""
    n = roots.size
    sizes = np.bincount(roots, minlength=n)
    heap = [(sizes[image], image) for image in range(n) if roots[image] == image]
    heapq.heapify(heap)
    parents = np.arange(n)
    while len(heap) > wanted:
        size_a, a = heapq.heappop(heap)
        size_b, b = heapq.heappop(heap)
        parents[max(a, b)] = min(a, b)
        heapq.heappush(heap, (size_a + size_b, min(a, b)))
    for image in range(n):
        parents[image] = find(parents, roots[image])
    return parents


@compiled()
def dense_regions(starts: Any, columns: Any, values: Any, eps: Any, one: Any, min_samples: int) -> Any:
    """Give DBSCAN's clusters, each named by its first core image; -1 is noise.

    ``one`` is 1 in the type of the values, so that distances round as in a dense matrix of that type.
    """
    n = starts.size - 1
    core = np.empty(n, dtype=np.bool_)
    for row in range(n):
        count = 1
        for entry in range(starts[row], starts[row + 1]):
            count += one - values[entry] <= eps and columns[entry] != row
        core[row] = count >= min_samples
    parents = np.arange(n)
    for row in range(n):
        if core[row]:
            for entry in range(starts[row], starts[row + 1]):
                if columns[entry] < row and one - values[entry] <= eps and core[columns[entry]]:
                    a, b = find(parents, row), find(parents, columns[entry])
                    parents[max(a, b)] = min(a, b)
    labels = np.full(n, -1, dtype=np.int64)
    for row in range(n):
        if core[row]:
            labels[row] = find(parents, row)
            continue
        for entry in range(starts[row], starts[row + 1]):
            if one - values[entry] <= eps and core[columns[entry]]:
                root = find(parents, columns[entry])
                labels[row] = root if labels[row] < 0 else min(root, labels[row])
    return labels


@compiled()
def silhouette_sum(
    starts: Any, columns: Any, values: Any, labels: Any, sizes: Any, low: int, high: int
) -> float:
    """Add up silhouettes of the rows whose label is not -1; an absent pair is at distance 1."""
    sums = np.zeros(sizes.size, dtype=np.float64)
    touched = np.empty(sizes.size, dtype=np.int64)
    total = 0.0
    for row in range(low, high):
        own = labels[row]
        if own < 0:
            continue
        count, within = 0, 0.0
        for entry in range(starts[row], starts[row + 1]):
            label = labels[columns[entry]]
            if label < 0 or columns[entry] == row:
                continue
            if label == own:
                within += values[entry]
            elif values[entry] > 0:
                if sums[label] == 0:
                    touched[count] = label
                    count += 1
                sums[label] += values[entry]
        nearest = 0.0
        for index in range(count):
            nearest = max(nearest, sums[touched[index]] / sizes[touched[index]])
            sums[touched[index]] = 0
        if sizes[own] > 1:
            inner, outer = 1 - within / (sizes[own] - 1), 1 - nearest
            if max(inner, outer) > 0:
                total += (outer - inner) / max(inner, outer)
    return total
