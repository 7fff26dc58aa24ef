"""The colour baseline, and the property the worlds are made for."""

from __future__ import annotations

import numpy as np
import pytest
from colours import BINS, STRIPES, colour_features, colour_histograms, neighbour_shares

from icsr_cli.errors import InputError
from icsr_cli.synthesis import World, draw
from icsr_cli.synthesis.passes import plan


def test_histograms_of_flat_pictures():
    pixels = np.zeros((2, 16, 12, 3), np.uint8)
    pixels[1] = (255, 0, 0)
    found = colour_histograms(pixels).reshape(2, 4, STRIPES, BINS)
    assert (found.sum(axis=3) == 1).all()
    lightness, red_green, _, saturation = found.argmax(axis=3).transpose(1, 0, 2)
    assert lightness[:, 0].tolist() == [0, 2]  # 0 and 1/3 of 8 bins
    assert red_green[:, 0].tolist() == [4, 7]
    assert saturation[:, 0].tolist() == [0, 7]


def test_stripes_keep_their_order():
    pixels = np.zeros((1, 16, 12, 3), np.uint8)
    pixels[0, :4] = 255
    lightness = colour_histograms(pixels).reshape(4, STRIPES, BINS)[0].argmax(axis=1)
    assert lightness.tolist() == [7, 7, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("equalise", [False, True])
def test_features_are_centred_per_camera(equalise):
    random = np.random.default_rng(5)
    pixels = random.integers(0, 256, (30, 16, 12, 3)).astype(np.uint8)
    cameras = np.arange(30) % 3
    features = colour_features(pixels, cameras, equalise=equalise)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    plain = colour_histograms(pixels)
    for camera in range(3):
        rows = cameras == camera
        expected = plain[rows] - plain[rows].mean(axis=0)
        if equalise:
            expected /= plain[rows].std(axis=0) + 1e-3
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(features[rows], expected, atol=1e-4)


def test_bad_shapes():
    with pytest.raises(InputError, match="pixels"):
        colour_histograms(np.zeros((2, 16, 12, 3), np.float32))
    with pytest.raises(InputError, match="cameras"):
        colour_features(np.zeros((2, 16, 12, 3), np.uint8), np.zeros(3, int))


def test_neighbour_shares_against_a_loop():
    random = np.random.default_rng(11)
    features = random.normal(size=(40, 5)).astype(np.float32)
    people, cameras = random.integers(0, 6, 40), random.integers(0, 3, 40)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = far = 0
    for i in range(40):
        order = sorted((j for j in range(40) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        near += people[next(j for j in order if cameras[j] == cameras[i])] == people[i]
        far += people[next(j for j in order if cameras[j] != cameras[i])] == people[i]
    assert neighbour_shares(features, people, cameras) == (near / 40, far / 40)


def test_appearance_is_reliable_within_a_camera_and_not_across():
    shares = {}
    for shift in (0.0, 1.0, 2.0):
        world = World(test_identities=0, distractors=0, junk=0, camera_shift=shift)
        shots = plan(world).shots
        features = colour_histograms(draw(world)[1])
        shares[shift] = neighbour_shares(features, shots["person"], shots["camera"])
    assert min(near for near, _ in shares.values()) > 0.95
    assert shares[2.0][1] + 0.15 < shares[1.0][1] < shares[0.0][1] - 0.15
