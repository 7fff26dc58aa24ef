from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from icsr_cli.clusterers import average_linkage
from icsr_cli.types import NO_CLUSTER, by_first_appearance


@given(st.lists(st.integers(-1, 5), max_size=30), st.integers(1, 5))
def test_small_clusters_are_noise_and_the_rest_is_numbered_as_it_appears(labels, min_size):
    kept = [name for name in dict.fromkeys(labels) if name != -1 and labels.count(name) >= min_size]
    expected = [kept.index(name) if name in kept else NO_CLUSTER for name in labels]
    found = by_first_appearance(np.array(labels, dtype=np.int64), min_size)
    assert found.tolist() == expected


def test_average_linkage_calls_small_clusters_noise():
    similarity = sp.block_diag([sp.coo_array(np.ones((size, size))) for size in (2, 3, 1)], format="csr")

    class Six:
        def __len__(self):
            return 6

    evidence = Six()
    evidence.similarity = sp.csr_array(similarity)
    for min_size, expected in ((1, [0, 0, 1, 1, 1, 2]), (2, [0, 0, 1, 1, 1, -1]), (3, [-1, -1, 0, 0, 0, -1])):
        options = average_linkage.Options(distance_threshold=0.6, min_size=min_size)
        assert average_linkage.cluster(evidence, options).tolist() == expected
