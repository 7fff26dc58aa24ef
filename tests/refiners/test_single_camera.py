import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.refiners.single_camera import Options, refine
from icsr_cli.types import Labels, by_first_appearance


class Known:
    def __init__(self, cameras):
        self.cameras = None if cameras is None else np.asarray(cameras)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), cameras=st.integers(2, 4))
def test_against_a_loop_over_clusters(seed, cameras):
    rng = np.random.default_rng(seed)
    labels = Labels.of(by_first_appearance(rng.integers(-1, 12, 40)))
    of_image = rng.integers(0, cameras, 40)
    found = refine(Known(of_image), labels, Options(least=0))
    kept = labels.labels.copy()
    for cluster in range(labels.n_clusters):
        own = labels.labels == cluster
        if len(set(of_image[own])) < 2:
            kept[own] = -1
    if len(set(kept[kept >= 0])) < 2:
        assert found.labels is labels.labels
        assert len(found.notes) == 1
        return
    np.testing.assert_array_equal(found.labels, by_first_appearance(kept))
    np.testing.assert_array_equal(found.clusters, labels.clusters)
    np.testing.assert_array_equal(found.states == "single-camera", (labels.labels >= 0) & (kept < 0))
    np.testing.assert_array_equal(found.states == "noise", labels.labels < 0)
    assert found.figures["single_camera"] == (found.states == "single-camera").sum()


@pytest.mark.parametrize("cameras", [None, np.zeros(6, int)])
def test_without_several_cameras_nothing_happens(cameras):
    labels = Labels.of(np.array([0, 0, 1, 1, 2, -1]))
    assert refine(Known(cameras), labels, Options()) is labels
    nothing = Labels.of(np.full(6, -1))
    assert refine(Known(np.arange(6)), nothing, Options()) is nothing
    one = Labels.of(np.array([0, 0, -1, -1, -1, -1]))
    assert len(refine(Known(np.arange(6)), one, Options()).notes) == 1


def test_where_too_few_would_remain_nothing_happens_and_is_said():
    labels = Labels.of(np.repeat(np.arange(30), 2))
    cameras = np.zeros(60, int)
    cameras[[1, 3]] = 1
    found = refine(Known(cameras), labels, Options())
    np.testing.assert_array_equal(found.labels, labels.labels)
    assert "of 30 clusters 2 would remain" in found.notes[0]
    assert refine(Known(cameras), labels, Options(least=0.05)).n_clusters == 2
