from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import normalized_mutual_info_score

from icsr_cli.clustering import average_linkage, cohesion, dbscan, hdbscan, infomap, silhouette
from icsr_cli.errors import InputError
from icsr_cli.types import Neighbours

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "labels_and_ranking.npz")
SIMILARITY = sp.csr_array(1 - GOLDEN["jaccard_k30_6"])


def golden_neighbours():
    """The golden graph as neighbour lists, filled up with far-away strangers."""
    n, k = len(GOLDEN["features"]), 15
    indices = np.tile(np.arange(n)[:, None], (1, k))
    distances = np.ones((n, k), dtype=np.float32)
    place = np.ones(n, dtype=int)
    for (row, column), weight in zip(GOLDEN["graph_edges"], GOLDEN["graph_weight"], strict=True):
        indices[row, place[row]], distances[row, place[row]] = column, 1 - weight
        place[row] += 1
    return Neighbours(indices, distances)


@pytest.mark.parametrize("count", [80, 140])
def test_average_linkage_and_silhouette(count):
    labels = average_linkage(SIMILARITY, n_clusters=count)
    np.testing.assert_array_equal(labels, GOLDEN[f"average_linkage_{count}"])
    assert silhouette(SIMILARITY, labels) == pytest.approx(float(GOLDEN[f"silhouette_{count}"]), abs=1e-6)


@pytest.mark.parametrize("eps", [0.4, 0.5, 0.6])
def test_dbscan(eps):
    np.testing.assert_array_equal(dbscan(SIMILARITY, eps=eps), GOLDEN[f"dbscan_{eps}"])


def test_infomap():
    pytest.importorskip("infomap")
    neighbours = golden_neighbours()
    labels = infomap(neighbours)
    tensors = Neighbours(torch.from_numpy(neighbours.indices), torch.from_numpy(neighbours.distances))
    assert torch.equal(infomap(tensors), torch.from_numpy(labels))
    assert normalized_mutual_info_score(labels, GOLDEN["infomap_labels"]) > 0.95
    sizes = np.bincount(labels[labels >= 0])
    assert sizes.min() >= 5


def test_dense_similarities_of_any_kind():
    dense = SIMILARITY.toarray()[:60, :60]
    for method in (dbscan, hdbscan, partial(average_linkage, n_clusters=5)):
        found = method(dense)
        assert torch.equal(method(torch.from_numpy(dense)), torch.from_numpy(found))
        assert method(dense.astype(np.float16)).dtype == np.int64
    alike = cohesion(torch.from_numpy(dense), found)
    np.testing.assert_array_equal(alike.numpy(), cohesion(dense, found))
    with pytest.raises(InputError, match="got Tensor"):
        dbscan(torch.from_numpy(dense).to_sparse())


def test_local_labels():
    cameras = GOLDEN["cam"]
    for camera in range(5):
        similarity = 1 - GOLDEN[f"cam{camera}_jaccard"]
        labels = average_linkage(similarity, n_clusters=max(2, len(similarity) // 5))
        expected = GOLDEN["local_labels"][cameras == camera]
        _, first, inverse = np.unique(expected, return_index=True, return_inverse=True)
        np.testing.assert_array_equal(labels, np.argsort(np.argsort(first))[inverse])
