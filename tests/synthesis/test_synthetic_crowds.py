"""Crowds and wrong detections: looks, doubles, clutter, quiet cameras, tracks; off, all is as it was."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from colours import colour_histograms

from icsr_cli.synthesis import World, draw, tracks_of
from icsr_cli.synthesis.crowd import look_of, make_doubles, popularity
from icsr_cli.synthesis.passes import plan
from icsr_cli.synthesis.people import draw_people

#: No camera differs from another.
EQUAL = dict.fromkeys(
    ("camera_shift", "background", "blur", "noise", "resolution", "crop_jitter", "occlusion"), 0
)
CROWD = World(train_identities=120, test_identities=40, cameras=6, distractors=0, junk=0)


def seen(world):
    """Give images per training person and camera, clutter left out."""
    content = plan(world)
    own = (content.shots["person"] < world.train_identities) & (content.tracks >= 0)
    counts = np.zeros((world.train_identities, world.cameras), int)
    np.add.at(counts, (content.shots["person"][own], content.shots["camera"][own]), 1)
    return counts


@pytest.mark.parametrize(
    ("preset", "digest"),
    [
        ("default", "8626ed269d3f255aad075c3429dadc1a0afa3b931c07eeea164102855b4b6d74"),
        ("hard", "280ca41d67418e329c5198eb3d74c6336d1c80587faf7e15f78e94d3f39296d3"),
        ("city", "227d9804f911449734116886b7f834b33697e3a0fe8504ba1b798dbae49eb2a1"),
        ("easy", "341949f2b442e60119b4eaa837a2d2534c72117b1cfdb05f47119828c86b9f3d"),
    ],
)
def test_older_worlds_are_the_same_to_the_bit(preset, digest):
    world = World.preset(preset, seed=3, train_identities=20, test_identities=12, second_pass=0.5)
    names, pixels = draw(world)
    found = hashlib.sha256(pixels.tobytes())
    found.update("\n".join(names).encode())
    assert found.hexdigest() == digest


def test_separation_dresses_people_by_where_they_live():
    """How much of the variation of colours is between the cameras' locals, from light that is the same."""
    between = {}
    for value in (0.0, 0.5, 1.0):
        world = replace(CROWD, separation=value, cameras_per_person=(1, 1), **EQUAL)
        content = plan(world)
        features = colour_histograms(draw(world)[1]).astype(np.float64)
        cameras = content.shots["camera"]
        means = np.array([features[cameras == camera].mean(axis=0) for camera in range(6)])
        between[value] = means[cameras].var(axis=0).sum() / features.var(axis=0).sum()
    assert between[0.0] < 0.05
    assert between[0.0] + 0.05 < between[0.5] < between[1.0] - 0.05


def test_separation_keeps_half_its_share_at_home_and_everybody_in_one_look():
    shares = {}
    for value in (0.0, 0.6, 1.0):
        world = replace(CROWD, separation=value, cameras_per_person=(2, 3))
        cameras = (seen(world) > 0).sum(axis=1)
        shares[value] = (cameras == 1).mean()
        assert set(cameras) <= {1, 2, 3}
        content = plan(world)
        test = content.shots["person"] >= world.train_identities
        walked = {
            (p, c) for p, c in zip(*(content.shots[n][test] for n in ("person", "camera")), strict=True)
        }
        assert min(Counter(person for person, _ in walked).values()) >= 2
    assert shares[0.0] == 0
    assert shares[0.6] == pytest.approx(0.3, abs=0.1)
    assert shares[1.0] == pytest.approx(0.5, abs=0.1)


def test_looks_depend_on_the_camera_alone():
    assert look_of(9) == look_of(9) != look_of(10)
    assert len({look_of(camera) for camera in range(12)}) == 12


def test_doubles_differ_in_two_traits():
    people, homes = draw_people(80, 0.95, np.random.default_rng(1)), np.arange(80) % 5
    before = people.copy()
    make_doubles(people, homes, 0.5, np.random.default_rng(2))
    changed = np.flatnonzero(people != before)
    assert len(changed) == 20
    for double in changed:
        like = [
            (sum(np.any(people[n][double] != people[n][other]) for n in people.dtype.names), other)
            for other in range(80)
            if other != double
        ]
        fewest, model = min(like)
        assert 1 < fewest <= 5  # a bag is its kind and its colour, trousers their length and their kind
        assert people["build"][double] == people["build"][model]
    make_doubles(people := before.copy(), homes, 0.0, np.random.default_rng(2))
    assert (people == before).all()


def test_no_double_lives_in_the_other_half():
    content = plan(replace(CROWD, lookalikes=1.0))
    build = content.people["build"]
    train, test = build[:120], build[120:160]
    assert (len(np.unique(train)), len(np.unique(test))) == (60, 20)
    assert not set(train) & set(test)


def test_uneven_cameras_see_uneven_numbers_of_people():
    assert (popularity(6, 0.0) == 1).all()
    people = {
        value: (seen(replace(CROWD, uneven=value, cameras_per_person=(1, 2))) > 0).sum(axis=0)
        for value in (0.0, 0.8, 1.0)
    }
    ratio = {value: count.max() / max(count.min(), 1) for value, count in people.items()}
    assert ratio[0.0] < 2 < ratio[0.8] < ratio[1.0]
    assert ratio[1.0] > 8
    assert len({count.sum() for count in people.values()}) == 1  # nobody is seen more or less often


def test_clutter_comes_on_top_and_is_nobody():
    world = replace(CROWD, clutter=0.3)
    without, content = plan(CROWD), plan(world)
    assert content.files[: len(without)] == without.files
    assert (content.shots[: len(without)] == without.shots).all()
    extra = content.files[len(without) :]
    train = sum(name.startswith("bounding_box_train/") for name in without.files)
    assert len(extra) == len(set(extra)) == round(0.3 * train)
    assert all(name.startswith("bounding_box_train/-1_c") for name in extra)
    shots = content.shots[len(without) :]
    names = [int(name.split("_c")[1].split("s")[0]) - 1 for name in extra]
    assert names == shots["camera"].tolist()
    assert (shots["person"] < 120).all()
    assert (content.tracks[len(without) :] == -1).all()
    empty, two = shots["visible"] == 0, shots["companion"] > 0
    for share in (empty.mean(), two.mean(), 1 - empty.mean() - two.mean()):
        assert share == pytest.approx(1 / 3, abs=0.1)
    assert not (empty & two).any()
    assert (seen(world) == seen(CROWD)).all()


def test_two_persons_are_seen_at_this_camera_both():
    world = replace(CROWD, clutter=1.0)
    content, counts = plan(world), seen(world)
    two = content.shots[content.shots["companion"] > 0]
    other = two["companion"] - 1
    assert (counts[other, two["camera"]] > 0).all()
    assert (other != two["person"]).mean() > 0.95
    calm = replace(world, **EQUAL)
    content, pixels = plan(calm), draw(calm)[1].astype(float)
    grey = np.median(pixels[:, :4, :, :], axis=(1, 2))[:, None, None, :]
    covered = (np.abs(pixels - grey).sum(axis=-1) > 40).mean(axis=(1, 2))
    alone = (content.tracks >= 0) & (content.shots["visible"] > 0)
    assert covered[content.shots["companion"] > 0].mean() > 1.4 * covered[alone].mean()
    assert covered[content.shots["visible"] == 0].max() < 0.05


def test_a_pass_is_a_track():
    world = replace(CROWD, second_pass=0.4)
    content = plan(world)
    assert (content.tracks >= 0).all()
    keys = {}
    for name, track, frame in zip(content.files, content.tracks, content.frames, strict=True):
        person, place, number, _ = name.split("/")[1].split("_")
        keys.setdefault(int(track), set()).add((person, place))
        assert int(frame) == (int(place.split("s")[1]) - 1) * 60_000 + int(number)
    assert all(len(found) == 1 for found in keys.values())  # one person, one camera, one sequence
    assert len(set.union(*keys.values())) == len(keys)
    order = np.lexsort((content.frames, content.tracks))
    same = np.diff(content.tracks[order]) == 0
    assert (np.diff(content.frames[order])[same] == 25).all()


def test_impure_tracks_hold_two_people_who_met():
    world = replace(CROWD, impure_tracks=0.5, test_identities=30)
    content, pure = plan(world), plan(replace(world, impure_tracks=0))
    assert (content.shots == pure.shots).all()
    train = np.array([name.startswith("bounding_box_train/") for name in content.files])
    np.testing.assert_array_equal(content.tracks[~train], pure.tracks[~train])
    people, cameras, when = {}, {}, {}
    for row in np.flatnonzero(train):
        track = int(content.tracks[row])
        people.setdefault(track, set()).add(int(content.shots["person"][row]))
        cameras.setdefault(track, set()).add(int(content.shots["camera"][row]))
        when.setdefault(track, []).append(int(content.frames[row]))
    impure = [track for track, found in people.items() if len(found) > 1]
    long = [track for track in np.unique(pure.tracks[train]) if (pure.tracks == track).sum() > 1]
    assert len(impure) / len(long) == pytest.approx(0.5, abs=0.05)
    assert max(map(len, people.values())) == 2
    assert all(len(found) == 1 for found in cameras.values())
    assert all(np.ptp(when[track]) < 25 * 8 for track in impure)
    assert len(content.files) == len(set(content.files))


def test_tracks_by_file():
    world = World(train_identities=6, test_identities=4, cameras=3, clutter=0.5)
    content, known = plan(world), tracks_of(world)
    assert {name.split("/")[1][:2] for name in set(content.files) - set(known)} == {"-1", "00"}
    for name, track, frame in zip(content.files, content.tracks, content.frames, strict=True):
        assert known.get(name, (-1, -1)) == (track, frame)
