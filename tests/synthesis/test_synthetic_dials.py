"""Every dial does what it says, and only that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from icsr_cli.synthesis import World, draw
from icsr_cli.synthesis.cameras import camera_table
from icsr_cli.synthesis.passes import plan
from icsr_cli.synthesis.people import PERSON, draw_people

#: No disturbance at all: what a dial adds can be seen alone.
CALM = World(
    train_identities=24, test_identities=0, cameras=4, distractors=0, junk=0, background=0, camera_shift=0,
    blur=0, noise=0, resolution=0, crop_jitter=0, occlusion=0, view_spread=0,
)  # fmt: skip


def pixels_of(**dials):
    return draw(replace(CALM, **dials))[1].astype(np.float64)


def cameras_of(world):
    return plan(world).shots["camera"]


def corners(pixels):
    """Give the upper left corner, where no body reaches: (n, 8, 3 rows and columns, 3)."""
    return pixels[:, :6, :6]


def test_without_disturbance_all_cameras_see_the_same():
    pixels, cameras = pixels_of(), cameras_of(CALM)
    means = np.array([corners(pixels)[cameras == camera].mean(axis=(0, 1, 2)) for camera in range(4)])
    assert np.ptp(means, axis=0).max() < 4  # the light varies by some percent from pass to pass


def test_background_adds_contrast():
    spreads = [corners(pixels_of(background=value)).std() for value in (0, 1, 3)]
    assert spreads[0] * 1.5 < spreads[1] < spreads[2] / 1.5


def test_camera_shift_moves_whole_cameras():
    cameras = cameras_of(CALM)
    spread = []
    for value in (0, 1, 2):
        pixels = pixels_of(camera_shift=value)
        means = [pixels[cameras == camera].mean(axis=(0, 1, 2)) for camera in range(4)]
        spread.append(np.ptp(means, axis=0).max())
    assert spread[0] + 8 < spread[1] < spread[2] - 8


def test_blur_and_resolution_take_detail_away():
    def detail(pixels):
        return np.abs(np.diff(pixels, axis=1)).mean()

    sharp = detail(pixels_of())
    for dial in ("blur", "resolution"):
        weak, strong = (detail(pixels_of(**{dial: value})) for value in (1, 3))
        assert strong < weak < sharp, dial


def test_noise_is_noise():
    clean = pixels_of()
    weak, strong = (pixels_of(noise=value) - clean for value in (1, 3))
    assert 1 < weak.std() < strong.std() / 2
    assert abs(strong.mean()) < 0.5
    assert abs(np.corrcoef(strong[:, 1:, :, 0].ravel(), strong[:, :-1, :, 0].ravel())[0, 1]) < 0.05


def test_occlusion_hides_its_share_of_passes():
    world = replace(CALM, occlusion=0.4, train_identities=200)
    shots = plan(world).shots
    assert shots["occluded"].mean() == pytest.approx(0.4, abs=0.05)
    changed = (pixels_of(occlusion=0.4) != pixels_of()).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(
        changed & (plan(replace(CALM, occlusion=0.4)).shots["occluded"] == 0), False
    )
    assert changed.mean() > 0.2


def test_view_persists_within_a_pass_and_differs_between_cameras():
    shots = plan(replace(CALM, view_spread=1.0)).shots
    key = shots["person"] * 10 + shots["camera"]
    same_pass = key[1:] == key[:-1]
    same_person = shots["person"][1:] == shots["person"][:-1]
    turn = np.abs((np.diff(shots["facing"]) + 2) % 4 - 2)
    assert turn[same_pass].max() < 0.25
    assert turn[same_person & ~same_pass].mean() > 0.6
    assert np.abs(plan(CALM).shots["facing"]).max() == 0


def test_second_pass_is_another_view():
    world = replace(CALM, second_pass=1.0, view_spread=1.0)
    content = plan(world)
    sequence = np.array(
        [int(name.split("s")[-1][0]) for name in (file.split("_c")[1] for file in content.files)]
    )
    key = content.shots["person"] * 10 + content.shots["camera"]
    again = (key[1:] == key[:-1]) & (sequence[1:] != sequence[:-1])
    assert again.sum() > 50
    turn = np.abs((np.diff(content.shots["facing"]) + 2) % 4 - 2)
    assert turn[again].mean() > 0.5


def test_crop_jitter_moves_the_body():
    shots = {value: plan(replace(CALM, crop_jitter=value)).shots for value in (0, 1, 2)}
    assert not shots[0]["shift_x"].any()
    assert shots[2]["shift_x"].std() > 1.5 * shots[1]["shift_x"].std() > 0
    assert shots[2]["scale"].std() > 1.5 * shots[1]["scale"].std() > 0


def test_garments_share_colours():
    people = {value: draw_people(300, value, np.random.default_rng(3)) for value in (0.0, 1.0)}
    assert len(np.unique(people[1.0]["upper_a"], axis=0)) <= 6
    assert len(np.unique(people[0.0]["upper_a"], axis=0)) == 300
    for name in PERSON.names:
        if "upper" not in name and "lower_" not in name and name not in ("shoes", "hat_colour", "bag_colour"):
            np.testing.assert_array_equal(people[0.0][name], people[1.0][name])
    assert (people[1.0]["upper_a"] != people[1.0]["upper_b"]).any(axis=1).all()


def test_people_differ_more_than_frames_of_one():
    content, pixels = plan(CALM), pixels_of()
    person = content.shots["person"]
    flat = pixels.reshape(len(pixels), -1)
    within, between = [], []
    for number in range(0, 24, 3):
        rows, others = flat[person == number], flat[person == number + 1]
        within.append(np.abs(rows[0] - rows[1]).mean())
        between.append(np.abs(rows[0] - others[0]).mean())
    assert np.mean(between) > 1.5 * np.mean(within)


def test_cameras_are_a_fixed_table():
    eleven = camera_table(11)
    np.testing.assert_array_equal(camera_table(5), eleven[:5])
    np.testing.assert_array_equal(camera_table(12)[:11], eleven)
    assert len(np.unique(eleven["gain"], axis=0)) == 11
    assert draw(World(train_identities=9, test_identities=0, cameras=11, cameras_per_person=(11, 11)))[
        1
    ].any()


def test_distractors_and_junk_are_not_good_crops():
    world = replace(CALM, train_identities=0, test_identities=12, distractors=80, junk=60)
    content = plan(world)
    junk = np.array(["/-1_" in name for name in content.files])
    distractor = np.array(["/0000_" in name for name in content.files])
    assert (junk.sum(), distractor.sum()) == (60, 80)
    assert 0.3 < content.shots["visible"][distractor].mean() < 0.7
    assert set(content.shots["person"][junk]) <= set(range(12))
    assert not set(content.shots["person"][distractor]) & set(range(12))
    moved = np.abs(content.shots["shift_x"]) + np.abs(content.shots["scale"])
    assert moved[junk].min() > 0.1 > moved[~junk & ~distractor].max()
    empty = draw(world)[1][distractor & (content.shots["visible"] == 0)].astype(float)
    assert empty.std(axis=(1, 2, 3)).max() < 3


@pytest.mark.parametrize(("height", "width"), [(128, 64), (64, 64), (33, 17), (16, 8)])
def test_any_size(height, width):
    names, pixels = draw(World(train_identities=2, test_identities=2, height=height, width=width))
    assert pixels.shape == (len(names), height, width, 3)


def test_size_does_not_change_the_scene():
    small = draw(replace(CALM, height=64, width=32))[1].astype(float)
    large = draw(replace(CALM, height=128, width=64))[1].astype(float)
    shrunk = large.reshape(len(large), 64, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - small).mean() < 3
