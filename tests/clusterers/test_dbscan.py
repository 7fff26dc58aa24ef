import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from sklearn.metrics import silhouette_samples

from icsr_cli.choices import find
from icsr_cli.clusterers.dbscan import RADII, best_radius
from icsr_cli.clustering import dbscan
from icsr_cli.distances import jaccard_similarity
from icsr_cli.errors import InputError
from icsr_cli.metrics import label_quality
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


def scattered(people, spread, seed):
    """Unit features of people with 4 to 12 images, some of them far off."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(people), rng.integers(4, 13, people))
    noise = rng.standard_normal((len(ids), 16)) * np.where(rng.random(len(ids)) < 0.1, 3, 1)[:, None]
    features = rng.standard_normal((people, 16))[ids] + spread * noise
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), ids


def dense_sum_of_silhouettes(similarity, labels):
    kept = labels >= 0
    if len(set(labels[kept].tolist())) < 2:
        return -np.inf
    distance = 1 - similarity.toarray().astype(np.float64)
    np.fill_diagonal(distance, 0)
    return silhouette_samples(distance[np.ix_(kept, kept)], labels[kept], metric="precomputed").sum()


@pytest.mark.parametrize("seed", range(5))
def test_auto_takes_the_radius_of_the_highest_silhouette(seed):
    features, ids = scattered(30, 0.2 + 0.1 * seed, seed)
    similarity = jaccard_similarity(features, 15, 4)
    eps, labels = best_radius(similarity)
    sums = [dense_sum_of_silhouettes(similarity, dbscan(similarity, one)) for one in RADII]
    assert eps == RADII[int(np.argmax(sums))]
    np.testing.assert_array_equal(labels, dbscan(similarity, eps))
    np.testing.assert_array_equal(labels, dbscan(similarity, "auto"))

    def quality(found):
        alone = np.where(found < 0, found.max() + 1 + np.arange(len(found)), found)
        return label_quality(alone, ids).bcubed_f

    best = max(quality(dbscan(similarity, one)) for one in RADII)
    assert quality(labels) > best - 0.05, (seed, eps)


def test_auto_where_there_is_nothing_to_choose():
    assert dbscan(sp.eye_array(6), "auto").tolist() == [-1] * 6
    assert dbscan(np.ones((6, 6), dtype=np.float32), "auto").tolist() == [0] * 6
    eps, labels = best_radius(sp.csr_array(np.full((6, 6), 0.2, dtype=np.float32)))
    assert (eps, labels.tolist()) == (0.5, [-1] * 6)
    assert (*RADII[:2], *RADII[-2:], len(RADII)) == (0.2, 0.25, 0.65, 0.7, 11)


def test_auto_among_settings():
    options = find("clusterers", "dbscan").Options
    assert options(eps="auto").dump() == {"method": "dbscan", "eps": "auto", "min_samples": 4}
    for wrong in ("half", 0, 1.0):
        with pytest.raises(ValueError, match="eps"):
            options(eps=wrong)
