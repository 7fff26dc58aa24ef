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
def merge_rows(products: Any, squares: Any, top: int, left: int, best: Any, rows: Any) -> None:
    """Offer the images of the columns, ``left + j``, as neighbours to those of the rows, ``top + i``."""
    last = best.shape[1] - 1
    if last == 0:
        return
    for i in range(products.shape[0]):
        row = top + i
        own = squares[row]
        worst = best[row, last]
        for j in range(products.shape[1]):
            distance = max(own + squares[left + j] - np.float32(2) * products[i, j], np.float32(0))
            if distance <= worst and left + j != row:
                _insert(best[row], rows[row], distance, left + j)
                worst = best[row, last]


@numba.njit(cache=True, nogil=True)
def merge_columns(products: Any, squares: Any, top: int, left: int, best: Any, rows: Any) -> None:
    """Offer the images of the rows, ``top + i``, as neighbours to those of the columns, ``left + j``."""
    last = best.shape[1] - 1
    if last == 0:
        return
    worst = best[left : left + products.shape[1], last].copy()
    for i in range(products.shape[0]):
        own = squares[top + i]
        for j in range(products.shape[1]):
            distance = max(own + squares[left + j] - np.float32(2) * products[i, j], np.float32(0))
            if distance <= worst[j]:
                _insert(best[left + j], rows[left + j], distance, top + i)
                worst[j] = best[left + j, last]


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
