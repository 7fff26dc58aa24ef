import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score

from icsr_cli.clusterers import _kernels
from icsr_cli.clustering import silhouette
from icsr_cli.errors import InputError


@settings(max_examples=50, deadline=None)
@given(n=st.integers(3, 50), groups=st.integers(2, 20), density=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_against_scikit_learn(n, groups, density, seed):
    """Clusters of one image and clusters that share nothing with others included; noise left out."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    similarity = upper + upper.T + np.eye(n)
    labels = rng.integers(-1, groups, n)
    kept = labels >= 0
    found = silhouette(sp.csr_array(similarity), labels)
    if not 2 <= len(np.unique(labels[kept])) < kept.sum():
        assert math.isnan(found)
        return
    dense = (1 - similarity)[kept][:, kept]
    assert found == pytest.approx(silhouette_score(dense, labels[kept], metric="precomputed"), abs=1e-6)


def test_copies_only():
    """All distances within clusters 0, between clusters 1: perfect. All images alike: 0."""
    assert silhouette(np.kron(np.eye(3), np.ones((2, 2))), np.repeat([4, 7, 9], 2)) == 1
    assert silhouette(np.ones((4, 4)), np.array([0, 0, 1, 1])) == 0


def test_stored_zeros_take_no_room(monkeypatch):
    """Room is for as many clusters as there are; uncompiled, where what lies outside is an error."""
    plain = getattr(_kernels.silhouette_sum, "py_func", _kernels.silhouette_sum)
    monkeypatch.setattr(_kernels, "silhouette_sum", plain)
    labels, similarity = np.arange(12) % 3, np.kron(np.full((4, 4), 0.5), np.eye(3))
    padded = sp.csr_array(np.where(similarity == 0, 2, similarity))
    padded.data[padded.data == 2] = 0
    assert silhouette(padded, labels) == silhouette(similarity, labels) == 0.5


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [-1, -1, -1, -1], [0, 1, 2, 3], [0, 0, -1, -1]])
def test_undefined(labels):
    assert math.isnan(silhouette(sp.eye_array(4), np.array(labels)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0], r"labels must have shape \(4,\), as many as images, got \(3,\)"),
        ([0.0, 1, 0, 1], "labels must be whole numbers, got dtype float64"),
        ([0, 1, 0, -2], "labels must be at least -1, got -2"),
    ],
)
def test_bad_input(labels, message):
    with pytest.raises(InputError, match=message):
        silhouette(sp.eye_array(4), np.array(labels))
