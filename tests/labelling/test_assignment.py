"""New images to known clusters, or to nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icsr_cli.errors import InputError
from icsr_cli.labelling.assignment import KnownClusters, assign, estimate


def _world(seed: int, n: int, people: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, people, n)
    labels[:4] = [0, 0, 1, 1]
    features = generator.standard_normal((people + 1, 6))[labels] + spread * generator.standard_normal((n, 6))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(4, 40), people=st.integers(2, 8), spread=st.floats(0.05, 2)
)
def test_against_every_distance_taken_alone(seed: int, n: int, people: int, spread: float) -> None:
    features, labels = _world(seed, n, people, spread)
    new, _ = _world(seed + 1, n, people, spread)
    known = KnownClusters.of(features, labels)
    squared = ((new[:, None].astype(float) - features) ** 2).sum(axis=2)
    numbers = sorted(set(labels[labels >= 0].tolist()))
    table = np.sqrt(np.column_stack([squared[:, labels == number].mean(axis=1) for number in numbers]))
    found = assign(new, known)
    np.testing.assert_array_equal(known.numbers, numbers)
    np.testing.assert_allclose(found.distances, table.min(axis=1), atol=1e-3)
    chosen = np.searchsorted(numbers, found.nearest)
    np.testing.assert_allclose(table[np.arange(n), chosen], table.min(axis=1), atol=1e-3)
    limit = float(np.median(table))
    np.testing.assert_array_equal(found.within(limit) == -1, found.distances > limit)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(4, 30), people=st.integers(2, 6), spread=st.floats(0.05, 2)
)
def test_the_estimate_against_leaving_each_image_out(seed: int, n: int, people: int, spread: float) -> None:
    features, labels = _world(seed, n, people, spread)
    exact = features.astype(float)
    own, other = [], []
    for row in range(n):
        mates = (labels == labels[row]) & (np.arange(n) != row)
        if labels[row] < 0 or not mates.any():
            continue
        distance = ((exact - exact[row]) ** 2).sum(axis=1)
        own.append(np.sqrt(distance[mates].mean()))
        rest = set(labels.tolist()) - {-1, labels[row]}
        other.append(min(np.sqrt(distance[labels == number].mean()) for number in rest))
    own, other = np.array(own), np.array(other)
    best = max(
        (((own <= t) & (own < other)).mean() + (other > t).mean() for t in np.concatenate([own, other])),
    )
    found = estimate(features, labels)
    known_rate, new_rate = ((own <= found) & (own < other)).mean(), (other > found).mean()
    assert known_rate + new_rate == pytest.approx(best, abs=2.1 / len(own))


def test_tensors_and_people_apart() -> None:
    features = torch.eye(4).repeat_interleave(3, dim=0) + 0.01 * torch.rand(12, 4)
    labels = np.array([7, 7, 7, 2, 2, 2, 5, 5, 5, -1, -1, -1])
    known = KnownClusters.of(features, labels)
    assert known.numbers.tolist() == [2, 5, 7]
    assert known.sizes.tolist() == [3, 3, 3]
    found = estimate(features, labels)
    assert assign(features, known).within(found).tolist() == labels.tolist()
    assert len(assign(features[:0], known).nearest) == 0


def test_what_cannot_be_assigned_to() -> None:
    features = np.eye(4, dtype=np.float32)
    with pytest.raises(InputError, match="at least one cluster"):
        KnownClusters.of(features, np.full(4, -1))
    with pytest.raises(InputError, match="two clusters"):
        estimate(features, np.zeros(4, dtype=np.int64))
    with pytest.raises(InputError, match="two clusters"):
        estimate(features, np.arange(4))
    with pytest.raises(InputError, match=r"shape \(n, d\)"):
        KnownClusters.of(np.ones(4), np.zeros(4, dtype=np.int64))
