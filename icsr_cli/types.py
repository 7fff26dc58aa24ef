"""Frozen records the rooms exchange. Numpy only: importing this is fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
DoubleArray: TypeAlias = npt.NDArray[np.float64]
#: Uint8 (..., h, w, 3), RGB.
PixelArray: TypeAlias = npt.NDArray[np.uint8]
#: Of named fields.
Records: TypeAlias = npt.NDArray[np.void]

T = TypeVar("T")

#: The identity of an image that nobody has named.
UNKNOWN_IDENTITY: Final = -1
#: The label of an image that is in no cluster: noise, or thrown out by the refinement.
NO_CLUSTER: Final = -1
#: The track of an image that belongs to none, and the frame of one whose time is unknown.
NO_TRACK: Final = -1

#: Height and width, in pixels.
Size: TypeAlias = tuple[int, int]
Three: TypeAlias = "tuple[float, float, float]"


@dataclass(frozen=True, slots=True)
class PixelNorm:
    """What a network's pixels are normalised by, (x / 255 - mean) / std: three numbers each, for R, G and B.

    Raises ValueError for a mean outside 0 to 1, a standard deviation outside 0 (not reached) to 1.
    """

    mean: Three
    std: Three

    def __post_init__(self) -> None:
        for name, values, low in (("mean", self.mean, 0.0), ("std", self.std, 1e-3)):
            if len(values) != 3 or not all(low <= value <= 1 for value in values):
                raise ValueError(f"{name}: expected three numbers from {low:g} to 1, got {values}")

    @property
    def name(self) -> str:
        """Give its name among ``PIXEL_NORMS``, or ``own``."""
        return next((name for name, norm in PIXEL_NORMS.items() if norm == self), "own")


#: By name. ``luperson``: of the unlabelled people of LUPerson (arXiv 2012.03753).
PIXEL_NORMS: Final = {
    "imagenet": PixelNorm((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": PixelNorm((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": PixelNorm((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "luperson": PixelNorm((0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505)),
}
IMAGENET: Final = PIXEL_NORMS["imagenet"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: where it is, which camera took it, who is on it, and when.

    ``path`` is POSIX, relative to the data set's root. ``camera`` counts from 0.
    ``identity`` is the data set's own number, or ``UNKNOWN_IDENTITY``. ``track`` numbers what a tracker took
    for one person under one camera, once in the whole data set; ``frame`` orders the images of a camera in
    time, in frames or any other whole unit. Both are ``NO_TRACK`` where nobody knows.
    """

    path: str
    camera: int
    identity: int = UNKNOWN_IDENTITY
    track: int = NO_TRACK
    frame: int = NO_TRACK


@dataclass(frozen=True)
class Split:
    """Images of one part of a data set (``train``, ``query``, ``gallery``), in a fixed order."""

    root: Path
    records: tuple[ImageRecord, ...]

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def cameras(self) -> IntArray:
        """int64 (n,), from 0."""
        return np.array([record.camera for record in self.records], dtype=np.int64)

    @cached_property
    def identities(self) -> IntArray:
        """int64 (n,), ``UNKNOWN_IDENTITY`` where nobody knows."""
        return np.array([record.identity for record in self.records], dtype=np.int64)

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each image."""
        return tuple(record.path for record in self.records)

    @property
    def has_identities(self) -> bool:
        """Whether at least one image has a known identity."""
        return bool((self.identities != UNKNOWN_IDENTITY).any())

    @cached_property
    def tracks(self) -> IntArray:
        """int64 (n,), a number once in the data set, ``NO_TRACK`` where there is none."""
        return np.array([record.track for record in self.records], dtype=np.int64)

    @cached_property
    def frames(self) -> IntArray:
        """int64 (n,), in order of time within a camera, ``NO_TRACK`` where nobody knows."""
        return np.array([record.frame for record in self.records], dtype=np.int64)

    @property
    def has_tracks(self) -> bool:
        """Whether at least one image belongs to a track."""
        return bool((self.tracks != NO_TRACK).any())

    def when(self, rows: npt.NDArray[np.integer[Any]] | None = None) -> dict[str, IntArray | None]:
        """Give tracks and frames of the images at ``rows`` (all by default), None where nobody knows any."""
        chosen = slice(None) if rows is None else rows
        known = {"tracks": self.tracks, "frames": self.frames}
        return {name: found[chosen] if (found != NO_TRACK).any() else None for name, found in known.items()}

    def select(self, rows: npt.NDArray[np.integer[Any]] | Sequence[int]) -> Split:
        """Give the split of the images at ``rows``, int (m,), in that order."""
        return Split(self.root, tuple(self.records[int(row)] for row in rows))


@dataclass(frozen=True)
class Dataset:
    """A prepared data set: its splits, and the name of each camera (index = camera number).

    ``layout`` names the reader it came from: a published data set, ``synthetic``, ``folder``, or ``plugin``,
    a file of the user's own. ``settings``: those of a run that differ for it, the size of its images among
    them.
    """

    name: str
    root: Path
    splits: dict[str, Split]
    camera_names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    layout: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> Split:
        """The images to train on."""
        return self.splits["train"]

    @property
    def n_cameras(self) -> int:
        """Cameras that took an image of any split; a layout may have names for more."""
        return len(set().union(*(np.unique(split.cameras).tolist() for split in self.splits.values())))

    @property
    def untested(self) -> tuple[str, ...]:
        """Those of ``query`` and ``gallery`` without an image: there is nothing to evaluate on then."""
        return tuple(name for name in ("query", "gallery") if not len(self.splits.get(name, ())))


@dataclass(frozen=True)
class Neighbours:
    """k nearest neighbours of n vectors, nearest first, the vector itself included.

    ``indices`` int (n, k) and ``distances`` float32 (n, k) are numpy arrays or torch tensors,
    the kind the features came in. ``cosine``: whether the distances are 1 - x·y of unit vectors; None where
    nobody says.
    """

    indices: Any
    distances: Any
    cosine: bool | None = None

    @property
    def k(self) -> int:
        """Columns: neighbours per vector."""
        return int(self.indices.shape[1])

    def first(self, k: int) -> Neighbours:
        """Give the k nearest of them; a vector of more than k copies takes the last place among its own."""
        indices, distances = self.indices[:, :k], self.distances[:, :k]
        own = (indices[:, 0] * 0 + 1).cumsum(0) - 1  # 0 to n - 1, a tensor where the indices are one
        lost = (indices != own[:, None]).all(1)
        if lost.any():
            indices, distances = deepcopy((indices, distances))
            indices[lost, -1], distances[lost, -1] = own[lost], 0
        return Neighbours(indices, distances, self.cosine)

    def __len__(self) -> int:
        return int(self.indices.shape[0])


@dataclass(frozen=True)
class Labels:
    """What the label chain says of n images.

    ``clusters`` int64 (n,): the clustering before the refiners, -1 for noise. ``labels`` int64 (n,): what
    the network is trained on, 0..m-1 in order of first appearance, -1 for none. ``states`` (n,): what became
    of each image, in one word of the method's own. ``columns``: further facts of each image, float32 or
    int64 (n,). ``figures``: what ``metrics.jsonl`` is to hold. ``soft``: sparse (n, m), where a method gives
    shares. ``notes``: what the user should know of this epoch.
    """

    clusters: IntArray
    labels: IntArray
    states: npt.NDArray[np.str_]
    columns: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    soft: Any = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, clusters: IntArray) -> Labels:
        """Give the labels of a clustering, int64 (n,), that nobody has refined: ``kept``, or ``noise``."""
        return cls(clusters, clusters, np.where(clusters == NO_CLUSTER, "noise", "kept"))

    @property
    def n_clusters(self) -> int:
        """Clusters that are trained on."""
        return int(self.labels.max(initial=NO_CLUSTER)) + 1

    def marked(self, *marks: tuple[Any, str]) -> npt.NDArray[np.str_]:
        """Give the states (n,) with a word at some rows, a mask (n,) or numbers (m,); a later mark wins."""
        states = self.states.astype(object)  # a numpy string would be cut to the longest there was
        for rows, word in marks:
            states[rows] = word
        return states.astype(str)


@dataclass(frozen=True)
class Pairs:
    """What somebody said of pairs of images: that they show one person, or two.

    ``same``, ``different``: int64 (m, 2), numbers of images, in any order; ``unsure`` too, of which nothing
    follows and nobody need ask.
    """

    same: IntArray
    different: IntArray
    unsure: IntArray = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.same) + len(self.different)


@dataclass(frozen=True)
class Team:
    """Processes that compute one thing together, each its share; all ask the same in the same order.

    ``size``: how many there are; ``rank``: which of them this is, the first, 0, leads. This is the team of a
    process that computes alone.
    """

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> tuple[int, int]:
        """Give first and end of this process's stretch of n things."""
        return 0, n

    def join(self, part: T) -> list[T]:
        """Give what all of them have, in order, to all."""
        return [part]

    def to_leader(self, part: T) -> list[T]:
        """Give what all of them have, in order, to the leader; nothing to the others."""
        return [part]


ALONE: Final = Team()


class Evidence(Protocol):
    """What is known of n images, each thing computed once, when it is first asked for."""

    @property
    def cameras(self) -> IntArray | None:
        """Camera of each image, (n,) from 0; None where nobody has said."""

    @property
    def local(self) -> IntArray | None:
        """Local cluster of each image, (n,), numbered camera by camera, -1 for none."""

    @property
    def tracks(self) -> IntArray | None:
        """Track of each image, (n,), -1 for none."""

    @property
    def frames(self) -> IntArray | None:
        """Place of each image in its camera's time, (n,), -1 where nobody knows."""

    @property
    def previous(self) -> IntArray | None:
        """The labels of the epoch before, (n,)."""

    @property
    def pairs(self) -> Pairs | None:
        """What somebody said of pairs of images; the labels obey it. None where nobody has said anything."""

    @property
    def team(self) -> Team:
        """The processes that compute neighbours and similarity together."""

    @property
    def features(self) -> Any:
        """Features for the labels, float32 (n, d), numpy or torch; unit where they are normalised."""

    @property
    def least(self) -> float:
        """The smallest similarity that is wanted, 0 to 1: pairs below it need not be stored."""

    @property
    def similarity(self) -> Any:
        """1 - distance, ``scipy.sparse.csr_array`` float32 (n, n): symmetric, canonical, 0 to 1."""

    def neighbours(self, k: int) -> Neighbours:
        """Give the k nearest by cosine, (n, k), the image itself included; all n where there are fewer."""

    def means(self, groups: IntArray) -> Evidence:
        """Give the evidence of groups 0..m-1 of the images, (n,), by their mean features; -1 is in none."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Epoch:
    """What a memory is built from: n images, their features and their labels.

    ``features`` float32 (n, d) tensor, on the device; ``cameras`` int64 (n,). Images are asked for by their
    number here, 0 to n - 1.
    """

    number: int
    features: Any
    cameras: IntArray
    labels: Labels


def most_frequent(groups: IntArray, values: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Give the groups among int64 (n,) in order, and of each the value it has most often, and how often.

    Of values that come as often, the lowest. ``values`` int64 (n,).
    """
    pairs, counts = np.unique(np.column_stack([groups, values]), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    found, first = np.unique(pairs[order, 0], return_index=True)
    best = order[first]
    return found, pairs[best, 1], counts[best]


def number_rows(*columns: npt.NDArray[Any]) -> IntArray:
    """Give each distinct row of some columns (n,) a number, from 0 in the order of rows: int64 (n,)."""
    numbers = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:  # one after the other: to sort whole rows takes longer
        values, places = np.unique(column, return_inverse=True)
        numbers = np.unique(numbers * len(values) + places, return_inverse=True)[1].astype(np.int64)
    return numbers


def by_first_appearance(labels: IntArray, min_size: int = 1) -> IntArray:
    """Renumber clusters, int64 (n,), as 0, 1, ... in the order in which they first appear; -1 stays.

    Clusters of fewer than ``min_size`` become noise.
    """
    kept = labels != NO_CLUSTER
    _, first, inverse, sizes = np.unique(
        labels[kept], return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    order = order[sizes[order] >= min_size]
    rank = np.full(len(first), NO_CLUSTER, dtype=np.int64)
    rank[order] = np.arange(len(order))
    result = np.full(len(labels), NO_CLUSTER, dtype=np.int64)
    result[kept] = rank[inverse]
    return result
