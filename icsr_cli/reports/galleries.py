"""Images under one heading, as the pages of labels show them: picture, mark, and a few words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from icsr_cli.reports.pictures import Pictures, Thumbnail
from icsr_cli.runs.labels import KEPT

Row = TypeVar("Row")


@dataclass(frozen=True)
class Look:
    """How the state of an image is shown: colour alone is not enough, so it has a mark too.

    ``kind`` is a class of the style sheet, and ``meaning`` what all states of that kind have in common.
    """

    state: str
    kind: str
    mark: str
    meaning: str

    @property
    def word(self) -> str:
        """The state as it is read."""
        return word_of(self.state)


def word_of(state: str) -> str:
    """Give a state, which is a word of the method's own, as it is read."""
    return state.replace("-", " ")


def look(state: str, fate: str) -> Look:
    """Give the look of an image: of its state by name, and of its fate (``label_report.fates``) by kind."""
    if fate == "noise":
        return Look(state, "loose", "○", "in no cluster")
    if fate == "thrown_out":
        return Look(state, "out", "✕", "taken out of the cluster it was found in")
    if state == KEPT[0]:
        return Look(state, "plain", "", "in its cluster")
    return Look(state, "chosen", "★", "in a cluster, and marked by the method")


@dataclass(frozen=True)
class Shown:
    """One image of a gallery; ``lines`` are its caption, ``moved`` frames it."""

    path: str
    picture: Thumbnail | None
    look: Look
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

    @property
    def looks(self) -> list[Look]:
        """The looks of the images that are shown."""
        return [image.look for _, images in self.groups for image in images]


def shown(
    path: str, pictures: Pictures | None, how: Look, lines: Sequence[str], *, moved: bool = False
) -> Shown:
    """Give an image its picture, mark and caption; empty lines are left out."""
    picture = pictures.get(path) if pictures is not None else None
    return Shown(path, picture, how, tuple(filter(None, lines)), moved)


def grouped(
    rows: Sequence[Row], heading: Callable[[Row], str], show: Callable[[Row], Shown]
) -> tuple[tuple[str, tuple[Shown, ...]], ...]:
    """Put rows that follow each other under one heading into one group."""
    return tuple((name, tuple(show(row) for row in group)) for name, group in groupby(rows, heading))


def spread(places: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Choose ``count`` of ``places`` (n,) evenly, first and last among them; all where there are no more."""
    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).round().astype(np.intp)]


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
