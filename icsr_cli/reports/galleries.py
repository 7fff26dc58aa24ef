"""Images under one heading, as the pages of labels show them: picture, mark, and a few words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from icsr_cli.reports.pictures import Pictures, Thumbnail

Row = TypeVar("Row")

#: How a state is written and marked: colour alone is not enough.
_STATES: Final = {
    "kept": ("", "kept"),
    "node": ("★", "info node"),
    "discarded": ("✕", "thrown out"),
    "noise": ("○", "noise"),
}


def mark_and_word(state: str) -> tuple[str, str]:
    """Give the mark and the words of a state; one that is unknown speaks for itself."""
    return _STATES.get(state, ("✕", state.replace("-", " ")))


@dataclass(frozen=True)
class Shown:
    """One image of a gallery; ``state`` is a method's word, ``lines`` its caption."""

    path: str
    picture: Thumbnail | None
    state: str
    mark: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Images under one heading, in groups (title, images); ``left_out`` are not shown."""

    anchor: str
    title: str
    facts: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Shown, ...]], ...]
    left_out: int


def shown(
    path: str, pictures: Pictures | None, state: str, camera: str, said: str, identity: int | None
) -> Shown:
    """Give an image its picture, mark and caption: camera, what is ``said`` of it, identity if known."""
    lines = (camera, said, *([] if identity is None else [f"id {identity}"]))
    picture = pictures.get(path) if pictures is not None else None
    return Shown(path, picture, state, mark_and_word(state)[0], lines)


def grouped(
    rows: Sequence[Row], heading: Callable[[Row], str], show: Callable[[Row], Shown]
) -> tuple[tuple[str, tuple[Shown, ...]], ...]:
    """Put rows that follow each other under one heading into one group."""
    return tuple((name, tuple(show(row) for row in group)) for name, group in groupby(rows, heading))


def spread(places: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Choose ``count`` of ``places`` evenly, first and last among them; all where there are no more."""
    if len(places) <= count:
        return places
    chosen: npt.NDArray[np.intp] = places[np.linspace(0, len(places) - 1, count).round().astype(np.intp)]
    return chosen


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
