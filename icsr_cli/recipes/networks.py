"""The networks that there are: one table of facts for ``icsr models``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from icsr_cli.models import architecture, available, build
from icsr_cli.models.backbones.timm import SHOWN
from icsr_cli.models.catalogue import nearest_size


@dataclass(frozen=True)
class Weights:
    """Weights of an architecture that are published: trained on what, under which licence, where they are."""

    trained_on: str
    licence: str
    address: str


@dataclass(frozen=True)
class NetworkFacts:
    """One architecture at one size of images.

    ``parameters`` of the backbone; ``multiply_adds`` of one image, convolutions and products of matrices.
    ``normalisation``, ``mean`` and ``std``: of its pixels, where the weights do not say another.
    """

    arch: str
    height: int
    width: int
    features: int
    pooling: str
    parameters: int
    multiply_adds: int
    normalisation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: tuple[Weights, ...]


class _Unfilled(TorchFunctionMode):
    """Leaves tensors that hold no numbers as they are: filling them takes longer than to look at them."""

    FILL = frozenset(
        getattr(torch.Tensor, name) for name in ("normal_", "uniform_", "erfinv_", "clamp_", "mul_", "add_")
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in self.FILL else func(*args, **(kwargs or {}))


def names() -> tuple[str, ...]:
    """Name the architectures of our own families, and some of timm's."""
    return (*available(), *SHOWN)


def facts(arch: str, height: int, width: int) -> NetworkFacts:
    """Look at an architecture, without a single number in it.

    A transformer whose patches do not divide the images is looked at in the nearest size that they do.
    Raises InputError where there is no such architecture, or it cannot be made for such images.
    """
    with torch.device("meta"), _Unfilled():
        network = build(arch, size=nearest_size((height, width), architecture(arch).patch)).eval()
    size = network.size or (height, width)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, *size))
    chosen = network.architecture
    known = [("ImageNet", chosen.source)] if chosen.source else []
    weights = tuple(
        Weights(trained_on, source.licence, source.address)
        for trained_on, source in [*known, *chosen.pages.items()]
    )
    backbone = [value for name, value in network.named_parameters() if name.startswith(("base.", "neck."))]
    cost = sum(value.numel() for value in backbone), counter.get_total_flops() // 2
    norm = network.norm
    return NetworkFacts(
        arch, *size, network.dim, network.pooling, *cost, norm.name, norm.mean, norm.std, weights
    )
