"""Compiled parts of the exact search. Arrays in, arrays changed in place; no GIL."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

#: Distances that are looked at together.
CHUNK = 32


@numba.njit(cache=True, nogil=True)
def seed_with_self(best: Any, rows: Any) -> None:
    """Start every list with the vector itself, at -1, so that no copy of it pushes it out."""
    for row in range(best.shape[0]):
        best[row, 0] = -1.0
        rows[row, 0] = row


@numba.njit(cache=True, nogil=True)
def _insert(best: Any, rows: Any, distance: Any, index: Any) -> None:
    """Put a candidate into a list sorted by distance, then index; the last entry falls out."""
    place = best.shape[0] - 1
    if distance == best[place] and index > rows[place]:
        return
    while best[place - 1] > distance or (best[place - 1] == distance and rows[place - 1] > index):
        best[place] = best[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
    best[place] = distance
    rows[place] = index


@numba.njit(cache=True, nogil=True)
def _any_nearer(products: Any, own: Any, squares: Any, worst: Any, limits: Any) -> Any:
    """Tell whether a chunk holds a distance that a list may take: no branch, so that it is one of vectors."""
    hits = np.int32(0)
    for j in range(CHUNK):
        distance = own + squares[j] - np.float32(2) * np.float32(products[j])
        hits |= np.int32(1) if distance <= max(worst, limits[j]) else np.int32(0)
    return hits != 0


@numba.njit(cache=True, nogil=True)
def merge_tile(
    products: Any,
    squares: Any,
    top: int,
    left: int,
    groups: Any,
    relation: int,
    best: Any,
    rows: Any,
    limits: Any,
) -> None:
    """Offer the vectors of the columns, ``left + j``, to those of the rows, ``top + i``, and the reverse.

    ``products`` are float32, or int32 below 2**24; a tile of the diagonal holds both directions already.
    ``relation`` of a pair: 1 within a group, 0 between groups, -1 any. ``limits``: the last distance of each
    list, side by side.
    """
    height, width = products.shape
    last = best.shape[1] - 1
    if last == 0:
        return
    for i in range(height):
        row = top + i
        own, worst = squares[row], limits[row]
        for start in range(0, width, CHUNK):
            stop = start + CHUNK
            chunk = slice(left + start, left + stop)
            if stop <= width and not _any_nearer(
                products[i, start:stop], own, squares[chunk], worst, limits[chunk]
            ):
                continue
            for j in range(start, min(stop, width)):
                if relation >= 0 and np.int64(groups[row] == groups[left + j]) != relation:
                    continue
                distance = own + squares[left + j] - np.float32(2) * np.float32(products[i, j])
                distance = max(distance, np.float32(0))
                if distance <= worst and left + j != row:
                    _insert(best[row], rows[row], distance, left + j)
                    worst = limits[row] = best[row, last]
                if distance <= limits[left + j] and left != top:
                    _insert(best[left + j], rows[left + j], distance, row)
                    limits[left + j] = best[left + j, last]


@numba.njit(cache=True, nogil=True)
def take_nearest(distances: Any, best: Any, rows: Any, low: int, high: int) -> None:
    """Offer the columns of the rows [low, high) of distances to their lists, but those at infinity."""
    last = best.shape[1] - 1
    for i in range(low, high if last > 0 else low):
        for j in range(distances.shape[1]):
            if distances[i, j] <= best[i, last] and distances[i, j] < np.inf:
                _insert(best[i], rows[i], distances[i, j], j)


@numba.njit(cache=True, nogil=True)
def merge_lists(others: Any, their_rows: Any, best: Any, rows: Any, low: int, high: int) -> None:
    """Offer what other lists hold for the rows [low, high); the vector itself is in both."""
    last = best.shape[1] - 1
    for row in range(low, high if last > 0 else low):
        for place in range(1, last + 1):
            if others[row, place] > best[row, last]:
                break
            if their_rows[row, place] < best.shape[0]:
                _insert(best[row], rows[row], others[row, place], their_rows[row, place])


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _squared_gap(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for column in range(a.size):
        gap = a[column] - b[column]
        total += gap * gap
    return total


@numba.njit(cache=True, nogil=True)
def measure(x: Any, best: Any, rows: Any, own: Any) -> None:
    """Take the distances of the candidates of ``own`` directly, and sort each list by them, then by index.

    A list begins with the vector itself. What names it again, or no vector, goes to the end, at infinity.
    """
    for row in own:
        best[row, 0], rows[row, 0] = 0.0, row
        for place in range(1, best.shape[1]):
            index = rows[row, place]
            distance = np.float32(np.inf)
            if 0 <= index < x.shape[0] and index != row:
                distance = _squared_gap(x[row], x[index])
            free = place
            while free > 1 and (
                best[row, free - 1] > distance
                or (best[row, free - 1] == distance and rows[row, free - 1] > index)
            ):
                best[row, free], rows[row, free] = best[row, free - 1], rows[row, free - 1]
                free -= 1
            best[row, free], rows[row, free] = distance, index


@numba.njit(cache=True, nogil=True)
def settle(x: Any, best: Any, rows: Any, k: int, tolerance: Any, low: int, high: int) -> None:
    """Decide near ties by distances in float64; give the vector itself its place by index, within k."""
    kept = best.shape[1]
    for row in range(low, high):
        best[row, 0] = 0.0
        start = 0
        while start < kept:
            stop = start + 1
            while stop < kept and best[row, stop] - best[row, stop - 1] <= tolerance:
                stop += 1
            if stop - start > 1:
                _settle_run(x, best[row], rows[row], row, start, stop)
            start = stop
        if not (rows[row, :k] == row).any():
            rows[row, k - 1] = row
            best[row, k - 1] = 0.0


@numba.njit(cache=True, nogil=True)
def _settle_run(x: Any, best: Any, rows: Any, row: int, start: int, stop: int) -> None:
    exact = np.empty(stop - start, dtype=np.float64)
    for place in range(start, stop):
        total = 0.0
        for column in range(x.shape[1]):
            gap = np.float64(x[row, column]) - np.float64(x[rows[place], column])
            total += gap * gap
        exact[place - start] = total
    by_index = np.argsort(rows[start:stop], kind="mergesort")
    order = by_index[np.argsort(exact[by_index], kind="mergesort")]
    members = rows[start:stop].copy()
    for place in range(start, stop):
        best[place] = exact[order[place - start]]
        rows[place] = members[order[place - start]]
