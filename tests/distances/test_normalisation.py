import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.distances import CameraStatistics, normalise_cameras
from icsr_cli.errors import InputError


def world(seed, n=60, d=8, cameras=4):
    rng = np.random.default_rng(seed)
    of_image = rng.integers(0, cameras, n)
    shift, scale = rng.standard_normal((cameras, d)), np.exp(rng.standard_normal((cameras, d)))
    return (rng.standard_normal((n, d)) * scale[of_image] + shift[of_image]).astype(np.float32), of_image


def slowly(features, cameras, mode, shrink):
    """The formula of the paper, image by image, in float64."""
    x = features.astype(np.float64)
    everything = [x.mean(axis=0), x.var(axis=0)]
    found = np.zeros_like(x)
    for i in range(len(x)):
        own = x[cameras == cameras[i]]
        a = len(own) / (len(own) + shrink)
        mean, variance = (
            a * part + (1 - a) * all_
            for part, all_ in zip((own.mean(0), own.var(0)), everything, strict=True)
        )
        spread = np.sqrt(variance)
        g = (x[i] - mean) if mode == "centre" else np.where(spread > 1e-6, (x[i] - mean) / (spread + 1e-6), 0)
        found[i] = g / max(np.linalg.norm(g), 1e-12)
    return found


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6), mode=st.sampled_from(["centre", "full"]), shrink=st.sampled_from([0, 5, 25])
)
def test_against_the_formula(seed, mode, shrink):
    features, cameras = world(seed)
    found = normalise_cameras(features, cameras, mode, shrink)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slowly(features, cameras, mode, shrink), atol=2e-5)


def test_each_camera_has_mean_0_and_variance_1_before_the_unit_step():
    features, cameras = world(1, n=400)
    known = CameraStatistics.of(features, cameras, shrink=0)
    for camera in range(4):
        own = (features[cameras == camera] - known.mean[camera]) / known.spread[camera]
        np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(own.var(axis=0), 1, atol=1e-3)


def test_a_scale_and_a_shift_of_each_camera_change_nothing():
    features, cameras = world(2, n=200)
    rng = np.random.default_rng(3)
    scale, shift = np.exp(rng.standard_normal((4, 8))), rng.standard_normal((4, 8))
    changed = (features * scale[cameras] + shift[cameras]).astype(np.float32)
    before = normalise_cameras(features, cameras, "full", shrink=0)
    np.testing.assert_allclose(normalise_cameras(changed, cameras, "full", shrink=0), before, atol=1e-3)


def test_one_camera_is_global_standardisation():
    features, _ = world(4)
    found = normalise_cameras(features, np.zeros(60, int), "full")
    expected = (features - features.mean(0)) / features.std(0)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)


def test_a_camera_of_one_image_and_a_dead_dimension():
    features, cameras = world(5)
    cameras[0], features[:, 3] = 9, 0.5
    found = normalise_cameras(features, cameras, "full")
    assert np.isfinite(found).all()
    assert (found[:, 3] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_stored_statistics_serve_other_images_and_unknown_cameras():
    features, cameras = world(6)
    known = CameraStatistics.of(features, cameras)
    np.testing.assert_array_equal(known.apply(features, cameras), normalise_cameras(features, cameras))
    unknown = known.apply(features, np.full(60, 7), "centre")
    everything = features - features.mean(axis=0)
    np.testing.assert_allclose(
        unknown, everything / np.linalg.norm(everything, axis=1, keepdims=True), atol=1e-5
    )
    far = known.apply(features, np.full(60, 100))
    for camera in range(int(cameras.max()) + 1, 8):
        np.testing.assert_array_equal(known.apply(features, np.full(60, camera)), far)


def test_the_kind_stays_and_none_is_none():
    features, cameras = world(7)
    tensor = normalise_cameras(torch.from_numpy(features), torch.from_numpy(cameras))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), normalise_cameras(features, cameras))
    assert normalise_cameras(features, cameras, "none") is features
    half = torch.from_numpy(features).bfloat16()  # no type of numpy
    np.testing.assert_array_equal(normalise_cameras(half, cameras), normalise_cameras(half.float(), cameras))


@pytest.mark.parametrize(
    ("features", "cameras", "mode", "words"),
    [
        (np.zeros((3, 2)), [0, 0], "full", r"cameras must have shape \(3,\)"),
        (np.zeros((3, 2)), [0, -1, 0], "full", "cameras must be at least 0"),
        (np.zeros(3), [0, 0, 0], "full", r"features must be float \(n, d\)"),
        (np.array([[0, 0], [np.nan, 0], [0, 1e39]]), [0, 0, 1], "full", r"finite, 2 rows \(1, 2\) hold"),
        (np.zeros((3, 2)), [0, 0, 0], "half", "mode must be none, centre or full"),
    ],
)
def test_bad_input(features, cameras, mode, words):
    with pytest.raises(InputError, match=words):
        normalise_cameras(features, cameras, mode)


def test_a_shrink_below_0_is_refused():
    with pytest.raises(InputError, match=r"shrink must be a number from 0, got -1"):
        normalise_cameras(np.ones((2, 2)), [0, 1], "full", -1.0)
