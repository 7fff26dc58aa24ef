from inspect import signature
from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli import exact_search
from icsr_cli.distances import (
    camera_jaccard_similarity,
    codes,
    jaccard_similarity,
    neighbours,
    rough,
)
from icsr_cli.distances.camera_jaccard import Options, nearest_by_camera
from icsr_cli.errors import InputError


def world(seed, sizes=(30, 20, 8, 2), d=16):
    """60 images of 12 people under 4 cameras, one of two images."""
    rng = np.random.default_rng(seed)
    cameras = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    people = rng.integers(0, 12, len(cameras))
    features = rng.standard_normal((12, d))[people] + 0.7 * rng.standard_normal((len(sizes), d))[cameras]
    features += 0.5 * rng.standard_normal(features.shape)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), cameras


def dense(features, cameras, own=5, cross=20, own2=2, cross2=4):
    """The formulas as they are written, image by image, in float64."""
    x = features.astype(np.float64)
    distance = 2 - 2 * x @ x.T
    np.fill_diagonal(distance, -1)
    n = len(x)

    def lists(mask, k):
        ranked = [np.flatnonzero(mask[i]) for i in range(n)]
        return [row[np.argsort(distance[i, row], kind="stable")][:k].tolist() for i, row in enumerate(ranked)]

    same = cameras[:, None] == cameras
    near, far = lists(same, n), lists(~same, n)
    np.fill_diagonal(distance, 0)
    v = np.zeros((n, n))
    for i in range(n):
        members = [j for j in near[i][: own + 1] if i in near[j][: own + 1]]
        members += [j for j in far[i][:cross] if i in far[j][:cross]]
        v[i, members] = np.exp(-distance[i, members])
        v[i] /= v[i].sum()
    averaged = np.stack([v[near[i][:own2] + far[i][:cross2]].mean(axis=0) for i in range(n)])
    shared = np.minimum(averaged[:, None], averaged[None]).sum(axis=2)
    return shared / (2 - shared)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    counts=st.sampled_from(
        [(5, 20, 2, 4), (3, 6, 1, 2), (4, 9, 1, 1), (4, 9, 2, 0), (4, 9, 1, 0), (40, 70, 3, 5), (2, 3, 6, 8)]
    ),
)
def test_against_the_formulas(seed, counts):
    features, cameras = world(seed)
    found = camera_jaccard_similarity(features, cameras, *counts)
    np.testing.assert_allclose(found.toarray(), dense(features, cameras, *counts), atol=1e-6)


def test_symmetric_between_0_and_1_and_whole_on_the_diagonal():
    features, cameras = world(1)
    found = camera_jaccard_similarity(features, cameras)
    assert isinstance(found, sp.csr_array)
    assert found.dtype == np.float32
    assert (found != found.T).nnz == 0
    assert (found.diagonal() == 1).all()
    assert 0 < found.data.min() <= found.data.max() <= 1
    assert found.has_canonical_format


def test_other_orders_of_the_images_give_the_same_pairs():
    features, cameras = world(2)
    order = np.random.default_rng(0).permutation(60)
    before = camera_jaccard_similarity(features, cameras).toarray()
    after = camera_jaccard_similarity(features[order], cameras[order]).toarray()
    np.testing.assert_allclose(after, before[np.ix_(order, order)], atol=1e-6)


def test_one_camera_is_the_usual_distance():
    features, _ = world(3)
    found = camera_jaccard_similarity(features, np.zeros(60, int), k1=12, k2=4)
    assert (found != jaccard_similarity(features, 12, 4)).nnz == 0
    with pytest.raises(InputError, match="own must be a whole number of at least 1, got 0"):
        camera_jaccard_similarity(features, np.zeros(60, int), own=0)


def slow_lists(features, cameras, k, same):
    """The k nearest under the own camera, self first, or under others; by distance in float64, then index."""
    squared = ((features[:, None].astype(np.float64) - features) ** 2).sum(axis=2)
    np.fill_diagonal(squared, -1)
    rows = np.full((len(features), k), -1)
    for i in range(len(features)):
        allowed = np.flatnonzero((cameras == cameras[i]) == same)
        found = allowed[np.argsort(squared[i, allowed], kind="stable")][:k]
        rows[i, : len(found)] = found
    return rows


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    own=st.integers(1, 8),
    cross=st.integers(1, 25),
    tile=st.integers(1, 60),
    seed=st.integers(0, 10**6),
)
def test_nearest_by_camera_one_by_one(sizes, own, cross, tile, seed):
    features, cameras = world(seed, sizes)
    with mock.patch.object(exact_search, "TILE", tile):
        near, far = nearest_by_camera(features, cameras, own, cross)
    np.testing.assert_array_equal(near, slow_lists(features, cameras, own, True))
    np.testing.assert_array_equal(far, slow_lists(features, cameras, cross, False))


@settings(deadline=None, max_examples=15)
@given(
    sizes=st.permutations([200, 100, 50, 49, 1]),
    own=st.integers(1, 6),
    cross=st.integers(1, 5),
    most=st.sampled_from([2, 127]),
    seed=st.integers(0, 10**6),
)
def test_nearest_by_camera_by_codes(sizes, own, cross, most, seed):
    """Coarse codes prove nothing; a camera of one image has nobody of its own."""
    features, cameras = world(seed, sizes)
    with (
        mock.patch.multiple(neighbours, WORTH_SKETCHES=0, WORTH_CODES=0),
        mock.patch.multiple(rough, ENOUGH=0, ROOM=1, MOST=400),
        mock.patch.object(codes, "largest_code", return_value=min(most, codes.largest_code())),
        mock.patch.object(codes, "are_fast", return_value=True),
        mock.patch.object(codes, "encode", wraps=codes.encode) as asked,
    ):
        near, far = nearest_by_camera(features, cameras, own, cross)
    asked.assert_called_once()
    np.testing.assert_array_equal(near, slow_lists(features, cameras, own, True))
    np.testing.assert_array_equal(far, slow_lists(features, cameras, cross, False))


def test_a_device_finds_the_same_by_blocks(monkeypatch):
    monkeypatch.setattr("icsr_cli.distances.camera_jaccard._BLOCK", 7 * 60)
    features, cameras = world(4)
    found = nearest_by_camera(torch.from_numpy(features), cameras, 6, 45)
    for lists, expected in zip(found, nearest_by_camera(features, cameras, 6, 45), strict=True):
        np.testing.assert_array_equal(lists, expected)


def test_tensors():
    features, cameras = world(4)
    whole = camera_jaccard_similarity(features, cameras)
    parts = camera_jaccard_similarity(torch.from_numpy(features), torch.from_numpy(cameras))
    np.testing.assert_array_equal(parts.toarray(), whole.toarray())


def test_nothing_of_the_size_of_all_pairs_is_kept():
    """Twice the images under as many cameras: twice the stored pairs, about."""
    stored = [camera_jaccard_similarity(*world(5, sizes=(n, n, n))).nnz / (3 * n) for n in (300, 600)]
    assert stored[1] < 1.5 * stored[0]


def test_bad_input():
    features, cameras = world(6)
    with pytest.raises(InputError, match=r"cameras must have shape \(60,\)"):
        camera_jaccard_similarity(features, cameras[:5])
    with pytest.raises(InputError, match="own must be a whole number"):
        camera_jaccard_similarity(features, cameras, own=0)


def test_options_are_as_the_function_has_them():
    least = {"own": 1, "cross": 1, "own2": 1, "cross2": 0, "k1": 1, "k2": 1}
    defaults = {name: signature(camera_jaccard_similarity).parameters[name].default for name in least}
    assert Options().model_dump() == defaults
    assert Options(**least).model_dump() == least
