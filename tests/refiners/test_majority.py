from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.refiners.majority import Options, refine
from icsr_cli.types import Labels, by_first_appearance


class Known:
    def __init__(self, cameras, local):
        self.cameras, self.local = cameras, local


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), least=st.sampled_from([0, 0.3, 0.5, 1]))
def test_against_a_loop_over_local_clusters(seed, least):
    rng = np.random.default_rng(seed)
    labels = Labels.of(by_first_appearance(rng.integers(-1, 6, 50)))
    cameras, local = rng.integers(0, 3, 50), rng.integers(-1, 5, 50)
    found = refine(Known(cameras, local), labels, Options(least=least))
    expected = labels.labels.copy()
    for camera in range(3):
        for number in range(5):
            own = (cameras == camera) & (local == number)
            votes = Counter(label for label in labels.labels[own].tolist() if label >= 0)
            if votes:
                best = min(votes, key=lambda label: (-votes[label], label))
                if votes[best] >= least * own.sum():
                    expected[own] = best
    np.testing.assert_array_equal(found.labels, by_first_appearance(expected))
    np.testing.assert_array_equal(found.columns["moved"], expected != labels.labels)
    np.testing.assert_array_equal(found.states == "kept", expected >= 0)
    np.testing.assert_array_equal(found.clusters, labels.clusters)
    assert found.figures["moved"] == (expected != labels.labels).sum()


def test_without_local_labels_nothing_moves():
    labels = Labels.of(np.array([0, 0, -1, 1]))
    cameras = np.zeros(4, int)
    assert refine(Known(cameras, None), labels, Options()) is labels
    assert refine(Known(cameras, np.full(4, -1)), labels, Options()) is labels
