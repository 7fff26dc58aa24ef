import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_threads import threads

from icsr_cli.distances import jaccard_similarity, knn
from icsr_cli.errors import InputError
from icsr_cli.types import Neighbours


def slow_similarity(features, ranks, k1, k2):
    """The definition, set by set, dense."""
    n = len(features)
    x = features.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)

    def reciprocal(i, k):
        return {j for j in ranks[i, :k] if i in ranks[j, :k]}

    weights = np.zeros((n, n))
    for i in range(n):
        first = reciprocal(i, k1)
        members = set(first)
        for c in first:
            half = reciprocal(c, round(k1 / 2) + 1)
            if len(half & first) * 3 > len(half) * 2:
                members |= half
        members = sorted(members)
        scores = np.exp(-(2 - 2 * x[members] @ x[i]))
        weights[i, members] = scores / scores.sum()
    if k2 > 1:
        weights = np.array([weights[ranks[i, :k2]].mean(axis=0) for i in range(n)])
    shared = np.minimum(weights[:, None], weights[None]).sum(axis=2)
    return shared / (2 - shared)


def clustered(n, d, groups, seed, copies=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, d))
    features = centres[rng.integers(0, groups, n)] + 0.6 * rng.standard_normal((n, d))
    for _ in range(copies):
        features[rng.integers(0, n)] = features[rng.integers(0, n)]
    return features.astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 70),
    k1=st.integers(1, 35),
    k2=st.integers(1, 10),
    groups=st.integers(1, 8),
    copies=st.integers(0, 20),
    seed=st.integers(0, 10**6),
    backend=st.sampled_from(["numba", "torch"]),
)
def test_against_the_definition(n, k1, k2, groups, copies, seed, backend):
    k2 = min(k1, k2)
    features = clustered(n, 6, groups, seed, copies)
    similarity = jaccard_similarity(features, k1, k2, backend=backend)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    ranks = knn(unit, min(n, k1)).indices
    expected = slow_similarity(features, ranks, k1, k2)
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(similarity.toarray(), expected, atol=2e-5)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_properties(backend):
    similarity = jaccard_similarity(clustered(400, 32, 60, 0, copies=30), 10, 3, backend=backend)
    assert similarity.dtype == np.float32
    assert similarity.has_canonical_format
    assert (similarity != similarity.T).nnz == 0
    assert similarity.data.min() > 0
    assert similarity.data.max() <= 1
    np.testing.assert_array_equal(similarity.diagonal(), np.ones(400))
    assert similarity.nnz < 400 * 400 / 2


def test_invariant_to_the_order_of_images():
    features = clustered(300, 16, 30, 1)
    order = np.random.default_rng(0).permutation(300)
    shuffled = jaccard_similarity(features[order], 20, 6)
    expected = jaccard_similarity(features, 20, 6)[order][:, order]
    assert abs(shuffled - expected).max() < 1e-6


def test_threads_change_nothing():
    features = clustered(900, 16, 60, 2)
    results = []
    for count in (1, 3):
        with threads(count):
            results.append(jaccard_similarity(features))
    assert (results[0] != results[1]).nnz == 0


def test_length_does_not_matter():
    features = clustered(100, 8, 10, 3)
    scaled = features * np.random.default_rng(0).uniform(0.1, 10, (100, 1)).astype(np.float32)
    assert abs(jaccard_similarity(features) - jaccard_similarity(scaled)).max() < 1e-5


def test_neighbours_at_hand():
    features = clustered(120, 8, 10, 4)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    expected = jaccard_similarity(features, 15, 4)
    for given_features in (features, torch.from_numpy(features)):
        found = jaccard_similarity(given_features, 15, 4, neighbours=knn(given_features, 20, metric="cosine"))
        assert (found != expected).nnz == 0
        anew = jaccard_similarity(given_features, 15, 4, neighbours=knn(given_features, 20))
        assert 0 < abs(anew - expected).max() < 1e-6  # distances taken anew round otherwise


def test_copies_are_alike():
    similarity = jaccard_similarity(np.repeat(clustered(10, 8, 10, 5), 4, axis=0), 4, 2).toarray()
    block = np.kron(np.eye(10), np.ones((4, 4)))
    np.testing.assert_allclose(similarity, block, atol=1e-6)


def test_approximate_neighbours():
    features = clustered(800, 16, 60, 6)
    exact = jaccard_similarity(features)
    found = jaccard_similarity(features, approximate="hnsw")
    assert abs(exact - found).sum() < 0.05 * exact.sum()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_same():
    features = torch.from_numpy(clustered(2000, 64, 150, 7))
    assert abs(jaccard_similarity(features.cuda()) - jaccard_similarity(features)).max() < 2e-5


GOOD = clustered(10, 4, 3, 0)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (GOOD * np.nan, {}, "features must be finite"),
        (GOOD * 0, {}, "zero vectors"),
        (GOOD[0], {}, r"features must have shape \(n, d\)"),
        (GOOD, {"k1": 0}, "k1 must be a whole number of at least 1, got 0"),
        (GOOD, {"k2": 0}, "k2 must be a whole number of at least 1, got 0"),
        (GOOD, {"k1": 3, "k2": 4}, "k2 must be at most k1, got k2 = 4 and k1 = 3"),
        (GOOD, {"backend": "c"}, "backend must be"),
        (GOOD, {"neighbours": knn(GOOD, 4)}, "at least 10 columns, got \\(10, 4\\)"),
        (GOOD, {"neighbours": Neighbours(np.full((10, 10), 10), None)}, "from 0 to 9, got 10 to 10"),
        (GOOD, {"neighbours": knn(GOOD[:9], 9)}, "neighbours must have 10 rows"),
    ],
)
def test_bad_input(features, options, message):
    with pytest.raises(InputError, match=message):
        jaccard_similarity(features, **options)
