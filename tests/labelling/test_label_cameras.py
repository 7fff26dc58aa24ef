from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from icsr_cli.clusterers import average_linkage
from icsr_cli.distances import camera_jaccard, jaccard, jaccard_similarity
from icsr_cli.labelling import label_cameras
from icsr_cli.types import by_first_appearance


def test_each_camera_is_clustered_as_if_it_were_alone():
    rng = np.random.default_rng(5)
    cameras = rng.choice(7, size=400, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.03, 0.02])
    features = rng.standard_normal((30, 16))[rng.integers(0, 30, 400)] + 0.4 * rng.standard_normal((400, 16))
    settings = SimpleNamespace(normalise="none", distance=jaccard.Options(k1=8, k2=3))
    clusterer = average_linkage.Options(distance_threshold=0.7)
    found = label_cameras(features.astype(np.float32), settings, clusterer, cameras)
    for camera in range(7):
        rows = cameras == camera
        similarity = jaccard_similarity(features[rows].astype(np.float32), 8, 3)
        alone = average_linkage.average_linkage(similarity, distance_threshold=0.7)
        np.testing.assert_array_equal(by_first_appearance(found[rows]), alone)
    assert found.max() > 10


def test_a_camera_of_fewer_images_than_clusters_are_asked_for_has_one_for_each():
    features = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    settings = SimpleNamespace(normalise="none", distance=jaccard.Options())
    clusterer = average_linkage.Options(n_clusters=10)
    found = label_cameras(features, settings, clusterer, np.repeat([0, 1], [22, 8]))
    assert len(np.unique(found[:22])) == 10
    assert found[22:].tolist() == list(range(8))


def test_a_distance_by_camera_knows_the_camera():
    features = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    settings = SimpleNamespace(normalise="none", distance=camera_jaccard.Options())
    clusterer = average_linkage.Options(n_clusters=5)
    assert label_cameras(features, settings, clusterer, np.repeat([0, 1], [22, 8])).max() == 4
