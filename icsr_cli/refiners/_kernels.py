"""Compiled parts of the refiners."""

from typing import Any

import numpy as np

from icsr_cli.compilation import compiled, find


@compiled()
def join_apart(first: Any, second: Any, cameras: Any, n_cameras: int) -> Any:
    """Join nodes pair by pair, unless both sides hold a node of one camera by then: roots, int64 (k,).

    ``first``, ``second`` int (m,): pairs of nodes, in order; ``cameras`` int64 (k,), -1 for nodes that stand
    in nobody's way.
    """
    above = np.arange(cameras.size)
    seen = np.zeros((cameras.size, n_cameras), dtype=np.bool_)
    for node in range(cameras.size):
        if cameras[node] >= 0:
            seen[node, cameras[node]] = True
    for pair in range(first.size):
        one, two = find(above, first[pair]), find(above, second[pair])
        if one != two and not np.any(seen[one] & seen[two]):
            above[two] = one
            seen[one] |= seen[two]
    for node in range(cameras.size):
        above[node] = find(above, node)
    return above
