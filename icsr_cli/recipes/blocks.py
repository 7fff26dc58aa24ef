"""The blocks of a network: which modules they are, and how deep each parameter lies."""

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from torch import nn

from icsr_cli.optimizers.common import Trained


def trained_parameters(network: nn.Module, epochs: int) -> Trained:
    """Give the parameters of ``network`` that train, for so many ``epochs``; its backbone is ``base``."""
    found = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    depths = _depths(network)
    # What the backbone's own recipe spares weight decay: positions, class tokens.
    spared = {f"base.{name}" for name in getattr(network.base, "no_weight_decay", set)()}
    return Trained(
        [value for _, value in found],
        names=[name for name, _ in found],
        depths=[depths[name] for name, _ in found],
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


def _depths(network: nn.Module) -> dict[str, int]:
    """Give the block of each parameter, by name, counted from 0 at the images.

    timm's networks have their own count, in which a head and what stands on the backbone are the last. A
    ResNet counts by stage: the layers before the first are 0, what stands on the last is one deeper.
    """
    names = {name: name.removeprefix("base.") for name, _ in network.named_parameters()}
    base = cast("nn.Module", network.base)
    if hasattr(base, "group_matcher"):
        from timm.models import group_parameters

        matcher = cast("Any", base).group_matcher(coarse=False)
        # It asks a module for its names alone, and counts those that it does not know as the head's.
        named: Any = SimpleNamespace(named_parameters=lambda: dict.fromkeys(names.values()).items())
        inner = group_parameters(named, matcher, reverse=True)
        return {name: inner[own] for name, own in names.items()}
    of_child: dict[str, int] = {}
    depth = 0
    for child, module in base.named_children():
        depth += next(module.children(), None) is not None
        of_child[child] = depth
    return {
        name: of_child[own.partition(".")[0]] if name.startswith("base.") else depth + 1
        for name, own in names.items()
    }
