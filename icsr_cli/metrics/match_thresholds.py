"""Which distance tells the same person from another: a threshold for those who must decide.

Pairs are those of the protocol: an image of the query's person under its own camera does not count, nor does
an image of unknown identity, be it a query or of the gallery.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from icsr_cli.checks import as_numpy
from icsr_cli.threads import blocks
from icsr_cli.types import UNKNOWN_IDENTITY, FloatArray, IntArray

#: Euclidean distances of unit vectors lie from 0 to 2; a threshold is exact to one of so many steps.
_STEPS: Final = 1 << 15
_BLOCK: Final = 1 << 24
FALSE_RATES: Final = (0.01, 0.001)


@dataclass(frozen=True)
class Threshold:
    """A distance, and the shares of true and of false pairs that are not farther apart."""

    name: str
    distance: float
    true_rate: float
    false_rate: float
    f1: float


def thresholds(
    query: Any,
    gallery: Any,
    query_ids: IntArray,
    gallery_ids: IntArray,
    query_cameras: IntArray,
    gallery_cameras: IntArray,
) -> list[Threshold]:
    """Find the distances of 1 and 0.1 percent false matches, and that of the best F1.

    ``query`` (q, d) and ``gallery`` (g, d): unit float, numpy or torch. ``*_ids`` and ``*_cameras``: int, one
    per image, from the data set.

    Returns:
        Thresholds on the Euclidean distance of unit vectors; none where no pair is true, or none false.
    """
    ids, cameras = (query_ids, gallery_ids), (query_cameras, gallery_cameras)
    queries, images = (as_numpy(of).astype(np.float32, copy=False) for of in (query, gallery))
    true, false = _histograms(queries, images, ids, cameras)
    if not true.sum() or not false.sum():
        return []
    found_true, found_false = np.cumsum(true), np.cumsum(false)
    true_rate, false_rate = found_true / found_true[-1], found_false / found_false[-1]
    f1 = 2 * found_true / np.maximum(found_true + found_false + found_true[-1], 1)
    places = {
        f"{100 * rate:g} % false": int(np.searchsorted(false_rate, rate, side="right")) - 1
        for rate in FALSE_RATES
    }
    places["best F1"] = int(f1.argmax())
    rates = [np.append(values, 0.0) for values in (true_rate, false_rate, f1)]  # the last is that of none
    return [
        Threshold(name, (place + 1) * 2 / _STEPS, *(float(values[place]) for values in rates))
        for name, place in places.items()
    ]


def _histograms(
    query: FloatArray, gallery: FloatArray, ids: tuple[IntArray, IntArray], cameras: tuple[IntArray, IntArray]
) -> IntArray:
    """Count true and false pairs by their distance: int64 (2, steps)."""
    counts = np.zeros((2, _STEPS), dtype=np.int64)
    queries, known = (of != UNKNOWN_IDENTITY for of in ids)
    for rows in blocks(len(query), len(gallery), _BLOCK):
        squared = np.maximum(2 - 2 * (query[rows] @ gallery.T), 0)
        place = np.minimum((np.sqrt(squared) * (_STEPS / 2)).astype(np.int64), _STEPS - 1)
        same, own = (of[0][rows, None] == of[1] for of in (ids, cameras))
        counted = queries[rows, None] & known
        for kind, mask in enumerate((same & ~own & counted, ~same & counted)):
            counts[kind] += np.bincount(place[mask], minlength=_STEPS)
    return counts
