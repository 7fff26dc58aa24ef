"""Tracks that overlap in time, as pairs of images that differ."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.labelling.overlapping_tracks import overlapping_tracks, tell_apart
from icsr_cli.types import Pairs


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_against_every_pair_of_tracks(seed):
    rng = np.random.default_rng(seed)
    tracks = rng.integers(-1, 10, 60)
    cameras = np.where(tracks < 0, 0, tracks % 3)
    # Local labels join tracks of a camera (0 and 3), and divide some.
    local = np.where(rng.random(60) < 0.1, -1, tracks // 4 + (rng.random(60) < 0.1))
    frames = np.where(rng.random(60) < 0.2, -1, rng.integers(0, 50, 10)[tracks] + rng.integers(0, 12, 60))
    found = overlapping_tracks(cameras, local, tracks, frames)
    known = (local >= 0) & (tracks >= 0) & (frames >= 0)
    spans = {}
    for row in np.flatnonzero(known):
        spans.setdefault((cameras[row], local[row], tracks[row]), []).append(frames[row])
    expected = {
        frozenset((one, two))
        for one, two in combinations(spans, 2)
        if one[0] == two[0]
        and one[1] != two[1]
        and max(min(spans[one]), min(spans[two])) <= min(max(spans[one]), max(spans[two]))
    }
    part = [(cameras[row], local[row], tracks[row]) for row in range(60)]
    assert {frozenset((part[a], part[b])) for a, b in found} == expected
    assert len(found) == len(expected)
    for row in set(found.ravel().tolist()):
        own = sorted(spans[part[row]])
        assert frames[row] == own[(len(own) - 1) // 2]


def test_without_frames_or_tracks_nothing_is_told():
    none, zero = np.full(4, -1), np.zeros(4, int)
    assert overlapping_tracks(zero, zero, zero, none).shape == (0, 2)
    assert overlapping_tracks(zero, none, zero, zero).shape == (0, 2)
    assert tell_apart(None, np.empty((0, 2), int), 4) is None


def test_what_a_person_said_comes_first():
    known = Pairs(np.array([[0, 1], [1, 2]]), np.array([[0, 4]]))
    found = tell_apart(known, np.array([[0, 2], [2, 3]]), 5)
    assert found.same.tolist() == [[0, 1], [1, 2]]
    assert found.different.tolist() == [[0, 4], [2, 3]]
    alone = tell_apart(None, np.array([[0, 2]]), 5)
    assert alone.different.tolist() == [[0, 2]]
    assert alone.same.shape == (0, 2)
