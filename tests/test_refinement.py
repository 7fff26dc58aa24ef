from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.distances import jaccard, knn
from icsr_cli.errors import InputError
from icsr_cli.labelling import KnownEvidence
from icsr_cli.refinement import information_nodes, node_scores, refine
from icsr_cli.refiners import discard
from icsr_cli.types import Labels, Neighbours

GOLDEN = np.load(Path(__file__).parent / "golden" / "labels_and_ranking.npz")


def by_first_appearance(labels):
    names = {-1: -1}
    return np.array([names.setdefault(label, len(names) - 1) for label in labels], dtype=np.int64)


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


def slow_refinement(labels, local_labels, cameras, nodes):
    """Node after node, image after image."""
    labels = list(labels)
    for node in nodes:
        cluster = labels[node]
        if cluster == -1 or local_labels[node] == -1:
            continue
        for image in range(len(labels)):
            if (
                labels[image] == cluster
                and cameras[image] == cameras[node]
                and local_labels[image] not in (-1, local_labels[node])
            ):
                labels[image] = -1
    return labels


images = st.integers(0, 40).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "labels": st.lists(st.integers(-1, 4), min_size=n, max_size=n),
            "local_labels": st.lists(st.integers(-1, 3), min_size=n, max_size=n),
            "cameras": st.lists(st.integers(0, 2), min_size=n, max_size=n),
            "nodes": st.lists(st.integers(0, max(0, n - 1)), max_size=12 if n else 0),
        }
    )
)


@settings(max_examples=200, deadline=None)
@given(images)
def test_refine_node_after_node(case):
    """Several nodes of one cluster and camera, nodes twice, noise and images without local labels too."""
    case = {name: np.array(values, dtype=np.int64) for name, values in case.items()}
    labels, discarded = refine(**case)
    expected = slow_refinement(**case)
    np.testing.assert_array_equal(labels, by_first_appearance(expected))
    np.testing.assert_array_equal(discarded, (np.array(expected, dtype=int) == -1) & (case["labels"] != -1))
    assert labels.dtype == np.int64
    assert discarded.dtype == bool
    for node in case["nodes"]:  # a node's own local cluster stays, other cameras stay
        if labels[node] >= 0 and case["local_labels"][node] >= 0:
            same = (case["labels"] == case["labels"][node]) & (case["cameras"] == case["cameras"][node])
            assert not discarded[same & (case["local_labels"] == case["local_labels"][node])].any()
    ruled = {(case["labels"][node], case["cameras"][node]) for node in case["nodes"]}
    for image in np.flatnonzero(discarded):
        assert (case["labels"][image], case["cameras"][image]) in ruled


@settings(max_examples=200, deadline=None)
@given(images)
def test_split(case):
    """The same images are thrown out; each global, camera and local cluster of them is one cluster."""
    case = {name: np.array(values, dtype=np.int64) for name, values in case.items()}
    expected, discarded = refine(**case)
    labels, mask = refine(**case, thrown_out="split")
    np.testing.assert_array_equal(mask, discarded)
    names = [
        -1
        if case["labels"][i] == -1
        else (case["labels"][i], case["cameras"][i], case["local_labels"][i])
        if discarded[i]
        else case["labels"][i]
        for i in range(len(labels))
    ]
    np.testing.assert_array_equal(labels, by_first_appearance(names))
    np.testing.assert_array_equal(by_first_appearance(np.where(discarded, -1, labels)), expected)


def test_refine_worked_by_hand():
    """Camera 0 sees images 0 to 3; the node, image 1, is in local cluster 5. Image 3 has none."""
    labels = [7, 7, 7, 7, 7, 2]
    local_labels = [5, 5, 6, -1, 6, 6]
    cameras = [0, 0, 0, 0, 1, 0]
    result = refine(np.array(labels), np.array(local_labels), np.array(cameras), np.array([1]))
    assert result.labels.tolist() == [0, 0, -1, 0, 0, 1]
    assert result.discarded.tolist() == [False, False, True, False, False, False]
    split = refine(
        np.array(labels), np.array(local_labels), np.array(cameras), np.array([1]), thrown_out="split"
    )
    assert split.labels.tolist() == [0, 0, 1, 0, 0, 2]


def test_torch_in_torch_out():
    case = [torch.tensor(part) for part in ([0, 0, 1], [0, 1, 2], [0, 0, 0], [0])]
    labels, discarded = refine(*case)
    assert torch.equal(labels, torch.tensor([0, -1, 1]))
    assert torch.equal(discarded, torch.tensor([False, True, False]))
    neighbours = knn(torch.from_numpy(GOLDEN["features"]), 15, metric="cosine")
    scores = node_scores(neighbours)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), GOLDEN["node_score"], rtol=1e-5)
    nodes = information_nodes(scores, np.zeros(700, dtype=np.int64))
    assert torch.equal(nodes, scores.argmax().reshape(1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), max_size=30))
def test_information_nodes(rows):
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    scores = np.array([score for _, score in rows], dtype=float)
    highest, last = [], []
    for label in sorted(set(labels.tolist()) - {-1}):
        members = [i for i in range(len(rows)) if labels[i] == label]
        highest.append(max(members, key=lambda i: (scores[i], -i)))
        above = [i for i in members if scores[i] > scores.mean()]
        last += above[-1:]
    assert information_nodes(scores, labels).tolist() == highest
    assert information_nodes(scores, labels, "last-above-mean").tolist() == last


def test_no_node_is_said():
    facts = {"local": GOLDEN["local_labels"].astype(np.int64), "cameras": GOLDEN["cam"].astype(np.int64)}
    known = KnownEvidence(GOLDEN["features"], jaccard.Options(), 15, **facts)
    labels = Labels.of(GOLDEN["average_linkage_80"].astype(np.int64))
    assert discard.refine(known, labels, discard.Options()).notes == ()
    [note] = discard.refine(known, Labels.of(np.full(len(known), -1)), discard.Options()).notes
    assert note.startswith("No cluster has an information node")


def test_scores_by_hand():
    """Images 0 and 1 at 0.2 of each other, image 2 at 0.6 of image 0; the mean of all six is 1 / 6."""
    neighbours = Neighbours(np.array([[0, 1], [0, 1], [2, 0]]), np.array([[0, 0.2], [0.2, 0], [0, 0.6]]))
    mean = 1.0 / 6
    np.testing.assert_allclose(node_scores(neighbours), [1 / (0.2 + mean), 1 / (0.2 + mean), 0])
    np.testing.assert_allclose(node_scores(neighbours, 0.4)[2], 1 / (0.6 + mean))
    assert node_scores(neighbours, -1).all()
    assert not node_scores(neighbours, 1).any()
    copies = Neighbours(np.array([[0, 1], [0, 1]]), np.zeros((2, 2)))
    assert np.isfinite(node_scores(copies)).all()


ROWS = {"labels": [0, 0], "local_labels": [0, 0], "cameras": [0, 1], "nodes": [0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_labels": [0]}, r"local_labels must have shape \(2,\), as many as images, got \(1,\)"),
        ({"cameras": [0, 0, 0]}, r"cameras must have shape \(2,\)"),
        ({"cameras": [0, -1]}, "cameras must be at least 0, got -1"),
        ({"labels": [0, -2]}, "labels must be at least -1, got -2"),
        ({"labels": [0.0, 1.0]}, "labels must be whole numbers, got dtype float64"),
        ({"nodes": [2]}, "nodes must be images, 0 to 1, got 2"),
        ({"nodes": [-1]}, "nodes must be at least 0, got -1"),
        ({"nodes": [0.5]}, "nodes must be whole numbers"),
        ({"thrown_out": "drop"}, "thrown_out must be 'discard' or 'split', got 'drop'"),
    ],
)
def test_refine_bad_input(change, message):
    case = {**ROWS, **change}
    arrays = {name: value if name == "thrown_out" else np.array(value) for name, value in case.items()}
    with pytest.raises(InputError, match=message):
        refine(**arrays)


def test_other_bad_input():
    with pytest.raises(InputError, match="scores must be finite numbers"):
        information_nodes(np.array([0, np.nan]), np.array([0, 0]))
    with pytest.raises(InputError, match=r"labels must have shape \(2,\)"):
        information_nodes(np.zeros(2), np.array([0]))
    with pytest.raises(InputError, match="rule must be 'highest' or 'last-above-mean', got 'first'"):
        information_nodes(np.zeros(2), np.zeros(2, dtype=int), "first")
    with pytest.raises(InputError, match="neighbours must hold indices and distances of one shape"):
        node_scores(Neighbours(np.zeros((2, 2), dtype=int), np.zeros((2, 3))))
    with pytest.raises(InputError, match="by cosine: knn"):
        node_scores(knn(np.eye(3), 2))
    with pytest.raises(InputError, match="indices from 0 to 0, got 3 to 3"):
        node_scores(Neighbours(np.full((1, 1), 3), np.zeros((1, 1))))
    with pytest.raises(InputError, match="finite distances"):
        node_scores(Neighbours(np.zeros((1, 1), dtype=int), np.full((1, 1), np.inf)))
    with pytest.raises(InputError, match=r"min_similarity must be -1 to 1, got -1.1"):
        node_scores(Neighbours(np.zeros((1, 1), dtype=int), np.zeros((1, 1))), -1.1)
    with pytest.raises(InputError, match="min_similarity must be -1 to 1, got 2"):
        node_scores(Neighbours(np.zeros((1, 1), dtype=int), np.zeros((1, 1))), 2)
