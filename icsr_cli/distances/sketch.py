"""Vectors by fewer numbers: where they lie along the directions of most spread, and how far off those."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from icsr_cli.distances.features import squared_lengths
from icsr_cli.distances.rough import CHUNK, ROUNDING, Rough
from icsr_cli.threads import blocks
from icsr_cli.types import FloatArray

#: Vectors from which the directions are taken.
FITTED = 512
#: Numbers along the directions; for how many times as many of a vector they are worth it, and where they
#: hold such a share of the spread.
WIDTHS, WORTH, HOLD = (64, 128, 256), 4, 0.9


def sketches(x: FloatArray) -> Iterator[Rough]:
    """Give sketches of n vectors, float32 (n, d), by more and more numbers.

    The last of them is the length of what is left over, so that two vectors are never nearer than their
    sketches (the triangle inequality in the space that the directions do not span).
    """
    rows = np.random.default_rng(0).choice(len(x), size=min(len(x), FITTED), replace=False)
    centre = x.mean(axis=0)
    some = x[np.sort(rows)] - centre
    spread, directions = (part[..., ::-1] for part in np.linalg.eigh(some @ some.T))
    held = np.cumsum(spread) >= HOLD * spread.sum()
    widths = [width for width in WIDTHS if width * WORTH <= x.shape[1] and held[width - 1 : width].any()]
    if not widths:
        return
    for width in widths:
        yield _sketch(x, centre, np.linalg.qr(some.T @ directions[:, :width])[0])


def _sketch(x: FloatArray, centre: FloatArray, axes: Any) -> Rough:
    """Sketch x along orthonormal axes (d, width)."""
    n, width = len(x), axes.shape[1]
    values, squares = np.empty((n, width + 1), dtype=np.float32), np.empty(n, dtype=np.float32)
    for own in blocks(n, x.shape[1], CHUNK):
        moved = x[own] - centre
        values[own, :width], squares[own] = moved @ axes, squared_lengths(moved)
    left = np.sqrt(np.maximum(squares - squared_lengths(values[:, :width]), 0))
    values[:, width] = left
    # The shorter what is left, the farther off its length is: it comes from a difference of squares.
    off = 4 * np.float32(ROUNDING) * squares
    errors = off / np.maximum(left, np.sqrt(off)).clip(np.float32(1e-30))
    return Rough(values, squared_lengths(values), 1.0, errors + np.float32(ROUNDING) * np.sqrt(squares))
