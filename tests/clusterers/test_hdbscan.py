"""HDBSCAN on a sparse similarity against scikit-learn's on the dense distances."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from icsr_cli.clusterers.hdbscan import hdbscan
from icsr_cli.distances import jaccard_similarity
from icsr_cli.errors import InputError
from icsr_cli.types import by_first_appearance


def people(seed: int, groups: int = 12, spread: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(groups), rng.integers(4, 14, groups))
    centres = rng.standard_normal((groups, 16))
    features = centres[truth] + spread * rng.standard_normal((len(truth), 16))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("select", ["eom", "leaf"])
def test_as_on_the_dense_distances(seed: int, select: str) -> None:
    features, _ = people(seed)
    similarity = jaccard_similarity(features, k1=10, k2=3)
    found = hdbscan(similarity, 4, 4, select)  # type: ignore[arg-type]
    dense = np.maximum(1 - similarity.toarray().astype(np.float64), 1e-6)
    np.fill_diagonal(dense, 0)
    right = HDBSCAN(
        min_cluster_size=4, min_samples=4, metric="precomputed", cluster_selection_method=select, copy=True
    ).fit_predict(dense)
    assert adjusted_rand_score(right, found) > 0.9  # distances that are equal may be taken in another order
    np.testing.assert_array_equal(found[found >= 0][:1], [0])


def test_people_are_found_without_a_radius() -> None:
    features, truth = people(3, spread=0.2)
    found = hdbscan(jaccard_similarity(features, k1=8, k2=3))
    assert adjusted_rand_score(truth, found) > 0.95


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("select", ["eom", "leaf"])
def test_no_cluster_holds_images_that_share_nothing(seed: int, select: str) -> None:
    """Two groups of six among sixteen of three, which are too few for a cluster."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.concatenate([np.repeat([0, 1], 6), 2 + np.arange(48) // 3]))
    alike = np.triu((groups[:, None] == groups) * rng.uniform(0.6, 0.7, (60, 60)), 1)
    found = hdbscan(sp.csr_array((alike + alike.T).astype(np.float32)), 4, 2, select)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, by_first_appearance(np.where(groups < 2, groups, -1)))


def test_the_odd_cases() -> None:
    assert hdbscan(sp.csr_array((5, 5), dtype=np.float32)).tolist() == [-1] * 5
    assert hdbscan(np.ones((1, 1), dtype=np.float32)).tolist() == [-1]
    twins = np.kron(np.eye(2, dtype=np.float32), np.ones((5, 5), dtype=np.float32))  # equal images
    assert hdbscan(twins).tolist() == [0] * 5 + [1] * 5
    with pytest.raises(InputError, match="must have shape"):
        hdbscan(np.ones((3, 4), dtype=np.float32))
