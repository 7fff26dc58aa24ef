"""Compiled parts of the chain. Matrices come as CSR: starts, columns, and values where there are any."""

from typing import Any

import numpy as np

from icsr_cli.compilation import compiled


@compiled()
def seed_sides(
    order: Any,
    clusters: Any,
    conflict_starts: Any,
    conflict_columns: Any,
    starts: Any,
    columns: Any,
    values: Any,
    sizes: Any,
) -> Any:
    """Give the side of each node of ``order`` (clusters one after the other), int64 (k,), -1 for the rest.

    Among the sides of its cluster that hold no node in conflict with it, a node goes to the one of the
    highest mean similarity (the first on a tie); where there is none, it opens a new one.
    """
    sides = np.full(clusters.size, -1, dtype=np.int64)
    forbidden = np.full(order.size, -1, dtype=np.int64)
    sums, images = np.zeros(order.size), np.zeros(order.size)
    current, first, count = -1, 0, 0
    for node in order:
        if clusters[node] != current:
            current, first = clusters[node], count
        for entry in range(conflict_starts[node], conflict_starts[node + 1]):
            side = sides[conflict_columns[entry]]
            if side >= 0:
                forbidden[side] = node
        for entry in range(starts[node], starts[node + 1]):
            side = sides[columns[entry]]
            if side >= 0:
                sums[side] += values[entry]
        best, best_value = -1, -1.0
        for side in range(first, count):
            if forbidden[side] != node and sums[side] / images[side] > best_value:
                best, best_value = side, sums[side] / images[side]
            sums[side] = 0
        if best < 0:
            best = count
            count += 1
        sides[node] = best
        images[best] += sizes[node]
    return sides
