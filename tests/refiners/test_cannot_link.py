from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.refiners.cannot_link import Options, refine
from icsr_cli.types import Labels, by_first_appearance


def known(cameras, local, similarity):
    return SimpleNamespace(cameras=cameras, local=local, similarity=sp.csr_array(similarity))


def loop_over_pairs(labels, cameras, local, similarity, min_size):
    """The obvious way: sets of images, joined pair by pair of local clusters, the most alike first."""
    found = labels.copy()
    for cluster in set(labels[labels >= 0]):
        images = np.flatnonzero(labels == cluster)
        by_name = {}
        for image in images:
            alone = local[image] < 0
            by_name.setdefault((cameras[image], -2 - image if alone else local[image]), []).append(image)
        names = sorted(by_name)
        places = [camera for camera, one in names if one >= 0]
        if len(set(places)) == len(places):
            continue
        alike = {
            (one, two): similarity[np.ix_(by_name[one], by_name[two])].mean()
            for one, two in combinations(names, 2)
        }
        part = {name: frozenset([name]) for name in names}
        for (one, two), value in sorted(alike.items(), key=lambda item: -item[1]):
            joined = part[one] | part[two]
            seen = [camera for camera, number in joined if number >= 0]
            if value > 0 and len(set(seen)) == len(seen):
                part |= dict.fromkeys(joined, joined)
        for number, names_of_part in enumerate(set(part.values())):
            members = [image for name in names_of_part for image in by_name[name]]
            found[members] = 1000 * (1 + cluster) + number if len(members) >= min_size else -1
    return by_first_appearance(found)


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6), cameras=st.integers(1, 4), people=st.integers(1, 9), least=st.integers(1, 4)
)
def test_against_a_loop_over_pairs(seed, cameras, people, least):
    rng = np.random.default_rng(seed)
    labels = Labels.of(by_first_appearance(rng.integers(-1, 4, 50)))
    of_image, local = rng.integers(0, cameras, 50), rng.integers(-1, people, 50)
    similarity = rng.random((50, 50)) * (rng.random((50, 50)) < 0.5)
    similarity = np.maximum(similarity, similarity.T)
    found = refine(known(of_image, local, similarity), labels, Options(min_size=least))
    expected = loop_over_pairs(labels.labels, of_image, local, similarity, least)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.clusters, labels.clusters)
    np.testing.assert_array_equal(found.states == "left-out", (labels.labels >= 0) & (expected < 0))
    assert found.figures["left_out"] == (found.states == "left-out").sum()
    inside = (found.labels >= 0) & (local >= 0)
    held = np.unique(np.column_stack([found.labels, of_image, local])[inside], axis=0)
    assert len(np.unique(held[:, :2], axis=0)) == len(held), (
        "a cluster holds two local clusters of one camera"
    )


def test_lookalikes_that_share_a_camera_are_told_apart_in_the_others_too():
    """Two people as one cluster: camera 0 tells them apart; camera 1 and 2 follow by likeness."""
    who = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    cameras = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    local = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    similarity = np.where(who[:, None] == who, 0.6, 0.5)
    found = refine(known(cameras, local, similarity), Labels.of(np.zeros(8, int)), Options())
    np.testing.assert_array_equal(found.labels, who)
    assert (found.states == "split").all()
    assert found.figures == {"split": 1, "left_out": 0}


@pytest.mark.parametrize("local", [None, np.array([0, 0, 1, 1, 0, -1])])
def test_clusters_with_one_local_cluster_of_each_camera_stay(local):
    labels = Labels.of(np.array([0, 0, 1, 1, 1, -1]))
    found = refine(known(np.array([0, 0, 0, 0, 1, 1]), local, np.ones((6, 6))), labels, Options())
    np.testing.assert_array_equal(found.labels, labels.labels)
    np.testing.assert_array_equal(found.states, labels.states)
