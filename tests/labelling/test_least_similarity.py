"""What no clusterer can use is not stored: labels are the same to the bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.choices import Options
from icsr_cli.clusterers import average_linkage, dbscan, hdbscan, infomap
from icsr_cli.distances import camera_jaccard, camera_jaccard_similarity, jaccard, jaccard_similarity
from icsr_cli.errors import InputError
from icsr_cli.labelling import evidence_of, label, least_similarity
from icsr_cli.refiners import discard, majority, single_camera, split


def _people(seed: int, n: int, spread: float) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    people = generator.integers(0, max(1, n // 6), n)
    features = generator.standard_normal((n, 12))[people] + spread * generator.standard_normal((n, 12))
    return features.astype(np.float32), generator.integers(0, 3, n), generator.integers(0, 4, n)


def _chain(clusterer: Options, refiners: Any = (), distance: Options | None = None) -> Any:
    distance = distance or jaccard.Options(k1=8, k2=3)
    return SimpleNamespace(normalise="none", distance=distance, clusterer=clusterer, refiners=refiners)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(10, 120),
    spread=st.floats(0, 2),
    eps=st.floats(0.01, 0.99),
    least=st.integers(1, 6),
    aware=st.booleans(),
)
def test_dbscan_gives_the_same_labels(
    seed: int, n: int, spread: float, eps: float, least: int, aware: bool
) -> None:
    features, cameras, local = _people(seed, n, spread)
    distance = camera_jaccard.Options(own=2, cross=4) if aware else jaccard.Options(k1=8, k2=3)
    refiners = (discard.Options(), split.Options(), majority.Options(), single_camera.Options())
    chain = _chain(dbscan.Options(eps=eps, min_samples=least), refiners, distance)
    whole, lean = (
        evidence_of(features, chain, cameras=cameras, local=local, least=bound)
        for bound in (0.0, least_similarity(chain))
    )
    expected, found = label(whole, chain), label(lean, chain)
    np.testing.assert_array_equal(found.clusters, expected.clusters)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert lean.similarity.nnz <= whole.similarity.nnz
    assert "silhouette" in expected.figures
    assert "silhouette" not in found.figures
    assert "cohesion" not in found.columns


def test_a_radius_that_is_a_stored_distance_keeps_its_pairs() -> None:
    """The hardest radius: that of a pair, as it is rounded."""
    features, _, _ = _people(0, 90, 0.8)
    whole = jaccard_similarity(features, 8, 3)
    for value in np.unique(whole.data[whole.data < 1])[::40]:
        options = dbscan.Options(eps=float(np.float32(1) - value), min_samples=2)
        lean = jaccard_similarity(features, 8, 3, least=options.least_similarity)
        expected, found = (dbscan.dbscan(one, options.eps, 2) for one in (whole, lean))
        np.testing.assert_array_equal(found, expected)


def test_fewer_pairs_are_stored() -> None:
    features, cameras, _ = _people(1, 200, 1.5)
    chain = _chain(dbscan.Options(eps=0.5))
    whole, lean = (
        evidence_of(features, chain, cameras=cameras, least=bound).similarity
        for bound in (0.0, least_similarity(chain))
    )
    assert lean.nnz < whole.nnz / 2


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_what_is_stored_is_what_was(backend: Any) -> None:
    features, _, _ = _people(2, 90, 1)
    whole = jaccard_similarity(features, 8, 3, backend=backend).toarray()
    lean = jaccard_similarity(features, 8, 3, backend=backend, least=0.3).toarray()
    np.testing.assert_array_equal(lean, np.where(whole >= 0.3, whole, 0))


def test_clusterers_that_use_every_pair_say_so() -> None:
    for options in (
        dbscan.Options(eps="auto"),
        hdbscan.Options(),
        average_linkage.Options(distance_threshold=0.5),
    ):
        assert least_similarity(_chain(options)) == 0
    assert least_similarity(_chain(infomap.Options())) == 1
    # A method of somebody else's says nothing: it may read all of them.
    assert least_similarity(_chain(dbscan.Options(), (Options(),))) == 0


def test_least_is_a_similarity() -> None:
    features, cameras, _ = _people(3, 20, 1)
    for least in (1.5, -0.5):
        with pytest.raises(InputError, match="least must be 0 to 1"):
            jaccard_similarity(features, 8, 3, least=least)
        with pytest.raises(InputError, match="least must be 0 to 1"):
            camera_jaccard_similarity(features, cameras, least=least)
