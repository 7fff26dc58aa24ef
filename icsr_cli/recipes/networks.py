"""The networks that there are: one table of facts for ``icsr models``."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from icsr_cli.models import architecture, available, build
from icsr_cli.models.backbones.timm import SHOWN
from icsr_cli.models.catalogue import nearest_size
from icsr_cli.models.unfilled import unfilled


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
    paper: str | None


def names() -> tuple[str, ...]:
    """Name the architectures of our own families, and some of timm's."""
    return (*available(), *SHOWN)


def facts(arch: str, height: int, width: int) -> NetworkFacts:
    """Look at an architecture, without a single number in it.

    A transformer whose patches do not divide the images is looked at in the nearest size that they do.
    Raises InputError where there is no such architecture, or it cannot be made for such images.
    """
    with unfilled():
        network = build(arch, size=nearest_size((height, width), architecture(arch).patch)).eval()
    size = network.size or (height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, *size, device="meta"))
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
        arch,
        *size,
        network.dim,
        network.pooling,
        *cost,
        norm.name,
        norm.mean,
        norm.std,
        weights,
        chosen.paper,
    )
