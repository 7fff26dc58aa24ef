"""BatchNorm in groups against a forward pass of each group."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from icsr_cli.models import build
from icsr_cli.models.batch_norm import group_batch_norm


def layer(dim: int) -> nn.Module:
    torch.manual_seed(0)
    norm = (nn.BatchNorm1d if dim == 2 else nn.BatchNorm2d)(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(norm)


@pytest.mark.parametrize("shape", [(16, 6), (16, 6, 5, 4)])
def test_each_group_is_normalised_alone(shape: tuple[int, ...]) -> None:
    plain, grouped = layer(len(shape)), layer(len(shape))
    group_batch_norm(grouped, 4)
    one = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    wanted = [copy.deepcopy(plain) for _ in range(4)]
    expected = torch.cat([norm(part) for norm, part in zip(wanted, one.split(4), strict=True)])
    found = grouped(other)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(shape, dtype=torch.float64)
    (expected * weight).sum().backward()  # type: ignore[no-untyped-call]
    (found * weight).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(other.grad, one.grad)
    total = sum(norm[0].weight.grad for norm in wanted)  # type: ignore[index,union-attr]
    torch.testing.assert_close(grouped[0].weight.grad, total)  # type: ignore[index,union-attr]
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(norm[0], name) for norm in wanted]).mean(dim=0)  # type: ignore[index]
        torch.testing.assert_close(getattr(grouped[0], name), mean)  # type: ignore[index]
    grouped.eval()
    plain.load_state_dict(grouped.state_dict())
    assert torch.equal(grouped(other), plain.eval()(other))


@pytest.mark.parametrize("arch", ["resnet_small", "timm:test_efficientnet"])
def test_one_group_of_all_is_the_usual_one_to_the_bit(arch: str) -> None:
    """The second one's BatchNorm holds an activation."""
    plain = build(arch, size=(32, 16), seed=1)
    grouped = build(arch, size=(32, 16), seed=1)
    group_batch_norm(grouped, 8)
    images = torch.randn(8, 3, 32, 16)
    assert torch.equal(plain.train()(images), grouped.train()(images))
    assert all(torch.equal(value, grouped.state_dict()[name]) for name, value in plain.state_dict().items())
    assert torch.equal(plain.eval()(images), grouped.eval()(images))
