"""Compiled parts of the exact search. Arrays in, arrays changed in place; no GIL."""

from typing import Any

import numpy as np

from icsr_cli.compilation import compiled

#: Distances that are looked at together.
CHUNK = 32


@compiled()
def _key(distance: Any, index: Any) -> Any:
    """Give distance, not negative, and index as one number: of two keys the nearer is the smaller."""
    return (np.uint64(np.float32(distance).view(np.uint32)) << np.uint64(32)) | np.uint64(index)


@compiled()
def _distance(key: Any) -> Any:
    return np.uint32(key >> np.uint64(32)).view(np.float32)


@compiled()
def _index(key: Any) -> Any:
    return np.int64(key & np.uint64(0xFFFFFFFF))


@compiled()
def _insert(keys: Any, key: Any) -> None:
    """Put a key into a sorted list behind the vector itself; the last falls out, which may be the key."""
    place = keys.size - 1
    if key > keys[place]:
        return
    while place > 1 and keys[place - 1] > key:
        keys[place] = keys[place - 1]
        place -= 1
    keys[place] = key


@compiled()
def _any_nearer(products: Any, own: Any, squares: Any, worst: Any, limits: Any) -> Any:
    """Tell whether a chunk holds a distance that a list may take: no branch, so that it is one of vectors."""
    hits = np.int32(0)
    for j in range(CHUNK):
        distance = own + squares[j] - np.float32(2) * np.float32(products[j])
        hits |= np.int32(1) if distance <= max(worst, limits[j]) else np.int32(0)
    return hits != 0


@compiled()
def merge_tile(
    products: Any, squares: Any, top: int, left: int, groups: Any, relation: int, keys: Any, limits: Any
) -> None:
    """Offer the vectors of the columns, ``left + j``, to those of the rows, ``top + i``, and the reverse.

    ``products`` are float32, or int32 below 2**24; a tile of the diagonal holds both directions already.
    ``relation`` of a pair: 1 within a group, 0 between groups, -1 any. ``limits``: the last distance of each
    list, side by side.
    """
    height, width = products.shape
    last = keys.shape[1] - 1
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
                column = left + j
                if relation >= 0 and np.int64(groups[row] == groups[column]) != relation:
                    continue
                distance = own + squares[column] - np.float32(2) * np.float32(products[i, j])
                distance = max(distance, np.float32(0))
                if distance <= worst and column != row:
                    _insert(keys[row], _key(distance, column))
                    worst = limits[row] = _distance(keys[row, last])
                if distance <= limits[column] and left != top:
                    _insert(keys[column], _key(distance, row))
                    limits[column] = _distance(keys[column, last])


@compiled()
def take_nearest(distances: Any, keys: Any, low: int, high: int) -> None:
    """Offer the columns of the rows [low, high) of distances to their lists, but those at infinity."""
    last = keys.shape[1] - 1
    for i in range(low, high if last > 0 else low):
        for j in range(distances.shape[1]):
            if distances[i, j] <= _distance(keys[i, last]) and distances[i, j] < np.inf:
                _insert(keys[i], _key(distances[i, j], j))


@compiled()
def merge_lists(others: Any, keys: Any, low: int, high: int) -> None:
    """Offer what other lists hold for the rows [low, high); the vector itself is in both."""
    for row in range(low, high):
        for place in range(1, keys.shape[1]):
            _insert(keys[row], others[row, place])


@compiled(fastmath={"reassoc", "contract"})
def _squared_gap(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for column in range(a.size):
        gap = a[column] - b[column]
        total += gap * gap
    return total


@compiled()
def measure(x: Any, keys: Any, own: Any, k: int, bounds: Any, proven: Any) -> None:
    """Take the distances of the candidates of ``own`` directly, and sort each list by them, then by index.

    A list begins with the vector itself. What names it again, or no vector, goes to the end, at infinity.
    ``bounds`` (m, width): no candidate from there on, nor any vector that is none, is nearer. So a list is
    ``proven`` (m,), and what follows is nobody, from the place on whose bound the k-th distance does not
    exceed.
    """
    nobody = _key(np.inf, x.shape[0])
    for i in range(own.size):
        row = own[i]
        keys[row, 0] = _key(0, row)
        proven[i] = False
        for place in range(1, keys.shape[1]):
            proven[i] = place >= k and bounds[i, place] >= _distance(keys[row, k - 1])
            if proven[i]:
                keys[row, place:] = nobody
                break
            index = _index(keys[row, place])
            key = nobody
            if index < x.shape[0] and index != row:
                key = _key(_squared_gap(x[row], x[index]), index)
            free = place
            while free > 1 and keys[row, free - 1] > key:
                keys[row, free] = keys[row, free - 1]
                free -= 1
            keys[row, free] = key
        proven[i] |= bounds[i, -1] >= _distance(keys[row, k - 1])


@compiled()
def settle(x: Any, keys: Any, k: int, tolerance: Any, low: int, high: int) -> None:
    """Decide near ties by distances in float64; give the vector itself its place by index, within k."""
    kept = keys.shape[1]
    for row in range(low, high):
        start = 0
        while start < kept:
            stop = start + 1
            while stop < kept and _distance(keys[row, stop]) - _distance(keys[row, stop - 1]) <= tolerance:
                stop += 1
            if stop - start > 1:
                _settle_run(x, keys[row, start:stop], row)
            start = stop
        if not (keys[row, :k] & np.uint64(0xFFFFFFFF) == np.uint64(row)).any():
            keys[row, k - 1] = _key(0, row)


@compiled()
def _settle_run(x: Any, keys: Any, row: int) -> None:
    """Order a few keys of ``row`` by distance in float64, then by index. To compile a sort takes seconds."""
    exact, indices = np.empty(keys.size, dtype=np.float64), np.empty(keys.size, dtype=np.int64)
    for place in range(keys.size):
        index, distance = _index(keys[place]), 0.0
        for column in range(x.shape[1]):
            gap = np.float64(x[row, column]) - np.float64(x[index, column])
            distance += gap * gap
        free = place
        while free > 0 and (distance, index) < (exact[free - 1], indices[free - 1]):
            exact[free], indices[free] = exact[free - 1], indices[free - 1]
            free -= 1
        exact[free], indices[free] = distance, index
    for place in range(keys.size):
        keys[place] = _key(exact[place], indices[place])
