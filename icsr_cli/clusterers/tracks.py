"""Tracks as clusters, camera by camera: impure ones are split, those of one person are joined.

A tracker follows one person, so a track is a cluster that nobody had to compute. Where it jumps to another
person, the images before and after are less alike than those of one track are: such a track is cut in time.
Where it loses a person, there are two tracks: they are joined by average linkage of their mean features. Two
tracks that overlap in time are different people, and are never joined.

What is alike is told by the tracks themselves, under each camera anew: 1 is how alike images of one track
are in the mean, 0 those of different tracks. Features by which the halves of a track are not clearly more
alike than tracks are by chance join none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from icsr_cli import choices
from icsr_cli.checks import as_numpy
from icsr_cli.clusterers.average_linkage import average_linkage
from icsr_cli.errors import InputError
from icsr_cli.types import (
    NO_CLUSTER,
    NO_TRACK,
    BoolArray,
    Evidence,
    FloatArray,
    IntArray,
    by_first_appearance,
)

#: Images that each part of a cut track has at least: one alone may be an occlusion.
_LEAST = 2
#: Images whose running sums are held at once.
_BLOCK = 4096
#: Tracks that one is compared with, the most similar of its camera.
_CANDIDATES = 20
#: Times that what contradicts itself is clustered once more, each time at half of the distance.
_AGAIN = 6
#: Tracks that are held against all, and how many of their spreads above their middle the halves of one lie.
_ASKED, _CLEARLY = 256, 3.0
#: From so many pairs that overlap, their similarities are a limit for those that are joined.
_ENOUGH = 100


class Options(choices.Options):
    """Where a track is cut, and where two are joined, on the scale from different tracks (0) to one (1).

    Two parts of a track that are less alike than ``split`` are cut (-1: hardly any), two tracks that are more
    alike than ``join`` are joined (2: none).
    """

    split: float = Field(0.5, ge=-1, le=1)
    join: float = Field(0.8, ge=0, le=2)
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})


def cluster(evidence: Evidence, options: Options) -> IntArray:
    """Cluster the tracks of each camera: int64 (n,), -1 for images that belong to none.

    Raises InputError where no image has a track.
    """
    tracks = evidence.tracks
    if tracks is None or not (tracks != NO_TRACK).any():
        raise InputError(
            "The clusterer tracks needs the track of each image, and there is none. Prepare the data set so: "
            "icsr prepare folder --pattern '{camera}/{track}/{name}.jpg'; or take another clusterer."
        )
    cameras = np.zeros(len(tracks), dtype=np.int64) if evidence.cameras is None else evidence.cameras
    found = np.full(len(tracks), NO_CLUSTER, dtype=np.int64)
    used = 0
    for camera in np.unique(cameras):
        rows = np.flatnonzero((cameras == camera) & (tracks != NO_TRACK))
        if len(rows):
            found[rows] = used + _cluster_camera(evidence, rows, options)
            used = int(found[rows].max()) + 1
    return by_first_appearance(found)


def _cluster_camera(evidence: Evidence, rows: IntArray, options: Options) -> IntArray:
    """Cluster the images at ``rows`` of one camera, all of which have a track: int64 (m,), from 0."""
    assert evidence.tracks is not None
    tracks = np.unique(evidence.tracks[rows], return_inverse=True)[1].astype(np.int64)
    times = None if evidence.frames is None else evidence.frames[rows]
    features = as_numpy(evidence.features[rows]).astype(np.float32, copy=False)
    pieces = cut_tracks(features, tracks, times, options.split)
    groups = np.full(len(evidence), NO_CLUSTER, dtype=np.int64)
    groups[rows] = pieces
    high, spans = _half_similarity(features, pieces, times), Spans.of(pieces, times)
    return _join(evidence.means(groups), high, spans, options.join)[pieces]


def cut_tracks(features: FloatArray, tracks: IntArray, times: IntArray | None, split: float) -> IntArray:
    """Cut the tracks of one camera where they change the person: int64 (n,), numbers of their parts from 0.

    Each track is cut in time where the means of its two parts are farthest from each other for their sizes
    (Ward's criterion), if the mean similarity between the parts is nearer to that of different tracks than
    ``split`` of the way to that of one; and so on with the parts. ``features`` unit float32 (n, d),
    ``tracks`` int64 (n,), from 0, ``times`` int64 (n,) or None: images of unknown time keep their order.
    """
    low, high = _levels(features, tracks)
    if not low < high:
        return tracks
    limit = low + split * (high - low)
    parts, before = tracks, -1
    while parts.max() != before:
        before = int(parts.max())
        parts = _cut_once(features, parts, times, limit)
    return by_first_appearance(parts)


def _levels(features: FloatArray, groups: IntArray) -> tuple[float, float]:
    """Give the mean similarity of images of different groups, and of one; equal where one is unknown."""
    sums, sizes = _sums(features, groups)
    squares = (sums * sums).sum(axis=1)
    pairs = sizes * (sizes - 1)
    several = pairs > 0
    others = float(len(groups) ** 2 - (sizes * sizes).sum())
    if not several.any() or others == 0:
        return 0.0, 0.0
    whole = sums.sum(axis=0)
    within = (squares[several] - sizes[several]) / pairs[several]
    return float(whole @ whole - squares.sum()) / others, float(np.average(within, weights=sizes[several]))


def _sums(
    features: FloatArray, groups: IntArray, count: int | None = None
) -> tuple[npt.NDArray[np.float64], IntArray]:
    """Add up the features of each group, float64 (m, d), and count its images."""
    sizes = np.bincount(groups, minlength=count or 0)
    entries = (np.ones(len(groups)), (groups, np.arange(len(groups))))
    return np.asarray(sp.csr_array(entries, shape=(len(sizes), len(groups))) @ features), sizes


def _cut_once(features: FloatArray, tracks: IntArray, times: IntArray | None, limit: float) -> IntArray:
    """Cut each track that falls below ``limit`` once; the second parts have new numbers."""
    order = _in_time(tracks, times)
    sizes = np.bincount(tracks)
    starts = np.cumsum(sizes) - sizes
    result, used = tracks.copy(), len(sizes)
    # Whole tracks, so many that their running sums fit.
    blocks = np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(starts // _BLOCK)) + 1)
    for block in blocks:
        first, last = starts[block[0]], starts[block[-1]] + sizes[block[-1]]
        cuts = _best_cuts(features[order[first:last]], starts[block] - first, sizes[block], limit)
        numbers = used - 1 + np.cumsum(cuts > 0)
        own = np.repeat(np.arange(len(block)), sizes[block])
        place = np.arange(last - first) - (starts[block] - first)[own]
        after = (cuts[own] > 0) & (place >= cuts[own])
        result[order[first:last][after]] = numbers[own[after]]
        used = int(numbers[-1]) + 1
    return result


def _in_time(tracks: IntArray, times: IntArray | None) -> IntArray:
    """Give the images track by track, each in the order of time, then of rows."""
    return np.lexsort((np.arange(len(tracks)) if times is None else times, tracks))


def _best_cuts(features: FloatArray, starts: IntArray, sizes: IntArray, limit: float) -> IntArray:
    """Say after how many images each track is to be cut, 0 for not at all; tracks one after the other."""
    own = np.repeat(np.arange(len(sizes)), sizes)
    running = np.cumsum(features, axis=0, dtype=np.float64)
    total = running[starts + sizes - 1]
    before = np.zeros_like(total)
    before[starts > 0] = running[starts[starts > 0] - 1]
    total = total - before
    running -= before[own]
    done = np.arange(len(own)) - starts[own] + 1
    left = sizes[own] - done
    square = np.einsum("ij,ij->i", running, running)
    across = np.einsum("ij,ij->i", running, total[own]) - square  # first part times second
    rest = (total * total).sum(axis=1)[own] - square - 2 * across
    allowed = (done >= _LEAST) & (left >= _LEAST)
    gain = np.full(len(own), -np.inf)
    one, two = done[allowed], left[allowed]
    gain[allowed] = (
        (square[allowed] / one**2 - 2 * across[allowed] / (one * two) + rest[allowed] / two**2)
        * one
        * two
        / (one + two)
    )
    best = np.lexsort((-gain, own))[starts]
    worth = np.isfinite(gain[best])
    worth[worth] = (across[best] / (done[best] * np.maximum(left[best], 1)))[worth] < limit
    return np.where(worth, done[best], 0)


def _half_similarity(features: FloatArray, pieces: IntArray, times: IntArray | None) -> float:
    """Give the mean cosine between the means of a track's first and second half; nan where none has two.

    It is how alike two tracks of one person are, if they follow each other.
    """
    order = _in_time(pieces, times)
    sizes = np.bincount(pieces)
    place = np.arange(len(pieces)) - (np.cumsum(sizes) - sizes)[pieces[order]]
    halves = np.empty_like(pieces)
    halves[order] = 2 * pieces[order] + (place >= (sizes[pieces[order]] + 1) // 2)
    sums, counts = _sums(features, halves, 2 * len(sizes))
    several = np.flatnonzero(counts[1::2] > 0)
    if not len(several):
        return float("nan")
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return float((sums[::2][several] * sums[1::2][several]).sum(axis=1).mean())


@dataclass(frozen=True)
class Spans:
    """When m tracks of one camera began and ended, as ranks of time: int64 (m,); an unknown one ends at once.

    A track of unknown time begins after it ends: it overlaps with nothing.
    """

    first: IntArray
    last: IntArray

    @classmethod
    def of(cls, tracks: IntArray, times: IntArray | None) -> Spans:
        """Give the spans of tracks (n,) from 0, of images at ``times`` (n,)."""
        count = int(tracks.max()) + 1
        first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
        if times is not None:
            known = times != NO_TRACK
            ranks = np.unique(times[known], return_inverse=True)[1]
            np.minimum.at(first, tracks[known], ranks)
            np.maximum.at(last, tracks[known], ranks)
        return cls(first, last)

    def overlap(self, one: IntArray, two: IntArray) -> BoolArray:
        """Say of p pairs of tracks, numbers int64 (p,), whether both were seen at one time: bool (p,)."""
        return (self.first[one] <= self.last[two]) & (self.first[two] <= self.last[one])

    def contradict(self, clusters: IntArray) -> BoolArray:
        """Say of clusters 0, 1, ... of the tracks, (m,), whether any two tracks in it overlap."""
        known = np.flatnonzero(self.last >= 0)
        order = known[np.lexsort((self.first[known], clusters[known]))]
        own = clusters[order]
        # Ranks of one cluster after those of the one before: the latest end so far is of one's own.
        shift = own * (int(self.last.max(initial=0)) + 1)
        ends = np.maximum.accumulate(self.last[order] + shift)
        bad = (own[1:] == own[:-1]) & (self.first[order][1:] + shift[1:] <= ends[:-1])
        result = np.zeros(int(clusters.max()) + 1, dtype=np.bool_)
        result[own[1:][bad]] = True
        return result


def _knows_people(means: FloatArray, high: float) -> bool:
    """Whether ``high``, how alike the halves of a track are, is clearly more than what chance gives.

    Chance is what most pairs of tracks are like, by their middle and the spread below it: above it lie those
    of one person. ``means``: unit (m, d), of the tracks; some hundred are held against all.
    """
    asked = np.unique(np.linspace(0, len(means) - 1, _ASKED).astype(np.int64))
    alike = means[asked] @ means.T
    others = np.arange(len(means)) != asked[:, None]
    below, middle = np.quantile(
        alike[others], (0.16, 0.5)
    )  # as far as one standard deviation of a normal one
    return bool(high - middle > _CLEARLY * (middle - below))


def _join(tracks: Evidence, high: float, spans: Spans, join: float) -> IntArray:
    """Join m tracks of one camera, by their mean features: int64 (m,), from 0."""
    m = len(tracks)
    alone = np.arange(m)
    if m < 2 or join >= 2:
        return alone
    means = as_numpy(tracks.features).astype(np.float64)
    whole = means.sum(axis=0)
    low = float(whole @ whole - (means * means).sum()) / (m * (m - 1))
    if not (low < high and _knows_people(means, high)):  # also where it is unknown
        return alone
    near = tracks.neighbours(min(m, _CANDIDATES))
    rows = np.repeat(alone, near.k)
    columns, values = as_numpy(near.indices).ravel(), 1 - as_numpy(near.distances).ravel()
    apart = spans.overlap(rows, columns) & (rows != columns)
    limit = max(low + join * (high - low), 0.0)  # beyond a distance of 1 all would be joined
    if apart.sum() >= 2 * _ENOUGH:
        limit = max(limit, float(np.quantile(values[apart], 0.99)))
    kept = ~apart & (values > 0)
    graph = sp.csr_array((np.minimum(values[kept], 1), (rows[kept], columns[kept])), shape=(m, m))
    graph = sp.csr_array(graph.maximum(graph.T))
    found = average_linkage(graph, distance_threshold=max(1 - limit, 1e-6))
    return _obey(graph, found, spans, 1 - limit)


def _obey(graph: sp.csr_array, clusters: IntArray, spans: Spans, distance: float) -> IntArray:
    """Part the clusters in which two tracks overlap, the nearest staying together."""
    for attempt in range(_AGAIN + 1):
        wrong = spans.contradict(clusters)
        if not wrong.any():
            break
        rows = np.flatnonzero(wrong[clusters])
        fresh = np.arange(len(rows))
        if attempt < _AGAIN:
            distance /= 2
            own = sp.coo_array(graph[rows][:, rows])
            one, two = (clusters[rows][ends] for ends in own.coords)
            inside = one == two
            ends = tuple(end[inside] for end in own.coords)
            part = sp.csr_array((own.data[inside], ends), shape=own.shape)
            fresh = average_linkage(part, distance_threshold=max(distance, 1e-6))
        clusters = clusters.copy()
        clusters[rows] = int(clusters.max()) + 1 + fresh
        clusters = by_first_appearance(clusters)
    return clusters
