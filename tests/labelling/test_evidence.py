"""What evidence says of images, where it answers from one search for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from icsr_cli.distances import jaccard, knn
from icsr_cli.labelling.evidence import KnownEvidence


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_fewer_neighbours_than_were_searched_hold_the_image_itself(kind: str) -> None:
    """Of 40 copies of each image, 30 are searched and 15 asked for."""
    drawn = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    features = np.repeat(drawn, 40, axis=0)
    given = features if kind == "numpy" else torch.from_numpy(features)
    evidence = KnownEvidence(given, jaccard.Options(), 30)
    found, expected = evidence.neighbours(15), knn(features, 15, metric="cosine")
    assert found.cosine
    np.testing.assert_array_equal(np.asarray(found.indices), expected.indices)
    np.testing.assert_array_equal(np.asarray(found.distances), expected.distances)
    assert (np.asarray(evidence.nearest.indices) == np.arange(200)[:, None]).sum(axis=1).tolist() == [1] * 200
