"""Nearest neighbours on the CPU: tiles of products, each for its rows and its columns, by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from icsr_cli.distances import neighbour_kernels as kernels
from icsr_cli.distances.features import SPARE, squared_lengths
from icsr_cli.threads import in_threads, row_ranges
from icsr_cli.types import FloatArray, Team

#: Writes the products of two ranges of vectors into an array.
Multiply: TypeAlias = Callable[[slice, slice, Any], None]

#: Squared distances of unit vectors nearer to each other than this are decided in float64.
NEAR_TIE = 4e-6
#: Rows and columns of one tile of the distance matrix: 4 MiB, small enough for the cache.
TILE = 1024


def search_cpu(x: FloatArray, k: int, team: Team) -> tuple[Any, Any]:
    """Search all pairs of unit x (n, d): int64 and float32 (n, k), squared distances.

    Each process multiplies some of the tiles, then settles its share of the rows.
    """
    squares = squared_lengths(x)

    def multiply(top: slice, left: slice, products: Any) -> None:
        np.matmul(x[top], x[left].T, out=products)

    best, rows = nearest_lists(squares, min(len(x), k + SPARE), multiply, np.float32, team)
    return settled(x, best, rows, k, NEAR_TIE * squares.max(), team)


def settled(x: FloatArray, best: Any, rows: Any, k: int, tolerance: float, team: Team) -> tuple[Any, Any]:
    """Decide the near ties of the lists, each process of its share: int64 and float32 (n, k), for all."""
    first, end = team.share(len(x))
    near = np.float32(tolerance)
    in_threads(
        lambda low, high: kernels.settle(x, best, rows, k, near, low, high), row_ranges(end, first=first)
    )
    own = rows[first:end, :k].astype(np.int64), np.ascontiguousarray(best[first:end, :k])
    if team.size == 1:
        return own
    indices, distances = map(np.concatenate, zip(*team.join(own), strict=True))
    return indices, distances


def measure(x: FloatArray, best: Any, rows: Any, first: int, end: int) -> None:
    """Take the distances of the candidates of the vectors [first, end), and sort their lists by them."""
    in_threads(
        lambda low, high: kernels.measure(x, best, rows, np.arange(low, high)), row_ranges(end, first=first)
    )


def nearest_of(x: FloatArray, chosen: Any, k: int) -> Any:
    """Search the chosen vectors among all: int32 (m, k), in no order, each among its own."""
    squares = squared_lengths(x)
    found = np.empty((len(chosen), k), dtype=np.int32)
    for block in blocks(len(chosen), len(x)):
        distances = x[chosen[block]] @ x.T
        distances *= -2
        distances += squares
        distances[np.arange(len(distances)), chosen[block]] = -np.inf
        found[block] = np.argpartition(distances, k - 1, axis=1)[:, :k]
    return found


def blocks(m: int, n: int) -> Iterator[slice]:
    """Cut m rows so that a block of m x n numbers takes some 256 MiB."""
    step = max(1, 2**26 // n)
    return (slice(low, low + step) for low in range(0, m, step))


def nearest_lists(squares: Any, kept: int, multiply: Multiply, kind: Any, team: Team) -> tuple[Any, Any]:
    """Give the nearest of each vector, float32 squared distances and int32 indices (n, kept), itself first.

    They are whole for the vectors of this process's share. ``multiply`` writes the products of two ranges of
    vectors, of the type ``kind``; ``squares`` float32 (n,) are with themselves.
    Tiles of the upper triangle only: each product serves its row and its column. Each thread multiplies tiles
    of its own, of those of this process. Their order does not matter, since ties go by index; by diagonals,
    threads meet seldom at the lists of one block, which have a lock.
    """
    n = len(squares)
    best = np.full((n, kept), np.inf, dtype=np.float32)
    rows = np.full((n, kept), n, dtype=np.int32)
    kernels.seed_with_self(best, rows)
    limits = best[:, -1].copy()
    starts = range(0, n, TILE)
    locks = {start: threading.Lock() for start in starts}

    def merge(low: int, high: int) -> None:
        tile = np.empty(TILE * TILE, dtype=kind)
        for top, left in tiles[low:high]:
            height, width = min(TILE, n - top), min(TILE, n - left)
            products = tile[: height * width].reshape(height, width)
            multiply(slice(top, top + height), slice(left, left + width), products)
            with locks[top], locks[left] if left != top else nullcontext():
                kernels.merge_tile(products, squares, top, left, best, rows, limits)

    tiles = [(top, top + offset) for offset in starts for top in starts if top + offset < n]
    tiles = tiles[team.rank :: team.size]
    with threadpool_limits(limits=1, user_api="blas"):
        in_threads(merge, row_ranges(len(tiles), 1024))
    if team.size > 1:
        (best, rows), *others = team.join((best, rows))
        for their_best, their_rows in others:
            kernels.merge_lists(their_best, their_rows, best, rows, *team.share(n))
    return best, rows
