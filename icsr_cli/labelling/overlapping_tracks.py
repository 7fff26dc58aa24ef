"""Two tracks of one camera that overlap in time are different people: pairs that cost nobody a look."""

import numpy as np

from icsr_cli.labelling.constraints import groups_of
from icsr_cli.types import NO_CLUSTER, NO_TRACK, IntArray, Pairs


def overlapping_tracks(cameras: IntArray, local: IntArray, tracks: IntArray, frames: IntArray) -> IntArray:
    """Give a pair of images for any two tracks that overlap in time under one camera: int64 (m, 2).

    Each track is spoken for by the image in the middle of its time; the parts of a track that local labels
    have divided are tracks of their own. What local labels have joined is not told apart.
    All are int64 (n,), with -1 for images without one of the last three.
    """
    rows = np.flatnonzero((local != NO_CLUSTER) & (tracks != NO_TRACK) & (frames != NO_TRACK))
    if not len(rows):
        return np.empty((0, 2), dtype=np.int64)
    parts, part = np.unique(np.column_stack([cameras, local, tracks])[rows], axis=0, return_inverse=True)
    order = np.lexsort((frames[rows], part.ravel()))
    sizes = np.bincount(part.ravel())
    starts = np.cumsum(sizes) - sizes
    in_time = rows[order]
    middle, first, last = (in_time[starts + step] for step in ((sizes - 1) // 2, 0, sizes - 1))
    # By camera and beginning: a part overlaps with those that follow until one begins after its end.
    queue = np.lexsort((frames[first], parts[:, 0]))
    camera, begins, ends = parts[queue, 0], frames[first][queue], frames[last][queue]
    moments = np.unique(np.concatenate([begins, ends]), return_inverse=True)[1].reshape(2, -1)
    shift = camera * (int(moments.max()) + 1)
    until = np.searchsorted(shift + moments[0], shift + moments[1], side="right")
    counts = until - np.arange(len(queue)) - 1
    one = np.repeat(np.arange(len(queue)), counts)
    two = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    differ = parts[queue[one], 1] != parts[queue[two], 1]
    return np.column_stack([middle[queue[one[differ]]], middle[queue[two[differ]]]])


def tell_apart(known: Pairs | None, different: IntArray, n: int) -> Pairs | None:
    """Add pairs (m, 2) of n images that differ, but for those that what is ``known`` contradicts."""
    if not len(different):
        return known
    if known is None:
        return Pairs(np.empty((0, 2), dtype=np.int64), different)
    groups = groups_of(known, n)
    apart = different[groups[different[:, 0]] != groups[different[:, 1]]]
    return Pairs(known.same, np.concatenate([known.different, apart]))
