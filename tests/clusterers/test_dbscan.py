import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from icsr_cli.clustering import dbscan
from icsr_cli.errors import InputError
from icsr_cli.types import by_first_appearance


def random_similarity(n, density, levels, seed):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(1, levels + 1, (n, n)) / levels * (rng.random((n, n)) < density), 1)
    return (upper + upper.T + np.eye(n)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 60),
    density=st.floats(0.01, 0.5),
    levels=st.sampled_from([3, 10, 1000]),
    eps=st.floats(0.05, 0.95),
    min_samples=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_against_scikit_learn(n, density, levels, eps, min_samples, seed):
    """Duplicates (similarity 1), border images between clusters and distances of exactly eps included."""
    similarity = random_similarity(n, density, levels, seed)
    model = DBSCAN(eps=np.float32(eps), min_samples=min_samples, metric="precomputed")
    expected = by_first_appearance(model.fit_predict(1 - similarity).astype(np.int64))
    np.testing.assert_array_equal(dbscan(sp.csr_array(similarity), eps, min_samples), expected)


def test_border_image_joins_the_first_cluster():
    """Two clusters of 4 core images each; image 0 lies beside both."""
    block = np.kron(np.eye(2), np.full((4, 4), 0.9))
    similarity = np.zeros((9, 9))
    similarity[1:, 1:] = block
    similarity[0, [4, 5]] = similarity[[4, 5], 0] = 0.6
    assert dbscan(similarity, 0.5, 4).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_all_noise():
    assert dbscan(sp.eye_array(5), 0.5, 2).tolist() == [-1] * 5
    assert dbscan(sp.csr_array((3, 3)), 0.5, 1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps must be a number above 0 and below 1"),
        ({"eps": 1}, "eps must be a number above 0 and below 1, .* got 1"),
        ({"eps": np.nan}, "eps must be a number above 0 and below 1"),
        ({"eps": "0.5"}, "eps must be a number above 0 and below 1, .* got '0.5'"),
        ({"min_samples": 0}, "min_samples must be a whole number of at least 1, got 0"),
        ({"min_samples": 1.5}, "min_samples must be a whole number"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        dbscan(sp.eye_array(4), **options)


def test_bad_similarity():
    with pytest.raises(InputError, match="similarity must be symmetric"):
        dbscan(sp.csr_array(np.triu(np.full((4, 4), 0.5))))
