from pathlib import Path

import numpy as np
import pytest

from icsr_cli.distances import knn
from icsr_cli.refinement import information_nodes, node_scores, refine

GOLDEN = np.load(Path(__file__).parent / "golden" / "labels_and_ranking.npz")


def by_first_appearance(labels):
    names = {-1: -1}
    return np.array([names.setdefault(label, len(names) - 1) for label in labels])


def test_golden_graph_and_scores():
    neighbours = knn(GOLDEN["features"], 15, metric="cosine")
    kept = (1 - neighbours.distances >= 0.5) & (neighbours.indices != np.arange(700)[:, None])
    rows, _ = np.nonzero(kept)
    edges = set(zip(rows.tolist(), neighbours.indices[kept].tolist(), strict=True))
    assert edges == set(map(tuple, GOLDEN["graph_edges"].tolist()))
    assert neighbours.distances.mean() == pytest.approx(float(GOLDEN["graph_mean_distance"]), abs=1e-6)
    np.testing.assert_allclose(node_scores(neighbours), GOLDEN["node_score"], rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "key"), [("highest", "highest_score"), ("last-above-mean", "last_above_mean")]
)
def test_golden_nodes(rule, key):
    modules = GOLDEN["infomap_labels"]
    expected = GOLDEN[f"info_nodes_{key}"]
    nodes = information_nodes(GOLDEN["node_score"], modules, rule)
    # The golden pairs are in another order and number the modules in their own way.
    assert sorted(nodes) == sorted(expected[:, 1])
    assert (np.diff(modules[nodes]) > 0).all()


@pytest.mark.parametrize(("name", "key"), [("best", "highest_score"), ("last", "last_above_mean")])
def test_golden_refinement(name, key):
    labels, discarded = refine(
        GOLDEN["average_linkage_80"],
        GOLDEN["local_labels"],
        GOLDEN["cam"],
        GOLDEN[f"info_nodes_{key}"][:, 1],
    )
    expected = GOLDEN[f"refined_{name}"]
    # The golden numbers go by the first image before anything is thrown out.
    np.testing.assert_array_equal(labels, by_first_appearance(expected))
    np.testing.assert_array_equal(discarded, expected == -1)
    assert discarded.sum() == GOLDEN[f"refined_{name}_discarded"]
