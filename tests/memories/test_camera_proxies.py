"""Camera proxies against a loop over images, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from icsr_cli.memories.camera_proxies import Memory, Options
from icsr_cli.types import Epoch, Labels, by_first_appearance


def epoch_of(seed: int, n: int = 60, d: int = 12, cameras: int = 4, clusters: int = 7) -> Epoch:
    rng = np.random.default_rng(seed)
    labels = by_first_appearance(rng.integers(-1, clusters, n))
    features = normalize(torch.from_numpy(rng.standard_normal((n, d)).astype(np.float32)), dim=1)
    return Epoch(1, features, rng.integers(0, cameras, n), Labels.of(labels))


def batch_of(epoch: Epoch, seed: int, size: int = 16) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.choice(np.flatnonzero(epoch.labels.labels >= 0), size))
    return torch.from_numpy(rng.standard_normal((size, epoch.features.shape[1]))).float(), images


def slowly(epoch: Epoch, features: Tensor, images: Tensor, options: Options) -> Tensor:
    """The formulas, image by image, in float64."""
    labels, cameras = epoch.labels.labels, epoch.cameras
    pairs = sorted({(y, c) for y, c in zip(labels.tolist(), cameras.tolist(), strict=True) if y >= 0})
    proxies = torch.stack(
        [
            normalize(
                epoch.features[torch.from_numpy((labels == y) & (cameras == c))].double().mean(0), dim=0
            )
            for y, c in pairs
        ]
    )
    intra, inter = [], []
    for f, image in zip(normalize(features.double(), dim=1), images.tolist(), strict=True):
        y, c = labels[image], cameras[image]
        s = proxies @ f / options.temperature
        own = pairs.index((y, c))
        under = [s[k] for k, (_, camera) in enumerate(pairs) if camera == c]
        intra.append(torch.logsumexp(torch.stack(under), 0) - s[own])
        if options.positives == "own":
            positive = [own]
        else:
            positive = [k for k, (cluster, camera) in enumerate(pairs) if cluster == y and camera != c]
        others = torch.stack([s[k] for k, (cluster, _) in enumerate(pairs) if cluster != y])
        negative = others.sort(descending=True).values[: options.negatives].exp().sum()
        if not positive:
            continue
        pulled = sum(s[k].exp() for k in positive)
        parts = []
        for k in positive:
            denominator = (pulled if options.form == "joint" else s[k].exp()) + negative
            parts.append(torch.log(denominator) - s[k])
        inter.append(torch.stack(parts).mean())
    total = torch.stack(inter).mean() if inter else torch.zeros((), dtype=torch.float64)
    across = associated_slowly(pairs, proxies, labels, cameras, features, images, options)
    return options.intra * torch.stack(intra).mean() + options.inter * total + options.association * across


def associated_slowly(
    pairs: Any, proxies: Tensor, labels: Any, cameras: Any, features: Tensor, images: Tensor, options: Options
) -> Tensor:
    """The association across clusters, image by image, in float64."""
    losses = []
    for f, image in zip(normalize(features.double(), dim=1), images.tolist(), strict=True):
        y, own = labels[image], pairs.index((labels[image], cameras[image]))
        likeness = options.trust * proxies @ f.detach() + (1 - options.trust) * proxies @ proxies[own]
        best = {
            camera: max((float(likeness[k]), k) for k, (_, c) in enumerate(pairs) if c == camera)
            for camera in {c for _, c in pairs}
        }
        positive = [k for _, k in sorted(best.values(), reverse=True)[: options.associated]]
        s = proxies @ f / options.temperature
        negative = [k for k, (cluster, _) in enumerate(pairs) if cluster != y and k not in positive]
        nearest = sorted(negative, key=lambda k: -s[k].item())[: options.negatives]
        every = torch.logsumexp(s[positive + nearest], 0)
        losses.append((every - s[positive]).sum() / len(positive))
    return torch.stack(losses).mean()


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    form=st.sampled_from(["ice", "joint"]),
    positives=st.sampled_from(["others", "own"]),
    negatives=st.sampled_from([1, 5, 50]),
    association=st.sampled_from([0, 0.6]),
    associated=st.sampled_from([1, 3, 9]),
)
def test_against_a_loop_over_images(
    seed: int, form: Any, positives: Any, negatives: int, association: float, associated: int
) -> None:
    options = Options(
        form=form,
        positives=positives,
        negatives=negatives,
        intra=0.7,
        inter=0.4,
        association=association,
        associated=associated,
    )
    epoch = epoch_of(seed)
    features, images = batch_of(epoch, seed + 1)
    one, other = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss = Memory(epoch, options).loss(one, images)
    expected = slowly(epoch, other, images, options)
    # 0.07 under float32 similarities of about 1e-7: 1e-6 relative to losses of up to some tens.
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, one)
    (slow,) = torch.autograd.grad(expected, other)
    torch.testing.assert_close(gradient.double(), slow.double(), rtol=1e-4, atol=1e-5)


def test_an_image_finds_its_person_in_another_cluster() -> None:
    """Two clusters of one person, under different cameras, and one of somebody else."""
    rng = np.random.default_rng(0)
    person, other = rng.standard_normal((2, 8))
    features = np.stack([person] * 8 + [other] * 4) + 0.1 * rng.standard_normal((12, 8))
    labels = Labels.of(np.repeat([0, 1, 2], 4))
    unit = normalize(torch.from_numpy(features.astype(np.float32)), dim=1)
    memory = Memory(Epoch(1, unit, np.repeat([0, 4, 1], 4), labels), Options(association=1, associated=2))
    found = memory._associated(unit[:1], torch.tensor([0]))
    assert found.tolist() == [[True, True, False]]


def test_of_two_equal_proxies_of_a_camera_the_first_is_found() -> None:
    unit = normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, 0.2]]), dim=1)
    labels = Labels.of(np.array([0, 1, 2]))
    memory = Memory(Epoch(1, unit, np.array([0, 3, 3]), labels), Options(association=1, associated=2))
    assert memory._associated(unit[:1], torch.tensor([0])).tolist() == [[True, True, False]]


def test_clusters_of_one_camera_have_no_inter_loss() -> None:
    labels = Labels.of(np.repeat(np.arange(6), 5))
    features = normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    epoch = Epoch(1, features, labels.labels % 3, labels)
    asked = features.clone().requires_grad_()
    loss = Memory(epoch, Options(intra=0)).loss(asked, torch.arange(30))
    assert loss.item() == 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert (asked.grad == 0).all()


def test_one_cluster_alone_has_no_negatives() -> None:
    features = normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    epoch = Epoch(1, features, np.arange(8) % 2, Labels.of(np.zeros(8, dtype=np.int64)))
    asked = features.clone().requires_grad_()
    loss = Memory(epoch, Options()).loss(asked, torch.arange(8))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert asked.grad is not None
    assert asked.grad.isfinite().all()


def test_the_loss_of_a_batch_twice_is_that_of_the_batch() -> None:
    epoch = epoch_of(3)
    features, images = batch_of(epoch, 4)
    memory = Memory(epoch, Options(association=0.5))
    twice = memory.loss(features.repeat(2, 1), images.repeat(2))
    torch.testing.assert_close(twice, memory.loss(features, images))


def test_the_update_goes_sample_by_sample() -> None:
    epoch = epoch_of(5)
    features, images = batch_of(epoch, 6)
    memory = Memory(epoch, Options(momentum=0.2))
    expected = memory.proxies.centroids.double()
    for f, image in zip(normalize(features.double(), dim=1), images.tolist(), strict=True):
        k = int(memory.proxy_of[image])
        expected[k] = normalize(0.2 * expected[k] + 0.8 * f, dim=0)
    memory.update(features, images)
    torch.testing.assert_close(memory.proxies.centroids.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("images", [1, 5])
def test_proxies_are_the_means_of_cluster_and_camera(images: int) -> None:
    epoch = epoch_of(images, clusters=images)
    memory = Memory(epoch, Options())
    for row, (cluster, camera) in enumerate(zip(memory.clusters, memory.cameras, strict=True)):
        own = (epoch.labels.labels == int(cluster)) & (epoch.cameras == int(camera))
        mean = normalize(epoch.features[torch.from_numpy(own)].mean(0), dim=0)
        torch.testing.assert_close(memory.proxies.centroids[row], mean, rtol=0, atol=1e-6)
