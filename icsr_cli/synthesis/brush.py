"""Soft-edged shapes over a whole batch of pictures at once.

Arrays are float32 with the batch last, so that one picture's numbers are strided and the batch's are
next to each other: a canvas is (3, rows, columns, batch), something per row (rows, 1, batch), per
column (1, columns, batch), per picture (batch,). Only +, -, x, /, square root, minimum and maximum are
used, which IEEE 754 fixes to the last bit: the same numbers come on every machine.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

#: float32 all along; numpy's stubs lose the precision where a Python number comes in.
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Value: TypeAlias = "Floats | np.floating[Any] | float"


def ramp(value: Floats, begin: Value, end: Value) -> Floats:
    """Give 0 before ``begin``, 1 after ``end``, and a straight line between."""
    result: Floats = (value - begin) / (end - begin)
    np.maximum(result, 0, out=result)
    np.minimum(result, 1, out=result)
    return result


def polyline(value: Floats, knots: list[tuple[Value, Value]]) -> Floats:
    """Give the height of the line through ``knots`` (position, height), flat before and after."""
    (position, height), *rest = knots
    result = np.zeros_like(value) + height
    for next_position, next_height in rest:
        result += ramp(value, position, next_position) * (next_height - height)
        position, height = next_position, next_height
    return result


def bump(value: Floats, centre: Value, radius: Value) -> Floats:
    """Give the half-chord of an ellipse of radius 1 at ``value``: sqrt(1 - ((value - centre) / r)^2)."""
    position = (value - centre) / radius
    chord: Floats = np.sqrt(np.maximum(1 - position * position, 0))
    return chord


def triangle_wave(value: Floats) -> Floats:
    """Give a wave of period 1 between -1 and 1, made of straight lines."""
    wave: Floats = 4 * np.abs(value - np.floor(value) - 0.5) - 1
    return wave


@dataclass
class Canvas:
    """Pictures being painted, in the coordinates of the body that stands in each of them.

    ``pixels`` (3, rows, columns, batch), 0 to 1. ``x`` (1, columns, batch) and ``y`` (rows, 1, batch)
    are body heights, from the middle of the body and from the top of the head. ``size`` (batch,) is the
    body's height in pixels.
    """

    pixels: Floats
    x: Floats
    y: Floats
    size: Floats

    def rows(self, top: Value, bottom: Value) -> slice:
        """Give the rows that lie between ``top`` and ``bottom`` in at least one picture."""
        inside = ((self.y > top - 1.5 / self.size) & (self.y < bottom + 1.5 / self.size)).any(axis=(1, 2))
        found = np.flatnonzero(inside)
        return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)

    def mask(
        self, rows: slice, centre: Value, half_width: Value, top: Value, bottom: Value, alpha: Value = 1.0
    ) -> Floats:
        """Give how much of each pixel a shape covers, (rows, columns, batch).

        The shape reaches ``half_width`` (per row or picture) to both sides of ``centre``, from ``top`` to
        ``bottom``; its edges are one pixel soft. Where ``half_width`` is not positive there is nothing.
        """
        y = self.y[rows]
        cover: Floats = np.minimum((y - top) * self.size, (bottom - y) * self.size) + np.float32(0.5)
        cover = np.minimum(np.maximum(cover, 0), 1) * alpha
        wide = np.asarray(half_width, np.float32) * self.size
        cover = np.where(wide > 0, cover, np.float32(0)).astype(np.float32, copy=False)
        area: Floats = (self.x * self.size) - (np.asarray(centre, np.float32) * self.size)
        np.abs(area, out=area)
        area = (wide + np.float32(0.5)) - area
        area = np.minimum(area, cover)
        return np.maximum(area, 0, out=area)

    def fill(self, rows: slice, mask: Floats, colour: Floats) -> None:
        """Lay ``colour``, broadcastable to (3, rows, columns, batch), over the rows where ``mask`` is."""
        under = self.pixels[:, rows]
        change = colour - under
        change *= mask
        under += change

    def shape(
        self, top: Value, bottom: Value, centre: Value, half_width: Value, colour: Floats, alpha: Value = 1.0
    ) -> None:
        """Paint a shape of one colour, (3, batch); ``centre`` and ``half_width`` per picture."""
        rows = self.rows(top, bottom)
        self.fill(rows, self.mask(rows, centre, half_width, top, bottom, alpha), colour[:, None, None])

    def ellipse(
        self, middle: Value, tall: Value, centre: Value, wide: Value, colour: Floats, alpha: Value = 1.0
    ) -> None:
        """Paint an ellipse of radii ``wide`` and ``tall`` around (``centre``, ``middle``)."""
        top, bottom = middle - tall, middle + tall
        rows = self.rows(top, bottom)
        chord = wide * bump(self.y[rows], middle, tall)
        self.fill(rows, self.mask(rows, centre, chord, top, bottom, alpha), colour[:, None, None])
