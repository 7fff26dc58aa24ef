from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.distances import knn, neighbours, rough, sketch
from icsr_cli.exact_search import Among
from icsr_cli.types import ALONE

SMALL = {"WIDTHS": (2, 5), "WORTH": 2, "HOLD": 0, "FITTED": 40}


def features_of(d, directions, rest, shift, seed, n=120):
    """Vectors along a few directions, a little off them, far from the origin; some are there twice."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, directions)) @ rng.standard_normal((directions, d))
    x += rest * rng.standard_normal((n, d)) + shift
    x[:10] = x[10:20]
    return x.astype(np.float32)


def all_distances(x):
    """Obvious and in float64."""
    x = x.astype(np.float64)
    return ((x[:, None] - x[None]) ** 2).sum(axis=2)


worlds = given(
    d=st.integers(10, 60),
    directions=st.integers(1, 12),
    rest=st.sampled_from([0, 1e-4, 0.1, 1]),
    shift=st.sampled_from([0, 5]),
    seed=st.integers(0, 10**6),
)


@settings(max_examples=60, deadline=None)
@worlds
def test_no_pair_is_nearer_than_its_sketches(d, directions, rest, shift, seed):
    x = features_of(d, directions, rest, shift, seed)
    true = all_distances(x)
    with mock.patch.multiple(sketch, **SMALL):
        found = list(sketch.sketches(x))
    assert [own.values.shape[1] for own in found] == [3, 6]
    for own in found:
        bound = own.no_nearer(own.squared_distances(slice(None)), np.arange(len(x)))
        assert (bound <= true + 1e-7 * true.max()).all()
    if rest == 0 and directions <= 5:  # nothing is left over, so the bound is about the distance
        assert (true - bound <= 0.05 * true.max()).all()


@settings(max_examples=60, deadline=None)
@worlds
def test_exact_search_by_sketches(d, directions, rest, shift, seed):
    """However much the sketches leave out: what is not proven is searched."""
    x = features_of(d, directions, rest, shift, seed)
    plain = knn(x, 7)
    groups = np.zeros(len(x), dtype=np.int64)
    with mock.patch.multiple(sketch, **SMALL), mock.patch.multiple(rough, ENOUGH=0, ROOM=1, MOST=150):
        [(indices, distances)] = rough.search_roughly(x, sketch.sketches(x), [Among(7)], groups, ALONE)
    np.testing.assert_array_equal(indices, plain.indices)
    np.testing.assert_allclose(distances, plain.distances, atol=1e-5 * all_distances(x).max())


@pytest.mark.parametrize(
    ("d", "directions", "widths"), [(512, 4, [65, 129]), (512, 60, [65, 129]), (512, 400, []), (128, 4, [])]
)
def test_directions_that_hold_little_are_not_tried(d, directions, widths):
    x = features_of(d, directions, 0.01, 0, 0, n=700)
    assert [own.values.shape[1] for own in sketch.sketches(x)] == widths


def test_large_searches_take_the_first_sketch_that_proves_enough():
    x = features_of(512, 100, 0.01, 0, 0, n=700)
    plain = knn(x, 9)
    with (
        mock.patch.multiple(neighbours, WORTH_SKETCHES=0, WORTH_CODES=2**60),
        mock.patch.object(rough.Rough, "nearest", autospec=True, side_effect=rough.Rough.nearest) as asked,
    ):
        found = knn(x, 9)
    [call] = asked.call_args_list
    assert call.args[0].values.shape == (700, 129)
    np.testing.assert_array_equal(found.indices, plain.indices)
    np.testing.assert_allclose(found.distances, plain.distances, rtol=1e-5, atol=1e-3)


def test_copies_of_one_vector_have_no_directions():
    x = np.ones((700, 512), dtype=np.float32)
    with mock.patch.object(neighbours, "WORTH_SKETCHES", 0):
        found = knn(x, 5)
    np.testing.assert_array_equal(found.indices, knn(x, 5).indices)
    np.testing.assert_array_equal(found.distances, 0)
