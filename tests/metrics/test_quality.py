from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from icsr_cli.errors import InputError
from icsr_cli.metrics import judge, label_quality

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "labels_and_ranking.npz")
FIELDS = (
    "pairwise_precision",
    "pairwise_recall",
    "pairwise_f",
    "bcubed_precision",
    "bcubed_recall",
    "bcubed_f",
    "expansion",
    "nmi",
)


def slow_quality(labels, ids):
    """Every pair, then every image, by definition."""
    judged = [i for i in range(len(labels)) if labels[i] >= 0 and ids[i] != -1]
    both = [(i, j) for i, j in combinations(judged, 2) if labels[i] == labels[j] and ids[i] == ids[j]]
    one_cluster = [(i, j) for i, j in combinations(judged, 2) if labels[i] == labels[j]]
    one_identity = [(i, j) for i, j in combinations(judged, 2) if ids[i] == ids[j]]
    precision = len(both) / len(one_cluster) if one_cluster else 1
    recall = len(both) / len(one_identity) if one_identity else 1
    image_precision, image_recall = [], []
    for i in judged:
        cluster = {j for j in judged if labels[j] == labels[i]}
        identity = {j for j in judged if ids[j] == ids[i]}
        image_precision.append(len(cluster & identity) / len(cluster))
        image_recall.append(len(cluster & identity) / len(identity))
    bcubed = np.mean(image_precision), np.mean(image_recall)
    names = {ids[i] for i in judged}
    expansion = np.mean([len({labels[i] for i in judged if ids[i] == name}) for name in names])

    def harmonic(p, r):
        return 2 * p * r / (p + r) if p + r else 0

    nmi = normalized_mutual_info_score([ids[i] for i in judged], [labels[i] for i in judged])
    return [precision, recall, harmonic(precision, recall), *bcubed, harmonic(*bcubed), expansion, nmi]


@pytest.mark.parametrize("labels", ["average_linkage_80", "refined_best"])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, np.ndarray.tolist])
def test_golden(labels, kind):
    quality = label_quality(kind(GOLDEN[labels]), kind(GOLDEN["pid"]))
    found = [getattr(quality, field) for field in FIELDS]
    np.testing.assert_allclose(found, GOLDEN[f"quality_{labels}"], atol=1e-12)
    assert quality.n_images == (GOLDEN[labels] >= 0).sum()
    assert quality.coverage == quality.n_images / 700


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(-2, 6), min_size=n, max_size=n),
            st.lists(st.integers(-1, 4), min_size=n, max_size=n),
        )
    )
)
def test_equals_the_slow_definition(task):
    labels, ids = task
    if not any(label >= 0 and identity != -1 for label, identity in zip(labels, ids, strict=True)):
        with pytest.raises(InputError, match="both a label"):
            label_quality(labels, ids)
        return
    quality = label_quality(labels, ids)
    found = [getattr(quality, field) for field in FIELDS]
    np.testing.assert_allclose(found, slow_quality(labels, ids), atol=1e-12)


def test_worked_by_hand():
    # Cluster 0 holds persons a a b, cluster 1 holds b; one image is noise and one of no known identity.
    quality = label_quality([0, 0, 0, 1, -1, 1], [7, 7, 9, 9, 9, -1])
    assert quality.pairwise_precision == pytest.approx(1 / 3)
    assert quality.pairwise_recall == pytest.approx(1 / 2)
    assert quality.bcubed_precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4)
    assert quality.bcubed_recall == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)
    assert quality.expansion == 1.5
    assert (quality.n_images, quality.n_clusters, quality.n_identities) == (4, 2, 2)
    assert quality.coverage == pytest.approx(4 / 5)


def test_nothing_to_judge_is_not_wrong():
    singles = label_quality([0, 1, 2], [5, 5, 6])
    assert (singles.pairwise_precision, singles.pairwise_recall, singles.pairwise_f) == (1, 0, 0)


def test_where_nobody_knows_the_truth_nothing_is_judged():
    assert judge([0, 1, -1], [-1, -1, 3]) is None
    assert judge([-1, -1], [4, 4]) is None
    assert judge([0, 0, -1], [-1, 4, 4]) == label_quality([0, 0, -1], [-1, 4, 4])


def test_goes_into_json():
    quality = label_quality(np.array([0, 0, 1]), np.array([1, 1, 2]))
    again = json.loads(json.dumps(quality.as_dict()))
    assert again["pairwise_f"] == again["nmi"] == again["expansion"] == 1
    assert again["n_clusters"] == 2


@pytest.mark.parametrize(
    ("labels", "ids", "message"),
    [
        ([0, 1], [0], r"ids must have shape \(2,\)"),
        ([0.0, 1.0], [0, 1], "labels must be whole numbers, got dtype float64"),
        (["a", "b"], [0, 1], r"got text. numpy.unique\(labels, return_inverse=True\)\[1\] numbers it"),
        ([[0, 1]], [0, 1], r"labels must have shape \(n,\), got \(1, 2\)"),
        ([], [], "none of the 0 images"),
        ([-1, 3], [4, -1], "1 have a label, 1 an identity"),
    ],
)
def test_bad_input(labels, ids, message):
    with pytest.raises(InputError, match=message):
        label_quality(labels, ids)
