"""Compiled parts of the exact search. Arrays in, arrays changed in place; no GIL."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def seed_with_self(best: Any, rows: Any) -> None:
    """Start every list with the vector itself, at -1, so that no copy of it pushes it out."""
    for row in range(best.shape[0]):
        best[row, 0] = -1.0
        rows[row, 0] = row


@numba.njit(cache=True, nogil=True)
def _insert(best: Any, rows: Any, distance: Any, index: Any) -> None:
    """Put one candidate into a sorted list, whose last entry falls out.

    Candidates come in ascending order of index, so a tie goes behind; the vector itself, at -1, stays first.
    """
    place = best.shape[0] - 1
    while best[place - 1] > distance:
        best[place] = best[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
    best[place] = distance
    rows[place] = index


@numba.njit(cache=True, nogil=True)
def merge_rows(
    products: Any, squares: Any, top: int, left: int, best: Any, rows: Any, low: int, high: int
) -> None:
    """Offer columns ``left + j`` as neighbours to rows ``top + i``, i in [low, high)."""
    width = products.shape[1]
    last = best.shape[1] - 1
    if last == 0:
        return
    for i in range(low, high):
        row = top + i
        own = squares[row]
        worst = best[row, last]
        for j in range(width):
            distance = max(own + squares[left + j] - np.float32(2) * products[i, j], np.float32(0))
            # Columns come in ascending order: one that ties with the worst has the higher index.
            if distance < worst and left + j != row:
                _insert(best[row], rows[row], distance, left + j)
                worst = best[row, last]


@numba.njit(cache=True, nogil=True)
def merge_columns(
    products: Any, squares: Any, top: int, left: int, best: Any, rows: Any, low: int, high: int
) -> None:
    """Offer rows ``top + i`` as neighbours to columns ``left + j``, j in [low, high)."""
    last = best.shape[1] - 1
    if last == 0:
        return
    worst = best[left + low : left + high, last].copy()
    for i in range(products.shape[0]):
        own = squares[top + i]
        for j in range(low, high):
            distance = max(own + squares[left + j] - np.float32(2) * products[i, j], np.float32(0))
            if distance < worst[j - low]:
                column = left + j
                _insert(best[column], rows[column], distance, top + i)
                worst[j - low] = best[column, last]


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
