"""Nearest neighbours on the CPU: tiles of products, each for its rows and its columns, by threads."""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from icsr_cli import exact_kernels as kernels
from icsr_cli.threads import blocks, in_threads, row_ranges
from icsr_cli.types import FloatArray, Team

#: Gives the products of all rows of two matrices, float32; a third has the room for them.
Product: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
#: Gives the products of two ranges of vectors; an array has the room for them.
Multiply: TypeAlias = Callable[[slice, slice, Any], Any]
#: Reads the products of two ranges; the last are those of all vectors with themselves.
See: TypeAlias = Callable[[slice, slice, Any, Any], None]

#: Candidates beyond k that are kept until ties at the border are decided.
SPARE = 8
#: Squared distances of unit vectors nearer to each other than this are decided in float64.
NEAR_TIE = 4e-6
#: Rows and columns of one tile of the distance matrix: 1 MiB, small enough for the cache.
TILE = 512
#: Vectors with the same first one among so many nearest are measured one after another: most of what they
#: are compared with is in the cache then.
ALIKE = 4
#: Distances of some vectors to all that are held at a time: 256 MiB.
BLOCK = 2**26


#: Relations of two vectors.
ANY, BETWEEN_GROUPS, WITHIN_GROUP = -1, 0, 1


class Among(NamedTuple):
    """How many are searched for each vector, itself counted, and among which: all, its group or others'."""

    k: int
    relation: int = ANY


def product_of_numpy(a: FloatArray, b: FloatArray, room: FloatArray) -> FloatArray:
    """Give the products of the rows of a (m, d) with those of b (n, d) in ``room`` (m, n)."""
    products: FloatArray = np.matmul(a, b.T, out=room)
    return products


def search_cpu(
    x: FloatArray,
    wanted: Sequence[Among],
    groups: Any,
    team: Team,
    *,
    product: Product = product_of_numpy,
    see: See | None = None,
) -> list[tuple[Any, Any]]:
    """Search all pairs of x (n, d): for each wanted int64 and float32 (n, k), squared distances.

    Where there are fewer than k, n stands for nobody, at infinity; no list is longer than n. ``groups`` int64
    (n,); the search is faster where groups stand together. Each process multiplies some of the tiles, then
    settles its share of the rows. ``product`` multiplies, and ``see`` is shown the products of each tile, by
    several threads at once; they are of x less its mean, which changes no distance: what vectors nearly at
    one place have in common would leave nothing of what they have not.
    """
    centred = x - x.mean(axis=0)
    squares = np.einsum("ij,ij->i", centred, centred)

    def multiply(top: slice, left: slice, room: Any) -> Any:
        products = product(centred[top], centred[left], room)
        if see is not None:
            see(top, left, products, squares)
        return products

    kept = [among._replace(k=min(len(x), among.k + SPARE)) for among in wanted]
    lists = nearest_lists(squares, kept, groups, multiply, np.float32, team)
    tolerance = NEAR_TIE * squares.max()
    return [settled(x, keys, among.k, tolerance, team) for keys, among in zip(lists, wanted, strict=True)]


def settled(x: FloatArray, keys: Any, k: int, tolerance: float, team: Team) -> tuple[Any, Any]:
    """Decide the near ties of the lists, each process of its share: int64 and float32 (n, k), for all."""
    first, end = team.share(len(x))
    near = np.float32(tolerance)
    in_threads(lambda low, high: kernels.settle(x, keys, k, near, low, high), row_ranges(end, first=first))
    own = indices_of(keys[first:end, :k]), distances_of(keys[first:end, :k])
    if team.size == 1:
        return own
    indices, distances = map(np.concatenate, zip(*team.join(own), strict=True))
    return indices, distances


def indices_of(keys: Any) -> Any:
    """Give the vectors that keys stand for: int64, of the shape of the keys."""
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def distances_of(keys: Any) -> Any:
    """Give the squared distances in keys: float32, of the shape of the keys."""
    return (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)


def nobody(n: int) -> Any:
    """Give the key of none of n vectors, which is farther than all: uint64."""
    return np.uint64(0x7F800000 << 32 | n)


def measure(
    x: FloatArray, keys: Any, k: int, chosen: Any, no_nearer: Callable[[Any, Any], Any] | None = None
) -> Any:
    """Take the distances of the candidates of the chosen vectors, and sort their lists by them.

    ``no_nearer``: of squared distances (m, width) that candidates have so far, in rising order, and the m
    vectors, gives distances that no candidate from there on, and no vector that is none, is nearer than; what
    cannot be among the k nearest is then left out. Gives those whose k nearest are not proven: int64.
    """
    alike = indices_of(keys[chosen, :ALIKE]).min(axis=1)
    chosen = chosen[np.argsort(alike, kind="stable")]

    def part(low: int, high: int) -> Any:
        own = chosen[low:high]
        so_far = distances_of(keys[own])
        bounds = np.full_like(so_far, -1) if no_nearer is None else no_nearer(so_far, own)
        proven = np.empty(len(own), dtype=np.bool_)
        kernels.measure(x, keys, own, k, bounds, proven)
        return own[~proven]

    return np.concatenate([chosen[:0], *in_threads(part, row_ranges(len(chosen)))])


def nearest_of(x: FloatArray, chosen: Any, among: Among, groups: Any) -> Any:
    """Search the chosen vectors among others: int64 (m, k), itself first; n stands for nobody."""
    squares = np.einsum("ij,ij->i", x, x)
    keys = np.full((len(chosen), among.k), nobody(len(x)))
    keys[:, 0] = chosen
    for block in blocks(len(chosen), len(x), BLOCK):
        own = chosen[block]
        distances = x[own] @ x.T
        distances *= -2
        distances += squares + squares[own, None]
        np.maximum(distances, 0, out=distances)
        distances[np.arange(len(own)), own] = np.inf
        forbid(distances, own, among.relation, groups)
        in_threads(partial(kernels.take_nearest, distances, keys[block]), row_ranges(len(own)))
    return indices_of(keys)


def forbid(distances: Any, rows: Any, relation: int, groups: Any) -> None:
    """Set the distances (m, n) of vectors to all others to infinity where the relation is another one."""
    if relation != ANY:
        distances[(groups[rows, None] == groups) != relation] = np.inf


def nearest_lists(
    squares: Any, wanted: Sequence[Among], groups: Any, multiply: Multiply, kind: Any, team: Team
) -> list[Any]:
    """Give for each wanted the nearest of every vector, itself first: uint64 (n, k), sorted keys.

    A key is a squared distance, the 32 bits of a float32, above the index of a vector; so one number says who
    is nearer. Lists are whole for the vectors of this process's share. ``multiply`` gives the products of
    two ranges of vectors, of the type ``kind``; ``squares`` float32 (n,) are with themselves.
    Tiles of the upper triangle only: each product serves its row and its column, and all that is wanted. Each
    thread multiplies tiles of its own, of those of this process. Their order does not matter, since ties go
    by index; by diagonals, threads meet seldom at the lists of one block, which have a lock.
    """
    n = len(squares)
    lists = [_empty_lists(n, among.k) for among in wanted]
    starts = range(0, n, TILE)
    locks = {start: threading.Lock() for start in starts}

    def merge(low: int, high: int) -> None:
        tile = np.empty(TILE * TILE, dtype=kind)
        for top, left in tiles[low:high]:
            rows, columns = slice(top, min(top + TILE, n)), slice(left, min(left + TILE, n))
            height, width = rows.stop - top, columns.stop - left
            room = tile[: height * width].reshape(height, width)
            products = multiply(rows, columns, room)
            with locks[top], locks[left] if left != top else nullcontext():
                for among, (keys, limits) in zip(wanted, lists, strict=True):
                    if _may_hold(among.relation, groups[rows], groups[columns]):
                        kernels.merge_tile(products, squares, top, left, groups, among.relation, keys, limits)

    tiles = [(top, top + offset) for offset in starts for top in starts if top + offset < n]
    tiles = tiles[team.rank :: team.size]
    in_threads(merge, row_ranges(len(tiles), 1024), multiplies=True)
    return [_merged(keys, team) for keys, _ in lists]


def _empty_lists(n: int, k: int) -> tuple[Any, Any]:
    """Give keys, and the last distance of each list: of each vector itself, and nobody else."""
    keys = np.full((n, k), nobody(n))
    keys[:, 0] = np.arange(n)
    return keys, np.full(n, np.inf if k > 1 else 0, dtype=np.float32)


def _may_hold(relation: int, rows: Any, columns: Any) -> bool:
    """Tell whether a tile of these groups may hold pairs of the relation."""
    if relation == BETWEEN_GROUPS:
        return bool(min(rows.min(), columns.min()) < max(rows.max(), columns.max()))
    return relation == ANY or bool(rows.min() <= columns.max() and columns.min() <= rows.max())


def _merged(keys: Any, team: Team) -> Any:
    """Merge the lists of all processes, for the share of this one."""
    if team.size > 1:
        keys, *others = team.join(keys)
        for theirs in others:
            kernels.merge_lists(theirs, keys, *team.share(len(keys)))
    return keys
