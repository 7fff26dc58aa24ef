"""Features by the statistics of each camera against layers that are computed one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from icsr_cli.models.batch_norm import group_batch_norm, statistics_of_the_batch
from icsr_cli.recipes.camera_features import BATCH, batch_size, extract_by_camera


def network_of(seed: int) -> nn.Sequential:
    """Two BatchNorms of maps and one of vectors, each with statistics of its own, in float64."""
    torch.manual_seed(seed)
    layers = [nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.BatchNorm1d(5)).double().eval()
    for norm in (network[0], network[2], network[5]):
        for values in (norm.weight.data, norm.bias.data, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0.5, 2)
    return network


def slowly(network: nn.Sequential, images: Tensor) -> Tensor:
    """AdaBN of one batch by its definition, channel by channel."""
    share = len(images) / (len(images) + 25)
    for layer in network:
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            images = layer(images)
            continue
        found = torch.empty_like(images)
        for c in range(images.shape[1]):
            values = images[:, c].numpy()
            mean = share * values.mean() + (1 - share) * float(layer.running_mean[c])
            variance = share * values.var() + (1 - share) * float(layer.running_var[c])
            scaled = (images[:, c] - mean) / np.sqrt(variance + layer.eps)
            found[:, c] = scaled * layer.weight[c] + layer.bias[c]
        images = found
    return images


@settings(deadline=None, max_examples=40)
@given(
    cameras=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    most=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_each_camera_by_its_own_statistics(cameras: list[int], most: int, seed: int) -> None:
    network, of = network_of(seed), np.array(cameras)
    images = (
        torch.randn(len(of), 3, 6, 4, dtype=torch.float64) * 2 + torch.from_numpy(of)[:, None, None, None]
    )
    batches: list[np.ndarray] = []
    expected = torch.empty(len(of), 5, dtype=torch.float64)

    def embed(rows: np.ndarray, size: int) -> Tensor:
        found = []
        for first in range(0, len(rows), size):
            batch = rows[first : first + size]
            batches.append(batch)
            found.append(network(images[batch]))
        return torch.cat(found)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("icsr_cli.recipes.camera_features.BATCH", most)
        found = extract_by_camera(network, of, seed, embed)
        for batch in batches:
            expected[batch] = slowly(network, images[batch])
    torch.testing.assert_close(found, expected)
    assert sorted(np.concatenate(batches)) == list(range(len(of)))
    assert all(len(np.unique(of[batch])) == 1 for batch in batches)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5000))
def test_batches_are_nearly_equal_and_of_about_256(images: int) -> None:
    size = batch_size(images)
    parts = -(-images // size)
    assert size <= 1.5 * BATCH
    assert size >= min(images, BATCH / 1.5 - 1)
    assert images - (parts - 1) * size > size - parts


def test_the_draw_follows_the_seed_and_no_image_stands_with_its_neighbours() -> None:
    def rows_of(seed: int) -> list[int]:
        drawn: list[int] = []

        def embed(rows: np.ndarray, size: int) -> Tensor:
            drawn.extend(rows.tolist())
            return torch.zeros(len(rows), 1)

        extract_by_camera(nn.Identity(), np.arange(100) // 50, seed, embed)
        return drawn

    assert rows_of(1) == rows_of(1) != rows_of(2)
    assert rows_of(1)[:50] != sorted(rows_of(1)[:50]) == list(range(50))


def test_what_a_camera_does_to_colours_is_gone() -> None:
    """With many images, whatever a camera multiplies and adds in a channel leaves no trace."""
    network = network_of(0)
    plain = torch.randn(5000, 3, 6, 4, dtype=torch.float64)
    images = torch.cat([plain, plain * torch.tensor([2.0, 0.5, 1.5]).view(3, 1, 1) + 3])
    cameras = np.arange(10_000) // 5000
    with torch.no_grad():
        found = extract_by_camera(network, cameras, 0, lambda rows, size: _together(network, images, rows))
        apart = network(images)
    one, other = found.chunk(2)
    first, second = apart.chunk(2)
    assert (one - other).norm() < 0.05 * (first - second).norm()


def _together(network: nn.Module, images: Tensor, rows: np.ndarray) -> Tensor:
    return network(images[rows])


def test_the_running_statistics_come_back_whatever_happens() -> None:
    network = network_of(0).float()
    group_batch_norm(network, 4)
    norms = [module for module in network if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.running_mean, norm.running_mean.clone(), norm.running_var) for norm in norms]
    images = torch.randn(8, 3, 6, 4)
    usual = network(images)
    with statistics_of_the_batch(network):
        assert not torch.equal(network(images), usual)
    with statistics_of_the_batch(network), pytest.raises(RuntimeError):
        network(torch.randn(8, 4, 6, 4))
    for norm, (mean, values, variance) in zip(norms, before, strict=True):
        assert norm.running_mean is mean
        assert torch.equal(mean, values)
        assert norm.running_var is variance
    assert torch.equal(network(images), usual)
