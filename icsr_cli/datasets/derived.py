"""Tracks where a data set has none: the images of one person that follow each other. It uses names."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from icsr_cli.errors import UsageError
from icsr_cli.types import NO_TRACK, UNKNOWN_IDENTITY, ImageRecord


def derive_tracks(
    splits: Mapping[str, tuple[ImageRecord, ...]], within: int, nobody: Collection[int | None] = ()
) -> dict[str, tuple[ImageRecord, ...]]:
    """Give the splits with tracks: images of one identity and camera, each at most ``within`` frames on.

    A track may reach from one split into another. Images without a frame or an identity, and those of
    identities in ``nobody``, belong to none. Raises UsageError where no image has a frame.
    """
    records = [record for found in splits.values() for record in found]
    table = np.array([(record.camera, record.identity, record.frame) for record in records], dtype=np.int64)
    unnamed = [UNKNOWN_IDENTITY, *(number for number in nobody if number is not None)]
    known = (table[:, 2] != NO_TRACK) & ~np.isin(table[:, 1], unnamed)
    if not known.any():
        raise UsageError("No image has both an identity and a frame: there is nothing to derive tracks from.")
    rows = np.flatnonzero(known)
    rows = rows[np.lexsort(table[rows].T[::-1])]  # by camera, identity, frame
    steps = np.diff(table[rows], axis=0)
    begins = (steps[:, :2] != 0).any(axis=1) | (steps[:, 2] > within)
    tracks = np.full(len(records), NO_TRACK, dtype=np.int64)
    tracks[rows] = np.concatenate([[0], np.cumsum(begins)])
    numbers = iter(tracks.tolist())
    return {
        name: tuple(replace(record, track=next(numbers)) for record in found)
        for name, found in splits.items()
    }
