"""Camera-entropy weights and the camera-aware update, against loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from icsr_cli.memories import clusters
from icsr_cli.memories.camera_entropy import Memory, Options, entropy_weights
from icsr_cli.types import Epoch, Labels, by_first_appearance


def epoch_of(seed: int, cameras: int = 4) -> Epoch:
    rng = np.random.default_rng(seed)
    labels = by_first_appearance(rng.integers(-1, 7, 60))
    features = normalize(torch.from_numpy(rng.standard_normal((60, 12)).astype(np.float32)), dim=1)
    return Epoch(1, features, rng.integers(0, cameras, 60), Labels.of(labels))


def batch_of(epoch: Epoch, seed: int, size: int = 16) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.choice(np.flatnonzero(epoch.labels.labels >= 0), size))
    return torch.from_numpy(rng.standard_normal((size, 12))).float(), images


def weights_slowly(labels: list[int], cameras: list[int]) -> list[float]:
    entropy = {}
    for y in set(labels):
        seen = [c for label, c in zip(labels, cameras, strict=True) if label == y]
        shares = [seen.count(c) / len(seen) for c in set(seen)]
        entropy[y] = -sum(p * math.log2(p) for p in shares)
    total = sum(math.exp(h) for h in entropy.values())
    return [len(entropy) * math.exp(entropy[y]) / total for y in labels]


def test_two_by_two_and_four_cameras() -> None:
    """The example worked by hand: one label under two cameras, 2 + 2, another under four."""
    found = entropy_weights(torch.tensor([5] * 4 + [1] * 4), torch.tensor([0, 0, 1, 1, 0, 1, 2, 3]))
    expected = [2 / (1 + math.e)] * 4 + [2 * math.e / (1 + math.e)] * 4
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_loss_against_a_loop(seed: int) -> None:
    epoch = epoch_of(seed)
    features, images = batch_of(epoch, seed + 1)
    labels, cameras = (array[images.numpy()].tolist() for array in (epoch.labels.labels, epoch.cameras))
    weights = torch.tensor(weights_slowly(labels, cameras), dtype=torch.float64)
    centroids = clusters.centroids_of(epoch.features, epoch.labels.labels).double()
    one, other = features.clone().requires_grad_(), features.clone().requires_grad_()
    logits = normalize(other.double(), dim=1) @ centroids.T / 0.05
    expected = (weights * cross_entropy(logits, torch.tensor(labels), reduction="none")).mean()
    loss = Memory(epoch, Options()).loss(one, images)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, one)
    (slow,) = torch.autograd.grad(expected, other)
    torch.testing.assert_close(gradient.double(), slow.double(), rtol=1e-4, atol=1e-5)


def test_a_batch_twice_and_a_batch_of_one_camera() -> None:
    epoch = epoch_of(3)
    features, images = batch_of(epoch, 4)
    memory = Memory(epoch, Options())
    twice = memory.loss(features.repeat(2, 1), images.repeat(2))
    torch.testing.assert_close(twice, memory.loss(features, images))
    epoch = epoch_of(3, cameras=1)
    plain = clusters.Memory(epoch, clusters.Options()).loss(features, images)
    torch.testing.assert_close(Memory(epoch, Options()).loss(features, images), plain)


@pytest.mark.parametrize("hard", [False, True])
def test_other_updates_are_those_of_the_plain_memory(hard: bool) -> None:
    epoch = epoch_of(5)
    features, images = batch_of(epoch, 6)
    plain = clusters.Memory(epoch, clusters.Options(hard=hard))
    memory = Memory(epoch, Options(update="hard" if hard else "samples"))
    for one in (plain, memory):
        one.update(features, images)
    torch.testing.assert_close(memory.clusters.centroids, plain.clusters.centroids, rtol=0, atol=0)


def hardest_slowly(x: Any, cameras: list[int], z: Any) -> int:
    best, chosen = -math.inf, -1
    for row, one in enumerate(x):
        u = np.mean([x[k] for k in range(len(x)) if cameras[k] == cameras[row]], axis=0)
        u /= np.linalg.norm(u)
        a, b = 1 - one @ z, 1 + one @ u
        if a * b / (a + b) > best + 1e-9:
            best, chosen = a * b / (a + b), row
    return chosen


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_camera_aware_update_against_a_loop(seed: int) -> None:
    epoch = epoch_of(seed)
    features, images = batch_of(epoch, seed + 1)
    memory = Memory(epoch, Options(update="camera-hard"))
    expected = memory.clusters.centroids.double().numpy().copy()
    unit = normalize(features.double(), dim=1).numpy()
    labels, cameras = (array[images.numpy()] for array in (epoch.labels.labels, epoch.cameras))
    for y in np.unique(labels):
        rows = np.flatnonzero(labels == y)
        row = rows[hardest_slowly(unit[rows], cameras[rows].tolist(), expected[y])]
        moved = 0.1 * expected[y] + 0.9 * unit[row]
        expected[y] = moved / np.linalg.norm(moved)
    memory.update(features, images)
    np.testing.assert_allclose(memory.clusters.centroids, expected, atol=1e-6)


def test_the_first_of_equals_moves_the_centroid() -> None:
    """Two images of one cluster that mirror each other about its centroid, under different cameras."""
    labels = Labels.of(np.zeros(2, dtype=np.int64))
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    memory = Memory(Epoch(1, normalize(features, dim=1), np.arange(2), labels), Options(update="camera-hard"))
    memory.update(features, torch.arange(2))
    assert memory.clusters.centroids[0, 1] > 0
