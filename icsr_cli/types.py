"""Frozen records the rooms exchange. Numpy only: importing this is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: The identity of an image that nobody has named.
UNKNOWN_IDENTITY: Final = -1
#: The label of an image that is in no cluster: noise, or thrown out by the refinement.
NO_CLUSTER: Final = -1


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: where it is, which camera took it, who is on it.

    ``path`` is POSIX, relative to the data set's root. ``camera`` counts from 0.
    ``identity`` is the data set's own number, or ``UNKNOWN_IDENTITY``.
    """

    path: str
    camera: int
    identity: int = UNKNOWN_IDENTITY


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
    def has_identities(self) -> bool:
        """Whether at least one image has a known identity."""
        return bool((self.identities != UNKNOWN_IDENTITY).any())

    def select(self, rows: npt.NDArray[np.integer[Any]] | Sequence[int]) -> Split:
        """Give the split of the images at ``rows``, in that order."""
        return Split(self.root, tuple(self.records[int(row)] for row in rows))


@dataclass(frozen=True)
class Dataset:
    """A prepared data set: its splits, and the name of each camera (index = camera number).

    ``layout`` names the reader it came from: a published data set, ``synthetic`` or ``folder``.
    """

    name: str
    root: Path
    splits: dict[str, Split]
    camera_names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    layout: str = ""

    @property
    def train(self) -> Split:
        """The images to train on."""
        return self.splits["train"]


@dataclass(frozen=True)
class Neighbours:
    """k nearest neighbours of n vectors, nearest first, the vector itself included.

    ``indices`` int (n, k) and ``distances`` float32 (n, k) are numpy arrays or torch tensors,
    the kind the features came in.
    """

    indices: Any
    distances: Any

    @property
    def k(self) -> int:
        """Columns: neighbours per vector."""
        return int(self.indices.shape[1])

    def __len__(self) -> int:
        return int(self.indices.shape[0])


@dataclass(frozen=True)
class Refinement:
    """What the refinement made of a clustering.

    ``labels`` int64 (n,): clusters 0..m-1 in order of first appearance, -1 for noise and thrown out.
    ``discarded`` bool (n,): the images that were thrown out.
    """

    labels: IntArray
    discarded: BoolArray

    def __iter__(self) -> Any:
        return iter((self.labels, self.discarded))
