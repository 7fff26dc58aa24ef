"""The blocks of a network: which modules they are, and how deep each parameter lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from icsr_cli.optimizers.common import Trained


def trained_parameters(network: nn.Module, epochs: int) -> Trained:
    """Give the parameters of ``network`` that train, for so many ``epochs``.

    ``network`` has its backbone in ``base``; what stands on that is one block deeper than its last.
    """
    found = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    depths = _depths(cast("nn.Module", network.base))
    above = max(depths.values(), default=-1) + 1
    spared = {f"base.{name}" for name in _spared(network.base)}
    return Trained(
        [value for _, value in found],
        names=[name for name, _ in found],
        depths=[depths.get(name.removeprefix("base."), above) for name, _ in found],
        decays=[
            value.ndim > 1 and not name.endswith(".bias") and name not in spared for name, value in found
        ],
        epochs=epochs,
    )


def blocks(base: nn.Module) -> Iterator[nn.Module]:
    """Give the blocks of a backbone: what its own matcher of groups says (timm), else those of its stages."""
    patterns = r"\w+\.\d+"
    if hasattr(base, "group_matcher"):
        said = cast("Any", base).group_matcher(coarse=False)["blocks"]
        patterns = said if isinstance(said, str) else "|".join(f"(?:{pattern})" for pattern, _ in said)
    for name, module in base.named_modules():
        if re.fullmatch(patterns, name) and next(module.children(), None) is not None:
            yield module


def _depths(base: nn.Module) -> dict[str, int]:
    """Give the block of each parameter of a backbone, by name, counted from 0 at the images.

    A ResNet counts by stage: the layers before the first are 0.
    """
    if hasattr(base, "group_matcher"):
        from timm.models import group_parameters

        matcher = cast("Any", base).group_matcher(coarse=False)
        return cast("dict[str, int]", group_parameters(base, matcher, reverse=True))
    depths: dict[str, int] = {}
    depth = 0
    for child, module in base.named_children():
        depth += next(module.children(), None) is not None
        depths |= {f"{child}.{name}": depth for name, _ in module.named_parameters()}
    return depths


def _spared(base: Any) -> set[str]:
    """Name what the backbone's own recipe spares weight decay: positions, class tokens."""
    return set(base.no_weight_decay()) if hasattr(base, "no_weight_decay") else set()
