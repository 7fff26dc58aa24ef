"""Tracks as clusters: cut where the person changes, joined where it is one, never where they overlap."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.clusterers.tracks import Options, Spans, cluster, cut_tracks
from icsr_cli.distances import jaccard
from icsr_cli.errors import InputError
from icsr_cli.labelling import KnownEvidence


def unit(table):
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32)


def images(people, noise=0.25, seed=0, d=16):
    """Features of images of ``people`` (n,): a person's own direction and noise."""
    rng = np.random.default_rng(seed)
    own = unit(rng.normal(size=(max(people) + 1, d)))
    return unit(own[people] + noise * unit(rng.normal(size=(len(people), d))))


def evidence(people, tracks, frames=None, cameras=None, **options):
    tracks = np.asarray(tracks)
    return KnownEvidence(
        images(np.asarray(people), **options),
        jaccard.Options(),
        tracks=tracks,
        frames=None if frames is None else np.asarray(frames),
        cameras=np.zeros(len(tracks), int) if cameras is None else np.asarray(cameras),
    )


def same(found, expected):
    pairs = {}
    for one, two in zip(found.tolist(), np.asarray(expected).tolist(), strict=True):
        assert pairs.setdefault(two, one) == one, (found, expected)
    assert len(set(pairs.values())) == len(pairs), (found, expected)


def test_a_track_that_jumps_is_cut_where_it_jumps():
    people = [0] * 6 + [1] * 4 + [2] * 8 + [3] * 8
    tracks = [0] * 10 + [1] * 8 + [2] * 8
    same(cluster(evidence(people, tracks), Options(join=2)), people)


def test_time_and_not_the_order_of_rows_says_where():
    people = np.array([0] * 6 + [1] * 6 + [2] * 8 + [3] * 8)
    tracks = np.array([0] * 12 + [1] * 8 + [2] * 8)
    order = np.random.default_rng(4).permutation(len(people))
    known = evidence(people[order], tracks[order], frames=np.arange(len(people))[order])
    same(cluster(known, Options(join=2)), people[order])


def test_a_track_of_three_people_is_cut_twice():
    people = [0] * 5 + [1] * 5 + [2] * 5 + [3] * 9 + [4] * 9 + [5] * 9
    tracks = [0] * 15 + [1] * 9 + [2] * 9 + [3] * 9
    same(cluster(evidence(people, tracks), Options(join=2)), people)


def test_pure_tracks_stay_as_they_are():
    people = np.repeat(np.arange(12), 9)
    found = cluster(evidence(people, people, noise=0.8), Options(join=2))
    same(found, people)
    many = np.repeat(np.arange(3000), 4)  # more images than one block of running sums
    same(cluster(evidence(many, many, d=64), Options(join=2)), many)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_the_cut_against_every_cut(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, 6)
    tracks = np.repeat(np.arange(6), sizes)
    features = images(rng.integers(0, 4, len(tracks)), noise=0.6, seed=seed)
    similarity = features.astype(float) @ features.T
    off = ~np.eye(len(tracks), dtype=bool)
    one = tracks[:, None] == tracks
    within = [similarity[one & off & (tracks == t)].mean() for t in range(6) if sizes[t] > 1]
    weights = [size for size in sizes if size > 1]
    low = similarity[~one].mean()
    limit = low + 0.5 * (np.average(within, weights=weights) - low) if within else -np.inf
    expected, todo = [], [np.flatnonzero(tracks == t) for t in range(6)]
    if not within or low >= np.average(within, weights=weights):
        limit = -np.inf
    while todo:
        rows = todo.pop()
        best = None
        for cut in range(2, len(rows) - 1):
            a, b = rows[:cut], rows[cut:]
            step = features[a].mean(0, dtype=float) - features[b].mean(0, dtype=float)
            gain = len(a) * len(b) / len(rows) * (step @ step)
            if best is None or gain > best[0] + 1e-12:
                best = gain, a, b
        if best and similarity[np.ix_(best[1], best[2])].mean() < limit:
            todo += [best[1], best[2]]
        else:
            expected.append(rows)
    of_image = np.empty(len(tracks), int)
    for number, rows in enumerate(expected):
        of_image[rows] = number
    same(cut_tracks(features, tracks, None, 0.5), of_image)


def test_tracks_of_one_person_are_joined():
    people = np.repeat([0, 1, 2, 0, 3, 1], 7)
    tracks = np.repeat(np.arange(6), 7)
    same(cluster(evidence(people, tracks), Options()), people)
    same(cluster(evidence(people, tracks), Options(join=2)), tracks)
    # Tracks of one image have no halves.
    people = np.array([*np.repeat([0, 1, 2, 3, 4, 5, 6, 0], 7), 7, 8, 9, 10, 11])
    same(cluster(evidence(people, [*np.repeat(np.arange(8), 7), 8, 9, 10, 11, 12]), Options()), people)


def test_who_look_alike_at_one_time_raise_the_limit():
    """Tracks 0 to 29: 15 pairs of people who look alike, all seen at one time; 30 and 31 come later."""
    rng = np.random.default_rng(2)
    own = rng.normal(size=(16, 64)).repeat(2, axis=0)
    own[1::2] = np.sqrt(0.8) * own[1::2] + np.sqrt(0.2) * rng.normal(size=(16, 64))
    tracks = np.repeat(np.arange(32), 6)
    frames = np.tile(np.arange(6), 32) + 10 * np.maximum(tracks - 29, 0)
    features = unit(unit(own)[tracks] + 0.1 * unit(rng.normal(size=(len(tracks), 64))))
    for times, expected in ((frames, tracks), (None, tracks // 2)):
        known = KnownEvidence(features, jaccard.Options(), 20, tracks=tracks, frames=times)
        same(cluster(known, Options(split=-1, join=0.5)), expected)


def test_2_joins_no_tracks_whatever_their_halves_are():
    """Front, then back: halves less alike than two tracks that went the same way."""
    rng = np.random.default_rng(3)
    front = rng.normal(size=(20, 64))
    back = 0.4 * front + 0.9 * rng.normal(size=(20, 64))
    front[1], back[1] = front[0], back[0]
    features = np.stack([front, back], axis=1).repeat(5, axis=1).reshape(200, 64)
    tracks = np.repeat(np.arange(20), 10)
    features = unit(features + 0.05 * rng.normal(size=features.shape))
    known = KnownEvidence(features, jaccard.Options(), 20, tracks=tracks)
    assert len(set(cluster(known, Options(split=-1, join=1.9)).tolist())) == 19
    same(cluster(known, Options(split=-1, join=2)), tracks)


def test_two_tracks_that_point_apart_are_not_joined():
    """Their halves are hardly alike, so that the limit lies below 0."""
    rng = np.random.default_rng(5)
    tracks = np.repeat([0, 1], 8)
    features = unit(np.eye(16)[0] * np.where(tracks, -1, 1)[:, None] + rng.standard_normal((16, 16)))
    known = KnownEvidence(features, jaccard.Options(), 20, tracks=tracks)
    same(cluster(known, Options(split=-1)), tracks)


def test_tracks_that_overlap_are_never_joined():
    people = np.repeat([0, 1, 2, 0, 3, 1], 7)
    tracks = np.repeat(np.arange(6), 7)
    frames = np.concatenate([np.arange(7) + start for start in (0, 20, 40, 5, 80, 100)])
    found = cluster(evidence(people, tracks, frames), Options())
    expected = people.copy()
    expected[tracks == 3] = 9  # alike, and seen beside track 0 in frames 5 and 6
    same(found, expected)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_no_cluster_holds_an_overlap(seed):
    rng = np.random.default_rng(seed)
    tracks = np.repeat(np.arange(20), rng.integers(2, 7, 20))
    frames = rng.integers(0, 150, 20)[tracks] + rng.integers(-1, 25, len(tracks))
    frames = np.where(rng.random(len(tracks)) < 0.1, -1, frames)
    own = unit(rng.normal(size=(5, 128)))[rng.integers(0, 5, 20)] + 0.5 * unit(rng.normal(size=(20, 128)))
    features = unit(unit(own)[tracks] + 0.1 * unit(rng.normal(size=(len(tracks), 128))))
    known = KnownEvidence(features, jaccard.Options(), 20, tracks=tracks, frames=frames)
    found = cluster(known, Options(join=0.3, split=-1))
    assert found.max() + 1 < 20, "none is joined"
    for one, two in combinations(range(20), 2):
        spans = [frames[(tracks == t) & (frames >= 0)] for t in (one, two)]
        overlap = all(map(len, spans)) and max(s.min() for s in spans) <= min(s.max() for s in spans)
        if overlap:
            assert not set(found[tracks == one]) & set(found[tracks == two])


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_contradictions_against_every_pair(seed):
    rng = np.random.default_rng(seed)
    tracks = np.repeat(np.arange(12), 3)
    times = np.where(rng.random(36) < 0.2, -1, rng.integers(0, 60, 12)[tracks] + rng.integers(0, 8, 36))
    spans, clusters = Spans.of(tracks, times), rng.integers(0, 4, 12)
    clusters[:4] = np.arange(4)
    expected = [
        any(
            spans.overlap(np.array([a]), np.array([b]))[0]
            for a, b in combinations(np.flatnonzero(clusters == own).tolist(), 2)
        )
        for own in range(4)
    ]
    assert spans.contradict(clusters).tolist() == expected
    assert not Spans.of(tracks, None).contradict(clusters).any()


def test_cameras_and_images_without_a_track():
    people = np.repeat([0, 1, 0, 1, 2], 6)
    tracks = np.repeat([0, 1, 2, 3, 4], 6)
    cameras = np.repeat([0, 0, 1, 1, 1], 6)
    tracks[::6] = -1
    found = cluster(evidence(people, tracks, cameras=cameras), Options())
    assert (found[::6] == -1).all()
    kept = tracks >= 0
    same(found[kept], tracks[kept])  # one number under two cameras would be one person too many


def test_what_cannot_be_told_stays():
    one = evidence([0] * 5, [7] * 5)
    assert cluster(one, Options()).tolist() == [0] * 5
    alike = KnownEvidence(np.ones((6, 4), np.float32) / 2, jaccard.Options(), tracks=np.repeat([0, 1, 2], 2))
    assert cluster(alike, Options()).tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="needs the track of each image"):
        cluster(evidence([0], [-1]), Options())


def test_torch_and_numpy_agree():
    torch = pytest.importorskip("torch")
    people = np.repeat([0, 1, 2, 0, 3, 1], 7)
    tracks = np.repeat(np.arange(6), 7)
    given = evidence(people, tracks)
    tensor = KnownEvidence(torch.from_numpy(given.given), jaccard.Options(), tracks=tracks)
    np.testing.assert_array_equal(cluster(tensor, Options()), cluster(given, Options()))


def test_features_that_do_not_know_people_again_join_nothing():
    tracks = np.repeat(np.arange(12), 8)
    noise = evidence(tracks, tracks, noise=30, d=200)
    same(cluster(noise, Options(join=0)), cluster(noise, Options(join=2)))
    clear = evidence(tracks, tracks, noise=1)
    assert len(set(cluster(clear, Options(join=0)).tolist())) < 12, "these are joined by such an option"


@pytest.mark.parametrize("own", [0, 0.1])
def test_a_network_joins_tracks_of_which_it_knows_the_person_alone(own):
    """Then a half is as near to all tracks of its person as to its own other half."""
    rng = np.random.default_rng(2)
    of_track = np.repeat(rng.normal(size=(10, 64)), 4, axis=0) + own * rng.normal(size=(40, 64))
    tracks = np.repeat(np.arange(40), 10)
    features = unit(of_track[tracks] + 0.3 * rng.normal(size=(400, 64)))
    known = KnownEvidence(features, jaccard.Options(), 20, tracks=tracks)
    same(cluster(known, Options(split=-1)), tracks // 4)


def test_a_network_that_knows_the_light_alone_joins_nothing():
    """Tracks lie along one course of the day: a half is nearest to its own, and hardly nearer than others."""
    rng = np.random.default_rng(4)
    day = np.linspace(0, 1.5, 60)
    of_track = np.stack([np.cos(day), np.sin(day)], axis=1) @ np.eye(2, 64)
    tracks = np.repeat(np.arange(60), 10)
    features = unit(of_track[tracks] + 0.002 * rng.normal(size=(600, 64)))
    known = KnownEvidence(features, jaccard.Options(), 20, tracks=tracks)
    same(cluster(known, Options(split=-1)), tracks)
