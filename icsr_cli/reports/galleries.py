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
    """One image of a gallery; ``state`` is a method's word, ``lines`` its caption, ``moved`` frames it."""

    path: str
    picture: Thumbnail | None
    state: str
    mark: str
    lines: tuple[str, ...]
    moved: bool = False


@dataclass(frozen=True)
class Gallery:
    """Images under one heading, in groups (title, images); ``left_out`` are not shown."""

    anchor: str
    title: str
    facts: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Shown, ...]], ...]
    left_out: int


def shown(
    path: str, pictures: Pictures | None, state: str, lines: Sequence[str], *, moved: bool = False
) -> Shown:
    """Give an image its picture, mark and caption; empty lines are left out."""
    picture = pictures.get(path) if pictures is not None else None
    return Shown(path, picture, state, mark_and_word(state)[0], tuple(filter(None, lines)), moved)


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


def sampled(kinds: Sequence[tuple[str, ...]], count: int) -> npt.NDArray[np.intp]:
    """Choose ``count`` places so that every kind (camera and state, for instance) has its turn.

    Kinds take turns, each giving its images evenly spaced; all where there are no more than ``count``.
    """
    places: dict[tuple[str, ...], list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    shares = _shares([len(own) for own in places.values()], count)
    chosen = [
        spread(np.array(own), share) for own, share in zip(places.values(), shares, strict=True) if share
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.intp)


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Divide ``count`` among kinds of these sizes, as equally as they allow."""
    shares, left = [0] * len(sizes), count
    for done, place in enumerate(sorted(range(len(sizes)), key=lambda place: sizes[place])):
        shares[place] = min(sizes[place], left // (len(sizes) - done))
        left -= shares[place]
    return shares


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
