from pathlib import Path

import numpy as np
import pytest
import torch

from icsr_cli.distances import jaccard_similarity, knn

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "labels_and_ranking.npz")
FEATURES = GOLDEN["features"]


@pytest.mark.parametrize("k", [15, 20, 30])
def test_ranks(k):
    found = knn(FEATURES, k)
    np.testing.assert_array_equal(found.indices, GOLDEN[f"rank_k{k}"])
    expected = ((FEATURES[:, None] - FEATURES[found.indices]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found.distances, expected, atol=2e-6)


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (20, 6), (15, 1)])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_jaccard(k1, k2, kind):
    features = torch.from_numpy(FEATURES) if kind == "torch" else FEATURES
    similarity = jaccard_similarity(features, k1, k2)
    np.testing.assert_allclose(1 - similarity.toarray(), GOLDEN[f"jaccard_k{k1}_{k2}"], atol=2e-5)


@pytest.mark.parametrize("camera", range(5))
def test_jaccard_of_one_camera(camera):
    similarity = jaccard_similarity(FEATURES[GOLDEN["cam"] == camera], 30, 6)
    np.testing.assert_allclose(1 - similarity.toarray(), GOLDEN[f"cam{camera}_jaccard"], atol=2e-5)
